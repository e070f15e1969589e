//! Dialling a node within a deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use monoio::net::TcpStream;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use super::Core;
use super::socket::Socket;
use crate::base::address::{Address, UnixPath};

/// Where to dial in a node's place; an error is what dialling it comes to.
pub struct Detour(Box<dyn Fn(Address) -> io::Result<SocketAddr> + Send>);

impl Detour {
    pub fn new(ask: impl Fn(Address) -> io::Result<SocketAddr> + Send + 'static) -> Self {
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
pub async fn dial(core: &Core, node: Address, within: Duration) -> io::Result<Socket> {
    let node = match (&core.detour, node) {
        (Some(detour), node) => (detour.0)(node)?,
        (None, Address::Ip(node)) => node,
        (None, Address::Unix(path)) => return Ok(Socket::new(call(path)?, &core.wheel)),
    };
    let stream = monoio::time::timeout(within, TcpStream::connect_addr(node))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A head and its body are one send; waiting for more would only add latency.
    stream.set_nodelay(true)?;
    Ok(Socket::new(stream, &core.wheel))
}

/// Connects to a Unix socket, at once: who listens there has room in its queue, or the node counts as refusing.
fn call(path: UnixPath) -> io::Result<TcpStream> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path.path())?)?;
    socket.set_nonblocking(monoio::utils::is_legacy())?;
    // For the loop one stream is like another: it knows them by their number.
    TcpStream::from_std(OwnedFd::from(socket).into())
}
