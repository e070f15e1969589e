//! The few fields of a certificate that are asked for before it is used: whose it is, whose word it has, when it holds,
//! and its public key. DER as in RFC 5280; it judges nothing: signatures and names are for TLS.

/// Of one certificate. Names are compared as bytes, as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Big-endian, as it was written.
    pub serial: &'a [u8],
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    /// Since when it holds, in seconds since 1970.
    pub not_before: i64,
    /// Until when it holds.
    pub not_after: i64,
    /// The bits of the public key: of an RSA key its DER, of another its point.
    pub public_key: &'a [u8],
}

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Reads a certificate; `None`: it is none.
pub fn read(der: &[u8]) -> Option<Certificate<'_>> {
    let mut outer = Reader(der);
    let mut certificate = Reader(outer.take(SEQUENCE)?);
    if !outer.0.is_empty() {
        return None;
    }
    let mut fields = Reader(certificate.take(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.take(VERSION)?;
    }
    let serial = fields.take(INTEGER)?;
    fields.take(SEQUENCE)?;
    let issuer = fields.take(SEQUENCE)?;
    let mut validity = Reader(fields.take(SEQUENCE)?);
    let (not_before, not_after) = (validity.time()?, validity.time()?);
    let subject = fields.take(SEQUENCE)?;
    let mut key = Reader(fields.take(SEQUENCE)?);
    key.take(SEQUENCE)?;
    // The first byte says how many bits of the last are not used: none.
    let public_key = key.take(BITS)?.strip_prefix(&[0])?;
    Some(Certificate { serial, issuer, subject, not_before, not_after, public_key })
}

/// The version of a list of revoked certificates (RFC 5280 5.1.2.1); `None`: it is none.
pub fn list_version(der: &[u8]) -> Option<u8> {
    let mut outer = Reader(der);
    let mut fields = Reader(Reader(outer.take(SEQUENCE)?).take(SEQUENCE)?);
    if !outer.0.is_empty() {
        return None;
    }
    let version = match fields.0.first() {
        Some(&INTEGER) => match fields.take(INTEGER)? {
            [number] => number.checked_add(1)?,
            _ => return None,
        },
        // The first one does not say it.
        _ => 1,
    };
    // How it is signed, by whom, and when.
    fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?;
    fields.time()?;
    Some(version)
}

const OID: u8 = 0x06;
const SET: u8 = 0x31;
const BMP_STRING: u8 = 0x1e;

/// The attributes of names that have a short word (RFC 4514 3), and the one that is often seen besides.
const ATTRIBUTES: [(&[u8], &str); 11] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// A distinguished name as text (RFC 4514), the last part first: `CN=client,O=Example`. What can not be read is left out.
pub fn name_text(name: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut rest = Reader(name);
    while let Some(set) = rest.take(SET) {
        let (mut values, mut text) = (Reader(set), String::new());
        while let Some(pair) = values.take(SEQUENCE) {
            if !text.is_empty() {
                text.push('+');
            }
            write_pair(pair, &mut text);
        }
        parts.push(text);
    }
    parts.reverse();
    parts.join(",")
}

fn write_pair(pair: &[u8], text: &mut String) {
    let mut fields = Reader(pair);
    let Some(oid) = fields.take(OID) else { return };
    let Some(&tag) = fields.0.first() else { return };
    let Some(value) = fields.take(tag) else { return };
    match ATTRIBUTES.iter().find(|(known, _)| *known == oid) {
        Some((_, word)) => text.push_str(word),
        None => write_oid(oid, text),
    }
    text.push('=');
    let value = if tag == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
        String::from_utf16_lossy(&units)
    } else {
        String::from_utf8_lossy(value).into_owned()
    };
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let is_edge = letter == ' ' && (at == 0 || at == last) || letter == '#' && at == 0;
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', letter]),
            _ if is_edge => text.extend(['\\', letter]),
            letter if letter.is_control() => {
                use std::fmt::Write as _;
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    // Writing to a string can not fail.
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            letter => text.push(letter),
        }
    }
}

/// An object identifier with dots (X.690 8.19).
fn write_oid(oid: &[u8], text: &mut String) {
    let (mut number, mut is_first) = (0_u64, true);
    for byte in oid {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let root = (number / 40).min(2);
            text.push_str(&format!("{root}.{}", number - 40 * root));
        } else {
            text.push_str(&format!(".{number}"));
        }
        (number, is_first) = (0, false);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next value, which must have this tag.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            // Four bytes are more than any text that could be given here.
            if !(1..=4).contains(&count) {
                return None;
            }
            let (bytes, behind) = rest.split_at_checked(count)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        (tag == wanted).then_some(content)
    }

    fn time(&mut self) -> Option<i64> {
        let tag = *self.0.first()?;
        let text = self.take(tag)?;
        let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let two =
            |at: usize| Some(i64::from(digits.get(at)? - b'0') * 10 + i64::from(digits.get(at + 1)? - b'0'));
        let (year, at) = match (tag, digits.len()) {
            // RFC 5280 4.1.2.5.1: from 50 on it is the last century.
            (UTC_TIME, 12) => (two(0)? + if two(0)? >= 50 { 1900 } else { 2000 }, 2),
            (GENERALIZED_TIME, 14) => (two(0)? * 100 + two(2)?, 4),
            _ => return None,
        };
        let (month, day) = (two(at)?, two(at + 2)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        Some(((days(year, month, day) * 24 + two(at + 4)?) * 60 + two(at + 6)?) * 60 + two(at + 8)?)
    }
}

/// Days from 1970 to a date of the Gregorian calendar. Years begin with March, so that the day that some lack is the
/// last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::pem;

    /// Of a key on P-256, for a.test, by itself, from 2024-02-29 to the end of 2050, as both forms of time have it.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBDDCBsgIBATAKBggqhkjOPQQDAjARMQ8wDQYDVQQDDAZhLnRlc3QwIBcNMjQw\n\
MjI5MDAwMDAwWhgPMjA1MDEyMzEyMzU5NTlaMBExDzANBgNVBAMMBmEudGVzdDBZ\n\
MBMGByqGSM49AgEGCCqGSM49AwEHA0IABGJNGv8AnRyn2Pt7lfbmxxaeD+UZj5yQ\n\
TTxwrzGk9TCqycQvdqDZ+N0E6YGiWNsd3OJ2qfDue1clSSFnpXzCYCMwCgYIKoZI\n\
zj0EAwIDSQAwRgIhAJ6uOpChLo/xttZD57L4EKvJclGkADANiugBcZbtzuCLAiEA\n\
7U03J2EP14q7o/6RZvMApGrqDQ8F64EB//rCswytDEc=\n\
-----END CERTIFICATE-----";

    #[test]
    fn the_fields_of_a_certificate_are_found() {
        let blocks = pem::read(CERTIFICATE).expect("PEM");
        let found = read(&blocks[0].der).expect("a certificate");
        assert_eq!((found.not_before, found.not_after), (1_709_164_800, 2_556_143_999));
        assert_eq!(found.issuer, found.subject);
        assert_eq!(name_text(found.subject), "CN=a.test");
        assert_eq!(found.serial, [1]);
        assert_eq!((found.public_key.len(), found.public_key[0]), (65, 4));
    }

    #[test]
    fn every_cut_is_refused_and_no_flipped_byte_panics() {
        let der = &pem::read(CERTIFICATE).expect("PEM")[0].der;
        for at in 0..der.len() {
            assert_eq!(read(&der[..at]), None, "cut at {at}");
            let mut flipped = der.clone();
            flipped[at] ^= 0xff;
            let _ = read(&flipped);
        }
        assert_eq!(read(&[der.as_slice(), &[0]].concat()), None);
    }

    #[test]
    fn a_name_is_written_last_part_first_with_what_has_a_meaning_escaped() {
        let pair = |oid: &[u8], tag: u8, value: &[u8]| {
            let inside = [&[OID, oid.len() as u8][..], oid, &[tag, value.len() as u8], value].concat();
            [&[SEQUENCE, inside.len() as u8][..], &inside].concat()
        };
        let set = |pairs: &[u8]| [&[SET, pairs.len() as u8][..], pairs].concat();
        let name = [
            set(&pair(&[0x55, 4, 6], 0x13, b"DE")),
            set(&pair(&[0x55, 4, 10], 0x0c, "a, b\\ \u{e9}".as_bytes())),
            set(&[
                pair(&[0x55, 4, 3], BMP_STRING, &[0, b'#', 0, b'x']),
                pair(&[0x2a, 0x86, 0x48], 0x0c, b"\0 "),
            ]
            .concat()),
        ]
        .concat();
        assert_eq!(name_text(&name), "CN=\\#x+1.2.840=\\00\\ ,O=a\\, b\\\\ \u{e9},C=DE");
        for at in 0..name.len() {
            let _ = name_text(&name[..at]);
        }
    }

    #[test]
    fn days_are_counted_over_leap_years_and_centuries() {
        for (date, expect) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 27), 20_784),
            ((2100, 3, 1), 47_541),
        ] {
            let (year, month, day) = date;
            assert_eq!(days(year, month, day), expect, "{date:?}");
        }
    }
}
