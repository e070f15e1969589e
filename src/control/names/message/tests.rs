//! Messages by hand: what servers send, and what nobody should.

use super::*;
use crate::base::rng::Rng;

/// An answer to a question with these records, each as name, type, seconds and data.
fn reply(question: &[u8], flags: [u8; 2], records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (name, kind, ttl, data) in records {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&INTERNET.to_be_bytes());
        bytes.extend_from_slice(&ttl.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}

/// The name of the question.
const SAME: &[u8] = &[0xc0, 12];
const OK: [u8; 2] = [0x81, 0x80];

fn asked(name: &str, kind: Type) -> Vec<u8> {
    question(7, name, kind).expect("it is a name")
}

#[test]
fn what_is_no_name_is_not_asked_for() {
    let long = "a.".repeat(127) + "a";
    for wrong in ["", ".", "a..b", ".a", "a b", "ä.test", &"a".repeat(64), &long] {
        assert_eq!(question(1, wrong, Type::A), None, "{wrong}");
    }
    assert!(question(1, "_http._tcp.example.com.", Type::Srv).is_some());
}

#[test]
fn addresses_are_found_through_other_names_and_count_for_the_shortest_time() {
    let question = asked("www.Example.com", Type::A);
    let bytes = reply(
        &question,
        OK,
        &[
            (SAME, 5, 60, b"\x01b\x07example\x03com\0"),
            (b"\x01B\x07EXAMPLE\x03com\0", 1, 300, &[10, 0, 0, 1]),
            (b"\x01b\x07example\x03com\0", 1, 20, &[10, 0, 0, 2]),
            (b"\x01c\x07example\x03com\0", 1, 1, &[10, 0, 0, 9]),
            (b"\x01b\x07example\x03com\0", 16, 1, b"\x04text"),
        ],
    );
    let answer = answer(&bytes, &question).expect("it is one");
    let (found, ttl) = answer.addresses("www.example.com.", Type::A);
    assert_eq!(found, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
    assert_eq!(ttl, 20);
    assert!(answer.addresses("other.example.com", Type::A).0.is_empty());
    assert!(answer.addresses("www.example.com", Type::Aaaa).0.is_empty());
}

#[test]
fn hosts_of_a_service_have_ports_weights_and_priorities() {
    let question = asked("_http._tcp.a", Type::Srv);
    let bytes = reply(&question, OK, &[(SAME, 33, 9, b"\0\x0a\0\x05\x1f\x90\x01h\x01a\0")]);
    let (hosts, ttl) = answer(&bytes, &question).expect("it is one").hosts("_http._tcp.a");
    assert_eq!(hosts, [Host { priority: 10, weight: 5, port: 8080, target: "h.a".into() }]);
    assert_eq!(ttl, 9);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let question = asked("a.test", Type::A);
    let good = reply(&question, OK, &[(SAME, 1, 1, &[10, 0, 0, 1])]);
    assert!(answer(&good, &question).is_some());
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut no_response = good.clone();
    no_response[2] &= 0x7f;
    for bytes in [&other_id, &no_response, &question, &good[..good.len() - 1], b""] {
        assert_eq!(answer(bytes, &question), None);
    }
    let others = [asked("b.test", Type::A), asked("a.test", Type::Aaaa)];
    assert!(others.iter().all(|other| answer(&good, other).is_none()));
    let refused = reply(&question, [0x81, 0x85], &[]);
    assert_eq!(answer(&refused, &question).map(|answer| answer.code), Some(5));
}

#[test]
fn a_cut_answer_is_told_as_one() {
    let question = asked("a.test", Type::A);
    let bytes = reply(&question, [0x83, 0x80], &[(SAME, 1, 1, &[10, 0, 0, 1])]);
    assert!(answer(&bytes[..bytes.len() - 2], &question).expect("it is one").is_truncated);
}

#[test]
fn names_that_lead_in_circles_or_ahead_are_refused() {
    let question = asked("a.test", Type::A);
    let end = question.len() as u8;
    for pointer in [end, end + 2, 255] {
        let bytes = reply(&question, OK, &[(&[0xc0, pointer], 1, 1, &[10, 0, 0, 1])]);
        assert_eq!(answer(&bytes, &question), None, "{pointer}");
    }
    let circle = reply(&question, OK, &[(SAME, 5, 1, b"\x01b\0"), (b"\x01b\0", 5, 1, SAME)]);
    let found = answer(&circle, &question).expect("it is one").addresses("a.test", Type::A);
    assert!(found.0.is_empty());
}

#[test]
fn no_bytes_are_too_bad_to_be_read() {
    let seed = 0xd45;
    let mut rng = Rng::seeded(seed);
    let question = asked("www.example.com", Type::Srv);
    let good = reply(
        &question,
        OK,
        &[(SAME, 33, 9, b"\0\x0a\0\x05\x1f\x90\xc0\x10"), (SAME, 5, 1, SAME), (SAME, 28, 1, &[1; 16])],
    );
    assert!(answer(&good, &question).is_some(), "it can be read as it is");
    for _ in 0..100_000 {
        let mut bytes = good.clone();
        bytes.truncate(rng.below(good.len() as u64 + 1) as usize);
        for _ in 0..rng.below(4) {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
        }
        if let Some(answer) = answer(&bytes, &question) {
            answer.addresses("www.example.com", Type::A);
            answer.hosts("www.example.com");
        }
    }
}
