//! Secrets of objects where they are kept: not to be read there, and nothing is served when their key is not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::kit::{Etcd, Gateway, Origin, eventually};

const KEY: &str = "hunter2-of-jack";

fn put_jack(gateway: &Gateway, key: &str) {
    let jack = json!({"username": "jack", "plugins": {"key-auth": {"key": key}}}).to_string();
    gateway.admin().put("/consumers/jack", &jack);
}

fn guard(gateway: &Gateway, origin: &Origin) {
    let route = json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": {"nodes": {origin.node(): 1}}});
    gateway.admin().put("/routes/1", &route.to_string());
}

fn status_with(gateway: &Gateway, key: &str) -> u16 {
    gateway.request("GET", "/", &[("apikey", key)], b"").status
}

/// Whether any file of the state shows a text.
fn is_kept_plain(gateway: &Gateway, text: &str) -> bool {
    let files = fs::read_dir(gateway.path("state")).unwrap();
    files.flatten().any(|file| {
        let content = fs::read(file.path()).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn what_is_kept_shows_no_secrets_and_is_served_again_after_a_power_cut() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    guard(&gateway, &origin);
    put_jack(&gateway, KEY);
    put_jack(&gateway, "another-of-jack");
    assert!(!is_kept_plain(&gateway, KEY) && !is_kept_plain(&gateway, "another-of-jack"));
    assert!(is_kept_plain(&gateway, "\"username\":\"jack\""), "only secrets are encrypted");
    let file = gateway.path("state/data.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    gateway.wait_said(&["the key that secrets are kept under is in", "data.key"]);

    gateway.kill_and_start_again();
    assert_eq!(status_with(&gateway, "another-of-jack"), 200);
    // History opens as well.
    gateway.admin().ask("POST", "/rollback/2", &[], "").expect_status(200);
    assert_eq!((status_with(&gateway, KEY), status_with(&gateway, "another-of-jack")), (200, 401));
}

#[test]
fn a_start_without_the_key_or_with_another_is_refused_and_changes_nothing() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    guard(&gateway, &origin);
    put_jack(&gateway, KEY);
    gateway.cut_power();
    let file = gateway.path("state/data.key");
    let key = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let refused = |gateway: &mut Gateway, part: &str| {
        let (code, said) = gateway.try_start_again().expect_err("there is no start");
        assert!(code != 0 && said.contains(part), "{code}: {said}");
        assert!(said.contains("consumers/jack: plugins.key-auth.key: expected"), "{said}");
        assert!(said.contains("Nothing of it is served: bring the key back"), "{said}");
    };
    refused(&mut gateway, "which is not there");
    assert!(!file.exists(), "a key that was lost is not replaced");
    gateway.change_settings("data_encryption: {keyring: [qeddd145sfvddff3]}");
    refused(&mut gateway, "sealed with data_encryption.keyring");
    fs::write(&file, key).unwrap();
    gateway.start_again();
    assert_eq!(status_with(&gateway, KEY), 200);
    // From here on the ring's first key counts.
    put_jack(&gateway, "another-of-jack");
    assert!(!is_kept_plain(&gateway, "another-of-jack"));
    assert_eq!(status_with(&gateway, "another-of-jack"), 200);
}

#[test]
fn keys_are_replaced_by_a_ring_of_both_and_then_of_the_new_one() {
    let origin = Origin::replying("hello");
    let ring = |keys: &str| format!("data_encryption: {{keyring: [{keys}]}}");
    let mut gateway = Gateway::managed().settings(&ring("qeddd145sfvddff3")).start();
    assert!(!gateway.path("state/data.key").exists(), "there is a key already");
    guard(&gateway, &origin);
    put_jack(&gateway, KEY);
    gateway.cut_power();
    // Lists are laid one after the other, so what was there goes first.
    gateway.change_settings("data_encryption: null");
    gateway.change_settings(&ring("edd1c9f0985e76a2, qeddd145sfvddff3"));
    gateway.start_again();
    assert_eq!(status_with(&gateway, KEY), 200);
    put_jack(&gateway, "another-of-jack");
    gateway.cut_power();
    gateway.change_settings("data_encryption: null");
    gateway.change_settings(&ring("edd1c9f0985e76a2"));
    gateway.start_again();
    assert_eq!(status_with(&gateway, "another-of-jack"), 200);
    gateway.wait_said(&["history up to revision", "it is lost"]);
    // The way back to 2 leads over 3 only, and that to 1 over 2.
    gateway.admin().ask("POST", "/rollback/1", &[], "").expect_status(404);
}

#[test]
fn what_was_kept_plain_is_read_and_encrypted_when_it_is_next_written() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().settings("data_encryption: {enable: false}").start();
    guard(&gateway, &origin);
    put_jack(&gateway, KEY);
    assert!(is_kept_plain(&gateway, KEY) && !gateway.path("state/data.key").exists());
    gateway.cut_power();
    gateway.change_settings("data_encryption: {enable: true}");
    gateway.start_again();
    assert_eq!(status_with(&gateway, KEY), 200);
    put_jack(&gateway, "another-of-jack");
    assert!(!is_kept_plain(&gateway, "another-of-jack"));
    assert_eq!(status_with(&gateway, "another-of-jack"), 200);
}

#[test]
fn a_secret_that_looks_sealed_is_refused() {
    let gateway = Gateway::managed().start();
    let jack = r#"{"username": "jack", "plugins": {"key-auth": {"key": "ringway-sealed:1:AAAA"}}}"#;
    let answer = gateway.admin().ask("PUT", "/consumers/jack", &[], jack);
    assert!(matches!(answer.status, 400 | 503), "{}", answer.text());
    gateway.admin().ask("GET", "/consumers/jack", &[], "").expect_status(404);
}

#[test]
fn what_apisix_has_encrypted_in_etcd_is_read_and_kept_encrypted() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let nodes = json!({"nodes": {origin.node(): 1}});
    etcd.put("routes/1", &json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": nodes}).to_string());
    // auth-one, by AES-128-CBC with key and initial vector qeddd145sfvddff3.
    let encrypted = "4y+JvURBE6ZwRbbgaryrhg==";
    let jack = json!({"username": "jack", "plugins": {"key-auth": {"key": encrypted}}});
    etcd.put("consumers/jack", &jack.to_string());
    let gateway = Gateway::managed()
        .settings(&etcd.settings())
        .settings("apisix: {data_encryption: {keyring: [edd1c9f0985e76a2, qeddd145sfvddff3]}}")
        .start();
    assert_eq!((status_with(&gateway, "auth-one"), status_with(&gateway, encrypted)), (200, 401));
    eventually("it is kept", || is_kept_plain(&gateway, "consumers/jack").then_some(()));
    assert!(!is_kept_plain(&gateway, "auth-one"));
}
