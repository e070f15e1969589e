//! The first message of a TLS client, looked at before anybody answers it: which server it asks for decides by which rules
//! it is answered. RFC 8446 4.1.2 and 5.1, RFC 6066 3. It judges nothing else: the handshake does.

use std::borrow::Cow;

/// A record's header: its kind, a version, its length.
const RECORD_HEAD: usize = 5;
/// Most bytes of a record in clear.
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Most bytes of a hello. With keys that withstand quantum computers it has some 1,800.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// What is to be spoken over TLS (RFC 7301).
const PROTOCOLS: u16 = 16;
/// The list of protocols that has one, `acme-tls/1`.
const ACME_ONLY: &[u8] = b"\x00\x0b\x0aacme-tls/1";
/// Bytes of the longest host name (RFC 1035 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// What a client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The host it asks for, in lower case, if it asks for one by name.
    pub server_name: Option<Box<str>>,
    /// Whether it only wants to see that the host is ours, as authorities do (RFC 8737).
    pub is_acme: bool,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloFault {
    /// A request in clear.
    PlainHttp,
    NotTls,
    TooLong,
    Malformed,
}

impl HelloFault {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PlainHttp => "a request in clear",
            Self::NotTls => "not TLS",
            Self::TooLong => "a hello that is too long",
            Self::Malformed => "a malformed hello",
        }
    }
}

/// Reads a hello from the start of what has come so far; `None`: some of it is still to come.
///
/// # Errors
/// When it is none, whatever comes behind.
pub fn peek(bytes: &[u8]) -> Result<Option<Hello>, HelloFault> {
    match bytes.first() {
        None => return Ok(None),
        Some(&HANDSHAKE) => {}
        Some(byte) if byte.is_ascii_uppercase() => return Err(HelloFault::PlainHttp),
        Some(_) => return Err(HelloFault::NotTls),
    }
    let Some(message) = message(bytes)? else { return Ok(None) };
    read(&message).ok_or(HelloFault::Malformed).map(Some)
}

/// The body of the first message, put together from the records it came in.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloFault> {
    let Some(first) = record(bytes)? else { return Ok(None) };
    let Some((head, rest)) = first.split_at_checked(4) else { return Err(HelloFault::Malformed) };
    if head[0] != CLIENT_HELLO {
        return Err(HelloFault::Malformed);
    }
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if length > HELLO_BYTES_MAX {
        return Err(HelloFault::TooLong);
    }
    if let Some(whole) = rest.get(..length) {
        return Ok(Some(Cow::Borrowed(whole)));
    }
    let mut gathered = rest.to_vec();
    let mut behind = bytes.get(RECORD_HEAD + first.len()..).unwrap_or_default();
    while gathered.len() < length {
        let Some(more) = record(behind)? else { return Ok(None) };
        gathered.extend_from_slice(more);
        behind = behind.get(RECORD_HEAD + more.len()..).unwrap_or_default();
    }
    gathered.truncate(length);
    Ok(Some(Cow::Owned(gathered)))
}

/// What is in the record that begins here; `None`: it is not complete.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, HelloFault> {
    let Some((&[kind, major, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
        return Ok(None);
    };
    let length = usize::from(high) << 8 | usize::from(low);
    if kind != HANDSHAKE || major != 3 {
        return Err(HelloFault::NotTls);
    }
    if length == 0 || length > RECORD_BYTES_MAX {
        return Err(HelloFault::Malformed);
    }
    Ok(rest.get(..length))
}

fn read(message: &[u8]) -> Option<Hello> {
    let mut body = Reader(message);
    // The version it had before there was an extension for that, and its random bytes.
    body.take(2 + 32)?;
    body.short_list()?;
    body.list()?;
    body.short_list()?;
    if body.0.is_empty() {
        return Some(Hello::default());
    }
    let mut extensions = Reader(body.list()?);
    let mut hello = Hello::default();
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.list()?;
        if kind == SERVER_NAME {
            hello.server_name = name_of(data)?;
        } else if kind == PROTOCOLS {
            hello.is_acme = data == ACME_ONLY;
        }
    }
    Some(hello)
}

/// The host among the names asked for. A name that can be no host's is as none: nobody has a certificate for it.
fn name_of(data: &[u8]) -> Option<Option<Box<str>>> {
    let mut names = Reader(Reader(data).list()?);
    let mut found = None;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.list()?;
        if kind == HOST_NAME && found.is_none() {
            found = host_of(name);
        }
    }
    Some(found)
}

fn host_of(name: &[u8]) -> Option<Box<str>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(is_fit) {
        return None;
    }
    let text = std::str::from_utf8(name).ok()?;
    // An address is no name (RFC 6066 3).
    text.parse::<std::net::IpAddr>().is_err().then(|| text.to_ascii_lowercase().into())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A list whose length has two bytes.
    fn list(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// A list whose length has one byte.
    fn short_list(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// A hello that asks for a name, in records of at most `piece` bytes.
    fn hello(name: Option<&[u8]>, piece: usize) -> Vec<u8> {
        let list = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let mut extensions = [&[0, 43][..], &list(&[2, 3, 4])].concat();
        if let Some(name) = name {
            let names = list(&[&[HOST_NAME][..], &list(name)].concat());
            extensions.extend([&[0, 0][..], &list(&names)].concat());
        }
        let body = [&[3, 3][..], &[7; 32], &[0], &list(&[0x13, 1]), &[1, 0], &list(&extensions)].concat();
        let message = [&[CLIENT_HELLO, 0][..], &list(&body)].concat();
        let records = message.chunks(piece).map(|part| [&[HANDSHAKE, 3, 1][..], &list(part)].concat());
        records.flatten().collect()
    }

    #[test]
    fn the_name_that_is_asked_for_is_found_however_the_hello_is_cut() {
        for piece in [4096, 60, 7] {
            let bytes = hello(Some(b"WWW.Example.com"), piece);
            for at in 0..bytes.len() {
                assert_eq!(peek(&bytes[..at]), Ok(None), "cut at {at} of pieces of {piece}");
            }
            let found = peek(&[bytes.as_slice(), b"more"].concat()).expect("a hello").expect("whole");
            assert_eq!(found.server_name.as_deref(), Some("www.example.com"));
        }
    }

    #[test]
    fn an_authority_is_known_by_the_one_protocol_it_speaks() {
        let saying = |protocols: &[u8]| {
            let mut bytes = hello(None, 4096);
            let extension = [&PROTOCOLS.to_be_bytes()[..], &[0, protocols.len() as u8], protocols].concat();
            // Of the record, the message and the extensions.
            for (at, size) in [(3, 2), (7, 2), (50, 2)] {
                let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + extension.len() as u16;
                bytes[at..at + size].copy_from_slice(&length.to_be_bytes());
            }
            bytes.extend(extension);
            peek(&bytes).expect("a hello").expect("whole").is_acme
        };
        assert!(saying(ACME_ONLY));
        assert!(!saying(b"\x00\x0c\x02h2\x08http/1.1") && !saying(b"\x00\x0e\x0aacme-tls/1\x02h2"));
    }

    #[test]
    fn what_is_no_name_of_a_host_is_as_none() {
        for name in [&b"127.0.0.1"[..], b"", b"a b", b"\xff", &[b'a'; 254], b"a\0b"] {
            assert_eq!(peek(&hello(Some(name), 4096)), Ok(Some(Hello::default())), "{name:?}");
        }
        assert_eq!(peek(&hello(None, 4096)), Ok(Some(Hello::default())));
        let dotted = peek(&hello(Some(b"a.test."), 4096)).expect("a hello").expect("whole");
        assert_eq!(dotted.server_name.as_deref(), Some("a.test"));
    }

    #[test]
    fn what_is_no_hello_is_refused_by_its_first_bytes() {
        for (bytes, fault) in [
            (&b"G"[..], HelloFault::PlainHttp),
            (b"\x80\x2e\x01", HelloFault::NotTls),
            (b"\x16\x02\x00\x00\x05", HelloFault::NotTls),
            (b"\x16\x03\x01\x00\x00", HelloFault::Malformed),
            (b"\x16\x03\x01\x40\x01", HelloFault::Malformed),
            (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", HelloFault::Malformed),
            (b"\x16\x03\x01\x00\x04\x01\x00\x40\x01", HelloFault::TooLong),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", HelloFault::Malformed),
        ] {
            assert_eq!(peek(bytes), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let seed = 5;
        let mut rng = Rng::seeded(seed);
        for _ in 0..20_000 {
            let mut bytes = hello(Some(b"a.test"), 64);
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            let _ = peek(&bytes);
        }
    }
}
