//! Dialling a node within a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::net::TcpStream;

use super::deadline::Wheel;
use super::socket::Socket;

/// Connects to a node. A connect that takes too long is given up; nothing is lost with it.
///
/// # Errors
/// `TimedOut` when the time is over, or what the system says.
pub async fn dial(node: SocketAddr, within: Duration, wheel: &Wheel) -> io::Result<Socket> {
    let stream = monoio::time::timeout(within, TcpStream::connect_addr(node))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A head and its body are one send; waiting for more would only add latency.
    stream.set_nodelay(true)?;
    Ok(Socket::new(stream, wheel))
}
