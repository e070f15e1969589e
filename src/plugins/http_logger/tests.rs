//! What entries and batches say, and which configurations are refused.

use serde_json::{Value, json};

use super::*;
use crate::link::outbox::Report;
use crate::plugin::testing::{Bench, Desk, Request, agree, check};

fn bench(more: &Value) -> Bench<HttpLogger> {
    let mut config = json!({"uri": "http://127.0.0.1:1/log"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    check::<HttpLogger>(&config.to_string()).expect("valid")
}

/// The entry of an exchange to which a response came.
fn entry(bench: &Bench<HttpLogger>, request: Request, response: &[u8]) -> Value {
    let answer = bench.request(request).passes().response(200, &[], response);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    let logged = bench.plugin.bodies.logged(&answer.ex);
    bench.plugin.entry.write(&answer.ex, logged, &mut scratch, &mut out);
    serde_json::from_slice(&out).expect("JSON")
}

#[test]
fn an_entry_has_the_bodies_that_are_wanted_and_no_more_of_them() {
    let plain = entry(&bench(&json!({})), Request::get("/").body("asked"), b"said");
    assert_eq!((&plain["request"]["body"], &plain["response"]["body"]), (&Value::Null, &Value::Null));
    let both = json!({"include_req_body": true, "include_resp_body": true, "max_resp_body_bytes": 2});
    let whole = entry(&bench(&both), Request::get("/").body("asked"), b"said");
    assert_eq!((&whole["request"]["body"], &whole["response"]["body"]), (&json!("asked"), &json!("sa")));
    let formatted = json!({
        "include_resp_body": true, "max_req_body_bytes": 3,
        "log_format": {"asked": "$request_body", "said": "$resp_body"},
    });
    let said = entry(&bench(&formatted), Request::get("/").body("asked"), b"said");
    assert_eq!((&said["asked"], &said["said"]), (&json!("ask"), &json!("said")));
}

#[test]
fn conditions_decide_which_bodies_are_logged() {
    let config = json!({
        "include_req_body": true, "include_req_body_expr": [["arg_req", "==", "1"]],
        "include_resp_body": true, "include_resp_body_expr": [["arg_resp", "==", "1"]],
    });
    let bench = bench(&config);
    let bodies = |target: &str| {
        let said = entry(&bench, Request::get(target).body("asked"), b"said");
        (said["request"]["body"].is_string(), said["response"]["body"].is_string())
    };
    assert_eq!([bodies("/?req=1"), bodies("/?resp=1"), bodies("/")], [(true, false), (false, true), (false, false)]);
}

#[test]
fn who_has_no_route_is_told_so_and_further_fields_are_added() {
    let extra = json!({"log_format_extra": {"who": "$remote_addr", "in": {"n": 1}}});
    let said = entry(&bench(&extra), Request::get("/").with(|ex| ex.route.clear()), b"");
    assert_eq!((&said["route_id"], &said["who"], &said["in"]), (&json!("no-matched"), &json!("192.0.2.1"), &json!({"n": 1})));
}

#[test]
fn the_metadata_says_what_a_use_does_not() {
    let desk = || Desk::new().metadata("http-logger", r#"{"log_format": {"a": "$uri"}, "max_pending_entries": 3}"#);
    let bench = desk().compile::<HttpLogger>("routes/1", r#"{"uri": "http://a.test"}"#).expect("valid");
    assert_eq!((bench.plugin.batches.entries, bench.plugin.batches.to.waiting_entries_max), (3, 3));
    assert_eq!(entry(&bench, Request::get("/x"), b"")["a"], "/x");
    let own = r#"{"uri": "http://a.test", "log_format": {"b": "$uri"}}"#;
    let said = entry(&desk().compile("routes/1", own).expect("valid"), Request::get("/x"), b"");
    assert_eq!((&said["a"], &said["b"]), (&Value::Null, &json!("/x")));
}

#[test]
fn a_batch_leaves_when_it_is_full_as_one_body() {
    let bodies = |config: Value| -> Vec<String> {
        let bench = bench(&config);
        for at in 0..2 {
            bench.request(Request::get(&format!("/{at}"))).passes().response(200, &[], b"");
        }
        let text = |report| match report {
            Report::Lines { bytes, .. } => String::from_utf8(bytes).ok(),
            _ => None,
        };
        bench.reports().into_iter().filter_map(text).collect()
    };
    let format = json!({"u": "$uri", "route_id": "r"});
    let of = |size: u32, method: &str| bodies(json!({"batch_max_size": size, "concat_method": method, "log_format": format}));
    let [first, second] = ["/0", "/1"].map(|uri| format!(r#"{{"u":"{uri}","route_id":"r"}}"#));
    assert_eq!(of(1, "json"), [first.clone(), second.clone()]);
    assert_eq!(of(2, "json"), [format!("[{first},{second}]")]);
    assert_eq!(of(2, "new_line"), [format!("{first}\n{second}")]);
    assert_eq!(of(3, "json"), [""; 0]);
}

#[test]
fn a_uri_is_taken_apart() {
    let parts = |uri: &str| target(uri).map(|(host, port, post)| (host.to_string(), port, post.is_tls, post.target.to_string()));
    let is = |host: &str, port, is_tls, target: &str| Ok((host.to_owned(), port, is_tls, target.to_owned()));
    assert_eq!(parts("http://a.test"), is("a.test", 80, false, "/"));
    assert_eq!(parts("https://a.test/x?y=1"), is("a.test", 443, true, "/x?y=1"));
    assert_eq!(parts("http://[::1]:81?y"), is("::1", 81, false, "/?y"));
    for wrong in ["http://[::1", "http://[x]", "http://a:99999/", "http://a:0", "http://", "http://u@a/"] {
        assert!(parts(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn schema_and_compile_agree() {
    agree::<HttpLogger>(
        &[
            r#"{"uri": "http://127.0.0.1:1980/log"}"#,
            r#"{"uri": "https://[::1]/a?b", "auth_header": "Basic 123", "timeout": 1, "ssl_verify": true, "name": "x",
                "concat_method": "new_line", "max_retry_count": 2, "include_req_body": true, "max_req_body_bytes": 1}"#,
            r#"{"uri": "http://a.test", "include_resp_body": true, "include_resp_body_expr": [["status", "==", 500]]}"#,
        ],
        &[
            ("{}", "uri is required"),
            (r#"{"uri": "a.test"}"#, "uri"),
            (r#"{"uri": "ftp://a.test"}"#, "uri"),
            (r#"{"uri": "http://a.test", "concat_method": "xml"}"#, "concat_method"),
            (r#"{"uri": "http://a.test", "max_resp_body_bytes": 0}"#, "max_resp_body_bytes"),
            (r#"{"uri": "http://a.test", "include_req_body_expr": []}"#, "include_req_body_expr"),
            (r#"{"uri": "http://a.test", "path": "/"}"#, "additional properties forbidden"),
        ],
    );
    let fault = |config: &str| format!("{:?}", check::<HttpLogger>(config).err());
    assert!(fault(r#"{"uri": "http://a", "include_resp_body_expr": ["x"]}"#).contains("include_resp_body_expr"));
    assert!(fault(r#"{"uri": "http://a", "log_format_extra": {"request": 1}}"#).contains("log_format_extra.request"));
    assert!(fault(r#"{"uri": "http://a", "auth_header": "a\nb"}"#).contains("auth_header"));
}
