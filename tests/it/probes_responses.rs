//! Hostile origins: what they may not do to a client, to the next client, and to us.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::kit::{Conn, Ended, Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_response_we_can_not_frame_is_502,
    a_response_with_bad_bytes_in_its_head_is_502,
    what_is_not_a_response_is_502,
    a_head_beyond_the_limit_is_502,
    bytes_after_the_body_poison_nobody,
    a_body_where_none_may_be_poisons_nobody,
    interim_responses_pass_up_to_a_limit,
    a_body_cut_short_is_cut_for_the_client,
    garbage_between_chunks_cuts_the_answer,
    a_response_before_any_request_poisons_nobody,
    an_answer_that_is_odd_but_legal_passes,
);

/// The first answer is bad: the client gets 502. The next client gets its own, on another connection.
#[track_caller]
fn refused(name: &str, bytes: impl Into<Vec<u8>>) {
    let origin = Origin::sending_once(bytes);
    let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();

    let mut client = gateway.client();
    let answer = client.get("/bad");
    assert!(answer.status == 502 && answer.whole, "{name}: {}", answer.raw.escape_ascii());
    assert!(answer.values("x-evil").is_empty(), "{name}: {}", answer.raw.escape_ascii());
    gateway.get("/next").expect(200, "GET /next");
    if answer.open {
        client.get("/same").expect(200, "GET /same");
    }
    let connections: Vec<usize> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert_ne!(connections[0], connections[1], "{name}: the connection was used again");
}

fn a_response_we_can_not_frame_is_502() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: -5",
        "Content-Length: ",
        "Content-Length: 5, 6",
        "Content-Length: 18446744073709551617",
        "Transfer-Encoding: x",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
    ] {
        refused(lines, format!("HTTP/1.1 200 OK\r\nX-Evil: 1\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    }
}

fn a_response_with_bad_bytes_in_its_head_is_502() {
    for line in [
        "X-Evil: a\0b",
        "X-Evil: a\rb",
        "X-Evil: a\nb",
        "X-Evil: a\u{1}b",
        "X-Evil : a",
        "X Evil: a",
        ": a",
        "X-Evil",
        "X-Evil: a\r\n folded",
        "X-\0Evil: a",
    ] {
        refused(line, format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok"));
    }
    for line in ["HTTP/1.1 200 O\0K", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 OK\n"] {
        refused(line, format!("{line}\r\nContent-Length: 2\r\n\r\nok"));
    }
}

fn what_is_not_a_response_is_502() {
    for bytes in [
        "hello\r\n\r\n",
        "<html>HTTP/0.9</html>\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
        "junkHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        refused(bytes, bytes);
    }
}

fn a_head_beyond_the_limit_is_502() {
    refused("one header of 64 KiB", format!("HTTP/1.1 200 OK\r\nX-Evil: {}\r\n\r\n", "a".repeat(65_536)));
    let many = "X-Evil: 1\r\n".repeat(5000);
    refused("5,000 headers", format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"));
    // An end that never comes: the gateway stops reading at its limit.
    let origin = Origin::serving(|conn: &mut Conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nX-Endless: ");
        while conn.send(&[b'a'; 4096]) {}
    });
    let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();
    gateway.get("/").expect_status(502);
    origin.wait_ended(1);
}

fn bytes_after_the_body_poison_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for good in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
    ] {
        let origin = Origin::sending_once(format!("{good}{evil}"));
        let gateway = Gateway::routing("/*", [&origin]).start();
        let mut client = gateway.client();
        client.get("/first").expect(200, "good");
        client.get("/second").expect(200, "GET /second");
        gateway.get("/third").expect(200, "GET /third");
        assert_ne!(origin.saw("/first").connection, origin.saw("/second").connection);
    }
}

fn a_body_where_none_may_be_poisons_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, head) in [
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", evil.len())),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n", evil.len())),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n", evil.len())),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
    ] {
        let origin = Origin::sending_once(format!("{head}{evil}"));
        let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();
        let mut client = gateway.client();
        let answer = client.request(method, "/first", &[], b"");
        assert!(matches!(answer.status, 200 | 204 | 304 | 502), "{head}: {}", answer.status);
        if answer.open {
            client.get("/second").expect(200, "GET /second");
        }
        gateway.get("/third").expect(200, "GET /third");
    }
}

fn interim_responses_pass_up_to_a_limit() {
    let origin = Origin::with_interims(10, "ok");
    let gateway = Gateway::routing("/*", [&origin]).start();
    gateway.get("/").expect(200, "ok");

    let flood = Origin::serving(|conn: &mut Conn| {
        conn.request();
        while conn.send(b"HTTP/1.1 103 Early Hints\r\n\r\n") {}
    });
    let gateway = Gateway::routing("/*", [&flood]).with("retries: 0").start();
    gateway.get("/").expect_status(502);
    flood.wait_ended(1);
}

fn a_body_cut_short_is_cut_for_the_client() {
    for (name, bytes) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello"),
        ("between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("before the last line", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    ] {
        let origin = Origin::sending_and_closing(bytes);
        let gateway = Gateway::routing("/*", [&origin]).with("retries: 2").start();
        let mut raw = gateway.raw();
        raw.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = raw.answer();
        assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "hello", false), "{name}");
        assert_ne!(raw.rest().1, Ended::Open, "{name}");
        assert_eq!(origin.requests(), 1, "{name}: nothing is tried again once the client has a byte");
        let line = gateway.logged("/cut");
        assert!(line["error_code"].as_str().is_some_and(|reason| !reason.is_empty()), "{name}: {line}");
    }
}

fn garbage_between_chunks_cuts_the_answer() {
    for rest in
        ["zz\r\nevil\r\n0\r\n\r\n", "\r\n", "5\r\nhelloevil\r\n0\r\n\r\n", "-1\r\n", "0x1\r\ne\r\n0\r\n\r\n"]
    {
        let origin = Origin::sending_once(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n{rest}"
        ));
        let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();
        let mut client = gateway.client();
        let answer = client.get("/first");
        // The head may or may not have gone out before the garbage was seen.
        assert!(answer.status == 502 || !answer.whole, "{rest:?}: {}", answer.raw.escape_ascii());
        assert!(!answer.text().contains("evil"), "{rest:?}: {}", answer.text());
        gateway.get("/next").expect(200, "GET /next");
        assert_ne!(origin.saw("/first").connection, origin.saw("/next").connection);
    }
}

fn a_response_before_any_request_poisons_nobody() {
    // Sent while the connection rests in the pool: who uses it next must not get it.
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::serving(move |conn: &mut Conn| {
        while let Some(seen) = conn.request() {
            conn.send(&reply("200 OK", &seen.target));
            conn.send(&reply("200 OK", "evil"));
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = gateway.client();
    for at in 0..20 {
        let path = format!("/{at}");
        client.get(&path).expect(200, &path);
        // What arrives while a request is on its way can not be told from its answer; what arrived before can.
        eventually("the evil answer is on its way", || (sent.load(Ordering::SeqCst) > at).then_some(()));
    }
}

fn an_answer_that_is_odd_but_legal_passes() {
    for (bytes, status, body) in [
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 299 Caf\u{e9}\r\nContent-Length: 2\r\n\r\nok", 299, "ok"),
        ("HTTP/1.1 599 Odd\r\nContent-Length: 02\r\n\r\nok", 599, "ok"),
        ("HTTP/1.1 200 OK\r\nX-Empty:\r\ncontent-length:2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n", 200, "ok"),
    ] {
        let origin = Origin::sending(bytes);
        let gateway = Gateway::routing("/*", [&origin]).with("retries: 0").start();
        let mut client = gateway.client();
        client.get("/").expect(status, body);
        client.get("/").expect(status, body);
    }
}
