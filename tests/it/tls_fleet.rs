//! TLS where there is more than one gateway, or somebody who takes a certificate back: tickets that a fleet shares, and lists of
//! what was revoked.

use std::fs;

use rustls::HandshakeKind;
use serde_json::{Value, json};

use crate::kit::{Caller, Certs, Gateway, Origin, Setup, eventually, ringway};

fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs
}

fn ssl(certs: &Certs, id: &str, name: &str) -> Value {
    let (cert, key) = certs.issued("ca", id, &format!("DNS:{name}"));
    json!({"id": id, "snis": [name], "cert": cert, "key": key})
}

/// The same, asking clients for a certificate by the authority.
fn asking(certs: &Certs, id: &str, name: &str) -> Value {
    let mut ssl = ssl(certs, id, name);
    ssl["client"] = json!({"ca": fs::read_to_string(certs.path("ca.crt")).unwrap()});
    ssl
}

fn serving(origin: &Origin, ssls: &[&Value]) -> Setup {
    Gateway::routing("/*", [origin])
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": ssls}).to_string())
}

#[test]
fn a_ticket_is_taken_by_every_gateway_that_has_its_secret() {
    let (certs, origin) = (certs(), Origin::replying("hello"));
    certs.issued("ca", "friend", "DNS:friend.test");
    let (plain, closed) = (ssl(&certs, "a", "a.test"), asking(&certs, "m", "m.test"));
    for (name, text) in [
        ("old", "an old secret of the fleet, long enough"),
        ("new", "a new secret of the fleet, long enough"),
    ] {
        fs::write(certs.path(name), text).unwrap();
    }
    let gateway = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| certs.path(key)).collect();
        serving(&origin, &[&plain, &closed])
            .settings(&json!({"ssl": {"ticket_keys": keys}}).to_string())
            .start()
    };
    let (old, both, new, alone) =
        (gateway(&["old"]), gateway(&["new", "old"]), gateway(&["new"]), gateway(&[]));
    for (own, name) in [(None, "a.test"), (Some("friend"), "m.test")] {
        for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
            let caller = Caller::speaking(&certs, "ca", own, versions);
            let visit = |gateway: &Gateway| {
                let mut client = caller.client(gateway.secure_address(), name);
                client.request("GET", "/", &[("host", name)], b"").expect(200, "hello");
                client.raw.wire.tls().handshake_kind()
            };
            assert_eq!(visit(&old), Some(HandshakeKind::Full), "{name}");
            assert_eq!(visit(&old), Some(HandshakeKind::Resumed), "{name}");
            // The secret is replaced gateway by gateway, and nobody notices.
            assert_eq!(visit(&both), Some(HandshakeKind::Resumed), "{name}");
            assert_eq!(visit(&new), Some(HandshakeKind::Resumed), "{name}");
            assert_eq!(visit(&alone), Some(HandshakeKind::Full), "{name}");
        }
    }
}

#[test]
fn a_secret_of_tickets_that_is_none_ends_the_start() {
    let (certs, origin) = (certs(), Origin::replying("hello"));
    fs::write(certs.path("short"), "short").unwrap();
    for (name, expected) in [("short", "expected 32 to 4096 bytes"), ("nowhere", "No such file")] {
        let settings = json!({"ssl": {"ticket_keys": [certs.path(name)]}}).to_string();
        let (code, said) = Gateway::routing("/*", [&origin]).settings(&settings).start_and_fail();
        assert!(code != 0 && said.contains("ssl.ticket_keys") && said.contains(expected), "{code} {said}");
    }
}

#[test]
fn a_revoked_certificate_is_turned_away_also_on_an_open_connection() {
    let (certs, origin) = (certs(), Origin::replying("hello"));
    for name in ["friend", "former"] {
        certs.issued("ca", name, &format!("DNS:{name}.test"));
    }
    let mut ssl = asking(&certs, "m", "m.test");
    ssl["client"]["crl"] = json!(certs.revoking("ca", &[]));
    let setup = serving(&origin, &[&ssl]);
    let gateway = setup.start();
    let call = |own| Caller::new(&certs, "ca", Some(own)).client(gateway.secure_address(), "m.test");
    let mut open = call("former");
    open.request("GET", "/", &[("host", "m.test")], b"").expect(200, "hello");
    ssl["client"]["crl"] = json!(certs.revoking("ca", &["former"]));
    let route =
        json!({"id": "1", "uri": "/*", "upstream": {"type": "roundrobin", "nodes": {origin.node(): 1}}});
    gateway.reload(&json!({"routes": [route], "ssls": [ssl]}).to_string(), &[]);
    eventually("the list counts", || {
        let status = open.request("GET", "/", &[("host", "m.test")], b"").status;
        (status == 400).then_some(())
    });
    call("former").request("GET", "/", &[("host", "m.test")], b"").expect_status(400);
    call("friend").request("GET", "/", &[("host", "m.test")], b"").expect(200, "hello");
}

#[test]
fn a_list_of_revoked_certificates_that_is_none_is_a_fault() {
    let certs = certs();
    let dir = tempfile::tempdir().unwrap();
    let ca = fs::read_to_string(certs.path("ca.crt")).unwrap();
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let (old, list) = (certs.revoking_as_of_old("ca", &[]), certs.revoking("ca", &[]));
    let second = format!("{list}{old}");
    for (crl, found) in [
        ("no PEM", "found none"),
        (ca.as_str(), "found CERTIFICATE as number 1"),
        (broken, "found what is none as number 1"),
        (second.as_str(), "found version 1 as number 2"),
    ] {
        let mut ssl = asking(&certs, "m", "m.test");
        ssl["client"]["crl"] = json!(crl);
        fs::write(dir.path().join("r.yaml"), format!("{}\n#END\n", json!({"ssls": [ssl]}))).unwrap();
        let (code, said) = ringway(dir.path(), &["check", "--resources", "r.yaml"]);
        let expected =
            "client.crl: expected lists of revoked certificates in PEM (X.509 CRL version 2, RFC 5280 5.1)";
        assert!(code == 3 && said.contains(expected) && said.contains(found), "{code} {said}");
    }
}
