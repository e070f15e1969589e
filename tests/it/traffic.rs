//! Plugins that steer traffic: breakers, clients behind proxies, workflows and labels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::kit::{Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_breaker_opens_and_closes_by_itself,
    a_breaker_is_one_for_all_cores,
    an_origin_that_is_gone_opens_the_breaker,
    a_clients_address_is_what_the_proxy_says_for_all_who_ask,
    nobody_but_the_proxy_chooses_an_address,
    a_workflow_answers_or_limits_by_rule,
    a_plugin_run_by_a_workflow_does_not_run_twice,
    a_label_is_seen_by_the_split_and_the_origin,
);

fn a_breaker_opens_and_closes_by_itself() {
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    let origin = Origin::answering(move |_| match is_ill.load(Ordering::Relaxed) {
        true => reply("500 Internal Server Error", "ill"),
        false => reply("200 OK", "well"),
    });
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins: {api-breaker: {break_response_code: 599, break_response_body: wait, healthy: {successes: 1},
               break_response_headers: [{key: X-Uri, value: $uri}], unhealthy: {failures: 2}}}",
        )
        .start();

    let mut client = gateway.client();
    client.get("/a").expect(500, "ill");
    client.get("/b").expect(500, "ill");
    let broken = client.get("/c");
    assert_eq!(broken.expect(599, "wait").header("x-uri"), Some("/c"));
    assert_eq!(origin.requests(), 2);
    assert_eq!(gateway.reason("/c"), "plugin");
    gateway.wait_said(&["routes/1: api-breaker: route 1 is answered here for 2 s"]);
    assert_eq!(gateway.metric("ringway_breaker_openings_total"), Some(1.0));

    ill.store(false, Ordering::Relaxed);
    eventually("the breaker closes", || (client.get("/d").status == 200).then_some(()));
    client.get("/e").expect(200, "well");
}

fn a_breaker_is_one_for_all_cores() {
    let origin = Origin::answering(|_| reply("500 Internal Server Error", "ill"));
    let gateway = Gateway::routing("/*", [&origin])
        .cores(2)
        .route("plugins: {api-breaker: {break_response_code: 503, unhealthy: {failures: 20}}}")
        .start();

    // A connection each, so that both cores have a part. An answer is counted once it was sent, and written down after that.
    let ask = |at: usize| {
        let path = format!("/try-{at}-");
        let status = gateway.client().get(&path).status;
        assert_eq!(gateway.logged(&path)["status"], status);
        status
    };
    let statuses: Vec<_> = (0..30).map(ask).collect();
    assert_eq!(statuses, [[500; 20].as_slice(), &[503; 10]].concat());
    assert_eq!(origin.requests(), 20);
}

fn an_origin_that_is_gone_opens_the_breaker() {
    let broken = Origin::that_closes_at_once();
    let gateway = Gateway::routing("/*", [&broken])
        .route(
            "plugins: {api-breaker: {break_response_code: 404, unhealthy: {http_statuses: [502], failures: 1}}}",
        )
        .start();

    gateway.get("/").expect_status(502);
    gateway.get("/").expect_status(404);
}

fn a_clients_address_is_what_the_proxy_says_for_all_who_ask() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins:
               real-ip: {source: http_x_client, trusted_addresses: [127.0.0.0/8]}
               ip-restriction: {blacklist: [6.6.6.6]}
               response-rewrite: {headers: {set: {X-Seen: '$remote_addr $remote_port $realip_remote_addr'}}}",
        )
        .start();

    let ask = |client: &str| gateway.request("GET", "/seen", &[("X-Client", client)], b"");
    assert_eq!(ask("10.1.2.3:77").header("x-seen"), Some("10.1.2.3 77 127.0.0.1"));
    let seen = origin.only();
    assert_eq!(
        (seen.header("x-real-ip"), seen.header("x-forwarded-for")),
        (Some("10.1.2.3"), Some("10.1.2.3"))
    );
    assert_eq!(gateway.logged("/seen")["client_ip"], "10.1.2.3");
    ask("6.6.6.6").expect_status(403);
    for unreadable in ["", "nobody", "6.6.6.6:0"] {
        ask(unreadable).expect(200, "hello");
    }
}

fn nobody_but_the_proxy_chooses_an_address() {
    let origin = Origin::replying("hello");
    let config = |settings: &str, plugin: &str| {
        Gateway::routing("/*", [&origin])
            .settings(settings)
            .route(&format!("plugins: {{real-ip: {plugin}, ip-restriction: {{whitelist: [6.6.6.6]}}}}"))
            .start()
    };
    let list = [("X-Forwarded-For", "6.6.6.6, 10.0.0.1")];

    let elsewhere = config("{}", "{source: arg_ip, trusted_addresses: [10.0.0.0/8]}");
    elsewhere.get("/?ip=6.6.6.6").expect_status(403);
    let stranger = config("{}", "{source: http_x_forwarded_for}");
    stranger.request("GET", "/", &[("X-Forwarded-For", "6.6.6.6")], b"").expect_status(403);
    let trusted = "trusted_addresses: [127.0.0.1]";
    let last = config(trusted, "{source: http_x_forwarded_for, trusted_addresses: [127.0.0.1, 10.0.0.0/8]}");
    last.request("GET", "/", &list, b"").expect_status(403);
    let through =
        "{source: http_x_forwarded_for, trusted_addresses: [127.0.0.1, 10.0.0.0/8], recursive: true}";
    let recursive = config(trusted, through);
    recursive.request("GET", "/", &list, b"").expect(200, "hello");
    let seen = origin.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("6.6.6.6, 10.0.0.1, 6.6.6.6"));
}

fn a_workflow_answers_or_limits_by_rule() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins:
               workflow:
                 rules:
                   - {case: [[uri, '==', /private]], actions: [[return, {code: 403}]]}
                   - case: [[arg_plan, '==', free]]
                     actions: [[limit-count, {count: 1, time_window: 600, rejected_code: 429}]]
                   - case: [[arg_plan, '==', paid]]
                     actions: [[limit-count, {count: 1, time_window: 600, rejected_code: 429}]]",
        )
        .start();

    let mut client = gateway.client();
    client.get("/private?plan=free").expect(403, "{\"error_msg\":\"rejected by workflow\"}\n");
    for plan in ["free", "paid"] {
        let first = client.get(&format!("/?plan={plan}"));
        assert_eq!(first.expect(200, "hello").header("x-ratelimit-remaining"), Some("0"), "{plan}");
        let second = client.get(&format!("/?plan={plan}"));
        assert_eq!(second.expect_status(429).values("x-ratelimit-limit"), ["1"], "{plan}");
    }
    for _ in 0..3 {
        assert_eq!(client.get("/").expect(200, "hello").header("x-ratelimit-limit"), None);
    }
}

fn a_plugin_run_by_a_workflow_does_not_run_twice() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        "
        routes:
          - id: '1'
            uri: /*
            plugins:
              key-auth: {}
              limit-count: {count: 2, time_window: 600, rejected_code: 503}
            upstream: {nodes: {ORIGIN: 1}}
        consumers:
          - username: jack
            plugins:
              key-auth: {key: k1}
              workflow:
                rules:
                  - case: [[route_id, '==', '1']]
                    actions: [[limit-count, {count: 3, time_window: 600, rejected_code: 429}]]
          - {username: jill, plugins: {key-auth: {key: k2}}}
        ",
        &[("ORIGIN", &origin)],
    )
    .start();

    let ask = |key: &str| gateway.request("GET", "/", &[("apikey", key)], b"");
    for limit in ["3", "3", "3"] {
        assert_eq!(ask("k1").expect(200, "hello").values("x-ratelimit-limit"), [limit]);
    }
    ask("k1").expect_status(429);
    for limit in ["2", "2"] {
        assert_eq!(ask("k2").expect(200, "hello").values("x-ratelimit-limit"), [limit]);
    }
    ask("k2").expect_status(503);
}

fn a_label_is_seen_by_the_split_and_the_origin() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let gateway = Gateway::resources(
        "
        routes:
          - id: '1'
            uri: /*
            plugins:
              traffic-label:
                rules:
                  - match: [[arg_beta, '==', '1']]
                    actions: [{set_headers: {X-Group: 'beta-$arg_beta'}}]
                  - actions: [{set_headers: {X-Group: a}}, {weight: 3}]
              traffic-split:
                rules:
                  - match: [{vars: [[http_x_group, '==', beta-1]]}]
                    weighted_upstreams: [{upstream: {nodes: {NEW: 1}}}]
              proxy-control: {request_buffering: false}
              proxy-buffering: {disable_proxy_buffering: true}
            upstream: {nodes: {OLD: 1}}
        ",
        &[("OLD", &old), ("NEW", &new)],
    )
    .start();

    let mut client = gateway.client();
    client.request("GET", "/?beta=1", &[("X-Group", "mine")], b"").expect(200, "new");
    assert_eq!(new.only().values("x-group"), ["beta-1"]);
    for _ in 0..8 {
        client.get("/").expect(200, "old");
    }
    let marked = old.seen().iter().filter(|seen| seen.header("x-group") == Some("a")).count();
    assert_eq!(marked, 2);
}
