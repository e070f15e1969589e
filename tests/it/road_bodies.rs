//! Bodies both ways: lengths, chunks, trailers, early answers, half-closed connections and back-pressure.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use super::kit::{Conn, Gateway, Origin, PATIENCE, Raw, eventually, reply};

on_both_drivers!(
    a_body_of_known_length_passes_both_ways,
    a_chunked_body_passes_both_ways,
    chunks_are_read_however_they_are_cut,
    trailers_of_a_request_are_dropped_unless_asked_for,
    who_waits_for_100_gets_it_once,
    a_body_sent_without_waiting_for_100_passes,
    an_answer_instead_of_100_reaches_the_client,
    a_client_of_http_1_0_gets_an_answer_it_understands,
    a_client_of_http_1_0_may_keep_its_connection,
    an_origin_of_http_1_0_is_understood,
    a_body_that_ends_with_its_connection_is_whole,
    an_origin_that_trickles_is_waited_for,
    an_answer_before_the_end_of_the_body_reaches_the_client,
    an_early_answer_reaches_a_client_that_still_sends,
    a_client_that_takes_its_time_gets_all_of_it,
    a_client_that_pauses_its_body_is_not_the_nodes_silence,
    a_node_has_its_time_after_a_body_in_pieces,
    nobody_who_is_turned_away_makes_the_gateway_hold_a_body,
    a_body_that_a_plugin_wants_is_held_and_sent_whole,
    a_client_that_half_closes_gets_its_answer,
    requests_in_one_write_are_answered_in_order,
    events_pass_one_by_one,
    who_leaves_while_events_are_awaited_is_noticed,
    a_large_body_passes_both_ways,
    an_origin_that_does_not_read_stops_the_client,
    a_client_that_leaves_ends_the_request_at_the_origin,
);

fn a_body_of_known_length_passes_both_ways() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.post("/", b"some body").expect(200, "some body");
    client.request("PUT", "/empty", &[("Content-Length", "0")], b"").expect(200, "");
    client.post("/two", b"another").expect(200, "another");
    let seen = origin.saw("/");
    assert_eq!((seen.header("content-length"), seen.framings()), (Some("9"), 1));
}

fn a_chunked_body_passes_both_ways() {
    let origin = Origin::answering(|seen| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for byte in &seen.body {
            bytes.extend_from_slice(format!("1\r\n{}\r\n", char::from(*byte)).as_bytes());
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    client.raw.answer().expect(200, "hello world");
    client.get("/next").expect(200, "");
    let seen = origin.saw("/");
    assert_eq!((seen.body.as_slice(), seen.framings()), (&b"hello world"[..], 1));
}

fn chunks_are_read_however_they_are_cut() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "A\r\n0123456789\r\n000b;name=value\r\nabcdefghijk\r\n0\r\n\r\n";
    let mut raw = gateway.raw();
    for at in 0..=body.len() {
        raw.send_each([head, &body[..at], &body[at..]]);
        raw.answer().expect(200, "0123456789abcdefghijk");
    }
    raw.send(head).send_each(body.bytes().map(|byte| [byte]));
    raw.answer().expect(200, "0123456789abcdefghijk");
}

fn trailers_of_a_request_are_dropped_unless_asked_for() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\
         Host: evil\r\n\r\n",
    );
    raw.answer().expect(200, "ok");
    raw.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.answer().expect(200, "");
    let seen = origin.saw("/");
    assert!(seen.trailers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")), "{:?}", seen.trailers);
    assert_eq!(seen.header("host"), Some("a"));
}

fn who_waits_for_100_gets_it_once() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    // The interim response must come before a byte of the body is sent.
    let interim = raw.wire.head().unwrap().expect("an interim response");
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{}", interim.escape_ascii());
    raw.send("body");
    let answer = raw.answer();
    answer.expect(200, "body");
    assert!(answer.interim.is_empty(), "a second interim response: {:?}", answer.interim);
    raw.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.answer().expect(200, "");
}

fn a_body_sent_without_waiting_for_100_passes() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.request("POST", "/", &[("Expect", "100-continue")], b"body").expect(200, "body");
    client.get("/next").expect(200, "");
}

fn an_answer_instead_of_100_reaches_the_client() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if let Some(seen) = conn.head() {
            conn.send(&reply("403 Forbidden", &seen.target));
            conn.hold();
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("POST /first HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = raw.answer();
    answer.expect(403, "/first");
    // Where the connection stays, the body is still to come; where it does not, nothing more is.
    if answer.open {
        raw.send("helloGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        raw.answer().expect(403, "/second");
    } else {
        raw.expect_closed();
    }
    gateway.get("/third").expect(403, "/third");
    assert_ne!(origin.saw("/first").connection, origin.saw("/third").connection);
}

fn a_client_of_http_1_0_gets_an_answer_it_understands() {
    let origin = Origin::sending("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = raw.answer();
    answer.expect(200, "ok");
    assert!(answer.values("transfer-encoding").is_empty(), "no chunks for HTTP/1.0");
    assert_eq!(answer.version, "HTTP/1.1", "our version, not the client's");
    raw.expect_closed();
    assert_eq!(origin.only().version, "HTTP/1.1");
}

fn a_client_of_http_1_0_may_keep_its_connection() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    for _ in 0..2 {
        raw.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let answer = raw.answer();
        answer.expect(200, "hello");
        let connection = answer.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert_eq!(connection, "keep-alive");
    }
    raw.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    raw.answer().expect(200, "hello");
    raw.expect_closed();
}

fn an_origin_of_http_1_0_is_understood() {
    let origin = Origin::sending_and_closing("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.get("/").expect(200, "ok");
    client.get("/").expect(200, "ok");
    assert_eq!(origin.connections(), 2);
}

fn a_body_that_ends_with_its_connection_is_whole() {
    let origin =
        Origin::sending_and_closing("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    let answer = client.get("/");
    answer.expect(200, "until the end");
    if answer.open {
        client.get("/").expect(200, "until the end");
    }
}

fn an_origin_that_trickles_is_waited_for() {
    let origin = Origin::that_trickles("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    client.get("/").expect(200, "hello");
}

fn an_answer_before_the_end_of_the_body_reaches_the_client() {
    let origin = Origin::that_answers_before_the_body("no thanks");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin");
    raw.answer().expect(200, "no thanks");
    // A connection on which a body was left unfinished is never used for another request.
    drop(raw);
    gateway.get("/next").expect(200, "no thanks");
    let connections: Vec<usize> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1]);
}

fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::that_answers_before_the_body("no thanks");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").unwrap();
    stream.peek(&mut [0]).expect("an answer");
    // As if it had not looked.
    stream.write_all(&vec![b'x'; 900_000]).expect("is read");
    Raw::over(stream).answer().expect(200, "no thanks");
}

fn a_client_that_takes_its_time_gets_all_of_it() {
    const BYTES: usize = 40_000_000;
    let origin = Origin::replying(&"b".repeat(BYTES));
    let gateway = Gateway::routing("/*", [&origin]).with("timeout: {connect: 5, send: 5, read: 1}").start();
    let mut raw = gateway.raw();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // This is how long the client takes nothing.
    std::thread::sleep(Duration::from_secs(2));
    let answer = raw.answer();
    assert!(answer.whole && answer.body.len() == BYTES, "{} bytes", answer.body.len());
}

fn a_client_that_pauses_its_body_is_not_the_nodes_silence() {
    let origin = Origin::echoing();
    let gateway =
        Gateway::routing("/*", [&origin]).with("timeout: {connect: 5, send: 0.3, read: 0.3}").start();
    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    // This is how long the client pauses.
    std::thread::sleep(Duration::from_secs(1));
    raw.send("half").answer().expect(200, "halfhalf");
}

fn a_node_has_its_time_after_a_body_in_pieces() {
    let origin = Origin::answering(|_| {
        // This is how long the origin takes.
        std::thread::sleep(Duration::from_secs(1));
        reply("200 OK", "late")
    });
    let gateway = Gateway::routing("/*", [&origin]).with("timeout: {connect: 5, send: 0.2, read: 5}").start();
    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    eventually("the head is there", || (origin.connections() == 1).then_some(()));
    raw.send("body").answer().expect(200, "late");
}

/// A limit by a field of the body, behind a key.
const LIMITED_BY_FIELD: &str = "plugins: {key-auth: {}, limit-count: {count: 1, time_window: 60, \
    key_type: var, key: post_arg_user, rejected_code: 429}}";
const JACK: &str = "consumers: [{username: jack, plugins: {key-auth: {key: k1}}}]";

fn nobody_who_is_turned_away_makes_the_gateway_hold_a_body() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).route(LIMITED_BY_FIELD).objects(JACK).start();

    // The body never comes: a gateway that wanted it first would not answer.
    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 50000\r\n\r\nuser=");
    raw.answer().expect_status(401);
    assert_eq!(origin.requests(), 0);
}

fn a_body_that_a_plugin_wants_is_held_and_sent_whole() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).route(LIMITED_BY_FIELD).objects(JACK).start();

    let form = [("apikey", "k1"), ("Content-Type", "application/x-www-form-urlencoded")];
    let mut client = gateway.client();
    client.request("POST", "/", &form, b"user=a&x=1").expect(200, "user=a&x=1");
    client.request("POST", "/", &form, b"user=b&x=2").expect(200, "user=b&x=2");
    client.request("POST", "/", &form, b"user=a&x=3").expect_status(429);
    assert_eq!(origin.requests(), 2);
}

fn a_client_that_half_closes_gets_its_answer() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").finish();
    raw.answer().expect(200, "body");
    raw.expect_closed();
}

fn requests_in_one_write_are_answered_in_order() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    let mut bytes = Vec::new();
    for at in 0..50 {
        let body = "x".repeat(at);
        bytes.extend(
            format!("POST /{at} HTTP/1.1\r\nHost: a\r\nContent-Length: {at}\r\n\r\n{body}").into_bytes(),
        );
    }
    raw.send(bytes);
    for (at, answer) in raw.answers(50).into_iter().enumerate() {
        answer.expect(200, &format!("POST /{at}"));
    }
    for (at, seen) in origin.seen().into_iter().enumerate() {
        assert_eq!((seen.target, seen.body.len()), (format!("/{at}"), at));
    }
}

fn who_leaves_while_events_are_awaited_is_noticed() {
    let origin = Origin::serving(|conn: &mut Conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 0\n\n");
        conn.wait_for_the_end();
    });
    let gateway = Gateway::routing("/*", [&origin]).start();
    for at in 1..=2 {
        let mut raw = gateway.raw();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(raw.try_head().unwrap().status, 200);
        // In good order, and with bytes that nobody will read.
        if at == 2 {
            raw.send("GET /another HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        raw.wire.stream().shutdown(std::net::Shutdown::Both).unwrap();
        eventually("the node is left", || (origin.ended() == at).then_some(()));
    }
}

fn events_pass_one_by_one() {
    // The next event is only sent when the test saw the one before, so a gateway that gathers them never ends.
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::serving(move |conn: &mut Conn| {
        conn.request();
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for at in 0..5 {
            conn.send(format!("data: {at}\n\n").as_bytes());
            let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(5));
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(raw.try_head().unwrap().status, 200);
    for at in 0..5 {
        let mut event = Vec::new();
        while event.len() < 9 {
            event.extend(raw.wire.some().expect("an event"));
        }
        assert_eq!(event, format!("data: {at}\n\n").into_bytes());
        go.send(()).unwrap();
    }
    raw.expect_closed();
}

fn a_large_body_passes_both_ways() {
    const BYTES: usize = 24 * 1024 * 1024;
    let (counts, sends) = (Origin::that_counts_bodies(), Origin::with_body_of(BYTES));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: up, uri: /up, upstream: {type: roundrobin, nodes: {COUNTS: 1}}}
          - {id: down, uri: /down, upstream: {type: roundrobin, nodes: {SENDS: 1}}}
        ",
        &[("COUNTS", &counts), ("SENDS", &sends)],
    )
    .start();

    let mut client = gateway.client();
    client.post("/up", &vec![b'x'; BYTES]).expect(200, "counted");
    assert_eq!(counts.swallowed(), BYTES);
    let answer = client.get("/down");
    assert!(answer.whole && answer.body.len() == BYTES && answer.body.iter().all(|byte| *byte == b'x'));
    client.post("/up", b"small").expect(200, "counted");
}

fn an_origin_that_does_not_read_stops_the_client() {
    let origin = Origin::that_never_reads_the_body();
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {write_timeout: 30}").start();
    let before = gateway.resident();

    let raw = gateway.raw();
    let stream = raw.wire.stream();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    std::io::Write::write_all(&mut &**stream, head).unwrap();
    origin.wait_requests(1);
    // Buffers of the kernel take some megabytes on the way, the gateway one buffer; then writing would wait.
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (piece, mut taken) = (vec![b'x'; 1024 * 1024], 0_usize);
    while let Ok(count) = std::io::Write::write(&mut &**stream, &piece) {
        taken += count;
        assert!(taken < 100_000_000, "nobody reads, yet {taken} bytes were taken");
    }
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "the gateway holds {grown} bytes more for one stalled body");
}

fn a_client_that_leaves_ends_the_request_at_the_origin() {
    let origin = Origin::that_stalls();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut raw = gateway.raw();
    raw.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    raw.wire.reset();
    origin.wait_ended(1);
    let line = gateway.logged("/left");
    assert_eq!(line["status"], 499, "{line}");
    // Others are served on.
    let fine = Origin::sending(reply("200 OK", "fine"));
    let other = Gateway::routing("/*", [&fine]).start();
    eventually("a good answer", || (other.get("/").status == 200).then_some(()));
}
