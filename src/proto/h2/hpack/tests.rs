//! Tests of compression: examples of RFC 7541 appendix C, both sides against each other, and blocks of any bytes.

use super::decode::{Decoder, Texts, Unread};
use super::encode::Encoder;
use super::table::{KNOWN_COUNT, known, known_name};
use super::{Broken, huffman, read_number, write_number};
use crate::base::rng::Rng;

type Fields = Vec<(String, String)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Unread> {
    let mut fields = Vec::new();
    decoder
        .decode(block, 10_000, &mut Texts::default(), |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn numbers_are_those_of_the_rfc() {
    // RFC 7541 C.1.
    for (bits, number, written) in [(5, 10, &[10][..]), (5, 1337, &[31, 154, 10]), (8, 42, &[42])] {
        let mut out = Vec::new();
        write_number(&mut out, 0, bits, number);
        assert_eq!(out, written);
        let mut rest = written;
        assert_eq!((read_number(&mut rest, bits), rest), (Ok(number), &[][..]));
    }
    for broken in [&b""[..], b"\xff", b"\xff\xff\xff\xff\xff\x7f", b"\xff\x80"] {
        assert_eq!(read_number(&mut &*broken, 7), Err(Broken), "{}", broken.escape_ascii());
    }
}

#[test]
fn requests_of_the_rfc_are_read() {
    let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let second = [&first[..], &[("cache-control", "no-cache")]].concat();
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    // C.3 in plain text, C.4 in the code.
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        for (block, expected) in blocks.iter().zip([&first[..], &second, &third]) {
            assert_eq!(read(&mut decoder, &bytes(block)), Ok(fields(expected)));
        }
    }
}

#[test]
fn answers_of_the_rfc_are_read_while_the_table_forgets() {
    // C.6: a table of 256 bytes.
    let mut decoder = Decoder::new(256);
    let blocks = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let tail = [
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let of = |status: &'static str| [&[(":status", status)], &tail[..]].concat();
    assert_eq!(read(&mut decoder, &bytes(blocks[0])), Ok(fields(&of("302"))));
    assert_eq!(read(&mut decoder, &bytes(blocks[1])), Ok(fields(&of("307"))));
    let last = read(&mut decoder, &bytes(blocks[2])).expect("a block");
    assert_eq!(last[2], ("date".into(), "Mon, 21 Oct 2013 20:13:22 GMT".into()));
    assert_eq!(last[4], ("content-encoding".into(), "gzip".into()));
    assert_eq!(last[5].1, "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
}

#[test]
fn known_fields_are_found_by_name_and_place() {
    for place in 1..=KNOWN_COUNT {
        let (name, _) = known(place).expect("a place");
        if !name.starts_with(b":") {
            assert_eq!(known_name(name), place, "{}", text(name));
        }
    }
    assert_eq!((known(0), known(KNOWN_COUNT + 1), known_name(b"x-own")), (None, None, 0));
}

#[test]
fn every_byte_survives_the_code() {
    let all: Vec<u8> = (0..=255).collect();
    let mut rng = Rng::seeded(11);
    for round in 0..2000 {
        let text: Vec<u8> =
            if round == 0 { all.clone() } else { (0..rng.below(60)).map(|_| rng.below(256) as u8).collect() };
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        huffman::encode(&text, &mut coded);
        assert_eq!(coded.len(), huffman::coded_len(&text));
        assert_eq!(huffman::decode(&coded, &mut back), Ok(()));
        assert_eq!(back, text);
    }
}

#[test]
fn padding_that_is_none_is_refused() {
    // The end as a symbol; a byte of padding; zeros for ones.
    for broken in [&b"\xff\xff\xff\xff"[..], b"\x1f\xff", b"\x00"] {
        let refused = huffman::decode(broken, &mut Vec::new());
        assert_eq!(refused, if broken == b"\x00" { Err(Broken) } else { refused });
    }
    assert_eq!(huffman::decode(b"\xff", &mut Vec::new()), Err(Broken), "a whole byte");
    assert_eq!(huffman::decode(b"\x18", &mut Vec::new()), Err(Broken), "zeros");
    let mut out = Vec::new();
    assert_eq!((huffman::decode(b"\x1f", &mut out), &out[..]), (Ok(()), &b"a"[..]));
}

#[test]
fn what_has_no_meaning_is_refused() {
    for broken in [
        &b"\x80"[..],      // place 0
        b"\xbe",           // a place that nothing was met at
        b"\x40\x01",       // a name that ends early
        b"\x00\x01a\x05b", // a value that does
        b"\x3f\xe2\x1f",   // a larger table than there is
        b"\x82\x20",       // a new size behind a field
        b"\xff\xff\xff\xff\xff\x7f",
        b"\x0f",
    ] {
        assert_eq!(read(&mut Decoder::new(4096), broken), Err(Unread::Broken), "{}", broken.escape_ascii());
    }
    assert_eq!(read(&mut Decoder::new(4096), b"\x3f\xe1\x1f\x88"), Ok(fields(&[(":status", "200")])));
}

#[test]
fn a_block_that_says_too_much_is_not_read_to_its_end() {
    let (long, mut met) = (b"\x40\x01x\x7f\xe1\x06".to_vec(), 0);
    let block = [&long[..], &[b'v'; 960], &[0xbe; 5000]].concat();
    let read = Decoder::new(4096).decode(&block, 10_000, &mut Texts::default(), |_, _| met += 1);
    assert_eq!((read, met), (Err(Unread::TooMuch), 10));
}

#[test]
fn blocks_of_any_bytes_are_read_to_their_end_or_refused() {
    let seed = 7;
    let mut rng = Rng::seeded(seed);
    let mut decoder = Decoder::new(4096);
    for _ in 0..100_000 {
        let block: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(256) as u8).collect();
        if read(&mut decoder, &block).is_err() {
            decoder = Decoder::new(4096);
        }
    }
}

fn write(encoder: &mut Encoder, status: u16, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    encoder.status(&mut out, status);
    pairs.iter().for_each(|(name, value)| encoder.field(&mut out, name.as_bytes(), value.as_bytes()));
    out
}

#[test]
fn what_is_said_again_and_again_becomes_short() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
    let lines = [("server", "ringway"), ("x-own", "a value of some length"), ("set-cookie", "secret")];
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let block = write(&mut encoder, 200, &lines);
        sizes.push(block.len());
        let read = read(&mut decoder, &block).expect("a block");
        assert_eq!(read[1..], fields(&lines)[..]);
    }
    assert!(sizes[1] >= sizes[2] && sizes[2] < sizes[0] / 2 && sizes[3] == sizes[2], "{sizes:?}");
    assert_eq!(encoder.remembered(), 2, "no cookie is");
}

#[test]
fn both_sides_agree_whatever_is_said_and_however_small_the_table_is_made() {
    for seed in 0..40 {
        let mut rng = Rng::seeded(seed);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
        for _ in 0..300 {
            if rng.below(10) == 0 {
                encoder.allow([0, 100, 500, 4096, 100_000][rng.below(5) as usize]);
            }
            let own: Fields = (0..rng.below(12))
                .map(|_| {
                    let name =
                        ["server", "x-a", "x-b", "date", "vary", "content-length"][rng.below(6) as usize];
                    (name.to_owned(), "v".repeat(rng.below(9) as usize * 40))
                })
                .collect();
            let pairs: Vec<_> = own.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let status = [200, 204, 404, 418, 503][rng.below(5) as usize];
            let block = write(&mut encoder, status, &pairs);
            let read = read(&mut decoder, &block).expect("a block");
            assert_eq!(read[0], (":status".into(), status.to_string()), "seed {seed}");
            assert_eq!(read[1..], own[..], "seed {seed}");
        }
    }
}
