//! References to values kept elsewhere: in the environment, in a store of secrets. What they stand for is used, and
//! never seen.

use serde_json::{Value, json};

use crate::kit::{Certs, Front, Gateway, Origin, Signal, TOKEN, Vault, eventually};

const JACK: &str = "hunter2-of-jack";

/// A route that asks for a key, and a consumer whose key is kept elsewhere.
fn guarded(gateway: &Gateway, origin: &Origin, reference: &str) -> Vec<String> {
    let admin = gateway.admin();
    let route = json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": {"nodes": {origin.node(): 1}}});
    admin.put("/routes/1", &route.to_string());
    let jack = json!({"username": "jack", "plugins": {"key-auth": {"key": reference}}}).to_string();
    let answer = admin.ask("PUT", "/consumers/jack", &[], &jack);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer.header("x-config-warning").map(str::to_owned).into_iter().collect()
}

fn status_with(gateway: &Gateway, key: &str) -> u16 {
    gateway.request("GET", "/", &[("apikey", key)], b"").status
}

#[track_caller]
fn opens(gateway: &Gateway, key: &str) {
    eventually(&format!("{key} opens"), || (status_with(gateway, key) == 200).then_some(()));
}

#[track_caller]
fn opens_no_more(gateway: &Gateway, key: &str) {
    eventually(&format!("{key} opens no more"), || (status_with(gateway, key) == 401).then_some(()));
}

/// Asserts that nothing an operator or a client of an API can look at shows a value.
#[track_caller]
fn never_shown(gateway: &Gateway, values: &[&str]) {
    let admin = gateway.admin();
    let mut seen = vec![gateway.said(), gateway.metrics()];
    for path in ["/consumers", "/routes", "/secrets", "/history", "/configs"] {
        seen.push(admin.ask("GET", path, &[], "").text());
    }
    for path in ["/v1/schema", "/v1/routes", "/v1/consumers", "/v1/quarantine", "/v1/plugin_metadatas"] {
        seen.push(gateway.control("GET", path).text());
    }
    for file in ["state/audit.jsonl", "state/store.redb", "state/store.journal"] {
        seen.push(String::from_utf8_lossy(&std::fs::read(gateway.path(file)).unwrap_or_default()).into());
    }
    for value in values {
        assert!(seen.iter().all(|text| !text.contains(value)), "{value} is shown");
    }
}

#[test]
fn a_key_in_the_environment_opens_and_is_never_shown() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().env("JACK", r#"{"keys":{"api":"hunter2-of-jack"}}"#).start();
    assert_eq!(guarded(&gateway, &origin, "$ENV://JACK/keys/api"), [""; 0]);
    assert_eq!((status_with(&gateway, JACK), status_with(&gateway, "$ENV://JACK/keys/api")), (200, 401));
    let told = guarded(&gateway, &origin, "$env://NOBODY");
    assert!(told[0].contains("the variable NOBODY is not set"), "{told:?}");
    assert_eq!((status_with(&gateway, JACK), status_with(&gateway, "$env://NOBODY")), (401, 401));
    never_shown(&gateway, &[JACK]);
}

#[test]
fn a_key_in_vault_opens_when_it_has_come_and_follows_its_changes() {
    let (vault, origin) = (Vault::start(), Origin::replying("hello"));
    vault.keep("apisix/jack", json!({"auth-key": JACK, "other": "o"}));
    let gateway = Gateway::managed().env("VAULT_TOKEN", TOKEN).start();
    let admin = gateway.admin();
    let reference = "$secret://vault/one/apisix/jack/auth-key";
    let told = guarded(&gateway, &origin, reference);
    assert!(told[0].contains("there is no secrets/vault/one"), "{told:?}");
    assert_eq!((status_with(&gateway, JACK), status_with(&gateway, reference)), (401, 401));

    admin.put("/secrets/vault/one", &vault.store("/kv/", "$env://VAULT_TOKEN"));
    opens(&gateway, JACK);
    let asked = vault.asked();
    assert_eq!(asked[0].target, "/v1/kv/apisix/jack");
    assert_eq!(asked.len(), 1, "one path is one question, and it is not asked again without a reason");
    let kept: Value = admin.ask("GET", "/consumers/jack", &[], "").json();
    assert_eq!(kept["value"]["plugins"]["key-auth"]["key"], reference);

    vault.keep("apisix/jack", json!({"auth-key": "another-of-jack"}));
    gateway.signal(Signal::Hup);
    opens(&gateway, "another-of-jack");
    assert_eq!(status_with(&gateway, JACK), 401);

    // Deleted is an answer, not a failure.
    vault.delete("apisix/jack");
    gateway.signal(Signal::Hup);
    opens_no_more(&gateway, "another-of-jack");
    gateway.wait_said(&["secrets/vault/one: apisix/jack: Vault has nothing there"]);
    never_shown(&gateway, &[JACK, "another-of-jack", TOKEN]);
}

#[test]
fn a_value_stays_while_vault_is_sealed_and_its_failure_is_told_once() {
    let (vault, origin) = (Vault::start(), Origin::replying("hello"));
    vault.keep_version("jack", json!({"key": JACK}));
    let gateway = Gateway::managed().start();
    gateway.admin().put("/secrets/vault/two", &vault.store("secret/data", TOKEN));
    guarded(&gateway, &origin, "$secret://vault/two/jack/key");
    opens(&gateway, JACK);
    assert_eq!(vault.asked()[0].target, "/v1/secret/data/jack");

    vault.seal(true);
    vault.forget();
    gateway.signal(Signal::Hup);
    let said = gateway.wait_said(&["secrets/vault/two: jack: 503: Vault is sealed"]);
    assert_eq!(said.matches("Vault is sealed").count(), 1, "{said}");
    assert_eq!(status_with(&gateway, JACK), 200);
    vault.seal(false);
    gateway.signal(Signal::Hup);
    gateway.wait_said(&["it is over: secrets/vault/two: jack: 503: Vault is sealed"]);
    assert_eq!(status_with(&gateway, JACK), 200);

    // A wrong token is told without it, and the value stays.
    gateway.admin().put("/secrets/vault/two", &vault.store("secret/data", "hvs.wrong-token"));
    gateway.wait_said(&["secrets/vault/two: jack: 403: permission denied"]);
    assert_eq!(status_with(&gateway, JACK), 200);
    never_shown(&gateway, &[JACK]);
    assert!(!gateway.said().contains("hvs.wrong-token"));
}

#[test]
fn a_route_that_awaits_a_value_is_answered_503_and_works_when_it_comes() {
    let (vault, origin) = (Vault::start(), Origin::echoing());
    vault.keep("cors", json!({"origin": "http://a.test", "age": 77}));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let plugins = json!({"cors": {
        "allow_origins": "$secret://vault/1/cors/origin",
        "max_age": "$secret://vault/1/cors/age",
    }});
    let route =
        json!({"uri": "/*", "plugins": plugins, "upstream": {"nodes": {origin.node(): 1}}}).to_string();
    let answer = admin.ask("PUT", "/routes/1", &[], &route);
    answer.expect_status(201);
    let told = answer.values("x-config-warning");
    assert!(told.len() == 2 && told.iter().all(|told| told.contains("$secret://vault/1/cors/")), "{told:?}");
    gateway.get("/").expect_status(503);
    admin.put("/secrets/vault/1", &vault.store("kv", TOKEN));
    let answer = eventually("the route serves", || {
        let answer = gateway.request("GET", "/", &[("Origin", "http://a.test")], b"");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://a.test"));
    assert_eq!(answer.header("access-control-max-age"), Some("77"));

    // What does not fit is told without it.
    vault.keep("cors", json!({"origin": "http://a.test", "age": "s3cretive"}));
    gateway.signal(Signal::Hup);
    gateway.wait_said(&["routes/1: plugins.cors.max_age: expected", "stands for, which is not shown"]);
    never_shown(&gateway, &["s3cretive"]);
}

#[test]
fn a_start_waits_a_moment_for_what_its_objects_refer_to() {
    let (vault, origin) = (Vault::start(), Origin::replying("hello"));
    vault.keep("jack", json!({"key": JACK}));
    let uri = &serde_json::from_str::<Value>(&vault.store("kv", TOKEN)).unwrap()["uri"];
    let objects = format!(
        r#"
secrets: [{{id: vault/1, uri: {uri}, prefix: kv, token: {TOKEN}}}]
consumers: [{{username: jack, plugins: {{key-auth: {{key: "$secret://vault/1/jack/key"}}}}}}]
"#
    );
    let gateway = Gateway::routing("/", [&origin]).route("plugins: {key-auth: {}}").objects(&objects).start();
    // The very first request.
    assert_eq!(status_with(&gateway, JACK), 200);
    assert!(!gateway.said().contains(JACK) && !gateway.said().contains(TOKEN));
}

#[test]
fn what_is_no_reference_and_what_nobody_looks_up_is_told() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let aws = r#"{"access_key_id": "a", "secret_access_key": "s"}"#;
    let answer = admin.ask("PUT", "/secrets/aws/1", &[], aws);
    answer.expect_status(201);
    assert!(answer.header("x-config-warning").is_some_and(|told| told.contains("references to aws")));
    let told = guarded(&gateway, &origin, "$secret://aws/1/jack/key");
    assert!(told[0].contains("secrets of the manager aws are not looked up yet"), "{told:?}");
    let half = r#"{"username": "jack", "plugins": {"key-auth": {"key": "$secret://vault"}}}"#;
    let answer = admin.ask("PUT", "/consumers/jack", &[], half);
    answer.expect_status(400);
    assert!(answer.text().contains("expected $secret://MANAGER/ID/PATH/KEY"), "{}", answer.text());
}

#[test]
fn vault_is_asked_over_tls_and_only_if_its_certificate_is_vouched_for() {
    let (origin, vault, certs) = (Origin::replying("hello"), Vault::start(), Certs::new());
    vault.keep("jack", json!({"key": JACK}));
    certs.authority("ca");
    certs.here("ca", "server");
    let front = Front::start(&vault.node(), &certs);
    let store = vault.store_at(&front.url(), "kv", TOKEN);

    let trusted = format!("ssl: {{trusted_certificate: '{}'}}", certs.path("ca.crt").display());
    let gateway = Gateway::managed().settings(&trusted).start();
    gateway.admin().put("/secrets/vault/1", &store);
    guarded(&gateway, &origin, "$secret://vault/1/jack/key");
    opens(&gateway, JACK);

    let others = Certs::new();
    others.authority("ca");
    let untrusting = format!("ssl: {{trusted_certificate: '{}'}}", others.path("ca.crt").display());
    let gateway = Gateway::managed().settings(&untrusting).start();
    vault.forget();
    gateway.admin().put("/secrets/vault/1", &store);
    guarded(&gateway, &origin, "$secret://vault/1/jack/key");
    gateway.wait_said(&["secrets/vault/1", "TLS: invalid peer certificate"]);
    assert!(vault.asked().is_empty(), "its token was sent to a stranger");
    assert_eq!(status_with(&gateway, JACK), 401);
}

/// A gateway with a folder of secrets, and that folder.
fn with_files() -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let directories = json!({"secrets": {"directories": [folder.path()]}}).to_string();
    (Gateway::managed().settings(&directories).start(), folder)
}

/// Puts a file in the place of another at once, as orchestrators do.
fn replace(path: &std::path::Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[test]
fn a_key_in_a_file_opens_and_the_file_that_takes_its_place_is_followed() {
    let origin = Origin::replying("hello");
    let (gateway, folder) = with_files();
    let path = folder.path().join("jack");
    std::fs::write(&path, format!("{JACK}\n")).unwrap();
    let reference = format!("$file://{}", path.display());
    assert_eq!(guarded(&gateway, &origin, &reference), [""; 0]);
    assert_eq!((status_with(&gateway, JACK), status_with(&gateway, &reference)), (200, 401));
    let kept: Value = gateway.admin().ask("GET", "/consumers/jack", &[], "").json();
    assert_eq!(kept["value"]["plugins"]["key-auth"]["key"], reference);

    replace(&path, "another-of-jack");
    opens(&gateway, "another-of-jack");
    assert_eq!(status_with(&gateway, JACK), 401);

    // What can not be read takes nothing away; what is gone does, and comes back.
    replace(&path, &"x".repeat(64 * 1024 + 1));
    gateway.wait_said(&["is larger than 65536 bytes"]);
    assert_eq!(status_with(&gateway, "another-of-jack"), 200);
    std::fs::remove_file(&path).unwrap();
    opens_no_more(&gateway, "another-of-jack");
    gateway.wait_said(&[&format!("{reference}: the file {} is not there", path.display())]);
    replace(&path, "third-of-jack");
    opens(&gateway, "third-of-jack");
    gateway.wait_said(&["it is over"]);
    never_shown(&gateway, &[JACK, "another-of-jack", "third-of-jack"]);
}

#[test]
fn a_file_that_is_not_there_yet_is_awaited_as_other_values_are() {
    let origin = Origin::replying("hello");
    let (gateway, folder) = with_files();
    let path = folder.path().join("origin");
    let told = guarded(&gateway, &origin, &format!("$file://{}", path.display()));
    assert!(told[0].contains(&format!("the file {} is not there", path.display())), "{told:?}");
    let plugins = json!({"cors": {"allow_origins": format!("$file://{}", path.display())}});
    let route = json!({"uri": "/r", "plugins": plugins, "upstream": {"nodes": {origin.node(): 1}}});
    gateway.admin().put("/routes/2", &route.to_string());
    gateway.get("/r").expect_status(503);
    std::fs::write(&path, "http://a.test\n").unwrap();
    eventually("the route serves", || (gateway.get("/r").status == 200).then_some(()));
}

#[test]
fn a_file_outside_of_the_folders_of_secrets_is_refused_wherever_a_link_leads() {
    let (gateway, folder) = with_files();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
    let link = folder.path().join("link").display().to_string();
    let upwards = format!("{}/../passwd", folder.path().display());
    for (path, expected) in [
        ("/etc/passwd", "secrets.directories"),
        ("/etc/no-such-file", "secrets.directories"),
        (&*link, "secrets.directories"),
        (&*upwards, "expected $file:// and a path from the root"),
    ] {
        let key = format!("$file://{path}");
        let jack = json!({"username": "jack", "plugins": {"key-auth": {"key": key}}}).to_string();
        let answer = gateway.admin().ask("PUT", "/consumers", &[], &jack);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains(expected), "{path}: {}", answer.text());
        assert!(!answer.text().contains("root:"), "{path}: {}", answer.text());
    }
}

#[test]
fn the_token_of_a_store_may_be_in_a_file() {
    let (vault, origin) = (Vault::start(), Origin::replying("hello"));
    vault.keep("jack", json!({"key": JACK}));
    let (gateway, folder) = with_files();
    let path = folder.path().join("token");
    std::fs::write(&path, TOKEN).unwrap();
    gateway.admin().put("/secrets/vault/1", &vault.store("kv", &format!("$file://{}", path.display())));
    guarded(&gateway, &origin, "$secret://vault/1/jack/key");
    opens(&gateway, JACK);
}
