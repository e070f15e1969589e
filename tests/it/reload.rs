//! Configuration that changes under a running gateway: nobody notices but by the new rules, and a bad object is
//! set aside alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::kit::{Client, Gateway, Origin, eventually, within};

on_both_drivers!(
    a_changed_file_is_served_without_being_told,
    a_bad_object_is_set_aside_and_the_rest_applies,
    what_is_wrong_with_an_object_is_said_once,
    a_bad_object_keeps_its_last_good_version,
    what_depends_on_a_bad_object_goes_on_with_its_last_good_version,
    a_guard_that_was_never_good_lets_nobody_past,
    a_new_global_rule_that_is_bad_changes_nothing_for_requests,
    numbers_and_nulls_mean_the_same_in_a_file_and_over_the_api,
    a_file_that_is_no_yaml_changes_nothing,
    an_object_taken_away_is_gone,
    a_half_written_file_changes_nothing,
    a_request_under_way_keeps_what_it_began_with,
    fifty_reloads_under_load_fail_no_request,
    limits_survive_a_reload_that_does_not_touch_them,
);

fn route(uri: &str) -> String {
    format!("routes: [{{id: '1', uri: {uri}, upstream: {{type: roundrobin, nodes: {{ORIGIN: 1}}}}}}]")
}

fn a_changed_file_is_served_without_being_told() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/old", [&origin]).start();

    gateway.get("/old").expect_status(200);
    gateway.get("/new").expect_status(404);
    gateway.write(&route("/new"), &[("ORIGIN", &origin)]);
    within(Duration::from_secs(8), "the new route", || (gateway.get("/new").status == 200).then_some(()));
    gateway.get("/old").expect_status(404);
}

const MIXED: &str = "
routes:
  - {id: good, uri: /good, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
  - id: '7'
    uri: /bad
    plugins: {limit-count: {count: ten, time_window: 60, rejected_code: 429, key: remote_addr}}
    upstream: {type: roundrobin, nodes: {ORIGIN: 1}}
  - {id: late, uri: /late, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
";

fn a_bad_object_is_set_aside_and_the_rest_applies() {
    let origin = Origin::naming();
    let gateway = Gateway::resources(MIXED, &[("ORIGIN", &origin)]).start();

    gateway.get("/good").expect_status(200);
    gateway.get("/late").expect_status(200);
    // Left out, it would leave what it was to guard to other routes.
    let refused = gateway.get("/bad");
    refused.expect_status(404);
    assert_eq!(refused.text(), gateway.get("/nobody").text(), "as where there is no route");
    // The object, the field, what was expected and what was found.
    gateway.wait_said(&["routes/7", "limit-count.count", "expected", "ten"]);
}

fn what_is_wrong_with_an_object_is_said_once() {
    let origin = Origin::naming();
    let gateway = Gateway::resources(MIXED, &[("ORIGIN", &origin)]).start();
    for turn in 0..3 {
        let path = format!("/late-{turn}");
        gateway.write(&MIXED.replace("/late", &path), &[("ORIGIN", &origin)]);
        within(Duration::from_secs(8), "the change", || (gateway.get(&path).status == 200).then_some(()));
    }

    // Another one, so that all before it has been said.
    gateway.write(&MIXED.replace("count: ten", "count: eleven"), &[("ORIGIN", &origin)]);
    gateway.wait_said(&["routes/7", "limit-count.count", "eleven"]);
    let said = gateway.said();
    assert_eq!(said.matches("got \"ten\"").count(), 1, "{said}");
    assert_eq!(said.matches("routes/7: set aside").count(), 1, "{said}");
}

fn a_bad_object_keeps_its_last_good_version() {
    let origin = Origin::naming();
    let good = MIXED.replace("count: ten", "count: 1000");
    let gateway = Gateway::resources(&good, &[("ORIGIN", &origin)]).start();
    gateway.get("/bad").expect_status(200);

    let bad = MIXED.replace("/late", "/later");
    gateway.reload_until(&bad, &[("ORIGIN", &origin)], |gateway| gateway.get("/later").status == 200);
    gateway.wait_said(&["routes/7", "limit-count.count", "expected", "ten"]);
    gateway.get("/bad").expect_status(200);
    gateway.get("/late").expect_status(404);

    // Repaired, it moves on.
    let repaired = bad.replace("count: ten", "count: 5").replace("/bad", "/repaired");
    gateway.reload_until(&repaired, &[("ORIGIN", &origin)], |gateway| gateway.get("/repaired").status == 200);
    gateway.get("/bad").expect_status(404);
}

/// A route for each kind of object that one can depend on; `KEY` and `RETRIES` are good or bad.
const DEPENDENTS: &str = "
upstreams: [{id: u, nodes: {ORIGIN: 1}, retries: RETRIES}]
plugin_configs: [{id: p, plugins: {key-auth: {header: KEY}}}]
services: [{id: s, plugins: {key-auth: {header: KEY}}, upstream: {nodes: {ORIGIN: 1}, retries: RETRIES}}]
global_rules: [{id: g, plugins: {referer-restriction: {blacklist: KEYS, bypass_missing: true}}}]
routes:
  - {id: upstream, uri: /upstream, upstream_id: u}
  - {id: config, uri: /config, plugin_config_id: p, upstream_id: u}
  - {id: service, uri: /service, service_id: s}
  - {id: name, uri: NAME, upstream_id: u}
";

fn dependents(name: &str, is_good: bool) -> String {
    let (key, retries, keys) = if is_good { ("apikey", "1", "[a.example]") } else { ("5", "many", "5") };
    let text = DEPENDENTS.replace("NAME", name).replace("RETRIES", retries);
    text.replace("KEYS", keys).replace("KEY", key)
}

fn what_depends_on_a_bad_object_goes_on_with_its_last_good_version() {
    let origin = Origin::naming();
    let gateway = Gateway::resources(&dependents("/first", true), &[("ORIGIN", &origin)]).start();
    // Twice, and with routes that are new: what is last good outlives a second bad version.
    for name in ["/first", "/second", "/third"] {
        let text = dependents(name, name == "/first");
        gateway.reload_until(&text, &[("ORIGIN", &origin)], |gateway| gateway.get(name).status == 200);
        gateway.get("/upstream").expect_status(200);
        gateway.get("/config").expect_status(401);
        gateway.get("/service").expect_status(401);
        let referred = gateway.request("GET", "/upstream", &[("Referer", "http://a.example/")], b"");
        referred.expect_status(403);
    }
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(4.0));
    let told = gateway.control("GET", "/v1/quarantine").json();
    let list = told["list"].as_array().expect("a list");
    let names: Vec<&str> = list.iter().filter_map(|object| object["object"].as_str()).collect();
    assert_eq!(names, ["upstreams/u", "plugin_configs/p", "services/s", "global_rules/g"], "{told}");
    for object in list {
        assert!(object["last_good"].is_u64() && object["refuses"] == false, "{told}");
        assert!(object["reason"].as_str().is_some_and(|reason| reason.contains("expected")), "{told}");
    }
}

fn a_guard_that_was_never_good_lets_nobody_past() {
    let origin = Origin::naming();
    let text = |header: &str, rule: &str| {
        format!(
            "
            global_rules: [{{id: g, plugins: {{ip-restriction: {{{rule}: ['10.0.0.1']}}}}}}]
            routes:
              - {{id: guarded, uri: /guarded, plugins: {{key-auth: {{header: {header}}}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}
              - {{id: rest, uri: /*, upstream: {{nodes: {{ORIGIN: 1}}}}}}
            "
        )
    };
    let gateway = Gateway::resources(&text("5", "blacklist"), &[("ORIGIN", &origin)]).start();
    gateway.get("/guarded").expect_status(404);
    assert_eq!(gateway.reason("/guarded"), "route_broken");
    gateway.get("/rest").expect_status(200);
    gateway.wait_said(&["routes/guarded: set aside; its requests are answered 404"]);
    assert_eq!(gateway.control("GET", "/v1/quarantine").json()["list"][0]["refuses"], true);
    let mended = text("apikey", "blacklist");
    gateway.reload_until(&mended, &[("ORIGIN", &origin)], |gateway| gateway.get("/guarded").status == 401);

    let gateway = Gateway::resources(&text("apikey", "blocklist"), &[("ORIGIN", &origin)]).start();
    for path in ["/guarded", "/rest"] {
        gateway.get(path).expect_status(503);
        assert_eq!(gateway.reason(path), "global_rule_broken");
    }
    gateway.wait_said(&["global_rules/g: set aside; all requests are answered 503"]);
    let told = gateway.control("GET", "/v1/explain?uri=/rest").json();
    assert_eq!(
        (&told["outcome"]["status"], &told["outcome"]["reason"]),
        (&503.into(), &"global_rule_broken".into())
    );
    gateway.reload_until(&mended, &[("ORIGIN", &origin)], |gateway| gateway.get("/rest").status == 200);
    gateway.get("/guarded").expect_status(401);
}

fn a_new_global_rule_that_is_bad_changes_nothing_for_requests() {
    let origin = Origin::naming();
    let routes = "routes: [{id: 1, uri: NAME, upstream: {nodes: {ORIGIN: 1}}}]\n";
    let gateway = Gateway::resources(&routes.replace("NAME", "/old"), &[("ORIGIN", &origin)]).start();
    gateway.get("/old").expect_status(200);
    let bad =
        format!("{}global_rules: [{{id: g, plugins: {{key-auth: 5}}}}]\n", routes.replace("NAME", "/new"));
    gateway.reload_until(&bad, &[("ORIGIN", &origin)], |gateway| gateway.get("/new").status == 200);
    gateway.wait_said(&["global_rules/g: set aside; it is left out"]);
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(1.0));
}

fn numbers_and_nulls_mean_the_same_in_a_file_and_over_the_api() {
    let origin = Origin::naming();
    let route = |fields: &str| {
        format!(
            r#"{{"id":"1","uri":"/a","upstream":{{"nodes":{{"{}":1.0}},"retries":null}},{fields}}}"#,
            origin.node()
        )
    };
    let limit =
        r#""priority":2.0,"plugins":{"limit-count":{"count":9.0,"time_window":60.0,"rejected_code":429.0}}"#;
    let cases = [
        (limit, ""),
        (r#""name":null"#, ""),
        (r#""priority":1.5"#, "priority: expected a whole number from -2147483648 to 2147483647, got 1.5"),
        (r#""priority":null"#, "priority: expected a whole number from -2147483648 to 2147483647, got null"),
        (r#""uris":null"#, ""),
    ];
    let managed = Gateway::managed().start();
    for (fields, fault) in cases {
        let file = format!("{{\"routes\":[{}]}}", route(fields));
        let gateway = Gateway::resources(&file, &[]).start();
        let answer = managed.admin().ask("PUT", "/routes/1", &[], &route(fields));
        if fault.is_empty() {
            gateway.get("/a").expect_status(200);
            assert!(answer.status < 300, "{fields}: {}", answer.text());
            managed.get("/a").expect_status(200);
        } else {
            gateway.wait_said(&["routes/1", fault]);
            answer.expect_status(400);
            assert!(
                answer.json()["error_msg"].as_str().is_some_and(|told| told.contains(fault)),
                "{}",
                answer.text()
            );
        }
    }
}

fn a_file_that_is_no_yaml_changes_nothing() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/old", [&origin]).start();

    for text in ["routes: [{id: '1'", "\u{0}\u{1}", "routes: 7", "- a\n- b"] {
        gateway.reload(text, &[]);
        gateway.get("/old").expect_status(200);
    }
    gateway.reload_until(&route("/new"), &[("ORIGIN", &origin)], |gateway| gateway.get("/new").status == 200);
    gateway.wait_said(&["apisix.yaml"]);
}

fn an_object_taken_away_is_gone() {
    let origin = Origin::naming();
    let gateway =
        Gateway::resources(&MIXED.replace("count: ten", "count: 10"), &[("ORIGIN", &origin)]).start();
    gateway.get("/bad").expect_status(200);

    gateway.reload_until("routes: []", &[], |gateway| gateway.get("/good").status == 404);
    gateway.get("/bad").expect_status(404);
}

fn a_half_written_file_changes_nothing() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/old", [&origin]).start();

    // It ended with `#END` and does not now: whoever writes it is not done.
    let half = route("/new").replace("ORIGIN", &origin.node());
    std::fs::write(gateway.path("apisix.yaml"), &half).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        gateway.get("/old").expect_status(200);
    }
    std::fs::write(gateway.path("apisix.yaml"), format!("{half}\n#END\n")).unwrap();
    eventually("the whole file", || (gateway.get("/new").status == 200).then_some(()));
}

fn a_request_under_way_keeps_what_it_began_with() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::answering(move |seen| {
        if seen.target == "/old" {
            let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        super::kit::reply("200 OK", &seen.target)
    });
    let gateway = Gateway::routing("/old", [&origin]).start();

    let mut client = gateway.client();
    client.raw.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.reload_until(&route("/new"), &[("ORIGIN", &origin)], |gateway| gateway.get("/new").status == 200);
    go.send(()).unwrap();
    client.raw.answer().expect(200, "/old");
    client.get("/old").expect_status(404);
    client.get("/new").expect(200, "/new");
}

fn fifty_reloads_under_load_fail_no_request() {
    let origin = Origin::naming();
    let text = |round: usize| {
        format!(
            "
            routes:
              - {{id: always, uri: /always, upstream: {{type: roundrobin, nodes: {{ORIGIN: 1}}}}}}
              - {{id: r{round}, uri: /round-{round}, upstream: {{type: roundrobin, nodes: {{ORIGIN: 1}}}}}}
            "
        )
    };
    let settings = "limits: {keepalive_requests: 1000000000}";
    let gateway = Gateway::resources(&text(0), &[("ORIGIN", &origin)]).cores(2).settings(settings).start();

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gateway.address();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/always");
                    answer.expect(200, "GET /always");
                    assert!(answer.open, "a reload closed a connection");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=50 {
        let path = format!("/round-{round}");
        gateway
            .reload_until(&text(round), &[("ORIGIN", &origin)], |gateway| gateway.get(&path).status == 200);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request failed");
    }
    let served = served.load(Ordering::Relaxed);
    assert!(served > 50, "only {served} requests in all that time");
    gateway.get("/round-49").expect_status(404);
}

fn limits_survive_a_reload_that_does_not_touch_them() {
    let origin = Origin::naming();
    let text = |other: &str| {
        format!(
            "
            routes:
              - id: l
                uri: /limited
                plugins: {{limit-count: {{count: 3, time_window: 600, rejected_code: 429, key: remote_addr}}}}
                upstream: {{type: roundrobin, nodes: {{ORIGIN: 1}}}}
              - {{id: o, uri: {other}, upstream: {{type: roundrobin, nodes: {{ORIGIN: 1}}}}}}
            "
        )
    };
    let gateway = Gateway::resources(&text("/a"), &[("ORIGIN", &origin)]).start();
    let statuses =
        |count: usize| -> Vec<u16> { (0..count).map(|_| gateway.get("/limited").status).collect() };

    assert_eq!(statuses(2), [200, 200]);
    gateway.reload_until(&text("/b"), &[("ORIGIN", &origin)], |gateway| gateway.get("/b").status == 200);
    assert_eq!(statuses(2), [200, 429]);
}
