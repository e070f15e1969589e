//! Parsing heads: the first thing any byte of a client or an origin meets.

mod kit;

use std::process::ExitCode;

use kit::{Case, Scale, Work};
use ringway::proto::h1::parse::{self, HeadLimits, Parsed};
use ringway::proto::head::HeaderList;

/// What a browser sends, ten header lines, some 400 bytes.
const BROWSER: &[u8] = b"GET /api/v1/orders/42?fields=id,name&sort=desc HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-GB,en;q=0.7\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://shop.example.com/orders\r\n\
    X-Requested-With: XMLHttpRequest\r\n\
    Cookie: session=0f3b6c1e9a7d4582; theme=dark\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-cache\r\n\r\n";

/// What a load generator or a health check sends.
const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n\r\n";

/// What an application server answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.0\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Connection: keep-alive\r\n\
    ETag: \"65f1c2d3-400\"\r\n\
    Cache-Control: max-age=60\r\n\
    Vary: Accept-Encoding\r\n\r\n";

fn request(bytes: &'static [u8], lines: usize) -> Work {
    let mut headers = HeaderList::new();
    let mut work = move || {
        headers.clear();
        match parse::request(bytes, 0, &HeadLimits::REQUEST, &mut headers) {
            Ok(Parsed::Complete(line)) => (line.head.end() * 1000 + headers.len()) as u64,
            _ => 0,
        }
    };
    assert_eq!(work(), (bytes.len() * 1000 + lines) as u64);
    Box::new(work)
}

fn response(_: Scale) -> Work {
    let mut headers = HeaderList::new();
    let mut work = move || {
        headers.clear();
        match parse::response(RESPONSE, 0, &HeadLimits::RESPONSE, &mut headers) {
            Ok(Parsed::Complete(line)) => (line.head.end() * 1000 + headers.len()) as u64,
            _ => 0,
        }
    };
    assert_eq!(work(), (RESPONSE.len() * 1000 + 8) as u64);
    Box::new(work)
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "request-of-10-headers", iterations: 2000, make: |_| request(BROWSER, 10) },
        Case { name: "request-of-1-header", iterations: 2000, make: |_| request(PLAIN, 1) },
        Case { name: "response-of-8-headers", iterations: 2000, make: response },
    ])
}
