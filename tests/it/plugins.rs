//! Plugins as users combine them: whose copy wins, in which order they run, and what `_meta` changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::kit::{Client, Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_key_names_its_consumer,
    the_key_is_hidden_from_the_origin_where_asked,
    a_hidden_key_does_not_come_back_by_a_rewrite,
    a_consumers_plugin_wins_over_its_routes,
    a_groups_plugin_yields_to_its_consumers,
    a_plugin_config_fills_in_what_a_route_lacks,
    a_route_wins_over_its_service,
    a_global_rule_runs_for_all_and_even_without_a_route,
    a_disabled_plugin_does_not_run,
    a_filtered_plugin_runs_for_those_it_is_for,
    meta_priority_changes_the_order,
    meta_error_response_replaces_a_refusal,
    a_refusal_passes_the_header_filters,
    limit_count_admits_exactly_its_number_over_all_cores,
    limit_count_tells_what_is_left,
    a_group_that_is_given_longer_windows_goes_on,
    a_rewritten_request_is_what_the_origin_sees,
    a_redirect_is_made_here,
    a_response_can_be_rewritten,
    method_and_status_of_a_plugin_decide_whether_there_is_a_body,
    a_body_of_another_plugin_is_edited_as_it_is,
    a_body_that_nobody_gets_is_not_waited_for_without_end,
    an_unknown_plugin_sets_its_route_aside,
);

const JACK: &str = "consumers: [{username: jack, plugins: {key-auth: {key: k1}}}]";

fn a_key_names_its_consumer() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).route("plugins: {key-auth: {}}").objects(JACK).start();

    let refused = gateway.get("/");
    refused.expect(401, "{\"message\":\"Missing API key in request\"}\n");
    assert_eq!(refused.header("www-authenticate"), Some("apikey realm=\"key\""));
    let ask = |path: &str, key: &str| gateway.request("GET", path, &[("apikey", key)], b"");
    ask("/", "wrong").expect(401, "{\"message\":\"Invalid API key in request\"}\n");
    for key in ["", "k", "k11", "K1", "k1 k1"] {
        assert_eq!(ask("/", key).status, 401, "{key:?}");
    }
    assert_eq!(origin.requests(), 0);
    ask("/by-header", "k1").expect(200, "hello");
    gateway.get("/by-query?apikey=k1").expect(200, "hello");
    assert_eq!(origin.saw("/by-header").header("x-consumer-username"), Some("jack"));
    assert_eq!(gateway.logged("/by-header")["consumer"], "jack");
}

fn the_key_is_hidden_from_the_origin_where_asked() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {hide_credentials: true}}")
        .objects(JACK)
        .start();

    gateway.request("GET", "/h", &[("apikey", "k1")], b"").expect(200, "hello");
    gateway.get("/q?a=1&apikey=k1&b=2").expect(200, "hello");
    let seen = origin.seen();
    assert!(seen[0].values("apikey").is_empty());
    assert_eq!(seen[1].target, "/q?a=1&b=2");
}

fn a_hidden_key_does_not_come_back_by_a_rewrite() {
    let origin = Origin::replying("hello");
    let rewrite = "proxy-rewrite: {use_real_request_uri_unsafe: true}";
    let gateway = Gateway::routing("/*", [&origin])
        .route(&format!("plugins: {{key-auth: {{hide_credentials: true}}, {rewrite}}}"))
        .objects(JACK)
        .start();
    gateway.get("/q?a=1&apikey=k1").expect(200, "hello");

    // A rule for all comes before the key is asked for.
    let rule = "global_rules: [{id: '1', plugins: {proxy-rewrite: {uri: /other}}}]";
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {hide_credentials: true}}")
        .objects(&format!("{JACK}\n{rule}"))
        .start();
    gateway.get("/q?apikey=k1&a=1").expect(200, "hello");
    gateway.get("/q?apikey=k1").expect(200, "hello");
    let targets: Vec<String> = origin.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/q?a=1", "/other?a=1", "/other"]);
}

/// `response-rewrite` with a header that tells who won.
fn mark(value: &str) -> String {
    format!("response-rewrite: {{headers: {{set: {{X-Won: {value}}}}}}}")
}

fn a_consumers_plugin_wins_over_its_routes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(&format!("plugins: {{key-auth: {{}}, {}}}", mark("route")))
        .objects(&format!(
            "
            consumers:
              - {{username: jack, plugins: {{key-auth: {{key: k1}}, {}}}}}
              - {{username: jill, plugins: {{key-auth: {{key: k2}}}}}}
            ",
            mark("jack")
        ))
        .start();

    let won = |key: &str| {
        let answer = gateway.request("GET", "/", &[("apikey", key)], b"");
        answer.expect(200, "hello");
        answer.header("x-won").unwrap_or_default().to_owned()
    };
    for _ in 0..3 {
        assert_eq!((won("k1").as_str(), won("k2").as_str()), ("jack", "route"));
    }
}

fn a_groups_plugin_yields_to_its_consumers() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(&format!("plugins: {{key-auth: {{}}, {}}}", mark("route")))
        .objects(&format!(
            "
            consumer_groups: [{{id: g, plugins: {{{}}}}}]
            consumers:
              - {{username: jack, group_id: g, plugins: {{key-auth: {{key: k1}}, {}}}}}
              - {{username: jill, group_id: g, plugins: {{key-auth: {{key: k2}}}}}}
            ",
            mark("group"),
            mark("jack")
        ))
        .start();

    for (key, expected) in [("k1", "jack"), ("k2", "group")] {
        let answer = gateway.request("GET", "/", &[("apikey", key)], b"");
        assert_eq!(answer.header("x-won"), Some(expected));
    }
}

fn a_plugin_config_fills_in_what_a_route_lacks() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        "upstreams: [{id: u, type: roundrobin, nodes: {ORIGIN: 1}}]",
        &[("ORIGIN", &origin)],
    )
    .objects(&format!(
        "
            plugin_configs: [{{id: c, plugins: {{{}, key-auth: {{}}}}}}]
            routes:
              - {{id: a, uri: /a, plugin_config_id: c, upstream_id: u}}
              - {{id: b, uri: /b, plugin_config_id: c, upstream_id: u, plugins: {{{}}}}}
            ",
        mark("shared"),
        mark("own")
    ))
    .objects(JACK)
    .start();

    for (path, expected) in [("/a", "shared"), ("/b", "own")] {
        gateway.get(path).expect_status(401);
        let answer = gateway.request("GET", path, &[("apikey", "k1")], b"");
        assert_eq!((answer.status, answer.header("x-won")), (200, Some(expected)), "{path}");
    }
}

fn a_route_wins_over_its_service() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        "upstreams: [{id: u, type: roundrobin, nodes: {ORIGIN: 1}}]",
        &[("ORIGIN", &origin)],
    )
    .objects(&format!(
        "
            services: [{{id: s, upstream_id: u, plugins: {{{}, key-auth: {{}}}}}}]
            routes:
              - {{id: a, uri: /a, service_id: s}}
              - {{id: b, uri: /b, service_id: s, plugins: {{{}}}}}
            ",
        mark("service"),
        mark("route")
    ))
    .objects(JACK)
    .start();

    for (path, expected) in [("/a", "service"), ("/b", "route")] {
        let answer = gateway.request("GET", path, &[("apikey", "k1")], b"");
        assert_eq!((answer.status, answer.header("x-won")), (200, Some(expected)), "{path}");
    }
}

fn a_global_rule_runs_for_all_and_even_without_a_route() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/here", [&origin])
        .objects(
            "global_rules: [{id: '1', plugins: {ip-restriction: {blacklist: ['127.0.0.1'], message: go}}}]",
        )
        .start();

    gateway.get("/here").expect(403, "{\"message\":\"go\"}\n");
    gateway.get("/nowhere").expect_status(403);
    assert_eq!(origin.requests(), 0);
}

fn a_disabled_plugin_does_not_run() {
    let origin = Origin::replying("hello");
    let gateway =
        Gateway::routing("/*", [&origin]).route("plugins: {key-auth: {_meta: {disable: true}}}").start();

    gateway.get("/").expect(200, "hello");
}

fn a_filtered_plugin_runs_for_those_it_is_for() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(r#"plugins: {key-auth: {_meta: {filter: [[arg_guard, "==", "on"]]}}}"#)
        .start();

    gateway.get("/?guard=on").expect_status(401);
    gateway.get("/?guard=off").expect(200, "hello");
    gateway.get("/").expect(200, "hello");
}

fn meta_priority_changes_the_order() {
    let origin = Origin::replying("hello");
    let plugins = |meta: &str| format!("plugins: {{basic-auth: {{}}, key-auth: {{{meta}}}}}");
    for (meta, first) in
        [("", "Missing authorization in request"), ("_meta: {priority: 9999}", "Missing API key in request")]
    {
        let gateway = Gateway::routing("/*", [&origin]).route(&plugins(meta)).start();
        gateway.get("/").expect(401, &format!("{{\"message\":\"{first}\"}}\n"));
    }
}

fn meta_error_response_replaces_a_refusal() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {_meta: {error_response: {hint: 'bring a key'}}}}")
        .objects(JACK)
        .start();

    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().trim_end()), (401, "{\"hint\":\"bring a key\"}"));
    gateway.request("GET", "/", &[("apikey", "k1")], b"").expect(200, "hello");
}

fn a_refusal_passes_the_header_filters() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).route("plugins: {key-auth: {}, cors: {}}").start();

    let answer = gateway.request("GET", "/", &[("Origin", "http://page.test")], b"");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some("*")));
}

fn limit_count_admits_exactly_its_number_over_all_cores() {
    const LIMIT: usize = 1000;
    const CLIENTS: usize = 64;
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(&format!(
            "plugins: {{limit-count: {{count: {LIMIT}, time_window: 600, rejected_code: 429, key: remote_addr}}}}"
        ))
        .cores(2)
        .start();

    let (address, passed, refused) = (gateway.address(), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                for _ in 0..25 {
                    match client.get("/").status {
                        200 => passed.fetch_add(1, Ordering::Relaxed),
                        429 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("got {other}"),
                    };
                }
            });
        }
    });
    assert_eq!((passed.into_inner(), refused.into_inner()), (LIMIT, CLIENTS * 25 - LIMIT));
    assert_eq!(origin.requests(), LIMIT);
}

fn limit_count_tells_what_is_left() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {limit-count: {count: 2, time_window: 600, key: remote_addr, rejected_msg: enough}}")
        .start();

    let mut client = gateway.client();
    for (status, remaining) in [(200, "1"), (200, "0"), (503, "0"), (503, "0")] {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (status, Some(remaining)));
        assert_eq!(answer.header("x-ratelimit-limit"), Some("2"));
        let reset: f64 = answer.header("x-ratelimit-reset").expect("seconds left").parse().unwrap();
        assert!(reset > 0.0 && reset <= 600.0, "{reset}");
    }
    client.get("/").expect(503, "{\"error_msg\":\"enough\"}\n");
}

fn a_rewritten_request_is_what_the_origin_sees() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/old/*", [&origin])
        .route(
            r#"plugins: {proxy-rewrite: {regex_uri: ["^/old/(.*)", "/new/$1"], host: inner.test,
                headers: {set: {X-Set: "on"}, remove: [X-Gone]}}}"#,
        )
        .start();

    gateway
        .request("GET", "/old/a?b=c", &[("X-Gone", "1"), ("X-Set", "off")], b"")
        .expect(200, "GET /new/a?b=c");
    let seen = origin.only();
    assert_eq!((seen.header("host"), seen.header("x-set")), (Some("inner.test"), Some("on")));
    assert!(seen.values("x-gone").is_empty());
}

fn a_redirect_is_made_here() {
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /old, plugins: {redirect: {uri: '/new?from=$uri', ret_code: 301}}}]",
        &[],
    )
    .start();

    let answer = gateway.get("/old");
    assert_eq!((answer.status, answer.header("location")), (301, Some("/new?from=/old")));
}

fn a_response_can_be_rewritten() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins: {response-rewrite: {status_code: 201, body: changed, headers: {set: {X-Set: 'on'}}}}",
        )
        .start();

    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.get("/");
        answer.expect(201, "changed");
        assert_eq!(answer.header("x-set"), Some("on"));
    }
}

fn an_unknown_plugin_sets_its_route_aside() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        "
        routes:
          - {id: bad, uri: /bad, plugins: {key-out: {}}, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
          - {id: good, uri: /good, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
        ",
        &[("ORIGIN", &origin)],
    )
    .start();

    gateway.get("/good").expect(200, "hello");
    gateway.get("/bad").expect_status(404);
    gateway.wait_said(&["routes/bad", "key-out", "key-auth"]);
}

fn method_and_status_of_a_plugin_decide_whether_there_is_a_body() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ => reply("200 OK", "hello"),
    });
    let with =
        |plugin: &str| Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{plugin}}}")).start();

    // A body for a HEAD would be taken for the next answer.
    let gateway = with("proxy-rewrite: {method: GET}");
    let mut client = gateway.client();
    for _ in 0..2 {
        client.request("HEAD", "/", &[], b"").expect_status(200);
        client.get("/").expect(200, "hello");
    }
    let gateway = with("response-rewrite: {status_code: 204}");
    let mut client = gateway.client();
    for _ in 0..3 {
        client.get("/").expect(204, "");
    }
    // And who waits for a body that does not come would take the next answer for it.
    let gateway = with("response-rewrite: {status_code: 200}");
    let mut client = gateway.client();
    for _ in 0..3 {
        client.get("/none").expect(200, "");
    }
    let gateway = with("proxy-rewrite: {method: HEAD}");
    let mut client = gateway.client();
    for _ in 0..3 {
        client.get("/").expect(200, "");
    }
}

fn a_body_of_another_plugin_is_edited_as_it_is() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b".to_vec()
    });
    let rule =
        "global_rules: [{id: '1', plugins: {response-rewrite: {filters: [{regex: old, replace: new}]}}}]";
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {response-rewrite: {body: the old one}}")
        .objects(rule)
        .start();
    gateway.get("/").expect(200, "the new one");
}

fn a_group_that_is_given_longer_windows_goes_on() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(1).start();
    let admin = gateway.admin();
    let give = |seconds: u32| {
        let limit = json!({"count": 3, "time_window": seconds, "window_type": "sliding", "group": "g", "rejected_code": 429});
        let upstream = json!({"nodes": {origin.node(): 1}});
        admin.put(
            "/routes/1",
            &json!({"uri": "/", "upstream": upstream, "plugins": {"limit-count": limit}}).to_string(),
        );
    };
    give(1);
    gateway.get("/").expect(200, "hello");
    give(2);
    // Windows have numbers, and those of longer ones are smaller: they are not taken for windows that are over long since.
    (0..3).for_each(|_| drop(gateway.get("/")));
    eventually("a later window admits", || (gateway.get("/").status == 200).then_some(()));
}

fn a_body_that_nobody_gets_is_not_waited_for_without_end() {
    let origin = Origin::serving(|conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
        // This is how slow the origin is.
        while conn.send(b"x") {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {drain_body_timeout: 0.3}")
        .route("plugins: {response-rewrite: {body: mine}}")
        .start();
    gateway.get("/").expect(200, "mine");
}
