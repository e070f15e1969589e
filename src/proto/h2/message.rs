//! Messages of HTTP/1.1 as the `h2` crate has them, for nodes, and what nodes answer as HTTP/1.1 has it (RFC 9113 8).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, response};

use crate::proto::grpc::is_grpc;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::head::{HeaderId, HeaderList, HeaderSet, RequestLine};

/// Lines that say something of an HTTP/1 connection, of which HTTP/2 has none (RFC 9113 8.2.2).
const OF_CONNECTIONS: HeaderSet = HeaderSet::of(&[
    HeaderId::Connection,
    HeaderId::KeepAlive,
    HeaderId::ProxyConnection,
    HeaderId::TransferEncoding,
    HeaderId::Upgrade,
    HeaderId::Http2Settings,
]);

/// Why a message of HTTP/2 is none. The stream ends with PROTOCOL_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    NoPath,
    BadScheme,
    /// `:authority` and `host` name different hosts, or neither names one.
    Authority,
    /// White space around a value.
    Value,
    LengthInvalid,
    /// CONNECT for a protocol that is not spoken here.
    Protocol,
}

fn length_of(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).map(Some).ok_or(Malformed::LengthInvalid)
}

fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) -> Result<(), Malformed> {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(bare(value)?);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A value that has no white space around it (RFC 9113 8.2.1).
fn bare(value: &HeaderValue) -> Result<&[u8], Malformed> {
    let bytes = value.as_bytes();
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_blank(bytes.first()) || is_blank(bytes.last()) { Err(Malformed::Value) } else { Ok(bytes) }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Whether a line is of a connection of HTTP/1 alone.
pub(super) fn is_of_connection(id: HeaderId, name: &[u8], headers: &HeaderList) -> bool {
    OF_CONNECTIONS.contains(id)
        || headers.has(HeaderId::Connection) && framing::connection_lists(headers, name)
}

/// What HTTP/2 has no way to say is left out.
fn append(lines: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        let _ = lines.try_append(name, value);
    }
}

/// Trailers as HTTP/2 has them.
pub fn trailers<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> HeaderMap {
    let mut lines = HeaderMap::new();
    fields.for_each(|(name, value)| append(&mut lines, name, value));
    lines
}

/// Appends trailers as the end of an HTTP/1 body has them: lines and an empty one.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        // One that is malformed says nothing to anybody.
        let begun = out.len();
        if write_line(out, name, value).is_err() {
            out.truncate(begun);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A request's head as HTTP/2 has it; `received` are the bytes it is of. `None` when there is no way to say it.
pub fn request(line: &RequestLine, headers: &HeaderList, https: bool) -> Option<Request<()>> {
    let host = headers.get_id(HeaderId::Host)?;
    let target = escaped(line.target.of(headers.received()));
    let uri = Uri::builder()
        .scheme(if https { "https" } else { "http" })
        .authority(host)
        .path_and_query(&target[..])
        .build()
        .ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(line.method.text().as_bytes()).ok()?;
    *request.uri_mut() = uri;
    let lines = request.headers_mut();
    let _ = lines.try_reserve(headers.len());
    for (id, name, value) in headers.iter() {
        if id != HeaderId::Host && !is_of_connection(id, name, headers) {
            append(lines, name, value);
        }
    }
    Some(request)
}

/// A target without the few bytes that are usual in those of HTTP/1 and not allowed in any (RFC 3986 2).
fn escaped(target: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(target.len());
    for byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'|' | b'\\' | b'^' => {
                out.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
            }
            _ => out.push(*byte),
        }
    }
    out
}

const fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[digit as usize & 15]
}

/// Appends a response's head as HTTP/1.1 has it, and says how its body goes on. `ends`: nothing follows it; `is_head`: it
/// answers HEAD.
///
/// # Errors
/// When it is none.
pub fn write_response(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    ends: bool,
    is_head: bool,
) -> Result<Framing, Malformed> {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_LENGTH {
            write_line(out, name, value)?;
        }
    }
    let has_body =
        !is_head && !parts.status.is_informational() && !matches!(parts.status.as_u16(), 204 | 304);
    // Of a call, its status follows, for which only chunks have room.
    let is_call = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()));
    let framing = match length_of(&parts.headers)? {
        Some(_) if is_call && has_body && !ends => Framing::Chunked,
        Some(length) if parts.status != StatusCode::NO_CONTENT => Framing::Length(length),
        None if has_body && ends => Framing::Length(0),
        None if has_body => Framing::Chunked,
        _ => Framing::None,
    };
    write_framing(out, framing);
    out.extend_from_slice(b"\r\n");
    Ok(if has_body { framing } else { Framing::None })
}

/// Bytes of a vector from `start`, so many, without a copy.
pub fn piece(bytes: Vec<u8>, start: usize, count: usize) -> Bytes {
    Bytes::from(bytes).slice(start..start + count)
}
