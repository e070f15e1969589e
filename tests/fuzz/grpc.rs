//! gRPC-Web: base64 and frames, by any cut.

use ringway::proto::grpc::{Messages, escaped, unescaped};
use ringway::proto::grpc_web::{TextEncoder, decode_text};

use super::{campaign, cuts};

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
