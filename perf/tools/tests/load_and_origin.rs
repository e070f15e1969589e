//! The load generator against its own origin: every kind of load is answered, and what is not is told.

use clap::Parser;
use ringway_perf::load::{Bench, Options};
use serde_json::Value;

/// A short run; the arguments follow the address.
fn run(path: &str, arguments: &str) -> Value {
    let mut bench = Bench::new(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = bench.origin.as_ref().unwrap().addresses()[0];
    let fixed = format!("loadgen http://{address}{path} -d 0.2 -w 0.05 {arguments}");
    let options = Options::try_parse_from(fixed.split_whitespace()).unwrap();
    bench.run(&options, None).unwrap().json().clone()
}

#[track_caller]
fn check(path: &str, arguments: &str, bytes_each: u64) {
    let report = run(path, arguments);
    let answered = report["answered"].as_u64().unwrap();
    assert!(answered > 0, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["statuses"].as_object().unwrap().keys().collect::<Vec<_>>(), ["200"]);
    // Heads are about a hundred bytes.
    let each = report["bytes"].as_u64().unwrap() / answered;
    assert!((bytes_each + 50..bytes_each + 200).contains(&each), "{each} bytes an answer");
}

#[test]
fn every_kind_of_load_is_answered() {
    check("/128", "", 128);
    check("/any/route/1k", "-r 500", 1024);
    check("/64k", "-r 500 --poisson", 64 * 1024);
    check("/1m", "-c 2", 1024 * 1024);
    check("/128", "-b 65536", 128);
    check("/128", "--new-connections", 128);
    check("/128", "--new-connections -r 300", 128);
}

#[test]
fn an_open_loop_offers_what_it_was_told_to() {
    let report = run("/128", "-r 1000");
    assert_eq!(report["offered"], 200);
    assert_eq!(report["unanswered"], 0);
}

#[test]
fn an_answer_that_does_not_come_is_an_error_and_no_latency() {
    let report = run("/stall?ms=5000", "-r 100 --timeout 0.1");
    assert_eq!(report["answered"], 0, "{report}");
    assert_eq!(report["errors"]["timeout"], 20, "{report}");
}

#[test]
fn latency_counts_from_when_a_request_was_due() {
    // One connection and 20 ms an answer: 100 a second can not be had, and who waits longer is told so.
    let report = run("/stall?ms=20", "-c 1 -r 100");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 40_000.0, "{report}");
    assert!(report["late_us"]["p99"].as_f64().unwrap() > 20_000.0, "{report}");
}
