//! Where an HTTP/1.1 body ends. Bodies are counted, not kept.

use httparse::Header;

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Done,
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Digits of a size; an extension is passed over up to its line's end.
    Size {
        value: u64,
        extension: bool,
    },
    Data(u64),
    /// The line end behind a chunk's data.
    End,
    /// Trailers: how many bytes the present line has. An empty line ends the body.
    Trailer(u32),
}

/// A body that can not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A chunk beyond this is a fault of whoever sent it.
const CHUNK_BYTES_MAX: u64 = 1 << 40;

impl Body {
    /// The framing that a message's headers ask for; `absent` is what their silence means.
    pub fn of(headers: &[Header<'_>], absent: Self) -> Result<Self, Malformed> {
        let mut body = absent;
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).map_err(|_| Malformed)?;
                body = match text.trim().parse().map_err(|_| Malformed)? {
                    0 => Self::Done,
                    length => Self::Length(length),
                };
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Ok(Self::Chunked(Chunk::Size { value: 0, extension: false }));
            }
        }
        Ok(body)
    }

    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Takes what belongs to the body and says how many bytes that was.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match *self {
            Self::Done => Ok(0),
            Self::UntilClose => Ok(bytes.len()),
            Self::Length(left) => {
                let taken = left.min(bytes.len() as u64);
                *self = if taken == left { Self::Done } else { Self::Length(left - taken) };
                Ok(taken as usize)
            }
            Self::Chunked(_) => self.take_chunks(bytes),
        }
    }

    fn take_chunks(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while let (Self::Chunked(chunk), Some(&byte)) = (*self, bytes.get(at)) {
            let next = match chunk {
                Chunk::Data(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    *self = Self::Chunked(if taken == left { Chunk::End } else { Chunk::Data(left - taken) });
                    continue;
                }
                Chunk::Size { value, extension } => match byte {
                    b'\n' if value == 0 => Chunk::Trailer(0),
                    b'\n' => Chunk::Data(value),
                    b'\r' | b';' => Chunk::Size { value, extension: true },
                    _ if extension => chunk,
                    _ => {
                        let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                        let value = value * 16 + u64::from(digit);
                        if value > CHUNK_BYTES_MAX {
                            return Err(Malformed);
                        }
                        Chunk::Size { value, extension }
                    }
                },
                Chunk::End => match byte {
                    b'\r' => Chunk::End,
                    b'\n' => Chunk::Size { value: 0, extension: false },
                    _ => return Err(Malformed),
                },
                Chunk::Trailer(0) if byte == b'\n' => {
                    *self = Self::Done;
                    return Ok(at + 1);
                }
                Chunk::Trailer(_) if byte == b'\n' => Chunk::Trailer(0),
                Chunk::Trailer(line) if byte == b'\r' => Chunk::Trailer(line),
                Chunk::Trailer(line) => Chunk::Trailer(line.saturating_add(1)),
            };
            *self = Self::Chunked(next);
            at += 1;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: Body = Body::Chunked(Chunk::Size { value: 0, extension: false });

    #[track_caller]
    fn check(mut body: Body, bytes: &str, expect: Result<(usize, bool), Malformed>) {
        let whole = body.take(bytes.as_bytes());
        assert_eq!(whole.map(|taken| (taken, body.is_done())), expect);
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        check(Body::Length(3), "abcd", Ok((3, true)));
        check(Body::Length(5), "abcd", Ok((4, false)));
        check(Body::UntilClose, "abcd", Ok((4, false)));
        check(CHUNKED, "3\r\nabc\r\n0\r\n\r\nHTTP", Ok((13, true)));
        check(CHUNKED, "3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", Ok((23, true)));
        check(CHUNKED, "3\r\nabcd", Err(Malformed));
        check(CHUNKED, "g\r\n", Err(Malformed));
        check(CHUNKED, "fffffffffffffffff\r\n", Err(Malformed));
    }

    #[test]
    fn a_chunked_body_may_arrive_byte_by_byte() {
        let mut body = CHUNKED;
        for byte in b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n" {
            assert!(!body.is_done());
            assert_eq!(body.take(&[*byte]), Ok(1));
        }
        assert!(body.is_done());
    }
}
