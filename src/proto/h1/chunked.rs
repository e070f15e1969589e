//! Chunked bodies (RFC 9112 7.1), taken apart in place and by any cut.
//!
//! The caller hands over each received slice; the decoder moves the data it finds to the front and says how
//! much there is, so nothing is copied elsewhere and a slice that is all data is not even touched. Extensions
//! are checked and dropped, trailers kept raw up to a bound. Strict: CRLF only, no white space, no sign; the
//! grammar is that of the RFC without its "bad" white space.
//!
//! ```text
//! Size -> (Extension) -> SizeEnd -> Data -> DataCr -> DataLf -> Size …
//!                        `- size 0 -> TrailerStart -> (Trailer* -> TrailerStart) -> LastLf -> Done
//! ```

use crate::base::text::{comma_list, hex_value, is_field_byte, is_tchar, trim_ows};
use crate::proto::head::HeaderId;

/// Most digits of a size: more do not fit 64 bits.
pub const SIZE_DIGITS_MAX: u8 = 16;
/// Most bytes of extensions in one message: they carry nothing anybody reads.
pub const EXTENSION_BYTES_MAX: u16 = 4 * 1024;
/// Most bytes of the trailer section. Worst case 8 KiB an exchange, held only when there is one.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// What ends a body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Why a chunked body is refused: 400 when it is a request's; a response's is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkFault {
    /// No digit, too many, or another byte among them.
    BadSize,
    BadExtension,
    ExtensionTooLarge,
    /// CR without LF, or LF without CR.
    BadLineEnd,
    /// More data than the size said, or less.
    DataOverrun,
    BadTrailer,
    TrailerTooLarge,
}

impl ChunkFault {
    /// One stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadSize => "bad_chunk_size",
            Self::BadExtension => "bad_chunk_extension",
            Self::ExtensionTooLarge => "chunk_extension_too_large",
            Self::BadLineEnd => "bad_chunk_line_end",
            Self::DataOverrun => "chunk_data_overrun",
            Self::BadTrailer => "bad_trailer",
            Self::TrailerTooLarge => "trailer_too_large",
        }
    }
}

/// What became of one slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// So many bytes of data now lie at the front.
    pub data: usize,
    /// So many bytes were taken: all, unless `done`; the rest belong to the next message. They stay where
    /// they were.
    pub consumed: usize,
    /// The body is complete, trailers included.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Behind `;`, before the first byte of a name.
    ExtensionStart,
    ExtensionName,
    /// Behind `=`, before the value.
    ExtensionValueStart,
    ExtensionValue,
    Quoted,
    QuotedEscape,
    QuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// The names and trimmed values in a trailer section.
pub fn fields_of(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let value = line[colon + 1..].strip_suffix(b"\r")?;
        Some((&line[..colon], trim_ows(value)))
    })
}

/// Takes one chunked body apart.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    digits: u8,
    extension_bytes: u16,
    /// While in `Size`, the size so far; while in `Data`, how much is still to come.
    remaining: u64,
    trailers: Vec<u8>,
}

impl Decoder {
    /// Ready for another body; keeps the memory.
    pub fn reset(&mut self) {
        let mut trailers = std::mem::take(&mut self.trailers);
        trailers.clear();
        *self = Self { trailers, ..Self::default() };
    }

    /// Takes the next received bytes, see [`Step`]. After a fault the body is lost: do not go on.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Step, ChunkFault> {
        let (mut at, mut data) = (0, 0);
        while at < bytes.len() && self.state != State::Done {
            if self.state != State::Data {
                self.take(bytes[at])?;
                at += 1;
                continue;
            }
            let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
            if data != at {
                bytes.copy_within(at..at + len, data);
            }
            (at, data) = (at + len, data + len);
            self.remaining -= len as u64;
            if self.remaining == 0 {
                self.state = State::DataCr;
            }
        }
        Ok(Step { data, consumed: at, done: self.is_done() })
    }

    /// Whether the body is complete. When the connection ends before, the message was cut off.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer section as received, a line `name:value\r\n` each; empty when there was none. Forward only
    /// what [`allowed_trailer`] allows.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// The trailers as names and trimmed values.
    pub fn trailer_fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields_of(&self.trailers)
    }

    /// One byte outside of data.
    fn take(&mut self, byte: u8) -> Result<(), ChunkFault> {
        self.state = match self.state {
            State::Size => self.size(byte)?,
            State::ExtensionStart
            | State::ExtensionName
            | State::ExtensionValueStart
            | State::ExtensionValue
            | State::Quoted
            | State::QuotedEscape
            | State::QuotedEnd => self.extension(byte)?,
            State::SizeLf => match byte {
                b'\n' if self.remaining == 0 => State::TrailerStart,
                b'\n' => State::Data,
                _ => return Err(ChunkFault::BadLineEnd),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataCr => return Err(ChunkFault::DataOverrun),
            State::DataLf if byte == b'\n' => {
                self.digits = 0;
                State::Size
            }
            State::DataLf => return Err(ChunkFault::BadLineEnd),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.trailer(byte)?
            }
            State::LastLf if byte == b'\n' => State::Done,
            State::LastLf => return Err(ChunkFault::BadLineEnd),
            state @ (State::Data | State::Done) => state,
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<State, ChunkFault> {
        if let Some(digit) = hex_value(byte) {
            if self.digits == SIZE_DIGITS_MAX {
                return Err(ChunkFault::BadSize);
            }
            let before = if self.digits == 0 { 0 } else { self.remaining };
            self.remaining = before << 4 | u64::from(digit);
            self.digits += 1;
            return Ok(State::Size);
        }
        match byte {
            _ if self.digits == 0 => Err(ChunkFault::BadSize),
            b'\r' => Ok(State::SizeLf),
            b';' => {
                self.count_extension()?;
                Ok(State::ExtensionStart)
            }
            b'\n' => Err(ChunkFault::BadLineEnd),
            _ => Err(ChunkFault::BadSize),
        }
    }

    const fn count_extension(&mut self) -> Result<(), ChunkFault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(ChunkFault::ExtensionTooLarge) } else { Ok(()) }
    }

    fn extension(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let next = match (self.state, byte) {
            (State::ExtensionStart | State::ExtensionName, byte) if is_tchar(byte) => State::ExtensionName,
            (State::ExtensionName, b'=') => State::ExtensionValueStart,
            (State::ExtensionValueStart, b'"') => State::Quoted,
            (State::ExtensionValueStart | State::ExtensionValue, byte) if is_tchar(byte) => {
                State::ExtensionValue
            }
            (State::Quoted, b'"') => State::QuotedEnd,
            (State::Quoted, b'\\') => State::QuotedEscape,
            (State::Quoted | State::QuotedEscape, byte) if is_field_byte(byte) => State::Quoted,
            (State::ExtensionName | State::ExtensionValue | State::QuotedEnd, b';') => State::ExtensionStart,
            (State::ExtensionName | State::ExtensionValue | State::QuotedEnd, b'\r') => {
                return Ok(State::SizeLf);
            }
            (_, b'\n') => return Err(ChunkFault::BadLineEnd),
            _ => return Err(ChunkFault::BadExtension),
        };
        self.count_extension()?;
        Ok(next)
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let next = match (self.state, byte) {
            (State::TrailerStart, b'\r') => return Ok(State::LastLf),
            (State::TrailerStart | State::TrailerName, byte) if is_tchar(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, byte) if is_field_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::TrailerLf, _) | (_, b'\n') => return Err(ChunkFault::BadLineEnd),
            _ => return Err(ChunkFault::BadTrailer),
        };
        if self.trailers.len() == TRAILER_BYTES_MAX {
            return Err(ChunkFault::TrailerTooLarge);
        }
        self.trailers.push(byte);
        Ok(next)
    }
}

/// Whether a trailer of this name may be forwarded. What frames, routes, identifies, or says how to read the
/// content must have been known before the body, so it has no business here (RFC 9110 6.5.1).
pub fn allowed_trailer(name: &[u8]) -> bool {
    const REFUSED_PREFIXES: [&[u8]; 6] =
        [b"x-forwarded-", b"x-consumer-", b"x-credential-", b"content-", b"proxy-", b"if-"];
    const REFUSED: &[&[u8]] = &[
        b"accept-encoding",
        b"age",
        b"cache-control",
        b"expires",
        b"keep-alive",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"upgrade",
        b"vary",
        b"via",
        b"www-authenticate",
    ];
    // An underscore would make it an alias of a refused name behind some origins.
    if name.contains(&b'_') || REFUSED_PREFIXES.iter().any(|prefix| starts_with_ignoring_case(name, prefix)) {
        return false;
    }
    match HeaderId::of(name) {
        HeaderId::Other => !REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(name)),
        HeaderId::Etag
        | HeaderId::LastModified
        | HeaderId::Server
        | HeaderId::XRatelimitLimit
        | HeaderId::XRatelimitRemaining
        | HeaderId::XRatelimitReset => true,
        _ => false,
    }
}

fn starts_with_ignoring_case(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether a `TE` value says that its sender reads trailers.
pub fn accepts_trailers(te: &[u8]) -> bool {
    comma_list(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Appends the line before a chunk of `len` bytes. Behind the data comes CRLF. Not for `len` 0, which would
/// end the body: see [`LAST_CHUNK`].
pub fn write_size(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "a chunk of no bytes ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(DIGITS[len >> (place * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}
