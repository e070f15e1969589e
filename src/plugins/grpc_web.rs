//! `grpc-web`: lets browsers call gRPC, which they can not speak, over what they can: gRPC-Web, binary or in base64.
//!
//! ```yaml
//! routes:
//!   - uri: /grpc/*
//!     plugins:
//!       grpc-web: {}
//!     upstream: {scheme: grpc, nodes: {"127.0.0.1:50051": 1}}
//! ```
//!
//! A POST to `/grpc/a.Service/Method` becomes the call `/a.Service/Method`: what the `*` of the route stands for. Messages pass
//! as they come, both ways but for requests in base64, which are held; the status is a frame behind them. What the gateway or
//! another plugin answers in place of the upstream is a status as well. Differs from APISIX: all trailers are told, not the
//! status alone; where `cors` has a say in which pages may read answers, its word stands; the end of a message in base64 does
//! not wait for the next one; refuses unknown fields.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::text::escape_path;
use crate::exchange::{Body, Chunk, Exchange, Reply, Request, ResponseBody, SlotId, Source};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Plugin, Step, Transform};
use crate::proto::grpc;
use crate::proto::grpc_web::{Kind, TextEncoder, decode_text, write_trailers};
use crate::proto::h1::chunked::{allowed_trailer, fields_of};
use crate::proto::head::{HeaderId, Method};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Headers of an answer that its status may stand in.
const EXPOSED: &[u8] = b"grpc-message,grpc-status";
/// What an answer without a status is told to have been.
const NO_STATUS: &[u8] = b"upstream grpc status not received";

const NOT_GRPC_WEB: &str = "expected a Content-Type of gRPC-Web, such as application/grpc-web+proto\n";
const NOT_BASE64: &str = "expected a body in base64\n";

/// Lets browsers call gRPC.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Headers that pages of elsewhere may send, with commas between them.
    #[serde(default = "usual_headers")]
    cors_allow_headers: String,
}

/// What the core reads.
pub struct GrpcWeb {
    allow_headers: String,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    calls: SlotId,
}

/// One call.
#[derive(Default)]
struct Call {
    /// The use that looks after it.
    use_of: Option<LocalId>,
    /// `None` where the request is none of gRPC-Web.
    kind: Option<Kind>,
    /// The messages pass, and the trailers are to follow them.
    is_streamed: bool,
    encoder: TextEncoder,
}

impl Plugin for GrpcWeb {
    const NAME: &'static str = "grpc-web";
    const PRIORITY: i32 = 505;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::ask_for_text);
    const ACCESS: Gate<Self> = Some(Self::translate_request);
    const HEADER_FILTER: Edit<Self> = Some(Self::edit_head);
    const BODY_FILTER: Transform<Self> = Some(Self::edit_body);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self { allow_headers: config.cors_allow_headers, me: cx.local(), calls: cx.slot() })
    }
}

impl GrpcWeb {
    /// A request in base64 is held: its end decides whether it is one.
    #[allow(clippy::unused_self)] // As hooks are.
    fn ask_for_text<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        if kind_of(&ex.request).is_some_and(Kind::is_text) {
            ex.request.held_body_bytes_max = HELD_BODY_BYTES;
        }
        Step::Next
    }

    fn translate_request<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let Exchange { request, slots, route, .. } = ex;
        let call = slots.of::<Call>(self.calls);
        if call.use_of.is_some() {
            return Step::Next;
        }
        call.use_of = Some(self.me);
        match request.method() {
            Method::Post => {}
            Method::Options => {
                return Step::Reply(Reply::empty(204));
            }
            _ => return Step::Reply(Reply::status(405).with("Allow", Bytes::from_static(b"POST, OPTIONS"))),
        }
        let Some(kind) = kind_of(request) else { return Step::Reply(refusal(NOT_GRPC_WEB)) };
        if let Body::Held(body) = &mut request.body
            && kind.is_text()
        {
            match decode_text(body) {
                Some(decoded) => *body = decoded,
                None => return Step::Reply(refusal(NOT_BASE64)),
            }
        }
        call.kind = Some(kind);
        aim(request, route.matched_uri());
        request.headers.set_id(HeaderId::ContentType, b"application/grpc");
        request.headers.set_id(HeaderId::Te, b"trailers");
        Step::Next
    }

    fn edit_head(&self, ex: &mut Exchange, _: Env<'_>) {
        self.share(ex);
        let Exchange { request, response, slots, .. } = ex;
        let call = slots.of::<Call>(self.calls);
        if call.use_of.is_none() {
            // Answered before this plugin had its turn.
            *call = Call { use_of: Some(self.me), kind: kind_of(request), ..Call::default() };
        }
        let Some(kind) = call.kind.filter(|_| call.use_of == Some(self.me)) else { return };
        let headers = &mut response.headers;
        let is_call = headers.get_id(HeaderId::ContentType).is_some_and(grpc::is_grpc);
        headers.set_id(HeaderId::ContentType, kind.name().as_bytes());
        if response.source == Source::Upstream && is_call {
            // A status in the head is all there is of an answer, and there it stays.
            call.is_streamed = headers.get("grpc-status").is_none();
            response.tells_status = call.is_streamed;
            response.forget_body_headers();
            return;
        }
        let mut frame = Vec::new();
        if let Some(status) = headers.get("grpc-status") {
            write_trailers(&mut frame, status, headers.get("grpc-message").unwrap_or_default(), [].into_iter());
        } else {
            let body = match &response.body {
                ResponseBody::Replace(body) => &body[..],
                ResponseBody::AsIs | ResponseBody::Hold { .. } => &[],
            };
            let mut digits = itoa::Buffer::new();
            let message = grpc::message_of(body).map_or_else(
                || format!("HTTP status {}", response.status).into_bytes(),
                grpc::escaped,
            );
            let code = digits.format(grpc::code_of(response.status)).as_bytes();
            // What is no answer of gRPC is no success.
            let code = if code == b"0" { b"2" } else { code };
            write_trailers(&mut frame, code, &message, [].into_iter());
        }
        headers.remove("grpc-status");
        headers.remove("grpc-message");
        response.status = 200;
        response.replace_body(if kind.is_text() { in_text(&mut call.encoder, &frame) } else { frame });
    }

    /// Says which pages may read the answer, unless another plugin has.
    fn share(&self, ex: &mut Exchange) {
        const EXPOSE: &str = "Access-Control-Expose-Headers";
        let is_options = ex.request.method() == Method::Options;
        let response = &mut ex.response;
        let headers = &mut response.headers;
        if response.is_shared {
            if let Some(theirs) = headers.get(EXPOSE) {
                let all = [theirs, b",", EXPOSED].concat();
                headers.set(EXPOSE, &all);
                return;
            }
        } else {
            headers.set("Access-Control-Allow-Origin", b"*");
            if is_options {
                headers.set("Access-Control-Allow-Methods", b"POST");
                headers.set("Access-Control-Allow-Headers", self.allow_headers.as_bytes());
            }
        }
        headers.set(EXPOSE, EXPOSED);
    }

    fn edit_body(&self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>) {
        let Exchange { response, slots, .. } = ex;
        let call = slots.of::<Call>(self.calls);
        let Some(kind) = call.kind.filter(|_| call.use_of == Some(self.me) && call.is_streamed) else { return };
        if chunk.last {
            let status = response.trailer("grpc-status");
            let message = response.trailer("grpc-message");
            let (status, message) =
                status.map_or((&b"2"[..], NO_STATUS), |status| (status, message.unwrap_or_default()));
            let is_status = |name: &[u8]| {
                name.eq_ignore_ascii_case(b"grpc-status") || name.eq_ignore_ascii_case(b"grpc-message")
            };
            let others = fields_of(&response.trailers)
                .filter(|(name, _)| !is_status(name) && allowed_trailer(name));
            if kind.is_text() {
                let mut frame = Vec::new();
                write_trailers(&mut frame, status, message, others);
                chunk.bytes.extend_from_slice(&frame);
            } else {
                write_trailers(chunk.bytes, status, message, others);
            }
            response.trailers.clear();
        }
        if kind.is_text() {
            let mut text = env.core.buffers.large();
            call.encoder.encode(chunk.bytes, &mut text);
            if chunk.last {
                call.encoder.finish(&mut text);
            }
            std::mem::swap(chunk.bytes, &mut text);
            env.core.buffers.give_back(text);
        }
    }
}

/// The answer to what is no call.
fn refusal(why: &'static str) -> Reply {
    Reply::text(400, why).with("Content-Type", Bytes::from_static(b"text/html"))
}

/// Which form of gRPC-Web a request has, if any.
fn kind_of(request: &Request) -> Option<Kind> {
    let content_type = request.headers.get_id(HeaderId::ContentType)?;
    Kind::of(content_type).filter(|_| request.method() == Method::Post)
}

fn in_text(encoder: &mut TextEncoder, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    encoder.encode(bytes, &mut text);
    encoder.finish(&mut text);
    text
}

/// Sends the request to the method that the `*` of the route's path stands for, unless another plugin has said where to.
fn aim(request: &mut Request, pattern: &str) {
    if !request.forward.target.is_empty() {
        return;
    }
    let Some(star) = pattern.find('*') else { return };
    let from = request.params.last().map_or(star, |(_, range)| range.start as usize);
    let Some(method) = request.path.get(from..).filter(|method| !method.is_empty()) else { return };
    let target = &mut request.forward.target;
    if method[0] != b'/' {
        target.push(b'/');
    }
    escape_path(method, target);
    if request.has_query {
        target.push(b'?');
        target.extend_from_slice(&request.query);
    }
}

fn usual_headers() -> String {
    "content-type,x-grpc-web,x-user-agent".to_owned()
}

#[cfg(test)]
mod tests;
