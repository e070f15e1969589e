//! The kit's own word: origins and clients without a gateway between.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::{Client, Ended, Origin, Raw, eventually};

#[test]
fn an_origin_remembers_requests_byte_for_byte() {
    let origin = Origin::naming();
    let mut client = Client::connect(origin.address());
    client.get("/a?b=c").expect(200, "GET /a?b=c");
    client.request("PUT", "/d", &[("X-Odd", "  v ")], b"body").expect(200, "PUT /d");
    let seen = origin.saw("/d");
    assert_eq!((seen.method.as_str(), seen.version.as_str()), ("PUT", "HTTP/1.1"));
    assert_eq!(seen.header("x-odd"), Some("v"));
    assert!(seen.raw.ends_with(b"X-Odd:   v \r\nContent-Length: 4\r\n\r\nbody"));
    assert_eq!((seen.body.as_slice(), seen.complete, seen.connection), (&b"body"[..], true, 0));
    assert_eq!((origin.requests(), origin.connections()), (2, 1));
}

#[test]
fn an_origin_reads_chunks_and_trailers() {
    let origin = Origin::echoing();
    let mut raw = Raw::connect(origin.address());
    raw.send_each([
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "c\r\n0\r\nX-Sum: 1\r\n\r\n",
    ]);
    raw.answer().expect(200, "abc");
    assert_eq!(origin.only().trailers, [("X-Sum".to_owned(), "1".to_owned())]);
}

#[test]
fn an_incomplete_request_is_remembered_as_such() {
    let origin = Origin::naming();
    let mut raw = Raw::connect(origin.address());
    raw.send("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf").finish();
    origin.wait_ended(1);
    let seen = origin.only();
    assert_eq!((seen.body.as_slice(), seen.complete), (&b"half"[..], false));
}

#[test]
fn a_client_tells_whole_answers_from_cut_ones() {
    let whole = Origin::sending_and_closing(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    Client::connect(whole.address()).get("/").expect(200, "ok");
    for cut in ["Content-Length: 3\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"] {
        let origin = Origin::sending_and_closing(format!("HTTP/1.1 200 OK\r\n{cut}"));
        let answer = Client::connect(origin.address()).get("/");
        assert!(!answer.whole && !answer.open, "{cut}");
        assert_eq!(answer.text(), "ok", "{cut}");
    }
}

#[test]
fn a_client_counts_interim_responses() {
    let origin = Origin::with_interims(3, "ok");
    assert_eq!(Client::connect(origin.address()).get("/").expect(200, "ok").interim, [103, 103, 103]);
}

#[test]
fn faults_are_what_they_say() {
    let ended_by = |origin: Origin| {
        let mut raw = Raw::connect(origin.address());
        raw.send("GET / HTTP/1.1\r\n\r\n").rest().1
    };
    assert_ne!(ended_by(Origin::that_closes_at_once()), Ended::Open);
    assert_eq!(ended_by(Origin::that_closes_instead_of_answering()), Ended::Closed);
    assert_eq!(ended_by(Origin::that_resets()), Ended::Reset);

    let refusing = Origin::refusing();
    let refused = TcpStream::connect(refusing.address()).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    let full = Origin::that_never_accepts();
    let waiting = TcpStream::connect_timeout(&full.address(), Duration::from_millis(300));
    assert_eq!(waiting.expect_err("the queue is full").kind(), io::ErrorKind::TimedOut);

    let origin = Origin::that_closes_after_one_answer("ok");
    let mut client = Client::connect(origin.address());
    assert!(client.get("/").expect(200, "ok").open);
    client.raw.expect_closed();
}

#[test]
fn a_dropped_origin_closes_its_connections() {
    let origin = Origin::naming();
    let mut client = Client::connect(origin.address());
    client.get("/").expect_status(200);
    drop(origin);
    client.raw.expect_closed();
}

#[test]
fn bodies_may_be_counted_rather_than_kept() {
    let origin = Origin::that_counts_bodies();
    Client::connect(origin.address()).post("/", &vec![b'x'; 100_000]).expect(200, "counted");
    eventually("the count", || (origin.swallowed() == 100_000).then_some(()));
}
