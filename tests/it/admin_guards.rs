//! The Admin API keeps what it guards: a change harms no object that it does not name, and secrets are for those who may write.

use serde_json::json;

use super::kit::{Client, Gateway, Origin, route_to};

on_both_drivers!(
    a_change_takes_nothing_out_of_service_that_it_does_not_name,
    a_viewer_learns_no_secret,
    only_stores_of_secrets_that_there_are_can_be_named,
);

fn a_change_takes_nothing_out_of_service_that_it_does_not_name() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let upstream = json!({"nodes": {origin.node(): 1}});
    let guarded =
        json!({"uri": "/guarded", "upstream": upstream, "plugins": {"key-auth": {}, "prometheus": {}}});
    admin.put("/routes/open", &route_to(&origin, "/guard*"));
    admin.put("/routes/guarded", &guarded.to_string());
    gateway.get("/guarded").expect_status(401);
    // It could not be taken beside this metadata: the open route would be asked in its place.
    let metadata = r#"{"disabled_labels":{"http_status":["code"]}}"#;
    for path in ["/plugin_metadata/prometheus", "/plugin_metadata/prometheus?dry_run=true"] {
        let refused = admin.ask("PUT", path, &[], metadata);
        refused.expect_status(400);
        let told = refused.json()["error_msg"].as_str().expect("words").to_owned();
        assert!(told.contains("it would set routes/guarded aside: plugins.prometheus"), "{told}");
        assert!(told.contains("force=true"), "{told}");
    }
    gateway.get("/guarded").expect_status(401);
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(0.0));

    let log = gateway.path("entries.log");
    admin.put("/plugin_metadata/file-logger", &json!({"path": log}).to_string());
    admin.put("/global_rules/guard", r#"{"plugins":{"key-auth":{},"file-logger":{}}}"#);
    gateway.get("/guard").expect_status(401);
    let refused = admin.ask("DELETE", "/plugin_metadata/file-logger", &[], "");
    refused.expect_status(400);
    assert!(refused.text().contains("global_rules/guard"), "{}", refused.text());
    gateway.get("/guard").expect_status(401);
    // Who says so may.
    admin.ask("DELETE", "/plugin_metadata/file-logger?force=true", &[], "").expect_status(200);
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(1.0));
    // What the rule guarded is not open for that.
    gateway.get("/guard").expect_status(503);
}

fn a_viewer_learns_no_secret() {
    let keys = "admin: {secrets: shown, keys: [{name: a, key: admin-key}, {name: v, key: viewer-key, role: viewer}]}";
    let gateway = Gateway::managed().settings(keys).start();
    let address = gateway.admin().address;
    let ask = |method: &str, path: &str, key: &str, body: &str| {
        let headers = [("X-API-KEY", key)];
        Client::connect(address).request(method, &format!("/apisix/admin{path}"), &headers, body.as_bytes())
    };
    let consumer = r#"{"username":"bob","plugins":{"basic-auth":{"username":"bob","password":"hunter2"}}}"#;
    ask("PUT", "/consumers", "admin-key", consumer).expect_status(201);
    let vault = r#"{"uri":"http://127.0.0.1:1","prefix":"kv","token":"hunter2"}"#;
    ask("PUT", "/secrets/vault/1", "admin-key", vault).expect_status(201);
    for path in ["/consumers/bob", "/consumers", "/secrets/vault/1", "/secrets", "/configs", "/history"] {
        let answer = ask("GET", path, "viewer-key", "");
        answer.expect_status(200);
        assert!(!answer.text().contains("hunter2"), "{path}: {}", answer.text());
    }
    assert!(ask("GET", "/consumers/bob", "viewer-key", "").text().contains("***"));
    // Nor by guesses.
    let found = |guess: &str, key: &str| {
        let path = format!("/secrets?filter={guess}");
        serde_json::from_str::<serde_json::Value>(&ask("GET", &path, key, "").text()).expect("a list")["total"].clone()
    };
    assert_eq!(
        (found("token%3Dhunter2", "admin-key"), found("token%3Dhunter2", "viewer-key")),
        (1.into(), 0.into())
    );
    assert_eq!(found("prefix%3Dkv", "viewer-key"), 1);
    assert!(ask("GET", "/consumers/bob", "admin-key", "").text().contains("hunter2"));
}

fn only_stores_of_secrets_that_there_are_can_be_named() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let refused = admin.ask("PUT", "/secrets/nosuch/1", &[], "{}");
    refused.expect_status(400);
    assert_eq!(refused.json()["error_msg"], "invalid secret manager: nosuch");
    let batch = r#"[{"method":"PUT","path":"/secrets/nosuch/1","body":{}}]"#;
    let document = r#"{"secrets":[{"id":"nosuch/1"}]}"#;
    let digest = [("X-Digest", "1")];
    for (method, path, body) in [("POST", "/batch", batch), ("PUT", "/configs", document)] {
        let refused = admin.ask(method, path, &digest, body);
        refused.expect_status(400);
        assert!(refused.text().contains("invalid secret manager: nosuch"), "{path}: {}", refused.text());
    }
    let streams = r#"{"stream_routes":[{"id":"1","upstream":{"nodes":{"127.0.0.1:9":1}}}]}"#;
    let refused = admin.ask("PUT", "/configs", &[("X-Digest", "1")], streams);
    refused.expect_status(400);
    assert!(refused.text().contains("stream mode is disabled"), "{}", refused.text());
}
