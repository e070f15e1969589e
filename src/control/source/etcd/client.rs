//! One request after the other to a member of etcd, over its JSON gateway (HTTP/1.1).
//!
//! A connection a request: there are few of them, and none is ever found dead. A member that does not answer is
//! passed over for the next. Nothing is written to a log here: whoever asked knows what it means.

use std::fmt;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes as Chunk, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::dial::{Dialer, words};
use crate::model::settings::{Endpoint, EtcdSettings};

/// How long a connection may take to come about, at most. A member that is there answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer, or a line of a watch. A page of objects is far smaller, unless they are huge.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Words of etcd that are told on.
const WORDS_MAX: usize = 300;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// No connection: nothing was asked.
    Unreachable(String),
    /// It was asked, and what became of that is not known.
    Unanswered(String),
    /// It said no.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable(why) | Self::Unanswered(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

/// Whether a question may be asked again of the next member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It changes nothing.
    Always,
    /// Only when the one before can not have heard it.
    WhenUnheard,
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Client {
    members: Vec<Endpoint>,
    at: usize,
    dialer: Dialer,
    timeout: Duration,
    login: Option<Value>,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &EtcdSettings, dialer: Dialer) -> Self {
        let login = settings.user.as_ref().map(|user| {
            json!({"name": user, "password": settings.password.as_ref().map_or("", |secret| secret.expose())})
        });
        Self {
            members: settings.endpoints.clone(),
            at: 0,
            dialer,
            timeout: settings.timeout.get(),
            login,
            token: None,
        }
    }

    /// The same with less patience.
    pub(super) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = self.timeout.min(timeout);
        self
    }

    /// Has the next question say again who asks: a watch that is refused does not tell whether a token ran out.
    pub(super) fn forget_token(&mut self) {
        self.token = None;
    }

    /// Asks, and reads the answer whole.
    pub(super) async fn ask<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        again: Again,
    ) -> Result<T, Trouble> {
        let mut lines = self.open(path, body, again).await?;
        let text = self.whole(&mut lines).await?;
        serde_json::from_slice(&text)
            .map_err(|error| Trouble::Unanswered(format!("{}: a strange answer: {error}", lines.member)))
    }

    /// Asks, and leaves the answer to be read line by line.
    pub(super) async fn open(&mut self, path: &str, body: &Value, again: Again) -> Result<Lines, Trouble> {
        let mut first = None;
        for _ in 0..self.members.len() {
            let trouble = match self.open_here(path, body).await {
                Ok(lines) => return Ok(lines),
                Err(trouble) => trouble,
            };
            let may_go_on = match trouble {
                Trouble::Unreachable(_) => true,
                Trouble::Unanswered(_) => again == Again::Always,
                Trouble::Refused(_) => false,
            };
            if !may_go_on {
                return Err(trouble);
            }
            self.at = (self.at + 1) % self.members.len();
            first.get_or_insert(trouble);
        }
        Err(first.unwrap_or_else(|| Trouble::Unreachable("no member is known".to_owned())))
    }

    /// Of the member at hand; a token that ran out is fetched anew, once.
    async fn open_here(&mut self, path: &str, body: &Value) -> Result<Lines, Trouble> {
        let had_token = self.token.is_some();
        self.log_in().await?;
        match self.send(path, body).await {
            Err(Trouble::Refused(why)) if had_token && is_about_the_token(&why) => {
                self.token = None;
                self.log_in().await?;
                self.send(path, body).await
            }
            outcome => outcome,
        }
    }

    async fn log_in(&mut self) -> Result<(), Trouble> {
        let Some(login) = self.login.clone().filter(|_| self.token.is_none()) else { return Ok(()) };
        let mut lines = self.send("/v3/auth/authenticate", &login).await?;
        let answer: Value = serde_json::from_slice(&self.whole(&mut lines).await?).unwrap_or_default();
        match answer["token"].as_str() {
            Some(token) => self.token = Some(token.to_owned()),
            None => return Err(Trouble::Refused(format!("{}: gave no token", lines.member))),
        }
        Ok(())
    }

    /// An answer, which must be whole in time.
    async fn whole(&self, lines: &mut Lines) -> Result<Vec<u8>, Trouble> {
        let patience = self.timeout;
        timeout(patience, lines.rest()).await.unwrap_or_else(|_| {
            Err(Trouble::Unanswered(format!("{}: no whole answer within {patience:?}", lines.member)))
        })
    }

    async fn send(&mut self, path: &str, body: &Value) -> Result<Lines, Trouble> {
        let Some(endpoint) = self.members.get(self.at).cloned() else {
            return Err(Trouble::Unreachable("no member is known".to_owned()));
        };
        let member = endpoint.authority().to_owned();
        let unreachable = |why: String| Trouble::Unreachable(format!("{member}: {why}"));
        let patience = self.timeout.min(CONNECT_TIMEOUT);
        let dialled = self.dialer.dial(endpoint.host(), endpoint.port(), endpoint.is_tls());
        let stream = timeout(patience, dialled)
            .await
            .map_err(|_| unreachable(format!("no connection within {patience:?}")))?
            .map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // Ends with the answer, or with whoever reads it.
        tokio::spawn(connection);
        let mut request = Request::post(path).header(HOST, &member).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(Chunk::from(body.to_string())))
            .map_err(|error| unreachable(error.to_string()))?;
        let unanswered = |why: String| Trouble::Unanswered(format!("{member}: {why}"));
        let response = timeout(self.timeout, sender.send_request(request))
            .await
            .map_err(|_| unanswered(format!("no answer within {:?}", self.timeout)))?
            .map_err(|error| unanswered(words(&error)))?;
        self.taken(member, response).await
    }

    /// An answer that is one; what etcd says instead is told.
    async fn taken(&self, member: String, response: Response<Incoming>) -> Result<Lines, Trouble> {
        let status = response.status();
        let mut lines = Lines { member, body: response.into_body(), unread: Vec::new(), read_to: 0 };
        if status == StatusCode::OK {
            return Ok(lines);
        }
        let text = timeout(self.timeout, lines.rest()).await.unwrap_or_else(|_| Ok(Vec::new()))?;
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        let told =
            answer["error"].as_str().map_or_else(|| String::from_utf8_lossy(&text).into(), str::to_owned);
        let words: String = told.chars().take(WORDS_MAX).collect();
        let why = format!("{}: {status}: {words}", lines.member);
        // A member without a leader, or one that is just starting: the next may know better.
        Err(if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::GATEWAY_TIMEOUT {
            Trouble::Unanswered(why)
        } else {
            Trouble::Refused(why)
        })
    }
}

fn is_about_the_token(why: &str) -> bool {
    why.contains("invalid auth token") || why.contains("auth revision") || why.contains(": 401")
}

/// An answer that comes in.
pub(super) struct Lines {
    pub(super) member: String,
    body: Incoming,
    unread: Vec<u8>,
    /// Up to where `unread` was looked through and has no end of line.
    read_to: usize,
}

impl Lines {
    /// The next line; `None`: it has ended. May be broken off and asked again: nothing that came is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            let found = self.unread.get(self.read_to..).and_then(|rest| memchr::memchr(b'\n', rest));
            if let Some(at) = found {
                let rest = self.unread.split_off(self.read_to + at + 1);
                self.read_to = 0;
                return Ok(Some(std::mem::replace(&mut self.unread, rest)));
            }
            self.read_to = self.unread.len();
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// All that is left.
    async fn rest(&mut self) -> Result<Vec<u8>, Trouble> {
        while self.more().await? {}
        self.read_to = 0;
        Ok(std::mem::take(&mut self.unread))
    }

    async fn more(&mut self) -> Result<bool, Trouble> {
        let unanswered = |why: String| Trouble::Unanswered(format!("{}: {why}", self.member));
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| unanswered(words(&error)))?;
        if let Some(chunk) = frame.data_ref() {
            if self.unread.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(unanswered(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
            }
            self.unread.extend_from_slice(chunk);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::model::settings::Settings;

    #[test]
    fn a_member_that_begins_an_answer_and_stalls_is_given_up() {
        let member = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = member.local_addr().expect("bound");
        let stalling = std::thread::spawn(move || {
            let (mut stream, _) = member.accept().expect("somebody asks");
            // An answer before its question would be none.
            let asked = stream.read(&mut [0; 4096]).expect("a question");
            assert_ne!(asked, 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").expect("is heard");
            // Until whoever asked has given up.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let settings = json!({"endpoints": [format!("http://{address}")], "timeout": 0.2});
        let settings: EtcdSettings = serde_json::from_value(settings).expect("settings");
        let mut client = Client {
            login: Some(json!({"name": "root", "password": "p"})),
            ..Client::new(&settings, Dialer::to_etcd(&Settings::default(), &settings))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let nothing = json!({});
        let asked = client.ask::<Value>("/v3/kv/range", &nothing, Again::WhenUnheard);
        let trouble = runtime.block_on(asked).expect_err("no answer is whole");
        assert!(trouble.to_string().contains("no whole answer within 200ms"), "{trouble}");
        drop(runtime);
        stalling.join().expect("is done");
    }
}
