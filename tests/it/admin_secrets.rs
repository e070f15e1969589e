//! Secrets and the Admin API: `***` is told in their place, and stands for them in what is written back.

use serde_json::{Value, json};

use super::kit::{Admin, Certs, Gateway, Origin};

on_both_drivers!(
    nobody_is_told_a_secret_and_what_is_written_back_keeps_it,
    all_objects_are_written_back_as_one_document_with_their_secrets,
    stars_that_stand_for_no_secret_are_refused_with_their_place,
    secrets_are_shown_where_the_settings_say_so,
    over_the_control_socket_secrets_are_told_to_who_asks,
);

const JACK: &str = "hunter2-of-jack";

/// A route that asks for a key, and whose it is.
fn guarded(admin: &Admin, origin: &Origin) {
    let route = json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": {"nodes": {origin.node(): 1}}});
    admin.put("/routes/1", &route.to_string());
    let answer = admin.ask("PUT", "/consumers", &[], &jack(JACK, "first"));
    answer.expect_status(201);
}

fn jack(key: &str, desc: &str) -> String {
    json!({"username": "jack", "desc": desc, "plugins": {"key-auth": {"key": key}}}).to_string()
}

#[track_caller]
fn opens(gateway: &Gateway) {
    gateway.request("GET", "/", &[("apikey", JACK)], b"").expect(200, "hello");
}

/// Asks, and is told no secret.
#[track_caller]
fn asked(admin: &Admin, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
    let answer = admin.ask(method, path, headers, body);
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
    assert!(!answer.text().contains("hunter2"), "{method} {path}: {}", answer.text());
    if answer.text().is_empty() { Value::Null } else { answer.json() }
}

fn nobody_is_told_a_secret_and_what_is_written_back_keeps_it() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    guarded(&admin, &origin);
    let written = asked(&admin, "PUT", "/consumers/jack", &[], &jack(JACK, "second"));
    assert_eq!(written["value"]["plugins"]["key-auth"]["key"], "***");
    asked(&admin, "GET", "/consumers", &[], "");

    // As a client does that reads, changes and writes back, and knows what it has read.
    let answer = admin.ask("GET", "/consumers/jack", &[], "");
    let tag = answer.header("etag").unwrap().to_owned();
    let mut read = answer.json()["value"].clone();
    assert_eq!(read["plugins"]["key-auth"]["key"], "***");
    read["desc"] = json!("third");
    for time in ["create_time", "update_time"] {
        read.as_object_mut().unwrap().shift_remove(time);
    }
    asked(&admin, "PUT", "/consumers/jack?dry_run=true", &[], &read.to_string());
    asked(&admin, "PUT", "/consumers/jack", &[("If-Match", &tag)], &read.to_string());
    admin.ask("PUT", "/consumers/jack", &[("If-Match", &tag)], &read.to_string()).expect_status(412);
    opens(&gateway);
    read["desc"] = json!("fourth");
    let batch = json!([{"method": "PUT", "path": "/consumers/jack", "body": read}]).to_string();
    asked(&admin, "POST", "/batch", &[], &batch);
    opens(&gateway);
    assert_eq!(asked(&admin, "GET", "/consumers/jack", &[], "")["value"]["desc"], "fourth");

    // A patch keeps it as well, whether it is of the whole or of a part.
    let vault = json!({"uri": "http://127.0.0.1:1", "prefix": "kv", "token": "hunter2-of-vault"});
    asked(&admin, "PUT", "/secrets/vault/1", &[], &vault.to_string());
    asked(&admin, "PATCH", "/secrets/vault/1", &[], r#"{"token":"***","prefix":"kw"}"#);
    let patched = asked(&admin, "PATCH", "/secrets/vault/1/token", &[], r#""***""#);
    assert_eq!((&patched["value"]["token"], &patched["value"]["prefix"]), (&json!("***"), &json!("kw")));
    let held = gateway.cli("dump --secrets").1;
    assert!(held.contains("hunter2-of-vault") && held.contains("prefix: kw"), "{held}");
    asked(&admin, "GET", "/history", &[], "");
}

fn all_objects_are_written_back_as_one_document_with_their_secrets() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    let key = certs.key("site", &["-algorithm", "ED25519"]);
    let ssl = json!({"sni": "a.test", "cert": certs.by_itself("site", "a.test"), "key": key});
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    guarded(&admin, &origin);
    admin.put("/ssls/1", &ssl.to_string());
    let mut document = asked(&admin, "GET", "/configs", &[], "");
    assert!(!document.to_string().contains("PRIVATE"), "{document}");
    document["consumers"][0]["desc"] = json!("changed");
    document["ssls"][0]["labels"] = json!({"a": "b"});
    for name in ["consumers_conf_version", "ssls_conf_version", "routes_conf_version"] {
        document[name] = json!(7);
    }
    let text = document.to_string();
    asked(&admin, "POST", "/configs/validate", &[], &text);
    asked(&admin, "PUT", "/configs?dry_run=true", &[("X-Digest", "1")], &text);
    let answer = admin.ask("PUT", "/configs", &[("X-Digest", "1")], &text);
    assert_eq!(answer.status, 202, "{}", answer.text());
    opens(&gateway);
    let held = gateway.cli("dump --secrets").1;
    assert!(held.contains("PRIVATE KEY") && held.contains("desc: changed"), "{held}");

    // Whoever puts the certificate of before beside the key that is held may say so as well.
    let renewed = json!({"sni": "a.test", "cert": ssl["cert"], "key": "***"});
    asked(&admin, "PUT", "/ssls/1", &[], &renewed.to_string());
    let answer = admin.ask("GET", "/ssls/1", &[], "");
    assert!(answer.json()["value"].get("key").is_none(), "{}", answer.text());
}

fn stars_that_stand_for_no_secret_are_refused_with_their_place() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let consumer = jack("***", "***");
    let batch = json!([{"method": "PUT", "path": "/consumers/jack", "body": {
        "username": "jack", "plugins": {"key-auth": {"key": "***"}}}}]);
    let document = json!({"consumers": [{"username": "jack", "plugins": {"key-auth": {"key": "***"}}}]});
    let upstream = json!({"nodes": {"127.0.0.1:9": 1}, "tls": {"client_cert": "c", "client_key": "***"}});
    let digest = [("X-Digest", "1"), ("Accept", "application/problem+json")];
    for (method, path, body, pointer) in [
        ("PUT", "/consumers", consumer, "/plugins/key-auth/key"),
        ("POST", "/batch", batch.to_string(), "/plugins/key-auth/key"),
        ("PUT", "/configs", document.to_string(), "/plugins/key-auth/key"),
        ("POST", "/upstreams", upstream.to_string(), "/tls/client_key"),
    ] {
        let answer = admin.ask(method, path, &digest, &body);
        answer.expect_status(400);
        let told = &answer.json()["errors"][0];
        assert_eq!(told["pointer"], pointer, "{path}: {}", answer.text());
        assert!(told["detail"].as_str().unwrap().contains("expected the secret"), "{told}");
    }
    admin.put("/consumers/jack", r#"{"username":"jack","desc":"***"}"#);
    assert_eq!(admin.ask("GET", "/consumers/jack", &[], "").json()["value"]["desc"], "***");
}

fn secrets_are_shown_where_the_settings_say_so() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    let key = certs.key("site", &["-algorithm", "ED25519"]);
    let ssl = json!({"sni": "a.test", "cert": certs.by_itself("site", "a.test"), "key": key}).to_string();
    let gateway = Gateway::managed().settings("admin: {secrets: shown}").start();
    let admin = gateway.admin();
    guarded(&admin, &origin);
    let written = admin.put("/ssls/1", &ssl);
    assert!(!written.to_string().contains("PRIVATE"), "{written}");
    for path in ["/consumers/jack", "/consumers", "/configs", "/ssls", "/ssls/1"] {
        let answer = admin.ask("GET", path, &[], "");
        assert_eq!(answer.text().contains(JACK), !path.starts_with("/ssls"), "{path}: {}", answer.text());
        assert!(!answer.text().contains("PRIVATE"), "{path}: {}", answer.text());
        // Who asks for less gets less.
        asked(&admin, "GET", &format!("{path}?secrets=false"), &[], "");
        admin.ask("GET", &format!("{path}?secrets=true"), &[], "").expect_status(403);
    }
}

fn over_the_control_socket_secrets_are_told_to_who_asks() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    guarded(&gateway.admin(), &origin);
    for path in ["/consumers/jack", "/consumers", "/configs"] {
        let told = |query: &str| gateway.on_socket("GET", &format!("/apisix/admin{path}{query}"));
        assert!(!told("").contains(JACK) && told("").contains("***"), "{path}: {}", told(""));
        assert!(told("?secrets=true").contains(JACK), "{path}");
    }
    let (masked, told) = (gateway.cli("get consumer jack"), gateway.cli("get consumer jack --secrets"));
    assert!(masked.1.contains("key: '***'") && told.1.contains(JACK), "{masked:?} {told:?}");
}
