//! Heads of requests and responses, from bytes to spans.
//!
//! A head is judged by its first wrong byte, in the order of the wire, so however it is cut into segments the
//! verdict is the same. The start line is read here; header lines go through `httparse` (vectored, but it lets
//! bare LF pass), and are walked once more here to note where they are and how they end. Only when something
//! is amiss or missing does `walk` read byte by byte to say what. Allocates nothing but lines in the list.

use crate::base::text::{is_field_byte, is_tchar};
use crate::proto::h1::HeadFault;
use crate::proto::head::{HeaderId, HeaderList, Method, RequestLine, Span, StatusLine, Version};

/// Most bytes of one head, its empty line included. Worst case 32 KiB a connection while a head arrives.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of a request target: what nginx takes in one line.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most header lines of one head. Browsers send some twenty.
pub const HEADERS_MAX: usize = 100;
/// What [`HeadLimits::headers_max`] can not be raised above. Costs 8 KiB of stack once a head has many lines.
pub const HEADERS_HARD_MAX: usize = 256;

/// Lines that fit the small array on the stack, which is all that most heads need.
const HEADERS_USUAL: usize = 24;
/// No method known to anyone is longer, so a longer one is unknown without reading on.
const METHOD_BYTES_MAX: usize = 32;

/// What to do with names that have an underscore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Refuse the message.
    #[default]
    Reject,
    /// Take it as any other name.
    Keep,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Of the whole head; beyond it 431.
    pub head_bytes_max: usize,
    /// Of the request target; beyond it 414. Header lines are bounded by the head alone.
    pub line_bytes_max: usize,
    /// Beyond it 431. At most [`HEADERS_HARD_MAX`].
    pub headers_max: usize,
    pub underscores: Underscores,
}

impl HeadLimits {
    /// For requests of clients that nothing is known of.
    pub const REQUEST: Self = Self {
        head_bytes_max: HEAD_BYTES_MAX,
        line_bytes_max: LINE_BYTES_MAX,
        headers_max: HEADERS_MAX,
        underscores: Underscores::Reject,
    };

    /// For responses of upstreams: nobody guards anything by the name of a response header.
    pub const RESPONSE: Self = Self { underscores: Underscores::Keep, ..Self::REQUEST };
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::REQUEST
    }
}

/// What was found in the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    Complete(T),
    /// Nothing wrong yet, and not yet the end.
    Partial,
}

/// Where a head ends: the index behind its first empty line at or after `from`, the length that was searched
/// before (or where the head begins). An empty line with bare LF counts too, so that whoever waits for this
/// before parsing still refuses such a head at once.
///
/// Waiting for it is optional, and keeps a head of many tiny segments from being parsed once a segment: parse
/// the first bytes (garbage is refused early), then again when this finds an end, or when the head is as large
/// as it may get.
pub fn find_head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The end may have been cut in its middle by the last search.
    let from = from.saturating_sub(2).min(bytes.len());
    for at in memchr::memchr_iter(b'\n', &bytes[from..]) {
        let behind = from + at + 1;
        match &bytes[behind..] {
            [b'\n', ..] => return Some(behind + 1),
            [b'\r', b'\n', ..] => return Some(behind + 2),
            _ => {}
        }
    }
    None
}

/// Reads the head of a request which begins at `start`. Its spans are of `bytes`, and its lines are pushed to
/// `headers`, which then wants to hold the same bytes. One empty line before it is skipped (RFC 9112 2.2).
/// On a fault, lines may have been pushed: clear the list.
pub fn request(
    bytes: &[u8],
    start: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<RequestLine>, HeadFault> {
    let window = window(bytes, start, limits);
    match request_in(window, start, limits, headers)? {
        Parsed::Partial => wait_for_more(window, start, limits),
        complete => Ok(complete),
    }
}

/// Reads the head of a response which begins at `start`, as [`request`] does. No empty line before it is
/// skipped: an upstream that sends bytes out of turn has lost track of whose response is whose.
pub fn response(
    bytes: &[u8],
    start: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<StatusLine>, HeadFault> {
    let window = window(bytes, start, limits);
    match response_in(window, start, limits, headers)? {
        Parsed::Partial => wait_for_more(window, start, limits),
        complete => Ok(complete),
    }
}

/// The bytes up to where the head must have ended. What is behind is never looked at, so that it can not
/// change the verdict.
fn window<'a>(bytes: &'a [u8], start: usize, limits: &HeadLimits) -> &'a [u8] {
    &bytes[..start.saturating_add(limits.head_bytes_max).min(bytes.len())]
}

const fn wait_for_more<T>(window: &[u8], start: usize, limits: &HeadLimits) -> Result<Parsed<T>, HeadFault> {
    if window.len().saturating_sub(start) >= limits.head_bytes_max {
        return Err(HeadFault::HeadTooLarge);
    }
    Ok(Parsed::Partial)
}

fn request_in(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<RequestLine>, HeadFault> {
    let start = match window.get(start..).unwrap_or(&[]) {
        [b'\r', b'\n', ..] => start + 2,
        [] | [b'\r'] => return Ok(Parsed::Partial),
        _ => start,
    };
    let Parsed::Complete((mut line, fields_start)) = request_line(window, start, limits)? else {
        return Ok(Parsed::Partial);
    };
    let Parsed::Complete(end) = fields(window, fields_start, limits, headers)? else {
        return Ok(Parsed::Partial);
    };
    line.head = Span::new(start, end);
    Ok(Parsed::Complete(line))
}

fn response_in(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<StatusLine>, HeadFault> {
    let Parsed::Complete((mut line, fields_start)) = status_line(window, start)? else {
        return Ok(Parsed::Partial);
    };
    let Parsed::Complete(end) = fields(window, fields_start, limits, headers)? else {
        return Ok(Parsed::Partial);
    };
    line.head = Span::new(start, end);
    Ok(Parsed::Complete(line))
}

/// The request line, and where the next line begins.
fn request_line(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Parsed<(RequestLine, usize)>, HeadFault> {
    let rest = window.get(start..).unwrap_or(&[]);
    let Some(len) = rest.iter().take(METHOD_BYTES_MAX + 1).position(|byte| !is_tchar(*byte)) else {
        return if rest.len() > METHOD_BYTES_MAX {
            Err(HeadFault::MethodUnknown)
        } else {
            Ok(Parsed::Partial)
        };
    };
    match rest[len] {
        b' ' if len > 0 => {}
        b'\n' => return Err(HeadFault::BareLf),
        _ => return Err(HeadFault::BadRequestLine),
    }
    let method = Method::of(&rest[..len]).ok_or(HeadFault::MethodUnknown)?;

    let target_start = start + len + 1;
    let rest = &window[target_start..];
    let bounded = &rest[..rest.len().min(limits.line_bytes_max.saturating_add(1))];
    let Some(len) = bounded.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) else {
        let fits = rest.len() <= limits.line_bytes_max;
        return if fits { Ok(Parsed::Partial) } else { Err(HeadFault::UriTooLong) };
    };
    match rest[len] {
        b' ' if len > 0 => {}
        b'\n' => return Err(HeadFault::BareLf),
        b' ' | b'\t' | b'\r' => return Err(HeadFault::BadRequestLine),
        _ => return Err(HeadFault::BadTarget),
    }
    let target = Span::new(target_start, target_start + len);

    let version_start = target.end() + 1;
    let Parsed::Complete(version) = version(&window[version_start..])? else { return Ok(Parsed::Partial) };
    let line = RequestLine { method, version, target, head: Span::default() };
    end_of_line(window, version_start + VERSION_BYTES, HeadFault::BadRequestLine)
        .map(|parsed| with_next_line(line, parsed))
}

/// The status line, and where the next line begins. The reason may be absent, with the space before it.
fn status_line(window: &[u8], start: usize) -> Result<Parsed<(StatusLine, usize)>, HeadFault> {
    let rest = window.get(start..).unwrap_or(&[]);
    let Parsed::Complete(version) = version(rest)? else { return Ok(Parsed::Partial) };
    let mut status = 0;
    for at in 0..4 {
        match (at, rest.get(VERSION_BYTES + at)) {
            (_, None) => return Ok(Parsed::Partial),
            (0, Some(b' ')) => {}
            (1, Some(digit @ b'1'..=b'9')) | (2..4, Some(digit @ b'0'..=b'9')) => {
                status = status * 10 + u16::from(digit - b'0');
            }
            (_, Some(b'\n')) => return Err(HeadFault::BareLf),
            _ => return Err(HeadFault::BadStatusLine),
        }
    }
    let mut reason_start = start + VERSION_BYTES + 4;
    if window.get(reason_start) == Some(&b' ') {
        reason_start += 1;
    }
    let rest = &window[reason_start..];
    let spaced = window[reason_start - 1] == b' ';
    let len = if spaced { rest.iter().position(|byte| !is_field_byte(*byte)) } else { Some(0) };
    let Some(len) = len else { return Ok(Parsed::Partial) };
    let reason = Span::new(reason_start, reason_start + len);
    let line = StatusLine { status, version, reason, head: Span::default() };
    end_of_line(window, reason.end(), HeadFault::BadStatusLine).map(|parsed| with_next_line(line, parsed))
}

const fn with_next_line<T: Copy>(line: T, next: Parsed<usize>) -> Parsed<(T, usize)> {
    match next {
        Parsed::Complete(next) => Parsed::Complete((line, next)),
        Parsed::Partial => Parsed::Partial,
    }
}

/// Length of `HTTP/1.1`.
const VERSION_BYTES: usize = 8;

fn version(rest: &[u8]) -> Result<Parsed<Version>, HeadFault> {
    if rest.starts_with(b"HTTP/1.1") {
        return Ok(Parsed::Complete(Version::Http11));
    }
    for (at, byte) in rest.iter().take(VERSION_BYTES).enumerate() {
        let fits = match at {
            5 | 7 => byte.is_ascii_digit(),
            _ => *byte == b"HTTP/_._"[at],
        };
        if !fits {
            return Err(if *byte == b'\n' { HeadFault::BareLf } else { HeadFault::BadVersion });
        }
    }
    match (rest.get(5), rest.get(7)) {
        (_, None) => Ok(Parsed::Partial),
        (Some(b'1'), Some(b'0')) => Ok(Parsed::Complete(Version::Http10)),
        // RFC 9110 2.5: a higher minor version is understood as the highest that we know.
        (Some(b'1'), Some(_)) => Ok(Parsed::Complete(Version::Http11)),
        _ => Err(HeadFault::VersionUnsupported),
    }
}

/// Where the line behind the CRLF at `at` begins; `otherwise` when something else is there.
fn end_of_line(window: &[u8], at: usize, otherwise: HeadFault) -> Result<Parsed<usize>, HeadFault> {
    match window.get(at..).unwrap_or(&[]) {
        [b'\r', b'\n', ..] => Ok(Parsed::Complete(at + 2)),
        [] | [b'\r'] => Ok(Parsed::Partial),
        [b'\r', ..] => Err(HeadFault::BareCr),
        [b'\n', ..] => Err(HeadFault::BareLf),
        _ => Err(otherwise),
    }
}

/// Reads header lines from `from` on and pushes them; where the head ends.
fn fields(
    window: &[u8],
    from: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<usize>, HeadFault> {
    match fields_within::<HEADERS_USUAL>(window, from, limits, headers) {
        Fields::Noted(end) => Ok(Parsed::Complete(end)),
        Fields::TooMany if limits.headers_max > HEADERS_USUAL => many_fields(window, from, limits, headers),
        Fields::TooMany | Fields::Amiss => walk(window, from, limits),
    }
}

/// Kept apart so that its array is not on everybody's stack.
#[cold]
#[inline(never)]
fn many_fields(
    window: &[u8],
    from: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Result<Parsed<usize>, HeadFault> {
    match fields_within::<HEADERS_HARD_MAX>(window, from, limits, headers) {
        Fields::Noted(end) => Ok(Parsed::Complete(end)),
        Fields::TooMany | Fields::Amiss => walk(window, from, limits),
    }
}

enum Fields {
    /// All is well, and this is where it ends.
    Noted(usize),
    /// More than the array holds.
    TooMany,
    /// Something is wrong or missing.
    Amiss,
}

#[inline]
fn fields_within<const N: usize>(
    window: &[u8],
    from: usize,
    limits: &HeadLimits,
    headers: &mut HeaderList,
) -> Fields {
    let mut lines = [httparse::EMPTY_HEADER; N];
    match httparse::parse_headers(&window[from..], &mut lines) {
        Ok(httparse::Status::Complete((_, lines)))
            if lines.len() <= limits.headers_max.min(HEADERS_HARD_MAX) =>
        {
            note(window, from, lines, limits.underscores, headers).map_or(Fields::Amiss, Fields::Noted)
        }
        Err(httparse::Error::TooManyHeaders) => Fields::TooMany,
        Ok(_) | Err(_) => Fields::Amiss,
    }
}

/// Follows parsed lines through the bytes and pushes them. `None` when one does not end in CRLF, or has a
/// name that is not wanted.
fn note(
    window: &[u8],
    from: usize,
    lines: &[httparse::Header<'_>],
    underscores: Underscores,
    headers: &mut HeaderList,
) -> Option<usize> {
    let mut at = from;
    for line in lines {
        let name = line.name.as_bytes();
        let id = HeaderId::of(name);
        // No known name has one.
        if id == HeaderId::Other && underscores == Underscores::Reject && name.contains(&b'_') {
            return None;
        }
        let name_end = at + name.len();
        let (mut value_start, mut line_end) = (name_end + 2, name_end + 2 + line.value.len());
        let plain = window.get(name_end + 1) == Some(&b' ')
            && window.get(line_end..line_end + 2) == Some(b"\r\n")
            && !matches!(line.value, [] | [b' ' | b'\t', ..]);
        if !plain {
            value_start = skip_ows(window, name_end + 1);
            line_end = skip_ows(window, value_start + line.value.len());
            if !window.get(line_end..)?.starts_with(b"\r\n") {
                return None;
            }
        }
        let value_end = value_start + line.value.len();
        headers.push_received(Span::new(at, name_end), Span::new(value_start, value_end), id, plain);
        at = line_end + 2;
    }
    window.get(at..)?.starts_with(b"\r\n").then_some(at + 2)
}

fn skip_ows(window: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t') = window.get(at) {
        at += 1;
    }
    at
}

/// Reads header lines byte by byte and says what is wrong with the first wrong byte, if there is one. Never
/// completes: a head that is whole and well has been noted before this is asked.
#[cold]
fn walk(window: &[u8], from: usize, limits: &HeadLimits) -> Result<Parsed<usize>, HeadFault> {
    let mut at = from;
    let mut count = 0;
    loop {
        match window.get(at..).unwrap_or(&[]) {
            [] | [b'\r'] => return Ok(Parsed::Partial),
            [b'\r', b'\n', ..] => return Err(HeadFault::BadHeaderName),
            [b'\r', ..] => return Err(HeadFault::BareCr),
            [b'\n', ..] => return Err(HeadFault::BareLf),
            [b' ' | b'\t', ..] => return Err(HeadFault::FoldedLine),
            [b':', ..] => return Err(HeadFault::BadHeaderName),
            _ if count >= limits.headers_max.min(HEADERS_HARD_MAX) => return Err(HeadFault::TooManyHeaders),
            _ => {}
        }
        let name_fits =
            |byte: u8| is_tchar(byte) && (byte != b'_' || limits.underscores == Underscores::Keep);
        let Some(len) = window[at..].iter().position(|byte| !name_fits(*byte)) else {
            return Ok(Parsed::Partial);
        };
        at += len;
        match window[at] {
            b':' => at += 1,
            b'_' => return Err(HeadFault::UnderscoreInName),
            b'\n' => return Err(HeadFault::BareLf),
            b'\r' => return Err(HeadFault::HeaderWithoutColon),
            _ => return Err(HeadFault::BadHeaderName),
        }
        let Some(len) = window[at..].iter().position(|byte| !is_field_byte(*byte)) else {
            return Ok(Parsed::Partial);
        };
        let Parsed::Complete(next) = end_of_line(window, at + len, HeadFault::BadHeaderValue)? else {
            return Ok(Parsed::Partial);
        };
        (at, count) = (next, count + 1);
    }
}
