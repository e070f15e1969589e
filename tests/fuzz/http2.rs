//! Connections of HTTP/2: whole conversations cut at every byte must come to the same, and damaged ones must end while others
//! are served.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use ringway::runtime::driver::Wanted;

use super::connections::{has_io_uring, limits, objects, run};
use super::inprocess::House;

/// A beginning that changes nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    [&[0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// `GET /x` and `POST /x` of a.test: from the table by their places, and as they are.
const GET: &[u8] = b"\x82\x86\x44\x02/x\x41\x06a.test";
const POST: &[u8] = b"\x83\x86\x44\x02/x\x41\x06a.test";
/// The same with words by Huffman, a large header, and one that is never to be remembered.
const HUFFMAN: &[u8] = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";

/// Conversations in which every stream is answered. The last frame ends the last stream.
fn conversations() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let large = [GET, b"\0\x01x\x7f\xf1\x02", &[b'v'; 496]].concat();
    let remembered = [GET, b"\x40\x01x\x05value"].concat();
    vec![
        ("one request", vec![frame(1, 5, 1, GET)]),
        ("words by Huffman", vec![frame(1, 5, 1, HUFFMAN)]),
        (
            "a body in frames",
            vec![
                frame(1, 4, 1, POST),
                frame(0, 0, 1, b"abc"),
                frame(0, 8, 1, b"\x03de\0\0\0"),
                frame(0, 1, 1, b"f"),
            ],
        ),
        (
            "a body and trailers",
            vec![frame(1, 4, 1, POST), frame(0, 0, 1, b"abc"), frame(1, 5, 1, b"\0\x01t\x01v")],
        ),
        (
            "headers in pieces",
            vec![
                frame(1, 1, 1, &large[..9]),
                frame(9, 0, 1, &large[9..300]),
                frame(9, 0, 1, b""),
                frame(9, 4, 1, &large[300..]),
            ],
        ),
        (
            "padding and a place among others",
            vec![frame(1, 0x2d, 1, &[b"\x04\0\0\0\0\x10", GET, &[0; 4]].concat())],
        ),
        (
            "what was said before",
            vec![
                frame(1, 5, 1, &remembered),
                frame(1, 5, 3, b"\x82\x86\xbf\xc0\xbe"),
                frame(1, 5, 5, b"\x82\x86\xbf\xc0\xbe"),
            ],
        ),
        (
            "much between",
            vec![
                frame(4, 0, 0, b"\0\x04\0\x01\0\0\0\x06\0\0\xff\xff"),
                frame(6, 0, 0, b"pingpong"),
                frame(8, 0, 0, b"\0\0\x01\0"),
                frame(1, 4, 1, POST),
                frame(2, 0, 1, b"\0\0\0\0\x07"),
                frame(8, 0, 1, b"\0\0\x01\0"),
                frame(200, 0xff, 77, b"nobody knows"),
                frame(1, 5, 3, GET),
                frame(0, 1, 1, b"abc"),
            ],
        ),
        (
            "one given up, another not",
            vec![frame(1, 4, 1, POST), frame(3, 0, 1, b"\0\0\0\x08"), frame(1, 5, 3, GET)],
        ),
    ]
}

/// What came of each stream: its status as it was sent, the bytes of its body, whether it ended.
type Outcome = BTreeMap<u8, (u8, Vec<u8>, bool)>;

/// Reads until these streams have ended.
fn outcome(stream: &mut TcpStream, wanted: &[u8], case: &str) -> Outcome {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let streams = streams(&all, case);
        if wanted.iter().all(|stream| streams.get(stream).is_some_and(|(_, _, ended)| *ended)) {
            return streams;
        }
        let count =
            stream.read(&mut piece).unwrap_or_else(|error| panic!("{case}: {error} after {streams:?}"));
        assert!(count > 0, "{case}: it ended after {streams:?}");
        all.extend_from_slice(&piece[..count]);
    }
}

fn streams(mut bytes: &[u8], case: &str) -> Outcome {
    let mut streams = Outcome::new();
    while let [_, high, low, kind, flags, _, _, _, stream, rest @ ..] = bytes {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        assert!(
            !matches!(kind, 3 | 7) || *stream == 1 && case.contains("given up"),
            "{case}: frame {kind} {payload:?}"
        );
        if matches!(kind, 0 | 1) {
            let (status, body, ended) = streams.entry(*stream).or_default();
            if *kind == 1 {
                *status = payload[0];
            } else {
                body.extend_from_slice(payload);
            }
            *ended |= flags & 1 != 0;
        }
    }
    streams
}

fn cut_everywhere(wanted: Wanted) {
    let house = House::open(wanted, limits(), &objects(), || {});
    for (what, frames) in conversations() {
        let said = [HELLO, &frames.concat()].concat();
        let mut asked: Vec<u8> = frames.iter().filter(|frame| frame[3] == 1).map(|frame| frame[8]).collect();
        if what.contains("given up") {
            asked.retain(|stream| *stream != 1);
        }
        let of = |cut: usize| {
            let mut stream = house.connect();
            for piece in [&said[..cut], &said[cut..]] {
                stream.write_all(piece).expect("the core reads");
                std::thread::yield_now();
            }
            let mut told = outcome(&mut stream, &asked, &format!("{what}, cut at {cut}"));
            told.retain(|stream, _| asked.contains(stream));
            told
        };
        let whole = of(said.len());
        // 200, by its place in the table.
        assert!(
            whole.values().all(|(status, body, _)| *status == 0x88 && body == b"hello\n"),
            "{what}: {whole:?}"
        );
        for cut in 1..said.len() {
            assert_eq!(of(cut), whole, "{what}, cut at {cut}");
        }
        house.take_reports();
    }
}

#[test]
fn conversations_cut_at_every_byte_come_to_the_same_io_uring() {
    if has_io_uring() {
        cut_everywhere(Wanted::IoUring);
    }
}

#[test]
fn conversations_cut_at_every_byte_come_to_the_same_epoll() {
    cut_everywhere(Wanted::Epoll);
}

const WORDS: &[&[u8]] = &[
    HELLO,
    // Frames of each kind, most of them wrong wherever they come.
    b"\0\0\0\0\0\0\0\0\x01",
    b"\0\0\0\x01\x05\0\0\0\x03",
    b"\0\0\x01\x09\0\0\0\0\x01\x82",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x01\xff\xff\xff\xff",
    b"\0\0\x08\x06\0\0\0\0\0pingpong",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\x04\x08\0\0\0\0\x01\x7f\xff\xff\xff",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
    b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\x01\x07",
    // Headers: out of the table, beyond it, of any length.
    b"\x82\x86\x84",
    b"\xbe",
    b"\xff\xff\xff\xff\x0f",
    b"\x3f\xe1\x1f",
    b"\x40\x01x\x01y",
    b"\0\x01x\x7f\xff\xff\x01",
    b"\0\x07:status\x03200",
    b"\0\x11transfer-encoding\x07chunked",
    b"\0\x0econtent-length\x015",
    b"\0\x09:protocol\x09websocket",
];

fn mutants(wanted: Wanted) {
    let said: Vec<Vec<u8>> =
        conversations().into_iter().map(|(_, frames)| [HELLO, &frames.concat()].concat()).collect();
    let samples: Vec<&[u8]> = said.iter().map(Vec::as_slice).collect();
    run(wanted, &samples, WORDS);
}

#[test]
fn damaged_conversations_end_io_uring() {
    if has_io_uring() {
        mutants(Wanted::IoUring);
    }
}

#[test]
fn damaged_conversations_end_epoll() {
    mutants(Wanted::Epoll);
}
