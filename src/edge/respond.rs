//! Answers made here: the one table of status and reason, and what an answer of ours looks like.
//!
//! The reason of every answer that is not the upstream's is one word. It is in the access log, a metric label,
//! and in `docs/operations.md`.

use bytes::Bytes;

use super::admit::Refusal;
use super::pick::Unreached;
use crate::exchange::{Exchange, Reply, ReplyBody, ResponseBody, Source};
use crate::expr::{Var, Vars as _};
use crate::link::health::News;
use crate::proto::head::HeaderId;
use crate::snapshot::{Route, Snapshot};

/// Least bytes a closing connection is read on, for as long as `LINGER` lasts: as much as a client that is in the middle of its body may have
/// on the way before it has seen the answer.
pub(super) const LINGER_BYTES: u64 = 1024 * 1024;

/// Whether a try may be followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// If the method is idempotent and the body can be sent again.
    Safe,
    /// In any case: nothing was sent.
    Unsent,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $status:literal $word:literal $proxy_status:literal $retry:ident,)*) => {
        /// Why a request could not be forwarded, or its answer not be passed on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            pub(super) const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            pub(super) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The error type of RFC 9209.
            const fn proxy_status(self) -> &'static str {
                match self { $(Self::$variant => $proxy_status,)* }
            }

            pub(super) const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }
        }

        const FAULT_WORDS: &[&str] = &[$($word,)*];
    };
}

faults! {
    /// The route names no upstream.
    NoUpstream = 503 "no_upstream" "destination_not_found" Never,
    UpstreamVanished = 502 "upstream_vanished" "destination_not_found" Never,
    NoNodes = 503 "no_nodes" "destination_unavailable" Never,
    ConnectRefused = 502 "upstream_connect_failed" "connection_refused" Unsent,
    ConnectTimeout = 504 "upstream_connect_timeout" "connection_timeout" Unsent,
    /// The node and we did not agree on TLS: it is not who it should be, or wants to know who we are.
    TlsRefused = 502 "upstream_tls_failed" "tls_certificate_error" Unsent,
    /// The connection broke while the request was sent.
    SendFailed = 502 "upstream_send_failed" "connection_terminated" Safe,
    SendTimeout = 504 "upstream_send_timeout" "connection_write_timeout" Safe,
    /// The connection ended before the response began.
    NoResponse = 502 "upstream_closed" "connection_terminated" Safe,
    /// The node has not looked at the request and says so (RFC 9113 8.7).
    Refused = 502 "upstream_refused" "connection_terminated" Unsent,
    ReadTimeout = 504 "upstream_read_timeout" "http_response_timeout" Safe,
    BadResponse = 502 "upstream_bad_response" "http_protocol_error" Never,
    HeadTooLarge = 502 "upstream_head_too_large" "http_response_header_section_size" Never,
    TooManyInterim = 502 "upstream_too_many_interim" "http_protocol_error" Never,
    UnaskedUpgrade = 502 "upstream_unasked_upgrade" "http_upgrade_failed" Never,
    /// A plugin wanted all of a body that is larger than it may be.
    ResponseTooLarge = 502 "upstream_body_too_large" "http_response_body_size" Never,
    /// Time for all tries together is over.
    RetryTimeout = 502 "retry_timeout" "http_response_timeout" Never,
    /// Time is up for the request as a whole: the upstream's, or the client's.
    DeadlineExceeded = 504 "deadline_exceeded" "http_response_timeout" Never,
    /// As many requests are under way as the upstream lets in.
    Shed = 503 "concurrency_limit" "connection_limit_reached" Never,
    /// A node's status that the fallback takes the place of; never seen by itself.
    StatusCaught = 502 "upstream_status" "proxy_internal_response" Never,
    /// Plugins added more header bytes than a message may have.
    HeadersOverflow = 500 "headers_overflow" "proxy_internal_error" Never,
    BodyTooLarge = 413 "body_too_large" "http_request_error" Never,
    BadBody = 400 "bad_body" "http_request_error" Never,
    /// The client left, or stalled while it sent its body. Logged, seldom seen.
    ClientGone = 499 "client_gone" "http_request_error" Never,
    BodyTimeout = 408 "body_timeout" "http_request_error" Never,
}

impl From<Unreached> for Fault {
    fn from(unreached: Unreached) -> Self {
        match unreached {
            Unreached::Timeout => Self::ConnectTimeout,
            Unreached::Refused => Self::ConnectRefused,
            Unreached::Mistrusted => Self::TlsRefused,
        }
    }
}

impl Fault {
    /// Whether it is what comes of a connection that the node has closed in the meantime.
    pub(super) const fn may_be_stale(self) -> bool {
        matches!(self, Self::SendFailed | Self::NoResponse | Self::Refused)
    }

    /// What it tells of the node's health.
    pub(super) const fn news(self) -> Option<News> {
        match self {
            Self::ConnectTimeout | Self::SendTimeout | Self::ReadTimeout => Some(News::Timeout),
            Self::ConnectRefused
            | Self::TlsRefused
            | Self::SendFailed
            | Self::NoResponse
            | Self::Refused
            | Self::BadResponse
            | Self::HeadTooLarge
            | Self::TooManyInterim => Some(News::TcpFailure),
            _ => None,
        }
    }
}

/// Words of the other answers that are ours.
const OTHER_WORDS: [&str; 7] = [
    "bad_request",
    "route_not_found",
    "plugin",
    "route_broken",
    "global_rule_broken",
    "fallback",
    "acme_challenge",
];

/// All reasons that are counted, in the order of `CoreStats::reasons`.
pub const REASONS: &[&str] = &{
    let mut words = [""; FAULT_WORDS.len() + OTHER_WORDS.len()];
    let mut at = 0;
    while at < FAULT_WORDS.len() {
        words[at] = FAULT_WORDS[at];
        at += 1;
    }
    while at < words.len() {
        words[at] = OTHER_WORDS[at - FAULT_WORDS.len()];
        at += 1;
    }
    words
};

const _: () = assert!(REASONS.len() <= crate::link::stats::REASONS_MAX);

/// The place of an exchange's reason among [`REASONS`].
pub(super) fn reason_at(ex: &Exchange) -> Option<usize> {
    let word = match ex.response.source {
        Source::Upstream => return None,
        Source::Plugin(_) => "plugin",
        Source::Gateway => ex.reason,
    };
    // Refusals have words of their own; they are counted together.
    REASONS
        .iter()
        .position(|reason| *reason == word)
        .or_else(|| REASONS.iter().position(|reason| *reason == "bad_request"))
}

/// The answer to a request that could not be forwarded.
pub(super) fn to_fault(ex: &mut Exchange, fault: Fault) -> Reply {
    ex.reason = fault.word();
    ex.response.source = Source::Gateway;
    let mut reply = Reply::bytes(fault.status(), error_body(fault.status()));
    if fault.news().is_some()
        && let Some(statuses) = ex.var(&Var::UpstreamStatus)
    {
        reply = reply.with("X-APISIX-Upstream-Status", Bytes::from(statuses.into_owned()));
    }
    reply
        .with("content-type", Bytes::from_static(b"application/json"))
        .with("proxy-status", Bytes::from(format!("ringway; error={}", fault.proxy_status())))
}

/// The answer to a request that can not be read.
pub(super) fn to_refusal(ex: &mut Exchange, refusal: Refusal) -> Reply {
    ex.reason = refusal.word;
    ex.response.source = Source::Gateway;
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"error_msg\":\"");
    body.extend_from_slice(phrase(refusal.status).as_bytes());
    body.extend_from_slice(b"\",\"code\":\"");
    body.extend_from_slice(refusal.word.as_bytes());
    body.extend_from_slice(b"\"}\n");
    let reply =
        Reply::bytes(refusal.status, body).with("content-type", Bytes::from_static(b"application/json"));
    if refusal.status == 405 {
        return reply.with("allow", Bytes::from_static(b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    reply
}

/// The answer to an authority that asks whether a host is ours.
pub(super) fn to_challenge(ex: &mut Exchange, view: &Snapshot) -> Option<Reply> {
    let answer = view.challenges.answer(&ex.request.path)?;
    ex.reason = "acme_challenge";
    Some(
        Reply::bytes(200, answer.clone())
            .with("content-type", Bytes::from_static(b"application/octet-stream")),
    )
}

/// The answer where no route matches.
pub(super) fn no_route(ex: &mut Exchange) -> Reply {
    ex.reason = "route_not_found";
    not_found()
}

fn not_found() -> Reply {
    Reply::text(404, "{\"error_msg\":\"404 Route Not Found\"}\n")
        .with("content-type", Bytes::from_static(b"text/plain; charset=utf-8"))
}

/// The answer of a route that refers to something that is gone, or of any where a guard of all is missing.
pub(super) fn to_broken(ex: &mut Exchange, view: &Snapshot, route: Option<&Route>) -> Option<Reply> {
    let (status, reason) = match route.and_then(|route| route.broken) {
        _ if view.is_unguarded => (503, "global_rule_broken"),
        Some(status) => (status, "route_broken"),
        None => return None,
    };
    ex.reason = reason;
    Some(if status == 404 { not_found() } else { Reply::status(status) })
}

fn error_body(status: u16) -> Vec<u8> {
    let mut body = b"{\"error_msg\":\"".to_vec();
    body.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    body.push(b' ');
    body.extend_from_slice(phrase(status).as_bytes());
    body.extend_from_slice(b"\"}\n");
    body
}

/// Makes a reply the response of the exchange.
pub(super) fn place(ex: &mut Exchange, reply: Reply) {
    if matches!(ex.response.source, Source::Plugin(_)) {
        ex.reason = "plugin";
    }
    let response = &mut ex.response;
    response.status = reply.status;
    response.is_of_limit = reply.is_of_limit;
    response.headers.clear();
    let mut content_type: &[u8] = b"text/plain; charset=utf-8";
    let body = match reply.body {
        ReplyBody::Empty => Bytes::new(),
        ReplyBody::Text(text) => Bytes::from_static(text.as_bytes()),
        ReplyBody::Bytes(bytes) => bytes,
        ReplyBody::Default if reply.status >= 300 => {
            content_type = b"text/html; charset=utf-8";
            Bytes::from(page(reply.status))
        }
        ReplyBody::Default => Bytes::new(),
    };
    for (name, value) in reply.headers.as_deref().into_iter().flatten() {
        response.headers.add(name, value);
    }
    if !body.is_empty() && !response.headers.has(HeaderId::ContentType) {
        response.headers.add_id(HeaderId::ContentType, content_type);
    }
    response.body = ResponseBody::Replace(body);
}

/// A small page that names a status; what nginx's users look for is its title.
fn page(status: u16) -> String {
    let phrase = phrase(status);
    format!(
        "<html>\n<head><title>{status} {phrase}</title></head>\n<body>\n<h1>{status} {phrase}</h1>\n\
         <p>ringway</p>\n</body>\n</html>\n"
    )
}

/// The reason phrase of a status (RFC 9110 15).
pub(super) const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_word_of_its_own() {
        for (at, reason) in REASONS.iter().enumerate() {
            assert!(!reason.is_empty() && !REASONS[at + 1..].contains(reason), "{reason:?}");
        }
    }

    #[test]
    fn a_bare_status_gets_a_page_that_names_it() {
        let mut ex = Exchange::new();
        place(&mut ex, Reply::status(403));
        let ResponseBody::Replace(body) = &ex.response.body else { panic!("an own body") };
        assert!(String::from_utf8_lossy(body).contains("<title>403 Forbidden</title>"));
        place(&mut ex, Reply::status(204));
        assert!(matches!(&ex.response.body, ResponseBody::Replace(body) if body.is_empty()));
    }
}
