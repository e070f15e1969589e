//! Nodes of `https` that pick which HTTP is spoken with them, where they are offered both.

use std::thread;

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::kit::http2::{Http2Origin, send};
use crate::kit::{Certs, Conn, Front, Gateway, Origin, as_node, check, reply, server_config};

on_both_drivers!(
    a_node_that_speaks_both_picks_http_2,
    nothing_is_offered_unless_that_is_said,
    a_websocket_is_asked_for_in_http_1_1,
    requests_share_a_connection_that_picked_http_2,
    a_node_that_picks_http_1_1_is_spoken_to_in_it,
    a_node_that_is_not_who_it_should_be_gets_nothing,
    a_node_that_went_is_asked_anew,
);

/// An authority `ca`, and the certificate `server` of a node by its hand.
fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs.issued("ca", "server", "DNS:node.test");
    certs
}

/// A gateway before a node that is offered HTTP/2 or not.
fn before(node: &str, certs: &Certs, http2: &str) -> Gateway {
    let upstream = json!({
        "scheme": "https", "nodes": {node: 1}, "tls": {"http2": http2}, "pass_host": "rewrite", "upstream_host": "node.test",
    });
    let route = json!({"id": "a", "uri": "/*", "enable_websocket": true, "upstream": upstream});
    Gateway::resources(&json!({ "routes": [route] }).to_string(), &[])
        .settings(&json!({"ssl": {"listen": [], "trusted_certificate": certs.path("ca.crt")}}).to_string())
        .start()
}

type Respond = h2::server::SendResponse<Bytes>;

/// Answers with the name of what was asked for.
async fn name(request: Request<RecvStream>, mut respond: Respond, _: usize) {
    let text = format!("{} {}", request.method(), request.uri().path());
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    send(&mut stream, text.into(), true).await;
}

fn a_node_that_speaks_both_picks_http_2() {
    let (origin, certs) = (Origin::echoing(), certs());
    let nginx = Front::of_both(&origin.address().to_string(), &certs);
    let gateway = before(nginx.node(), &certs, "auto");
    for (path, size) in [("/small", 3), ("/large", 3 << 20), ("/none", 0)] {
        let body = "x".repeat(size);
        gateway.post(path, body.as_bytes()).expect(200, &body);
        assert_eq!(origin.saw(path).header("x-spoken"), Some("HTTP/2.0"), "{path}");
    }
    assert_eq!(gateway.request("HEAD", "/head", &[], b"").status, 200);
    assert_eq!(origin.saw("/head").header("x-spoken"), Some("HTTP/2.0"));
    assert_eq!(gateway.logged("/large")["upstream_reused"], Value::Bool(true), "one connection carries them");
}

fn nothing_is_offered_unless_that_is_said() {
    let (origin, certs) = (Origin::naming(), certs());
    let nginx = Front::of_both(&origin.address().to_string(), &certs);
    before(nginx.node(), &certs, "off").get("/").expect(200, "GET /");
    assert_eq!(origin.only().header("x-spoken"), Some("HTTP/1.1"));
}

fn a_websocket_is_asked_for_in_http_1_1() {
    let (origin, certs) = (Origin::naming(), certs());
    let nginx = Front::of_both(&origin.address().to_string(), &certs);
    let gateway = before(nginx.node(), &certs, "auto");
    gateway.get("/plain").expect(200, "GET /plain");
    let wanted = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    gateway.request("GET", "/socket", &wanted, b"").expect(200, "GET /socket");
    assert_eq!(origin.saw("/plain").header("x-spoken"), Some("HTTP/2.0"));
    assert_eq!(origin.saw("/socket").header("x-spoken"), Some("HTTP/1.1"));
}

/// So many clients at once, each with so many requests, each of which has its own answer.
fn ask_at_once(gateway: &Gateway, clients: usize, requests: usize) {
    thread::scope(|scope| {
        for at in 0..clients {
            scope.spawn(move || {
                let mut client = gateway.client();
                for number in 0..requests {
                    let path = format!("/{at}/{number}");
                    client.get(&path).expect(200, &format!("GET {path}"));
                }
            });
        }
    });
}

fn requests_share_a_connection_that_picked_http_2() {
    let certs = certs();
    let origin = Http2Origin::serving_over(Some(server_config(&certs, "server")), name);
    let gateway = before(&origin.address().to_string(), &certs, "auto");
    ask_at_once(&gateway, 8, 10);
    assert_eq!(origin.accepted(), 1);
}

fn a_node_that_picks_http_1_1_is_spoken_to_in_it() {
    let certs = certs();
    let answer = |conn: &mut Conn| {
        while let Some(seen) = conn.request() {
            if !conn.send(&reply("200 OK", &format!("{} {}", seen.method, seen.target))) {
                return;
            }
        }
    };
    let origin = Origin::serving_over(as_node(&certs, "server", None), answer);
    let gateway = before(&origin.node(), &certs, "auto");
    ask_at_once(&gateway, 1, 10);
    assert_eq!(origin.connections(), 1, "it is kept for the next request");
    ask_at_once(&gateway, 8, 10);
    assert!(origin.connections() <= 9, "{}", origin.connections());
}

fn a_node_that_is_not_who_it_should_be_gets_nothing() {
    let certs = certs();
    certs.issued("ca", "other", "DNS:other.test");
    let origin = Http2Origin::serving_over(Some(server_config(&certs, "other")), name);
    let gateway = before(&origin.address().to_string(), &certs, "auto");
    gateway.get("/").expect_status(502);
    assert_eq!(gateway.reason("/"), "upstream_tls_failed");
}

fn a_node_that_went_is_asked_anew() {
    let (origin, certs) = (Origin::naming(), certs());
    let nginx = Front::of_both(&origin.address().to_string(), &certs);
    let address = nginx.node().to_owned();
    let gateway = before(&address, &certs, "auto");
    gateway.get("/one").expect(200, "GET /one");
    drop(nginx);
    gateway.get("/gone").expect_status(502);
    // It is back, and does not speak HTTP/2 any more.
    let _nginx = Front::start_at(address, &origin.address().to_string(), &certs);
    gateway.get("/two").expect(200, "GET /two");
    assert_eq!(origin.saw("/one").header("x-spoken"), Some("HTTP/2.0"));
    assert_eq!(origin.saw("/two").header("x-spoken"), Some("HTTP/1.1"));
}

#[test]
fn what_is_no_https_is_told_that_nothing_is_offered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apisix.yaml");
    let objects = "routes: [{id: a, uri: /*, upstream: {scheme: grpcs, tls: {http2: auto}, nodes: {\"127.0.0.1:1\": 1}}}]\n#END\n";
    std::fs::write(&path, objects).unwrap();
    let (_, said) = check(&["--resources", &path.display().to_string()]);
    let told = "tls.http2: expected scheme: https beside it, got \"grpcs\"; nothing of it is done";
    assert!(said.contains(told), "{said}");
}
