//! Browsers that call gRPC through `grpc-web`: binary and in base64, streams as they come, and every way to fail as a status.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Response};

use crate::kit::http2::{Http2, Http2Origin, post, send};
use crate::kit::{Answer, Gateway, Refusing, Setup};

on_both_drivers!(
    a_call_and_its_status_come_through,
    a_stream_is_passed_on_as_it_comes,
    a_message_in_text_does_not_wait_for_the_next,
    whatever_goes_wrong_is_a_status,
    an_answer_that_is_cut_short_ends_with_a_status,
    other_requests_are_told_what_is_spoken,
    a_client_of_http_2_is_answered_alike,
    a_large_body_passes_in_both_forms,
    text_is_bounded_and_must_be_text,
);

const BINARY: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";

type Respond = h2::server::SendResponse<Bytes>;

/// Says back what came, and what it saw of the request in its trailers.
async fn echo(request: Request<RecvStream>, mut respond: Respond, _: usize) {
    let (parts, mut body) = request.into_parts();
    let told =
        |name: &str| parts.headers.get(name).map_or("none", |value| value.to_str().unwrap()).to_owned();
    let answer = Response::builder().header("content-type", "application/grpc");
    if parts.uri.path().ends_with("/Refuse") {
        let answer = answer.header("grpc-status", "5").header("grpc-message", "nobody");
        respond.send_response(answer.body(()).unwrap(), true).unwrap();
        return;
    }
    let mut said = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        said.extend_from_slice(&data);
    }
    let mut stream = respond.send_response(answer.body(()).unwrap(), false).unwrap();
    send(&mut stream, said.into(), false).await;
    let mut trailers = HeaderMap::new();
    let seen = format!("{} {} {}", parts.uri.path(), told("content-type"), told("te"));
    for (name, value) in [("grpc-status", "0"), ("grpc-message", "fine"), ("x-seen", &seen)] {
        trailers.insert(name, value.parse().unwrap());
    }
    let _ = stream.send_trailers(trailers);
}

fn before(origin: &Http2Origin) -> Setup {
    Gateway::resources(
        &format!(
            "routes: [{{id: a, uri: /web/*, plugins: {{grpc-web: {{}}}}, upstream: {{scheme: grpc, nodes: {{\"{}\": 1}}}}}}]",
            origin.address()
        ),
        &[],
    )
}

fn call(gateway: &Gateway, path: &str, kind: &str, message: &[u8]) -> Answer {
    let body = if kind == TEXT { STANDARD.encode(message).into_bytes() } else { message.to_vec() };
    gateway.request("POST", path, &[("Content-Type", kind), ("Origin", "https://page.test")], &body)
}

/// Text as browsers decode it, each group of four by itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "whole groups");
    text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
}

fn body_of(answer: &Answer, kind: &str) -> Vec<u8> {
    if kind == TEXT { decoded(&answer.body) } else { answer.body.clone() }
}

/// The messages of a body, and its trailers.
fn parsed(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    loop {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let payload = &body[5..5 + length];
        if body[0] == 0x80 {
            assert_eq!(body.len(), 5 + length, "trailers are the end");
            return (messages, String::from_utf8(payload.to_vec()).unwrap());
        }
        messages.push(payload.to_vec());
        body = &body[5 + length..];
    }
}

fn a_call_and_its_status_come_through() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&origin).start();
    for kind in [BINARY, TEXT, "application/grpc-web+proto"] {
        let answer = call(&gateway, "/web/a.B/C", kind, b"\0\0\0\0\x05hello");
        answer.expect_status(200);
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("grpc-message,grpc-status"));
        let (messages, trailers) = parsed(&body_of(&answer, kind));
        assert_eq!(messages, [b"hello"]);
        let seen = "x-seen:/a.B/C application/grpc trailers\r\n";
        assert_eq!(trailers, format!("grpc-status:0\r\ngrpc-message:fine\r\n{seen}"));
        assert!(answer.trailers.is_empty() && answer.whole && answer.open);
    }
    // A status that is all there is stands in the head.
    for kind in [BINARY, TEXT] {
        let refused = call(&gateway, "/web/a.B/Refuse", kind, b"\0\0\0\0\0");
        refused.expect(200, "");
        assert_eq!(
            (refused.header("grpc-status"), refused.header("grpc-message")),
            (Some("5"), Some("nobody"))
        );
    }
}

/// An origin that says a word whenever it is told to, and then ends.
fn on_demand() -> (Http2Origin, tokio::sync::mpsc::UnboundedSender<&'static [u8]>) {
    let (tell, words) = tokio::sync::mpsc::unbounded_channel::<&'static [u8]>();
    let words = std::sync::Arc::new(tokio::sync::Mutex::new(words));
    let origin = Http2Origin::serving(move |_, mut respond: Respond, _| {
        let words = std::sync::Arc::clone(&words);
        async move {
            let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(answer, false).unwrap();
            while let Some(word) = words.lock().await.recv().await {
                if word.is_empty() {
                    break;
                }
                send(&mut stream, Bytes::from_static(word), false).await;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = stream.send_trailers(trailers);
        }
    });
    (origin, tell)
}

/// Asks for a stream, and has each of two messages before the next is said.
fn streamed(kind: &str, said: [&'static [u8]; 2]) {
    let (origin, tell) = on_demand();
    let gateway = before(&origin).start();
    let mut raw = gateway.raw();
    raw.send(format!(
        "POST /web/a.B/Stream HTTP/1.1\r\nHost: a.test\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(raw.try_head().unwrap().status, 200, "the head does not wait for a message");
    let mut heard = Vec::new();
    for message in said {
        tell.send(message).unwrap();
        let wanted = if kind == TEXT { STANDARD.encode(message).into_bytes() } else { message.to_vec() };
        let begin = heard.len();
        while !heard[begin..].windows(wanted.len()).any(|found| found == wanted) {
            let more = raw.wire.some().unwrap();
            assert!(!more.is_empty(), "it goes on");
            heard.extend_from_slice(&more);
        }
    }
    tell.send(b"").unwrap();
    while !heard.ends_with(b"\r\n0\r\n\r\n") {
        let more = raw.wire.some().unwrap();
        assert!(!more.is_empty(), "an end in good order");
        heard.extend_from_slice(&more);
    }
}

fn a_stream_is_passed_on_as_it_comes() {
    streamed(BINARY, [b"\0\0\0\0\x01a", b"\0\0\0\0\x02bc"]);
}

fn a_message_in_text_does_not_wait_for_the_next() {
    // Six and seven bytes: without and with a rest of a group.
    streamed(TEXT, [b"\0\0\0\0\x02ab", b"\0\0\0\0\x03abc"]);
}

fn whatever_goes_wrong_is_a_status() {
    let refusing = Refusing::new();
    let closed = refusing.address();
    let plain = Http2Origin::serving(|_, mut respond: Respond, _| async move {
        let answer = Response::builder().status(403).header("content-type", "text/html").body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        let _ = stream.send_data(Bytes::from_static(b"<h1>no</h1>"), true);
    });
    let silent = Http2Origin::serving(|_, mut respond: Respond, _| async move {
        let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        respond.send_response(answer, false).unwrap().send_data(Bytes::new(), true).unwrap();
    });
    let route = |id: &str, node: &dyn std::fmt::Display, more: &str| {
        format!(
            "- {{id: {id}, uri: /{id}/*, plugins: {{grpc-web: {{}}{more}}}, upstream: {{scheme: grpc, nodes: {{\"{node}\": 1}}}}}}\n"
        )
    };
    let gateway = Gateway::resources(
        &[
            "routes:\n".to_owned(),
            route("down", &closed, ""),
            route("plain", &plain.address(), ""),
            route("silent", &silent.address(), ""),
            route("key", &closed, ", key-auth: {}"),
            route(
                "limit",
                &silent.address(),
                ", limit-count: {count: 1, time_window: 60, rejected_code: 429}",
            ),
        ]
        .concat(),
        &[],
    )
    .start();
    call(&gateway, "/limit/a.B/C", BINARY, b"");
    for (path, code) in [("/down", 14), ("/plain", 7), ("/silent", 2), ("/key", 16), ("/limit", 8)] {
        for kind in [BINARY, TEXT] {
            let answer = call(&gateway, &format!("{path}/a.B/C"), kind, b"\0\0\0\0\0");
            answer.expect_status(200);
            assert_eq!(answer.header("content-type"), Some(kind), "{path}");
            let (messages, trailers) = parsed(&body_of(&answer, kind));
            assert!(messages.is_empty(), "{path}");
            assert!(
                trailers.starts_with(&format!("grpc-status:{code}\r\ngrpc-message:")),
                "{path}: {trailers}"
            );
        }
    }
    let silent = call(&gateway, "/silent/a.B/C", BINARY, b"");
    assert!(parsed(&silent.body).1.contains("upstream grpc status not received"));
}

fn an_answer_that_is_cut_short_ends_with_a_status() {
    let origin = Http2Origin::serving(|_, mut respond: Respond, _| async move {
        let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        send(&mut stream, Bytes::from_static(b"\0\0\0\0\x03abc"), false).await;
        // Behind what was said: a reset overtakes what still waits.
        tokio::time::sleep(crate::kit::http2::MOMENT).await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let gateway = before(&origin).start();
    for kind in [BINARY, TEXT] {
        let answer = call(&gateway, "/web/a.B/C", kind, b"\0\0\0\0\0");
        let (messages, trailers) = parsed(&body_of(&answer, kind));
        assert!(answer.whole && messages == [b"abc"], "{kind}: {answer:?}");
        assert_eq!(trailers, "grpc-status:14\r\ngrpc-message:the answer was cut short\r\n");
    }
    let mut request = post("/web/a.B/C");
    request.headers_mut().insert("content-type", BINARY.parse().unwrap());
    let answer = Http2::to(&gateway).ask(request, b"\0\0\0\0\0").unwrap();
    assert!(parsed(&answer.body).1.starts_with("grpc-status:14\r\n"), "{}", answer.text());
    assert_eq!(gateway.reason("/web/a.B/C"), "upstream_closed");
}

fn other_requests_are_told_what_is_spoken() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&origin).start();
    let options = gateway.request("OPTIONS", "/web/a.B/C", &[("Origin", "https://page.test")], b"");
    options.expect_status(204);
    assert_eq!(options.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(options.header("access-control-allow-headers"), Some("content-type,x-grpc-web,x-user-agent"));
    let get = gateway.get("/web/a.B/C");
    get.expect_status(405);
    assert_eq!(
        (get.header("allow"), get.header("access-control-allow-origin")),
        (Some("POST, OPTIONS"), Some("*"))
    );
    call(&gateway, "/web/a.B/C", "application/json", b"{}").expect_status(400);
    assert_eq!(origin.accepted(), 0, "nobody was asked");
}

fn a_client_of_http_2_is_answered_alike() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&origin).start();
    let mut client = Http2::to(&gateway);
    let mut request = post("/web/a.B/C");
    request.headers_mut().insert("content-type", TEXT.parse().unwrap());
    let answer = client.ask(request, STANDARD.encode(b"\0\0\0\0\x01x").as_bytes()).unwrap();
    let (messages, trailers) = parsed(&decoded(&answer.body));
    assert_eq!((answer.status, messages), (200, vec![b"x".to_vec()]));
    assert!(trailers.starts_with("grpc-status:0\r\n") && answer.trailers.is_empty());
    drop(origin);
    let refusing = Refusing::new();
    let closed = refusing.address();
    let gateway = Gateway::resources(
        &format!("routes: [{{id: a, uri: /web/*, plugins: {{grpc-web: {{}}}}, upstream: {{scheme: grpc, nodes: {{\"{closed}\": 1}}}}}}]"),
        &[],
    )
    .start();
    let mut request = post("/web/a.B/C");
    request.headers_mut().insert("content-type", BINARY.parse().unwrap());
    let answer = Http2::to(&gateway).ask(request, b"\0\0\0\0\0").unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(BINARY)));
    assert!(parsed(&answer.body).1.starts_with("grpc-status:14\r\n"), "{}", answer.text());
}

fn a_large_body_passes_in_both_forms() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&origin).start();
    let mut message = vec![0];
    message.extend_from_slice(&700_001_u32.to_be_bytes());
    message.extend((0..700_001_u32).map(|at| (at % 251) as u8));
    for kind in [BINARY, TEXT] {
        let answer = call(&gateway, "/web/a.B/C", kind, &message);
        let (messages, _) = parsed(&body_of(&answer, kind));
        assert!(messages.len() == 1 && messages[0] == message[5..], "{kind}: {} bytes", answer.body.len());
    }
}

fn text_is_bounded_and_must_be_text() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&origin).settings("limits: {held_body_bytes: 1000}").start();
    let ask = |body: &[u8]| gateway.request("POST", "/web/a.B/C", &[("Content-Type", TEXT)], body);
    ask(b"AAAAAAA").expect_status(400);
    ask(b"AAAA AAA").expect_status(400);
    let large = ask(&[b'A'; 2000]);
    assert!(parsed(&decoded(&large.body)).1.starts_with("grpc-status:8\r\n"), "too large is a status");
    // What passes unheld is not bounded by what may be held.
    let binary = call(&gateway, "/web/a.B/C", BINARY, &[&[0, 0, 0, 7, 208][..], &[b'x'; 2000]].concat());
    assert_eq!(parsed(&binary.body).0, [[b'x'; 2000]]);
}
