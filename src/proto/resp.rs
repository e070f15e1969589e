//! The protocol of Redis, version 2, as a client needs it: commands out, replies in.
//!
//! A reply is read whole or not at all, and every part of it has a bound: what is larger, deeper or otherwise than the
//! protocol says is a fault, after which nothing on that connection can be trusted.

/// Bytes of one text in a reply. What limits ask for are numbers and states.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Members of one list. What a cluster says of its slots is the longest.
pub const LIST_MAX: usize = 2048;
/// Members for which there is room before they have come.
const ROOM_MAX: usize = 64;
/// Lists within lists.
const DEPTH_MAX: usize = 4;
/// Digits of a length or a number, with their sign.
const NUMBER_BYTES_MAX: usize = 20;

/// What Redis says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A state (`+OK`) or a text.
    Text(Vec<u8>),
    /// What went wrong: a word in capitals and a sentence.
    Error(String),
    Number(i64),
    List(Vec<Self>),
    Nothing,
}

/// Bytes that are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRedis;

/// Appends a command.
pub fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_length(out, b'*', words.len());
    for word in words {
        write_length(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Slots that the keys of a cluster fall into.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: of what is between its first braces, where that is something, else of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        behind
            .iter()
            .position(|byte| *byte == b'}')
            .filter(|length| *length > 0)
            .map(|length| &behind[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16 as XMODEM has it: polynomial 0x1021, from zero, not reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let (mut crc, mut bit) = ((at as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

/// The reply that the bytes begin with, and its length; `None` while it is not complete.
///
/// # Errors
/// When they can not become one.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, NotRedis> {
    parse_at(bytes, 0, 0)
}

fn parse_at(bytes: &[u8], at: usize, depth: usize) -> Result<Option<(Reply, usize)>, NotRedis> {
    let Some(kind) = bytes.get(at).copied() else { return Ok(None) };
    let longest = match kind {
        b'+' | b'-' => TEXT_BYTES_MAX,
        b':' | b'$' | b'*' => NUMBER_BYTES_MAX,
        _ => return Err(NotRedis),
    };
    let Some((line, end)) = line(bytes, at + 1, longest)? else { return Ok(None) };
    match kind {
        b'+' => Ok(Some((Reply::Text(line.to_vec()), end))),
        b'-' => Ok(Some((Reply::Error(String::from_utf8_lossy(line).into_owned()), end))),
        b':' => Ok(Some((Reply::Number(number(line)?), end))),
        b'$' => match number(line)? {
            -1 => Ok(Some((Reply::Nothing, end))),
            length => text(bytes, end, bounded(length, TEXT_BYTES_MAX)?),
        },
        _ => match number(line)? {
            -1 => Ok(Some((Reply::Nothing, end))),
            length => list(bytes, end, bounded(length, LIST_MAX)?, depth),
        },
    }
}

/// The line from `at` on, of at most so many bytes, and where the next one begins.
fn line(bytes: &[u8], at: usize, longest: usize) -> Result<Option<(&[u8], usize)>, NotRedis> {
    let rest = &bytes[at..];
    match memchr::memchr(b'\r', &rest[..rest.len().min(longest + 1)]) {
        Some(end) => match rest.get(end + 1) {
            Some(b'\n') => Ok(Some((&rest[..end], at + end + 2))),
            Some(_) => Err(NotRedis),
            None => Ok(None),
        },
        None if rest.len() > longest => Err(NotRedis),
        None => Ok(None),
    }
}

fn number(line: &[u8]) -> Result<i64, NotRedis> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(NotRedis)
}

fn bounded(length: i64, most: usize) -> Result<usize, NotRedis> {
    usize::try_from(length).ok().filter(|length| *length <= most).ok_or(NotRedis)
}

fn text(bytes: &[u8], at: usize, length: usize) -> Result<Option<(Reply, usize)>, NotRedis> {
    let end = at + length;
    let behind = bytes.get(end..).unwrap_or_default();
    match behind {
        [b'\r', b'\n', ..] => Ok(Some((Reply::Text(bytes[at..end].to_vec()), end + 2))),
        [] | [b'\r'] => Ok(None),
        _ => Err(NotRedis),
    }
}

fn list(
    bytes: &[u8],
    mut at: usize,
    length: usize,
    depth: usize,
) -> Result<Option<(Reply, usize)>, NotRedis> {
    if depth >= DEPTH_MAX {
        return Err(NotRedis);
    }
    let mut members = Vec::with_capacity(length.min(ROOM_MAX));
    for _ in 0..length {
        let Some((member, end)) = parse_at(bytes, at, depth + 1)? else { return Ok(None) };
        members.push(member);
        at = end;
    }
    Ok(Some((Reply::List(members), at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn read(text: &str) -> Result<Option<(Reply, usize)>, NotRedis> {
        parse(text.as_bytes())
    }

    const GOOD: [&str; 8] = [
        "+OK\r\n",
        "-ERR no such thing\r\n",
        ":-9223372036854775808\r\n",
        "$5\r\na\r\nbc\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*0\r\n",
        "*3\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n+a\r\n",
    ];

    #[test]
    fn every_kind_of_reply_is_read_and_its_length_told() {
        let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
        let inner = Reply::List(vec![text("x"), Reply::Nothing]);
        let expected = [
            text("OK"),
            Reply::Error("ERR no such thing".to_owned()),
            Reply::Number(i64::MIN),
            text("a\r\nbc"),
            text(""),
            Reply::Nothing,
            Reply::List(vec![]),
            Reply::List(vec![Reply::Number(1), inner, text("a")]),
        ];
        for (bytes, expected) in GOOD.iter().zip(expected) {
            assert_eq!(read(&format!("{bytes}+NEXT\r\n")), Ok(Some((expected, bytes.len()))), "{bytes:?}");
        }
    }

    #[test]
    fn a_reply_that_is_cut_anywhere_is_not_complete() {
        for bytes in GOOD {
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{:?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_a_fault() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "+OK\rx",
            ":\r\n",
            ":1x\r\n",
            ":99999999999999999999\r\n",
            "$-2\r\n",
            "$4097\r\n",
            "$2\r\nabc\r\n",
            "*2049\r\n",
            "*1000000000\r\n",
            "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            "*99999999999999999999999999",
            &format!("+{long}"),
            "*1\r\nx",
        ] {
            assert_eq!(read(bytes), Err(NotRedis), "{bytes:?}");
        }
        assert!(read(&format!("+{}\r\n", &long[1..])).is_ok());
    }

    #[test]
    fn no_bytes_break_it() {
        let seed = 1_127;
        let mut rng = Rng::seeded(seed);
        for _ in 0..100_000 {
            let mut bytes =
                GOOD[rng.below(GOOD.len() as u64) as usize].as_bytes().repeat(1 + rng.below(3) as usize);
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.below(256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"*$:+-\r\n019"[rng.below(10) as usize]),
                }
            }
            if let Ok(Some((_, length))) = parse(&bytes) {
                assert!((1..=bytes.len()).contains(&length), "seed {seed}: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn keys_fall_into_the_slots_that_redis_has_for_them() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` says.
        for (key, slot) in [
            ("foo", 12182),
            ("somekey", 11058),
            ("foo{hash_tag}", 2515),
            ("bar{hash_tag}", 2515),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn commands_carry_any_bytes() {
        let mut out = b"> ".to_vec();
        write_command(&mut out, &[b"SET", b"a b", b"\r\n\0", b""]);
        assert_eq!(out, b"> *4\r\n$3\r\nSET\r\n$3\r\na b\r\n$3\r\n\r\n\0\r\n$0\r\n\r\n");
    }
}
