//! What an entry of a log says: an object of JSON, with the fields of a format or with all there is to say.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::base::address::Shown;
use crate::base::text::{form_decode, write_json_string};
use crate::exchange::Exchange;
use crate::expr::{Template, Var};
use crate::model::ConfigError;
use crate::proto::head::HeaderList;

/// Longest part of a request that is logged, but for bodies, which have limits of their own.
const TEXT_BYTES: usize = 2048;
/// How deep fields may lie in fields.
const DEPTH_MAX: usize = 5;
/// Arguments of a query that are told one by one, as in APISIX; each is compared with all before it.
const ARGUMENTS_MAX: usize = 100;
/// Fields of an entry that says all there is to say.
const ALWAYS: &[&str] = &[
    "request",
    "response",
    "stream",
    "server",
    "upstream",
    "service_id",
    "route_id",
    "consumer",
    "client_ip",
    "start_time",
    "latency",
    "upstream_latency",
    "apisix_latency",
];

/// What entries say.
pub struct Entry {
    what: What,
    /// What stands for the route where there is none; `None`: nothing in a format, an empty text else.
    no_route: Option<&'static str>,
}

enum What {
    /// All there is to say, and more.
    Whole {
        hostname: String,
        more: Vec<(String, Field)>,
    },
    Fields(Vec<(String, Field)>),
}

enum Field {
    Text(Template),
    /// A body, as far as it was kept.
    RequestBody,
    ResponseBody,
    /// As it is.
    Json(String),
    Fields(Vec<(String, Self)>),
}

/// The bodies of an exchange, as far as they are logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logged<'a> {
    pub request: Option<&'a [u8]>,
    pub response: Option<&'a [u8]>,
    /// Those of an entry that says all there is to say.
    pub in_whole: (bool, bool),
}

/// A format as it is written: of a use, or of all.
pub type Format = Option<Map<String, Value>>;

fn fields(object: Map<String, Value>, path: &str, depth: usize) -> Result<Vec<(String, Field)>, ConfigError> {
    if depth > DEPTH_MAX {
        return Err(ConfigError::at(path, format!("expected fields at most {DEPTH_MAX} deep, got more")));
    }
    let one = |(name, value): (String, Value)| {
        let field = match value {
            Value::String(text) => match text.as_str() {
                "$request_body" | "${request_body}" => Field::RequestBody,
                "$resp_body" | "${resp_body}" => Field::ResponseBody,
                _ => Field::Text(Template::parse(&text)),
            },
            Value::Object(inner) => Field::Fields(fields(inner, &format!("{path}.{name}"), depth + 1)?),
            other => Field::Json(other.to_string()),
        };
        Ok((name, field))
    };
    object.into_iter().map(one).collect()
}

impl Entry {
    /// Entries with the fields of the format, or those there always are and further ones.
    ///
    /// # Errors
    /// When fields lie too deep, or a further one has the name of one that there is.
    pub fn compile(format: Format, extra: Format) -> Result<Self, ConfigError> {
        let what = match format.filter(|format| !format.is_empty()) {
            Some(format) => What::Fields(fields(format, "log_format", 1)?),
            None => {
                let more = fields(extra.unwrap_or_default(), "log_format_extra", 1)?;
                if let Some((name, _)) = more.iter().find(|(name, _)| ALWAYS.contains(&name.as_str())) {
                    let path = format!("log_format_extra.{name}");
                    return Err(ConfigError::at(path, "expected a name that no field of the entry has"));
                }
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                What::Whole { hostname: name.trim().to_owned(), more }
            }
        };
        Ok(Self { what, no_route: None })
    }

    /// The same, with a word for the route where there is none.
    #[must_use]
    pub fn saying_no_route(self, word: &'static str) -> Self {
        Self { no_route: Some(word), ..self }
    }

    /// Whether a field of the format is the body of the request.
    pub fn asks_request_body(&self) -> bool {
        self.asks(|field| matches!(field, Field::RequestBody))
    }

    /// Whether a field tells of the head of the response.
    pub fn reads_sent_head(&self) -> bool {
        matches!(self.what, What::Whole { .. }) || self.asks(Field::reads_sent_head)
    }

    fn asks(&self, is: fn(&Field) -> bool) -> bool {
        let (What::Fields(fields) | What::Whole { more: fields, .. }) = &self.what;
        fields.iter().any(|(_, field)| field.any(is))
    }

    /// Appends the object.
    pub fn write(&self, ex: &Exchange, logged: Logged<'_>, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let route = ex.route.route_id();
        let route = if route.is_empty() { self.no_route.unwrap_or_default() } else { route };
        let mut object = Object { out, is_empty: true, logged };
        object.out.push(b'{');
        match &self.what {
            What::Whole { hostname, more } => {
                write_whole(ex, (hostname, route), &mut object, scratch);
                for (name, field) in more {
                    object.field(ex, name, field, scratch);
                }
            }
            What::Fields(fields) => {
                for (name, field) in fields {
                    object.field(ex, name, field, scratch);
                }
                // As in APISIX, whatever else is asked for.
                for (name, id) in [("route_id", route), ("service_id", ex.route.service_id())] {
                    if !id.is_empty() && fields.iter().all(|(other, _)| other != name) {
                        object.text(name, id.as_bytes());
                    }
                }
            }
        }
        object.end();
    }
}

impl Field {
    fn reads_sent_head(&self) -> bool {
        matches!(self, Self::Text(template) if template.vars().any(Var::is_of_response_head))
    }

    fn any(&self, is: fn(&Self) -> bool) -> bool {
        match self {
            Self::Fields(fields) => fields.iter().any(|(_, field)| field.any(is)),
            Self::Text(_) | Self::RequestBody | Self::ResponseBody | Self::Json(_) => is(self),
        }
    }
}

/// An object of JSON that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
    logged: Logged<'a>,
}

impl Object<'_> {
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

    /// A body, which was cut where it was kept.
    fn body(&mut self, name: &str, body: &[u8]) {
        write_json_string(self.name(name.as_bytes()), body);
    }

    fn number(&mut self, name: &str, number: u64) {
        let _ = write!(self.name(name.as_bytes()), "{number}");
    }

    /// Milliseconds.
    fn millis(&mut self, name: &str, time: Duration) {
        let _ = write!(self.name(name.as_bytes()), "{:.3}", time.as_secs_f64() * 1000.0);
    }

    fn inner(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        let logged = self.logged;
        let mut inner = Object { out: self.name(name.as_bytes()), is_empty: true, logged };
        inner.out.push(b'{');
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
            Field::RequestBody => self.body(name, self.logged.request.unwrap_or_default()),
            Field::ResponseBody => self.body(name, self.logged.response.unwrap_or_default()),
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
fn write_whole(
    ex: &Exchange,
    (hostname, route): (&str, &str),
    object: &mut Object<'_>,
    scratch: &mut Vec<u8>,
) {
    let logged = object.logged;
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
            if let (true, Some(body)) = (logged.in_whole.1, logged.response) {
                response.body("body", body);
            }
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
    object.text("route_id", route.as_bytes());
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
        for (at, pair) in pairs().take(ARGUMENTS_MAX).enumerate() {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            // The first of several counts.
            let is_again =
                pairs().take(at).any(|other| other.split(|byte| *byte == b'=').next() == Some(name));
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
    if let (true, Some(body)) = (out.logged.in_whole.0, out.logged.request) {
        out.body("body", body);
    }
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
