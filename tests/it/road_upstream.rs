//! Between the gateway and its nodes: connections that are used again, connections that died, retries that are
//! safe, and time that runs out.

use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Seen, reply};

on_both_drivers!(
    connections_to_a_node_are_used_again,
    answers_larger_than_a_waiting_buffer_come_whole_on_a_kept_connection,
    an_origin_that_says_close_is_not_asked_again_on_that_connection,
    nodes_share_requests_by_weight,
    a_retry_never_returns_to_the_node_that_just_failed,
    a_node_that_refuses_costs_nobody_an_answer,
    retries_stop_where_the_upstream_says,
    a_request_that_may_have_run_is_not_run_twice,
    a_get_that_may_have_run_is_run_again,
    a_connection_that_died_while_idle_is_noticed_before_use,
    a_post_on_a_connection_that_dies_under_it_is_not_sent_again,
    a_get_on_a_connection_that_dies_under_it_is_sent_again,
    an_origin_that_refuses_is_502_with_its_reason,
    an_origin_that_closes_without_an_answer_is_502_with_its_reason,
    an_origin_that_never_accepts_is_504_in_time,
    an_origin_that_never_answers_is_504_in_time,
    an_origin_that_stalls_in_the_body_cuts_the_answer,
    the_time_of_a_route_wins_over_that_of_its_upstream,
    a_node_without_weight_gets_nothing,
);

fn connections_to_a_node_are_used_again() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    for _ in 0..20 {
        gateway.get("/").expect(200, "hello");
    }
    assert_eq!((origin.requests(), origin.connections()), (20, 1));
}

fn answers_larger_than_a_waiting_buffer_come_whole_on_a_kept_connection() {
    let origin = Origin::answering(|seen: &Seen| {
        let (lines, body) = match seen.target.as_str() {
            "/head" => (20, 2),
            "/body" => (0, 300_000),
            "/both" => (20, 300_000),
            _ => (0, 2),
        };
        let lines: String = (0..lines).map(|at| format!("X-Long-{at}: {}\r\n", "v".repeat(1000))).collect();
        format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {body}\r\n\r\n{}", "b".repeat(body))
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    for (target, lines, body) in
        [("/", 0, 2), ("/head", 20, 2), ("/body", 0, 300_000), ("/both", 20, 300_000), ("/", 0, 2)]
    {
        let answer = client.get(target);
        answer.expect(200, &"b".repeat(body));
        let values: Vec<_> = (0..lines).flat_map(|at| answer.values(&format!("x-long-{at}"))).collect();
        assert!(values.len() == lines && values.iter().all(|value| value.len() == 1000), "{target}");
    }
    assert_eq!(origin.connections(), 1, "the first one was kept, and a read waited on it");
}

fn an_origin_that_says_close_is_not_asked_again_on_that_connection() {
    let origin = Origin::sending("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    for _ in 0..3 {
        let answer = client.get("/");
        answer.expect(200, "ok");
        assert!(answer.open, "the origin's connection is not the client's");
    }
    assert_eq!(origin.connections(), 3);
}

fn nodes_share_requests_by_weight() {
    let (one, three) = (Origin::replying("one"), Origin::replying("three"));
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /*, upstream: {type: roundrobin, nodes: {ONE: 1, THREE: 3}}}]",
        &[("ONE", &one), ("THREE", &three)],
    )
    .start();

    let mut client = gateway.client();
    for _ in 0..40 {
        client.get("/").expect_status(200);
    }
    assert_eq!((one.requests(), three.requests()), (10, 30));
}

fn a_retry_never_returns_to_the_node_that_just_failed() {
    let (broken, healthy) = (Origin::that_closes_at_once(), Origin::replying("hello"));
    let gateway = Gateway::preferring("/", [&broken, &healthy]).with("retries: 1").start();

    gateway.get("/").expect(200, "hello");
    assert_eq!((broken.connections(), healthy.requests()), (1, 1));
}

fn a_node_that_refuses_costs_nobody_an_answer() {
    let (refusing, healthy) = (Origin::refusing(), Origin::echoing());
    let gateway = Gateway::routing("/*", [&refusing, &healthy]).with("retries: 1").start();

    let mut client = gateway.client();
    // Nothing was sent to the node that refused, so even a POST may go to the other.
    for _ in 0..6 {
        client.get("/").expect_status(200);
        client.post("/", b"once").expect(200, "once");
    }
    assert_eq!(healthy.requests(), 12);
}

fn retries_stop_where_the_upstream_says() {
    let nodes = [Origin::that_closes_at_once(), Origin::that_closes_at_once(), Origin::that_closes_at_once()];
    for (retries, tries) in [(0, 1), (1, 2), (2, 3)] {
        let before: usize = nodes.iter().map(Origin::connections).sum();
        let gateway = Gateway::preferring("/", &nodes).with(&format!("retries: {retries}")).start();
        gateway.get("/").expect_status(502);
        let after: usize = nodes.iter().map(Origin::connections).sum();
        assert_eq!(after - before, tries, "retries: {retries}");
    }
}

fn a_request_that_may_have_run_is_not_run_twice() {
    for broken in [Origin::that_closes_instead_of_answering(), Origin::that_resets()] {
        let other = Origin::replying("second");
        let gateway = Gateway::preferring("/*", [&broken, &other]).with("retries: 3").start();
        gateway.post("/", b"pay").expect_status(502);
        gateway.request("PATCH", "/", &[], b"pay").expect_status(502);
        assert_eq!((broken.requests(), other.requests()), (2, 0));
    }
}

fn a_get_that_may_have_run_is_run_again() {
    for broken in [Origin::that_closes_instead_of_answering(), Origin::that_resets()] {
        let other = Origin::replying("second");
        let gateway = Gateway::preferring("/*", [&broken, &other]).with("retries: 1").start();
        gateway.get("/").expect(200, "second");
        assert_eq!((broken.requests(), other.requests()), (1, 1));
    }
}

fn a_connection_that_died_while_idle_is_noticed_before_use() {
    let origin = Origin::that_closes_after_one_answer("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    for round in 1..=5 {
        client.get("/").expect(200, "hello");
        origin.wait_ended(2 * round - 1);
        client.post("/", b"once").expect(200, "hello");
        origin.wait_ended(2 * round);
    }
    assert_eq!(origin.requests(), 10);

    let origin = Origin::that_closes_when_idle_for(Duration::from_millis(50), "hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    for round in 1..=3 {
        gateway.post("/", b"once").expect(200, "hello");
        origin.wait_ended(round);
    }
}

fn a_post_on_a_connection_that_dies_under_it_is_not_sent_again() {
    let origin = Origin::that_closes_on_the_second_request("hello");
    let gateway = Gateway::routing("/*", [&origin]).with("retries: 2").start();

    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    client.post("/", b"pay").expect_status(502);
    assert_eq!(origin.requests(), 2);
}

fn a_get_on_a_connection_that_dies_under_it_is_sent_again() {
    let origin = Origin::that_closes_on_the_second_request("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    client.get("/").expect(200, "hello");
    assert_eq!(origin.requests(), 3);
}

fn an_origin_that_refuses_is_502_with_its_reason() {
    let origin = Origin::refusing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    let answer = client.get("/refused");
    answer.expect_status(502);
    assert!(
        !answer.text().contains("127.0.0.1"),
        "addresses of nodes are not for clients: {}",
        answer.text()
    );
    assert!(gateway.reason("/refused").starts_with("upstream_connect"), "{}", gateway.reason("/refused"));
    // The answer is ours, so the connection stays.
    client.get("/again").expect_status(502);
}

fn an_origin_that_closes_without_an_answer_is_502_with_its_reason() {
    let origin = Origin::that_closes_instead_of_answering();
    let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();

    gateway.get("/closed").expect_status(502);
    assert!(gateway.reason("/closed").starts_with("upstream_"), "{}", gateway.reason("/closed"));
}

fn an_origin_that_never_accepts_is_504_in_time() {
    let origin = Origin::that_never_accepts();
    let gateway = Gateway::routing("/*", [&origin])
        .with("{retries: 0, timeout: {connect: 0.3, send: 9, read: 9}}")
        .start();

    in_time(Duration::from_millis(300), || gateway.get("/full").expect_status(504).status);
    assert_eq!(gateway.reason("/full"), "upstream_connect_timeout");
}

fn an_origin_that_never_answers_is_504_in_time() {
    let origin = Origin::that_stalls();
    let gateway = Gateway::routing("/*", [&origin])
        .with("{retries: 0, timeout: {connect: 9, send: 9, read: 0.3}}")
        .start();

    in_time(Duration::from_millis(300), || gateway.get("/slow").expect_status(504).status);
    assert!(gateway.reason("/slow").contains("timeout"), "{}", gateway.reason("/slow"));
    in_time(Duration::from_millis(300), || gateway.post("/slow-post", b"x").expect_status(504).status);
}

fn an_origin_that_stalls_in_the_body_cuts_the_answer() {
    let origin = Origin::that_stalls_in_the_body();
    let gateway = Gateway::routing("/*", [&origin])
        .with("{retries: 0, timeout: {connect: 9, send: 9, read: 0.3}}")
        .start();

    let mut client = gateway.client();
    let answer = client.get("/half");
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "four", false));
    origin.wait_ended(1);
}

fn the_time_of_a_route_wins_over_that_of_its_upstream() {
    let origin = Origin::that_stalls();
    let gateway = Gateway::routing("/*", [&origin])
        .with("{retries: 0, timeout: {connect: 9, send: 9, read: 9}}")
        .route("timeout: {connect: 9, send: 9, read: 0.2}")
        .start();

    in_time(Duration::from_millis(200), || gateway.get("/").expect_status(504).status);
}

fn a_node_without_weight_gets_nothing() {
    let (none, all) = (Origin::replying("none"), Origin::sending(reply("200 OK", "all")));
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /*, upstream: {type: roundrobin, nodes: {NONE: 0, ALL: 1}}}]",
        &[("NONE", &none), ("ALL", &all)],
    )
    .start();

    for _ in 0..4 {
        gateway.get("/").expect(200, "all");
    }
    assert_eq!(none.requests(), 0);
}

/// Runs something that must take this long, and on a busy machine not much longer.
fn in_time<T>(least: Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = run();
    let took = start.elapsed();
    assert!(took >= least.mul_f64(0.9), "took {took:?}, expected at least {least:?}");
    assert!(took < least + Duration::from_secs(2), "took {took:?}, expected about {least:?}");
    outcome
}
