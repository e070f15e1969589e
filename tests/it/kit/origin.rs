//! Origins: small threaded servers that remember every request byte for byte. What they do wrong, on purpose, is
//! in [`super::faults`].

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use super::wire::{Ended, Seen, Wire, values};
use super::{PATIENCE, eventually};

/// An origin waits longer than a client for the next request: pooled connections are idle by nature.
const IDLE: Duration = Duration::from_secs(30);

/// What an origin remembers.
#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    /// Connections that ended, for whatever reason.
    ended: AtomicUsize,
    /// Bytes of bodies that were counted rather than kept.
    swallowed: AtomicUsize,
    streams: Mutex<Vec<Weak<TcpStream>>>,
    stopped: AtomicBool,
}

/// A server on a port of the system's choice.
pub(crate) struct Origin {
    address: SocketAddr,
    /// Where it is instead, at a Unix socket.
    path: Option<PathBuf>,
    record: Arc<Record>,
    /// Kept only to keep: sockets that hold a port or fill a queue.
    pub(super) held: Vec<socket2::Socket>,
}

impl Origin {
    /// Runs `serve` on a thread for every connection, which ends when it returns.
    pub(crate) fn serving(serve: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        Self::serving_over(|wire| wire, serve)
    }

    /// The same, over what `over` makes of a connection.
    pub(crate) fn serving_over(
        over: impl Fn(Wire) -> Wire + Send + 'static,
        serve: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        Self::serving_on(TcpListener::bind("127.0.0.1:0").unwrap(), over, serve)
    }

    /// The same at a Unix socket, until the test is over.
    pub(crate) fn serving_at(
        path: &Path,
        over: impl Fn(Wire) -> Wire + Send + 'static,
        serve: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let mut origin = Self::at(([127, 0, 0, 1], 0).into());
        origin.path = Some(path.to_owned());
        let streams = std::iter::from_fn(move || Some(listener.accept().map(|(stream, _)| as_tcp(stream))));
        origin.serve(streams, over, serve);
        origin
    }

    /// Names what it was asked for, at a Unix socket.
    pub(crate) fn naming_at(path: &Path) -> Self {
        Self::serving_at(path, |wire| wire, naming)
    }

    fn serving_on(
        listener: TcpListener,
        over: impl Fn(Wire) -> Wire + Send + 'static,
        serve: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Self {
        let origin = Self::at(listener.local_addr().unwrap());
        let streams = std::iter::from_fn(move || Some(listener.accept().map(|(stream, _)| stream)));
        origin.serve(streams, over, serve);
        origin
    }

    fn serve(
        &self,
        streams: impl Iterator<Item = io::Result<TcpStream>> + Send + 'static,
        over: impl Fn(Wire) -> Wire + Send + 'static,
        serve: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) {
        let record = Arc::clone(&self.record);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in streams {
                if record.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = record.accepted.fetch_add(1, Ordering::SeqCst);
                let wire = over(Wire::new(stream, IDLE));
                record.streams.lock().unwrap().push(Arc::downgrade(wire.stream()));
                let (serve, record) = (Arc::clone(&serve), Arc::clone(&record));
                thread::spawn(move || {
                    let mut conn = Conn { wire: Some(wire), number, record: Arc::clone(&record) };
                    serve(&mut conn);
                    drop(conn.wire.take());
                    record.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
    }

    /// An address of which a test sees to the rest.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address, path: None, record: Arc::default(), held: Vec::new() }
    }

    /// Answers every request with what `answer` makes of it, on connections kept open unless the answer or the
    /// request says otherwise.
    pub(crate) fn answering<T: AsRef<[u8]>>(answer: impl Fn(&Seen) -> T + Send + Sync + 'static) -> Self {
        Self::answering_on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn answering_on<T: AsRef<[u8]>>(
        listener: TcpListener,
        answer: impl Fn(&Seen) -> T + Send + Sync + 'static,
    ) -> Self {
        Self::serving_on(
            listener,
            |wire| wire,
            move |conn| {
                while let Some(seen) = conn.request() {
                    let bytes = answer(&seen);
                    let bytes = bytes.as_ref();
                    let head = bytes
                        .windows(4)
                        .position(|four| four == b"\r\n\r\n")
                        .map_or(bytes, |at| &bytes[..at]);
                    let says_close =
                        head.to_ascii_lowercase().windows(17).any(|part| part == b"connection: close");
                    if !conn.send(bytes) || says_close || values(&seen.headers, "connection") == ["close"] {
                        return;
                    }
                }
            },
        )
    }

    /// 200 and this body.
    pub(crate) fn replying(body: &str) -> Self {
        let bytes = reply("200 OK", body);
        Self::answering(move |_| bytes.clone())
    }

    /// At 127.0.0.1, 127.0.0.2 and so on, all on one port: 200 and the last number of the address.
    pub(crate) fn neighbours<const COUNT: usize>() -> [Self; COUNT] {
        loop {
            let first = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            let others = (2..=COUNT).map(|last| TcpListener::bind(format!("127.0.0.{last}:{port}")));
            let Ok(others) = others.collect::<Result<Vec<_>, _>>() else { continue };
            let origins = std::iter::once(first).chain(others).enumerate().map(|(place, listener)| {
                let bytes = reply("200 OK", &(place + 1).to_string());
                Self::answering_on(listener, move |_| bytes.clone())
            });
            let origins: Vec<Self> = origins.collect();
            return origins.try_into().ok().unwrap();
        }
    }

    /// 200 and, as body, the request line without its version: an answer can not be taken for another's.
    pub(crate) fn naming() -> Self {
        Self::answering(|seen| reply("200 OK", &format!("{} {}", seen.method, seen.target)))
    }

    /// 200 and the body of the request.
    pub(crate) fn echoing() -> Self {
        Self::answering(|seen| {
            let mut bytes =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()).into_bytes();
            bytes.extend_from_slice(&seen.body);
            bytes
        })
    }

    /// The same bytes to every request.
    pub(crate) fn sending(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::answering(move |_| bytes.clone())
    }

    /// These bytes to every request, and then the end of the connection.
    pub(crate) fn sending_and_closing(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::serving(move |conn| {
            if conn.request().is_some() {
                conn.send(&bytes);
            }
        })
    }

    /// These bytes to the first request it ever gets, good answers (see [`Self::naming`]) to all others.
    pub(crate) fn sending_once(bytes: impl Into<Vec<u8>>) -> Self {
        let (bytes, first) = (bytes.into(), AtomicBool::new(true));
        Self::answering(move |seen| {
            if first.swap(false, Ordering::SeqCst) {
                bytes.clone()
            } else {
                reply("200 OK", &format!("{} {}", seen.method, seen.target))
            }
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a key of `nodes`.
    pub(crate) fn node(&self) -> String {
        self.address.to_string()
    }

    /// How many requests came, whole or not.
    pub(crate) fn requests(&self) -> usize {
        self.record.seen.lock().unwrap().len()
    }

    /// All requests, in the order their heads came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.record.seen.lock().unwrap().clone()
    }

    /// The only request there was.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert!(seen.len() == 1, "expected one request, got {seen:#?}");
        seen.remove(0)
    }

    /// The request for this target; panics when it did not come, or came twice.
    #[track_caller]
    pub(crate) fn saw(&self, target: &str) -> Seen {
        let mut seen = self.seen();
        seen.retain(|seen| seen.target == target);
        assert!(seen.len() == 1, "expected one request for {target}, got {seen:#?}");
        seen.remove(0)
    }

    /// Waits until so many requests came.
    #[track_caller]
    pub(crate) fn wait_requests(&self, count: usize) {
        eventually(&format!("{count} requests at the origin"), || (self.requests() >= count).then_some(()));
    }

    /// The same, where their bodies are to be looked at.
    #[track_caller]
    pub(crate) fn wait_whole_requests(&self, count: usize) {
        eventually(&format!("{count} whole requests at the origin"), || {
            (self.seen().iter().filter(|seen| seen.complete).count() >= count).then_some(())
        });
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        self.record.seen.lock().unwrap().clear();
    }

    /// Connections accepted, ever.
    pub(crate) fn connections(&self) -> usize {
        self.record.accepted.load(Ordering::SeqCst)
    }

    /// Connections that ended.
    pub(crate) fn ended(&self) -> usize {
        self.record.ended.load(Ordering::SeqCst)
    }

    /// Waits until so many connections ended.
    #[track_caller]
    pub(crate) fn wait_ended(&self, count: usize) {
        eventually(&format!("{count} connections ended at the origin"), || {
            (self.ended() >= count).then_some(())
        });
    }

    /// Bytes of bodies that were counted rather than kept.
    pub(crate) fn swallowed(&self) -> usize {
        self.record.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.record.stopped.store(true, Ordering::SeqCst);
        for stream in self.record.streams.lock().unwrap().iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // The accepting thread waits for a connection to notice.
        if let Some(path) = &self.path {
            let _ = UnixStream::connect(path);
            let _ = fs::remove_file(path);
            return;
        }
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE.min(Duration::from_millis(100)));
    }
}

/// Answers every request with what it was asked for.
fn naming(conn: &mut Conn) {
    while let Some(seen) = conn.request() {
        if !conn.send(&reply("200 OK", &format!("{} {}", seen.method, seen.target))) {
            return;
        }
    }
}

/// A Unix socket under the name of the others: reading, writing and ending them is the same.
pub(crate) fn as_tcp(stream: UnixStream) -> TcpStream {
    OwnedFd::from(stream).into()
}

/// A connection to an origin, as its script sees it.
pub(crate) struct Conn {
    wire: Option<Wire>,
    /// Which one of the origin's, from 0.
    pub(crate) number: usize,
    record: Arc<Record>,
}

impl Conn {
    /// The bytes themselves.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("a connection is used before it is reset")
    }

    /// The next request, whole, and remembered; `None` when the connection ended or the body did not.
    pub(crate) fn request(&mut self) -> Option<Seen> {
        let seen = self.head()?;
        self.body(seen)
    }

    /// The head of the next request, remembered as not complete.
    pub(crate) fn head(&mut self) -> Option<Seen> {
        let raw = self.wire().head().ok().flatten()?;
        let seen = Seen::new(raw, self.number);
        self.record.seen.lock().unwrap().push(seen.clone());
        Some(seen)
    }

    /// The rest of a request of which the head was read. Asks for it with a 100 if the client waits for one.
    pub(crate) fn body(&mut self, mut seen: Seen) -> Option<Seen> {
        let head = seen.raw.len();
        if !values(&seen.headers, "expect").is_empty() {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let (mut raw, mut body) = (Vec::new(), Vec::new());
        let wire = self.wire();
        let ended = if !values(&seen.headers, "transfer-encoding").is_empty() {
            wire.chunked(&mut raw, |piece| body.extend_from_slice(piece))
                .map(|trailers| seen.trailers = trailers)
        } else {
            let length =
                values(&seen.headers, "content-length").first().and_then(|length| length.parse().ok());
            let read = wire.exactly(length.unwrap_or(0), |piece| body.extend_from_slice(piece));
            raw.clone_from(&body);
            read
        };
        seen.complete = ended.is_ok();
        seen.body = body;
        seen.raw.extend_from_slice(&raw);
        let mut all = self.record.seen.lock().unwrap();
        // The newest of this connection with only a head is the one being completed.
        if let Some(place) =
            all.iter_mut().rev().find(|other| other.connection == seen.connection && other.raw.len() == head)
        {
            place.clone_from(&seen);
        }
        drop(all);
        seen.complete.then_some(seen)
    }

    /// The rest of a request of known length, counted but not kept; whether it came to its end.
    pub(crate) fn swallow(&mut self, seen: &Seen) -> bool {
        let record = Arc::clone(&self.record);
        let length = values(&seen.headers, "content-length").first().and_then(|length| length.parse().ok());
        let count = |piece: &[u8]| {
            record.swallowed.fetch_add(piece.len(), Ordering::SeqCst);
        };
        match length {
            Some(length) => self.wire().exactly(length, count).is_ok(),
            None => self.wire().chunked(&mut Vec::new(), count).is_ok(),
        }
    }

    /// Sends; whether the other side still takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.wire().send(bytes).is_ok()
    }

    /// Sends one byte a segment.
    pub(crate) fn trickle(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| {
            thread::yield_now();
            self.send(&[*byte])
        })
    }

    /// Says nothing until the other side goes.
    pub(crate) fn wait_for_the_end(&mut self) -> Ended {
        self.wire().rest(|_| {})
    }

    /// Leaves the connection open and unread for as long as the origin lives.
    pub(crate) fn hold(&self) {
        while !self.record.stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset();
        }
    }
}

/// A response with this status line and body, and its length.
pub(crate) fn reply(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}
