//! Tests of the meter, the wire and messages.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::meter::{Abuse, Meter};
use super::{PREFACE, is_preface, message, wire};
use crate::base::clock::Moment;
use crate::proto::h1::framing::Framing;
use crate::proto::h1::parse::{self, HeadLimits, Parsed};
use crate::proto::head::HeaderList;

fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
    frame.extend(std::iter::repeat_n(b'x', payload));
    frame
}

const fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

#[test]
fn a_preface_is_known_by_its_beginning() {
    assert!(
        is_preface(PREFACE)
            && is_preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more")
            && is_preface(b"PRI ")
    );
    for other in [&b"PRI"[..], b"GET / HTTP/1.1", b"PRI * HTTP/1.1", b"PRIX"] {
        assert!(!is_preface(other), "{}", other.escape_ascii());
    }
}

#[test]
fn frames_are_counted_however_they_are_cut() {
    let mut bytes = PREFACE.to_vec();
    for _ in 0..100 {
        bytes.extend(frame(6, 0, 8));
        bytes.extend(frame(0, 0, 300));
    }
    for piece in [1, 2, 7, 9, 10, 1000, usize::MAX] {
        let mut meter = Meter::after_preface(at(0));
        for cut in bytes.chunks(piece.min(bytes.len())) {
            assert_eq!(meter.look(cut, at(1)), Ok(()), "{piece}");
        }
        assert_eq!(meter.look(&frame(6, 0, 8), at(1)), Err(Abuse::Pings), "{piece}");
    }
}

#[test]
fn what_is_sent_allows_more_of_what_follows_it() {
    // Settings, and two answers in three frames of data, cut anywhere.
    let said = [(4, 0, 12), (1, 4, 20), (0, 0, 300), (0, 1, 5), (1, 5, 9), (0, 0, 0), (0, 0, 7)];
    let said: Vec<u8> =
        said.into_iter().flat_map(|(kind, flags, length)| frame(kind, flags, length)).collect();
    let told = || {
        let mut meter = Meter::after_preface(at(0));
        meter.look(PREFACE, at(0)).expect("nothing yet");
        said.chunks(4).for_each(|cut| meter.tell(cut));
        meter
    };
    // So many of a kind may come, and no more; in the next while nothing was said that allows them.
    let allows = |kind: u8, length: usize, most: usize, next: usize, then: Abuse| {
        let frames = |count: usize| frame(kind, 0, length).repeat(count);
        assert_eq!(told().look(&frames(most + 1), at(1)), Err(then));
        let mut meter = told();
        meter.look(&frames(most), at(1)).expect("allowed");
        assert_eq!(meter.look(&frames(next + 1), at(10_001)), Err(then));
    };
    allows(6, 8, 103, 100, Abuse::Pings);
    allows(3, 4, 202, 200, Abuse::Resets);
    allows(4, 0, 20, 20, Abuse::Settings);
}

#[test]
fn counting_starts_over_after_a_while() {
    let mut meter = Meter::after_preface(at(0));
    meter.look(PREFACE, at(0)).expect("nothing yet");
    let settings = frame(4, 0, 0).repeat(20);
    meter.look(&settings, at(0)).expect("as many as may be");
    meter.look(&settings, at(0).plus(Duration::from_secs(10))).expect("another while");
    assert_eq!(meter.look(&frame(4, 0, 0), at(10_001)), Err(Abuse::Settings));
}

#[test]
fn a_block_of_headers_has_so_many_pieces_and_no_more() {
    let mut meter = Meter::after_preface(at(0));
    meter.look(PREFACE, at(0)).expect("nothing yet");
    for _ in 0..5 {
        meter.look(&frame(1, 0, 10), at(0)).expect("a new block");
        meter.look(&frame(9, 0, 10).repeat(10), at(0)).expect("its pieces");
    }
    assert_eq!(meter.look(&frame(9, 0, 10), at(0)), Err(Abuse::Continuations));
}

#[test]
fn data_that_ends_a_stream_or_says_something_is_not_counted() {
    let mut meter = Meter::after_preface(at(0));
    meter.look(PREFACE, at(0)).expect("nothing yet");
    meter.look(&frame(0, 1, 0).repeat(1000), at(0)).expect("ends");
    meter.look(&frame(0, 0, 1).repeat(1000), at(0)).expect("a byte each");
    assert_eq!(meter.look(&frame(0, 0, 0).repeat(101), at(0)), Err(Abuse::EmptyFrames));
}

#[test]
fn bytes_cross_the_wire_both_ways() {
    let (mut wire, pump) = wire::wire();
    let mut cx = Context::from_waker(Waker::noop());
    let mut room = [0; 3];
    let mut buffer = ReadBuf::new(&mut room);
    assert!(Pin::new(&mut wire).poll_read(&mut cx, &mut buffer).is_pending());
    pump.feed(b"abcde".to_vec());
    assert!(Pin::new(&mut wire).poll_read(&mut cx, &mut buffer).is_ready());
    assert_eq!(buffer.filled(), b"abc");
    let mut emptied = std::pin::pin!(pump.emptied());
    assert!(emptied.as_mut().poll(&mut cx).is_pending(), "two bytes are left");
    let mut buffer = ReadBuf::new(&mut room);
    assert!(Pin::new(&mut wire).poll_read(&mut cx, &mut buffer).is_ready());
    assert!(matches!(emptied.poll(&mut cx), Poll::Ready(buffer) if buffer.capacity() >= 5));
    assert!(matches!(Pin::new(&mut wire).poll_write(&mut cx, b"xyz"), Poll::Ready(Ok(3))));
    assert!(pump.has_outgoing());
    let mut outgoing = std::pin::pin!(pump.outgoing(Vec::new()));
    assert!(matches!(outgoing.as_mut().poll(&mut cx), Poll::Ready(Some(bytes)) if bytes == b"xyz"));
    drop(wire);
    let mut outgoing = std::pin::pin!(pump.outgoing(Vec::new()));
    assert!(matches!(outgoing.as_mut().poll(&mut cx), Poll::Ready(None)));
}

#[test]
fn a_full_wire_takes_nothing_until_it_is_emptied() {
    let (mut wire, pump) = wire::wire();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, &[0; 70_000]).is_ready());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, b"x").is_pending());
    let mut outgoing = std::pin::pin!(pump.outgoing(Vec::new()));
    assert!(outgoing.as_mut().poll(&mut cx).is_ready());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, b"x").is_ready());
}

fn written(request: Request<()>, ends: bool) -> Result<(String, Framing), message::Malformed> {
    let (parts, ()) = request.into_parts();
    let mut out = Vec::new();
    let told = message::write_request(&mut out, &parts, ends, || [7; 16])?;
    Ok((String::from_utf8_lossy(&out).into_owned(), told.framing))
}

#[test]
fn a_request_is_written_as_http_1_has_it() {
    let request = Request::post("https://a.test:8443/x?y=%20")
        .header("cookie", "a=1")
        .header("x-own", "v")
        .header("cookie", "b=2")
        .header("host", "a.test:8443")
        .body(())
        .expect("a request");
    let (text, framing) = written(request, false).expect("well-formed");
    assert_eq!(
        text,
        "POST /x?y=%20 HTTP/1.1\r\nHost: a.test:8443\r\nx-own: v\r\ncookie: a=1; b=2\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(framing, Framing::Chunked);
}

#[test]
fn what_is_no_request_is_told() {
    use message::Malformed;
    let ask = || Request::get("http://a.test/");
    let cases = [
        (ask().header("host", "b.test"), Malformed::Authority),
        (ask().header("host", "a.test").header("host", "a.test"), Malformed::Authority),
        (ask().header("x", "v "), Malformed::Value),
        (ask().header("content-length", "+5"), Malformed::LengthInvalid),
        (Request::get("ftp://a.test/"), Malformed::BadScheme),
        (Request::get("/relative"), Malformed::Authority),
    ];
    for (request, fault) in cases {
        assert_eq!(written(request.body(()).expect("a request"), true), Err(fault));
    }
}

fn parsed(head: &[u8]) -> (crate::proto::head::StatusLine, HeaderList) {
    let mut headers = HeaderList::default();
    let Ok(Parsed::Complete(line)) = parse::response(head, 0, &HeadLimits::RESPONSE, &mut headers) else {
        panic!("a head")
    };
    headers.hold_received(head.to_vec());
    (line, headers)
}

#[test]
fn a_response_loses_what_is_of_http_1_alone() {
    let (line, headers) = parsed(
        b"HTTP/1.1 200 OK\r\nX-Own: v\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
          Transfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
    );
    let response = message::response(line.status, &headers, false);
    let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-own", "set-cookie"]);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
}

#[test]
fn a_response_of_http_2_says_how_it_ends() {
    let of = |response: Response<()>, ends: bool, is_head: bool| {
        let (parts, ()) = response.into_parts();
        let mut out = Vec::new();
        let framing = message::write_response(&mut out, &parts, ends, is_head).expect("well-formed");
        (String::from_utf8_lossy(&out).into_owned(), framing)
    };
    let plain = || Response::builder().header("x", "v");
    let (text, framing) = of(plain().body(()).expect("a response"), false, false);
    assert_eq!(text, "HTTP/1.1 200 OK\r\nx: v\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(framing, Framing::Chunked);
    let (text, framing) = of(plain().body(()).expect("a response"), true, false);
    assert!(text.ends_with("content-length: 0\r\n\r\n") && framing == Framing::Length(0), "{text}");
    let length = || plain().header("content-length", "5").body(()).expect("a response");
    assert_eq!(of(length(), false, false).1, Framing::Length(5));
    let (text, framing) = of(length(), true, true);
    assert!(text.contains("content-length: 5") && framing == Framing::None, "{text}");
    let (text, framing) = of(plain().status(204).body(()).expect("a response"), true, false);
    assert!(!text.contains("content-length") && framing == Framing::None, "{text}");
}

#[test]
fn trailers_are_lines_and_an_empty_one() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    trailers.insert("x", " v".parse().expect("a value"));
    let mut out = Vec::new();
    message::write_trailers(&mut out, &trailers);
    assert_eq!(String::from_utf8_lossy(&out), "grpc-status: 0\r\n\r\n");
}
