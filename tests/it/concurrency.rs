//! How many requests an upstream is given at once: the limit, who is refused first, and that it follows the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::kit::{Gateway, Origin, Raw, eventually, reply};

on_both_drivers!(
    requests_beyond_the_limit_are_refused_on_every_core,
    low_priority_goes_first,
    what_is_refused_may_fall_back,
    the_limit_follows_the_nodes,
);

/// Stalls on `/hang`, answers else.
fn origin() -> Origin {
    Origin::serving(|conn| {
        while let Some(seen) = conn.request() {
            if seen.target == "/hang" {
                conn.wait_for_the_end();
                return;
            }
            conn.send(&reply("200 OK", "a"));
        }
    })
}

fn gateway(origin: &Origin, more: &str, cores: usize) -> Gateway {
    let text = format!(
        "upstreams:
  - {{id: '1', nodes: {{ORIGIN: 1}}, {more}}}
  - {{id: spare, nodes: {{ORIGIN: 1}}, pass_host: rewrite, upstream_host: spare.test}}
routes: [{{id: '1', uri: /*, upstream_id: '1'}}]"
    );
    Gateway::resources(&text, &[("ORIGIN", origin)]).cores(cores).start()
}

/// So many requests that stay at their node.
fn hang(gateway: &Gateway, origin: &Origin, count: usize) -> Vec<Raw> {
    let before = origin.requests();
    let raws = (0..count).map(|_| {
        let mut raw = gateway.raw();
        raw.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
        raw
    });
    let raws = raws.collect();
    origin.wait_requests(before + count);
    raws
}

fn sight(gateway: &Gateway) -> Value {
    gateway.control("GET", "/v1/concurrency").json()[0].take()
}

fn requests_beyond_the_limit_are_refused_on_every_core() {
    let origin = origin();
    let gateway = gateway(&origin, "concurrency: {min: 3, max: 3, initial: 3}", 2);
    let hanging = hang(&gateway, &origin, 3);
    for _ in 0..6 {
        let answer = gateway.get("/mark");
        answer.expect_status(503);
        assert_eq!(answer.values("retry-after"), ["1"]);
    }
    let told = sight(&gateway);
    let of = |field: &str| told[field].as_u64();
    assert_eq!(
        (told["name"].as_str(), of("limit"), of("max")),
        (Some("/apisix/upstreams/1"), Some(3), Some(3))
    );
    assert_eq!((of("under_way"), of("shed"), of("shed_low")), (Some(3), Some(6), Some(0)), "{told}");
    let labels = "name=\"/apisix/upstreams/1\"";
    assert_eq!(gateway.metric(&format!("ringway_concurrency_limit{{{labels}}}")), Some(3.0));
    assert_eq!(gateway.metric(&format!("ringway_concurrency_under_way{{{labels}}}")), Some(3.0));
    let shed = format!("ringway_concurrency_shed_total{{{labels},priority=\"normal\"}}");
    assert_eq!(gateway.metric(&shed), Some(6.0));
    assert!(gateway.access_log().contains("concurrency_limit"));
    // A client that merely says no more may still wait for its answer.
    hanging.into_iter().for_each(|raw| raw.wire.reset());
    eventually("those who left make room", || (sight(&gateway)["under_way"] == 0).then_some(()));
    gateway.get("/").expect(200, "a");
}

fn low_priority_goes_first() {
    let origin = origin();
    let rule =
        "concurrency: {min: 4, max: 4, initial: 4, priority: {variable: http_x_priority, low: [batch, low]}}";
    let gateway = gateway(&origin, rule, 1);
    let low = |word: &str| gateway.request("GET", "/", &[("x-priority", word)], b"").status;
    assert_eq!(low("batch"), 200);
    let _hanging = hang(&gateway, &origin, 2);
    assert_eq!((low("batch"), low("low"), low("high")), (503, 503, 200));
    gateway.get("/").expect(200, "a");
    let told = sight(&gateway);
    assert_eq!((told["shed"].as_u64(), told["shed_low"].as_u64()), (Some(2), Some(2)));
}

fn what_is_refused_may_fall_back() {
    let origin = origin();
    let rule = "concurrency: {min: 1, max: 1, initial: 1}, fallback: {upstream_id: spare, 'on': [overload]}";
    let gateway = gateway(&origin, rule, 1);
    let _hanging = hang(&gateway, &origin, 1);
    gateway.post("/instead", b"x").expect(200, "a");
    assert_eq!(origin.saw("/instead").values("host"), ["spare.test"]);
}

fn the_limit_follows_the_nodes() {
    const CLIENTS: usize = 12;
    let is_slow = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_slow);
    let origin = Origin::answering(move |_| {
        if seen.load(Ordering::Relaxed) {
            // This is the origin's work, not a wait of the test.
            thread::sleep(Duration::from_millis(150));
        }
        reply("200 OK", "a")
    });
    let rule = "concurrency: {min: 2, max: 100, initial: 4, tolerance_percent: 400}";
    let gateway = gateway(&origin, rule, 2);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !is_over.load(Ordering::Relaxed) {
                    client.get("/");
                }
            });
        }
        let limit = || sight(&gateway)["limit"].as_u64().unwrap();
        eventually("the limit grows with what is wanted", || (limit() >= 10).then_some(()));
        is_slow.store(true, Ordering::Relaxed);
        eventually("the limit shrinks where nodes become slow", || (limit() <= 5).then_some(()));
        is_slow.store(false, Ordering::Relaxed);
        eventually("the limit recovers with them", || (limit() >= 10).then_some(()));
        is_over.store(true, Ordering::Relaxed);
    });
}
