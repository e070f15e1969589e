//! Two sessions that talk to each other, whatever way their bytes are cut and whatever is done to them.

use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::session::Taken;
use super::{Session, Stock};
use crate::base::rng::Rng;

/// Of a key on P-256, for a.test, by itself, until 2081.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBiDCCAS+gAwIBAgIUFOlAOaC3MEvvKdd0NG8id84Vld8wCgYIKoZIzj0EAwIw\n\
ETEPMA0GA1UEAwwGYS50ZXN0MCAXDTI2MTEyNzE1MDMzMloYDzIwODEwODMwMTUw\n\
MzMyWjARMQ8wDQYDVQQDDAZhLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
AATQ6koG8/Ly1olmxZRnJA2wCe4wZPWp96eWJN8XnoiteKqSolXHRjbCxoju5DVd\n\
bt9uciPN4dNfVUcdFJExgsdfo2MwYTAdBgNVHQ4EFgQU5bNn6kjdZDoDkU6JN8KK\n\
P8+aI5gwHwYDVR0jBBgwFoAU5bNn6kjdZDoDkU6JN8KKP8+aI5gwEQYDVR0RBAow\n\
CIIGYS50ZXN0MAwGA1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDRwAwRAIgEBZZoGPA\n\
3PfRL3mufTiDbq6EQXmdQFDqqSQI4YMG4wACIF+JPaWE7pRgFpFfwpcZJcKsBUb2\n\
7I4coWYpGAjMoh7J\n\
-----END CERTIFICATE-----";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUHfuIROPXEI4U/Y+\n\
L6Je2MQs9s0ZGQzMwkoR0bM815+hRANCAATQ6koG8/Ly1olmxZRnJA2wCe4wZPWp\n\
96eWJN8XnoiteKqSolXHRjbCxoju5DVdbt9uciPN4dNfVUcdFJExgsdf\n\
-----END PRIVATE KEY-----";

/// A server and a client that believes it.
fn pair(stock: &Rc<Stock>, versions: &[&'static SupportedProtocolVersion]) -> [Session; 2] {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a pair");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("a.test").expect("a name");
    [
        Session::server(Arc::new(server), stock).expect("a session"),
        Session::client(Arc::new(client), name, stock).expect("a session"),
    ]
}

/// What is under way from each of two to the other.
#[derive(Default)]
struct Ways([Vec<u8>; 2]);

impl Ways {
    /// Moves at most `count` bytes to a side's inbox.
    fn carry(&mut self, to: usize, side: &mut Session, count: usize) {
        let way = &mut self.0[to];
        let Ok(mut inbox) = side.take_inbox() else { return };
        let count = count.min(way.len()).min(inbox.capacity() - inbox.len());
        inbox.extend_from_slice(&way[..count]);
        way.drain(..count);
        side.put_inbox(inbox);
    }

    fn collect(&mut self, from: usize, side: &mut Session) {
        if let Some(outbox) = side.take_outbox() {
            self.0[1 - from].extend_from_slice(&outbox);
        }
    }
}

/// Has both agree, over ways on which bytes come in pieces of at most `piece`.
fn agree(sides: &mut [Session; 2], ways: &mut Ways, mut piece: impl FnMut() -> usize) {
    let mut are_done = [false; 2];
    while are_done != [true; 2] || !ways.0[0].is_empty() {
        for at in [1, 0] {
            ways.carry(at, &mut sides[at], piece());
            if !are_done[at] {
                are_done[at] = sides[at].shake().expect("no fault");
            }
            ways.collect(at, &mut sides[at]);
        }
        // Of the tickets that come behind, the client hears when it next listens.
        if are_done == [true; 2] && ways.0[0].is_empty() {
            break;
        }
    }
}

#[test]
fn what_is_said_arrives_whole_however_it_is_cut() {
    let seed = 31;
    let mut rng = Rng::seeded(seed);
    for round in 0..60 {
        let stock = Rc::new(Stock::default());
        let versions = if round % 2 == 0 { &ALL_VERSIONS[..1] } else { &ALL_VERSIONS[1..] };
        let mut sides = pair(&stock, versions);
        let mut ways = Ways::default();
        let most = [1, 7, 100, 5000, 100_000][round % 5];
        agree(&mut sides, &mut ways, || 1 + rng.below(most) as usize);
        let mut said = [Vec::new(), Vec::new()];
        let mut heard = [Vec::new(), Vec::new()];
        let total = [60_000, 200_000][round % 2];
        while heard.iter().any(|heard| heard.len() < total) {
            let at = rng.below(2) as usize;
            if said[at].len() < total && rng.below(3) == 0 {
                let count = (1 + rng.below(super::PIECE_BYTES as u64) as usize).min(total - said[at].len());
                let piece: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
                let encrypted = sides[at].encrypt(&piece).expect("open");
                ways.0[1 - at].extend_from_slice(&encrypted);
                stock.give_back(encrypted);
                said[at].extend_from_slice(&piece);
            }
            ways.carry(at, &mut sides[at], 1 + rng.below(most) as usize);
            let room = 1 + rng.below(9000) as usize;
            let mut into = Vec::with_capacity(room);
            match sides[at].take(&mut into, room) {
                Ok(Taken::Bytes(count)) => assert_eq!(count, into.len(), "seed {seed}, round {round}"),
                Ok(Taken::Hungry) => assert!(into.is_empty()),
                other => panic!("seed {seed}, round {round}: {other:?}"),
            }
            heard[at].extend_from_slice(&into);
        }
        assert!(heard[0] == said[1] && heard[1] == said[0], "seed {seed}, round {round}");
        // What nobody needs is given back.
        for side in &mut sides {
            assert!(side.settle(), "seed {seed}, round {round}");
        }
        let last = sides[0].goodbye().expect("open");
        ways.0[1].extend_from_slice(&last);
        ways.carry(1, &mut sides[1], usize::MAX);
        assert_eq!(sides[1].take(&mut Vec::with_capacity(9), 9).expect("no fault"), Taken::End);
        assert!(!sides[1].is_usable() && sides[0].goodbye().is_none());
        // Who was told so may still answer.
        let answer = sides[1].encrypt(b"so long").expect("half open");
        ways.0[0].extend_from_slice(&answer);
        ways.carry(0, &mut sides[0], usize::MAX);
        let mut into = Vec::with_capacity(64);
        assert_eq!(sides[0].take(&mut into, 64).expect("no fault"), Taken::Bytes(7));
    }
}

#[test]
fn no_changed_byte_panics_or_is_taken_for_what_was_said() {
    let seed = 32;
    let mut rng = Rng::seeded(seed);
    for round in 0..300 {
        let stock = Rc::new(Stock::default());
        let mut sides = pair(&stock, if round % 2 == 0 { &ALL_VERSIONS[..1] } else { &ALL_VERSIONS[1..] });
        let mut ways = Ways::default();
        let is_late = round % 3 == 0;
        if is_late {
            agree(&mut sides, &mut ways, || 4096);
            for (at, side) in sides.iter_mut().enumerate() {
                ways.0[1 - at].extend_from_slice(&side.encrypt(b"something to hear").expect("open"));
            }
        }
        let mut heard = Vec::with_capacity(64);
        for _ in 0..20 {
            let at = rng.below(2) as usize;
            if !ways.0[at].is_empty() && rng.below(2) == 0 {
                let place = rng.below(ways.0[at].len() as u64) as usize;
                match rng.below(3) {
                    0 => ways.0[at][place] ^= 1 << rng.below(8),
                    1 => drop(ways.0[at].drain(place..)),
                    _ => ways.0[at].insert(place, rng.below(256) as u8),
                }
            }
            let Ok(inbox) = sides[at].take_inbox() else { break };
            sides[at].put_inbox(inbox);
            ways.carry(at, &mut sides[at], 1 + rng.below(3000) as usize);
            if is_late {
                let _ = sides[at].take(&mut heard, 64);
                let _ = sides[at].encrypt(b"more");
            } else {
                let _ = sides[at].shake();
            }
            ways.collect(at, &mut sides[at]);
        }
        let heard = String::from_utf8_lossy(&heard).replace("something to hear", "");
        assert!(
            heard.is_empty() || heard.replace("more", "").is_empty(),
            "seed {seed}, round {round}: {heard:?}"
        );
    }
}

#[test]
fn part_of_a_record_that_rests_keeps_little_memory() {
    let stock = Rc::new(Stock::default());
    let mut sides = pair(&stock, ALL_VERSIONS);
    let mut ways = Ways::default();
    agree(&mut sides, &mut ways, || usize::MAX);
    let encrypted = sides[1].encrypt(b"hello").expect("open");
    ways.0[0].extend_from_slice(&encrypted);
    ways.carry(0, &mut sides[0], 6);
    let mut into = Vec::with_capacity(16);
    assert_eq!(sides[0].take(&mut into, 16).expect("no fault"), Taken::Hungry);
    sides[0].rest();
    assert!(sides[0].inbox_capacity() <= 16, "{}", sides[0].inbox_capacity());
    ways.carry(0, &mut sides[0], 1000);
    assert_eq!(sides[0].take(&mut into, 16).expect("no fault"), Taken::Bytes(5));
    assert_eq!(sides[0].inbox_capacity(), 0);
}
