//! What the Admin API refuses and how it says so: problem details, places, and answers to HEAD.

use serde_json::{Value, json};

use super::kit::{Admin, Answer, Client, Gateway};

on_both_drivers!(
    refusals_of_every_kind_come_as_problem_details_to_who_asks,
    a_reference_to_nothing_is_told_with_its_place,
    a_document_to_be_checked_says_something_and_each_id_once,
    an_object_keeps_its_id_whatever_a_patch_says,
    head_is_answered_as_get_is_and_to_nobody_else,
    a_store_of_secrets_that_is_referred_to_stays_unless_by_force,
    a_store_of_secrets_has_what_its_manager_needs,
);

const PROBLEM: (&str, &str) = ("Accept", "application/problem+json");

/// The details of a refusal.
#[track_caller]
fn problem(answer: &Answer, status: u16) -> Value {
    answer.expect_status(status);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["status"], status, "{told}");
    assert!(told["title"].as_str().is_some_and(|title| !title.is_empty()), "{told}");
    told
}

fn refusals_of_every_kind_come_as_problem_details_to_who_asks() {
    let keys = "admin: {keys: [{name: a, key: k}, {name: v, key: v, role: viewer}]}";
    let gateway = Gateway::managed().settings(keys).start();
    let admin = Admin { address: gateway.admin().address, key: "k".to_owned() };
    let viewer = Admin { address: admin.address, key: "v".to_owned() };
    let stranger = Client::connect(admin.address).request("GET", "/apisix/admin/routes", &[PROBLEM], b"");
    assert_eq!(problem(&stranger, 401)["detail"], "failed to check token: missing apikey");
    let told = problem(&viewer.ask("DELETE", "/routes/1", &[PROBLEM], ""), 401);
    assert_eq!(told["detail"], "failed to check token: invalid method for role viewer");
    let origin = [PROBLEM, ("Origin", "http://a.test")];
    assert!(problem(&admin.ask("DELETE", "/routes/1", &origin, ""), 403)["detail"].is_string());
    for path in ["/plugins/none", "/plugins/a/b", "/schema/none", "/schema/plugins/none", "/none"] {
        assert!(problem(&admin.ask("GET", path, &[PROBLEM], ""), 404)["detail"].is_string(), "{path}");
    }
    problem(&admin.ask("GET", "/plugins/reload", &[PROBLEM], ""), 405);
    let document = r#"{"routes":[{"id":"1","uri":"/*","upstream_id":"none"}]}"#;
    let told = problem(&admin.ask("POST", "/configs/validate", &[PROBLEM], document), 400);
    assert_eq!(told["detail"], "Configuration validation failed");
    assert_eq!(told["errors"][0]["object"], "routes/1");
    // Whoever does not ask gets the words of APISIX.
    let plain = Client::connect(admin.address).get("/apisix/admin/routes");
    assert_eq!(plain.json(), json!({"error_msg": "failed to check token", "description": "missing apikey"}));
}

fn a_reference_to_nothing_is_told_with_its_place() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let split = json!({"rules": [{"weighted_upstreams": [{"upstream_id": "none", "weight": 1}]}]});
    let nodes = json!({"nodes": {"127.0.0.1:9": 1}});
    for (body, pointer) in [
        (json!({"uri": "/", "upstream_id": "none"}), "/upstream_id"),
        (
            json!({"uri": "/", "upstream": {"nodes": {"127.0.0.1:9": 1}, "tls": {"client_cert_id": "none"}}}),
            "/upstream/tls/client_cert_id",
        ),
        (
            json!({"uri": "/", "upstream": nodes, "plugins": {"traffic-split": split}}),
            "/plugins/traffic-split/rules/0/weighted_upstreams/0/upstream_id",
        ),
    ] {
        let answer = admin.ask("PUT", "/routes/1", &[PROBLEM], &body.to_string());
        let told = problem(&answer, 400);
        assert_eq!(told["errors"][0]["pointer"], pointer, "{told}");
        assert_eq!(told["errors"][0]["object"], "routes/1");
        assert!(told["detail"].as_str().unwrap().contains("[none], response code: 404"), "{told}");
    }
}

fn a_document_to_be_checked_says_something_and_each_id_once() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    for nothing in ["", " \n"] {
        let answer = admin.ask("POST", "/configs/validate", &[], nothing);
        answer.expect_status(400);
        assert!(answer.text().contains("empty request body"), "{}", answer.text());
    }
    let document = r#"{"routes":[{"id":"a","uri":"/a"},{"id":"1","uri":"/"},{"id":1,"uri":"/b"}]}"#;
    let answer = admin.ask("POST", "/configs/validate", &[], document);
    answer.expect_status(400);
    let told = answer.json();
    assert_eq!(
        told["errors"],
        json!([{"resource_type": "routes", "index": 2, "error": "routes[2]: the id 1 is taken by routes[1]"}])
    );
    admin.ask("POST", "/configs/validate", &[], "{}").expect_status(200);
}

fn an_object_keeps_its_id_whatever_a_patch_says() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/1", r#"{"uri":"/a","plugins":{}}"#);
    admin.put("/secrets/vault/1", r#"{"uri":"http://a","prefix":"kv","token":"t"}"#);
    for (path, patch, status) in [
        ("/routes/1", r#"{"id":"2","desc":"x"}"#, 400),
        ("/routes/1/id", r#""2""#, 400),
        ("/secrets/vault/1", r#"{"id":"2"}"#, 400),
        ("/routes/1", r#"{"id":"1","desc":"y"}"#, 200),
        ("/routes/1", r#"{"id":null,"desc":"z"}"#, 200),
        ("/secrets/vault/1", r#"{"id":"vault/1"}"#, 200),
        ("/secrets/vault/1", r#"{"id":"1"}"#, 200),
    ] {
        let answer = admin.ask("PATCH", path, &[], patch);
        assert_eq!(answer.status, status, "{path} {patch}: {}", answer.text());
        if status == 400 {
            assert!(answer.text().contains(" id"), "{}", answer.text());
        }
    }
    let held = admin.ask("GET", "/routes/1", &[], "").json();
    assert_eq!((&held["value"]["id"], &held["value"]["desc"]), (&json!("1"), &json!("z")));
}

fn head_is_answered_as_get_is_and_to_nobody_else() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/1", r#"{"uri":"/a","plugins":{}}"#);
    for path in [
        "",
        "/routes",
        "/routes/1",
        "/routes/2",
        "/configs",
        "/history",
        "/plugins/list",
        "/plugins/cors",
        "/plugins/none",
        "/schema/route",
        "/schema/plugins/cors",
        "/openapi.json",
        "/none",
    ] {
        let (get, head) = (admin.ask("GET", path, &[], ""), admin.ask("HEAD", path, &[], ""));
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}: {}", head.text());
        for name in ["content-type", "etag", "x-config-revision", "x-api-version"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        let path = format!("/apisix/admin{path}");
        Client::connect(admin.address).request("HEAD", &path, &[], b"").expect_status(401);
    }
}

fn a_store_of_secrets_that_is_referred_to_stays_unless_by_force() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let vault = r#"{"uri":"http://127.0.0.1:1","prefix":"kv","token":"t"}"#;
    let jack = r#"{"username":"jack","plugins":{"key-auth":{"key":"$secret://vault/1/jack/key"}}}"#;
    for path in ["/secrets/vault/1", "/secrets/vault/10"] {
        admin.put(path, vault);
    }
    admin.put("/consumers", jack);
    let refused = admin.ask("DELETE", "/secrets/vault/1", &[], "");
    refused.expect_status(400);
    assert_eq!(
        refused.json()["error_msg"],
        "can not delete this secret, consumer [jack] is still using it now"
    );
    admin.ask("DELETE", "/secrets/vault/10", &[], "").expect_status(200);
    admin.ask("DELETE", "/secrets/vault/1?force=true", &[], "").expect_status(200);
    admin.put("/secrets/vault/1", vault);
    // Who takes both away leaves nobody without.
    let both =
        r#"[{"method":"DELETE","path":"/secrets/vault/1"},{"method":"DELETE","path":"/consumers/jack"}]"#;
    admin.ask("POST", "/batch", &[], both).expect_status(200);
}

fn a_store_of_secrets_has_what_its_manager_needs() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let account = r#"{"auth_config":{"client_email":"e","private_key":"k","project_id":"p"}}"#;
    for (path, body, expected) in [
        ("/secrets/vault/1", r#"{"uri":"http://a","token":"t"}"#, "prefix: expected"),
        ("/secrets/vault/1", r#"{"uri":"a:8200","prefix":"kv","token":"t"}"#, "uri: expected http://"),
        ("/secrets/vault/1", r#"{"uri":1,"prefix":"kv","token":"t"}"#, "uri: expected"),
        ("/secrets/aws/1", r#"{"access_key_id":"a"}"#, "secret_access_key: expected"),
        ("/secrets/aws/1", r#"{"access_key_id":"a","secret_access_key":"b","token":"t"}"#, "no such field"),
        ("/secrets/gcp/1", "{}", "expected auth_config or auth_file"),
        ("/secrets/gcp/1", r#"{"auth_config":{}}"#, "auth_config"),
        ("/secrets/gcp/1", account, ""),
    ] {
        let answer = admin.ask("PUT", path, &[], body);
        assert_eq!(answer.status, if expected.is_empty() { 201 } else { 400 }, "{}", answer.text());
        assert!(answer.text().contains(expected), "{path} {body}: {}", answer.text());
    }
    // Nobody finds out only later that such a store is not asked.
    let told = admin.ask("PUT", "/secrets/gcp/1", &[], account);
    let warned = told.header("x-config-warning").unwrap_or_default();
    assert!(warned.contains("references to gcp are not looked up yet"), "{warned}");
}
