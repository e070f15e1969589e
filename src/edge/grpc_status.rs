//! Answers of ours to clients of gRPC: they look for a status of theirs, not of HTTP
//! (github.com/grpc/grpc, doc/http-grpc-status-mapping.md).

use bytes::Bytes;

use crate::exchange::{Exchange, ResponseBody};
use crate::proto::grpc;
use crate::proto::head::HeaderId;

/// Whether the client has made a call: what a plugin makes of its request does not count.
fn is_call(ex: &Exchange) -> bool {
    let headers = &ex.request.headers;
    ex.client.http2
        && !headers.was_added(HeaderId::ContentType)
        && headers.get_id(HeaderId::ContentType).is_some_and(grpc::is_grpc)
}

/// Makes an answer that was made here one of gRPC, where that was asked for: 200, with status and message as headers.
pub(super) fn translate(ex: &mut Exchange) {
    if !is_call(ex) || ex.response.headers.get("grpc-status").is_some() {
        return;
    }
    let status = ex.response.status;
    let body = match std::mem::take(&mut ex.response.body) {
        ResponseBody::Replace(body) => body,
        ResponseBody::AsIs | ResponseBody::Hold { .. } => Bytes::new(),
    };
    let code = if ex.response.is_of_limit { grpc::EXHAUSTED } else { grpc::code_of(status) };
    let message = grpc::message_of(&body).unwrap_or_else(|| super::respond::phrase(status));
    let response = &mut ex.response;
    response.status = 200;
    response.headers.remove_id(HeaderId::ContentLength);
    response.headers.set_id(HeaderId::ContentType, b"application/grpc");
    response.headers.set("grpc-status", itoa::Buffer::new().format(code).as_bytes());
    response.headers.set("grpc-message", &grpc::escaped(message));
    response.body = ResponseBody::Replace(Bytes::new());
}

/// Says in trailers why an answer ends before it is whole, where they are heard: by calls, and by those who have a plugin tell
/// them. Whether they are.
pub(super) fn set_trailers(ex: &mut Exchange, status: u16) -> bool {
    if !is_call(ex) && !ex.response.tells_status {
        return false;
    }
    let code = grpc::code_of(status);
    let message =
        if code == grpc::DEADLINE { "the time for the answer is over" } else { "the answer was cut short" };
    let trailers = &mut ex.response.trailers;
    trailers.clear();
    trailers.extend_from_slice(b"grpc-status: ");
    trailers.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    trailers.extend_from_slice(b"\r\ngrpc-message: ");
    trailers.extend_from_slice(message.as_bytes());
    trailers.extend_from_slice(b"\r\n");
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Reply;
    use crate::proto::head::Span;

    fn call(kind: &str) -> Exchange {
        let mut ex = Exchange::new();
        ex.client.http2 = true;
        let line = format!("content-type: {kind}");
        let value = Span::new(line.len() - kind.len(), line.len());
        ex.request.headers.push_received(Span::new(0, 12), value, HeaderId::ContentType, true);
        ex.request.headers.hold_received(line.into_bytes());
        ex
    }

    #[test]
    fn an_answer_to_a_call_is_one_of_grpc() {
        for (status, code) in [(401, "16"), (404, "12"), (429, "8"), (503, "14"), (504, "4"), (418, "2")] {
            let mut ex = call("application/grpc+proto");
            super::super::respond::place(&mut ex, Reply::text(status, "{\"message\":\"no\u{e9}\"}\n"));
            translate(&mut ex);
            assert_eq!(ex.response.status, 200);
            assert_eq!(ex.response.headers.get("grpc-status"), Some(code.as_bytes()), "{status}");
            assert_eq!(ex.response.headers.get("grpc-message"), Some(&b"{\"message\":\"no%C3%A9\"}"[..]));
            assert!(matches!(&ex.response.body, ResponseBody::Replace(body) if body.is_empty()));
        }
    }

    #[test]
    fn what_a_limit_refuses_is_exhausted_whatever_its_status() {
        for status in [200, 403, 429, 503] {
            let mut ex = call("application/grpc");
            super::super::respond::place(&mut ex, Reply::status(status).of_limit());
            translate(&mut ex);
            assert_eq!(ex.response.headers.get("grpc-status"), Some(&b"8"[..]), "{status}");
            ex.response.clear();
            assert!(!ex.response.is_of_limit);
        }
    }

    #[test]
    fn other_answers_stay_as_they_are() {
        for kind in ["application/grpc-web", "application/json", "application/grpcx"] {
            let mut ex = call(kind);
            super::super::respond::place(&mut ex, Reply::status(403));
            translate(&mut ex);
            assert_eq!(ex.response.status, 403, "{kind}");
        }
    }

    #[test]
    fn a_call_that_a_plugin_made_is_none_of_the_clients() {
        let mut ex = call("application/json");
        ex.request.headers.set_id(HeaderId::ContentType, b"application/grpc");
        super::super::respond::place(&mut ex, Reply::status(502));
        translate(&mut ex);
        assert_eq!(ex.response.status, 502);
    }
}
