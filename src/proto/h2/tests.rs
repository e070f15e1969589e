//! Tests of the meter, of what breaks the rules, the wire and messages.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::breach::{Breach, Conduct};
use super::meter::{Abuse, Meter};
use super::{PREFACE, hpack, is_preface, message, wire};
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

/// A frame with this payload.
fn saying(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a client does wrong that says these frames, and how many bytes come before.
fn conduct(frames: &[Vec<u8>]) -> Result<(), (Breach, usize)> {
    let mut conduct = Conduct::after_preface();
    conduct.look(PREFACE).expect("nothing yet");
    conduct.look(&frames.concat())
}

#[test]
fn frames_of_impossible_lengths_are_called_by_their_name() {
    for (kind, length) in [(2, 4), (3, 5), (4, 7), (6, 7), (6, 9), (8, 3)] {
        let earlier = saying(6, 0, 0, b"12345678");
        let verdict = conduct(&[earlier, frame(kind, 0, length)]);
        assert_eq!(verdict, Err((Breach::FrameSize, 17)), "{kind}");
    }
    assert_eq!(conduct(&[saying(4, 1, 0, b"123456")]), Err((Breach::FrameSize, 0)), "an answer says nothing");
    let right =
        [saying(2, 0, 3, b"12345"), saying(4, 0, 0, b""), saying(4, 1, 0, b""), saying(8, 0, 0, b"1234")];
    assert_eq!(conduct(&right), Ok(()));
}

#[test]
fn a_window_larger_than_there_is_is_called_so() {
    let settings =
        |value: u32| saying(4, 0, 0, &[&[0, 3, 0, 0, 0, 9, 0, 4], &value.to_be_bytes()[..]].concat());
    assert_eq!(conduct(&[settings(0x7fff_ffff)]), Ok(()));
    assert_eq!(conduct(&[settings(0x8000_0000)]), Err((Breach::FlowControl, 0)));
}

#[test]
fn what_comes_on_a_stream_that_its_client_ended_is_a_breach() {
    let (open, ended) = (saying(1, 4, 1, b"\x82"), saying(1, 5, 1, b"\x82"));
    let (data, last) = (saying(0, 0, 1, b"x"), saying(0, 1, 1, b"x"));
    let (reset, next) = (saying(3, 0, 1, b"1234"), saying(1, 5, 3, b"\x82"));
    for right in [
        vec![open.clone(), data.clone(), last.clone(), next, reset.clone()],
        vec![open.clone(), data.clone(), saying(1, 5, 1, b"\x0f\x11\x01x")],
    ] {
        assert_eq!(conduct(&right), Ok(()));
    }
    // Of these the crate knows more: a block of headers that is cut in two, and a stream that was passed over.
    let begun = saying(1, 1, 1, b"\x82");
    let skipping = saying(1, 5, 5, b"\x82");
    for left in [vec![begun, data.clone(), data.clone()], vec![skipping.clone(), saying(1, 5, 3, b"\x82")]] {
        assert_eq!(conduct(&left), Ok(()));
    }
    assert_eq!(
        conduct(&[skipping.clone(), skipping]).map_err(|(breach, _)| breach),
        Err(Breach::StreamClosed)
    );
    assert_eq!(conduct(&[saying(5, 4, 1, b"\0\0\0\x02\x82")]), Err((Breach::Push, 0)));
    for wrong in [vec![ended.clone(), data.clone()], vec![open.clone(), last, data], vec![open, reset, ended]]
    {
        assert_eq!(conduct(&wrong).map_err(|(breach, _)| breach), Err(Breach::StreamClosed), "{wrong:?}");
    }
}

#[test]
fn a_stream_that_is_open_for_long_stays_so_and_none_is_judged_that_was_forgotten() {
    let mut frames = vec![saying(1, 4, 1, b"\x82")];
    frames.extend((1..1000).map(|at| saying(1, 5, 2 * at + 1, b"\x82")));
    frames.push(saying(0, 0, 1, b"x"));
    assert_eq!(conduct(&frames), Ok(()));
    let mut frames: Vec<_> = (0..1000).map(|at| saying(1, 4, 2 * at + 1, b"\x82")).collect();
    frames.push(saying(0, 0, 1, b"x"));
    assert_eq!(conduct(&frames), Ok(()));
}

#[test]
fn headers_of_no_shape_and_pseudo_headers_in_trailers_are_breaches() {
    let (open, trailers) = (saying(1, 4, 1, b"\x82"), |block: &[u8]| saying(1, 5, 1, block));
    assert_eq!(conduct(&[trailers(b"\x40")]), Err((Breach::Compression, 0)));
    // By its place, by the place of its name, as text, and as text in the code of RFC 7541 appendix B.
    for pseudo in
        [&b"\x82"[..], b"\x42\x03GET", b"\x00\x07:method\x03GET", b"\x00\x85\xb9\x49\x53\x39\xe4\x03GET"]
    {
        let verdict = conduct(&[open.clone(), trailers(pseudo)]);
        assert_eq!(verdict, Err((Breach::Trailers, open.len())), "{}", pseudo.escape_ascii());
        // Padded, and with a priority.
        let padded = [&[2, 0, 0, 0, 0, 9], pseudo, &[0, 0]].concat();
        let verdict = conduct(&[open.clone(), saying(1, 0x2d, 1, &padded)]);
        assert_eq!(verdict, Err((Breach::Trailers, open.len())), "{}", pseudo.escape_ascii());
    }
    assert_eq!(conduct(&[open, trailers(b"\x00\x04x-a:\x02:b\x90")]), Ok(()));
}

#[test]
fn blocks_of_any_bytes_are_looked_at_to_their_end() {
    for broken in
        [&b"\x80"[..], b"\x40\x01", b"\x00\x01a\x05b", b"\xff", b"\x3f\xff\xff\xff\xff\x7f", b"\x0f"]
    {
        assert_eq!(hpack::has_pseudo(broken), Err(hpack::Broken), "{}", broken.escape_ascii());
    }
    assert_eq!(hpack::has_pseudo(b""), Ok(false));
    assert_eq!(hpack::has_pseudo(b"\x3f\xe1\x1f\x88"), Ok(true), "behind a new size of the table");
    let seed = 7;
    let mut rng = crate::base::rng::Rng::seeded(seed);
    for _ in 0..100_000 {
        let block: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
        let _ = hpack::has_pseudo(&block);
    }
}

#[test]
fn conduct_is_judged_alike_however_bytes_are_cut() {
    let frames = [
        saying(1, 4, 1, b"\x82"),
        saying(0, 1, 1, b"abc"),
        saying(6, 0, 0, b"12345678"),
        saying(0, 0, 1, b"x"),
    ];
    let bytes = [PREFACE, &frames.concat()].concat();
    for piece in 1..bytes.len() {
        let mut conduct = Conduct::after_preface();
        let mut verdicts = bytes.chunks(piece).filter_map(|cut| conduct.look(cut).err());
        let first = verdicts.next();
        assert!(matches!(first, Some((Breach::StreamClosed, _))), "{piece}: {first:?}");
    }
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
