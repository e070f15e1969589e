//! What is left of limits: told on the control API and by `explain`, and kept over a stop and over a kill.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, Signal, within};

on_both_drivers!(
    what_is_left_is_told_to_those_who_look,
    a_clean_stop_loses_nothing,
    a_clean_stop_loses_nothing_of_long_windows_of_limit_count,
    a_kill_loses_no_more_than_was_spent_since_the_last_save,
    an_upgrade_with_two_processes_side_by_side_loses_nothing,
);

const PLUGINS: &str = "limit: {limits: [{name: org, key: http_x_org, windows: [{count: 10, per: month}, {count: 9, seconds: 86400}]}, \
                       {name: burst, rate: {count: 0.001, burst: 8}}]}";

fn json_of(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.control("GET", path);
    answer.expect_status(200);
    answer.json()
}

/// The first, second, … number of what is left, of that key.
fn left(gateway: &Gateway, key: &str) -> Vec<u64> {
    let told = json_of(gateway, &format!("/v1/limits?key={key}&route=1"));
    let list = told["list"].as_array().unwrap();
    list.iter().map(|limit| limit["remaining"].as_u64().unwrap()).collect()
}

fn ask(gateway: &Gateway, org: &str, times: usize) {
    let mut client = gateway.client();
    for _ in 0..times {
        client.request("GET", "/", &[("X-Org", org)], b"").expect(200, "hello");
    }
}

fn what_is_left_is_told_to_those_who_look() {
    let origin = Origin::replying("hello");
    let objects = format!(
        "
        global_rules: [{{id: 1, plugins: {{limit-count: {{count: 50, time_window: 600}}}}}}]
        routes:
          - {{id: 1, uri: /*, upstream_id: u, plugins: {{{PLUGINS}}}}}
          - {{id: s, uri: /s, upstream_id: u, plugins: {{key-auth: {{}}, limit-req: {{rate: 1, burst: 4, key: consumer_name}}, \
              limit: {{limits: [{{name: seats, key: consumer_name, concurrency: 3}}]}}}}}}
        upstreams: [{{id: u, nodes: {{ORIGIN: 1}}}}]
        consumers: [{{username: jack, plugins: {{key-auth: {{key: k}}, limit-conn: {{conn: 2, burst: 1, default_conn_delay: 1, key: consumer_name}}}}}}]
        "
    );
    let gateway = Gateway::resources(&objects, &[("ORIGIN", &origin)]).cores(2).start();
    ask(&gateway, "acme", 3);
    let told = json_of(&gateway, "/v1/limits?key=acme&route=1");
    assert_eq!((&told["key"], &told["total"], &told["left_off"]), (&json!("acme"), &json!(2), &json!(0)));
    let first = &told["list"][0];
    assert_eq!(
        (
            &first["limit"],
            &first["per"],
            &first["count"],
            &first["remaining"],
            &first["from"],
            &first["mode"]
        ),
        (&json!("org"), &json!("month"), &json!(10), &json!(7), &json!("routes/1"), &json!("enforce"))
    );
    assert!(first["reset_in"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds <= 31.0 * 86400.0));
    assert_eq!(left(&gateway, "other"), [10, 9], "nobody was counted there");
    // An address is that of all limits by address.
    assert_eq!(left(&gateway, "127.0.0.1"), [47, 10, 10, 9, 9, 5]);
    let jack = json_of(&gateway, "/v1/limits?consumer=jack&route=s");
    let per: Vec<&str> =
        jack["list"].as_array().unwrap().iter().map(|limit| limit["per"].as_str().unwrap()).collect();
    assert_eq!(per, ["concurrency", "concurrency", "rate"], "{jack:#}");
    assert_eq!((&jack["list"][1]["count"], &jack["list"][1]["from"]), (&json!(3), &json!("consumers/jack")));
    for (query, status) in [("consumer=joe", 404), ("route=t", 404), ("keys=a", 400)] {
        gateway.control("GET", &format!("/v1/limits?{query}")).expect_status(status);
    }

    // Those who explain a request look, too, and nobody has spent anything by looking.
    for _ in 0..2 {
        let told = json_of(&gateway, "/v1/explain?uri=/&header=x-org:acme");
        let limits: Vec<(&Value, &Value)> = told["limits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|limit| (&limit["plugin"], &limit["remaining"]))
            .collect();
        assert_eq!(
            limits,
            [
                (&json!("limit-count"), &json!(47)),
                (&json!("limit"), &json!(7)),
                (&json!("limit"), &json!(6)),
                (&json!("limit"), &json!(5))
            ],
            "{told:#}"
        );
    }
    let (code, said) = gateway.cli("limits acme --route 1");
    assert_eq!(code, 0, "{said}");
    assert!(said.lines().any(|line| line.starts_with("org ") && line.contains(" 7 ")), "{said}");
}

fn stop_and_start_again(gateway: &mut Gateway) {
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    std::fs::remove_file(gateway.path("ready.json")).unwrap();
    gateway.start_again();
}

fn a_clean_stop_loses_nothing() {
    let origin = Origin::replying("hello");
    let mut gateway =
        Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{PLUGINS}}}")).cores(2).start();
    ask(&gateway, "acme", 4);
    stop_and_start_again(&mut gateway);
    assert_eq!(left(&gateway, "acme"), [6, 5], "before anybody has asked");
    ask(&gateway, "acme", 3);
    assert_eq!(left(&gateway, "acme"), [3, 2]);
    // A second time, and from both ends: what was restored and used, and what was not.
    ask(&gateway, "other", 1);
    stop_and_start_again(&mut gateway);
    assert_eq!((left(&gateway, "acme"), left(&gateway, "other")), (vec![3, 2], vec![9, 8]));
    stop_and_start_again(&mut gateway);
    assert_eq!((left(&gateway, "acme"), left(&gateway, "other")), (vec![3, 2], vec![9, 8]));
}

/// Windows of all kinds that last: fixed, sliding, by a rule, of a group; and one that does not.
const COUNTED: &str = "
    routes:
      - {id: 1, uri: /one, upstream_id: u, plugins: {limit-count: {count: 1000000, time_window: 7200, key: http_x_org}}}
      - {id: 2, uri: /two, upstream_id: u, plugins: {limit-count: {count: 1000000, time_window: 86400, window_type: sliding, key: http_x_org}}}
      - {id: 3, uri: /three, upstream_id: u, plugins: {limit-count: {rules: [{count: 1000000, time_window: 3600, key: '$http_x_org'}, {count: 1000000, time_window: 3599, key: '${http_x_org}'}]}}}
      - {id: 4, uri: /four, upstream_id: u, plugins: {limit-count: {count: 1000000, time_window: 3600, group: g, key: http_x_org}}}
      - {id: 5, uri: /five, upstream_id: u, plugins: {limit: {limits: [{name: org, key: http_x_org, windows: [{count: 1000000, per: month}]}]}}}
    upstreams: [{id: u, nodes: {ORIGIN: 1}}]
";

/// What is spent of each of them; the fourth lasts a second less than an hour.
fn spent(gateway: &Gateway, key: &str) -> Vec<u64> {
    let left = |route: u32| {
        let told = json_of(gateway, &format!("/v1/limits?key={key}&route={route}"));
        told["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|limit| limit["remaining"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    (1..=5).flat_map(left).map(|left| 1_000_000 - left).collect()
}

/// Asks once for each of them.
fn ask_all(gateway: &Gateway, org: &str, times: usize) {
    let mut client = gateway.client();
    for path in ["/one", "/two", "/three", "/four", "/five"].iter().cycle().take(5 * times) {
        client.request("GET", path, &[("X-Org", org)], b"").expect(200, "hello");
    }
}

fn a_clean_stop_loses_nothing_of_long_windows_of_limit_count() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::resources(COUNTED, &[("ORIGIN", &origin)]).cores(2).start();
    ask_all(&gateway, "acme", 4);
    ask_all(&gateway, "rests", 2);
    stop_and_start_again(&mut gateway);
    assert_eq!(spent(&gateway, "acme"), [4, 4, 4, 0, 4, 4], "before anybody has asked");
    let answer = gateway.client().request("GET", "/four", &[("X-Org", "acme")], b"");
    assert_eq!(answer.header("X-RateLimit-Remaining"), Some("999995"));
    let reset: f64 = answer.header("X-RateLimit-Reset").unwrap().parse().unwrap();
    assert!(reset > 3500.0 && reset <= 3600.0, "{reset}");
    ask_all(&gateway, "acme", 1);
    assert_eq!(spent(&gateway, "acme"), [5, 5, 5, 1, 6, 5]);
    stop_and_start_again(&mut gateway);
    assert_eq!(spent(&gateway, "acme"), [5, 5, 5, 0, 6, 5]);
    assert_eq!(spent(&gateway, "rests"), [2, 2, 2, 0, 2, 2], "whom nobody asked for in a whole process");
}

/// A save is due five seconds after the one before: what was spent before it began is there after a kill.
fn a_kill_loses_no_more_than_was_spent_since_the_last_save() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::resources(COUNTED, &[("ORIGIN", &origin)]).cores(2).start();
    ask_all(&gateway, "acme", 4);
    let since = SystemTime::now();
    let file = gateway.path("state/limits.bin");
    let mut others = 0;
    // A save that began before `since` may have ended after it; the one after that can not have begun before.
    let mut seen: Vec<SystemTime> = Vec::new();
    within(std::time::Duration::from_secs(60), "it is saved twice", || {
        ask_all(&gateway, "other", 1);
        others += 1;
        let saved = std::fs::metadata(&file).and_then(|told| told.modified()).ok()?;
        if saved > since && seen.last() != Some(&saved) {
            seen.push(saved);
        }
        (seen.len() == 2).then_some(())
    });
    gateway.kill_and_start_again();
    assert_eq!(spent(&gateway, "acme"), [4, 4, 4, 0, 4, 4]);
    let kept = spent(&gateway, "other");
    let long = kept.iter().enumerate().filter(|(at, _)| *at != 3);
    assert!(long.clone().all(|(_, kept)| *kept > 0 && *kept <= others), "{kept:?} of {others}");
}

/// The new process starts on what the old one has saved; what that counts from then on until its end is added.
fn an_upgrade_with_two_processes_side_by_side_loses_nothing() {
    let (origin, folder) = (Origin::replying("hello"), tempfile::tempdir().unwrap());
    let process = |number: u32| {
        let socket = folder.path().join(format!("{number}.sock"));
        let settings = format!("control_socket: {}", socket.display());
        let setup = Gateway::resources(COUNTED, &[("ORIGIN", &origin)]).settings(&settings);
        setup.state_on(folder.path()).cores(2).start()
    };
    let mut old = process(1);
    ask_all(&old, "acme", 4);
    let new = process(2);
    ask_all(&old, "acme", 3);
    ask_all(&new, "acme", 2);
    ask_all(&old, "leaves", 1);
    old.signal(Signal::Quit);
    assert_eq!(old.wait_exit().code(), Some(0));
    // The window of less than an hour is each process's own.
    within(std::time::Duration::from_secs(30), "the new process knows what the old one has counted", || {
        (spent(&new, "acme") == [9, 9, 9, 2, 9, 9]).then_some(())
    });
    assert_eq!(spent(&new, "leaves"), [1, 1, 1, 0, 1, 1]);
    ask_all(&new, "leaves", 1);
    assert_eq!(spent(&new, "leaves"), [2, 2, 2, 1, 2, 2]);
}
