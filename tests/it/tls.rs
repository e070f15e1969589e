//! Clients over TLS: which certificate they are shown, what they must show, and that nothing else differs from a connection
//! in clear.

use std::io::Read as _;
use std::time::Duration;

use rustls::HandshakeKind;
use serde_json::json;

use crate::kit::{Caller, Certs, Conn, Ended, Gateway, Origin, Raw, Setup, eventually, within};

on_both_drivers!(
    a_client_is_shown_the_certificate_of_the_name_it_asks_for,
    nothing_changes_however_the_bytes_of_tls_are_cut,
    large_bodies_pass_both_ways,
    a_websocket_passes_bytes_both_ways_over_tls,
    a_client_that_rests_is_served_when_it_comes_back,
    what_is_not_tls_is_told_so,
    a_slow_hello_is_cut_off,
    a_client_leaves_in_the_middle_of_a_handshake,
    who_must_show_a_certificate_is_let_in_by_it_alone,
    so_many_certificates_may_stand_between_a_clients_and_the_authority,
    a_connection_to_one_host_opens_no_other,
    a_changed_certificate_is_shown_at_once_and_open_connections_stay,
    a_ticket_is_taken_by_every_core,
    versions_are_those_that_the_ssl_allows,
    who_can_verify_none_of_the_certificates_is_told_so,
    variables_tell_what_was_agreed_on,
    an_answer_without_length_ends_as_tls_ends,
    who_leaves_while_events_are_awaited_is_noticed,
);

/// An authority, and certificates of its making for a.test, b.test and clients.
fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs
}

/// An ssl of a new certificate by `ca` for these names.
fn ssl(certs: &Certs, id: &str, names: &[&str]) -> serde_json::Value {
    let alternatives: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let (cert, key) = certs.issued("ca", id, &alternatives.join(","));
    json!({"id": id, "snis": names, "cert": cert, "key": key})
}

/// A gateway over TLS before an origin, with these ssls.
fn serving(origin: &Origin, ssls: &[serde_json::Value]) -> Setup {
    Gateway::routing("/*", [origin])
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": ssls}).to_string())
}

/// The names in the certificate that was shown.
#[track_caller]
fn shown(raw: &mut Raw) -> String {
    raw.wire.shake().expect("a handshake");
    let certificates = raw.wire.tls().peer_certificates().expect("a certificate");
    String::from_utf8_lossy(&certificates[0]).into_owned()
}

fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let (certs, origin) = (certs(), Origin::naming());
    let ssls = [
        ssl(&certs, "exact", &["a.test"]),
        ssl(&certs, "wild", &["*.a.test", "*.c.a.test"]),
        ssl(&certs, "other", &["b.test", "A2.test"]),
    ];
    let gateway = serving(&origin, &ssls).start();
    let caller = Caller::new(&certs, "ca", None);
    for (name, id) in [("a.test", "exact"), ("x.a.test", "wild"), ("b.test", "other"), ("a2.test", "other")] {
        let mut raw = caller.call(gateway.secure_address(), name);
        assert!(shown(&mut raw).contains(id), "{name}");
        raw.send(format!("GET /{name} HTTP/1.1\r\nHost: {name}\r\n\r\n"))
            .answer()
            .expect(200, &format!("GET /{name}"));
    }
    // A wildcard is for one label.
    for name in ["y.x.a.test", "c.test", "test"] {
        let refused = caller.call(gateway.secure_address(), name).wire.shake().expect_err("no certificate");
        assert!(refused.to_string().contains("UnrecognisedName"), "{name}: {refused}");
    }
    let mut nameless = Raw::connect(gateway.secure_address());
    let session = rustls::ClientConnection::new(
        std::sync::Arc::clone(&caller.config),
        rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap(),
    );
    nameless.wire = nameless.wire.secured(session.unwrap(), 4096);
    assert!(nameless.wire.shake().expect_err("no name").to_string().contains("UnrecognisedName"));
    eventually("refusals are counted", || {
        let count = |name| gateway.metric(name) == Some(4.0);
        (count("ringway_tls_handshake_errors_total{") && count("ringway_tls_handshakes_total{")).then_some(())
    });
    gateway.wait_said(&["no certificate for"]);
    let end = gateway.metric("ringway_certificate_not_after_seconds{ssl=\"exact\"").expect("an end");
    let days = (end - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()) / 86_400.0;
    assert!((29.0..31.0).contains(&days), "{days}");
}

fn nothing_changes_however_the_bytes_of_tls_are_cut() {
    let (certs, origin) = (certs(), Origin::echoing());
    // On a busy machine a byte at a time takes its time.
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])])
        .settings("limits: {handshake_timeout: 120, head_timeout: 120, body_timeout: 120}")
        .start();
    let body: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        for piece in [1, 2, 3, 5, 6, 17, 100, 1000] {
            let caller = Caller::speaking(&certs, "ca", None, versions).cutting(piece);
            let mut client = caller.client(gateway.secure_address(), "a.test");
            for _ in 0..2 {
                let answer = client.request("POST", "/", &[("host", "a.test")], &body);
                assert!(answer.status == 200 && answer.body == body, "pieces of {piece}");
            }
        }
    }
}

fn large_bodies_pass_both_ways() {
    let (certs, origin) = (certs(), Origin::echoing());
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    let mut client = Caller::new(&certs, "ca", None).client(gateway.secure_address(), "a.test");
    for _ in 0..2 {
        let answer = client.request("POST", "/", &[("host", "a.test")], &body);
        assert!(answer.status == 200 && answer.body == body);
    }
    assert_eq!(origin.connections(), 1);
}

fn a_websocket_passes_bytes_both_ways_over_tls() {
    const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let certs = certs();
    let origin = Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    });
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).route("enable_websocket: true").start();
    let mut raw = Caller::new(&certs, "ca", None).call(gateway.secure_address(), "a.test");
    raw.send(ASK).answer().expect_status(101);
    for size in [1, 100, 40_000] {
        let mut got = Vec::new();
        raw.send("x".repeat(size));
        raw.wire.exactly(size as u64, |piece| got.extend_from_slice(piece)).expect("an echo");
        assert!(got.iter().all(|byte| *byte == b'X'));
    }
}

fn a_client_that_rests_is_served_when_it_comes_back() {
    let (certs, origin) = (certs(), Origin::naming());
    // So soon that it rests at once.
    let gateway =
        serving(&origin, &[ssl(&certs, "a", &["a.test"])]).settings("limits: {keepalive_timeout: 1}").start();
    let mut client = Caller::new(&certs, "ca", None).client(gateway.secure_address(), "a.test");
    let ask = |client: &mut crate::kit::Client, path: &str| {
        client.request("GET", path, &[("host", "a.test")], b"").expect(200, &format!("GET {path}"));
    };
    ask(&mut client, "/1");
    eventually("the connection rests", || {
        (gateway.metric("ringway_connections{core=\"0\",state=\"idle\"}") == Some(1.0)).then_some(())
    });
    ask(&mut client, "/2");
    // Two requests in one record.
    client.raw.send("GET /3 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /4 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answers = client.raw.answers(2);
    answers[0].expect(200, "GET /3");
    answers[1].expect(200, "GET /4");
}

fn what_is_not_tls_is_told_so() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let mut raw = Raw::connect(gateway.secure_address());
    let answer = raw.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").answer();
    answer.expect_status(400);
    assert!(answer.text().contains("plain_http_over_tls"), "{}", answer.text());
    raw.expect_closed();
    for bytes in [
        &b"\x80\x2e\x01\x00\x02"[..],
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x02\0\0\0\0",
        b"\0",
    ] {
        let (said, ended) = Raw::connect(gateway.secure_address()).send(bytes).rest();
        assert!(said == [21, 3, 3, 0, 2, 2, 50] && ended != Ended::Open, "{bytes:?}: {said:?}");
    }
    // A record that is none, where a handshake is under way.
    let mut hello = Vec::new();
    let caller = Caller::new(&certs, "ca", None);
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut session = rustls::ClientConnection::new(std::sync::Arc::clone(&caller.config), name).unwrap();
    session.write_tls(&mut hello).unwrap();
    let mut raw = Raw::connect(gateway.secure_address());
    raw.send(&hello)
        .send([23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    let (_, ended) = raw.rest();
    assert!(ended != Ended::Open);
    assert_eq!(gateway.metric("ringway_panics_total"), Some(0.0));
}

fn a_slow_hello_is_cut_off() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])])
        .settings("limits: {handshake_timeout: 0.3}")
        .start();
    let mut raw = Raw::connect(gateway.secure_address());
    raw.send([22, 3, 1, 1, 0, 1]);
    assert_ne!(raw.rest().1, Ended::Open);
    // In the middle of the handshake, too.
    let mut raw = Caller::new(&certs, "ca", None).call(gateway.secure_address(), "a.test");
    let mut hello = Vec::new();
    raw.wire.tls_mut().write_tls(&mut hello).unwrap();
    std::io::Write::write_all(&mut &**raw.wire.stream(), &hello).unwrap();
    let mut all = Vec::new();
    (&**raw.wire.stream()).read_to_end(&mut all).unwrap();
    assert!(!all.is_empty(), "the server has begun to answer");
}

fn a_client_leaves_in_the_middle_of_a_handshake() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let caller = Caller::new(&certs, "ca", None);
    for at in 0..40 {
        let mut raw = caller.call(gateway.secure_address(), "a.test");
        let mut hello = Vec::new();
        raw.wire.tls_mut().write_tls(&mut hello).unwrap();
        let cut = hello.len() * at / 40;
        std::io::Write::write_all(&mut &**raw.wire.stream(), &hello[..cut]).unwrap();
        raw.wire.break_off();
    }
    eventually("all of them are gone", || {
        (gateway.metric("ringway_connections{core=\"0\",state=\"active\"}") == Some(0.0)).then_some(())
    });
    let mut client = caller.client(gateway.secure_address(), "a.test");
    client.request("GET", "/", &[("host", "a.test")], b"").expect(200, "GET /");
}

/// An ssl that asks clients for a certificate by `ca`, but under /open.
fn asking(certs: &Certs, id: &str, names: &[&str]) -> serde_json::Value {
    let mut ssl = ssl(certs, id, names);
    let ca = std::fs::read_to_string(certs.path("ca.crt")).unwrap();
    ssl["client"] = json!({"ca": ca, "depth": 1, "skip_mtls_uri_regex": ["^/open"]});
    ssl
}

fn who_must_show_a_certificate_is_let_in_by_it_alone() {
    let (certs, origin) = (certs(), Origin::naming());
    certs.issued("ca", "friend", "DNS:friend.test");
    certs.authority("stranger-ca");
    certs.issued("stranger-ca", "stranger", "DNS:stranger.test");
    let gateway = serving(&origin, &[asking(&certs, "m", &["m.test"])]).start();
    let ask = |own: Option<&str>, path: &str| {
        let mut client = Caller::new(&certs, "ca", own).client(gateway.secure_address(), "m.test");
        let answer = client.request("GET", path, &[("host", "m.test")], b"");
        if answer.open {
            client.request("GET", path, &[("host", "m.test")], b"").expect_status(answer.status);
        }
        (answer.status, answer.text())
    };
    assert_eq!(ask(Some("friend"), "/"), (200, "GET /".to_owned()));
    for own in [None, Some("stranger")] {
        let (status, body) = ask(own, "/");
        assert!(status == 400 && body.contains("client_certificate"), "{own:?}: {status} {body}");
        assert_eq!(ask(own, "/open/door"), (200, "GET /open/door".to_owned()));
        // The path that rules see counts, not its spelling.
        assert_eq!(ask(own, "/open/../secret").0, 400);
    }
}

fn so_many_certificates_may_stand_between_a_clients_and_the_authority() {
    let (certs, origin) = (certs(), Origin::naming());
    for (issuer, name) in [("ca", "one"), ("one", "two")] {
        certs.between(issuer, name);
    }
    let (ssls, names) = (["0", "1", "2"], ["d0.test", "d1.test", "d2.test"]);
    let asking = |at: usize| {
        let mut ssl = asking(&certs, ssls[at], &[names[at]]);
        ssl["client"]["depth"] = json!(at);
        ssl
    };
    let gateway = serving(&origin, &[asking(0), asking(1), asking(2)]).start();
    let pem = |name: &str| std::fs::read_to_string(certs.path(&format!("{name}.crt"))).unwrap();
    for (between, issuer, chain) in
        [(0, "ca", vec![]), (1, "one", vec!["one"]), (2, "two", vec!["two", "one"])]
    {
        let (own, _) = certs.issued(issuer, "client", "DNS:client.test");
        let all: String = std::iter::once(own).chain(chain.iter().map(|name| pem(name))).collect();
        std::fs::write(certs.path("client.crt"), all).unwrap();
        for (depth, name) in names.iter().enumerate() {
            let mut client = Caller::new(&certs, "ca", Some("client")).client(gateway.secure_address(), name);
            let status = client.request("GET", "/", &[("host", name)], b"").status;
            assert_eq!(status, if between <= depth { 200 } else { 400 }, "{between} between, depth {depth}");
        }
    }
}

fn a_connection_to_one_host_opens_no_other() {
    let (certs, origin) = (certs(), Origin::naming());
    certs.issued("ca", "friend", "DNS:friend.test");
    let ssls = [
        ssl(&certs, "p", &["p.test", "p2.test"]),
        asking(&certs, "m", &["m.test"]),
        asking(&certs, "n", &["n.test"]),
    ];
    let gateway = serving(&origin, &ssls).start();
    let caller = Caller::new(&certs, "ca", Some("friend"));
    for (name, host, status) in [
        ("p.test", "p.test", 200),
        ("p.test", "p2.test", 200),
        ("p.test", "elsewhere.test", 200),
        ("p.test", "m.test", 421),
        ("p.test", "M.TEST.", 421),
        ("p.test", "m.test:9443", 421),
        ("m.test", "m.test", 200),
        ("m.test", "m.test:9443", 200),
        ("m.test", "n.test", 400),
        ("m.test", "p.test", 400),
    ] {
        let mut client = caller.client(gateway.secure_address(), name);
        let answer = client.request("GET", "/", &[("host", host)], b"");
        assert_eq!(answer.status, status, "{host} over a connection to {name}: {}", answer.text());
    }
}

fn a_changed_certificate_is_shown_at_once_and_open_connections_stay() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway = Gateway::managed().settings("ssl: {listen: ['127.0.0.1:0']}").start();
    let route = json!({"uri": "/*", "upstream": {"nodes": {origin.node(): 1}}});
    gateway.admin().put("/routes/1", &route.to_string());
    let put = |id: &str| {
        let mut ssl = ssl(&certs, id, &["a.test"]);
        ssl.as_object_mut().unwrap().remove("id");
        gateway.admin().put("/ssls/1", &ssl.to_string());
    };
    let caller = Caller::new(&certs, "ca", None);
    put("first");
    let mut early = caller.call(gateway.secure_address(), "a.test");
    assert!(shown(&mut early).contains("first"));
    put("second");
    assert!(shown(&mut caller.call(gateway.secure_address(), "a.test")).contains("second"));
    early.send("GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().expect(200, "GET /1");
    gateway.admin().ask("DELETE", "/ssls/1", &[], "").expect_status(200);
    early.send("GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().expect(200, "GET /2");
    assert!(caller.call(gateway.secure_address(), "a.test").wire.shake().is_err());
}

fn a_ticket_is_taken_by_every_core() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway =
        serving(&origin, &[ssl(&certs, "a", &["a.test"]), asking(&certs, "m", &["m.test"])]).cores(2).start();
    let caller = Caller::new(&certs, "ca", None);
    let visit = |name: &str| {
        let mut client = caller.client(gateway.secure_address(), name);
        let status = client.request("GET", "/open", &[("host", name)], b"").status;
        assert_eq!(status, 200);
        client.raw.wire.tls().handshake_kind()
    };
    assert_eq!(visit("a.test"), Some(HandshakeKind::Full));
    for _ in 0..12 {
        assert_eq!(visit("a.test"), Some(HandshakeKind::Resumed));
    }
    // Not at another host.
    assert_eq!(visit("m.test"), Some(HandshakeKind::Full));
    let closed =
        serving(&origin, &[ssl(&certs, "a", &["a.test"])]).settings("ssl: {session_tickets: false}").start();
    for _ in 0..2 {
        let mut client = Caller::new(&certs, "ca", None).client(closed.secure_address(), "a.test");
        client.request("GET", "/", &[("host", "a.test")], b"").expect_status(200);
        assert_eq!(client.raw.wire.tls().handshake_kind(), Some(HandshakeKind::Full));
    }
}

fn versions_are_those_that_the_ssl_allows() {
    let (certs, origin) = (certs(), Origin::naming());
    let mut old = ssl(&certs, "old", &["old.test"]);
    old["ssl_protocols"] = json!(["TLSv1.2"]);
    let mut new = ssl(&certs, "new", &["new.test"]);
    new["ssl_protocols"] = json!(["TLSv1.3"]);
    let gateway = serving(&origin, &[old, new]).start();
    for (name, versions, is_spoken) in [
        ("old.test", &[&rustls::version::TLS12], true),
        ("old.test", &[&rustls::version::TLS13], false),
        ("new.test", &[&rustls::version::TLS12], false),
        ("new.test", &[&rustls::version::TLS13], true),
    ] {
        let caller = Caller::speaking(&certs, "ca", None, versions);
        let shaken = caller.call(gateway.secure_address(), name).wire.shake();
        assert_eq!(shaken.is_ok(), is_spoken, "{name} {versions:?}: {shaken:?}");
    }
}

fn who_can_verify_none_of_the_certificates_is_told_so() {
    let (certs, origin) = (certs(), Origin::naming());
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let to = gateway.secure_address().to_string();
    // As a scanner asks, or a client from before there were curves.
    for only in [
        ["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
    ] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["s_client", "-connect", &to, "-servername", "a.test"]).args(only);
        let out = openssl.stdin(std::process::Stdio::null()).output().expect("openssl");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("handshake failure"), "{only:?}: {said}");
    }
}

fn variables_tell_what_was_agreed_on() {
    let (certs, origin) = (certs(), Origin::naming());
    certs.issued("ca", "friend", "DNS:friend.test");
    let format = "$uri|$ssl_server_name|$ssl_protocol|$ssl_cipher|$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$scheme";
    let gateway = serving(&origin, &[asking(&certs, "m", &["m.test"])])
        .settings(&json!({"access_log": {"format": format}}).to_string())
        .start();
    for (own, path) in [(Some("friend"), "/open/friend"), (None, "/open/none")] {
        let mut client = Caller::new(&certs, "ca", own).client(gateway.secure_address(), "m.test");
        client.request("GET", path, &[("host", "m.test")], b"").expect_status(200);
        assert_eq!(origin.saw(path).header("x-forwarded-proto"), Some("https"));
    }
    gateway.get("/plain").expect_status(200);
    assert_eq!(
        ["/open/friend", "/open/none", "/plain"].map(|path| gateway.logged_text(path).trim().to_owned()),
        [
            "/open/friend|m.test|TLSv1.3|TLS_AES_256_GCM_SHA384|SUCCESS|CN=friend,O=Ringway|CN=authority.test|https",
            "/open/none|m.test|TLSv1.3|TLS_AES_256_GCM_SHA384|NONE|||https",
            "/plain|||||||http",
        ]
    );
}

fn an_answer_without_length_ends_as_tls_ends() {
    let certs = certs();
    let origin = Origin::sending_and_closing("HTTP/1.0 200 OK\r\n\r\nall of it");
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let mut raw = Caller::new(&certs, "ca", None).call(gateway.secure_address(), "a.test");
    raw.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let mut all = Vec::new();
    // rustls takes an end without a word for a fault.
    assert_eq!(raw.wire.rest(|piece| all.extend_from_slice(piece)), Ended::Closed);
    assert!(all.ends_with(b"all of it"), "{}", all.escape_ascii());
}

fn who_leaves_while_events_are_awaited_is_noticed() {
    let origin = Origin::serving(|conn: &mut Conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 0\n\n");
        conn.wait_for_the_end();
    });
    let certs = certs();
    let gateway = serving(&origin, &[ssl(&certs, "a", &["a.test"])]).start();
    let caller = Caller::new(&certs, "ca", None);
    for at in 1..=2 {
        let mut raw = caller.call(gateway.secure_address(), "a.test");
        raw.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(raw.try_head().unwrap().status, 200);
        // As TLS ends, and without a word.
        if at == 1 {
            raw.wire.tls_mut().send_close_notify();
            raw.wire.send(b"").unwrap();
        }
        raw.wire.finish();
        // Within a second, and what a busy machine adds.
        within(Duration::from_secs(2), "the node is left", || (origin.ended() == at).then_some(()));
    }
}
