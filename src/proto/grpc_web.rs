//! gRPC-Web (github.com/grpc/grpc, doc/PROTOCOL-WEB.md): what of gRPC a browser can say and hear. Messages are those of gRPC,
//! in base64 for browsers that take text alone, and the trailers are one more frame of the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::grpc::Messages;

/// The first byte of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// Which of its forms a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Binary,
    BinaryProto,
    Text,
    TextProto,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Binary, Self::BinaryProto, Self::Text, Self::TextProto];

    /// What a content type says; its parameters mean nothing.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        Self::ALL.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes()))
    }

    /// The content type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::BinaryProto => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text",
            Self::TextProto => "application/grpc-web-text+proto",
        }
    }

    /// Whether bodies are in base64.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::TextProto)
    }
}

/// A body of messages in base64, as it passes. A message's end goes out with the message, so that whoever waits for it has
/// it: what is left of three bytes there is padded, as the protocol allows anywhere.
#[derive(Debug, Default)]
pub struct TextEncoder {
    messages: Messages,
    carry: [u8; 2],
    carried: usize,
}

impl TextEncoder {
    /// Appends what can be said of the bytes by now.
    pub fn encode(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (count, ends) = self.messages.advance(bytes);
            self.push(&bytes[..count], out);
            if ends {
                self.finish(out);
            }
            bytes = &bytes[count..];
        }
    }

    /// Appends what is left.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        append(&self.carry[..std::mem::take(&mut self.carried)], out);
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if self.carried > 0 {
            let wanted = 3 - self.carried;
            if bytes.len() >= wanted {
                let mut group = [self.carry[0], self.carry[1], 0];
                group[self.carried..].copy_from_slice(&bytes[..wanted]);
                append(&group, out);
                self.carried = 0;
                bytes = &bytes[wanted..];
            }
        }
        let whole = if self.carried > 0 { 0 } else { bytes.len() / 3 * 3 };
        append(&bytes[..whole], out);
        for byte in &bytes[whole..] {
            self.carry[self.carried] = *byte;
            self.carried += 1;
        }
    }
}

/// Appends bytes in base64.
fn append(bytes: &[u8], out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    // The room is that of its result.
    let written = STANDARD.encode_slice(bytes, &mut out[from..]).unwrap_or(0);
    out.truncate(from + written);
}

/// The bytes of a body in base64, which may be padded wherever a client began anew; `None` when it is none.
pub fn decode_text(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    while !text.is_empty() {
        let end = memchr::memchr(b'=', text).map_or(text.len(), |at| (at / 4 + 1) * 4);
        STANDARD.decode_vec(text.get(..end)?, &mut out).ok()?;
        text = &text[end..];
    }
    Some(out)
}

/// Appends the frame of trailers, of which the status is one.
pub fn write_trailers<'a>(
    out: &mut Vec<u8>,
    status: &[u8],
    message: &[u8],
    others: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) {
    let from = out.len();
    out.extend_from_slice(&[TRAILERS, 0, 0, 0, 0]);
    let mut line = |name: &[u8], value: &[u8]| {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    line(b"grpc-status", status);
    line(b"grpc-message", message);
    others.for_each(|(name, value)| line(name, value));
    let length = u32::try_from(out.len() - from - 5).unwrap_or(u32::MAX);
    out[from + 1..from + 5].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_text_is_the_same_however_it_came() {
        let messages: Vec<u8> = (0..7_usize)
            .flat_map(|len| [&[0, 0, 0, 0, len as u8][..], &b"abcdefg"[..len]].concat())
            .collect();
        for piece in 1..=messages.len() {
            let (mut encoder, mut text) = (TextEncoder::default(), Vec::new());
            for piece in messages.chunks(piece) {
                encoder.encode(piece, &mut text);
            }
            let said = text.len();
            encoder.finish(&mut text);
            assert_eq!(said, text.len(), "whole messages leave nothing behind");
            assert_eq!(decode_text(&text).as_deref(), Some(&messages[..]), "pieces of {piece}");
        }
    }

    #[test]
    fn padding_may_stand_anywhere_and_nothing_else() {
        assert_eq!(decode_text(b"QQ==QkM=REVG").as_deref(), Some(&b"ABCDEF"[..]));
        assert_eq!(decode_text(b"").as_deref(), Some(&b""[..]));
        for text in ["Q", "QQ", "QQ=", "=QQQ", "QQ==Q", "QQ==\n", "Q===", "QQ=Q", "QQ=!", "====", "QR=="] {
            assert_eq!(decode_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut out = b"x".to_vec();
        write_trailers(&mut out, b"0", b"", [(&b"X-A"[..], &b"1"[..])].into_iter());
        assert_eq!(out, b"x\x80\0\0\0\x25grpc-status:0\r\ngrpc-message:\r\nx-a:1\r\n");
    }

    #[test]
    fn content_types_are_told_apart() {
        assert_eq!(Kind::of(b"application/grpc-web"), Some(Kind::Binary));
        assert_eq!(Kind::of(b"Application/gRPC-Web-Text+proto; charset=utf-8"), Some(Kind::TextProto));
        for other in ["application/grpc", "application/grpc-web+json", "application/grpc-webx", ""] {
            assert_eq!(Kind::of(other.as_bytes()), None, "{other}");
        }
    }
}
