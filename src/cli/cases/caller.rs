//! A client of the gateway under test, and the reading of messages that both it and the nodes do.
//!
//! Messages are read by `httparse` as it is, not by the code under test: what that let through wrongly would look right
//! to itself.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::form::Request;
use super::house::House;
use super::town::{body_of, lines_of};
use crate::control::explain::split;
use crate::proto::h1::chunked::Decoder;
use crate::snapshot::Anyone;
use crate::snapshot::explain::Ask;

/// Most of a message that is read.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Headers of one.
const HEADERS_MAX: usize = 1024;
/// The port that clients come from.
const CLIENT_PORT: u16 = 40_000;

/// A request or an answer, as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The values of a header, joined.
    pub(super) fn header(&self, name: &str) -> Option<Vec<u8>> {
        let all = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = all.map(|(_, value)| value.as_slice()).collect();
        (!values.is_empty()).then(|| values.join(&b", "[..]))
    }

    fn says(&self, name: &str, value: &str) -> bool {
        let found = self.header(name).unwrap_or_default();
        String::from_utf8_lossy(&found).to_ascii_lowercase().contains(value)
    }
}

/// A request in the form that goes over the wire.
pub(super) struct Call {
    ask: Ask,
    /// Of the URL: whom TLS is spoken with, whatever `Host` says.
    authority: Option<String>,
    bytes: Vec<u8>,
}

/// What a request comes to on the wire, or what is wrong with it, with the field.
pub(super) fn call_of(request: &Request) -> Result<Call, String> {
    let (https, authority, target) = if request.url.starts_with('/') || request.url == "*" {
        (false, None, request.url.clone())
    } else {
        split(&request.url)?
    };
    let body = request.body.as_ref().map(|body| body_of(Some(body)));
    let mut headers = lines_of(request.headers.iter());
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let host = (!has("host")).then(|| authority.clone().unwrap_or_else(|| "localhost".to_owned()));
    let is_framed = has("content-length") || has("transfer-encoding");
    if let (Some(body), false) = (&body, is_framed) {
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    let method = request.method.clone();
    let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let peer = request.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let ask = Ask { method, target, host, headers, peer, https, route: None };
    ask.check()?;
    let mut bytes = ask.head();
    bytes.extend(body.into_iter().flatten());
    Ok(Call { ask, authority, bytes })
}

/// Makes the request. `None`: the connection was closed without an answer.
///
/// # Errors
/// When the answer can not be read, or does not come.
pub(super) fn make(call: &Call, house: &House) -> io::Result<Option<Message>> {
    let is_head = call.ask.method == "HEAD";
    let peer = SocketAddr::new(call.ask.peer, CLIENT_PORT);
    let (host, port) = server_of(call);
    let mut stream = house.connect(peer, port, call.ask.https)?;
    if !call.ask.https {
        // The gateway may have answered and closed before it has read all: its answer is there to be read.
        let _ = stream.write_all(&call.bytes);
        return receive(&mut stream, false, !is_head);
    }
    let mut secure = secured(stream, &host)?;
    if secure.write_all(&call.bytes).is_err() {
        return Ok(None);
    }
    receive(&mut secure, false, !is_head)
}

/// The host and port that the URL says.
fn server_of(call: &Call) -> (String, u16) {
    let default = if call.ask.https { 443 } else { 80 };
    let authority = call.authority.as_deref().unwrap_or("localhost");
    match authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host.to_owned(), port),
        None => (authority.to_owned(), default),
    }
}

fn secured(stream: TcpStream, host: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

/// Receives one message; `None`: there was none. Interim answers are passed over.
///
/// # Errors
/// What keeps it from being one.
pub(super) fn receive(
    stream: &mut (impl Read + Write),
    is_request: bool,
    has_body: bool,
) -> io::Result<Option<Message>> {
    let mut received = Vec::new();
    loop {
        let Some(end) = receive_head(stream, &mut received)? else { return Ok(None) };
        let head: Vec<u8> = received.drain(..end).collect();
        let mut message = parse(&head, is_request)?;
        if message.status / 100 == 1 && message.status != 101 {
            continue;
        }
        if is_request && message.says("expect", "100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if has_body && !matches!(message.status, 101 | 204 | 304) {
            message.body = receive_body(stream, received, &message, is_request)?;
        }
        return Ok(Some(message));
    }
}

fn receive_head(stream: &mut impl Read, received: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = memchr::memmem::find(received, b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if more(stream, received)? == 0 {
            return if received.is_empty() { Ok(None) } else { Err(broken("it ends in its head")) };
        }
    }
}

fn receive_body(
    stream: &mut impl Read,
    mut received: Vec<u8>,
    message: &Message,
    is_request: bool,
) -> io::Result<Vec<u8>> {
    if message.says("transfer-encoding", "chunked") {
        let (mut decoder, mut body) = (Decoder::default(), Vec::new());
        loop {
            let step = decoder.decode(&mut received).map_err(|_| broken("its chunks are none"))?;
            body.extend_from_slice(&received[..step.data]);
            received.drain(..step.consumed);
            if step.done {
                return Ok(body);
            }
            if more(stream, &mut received)? == 0 {
                return Err(broken("it is cut off"));
            }
        }
    }
    let length = message.header("content-length");
    let length = length.and_then(|value| String::from_utf8_lossy(&value).parse::<usize>().ok());
    let until_close = length.is_none() && !is_request;
    let length = length.unwrap_or(if until_close { usize::MAX } else { 0 });
    while received.len() < length {
        match more(stream, &mut received) {
            Ok(0) if until_close => break,
            Ok(0) => return Err(broken("it is cut off")),
            // One that closes TLS without a word cuts it off, too.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !until_close => {
                return Err(broken("it is cut off"));
            }
            Err(error) => return Err(error),
        }
    }
    received.truncate(length);
    Ok(received)
}

/// Reads on; how many bytes there were.
fn more(stream: &mut impl Read, received: &mut Vec<u8>) -> io::Result<usize> {
    if received.len() > MESSAGE_BYTES_MAX {
        return Err(broken("it is too large"));
    }
    let mut piece = [0; 16 * 1024];
    let count = stream.read(&mut piece)?;
    received.extend_from_slice(&piece[..count]);
    Ok(count)
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn parse(head: &[u8], is_request: bool) -> io::Result<Message> {
    let mut room = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut message = Message::default();
    let headers = if is_request {
        let mut request = httparse::Request::new(&mut room);
        request.parse(head).map_err(io::Error::other)?;
        message.method = request.method.unwrap_or_default().to_owned();
        message.uri = request.path.unwrap_or_default().to_owned();
        request.headers
    } else {
        let mut answer = httparse::Response::new(&mut room);
        answer.parse(head).map_err(io::Error::other)?;
        message.status = answer.code.unwrap_or_default();
        answer.headers
    };
    message.headers = headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
    Ok(message)
}
