//! The header lines of a forwarded head: copied in runs while untouched, one by one where they were changed.
//!
//! What else stands in such a head (`Host`, `X-Forwarded-*`, framing) is written by `edge`, and counted with a
//! whole request.

mod kit;

use std::process::ExitCode;

use kit::{Case, Work};
use ringway::proto::h1::parse::{self, HeadLimits, Parsed};
use ringway::proto::head::{HeaderId, HeaderList, HeaderSet, Omit};

const HEAD: &[u8] = b"GET /api/v1/orders/42 HTTP/1.1\r\n\
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

/// Lines that concern one connection, and those that the gateway vouches with.
const OMIT: Omit<'static> = Omit {
    always: HeaderSet::of(&[
        HeaderId::Connection,
        HeaderId::ContentLength,
        HeaderId::Host,
        HeaderId::KeepAlive,
        HeaderId::Te,
        HeaderId::TransferEncoding,
        HeaderId::Upgrade,
    ]),
    received: HeaderSet::of(&[HeaderId::XForwardedFor, HeaderId::XForwardedProto, HeaderId::XRealIp]),
    named: None,
};

fn parsed() -> HeaderList {
    let mut headers = HeaderList::new();
    read(&mut headers);
    headers.hold_received(HEAD.to_vec());
    headers
}

fn read(headers: &mut HeaderList) {
    let read = parse::request(HEAD, 0, &HeadLimits::REQUEST, headers);
    debug_assert!(matches!(read, Ok(Parsed::Complete(_))));
}

/// What most requests need: a parsed head, written.
fn untouched() -> Work {
    let headers = parsed();
    let mut out = Vec::new();
    let mut work = move || {
        out.clear();
        headers.write(&mut out, &OMIT);
        out.len() as u64
    };
    let omitted = "Host: shop.example.com\r\nConnection: keep-alive\r\n\r\n".len();
    assert_eq!(work(), (HEAD.len() - "GET /api/v1/orders/42 HTTP/1.1\r\n".len() - omitted) as u64);
    Box::new(work)
}

/// Parsed (which changed lines can not be undone without), changed as `proxy-rewrite` changes them, and written.
fn edited() -> Work {
    let mut headers = parsed();
    let mut out = Vec::new();
    let mut work = move || {
        let received = headers.take_received();
        headers.clear();
        read(&mut headers);
        headers.hold_received(received);
        headers.set("X-Requested-With", b"ringway");
        headers.set_id(HeaderId::UserAgent, b"gateway");
        headers.remove_id(HeaderId::Referer);
        headers.add("X-Tenant", b"acme");
        out.clear();
        headers.write(&mut out, &OMIT);
        out.len() as u64
    };
    assert_eq!(work(), work());
    Box::new(work)
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "10-lines-untouched", iterations: 5000, make: |_| untouched() },
        Case { name: "10-lines-parsed-and-4-edited", iterations: 2000, make: |_| edited() },
    ])
}
