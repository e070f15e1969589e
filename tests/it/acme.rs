//! Certificates that look after themselves, from a real authority (Pebble) that looks at the gateway as the world would.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Caller, Etcd, Gateway, Origin, Pebble, Raw, Setup, within};

/// How long an authority may take, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds for which certificates hold, where it does not matter.
const LONG: u64 = 90 * 86_400;

/// A key of an account that was made elsewhere: 32 bytes in base64.
const EXTERNAL_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

/// A gateway before an origin that wishes for a certificate for these names.
fn wishing(pebble: &Pebble, more: &str, origin: &Origin, names: &[&str]) -> Setup {
    Gateway::routing("/*", [origin])
        .settings(&pebble.settings(more))
        .objects(&json!({"ssls": [{"id": "site", "snis": names, "acme": {"issuer": "pebble"}}]}).to_string())
}

/// What the control API says of the one ssl.
#[track_caller]
fn seen(gateway: &Gateway) -> Value {
    let all = gateway.control("GET", "/v1/certificates").expect_status(200).json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    all[0].clone()
}

/// Waits until a certificate has come.
#[track_caller]
fn wait_issued(gateway: &Gateway) -> Value {
    within(PATIENCE, "a certificate is issued", || {
        let seen = seen(gateway);
        (seen["acme"]["state"] == "issued" && seen["is_shown"] == true).then_some(seen)
    })
}

/// Waits until the gateway says a line that contains all of these.
#[track_caller]
fn wait_told(gateway: &Gateway, parts: &[&str]) -> String {
    within(PATIENCE, &format!("the gateway says {parts:?}"), || {
        let said = gateway.said();
        said.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    })
}

/// A request over TLS; the first certificate that was shown.
#[track_caller]
fn served(believer: &Caller, gateway: &Gateway, name: &str) -> Vec<u8> {
    let mut raw: Raw = believer.call(gateway.secure_address(), name);
    raw.wire.shake().expect("a handshake");
    let shown = raw.wire.tls().peer_certificates().expect("a certificate")[0].to_vec();
    raw.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).answer().expect(200, "hello");
    shown
}

#[test]
fn a_certificate_is_issued_over_http_and_outlives_the_process() {
    let (pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    let mut gateway = wishing(&pebble, "{}", &origin, &["a.test", "www.a.test"]).cores(2).start();
    let told = wait_issued(&gateway);
    assert_eq!(told["acme"]["names"], json!(["a.test", "www.a.test"]), "{told}");
    assert_eq!((&told["acme"]["trouble"], &told["acme"]["next_try"]), (&Value::Null, &Value::Null), "{told}");
    let believer = pebble.believer();
    let first = served(&believer, &gateway, "a.test");
    assert_eq!(served(&believer, &gateway, "www.a.test"), first);
    // Nobody but the authority was answered, and nobody is any more.
    assert_eq!(gateway.reason("acme-challenge"), "acme_challenge");
    gateway.get("/.well-known/acme-challenge/x").expect(200, "hello");
    let counted = gateway.metrics();
    assert!(counted.contains("ringway_acme_orders_total{result=\"issued\"} 1"), "{counted}");
    assert!(counted.contains("ringway_acme_awaited 0"), "{counted}");
    let kept = std::fs::read_to_string(gateway.path("state/acme.json")).unwrap();
    assert!(kept.contains("BEGIN CERTIFICATE") && !kept.contains("PRIVATE KEY"), "{kept}");
    gateway.kill_and_start_again();
    assert_eq!(served(&believer, &gateway, "a.test"), first, "the same, at once");
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn an_authority_that_is_away_is_asked_again_and_what_there_is_is_shown_on() {
    let (mut pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    pebble.stop();
    let gateway = wishing(&pebble, "{}", &origin, &["a.test"]).start();
    let why = wait_told(&gateway, &["ssls/site", "no certificate of pebble", "tried again at"]);
    assert!(why.contains("127.0.0.1"), "{why}");
    let refused = pebble_less(&pebble, &gateway);
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    let told = seen(&gateway);
    assert!(told["is_shown"] == false && told["acme"]["trouble"].is_string(), "{told}");
    gateway.get("/").expect(200, "hello");
    pebble.start_again();
    wait_issued(&gateway);
    served(&pebble.believer(), &gateway, "a.test");
    assert!(gateway.metric("ringway_acme_orders_total{result=\"failed\"").is_some_and(|count| count >= 1.0));
}

/// Why a handshake comes to nothing.
fn pebble_less(pebble: &Pebble, gateway: &Gateway) -> String {
    let mut raw = pebble.stranger().call(gateway.secure_address(), "a.test");
    raw.wire.shake().expect_err("there is no certificate").to_string()
}

#[test]
fn a_certificate_is_renewed_in_time_by_an_authority_that_has_forgotten_us() {
    // Nine tenths of it are left at once: a second certificate is due within seconds.
    let (mut pebble, origin) = (Pebble::start(40), Origin::replying("hello"));
    let gateway = wishing(&pebble, "{renew_before: 90, key_type: rsa2048}", &origin, &["a.test"]).start();
    wait_issued(&gateway);
    let believer = pebble.believer();
    pebble.stop();
    wait_told(&gateway, &["ssls/site", "no certificate of pebble"]);
    let first = served(&believer, &gateway, "a.test");
    pebble.start_again();
    wait_told(&gateway, &["another is made"]);
    within(PATIENCE, "another certificate is shown", || {
        let shown = served_by_anyone(&pebble, &gateway)?;
        (shown != first).then_some(())
    });
}

/// The certificate that is shown, whoever has issued it.
fn served_by_anyone(pebble: &Pebble, gateway: &Gateway) -> Option<Vec<u8>> {
    let mut raw = pebble.believer().call(gateway.secure_address(), "a.test");
    raw.wire.shake().ok()?;
    Some(raw.wire.tls().peer_certificates()?[0].to_vec())
}

#[test]
fn a_name_that_is_not_here_is_told_in_the_words_of_the_authority() {
    let (pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    // Nobody listens there.
    pebble.place("b.test", "127.0.0.2");
    let gateway = wishing(&pebble, "{}", &origin, &["b.test"]).start();
    let said = within(PATIENCE, "the refusal is told", || {
        let trouble = seen(&gateway)["acme"]["trouble"].as_str()?.to_owned();
        Some(trouble)
    });
    assert!(said.contains("b.test") && said.contains("connection"), "{said}");
    assert_eq!(gateway.metric("ringway_acme_awaited"), Some(1.0));
}

#[test]
fn an_authority_that_asks_for_an_account_made_elsewhere_gets_it() {
    let (pebble, origin) = (Pebble::start_binding(LONG, "kid", EXTERNAL_KEY), Origin::replying("hello"));
    {
        let gateway = wishing(&pebble, "{}", &origin, &["a.test"]).start();
        wait_told(&gateway, &["no certificate of pebble", "externalAccountRequired"]);
    }
    let more = json!({"external_account": {"id": "kid", "key": EXTERNAL_KEY}}).to_string();
    let gateway = wishing(&pebble, &more, &origin, &["a.test"]).start();
    wait_issued(&gateway);
    served(&pebble.believer(), &gateway, "a.test");
}

#[test]
fn a_certificate_is_issued_over_tls() {
    let (pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    let gateway = wishing(&pebble, "{challenge: tls-alpn-01}", &origin, &["a.test"]).start();
    wait_issued(&gateway);
    served(&pebble.believer(), &gateway, "a.test");
    assert!(!gateway.access_log().contains("acme-challenge"));
}

#[test]
fn a_wildcard_is_issued_by_a_record_that_a_program_publishes() {
    let (pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    let more = json!({"challenge": "dns-01", "hook": {"command": pebble.hook(), "timeout": 20}}).to_string();
    let gateway = wishing(&pebble, &more, &origin, &["*.a.test", "a.test"]).start();
    wait_issued(&gateway);
    let believer = pebble.believer();
    assert_eq!(served(&believer, &gateway, "x.a.test"), served(&believer, &gateway, "a.test"));
    wait_told(&gateway, &["published remove"]);
    let told = pebble.hooked();
    let count = |word: &str| told.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!(
        (count("add _acme-challenge.a.test "), count("remove _acme-challenge.a.test ")),
        (2, 2),
        "{told}"
    );
}

#[test]
fn a_program_that_fails_or_is_slow_is_told() {
    let (pebble, origin) = (Pebble::start(LONG), Origin::replying("hello"));
    for (command, expected) in [
        (json!(["sh", "-c", "echo no such zone >&2; exit 3"]), "exit status: 3"),
        (json!(["sh", "-c", "exec sleep 60"]), "it is not over after"),
        (json!(["/nonexistent"]), "No such file"),
    ] {
        let hook = json!({"command": command, "timeout": 0.3});
        let more = json!({"challenge": "dns-01", "hook": hook}).to_string();
        let gateway = wishing(&pebble, &more, &origin, &["*.a.test"]).start();
        wait_told(&gateway, &["ssls/site", "no certificate of pebble", "the hook", expected]);
    }
}

#[test]
fn gateways_that_share_an_etcd_ask_once_and_any_of_them_answers() {
    let (pebble, origin, etcd) = (Pebble::start(LONG), Origin::replying("hello"), Etcd::start());
    let route = json!({"uri": "/*", "upstream": {"type": "roundrobin", "nodes": {origin.node(): 1}}});
    etcd.put("routes/1", &route.to_string());
    // The authority comes to the second only, which does not know the issuer of the first ssl.
    let first = json!({
        "acme": [pebble.issuer("pebble", "{}"), pebble.issuer("of-one", "{}")],
        "ssl": {"listen": ["127.0.0.1:0"]},
        "data_encryption": {"keyring": ["qeddd145sfvddff3"]},
    });
    let second = json!({"data_encryption": {"keyring": ["qeddd145sfvddff3"]}}).to_string();
    let first = Gateway::managed().settings(&etcd.settings()).settings(&first.to_string()).start();
    let second = Gateway::managed()
        .settings(&etcd.settings())
        .settings(&pebble.settings("{}"))
        .settings(&second)
        .start();
    let wish = |id: &str, name: &str, issuer: &str| {
        etcd.put(&format!("ssls/{id}"), &json!({"snis": [name], "acme": {"issuer": issuer}}).to_string());
    };
    wish("one", "one.test", "of-one");
    let believer = pebble.believer();
    let shows = |gateway: &Gateway, name: &str| {
        within(PATIENCE, "both show a certificate", || {
            let mut raw: Raw = believer.call(gateway.secure_address(), name);
            raw.wire.shake().ok()?;
            Some(raw.wire.tls().peer_certificates()?[0].to_vec())
        })
    };
    assert_eq!(shows(&first, "one.test"), shows(&second, "one.test"));
    assert_eq!(second.reason("acme-challenge"), "acme_challenge", "it has answered for the first");
    wait_told(&second, &["ssls/one", "another gateway has had a certificate"]);
    wish("both", "both.test", "pebble");
    assert_eq!(shows(&first, "both.test"), shows(&second, "both.test"));
    assert_eq!(pebble.issued(), 2, "one for each ssl");
    let noted = |gateway: &Gateway| {
        let log = std::fs::read_to_string(gateway.path("state/audit.jsonl")).unwrap_or_default();
        log.lines().filter(|line| line.contains("\"issued\":{\"ssl\":\"both\"")).count()
    };
    within(PATIENCE, "who has asked has noted it", || (noted(&first) + noted(&second) == 1).then_some(()));
    let kept = etcd.value("ringway/acme/certificates/both");
    assert!(kept.contains("BEGIN CERTIFICATE") && !kept.contains("PRIVATE KEY"), "{kept}");
    within(PATIENCE, "the lock is given back", || {
        etcd.value("ringway/acme/lock/pebble").is_empty().then_some(())
    });
    assert_eq!(etcd.value("ringway/acme/proofs/both"), "");
    // A third one has them all from the start.
    let third = json!({
        "acme": [pebble.issuer("pebble", "{}")],
        "ssl": {"listen": ["127.0.0.1:0"]},
        "data_encryption": {"keyring": ["qeddd145sfvddff3"]},
    });
    let third = Gateway::managed().settings(&etcd.settings()).settings(&third.to_string()).start();
    assert_eq!(shows(&third, "both.test"), shows(&first, "both.test"));
    assert_eq!(pebble.issued(), 2);
}
