//! Bodies that a limit of bandwidth slows down: how long they take by the gateway's own account, whole, on all cores together.
//!
//! What passes is never more than the rate allows, so times have a floor that holds on any machine, less the two
//! milliseconds that are not worth a timer. Above it there is room for a machine that is busy.

use std::thread;

use serde_json::{Value, json};

use super::kit::http2::{Http2, get, post};
use super::kit::{Gateway, Origin, Setup, eventually};

on_both_drivers!(
    what_comes_down_takes_its_time,
    what_goes_up_takes_its_time,
    streams_of_http_2_take_their_time_both_ways,
    all_cores_pass_no_more_than_one_rate,
    waiting_for_its_turn_is_nobodys_fault,
    a_shadow_tells_what_would_have_waited,
    a_client_that_leaves_is_not_waited_for,
);

/// A second's worth beyond the burst.
const BODY: usize = 110_000;
const RATE: &str = "{bytes: 100000, burst: 10000}";
/// Milliseconds that a time may be short of what was reckoned: clocks are read at both ends, and short waits are left out.
const EARLY_MS: f64 = 5.0;
/// And how much longer it may be.
const LATE_MS: f64 = 4000.0;

fn body() -> Vec<u8> {
    (0..BODY).map(|at| b'a' + (at % 26) as u8).collect()
}

fn slow(origin: &Origin, bandwidth: &str) -> Setup {
    let limit = format!("limit: {{limits: [{{name: slow, key: http_x_key, bandwidth: {bandwidth}}}]}}");
    Gateway::routing("/*", [origin]).route(&format!("plugins: {{{limit}}}"))
}

#[track_caller]
fn assert_took(line: &Value, millis: f64) {
    let took = line["dur_ms"].as_f64().unwrap();
    assert!(took >= millis - EARLY_MS && took <= millis + LATE_MS, "{millis} ms were reckoned: {line}");
}

/// Answers with the body, whole or in chunks.
fn sending(chunked: bool) -> Origin {
    Origin::answering(move |_| {
        let body = body();
        if !chunked {
            return [format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").into_bytes(), body]
                .concat();
        }
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(30_000) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    })
}

fn what_comes_down_takes_its_time() {
    for chunked in [false, true] {
        let origin = sending(chunked);
        let gateway = slow(&origin, &format!("{{down: {RATE}}}")).start();
        let answer = gateway.request("GET", "/down", &[("X-Key", "a")], b"");
        assert_eq!((answer.status, answer.body == body()), (200, true));
        assert_took(&gateway.logged("/down"), 1000.0);
        // Another key has a burst of its own, and what is sent is not limited.
        gateway.request("POST", "/up", &[("X-Key", "b")], &body()).expect_status(200);
        assert_took(&gateway.logged("/up"), 1000.0);
        let delayed = "apisix_limit_delayed_bytes_total{plugin=\"limit\",limit=\"slow\",direction=\"down\",result=\"delayed\"}";
        let bytes = eventually("it is counted", || gateway.metric(delayed));
        assert!(bytes > 100_000.0 && bytes <= 2.0 * BODY as f64, "{bytes}");
        let waited = gateway.metric(&delayed.replace("delayed_bytes", "delay_ms")).unwrap();
        assert!(waited >= 1900.0, "{waited}");
    }
}

fn what_goes_up_takes_its_time() {
    let origin = Origin::that_counts_bodies();
    let gateway = slow(&origin, &format!("{{up: {RATE}}}")).start();
    let mut client = gateway.client();
    client.request("POST", "/whole", &[("X-Key", "a")], &body()).expect(200, "counted");
    assert_took(&gateway.logged("/whole"), 1000.0);
    let mut chunked =
        "POST /chunked HTTP/1.1\r\nHost: a\r\nX-Key: b\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for piece in body().chunks(10_000) {
        chunked += &format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
    }
    client.raw.send(chunked + "0\r\n\r\n");
    client.raw.answer().expect(200, "counted");
    assert!(origin.swallowed() >= 2 * BODY, "{}", origin.swallowed());
    assert_took(&gateway.logged("/chunked"), 1000.0);
    // Small ones that come with their heads are counted as well: 30 of 4,000 bytes are 1.1 seconds beyond the burst.
    for _ in 0..30 {
        client.request("POST", "/small", &[("X-Key", "c")], &[b'x'; 4000]).expect(200, "counted");
    }
    let log = gateway.access_log();
    let small = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let took: f64 =
        small.filter(|line| line["path"] == "/small").filter_map(|line| line["dur_ms"].as_f64()).sum();
    // The last lines may still be on their way.
    assert!(took > 600.0, "{took} ms in all");
}

fn streams_of_http_2_take_their_time_both_ways() {
    let origin = Origin::echoing();
    let gateway = slow(&origin, &format!("{{up: {RATE}, down: {RATE}}}")).start();
    let mut client = Http2::to(&gateway);
    let mut request = post("/both");
    request.headers_mut().insert("x-key", "a".parse().unwrap());
    let answer = client.ask(request, &body()).unwrap();
    assert_eq!((answer.status, answer.body == body()), (200, true));
    // The origin answers once it has all of it: a second up, and a second down.
    assert_took(&gateway.logged("/both"), 2000.0);
    let mut request = get("/next");
    request.headers_mut().insert("x-key", "a".parse().unwrap());
    client.ask(request, b"").unwrap().expect(200, "");
}

fn all_cores_pass_no_more_than_one_rate() {
    let origin = sending(false);
    let gateway = slow(&origin, &format!("{{down: {RATE}}}")).cores(2).start();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let answer = gateway.request("GET", "/shared", &[("X-Key", "a")], b"");
                assert!(answer.status == 200 && answer.body == body());
            });
        }
    });
    let lines: Vec<Value> = eventually("all are logged", || {
        let log = gateway.access_log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["path"] == "/shared").collect();
        (lines.len() == 6).then_some(lines)
    });
    // Six times the body, less one burst, at the one rate: the last is served so long after the first came. They came nearly at once.
    let last = lines.iter().filter_map(|line| line["dur_ms"].as_f64()).fold(0.0, f64::max);
    assert!((5500.0..=6500.0 + LATE_MS).contains(&last), "{last} of 6500 ms");
}

fn waiting_for_its_turn_is_nobodys_fault() {
    let origin = Origin::echoing();
    let slowest = "{bytes: 1024, burst: 1024}";
    let gateway = slow(&origin, &format!("{{up: {slowest}, down: {slowest}}}"))
        .route("timeout: {connect: 1, send: 1, read: 1}")
        .settings("limits: {body_timeout: 1, write_timeout: 1}")
        .start();
    // It comes whole with its head, and waits for two seconds before it goes up; as long again before it comes down.
    let text = "x".repeat(3072);
    gateway.request("POST", "/patient", &[("X-Key", "a")], text.as_bytes()).expect(200, &text);
    assert_took(&gateway.logged("/patient"), 4000.0);
}

fn a_shadow_tells_what_would_have_waited() {
    let origin = sending(false);
    let limit = format!(
        "limit: {{mode: shadow, limits: [{{name: slow, key: http_x_key, bandwidth: {{down: {RATE}}}}}]}}"
    );
    let gateway = Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{limit}}}")).start();
    let told = |key: &str| {
        let answer = gateway.control("GET", &format!("/v1/limits?key={key}&route=1"));
        let told = answer.json()["list"][0].clone();
        assert_eq!((&told["per"], &told["mode"]), (&json!("bytes down"), &json!("shadow")));
        assert_eq!((&told["count"], &told["burst"]), (&json!(100_000), &json!(10_000)));
        (told["remaining"].as_u64().unwrap(), told["reset_in"].as_f64())
    };
    assert_eq!(told("a"), (10_000, None));
    let answer = gateway.request("GET", "/down", &[("X-Key", "a")], b"");
    assert_eq!((answer.status, answer.body == body()), (200, true));
    let (left, full_in) = told("a");
    assert!(
        left < 10_000 && full_in.is_some_and(|seconds| seconds > 0.0 && seconds <= 1.1),
        "{left} {full_in:?}"
    );
    let would = "apisix_limit_delayed_bytes_total{plugin=\"limit\",limit=\"slow\",direction=\"down\",result=\"would_delay\"}";
    assert!(eventually("it is counted", || gateway.metric(would)) > 90_000.0);
    let waits = format!("{}delayed\"}}", &would[..would.len() - "would_delay\"}".len()]);
    assert_eq!(gateway.metric(&waits), None);
}

fn a_client_that_leaves_is_not_waited_for() {
    let origin = sending(false);
    let gateway = slow(&origin, "{down: {bytes: 1024, burst: 1024}}").start();
    let mut raw = gateway.raw();
    raw.send("GET /leaves HTTP/1.1\r\nHost: a\r\nX-Key: a\r\n\r\n");
    raw.try_head().unwrap();
    drop(raw);
    // At that rate it would have taken more than a minute and a half.
    let line = gateway.logged("/leaves");
    assert!(line["dur_ms"].as_f64().unwrap() < 5000.0, "{line}");
    origin.wait_ended(1);
}
