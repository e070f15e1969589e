//! Lines of JSON for requests, in a file: what they say, rotation, and a file that can not be written.

use std::path::Path;

use serde_json::{Value, json};

use crate::kit::{Gateway, Origin, Setup, Signal, eventually};

on_both_drivers!(
    each_request_that_matches_is_a_line,
    lines_follow_the_file_after_a_rotation,
    a_file_that_can_not_be_opened_costs_lines_and_no_request,
    what_is_left_is_written_at_the_end,
);

fn telling(origin: &Origin, path: &Path, more: Value) -> Setup {
    let mut whole = json!({ "path": path });
    whole.as_object_mut().unwrap().extend(more.as_object().expect("fields").clone());
    Gateway::routing("/*", [origin]).route(&format!("plugins: {}", json!({ "file-logger": whole }))).cores(1)
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    let name = format!("ringway_log_entries_total{{plugin=\"file-logger\",outcome=\"{outcome}\"}}");
    gateway.metric(&name).expect("it is counted")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn wait_lines(path: &Path, count: usize) -> Vec<Value> {
    eventually("the lines are there", || Some(lines(path)).filter(|lines| lines.len() == count))
}

fn each_request_that_matches_is_a_line() {
    let (origin, folder) = (Origin::echoing(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.log");
    let config = json!({
        "match": [[["arg_log", "==", "1"]], [["request_method", "==", "POST"]]],
        "include_req_body": true, "max_req_body_bytes": 3,
    });
    let gateway = telling(&origin, &path, config).start();
    gateway.get("/a?log=1").expect_status(200);
    gateway.get("/b?log=0").expect_status(200);
    gateway.post("/c", b"body").expect_status(200);
    let lines = wait_lines(&path, 2);
    assert_eq!(
        (&lines[0]["request"]["uri"], &lines[1]["request"]["uri"]),
        (&json!("/a?log=1"), &json!("/c"))
    );
    assert_eq!((&lines[1]["request"]["body"], &lines[1]["route_id"]), (&json!("bod"), &json!("1")));
    eventually("both are counted", || (count(&gateway, "sent") == 2.0).then_some(()));
}

fn lines_follow_the_file_after_a_rotation() {
    let (origin, folder) = (Origin::naming(), tempfile::tempdir().unwrap());
    let (path, rotated) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
    let gateway = telling(&origin, &path, json!({"log_format": {"what": "$uri"}})).start();
    gateway.get("/before").expect_status(200);
    wait_lines(&path, 1);
    std::fs::rename(&path, &rotated).unwrap();
    gateway.signal(Signal::Usr1);
    gateway.wait_said(&["access log reopened"]);
    gateway.get("/after").expect_status(200);
    assert_eq!(wait_lines(&path, 1), [json!({"what": "/after", "route_id": "1"})]);
    assert_eq!(lines(&rotated), [json!({"what": "/before", "route_id": "1"})]);
}

fn a_file_that_can_not_be_opened_costs_lines_and_no_request() {
    let (origin, folder) = (Origin::naming(), tempfile::tempdir().unwrap());
    let path = folder.path().join("none/a.log");
    let gateway = telling(&origin, &path, json!({})).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    eventually("all are lost", || (count(&gateway, "failed") == 3.0).then_some(()));
    gateway.wait_said(&["file-logger: ", "none/a.log: ", "entries are lost"]);
}

fn what_is_left_is_written_at_the_end() {
    let (origin, folder) = (Origin::naming(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.log");
    let mut gateway = telling(&origin, &path, json!({"log_format": {"what": "$uri"}})).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    gateway.signal(Signal::Term);
    assert!(gateway.wait_exit().success());
    let uris: Vec<Value> = lines(&path).into_iter().map(|line| line["what"].clone()).collect();
    assert_eq!(uris, ["/0", "/1", "/2"]);
}
