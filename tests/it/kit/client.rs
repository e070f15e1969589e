//! The client's side: [`Client`] speaks HTTP/1.1 as one should, [`Raw`] says exactly what it is told.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;
use super::origin::as_tcp;
use super::wire::{Ended, Headers, Wire, ended, head_of, shown, text, values};

/// Interim responses after which a client gives up.
const INTERIM_MAX: usize = 100;

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// As on the wire, interim responses and all.
    pub(crate) raw: Vec<u8>,
    /// Statuses of the interim (1xx) responses before it.
    pub(crate) interim: Vec<u16>,
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    /// Without chunks.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
    /// Whether the body came to its end; a connection that closes early leaves it cut.
    pub(crate) whole: bool,
    /// Whether the connection may carry another request.
    pub(crate) open: bool,
}

impl Answer {
    /// Status and body must be these.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) -> &Self {
        assert!(
            self.status == status && self.body == body.as_bytes() && self.whole,
            "expected {status} with {body:?}, got {}",
            shown(&self.raw)
        );
        self
    }

    /// The status must be this, whatever the body.
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) -> &Self {
        assert!(self.status == status, "expected {status}, got {}", shown(&self.raw));
        self
    }

    /// The value of a header that came once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.values(name);
        assert!(all.len() <= 1, "{name} came {} times in {}", all.len(), shown(&self.raw));
        all.first().copied()
    }

    /// All values of a header.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", shown(&self.raw)))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }
}

/// A connection on which nothing is added and nothing is corrected.
pub(crate) struct Raw {
    pub(crate) wire: Wire,
}

impl Raw {
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        let stream =
            TcpStream::connect_timeout(&to, PATIENCE).unwrap_or_else(|error| panic!("connect {to}: {error}"));
        Self::over(stream)
    }

    /// To a Unix socket.
    #[track_caller]
    pub(crate) fn connect_at(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("connect {path:?}: {error}"));
        Self::over(as_tcp(stream))
    }

    /// Takes over a connection.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { wire: Wire::new(stream, PATIENCE) }
    }

    /// Reads wait so long from now on.
    pub(crate) fn patience(&self, patience: Duration) {
        self.wire.stream().set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends. A gateway that has closed is not a failure here: what it said before is what counts.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.wire.send(bytes.as_ref());
        self
    }

    /// Sends piece by piece, each in a segment of its own as far as the kernel goes along.
    pub(crate) fn send_each<T: AsRef<[u8]>>(&mut self, pieces: impl IntoIterator<Item = T>) -> &mut Self {
        for piece in pieces {
            self.send(piece);
            std::thread::yield_now();
        }
        self
    }

    /// The answer to a request that was not HEAD.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The answer to a request of this method.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer(method).unwrap_or_else(|reason| panic!("no answer: {reason}"))
    }

    /// So many answers.
    #[track_caller]
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Answer> {
        (0..count)
            .map(|at| {
                self.try_answer("GET").unwrap_or_else(|reason| panic!("answer {at} of {count}: {reason}"))
            })
            .collect()
    }

    /// The answer, or why there is none. A body cut short is an answer that is not whole.
    pub(crate) fn try_answer(&mut self, method: &str) -> Result<Answer, String> {
        let mut answer = self.try_head()?;
        if matches!(answer.status, 204 | 304) || method == "HEAD" || answer.status == 101 {
            answer.whole = true;
            return Ok(answer);
        }
        let (mut body, mut raw) = (Vec::new(), Vec::new());
        let chunked = answer.values("transfer-encoding").contains(&"chunked");
        let length = answer.values("content-length").first().and_then(|length| length.parse().ok());
        let read = match length {
            _ if chunked => self
                .wire
                .chunked(&mut raw, |piece| body.extend_from_slice(piece))
                .map(|them| answer.trailers = them),
            Some(length) => self.wire.exactly(length, |piece| body.extend_from_slice(piece)),
            None => {
                answer.open = false;
                match self.wire.rest(|piece| body.extend_from_slice(piece)) {
                    Ended::Closed => Ok(()),
                    Ended::Reset => Err(std::io::ErrorKind::ConnectionReset.into()),
                    Ended::Open => Err(std::io::ErrorKind::TimedOut.into()),
                }
            }
        };
        answer.whole = match read {
            Ok(()) => true,
            Err(error) if ended(&error) == Ended::Open => {
                return Err(format!("body stalled: {}", shown(&answer.raw)));
            }
            Err(_) => false,
        };
        answer.open &= answer.whole;
        answer.raw.extend_from_slice(if chunked { &raw } else { &body });
        answer.body = body;
        Ok(answer)
    }

    /// The final head and the interim ones before it; the body is still to come.
    pub(crate) fn try_head(&mut self) -> Result<Answer, String> {
        let (mut all, mut interim) = (Vec::new(), Vec::new());
        loop {
            let raw = match self.wire.head() {
                Ok(Some(raw)) => raw,
                Ok(None) => return Err("closed without a word".to_owned()),
                Err(error) => return Err(format!("{:?} ({error})", ended(&error))),
            };
            all.extend_from_slice(&raw);
            let (first, headers) = head_of(&raw);
            let mut words = first.splitn(3, ' ');
            let version = words.next().unwrap_or_default().to_owned();
            let status = words.next().and_then(|status| status.parse().ok());
            let Some(status) = status else { return Err(format!("not a response: {}", shown(&raw))) };
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                if interim.len() > INTERIM_MAX {
                    return Err(format!("more than {INTERIM_MAX} interim responses"));
                }
                continue;
            }
            let close =
                values(&headers, "connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
            let keep =
                values(&headers, "connection").iter().any(|value| value.eq_ignore_ascii_case("keep-alive"));
            let open = if version == "HTTP/1.1" { !close } else { keep };
            return Ok(Answer {
                raw: all,
                interim,
                version,
                status,
                headers,
                body: Vec::new(),
                trailers: Vec::new(),
                whole: false,
                open,
            });
        }
    }

    /// No more bytes from us.
    pub(crate) fn finish(&mut self) -> &mut Self {
        self.wire.finish();
        self
    }

    /// What comes until the connection ends, and how it ends.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ended) {
        let mut all = Vec::new();
        let ended = self.wire.rest(|piece| all.extend_from_slice(piece));
        (all, ended)
    }

    /// The gateway must close without another byte.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let (rest, ended) = self.rest();
        assert!(rest.is_empty(), "expected the end, got {}", shown(&rest));
        assert!(ended != Ended::Open, "expected the end, the connection stays open");
    }
}

/// A connection kept open for one request after another.
pub(crate) struct Client {
    pub(crate) raw: Raw,
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self { raw: Raw::connect(to) }
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
    }

    /// One request and its answer. `Host` is `ringway.test` unless given; a body gets its length.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.raw.send(request(method, path, headers, body));
        match self.raw.try_answer(method) {
            Ok(answer) => answer,
            Err(reason) => panic!("{method} {path}: {reason}"),
        }
    }
}

/// The bytes of a well-formed request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: ringway.test\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
