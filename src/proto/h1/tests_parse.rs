//! Heads: sound ones whole and in every cut, and what is refused, whole and byte by byte.

use super::HeadFault;
use super::parse::*;
use crate::base::rng::Rng;
use crate::base::text::{is_field_byte, is_tchar};
use crate::proto::head::{HeaderId, HeaderList, Method, RequestLine, StatusLine, Version};

fn limits() -> HeadLimits {
    HeadLimits::default()
}

/// A verdict without what two equal ones may differ in.
type Verdict = Result<Parsed<(Method, Version, String, usize, usize)>, HeadFault>;

fn request_at(bytes: &[u8], start: usize, limits: &HeadLimits) -> (Verdict, HeaderList) {
    let mut headers = HeaderList::new();
    let verdict = request(bytes, start, limits, &mut headers).map(|parsed| match parsed {
        Parsed::Complete(RequestLine { method, version, target, head }) => {
            let target = target.of(bytes).escape_ascii().to_string();
            Parsed::Complete((method, version, target, head.start as usize, head.end()))
        }
        Parsed::Partial => Parsed::Partial,
    });
    headers.hold_received(bytes.to_vec());
    (verdict, headers)
}

fn verdict(bytes: &[u8]) -> Verdict {
    request_at(bytes, 0, &limits()).0
}

/// The first verdict that is not `Partial` when the bytes come in one by one.
fn dribbled(bytes: &[u8], limits: &HeadLimits) -> Verdict {
    (0..=bytes.len())
        .map(|len| request_at(&bytes[..len], 0, limits).0)
        .find(|verdict| *verdict != Ok(Parsed::Partial))
        .unwrap_or(Ok(Parsed::Partial))
}

fn refused(bytes: impl AsRef<[u8]>, fault: HeadFault) {
    let bytes = bytes.as_ref();
    assert_eq!(verdict(bytes), Err(fault), "{}", bytes.escape_ascii());
    assert_eq!(dribbled(bytes, &limits()), Err(fault), "{} byte by byte", bytes.escape_ascii());
}

fn accepted(bytes: &[u8], method: Method, version: Version, target: &str) {
    match verdict(bytes) {
        Ok(Parsed::Complete(found)) => {
            assert_eq!((found.0, found.1, found.2.as_str()), (method, version, target));
        }
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// Refused in a header line behind a sound request line and `Host`.
fn line_refused(line: impl AsRef<[u8]>, fault: HeadFault) {
    refused([b"GET / HTTP/1.1\r\nHost: a\r\n", line.as_ref(), b"\r\n\r\n"].concat(), fault);
}

#[test]
fn a_request_is_taken_apart() {
    let bytes = b"junk\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX-One:1\r\nX-Two: \t 2 3 \r\nX-None:\r\nX-Nil: \r\n\r\nbody";
    let (verdict, headers) = request_at(bytes, 4, &limits());
    let complete = (Method::Post, Version::Http11, "/a?b".to_owned(), 6, bytes.len() - 4);
    assert_eq!(verdict, Ok(Parsed::Complete(complete)));
    let lines: Vec<_> = headers.iter().collect();
    let expect: [(HeaderId, &[u8], &[u8]); 5] = [
        (HeaderId::Host, b"Host", b"a"),
        (HeaderId::Other, b"X-One", b"1"),
        (HeaderId::Other, b"X-Two", b"2 3"),
        (HeaderId::Other, b"X-None", b""),
        (HeaderId::Other, b"X-Nil", b""),
    ];
    assert_eq!(lines, expect);
    let mut out = Vec::new();
    headers.write(&mut out, &crate::proto::head::Omit::default());
    assert_eq!(out, b"Host: a\r\nX-One: 1\r\nX-Two: 2 3\r\nX-None: \r\nX-Nil: \r\n");
}

#[test]
fn every_cut_of_a_sound_request_gives_the_same() {
    let bytes =
        b"\r\nPUT /%61?b=c HTTP/1.0\r\nHost: a\r\nUser-Agent: x/1 (y; z)\r\nCookie: a=b; c=d\r\nE:\r\n\r\n";
    let whole = verdict(bytes);
    assert!(matches!(whole, Ok(Parsed::Complete(_))));
    for len in 0..bytes.len() {
        assert_eq!(verdict(&bytes[..len]), Ok(Parsed::Partial), "{len}");
        assert_eq!(find_head_end(bytes, len), Some(bytes.len()), "searched {len} before");
        assert_eq!(find_head_end(&bytes[..len], 0), None, "{len}");
    }
    assert_eq!(verdict(&[bytes, &b"GET / HTTP"[..]].concat()), whole);
}

#[test]
fn the_end_of_a_head_is_found_with_bare_lf_too() {
    assert_eq!(find_head_end(b"a\nb\n\nc", 0), Some(5));
    assert_eq!(find_head_end(b"a\r\n\nc", 3), Some(4));
    assert_eq!(find_head_end(b"a\n\r\nc", 3), Some(4));
    assert_eq!(find_head_end(b"a\r\nb\r\n", 0), None);
    assert_eq!(find_head_end(b"", 9), None);
}

#[test]
fn start_lines_have_single_spaces_and_a_known_method() {
    accepted(b"GET / HTTP/1.1\r\n\r\n", Method::Get, Version::Http11, "/");
    accepted(b"OPTIONS * HTTP/1.0\r\n\r\n", Method::Options, Version::Http10, "*");
    accepted(b"GET /\xc3\xa4\xff HTTP/1.1\r\n\r\n", Method::Get, Version::Http11, "/\\xc3\\xa4\\xff");
    for line in [
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1 ",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET /",
        "GET",
        "G=\":<>(e),[T];?\" / HTTP/1.1",
        "GET\0/ HTTP/1.1",
        "GET / HTTP/1.1\t",
        "\x16\x03\x01",
        "GET / HTTP/1.10",
        ": / HTTP/1.1",
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        let found = verdict(bytes.as_bytes());
        assert!(
            matches!(found, Err(HeadFault::BadRequestLine | HeadFault::BadVersion)),
            "{line:?}: {found:?}"
        );
        assert_eq!(dribbled(bytes.as_bytes(), &limits()), found, "{line:?}");
    }
    for method in ["get", "Get", "PRI", "GETS", "!", "FOO", &"A".repeat(200), &"A".repeat(64 * 1024)] {
        assert_eq!(verdict(format!("{method} / HTTP/1.1\r\n\r\n").as_bytes()), Err(HeadFault::MethodUnknown));
    }
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadFault::MethodUnknown);
    refused("GET /\0 HTTP/1.1\r\n\r\n", HeadFault::BadTarget);
    refused("GET /\x7f HTTP/1.1\r\n\r\n", HeadFault::BadTarget);
    refused("GET /a b HTTP/1.1\r\n\r\n", HeadFault::BadVersion);
}

#[test]
fn minor_versions_are_served_and_other_majors_refused() {
    for minor in '1'..='9' {
        let bytes = format!("GET / HTTP/1.{minor}\r\n\r\n");
        accepted(bytes.as_bytes(), Method::Get, Version::Http11, "/");
    }
    accepted(b"GET / HTTP/1.0\r\n\r\n", Method::Get, Version::Http10, "/");
    for version in ["HTTP/2.0", "HTTP/9.9", "HTTP/0.9", "HTTP/3.0"] {
        refused(format!("GET / {version}\r\n\r\n"), HeadFault::VersionUnsupported);
    }
    for version in [
        "HTTP/01.1",
        "http/1.1",
        "Http/1.1",
        "HTTP/1",
        "HTTP/2",
        "HTTP/1,1",
        "HTTP1.1",
        "HTTP/1.x",
        "XTTP/1.1",
    ] {
        refused(format!("GET / {version}\r\n\r\n"), HeadFault::BadVersion);
    }
}

#[test]
fn one_empty_line_may_come_before_a_request() {
    accepted(b"\r\nGET / HTTP/1.1\r\n\r\n", Method::Get, Version::Http11, "/");
    refused("\r\n\r\nGET / HTTP/1.1\r\n\r\n", HeadFault::BadRequestLine);
    refused("\nGET / HTTP/1.1\r\n\r\n", HeadFault::BareLf);
    refused("\rGET / HTTP/1.1\r\n\r\n", HeadFault::BadRequestLine);
    for partial in ["", "\r", "\r\n"] {
        assert_eq!(verdict(partial.as_bytes()), Ok(Parsed::Partial));
    }
}

#[test]
fn lines_end_in_crlf_and_nothing_else() {
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadFault::BareLf);
    refused("GET / HTTP/1.1\rHost: a\r\n\r\n", HeadFault::BareCr);
    refused("GET /\nHost: a\r\n\r\n", HeadFault::BareLf);
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", HeadFault::BareLf);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", HeadFault::BareLf);
    refused("GET / HTTP/1.1\r\nHost: a\n\n", HeadFault::BareLf);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\rX", HeadFault::BareCr);
    refused("GET / HTTP/1.1\n\n", HeadFault::BareLf);
    line_refused("Foo: bar\rTransfer-Encoding: chunked", HeadFault::BareCr);
    line_refused("Foo: bar\nTransfer-Encoding: chunked", HeadFault::BareLf);
    line_refused("Foo:\nTransfer-Encoding: chunked", HeadFault::BareLf);
    line_refused("Foo: \nA: b", HeadFault::BareLf);
    line_refused("\nTransfer-Encoding: chunked", HeadFault::BareLf);
    line_refused("Foo\nA: b", HeadFault::BareLf);
    // Far into a value, past any vector.
    line_refused(format!("Foo: {}\nA: b", "x".repeat(100)), HeadFault::BareLf);
}

#[test]
fn names_are_tokens_right_before_their_colon() {
    for name in ["Content-Length", "Transfer-Encoding"] {
        for tail in
            [&b" "[..], b"\t", b"\0", b"\x85", b"\xa0", b"\xff", b"\x0b", b"\\", b"/", b"\"", b"\xc3\xa4"]
        {
            line_refused([name.as_bytes(), tail, b": 5"].concat(), HeadFault::BadHeaderName);
            line_refused(
                [tail, name.as_bytes(), b": 5"].concat(),
                match tail {
                    b" " | b"\t" => HeadFault::FoldedLine,
                    _ => HeadFault::BadHeaderName,
                },
            );
        }
    }
    line_refused("Na me: v", HeadFault::BadHeaderName);
    line_refused("Transfer\\Encoding: chunked", HeadFault::BadHeaderName);
    line_refused(": v", HeadFault::BadHeaderName);
    line_refused(":", HeadFault::BadHeaderName);
    line_refused("nocolon", HeadFault::HeaderWithoutColon);
    line_refused("Foo: bar\r\n Content-Length: 5", HeadFault::FoldedLine);
    line_refused("Transfer-Encoding:\r\n chunked", HeadFault::FoldedLine);
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadFault::FoldedLine);
    refused("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", HeadFault::FoldedLine);
    // A token all the same, and not the name it looks like.
    let bytes = b"GET / HTTP/1.1\r\nTransfer-%45ncoding: x\r\n\r\n";
    let (found, headers) = request_at(bytes, 0, &limits());
    assert!(matches!(found, Ok(Parsed::Complete(_))) && !headers.has(HeaderId::TransferEncoding));
}

#[test]
fn underscores_in_names_are_refused_unless_kept() {
    line_refused("Transfer_Encoding: chunked", HeadFault::UnderscoreInName);
    line_refused("_: x", HeadFault::UnderscoreInName);
    let bytes = b"GET / HTTP/1.1\r\nX_A: b_c\r\nX-B: d_e\r\n\r\n";
    assert_eq!(request_at(bytes, 0, &limits()).0, Err(HeadFault::UnderscoreInName));
    let keep = HeadLimits { underscores: Underscores::Keep, ..limits() };
    let (found, headers) = request_at(bytes, 0, &keep);
    assert!(matches!(found, Ok(Parsed::Complete(_))));
    assert_eq!(headers.get("x_a"), Some(&b"b_c"[..]));
}

#[test]
fn each_byte_is_judged_alike_at_every_place_of_a_vector() {
    for byte in 0..=255u8 {
        for place in (0..70).step_by(3) {
            let filler = vec![b'x'; place];
            let name = [b"GET / HTTP/1.1\r\n", &filler[..], &[byte], b"x: v\r\n\r\n"].concat();
            let fits = is_tchar(byte) && byte != b'_' || byte == b':' && place > 0;
            assert_eq!(verdict(&name).is_ok(), fits, "{byte:#x} at {place} of a name");
            let value = [b"GET / HTTP/1.1\r\na: ", &filler[..], &[byte], b"x\r\n\r\n"].concat();
            assert_eq!(verdict(&value).is_ok(), is_field_byte(byte), "{byte:#x} at {place} of a value");
        }
    }
    line_refused("a: b\0", HeadFault::BadHeaderValue);
    line_refused("a: \x7f", HeadFault::BadHeaderValue);
    line_refused("Transfer-Encoding: \x0bchunked", HeadFault::BadHeaderValue);
    line_refused("Transfer-Encoding: \x0cchunked", HeadFault::BadHeaderValue);
    line_refused("Transfer-Encoding: chunked\0", HeadFault::BadHeaderValue);
}

#[test]
fn limits_hold_to_the_byte() {
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    assert!(matches!(verdict(target(LINE_BYTES_MAX).as_bytes()), Ok(Parsed::Complete(_))));
    assert_eq!(verdict(target(LINE_BYTES_MAX + 1).as_bytes()), Err(HeadFault::UriTooLong));
    assert_eq!(
        verdict(&target(LINE_BYTES_MAX + 9).as_bytes()[..LINE_BYTES_MAX + 5]),
        Err(HeadFault::UriTooLong)
    );

    let before = "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
    let head = |len: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\nbody", "a".repeat(len - before));
    assert!(matches!(verdict(head(HEAD_BYTES_MAX).as_bytes()), Ok(Parsed::Complete(_))));
    for len in [HEAD_BYTES_MAX + 1, 1024 * 1024] {
        assert_eq!(verdict(head(len).as_bytes()), Err(HeadFault::HeadTooLarge));
        assert_eq!(verdict(&head(len).as_bytes()[..HEAD_BYTES_MAX]), Err(HeadFault::HeadTooLarge));
        assert_eq!(verdict(&head(len).as_bytes()[..HEAD_BYTES_MAX - 1]), Ok(Parsed::Partial));
    }

    let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    for (max, count) in [(100, 100), (31, 31), (32, 32), (33, 33), (256, 256), (1000, 256), (0, 0)] {
        let limits = HeadLimits { headers_max: max, ..limits() };
        let (found, headers) = request_at(lines(count).as_bytes(), 0, &limits);
        assert!(matches!(found, Ok(Parsed::Complete(_))), "{max}");
        assert_eq!(headers.len(), count);
        for more in [count + 1, 1000] {
            let found = request_at(lines(more).as_bytes(), 0, &limits).0;
            assert_eq!(found, Err(HeadFault::TooManyHeaders), "{max} {more}");
        }
    }
    let statuses =
        [HeadFault::UriTooLong, HeadFault::HeadTooLarge, HeadFault::TooManyHeaders].map(HeadFault::status);
    assert_eq!(statuses, [414, 431, 431]);
}

#[test]
fn status_lines_are_as_strict() {
    let parse = |bytes: &[u8]| {
        let mut headers = HeaderList::new();
        let found = response(bytes, 0, &HeadLimits::RESPONSE, &mut headers);
        for len in 0..bytes.len() {
            let partial = response(&bytes[..len], 0, &HeadLimits::RESPONSE, &mut HeaderList::new());
            match (&partial, &found) {
                (Ok(Parsed::Partial), _) => {}
                (Err(early), Err(late)) => assert_eq!(early, late, "{} cut at {len}", bytes.escape_ascii()),
                (Ok(Parsed::Complete(early)), Ok(Parsed::Complete(late))) => {
                    assert_eq!(early.head, late.head)
                }
                _ => panic!("{} cut at {len}: {partial:?}, not {found:?}", bytes.escape_ascii()),
            }
        }
        found
    };
    let check = |line: &str, status: u16, reason: &str| {
        let bytes = format!("{line}\r\nx_y: z\r\n\r\nbody");
        match parse(bytes.as_bytes()) {
            Ok(Parsed::Complete(StatusLine { status: found, reason: span, head, .. })) => {
                assert_eq!((found, span.of(bytes.as_bytes())), (status, reason.as_bytes()), "{line:?}");
                assert_eq!(head.end(), bytes.len() - 4);
            }
            other => panic!("{line:?}: {other:?}"),
        }
    };
    check("HTTP/1.1 200 OK", 200, "OK");
    check("HTTP/1.1 200 ", 200, "");
    check("HTTP/1.0 204", 204, "");
    check("HTTP/1.2 999 a\tb  é", 999, "a\tb  é");
    let refused =
        |bytes: &str, fault| assert_eq!(parse(bytes.as_bytes()).map(|_| ()), Err(fault), "{bytes:?}");
    for line in [
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 x",
        "HTTP/1.1 2x0",
        "HTTP/1.1 +20",
        "HTTP/1.1\t200",
        "HTTP/1.1",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 a\0",
        "HTTP/1.1 200 \x7f",
    ] {
        refused(&format!("{line}\r\n\r\n"), HeadFault::BadStatusLine);
    }
    refused("\r\nHTTP/1.1 200 OK\r\n\r\n", HeadFault::BadVersion);
    refused("xHTTP/1.1 200 OK\r\n\r\n", HeadFault::BadVersion);
    refused("<html>", HeadFault::BadVersion);
    refused("HTTP/2.0 200 OK\r\n\r\n", HeadFault::VersionUnsupported);
    refused("HTTP/1.1 200 OK\n\n", HeadFault::BareLf);
    refused("HTTP/1.1 200\n\n", HeadFault::BareLf);
    refused("HTTP/1.1 200 a\rb\r\n\r\n", HeadFault::BareCr);
    refused("HTTP/1.1 200 OK\r\na: b\0\r\n\r\n", HeadFault::BadHeaderValue);
    refused("HTTP/1.1 200 OK\r\na : b\r\n\r\n", HeadFault::BadHeaderName);
    refused("HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", HeadFault::BareCr);
    refused("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", HeadFault::FoldedLine);
}

#[test]
fn spoilt_heads_have_one_verdict_however_cut() {
    let samples: [&[u8]; 3] = [
        b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost:a\r\nContent-Length: 5\r\nX: \t y \r\n\r\nhello",
        b"\r\nPUT /x HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    let small = HeadLimits {
        head_bytes_max: 80,
        line_bytes_max: 12,
        headers_max: 4,
        underscores: Underscores::Reject,
    };
    for seed in 0..4000 {
        let mut rng = Rng::seeded(seed);
        let mut bytes = samples[rng.below(3) as usize].to_vec();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            let odd = b"\r\n \t\0:_\x7f\xff/"[rng.below(10) as usize];
            match rng.below(4) {
                0 => bytes[at] = rng.next_u64() as u8,
                1 => bytes[at] = odd,
                2 => bytes.insert(at, odd),
                _ => drop(bytes.remove(at)),
            }
        }
        for limits in [limits(), small] {
            let whole = request_at(&bytes, 0, &limits).0;
            assert_eq!(dribbled(&bytes, &limits), whole, "seed {seed}: {}", bytes.escape_ascii());
            let moved = [b"....", &bytes[..]].concat();
            let found = request_at(&moved, 4, &limits).0.map(|parsed| matches!(parsed, Parsed::Complete(_)));
            let expect = whole.map(|parsed| matches!(parsed, Parsed::Complete(_)));
            assert_eq!(found, expect, "seed {seed} behind other bytes");
        }
    }
}

#[test]
fn random_bytes_are_never_more_than_refused() {
    for seed in 0..20_000 {
        let mut rng = Rng::seeded(seed);
        let bytes: Vec<u8> = (0..rng.below(60)).map(|_| rng.next_u64() as u8).collect();
        let start = rng.below(80) as usize;
        let _ = request(&bytes, start, &limits(), &mut HeaderList::new());
        let _ = response(&bytes, start, &limits(), &mut HeaderList::new());
        let _ = find_head_end(&bytes, start);
    }
}
