//! Connecting to a Redis, in clear or over TLS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::{DnsName, ServerName};

use super::Failure;
use super::line::{Alarm, until};
use crate::base::clock::Moment;
use crate::runtime::Core;
use crate::runtime::connect::dial;
use crate::runtime::socket::Socket;
use crate::runtime::tls::Session;

/// How TLS is spoken with a Redis.
#[derive(Clone)]
pub struct Tls {
    /// The same as long as `config` says the same.
    pub id: u64,
    pub config: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Connects, and agrees on TLS where that is spoken: with who is called `name`, or by the address where that is no name.
/// Nothing is lost with a connection that nobody waits for any more.
pub(super) async fn open(
    core: &Core,
    address: SocketAddr,
    (tls, name): (Option<&Tls>, &str),
    end: Moment,
) -> Result<Socket, Failure> {
    let dialled = dial(core, address.into(), end.since(core.now())).await;
    let mut socket = dialled.map_err(|error| Failure::Unreachable(error.kind()))?;
    let Some(tls) = tls else { return Ok(socket) };
    let name = name_of(name).unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let session = Session::client(Arc::clone(&tls.config), name, &core.tls_buffers)
        .map_err(|fault| Failure::Insecure(fault.to_string()))?;
    let watch = Rc::clone(socket.watch());
    let sleep = pin!(core.sleep(end.since(core.now())));
    let mut alarm = Alarm::new(end, sleep);
    let shaking = socket.shake(session, Vec::new(), &core.tls_buffers, &core.turnstile);
    match until(&watch, &mut alarm, shaking).await {
        Ok(_) => Ok(socket),
        Err(_) if watch.fired() => Err(Failure::Late),
        Err(error) => Err(Failure::Insecure(error.to_string())),
    }
}

fn name_of(name: &str) -> Option<ServerName<'static>> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::IpAddress(address.into())),
        Err(_) => DnsName::try_from(name.to_owned()).ok().map(ServerName::DnsName),
    }
}
