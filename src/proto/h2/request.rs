//! Fields of a client's HTTP/2 message as HTTP/1.1 has them (RFC 9113 8). One reader of heads serves both versions, so what is
//! doubtful in the one is refused as in the other; here is only what HTTP/2 alone has.

use base64::Engine as _;

use super::hpack::table::FIELD_BYTES;
use crate::proto::h1::framing::Framing;
use crate::proto::head::Method;
use crate::proto::uri::{self, Scheme};

/// Why a message of HTTP/2 is none. The stream ends with PROTOCOL_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A pseudo-header that there is not, or twice, or behind another field, or of nothing.
    Pseudo,
    BadScheme,
    NoMethod,
    NoPath,
    /// `:authority` and `host` name different hosts, or neither names one.
    Authority,
    /// Capitals, or what no name is made of.
    Name,
    /// White space around a value, or what would end its line.
    Value,
    /// A line that says something of an HTTP/1 connection.
    Connection,
    LengthInvalid,
    /// CONNECT for a protocol that is not spoken here.
    Protocol,
}

/// How a request goes on behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub method: Method,
    pub framing: Framing,
    /// It asks for a WebSocket (RFC 8441): once that is agreed on, all bytes belong to it.
    pub websocket: bool,
}

/// Texts of a request's head that are not written yet; empty between requests.
#[derive(Debug, Default)]
pub struct Pieces {
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Vec<u8>,
    host: Vec<u8>,
    cookie: Vec<u8>,
}

/// A request's head that is being written.
#[derive(Debug)]
pub(super) struct Request<'a> {
    out: &'a mut Vec<u8>,
    pieces: &'a mut Pieces,
    has: Has,
    length: Option<u64>,
    /// Bytes of fields so far, as they are counted (RFC 9113 6.5.2).
    bytes: usize,
    malformed: Option<Malformed>,
}

/// What was met of it.
#[derive(Debug, Default)]
struct Has {
    scheme: Option<Scheme>,
    method: bool,
    path: bool,
    authority: bool,
    protocol: bool,
    websocket: bool,
    host: bool,
    /// A field that is no pseudo-header; none of these may follow it.
    field: bool,
    cookie: bool,
}

impl<'a> Request<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, pieces: &'a mut Pieces) -> Self {
        let Pieces { method, path, authority, host, cookie } = pieces;
        [method, path, authority, host, cookie].into_iter().for_each(|piece| piece.clear());
        Self { out, pieces, has: Has::default(), length: None, bytes: 0, malformed: None }
    }

    /// Takes in a field; of more than `most` bytes in all, nothing is written.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8], most: usize) {
        self.bytes += name.len() + value.len() + FIELD_BYTES;
        if self.malformed.is_some() || self.bytes > most {
            return;
        }
        let taken = match name.split_first() {
            Some((b':', name)) => self.pseudo(name, value),
            _ => self.line(name, value),
        };
        self.malformed = taken.err();
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let has = &mut self.has;
        // What is written into a line must not end it, or be several words.
        let is_word = !value.is_empty() && value.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
        if has.field || !is_word {
            return Err(Malformed::Pseudo);
        }
        let (was_there, piece) = match name {
            b"method" => (&mut has.method, &mut self.pieces.method),
            b"path" => (&mut has.path, &mut self.pieces.path),
            b"authority" => (&mut has.authority, &mut self.pieces.authority),
            b"scheme" if has.scheme.is_none() => {
                has.scheme = match value {
                    b"http" => Some(Scheme::Http),
                    b"https" => Some(Scheme::Https),
                    _ => return Err(Malformed::BadScheme),
                };
                return Ok(());
            }
            b"protocol" if !has.protocol => {
                (has.protocol, has.websocket) = (true, value == b"websocket");
                return Ok(());
            }
            _ => return Err(Malformed::Pseudo),
        };
        if std::mem::replace(was_there, true) {
            return Err(Malformed::Pseudo);
        }
        piece.extend_from_slice(value);
        Ok(())
    }

    fn line(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if !self.has.field {
            self.has.field = true;
            self.begin()?;
        }
        check(name, value)?;
        match name {
            b"host" => {
                if std::mem::replace(&mut self.has.host, true) {
                    return Err(Malformed::Authority);
                }
                self.pieces.host.extend_from_slice(value);
            }
            b"content-length" => {
                if self.length.is_some() {
                    return Err(Malformed::LengthInvalid);
                }
                self.length = Some(length(value)?);
            }
            // Clients may cut cookies into pieces, so that each compresses well (8.2.3).
            b"cookie" => {
                if std::mem::replace(&mut self.has.cookie, true) {
                    self.pieces.cookie.extend_from_slice(b"; ");
                }
                self.pieces.cookie.extend_from_slice(value);
            }
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                return Err(Malformed::Connection);
            }
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => return Err(Malformed::Connection),
            _ => write_line(self.out, name, value),
        }
        Ok(())
    }

    /// Writes what comes before all fields.
    fn begin(&mut self) -> Result<(), Malformed> {
        let (has, pieces) = (&self.has, &*self.pieces);
        if !has.method {
            return Err(Malformed::NoMethod);
        }
        let is_connect = pieces.method == b"CONNECT";
        if has.protocol && !(has.websocket && is_connect) {
            return Err(Malformed::Protocol);
        }
        let is_tunnel = is_connect && !has.websocket;
        if is_tunnel && (has.path || has.scheme.is_some()) {
            return Err(Malformed::Pseudo);
        }
        if !is_tunnel && has.scheme.is_none() {
            return Err(Malformed::BadScheme);
        }
        // Another form would name another host.
        if !is_tunnel && !matches!(pieces.path.first(), Some(b'/' | b'*')) {
            return Err(Malformed::NoPath);
        }
        let method = if has.websocket { b"GET" } else { &pieces.method[..] };
        self.out.extend_from_slice(method);
        self.out.push(b' ');
        self.out.extend_from_slice(if is_tunnel { &pieces.authority } else { &pieces.path });
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
        if has.authority {
            self.out.extend_from_slice(b"Host: ");
            self.out.extend_from_slice(&pieces.authority);
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Writes the rest. `ends`: nothing follows the head. `nonce` is the key of a WebSocket, should it ask for one.
    pub(super) fn end(mut self, ends: bool, nonce: impl FnOnce() -> [u8; 16]) -> Result<Told, Malformed> {
        if !self.has.field && self.malformed.is_none() {
            self.malformed = self.begin().err();
        }
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        self.end_host()?;
        let Self { out, pieces, has, .. } = self;
        if has.cookie {
            write_line(out, b"cookie", &pieces.cookie);
        }
        let framing = match self.length {
            _ if has.websocket => Framing::None,
            // What was promised does not come.
            Some(length) if ends && length > 0 => return Err(Malformed::LengthInvalid),
            Some(length) => Framing::Length(length),
            None if ends => Framing::None,
            None => Framing::Chunked,
        };
        match framing {
            Framing::Length(length) => {
                write_line(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
            }
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if has.websocket {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(nonce()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        let method = if has.websocket { Method::Get } else { Method::of(&pieces.method).unwrap_or_default() };
        Ok(Told { method, framing, websocket: has.websocket })
    }

    fn end_host(&mut self) -> Result<(), Malformed> {
        let (has, pieces) = (&self.has, &*self.pieces);
        match (has.authority, has.host) {
            (true, false) => Ok(()),
            (false, true) => {
                write_line(self.out, b"Host", &pieces.host);
                Ok(())
            }
            (true, true) => {
                let scheme = has.scheme.unwrap_or(Scheme::Http);
                let same = uri::same_authority(&pieces.authority, &pieces.host, scheme);
                if same { Ok(()) } else { Err(Malformed::Authority) }
            }
            (false, false) => Err(Malformed::Authority),
        }
    }
}

fn length(value: &[u8]) -> Result<u64, Malformed> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(Malformed::LengthInvalid)
}

/// Bytes that names are made of here: those of a token (RFC 9110 5.6.2), but for capitals.
static IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a field can be written as a line of HTTP/1, and is read there as it was meant.
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    if name.is_empty() || !name.iter().all(|byte| IN_NAMES[usize::from(*byte)]) {
        return Err(Malformed::Name);
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let breaks = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if is_blank(value.first()) || is_blank(value.last()) || value.iter().any(breaks) {
        return Err(Malformed::Value);
    }
    Ok(())
}

/// [`check`] for a line of trailers, where pseudo-headers are names that there are not (RFC 9113 8.1).
pub(super) fn check_trailer(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Err(Malformed::Connection)
        }
        _ => check(name, value),
    }
}

/// Appends a line of a head, or of trailers.
pub(super) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
