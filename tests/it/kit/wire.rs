//! Messages read off a socket, kept byte for byte. Deliberately simple: the reader of a test must not repair what
//! the gateway sent, so anything odd ends up in the record as it came.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::PATIENCE;

/// Longer heads are not read: neither a gateway nor a client sends them in earnest.
const HEAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Headers in the order they came, names as they were written.
pub(crate) type Headers = Vec<(String, String)>;

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    Reset,
    /// It did not: patience ended.
    Open,
}

/// Bytes as text, one character a byte, so that nothing is lost.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Bytes as a failure message shows them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut out = bytes[..bytes.len().min(600)].escape_ascii().to_string();
    if bytes.len() > 600 {
        let _ = write!(out, "... ({} bytes)", bytes.len());
    }
    out
}

/// One end of a connection and what was read ahead.
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    ahead: Vec<u8>,
    /// Whether it ends with a reset.
    resets: bool,
    tls: Option<Tls>,
}

/// TLS over a wire.
struct Tls {
    session: rustls::Connection,
    /// Most bytes of one write, so that what is sent arrives in such pieces.
    piece: usize,
}

impl Tls {
    fn say(&mut self, mut bytes: &[u8], pieces: &mut Pieces<'_>) -> io::Result<()> {
        while !bytes.is_empty() || self.session.wants_write() {
            let taken = self.session.writer().write(bytes)?;
            bytes = &bytes[taken..];
            self.session.complete_io(pieces)?;
        }
        Ok(())
    }

    fn hear(&mut self, into: &mut [u8], pieces: &mut Pieces<'_>) -> io::Result<usize> {
        loop {
            match self.session.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.session.complete_io(pieces)?.0 == 0 {
                        return self.session.reader().read(into);
                    }
                }
                read => return read,
            }
        }
    }
}

/// A socket that takes no more than a piece at a time.
struct Pieces<'a>(&'a TcpStream, usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(&bytes[..bytes.len().min(self.1)])?;
        if count < bytes.len() {
            std::thread::yield_now();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// Takes a socket over; reads wait for `patience` at most.
    pub(crate) fn new(stream: TcpStream, patience: Duration) -> Self {
        // A Unix socket, which goes by the name of the others here, has no such option.
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Arc::new(stream), ahead: Vec::new(), resets: false, tls: None }
    }

    /// Speaks TLS from here on, in pieces of so many bytes.
    pub(crate) fn secured(mut self, session: impl Into<rustls::Connection>, piece: usize) -> Self {
        self.tls = Some(Tls { session: session.into(), piece });
        self
    }

    /// What was agreed on over TLS.
    pub(crate) fn tls(&self) -> &rustls::Connection {
        &self.tls.as_ref().expect("a wire over TLS").session
    }

    /// The session itself, for a test that does by hand what a client does not.
    pub(crate) fn tls_mut(&mut self) -> &mut rustls::Connection {
        &mut self.tls.as_mut().expect("a wire over TLS").session
    }

    /// Sends what comes before TLS.
    pub(crate) fn send_in_clear(&mut self, bytes: &[u8]) {
        let _ = (&*self.stream).write_all(bytes);
    }

    /// Agrees on TLS before anything is said.
    pub(crate) fn shake(&mut self) -> io::Result<()> {
        let tls = self.tls.as_mut().expect("a wire over TLS");
        while tls.session.is_handshaking() {
            tls.session.complete_io(&mut Pieces(&self.stream, tls.piece))?;
        }
        Ok(())
    }

    /// Leaves without a word, as if the connection broke.
    pub(crate) fn break_off(mut self) {
        self.tls = None;
    }

    /// The socket; it closes when the wire goes, unless this is kept.
    pub(crate) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => (&*self.stream).write_all(bytes),
            Some(tls) => {
                let mut pieces = Pieces(&self.stream, tls.piece);
                tls.say(bytes, &mut pieces)
            }
        }
    }

    /// No more bytes from us; the other direction stays.
    pub(crate) fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Drops the connection with a reset rather than an orderly end.
    pub(crate) fn reset(mut self) {
        self.resets = true;
        let _ = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads once; the number of bytes, 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let count = loop {
            let read = match &mut self.tls {
                None => (&*self.stream).read(&mut piece),
                Some(tls) => {
                    let mut pieces = Pieces(&self.stream, tls.piece);
                    tls.hear(&mut piece, &mut pieces)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.ahead.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn fill_or_fail(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Up to and with the blank line; `None` when the connection ended between messages.
    pub(crate) fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.ahead[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(Some(self.ahead.drain(..searched + at + 4).collect()));
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            searched = self.ahead.len().saturating_sub(3);
            let between = self.ahead.is_empty();
            match self.fill() {
                Ok(0) if between => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Up to and with the next line feed.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.iter().position(|byte| *byte == b'\n') {
                return Ok(self.ahead.drain(..=at).collect());
            }
            self.fill_or_fail()?;
        }
    }

    /// What has arrived, at least one byte; empty at the end.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Exactly so many bytes, handed on as they come.
    pub(crate) fn exactly(&mut self, mut count: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        while count > 0 {
            if self.ahead.is_empty() {
                self.fill_or_fail()?;
            }
            let take = (self.ahead.len() as u64).min(count);
            each(&self.ahead[..take as usize]);
            self.ahead.drain(..take as usize);
            count -= take;
        }
        Ok(())
    }

    /// A chunked body: its data handed on, its trailers returned; `raw` gets all bytes as they came.
    pub(crate) fn chunked(&mut self, raw: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> io::Result<Headers> {
        let odd = |what: &[u8]| io::Error::new(io::ErrorKind::InvalidData, format!("chunk: {}", shown(what)));
        loop {
            let line = self.line()?;
            raw.extend_from_slice(&line);
            let size = text(line.strip_suffix(b"\r\n").ok_or_else(|| odd(&line))?);
            let size = u64::from_str_radix(&size, 16).map_err(|_| odd(&line))?;
            if size == 0 {
                break;
            }
            self.exactly(size, |piece| {
                raw.extend_from_slice(piece);
                each(piece);
            })?;
            let end = self.line()?;
            raw.extend_from_slice(&end);
            if end != b"\r\n" {
                return Err(odd(&end));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            raw.extend_from_slice(&line);
            match line.strip_suffix(b"\r\n") {
                Some(b"") => return Ok(trailers),
                Some(field) => trailers.push(header(&text(field))),
                None => return Err(odd(&line)),
            }
        }
    }

    /// Everything until the end of the connection, and how it ended.
    pub(crate) fn rest(&mut self, mut each: impl FnMut(&[u8])) -> Ended {
        loop {
            each(&self.ahead);
            self.ahead.clear();
            match self.fill() {
                Ok(0) => return Ended::Closed,
                Ok(_) => {}
                Err(error) => return ended(&error),
            }
        }
    }
}

impl Drop for Wire {
    /// Says the end rather than leaving it to the closing of the descriptor: a process that another test starts at
    /// this moment holds a copy of it until it runs its own program, and the other side would see the end late.
    fn drop(&mut self) {
        if let (Some(tls), false) = (&mut self.tls, self.resets) {
            tls.session.send_close_notify();
            let _ = tls.session.write_tls(&mut &*self.stream);
        }
        if !self.resets {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// How a failed read tells that the connection ended.
pub(crate) fn ended(error: &io::Error) -> Ended {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ended::Open,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ended::Reset,
        _ => Ended::Closed,
    }
}

fn header(line: &str) -> (String, String) {
    match line.split_once(':') {
        Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
        None => (line.to_owned(), String::new()),
    }
}

/// The first line and the headers of a head.
pub(crate) fn head_of(raw: &[u8]) -> (String, Headers) {
    let head = text(raw);
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    (first, lines.map(header).collect())
}

/// All values of a header, whatever its case.
pub(crate) fn values<'a>(headers: &'a Headers, name: &str) -> Vec<&'a str> {
    headers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

/// A request as an origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Head and body as they were on the wire.
    pub(crate) raw: Vec<u8>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Headers,
    /// Without chunks.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
    /// Which connection of the origin it came on, from 0.
    pub(crate) connection: usize,
    /// Whether the body came to its end.
    pub(crate) complete: bool,
}

impl Seen {
    /// A request of which the head is known.
    pub(crate) fn new(raw: Vec<u8>, connection: usize) -> Self {
        let (first, headers) = head_of(&raw);
        let mut words = first.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        Self {
            method: word(),
            target: word(),
            version: word(),
            raw,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
            connection,
            complete: false,
        }
    }

    /// The value of a header that came once; panics when it came twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.values(name);
        assert!(all.len() <= 1, "{name} came {} times in {}", all.len(), shown(&self.raw));
        all.first().copied()
    }

    /// All values of a header.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// Headers that say how long the body is; more than one is a smuggler's.
    pub(crate) fn framings(&self) -> usize {
        self.values("content-length").len() + self.values("transfer-encoding").len()
    }
}
