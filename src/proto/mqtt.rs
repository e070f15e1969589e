//! The first packet of an MQTT client, looked at before anybody answers it: CONNECT, as far as the client's id. MQTT 3.1.1
//! and 5.0, both 3.1. It judges nothing else: the broker does.

/// CONNECT, with the flags that it must have.
const CONNECT: u8 = 0x10;
/// Most bytes that a length is written in.
const LENGTH_BYTES_MAX: usize = 4;
/// The level from which there are properties.
const LEVEL_OF_PROPERTIES: u8 = 5;

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// `MQTT`, or `MQIsdp` of the oldest clients.
    pub protocol: &'a [u8],
    pub level: u8,
    /// Empty: the broker is to give it one.
    pub client_id: &'a [u8],
}

/// Bytes that begin with no such packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoConnect;

/// Reads the packet at the start of what has come so far; `None`: some of what is asked for is still to come.
///
/// # Errors
/// When it is none, whatever comes behind.
pub fn read(bytes: &[u8]) -> Result<Option<Connect<'_>>, NoConnect> {
    let Some((&kind, behind)) = bytes.split_first() else { return Ok(None) };
    if kind != CONNECT {
        return Err(NoConnect);
    }
    let Some((length, start)) = number(behind)? else { return Ok(None) };
    let rest = &behind[start..];
    let is_whole = rest.len() >= length;
    let mut body = Body { bytes: &rest[..rest.len().min(length)], is_whole };
    match fields(&mut body) {
        Ok(connect) => Ok(Some(connect)),
        // A packet that ends too early is none; one that goes on is waited for.
        Err(Short::Here) => Ok(None),
        Err(Short::Never) => Err(NoConnect),
    }
}

fn fields<'a>(body: &mut Body<'a>) -> Result<Connect<'a>, Short> {
    let protocol = body.text()?;
    let level = body.take(1)?[0];
    // Flags, and how long it may be silent.
    body.take(3)?;
    if level >= LEVEL_OF_PROPERTIES {
        let length = body.number()?;
        body.take(length)?;
    }
    let client_id = body.text()?;
    Ok(Connect { protocol, level, client_id })
}

/// A length of one to four bytes, and how many they were; `None`: there are more to come.
fn number(bytes: &[u8]) -> Result<Option<(usize, usize)>, NoConnect> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < LENGTH_BYTES_MAX { Ok(None) } else { Err(NoConnect) }
}

/// Why something could not be read.
enum Short {
    /// It has not come yet.
    Here,
    /// It does not come.
    Never,
}

/// What has come of the packet behind its length.
struct Body<'a> {
    bytes: &'a [u8],
    is_whole: bool,
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let short = if self.is_whole { Short::Never } else { Short::Here };
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a [u8], Short> {
        let length = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([length[0], length[1]])))
    }

    fn number(&mut self) -> Result<usize, Short> {
        match number(self.bytes) {
            Ok(Some((value, length))) => self.take(length).map(|_| value),
            Ok(None) if !self.is_whole => Err(Short::Here),
            Ok(None) | Err(NoConnect) => Err(Short::Never),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn connect(protocol: &[u8], level: u8, id: &[u8]) -> Vec<u8> {
        let text = |text: &[u8]| [&(text.len() as u16).to_be_bytes(), text].concat();
        let properties: &[u8] = if level >= 5 { &[5, 0x11, 0, 0, 0, 60] } else { &[] };
        let body = [&text(protocol)[..], &[level, 2, 0, 60], properties, &text(id), b"\0\x04will"].concat();
        [&[CONNECT, 0x80 | body.len() as u8, 0][..], &body].concat()
    }

    #[test]
    fn the_id_is_found_as_soon_as_it_is_there() {
        for (protocol, level) in [(&b"MQTT"[..], 4), (b"MQTT", 5), (b"MQIsdp", 3)] {
            let bytes = connect(protocol, level, b"client-7");
            let expected = Connect { protocol, level, client_id: b"client-7" };
            let mut found = None;
            for at in 0..=bytes.len() {
                match read(&bytes[..at]) {
                    Ok(None) => assert!(found.is_none(), "{at}"),
                    Ok(Some(connect)) => {
                        assert_eq!(connect, expected);
                        found = found.or(Some(at));
                    }
                    Err(NoConnect) => panic!("{at} bytes of level {level}"),
                }
            }
            assert_eq!(found, Some(bytes.len() - 6), "what is behind the id is not waited for");
        }
        assert_eq!(
            read(&connect(b"MQTT", 4, b"")).map(|found| found.map(|found| found.client_id)),
            Ok(Some(&b""[..]))
        );
    }

    #[test]
    fn what_is_no_connect_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"\x11\x02\0\0",
            b"\x10\xff\xff\xff\xff\x01",
            b"\x10\x02\0\x04",
            b"\x10\x06\0\x04MQTT",
            b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\xff\xff\xff",
        ] {
            assert_eq!(read(bytes), Err(NoConnect), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut rng = Rng::seeded(7);
        for _ in 0..20_000 {
            let mut bytes = connect(b"MQTT", 3 + rng.below(4) as u8, b"client");
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            let _ = read(&bytes);
        }
    }
}
