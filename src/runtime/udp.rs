//! Sockets for datagrams. The loop only tells when there is something to read; reading and writing are calls of their own,
//! which never wait. So a socket that waits holds no buffer, and nothing is queued outside of the kernel: what it does not
//! take at once is lost, as datagrams may be.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::deadline::{Watch, Wheel};
use super::sys;

/// A socket on its core. Dropping it closes it.
pub struct Datagrams {
    inner: monoio::net::udp::UdpSocket,
    local: SocketAddr,
    watch: Rc<Watch>,
}

/// Opens one socket for each core, which share the address. With port 0 the first one picks, the others follow.
///
/// # Errors
/// Names the address that can not be had.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<UdpSocket>> {
    let mut at = address;
    (0..cores)
        .map(|_| {
            let socket = open(at)
                .map_err(|error| io::Error::new(error.kind(), format!("can not receive on {at}: {error}")))?;
            at = socket.local_addr()?;
            Ok(socket)
        })
        .collect()
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl Datagrams {
    /// Takes over a socket; on the core's thread, within its loop.
    ///
    /// # Errors
    /// When the loop has no room for it.
    pub fn new(socket: UdpSocket, wheel: &Wheel) -> io::Result<Self> {
        // It is only ever asked for what is there.
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let inner = monoio::net::udp::UdpSocket::from_std(socket)?;
        let watch = wheel.watch(inner.as_raw_fd());
        Ok(Self { inner, local, watch })
    }

    /// A socket that exchanges datagrams with one node only.
    ///
    /// # Errors
    /// When there is no way to the node, or no room for a socket.
    pub fn to(node: SocketAddr, wheel: &Wheel) -> io::Result<Self> {
        let any = match node {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(node)?;
        Self::new(socket, wheel)
    }

    /// Where it receives.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The deadline over its waits.
    pub const fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// Waits until there is something to read, or the deadline has passed. To be awaited to its end.
    ///
    /// # Errors
    /// When the socket breaks.
    pub async fn readable(&self) -> io::Result<()> {
        self.inner.readable(false).await
    }

    /// The next datagram that is there, and whose it is. What does not fit the buffer is cut off.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        sys::datagrams_of(&self.inner).recv_from(buffer)
    }

    /// The next datagram that is there.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; `ConnectionRefused` when the node's machine says that nobody is there.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::datagrams_of(&self.inner).recv(buffer)
    }

    /// What went wrong and was not told yet.
    ///
    /// # Errors
    /// That.
    pub fn fault(&self) -> io::Result<()> {
        sys::datagrams_of(&self.inner).take_error()?.map_or(Ok(()), Err)
    }

    /// Sends a datagram to the one node.
    ///
    /// # Errors
    /// What the system says; it is not sent then.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sys::datagrams_of(&self.inner).send(bytes).map(drop)
    }

    /// Sends a datagram to somebody.
    ///
    /// # Errors
    /// What the system says; it is not sent then.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        sys::datagrams_of(&self.inner).send_to(bytes, to).map(drop)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // First the watch: from here on the descriptor's number may be somebody else's.
        self.watch.close();
    }
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("local", &self.local).finish_non_exhaustive()
    }
}
