//! The request that is explained, really sent: to the gateway's first listener, from here.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{FAILED, Told};
use crate::snapshot::explain::Ask;

/// How long an answer may be awaited: longer than an upstream may take by default.
const PATIENCE: Duration = Duration::from_secs(70);
/// So much of an answer is read: its head, and what tells our own answers from others.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// The answer of a gateway without a route for the request.
const NO_ROUTE: &str = "{\"error_msg\":\"404 Route Not Found\"}";

/// Sends it; the status, and the route as far as the answer tells it.
pub(super) fn send(ask: &Ask, listeners: &Value) -> Result<Value, Told> {
    let addresses = listeners.as_array().into_iter().flatten().filter_map(Value::as_str);
    let Some(address) = addresses.filter_map(|text| text.parse::<SocketAddr>().ok()).next() else {
        let text = "the gateway does not say where it listens: nothing was sent\n".to_owned();
        return Err(Told { code: FAILED, text });
    };
    let to = reachable(address);
    let answer = exchange(ask, to).map_err(|error| Told {
        code: FAILED,
        text: format!("{to}: {error}; the request may have been sent\n"),
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let Some(status) = status else {
        return Err(Told { code: FAILED, text: format!("{to}: closed without an answer\n") });
    };
    let route = if status == 404 && answer.contains(NO_ROUTE) {
        "none: no route was found"
    } else {
        "the answer does not tell; the access log does (route_id)"
    };
    Ok(json!({"to": to.to_string(), "status": status, "route": route}))
}

/// Where an address that stands for all of the machine's is met.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

fn exchange(ask: &Ask, to: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&ask.head())?;
    let mut answer = Vec::new();
    // The connection is kept by the gateway: what has come when its answer is whole, or when enough has, is taken.
    let mut stream = stream.take(ANSWER_BYTES_MAX);
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..count]);
        if count == 0 || is_enough(&answer) {
            return Ok(answer);
        }
    }
}

/// Whether the head of a final answer is there, and of a short body all.
fn is_enough(answer: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_none_or(|length| answer.len() >= end + 4 + length.min(NO_ROUTE.len()))
}
