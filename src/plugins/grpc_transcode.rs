//! `grpc-transcode`: lets clients that speak HTTP and JSON make calls of gRPC: a request becomes a message, and the message that is
//! answered becomes JSON.
//!
//! ```yaml
//! protos:
//!   - id: greeter
//!     content: |
//!       syntax = "proto3";
//!       package helloworld;
//!       service Greeter { rpc SayHello (HelloRequest) returns (HelloReply); }
//!       message HelloRequest { string name = 1; }
//!       message HelloReply { string message = 1; }
//! routes:
//!   - uri: /hello
//!     plugins:
//!       grpc-transcode: {proto_id: greeter, service: helloworld.Greeter, method: SayHello}
//!     upstream: {scheme: grpc, nodes: {"127.0.0.1:50051": 1}}
//! ```
//!
//! Definitions are compiled when they are written, never for a request. A message has 4 MiB at most, as requests and as answer, and
//! is held. Differs from APISIX: statuses in trailers count as those in heads do; numbers of 64 bits are written in full; what is
//! no message of an answer is a 502; streams of messages are not spoken; refuses unknown fields.

mod decode;
mod encode;

use std::cell::Cell;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::decode::{Decoder, Malformed};
use self::encode::{Encoder, Misfit, form};
use crate::base::text::write_json_string;
use crate::exchange::{Body, Chunk, Exchange, Reply, Request, SlotId, Source};
use crate::model::ObjectId;
use crate::model::field::{InRange, NonEmpty, Text};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Plugin, Step, Transform};
use crate::proto::grpc::{self, PREFIX_BYTES};
use crate::proto::head::{HeaderId, Method};
use crate::proto::protobuf::{self, Reader, Types, Wire};
use crate::runtime::LocalId;

/// Most bytes of a request, and of an answer: the most that clients of gRPC take unless told otherwise. As JSON values they
/// take up to sixteen times as much, for as long as they are translated.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an answer that can not be read is called.
const UNREADABLE: &[u8] = b"failed to decode response data by protobuf";

/// Lets clients that speak HTTP and JSON make calls of gRPC.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The id of the proto that defines the service.
    proto_id: ObjectId,
    /// The service by its full name, as `package.Service`.
    service: Text<1, 256>,
    /// The method of the service.
    method: Text<1, 256>,
    /// Milliseconds that the node has for the call; 0 does not say.
    #[serde(default = "no_deadline")]
    deadline: InRange<0, 99_999_999>,
    /// How messages become JSON; of each kind the last one counts. The `bytes_` ones are not APISIX's.
    pb_option: Option<NonEmpty<PbOption>>,
    /// Is a status that is no success told in the body, too?
    #[serde(default)]
    show_status_in_body: bool,
    /// The full name of the message that details of a status are. Absent: they are shown as they are.
    status_detail_type: Option<Text<1, 256>>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum PbOption {
    EnumAsName,
    EnumAsValue,
    Int64AsNumber,
    Int64AsString,
    Int64AsHexstring,
    AutoDefaultValues,
    NoDefaultValues,
    UseDefaultValues,
    UseDefaultMetatable,
    EnableHooks,
    DisableHooks,
    BytesAsText,
    BytesAsBase64,
}

/// How numbers of 64 bits that do not fit 32 are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ints {
    Number,
    /// As text, with `#` before it.
    Text,
    Hex,
}

/// Which fields have a value where a message lacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defaults {
    No,
    /// Those of the third version, which has no other way to say zero.
    Auto,
    All,
}

/// How messages become JSON.
#[derive(Clone, Copy, Debug)]
struct Options {
    enum_names: bool,
    ints: Ints,
    defaults: Defaults,
    bytes_in_base64: bool,
}

impl Options {
    fn of(list: Option<&NonEmpty<PbOption>>) -> Self {
        let mut options =
            Self { enum_names: true, ints: Ints::Number, defaults: Defaults::Auto, bytes_in_base64: false };
        for option in list.into_iter().flatten() {
            match option {
                PbOption::EnumAsName => options.enum_names = true,
                PbOption::EnumAsValue => options.enum_names = false,
                PbOption::Int64AsNumber => options.ints = Ints::Number,
                PbOption::Int64AsString => options.ints = Ints::Text,
                PbOption::Int64AsHexstring => options.ints = Ints::Hex,
                PbOption::AutoDefaultValues => options.defaults = Defaults::Auto,
                // Defaults behind a metatable are none that JSON shows.
                PbOption::NoDefaultValues | PbOption::UseDefaultMetatable => options.defaults = Defaults::No,
                PbOption::UseDefaultValues => options.defaults = Defaults::All,
                PbOption::BytesAsText => options.bytes_in_base64 = false,
                PbOption::BytesAsBase64 => options.bytes_in_base64 = true,
                // There are no hooks of Lua to turn on.
                PbOption::EnableHooks | PbOption::DisableHooks => {}
            }
        }
        options
    }
}

/// What the core reads.
pub struct GrpcTranscode {
    /// What is called, or why nothing is.
    called: Result<Called, &'static str>,
    path: Box<[u8]>,
    /// As `grpc-timeout` has it; empty does not say.
    timeout: Box<[u8]>,
    options: Options,
    shows_status: bool,
    /// The message that details are, if that is known.
    details: Option<Result<u32, Malformed>>,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    calls: SlotId,
}

struct Called {
    types: Arc<Types>,
    method: protobuf::Method,
}

/// One call.
#[derive(Default)]
struct Call {
    /// The use that made the request one.
    use_of: Option<LocalId>,
    /// The answer is one of gRPC.
    is_answered: bool,
}

impl Plugin for GrpcTranscode {
    const NAME: &'static str = "grpc-transcode";
    const PRIORITY: i32 = 506;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::translate_request);
    const HEADER_FILTER: Edit<Self> = Some(Self::edit_head);
    const BODY_FILTER: Transform<Self> = Some(Self::edit_body);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        cx.needs_request_body(MESSAGE_BYTES_MAX);
        let path = format!("/{}/{}", config.service.as_str(), config.method.as_str());
        let types = cx.proto("proto_id", &config.proto_id);
        let details = config.status_detail_type.as_ref().map(|name| {
            let known = types.as_ref().and_then(|types| types.by_name.get(name.as_str())).copied();
            known.ok_or(Malformed)
        });
        let called = match types {
            None => Err("the definitions of the service are not there"),
            Some(types) => match types.methods.get(&*path).copied() {
                None => Err("the service has no such method"),
                Some(method) if method.streams => Err("the method streams messages, for which JSON has no form"),
                Some(method) => Ok(Called { types, method }),
            },
        };
        let timeout = match config.deadline.get() {
            0 => String::new(),
            milliseconds => format!("{milliseconds}m"),
        };
        Ok(Self {
            called,
            path: path.into_bytes().into(),
            timeout: timeout.into_bytes().into(),
            options: Options::of(config.pb_option.as_ref()),
            shows_status: config.show_status_in_body,
            details,
            me: cx.local(),
            calls: cx.slot(),
        })
    }
}

impl GrpcTranscode {
    fn translate_request<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let call = ex.slots.of::<Call>(self.calls);
        if call.use_of.is_some() {
            return Step::Next;
        }
        let called = match &self.called {
            Ok(called) => called,
            Err(why) => return Step::Reply(Reply::error_msg(503, why)),
        };
        let mut frame = vec![0; PREFIX_BYTES];
        if let Err(Misfit(why)) = self.message_of(called, &ex.request, &mut frame) {
            return Step::Reply(Reply::error_msg(400, &why));
        }
        let length = (frame.len() - PREFIX_BYTES) as u32;
        frame[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        call.use_of = Some(self.me);
        let request = &mut ex.request;
        request.body = Body::Held(frame);
        request.forward.method = Some(Method::Post);
        request.forward.target.clear();
        request.forward.target.extend_from_slice(&self.path);
        let headers = &mut request.headers;
        headers.set_id(HeaderId::ContentType, b"application/grpc");
        headers.set_id(HeaderId::Te, b"trailers");
        headers.remove_id(HeaderId::ContentEncoding);
        // What is compressed could not be read.
        headers.remove("grpc-accept-encoding");
        if !self.timeout.is_empty() {
            headers.set("grpc-timeout", &self.timeout);
        }
        Step::Next
    }

    /// Appends the message that a request says: its body in JSON, else its form, else its query.
    fn message_of(&self, called: &Called, request: &Request, out: &mut Vec<u8>) -> Result<(), Misfit> {
        let body: &[u8] = match &request.body {
            Body::Held(body) => body,
            Body::Empty | Body::Flowing => &[],
        };
        let method = request.method();
        let content_type = request.headers.get_id(HeaderId::ContentType).unwrap_or_default();
        let is_json = matches!(method, Method::Post | Method::Put | Method::Patch) && says_json(content_type);
        let fields = if is_json && !body.is_empty() {
            serde_json::from_slice(body).map_err(|error| Misfit(format!("the body is no JSON: {error}")))?
        } else if is_json {
            Value::Object(serde_json::Map::new())
        } else {
            form(if method == Method::Post { body } else { &request.query })
        };
        let encoder = Encoder { types: &called.types, base64: self.options.bytes_in_base64, form: !is_json };
        encoder.message(called.method.input, &fields, out, 0)
    }

    fn edit_head(&self, ex: &mut Exchange, _: Env<'_>) {
        let Exchange { response, slots, .. } = ex;
        let call = slots.of::<Call>(self.calls);
        let is_call = response.headers.get_id(HeaderId::ContentType).is_some_and(grpc::is_grpc);
        if call.use_of != Some(self.me) || response.source != Source::Upstream || !is_call {
            return;
        }
        call.is_answered = true;
        if let Some(code) = response.headers.get("grpc-status").filter(|code| *code != b"0") {
            response.status = grpc::status_of(code);
        }
        response.forget_body_headers();
        response.headers.set_id(HeaderId::ContentType, b"application/json");
        response.hold_body(MESSAGE_BYTES_MAX);
    }

    fn edit_body(&self, ex: &mut Exchange, _: Env<'_>, chunk: &mut Chunk<'_>) {
        let Exchange { response, slots, .. } = ex;
        let call = slots.of::<Call>(self.calls);
        let Ok(called) = &self.called else { return };
        if call.use_of != Some(self.me) || !std::mem::take(&mut call.is_answered) || !chunk.last {
            return;
        }
        // Where the status stands is the node's choice.
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            if let Some(value) = response.trailer(name).map(<[u8]>::to_vec) {
                response.headers.set(name, &value);
            }
        }
        response.trailers.clear();
        let code = response.headers.get("grpc-status").map(<[u8]>::to_vec);
        let mut json = Vec::new();
        let told = match code.as_deref() {
            Some(b"0") => self.write_answer(called, chunk.bytes, &mut json).map_err(|Malformed| UNREADABLE),
            code => {
                response.status = grpc::status_of(code.unwrap_or(b"2"));
                let headers = &response.headers;
                let message = headers.get("grpc-message").unwrap_or_default();
                let details = headers.get("grpc-status-details-bin");
                if self.shows_status {
                    self.write_status(called, code.unwrap_or(b"2"), message, details, &mut json)
                } else {
                    Ok(())
                }
            }
        };
        *chunk.bytes = match told {
            Ok(()) => json,
            Err(why) => {
                if response.status < 400 {
                    response.status = 502;
                }
                response.headers.set_id(HeaderId::ContentType, b"text/plain; charset=utf-8");
                why.to_vec()
            }
        };
    }

    fn decoder<'t>(&self, called: &'t Called) -> Decoder<'t> {
        Decoder { types: &called.types, options: self.options, copied: Cell::new(0) }
    }

    /// Appends the one message of an answer.
    fn write_answer(&self, called: &Called, frame: &[u8], json: &mut Vec<u8>) -> Result<(), Malformed> {
        let (prefix, message) = frame.split_first_chunk::<PREFIX_BYTES>().ok_or(Malformed)?;
        let [is_compressed, length @ ..] = *prefix;
        if is_compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
            return Err(Malformed);
        }
        self.decoder(called).message(called.method.output, message, json, 0)
    }

    /// Appends a status: what `google.rpc.Status` says of it, else its code and message.
    fn write_status(
        &self,
        called: &Called,
        code: &[u8],
        message: &[u8],
        details: Option<&[u8]>,
        json: &mut Vec<u8>,
    ) -> Result<(), &'static [u8]> {
        let is_code = !code.is_empty() && code.iter().all(u8::is_ascii_digit);
        json.extend_from_slice(b"{\"error\":{\"code\":");
        let Some(details) = details else {
            json.extend_from_slice(if is_code { code } else { b"2" });
            json.extend_from_slice(b",\"message\":");
            write_json_string(json, grpc::unescaped(message).as_bytes());
            json.extend_from_slice(b"}}");
            return Ok(());
        };
        let details = STANDARD.decode(details).or_else(|_| STANDARD_NO_PAD.decode(details));
        let details = details.map_err(|_| &b"grpc-status-details-bin is not base64 format"[..])?;
        let status = Status::read(&details)
            .ok_or(&b"failed to call pb.decode to decode grpc-status-details-bin"[..])?;
        json.extend_from_slice(itoa::Buffer::new().format(status.code).as_bytes());
        json.extend_from_slice(b",\"message\":");
        write_json_string(json, status.message);
        if !status.details.is_empty() {
            json.extend_from_slice(b",\"details\":[");
            for (at, (kind, value)) in status.details.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                self.write_detail(called, kind, value, json)
                    .map_err(|Malformed| &b"failed to call pb.decode to decode details in grpc-status-details-bin"[..])?;
            }
            json.push(b']');
        }
        json.extend_from_slice(b"}}");
        Ok(())
    }

    fn write_detail(&self, called: &Called, kind: &[u8], value: &[u8], json: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.details {
            Some(of) => self.decoder(called).message(of?, value, json, 0),
            None => {
                json.extend_from_slice(b"{\"type_url\":");
                write_json_string(json, kind);
                json.extend_from_slice(b",\"value\":");
                self.decoder(called).write_bytes(value, json);
                json.push(b'}');
                Ok(())
            }
        }
    }
}

/// A `google.rpc.Status`.
#[derive(Default)]
struct Status<'a> {
    code: i32,
    message: &'a [u8],
    /// Names of types, and messages of them.
    details: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Status<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut status, mut reader) = (Self::default(), Reader(bytes));
        while let Some(read) = reader.next_field() {
            match read.ok()? {
                (1, Wire::Varint(code)) => status.code = code as i32,
                (2, Wire::Bytes(message)) => status.message = message,
                (3, Wire::Bytes(any)) => {
                    let (mut detail, mut reader) = ((&b""[..], &b""[..]), Reader(any));
                    while let Some(read) = reader.next_field() {
                        match read.ok()? {
                            (1, Wire::Bytes(kind)) => detail.0 = kind,
                            (2, Wire::Bytes(value)) => detail.1 = value,
                            _ => {}
                        }
                    }
                    status.details.push(detail);
                }
                (1..=3, _) => return None,
                _ => {}
            }
        }
        Some(status)
    }
}

/// Whether a content type is that of JSON.
fn says_json(content_type: &[u8]) -> bool {
    let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let lower = name.to_ascii_lowercase();
    lower == b"application/json" || lower.starts_with(b"application/") && lower.ends_with(b"+json")
}

const fn no_deadline() -> InRange<0, 99_999_999> {
    InRange::literal(0)
}

#[cfg(test)]
mod tests;
