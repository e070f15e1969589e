//! The control API: what is in force, what was set aside, and what objects ask for and do not get.

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, eventually};

on_both_drivers!(
    objects_are_shown_as_they_are_in_force,
    what_is_written_in_part_is_shown_with_its_defaults,
    what_is_set_aside_is_told_with_its_reason_and_what_stays,
    checks_are_listed_for_whoever_looks_after_health,
    schemas_of_everything_are_told_without_a_key,
    metadata_of_plugins_is_shown_and_consumers_are_not,
);

fn json_of(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.control("GET", path);
    answer.expect_status(200);
    answer.json()
}

fn objects_are_shown_as_they_are_in_force() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/upstreams/u", &json!({"nodes": {origin.node(): 1}}).to_string());
    admin.put("/routes/r-1", r#"{"uri":"/*","upstream_id":"u"}"#);
    let route = json_of(&gateway, "/v1/route/r-1");
    assert_eq!((&route["key"], &route["modifiedIndex"]), (&json!("/apisix/routes/r-1"), &json!(2)));
    assert_eq!((&route["value"]["priority"], &route["value"]["status"]), (&json!(0), &json!(1)));
    let upstream = json_of(&gateway, "/v1/upstream/u");
    let value = &upstream["value"];
    assert_eq!((&value["type"], &value["pass_host"]), (&json!("roundrobin"), &json!("pass")));
    assert_eq!(upstream["has_domain"], false);
    assert_eq!(json_of(&gateway, "/v1/routes").as_array().map(Vec::len), Some(1));
    assert_eq!(json_of(&gateway, "/v1/services"), json!([]));
    let missing = gateway.control("GET", "/v1/service/9");
    missing.expect(404, "{\"error_msg\":\"service[9] not found\"}\n");
    let who = json_of(&gateway, "/v1/server_info");
    assert_eq!(who["version"], format!("ringway/{}", env!("CARGO_PKG_VERSION")));
    assert!(who["boot_time"].as_u64().is_some_and(|at| at > 1_700_000_000), "{who}");
    assert_eq!(
        (who["id"].as_str().map(str::len), &who["id"]),
        (Some(36), &json_of(&gateway, "/v1/server_info")["id"])
    );
    gateway.control("PUT", "/v1/plugins/reload").expect(200, "done");
    gateway.control("POST", "/v1/gc").expect_status(200);
    gateway.control("GET", "/v1/nothing").expect_status(404);
}

fn what_is_written_in_part_is_shown_with_its_defaults() {
    let gateway = Gateway::managed().start();
    let written = json!({
        "nodes": {"127.0.0.1:9": 1},
        "checks": {"active": {"http_path": "/up", "unhealthy": {"interval": 3600}, "healthy": {"interval": 3600}}, "passive": {}},
        "keepalive_pool": {"size": 5},
        "tls": {"verify": false},
        "labels": {"size": "big"},
    });
    gateway.admin().put("/upstreams/u", &written.to_string());
    let value = &json_of(&gateway, "/v1/upstream/u")["value"];
    let (active, passive) = (&value["checks"]["active"], &value["checks"]["passive"]);
    assert_eq!((&active["type"], &active["http_path"]), (&json!("http"), &json!("/up")), "{value}");
    assert_eq!((&active["concurrency"], &active["http_method"]), (&json!(10), &json!("GET")), "{value}");
    let healthy = json!({"interval": 3600, "http_statuses": [200, 302], "successes": 2});
    assert_eq!(active["healthy"], healthy, "{value}");
    assert_eq!(
        (&active["unhealthy"]["timeouts"], &active["unhealthy"]["interval"]),
        (&json!(3), &json!(3600))
    );
    assert_eq!(
        (&passive["healthy"]["successes"], &passive["unhealthy"]["timeouts"]),
        (&json!(5), &json!(7)),
        "{value}"
    );
    let pool = &value["keepalive_pool"];
    assert_eq!((&pool["size"], &pool["requests"]), (&json!(5), &json!(1000)), "{value}");
    assert!(pool["idle_timeout"] == 60 || pool["idle_timeout"] == 60.0, "{value}");
    assert_eq!(value["labels"], json!({"size": "big"}));
}

fn what_is_set_aside_is_told_with_its_reason_and_what_stays() {
    let origin = Origin::replying("hello");
    let good = "
        routes:
          - {id: 1, uri: /good, upstream: {nodes: {ORIGIN: 1}}}
          - {id: 2, uri: /never, upstream: {nodes: {ORIGIN: 1}, retries: many}}
        ";
    let gateway = Gateway::resources(good, &[("ORIGIN", &origin)]).start();
    let told = json_of(&gateway, "/v1/quarantine");
    assert_eq!(told["total"], 1, "{told}");
    assert_eq!(
        (&told["list"][0]["object"], &told["list"][0]["last_good"]),
        (&json!("routes/2"), &Value::Null)
    );

    let bad = "
        routes:
          - {id: 1, uri: /good, upstream: {nodes: {ORIGIN: 1}, retries: many}}
          - {id: 3, uri: /hashed, upstream: {nodes: {ORIGIN: 1}, tls: {verify: true}}}
        ";
    gateway.reload_until(bad, &[("ORIGIN", &origin)], |gateway| gateway.get("/hashed").status == 200);
    let told = json_of(&gateway, "/v1/quarantine");
    let object = &told["list"][0];
    assert_eq!((&told["total"], &object["object"]), (&json!(1), &json!("routes/1")), "{told}");
    assert!(object["reason"].as_str().is_some_and(|reason| reason.contains("retries")), "{told}");
    assert_eq!(object["faults"][0]["pointer"], "/upstream/retries");
    assert!(object["last_good"].is_u64(), "{told}");
    assert_eq!(told["warnings"][0]["object"], "routes/3", "{told}");
    gateway.get("/good").expect(200, "hello");
    let shown = json_of(&gateway, "/v1/route/1");
    assert!(shown["value"]["upstream"].get("retries").is_none(), "the last good version: {shown}");
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(1.0));
}

fn checks_are_listed_for_whoever_looks_after_health() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let later = r#""healthy":{"interval":3600},"unhealthy":{"interval":3600}"#;
    admin.put(
        "/upstreams/1",
        &format!(r#"{{"nodes":{{"localhost:9":1}},"checks":{{"active":{{"type":"tcp",{later}}}}}}}"#),
    );
    admin.put("/upstreams/2", r#"{"nodes":{"127.0.0.1:9":1}}"#);
    let all = eventually("it was looked after once", || {
        let all = json_of(&gateway, "/v1/healthcheck");
        (all[0]["nodes"][0]["counter"]["tcp_failure"] == 1).then_some(all)
    });
    let node = &all[0]["nodes"][0];
    assert_eq!((&all[0]["name"], &all[0]["type"]), (&json!("/apisix/upstreams/1"), &json!("tcp")));
    let counter = json!({"success": 0, "http_failure": 0, "tcp_failure": 1, "timeout_failure": 0});
    assert_eq!(
        (&node["port"], &node["hostname"], &node["counter"]),
        (&json!(9), &json!("localhost"), &counter)
    );
    assert_eq!(json_of(&gateway, "/v1/healthcheck/upstreams/1"), all[0]);
    for (path, status, told) in [
        ("/v1/healthcheck/upstreams/2", 404, "no checker for upstreams[2]"),
        ("/v1/healthcheck/upstreams/3", 404, "upstreams[3] not found"),
        ("/v1/healthcheck/upstreams", 404, "missing src id for src type upstreams"),
        ("/v1/healthcheck/consumers/1", 400, "invalid src type consumers"),
    ] {
        let answer = gateway.control("GET", path);
        answer.expect_status(status);
        assert_eq!(answer.json()["error_msg"], told, "{path}");
    }
}

fn schemas_of_everything_are_told_without_a_key() {
    let gateway = Gateway::managed().start();
    let told = json_of(&gateway, "/v1/schema");
    assert_eq!(told["main"]["route"]["type"], "object");
    assert_eq!(told["plugins"]["key-auth"]["type"], "auth");
    assert!(told["plugins"]["limit-count"]["schema"]["properties"]["count"].is_object());
}

fn metadata_of_plugins_is_shown_and_consumers_are_not() {
    let gateway = Gateway::managed().start();
    gateway.admin().put("/plugin_metadata/limit-count", r#"{"limit_header":"X-L"}"#);
    assert_eq!(json_of(&gateway, "/v1/plugin_metadata/limit-count")["limit_header"], "X-L");
    assert_eq!(json_of(&gateway, "/v1/plugin_metadatas").as_array().map(Vec::len), Some(1));
    gateway.control("GET", "/v1/plugin_metadata/cors").expect_status(404);
    gateway.control("GET", "/v1/consumers").expect_status(404);
}
