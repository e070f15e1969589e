//! What a line says: the head of RFC 5424, and an object of JSON.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::base::address::Shown;
use crate::base::clock;
use crate::base::text::{form_decode, write_json_string};
use crate::exchange::Exchange;
use crate::expr::Template;
use crate::model::ConfigError;
use crate::proto::head::HeaderList;

/// Facility 5 (syslog), severity 6 (informational), version 1.
const BEGIN: &[u8] = b"<46>1 ";
/// By which receivers know the sender; APISIX's, so that their rules stay.
const APP_NAME: &str = "apisix";
/// The longest name of a host (RFC 5424 6).
const HOST_BYTES_MAX: usize = 255;
/// Longest part of a request that is logged.
const TEXT_BYTES: usize = 2048;
/// How deep fields may lie in fields.
const DEPTH_MAX: usize = 5;

/// The object.
pub(super) enum Entry {
    /// All there is to say.
    Whole { hostname: String },
    Fields(Vec<(String, Field)>),
}

pub(super) enum Field {
    Text(Template),
    /// As it is.
    Json(String),
    Fields(Vec<(String, Self)>),
}

fn fields(object: Map<String, Value>, path: &str, depth: usize) -> Result<Vec<(String, Field)>, ConfigError> {
    if depth > DEPTH_MAX {
        return Err(ConfigError::at(path, format!("expected fields at most {DEPTH_MAX} deep, got more")));
    }
    let one = |(name, value): (String, Value)| {
        let field = match value {
            Value::String(text) => Field::Text(Template::parse(&text)),
            Value::Object(inner) => Field::Fields(fields(inner, &format!("{path}.{name}"), depth + 1)?),
            other => Field::Json(other.to_string()),
        };
        Ok((name, field))
    };
    object.into_iter().map(one).collect()
}

impl Entry {
    pub(super) fn compile(format: Option<Map<String, Value>>) -> Result<Self, ConfigError> {
        match format {
            Some(format) if !format.is_empty() => Ok(Self::Fields(fields(format, "log_format", 1)?)),
            _ => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                Ok(Self::Whole { hostname: name.trim().to_owned() })
            }
        }
    }

    /// Appends the line of an exchange, with its end.
    pub(super) fn write_line(&self, ex: &Exchange, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(BEGIN);
        clock::write_rfc3339(out, ex.timing.received_at);
        out.push(b' ');
        write_host(ex.request.host.as_bytes(), out);
        // Writing to a vector can not fail.
        let _ = write!(out, " {APP_NAME} {} - - ", std::process::id());
        match self {
            Self::Whole { hostname } => write_whole(ex, hostname, scratch, out),
            Self::Fields(fields) => {
                let mut object = Object::begin(out);
                for (name, field) in fields {
                    object.field(ex, name, field, scratch);
                }
                // As in APISIX, whatever else is asked for.
                for (name, id) in [("route_id", ex.route.route_id()), ("service_id", ex.route.service_id())] {
                    if !id.is_empty() && fields.iter().all(|(other, _)| other != name) {
                        object.text(name, id.as_bytes());
                    }
                }
                object.end();
            }
        }
        out.push(b'\n');
    }
}

/// A host as RFC 5424 has it: of printable ASCII, and never empty.
fn write_host(host: &[u8], out: &mut Vec<u8>) {
    if host.is_empty() {
        return out.push(b'-');
    }
    let shown = host.iter().take(HOST_BYTES_MAX);
    out.extend(shown.map(|byte| if byte.is_ascii_graphic() { *byte } else { b'?' }));
}

/// An object of JSON that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    fn name(&mut self, name: &[u8]) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        write_json_string(self.out, &name[..name.len().min(TEXT_BYTES)]);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &str, text: &[u8]) {
        write_json_string(self.name(name.as_bytes()), &text[..text.len().min(TEXT_BYTES)]);
    }

    fn number(&mut self, name: &str, number: u64) {
        let _ = write!(self.name(name.as_bytes()), "{number}");
    }

    /// Milliseconds.
    fn millis(&mut self, name: &str, time: Duration) {
        let _ = write!(self.name(name.as_bytes()), "{:.3}", time.as_secs_f64() * 1000.0);
    }

    fn inner(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        let mut inner = Object::begin(self.name(name.as_bytes()));
        write(&mut inner);
        inner.end();
    }

    fn field(&mut self, ex: &Exchange, name: &str, field: &Field, scratch: &mut Vec<u8>) {
        match field {
            Field::Text(template) => {
                scratch.clear();
                template.render(ex, scratch);
                self.text(name, scratch);
            }
            Field::Json(json) => self.name(name.as_bytes()).extend_from_slice(json.as_bytes()),
            Field::Fields(fields) => self.inner(name, |inner| {
                for (name, field) in fields {
                    inner.field(ex, name, field, scratch);
                }
            }),
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// Everything, in APISIX's words.
fn write_whole(ex: &Exchange, hostname: &str, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    if ex.stream.is_on() {
        object.inner("stream", |stream| {
            stream.text("protocol", ex.stream.protocol.as_bytes());
            stream.number("port", ex.client.local.port().into());
            stream.number("status", ex.response.status.into());
            stream.number("bytes_received", ex.bytes_in);
            stream.number("bytes_sent", ex.bytes_out);
        });
    } else {
        object.inner("request", |request| write_request(ex, request, scratch));
        object.inner("response", |response| {
            response.number("status", ex.response.status.into());
            write_headers("headers", &ex.response.headers, response, scratch);
            response.number("size", ex.bytes_out);
        });
    }
    object.inner("server", |server| {
        server.text("hostname", hostname.as_bytes());
        server.text("version", env!("CARGO_PKG_VERSION").as_bytes());
    });
    if let Some(attempt) = ex.last_attempt() {
        scratch.clear();
        let _ = write!(scratch, "{}", attempt.node);
        object.text("upstream", scratch);
    }
    let service = ex.route.service_id();
    let service = if service.is_empty() { ex.request.host.as_bytes() } else { service.as_bytes() };
    object.text("service_id", service);
    object.text("route_id", ex.route.route_id().as_bytes());
    if !ex.consumer.name().is_empty() {
        object.inner("consumer", |consumer| consumer.text("username", ex.consumer.name().as_bytes()));
    }
    scratch.clear();
    let _ = write!(scratch, "{}", Shown(ex.client.ip));
    object.text("client_ip", scratch);
    object.number("start_time", ex.timing.received_at);
    let latency = ex.timing.finished.since(ex.timing.received);
    object.millis("latency", latency);
    object.millis("upstream_latency", ex.timing.upstream);
    object.millis("apisix_latency", latency.saturating_sub(ex.timing.upstream));
    object.end();
}

fn write_request(ex: &Exchange, out: &mut Object<'_>, scratch: &mut Vec<u8>) {
    let request = &ex.request;
    scratch.clear();
    let _ = write!(scratch, "{}://", ex.client.scheme());
    scratch.extend_from_slice(request.host.as_bytes());
    let _ = write!(scratch, ":{}", ex.client.local.port());
    let uri = scratch.len();
    request.write_request_uri(scratch);
    out.text("url", scratch);
    out.text("uri", &scratch[uri..]);
    out.text("method", request.method().text().as_bytes());
    write_headers("headers", &request.headers, out, scratch);
    out.inner("querystring", |query| {
        let pairs = || request.query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        for (at, pair) in pairs().enumerate() {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            // The first of several counts.
            let is_again = pairs().take(at).any(|other| other.split(|byte| *byte == b'=').next() == Some(name));
            if is_again {
                continue;
            }
            scratch.clear();
            form_decode(name, scratch);
            let end = scratch.len();
            form_decode(value, scratch);
            let value = &scratch[end..];
            write_json_string(query.name(&scratch[..end]), &value[..value.len().min(TEXT_BYTES)]);
        }
    });
    out.number("size", ex.bytes_in);
}

/// Headers by their names in lower case; several of one name are one, as RFC 9110 5.3 has it.
fn write_headers(name: &str, headers: &HeaderList, out: &mut Object<'_>, scratch: &mut Vec<u8>) {
    out.inner(name, |object| {
        for (at, (_, name, _)) in headers.iter().enumerate() {
            if headers.iter().take(at).any(|(_, other, _)| other.eq_ignore_ascii_case(name)) {
                continue;
            }
            scratch.clear();
            scratch.extend(name.iter().map(u8::to_ascii_lowercase));
            let end = scratch.len();
            let values = headers.iter().filter(|(_, other, _)| other.eq_ignore_ascii_case(name));
            for (_, _, value) in values {
                if scratch.len() > end {
                    scratch.extend_from_slice(b", ");
                }
                scratch.extend_from_slice(value);
            }
            let value = &scratch[end..];
            write_json_string(object.name(&scratch[..end]), &value[..value.len().min(TEXT_BYTES)]);
        }
    });
}
