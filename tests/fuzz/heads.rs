//! Heads of requests and responses, and where their bodies end.

use ringway::base::rng::Rng;
use ringway::proto::h1::HeadFault;
use ringway::proto::h1::framing::{self, Framing};
use ringway::proto::h1::parse::{self, HeadLimits, Parsed, Underscores, find_head_end};
use ringway::proto::head::{HeaderId, HeaderList, Method, Omit, RequestLine, StatusLine};

use super::{campaign, cuts};

const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET /index.html?q=1 HTTP/1.1\r\nHost: www.example.test:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux)\r\n\
      Accept: text/html,*/*;q=0.8\r\nAccept-Encoding: gzip, br\r\nCookie: a=1; b=2\r\nConnection: keep-alive\r\n\r\n",
    b"POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
    b"POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT http://a.test/abs HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, X-Own\r\nUpgrade: websocket\r\nX-Own: 1\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost:a.test\r\nx-empty:\r\nx-tab:\tv\t \r\n\r\n",
    b"\r\nCONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
];

const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 \r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n",
    b"HTTP/1.1 200\r\nx_under_score: 1\r\n\r\n",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b":",
    b": ",
    b"\0",
    b"\x0b",
    b"\xff",
    b"\x85",
    b"\r\n ",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"transfer-encoding : chunked\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Expect: 200-ok\r\n",
    b"X: y\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/11.1",
    b"GET ",
    b"?",
    b"#",
    b"/",
    b"chunked",
    b"0x5",
    b",",
    b";",
];

/// Wide limits for what is written anew: a space per line more than was received.
const WIDE: HeadLimits = HeadLimits {
    head_bytes_max: 1 << 20,
    line_bytes_max: 1 << 20,
    headers_max: 1000,
    underscores: Underscores::Keep,
};

/// Name and value of each line.
type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// What a parser makes of bytes: the head, its lines, where its body ends.
#[derive(Clone, Debug, PartialEq)]
enum Verdict<L> {
    Partial,
    Fault(HeadFault),
    Head { line: L, lines: Lines, framing: Result<Framing, HeadFault> },
}

type Parse<L> = fn(&[u8], usize, &HeadLimits, &mut HeaderList) -> Result<Parsed<L>, HeadFault>;
type Frame<L> = fn(&L, &HeaderList) -> Result<Framing, HeadFault>;

fn lines_of(headers: &HeaderList) -> Lines {
    headers.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn judge<L>(bytes: &[u8], limits: &HeadLimits, parse: Parse<L>, frame: Frame<L>) -> (Verdict<L>, HeaderList) {
    let mut headers = HeaderList::new();
    let verdict = match parse(bytes, 0, limits, &mut headers) {
        Err(fault) => Verdict::Fault(fault),
        Ok(Parsed::Partial) => Verdict::Partial,
        Ok(Parsed::Complete(line)) => {
            headers.hold_received(bytes.to_vec());
            Verdict::Head { framing: frame(&line, &headers), lines: lines_of(&headers), line }
        }
    };
    (verdict, headers)
}

/// Feeds the bytes in segments; the first verdict that is one counts, as on a connection.
fn judge_in_segments<L>(
    bytes: &[u8],
    cuts: &[usize],
    limits: &HeadLimits,
    parse: Parse<L>,
    frame: Frame<L>,
) -> Verdict<L> {
    for cut in cuts {
        let (verdict, _) = judge(&bytes[..*cut], limits, parse, frame);
        if !matches!(verdict, Verdict::Partial) {
            return verdict;
        }
    }
    Verdict::Partial
}

/// What must hold of any bytes, whatever kind of head they should be. The head, if they are one.
fn check<L: Clone + std::fmt::Debug + PartialEq>(
    bytes: &[u8],
    rng: &mut Rng,
    limits: &HeadLimits,
    (parse, frame): (Parse<L>, Frame<L>),
) -> Option<(L, HeaderList)> {
    let (whole, headers) = judge(bytes, limits, parse, frame);
    let cuts = cuts(rng, bytes.len());
    assert_eq!(judge_in_segments(bytes, &cuts, limits, parse, frame), whole, "cut at {cuts:?}");
    if let Verdict::Head { line, framing, .. } = whole {
        let both = headers.has(HeaderId::ContentLength) && headers.has(HeaderId::TransferEncoding);
        assert!(!both || framing.is_err(), "two statements of a length were taken");
        if let Ok(Framing::Length(length)) = framing {
            assert!(i64::try_from(length).is_ok(), "{length}");
        }
        let _ = framing::upgrade(&headers);
        let _ = framing::expects_continue(&headers);
        return Some((line, headers));
    }
    None
}

#[test]
fn requests() {
    let frame: Frame<RequestLine> = framing::of_request;
    campaign(REQUESTS, WORDS, |bytes, rng| {
        let Some((line, headers)) = check(bytes, rng, &HeadLimits::REQUEST, (parse::request, frame)) else {
            return;
        };
        let end = line.head.end();
        assert!(end <= bytes.len() && find_head_end(bytes, 0) == Some(end), "{end}");
        let from = rng.below(end as u64) as usize;
        assert_eq!(find_head_end(&bytes[..end], from), Some(end), "from {from}");
        // Written anew, it says the same.
        let target = line.target.of(bytes);
        let mut out = format!("{} ", line.method.text()).into_bytes();
        out.extend_from_slice(target);
        out.extend_from_slice(b" ");
        out.extend_from_slice(line.version.text().as_bytes());
        out.extend_from_slice(b"\r\n");
        headers.write(&mut out, &Omit::default());
        out.extend_from_slice(b"\r\n");
        let expect = (
            line.method,
            line.version,
            target.to_vec(),
            lines_of(&headers),
            framing::of_request(&line, &headers),
        );
        let (again, headers) = judge(&out, &WIDE, parse::request, frame);
        let Verdict::Head { line, lines, framing } = again else {
            panic!("{again:?} of {}", out.escape_ascii())
        };
        assert_eq!((line.method, line.version, line.target.of(&out).to_vec(), lines, framing), expect);
        assert_eq!(headers.len(), expect.3.len());
    });
}

#[test]
fn responses() {
    let frame: Frame<StatusLine> = |line, headers| framing::of_response(Method::Get, line, headers);
    campaign(RESPONSES, WORDS, |bytes, rng| {
        let Some((line, headers)) = check(bytes, rng, &HeadLimits::RESPONSE, (parse::response, frame)) else {
            return;
        };
        assert!(line.head.end() <= bytes.len());
        for method in [Method::Head, Method::Connect, Method::Post] {
            let _ = framing::of_response(method, &line, &headers);
        }
        let mut out = format!("{} {} \r\n", line.version.text(), line.status).into_bytes();
        headers.write(&mut out, &Omit::default());
        out.extend_from_slice(b"\r\n");
        let expect = (line.status, line.version, lines_of(&headers), frame(&line, &headers));
        let (again, _) = judge(&out, &WIDE, parse::response, frame);
        let Verdict::Head { line, lines, framing } = again else {
            panic!("{again:?} of {}", out.escape_ascii())
        };
        assert_eq!((line.status, line.version, lines, framing), expect);
    });
}
