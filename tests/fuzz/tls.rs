//! TLS through a core: a conversation cut at every byte comes to the same, and a damaged one ends while others are served.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use ringway::base::rng::Rng;
use ringway::link::handover::Spoken;
use ringway::runtime::driver::Wanted;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::Extent;
use super::connections::{has_io_uring, limits, listen, objects};
use super::inprocess::House;
use super::mutate::Mutator;

const ASK: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
/// Damaged conversations by default.
const CONVERSATIONS: u64 = 300;
/// An honest client asks after so many.
const CANARY_EVERY: u64 = 25;

/// A core that speaks TLS, and how clients speak with it.
struct Secure {
    house: House,
    certificate: CertificateDer<'static>,
}

impl Secure {
    fn open(wanted: Wanted) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("a certificate");
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let quoted = |pem: &str| pem.replace('\r', "").replace('\n', "\\n");
        let ssls =
            format!("ssls: [{{id: a, sni: a.test, cert: \"{}\", key: \"{}\"}}]", quoted(&cert), quoted(&key));
        let spoken = Spoken { is_tls: true, ..Spoken::default() };
        let house = House::open_to(spoken, wanted, limits(), &format!("{}\n{ssls}\n", objects()), || {});
        Self { house, certificate: made.cert.der().clone() }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), ServerName::try_from("a.test").expect("a name"))
            .expect("a client")
    }

    /// Asks once, all that is said cut in two at one byte: what came back, and how much was said.
    fn ask(
        &self,
        version: &'static SupportedProtocolVersion,
        cut: usize,
    ) -> Result<(Vec<u8>, usize), String> {
        let (mut stream, mut client) = (self.house.connect(), self.client(version));
        client.writer().write_all(ASK).expect("room");
        let (mut said, mut out, mut heard) = (0, Vec::new(), Vec::new());
        loop {
            out.clear();
            while client.wants_write() {
                client.write_tls(&mut out).expect("a vector takes all");
            }
            let (first, rest) = out.split_at(cut.saturating_sub(said).min(out.len()));
            for piece in [first, rest] {
                stream.write_all(piece).map_err(|error| error.to_string())?;
                std::thread::yield_now();
            }
            said += out.len();
            if client.read_tls(&mut stream).map_err(|error| format!("{error} after {heard:?}"))? == 0 {
                return Ok((heard, said));
            }
            client.process_new_packets().map_err(|error| error.to_string())?;
            match client.reader().read_to_end(&mut heard) {
                Ok(_) => return Ok((heard, said)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// An answer without what differs from one to the next.
fn body(answer: &[u8]) -> (&[u8], &[u8]) {
    (&answer[..answer.len().min(15)], &answer[answer.len().saturating_sub(6)..])
}

fn cut_everywhere(wanted: Wanted) {
    let secure = Secure::open(wanted);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (whole, length) = secure.ask(version, 0).expect("an answer");
        assert_eq!(body(&whole), (&b"HTTP/1.1 200 OK"[..], &b"hello\n"[..]), "{}", whole.escape_ascii());
        for cut in 1..length {
            let (answer, _) =
                secure.ask(version, cut).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            assert_eq!(body(&answer), body(&whole), "cut at {cut}: {}", answer.escape_ascii());
        }
        println!("{version:?}: {length} bytes, cut at each");
        secure.house.take_reports();
    }
}

#[test]
fn a_conversation_cut_at_every_byte_comes_to_the_same_io_uring() {
    if has_io_uring() {
        cut_everywhere(Wanted::IoUring);
    }
}

#[test]
fn a_conversation_cut_at_every_byte_comes_to_the_same_epoll() {
    cut_everywhere(Wanted::Epoll);
}

/// Says hello as it should, and something else than it should from some byte on.
fn damaged(wanted: Wanted) {
    let secure = Secure::open(wanted);
    for seed in Extent::of(CONVERSATIONS).seeds() {
        let mut rng = Rng::seeded(seed);
        let version = if rng.below(2) == 0 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
        let (mut stream, mut client) = (secure.house.connect(), secure.client(version));
        client.writer().write_all(ASK).expect("room");
        let flights = rng.below(3);
        for flight in 0..=flights {
            let mut out = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut out).expect("a vector takes all");
            }
            let mut said = Vec::new();
            if flight < flights {
                said.clone_from(&out);
            } else {
                let words: &[&[u8]] = &[
                    b"\x16\x03\x03",
                    b"\x17\x03\x03\0\x01x",
                    b"\x15\x03\x03\0\x02\x01\0",
                    b"\xff\xff",
                    b"\0",
                ];
                Mutator { samples: &[&out], words }.mutate(&mut rng, &mut said);
            }
            if stream.write_all(&said).is_err() || flight == flights {
                break;
            }
            if !hear(&mut client, &mut stream) {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        // Panics where it stays open.
        listen(&mut stream);
        if seed % CANARY_EVERY == 0 {
            let (answer, _) =
                secure.ask(version, 0).unwrap_or_else(|error| panic!("FUZZ_SEED={seed}: {error}"));
            assert_eq!(body(&answer).1, b"hello\n", "FUZZ_SEED={seed}");
        }
        secure.house.take_reports();
    }
}

/// Whether there was something to hear, and all was well with it.
fn hear(client: &mut ClientConnection, stream: &mut TcpStream) -> bool {
    matches!(client.read_tls(stream), Ok(1..)) && client.process_new_packets().is_ok()
}

#[test]
fn damaged_conversations_end_io_uring() {
    if has_io_uring() {
        damaged(Wanted::IoUring);
    }
}

#[test]
fn damaged_conversations_end_epoll() {
    damaged(Wanted::Epoll);
}
