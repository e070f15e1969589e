//! Tests of the preface, and of what nodes are spoken to with: the wire, and messages.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, Response};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::wire::{self, Outlet as _};
use super::{PREFACE, is_preface, message};
use crate::proto::h1::framing::Framing;

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
    let mut bytes = b"spare".to_vec();
    assert_eq!((pump.poll_outgoing(&cx, &mut bytes), &bytes[..]), (Poll::Ready(true), &b"xyz"[..]));
    drop(wire);
    assert_eq!(pump.poll_outgoing(&cx, &mut bytes), Poll::Ready(false));
}

#[test]
fn a_full_wire_takes_nothing_until_it_is_emptied() {
    let (mut wire, pump) = wire::wire();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, &[0; 70_000]).is_ready());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, b"x").is_pending());
    assert!(pump.poll_outgoing(&cx, &mut Vec::new()).is_ready());
    assert!(Pin::new(&mut wire).poll_write(&mut cx, b"x").is_ready());
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
