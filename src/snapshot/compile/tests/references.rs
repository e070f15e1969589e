//! References: what stands for them is used and never told, and without it nothing is opened.

use serde_json::json;

use super::*;
use crate::model::ObjectId;
use crate::model::resources::Change;
use crate::snapshot::Learnt;

const VAULT: &str = "secrets: [{id: vault/1, uri: 'http://127.0.0.1:8200', prefix: kv, token: t}]\n";
const KEY: &str = "$secret://vault/1/jack/key";

fn desk_with(env: &'static [(&'static str, &'static str)]) -> Desk {
    let read =
        move |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let Desk { compiler, outcome } = Desk::new();
    Desk { compiler: compiler.reading_env(Box::new(read)), outcome }
}

impl Desk {
    fn learn_secret(&mut self, reference: &str, learnt: Learnt) -> bool {
        let outcome = self.compiler.learn_secrets(vec![(reference.to_owned(), learnt)]);
        let has_changed = outcome.is_some();
        self.outcome = outcome.or_else(|| self.outcome.take());
        has_changed
    }

    fn wanted(&self) -> Vec<String> {
        self.compiler.references().into_iter().map(|wanted| wanted.reference).collect()
    }
}

#[test]
fn the_environment_is_asked_at_once() {
    let mut desk = desk_with(&[("KEY", "k1"), ("JSON", r#"{"max":{"age":5}}"#)]);
    desk.read(&format!(
        "consumers: [{{username: jack, plugins: {{key-auth: {{key: '$env://KEY'}}}}}}]\n{}",
        route("plugins: {cors: {max_age: '$env://JSON/max/age'}}")
    ));
    assert_eq!(desk.faults(), [""; 0]);
    assert_eq!(desk.owner("key-auth", "k1"), Some(("jack", "")));
    assert_eq!(desk.owner("key-auth", "$env://KEY"), None);
    assert_eq!(desk.mounts("1").len(), 1);
    let kept = desk.compiler.in_force_of(Kind::Consumer, "jack").expect("in force");
    assert!(kept.contains("$env://KEY") && !kept.contains("k1"), "{kept}");
}

#[test]
fn a_credential_opens_when_its_store_has_answered_and_closes_when_the_store_has_it_no_more() {
    let jack = format!("consumers: [{{username: jack, plugins: {{key-auth: {{key: '{KEY}'}}}}}}]\n");
    let mut desk = Desk::of(&jack);
    assert_eq!(desk.wanted(), [""; 0], "nobody could be asked");
    desk.read(&format!("{VAULT}{jack}"));
    assert_eq!(desk.wanted(), [KEY]);
    assert!(desk.faults()[0].contains("has not answered yet"), "{:?}", desk.faults());
    assert!(desk.learn_secret(KEY, Learnt::Value(json!("first"))));
    assert_eq!((desk.faults(), desk.owner("key-auth", "first")), (vec![], Some(("jack", ""))));
    assert!(!desk.learn_secret(KEY, Learnt::Failed("down".to_owned())), "the value stays");
    assert!(desk.learn_secret(KEY, Learnt::Value(json!("second"))));
    assert_eq!(
        (desk.owner("key-auth", "first"), desk.owner("key-auth", "second")),
        (None, Some(("jack", "")))
    );
    assert!(desk.learn_secret(KEY, Learnt::Absent("gone".to_owned())));
    assert_eq!(desk.owner("key-auth", "second"), None);
    assert!(desk.learn_secret(KEY, Learnt::Value(json!("third"))));
    desk.read(&jack);
    assert_eq!(desk.owner("key-auth", "third"), None, "without its store it stands for nothing");
}

#[test]
fn a_route_that_awaits_a_value_refuses_and_its_last_good_version_stays_where_there_is_one() {
    let waits = format!("{VAULT}{}", route(&format!("plugins: {{cors: {{allow_origins: '{KEY}'}}}}")));
    let mut desk = Desk::of(&waits);
    assert_eq!((desk.takes("", "/"), desk.route("1").and_then(|route| route.broken)), ("1", Some(503)));
    assert_eq!(desk.set_aside(), []);
    assert!(
        desk.faults()[0].starts_with("routes/1: plugins.cors.allow_origins: $secret://"),
        "{:?}",
        desk.faults()
    );
    assert!(desk.learn_secret(KEY, Learnt::Value(json!("http://a.test"))));
    assert_eq!((desk.mounts("1").len(), desk.route("1").and_then(|route| route.broken)), (1, None));

    let mut desk = Desk::of(&route("plugins: {cors: {}}"));
    desk.read(&waits);
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), true)]);
    assert_eq!(desk.route("1").and_then(|route| route.broken), None);
    desk.learn_secret(KEY, Learnt::Value(json!("http://a.test")));
    assert_eq!(desk.set_aside(), []);
}

#[test]
fn whoever_writes_is_told_what_is_awaited_and_refused_for_what_is_wrong() {
    let mut desk = Desk::of(VAULT);
    let mut attempt = |plugins: serde_json::Value| {
        let value = json!({"uri": "/", "plugins": plugins, "upstream": {"nodes": {"10.0.0.9:80": 1}}});
        let raw = Raw { kind: Kind::Route, id: ObjectId::of_checked("1"), value };
        match desk.compiler.attempt(&[Change::Put(raw)]) {
            Ok(attempt) => (true, attempt.lacks().len()),
            Err(faults) => (false, faults.len()),
        }
    };
    assert_eq!(attempt(json!({"cors": {"allow_origins": KEY}})), (true, 1));
    assert_eq!(attempt(json!({"cors": {"allow_origins": "$env://NONE"}})), (true, 1));
    assert_eq!(attempt(json!({"cors": {"allow_origins": "$secret://vault"}})), (false, 1));
    assert!(!attempt(json!({"cors": {"allow_origins": KEY, "max_age": "old"}})).0);
    assert_eq!(attempt(json!({"cors": {"_meta": {"disable": true}, "allow_origins": KEY}})), (true, 0));
}

#[test]
fn a_value_that_does_not_fit_is_told_without_it() {
    let mut desk = desk_with(&[("AGE", "s3cretive"), ("NAME", "")]);
    desk.read(&route("plugins: {cors: {max_age: '$env://AGE'}}"));
    let told = desk.faults();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("got what $env://AGE stands for, which is not shown"), "{told:?}");
    let mut desk = desk_with(&[("N", r#"{"s3cret":1}"#)]);
    desk.read("consumers: [{username: jack, plugins: {basic-auth: {username: j, password: '$env://N'}}}]");
    assert_eq!(desk.faults().len(), 0, "{:?}", desk.faults());
    desk.read(
        "consumers: [{username: jack, plugins: {basic-auth: {username: j, password: '$env://N/s3cret'}}}]",
    );
    assert!(desk.faults().iter().all(|told| !told.contains("got 1")), "{:?}", desk.faults());
    assert_eq!(desk.faults().len(), 1);
}

#[test]
fn a_store_is_told_what_it_lacks() {
    check_faults(
        "secrets: [{id: vault/1, uri: 'http://a', prefix: kv}]",
        &["secrets/vault/1: token: expected, as a store of vault needs it, got nothing"],
    );
    check_faults(
        "secrets: [{id: gcp/1, auth_file: /a}]",
        &["secrets/gcp/1: kept only: references to gcp are not looked up yet"],
    );
}
