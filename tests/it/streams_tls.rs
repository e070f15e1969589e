//! Streams and TLS: passed on by the name in the hello, ended here, spoken with nodes.

use serde_json::json;

use super::kit::{Caller, Certs, Conn, Ended, Gateway, Origin, Raw, as_node};
use super::streams::{expect_bytes, named, passing};

on_both_drivers!(
    tls_is_passed_on_by_the_name_that_is_asked_for,
    who_speaks_no_tls_goes_by_what_else_there_is,
    a_slow_hello_is_cut_off,
    tls_is_ended_here_and_routed_by_name,
    who_must_show_a_certificate_is_let_in_by_it_alone,
    nodes_are_spoken_to_over_tls,
    who_breaks_the_rules_of_tls_breaks_the_stream,
);

fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs
}

/// A node over TLS that says its name, then sends back what it gets.
fn secure_node(certs: &Certs, name: &'static str, host: &str) -> Origin {
    certs.issued("ca", name, &format!("DNS:{host}"));
    Origin::serving_over(as_node(certs, name, None), move |conn: &mut Conn| {
        conn.send(name.as_bytes());
        while let Ok(piece) = conn.wire().some() {
            if piece.is_empty() || !conn.send(&piece) {
                return;
            }
        }
    })
}

fn tls_is_passed_on_by_the_name_that_is_asked_for() {
    let certs = certs();
    let (one, two) = (secure_node(&certs, "one", "a.test"), secure_node(&certs, "two", "x.b.test"));
    let gateway = passing(
        "stream_routes:
           - {id: '1', sni: a.test, upstream: {nodes: {ONE: 1}}}
           - {id: '2', sni: '*.b.test', upstream: {nodes: {TWO: 1}, scheme: tcp}}",
        &[("ONE", &one), ("TWO", &two)],
    )
    .start();
    let address = gateway.stream_address("tcp");
    // However the bytes are cut.
    for piece in [usize::MAX, 1] {
        let caller = Caller::new(&certs, "ca", None).cutting(piece);
        for (host, name) in [("a.test", "one"), ("x.b.test", "two"), ("a.test", "one")] {
            let mut raw = caller.call(address, host);
            expect_bytes(&mut raw, name.as_bytes());
            raw.send("hello");
            expect_bytes(&mut raw, b"hello");
        }
    }
    let line = gateway.logged("\"sni\":\"x.b.test\"");
    assert_eq!((line["route_id"].as_str(), line["protocol"].as_str()), (Some("2"), Some("tcp")));
    let mut raw = Caller::new(&certs, "ca", None).call(address, "c.test");
    assert!(raw.wire.shake().is_err());
    assert_eq!(gateway.reason("\"sni\":\"c.test\""), "route_not_found");
}

fn who_speaks_no_tls_goes_by_what_else_there_is() {
    let (certs, other) = (certs(), named("other"));
    let one = secure_node(&certs, "one", "a.test");
    let gateway = passing(
        "stream_routes:
           - {id: '1', sni: a.test, upstream: {nodes: {ONE: 1}}}
           - {id: '2', upstream: {nodes: {OTHER: 1}}}",
        &[("ONE", &one), ("OTHER", &other)],
    )
    .settings("stream_proxy: {preread_timeout: 0.2}")
    .start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send("SSH-2.0-x\r\n");
    expect_bytes(&mut raw, b"otherSSH-2.0-x\r\n");
    // One who waits to be spoken to is, in the end.
    expect_bytes(&mut Raw::connect(gateway.stream_address("tcp")), b"other");
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.finish();
    expect_bytes(&mut raw, b"other");
}

fn a_slow_hello_is_cut_off() {
    let certs = certs();
    let one = secure_node(&certs, "one", "a.test");
    let gateway =
        passing("stream_routes: [{id: '1', sni: a.test, upstream: {nodes: {ONE: 1}}}]", &[("ONE", &one)])
            .settings("stream_proxy: {preread_timeout: 0.2, preread_bytes: 1024}")
            .start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send([22, 3, 1, 2, 0, 1]);
    raw.expect_closed();
    assert_eq!(gateway.reason("\"status\":408"), "preread_timeout");
    // A hello that is longer than may be read.
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    let mut hello = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0];
    hello.resize(1024, 0);
    raw.send(&hello);
    raw.expect_closed();
    assert_eq!(gateway.reason("\"error_code\":\"preread_too_large\""), "preread_too_large");
    assert_eq!(one.connections(), 0);
}

fn tls_is_ended_here_and_routed_by_name() {
    let (certs, one, two) = (certs(), named("one"), named("two"));
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test,DNS:b.test");
    let gateway = Gateway::resources(
        "stream_routes:
           - {id: '1', sni: a.test, upstream: {nodes: {ONE: 1}}}
           - {id: '2', sni: b.test, upstream: {nodes: {TWO: 1}}}",
        &[("ONE", &one), ("TWO", &two)],
    )
    .settings("stream_proxy: {tcp: [{address: 127.0.0.1, port: 0, tls: true}]}")
    .objects(
        &json!({"ssls": [{"id": "1", "snis": ["a.test", "b.test"], "cert": cert, "key": key}]}).to_string(),
    )
    .start();
    let address = gateway.stream_address("tls");
    let caller = Caller::new(&certs, "ca", None);
    for (host, name) in [("a.test", "one"), ("b.test", "two")] {
        let mut raw = caller.call(address, host);
        raw.send("early");
        expect_bytes(&mut raw, format!("{name}early").as_bytes());
        let large = vec![b'x'; 300_000];
        raw.send(&large);
        expect_bytes(&mut raw, &large);
        assert_eq!(raw.wire.tls().alpn_protocol(), None);
    }
    assert_eq!(gateway.logged("\"sni\":\"b.test\"")["protocol"], "tls");
    let mut raw = caller.call(address, "c.test");
    assert!(raw.wire.shake().is_err());
    Raw::connect(address).send("GET / HTTP/1.1\r\n\r\n").expect_closed();
}

fn who_must_show_a_certificate_is_let_in_by_it_alone() {
    let (certs, one) = (certs(), named("one"));
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test,IP:127.0.0.1");
    certs.issued("ca", "friend", "DNS:friend.test");
    let authority = std::fs::read_to_string(certs.path("ca.crt")).unwrap();
    let ssl = json!({"id": "1", "sni": "a.test", "cert": cert, "key": key, "client": {"ca": authority}});
    let gateway =
        Gateway::resources("stream_routes: [{id: '1', upstream: {nodes: {ONE: 1}}}]", &[("ONE", &one)])
            .settings("ssl: {fallback_sni: a.test}")
            .settings("stream_proxy: {tcp: [{address: 127.0.0.1, port: 0, tls: true}]}")
            .objects(&json!({"ssls": [ssl]}).to_string())
            .start();
    let address = gateway.stream_address("tls");
    expect_bytes(&mut Caller::new(&certs, "ca", Some("friend")).call(address, "a.test"), b"one");
    let mut raw = Caller::new(&certs, "ca", None).call(address, "a.test");
    assert!(raw.wire.exactly(1, |_| {}).is_err());
    assert_eq!(gateway.reason("\"status\":403"), "client_certificate");
    assert_eq!(one.connections(), 1);
    // Who names no host is taken for one that asks for this one, and is asked for as much.
    let mut raw = Caller::new(&certs, "ca", None).call(address, "127.0.0.1");
    assert!(raw.wire.exactly(1, |_| {}).is_err());
    expect_bytes(&mut Caller::new(&certs, "ca", Some("friend")).call(address, "127.0.0.1"), b"one");
    assert_eq!(one.connections(), 2);
}

fn nodes_are_spoken_to_over_tls() {
    let certs = certs();
    let node = secure_node(&certs, "one", "node.test");
    let gateway = passing(
        "stream_routes:
           - id: '1'
             upstream: {nodes: {NODE: 1}, scheme: tls, pass_host: rewrite, upstream_host: node.test}",
        &[("NODE", &node)],
    )
    .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
    .start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send("hello");
    expect_bytes(&mut raw, b"onehello");
    raw.finish().expect_closed();

    let gateway =
        passing("stream_routes: [{id: '1', upstream: {nodes: {NODE: 1}, scheme: tls}}]", &[("NODE", &node)])
            .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
            .start();
    Raw::connect(gateway.stream_address("tcp")).expect_closed();
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "upstream_tls_failed");
}

fn who_breaks_the_rules_of_tls_breaks_the_stream() {
    let (certs, plain) = (certs(), named("plain"));
    certs.issued("ca", "node", "DNS:node.test");
    // A node that wants a certificate, and is shown none.
    let strict = Origin::serving_over(as_node(&certs, "node", Some("ca")), |conn: &mut Conn| {
        let _ = conn.wire().shake();
    });
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let gateway = passing(
        "stream_routes:
           - {id: '1', sni: a.test, upstream: {nodes: {PLAIN: 1}}}
           - id: '2'
             upstream: {nodes: {STRICT: 1}, scheme: tls, pass_host: rewrite, upstream_host: node.test}",
        &[("PLAIN", &plain), ("STRICT", &strict)],
    )
    .settings("stream_proxy: {tcp: [{address: 127.0.0.1, port: 0, tls: true}]}")
    .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
    .objects(&json!({"ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}]}).to_string())
    .start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send("hello");
    assert_eq!(raw.rest(), (Vec::new(), Ended::Reset));
    assert_eq!(gateway.reason("\"status\":502"), "upstream_reset");

    let mut raw = Caller::new(&certs, "ca", None).call(gateway.stream_address("tls"), "a.test");
    expect_bytes(&mut raw, b"plain");
    // A record that nobody has encrypted.
    raw.wire.send_in_clear(b"\x17\x03\x03\x00\x14and not so many bytes");
    assert_eq!(gateway.reason("\"status\":499"), "client_reset");
}
