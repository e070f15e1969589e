//! HTTP on a port of the control thread, within bounds: so many connections, so long for a head and between two, and over TLS
//! so long for a handshake. Whoever reaches such a port takes nothing from those who are served by the cores.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::dial::words;
use super::log;
use super::secured::Identity;
use crate::base::cidr::CidrSet;
use crate::base::clock::{self, Moment};

/// Connections of a port; beyond, who comes waits at the door.
const CONNECTIONS_MAX: usize = 512;
/// How long a head may take, from the answer before it on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long both sides may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted, as there are too many.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines of the log about that.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// By what a port speaks TLS, and with whom.
pub(super) struct Secured {
    pub(super) identity: Identity,
    /// Others are not greeted; nobody is named: all are.
    pub(super) allow: CidrSet,
}

/// Serves a router from here to the end of the runtime, where there is a port for it.
pub(super) fn serve(
    name: &'static str,
    port: Option<std::net::TcpListener>,
    router: Router,
    secured: Option<Secured>,
) -> io::Result<Option<SocketAddr>> {
    let Some(port) = port else { return Ok(None) };
    let listener = TcpListener::from_std(port)?;
    let bound = listener.local_addr()?;
    tokio::spawn(accept(name, listener, router, secured));
    Ok(Some(bound))
}

async fn accept(name: &'static str, listener: TcpListener, router: Router, mut secured: Option<Secured>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut quiet_until = Moment::ZERO;
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((_, peer)) if secured.as_ref().is_some_and(|secured| !secured.greets(peer)) => {}
            Ok((stream, peer)) => {
                let tls = secured.as_mut().map(|secured| secured.identity.config());
                tokio::spawn(attend(name, stream, peer, router.clone(), tls, seat));
            }
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                let now = clock::now();
                if now >= quiet_until {
                    log::warn(format!("{name}.listen: {error}"));
                    quiet_until = now.plus(TELL_EVERY);
                }
                sleep(PAUSE).await;
            }
        }
    }
}

impl Secured {
    fn greets(&self, peer: SocketAddr) -> bool {
        self.allow.is_empty() || self.allow.contains(peer.ip().to_canonical())
    }
}

/// Whether it says something of one connection only.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection to its end.
async fn attend(
    name: &'static str,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    _seat: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let Some(config) = tls else { return speak(stream, peer, router).await };
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, peer, router).await,
        Ok(Err(error)) => log::debug(format!("{name}: {peer}: no TLS: {}", words(&error))),
        Err(_) => log::debug(format!("{name}: {peer}: no TLS within {HANDSHAKE_TIMEOUT:?}")),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, router: Router) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // That a client breaks off, or is no client of HTTP, is its own affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}
