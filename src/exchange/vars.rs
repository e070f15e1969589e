//! Answers `expr`'s questions from an exchange: one line a variable.
//!
//! What is a stretch of the request, the labels or the response is borrowed; only what must be written first
//! (addresses, numbers, decoded arguments) is allocated. A header that comes in several lines is all of them,
//! joined by a comma as nginx does, so that no rule judges only the first. What a variable of nginx or APISIX
//! means nothing for here (`hostname`, `server_name`, `llm_*`) is unset.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Attempt, Body, ClientCertificate, Exchange, Source, graphql, posted};
use crate::base::address::{Shown, is_none};
use crate::base::clock::{self, Moment};
use crate::expr::{Literal, Var, Vars};
use crate::proto::head::{HeaderId, HeaderList};

type Answer<'a> = Option<Cow<'a, [u8]>>;

/// A text made for the question; empty is unset.
fn owned<'a>(text: String) -> Answer<'a> {
    (!text.is_empty()).then(|| Cow::Owned(text.into_bytes()))
}

impl Vars for Exchange {
    fn var<'a>(&'a self, var: &Var) -> Answer<'a> {
        match var {
            Var::Header(name) => lines(&self.request.headers, name),
            Var::Arg(name) => self.request.raw_arg(name.as_bytes()).map(posted::decoded),
            Var::Cookie(name) => self.request.cookie(name.as_bytes()).map(Cow::Borrowed),
            Var::UriParam(name) => self.uri_param(name).map(Cow::Borrowed),
            Var::PostArg(name) => posted::field(&self.request, name),
            Var::PostArgPath(path) => posted::at_path(&self.request, path),
            Var::SentHeader(name) => lines(&self.response.headers, name),
            Var::GraphqlName => owned(graphql::operation(&self.request)?.name.clone()),
            Var::GraphqlOperation => owned(graphql::operation(&self.request)?.kind.to_owned()),
            Var::UpstreamHeader(name) if self.response.source == Source::Upstream => {
                lines(&self.response.headers, name)
            }
            var => self.request_var(var).or_else(|| self.client_var(var)).or_else(|| self.outcome_var(var)),
        }
    }

    fn append(&self, var: &Var, out: &mut Vec<u8>) -> bool {
        if *var == Var::RemoteAddr {
            // What limits are counted by: written where it is wanted.
            return write!(out, "{}", Shown(self.client.ip)).is_ok();
        }
        let value = self.var(var);
        value.inspect(|value| out.extend_from_slice(value)).is_some()
    }

    fn has(&self, list: &Var, member: &Literal) -> bool {
        if let (Var::GraphqlRootFields, Literal::Text(text)) = (list, member) {
            let operation = graphql::operation(&self.request);
            return operation
                .is_some_and(|asked| asked.root_fields.iter().any(|field| field.as_bytes() == &**text));
        }
        let Var::PostArgPath(path) = list else { return false };
        posted::any_at_path(&self.request, path, |found| match (member, found) {
            (Literal::Text(text), Value::String(found)) => **text == *found.as_bytes(),
            (Literal::Number(number), found) => found.as_f64() == Some(*number),
            (Literal::Bool(value), found) => found.as_bool() == Some(*value),
            _ => false,
        })
    }
}

impl Exchange {
    /// What the request itself says.
    fn request_var<'a>(&'a self, var: &Var) -> Answer<'a> {
        let request = &self.request;
        match var {
            Var::Uri => slice(&request.path),
            Var::RequestUri => self.request_uri(),
            Var::RealRequestUri => {
                self.received(request.line.target.start, request.line.target.end()).map(Cow::Borrowed)
            }
            Var::Args => set(&request.query),
            Var::IsArgs => slice(if request.query.is_empty() { b"" } else { b"?" }),
            Var::RequestMethod => slice(request.method().text().as_bytes()),
            Var::Scheme => slice(self.client.scheme().as_bytes()),
            Var::Host => set(request.host.as_bytes()),
            Var::ServerProtocol => slice(self.protocol().as_bytes()),
            Var::RequestLine => self.request_line(),
            Var::RequestLength => digits(self.bytes_in),
            Var::RequestBody => match &request.body {
                Body::Held(body) => set(body),
                Body::Empty | Body::Flowing => None,
            },
            Var::ContentType => lines(&request.headers, "content-type"),
            Var::ContentLength => request.content_length.and_then(digits),
            Var::RequestId | Var::ApisixRequestId => set(&self.request_id),
            Var::RequestType => slice(b"traditional_http"),
            Var::UpstreamUri if !request.forward.target.is_empty() => slice(&request.forward.target),
            Var::UpstreamUri => self.request_uri(),
            Var::UpstreamHost if !request.forward.host.is_empty() => slice(&request.forward.host),
            Var::UpstreamHost => request.headers.get_id(HeaderId::Host).map(Cow::Borrowed),
            _ => None,
        }
    }

    /// Who asks, on which connection, and what was found to answer.
    fn client_var<'a>(&'a self, var: &Var) -> Answer<'a> {
        match var {
            Var::RemoteAddr => address(self.client.ip),
            Var::RemotePort => port(self.client.ip, self.client.port),
            Var::RealipRemoteAddr => address(self.client.peer.ip()),
            Var::RealipRemotePort => port(self.client.peer.ip(), self.client.peer.port()),
            Var::ServerAddr => address(self.client.local.ip()),
            Var::ServerPort => port(self.client.local.ip(), self.client.local.port()),
            Var::SslServerName => match &self.security {
                Some(security) => security.server_name.as_ref().and_then(|name| set(name.as_bytes())),
                None => set(self.stream.server_name.as_bytes()),
            },
            Var::MqttClientId => set(&self.stream.mqtt_client_id),
            Var::SslProtocol => set(self.security.as_ref()?.protocol.as_bytes()),
            Var::SslCipher => set(self.security.as_ref()?.cipher.as_bytes()),
            Var::SslClientVerify => set(self.security.as_ref()?.client_verify().as_bytes()),
            Var::SslClientSubject => self.certificate(|certificate| &certificate.subject),
            Var::SslClientIssuer => self.certificate(|certificate| &certificate.issuer),
            Var::SslClientSerial => self.certificate(|certificate| &certificate.serial),
            Var::SslClientFingerprint => self.certificate(|certificate| &certificate.fingerprint),
            Var::ConnectionRequests => digits(self.connection_requests.into()),
            Var::Pid => digits(std::process::id().into()),
            Var::TimeIso8601 => self.date(clock::write_rfc3339),
            Var::TimeLocal => self.date(clock::write_local),
            Var::Msec => seconds(Duration::from_millis(self.timing.received_at)),
            Var::RouteId => set(self.route.route_id().as_bytes()),
            Var::RouteName => set(self.route.route_name().as_bytes()),
            Var::ServiceId => set(self.route.service_id().as_bytes()),
            Var::ServiceName => set(self.route.service_name().as_bytes()),
            Var::MatchedUri => set(self.route.matched_uri().as_bytes()),
            Var::MatchedHost => set(self.route.matched_host().as_bytes()),
            Var::ConsumerName => set(self.consumer.name().as_bytes()),
            Var::ConsumerGroupId => set(self.consumer.group_id().as_bytes()),
            _ => None,
        }
    }

    /// What came of it.
    fn outcome_var<'a>(&'a self, var: &Var) -> Answer<'a> {
        match var {
            Var::Status if self.response.status != 0 => digits(self.response.status.into()),
            Var::WouldReject => set(&self.would_reject),
            Var::BodyBytesSent => digits(self.response.body_bytes),
            Var::BytesSent => digits(self.bytes_out),
            Var::RequestTime if self.timing.finished != Moment::ZERO => {
                seconds(self.timing.finished.since(self.timing.received))
            }
            Var::BalancerIp => Some(Cow::Owned(self.last_attempt()?.node.host().to_string().into_bytes())),
            Var::BalancerPort => digits(self.last_attempt()?.node.ip()?.port().into()),
            Var::UpstreamAddr => self.each_attempt(|attempt| attempt.node.to_string()),
            Var::UpstreamStatus => self.each_attempt(|attempt| match attempt.status {
                0 => "-".to_owned(),
                status => status.to_string(),
            }),
            Var::UpstreamResponseTime => self.each_attempt(|attempt| seconds_text(attempt.total)),
            Var::ApisixUpstreamResponseTime if !self.attempts.is_empty() => seconds(self.timing.upstream),
            _ => None,
        }
    }

    /// Of the certificate that the client has shown.
    fn certificate<'a>(&'a self, field: impl Fn(&'a ClientCertificate) -> &'a String) -> Answer<'a> {
        set(field(self.security.as_ref()?.certificate.as_ref()?).as_bytes())
    }

    fn request_uri(&self) -> Answer<'_> {
        if !self.request.has_query {
            return slice(&self.request.wire_path);
        }
        let mut uri = Vec::with_capacity(self.request.wire_path.len() + 1 + self.request.query.len());
        self.request.write_request_uri(&mut uri);
        Some(Cow::Owned(uri))
    }

    fn received(&self, start: u32, end: usize) -> Option<&[u8]> {
        self.request.headers.received().get(start as usize..end).filter(|bytes| !bytes.is_empty())
    }

    /// The request line; of HTTP/2 as it would be in HTTP/1, as nginx has it.
    fn request_line(&self) -> Answer<'_> {
        let line = self.request.line;
        let head = self.received(line.head.start, line.head.end())?;
        let end = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
        let written = &head[..end];
        match written.strip_suffix(b"HTTP/1.1").filter(|_| self.client.http2) {
            Some(before) => Some(Cow::Owned([before, self.protocol().as_bytes()].concat())),
            None => Some(Cow::Borrowed(written)),
        }
    }

    fn uri_param(&self, name: &str) -> Option<&[u8]> {
        let (_, range) = self.request.params.iter().find(|(param, _)| param == name)?;
        self.request.path.get(range.start as usize..range.end as usize)
    }

    fn date(&self, write: fn(&mut Vec<u8>, clock::UnixMs)) -> Answer<'_> {
        let mut text = Vec::with_capacity(32);
        write(&mut text, self.timing.received_at);
        Some(Cow::Owned(text))
    }

    /// One text an attempt, as nginx lists them: `a, b`.
    fn each_attempt(&self, text: impl Fn(&Attempt) -> String) -> Answer<'_> {
        if self.attempts.is_empty() {
            return None;
        }
        Some(Cow::Owned(self.attempts.iter().map(text).collect::<Vec<_>>().join(", ").into_bytes()))
    }
}

/// A value that is set even when it is empty.
#[allow(clippy::unnecessary_wraps)] // An answer like the others.
fn slice(value: &[u8]) -> Answer<'_> {
    Some(Cow::Borrowed(value))
}

/// A value that is unset when it is empty.
fn set(value: &[u8]) -> Answer<'_> {
    (!value.is_empty()).then_some(Cow::Borrowed(value))
}

fn lines<'a>(headers: &'a HeaderList, name: &str) -> Answer<'a> {
    let id = HeaderId::of(name.as_bytes());
    if id != HeaderId::Other && !headers.has(id) {
        return None;
    }
    let mut found = headers.iter().filter(|(line, text, _)| {
        *line == id && (id != HeaderId::Other || text.eq_ignore_ascii_case(name.as_bytes()))
    });
    let (_, _, first) = found.next()?;
    let mut value = Cow::Borrowed(first);
    let separator: &[u8] = if id == HeaderId::Cookie { b"; " } else { b", " };
    for (_, _, further) in found {
        let joined = value.to_mut();
        joined.extend_from_slice(separator);
        joined.extend_from_slice(further);
    }
    Some(value)
}

#[allow(clippy::unnecessary_wraps)] // An answer like the others.
fn digits<'a>(number: u64) -> Answer<'a> {
    Some(Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec()))
}

#[allow(clippy::unnecessary_wraps)] // An answer like the others.
fn address<'a>(ip: IpAddr) -> Answer<'a> {
    Some(Cow::Owned(Shown(ip).to_string().into_bytes()))
}

/// A Unix socket has none.
fn port<'a>(ip: IpAddr, port: u16) -> Answer<'a> {
    if is_none(ip) { None } else { digits(port.into()) }
}

#[allow(clippy::unnecessary_wraps)] // An answer like the others.
fn seconds<'a>(time: Duration) -> Answer<'a> {
    Some(Cow::Owned(seconds_text(time).into_bytes()))
}

fn seconds_text(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::head::{Method, Span};

    fn exchange() -> Exchange {
        let mut ex = Exchange::new();
        let head = b"GET /a%20b?x=1+2&y HTTP/1.1\r\nHost: A.com:80\r\n\r\n".to_vec();
        ex.request.line.target = Span::new(4, 18);
        ex.request.line.head = Span::new(0, head.len());
        ex.request.headers.hold_received(head);
        ex.request.headers.add("Host", b"A.com:80");
        ex.request.headers.add("X-Two", b"1");
        ex.request.headers.add("x-two", b"2");
        ex.request.headers.add("Cookie", b"sid=7; b=8");
        ex.request.path = b"/a b".to_vec();
        ex.request.wire_path = b"/a%20b".to_vec();
        ex.request.query = b"x=1+2&y".to_vec();
        ex.request.has_query = true;
        ex.request.host = "a.com".to_owned();
        ex.request.params.push(("id".to_owned(), 1..2));
        ex.client.ip = "::ffff:10.0.0.9".parse().expect("an address");
        ex.client.https = true;
        ex.timing.received = Moment::from_nanos(1_000_000);
        ex.timing.finished = Moment::from_nanos(1_236_000_000);
        ex.timing.received_at = 784_111_777_005;
        ex.response.status = 502;
        for status in [0, 200] {
            ex.attempts.push(Attempt {
                node: "10.1.1.1:80".parse().expect("an address"),
                status,
                connect: Duration::ZERO,
                header: Duration::ZERO,
                total: Duration::from_millis(20),
                reused: false,
            });
        }
        ex
    }

    #[test]
    fn every_kind_of_variable_has_its_value() {
        let ex = exchange();
        for (name, expected) in [
            ("uri", Some("/a b")),
            ("request_uri", Some("/a%20b?x=1+2&y")),
            ("real_request_uri", Some("/a%20b?x=1+2&y")),
            ("args", Some("x=1+2&y")),
            ("is_args", Some("?")),
            ("request_method", Some("GET")),
            ("scheme", Some("https")),
            ("host", Some("a.com")),
            ("http_host", Some("A.com:80")),
            ("http_x_two", Some("1, 2")),
            ("http_x_three", None),
            ("request", Some("GET /a%20b?x=1+2&y HTTP/1.1")),
            ("arg_x", Some("1 2")),
            ("arg_y", Some("")),
            ("arg_z", None),
            ("cookie_sid", Some("7")),
            ("cookie_si", None),
            ("uri_param_id", Some("a")),
            ("remote_addr", Some("10.0.0.9")),
            ("msec", Some("784111777.005")),
            ("time_iso8601", Some("1994-11-06T08:49:37.005Z")),
            ("request_time", Some("1.235")),
            ("status", Some("502")),
            ("upstream_status", Some("-, 200")),
            ("upstream_addr", Some("10.1.1.1:80, 10.1.1.1:80")),
            ("upstream_response_time", Some("0.020, 0.020")),
            ("balancer_ip", Some("10.1.1.1")),
            ("upstream_host", Some("A.com:80")),
            ("consumer_name", None),
            ("request_body", None),
            ("nonsense", None),
        ] {
            let value = ex.var(&Var::parse(name));
            assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{name}");
        }
        assert_eq!(ex.request.line.method, Method::Get);
    }

    #[test]
    fn what_is_a_stretch_of_the_exchange_is_borrowed() {
        let ex = exchange();
        for name in
            ["uri", "host", "http_host", "args", "request_method", "cookie_sid", "arg_y", "uri_param_id"]
        {
            assert!(matches!(ex.var(&Var::parse(name)), Some(Cow::Borrowed(_))), "{name}");
        }
    }

    #[test]
    fn the_headers_of_an_upstream_are_unset_when_the_gateway_answers() {
        let mut ex = exchange();
        ex.response.headers.add("X-Made", b"here");
        assert_eq!(ex.var(&Var::parse("upstream_http_x_made")), None);
        assert_eq!(ex.var(&Var::parse("sent_http_x_made")).as_deref(), Some(b"here".as_slice()));
        ex.response.source = Source::Upstream;
        assert_eq!(ex.var(&Var::parse("upstream_http_x_made")).as_deref(), Some(b"here".as_slice()));
    }
}
