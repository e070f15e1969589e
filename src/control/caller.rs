//! The other end of the control socket: one request after the other to a running gateway, for the command line.
//!
//! A connection a request. Every wait has an end: a gateway that is stopped in a debugger must not hang a script.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may take: all objects compiled anew, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read: some hundred thousand objects.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a running gateway is asked.
#[derive(Clone, Debug)]
pub struct Caller {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unheard {
    /// Nobody listens: nothing was asked.
    Unreachable(io::Error),
    /// It was asked, and what became of that is not known.
    Unanswered(String),
}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Unanswered(why) => f.write_str(why),
        }
    }
}

/// What a gateway said.
#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let all = self.headers.get_all(name).into_iter();
        all.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    }

    /// The revision of the objects that the answer is true of.
    pub fn revision(&self) -> Option<u64> {
        self.headers("x-config-revision").first()?.parse().ok()
    }
}

impl Caller {
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Heard, Unheard> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Unheard::Unreachable)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            // Every fault with its place.
            .header(ACCEPT, "application/problem+json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Unheard::Unreachable(io::Error::other(error)))?;
        runtime.block_on(async {
            let whole = timeout(PATIENCE, self.send(request)).await;
            whole.unwrap_or_else(|_| Err(Unheard::Unanswered(format!("no answer within {PATIENCE:?}"))))
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Heard, Unheard> {
        let unanswered = |error: &dyn fmt::Display| Unheard::Unanswered(error.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(Unheard::Unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unanswered(&error))?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| unanswered(&error))?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| unanswered(&error))?;
        Ok(Heard { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }
}
