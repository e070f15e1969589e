//! What a client of LDAP needs to ask whether a password is somebody's: simple binds (RFC 4511 4.2), and names (RFC 4514).
//!
//! Of BER only what these messages are made of is read, each part with a bound. What is otherwise is a fault, after which nothing on
//! that connection can be trusted.

use std::borrow::Cow;

/// Bytes of one message of a server. One that answers a bind has a code and, at most, a sentence.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const EXTENDED_RESPONSE: u8 = 0x78;
/// A password, among the ways to say who one is.
const SIMPLE: u8 = 0x80;
const VERSION: u8 = 3;

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// What came of the bind with this number: a result code, 0 for success.
    Bound { id: u32, code: u32 },
    /// It goes (RFC 4511 4.4.1).
    Leaves,
}

/// Bytes that are no message of those that a bind is answered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLdap;

/// Appends a request to be bound to a name.
pub fn write_bind(out: &mut Vec<u8>, id: u8, name: &[u8], password: &[u8]) {
    let mut bind = vec![INTEGER, 1, VERSION];
    write_part(&mut bind, OCTETS, name);
    write_part(&mut bind, SIMPLE, password);
    let mut message = vec![INTEGER, 1, id & 0x7f];
    write_part(&mut message, BIND_REQUEST, &bind);
    write_part(out, SEQUENCE, &message);
}

fn write_part(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count().min(length.len() - 1);
    let length = &length[zeros..];
    if length.len() > 1 || length[0] > 0x7f {
        out.push(0x80 | length.len() as u8);
    }
    out.extend_from_slice(length);
    out.extend_from_slice(content);
}

/// The first message, and its length; `None` while it is not all there.
///
/// # Errors
/// When it can not become one.
pub fn parse(bytes: &[u8]) -> Result<Option<(Said, usize)>, NotLdap> {
    let Some((content, length)) = part(bytes, SEQUENCE)? else {
        return if bytes.len() < MESSAGE_BYTES_MAX { Ok(None) } else { Err(NotLdap) };
    };
    let (id, behind) = number(content, INTEGER)?;
    match behind.first() {
        Some(&BIND_RESPONSE) => {
            let (response, _) = part(behind, BIND_RESPONSE)?.ok_or(NotLdap)?;
            let (code, _) = number(response, ENUMERATED)?;
            Ok(Some((Said::Bound { id, code }, length)))
        }
        // Nobody has asked for it, so it is the notice.
        Some(&EXTENDED_RESPONSE) if id == 0 => Ok(Some((Said::Leaves, length))),
        _ => Err(NotLdap),
    }
}

/// The content of the part in front, and the length of it all; `None` while it is not all there.
fn part(bytes: &[u8], tag: u8) -> Result<Option<(&[u8], usize)>, NotLdap> {
    match bytes.first() {
        None => return Ok(None),
        Some(found) if *found != tag => return Err(NotLdap),
        Some(_) => {}
    }
    let (start, length) = match bytes.get(1) {
        None => return Ok(None),
        Some(short @ 0..=0x7f) => (2, usize::from(*short)),
        // As many bytes of a length, of which four are enough; the form without one is not LDAP's.
        Some(long @ 0x81..=0x84) => {
            let end = 2 + usize::from(long & 0x7f);
            let Some(digits) = bytes.get(2..end) else { return Ok(None) };
            (end, digits.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)))
        }
        Some(_) => return Err(NotLdap),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(NotLdap);
    }
    Ok(bytes.get(start..start + length).map(|content| (content, start + length)))
}

/// The number in front, and what is behind it.
fn number(bytes: &[u8], tag: u8) -> Result<(u32, &[u8]), NotLdap> {
    let (digits, length) = part(bytes, tag)?.ok_or(NotLdap)?;
    match digits {
        // Of numbers below zero LDAP has none.
        [0..=0x7f, rest @ ..] if rest.len() < 4 => {
            let number = digits.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            Ok((number, &bytes[length..]))
        }
        _ => Err(NotLdap),
    }
}

/// A value as it stands in a name, so that it is nothing but a value there (RFC 4514 2.4).
pub fn escaped(value: &str) -> Cow<'_, str> {
    let last = value.chars().count().saturating_sub(1);
    let is_special = |(at, char): (usize, char)| match char {
        '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '\0' => true,
        ' ' => at == 0 || at == last,
        '#' => at == 0,
        _ => false,
    };
    if !value.chars().enumerate().any(is_special) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 8);
    for (at, char) in value.chars().enumerate() {
        match char {
            '\0' => out.push_str("\\00"),
            char if is_special((at, char)) => out.extend(['\\', char]),
            char => out.push(char),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As slapd says it: success, nothing behind it.
    const BOUND: &[u8] = &[0x30, 12, 2, 1, 1, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0];

    #[test]
    fn a_bind_is_what_the_standard_says() {
        let mut out = Vec::new();
        write_bind(&mut out, 1, b"cn=a", b"pw");
        assert_eq!(
            out,
            [&[0x30, 18, 2, 1, 1, 0x60, 13, 2, 1, 3, 4, 4][..], b"cn=a", &[0x80, 2], b"pw"].concat()
        );
        for (length, form) in
            [(127, &[127][..]), (128, &[0x81, 128]), (300, &[0x82, 1, 44]), (70_000, &[0x83, 1, 17, 112])]
        {
            let mut out = Vec::new();
            write_part(&mut out, OCTETS, &vec![b'x'; length]);
            assert_eq!((&out[1..=form.len()], out.len()), (form, 1 + form.len() + length));
        }
    }

    #[test]
    fn an_answer_is_read_when_it_is_all_there() {
        for end in 0..BOUND.len() {
            assert_eq!(parse(&BOUND[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(parse(BOUND), Ok(Some((Said::Bound { id: 1, code: 0 }, BOUND.len()))));
        let longer = [&[0x30, 0x84, 0, 0, 0, 12][..], &BOUND[2..], b"next"].concat();
        assert_eq!(parse(&longer), Ok(Some((Said::Bound { id: 1, code: 0 }, 18))));
        let refused = [0x30, 12, 2, 1, 7, 0x61, 7, 0x0a, 1, 49, 4, 0, 4, 0];
        assert_eq!(parse(&refused), Ok(Some((Said::Bound { id: 7, code: 49 }, 14))));
        let notice = [0x30, 12, 2, 1, 0, 0x78, 7, 0x0a, 1, 52, 4, 0, 4, 0];
        assert_eq!(parse(&notice), Ok(Some((Said::Leaves, 14))));
    }

    #[test]
    fn what_is_no_answer_to_a_bind_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = BOUND.to_vec();
            bytes[at] = byte;
            bytes
        };
        for (wrong, why) in [
            (b"HTTP/1.1 400".to_vec(), "another protocol"),
            (with(1, 0x80), "no length"),
            (vec![0x30, 0x85, 0, 0, 0, 0, 12], "a length of five bytes"),
            (vec![0x30, 0x82, 0xff, 0xff], "too long"),
            (with(2, 4), "no number"),
            (with(4, 0xff), "a number below zero"),
            (with(5, 0x65), "an answer to a search"),
            (with(5, 0x78), "an answer to something that nobody asked"),
            (with(6, 9), "a part that is longer than the whole"),
            (with(8, 9), "a code that is longer than its part"),
            (with(8, 0), "a code of no bytes"),
        ] {
            assert_eq!(parse(&wrong), Err(NotLdap), "{why}");
        }
    }

    /// Whatever one byte becomes, it is read, awaited or refused.
    #[test]
    fn no_byte_makes_it_panic() {
        let mut read = 0;
        for at in 0..BOUND.len() {
            for byte in 0..=u8::MAX {
                let mut bytes = BOUND.to_vec();
                bytes[at] = byte;
                if let Ok(Some((_, length))) = parse(&bytes) {
                    assert!(length <= bytes.len());
                    read += 1;
                }
            }
        }
        assert!(read > 256, "{read}");
    }

    #[test]
    fn a_value_is_nothing_but_a_value() {
        for (value, expected) in [
            ("jack", "jack"),
            ("O'Neil = é", "O'Neil = é"),
            ("comma,user", "comma\\,user"),
            ("a)(uid=*", "a)(uid=*"),
            ("x,dc=evil+cn=y", "x\\,dc=evil\\+cn=y"),
            (" a b ", "\\ a b\\ "),
            ("#a#", "\\#a#"),
            (" ", "\\ "),
            ("\\\"<>;\0", "\\\\\\\"\\<\\>\\;\\00"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), expected, "{value:?}");
        }
    }
}
