//! The Admin API, whole: all objects as one document, the record of changes, and the document of the API itself.

use std::fs;

use serde_json::{Value, json};

use super::kit::{Gateway, Origin};

on_both_drivers!(
    a_document_takes_the_place_of_all_objects,
    a_document_that_is_known_is_not_taken_again,
    what_has_the_version_that_is_held_is_left_as_it_is,
    a_document_with_a_fault_changes_nothing_and_tells_where,
    every_change_is_in_the_audit_log_without_secrets,
    the_document_of_the_api_tells_paths_that_are_there,
);

fn put(gateway: &Gateway, digest: &str, document: &Value) -> super::kit::Answer {
    gateway.admin().ask("PUT", "/configs", &[("X-Digest", digest)], &document.to_string())
}

fn a_document_takes_the_place_of_all_objects() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let empty = admin.ask("GET", "/configs", &[], "");
    empty.expect_status(200);
    assert_eq!(empty.json()["routes_conf_version"], 0);
    assert!(empty.json().get("routes").is_none() && empty.header("x-digest").is_none());

    admin.put("/routes/old", &json!({"uri": "/old", "upstream": {"nodes": {origin.node(): 1}}}).to_string());
    let document = json!({
        "upstreams": [{"id": "u", "nodes": {origin.node(): 1}}],
        "routes": [{"id": "r", "uri": "/new", "upstream_id": "u", "plugins": {"key-auth": {}}, "modifiedIndex": 7}],
        "consumers": [
            {"username": "jack"},
            {"id": "jack/credentials/c", "plugins": {"key-auth": {"key": "k"}}},
        ],
    });
    put(&gateway, "first", &document).expect_status(202);
    gateway.get("/old").expect_status(404);
    gateway.request("GET", "/new", &[("apikey", "k")], b"").expect(200, "hello");

    let held = admin.ask("GET", "/configs", &[], "");
    assert_eq!(held.header("x-digest"), Some("first"));
    assert!(
        held.header("x-last-modified").is_some_and(|time| time.parse::<u64>().is_ok_and(|time| time > 0))
    );
    let held = held.json();
    assert_eq!((&held["routes_conf_version"], &held["ssls_conf_version"]), (&json!(1), &json!(1)));
    assert_eq!(held["consumers"][1]["id"], "jack/credentials/c");
    let read = admin.ask("GET", "/consumers/jack/credentials/c", &[], "").json();
    assert_eq!(read["value"]["id"], "c");
    let yaml = admin.ask("GET", "/configs", &[("Accept", "application/yaml")], "");
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    assert!(yaml.text().contains("routes_conf_version: 1"), "{}", yaml.text());
    admin.ask("HEAD", "/configs", &[], "").expect_status(200);
}

fn a_document_that_is_known_is_not_taken_again() {
    let gateway = Gateway::managed().start();
    let document = json!({"upstreams": [{"id": "u", "nodes": {"127.0.0.1:9": 1}}]});
    let refused = gateway.admin().ask("PUT", "/configs", &[], &document.to_string());
    refused.expect(400, "{\"error_msg\":\"missing digest header\"}\n");
    put(&gateway, "one", &document).expect_status(202);
    put(&gateway, "one", &document).expect_status(204);
    // Somebody else has changed something: the digest is not of what is held any more.
    gateway.admin().ask("DELETE", "/upstreams/u", &[], "").expect_status(200);
    assert_eq!(gateway.admin().ask("GET", "/configs", &[], "").header("x-digest"), None);
    put(&gateway, "one", &document).expect_status(202);
    gateway.admin().ask("GET", "/upstreams/u", &[], "").expect_status(200);
}

fn what_has_the_version_that_is_held_is_left_as_it_is() {
    let gateway = Gateway::managed().start();
    let upstream = |port: u16| json!([{"id": "u", "nodes": {format!("127.0.0.1:{port}"): 1}}]);
    put(&gateway, "1", &json!({"upstreams": upstream(1), "upstreams_conf_version": 5})).expect_status(202);
    put(&gateway, "2", &json!({"upstreams": upstream(2), "upstreams_conf_version": 5})).expect_status(202);
    let held = || gateway.admin().ask("GET", "/configs", &[], "").json();
    assert_eq!(held()["upstreams"], upstream(1));
    put(&gateway, "3", &json!({"upstreams": upstream(3), "upstreams_conf_version": 6})).expect_status(202);
    assert_eq!(held()["upstreams"], upstream(3));
    let older = put(&gateway, "4", &json!({"upstreams": upstream(4), "upstreams_conf_version": 4}));
    let told = "{\"error_msg\":\"upstreams_conf_version must be greater than or equal to (6)\"}\n";
    older.expect(400, told);
    put(&gateway, "5", &json!({"upstreams_conf_version": "six"})).expect_status(400);
    put(&gateway, "6", &json!({})).expect_status(202);
    assert!(held().get("upstreams").is_none());
}

fn a_document_with_a_fault_changes_nothing_and_tells_where() {
    let gateway = Gateway::managed().start();
    let nodes = json!({"127.0.0.1:9": 1});
    put(&gateway, "1", &json!({"upstreams": [{"id": "u", "nodes": nodes}]})).expect_status(202);
    for (document, told) in [
        (
            json!({"upstreams": [{"id": "a", "nodes": nodes}, {"id": "b", "nodes": nodes, "retries": "x"}]}),
            "invalid upstreams at index 1, err: invalid configuration: retries",
        ),
        (
            json!({"upstreams": [{"id": "a", "nodes": nodes}, {"id": "a", "nodes": nodes}]}),
            "found duplicate id a in upstreams",
        ),
        (
            json!({"consumers": [{"username": "jack"}, {"username": "jack"}]}),
            "found duplicate username jack in consumers",
        ),
        (json!({"rotes": []}), "did you mean"),
        (json!([]), "invalid request body: "),
    ] {
        let answer = put(&gateway, "2", &document);
        answer.expect_status(400);
        let found = answer.json()["error_msg"].as_str().unwrap_or_default().to_owned();
        assert!(found.contains(told), "{document}: {found}");
    }
    let held = gateway.admin().ask("GET", "/configs", &[], "");
    assert_eq!((held.header("x-digest"), &held.json()["upstreams"][0]["id"]), (Some("1"), &json!("u")));
}

fn every_change_is_in_the_audit_log_without_secrets() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/consumers/jack", r#"{"username":"jack","plugins":{"key-auth":{"key":"very-secret"}}}"#);
    admin.put("/consumers/jack", r#"{"username":"jack","desc":"again"}"#);
    admin.ask("DELETE", "/consumers/jack", &[], "").expect_status(200);
    admin.ask("PUT", "/routes/1", &[], "{}").expect_status(400);
    let text = fs::read_to_string(gateway.path("state/audit.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let acts: Vec<&str> =
        lines.iter().map(|line| line["changes"][0]["act"].as_str().unwrap_or_default()).collect();
    assert_eq!(acts, ["create", "update", "delete"], "{text}");
    assert_eq!((&lines[0]["who"], &lines[0]["from"]), (&json!("admin"), &json!("127.0.0.1")));
    assert_eq!(lines[0]["changes"][0]["object"], "consumers/jack");
    assert_eq!(lines[1]["changes"][0]["before"]["plugins"]["key-auth"]["key"], "***");
    assert_eq!(lines[1]["changes"][0]["after"]["desc"], "again");
    assert!(!text.contains("very-secret"), "{text}");
}

fn the_document_of_the_api_tells_paths_that_are_there() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let document = admin.ask("GET", "/openapi.json", &[], "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        if operations.get("get").is_none() {
            continue;
        }
        let asked =
            path.replace("{kind}", "route").replace("{name}", "key-auth").replace("{manager}", "vault");
        let asked = asked.replace("{username}", "jack").replace("{id}", "1");
        let answer = admin.ask("GET", &asked, &[], "");
        let unknown =
            answer.text().contains("Unsupported resource type") || answer.text().contains("\"not found\"");
        assert!(!unknown, "{path}: {}", answer.text());
    }
}
