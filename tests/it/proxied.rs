//! Connections from a load balancer that says for whom they are: that one is the client, and only there is it believed.

use serde_json::json;

use crate::kit::{Caller, Certs, Ended, Gateway, Origin, Raw, Setup};

on_both_drivers!(
    the_client_is_whom_the_load_balancer_names,
    tls_comes_behind_the_header,
    a_connection_without_the_header_is_closed,
    a_stranger_is_not_believed,
    a_load_balancer_asks_for_itself,
    a_slow_header_is_cut_off,
    a_node_is_told_what_the_load_balancer_has_said,
);

const ONE: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n";
const TWO: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xd4\x31\x01\xbb";

/// A gateway that believes this machine.
fn believing(origin: &Origin) -> Setup {
    Gateway::routing("/*", [origin])
        .settings("proxy_protocol: {listen: '127.0.0.1:0', ssl_listen: '127.0.0.1:0', from: [127.0.0.1]}")
}

fn the_client_is_whom_the_load_balancer_names() {
    let origin = Origin::naming();
    let gateway = believing(&origin).start();
    for (at, header) in [ONE.as_bytes(), TWO].into_iter().enumerate() {
        let mut raw = Raw::connect(gateway.proxied_address(false));
        raw.send(header);
        for number in 0..2 {
            let path = format!("/{at}/{number}");
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"));
            raw.answer().expect(200, &format!("GET {path}"));
            let seen = origin.saw(&path);
            assert_eq!(seen.header("x-real-ip"), Some("192.0.2.7"));
            assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.7"));
            assert_eq!(gateway.logged(&path)["client_ip"], "192.0.2.7");
        }
    }
    // Both in one piece, and byte by byte.
    let mut raw = Raw::connect(gateway.proxied_address(false));
    raw.send(format!("{ONE}GET /one HTTP/1.1\r\nHost: a\r\n\r\n")).answer().expect(200, "GET /one");
    let mut raw = Raw::connect(gateway.proxied_address(false));
    raw.send_each(TWO.chunks(1)).send_each(b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1));
    raw.answer().expect(200, "GET /two");
    // Elsewhere such a header is no request.
    gateway.say(format!("{ONE}GET / HTTP/1.1\r\nHost: a\r\n\r\n")).expect_status(501);
}

fn tls_comes_behind_the_header() {
    let (origin, certs) = (Origin::naming(), Certs::new());
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let gateway = believing(&origin)
        .objects(&json!({"ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}]}).to_string())
        .start();
    let caller = Caller::new(&certs, "ca", None);
    for header in [ONE.as_bytes(), TWO] {
        let mut raw = caller.call(gateway.proxied_address(true), "a.test");
        raw.wire.send_in_clear(header);
        raw.send("GET /s HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().expect(200, "GET /s");
        let seen = origin.only();
        assert_eq!(seen.header("x-real-ip"), Some("192.0.2.7"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        origin.forget();
    }
    // The header in the same piece as the hello.
    let mut raw = caller.call(gateway.proxied_address(true), "a.test");
    let mut piece = ONE.as_bytes().to_vec();
    raw.wire.tls_mut().write_tls(&mut piece).unwrap();
    raw.wire.send_in_clear(&piece);
    raw.send("GET /t HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().expect(200, "GET /t");
}

fn a_connection_without_the_header_is_closed() {
    let origin = Origin::naming();
    let gateway = believing(&origin).start();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\x16\x03\x01\0\x05", b"PROXY TCP4 x y 1 2\r\n"]
    {
        for is_tls in [false, true] {
            let (said, ended) = Raw::connect(gateway.proxied_address(is_tls)).send(bytes).rest();
            assert!(said.is_empty() && ended != Ended::Open, "{}", bytes.escape_ascii());
        }
    }
    gateway.wait_said(&["closed a connection of 127.0.0.1", "expected a PROXY header"]);
    assert_eq!(origin.requests(), 0);
}

fn a_stranger_is_not_believed() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin])
        .settings("proxy_protocol: {listen: '127.0.0.1:0', from: [192.0.2.1]}")
        .start();
    let (said, ended) = Raw::connect(gateway.proxied_address(false)).send(ONE).rest();
    assert!(said.is_empty() && ended != Ended::Open);
    gateway.wait_said(&["expected a load balancer of proxy_protocol.from"]);
    // Without a list of their own, they are the trusted proxies.
    let gateway = Gateway::routing("/*", [&origin])
        .settings("proxy_protocol: {listen: '127.0.0.1:0'}")
        .settings("trusted_addresses: [127.0.0.0/8]")
        .start();
    let mut raw = Raw::connect(gateway.proxied_address(false));
    raw.send(format!("{ONE}GET / HTTP/1.1\r\nHost: a\r\n\r\n")).answer().expect(200, "GET /");
}

fn a_load_balancer_asks_for_itself() {
    let origin = Origin::naming();
    let gateway = believing(&origin).start();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut raw = Raw::connect(gateway.proxied_address(false));
        raw.send(header).send("GET /check HTTP/1.1\r\nHost: a\r\n\r\n").answer().expect(200, "GET /check");
        assert_eq!(origin.only().header("x-real-ip"), Some("127.0.0.1"));
        origin.forget();
    }
}

fn a_slow_header_is_cut_off() {
    let origin = Origin::naming();
    let gateway = believing(&origin).settings("limits: {head_timeout: 0.3}").start();
    let (said, ended) = Raw::connect(gateway.proxied_address(false)).send("PROXY TCP4 192.0.2.7").rest();
    assert!(said.is_empty() && ended != Ended::Open);
    gateway.wait_said(&["closed a connection of 127.0.0.1", "a PROXY header within limits.head_timeout"]);
    assert_eq!(gateway.metric("ringway_connections_refused_total"), Some(1.0));
}

fn a_node_is_told_what_the_load_balancer_has_said() {
    const SIX: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 54321 443\r\n";
    for (version, told) in [(1, ONE.as_bytes()), (2, TWO), (1, SIX)] {
        let origin = super::streams::echo();
        let upstream = format!("{{nodes: {{ORIGIN: 1}}, proxy_protocol: {version}}}");
        let objects = format!("stream_routes: [{{id: s, upstream: {upstream}}}]");
        let gateway = Gateway::resources(&objects, &[("ORIGIN", &origin)])
            .settings("stream_proxy: {tcp: [{address: 127.0.0.1, port: 0, proxy_protocol: true}]}")
            .settings("proxy_protocol: {from: [127.0.0.1]}")
            .start();
        // Either version becomes what the node wants.
        for heard in if told == SIX { [SIX; 2] } else { [ONE.as_bytes(), TWO] } {
            let mut raw = Raw::connect(gateway.stream_address("proxied_tcp"));
            raw.send(heard).send("hello").finish();
            assert_eq!(
                raw.rest().0.escape_ascii().to_string(),
                [told, b"hello"].concat().escape_ascii().to_string()
            );
        }
        // Of its own connection the balancer says nothing: then it is what it called.
        let mut raw = Raw::connect(gateway.stream_address("proxied_tcp"));
        raw.send("PROXY UNKNOWN\r\nhello").finish();
        let port = gateway.stream_address("proxied_tcp").port();
        let said = raw.rest().0;
        let own = if version == 1 {
            format!(" {port}\r\nhello").into_bytes()
        } else {
            [&port.to_be_bytes()[..], b"hello"].concat()
        };
        assert!(said.ends_with(&own), "{}", said.escape_ascii());
    }
}
