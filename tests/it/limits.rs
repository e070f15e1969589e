//! Limits: each at its last good value and its first bad one, and what slow clients get.

use std::time::{Duration, Instant};

use super::kit::{Ended, Gateway, Origin, Raw, eventually};

on_both_drivers!(
    a_request_line_has_a_limit,
    the_number_of_headers_has_a_limit,
    a_head_has_a_limit,
    a_body_has_the_limit_that_is_set,
    a_head_must_come_in_time_however_it_drips,
    a_connection_that_says_nothing_is_closed,
    a_body_may_pause_only_so_long,
    a_body_that_keeps_coming_is_not_cut,
    an_idle_connection_is_closed_in_time,
    a_connection_may_be_silent_for_as_long_as_was_set,
    a_connection_carries_so_many_requests,
    a_reader_that_stops_is_cut_off,
    a_flood_of_garbage_is_bounded,
);

fn a_request_line_has_a_limit() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {line_bytes: 1024}").start();

    // Some count the end of the line, some do not: both sides of that doubt are left out.
    let line = |length: usize| format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
    gateway.get(&line(1000)).expect(200, "hello");
    for length in [1050, 4000, 20_000, 1_000_000] {
        let mut raw = gateway.raw();
        raw.send(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", line(length)));
        raw.answer().expect_status(414);
        raw.expect_closed();
    }
    assert_eq!(origin.requests(), 1);
    assert!(!gateway.reason("414").is_empty());
}

fn the_number_of_headers_has_a_limit() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let with = |count: usize| {
        let mut raw = gateway.raw();
        let lines: String = (0..count - 1).map(|at| format!("X-{at}: {at}\r\n")).collect();
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        raw
    };
    with(100).answer().expect(200, "hello");
    for count in [101, 1000, 100_000] {
        let mut raw = with(count);
        raw.answer().expect_status(431);
        raw.expect_closed();
    }
    assert_eq!(origin.only().values("x-98"), ["98"]);
}

fn a_head_has_a_limit() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let with = |bytes: usize| {
        let mut raw = gateway.raw();
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "a".repeat(bytes)));
        raw
    };
    with(32_000).answer().expect(200, "hello");
    for bytes in [33_000, 70_000, 1_048_576] {
        let mut raw = with(bytes);
        raw.answer().expect_status(431);
        raw.expect_closed();
    }
    assert_eq!(origin.requests(), 1);
}

fn a_body_has_the_limit_that_is_set() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {body_bytes: 1000}").start();

    let body = "b".repeat(1000);
    gateway.post("/", body.as_bytes()).expect(200, &body);
    let mut raw = gateway.raw();
    raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n{body}b"));
    raw.answer().expect_status(413);
    let chunks = format!("3e8\r\n{body}\r\n1\r\nb\r\n0\r\n\r\n");
    gateway
        .say(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
        .expect_status(413);
    gateway
        .say("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        .expect_status(413);
    let whole = origin.seen().into_iter().filter(|seen| seen.complete).count();
    assert_eq!(whole, 1, "no request beyond the limit was completed");
}

/// Waits for the end, dripping a byte now and then; how long it took and what came.
fn drip(raw: &mut Raw, byte: &[u8]) -> (Duration, Vec<u8>, Ended) {
    let start = Instant::now();
    let mut got = Vec::new();
    raw.patience(Duration::from_millis(50));
    loop {
        let (bytes, ended) = raw.rest();
        got.extend_from_slice(&bytes);
        if ended != Ended::Open || start.elapsed() > Duration::from_secs(8) {
            return (start.elapsed(), got, ended);
        }
        raw.send(byte);
    }
}

#[track_caller]
fn ended_after(outcome: &(Duration, Vec<u8>, Ended), least: Duration) {
    let (took, got, ended) = outcome;
    assert_ne!(*ended, Ended::Open, "still open after {took:?}");
    assert!(*took >= least.mul_f64(0.8), "ended after {took:?}, expected {least:?}");
    assert!(*took < least + Duration::from_secs(3), "ended after {took:?}, expected {least:?}");
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 408 "), "{}", got.escape_ascii());
}

fn a_head_must_come_in_time_however_it_drips() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {head_timeout: 0.7}").start();

    for beginning in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut raw = gateway.raw();
        raw.send(beginning);
        ended_after(&drip(&mut raw, b"a"), Duration::from_millis(700));
    }
    // The second request of a connection has the same time.
    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    client.raw.send("GET / HTT");
    ended_after(&drip(&mut client.raw, b""), Duration::from_millis(700));
    assert_eq!(origin.requests(), 1);
}

fn a_connection_that_says_nothing_is_closed() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {head_timeout: 0.5, keepalive_timeout: 0.5}")
        .start();

    let mut raw = gateway.raw();
    ended_after(&drip(&mut raw, b""), Duration::from_millis(500));
}

fn a_body_may_pause_only_so_long() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {body_timeout: 0.5}").start();

    for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\na\r\nhalf"] {
        let mut raw = gateway.raw();
        raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
        ended_after(&drip(&mut raw, b""), Duration::from_millis(500));
    }
    assert!(origin.seen().iter().all(|seen| !seen.complete), "half a body is no request");
    origin.wait_ended(origin.connections());
}

fn a_body_that_keeps_coming_is_not_cut() {
    let origin = Origin::echoing();
    let gateway =
        Gateway::routing("/*", [&origin]).settings("limits: {body_timeout: 0.5, head_timeout: 0.5}").start();

    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").patience(Duration::from_millis(150));
    for _ in 0..10 {
        assert_eq!(raw.rest(), (Vec::new(), Ended::Open));
        raw.send("x");
    }
    raw.patience(Duration::from_secs(5));
    raw.answer().expect(200, "xxxxxxxxxx");
}

fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {keepalive_timeout: 0.6}").start();

    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    let start = Instant::now();
    client.raw.expect_closed();
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

/// Connections stay with a buffer for a second, then rest without one: both before and after, and in all, the client has
/// the time that was set.
fn a_connection_may_be_silent_for_as_long_as_was_set() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {keepalive_timeout: 2}").start();

    let mut client = gateway.client();
    for silence in [0, 900, 1_100, 1_700] {
        client.raw.patience(Duration::from_millis(silence.max(1)));
        assert_eq!(client.raw.rest(), (Vec::new(), Ended::Open), "after {silence} ms");
        client.raw.patience(Duration::from_secs(5));
        client.get("/").expect(200, "hello");
    }
    let start = Instant::now();
    client.raw.expect_closed();
    let took = start.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

fn a_connection_carries_so_many_requests() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {keepalive_requests: 3}").start();

    let mut client = gateway.client();
    let open: Vec<bool> = (0..3).map(|_| client.get("/").expect(200, "hello").open).collect();
    assert_eq!(open, [true, true, false], "the last answer says so");
    client.raw.expect_closed();
}

fn a_reader_that_stops_is_cut_off() {
    let origin = Origin::with_body_of(200_000_000);
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {write_timeout: 0.7}").start();
    let before = gateway.resident();

    let mut raw = gateway.raw();
    raw.send("GET /stalled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.try_head().unwrap().status, 200);
    let start = Instant::now();
    // Not a byte is read any more, until the origin is let go.
    origin.wait_ended(1);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "{grown} bytes for one stalled reader");
    let mut length = 0;
    raw.wire.rest(|piece| length += piece.len());
    assert!(length < 200_000_000);
}

fn a_flood_of_garbage_is_bounded() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    gateway.get("/").expect(200, "hello");
    let before = gateway.resident();

    let mut raws: Vec<Raw> = (0..50).map(|_| gateway.raw()).collect();
    for raw in &mut raws {
        raw.send(vec![b'x'; 500_000]);
    }
    eventually("all are answered and closed", || {
        raws.retain_mut(|raw| {
            raw.patience(Duration::from_millis(20));
            raw.rest().1 == Ended::Open
        });
        raws.is_empty().then_some(())
    });
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes after 50 floods");
    gateway.get("/").expect(200, "hello");
}
