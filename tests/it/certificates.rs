//! Objects of the kind ssl: what is no certificate, or whose key is another's, is refused; a key is never shown.

use serde_json::{Value, json};

use crate::kit::{Certs, Gateway};

const RSA: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const ED25519: [&str; 2] = ["-algorithm", "ED25519"];

/// What is said to an ssl: the status, the fault, the warning.
fn put(gateway: &Gateway, ssl: &Value) -> (u16, String, String) {
    let answer = gateway.admin().ask("PUT", "/ssls/1", &[], &ssl.to_string());
    let told = answer.values("x-config-warning").join("; ");
    let status = if answer.status == 201 { 200 } else { answer.status };
    assert!(!answer.text().contains("PRIVATE KEY-----"), "{}", answer.text());
    (status, answer.json()["error_msg"].as_str().unwrap_or_default().to_owned(), told)
}

#[test]
fn keys_of_every_kind_and_form_are_taken_with_their_certificate_only() {
    let (certs, gateway) = (Certs::new(), Gateway::managed().start());
    let kinds: [(&str, &[&str]); 4] =
        [("rsa", &RSA), ("p256", &P256), ("p384", &P384), ("ed25519", &ED25519)];
    let mut pairs = Vec::new();
    for (name, arguments) in kinds {
        let key = certs.key(name, arguments);
        pairs.push((certs.by_itself(name, "a.test"), key));
    }
    pairs.push((pairs[0].0.clone(), certs.converted("rsa", &["-traditional"])));
    pairs.push((pairs[1].0.clone(), certs.converted("p256", &["-traditional"])));
    assert!(pairs[4].1.contains("BEGIN RSA PRIVATE KEY") && pairs[5].1.contains("BEGIN EC PRIVATE KEY"));
    for (cert, key) in &pairs {
        let ssl = json!({"cert": cert, "key": key, "snis": ["a.test", "*.a.test"]});
        assert_eq!(put(&gateway, &ssl), (200, String::new(), String::new()));
        let read = gateway.admin().ask("GET", "/ssls/1", &[], "").json()["value"].clone();
        assert_eq!((read.get("key"), &read["cert"]), (None, &json!(cert)));
        let (start, end) = (read["validity_start"].as_i64().unwrap(), read["validity_end"].as_i64().unwrap());
        assert_eq!(end - start, 30 * 24 * 60 * 60);
    }
    // Every other key is another's.
    for (at, (cert, _)) in pairs.iter().enumerate().take(4) {
        let (_, key) = &pairs[(at + 1) % 4];
        let (status, fault, _) = put(&gateway, &json!({"cert": cert, "key": key, "sni": "a.test"}));
        assert_eq!(status, 400);
        assert!(
            fault.ends_with("key: expected the key of cert, found the key of another certificate"),
            "{fault}"
        );
    }
    let ssl = json!({"cert": pairs[0].0, "key": pairs[0].1, "certs": [pairs[1].0], "keys": [pairs[2].1], "sni": "a.test"});
    let (status, fault, _) = put(&gateway, &ssl);
    assert!(status == 400 && fault.contains("keys[0]: expected the key of certs[0]"), "{fault}");
    // Nowhere is a key to be seen.
    for path in ["/ssls", "/ssls/1", "/configs", "/history"] {
        assert!(!gateway.admin().ask("GET", path, &[], "").text().contains("PRIVATE KEY"), "{path}");
    }
    for path in ["/v1/quarantine", "/v1/schema"] {
        assert!(!gateway.control("GET", path).text().contains("BEGIN"), "{path}");
    }
    assert!(!gateway.said().contains("PRIVATE KEY"));
}

#[test]
fn a_chain_begins_with_the_certificate_of_the_key() {
    let (certs, gateway) = (Certs::new(), Gateway::managed().start());
    let _ = certs.key("ca", &P256);
    let ca = certs.by_itself("ca", "ca.test");
    let _ = certs.key("stranger", &P256);
    let stranger = certs.by_itself("stranger", "stranger.test");
    let key = certs.key("own", &P256);
    let own = certs.by("ca", "own", "a.test");
    let chain = |cert: &str| json!({"cert": cert, "key": key, "sni": "a.test"});
    assert_eq!(put(&gateway, &chain(&format!("{own}{ca}"))), (200, String::new(), String::new()));
    let (status, fault, _) = put(&gateway, &chain(&format!("{ca}{own}")));
    assert_eq!(status, 400);
    assert!(
        fault.ends_with("cert: expected the certificate of the key first, found it as number 2"),
        "{fault}"
    );
    let (status, _, told) = put(&gateway, &chain(&format!("{own}{stranger}")));
    assert_eq!(status, 200);
    assert!(told.contains("found number 2 to be of another than the issuer of number 1"), "{told}");
}

#[test]
fn what_is_no_certificate_or_key_is_told_by_its_field() {
    let (certs, gateway) = (Certs::new(), Gateway::managed().start());
    let key = certs.key("own", &P256);
    let cert = certs.by_itself("own", "a.test");
    let locked = certs.converted("own", &["-aes128", "-passout", "pass:abcd"]);
    let old_locked = certs.converted("own", &["-traditional", "-aes128", "-passout", "pass:abcd"]);
    let cut = format!("{}\n", cert.lines().take(4).collect::<Vec<_>>().join("\n"));
    let good = json!({"cert": cert, "key": key, "sni": "a.test"});
    for (changes, part) in [
        (json!({"cert": "x"}), "cert: expected a certificate in PEM, found none"),
        (json!({"cert": cut}), "cert: expected a certificate in PEM: CERTIFICATE has no end"),
        (json!({"cert": key}), "cert: expected certificates only, found PRIVATE KEY"),
        (json!({"key": cert}), "key: expected a private key in PEM (PKCS 8, PKCS 1 or SEC 1), found none"),
        (json!({"key": locked}), "without a passphrase, found one with"),
        (json!({"key": old_locked}), "EC PRIVATE KEY is encrypted"),
        (json!({"client": {"ca": "x"}}), "client.ca: expected a certificate in PEM, found none"),
        (
            json!({"client": {"ca": cert, "skip_mtls_uri_regex": ["/a", "("]}}),
            "client.skip_mtls_uri_regex[1]: expected a regular expression, got \"(\"",
        ),
        (json!({"sni": null}), "sni"),
    ] {
        let mut ssl = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            ssl[name] = value.clone();
        }
        let (status, fault, _) = put(&gateway, &ssl);
        assert_eq!(status, 400, "{part}: {fault}");
        assert!(fault.contains(part), "{part}: {fault}");
    }
    let ssl = json!({"cert": cert, "key": key, "sni": "a.test", "client": {"ca": cert, "depth": 2, "skip_mtls_uri_regex": ["^/health"]}});
    assert_eq!(put(&gateway, &ssl), (200, String::new(), String::new()));
}

#[test]
fn a_key_that_is_kept_elsewhere_is_checked_when_it_is_known() {
    let gateway = Gateway::managed().env("OTHER", "s3cretive words").start();
    let (status, _, told) =
        put(&gateway, &json!({"cert": "$env://NONE", "key": "$env://NONE_EITHER", "sni": "a.test"}));
    assert_eq!(status, 200);
    assert!(told.contains("key: $env://NONE_EITHER: the variable NONE_EITHER is not set"), "{told}");
    let ssl = json!({"cert": "$env://NONE", "key": "$env://NONE", "sni": "a.test", "client": {"ca": "$env://NO_CA"}});
    let (status, _, told) = put(&gateway, &ssl);
    assert_eq!(status, 200);
    assert!(told.contains("client.ca: $env://NO_CA: the variable NO_CA is not set"), "{told}");
    let (status, fault, _) =
        put(&gateway, &json!({"cert": "$env://OTHER", "key": "$env://OTHER", "sni": "a.test"}));
    assert_eq!(status, 400);
    assert!(
        fault.contains("cert: expected a certificate in PEM, found none") && !fault.contains("s3cre"),
        "{fault}"
    );
}
