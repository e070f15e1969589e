//! What gRPC says over HTTP (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md): the frame of messages, the form of a status's text,
//! and which statuses of HTTP and of gRPC go for each other.

use crate::base::text::hex_value;

/// Before each message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;
/// Bytes of an answer's body that are passed on as a status's message.
pub const MESSAGE_BYTES_MAX: usize = 256;

/// UNKNOWN, of an answer that lacks a status.
pub const UNKNOWN: u16 = 2;

/// DEADLINE_EXCEEDED.
pub const DEADLINE: u16 = 4;

/// Whether a content type is that of a call, not of what a browser makes in its place.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    content_type.len() >= NAME.len()
        && content_type[..NAME.len()].eq_ignore_ascii_case(NAME)
        && matches!(content_type.get(NAME.len()), None | Some(b'+' | b';' | b' '))
}

/// RESOURCE_EXHAUSTED: what a limit refuses, as those who offer gRPC behind limits answer.
pub const EXHAUSTED: u16 = 8;

/// The status of gRPC for one of HTTP that is not of gRPC's making (doc/http-grpc-status-mapping.md).
pub const fn code_of(status: u16) -> u16 {
    match status {
        200..=299 => 0,
        // INTERNAL: no call of gRPC is malformed by itself.
        400 | 431 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        413 | 429 => EXHAUSTED,
        408 | 504 => DEADLINE,
        499 => 1,
        502 | 503 => 14,
        _ => UNKNOWN,
    }
}

/// The status of HTTP for one of gRPC that is no success, as APISIX has it.
pub fn status_of(code: &[u8]) -> u16 {
    match code {
        b"1" => 499,
        b"2" | b"13" | b"15" => 500,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 599,
    }
}

/// The message that an answer of HTTP becomes: its body, if that is a short text.
pub fn message_of(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    (!text.is_empty() && body.len() <= MESSAGE_BYTES_MAX && !text.starts_with('<')).then_some(text)
}

/// As `grpc-message` wants it: everything but visible ASCII, and the percent sign, as percent and digits.
pub fn escaped(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            let digits = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
    }
    out
}

/// The text of a `grpc-message`. What is no escape stays as it is, as the specification wants it.
pub fn unescaped(message: &[u8]) -> String {
    let mut out = Vec::with_capacity(message.len());
    let mut at = 0;
    while let Some(byte) = message.get(at) {
        let digit = |at: usize| message.get(at).copied().and_then(hex_value);
        if *byte == b'%'
            && let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2))
        {
            out.push(high << 4 | low);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Follows the messages in bytes that pass by, however they are cut.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX_BYTES],
    seen: usize,
    left: usize,
}

impl Messages {
    /// How many of the bytes belong to the message under way, and whether it ends with them. Takes at least one byte of any.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        if self.seen < PREFIX_BYTES {
            taken = (PREFIX_BYTES - self.seen).min(bytes.len());
            self.prefix[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            if self.seen < PREFIX_BYTES {
                return (taken, false);
            }
            let [_, length @ ..] = self.prefix;
            self.left = u32::from_be_bytes(length) as usize;
        }
        let data = self.left.min(bytes.len() - taken);
        self.left -= data;
        let ends = self.left == 0;
        if ends {
            self.seen = 0;
        }
        (taken + data, ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_unescaped_as_it_was_escaped() {
        for text in ["", "plain", "100 % \u{e9}\n", "%zz %4"] {
            assert_eq!(unescaped(&escaped(text)), text);
        }
        assert_eq!(unescaped(b"a%20b%zz%4%C3%A9%"), "a b%zz%4\u{e9}%");
        assert_eq!(unescaped(b"%ff"), "\u{fffd}");
    }

    #[test]
    fn messages_are_followed_by_any_cut() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\x01\0\0\0\x01x";
        for piece in 1..=bytes.len() {
            let (mut messages, mut at, mut ends) = (Messages::default(), 0, Vec::new());
            for piece in bytes.chunks(piece) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let (taken, end) = messages.advance(rest);
                    at += taken;
                    rest = &rest[taken..];
                    if end {
                        ends.push(at);
                    }
                }
            }
            assert_eq!(ends, [8, 13, 19], "pieces of {piece}");
        }
    }

    #[test]
    fn content_types_of_calls_are_known() {
        for kind in
            ["application/grpc", "application/grpc+proto", "Application/GRPC;x=y", "application/grpc ; a=b"]
        {
            assert!(is_grpc(kind.as_bytes()), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!is_grpc(kind.as_bytes()), "{kind}");
        }
    }
}
