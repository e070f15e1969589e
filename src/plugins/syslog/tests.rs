//! What lines say, and when they leave.

use super::*;
use crate::plugin::testing::{Request, agree, check};

/// The line of a request to a route with this format.
fn line(format: &str, request: Request) -> String {
    let config = format!(r#"{{"host": "a", "port": 514, "log_format": {format}}}"#);
    let bench = check::<Syslog>(&config).expect("valid");
    let outcome = bench.request(request).passes();
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    bench.plugin.write_line(&outcome.ex, &mut scratch, &mut out);
    String::from_utf8(out).expect("text")
}

/// The head of a line, and its object.
fn parts(line: &str) -> (Vec<String>, Value) {
    let (head, object) = line.trim_end().split_once('{').expect("an object");
    let words = head.split_whitespace().map(str::to_owned).collect();
    (words, serde_json::from_str(&format!("{{{object}")).expect("JSON"))
}

#[test]
fn a_line_has_the_head_of_rfc_5424_and_one_end() {
    let line = line("null", Request::get("/a?b=c%20d&b=2&e").with(|ex| ex.request.host = "a.test\n<1>".into()));
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
    let (head, object) = parts(&line);
    let pid = std::process::id().to_string();
    assert_eq!([&head[0], &head[2], &head[3], &head[4], &head[5], &head[6]], [
        "<46>1", "a.test?<1>", "apisix", &pid, "-", "-"
    ]);
    assert_eq!(object["request"]["querystring"], serde_json::json!({"b": "c d", "e": ""}));
    assert_eq!(object["request"]["method"], "GET");
    assert_eq!(object["client_ip"], "192.0.2.1");
}

#[test]
fn fields_are_filled_in_as_deep_as_they_lie() {
    let format = r#"{"what": "$request_method $uri", "in": {"who": "$remote_addr", "n": 7}, "none": "$arg_x"}"#;
    let (_, object) = parts(&line(format, Request::get("/a")));
    assert_eq!(object["what"], "GET /a");
    assert_eq!(object["in"], serde_json::json!({"who": "192.0.2.1", "n": 7}));
    assert_eq!(object["none"], "");
}

#[test]
fn nobody_can_forge_a_line() {
    let request = Request::get("/").header("x-evil", "a\"},{\"b\":\"\\");
    let (_, object) = parts(&line(r#"{"evil": "$http_x_evil"}"#, request));
    assert_eq!(object["evil"], "a\"},{\"b\":\"\\");
}

#[test]
fn schema_and_compile_agree() {
    agree::<Syslog>(
        &[
            r#"{"host": "127.0.0.1", "port": 514}"#,
            r#"{"host": "::1", "port": 6514, "tls": true, "max_retry_count": 2, "name": "logs", "pool_size": 5}"#,
            r#"{"host": "a.test", "port": 514, "sock_type": "udp", "log_format": {"a": "$host"}}"#,
        ],
        &[
            (r#"{"host": "a"}"#, "port is required"),
            (r#"{"host": "a b", "port": 514}"#, "host"),
            (r#"{"host": "a", "port": 0}"#, "port"),
            (r#"{"host": "a", "port": 514, "sock_type": "unix"}"#, "sock_type"),
            (r#"{"host": "a", "port": 514, "include_req_body": true}"#, "additional properties forbidden"),
        ],
    );
    let faults = check::<Syslog>(r#"{"host": "a", "port": 514, "sock_type": "udp", "tls": true}"#);
    assert!(format!("{:?}", faults.err()).contains("sock_type: udp"));
    let deep = r#"{"host": "a", "port": 1, "log_format": {"a": {"b": {"c": {"d": {"e": {"f": "x"}}}}}}}"#;
    assert!(format!("{:?}", check::<Syslog>(deep).err()).contains("at most 5 deep"));
}
