//! gRPC-Web: base64 and frames, by any cut. Messages and definitions of protobuf.

use ringway::proto::grpc::{Messages, escaped, unescaped};
use ringway::proto::grpc_web::{TextEncoder, decode_text};

use ringway::base::rng::Rng;
use ringway::proto::protobuf::Reader;
use ringway::proto::protobuf::definitions::compile;

use super::mutate::Mutator;
use super::{Extent, campaign, cuts};

const SAMPLES: &[&[u8]] = &[
    b"\0\0\0\0\x05hello\x01\0\0\0\0\0\0\0\0\x02ab\x80\0\0\0\x0fgrpc-status:0\r\n",
    b"\0\0\0\0\0",
    b"\0\xff\xff\xff\xffnever whole",
    b"AAAAAAcKBXdvcmxkCgo=",
    b"AAAAAAA=QUJD==QQ==",
];

const WORDS: &[&[u8]] =
    &[b"=", b"==", b"\0\0\0\0\x01", b"\xff\xff\xff\xff", b"\x80", b"QQ==", b"QUI=", b"\n", b"%", b"%zz"];

#[test]
fn text() {
    campaign(SAMPLES, WORDS, |bytes, rng| {
        let encoded = |cuts: &[usize]| {
            let (mut encoder, mut out, mut from) = (TextEncoder::default(), Vec::new(), 0);
            for cut in cuts {
                encoder.encode(&bytes[from..*cut], &mut out);
                from = *cut;
            }
            encoder.finish(&mut out);
            out
        };
        let whole = encoded(&[bytes.len()]);
        assert_eq!(encoded(&cuts(rng, bytes.len())), whole);
        assert_eq!(encoded(&(1..=bytes.len()).collect::<Vec<_>>()), whole, "byte by byte");
        assert_eq!(decode_text(&whole).as_deref(), Some(bytes));
        // What somebody else says is text is that, or nothing.
        if let Some(decoded) = decode_text(bytes) {
            assert!(decoded.len() <= bytes.len() / 4 * 3);
        }
    });
}

#[test]
fn frames() {
    campaign(SAMPLES, WORDS, |bytes, rng| {
        let ends = |cuts: &[usize]| {
            let (mut messages, mut ends, mut at) = (Messages::default(), Vec::new(), 0);
            for cut in cuts {
                while at < *cut {
                    let (taken, is_end) = messages.advance(&bytes[at..*cut]);
                    assert!(taken > 0, "it goes on");
                    at += taken;
                    if is_end {
                        ends.push(at);
                    }
                }
            }
            ends
        };
        assert_eq!(ends(&cuts(rng, bytes.len())), ends(&[bytes.len()]));
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(unescaped(&escaped(&text)), text);
        let _ = unescaped(bytes);
    });
}

#[test]
fn messages() {
    let samples: &[&[u8]] = &[
        b"\x08\x96\x01\x12\x02hi\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0",
        b"\x0a\x05\x0a\x03\x0a\x01x\xca\x01\x00",
    ];
    campaign(samples, &[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b", b"\0", b"\x80"], |bytes, _| {
        let mut reader = Reader(bytes);
        let mut left = bytes.len();
        while let Some(Ok(_)) = reader.next_field() {
            assert!(reader.0.len() < left, "it goes on");
            left = reader.0.len();
        }
    });
}

/// Cases of definitions, which take long.
const DEFINITIONS: u64 = 400;

#[test]
fn definitions() {
    let samples: &[&[u8]] = &[
        b"syntax = \"proto3\"; package a; import \"google/protobuf/any.proto\"; service S { rpc M (A) returns (stream A); }\n\
          message A { string x = 1; repeated B y = 2; map<int32, A> z = 3; oneof o { bool p = 4; google.protobuf.Any q = 5; } }\n\
          enum B { C = 0; D = -1; }",
        b"message A { optional int32 a = 1 [default = 7]; extensions 100 to 199; optional group G = 2 { required bytes b = 1; } }\n\
          extend A { optional string e = 100 [deprecated = true]; } option java_package = 'x\\n';",
        b"CgZhLnByb3RvEgFhIgoKAUESBQoBeBgBYgZwcm90bzM=",
    ];
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"(",
        b"message A {",
        b"= 536870911;",
        b"-1",
        b"\"",
        b"/*",
        b"//",
        b"option (x).y = { a: [",
        b"a.b.c",
    ];
    let mutator = Mutator { samples, words };
    let mut bytes = Vec::new();
    for seed in Extent::of(DEFINITIONS).seeds() {
        mutator.mutate(&mut Rng::seeded(seed), &mut bytes);
        if let Err(why) = compile(&String::from_utf8_lossy(&bytes)) {
            assert_ne!(why, "it can not be read", "FUZZ_SEED={seed} FUZZ_CASES=1: it panicked");
        }
    }
}
