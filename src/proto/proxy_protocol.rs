//! The header by which a load balancer that passes bytes on says for whom: HAProxy's PROXY protocol, versions 1 and 2. It
//! stands before everything else, TLS included.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use crate::base::address;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// Bytes of the longest header of version 1, its line end counted.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of the fixed part of version 2.
const FIXED: usize = 16;
/// Bytes of a whole header. Version 2 may carry 64 KiB of remarks; load balancers send some hundred bytes of them.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The kind of remark that is a checksum of the header.
const CHECKSUM: u8 = 3;
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is; `None`: the sender's own, such as a check of whether we are there.
    pub client: Option<SocketAddr>,
    /// What that one has called; there where `client` is.
    pub called: Option<SocketAddr>,
    /// Its bytes.
    pub len: usize,
}

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1: a line of text.
    Text,
    /// 2.
    Binary,
}

/// Appends the header that says whose connection it is, and what was called; of who has no address, that nothing is known. Addresses of two families are both told in the
/// form of IPv6.
pub fn write(version: Version, client: SocketAddr, called: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let (from, to) = (client.ip().to_canonical(), called.ip().to_canonical());
    if address::is_none(from) {
        let unknown: [&[u8]; 2] = match version {
            Version::Text => [b"PROXY UNKNOWN\r\n", b""],
            Version::Binary => [SIGNATURE, &[0x21, 0, 0, 0]],
        };
        return out.extend_from_slice(&unknown.concat());
    }
    let (from_port, to_port) = (client.port(), called.port());
    let of_four = from.is_ipv4() && to.is_ipv4();
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if !of_four => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    let (from, to) = (wide(from), wide(to));
    if version == Version::Text {
        let family = if of_four { "TCP4" } else { "TCP6" };
        // Writing to a vector can not fail.
        let _ = write!(out, "PROXY {family} {from} {to} {from_port} {to_port}\r\n");
        return;
    }
    let (family, length) = if of_four { (0x11, 12) } else { (0x21, 36) };
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x21, family, 0, length]);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&from_port.to_be_bytes());
    out.extend_from_slice(&to_port.to_be_bytes());
}

/// Bytes that begin with no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

/// Reads the header at the start of what has come so far; `None`: some of it is still to come.
///
/// # Errors
/// When it is none, whatever comes behind.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if begins(SIGNATURE) {
        return if bytes.len() < FIXED { Ok(None) } else { binary(bytes) };
    }
    if begins(WORD) { line(bytes) } else { Err(NoHeader) }
}

/// Version 1: a line of text.
fn line(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(NoHeader) };
    };
    let text = std::str::from_utf8(&bytes[WORD.len()..end]).map_err(|_| NoHeader)?;
    let len = end + 2;
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some(Header { client: None, called: None, len }));
    }
    let [from, to, from_port, to_port] = std::array::from_fn(|_| words.next().unwrap_or_default());
    if words.next().is_some() {
        return Err(NoHeader);
    }
    let address = |word: &str| -> Result<IpAddr, NoHeader> {
        match family {
            "TCP4" => word.parse().map(IpAddr::V4).map_err(|_| NoHeader),
            "TCP6" => word.parse().map(IpAddr::V6).map_err(|_| NoHeader),
            _ => Err(NoHeader),
        }
    };
    // A sign or a leading zero is no port.
    let port = |word: &str| {
        let is_plain =
            word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| is_plain).ok_or(NoHeader)
    };
    let client = SocketAddr::new(address(from)?, port(from_port)?);
    let called = SocketAddr::new(address(to)?, port(to_port)?);
    Ok(Some(Header { client: Some(client), called: Some(called), len }))
}

/// Version 2: fixed fields, addresses, and remarks, of which only a checksum matters: a header that it does not fit is none.
fn binary(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let [command, family, high, low] = [bytes[12], bytes[13], bytes[14], bytes[15]];
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || len > HEADER_BYTES_MAX {
        return Err(NoHeader);
    }
    let Some(addresses) = bytes.get(FIXED..len) else { return Ok(None) };
    let is_proxied = match command & 0xf {
        0 => false,
        1 => true,
        _ => return Err(NoHeader),
    };
    let ends = match (is_proxied, family) {
        (false, _) => None,
        // TCP, or what says it is, over IPv4 and IPv6.
        (true, 0x11) => Some(ends::<4>(addresses)?),
        (true, 0x21) => Some(ends::<16>(addresses)?),
        // Nobody knows whose, or it came over a Unix socket.
        (true, 0x00 | 0x31) => None,
        _ => return Err(NoHeader),
    };
    let (client, called) = ends.unzip();
    if let Some((client, _)) = client.zip(called) {
        let remarks_at = FIXED + if client.is_ipv4() { 12 } else { 36 };
        check(&bytes[..len], remarks_at)?;
    }
    Ok(Some(Header { client, called, len }))
}

/// Sees that a header fits its checksum, if it carries one among its remarks: each a kind, a length and so many bytes.
fn check(header: &[u8], remarks_at: usize) -> Result<(), NoHeader> {
    let mut at = remarks_at;
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return Err(NoHeader) };
        let value_at = at + 3;
        at = value_at + usize::from(u16::from_be_bytes([*high, *low]));
        let value = header.get(value_at..at).ok_or(NoHeader)?;
        if *kind != CHECKSUM {
            continue;
        }
        let told: [u8; 4] = value.try_into().map_err(|_| NoHeader)?;
        // As if it were zero itself.
        let mut sum = CRC32C.digest();
        sum.update(&header[..value_at]);
        sum.update(&[0; 4]);
        sum.update(&header[at..]);
        if sum.finalize() != u32::from_be_bytes(told) {
            return Err(NoHeader);
        }
    }
    Ok(())
}

/// Whose connection it is and what was called, in addresses of so many bytes.
fn ends<const BYTES: usize>(addresses: &[u8]) -> Result<(SocketAddr, SocketAddr), NoHeader>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (from, rest) = addresses.split_first_chunk::<BYTES>().ok_or(NoHeader)?;
    let (to, rest) = rest.split_first_chunk::<BYTES>().ok_or(NoHeader)?;
    let (from_port, rest) = rest.split_first_chunk().ok_or(NoHeader)?;
    let (to_port, _) = rest.split_first_chunk().ok_or(NoHeader)?;
    let at = |ip: &[u8; BYTES], port: &[u8; 2]| SocketAddr::new((*ip).into(), u16::from_be_bytes(*port));
    Ok((at(from, from_port), at(to, to_port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn binary_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [SIGNATURE.as_slice(), &[0x20 | command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    /// A checksum that is still to be made.
    const SUM: [u8; 7] = [3, 0, 4, 0, 0, 0, 0];

    /// The remainder by the Castagnoli polynomial, bit by bit.
    fn remainder(bytes: &[u8]) -> u32 {
        let step = |sum: u32| if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ 0x82f6_3b78 };
        !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
    }

    /// A header whose checksum, if there is one among its remarks, is right.
    fn with_remarks(addresses: &[u8], remarks: &[&[u8]]) -> Vec<u8> {
        let family = if addresses.len() == 12 { 0x11 } else { 0x21 };
        let mut header = binary_of(1, family, &[addresses, &remarks.concat()].concat());
        let sum = remainder(&header).to_be_bytes();
        if let Some(at) = header.windows(SUM.len()).position(|seven| seven == SUM) {
            header[at + 3..at + 7].copy_from_slice(&sum);
        }
        header
    }

    #[test]
    fn a_header_that_its_checksum_does_not_fit_is_none() {
        assert_eq!(remainder(b"123456789"), 0xe306_9283);
        let four = [&[192, 0, 2, 7], &[10, 0, 0, 1], &[0xd4, 0x31][..], &[0x01, 0xbb]].concat();
        let good = with_remarks(&four, &[&[0xea, 0, 2, 1, 7], &SUM, &[4, 0, 1, 0]]);
        assert!(read(&good).is_ok_and(|header| header.is_some()));
        // Of what is called something else nobody knows that it is a checksum.
        let kind_at = FIXED + 12 + 5;
        for at in (FIXED..good.len()).filter(|at| *at != kind_at) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(read(&bad), Err(NoHeader), "byte {at}");
        }
        // Remarks that do not end with the header; a checksum of three bytes.
        for remarks in [&[0xea, 0, 3, 1, 7][..], &[0xea, 0], &[3, 0, 3, 1, 2, 3]] {
            assert_eq!(read(&with_remarks(&four, &[remarks])), Err(NoHeader), "{remarks:?}");
        }
    }

    fn samples() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let four = [&[192, 0, 2, 7], &[10, 0, 0, 1], &[0xd4, 0x31][..], &[0x01, 0xbb]].concat();
        let mut six = [0; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&[0x1f, 0x90]);
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n".to_vec(), Some("192.0.2.7:54321")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), Some("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (binary_of(1, 0x11, &four), Some("192.0.2.7:54321")),
            (with_remarks(&four, &[&[0xea, 0, 2, 1, 7]]), Some("192.0.2.7:54321")),
            (with_remarks(&four, &[&[4, 0, 0], &SUM, &[0xea, 0, 2, 1, 7]]), Some("192.0.2.7:54321")),
            (with_remarks(&six, &[&SUM]), Some("[::1]:8080")),
            // What is its own is not looked at.
            (binary_of(0, 0x11, &[four.as_slice(), &SUM].concat()), None),
            (binary_of(1, 0x21, &six), Some("[::1]:8080")),
            (binary_of(1, 0x00, &[]), None),
            (binary_of(0, 0x11, &four), None),
            (binary_of(0, 0x00, &[]), None),
        ]
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        for (client, called, expected, also) in [
            ("192.0.2.7:1234", "10.0.0.1:443", "192.0.2.7:1234", "10.0.0.1:443"),
            ("[2001:db8::7]:1", "[::1]:65535", "[2001:db8::7]:1", "[::1]:65535"),
            ("[::ffff:192.0.2.7]:9", "10.0.0.1:443", "192.0.2.7:9", "10.0.0.1:443"),
            ("192.0.2.7:9", "[::1]:443", "[::ffff:192.0.2.7]:9", "[::1]:443"),
        ] {
            for version in [Version::Text, Version::Binary] {
                let mut bytes = Vec::new();
                write(version, at(client), at(called), &mut bytes);
                let len = bytes.len();
                bytes.extend_from_slice(b"more");
                let expected = Header { client: Some(at(expected)), called: Some(at(also)), len };
                assert_eq!(read(&bytes), Ok(Some(expected)), "{version:?} {client}");
            }
        }
    }

    #[test]
    fn both_versions_tell_the_client_however_they_are_cut() {
        for (header, client) in samples() {
            let client = client.map(|text| text.parse().expect("an address"));
            let whole = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            let found = read(&whole).expect("a header").expect("all of it");
            assert_eq!((found.client, found.len), (client, header.len()), "{}", whole.escape_ascii());
            assert_eq!(found.called.is_some(), client.is_some(), "{}", whole.escape_ascii());
            for at in 0..header.len() {
                assert_eq!(read(&header[..at]), Ok(None), "{} cut at {at}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 54321\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443 1\r\n",
            b"PROXY TCP4 192.0.2.7  10.0.0.1 54321 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 054321 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY \r\n",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat(),
            &binary_of(2, 0x11, &[0; 12]),
            &binary_of(1, 0x11, &[0; 11]),
            &binary_of(1, 0x21, &[0; 35]),
            &binary_of(1, 0x12, &[0; 12]),
            &binary_of(1, 0x11, &[0; HEADER_BYTES_MAX]),
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
        ] {
            assert_eq!(read(bytes), Err(NoHeader), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_bytes_panic() {
        let seed = 6;
        let mut rng = Rng::seeded(seed);
        let samples = samples();
        for _ in 0..20_000 {
            let mut bytes = samples[rng.below(samples.len() as u64) as usize].0.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
            let _ = read(&bytes);
        }
    }
}
