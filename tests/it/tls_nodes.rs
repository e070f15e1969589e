//! Nodes over TLS: who they must be, who we are to them, and that a connection is used again.

use serde_json::json;

use crate::kit::{Caller, Certs, Conn, Gateway, Origin, Setup, as_node, reply};

on_both_drivers!(
    a_node_is_believed_by_its_certificate_alone,
    a_node_is_shown_our_certificate,
    a_certificate_of_the_environment_is_shown_and_one_that_is_missing_is_not_replaced,
    what_a_node_has_against_our_certificate_is_told,
    until_when_nodes_believe_us_is_told,
    a_connection_to_a_node_is_used_again,
    connections_under_two_names_are_two,
    a_node_that_ends_without_a_word_has_not_said_all,
    a_node_that_speaks_no_tls_is_502,
    a_websocket_goes_through_tls_on_both_sides,
    large_bodies_go_to_a_node_and_back,
    a_node_that_closes_while_idle_costs_no_request,
    another_node_is_asked_where_one_is_not_who_it_should_be,
);

/// An authority `ca` that the gateway believes, a node `node` of its making, a `client`, and a node `liar` of another.
fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs.issued("ca", "node", "DNS:node.test,DNS:second.test");
    certs.issued("ca", "client", "DNS:client.test");
    certs.authority("other");
    certs.issued("other", "liar", "DNS:node.test");
    certs
}

/// A gateway before nodes that it asks for as `node.test`.
fn asking<'a>(certs: &Certs, nodes: impl IntoIterator<Item = &'a Origin>) -> Setup {
    Gateway::routing("/*", nodes)
        .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
        .with("scheme: https")
        .with("pass_host: rewrite")
        .with("upstream_host: node.test")
}

fn naming(conn: &mut Conn) {
    while let Some(seen) = conn.request() {
        if !conn.send(&reply("200 OK", &format!("{} {}", seen.method, seen.target))) {
            return;
        }
    }
}

/// An origin over TLS that says what it was asked for.
fn node(certs: &Certs, own: &str) -> Origin {
    Origin::serving_over(as_node(certs, own, None), naming)
}

fn a_node_is_believed_by_its_certificate_alone() {
    let certs = certs();
    let (right, liar) = (node(&certs, "node"), node(&certs, "liar"));
    asking(&certs, [&right]).start().get("/x").expect(200, "GET /x");

    let gateway = asking(&certs, [&liar]).start();
    let answer = gateway.get("/x");
    answer.expect_status(502);
    assert!(answer.header("proxy-status").is_some_and(|status| status.contains("tls_certificate_error")));
    assert_eq!(gateway.reason("/x"), "upstream_tls_failed");
    gateway.wait_said(&["no TLS with a node as node.test", "invalid peer certificate"]);
    assert_eq!(gateway.metric("ringway_upstream_tls_errors_total{"), Some(1.0));
    assert_eq!(liar.requests(), 0);

    // Another name than its certificate's.
    let gateway = asking(&certs, [&right]).with("upstream_host: elsewhere.test").start();
    gateway.get("/x").expect_status(502);
    gateway.wait_said(&["no TLS with a node as elsewhere.test"]);
    // Whoever asks for it gets no check.
    asking(&certs, [&liar]).with("tls: {verify: false}").start().get("/x").expect(200, "GET /x");
    // The name is that of the client's host where that is passed on.
    let gateway = asking(&certs, [&right]).with("pass_host: pass").start();
    gateway.request("GET", "/x", &[("host", "second.test:80")], b"").expect(200, "GET /x");
    gateway.request("GET", "/x", &[("host", "third.test")], b"").expect_status(502);
    // A name that only the client knows says nothing of the node.
    let watched = "{pass_host: pass, outliers: {consecutive_gateway_failures: 1, max_percent: 100}}";
    let gateway = asking(&certs, [&right]).with(watched).start();
    gateway.request("GET", "/x", &[("host", "third.test")], b"").expect_status(502);
    assert!(!gateway.control("GET", "/v1/healthcheck").text().contains("\"ejected\":true"));
    gateway.request("GET", "/x", &[("host", "second.test")], b"").expect(200, "GET /x");
}

fn a_node_is_shown_our_certificate() {
    let certs = certs();
    let strict = Origin::serving_over(as_node(&certs, "node", Some("ca")), |conn| {
        let _ = conn.wire().shake();
        naming(conn);
    });
    asking(&certs, [&strict]).start().get("/x").expect_status(502);
    let read = |file: &str| std::fs::read_to_string(certs.path(file)).unwrap();
    let (cert, key) = (read("client.crt"), read("client"));
    let own = json!({"tls": {"client_cert": cert, "client_key": key}}).to_string();
    asking(&certs, [&strict]).with(&own).start().get("/x").expect(200, "GET /x");
    let ssls = json!({"ssls": [{"id": "mine", "type": "client", "cert": cert, "key": key}]}).to_string();
    let gateway = asking(&certs, [&strict]).objects(&ssls).with("tls: {client_cert_id: mine}").start();
    gateway.get("/x").expect(200, "GET /x");
}

fn a_certificate_of_the_environment_is_shown_and_one_that_is_missing_is_not_replaced() {
    let certs = certs();
    let strict = Origin::serving_over(as_node(&certs, "node", Some("ca")), |conn| {
        let _ = conn.wire().shake();
        naming(conn);
    });
    let read = |file: &str| &*std::fs::read_to_string(certs.path(file)).unwrap().leak();
    let own = "tls: {client_cert: $env://NODE_CERT, client_key: $env://NODE_KEY}";
    let set = asking(&certs, [&strict]).with(own).env("NODE_CERT", read("client.crt"));
    set.clone().env("NODE_KEY", read("client")).start().get("/x").expect(200, "GET /x");
    let gateway = set.start();
    gateway.get("/x").expect_status(503);
    let told = gateway.control("GET", "/v1/quarantine").text();
    assert!(told.contains("upstream.tls.client_key") && told.contains("NODE_KEY"), "{told}");
}

fn what_a_node_has_against_our_certificate_is_told() {
    let certs = certs();
    certs.issued("other", "stranger", "DNS:client.test");
    let strict = Origin::serving_over(as_node(&certs, "node", Some("ca")), |conn| {
        let _ = conn.wire().shake();
        naming(conn);
    });
    let read = |file: &str| std::fs::read_to_string(certs.path(file)).unwrap();
    let stranger = json!({"tls": {"client_cert": read("stranger.crt"), "client_key": read("stranger")}});
    for (own, alert) in [("{}", "certificate_required"), (&stranger.to_string(), "decrypt_error")] {
        let gateway = asking(&certs, [&strict]).with(own).start();
        for (method, body) in [("GET", &b""[..]), ("POST", b"hello")] {
            let path = format!("/{method}");
            let answer = gateway.request(method, &path, &[], body);
            answer.expect_status(502);
            assert!(answer.header("proxy-status").is_some_and(|it| it.contains("tls_certificate_error")));
            assert_eq!(gateway.reason(&path), "upstream_tls_failed");
        }
        gateway.wait_said(&["no TLS with a node at 127.0.0.1:", alert]);
    }
    assert_eq!(strict.requests(), 0);
}

fn until_when_nodes_believe_us_is_told() {
    let (certs, origin) = (certs(), Origin::replying("hello"));
    let read = |file: &str| std::fs::read_to_string(certs.path(file)).unwrap();
    let own = json!({"id": "mine", "type": "client", "cert": read("client.crt"), "key": read("client")});
    let objects = json!({"ssls": [own]}).to_string();
    let gateway = Gateway::routing("/*", [&origin]).objects(&objects).start();
    let told = gateway.control("GET", "/v1/certificates").expect_status(200).json();
    assert_eq!((&told[0]["ssl"], &told[0]["type"]), (&json!("mine"), &json!("client")), "{told}");
    let name = "ringway_certificate_not_after_seconds{ssl=\"mine\",type=\"client\"";
    assert_eq!(gateway.metric(name), told[0]["not_after"].as_f64());
    gateway.reload_until("routes: []", &[], |gateway| gateway.metric(name).is_none());
}

fn a_connection_to_a_node_is_used_again() {
    let certs = certs();
    let origin = node(&certs, "node");
    let gateway = asking(&certs, [&origin]).start();
    let mut client = gateway.client();
    for at in 0..20 {
        client.get(&format!("/{at}")).expect(200, &format!("GET /{at}"));
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(gateway.metric("ringway_upstream_reuses_total{"), Some(19.0));
}

fn connections_under_two_names_are_two() {
    let certs = certs();
    let origin = node(&certs, "node");
    let gateway = asking(&certs, [&origin]).with("pass_host: pass").start();
    let mut client = gateway.client();
    for host in ["node.test", "second.test", "node.test", "second.test"] {
        client.request("GET", "/", &[("host", host)], b"").expect(200, "GET /");
    }
    assert_eq!(origin.connections(), 2);
}

fn a_node_that_ends_without_a_word_has_not_said_all() {
    let certs = certs();
    let origin = Origin::serving_over(as_node(&certs, "node", None), |conn| {
        let Some(seen) = conn.request() else { return };
        conn.send(b"HTTP/1.0 200 OK\r\n\r\nhalf of it");
        if seen.target == "/broken" {
            conn.reset();
        }
    });
    let gateway = asking(&certs, [&origin]).start();
    let answer = gateway.get("/whole");
    assert!(answer.whole && answer.body == b"half of it");
    // A reset after what was sent: the client must be able to tell.
    let answer = gateway.raw().send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").try_answer("GET");
    assert!(answer.is_err() || answer.is_ok_and(|answer| !answer.whole || answer.status == 502));
}

fn a_node_that_speaks_no_tls_is_502() {
    let certs = certs();
    let plain = Origin::serving(|conn| {
        let _ = conn.wire().some();
        conn.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let gateway = asking(&certs, [&plain]).start();
    gateway.get("/x").expect_status(502);
    gateway.wait_said(&["no TLS with a node"]);
    // Nor is a node silent for ever.
    let silent = Origin::serving(|conn| {
        conn.wait_for_the_end();
    });
    let gateway = asking(&certs, [&silent]).with("timeout: {connect: 0.2, send: 5, read: 5}").start();
    gateway.get("/x").expect_status(504);
}

fn a_websocket_goes_through_tls_on_both_sides() {
    const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let certs = certs();
    let (cert, key) = certs.issued("ca", "front", "DNS:front.test");
    let origin = Origin::serving_over(as_node(&certs, "node", None), |conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    });
    let gateway = asking(&certs, [&origin])
        .route("enable_websocket: true")
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": [{"id": "1", "sni": "front.test", "cert": cert, "key": key}]}).to_string())
        .start();
    let mut raw = Caller::new(&certs, "ca", None).call(gateway.secure_address(), "front.test");
    raw.send(
        "GET /ws HTTP/1.1\r\nHost: front.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    raw.answer().expect_status(101);
    for size in [1, 3000, 50_000] {
        let mut got = Vec::new();
        raw.send("y".repeat(size));
        raw.wire.exactly(size as u64, |piece| got.extend_from_slice(piece)).expect("an echo");
        assert!(got.iter().all(|byte| *byte == b'Y'));
    }
}

fn large_bodies_go_to_a_node_and_back() {
    let certs = certs();
    let origin = Origin::serving_over(as_node(&certs, "node", None), |conn| {
        while let Some(seen) = conn.request() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len());
            if !conn.send(head.as_bytes()) || !conn.send(&seen.body) {
                return;
            }
        }
    });
    let gateway = asking(&certs, [&origin]).start();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 5) as u8).collect();
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.post("/", &body);
        assert!(answer.status == 200 && answer.body == body);
    }
    assert_eq!(origin.connections(), 1);
}

fn a_node_that_closes_while_idle_costs_no_request() {
    let certs = certs();
    let origin = Origin::serving_over(as_node(&certs, "node", None), |conn| {
        if let Some(seen) = conn.request() {
            conn.send(&reply("200 OK", &seen.target));
        }
    });
    let gateway = asking(&certs, [&origin]).start();
    let mut client = gateway.client();
    for at in 1..10 {
        client.get("/again").expect(200, "/again");
        origin.wait_ended(at);
    }
    assert_eq!(gateway.metric("ringway_retries_total{"), Some(0.0));
}

fn another_node_is_asked_where_one_is_not_who_it_should_be() {
    let certs = certs();
    let (right, liar) = (node(&certs, "node"), node(&certs, "liar"));
    let gateway = asking(&certs, [&liar, &right]).start();
    let mut client = gateway.client();
    for at in 0..6 {
        // Bytes of the request have gone to nobody: it may be any method.
        client.post(&format!("/{at}"), b"body").expect(200, &format!("POST /{at}"));
    }
    assert_eq!((liar.requests(), right.requests()), (0, 6));
}
