//! Chunked bodies: tables, and a model of random bodies, cuts and damage.

use super::chunked::*;
use crate::base::rng::Rng;

/// What a whole body decodes to: data, bytes left behind the end, trailers.
type Outcome = Result<Option<(Vec<u8>, usize, Vec<u8>)>, ChunkFault>;

/// Decodes `body` handed over in pieces that end at `cuts`. `None` when it is not complete.
fn decode(body: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = Decoder::default();
    let (mut data, mut start) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([body.len()]) {
        let mut piece = body[start..end].to_vec();
        let step = decoder.decode(&mut piece)?;
        data.extend_from_slice(&piece[..step.data]);
        assert!(step.data <= step.consumed && step.consumed <= piece.len());
        assert_eq!(
            &piece[step.consumed..],
            &body[start + step.consumed..end],
            "what is behind stays in place"
        );
        if step.done {
            return Ok(Some((data, body.len() - start - step.consumed, decoder.trailers().to_vec())));
        }
        assert_eq!(step.consumed, piece.len());
        start = end;
    }
    Ok(None)
}

fn bytewise(body: &[u8]) -> Outcome {
    decode(body, &(1..body.len()).collect::<Vec<_>>())
}

fn check(body: &[u8], data: &[u8], left: usize, trailers: &[u8]) {
    let expect = Ok(Some((data.to_vec(), left, trailers.to_vec())));
    let text = body.escape_ascii();
    assert_eq!(decode(body, &[]), expect, "{text}");
    assert_eq!(bytewise(body), expect, "{text} byte by byte");
    for cut in 1..body.len() {
        assert_eq!(decode(body, &[cut]), expect, "{text} cut at {cut}");
    }
}

fn refused(body: &[u8], fault: ChunkFault) {
    let text = body.escape_ascii();
    assert_eq!(decode(body, &[]), Err(fault), "{text}");
    assert_eq!(bytewise(body), Err(fault), "{text} byte by byte");
}

#[test]
fn chunks_are_joined_and_what_is_behind_is_left() {
    check(b"0\r\n\r\n", b"", 0, b"");
    check(b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0, b"");
    check(b"1\r\na\r\n00A\r\n0123456789\r\n000\r\n\r\nGET /", b"a0123456789", 5, b"");
    check(b"a;x\r\n0123456789\r\n0;y=z;q=\"a;\\\"\t b\"\r\n\r\n", b"0123456789", 0, b"");
    check(b"0000000000000001\r\na\r\n0\r\n\r\n", b"a", 0, b"");
}

#[test]
fn a_size_is_hexadecimal_digits_alone() {
    for size in
        ["0x5", " 5", "5 ", "5\t", "+5", "-1", "_5", "5_0", "", ";x", "g", "5 ;x", "00000000000000005", "\0"]
    {
        refused(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes(), ChunkFault::BadSize);
    }
    assert_eq!(decode(b"FFFFFFFFFFFFFFFF\r\nab", &[]), Ok(None));
}

#[test]
fn extensions_are_well_formed_and_bounded() {
    for extension in
        [";", ";;", ";a;", ";a=", ";a\0", "; a", ";a b", ";a =b", ";=b", ";a=\"b\0\"", ";a=\"b\"c", ";a=b=c"]
    {
        refused(format!("5{extension}\r\nhello\r\n0\r\n\r\n").as_bytes(), ChunkFault::BadExtension);
    }
    for line_end in ["5;a\nb\r\nhello\r\n", "5;\n", "5;a=\"\n\"\r\n", "5;a\rb\r\n"] {
        refused(line_end.as_bytes(), ChunkFault::BadLineEnd);
    }
    let with = |len: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(len - 1)).into_bytes();
    assert!(matches!(decode(&with(usize::from(EXTENSION_BYTES_MAX)), &[]), Ok(Some(_))));
    assert_eq!(decode(&with(usize::from(EXTENSION_BYTES_MAX) + 1), &[]), Err(ChunkFault::ExtensionTooLarge));
    // The bound is of the message, not of a chunk.
    assert_eq!(decode(&b"1;a\r\nx\r\n".repeat(3000), &[]), Err(ChunkFault::ExtensionTooLarge));
}

#[test]
fn lines_end_in_crlf_and_data_where_its_size_says() {
    for body in
        ["5\nhello\r\n", "5\rhello\r\n", "5\r\r\nhello", "5\r\nhello\rx", "0\r\n\rx", "0\n\n", "5\r;a"]
    {
        refused(body.as_bytes(), ChunkFault::BadLineEnd);
    }
    for body in ["5\r\nhello!\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "1\r\n\r\n\r\n\r\n"] {
        let fault = decode(body.as_bytes(), &[]);
        assert!(matches!(fault, Err(ChunkFault::DataOverrun | ChunkFault::BadSize)), "{body:?} {fault:?}");
    }
    for cut in
        ["", "5", "5\r", "5\r\nhell", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\na:b\r\n"]
    {
        assert_eq!(decode(cut.as_bytes(), &[]), Ok(None), "{cut:?}");
    }
}

#[test]
fn trailers_are_kept_raw_and_bounded() {
    check(b"1\r\nx\r\n0\r\nGrpc-Status: 0\r\nb:\r\n\r\nX", b"x", 1, b"Grpc-Status: 0\r\nb:\r\n");
    let mut decoder = Decoder::default();
    decoder.decode(&mut b"0\r\nA: 1 \r\nb:\t2:3\r\nc:\r\n\r\n".to_vec()).expect("it is well-formed");
    let fields: Vec<_> = decoder.trailer_fields().collect();
    assert_eq!(fields, [(&b"A"[..], &b"1"[..]), (b"b", b"2:3"), (b"c", b"")]);
    decoder.reset();
    assert!(decoder.trailers().is_empty() && !decoder.is_done());

    for line in
        [": x", "a b: c", "a : c", " a: c", "\ta: c", "a\0: c", "a: \0", "a: \x7f", "nocolon", "a\u{e9}: c"]
    {
        refused(format!("0\r\n{line}\r\n\r\n").as_bytes(), ChunkFault::BadTrailer);
    }
    for line in ["a: b\nc: d\r\n", "a\n", "\n", "a: b\rc: d\r\n", "a: b\r\n\n"] {
        refused(format!("0\r\n{line}").as_bytes(), ChunkFault::BadLineEnd);
    }
    let with = |len: usize| format!("0\r\na:{}\r\n\r\n", "b".repeat(len - 4)).into_bytes();
    assert!(matches!(decode(&with(TRAILER_BYTES_MAX), &[]), Ok(Some(_))));
    assert_eq!(decode(&with(TRAILER_BYTES_MAX + 1), &[]), Err(ChunkFault::TrailerTooLarge));
}

#[test]
fn trailers_that_frame_route_or_identify_are_not_forwarded() {
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "HOST",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Trailer",
        "TE",
        "Connection",
        "Upgrade",
        "Keep-Alive",
        "X-Forwarded-For",
        "x-forwarded-prefix",
        "X-Real-IP",
        "Forwarded",
        "Proxy-Authorization",
        "Expect",
        "Max-Forwards",
        "Cache-Control",
        "If-Match",
        "Range",
        "X-Consumer-Username",
        "apikey",
        "X_Anything",
        "Location",
        "Vary",
    ] {
        assert!(!allowed_trailer(name.as_bytes()), "{name}");
    }
    for name in [
        "grpc-status",
        "Grpc-Message",
        "Server-Timing",
        "ETag",
        "Digest",
        "x-checksum",
        "x-forward",
        "if",
        "X-RateLimit-Reset",
    ] {
        assert!(allowed_trailer(name.as_bytes()), "{name}");
    }
    assert!(accepts_trailers(b"deflate, Trailers") && !accepts_trailers(b"trailersx"));
}

#[test]
fn a_written_size_is_read_back() {
    for len in [1, 9, 15, 16, 255, 256, 65_535, 65_536, usize::MAX] {
        let mut out = Vec::new();
        write_size(&mut out, len);
        assert_eq!(out, format!("{len:x}\r\n").as_bytes());
    }
    assert_eq!(decode(LAST_CHUNK, &[]), Ok(Some((Vec::new(), 0, Vec::new()))));
}

/// A random body: what it says and how it is written.
fn random_body(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut written) = (Vec::new(), Vec::new());
    for _ in 0..rng.below(6) {
        let chunk: Vec<u8> = (0..1 + rng.below(40)).map(|_| rng.next_u64() as u8).collect();
        let line = match rng.below(3) {
            0 => format!("{:x}\r\n", chunk.len()),
            1 => format!("{:04X}\r\n", chunk.len()),
            _ => format!("{:x};e{}=\"q;\"\r\n", chunk.len(), rng.below(9)),
        };
        written.extend_from_slice(line.as_bytes());
        written.extend_from_slice(&chunk);
        written.extend_from_slice(b"\r\n");
        data.extend_from_slice(&chunk);
    }
    written.extend_from_slice(if rng.below(2) == 0 { b"0\r\n\r\n" } else { b"0\r\nt: v\r\n\r\n" });
    (data, written)
}

fn random_cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.below(8)).map(|_| rng.below(len as u64 + 1) as usize).collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn random_bodies_survive_random_cuts() {
    for seed in 0..3000 {
        let mut rng = Rng::seeded(seed);
        let (data, mut written) = random_body(&mut rng);
        let behind = rng.below(4) as usize;
        written.extend_from_slice(&b"GET"[..behind.min(3)]);
        let cuts = random_cuts(&mut rng, written.len());
        let Ok(Some((found, left, _))) = decode(&written, &cuts) else {
            panic!("seed {seed}: {} is refused or not complete", written.escape_ascii());
        };
        assert_eq!((found, left), (data, behind.min(3)), "seed {seed}");
    }
}

#[test]
fn spoilt_bodies_have_one_verdict_however_cut() {
    for seed in 0..6000 {
        let mut rng = Rng::seeded(seed);
        let (_, mut written) = random_body(&mut rng);
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(written.len() as u64) as usize;
            match rng.below(3) {
                0 => written[at] = rng.next_u64() as u8,
                1 => written.insert(at, b"\r\n; \t0\0"[rng.below(7) as usize]),
                _ => drop(written.remove(at)),
            }
        }
        let cuts = random_cuts(&mut rng, written.len());
        assert_eq!(decode(&written, &cuts), decode(&written, &[]), "seed {seed}: {}", written.escape_ascii());
    }
}
