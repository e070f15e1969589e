//! `ringway origin`: a small server to stand behind the gateway, for first steps, tests and load.
//!
//! | path | answer |
//! |---|---|
//! | `/` and any other | a greeting with the origin's name and port |
//! | `/bytes/N` | N bytes, with their length |
//! | `/echo` | the request as JSON |
//! | `/delay/MS` | the greeting, later |
//! | `/status/CODE` | that status, from 200 to 599 |
//! | `/sse?n=&interval=` | N server-sent events, so many milliseconds apart |
//! | `/chunked?n=&size=` | N pieces without a length |
//! | `/drip?n=&size=&interval=` | N pieces with their length, so many milliseconds apart |
//!
//! Any path takes `?delay=MS&status=CODE&bytes=N&header=NAME:VALUE`. What is asked of it wrongly gets 400 and the
//! reason. Bodies are streamed, so size costs no memory.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use serde_json::{Map, Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Sleep;

use crate::base::text::form_decode;

/// Longest body that `/echo` tells of.
const ECHO_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest pause that can be asked for.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Largest single piece of a streamed body.
const PIECE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Connections the system holds for us before we accept them.
const BACKLOG: i32 = 4096;
/// What long bodies are made of.
static FILL: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Serves until the process ends, on `threads` threads with a listener each. `bound` hears the real address.
///
/// # Errors
/// When the address can not be bound or a thread not be had.
pub fn run(listen: SocketAddr, threads: usize, name: &str, bound: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let first = listener(listen, threads > 1)?;
    let address = first.local_addr()?;
    let mut others = Vec::new();
    for _ in 1..threads {
        others.push(listener(address, true)?);
    }
    bound(address);
    for (at, listener) in others.into_iter().enumerate() {
        let name = name.to_owned();
        thread::Builder::new().name(format!("origin-{at}")).spawn(move || serve(listener, &name))?;
    }
    serve(first, name)
}

fn listener(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One thread's loop.
fn serve(listener: TcpListener, name: &str) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let origin = Arc::new(Origin {
        name: name.to_owned(),
        greeting: Bytes::from(format!("hello from {name} on port {port}\n")),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use axum::serve::ListenerExt as _;
        // Small answers should not wait for an acknowledgement.
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, Router::new().fallback(answer).with_state(origin)).await
    })
}

struct Origin {
    name: String,
    greeting: Bytes,
}

async fn answer(State(origin): State<Arc<Origin>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let ask = match Ask::of(parts.uri.path(), parts.uri.query().unwrap_or_default()) {
        Ok(ask) => ask,
        Err(why) => {
            drain(body).await;
            return respond(StatusCode::BAD_REQUEST, TEXT, Body::from(format!("{why}\n")));
        }
    };
    let body = match ask.what {
        What::Echo => match axum::body::to_bytes(body, ECHO_BYTES_MAX).await {
            Ok(body) => (JSON, Body::from(echo(&origin.name, &parts, &body))),
            Err(error) => {
                return respond(StatusCode::PAYLOAD_TOO_LARGE, TEXT, Body::from(format!("{error}\n")));
            }
        },
        ref what => {
            drain(body).await;
            what.body(&origin)
        }
    };
    if !ask.delay.is_zero() {
        tokio::time::sleep(ask.delay).await;
    }
    let (content_type, body) = body;
    let mut response = respond(ask.status, content_type, body);
    if matches!(ask.what, What::Events { .. }) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    for (name, value) in ask.headers {
        response.headers_mut().append(name, value);
    }
    response
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

fn respond(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Reads a body to its end, so that the connection can be used again.
async fn drain(mut body: Body) {
    while !body.is_end_stream() {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        if !matches!(frame, Some(Ok(_))) {
            break;
        }
    }
}

fn echo(name: &str, parts: &axum::http::request::Parts, body: &[u8]) -> String {
    let echo = json!({
        "origin": name,
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "version": format!("{:?}", parts.version),
        "headers": headers_json(&parts.headers),
        "body": String::from_utf8_lossy(body),
    });
    format!("{echo}\n")
}

/// Lines with one name are joined, as any recipient may do.
fn headers_json(headers: &HeaderMap) -> Value {
    let mut fields = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match fields.get_mut(name.as_str()) {
            Some(Value::String(joined)) => {
                let _ = write!(joined, ", {value}");
            }
            _ => {
                fields.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    Value::Object(fields)
}

/// What a request asks for.
#[derive(Debug)]
struct Ask {
    what: What,
    status: StatusCode,
    delay: Duration,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum What {
    Greeting,
    Echo,
    Bytes(u64),
    Events { count: u64, interval: Duration },
    Pieces { count: u64, bytes: u64, interval: Duration, has_length: bool },
}

impl Ask {
    fn of(path: &str, query: &str) -> Result<Self, String> {
        let mut ask =
            Self { what: What::Greeting, status: StatusCode::OK, delay: Duration::ZERO, headers: Vec::new() };
        let (mut count, mut bytes, mut interval) = (10, 1024, Duration::from_millis(100));
        let mut body = None;
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = &decoded(value);
            match name {
                "delay" => ask.delay = pause(name, value)?,
                "status" => ask.status = status(value)?,
                "bytes" => body = Some(number(name, value)?),
                "header" => ask.headers.push(header(value)?),
                "n" => count = number(name, value)?,
                "size" => bytes = number(name, value)?,
                "interval" => interval = pause(name, value)?,
                // Load generators add things of their own, such as a stamp against caches.
                _ => {}
            }
        }
        let bytes_of_piece = || match bytes {
            0..=PIECE_BYTES_MAX => Ok(bytes),
            _ => Err(format!("size: expected at most {PIECE_BYTES_MAX}, got {bytes}")),
        };
        let mut steps = path.trim_start_matches('/').splitn(2, '/');
        match (steps.next().unwrap_or_default(), steps.next()) {
            ("bytes", Some(text)) => ask.what = What::Bytes(number("bytes", text)?),
            ("delay", Some(text)) => ask.delay = pause("delay", text)?,
            ("status", Some(text)) => ask.status = status(text)?,
            ("echo", _) => ask.what = What::Echo,
            ("sse", None) => ask.what = What::Events { count, interval },
            ("chunked", None) => {
                let bytes = bytes_of_piece()?;
                ask.what = What::Pieces { count, bytes, interval: Duration::ZERO, has_length: false };
            }
            ("drip", None) => {
                let bytes = bytes_of_piece()?;
                ask.what = What::Pieces { count, bytes, interval, has_length: true };
            }
            _ => {}
        }
        if let Some(bytes) = body {
            ask.what = What::Bytes(bytes);
        }
        Ok(ask)
    }
}

fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    form_decode(value.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{name}: expected a whole number, got {text:?}"))
}

fn pause(name: &str, text: &str) -> Result<Duration, String> {
    let pause = Duration::from_millis(number(name, text)?);
    if pause > PAUSE_MAX {
        return Err(format!("{name}: expected at most {} ms, got {text}", PAUSE_MAX.as_millis()));
    }
    Ok(pause)
}

fn status(text: &str) -> Result<StatusCode, String> {
    let code = text.parse().ok().filter(|code| (200..600).contains(code));
    code.and_then(|code: u16| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("status: expected 200 to 599, got {text:?}"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let expected = || format!("header: expected NAME:VALUE, got {text:?}");
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let name = HeaderName::try_from(name).map_err(|_| expected())?;
    let value = HeaderValue::try_from(value.trim_start()).map_err(|_| expected())?;
    Ok((name, value))
}

impl What {
    fn body(&self, origin: &Origin) -> (HeaderValue, Body) {
        match *self {
            Self::Greeting | Self::Echo => (TEXT, Body::from(origin.greeting.clone())),
            Self::Bytes(bytes) if bytes <= FILL.len() as u64 => {
                (BYTES, Body::from(Bytes::from_static(&FILL[..bytes as usize])))
            }
            Self::Bytes(bytes) => (BYTES, Body::new(Long { left: bytes })),
            Self::Events { count, interval } => {
                let make = |at| Bytes::from(format!("id: {at}\ndata: event {at}\n\n"));
                (EVENTS, Body::new(Timed::new(count, interval, None, make)))
            }
            Self::Pieces { count, bytes, interval, has_length } => {
                let piece = match usize::try_from(bytes) {
                    Ok(bytes) if bytes <= FILL.len() => Bytes::from_static(&FILL[..bytes]),
                    _ => Bytes::from(vec![b'x'; bytes as usize]),
                };
                // An empty piece would say that the body ends.
                let count = if bytes == 0 { 0 } else { count };
                let length = has_length.then(|| count.saturating_mul(bytes));
                (BYTES, Body::new(Timed::new(count, interval, length, move |_| piece.clone())))
            }
        }
    }
}

/// A long body of known length.
struct Long {
    left: u64,
}

impl HttpBody for Long {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.left.min(FILL.len() as u64);
        if next == 0 {
            return Poll::Ready(None);
        }
        self.left -= next;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FILL[..next as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Pieces with a pause before each but the first.
struct Timed<F> {
    at: u64,
    count: u64,
    interval: Duration,
    /// Bytes still to come, when they are announced.
    left: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
    make: F,
}

impl<F> Timed<F> {
    fn new(count: u64, interval: Duration, left: Option<u64>, make: F) -> Self {
        Self { at: 0, count, interval, left, pause: None, make }
    }
}

impl<F: Fn(u64) -> Bytes + Unpin> HttpBody for Timed<F> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.at == self.count {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let piece = (self.make)(self.at);
        self.at += 1;
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(piece.len() as u64);
        }
        if self.at < self.count && !self.interval.is_zero() {
            self.pause = Some(Box::pin(tokio::time::sleep(self.interval)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.count
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// An origin on a thread of its own, which ends with the test process.
    fn origin() -> SocketAddr {
        let listener = listener("127.0.0.1:0".parse().expect("an address"), false).expect("bound");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || serve(listener, "one"));
        address
    }

    /// Head and body of the answer to one request.
    fn ask(address: SocketAddr, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    fn get(address: SocketAddr, target: &str) -> (String, String) {
        ask(address, &format!("GET {target} HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n"))
    }

    fn check(address: SocketAddr, target: &str, status: &str, body: &str) {
        let (head, found) = get(address, target);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
        assert_eq!(found, body, "{target}");
    }

    #[test]
    fn every_path_answers_as_its_table_says() {
        let origin = origin();
        let greeting = format!("hello from one on port {}\n", origin.port());
        check(origin, "/", "200", &greeting);
        check(origin, "/any/other?x=1", "200", &greeting);
        check(origin, "/delay/1", "200", &greeting);
        check(origin, "/bytes/3", "200", "xxx");
        check(origin, "/bytes/0", "200", "");
        check(origin, "/bytes/200000", "200", &"x".repeat(200_000));
        check(origin, "/status/404", "404", &greeting);
        check(origin, "/a?status=503&bytes=2&delay=1", "503", "xx");
        check(origin, "/chunked?n=2&size=3", "200", "3\r\nxxx\r\n3\r\nxxx\r\n0\r\n\r\n");
        check(origin, "/chunked?n=2&size=0", "200", "");
        check(origin, "/drip?n=3&size=2&interval=1", "200", "xxxxxx");
    }

    #[test]
    fn what_is_asked_wrongly_is_refused_with_the_reason() {
        let origin = origin();
        check(origin, "/bytes/many", "400", "bytes: expected a whole number, got \"many\"\n");
        check(origin, "/status/100", "400", "status: expected 200 to 599, got \"100\"\n");
        check(origin, "/?header=bad", "400", "header: expected NAME:VALUE, got \"bad\"\n");
        check(origin, "/delay/999999999", "400", "delay: expected at most 600000 ms, got 999999999\n");
        check(origin, "/chunked?size=99999999", "400", "size: expected at most 16777216, got 99999999\n");
    }

    #[test]
    fn lengths_are_announced_where_they_are_known() {
        let origin = origin();
        assert!(get(origin, "/bytes/200000").0.contains("content-length: 200000"));
        assert!(get(origin, "/drip?n=3&size=2&interval=0").0.contains("content-length: 6"));
        assert!(get(origin, "/chunked?n=1").0.contains("transfer-encoding: chunked"));
    }

    #[test]
    fn headers_are_added_as_asked() {
        let (head, _) = get(origin(), "/?header=X-One:+a%20b&header=x-two:2&header=x-two:3");
        for line in ["x-one: a b", "x-two: 2", "x-two: 3"] {
            assert!(head.lines().any(|l| l == line), "{line} is missing in {head}");
        }
    }

    #[test]
    fn events_come_one_by_one_with_their_type() {
        let (head, body) = get(origin(), "/sse?n=2&interval=1");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(body.contains("id: 0\ndata: event 0\n\n"), "{body}");
        assert!(body.contains("id: 1\ndata: event 1\n\n"), "{body}");
    }

    #[test]
    fn echo_tells_the_request_back() {
        let request = "POST /echo/a?b=c HTTP/1.1\r\nHost: o\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\
                       Connection: close\r\n\r\nhi";
        let (_, body) = ask(origin(), request);
        let echo: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(echo["method"], "POST");
        assert_eq!((&echo["path"], &echo["query"]), (&json!("/echo/a"), &json!("b=c")));
        assert_eq!((&echo["headers"]["x-a"], &echo["body"]), (&json!("1, 2"), &json!("hi")));
    }

    #[test]
    fn a_connection_is_kept_after_a_body_nobody_reads() {
        let request = "POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 3\r\n\r\nabc\
                       GET /bytes/1 HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n";
        let (_, both) = ask(origin(), request);
        assert!(both.ends_with("\r\n\r\nx"), "{both}");
    }
}
