//! Upgraded connections: bytes both ways once the origin agreed, and nothing raw before.

use super::kit::{Bed, Conn, Ended, Gateway, Origin, Raw, reply};

on_both_drivers!(
    a_websocket_passes_bytes_both_ways,
    the_end_of_one_side_of_a_tunnel_reaches_the_other,
    bytes_sent_before_the_101_arrive_after_it,
    a_refused_upgrade_leaves_http_on_the_connection,
    an_upgrade_is_not_offered_where_the_route_does_not_allow_it,
    only_websockets_are_upgraded,
    a_101_nobody_asked_for_is_502,
    authentication_comes_before_the_upgrade,
    a_bad_version_is_answered_as_http,
);

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, then sends back in capitals whatever comes.
fn shouting() -> Origin {
    Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    })
}

#[track_caller]
fn expect_bytes(raw: &mut Raw, bytes: &[u8]) {
    let mut got = Vec::new();
    raw.wire.exactly(bytes.len() as u64, |piece| got.extend_from_slice(piece)).unwrap();
    assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}

fn a_websocket_passes_bytes_both_ways() {
    let origin = shouting();
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();

    let mut raw = gateway.raw();
    let answer = raw.send(ASK).answer();
    answer.expect_status(101);
    assert_eq!(answer.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for at in 0..50 {
        raw.send(format!("\0\u{1}ping {at}\r\n\r\n"));
        expect_bytes(&mut raw, format!("\0\u{1}PING {at}\r\n\r\n").as_bytes());
    }
    let large = vec![b'x'; 300_000];
    raw.send(&large);
    expect_bytes(&mut raw, &large.to_ascii_uppercase());

    let seen = origin.only();
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    drop(raw);
    assert_eq!(gateway.logged("/ws")["status"], 101);
}

fn the_end_of_one_side_of_a_tunnel_reaches_the_other() {
    let origin = shouting();
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();

    let mut raw = gateway.raw();
    raw.send(ASK).answer().expect_status(101);
    raw.send("bye");
    expect_bytes(&mut raw, b"BYE");
    raw.finish();
    raw.expect_closed();
    origin.wait_ended(1);

    let closing = Origin::serving(|conn: &mut Conn| {
        conn.request();
        conn.send(AGREE);
        conn.send(b"last words");
    });
    let gateway = Gateway::routing("/*", [&closing]).route("enable_websocket: true").start();
    let mut raw = gateway.raw();
    raw.send(ASK).answer().expect_status(101);
    assert_eq!(raw.rest(), (b"last words".to_vec(), Ended::Closed));
}

fn bytes_sent_before_the_101_arrive_after_it() {
    let origin = shouting();
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();

    let mut raw = gateway.raw();
    raw.send(format!("{ASK}eager"));
    raw.answer().expect_status(101);
    expect_bytes(&mut raw, b"EAGER");
    assert!(origin.only().raw.ends_with(b"\r\n\r\n"), "the request itself has no body");
}

fn a_refused_upgrade_leaves_http_on_the_connection() {
    for refusal in ["426 Upgrade Required", "200 OK", "403 Forbidden"] {
        let origin = Origin::answering(move |seen| match seen.target.as_str() {
            "/ws" => reply(refusal, "no"),
            target => reply("200 OK", &format!("{} {target}", seen.method)),
        });
        let gateway = Gateway::resources(
            "
            routes:
              - {id: w, uri: /ws, enable_websocket: true, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
              - {id: p, uri: /open/*, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
              - {id: a, uri: /admin, plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
            ",
            &[("ORIGIN", &origin)],
        )
        .start();

        let mut raw = gateway.raw();
        // What follows the refused upgrade is a request of its own, for which all rules hold.
        raw.send(format!("{ASK}GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = raw.answer();
        assert_eq!(answer.text(), "no", "{refusal}");
        if answer.open {
            raw.answer().expect_status(401);
            raw.send("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n");
            raw.answer().expect(200, "GET /open/x");
        } else {
            raw.expect_closed();
        }
        assert!(origin.seen().iter().all(|seen| seen.target != "/admin"), "{refusal}");
    }
}

fn an_upgrade_is_not_offered_where_the_route_does_not_allow_it() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send(ASK).answer().expect(200, "GET /ws");
    assert!(origin.only().values("upgrade").is_empty());
    raw.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").answer().expect(200, "GET /next");
}

fn only_websockets_are_upgraded() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut bed = Bed::of(gateway, origin);

    for upgrade in ["h2c", "foo", "websocket, h2c", "HTTP/2.0", "TLS/1.0"] {
        let bytes = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        bed.either(upgrade, bytes, &[400, 501], |seen| {
            let gone = seen.values("http2-settings").is_empty()
                && seen.values("upgrade").iter().all(|value| *value == "websocket");
            if gone { Ok(()) } else { Err("the upgrade went on".to_owned()) }
        });
    }
    bed.refused("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", &[400, 405, 501]);
    bed.verdict();
}

fn a_101_nobody_asked_for_is_502() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() {
            conn.send(AGREE);
            conn.wait_for_the_end();
        }
    });
    let gateway =
        Gateway::routing("/*", [&origin]).route("enable_websocket: true").with("retries: 0").start();

    let mut raw = gateway.raw();
    raw.send("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n").answer().expect_status(502);
    origin.wait_ended(1);
}

fn authentication_comes_before_the_upgrade() {
    let origin = shouting();
    let gateway = Gateway::routing("/*", [&origin])
        .route("{enable_websocket: true, plugins: {key-auth: {}}}")
        .objects("consumers: [{username: jack, plugins: {key-auth: {key: secret}}}]")
        .start();

    let mut raw = gateway.raw();
    raw.send(ASK).answer().expect_status(401);
    assert_eq!(origin.requests(), 0);
    raw.send(ASK.replace("Host: a", "Host: a\r\napikey: secret")).answer().expect_status(101);
    raw.send("hi");
    expect_bytes(&mut raw, b"HI");
}

fn a_bad_version_is_answered_as_http() {
    let origin = Origin::answering(|seen| {
        if seen.target == "/ws" { reply("426 Upgrade Required", "version") } else { reply("200 OK", "fine") }
    });
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();

    let mut raw = gateway.raw();
    let answer = raw.send(ASK.replace("Version: 13", "Version: 777")).answer();
    assert!(matches!(answer.status, 400 | 426), "{}", answer.status);
    raw.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    if answer.open {
        raw.answer().expect(200, "fine");
    }
}
