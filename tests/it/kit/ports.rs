//! Which core a connection comes to. The kernel chooses among the cores' listeners by both addresses, so a client that comes
//! from the same port comes to the same core.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Gateway, eventually};

/// Connects from a port of ours. It is closed by a reset, so that the port is free again at once.
pub(crate) fn connect_from(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Connections that are open on each core.
pub(crate) fn connections(gateway: &Gateway, cores: usize) -> Vec<f64> {
    let of = |core| format!("ringway_connections{{core=\"{core}\",state=\"active\"}}");
    (0..cores).map(|core| gateway.metric(&of(core)).expect("connections of each core are told")).collect()
}

/// By core, so many ports whose connections come to it. Nobody else may be connected meanwhile.
#[track_caller]
pub(crate) fn ports_of_cores(gateway: &Gateway, cores: usize, each: usize) -> Vec<Vec<u16>> {
    // Below what the system gives to others, and elsewhere for each process.
    let first = 12_000 + (gateway.pid() % 97) as u16 * 100;
    let mut found = vec![Vec::new(); cores];
    for port in first..first + 100 {
        if found.iter().all(|ports| ports.len() == each) {
            return found;
        }
        let Ok(stream) = connect_from(port, gateway.address()) else { continue };
        let core = eventually("the connection is counted", || {
            connections(gateway, cores).iter().position(|count| *count == 1.0)
        });
        drop(stream);
        eventually("the connection is gone", || {
            connections(gateway, cores).iter().all(|count| *count == 0.0).then_some(())
        });
        if found[core].len() < each {
            found[core].push(port);
        }
    }
    panic!("too few of the ports come to one of the cores: {found:?}");
}

/// A port that nobody listens on, nor will while this lives: connections to it are refused.
pub(crate) struct Refusing(Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// From here on somebody listens there.
    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(128).unwrap();
        self.0.into()
    }
}
