//! Objects that are put for a time (`?ttl`), and go by themselves when it is over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::kit::{Admin, Etcd, Gateway, Origin, eventually, route_to, within};

on_both_drivers!(
    an_object_goes_when_its_time_is_over_and_the_history_says_so,
    the_last_write_says_how_long_an_object_stays,
    what_has_gone_while_nobody_served_it_is_never_served_again,
    a_document_and_a_way_back_let_objects_stay,
    who_needs_what_has_gone_finds_it_missing,
    what_belongs_to_an_object_goes_with_it,
    all_that_a_batch_puts_goes_at_once,
    a_time_that_is_none_is_refused,
    a_lease_of_etcd_ends_for_every_gateway,
);

/// For what a busy machine does slowly, and etcd when it likes.
const LONG: Duration = Duration::from_secs(30);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// When an object goes, in seconds since 1970.
fn end_of(admin: &Admin, path: &str) -> Option<u64> {
    admin.ask("GET", path, &[], "").json()["expires"].as_u64()
}

#[track_caller]
fn goes(admin: &Admin, path: &str) {
    within(LONG, &format!("{path} is gone"), || {
        (admin.ask("GET", path, &[], "").status == 404).then_some(())
    });
}

fn an_object_goes_when_its_time_is_over_and_the_history_says_so() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(2).start();
    let admin = gateway.admin();
    let before = now();
    admin.ask("PUT", "/routes/1?ttl=6", &[], &route_to(&origin, "/for-a-time")).expect_status(201);
    gateway.get("/for-a-time").expect(200, "hello");
    let end = end_of(&admin, "/routes/1").expect("it is told");
    assert!((before + 6..=now() + 6).contains(&end), "{before} {end}");
    assert_eq!(admin.ask("GET", "/routes", &[], "").json()["list"][0]["expires"], end);

    goes(&admin, "/routes/1");
    assert!(now() >= end, "not before its time");
    for _ in 0..8 {
        eventually("no core serves it", || (gateway.get("/for-a-time").status == 404).then_some(()));
    }
    let past = admin.ask("GET", "/history?limit=1", &[], "").json();
    let last = &past["list"][0];
    assert_eq!((&last["who"], &last["from"]), (&json!("ttl"), &json!("gateway")), "{past}");
    assert_eq!(last["changes"][0]["key"], "/apisix/routes/1");
    assert_eq!(last["changes"][0]["after"], Value::Null);
    gateway.wait_said(&["routes/1 changed by ttl from gateway"]);
}

fn the_last_write_says_how_long_an_object_stays() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    for (id, first, then) in [
        ("stays", "?ttl=3600", ""),
        ("patched", "", ""),
        ("later", "", "?ttl=3600"),
        ("goes", "?ttl=3600", "?ttl=1"),
    ] {
        let (uri, path) = (format!("/{id}"), format!("/routes/{id}"));
        admin.ask("PUT", &format!("{path}{first}"), &[], &route_to(&origin, &uri)).expect_status(201);
        let patched = format!("{path}?dry_run=true&ttl=7200");
        admin.ask("PATCH", &patched, &[], r#"{"name":"p"}"#).expect_status(200);
        admin.ask("PUT", &format!("{path}{then}"), &[], &route_to(&origin, &uri)).expect_status(200);
    }
    admin.ask("PATCH", "/routes/patched?ttl=1", &[], r#"{"name":"p"}"#).expect_status(200);
    let posted = admin.ask("POST", "/routes?ttl=1", &[], &route_to(&origin, "/posted")).json();
    let posted = posted["key"].as_str().expect("a key").replace("/apisix", "");
    for path in ["/routes/goes", "/routes/patched", &posted] {
        goes(&admin, path);
    }
    for path in ["/stays", "/later"] {
        gateway.get(path).expect(200, "hello");
    }
    assert_eq!(end_of(&admin, "/routes/stays"), None);
    assert!(end_of(&admin, "/routes/later").expect("it is told") > now() + 3000);
}

fn what_has_gone_while_nobody_served_it_is_never_served_again() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/stays", &route_to(&origin, "/stays"));
    for (id, ttl) in [("later", 3600), ("goes", 6)] {
        let path = format!("/routes/{id}?ttl={ttl}");
        admin.ask("PUT", &path, &[], &route_to(&origin, &format!("/{id}"))).expect_status(201);
    }
    let (later, end) = (end_of(&admin, "/routes/later"), end_of(&admin, "/routes/goes").expect("it is told"));
    gateway.cut_power();
    within(LONG, "its time is over", || (now() > end).then_some(()));
    gateway.start_again();
    gateway.get("/goes").expect_status(404);
    for path in ["/stays", "/later"] {
        gateway.get(path).expect(200, "hello");
    }
    let admin = gateway.admin();
    assert_eq!(end_of(&admin, "/routes/later"), later, "to the second");
    admin.ask("GET", "/routes/goes", &[], "").expect_status(404);
    let audit = std::fs::read_to_string(gateway.path("state/audit.jsonl")).unwrap();
    let last: Value = serde_json::from_str(audit.lines().last().expect("a line")).unwrap();
    assert_eq!(
        (&last["who"], &last["changes"][0]["object"]),
        (&json!("ttl"), &json!("routes/goes")),
        "{last}"
    );
}

fn a_document_and_a_way_back_let_objects_stay() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let route = route_to(&origin, "/a");
    for id in ["1", "2"] {
        admin.put(&format!("/routes/{id}"), &route);
    }
    for id in ["1", "2"] {
        admin.ask("PUT", &format!("/routes/{id}?ttl=3600"), &[], &route).expect_status(200);
    }
    admin.ask("POST", "/rollback/3", &[], "").expect_status(200);
    assert_eq!(end_of(&admin, "/routes/2"), None, "as it was then");
    assert!(end_of(&admin, "/routes/1").is_some(), "so it was then, too");
    // Without versions, which would say that nothing is new.
    let mut all = admin.ask("GET", "/configs", &[], "").json();
    all.as_object_mut().expect("a document").retain(|name, _| !name.ends_with("_conf_version"));
    admin.ask("PUT", "/configs", &[("X-Digest", "1")], &all.to_string()).expect_status(202);
    assert_eq!(end_of(&admin, "/routes/1"), None, "it is declared");
}

fn who_needs_what_has_gone_finds_it_missing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let upstream = json!({"nodes": {origin.node(): 1}}).to_string();
    admin.put("/upstreams/1", &upstream);
    admin.put("/routes/1", r#"{"uri":"/a","upstream_id":"1"}"#);
    gateway.get("/a").expect(200, "hello");
    admin.ask("PUT", "/upstreams/1?ttl=1", &[], &upstream).expect_status(200);
    goes(&admin, "/upstreams/1");
    eventually("its route has no upstream", || (gateway.get("/a").status == 502).then_some(()));
    admin.ask("GET", "/routes/1", &[], "").expect_status(200);
    admin.put("/upstreams/1", &upstream);
    gateway.get("/a").expect(200, "hello");
}

fn what_belongs_to_an_object_goes_with_it() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/consumers", r#"{"username":"jack"}"#);
    admin.put("/consumers/jack/credentials/a", r#"{"plugins":{"key-auth":{"key":"secret"}}}"#);
    admin.put("/consumers/jackson", r#"{"username":"jackson"}"#);
    admin.put("/consumers/jackson/credentials/a", r#"{"plugins":{"key-auth":{"key":"another"}}}"#);
    admin.ask("PUT", "/consumers?ttl=1", &[], r#"{"username":"jack"}"#).expect_status(200);
    goes(&admin, "/consumers/jack");
    admin.ask("GET", "/consumers/jack/credentials/a", &[], "").expect_status(404);
    admin.ask("GET", "/consumers/jackson/credentials/a", &[], "").expect_status(200);
}

fn all_that_a_batch_puts_goes_at_once() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let put = |id: usize| {
        json!({"method": "PUT", "path": format!("/routes/{id}"), "body": {
            "uri": format!("/{id}"), "upstream": {"nodes": {origin.node(): 1}},
        }})
    };
    let batch = Value::from((0..20).map(put).collect::<Vec<_>>()).to_string();
    admin.ask("POST", "/batch?ttl=1", &[], &batch).expect_status(200);
    goes(&admin, "/routes/0");
    let left = admin.ask("GET", "/routes", &[], "");
    assert_eq!(left.json()["total"], 0);
    assert_eq!(left.header("x-config-revision"), Some("2"), "all in one revision");
    let back = admin.ask("POST", "/rollback/1", &[], "");
    back.expect_status(200);
    assert_eq!(end_of(&admin, "/routes/0"), None, "what comes back stays");
}

fn a_time_that_is_none_is_refused() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let route = route_to(&origin, "/");
    for ttl in ["soon", "", "1s", "0x"] {
        let answer = admin.ask("PUT", &format!("/routes/1?ttl={ttl}"), &[], &route);
        answer.expect_status(400);
        assert_eq!(answer.json()["error_msg"], "invalid argument ttl: should be a number", "{ttl:?}");
    }
    for ttl in ["0", "-1", "1.5", "9000000001", "1e300", "inf", "NaN"] {
        let answer = admin.ask("PUT", &format!("/routes/1?ttl={ttl}"), &[], &route);
        answer.expect_status(400);
        let told = answer.json()["error_msg"].as_str().expect("words").to_owned();
        assert!(
            told.contains("expected whole seconds from 1 to 9000000000") && told.ends_with(ttl),
            "{told}"
        );
    }
    let digest = [("X-Digest", "1")];
    for (method, path) in [("PUT", "/configs?ttl=1"), ("POST", "/rollback/0?ttl=1")] {
        let answer = admin.ask(method, path, &digest, "{}");
        answer.expect_status(400);
        assert!(answer.text().contains("ttl: it is for objects"), "{}", answer.text());
    }
    admin.ask("GET", "/routes/1", &[], "").expect_status(404);
    admin.ask("PUT", "/routes/1?ttl=9e9", &[], &route).expect_status(201);
}

fn a_lease_of_etcd_ends_for_every_gateway() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let gateways = [(); 2].map(|()| Gateway::managed().settings(&etcd.settings()).start());
    let admin = gateways[0].admin();
    // The only object there is: that it goes is no accident.
    admin.ask("PUT", "/routes/1?ttl=3600", &[], &route_to(&origin, "/for-a-time")).expect_status(201);
    for gateway in &gateways {
        within(LONG, "it is served", || (gateway.get("/for-a-time").status == 200).then_some(()));
    }
    let lease = lease_of(&etcd, "routes/1");
    etcd.say(&["lease", "revoke", &lease]);
    for gateway in &gateways {
        within(LONG, "it is gone", || (gateway.get("/for-a-time").status == 404).then_some(()));
        assert_eq!(gateway.metric("ringway_etcd_missing_objects"), Some(0.0));
    }
    admin.ask("GET", "/routes/1", &[], "").expect_status(404);
    // The next write lets it stay; and a time that is short is over by itself.
    admin.ask("PUT", "/routes/1?ttl=3600", &[], &route_to(&origin, "/a")).expect_status(201);
    let lease = lease_of(&etcd, "routes/1");
    admin.ask("PUT", "/routes/1", &[], &route_to(&origin, "/a")).expect_status(200);
    etcd.say(&["lease", "revoke", &lease]);
    admin.ask("PUT", "/routes/2?ttl=2", &[], &route_to(&origin, "/b")).expect_status(201);
    goes(&admin, "/routes/2");
    within(LONG, "it stays", || (gateways[1].get("/a").status == 200).then_some(()));
    assert_eq!(etcd.say(&["lease", "list"]).trim(), "found 0 leases");
}

/// The id of the lease that an object is under, as etcdctl takes it.
fn lease_of(etcd: &Etcd, name: &str) -> String {
    let told: Value =
        serde_json::from_str(&etcd.say(&["get", &format!("/apisix/{name}"), "-w", "json"])).unwrap();
    format!("{:x}", told["kvs"][0]["lease"].as_i64().expect("a lease"))
}
