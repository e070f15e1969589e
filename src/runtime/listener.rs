//! Listening sockets: one a core and address, all open before the first accepts.
//!
//! Options are set on the listener and inherited by what it accepts, which saves several calls a connection.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, TcpKeepalive, Type};

use super::deadline::Wheel;
use super::socket::Socket;
use super::sys;
use crate::base::address::{Address, NO_ADDRESS, UnixPath};
use crate::link::handover::Spoken;

/// Connections the kernel may queue for a core that is busy.
pub const BACKLOG: i32 = 4096;
/// A peer that is silent for so long is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;

/// Opens one listening socket for each core. With port 0 the first one picks, the others follow.
///
/// # Errors
/// Names the address that can not be had.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    let mut at = address;
    (0..cores)
        .map(|_| {
            let listener = open(at)
                .map_err(|error| io::Error::new(error.kind(), format!("can not listen on {at}: {error}")))?;
            at = listener.local_addr()?;
            Ok(listener)
        })
        .collect()
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_TRIES),
    )?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that no core has begun to serve.
pub struct Accepted(monoio::net::TcpStream);

impl Accepted {
    /// To be served here.
    pub fn keep(self, wheel: &Wheel) -> Socket {
        Socket::new(self.0, wheel)
    }

    /// Our end of it: where the listener is for all addresses, the one that was called. Not for what came by a Unix socket.
    ///
    /// # Errors
    /// When it is no longer connected.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// To be served by another core.
    pub fn leave(self) -> TcpStream {
        sys::stream_out_of(self.0)
    }

    /// From another core.
    ///
    /// # Errors
    /// When the loop has no room for it.
    pub fn take(stream: TcpStream) -> io::Result<Self> {
        monoio::net::TcpStream::from_std(stream).map(Self)
    }
}

/// An open listening socket, before its core has it.
#[derive(Debug)]
pub struct Open {
    pub listener: Bound,
    pub spoken: Spoken,
}

/// What it is bound to.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, UnixPath),
}

/// The loop's own.
enum Inner {
    Tcp(monoio::net::TcpListener),
    Unix(monoio::net::UnixListener),
}

/// A listening socket on its core.
pub struct Listener {
    inner: Inner,
    local: SocketAddr,
    name: Address,
    spoken: Spoken,
}

impl Listener {
    /// Takes over an open socket; on the core's thread, within its loop.
    ///
    /// # Errors
    /// When the loop has no room for it.
    pub fn new(Open { listener, spoken }: Open, nonblocking: bool) -> io::Result<Self> {
        match listener {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(nonblocking)?;
                let local = listener.local_addr()?;
                let inner = Inner::Tcp(monoio::net::TcpListener::from_std(listener)?);
                Ok(Self { inner, local, name: local.into(), spoken })
            }
            Bound::Unix(listener, path) => {
                listener.set_nonblocking(nonblocking)?;
                let inner = Inner::Unix(monoio::net::UnixListener::from_std(listener)?);
                Ok(Self { inner, local: NO_ADDRESS, name: Address::Unix(path), spoken })
            }
        }
    }

    /// Where it listens, for those who read of it.
    pub const fn name(&self) -> Address {
        self.name
    }

    /// The address it listens on; [`NO_ADDRESS`] where it has none.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// What comes before HTTP on its connections.
    pub const fn spoken(&self) -> Spoken {
        self.spoken
    }

    /// The next connection and its peer. Never dropped while it waits: see [`Self::close`].
    ///
    /// # Errors
    /// `EMFILE` and the like; `InvalidInput` once closed.
    pub async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        match &self.inner {
            Inner::Tcp(inner) => {
                let (stream, peer) = inner.accept().await?;
                Ok((Accepted(stream), peer))
            }
            Inner::Unix(inner) => {
                let (stream, _) = inner.accept().await?;
                Accepted::take(sys::stream_of_unix(stream)).map(|accepted| (accepted, NO_ADDRESS))
            }
        }
    }

    /// Stops listening: every waiting accept ends with an error. A cancelled accept could leak what it has just
    /// accepted, so the socket is shut down instead.
    pub fn close(&self) {
        match &self.inner {
            Inner::Tcp(inner) => sys::shutdown_both(inner.as_raw_fd()),
            // It is every core's, and they close together.
            Inner::Unix(inner) => sys::shutdown_both(inner.as_raw_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_share_the_port_the_first_one_got() {
        let listeners = bind("127.0.0.1:0".parse().expect("an address"), 3).expect("a port");
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
        assert_eq!(listeners.len(), 3);
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0), "{ports:?}");
    }

    #[test]
    fn an_address_that_can_not_be_had_is_named() {
        let error = bind("203.0.113.1:80".parse().expect("an address"), 1).expect_err("not ours");
        assert!(error.to_string().starts_with("can not listen on 203.0.113.1:80: "), "{error}");
    }
}
