//! Request targets: what they name, and the one form of a path that everything after sees.
//!
//! A path is normalised once, before routing, into two forms made in one pass: `decoded`, which router, rules
//! and plugins read (nginx's `$uri`), and `wire`, which goes to the upstream. Both have the same segments, so
//! nobody behind us reads a path that we did not judge. What software is known to read in two ways (an encoded
//! slash, a backslash, an overlong dot) is refused. No allocation once the two buffers have grown.
//!
//! In the absolute form (`GET http://a/ HTTP/1.1`) the authority must be that of `Host`, or the request is
//! refused with 400: RFC 9112 3.2.2 would let it win silently, but then two readers of one request may
//! disagree on its host. [`split`] yields it, [`same_authority`] compares.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::text::{parse_u64, percent_triple, push_percent};
use crate::proto::head::Method;

/// Longest name of a host (RFC 1035 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Longest part of one.
const LABEL_BYTES_MAX: usize = 63;

macro_rules! faults {
    ($($(#[$note:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a target or a host is refused, always with 400.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum UriFault { $($(#[$note])* $variant,)* }

        impl UriFault {
            /// One stable word for logs and metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

faults! {
    /// None of the four forms, or not one for this method.
    BadForm = "bad_target_form",
    /// A control or `\`, raw or encoded, or a raw space, `#` or `?`.
    BadByte = "bad_path_byte",
    /// `%` without two hexadecimal digits, such as `%u0061`.
    BadPercent = "bad_percent_encoding",
    EncodedSlash = "encoded_slash",
    /// A longer encoding of `/`, `.`, `\` or a control than UTF-8 allows.
    OverlongUtf8 = "overlong_utf8",
    /// `..` with nothing left to leave.
    AboveRoot = "path_above_root",
    /// `.` or `..` that only some see: before `;`, or next to an encoded slash.
    HiddenDots = "hidden_dot_segment",
    /// Nothing but parameters between two slashes.
    EmptySegment = "empty_segment_with_parameters",
    BadScheme = "bad_scheme",
    BadHost = "bad_host",
    BadPort = "bad_port",
}

/// How paths are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriOptions {
    /// `//` is `/`.
    pub merge_slashes: bool,
    /// `%2F` is taken, and stays `%2F` in both forms; otherwise it is refused.
    pub keep_encoded_slash: bool,
    /// `decoded` loses a `/` at its end; `wire` keeps it, since origins tell `/a` from `/a/`.
    pub delete_tail_slash: bool,
    /// `decoded` loses `;parameters` of segments; `wire` keeps them, since servlets read them.
    pub servlet: bool,
}

impl Default for UriOptions {
    fn default() -> Self {
        Self { merge_slashes: true, keep_encoded_slash: false, delete_tail_slash: false, servlet: false }
    }
}

/// Fills `decoded` and `wire` with the two forms of a path, see the module. On a fault, what they hold means
/// nothing. `wire` normalised again stays as it is.
pub fn normalise(
    raw_path: &[u8],
    options: &UriOptions,
    decoded: &mut Vec<u8>,
    wire: &mut Vec<u8>,
) -> Result<(), UriFault> {
    decoded.clear();
    wire.clear();
    if raw_path.first() != Some(&b'/') {
        return Err(UriFault::BadForm);
    }
    if is_normal(raw_path, options.servlet) {
        decoded.extend_from_slice(raw_path);
        wire.extend_from_slice(raw_path);
    } else {
        let mut path = Path { options, decoded, wire, decoded_start: 0, wire_start: 0, beyond_ascii: false };
        path.fill(&raw_path[1..])?;
    }
    if options.delete_tail_slash && decoded.len() > 1 && decoded.last() == Some(&b'/') {
        decoded.pop();
    }
    Ok(())
}

/// Whether a path is the same in both forms as it is written. May say no of one that is.
fn is_normal(path: &[u8], servlet: bool) -> bool {
    let mut previous = 0;
    path.iter().all(|byte| {
        let suspect = previous == b'/' && matches!(byte, b'/' | b'.') || servlet && *byte == b';';
        previous = *byte;
        AS_IT_IS[usize::from(*byte)] && !suspect
    })
}

/// Bytes that stand for themselves in a path: `pchar` of RFC 3986 3.3, and `/`.
const AS_IT_IS: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = is_unreserved(byte)
            || matches!(
                byte,
                b'/' | b':'
                    | b'@'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
            );
        at += 1;
    }
    table
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Two forms of a path in the making.
struct Path<'a> {
    options: &'a UriOptions,
    decoded: &'a mut Vec<u8>,
    wire: &'a mut Vec<u8>,
    /// Where the segment at hand begins in each.
    decoded_start: usize,
    wire_start: usize,
    beyond_ascii: bool,
}

impl Path<'_> {
    /// Takes the whole path, without its first slash.
    fn fill(&mut self, mut rest: &[u8]) -> Result<(), UriFault> {
        self.open_segment();
        while let [byte, behind @ ..] = rest {
            rest = behind;
            match byte {
                b'/' => self.end_segment(false)?,
                b'%' => {
                    let triple = [b'%', *rest.first().unwrap_or(&0), *rest.get(1).unwrap_or(&0)];
                    self.encoded(percent_triple(&triple).ok_or(UriFault::BadPercent)?)?;
                    rest = &rest[2..];
                }
                0..=b' ' | b'#' | b'?' | b'\\' | 0x7f => return Err(UriFault::BadByte),
                byte => self.push(*byte, AS_IT_IS[usize::from(*byte)]),
            }
        }
        self.end_segment(true)?;
        if self.beyond_ascii && hides_ascii(self.decoded) {
            return Err(UriFault::OverlongUtf8);
        }
        Ok(())
    }

    fn encoded(&mut self, byte: u8) -> Result<(), UriFault> {
        match byte {
            b'/' if self.options.keep_encoded_slash => {
                self.decoded.extend_from_slice(b"%2F");
                self.wire.extend_from_slice(b"%2F");
            }
            b'/' => return Err(UriFault::EncodedSlash),
            0..=0x1f | b'\\' | 0x7f => return Err(UriFault::BadByte),
            byte => self.push(byte, is_unreserved(byte)),
        }
        Ok(())
    }

    fn push(&mut self, byte: u8, as_it_is: bool) {
        self.beyond_ascii |= byte >= 0x80;
        self.decoded.push(byte);
        if as_it_is {
            self.wire.push(byte);
        } else {
            push_percent(self.wire, byte);
        }
    }

    fn open_segment(&mut self) {
        self.decoded.push(b'/');
        self.wire.push(b'/');
        self.decoded_start = self.decoded.len();
        self.wire_start = self.wire.len();
    }

    fn end_segment(&mut self, last: bool) -> Result<(), UriFault> {
        match &self.decoded[self.decoded_start..] {
            b"" if last || self.options.merge_slashes => return Ok(()),
            b"." => {
                self.decoded.truncate(self.decoded_start);
                self.wire.truncate(self.wire_start);
                return Ok(());
            }
            b".." => {
                self.decoded_start =
                    leave_segment(self.decoded, self.decoded_start).ok_or(UriFault::AboveRoot)?;
                self.wire_start = leave_segment(self.wire, self.wire_start).ok_or(UriFault::AboveRoot)?;
                return Ok(());
            }
            segment if hides_dots(segment, self.options.keep_encoded_slash) => {
                return Err(UriFault::HiddenDots);
            }
            segment => {
                if self.options.servlet
                    && let Some(len) = memchr::memchr(b';', segment)
                {
                    if len == 0 && !last {
                        return Err(UriFault::EmptySegment);
                    }
                    self.decoded.truncate(self.decoded_start + len);
                }
            }
        }
        if !last {
            self.open_segment();
        }
        Ok(())
    }
}

/// Removes the segment that begins at `start` and the one before it; where that one began.
fn leave_segment(path: &mut Vec<u8>, start: usize) -> Option<usize> {
    let before = path.get(..start.checked_sub(1)?)?;
    let parent = memchr::memrchr(b'/', before)? + 1;
    path.truncate(parent);
    Some(parent)
}

/// Whether a segment is dots to someone who drops parameters, or who decodes a kept `%2F`.
fn hides_dots(segment: &[u8], keeps_slash: bool) -> bool {
    let is_dots = |part: &[u8]| {
        let end = memchr::memchr(b';', part).unwrap_or(part.len());
        matches!(&part[..end], b"." | b"..")
    };
    if is_dots(segment) {
        return true;
    }
    // A `%252F` reads `%2F` here, too: refusing dots beside it as well does no harm.
    keeps_slash && {
        let mut rest = segment;
        while let Some(at) = memchr::memmem::find(rest, b"%2F") {
            if is_dots(&rest[..at]) {
                return true;
            }
            rest = &rest[at + 3..];
        }
        rest.len() < segment.len() && is_dots(rest)
    }
}

/// Whether somewhere `/`, `.`, `\` or a control is written in more bytes than it needs, for a decoder that
/// does not mind. Other bytes that are not UTF-8 may well be another encoding (GBK has C0 B4), so they pass.
fn hides_ascii(path: &[u8]) -> bool {
    path.iter().enumerate().any(|(at, lead)| {
        let (len, first_bits) = match lead {
            0xc0..=0xdf => (2, lead & 0x1f),
            0xe0..=0xef => (3, lead & 0x0f),
            0xf0..=0xf7 => (4, lead & 0x07),
            0xf8..=0xfb => (5, lead & 0x03),
            0xfc..=0xfd => (6, lead & 0x01),
            _ => return false,
        };
        let Some(tail) = path.get(at + 1..at + len) else { return false };
        // Decoders that drop the upper bits of any second byte take C0 2E for a dot.
        if *lead == 0xc0 && tail == b"." {
            return true;
        }
        if tail.iter().any(|byte| byte & 0xc0 != 0x80) {
            return false;
        }
        let value =
            tail.iter().fold(u32::from(first_bits), |value, byte| value << 6 | u32::from(byte & 0x3f));
        matches!(value, 0..=0x1f | 0x2e | 0x2f | 0x5c | 0x7f)
    })
}

/// The schemes a request can come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The port where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request target, by its form (RFC 9112 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The usual one. `path` is raw and begins with a slash; an empty query is not the same as none.
    Origin { path: &'a [u8], query: Option<&'a [u8]> },
    /// `path` is `/` where none is written.
    Absolute { scheme: Scheme, authority: &'a [u8], path: &'a [u8], query: Option<&'a [u8]> },
    /// `*`, of OPTIONS only.
    Asterisk,
    /// `host:port`, of CONNECT only: the whole target.
    Authority,
}

/// Tells the form of a target. Its bytes are checked here but for what [`normalise`] checks of the path.
pub fn split(target: &[u8], method: Method) -> Result<Target<'_>, UriFault> {
    if method == Method::Connect {
        return match parse_authority(target)? {
            (_, Some(_)) => Ok(Target::Authority),
            (_, None) => Err(UriFault::BadPort),
        };
    }
    // Clients do not send fragments; who does is after a reader who cuts them off (RFC 9112 3.2).
    if target.iter().any(|byte| matches!(byte, 0..=b' ' | b'#' | 0x7f)) {
        return Err(UriFault::BadByte);
    }
    match target {
        [b'/', ..] => {
            let (path, query) = split_query(target);
            Ok(Target::Origin { path, query })
        }
        b"*" if method == Method::Options => Ok(Target::Asterisk),
        _ => split_absolute(target),
    }
}

fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn split_absolute(target: &[u8]) -> Result<Target<'_>, UriFault> {
    let at = memchr::memmem::find(target, b"://").ok_or(UriFault::BadForm)?;
    let scheme = match &target[..at] {
        http if http.eq_ignore_ascii_case(b"http") => Scheme::Http,
        https if https.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ => return Err(UriFault::BadScheme),
    };
    let rest = &target[at + 3..];
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    parse_authority(authority)?;
    let (path, query) = split_query(behind);
    Ok(Target::Absolute { scheme, authority, path: if path.is_empty() { b"/" } else { path }, query })
}

/// Reads a `Host` value or an authority: puts the host, in lower case and without a dot at its end, into
/// `host_out`, and yields the port when there is one. A host is an ASCII name, an IPv4 address of four plain
/// numbers, or an IPv6 address in brackets, which it keeps.
pub fn authority(raw: &[u8], host_out: &mut String) -> Result<Option<u16>, UriFault> {
    host_out.clear();
    let (host, port) = parse_authority(raw)?;
    host_out.push_str(std::str::from_utf8(host).map_err(|_| UriFault::BadHost)?);
    host_out.make_ascii_lowercase();
    Ok(port)
}

/// Whether two authorities are the same place, the default port of the scheme written or not. One that is
/// not valid is the same as none.
pub fn same_authority(one: &[u8], other: &[u8], scheme: Scheme) -> bool {
    let (Ok((host, port)), Ok((other_host, other_port))) = (parse_authority(one), parse_authority(other))
    else {
        return false;
    };
    let default = scheme.default_port();
    host.eq_ignore_ascii_case(other_host) && port.unwrap_or(default) == other_port.unwrap_or(default)
}

/// The valid host, without a dot at its end, and the port.
fn parse_authority(raw: &[u8]) -> Result<(&[u8], Option<u16>), UriFault> {
    if let [b'[', rest @ ..] = raw {
        let len = memchr::memchr(b']', rest).ok_or(UriFault::BadHost)?;
        let address = std::str::from_utf8(&rest[..len]).map_err(|_| UriFault::BadHost)?;
        address.parse::<Ipv6Addr>().map_err(|_| UriFault::BadHost)?;
        let port = match &rest[len + 1..] {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return Err(UriFault::BadHost),
        };
        return Ok((&raw[..len + 2], port));
    }
    let (host, port) = match memchr::memchr(b':', raw) {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    if !is_host_name(host) {
        return Err(UriFault::BadHost);
    }
    Ok((host, port.map(parse_port).transpose()?))
}

/// One to five digits without a zero in front, up to 65535.
fn parse_port(digits: &[u8]) -> Result<u16, UriFault> {
    if digits.len() > 5 || digits.first() == Some(&b'0') {
        return Err(UriFault::BadPort);
    }
    let port = parse_u64(digits).ok_or(UriFault::BadPort)?;
    u16::try_from(port).map_err(|_| UriFault::BadPort)
}

/// Bytes of a label.
const IN_LABEL: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric() || matches!(at as u8, b'-' | b'_');
        at += 1;
    }
    table
};

fn is_host_name(host: &[u8]) -> bool {
    if host.len() > HOST_BYTES_MAX {
        return false;
    }
    let mut start = 0;
    for (at, byte) in host.iter().enumerate() {
        if *byte == b'.' {
            if !fits_label(at - start) {
                return false;
            }
            start = at + 1;
        } else if !IN_LABEL[usize::from(*byte)] {
            return false;
        }
    }
    let last = &host[start..];
    fits_label(last.len()) && (!last[0].is_ascii_digit() || !is_number(last) || is_plain_address(host))
}

const fn fits_label(len: usize) -> bool {
    len >= 1 && len <= LABEL_BYTES_MAX
}

/// Whether a last label makes an address of its host to some resolvers (`127.1`, `0x7f.1`).
fn is_number(label: &[u8]) -> bool {
    let digits = label.strip_prefix(b"0x").or_else(|| label.strip_prefix(b"0X"));
    label.iter().all(u8::is_ascii_digit)
        || digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Only the form that every reader takes for the same address.
fn is_plain_address(host: &[u8]) -> bool {
    std::str::from_utf8(host).is_ok_and(|host| host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
#[path = "tests_uri.rs"]
mod tests;
