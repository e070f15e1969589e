//! What a directory says to a bind.

use ringway::proto::ldap::{MESSAGE_BYTES_MAX, parse};

use super::campaign;
use super::prereads::settles;

const SAMPLES: &[&[u8]] = &[
    b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0",
    b"\x30\x84\0\0\0\x10\x02\x01\x01\x61\x84\0\0\0\x07\x0a\x01\x31\x04\0\x04\0",
    b"\x30\x82\0\x20\x02\x02\x01\x01\x61\x1a\x0a\x01\x35\x04\0\x04\x13confidentiality req",
    b"\x30\x24\x02\x01\0\x78\x1f\x0a\x01\x34\x04\0\x04\0\x8a\x161.3.6.1.4.1.1466.20036",
];

const WORDS: &[&[u8]] = &[
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x30\x82\x20\0",
    b"\x30\x82\x20\x01",
    b"\x02\x04\x7f\xff\xff\xff",
    b"\x02\x05",
    b"\x02\0",
    b"\x61\0",
    b"\x0a\x01",
    b"\xa3\x02",
    b"\xff\xff",
    b"\0",
];

#[test]
fn answers_to_binds_are_read_the_same_however_they_come() {
    campaign(SAMPLES, WORDS, |bytes, rng| {
        settles((bytes, rng), parse);
        match parse(bytes) {
            Ok(Some((_, length))) => assert!(length <= bytes.len()),
            Ok(None) => assert!(bytes.len() < MESSAGE_BYTES_MAX, "nothing is awaited for ever"),
            Err(_) => {}
        }
    });
}
