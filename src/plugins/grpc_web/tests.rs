//! `grpc-web` on the bench.

use super::*;
use crate::plugin::testing::{Answer, Outcome, Request, agree, check};
use crate::proto::head::Method;

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";

fn request(kind: &str, body: &str) -> Request {
    Request::new(Method::Post, "/grpc/a.B/C")
        .header("Content-Type", kind)
        .body(body)
        .with(|ex| ex.route.set_matched("/grpc/*", ""))
}

fn judged(request: Request, look: impl FnOnce(Outcome<'_, GrpcWeb>)) {
    look(check::<GrpcWeb>("{}").unwrap().request(request));
}

/// The answer to a call, of a body in pieces and trailers.
fn answered(kind: &str, headers: &[(&str, &str)], pieces: &[&[u8]], trailers: &str) -> Answer {
    let bench = check::<GrpcWeb>("{}").unwrap();
    let headers = [&[("Content-Type", "application/grpc")], headers].concat();
    let request = request(kind, "").with(|ex| ex.response.trailers = trailers.as_bytes().to_vec());
    bench.request(request).passes().response_in_pieces(200, &headers, pieces)
}

#[test]
fn a_request_becomes_a_call() {
    judged(request(BINARY, "\0\0\0\0\0"), |outcome| {
        let outcome = outcome.passes();
        assert_eq!(outcome.target(), "/a.B/C");
        assert_eq!(outcome.forwarded("content-type"), ["application/grpc"]);
        assert_eq!(outcome.forwarded("te"), ["trailers"]);
    });
    judged(request(TEXT, "AAAAAAA=AAE="), |outcome| {
        let Body::Held(body) = &outcome.passes().ex.request.body else { panic!("held") };
        assert_eq!(body, b"\0\0\0\0\0\0\x01");
    });
}

#[test]
fn the_method_is_what_the_star_stands_for() {
    for (pattern, path, expect) in [
        ("/*", "/a.B/C?x=1", "/a.B/C?x=1"),
        ("/web*", "/web/a.B/C", "/a.B/C"),
        ("/a.B/C", "/a.B/C", "/a.B/C"),
        ("/w/*", "/w/a%20b", "/a%20b"),
    ] {
        let asked = Request::new(Method::Post, path)
            .header("Content-Type", BINARY)
            .with(|ex| ex.route.set_matched(pattern, ""));
        judged(asked, |outcome| assert_eq!(outcome.passes().target(), expect, "{pattern}"));
    }
    let rewritten = request(BINARY, "").with(|ex| ex.request.forward.target = b"/x".to_vec());
    judged(rewritten, |outcome| assert_eq!(outcome.passes().target(), "/x"));
}

#[test]
fn what_is_no_call_is_told() {
    judged(Request::new(Method::Options, "/"), |outcome| {
        let answer = outcome.replies(204, "").answer();
        assert_eq!(answer.header("Access-Control-Allow-Origin"), "*");
        assert_eq!(answer.header("Access-Control-Allow-Methods"), "POST");
        assert_eq!(answer.header("Access-Control-Allow-Headers"), "content-type,x-grpc-web,x-user-agent");
        assert_eq!(answer.header("Access-Control-Expose-Headers"), "grpc-message,grpc-status");
    });
    judged(Request::get("/"), |outcome| {
        let answer = outcome.replies(405, "").header("allow", "POST, OPTIONS").answer();
        assert_eq!((answer.status(), answer.header("Access-Control-Allow-Methods").as_str()), (405, ""));
    });
    for kind in ["application/json", "application/grpc", "application/grpc-web+json", ""] {
        judged(request(kind, ""), |outcome| assert_eq!(outcome.replies(400, "").answer().status(), 400));
    }
    judged(request(TEXT, "AAA"), |outcome| assert_eq!(outcome.replies(400, "").answer().status(), 400));
}

#[test]
fn messages_pass_and_the_trailers_follow() {
    let trailers = "grpc-status:0\r\ngrpc-message:fine\r\nx-more:1\r\ncontent-length:7\r\n";
    let frame = b"\x80\0\0\0\x2cgrpc-status:0\r\ngrpc-message:fine\r\nx-more:1\r\n";
    for pieces in [&[&b"\0\0\0\0\x01x"[..]][..], &[b"\0\0", b"\0\0\x01", b"x", b""]] {
        let answer = answered(BINARY, &[("Content-Length", "6")], pieces, trailers);
        assert_eq!(answer.body, [b"\0\0\0\0\x01x", &frame[..]].concat());
        assert_eq!(answer.header("Content-Type"), BINARY);
        assert_eq!(answer.header("Content-Length"), "");
        assert!(answer.ex.response.trailers.is_empty(), "they are told once");
        let text = answered(TEXT, &[], pieces, trailers);
        assert_eq!(decode_text(&text.body), Some(answer.body));
        assert_eq!(text.header("Content-Type"), TEXT);
    }
    let lost = answered(BINARY, &[], &[b""], "");
    assert_eq!(
        lost.body,
        b"\x80\0\0\0\x3fgrpc-status:2\r\ngrpc-message:upstream grpc status not received\r\n"
    );
}

#[test]
fn a_status_in_the_head_stays_there() {
    let answer = answered(TEXT, &[("grpc-status", "13"), ("grpc-message", "no")], &[b""], "");
    assert_eq!((answer.text().as_str(), answer.header("grpc-status").as_str()), ("", "13"));
}

#[test]
fn what_is_not_of_grpc_becomes_a_status() {
    let bench = check::<GrpcWeb>("{}").unwrap();
    for (status, code) in [(502, 14), (404, 12), (200, 2), (302, 2)] {
        let answer =
            bench.request(request(BINARY, "")).response(status, &[("Content-Type", "text/html")], b"<p>");
        assert_eq!(answer.status(), 200);
        let told = format!("grpc-status:{code}\r\ngrpc-message:HTTP status {status}\r\n");
        assert_eq!(&answer.body[5..], told.as_bytes());
    }
    // Of another plugin, before this one had its turn.
    let mut ex = Exchange::new();
    ex.request.line.method = Method::Post;
    ex.request.headers.add("content-type", TEXT.as_bytes());
    ex.response.status = 401;
    ex.response.body = ResponseBody::Replace(Bytes::from_static(b"{\"message\":\"who?\"}\n"));
    let consumers = crate::plugin::ConsumerIndex::default();
    bench.plugin.edit_head(&mut ex, Env { core: bench.core(), consumers: &consumers, prices: None });
    let ResponseBody::Replace(body) = &ex.response.body else { panic!("a body") };
    let frame = decode_text(body).unwrap();
    assert_eq!(&frame[5..], b"grpc-status:16\r\ngrpc-message:{\"message\":\"who?\"}\r\n");
}

#[test]
fn the_word_of_cors_stands() {
    let bench = check::<GrpcWeb>("{}").unwrap();
    let shared = |expose: &str| {
        let request = request(BINARY, "").with(|ex| ex.response.is_shared = true);
        let headers = [("Content-Type", "application/grpc"), ("Access-Control-Expose-Headers", expose)];
        let count = if expose.is_empty() { 1 } else { 2 };
        bench.request(request).response(200, &headers[..count], b"")
    };
    let answer = shared("");
    assert_eq!(answer.header("Access-Control-Allow-Origin"), "");
    assert_eq!(answer.header("Access-Control-Expose-Headers"), "grpc-message,grpc-status");
    assert_eq!(shared("x-a").header("Access-Control-Expose-Headers"), "x-a,grpc-message,grpc-status");
}

#[test]
fn a_second_use_leaves_the_call_to_the_first() {
    let bench = check::<GrpcWeb>("{}").unwrap();
    let first = bench.request(request(TEXT, "AAAAAAA=")).passes();
    let again = bench.run(first.ex).passes();
    let Body::Held(body) = &again.ex.request.body else { panic!("held") };
    assert_eq!(body, b"\0\0\0\0\0");
}

#[test]
fn schema_and_compile_agree() {
    agree::<GrpcWeb>(
        &["{}", r#"{"cors_allow_headers": "x-a"}"#],
        &[
            (r#"{"cors_allow_headers": 1}"#, "cors_allow_headers"),
            (r#"{"cors": "x"}"#, "additional properties forbidden, found cors"),
        ],
    );
}
