//! One question to one name server: over UDP, and over TCP where the answer does not fit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Answer, Type};
use super::tally::Trouble;

/// An answer over UDP, without EDNS.
const DATAGRAM_MAX: usize = 4096;

/// Asks a server. What comes from elsewhere, or answers another question, is passed over: each question has a port and
/// a number of its own that others would have to guess.
pub(super) async fn ask(
    server: SocketAddr,
    name: &str,
    kind: Type,
    within: Duration,
) -> Result<Answer, Trouble> {
    let id = getrandom::u32().map_err(|error| Trouble::Unreachable(error.to_string()))? as u16;
    let question = message::question(id, name, kind).ok_or(Trouble::NoName)?;
    timeout(within, both(server, &question)).await.unwrap_or(Err(Trouble::Silence))
}

async fn both(server: SocketAddr, question: &[u8]) -> Result<Answer, Trouble> {
    let unreachable = |error: io::Error| Trouble::Unreachable(format!("{server}: {error}"));
    let answer = over_udp(server, question).await.map_err(unreachable)?;
    if answer.is_truncated {
        return over_tcp(server, question).await.map_err(unreachable)?.ok_or(Trouble::Nonsense);
    }
    Ok(answer)
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut bytes = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if let Some(answer) = message::answer(&bytes[..length], question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut bytes = (question.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(question);
    stream.write_all(&bytes).await?;
    // At most 65,535: the length is two bytes.
    bytes.resize(usize::from(stream.read_u16().await?), 0);
    stream.read_exact(&mut bytes).await?;
    Ok(message::answer(&bytes, question))
}
