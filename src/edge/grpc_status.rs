//! Answers of ours to clients of gRPC: they look for a status of theirs, not of HTTP
//! (github.com/grpc/grpc, doc/http-grpc-status-mapping.md).

use bytes::Bytes;

use crate::exchange::{Exchange, ResponseBody};
use crate::proto::grpc;
use crate::proto::head::HeaderId;

/// Whether the request is one of gRPC: a call, or one that a browser makes in its place does not count.
fn is_call(ex: &Exchange) -> bool {
    ex.client.http2 && ex.request.headers.get_id(HeaderId::ContentType).is_some_and(grpc::is_grpc)
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
    let message = grpc::message_of(&body).unwrap_or_else(|| super::respond::phrase(status));
    let response = &mut ex.response;
    response.status = 200;
    response.headers.remove_id(HeaderId::ContentLength);
    response.headers.set_id(HeaderId::ContentType, b"application/grpc");
    response.headers.set("grpc-status", itoa::Buffer::new().format(grpc::code_of(status)).as_bytes());
    response.headers.set("grpc-message", &grpc::escaped(message));
    response.body = ResponseBody::Replace(Bytes::new());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Reply;

    fn call(kind: &str) -> Exchange {
        let mut ex = Exchange::new();
        ex.client.http2 = true;
        ex.request.headers.add("content-type", kind.as_bytes());
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
    fn other_answers_stay_as_they_are() {
        for kind in ["application/grpc-web", "application/json", "application/grpcx"] {
            let mut ex = call(kind);
            super::super::respond::place(&mut ex, Reply::status(403));
            translate(&mut ex);
            assert_eq!(ex.response.status, 403, "{kind}");
        }
    }
}
