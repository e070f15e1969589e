//! Dialling a node within a deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::net::TcpStream;

use super::Core;
use super::socket::Socket;

/// Where to dial in a node's place; an error is what dialling it comes to.
pub struct Detour(Box<dyn Fn(SocketAddr) -> io::Result<SocketAddr> + Send>);

impl Detour {
    pub fn new(ask: impl Fn(SocketAddr) -> io::Result<SocketAddr> + Send + 'static) -> Self {
        Self(Box::new(ask))
    }
}

impl fmt::Debug for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detour")
    }
}

/// Connects to a node. A connect that takes too long is given up; nothing is lost with it.
///
/// # Errors
/// `TimedOut` when the time is over, or what the system says.
pub async fn dial(core: &Core, node: SocketAddr, within: Duration) -> io::Result<Socket> {
    let node = match &core.detour {
        None => node,
        Some(detour) => (detour.0)(node)?,
    };
    let stream = monoio::time::timeout(within, TcpStream::connect_addr(node))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A head and its body are one send; waiting for more would only add latency.
    stream.set_nodelay(true)?;
    Ok(Socket::new(stream, &core.wheel))
}
