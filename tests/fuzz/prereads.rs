//! What is read of a client before anybody answers it: hellos of TLS, first packets of MQTT, PROXY headers.

use ringway::base::rng::Rng;
use ringway::proto::{hello, mqtt, proxy_protocol};

use super::{campaign, cuts};

const SAMPLES: &[&[u8]] = &[
    b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04id-7",
    b"\x10\x17\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x3c\0\x05id-75",
    b"\x10\x8e\x01\0\x06MQIsdp\x03\x02\0\x3c\0\x80aaaaaaaaaaaaaaaa",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xd4\x31\x01\xbb",
    // A hello that asks for a.test.
    b"\x16\x03\x01\0\x40\x01\0\0\x3c\x03\x03\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
      \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\x02\x13\x01\x01\0\0\x11\
      \0\0\0\x0b\0\x09\0\0\x06a.test\0\x2b\0\x02\x03\x04",
];

const WORDS: &[&[u8]] = &[
    b"\0\x04MQTT",
    b"\x10",
    b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80",
    b"\x16\x03\x01",
    b"\x01\0\0",
    b"\0\0\0\x0b",
    b"\r\n",
    b"PROXY ",
    b"TCP6 ::1 ::1 1 2",
    b"\xff\xff",
    b"\0",
];

/// What a reader says of bytes must not change when more come: neither what it found, nor that there is nothing.
pub(crate) fn settles<T: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    (bytes, rng): (&[u8], &mut Rng),
    read: impl Fn(&[u8]) -> Result<Option<T>, E>,
) {
    let whole = read(bytes);
    let mut before = Ok(None);
    for at in cuts(rng, bytes.len()) {
        let found = read(&bytes[..at]);
        if before != Ok(None) {
            assert_eq!(found, before, "it changes its mind at {at}");
        }
        before = found;
    }
    assert!(before == Ok(None) || before == whole, "it changes its mind at the end");
}

#[test]
fn first_packets_of_mqtt_are_read_the_same_however_they_come() {
    campaign(SAMPLES, WORDS, |bytes, rng| {
        settles((bytes, rng), |bytes| {
            let found = mqtt::read(bytes)?;
            let owned = |connect: mqtt::Connect<'_>| {
                (connect.protocol.to_vec(), connect.level, connect.client_id.to_vec())
            };
            Ok::<_, mqtt::NoConnect>(found.map(owned))
        });
    });
}

#[test]
fn hellos_are_read_the_same_however_they_come() {
    campaign(SAMPLES, WORDS, |bytes, rng| settles((bytes, rng), hello::peek));
}

#[test]
fn proxy_headers_are_read_the_same_however_they_come() {
    campaign(SAMPLES, WORDS, |bytes, rng| settles((bytes, rng), proxy_protocol::read));
}
