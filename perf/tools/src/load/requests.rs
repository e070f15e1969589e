//! The requests of a run, made once, as they go out.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use super::fields;
use super::options::Options;
use crate::{frames, websocket};

/// What is spoken, by the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Grpc,
    WebSocket,
    Tcp,
}

pub(crate) struct Requests {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) over_tls: bool,
    /// In HTTP/1.1 whole requests, in HTTP/2 blocks of header lines, of WebSocket the request that opens it.
    pub(crate) texts: Vec<Rc<[u8]>>,
    /// Indices of texts, each as often as its weight says.
    pub(crate) wheel: Vec<usize>,
    /// What is sent behind a block of header lines.
    pub(crate) body: Rc<[u8]>,
    /// Answers to HEAD have no body.
    pub(crate) bodiless: bool,
}

struct Url<'a> {
    weight: usize,
    protocol: Protocol,
    over_tls: bool,
    host: &'a str,
    path: &'a str,
}

const WEIGHT_MAX: usize = 10_000;
const SCHEMES: [(&str, Protocol, bool); 7] = [
    ("http", Protocol::Http1, false),
    ("https", Protocol::Http1, true),
    ("h2c", Protocol::Http2, false),
    ("h2", Protocol::Http2, true),
    ("grpc", Protocol::Grpc, false),
    ("ws", Protocol::WebSocket, false),
    ("tcp", Protocol::Tcp, false),
];

fn parse(url: &str) -> Result<Url<'_>, String> {
    let (weight, rest) = match url.split_once('@') {
        Some((weight, rest)) if !weight.is_empty() && weight.bytes().all(|byte| byte.is_ascii_digit()) => {
            (weight.parse().unwrap_or(usize::MAX), rest)
        }
        _ => (1, url),
    };
    if weight > WEIGHT_MAX {
        return Err(format!("{url}: expected a weight up to {WEIGHT_MAX}"));
    }
    let found = rest.split_once("://").and_then(|(name, rest)| {
        SCHEMES.iter().find(|(known, ..)| *known == name).map(|known| (known, rest))
    });
    let Some(((_, protocol, over_tls), rest)) = found else {
        let known = SCHEMES.map(|(name, ..)| format!("{name}://")).join(", ");
        return Err(format!("{url}: expected one of {known}"));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    Ok(Url { weight, protocol: *protocol, over_tls: *over_tls, host, path })
}

impl Requests {
    pub(crate) fn of(options: &Options) -> Result<Self, String> {
        let headers = headers_of(options)?;
        let bodies = bodies_of(options)?;
        let has_body = bodies.iter().any(|body| !body.is_empty());
        let method = options.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
        let mut texts: Vec<Rc<[u8]>> = Vec::new();
        let (mut wheel, mut first) = (Vec::new(), None);
        for url in &options.urls {
            let parsed = parse(url)?;
            let (host, protocol, over_tls) =
                *first.get_or_insert((parsed.host, parsed.protocol, parsed.over_tls));
            if (host, protocol, over_tls) != (parsed.host, parsed.protocol, parsed.over_tls) {
                return Err(format!("{url}: all requests of a run go to one host, in one way"));
            }
            for body in &bodies {
                wheel.extend(std::iter::repeat_n(texts.len(), parsed.weight));
                texts.push(match protocol {
                    Protocol::Http1 => text(&parsed, method, &headers, body, options).into(),
                    Protocol::WebSocket => upgrade(&parsed, &headers).into(),
                    Protocol::Http2 | Protocol::Grpc => block(&parsed, method, &headers, options)?.into(),
                    Protocol::Tcp => Rc::default(),
                });
            }
        }
        let (host, protocol, over_tls) = first.ok_or("expected an address")?;
        if wheel.is_empty() {
            return Err("expected a weight above 0".to_owned());
        }
        if options.new_connections && protocol != Protocol::Http1 {
            return Err(
                "--new-connections: only requests of HTTP/1.1 have connections of their own".to_owned()
            );
        }
        if options.bodies_file.is_some() && protocol != Protocol::Http1 {
            return Err("--bodies-file: only requests of HTTP/1.1 have bodies of a file".to_owned());
        }
        if options.within.is_some() && protocol != Protocol::Http1 {
            return Err("--within: only requests of HTTP/1.1 are given up".to_owned());
        }
        if protocol == Protocol::WebSocket
            && usize::from(options.message_bytes) > websocket::PAYLOAD_BYTES_MAX
        {
            return Err(format!("--message-bytes: WebSocket takes up to {}", websocket::PAYLOAD_BYTES_MAX));
        }
        let address = address_of(host)?;
        let body = body_of(protocol, options)?;
        Ok(Self { address, protocol, over_tls, texts, wheel, body: body.into(), bodiless: method == "HEAD" })
    }
}

fn address_of(host: &str) -> Result<SocketAddr, String> {
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
    address.ok_or_else(|| format!("{host}: no address"))
}

fn headers_of(options: &Options) -> Result<Vec<String>, String> {
    let mut headers = options.header.clone();
    if let Some(path) = &options.headers_file {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        headers.extend(text.lines().filter(|line| line.contains(':')).map(str::to_owned));
    }
    Ok(headers)
}

/// The bodies of requests: those of a file, or one of so many bytes.
fn bodies_of(options: &Options) -> Result<Vec<Vec<u8>>, String> {
    let Some(path) = &options.bodies_file else { return Ok(vec![vec![b'b'; options.body_bytes]]) };
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let bodies: Vec<_> = lines.map(<[u8]>::to_vec).collect();
    if bodies.is_empty() { Err(format!("{}: expected a body a line", path.display())) } else { Ok(bodies) }
}

/// What follows a block of header lines. A message of gRPC has a head of 5 bytes: not compressed, so long.
fn body_of(protocol: Protocol, options: &Options) -> Result<Vec<u8>, String> {
    Ok(match protocol {
        Protocol::Grpc => {
            let mut body = vec![0];
            body.extend_from_slice(&u32::from(options.message_bytes).to_be_bytes());
            body.resize(body.len() + usize::from(options.message_bytes), b'm');
            body
        }
        Protocol::Http2 if options.body_bytes > frames::PAYLOAD_BYTES_MAX => {
            return Err(format!("--body-bytes: HTTP/2 takes up to {}", frames::PAYLOAD_BYTES_MAX));
        }
        Protocol::Http2 => vec![b'b'; options.body_bytes],
        Protocol::Http1 | Protocol::WebSocket | Protocol::Tcp => Vec::new(),
    })
}

fn text(url: &Url<'_>, method: &str, headers: &[String], body: &[u8], options: &Options) -> Vec<u8> {
    let mut text = format!("{method} {} HTTP/1.1\r\n", url.path);
    if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
        text += &format!("Host: {}\r\n", url.host);
    }
    for header in headers {
        text += &format!("{}\r\n", header.trim());
    }
    if options.new_connections {
        text += "Connection: close\r\n";
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn upgrade(url: &Url<'_>, headers: &[String]) -> Vec<u8> {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
        url.path,
        url.host,
        websocket::KEY
    );
    for header in headers {
        text += &format!("{}\r\n", header.trim());
    }
    (text + "\r\n").into_bytes()
}

fn block(url: &Url<'_>, method: &str, headers: &[String], options: &Options) -> Result<Vec<u8>, String> {
    let is_call = url.protocol == Protocol::Grpc;
    let mut block = Vec::new();
    fields::write(&mut block, ":method", if is_call { "POST" } else { method });
    fields::write(&mut block, ":scheme", if url.over_tls { "https" } else { "http" });
    fields::write(&mut block, ":path", url.path);
    fields::write(&mut block, ":authority", url.host);
    if is_call {
        fields::write(&mut block, "content-type", "application/grpc");
        fields::write(&mut block, "te", "trailers");
    } else if options.body_bytes > 0 {
        fields::write(&mut block, "content-length", &options.body_bytes.to_string());
    }
    for header in headers {
        let (name, value) =
            header.split_once(':').ok_or_else(|| format!("{header}: expected Name: value"))?;
        fields::write(&mut block, &name.trim().to_ascii_lowercase(), value.trim());
    }
    if block.len() > frames::PAYLOAD_BYTES_MAX {
        return Err(format!("header lines: HTTP/2 takes up to {} bytes", frames::PAYLOAD_BYTES_MAX));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn requests(arguments: &str) -> Result<Requests, String> {
        let options =
            Options::try_parse_from(std::iter::once("loadgen").chain(arguments.split_whitespace())).unwrap();
        Requests::of(&options)
    }

    #[test]
    fn requests_are_written_once_with_weights() {
        let made = requests("3@http://127.0.0.1:80/a http://127.0.0.1:80 -b 2 -H X:1").unwrap();
        assert_eq!(made.wheel, [0, 0, 0, 1]);
        assert_eq!(
            std::str::from_utf8(&made.texts[0]),
            Ok("POST /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nX:1\r\nContent-Length: 2\r\n\r\nbb")
        );
        assert!(made.texts[1].starts_with(b"POST / HTTP/1.1\r\n"));
    }

    #[test]
    fn bodies_of_a_file_are_of_a_request_each() {
        let path = std::env::temp_dir().join(format!("loadgen-bodies-{}", std::process::id()));
        fs::write(&path, "{\"a\": 1}\n\nb").unwrap();
        let made = requests(&format!("2@http://127.0.0.1:80/ -X PUT --bodies-file {}", path.display()));
        let refused = requests(&format!("h2c://127.0.0.1/ --bodies-file {}", path.display()));
        fs::write(&path, "\n").unwrap();
        let none = requests(&format!("http://127.0.0.1/ --bodies-file {}", path.display()));
        fs::remove_file(&path).unwrap();
        let made = made.unwrap();
        assert_eq!(made.wheel, [0, 0, 1, 1]);
        assert!(
            made.texts[0].starts_with(b"PUT / ")
                && made.texts[0].ends_with(b"Content-Length: 8\r\n\r\n{\"a\": 1}")
        );
        assert!(made.texts[1].ends_with(b"Content-Length: 1\r\n\r\nb"));
        assert!(refused.is_err() && none.is_err());
    }

    #[test]
    fn the_scheme_says_what_is_spoken() {
        let made = requests("grpc://127.0.0.1:80/a.B/C --message-bytes 10").unwrap();
        assert_eq!((made.protocol, made.over_tls), (Protocol::Grpc, false));
        assert_eq!(&*made.body, b"\0\0\0\0\x0ammmmmmmmmm");
        let made = requests("h2://127.0.0.1:80/").unwrap();
        assert_eq!((made.protocol, made.over_tls, made.body.len()), (Protocol::Http2, true, 0));
        assert!(requests("ws://127.0.0.1:80/").unwrap().texts[0].starts_with(b"GET / HTTP/1.1\r\n"));
    }

    #[test]
    fn what_can_not_be_asked_for_is_told() {
        for wrong in [
            "ftp://127.0.0.1/",
            "127.0.0.1/",
            "http://127.0.0.1/ http://127.0.0.2/",
            "http://127.0.0.1/ https://127.0.0.1/",
            "0@http://127.0.0.1/",
            "99999@http://a/",
            "h2c://127.0.0.1/ --new-connections",
            "h2c://127.0.0.1/ --within 1",
            "h2c://127.0.0.1/ -b 20000",
            "ws://127.0.0.1/ --message-bytes 126",
        ] {
            assert!(requests(wrong).is_err(), "{wrong}");
        }
    }
}
