//! Requests that wait for their turn at a limit, and whose clients leave meanwhile: nobody's work is done for them.

use std::time::{Duration, Instant};

use super::kit::http2::{Http2, block, frame, get, hello};
use super::kit::{Gateway, Origin, eventually};

on_both_drivers!(
    who_leaves_while_waiting_is_not_sent_to_the_node,
    who_gives_up_a_stream_while_waiting_is_not_sent_to_the_node,
    a_seat_is_free_at_once_when_who_waits_in_it_leaves,
    who_stays_has_its_turn,
);

/// Limits that have the second request wait for two seconds and more.
const WAITS: [(&str, &str); 3] = [
    ("req", "limit-req: {rate: 0.4, burst: 9, key: http_x_key}"),
    ("queue", "limit: {limits: [{name: a, key: http_x_key, rate: {count: 0.4, burst: 1}}], wait: {for: 20}}"),
    (
        "conn",
        "limit-conn: {conn: 1, burst: 9, default_conn_delay: 2.5, only_use_default_delay: true, key: http_x_key}",
    ),
];

/// A gateway with each limit on a route, and an origin that answers `/…/slow` when the test is over.
fn gateway() -> (Gateway, Origin) {
    let origin = Origin::serving(|conn| {
        while let Some(seen) = conn.request() {
            if seen.target.ends_with("slow") {
                return conn.hold();
            }
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let routes: Vec<String> = WAITS
        .iter()
        .map(|(name, limit)| {
            format!("\n  - {{id: {name}, uri: /{name}/*, upstream: {{nodes: {{ORIGIN: 1}}}}, plugins: {{{limit}}}}}")
        })
        .collect();
    let gateway = Gateway::resources(&format!("routes:{}", routes.concat()), &[("ORIGIN", &origin)]);
    (gateway.start(), origin)
}

fn targets(origin: &Origin) -> Vec<String> {
    origin.seen().into_iter().map(|seen| seen.target).collect()
}

fn ask(name: &str, what: &str) -> String {
    format!("GET /{name}/{what} HTTP/1.1\r\nHost: a\r\nX-Key: k\r\n\r\n")
}

fn who_leaves_while_waiting_is_not_sent_to_the_node() {
    let (gateway, origin) = gateway();
    for (name, _) in WAITS {
        let mut first = gateway.raw();
        first.send(ask(name, "slow"));
        eventually("the node has the first", || {
            targets(&origin).contains(&format!("/{name}/slow")).then_some(())
        });
        let waits = gateway.metric("ringway_limit_waits_total").unwrap_or_default();
        let mut second = gateway.raw();
        second.send(ask(name, "left"));
        eventually("it waits", || (gateway.metric("ringway_limit_waits_total")? > waits + 0.5).then_some(()));
        drop(second);
        let line = gateway.logged(&format!("/{name}/left"));
        assert_eq!((&line["status"], &line["error_code"]), (&499.into(), &"client_gone".into()), "{line}");
        assert!(!targets(&origin).contains(&format!("/{name}/left")), "{name}: {:?}", targets(&origin));
    }
}

fn who_gives_up_a_stream_while_waiting_is_not_sent_to_the_node() {
    let (gateway, origin) = gateway();
    let mut client = gateway.raw();
    let head = |path: &[u8]| {
        block(&[
            (":method", b"GET"),
            (":scheme", b"http"),
            (":authority", b"a"),
            (":path", path),
            ("x-key", b"k"),
        ])
    };
    client.send([hello(), frame(1, 5, 1, &head(b"/req/first"))].concat());
    origin.wait_requests(1);
    client.send(frame(1, 5, 3, &head(b"/req/left")));
    eventually("it waits", || (gateway.metric("ringway_limit_waits_total")? > 0.5).then_some(()));
    client.send(frame(3, 0, 3, &8_u32.to_be_bytes()));
    let line = gateway.logged("/req/left");
    assert_eq!((&line["status"], &line["error_code"]), (&499.into(), &"client_gone".into()), "{line}");
    // The connection goes on.
    let mut other = Http2::to(&gateway);
    other.ask(get("/req/other"), b"").unwrap().expect(200, "hello");
    assert_eq!(targets(&origin), ["/req/first", "/req/other"]);
}

fn a_seat_is_free_at_once_when_who_waits_in_it_leaves() {
    let (gateway, origin) = gateway();
    let left = || {
        let told = gateway.control("GET", "/v1/limits?key=k&route=conn").json();
        told["list"][0]["remaining"].as_u64().unwrap()
    };
    let mut first = gateway.raw();
    first.send(ask("conn", "slow"));
    origin.wait_requests(1);
    assert_eq!(left(), 9);
    let mut second = gateway.raw();
    second.send(ask("conn", "left"));
    eventually("it sits", || (left() == 8).then_some(()));
    let begun = Instant::now();
    drop(second);
    eventually("its seat is free", || (left() == 9).then_some(()));
    eprintln!("a seat is free {:?} after its client has left", begun.elapsed());
}

fn who_stays_has_its_turn() {
    let (gateway, origin) = gateway();
    for name in ["req", "queue"] {
        let mut client = gateway.client();
        client.raw.send(ask(name, "1")).answer().expect(200, "hello");
        let begun = Instant::now();
        client.raw.send(ask(name, "2")).answer().expect(200, "hello");
        assert!(begun.elapsed() >= Duration::from_millis(2400), "{name}: {:?}", begun.elapsed());
    }
    assert_eq!(origin.requests(), 4);
}
