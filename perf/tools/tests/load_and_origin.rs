//! The load generator against its own origin: every kind of load is answered, and what is not is told.

use clap::Parser;
use ringway_perf::load::{Bench, Options};
use serde_json::Value;

/// A short run over HTTP/1.1; the arguments follow the address.
fn run(path: &str, arguments: &str) -> Value {
    run_by("http", path, arguments)
}

fn run_by(scheme: &str, path: &str, arguments: &str) -> Value {
    let any = ["127.0.0.1:0".parse().unwrap()];
    let mut bench = Bench::new(&any, &any).unwrap();
    let address = bench.origin.as_ref().unwrap().addresses()[usize::from(scheme == "tcp")];
    let fixed = format!("loadgen {scheme}://{address}{path} -d 0.2 -w 0.05 {arguments}");
    let options = Options::try_parse_from(fixed.split_whitespace()).unwrap();
    bench.run(&options, None).unwrap().json().clone()
}

/// All are answered and well; bytes each.
#[track_caller]
fn answered(report: &Value) -> f64 {
    let answered = report["answered"].as_u64().unwrap();
    assert!(answered > 0, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert_eq!(report["statuses"].as_object().unwrap().keys().collect::<Vec<_>>(), ["200"]);
    report["bytes"].as_u64().unwrap() as f64 / answered as f64
}

#[track_caller]
fn check(path: &str, arguments: &str, bytes_each: u64) {
    let each = answered(&run(path, arguments)) as u64;
    // Heads are about a hundred bytes.
    assert!((bytes_each + 50..bytes_each + 200).contains(&each), "{each} bytes an answer");
}

#[track_caller]
fn check_by(scheme: &str, arguments: &str, bytes_each: std::ops::RangeInclusive<f64>) {
    let each = answered(&run_by(scheme, "/a", arguments));
    assert!(bytes_each.contains(&each), "{each} bytes an answer of {scheme}");
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
fn every_protocol_is_answered() {
    // The body, and a block of header lines.
    check_by("h2c", "-c 2 --streams 10", 140.0..=160.0);
    check_by("h2c", "-c 2 --streams 10 -r 500", 140.0..=160.0);
    // 5 and 100 bytes, two blocks.
    check_by("grpc", "-c 2 --streams 10 --message-bytes 100", 135.0..=150.0);
    check_by("grpc", "-c 1 --streams 100 --message-bytes 4000", 4030.0..=4060.0);
    check_by("tcp", "-c 8", 64.0..=64.0);
    check_by("tcp", "-c 1 --message-bytes 16000 -r 100", 16_000.0..=16_000.0);
    // 64 and the frame's head; the answer to the opening counts where it is measured.
    check_by("ws", "-c 8", 66.0..=67.0);
    check_by("ws", "-c 100 -r 3000", 66.0..=90.0);
}

#[test]
fn who_does_not_speak_what_is_asked_is_an_error() {
    for (scheme, path) in [("grpc", "tcp"), ("h2c", "tcp"), ("ws", "tcp"), ("https", "http"), ("tcp", "http")]
    {
        let any = ["127.0.0.1:0".parse().unwrap()];
        let mut bench = Bench::new(&any, &any).unwrap();
        let address = bench.origin.as_ref().unwrap().addresses()[usize::from(path == "tcp")];
        let line = format!("loadgen {scheme}://{address}/ -d 0.2 -w 0.05 -c 2 --timeout 0.1");
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let report = bench.run(&options, None).unwrap().json().clone();
        assert_eq!(report["answered"], 0, "{scheme}: {report}");
        assert!(!report["errors"].as_object().unwrap().is_empty(), "{scheme}: {report}");
    }
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
fn what_is_late_is_given_up_and_not_good_and_nobody_waits_in_line() {
    // Each of two connections is busy for 50 ms: of 500 a second, most find none free.
    let report = run("/stall?ms=50", "-c 2 -r 500 --within 1");
    let (good, not_sent) = (report["good"].as_u64().unwrap(), report["not_sent"].as_u64().unwrap());
    assert!((2..=10).contains(&good) && not_sent >= 90, "{report}");
    let report = run("/stall?ms=400", "-c 2 -r 500 --within 0.05");
    assert_eq!((&report["good"], &report["answered"]), (&0.into(), &0.into()), "{report}");
    assert!(report["errors"]["timeout"].as_u64().unwrap() >= 2, "{report}");
}

#[test]
fn latency_counts_from_when_a_request_was_due() {
    // One connection and 20 ms an answer: 100 a second can not be had, and who waits longer is told so.
    let report = run("/stall?ms=20", "-c 1 -r 100");
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 40_000.0, "{report}");
    assert!(report["late_us"]["p99"].as_f64().unwrap() > 20_000.0, "{report}");
}
