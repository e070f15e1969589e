//! The request that is asked about: put into the bytes it would come in, and read as those would be.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::veil::Veil;
use crate::base::text::is_token;
use crate::exchange::Exchange;
use crate::proto::h1::HeadFault;
use crate::proto::h1::parse::{self, Parsed};
use crate::runtime::Limits;
use crate::snapshot::Snapshot;
use crate::snapshot::intake::{self, Refusal};

/// A request that is asked about.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: String,
    /// As in the first line of the request: path and query.
    pub target: String,
    /// The `Host` header.
    pub host: Option<String>,
    /// Further headers, in their order.
    pub headers: Vec<(String, String)>,
    /// The other end of the connection.
    pub peer: IpAddr,
    pub https: bool,
    /// A route that is to be told of whether or not it is considered.
    pub route: Option<String>,
}

impl Ask {
    /// What is wrong with it as a question, if anything is: what could not be one request on the wire. Whether the
    /// gateway takes the request is part of the answer.
    ///
    /// # Errors
    /// Names the field, what is expected there and what was found.
    pub fn check(&self) -> Result<(), String> {
        if !is_token(self.method.as_bytes()) {
            return Err(format!("method: expected a word such as GET, got {:?}", self.method));
        }
        if self.target.is_empty() || self.target.bytes().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
            return Err(format!(
                "uri: expected a path with or without a query, no blanks, got {:?}",
                self.target
            ));
        }
        let breaks = |text: &str| text.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        if let Some(host) = self.host.as_deref().filter(|host| breaks(host)) {
            return Err(format!("host: expected one line, got {host:?}"));
        }
        for (name, value) in &self.headers {
            if !is_token(name.as_bytes()) {
                return Err(format!("header: expected NAME: VALUE, got the name {name:?}"));
            }
            if breaks(value) {
                return Err(format!("header {name}: expected one line"));
            }
        }
        Ok(())
    }

    /// The head as it would come in.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let host = self.host.as_ref().map(|host| ("Host", host.as_str()));
        let others = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in host.into_iter().chain(others) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// Reads the request into an exchange, as a core does.
pub(super) fn read(
    snapshot: &Snapshot,
    limits: &Limits,
    ask: &Ask,
    ex: &mut Exchange,
) -> Result<(), Refusal> {
    ex.client.peer = SocketAddr::new(ask.peer, 0);
    ex.client.ip = ask.peer.to_canonical();
    ex.client.https = ask.https;
    ex.connection_requests = 1;
    let head = ask.head();
    let limits_of_head = &limits.head;
    match parse::request(&head, 0, limits_of_head, &mut ex.request.headers)? {
        Parsed::Complete(line) => ex.request.line = line,
        Parsed::Partial => return Err(HeadFault::HeadTooLarge.into()),
    }
    ex.bytes_in = u64::from(ex.request.line.head.len);
    ex.request.headers.hold_received(head);
    intake::body_ahead(ex)?;
    intake::admit(&snapshot.house, limits.body_bytes_max, ex)
}

/// What the request was made of.
pub(super) fn told(ex: &Exchange, veil: &Veil<'_>) -> Value {
    let request = &ex.request;
    let headers: Vec<Value> = request
        .headers
        .iter()
        .map(|(_, name, value)| {
            let name = String::from_utf8_lossy(name).into_owned();
            json!({"value": veil.named(&name, value), "name": name})
        })
        .collect();
    json!({
        "method": request.method().text(),
        "path": veil.plain(&request.path),
        "query": request.has_query.then(|| veil.query(&request.query)),
        "host": request.host,
        "port": request.host_port,
        "client": ex.client.ip.to_string(),
        "peer": ex.client.peer.ip().to_string(),
        "peer_is_trusted": ex.client.trusted,
        "scheme": ex.client.scheme(),
        "headers": headers,
    })
}
