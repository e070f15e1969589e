//! How long a request may take in all: the upstream's word, the client's, and what nodes are told of it.

use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, reply};

on_both_drivers!(
    a_try_that_takes_too_long_is_followed_by_another,
    a_request_that_takes_too_long_ends_and_its_node_is_not_blamed,
    what_the_client_has_left_bounds_the_request_and_is_passed_on,
    a_client_that_is_not_asked_bounds_nothing,
    an_answer_that_takes_too_long_is_cut_off,
    between_tries_is_waited,
);

fn gateway(nodes: &[&Origin], more: &str) -> Gateway {
    let nodes: Vec<String> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let port = node.address().port();
            format!("{{host: 127.0.0.1, port: {port}, weight: 1, priority: -{at}}}")
        })
        .collect();
    let text = format!(
        "upstreams: [{{id: '1', nodes: [{}], {more}}}]
routes: [{{id: '1', uri: /*, upstream_id: '1'}}]",
        nodes.join(", ")
    );
    Gateway::resources(&text, &[]).start()
}

fn a_try_that_takes_too_long_is_followed_by_another() {
    let (silent, well) = (Origin::that_stalls(), Origin::replying("well"));
    let gateway = gateway(&[&silent, &well], "deadlines: {per_try: 0.1}");
    gateway.get("/").expect(200, "well");
    assert_eq!(silent.requests(), 1);
    gateway.post("/mark", b"x").expect_status(200);
}

fn a_request_that_takes_too_long_ends_and_its_node_is_not_blamed() {
    let (silent, well) = (Origin::that_stalls(), Origin::replying("well"));
    let more = "deadlines: {total: 0.1}, outliers: {consecutive_gateway_failures: 1}";
    let gateway = gateway(&[&silent, &well], more);
    gateway.get("/mark").expect_status(504);
    assert_eq!(gateway.reason("/mark"), "deadline_exceeded");
    assert_eq!(well.requests(), 0, "there is no time for another try");
    let told = gateway.control("GET", "/v1/healthcheck/upstreams/1").json();
    assert_eq!(told["nodes"][0]["ejected"], false, "{told}");
}

fn what_the_client_has_left_bounds_the_request_and_is_passed_on() {
    let origin = Origin::answering(|_| reply("200 OK", "a"));
    let front = gateway(&[&origin], "deadlines: {total: 60, from_client: true}");
    front.request("GET", "/own", &[("x-request-deadline", "20000")], b"").expect_status(200);
    front.request("GET", "/grpc", &[("grpc-timeout", "20S")], b"").expect_status(200);
    front.get("/none").expect_status(200);
    let left = |target: &str, name: &str| -> Vec<u64> {
        let seen = origin.saw(target);
        let values = seen.values(name);
        values.iter().map(|value| value.trim_end_matches('m').parse().unwrap()).collect()
    };
    for (target, name, most) in [
        ("/own", "x-request-deadline", 20_000),
        ("/grpc", "x-request-deadline", 20_000),
        ("/grpc", "grpc-timeout", 20_000),
        ("/none", "x-request-deadline", 60_000),
    ] {
        let left = left(target, name);
        assert!(left.len() == 1 && left[0] <= most && left[0] > most - 15_000, "{target} {name}: {left:?}");
    }
    assert!(left("/own", "grpc-timeout").is_empty(), "who has not asked in gRPC's form is not told in it");
    assert!(origin.saw("/grpc").values("grpc-timeout")[0].ends_with('m'));

    let silent = Origin::that_stalls();
    let front = gateway(&[&silent], "deadlines: {from_client: true}");
    for header in [("x-request-deadline", "100"), ("grpc-timeout", "100m")] {
        front.request("GET", "/", &[header], b"").expect_status(504);
    }
    front.request("GET", "/mark", &[("x-request-deadline", "0")], b"").expect_status(504);
    assert_eq!(front.reason("/mark"), "deadline_exceeded");
    assert_eq!(silent.requests(), 2, "whose time is up is not sent");
}

fn a_client_that_is_not_asked_bounds_nothing() {
    let origin = Origin::answering(|_| reply("200 OK", "a"));
    let front = gateway(&[&origin], "deadlines: {total: 60}");
    front.request("GET", "/", &[("x-request-deadline", "0")], b"").expect_status(200);
    assert_eq!(origin.only().values("x-request-deadline"), ["0"], "it is a header like any other");
    let front = gateway(&[&origin], "deadlines: {from_client: true}");
    for odd in ["soon", "-1", "1.5", "123456789"] {
        front.request("GET", "/odd", &[("x-request-deadline", odd)], b"").expect_status(200);
    }
}

fn an_answer_that_takes_too_long_is_cut_off() {
    let stalling = Origin::that_stalls_in_the_body();
    let gateway = gateway(&[&stalling], "deadlines: {total: 0.2}");
    let answer = gateway.get("/");
    assert!(answer.status == 200 && !answer.whole, "{answer:?}");
}

fn between_tries_is_waited() {
    // Each wait is thrown from nothing to half a second: four that are short together come once in a million times.
    let gone: Vec<Origin> = (0..3).map(|_| Origin::refusing()).collect();
    let nodes: Vec<&Origin> = gone.iter().collect();
    let front = gateway(&nodes, "retry_backoff: {base: 0.5, max: 0.5}");
    let began = Instant::now();
    for _ in 0..2 {
        front.get("/").expect_status(502);
    }
    assert!(began.elapsed() > Duration::from_millis(40), "{:?}", began.elapsed());
    let front = gateway(&nodes, "retry_backoff: {base: 60, max: 60}, retry_timeout: 0.001");
    front.get("/mark").expect_status(502);
    assert_eq!(front.reason("/mark"), "retry_timeout", "no wait goes beyond the time there is");
}
