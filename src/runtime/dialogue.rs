//! Asking a server beside the road: connecting to it, in clear or over TLS, and waits that end when whoever asks has lost
//! patience.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::{DnsName, ServerName};

use super::Core;
use super::connect::dial;
use super::deadline::Watch;
use super::socket::Socket;
use super::tls::Session;
use crate::base::clock::Moment;

/// How TLS is spoken with a server.
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

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    Late,
    Unreachable(io::ErrorKind),
    /// There is no agreement on TLS.
    Insecure(String),
}

/// Connects, and agrees on TLS where that is spoken: with who is called `name`, or by the address where that is no name.
/// Nothing is lost with a connection that nobody waits for any more.
pub(super) async fn open(
    core: &Core,
    address: SocketAddr,
    (tls, name): (Option<&Tls>, &str),
    end: Moment,
) -> Result<Socket, Unopened> {
    let dialled = dial(core, address.into(), end.since(core.now())).await;
    let mut socket = dialled.map_err(|error| Unopened::Unreachable(error.kind()))?;
    let Some(tls) = tls else { return Ok(socket) };
    let name = name_of(name).unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    let session = Session::client(Arc::clone(&tls.config), name, &core.tls_buffers)
        .map_err(|fault| Unopened::Insecure(fault.to_string()))?;
    let watch = Rc::clone(socket.watch());
    let sleep = pin!(core.sleep(end.since(core.now())));
    let mut alarm = Alarm::new(end, sleep);
    let shaking = socket.shake(session, Vec::new(), &core.tls_buffers, &core.turnstile);
    match until(&watch, &mut alarm, shaking).await {
        Ok(_) => Ok(socket),
        Err(_) if watch.fired() => Err(Unopened::Late),
        Err(error) => Err(Unopened::Insecure(error.to_string())),
    }
}

fn name_of(name: &str) -> Option<ServerName<'static>> {
    match name.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::IpAddress(address.into())),
        Err(_) => DnsName::try_from(name.to_owned()).ok().map(ServerName::DnsName),
    }
}

/// The end of somebody's patience.
pub(super) struct Alarm<'a, T> {
    pub(super) until: Moment,
    sleep: Pin<&'a mut T>,
    rung: bool,
}

impl<'a, T: Future<Output = ()>> Alarm<'a, T> {
    pub(super) const fn new(until: Moment, sleep: Pin<&'a mut T>) -> Self {
        Self { until, sleep, rung: false }
    }

    pub(super) fn rings(&mut self, cx: &mut Context<'_>) -> bool {
        self.rung = self.rung || self.sleep.as_mut().poll(cx).is_ready();
        self.rung
    }
}

/// Waits for something done on a socket, and shuts it down when the time is over: whatever it is ends then, and a buffer
/// that the kernel has comes back.
pub(super) async fn until<T: Future<Output = ()>, W: Future>(
    watch: &Watch,
    alarm: &mut Alarm<'_, T>,
    work: W,
) -> W::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if !watch.fired() && alarm.rings(cx) {
            watch.expire();
            return work.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}
