//! `explain`: over the control API, the control socket and the command line; and that asking changes nothing.

use std::fs;

use serde_json::{Value, json};

use super::kit::{Gateway, Origin};

on_both_drivers!(
    routes_are_told_in_the_order_they_are_asked_with_what_each_failed_on,
    routes_that_are_not_come_to_are_told_as_far_as_there_is_room,
    long_lists_are_cut_and_say_by_how_much,
    plugins_are_told_with_the_objects_they_come_from,
    a_consumer_is_told_with_what_it_brings_and_its_key_is_not,
    the_upstream_is_told_with_its_nodes_and_what_is_in_force,
    asking_counts_nothing_and_waits_for_nothing,
    a_question_with_faults_is_refused_with_all_of_them,
    the_command_line_tells_it_to_people_and_sends_the_request,
    files_are_explained_as_a_gateway_explains_them,
);

#[track_caller]
fn explain(gateway: &Gateway, query: &str) -> Value {
    let answer = gateway.control("GET", &format!("/v1/explain?{query}"));
    answer.expect_status(200);
    answer.json()
}

/// The candidates, a line each: route, verdict, the condition that failed, what was found.
fn candidates(told: &Value) -> Vec<String> {
    let line = |candidate: &Value| {
        let failed = &candidate["failed_on"];
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut line = format!("{} {}", word(&candidate["route"]), word(&candidate["verdict"]));
        if failed.is_object() {
            line.push_str(&format!(" {} {}", word(&failed["condition"]), word(&failed["why"][0]["found"])));
        }
        line
    };
    told["candidates"].as_array().unwrap().iter().map(line).collect()
}

fn routes_are_told_in_the_order_they_are_asked_with_what_each_failed_on() {
    let origin = Origin::replying("hello");
    let routes = "
        upstreams: [{id: u, nodes: {ORIGIN: 1}}]
        routes:
          - {id: any, uri: /*, upstream_id: u}
          - {id: prefix, uri: /a*, priority: 9, upstream_id: u}
          - {id: post, uri: /a/b, priority: 4, methods: [POST, PUT], upstream_id: u}
          - {id: far, uri: /a/b, priority: 3, remote_addrs: [10.0.0.0/8, 'fd00::/8'], upstream_id: u}
          - {id: rule, uri: /a/b, priority: 2, upstream_id: u,
             vars: [[arg_v, '==', '1'], [OR, [arg_w, '==', x], [http_x_token, '==', hidden]]]}
          - {id: taken, uri: /a/b, host: '*.a.test', upstream_id: u}
          - {id: other, uri: /a/b, host: b.test, upstream_id: u}
        ";
    let gateway = Gateway::resources(routes, &[("ORIGIN", &origin)]).start();
    let told = explain(&gateway, "uri=/a//b?v=1%26w=y&host=X.a.test:80&header=x-token:mine");
    let list = candidates(&told);
    assert_eq!(list[0], "taken won", "{told:#}");
    assert_eq!(list[1], "post behind", "those of no host have their turn after: {list:?}");
    assert_eq!(told["route"]["matched_host"], "*.a.test");
    assert_eq!((&told["request"]["path"], &told["request"]["host"]), (&json!("/a/b"), &json!("x.a.test")));
    assert_eq!(told["router"]["hosts"], json!(["*.a.test", null]));

    let told = explain(&gateway, "uri=/a/b?v=1%26w=y&host=c.test&header=x-token:mine");
    assert_eq!(
        candidates(&told),
        [
            "post failed methods GET",
            "far failed remote_addrs 127.0.0.1",
            "rule failed vars y",
            "prefix won",
            "any behind",
            "taken elsewhere host c.test",
            "other elsewhere host c.test",
        ]
    );
    assert_eq!(told["candidates"][0]["failed_on"]["why"][0]["expected"], json!(["POST", "PUT"]));
    assert_eq!(told["candidates"][1]["failed_on"]["why"][0]["expected"][0], "10.0.0.0/8");
    let why = &told["candidates"][2]["failed_on"]["why"];
    assert_eq!((&why[0]["field"], &why[0]["expected"]), (&json!("vars[1][1]"), &json!(["arg_w", "==", "x"])));
    assert_eq!((&why[1]["field"], &why[1]["found"]), (&json!("vars[1][2]"), &json!("***")));
    assert_eq!(why[1]["expected"], json!(["http_x_token", "==", "***"]));
    assert!(!told.to_string().contains("mine") && !told.to_string().contains("hidden"), "{told:#}");

    let told = explain(&gateway, "uri=/a/b&host=c.test&remote_addr=10.9.9.9&route=rule");
    assert_eq!(candidates(&told)[1], "far won", "{told:#}");
    assert_eq!(told["asked_route"]["failed_on"]["why"][0]["field"], "vars[0]");
    assert_eq!(explain(&gateway, "uri=/a/b&route=nine")["asked_route"]["verdict"], "absent");
}

fn routes_that_are_not_come_to_are_told_as_far_as_there_is_room() {
    let mut routes = String::from(
        "routes:
          - {id: off, uri: /x, status: 0, upstream_id: u}
          - {id: bad, uri: /x, upstream_id: u, filter_func: 'function(vars) return ngx.now() > 1 end'}
          - {id: hosted, uri: /x, service_id: s}\n",
    );
    for at in 0..150 {
        routes.push_str(&format!("          - {{id: n{at}, uri: /y/{at}, upstream_id: u}}\n"));
    }
    routes.push_str(
        "        upstreams: [{id: u, nodes: {'127.0.0.1:9': 1}}]
        services: [{id: s, hosts: [s.test], upstream_id: u}]",
    );
    let gateway = Gateway::resources(&format!("        {routes}"), &[]).start();
    let told = explain(&gateway, "uri=/x&host=a.test");
    let list = candidates(&told);
    assert_eq!(list.len(), 100, "{list:?}");
    assert_eq!(told["candidates_left_off"], 53);
    // Nearest first: path and host would do, then the path.
    assert_eq!(list[0], "off elsewhere status 0");
    assert!(list[1].starts_with("bad elsewhere set_aside") || list[1].starts_with("hosted"), "{list:?}");
    assert!(list[..3].contains(&"hosted elsewhere host a.test".to_owned()), "{list:?}");
    assert!(told["candidates"].to_string().contains("services/s: hosts"), "{told:#}");
    assert_eq!(list[3], "n0 elsewhere path /x");
    assert_eq!((&told["route"], &told["outcome"]["status"]), (&Value::Null, &json!(404)));
    let told = explain(&gateway, "uri=/x&host=a.test&route=n149");
    assert_eq!(told["asked_route"]["failed_on"]["why"][0]["expected"], json!(["/y/149"]));
}

fn long_lists_are_cut_and_say_by_how_much() {
    let many = |name: &str| (0..50).map(|at| format!("{name}{at}")).collect::<Vec<_>>().join(", ");
    let rules = (0..60).map(|at| format!("{{count: 9, time_window: 60, key: '$arg_{at}'}}"));
    let objects = format!(
        "routes:
          - {{id: paths, uris: [{}], upstream_id: u}}
          - {{id: hosts, uri: /x, hosts: [{}], upstream_id: u}}
          - {{id: rule, uri: /x, vars: [[arg_a, in, [{}]]], upstream_id: u}}
          - {{id: limits, uri: /x, plugins: {{limit-count: {{rules: [{}]}}}}, upstream_id: u}}
        upstreams: [{{id: u, nodes: {{'127.0.0.1:9': 1}}}}]",
        many("/p"),
        many("h.test"),
        many("v"),
        rules.collect::<Vec<_>>().join(", ")
    );
    let gateway = Gateway::resources(&format!("        {objects}"), &[]).start();
    let told = explain(&gateway, "uri=/x&host=a.test");
    let expected = |route: &str| {
        let all = told["candidates"].as_array().unwrap();
        let one = all.iter().find(|candidate| candidate["route"] == route).unwrap();
        one["failed_on"]["why"][0]["expected"].clone()
    };
    for list in [expected("paths"), expected("hosts"), expected("rule")[2].take()] {
        let list = list.as_array().unwrap();
        assert_eq!((list.len(), list.last()), (21, Some(&json!("… and 30 more"))), "{told:#}");
    }
    let limits = told["limits"].as_array().unwrap();
    assert_eq!((limits.len(), &limits[50]["rules_left_off"]), (51, &json!(10)), "{told:#}");
}

/// The plugins of a phase, a line each.
fn plugins(told: &Value, phase: &str) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        format!("{} {} {}", word(&entry["plugin"]), word(&entry["from"]), word(&entry["result"]))
    };
    told["plugins"][phase].as_array().into_iter().flatten().map(line).collect()
}

fn plugins_are_told_with_the_objects_they_come_from() {
    let origin = Origin::replying("hello");
    let objects = "
        upstreams: [{id: u, nodes: {ORIGIN: 1}}]
        services:
          - id: s
            upstream_id: u
            plugins: {cors: {}, proxy-rewrite: {uri: /service}, echo: {body: no}}
        plugin_configs:
          - id: p
            plugins: {proxy-rewrite: {uri: /config}, ua-restriction: {denylist: [bad], _meta: {filter: [[arg_f, '==', '1']]}}}
        global_rules: [{id: g, plugins: {request-id: {}}}]
        routes:
          - id: r
            uri: /*
            service_id: s
            plugin_config_id: p
            plugins:
              proxy-rewrite: {uri: '/route?a=1&token=t0', headers: {set: {X-A: b, X-Copy: 'by $http_authorization'}, remove: [X-B]}}
              echo: {body: no, _meta: {disable: true}}
              response-rewrite: {headers: {set: {X: y}}, _meta: {filter: [[status, '==', 200]]}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).start();
    let told = explain(
        &gateway,
        "uri=/&host=a.test&header=x-b:1&header=user-agent:bad&header=authorization:Bearer+t7",
    );
    assert!(!told.to_string().contains("t7"), "{told:#}");
    assert_eq!(
        plugins(&told, "rewrite"),
        ["request-id global_rules/g passed", "cors services/s passed", "proxy-rewrite routes/r passed",],
        "{told:#}"
    );
    let rewritten = &told["plugins"]["rewrite"][2];
    assert_eq!(rewritten["instead_of"], json!(["plugin_configs/p", "services/s"]));
    assert_eq!(
        rewritten["changes"],
        json!(["target: /route?a=1&token=***", "header x-a: b", "header x-b: removed", "header x-copy: ***"])
    );
    assert_eq!(plugins(&told, "access"), ["ua-restriction plugin_configs/p filtered"]);
    assert_eq!(told["plugins"]["access"][0]["filter"][0]["field"], "_meta.filter[0]");
    assert_eq!(plugins(&told, "disabled"), ["echo routes/r disabled"]);
    assert!(plugins(&told, "header_filter").contains(&"response-rewrite routes/r depends".to_owned()));
    assert_eq!(told["outcome"]["target"], "/route?a=1&token=***");

    let told = explain(&gateway, "uri=/?f=1&host=a.test&header=user-agent:bad");
    assert_eq!(plugins(&told, "access"), ["ua-restriction plugin_configs/p answered"]);
    let outcome = &told["outcome"];
    assert_eq!((&outcome["by"], &outcome["status"]), (&json!("ua-restriction"), &json!(403)));
    assert_eq!(told["upstream"], Value::Null);
}

fn a_consumer_is_told_with_what_it_brings_and_its_key_is_not() {
    let origin = Origin::replying("hello");
    let objects = "
        routes:
          - id: r
            uri: /*
            plugins: {key-auth: {header: X-Door}, limit-count: {count: 1, time_window: 60, key: consumer_name}}
            upstream: {nodes: {ORIGIN: 1}}
        consumer_groups: [{id: g, plugins: {limit-count: {count: 5, time_window: 60, key: consumer_name}}}]
        consumers:
          - {username: jack, group_id: g, plugins: {proxy-rewrite: {headers: {set: {X-From: jack}}}}}
          - {id: jack/credentials/c, plugins: {key-auth: {key: open-sesame}}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).start();
    let told = explain(&gateway, "uri=/?q=open-sesame&header=x-door:open-sesame");
    let consumer = &told["consumer"];
    assert_eq!((&consumer["name"], &consumer["identified_by"]), (&json!("jack"), &json!("key-auth")));
    assert_eq!((&consumer["group_id"], &consumer["credential_id"]), (&json!("g"), &json!("c")));
    let brought = consumer["plugins"].as_array().unwrap();
    assert!(
        brought.contains(
            &json!({"plugin": "limit-count", "from": "consumer_groups/g", "instead_of": "routes/r"})
        ),
        "{told:#}"
    );
    assert_eq!(
        plugins(&told, "rewrite"),
        ["key-auth routes/r passed", "proxy-rewrite consumers/jack passed"]
    );
    let limit = &told["limits"][0];
    assert_eq!((&limit["from"], &limit["count"]), (&json!("consumer_groups/g"), &json!(5)));
    assert_eq!((&limit["key"], &limit["key_value"]), (&json!("consumer_name"), &json!("jack")));
    assert!(!told.to_string().contains("sesame"), "{told:#}");

    let told = explain(&gateway, "uri=/&header=x-door:wrong");
    assert_eq!((&told["consumer"], &told["outcome"]["status"]), (&Value::Null, &json!(401)));
    let refused = &told["plugins"]["rewrite"][0];
    assert_eq!(refused["body"], "{\"message\":\"Invalid API key in request\"}");
    assert_eq!(plugins(&told, "access"), ["limit-count routes/r not_reached"]);
}

fn the_upstream_is_told_with_its_nodes_and_what_is_in_force() {
    let objects = "
        upstreams:
          - id: u
            nodes: [{host: 127.0.0.1, port: 9, weight: 3, priority: 1}, {host: localhost, port: 10, weight: 0}]
            retry_timeout: 2.5
            pass_host: rewrite
            upstream_host: inside.test
            timeout: {connect: 1, send: 2, read: 3}
        routes:
          - {id: 1, uri: /one, upstream_id: u}
          - {id: 2, uri: /two, upstream_id: u, timeout: {connect: 4, send: 5, read: 6}}
          - {id: 3, uri: /three, upstream: {nodes: {'127.0.0.1:9': 7}, retries: 4}}
          - {id: 4, uri: /four, upstream_id: gone}
        ";
    let gateway = Gateway::resources(objects, &[]).start();
    let told = explain(&gateway, "uri=/one");
    let upstream = &told["upstream"];
    let first = &upstream["nodes"][0];
    assert_eq!(
        (&first["address"], &first["weight"], &first["priority"]),
        (&json!("127.0.0.1:9"), &json!(3), &json!(1))
    );
    let named = upstream["nodes"].as_array().unwrap().iter().find(|node| node["host"] == "localhost");
    assert!(named.is_some_and(|node| node["weight"] == 0), "{told:#}");
    assert_eq!((&upstream["retries"], &upstream["retry_timeout"]), (&json!(0), &json!(2.5)));
    assert_eq!(upstream["timeout"], json!({"connect": 1.0, "send": 2.0, "read": 3.0, "from": "upstream"}));
    assert_eq!(told["outcome"]["host"], "inside.test");
    assert_eq!(explain(&gateway, "uri=/two")["upstream"]["timeout"]["read"], 6.0);
    let told = explain(&gateway, "uri=/three");
    let upstream = &told["upstream"];
    assert_eq!(
        (&upstream["name"], &upstream["nodes"][0]["weight"]),
        (&json!("routes/3#upstream"), &json!(7))
    );
    assert_eq!((&upstream["retries"], &upstream["retries_from"]), (&json!(4), &json!("upstream")));
    let outcome = &explain(&gateway, "uri=/four")["outcome"];
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!(502), &json!("upstream_vanished")));
    let outcome = &explain(&gateway, "uri=/%252f&host=a%20b")["outcome"];
    assert_eq!((&outcome["status"], &outcome["reason"]), (&json!(400), &json!("bad_host")));
}

fn asking_counts_nothing_and_waits_for_nothing() {
    let origin = Origin::replying("hello");
    let objects = "
        routes:
          - {id: 1, uri: /once, plugins: {limit-count: {count: 1, time_window: 600}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: 2, uri: /late, plugins: {mocking: {response_example: x, delay: 3600}}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).start();
    for _ in 0..5 {
        let told = explain(&gateway, "uri=/once");
        assert_eq!(told["outcome"]["kind"], "forwarded", "{told:#}");
        assert_eq!(told["plugins"]["access"][0]["by_state"], true);
    }
    assert_eq!(origin.requests(), 0);
    gateway.get("/once").expect(200, "hello");
    gateway.get("/once").expect_status(503);
    let told = explain(&gateway, "uri=/late");
    assert_eq!(plugins(&told, "access"), ["mocking routes/2 waits"]);
    assert!(told["notes"].to_string().contains("mocking waits"), "{told:#}");
}

fn a_question_with_faults_is_refused_with_all_of_them() {
    let gateway = Gateway::managed().start();
    let answer = gateway.control("GET", "/v1/explain?hots=a&remote_addr=me");
    answer.expect_status(400);
    let why = answer.json()["error_msg"].as_str().unwrap().to_owned();
    for part in [
        "got hots; did you mean \"host\"?",
        "expected url or uri, got neither",
        "remote_addr: expected an IP address, got \"me\"",
    ] {
        assert!(why.contains(part), "{part} in {why}");
    }
    gateway.control("POST", "/v1/explain?uri=/").expect_status(404);
    let said = gateway.on_socket("GET", "/v1/explain?uri=/");
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("\"route_not_found\""), "{said}");
    let said = gateway.on_socket("GET", "/v1/explain");
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("got neither"), "{said}");
}

fn the_command_line_tells_it_to_people_and_sends_the_request() {
    let origin = Origin::replying("hello");
    let objects = "
        routes:
          - {id: one, name: first, uri: /a*, methods: [POST], priority: 1, upstream: {nodes: {ORIGIN: 1}}}
          - {id: two, uri: /a*, plugins: {proxy-rewrite: {uri: /b}}, upstream: {nodes: {ORIGIN: 1}}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).start();
    let (code, said) =
        gateway.cli("explain GET http://a.test/ab?x=1 -H X-A:1 --socket state/control.sock --send");
    assert_eq!(code, 0, "{said}");
    for line in [
        "GET a.test/ab?x=1 from 127.0.0.1",
        "  route     routes/two: /a*",
        "  outcome   sent to routes/two#upstream as GET /b?x=1, Host: a.test",
        "    1  routes/one  /a*  methods: expected POST, found GET",
        "    2  routes/two  /a*  takes it",
        "    proxy-rewrite          routes/two                 lets it pass",
        "      target: /b?x=1",
        &format!("sent to {}: status 200", gateway.address()),
    ] {
        assert!(said.lines().any(|told| told == line), "{line:?} in\n{said}");
    }
    assert_eq!(origin.only().target, "/b?x=1");
    let (code, said) = gateway.cli("explain GET /nothing --socket state/control.sock --send --json");
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["sent"]["status"]), (0, &json!(404)));
    assert!(told["sent"]["route"].as_str().unwrap().starts_with("none"), "{said}");
    let (code, said) = gateway.cli("explain GET ftp://a.test/");
    assert!(code == 64 && said.contains("url: expected http://HOST/PATH"), "{code} {said}");
    let (code, said) = gateway.cli("explain GET /a --socket nowhere.sock");
    assert!(code == 69 && said.contains("nowhere.sock"), "{code} {said}");
}

fn files_are_explained_as_a_gateway_explains_them() {
    let origin = Origin::replying("hello");
    let objects = "
        routes:
          - {id: 1, uri: /a/:b, vars: [[arg_x, '==', '2']], upstream: {nodes: {ORIGIN: 1}}}
          - {id: 2, uri: /a/*, plugins: {cors: {}}, upstream: {nodes: {ORIGIN: 1}}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)])
        .settings("router: {http: radixtree_uri_with_parameter}")
        .start();
    let words = "explain GET http://a.test/a/b?x=2 --json -c config.yaml";
    let (code, said) = gateway.cli(&format!("{words} --resources apisix.yaml"));
    assert_eq!(code, 0, "{said}");
    let offline: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(offline["route"]["params"], json!({"b": "b"}));
    let (code, said) = gateway.cli(&format!("{words} --socket state/control.sock"));
    assert_eq!(code, 0, "{said}");
    assert_eq!(offline, serde_json::from_str::<Value>(&said).unwrap());
    fs::write(gateway.path("broken.yaml"), "routes: [").unwrap();
    let (code, said) = gateway.cli("explain GET /a --resources broken.yaml");
    assert!(code == 3 && said.contains("broken.yaml"), "{code} {said}");
    let (code, _) = gateway.cli("explain GET /a --resources apisix.yaml --send");
    assert_eq!(code, 64);
}
