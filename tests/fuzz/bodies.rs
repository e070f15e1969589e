//! Chunked bodies.

use ringway::proto::h1::chunked::{ChunkFault, Decoder, write_size};

use super::{campaign, cuts};

const BODIES: &[&[u8]] = &[
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"00a;name=value;q=\"a;\\\"b\"\r\n0123456789\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nX-More:  2 \r\n\r\nGET / HTTP/1.1\r\n",
    b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\nFf\r\n012345678901234567890123456789012345678901234567890123456789012345678901234\
      567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345\
      678901234567890123456789012345678901234567890123456789012345678901234\r\n0;last\r\n\r\n",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\n",
    b";",
    b"=",
    b"\"",
    b"\\",
    b" ",
    b"\t",
    b"\0",
    b"-1",
    b"0x",
    b"ffffffffffffffff",
    b"10000000000000000",
    b"8000000000000000",
    b"Content-Length: 1\r\n",
    b":",
    b"a",
];

/// What became of a body.
#[derive(Debug, PartialEq)]
enum Verdict {
    Fault(ChunkFault),
    Bytes { data: Vec<u8>, consumed: usize, done: bool, trailers: Vec<u8> },
}

fn decode(bytes: &[u8], cuts: &[usize]) -> Verdict {
    let mut decoder = Decoder::default();
    let (mut data, mut consumed, mut from) = (Vec::new(), 0, 0);
    for cut in cuts {
        let mut piece = bytes[from..*cut].to_vec();
        from = *cut;
        let step = match decoder.decode(&mut piece) {
            Ok(step) => step,
            Err(fault) => return Verdict::Fault(fault),
        };
        assert!(step.data <= step.consumed && step.consumed <= piece.len(), "{step:?}");
        assert!(step.done || step.consumed == piece.len(), "{step:?}");
        assert_eq!(step.done, decoder.is_done());
        assert_eq!(
            piece[step.consumed..],
            bytes[*cut - piece.len() + step.consumed..*cut],
            "what is behind was touched"
        );
        data.extend_from_slice(&piece[..step.data]);
        consumed += step.consumed;
        if step.done {
            break;
        }
    }
    Verdict::Bytes { data, consumed, done: decoder.is_done(), trailers: decoder.trailers().to_vec() }
}

#[test]
fn chunked() {
    campaign(BODIES, WORDS, |bytes, rng| {
        let whole = decode(bytes, &[bytes.len()]);
        let cuts = cuts(rng, bytes.len());
        assert_eq!(decode(bytes, &cuts), whole, "cut at {cuts:?}");
        let Verdict::Bytes { data, done: true, trailers, .. } = whole else { return };
        // Written anew in chunks of ours, it says the same.
        let mut out = Vec::new();
        for piece in data.chunks(1 + rng.below(50) as usize) {
            write_size(&mut out, piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        out.extend_from_slice(&trailers);
        out.extend_from_slice(b"\r\n");
        let expect = Verdict::Bytes { data, consumed: out.len(), done: true, trailers };
        assert_eq!(decode(&out, &[out.len()]), expect);
    });
}
