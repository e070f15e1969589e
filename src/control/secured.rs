//! A port of the control thread that speaks TLS: the Admin API's, by `admin.tls`.
//!
//! Certificates are read from their files again when these have changed, so that those which are renewed need no restart; files
//! that can not be used leave what was read before. Handshakes go on beside each other and are given up in time, so that one
//! who says nothing keeps nobody waiting.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::dial::{certificates, named, words, written_at};
use super::log;
use crate::model::settings::AdminTls;

/// Handshakes that are under way at once; beyond, who comes waits at the door.
const HANDSHAKES_MAX: usize = 64;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted, as there are too many.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection to a port of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Secured>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Secured>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// What TLS goes by, from files.
pub(super) struct Identity {
    files: AdminTls,
    /// When the files were written, and what they say.
    read: (Vec<Option<SystemTime>>, Arc<ServerConfig>),
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them can not be used; the message names it.
    pub(super) fn open(files: &AdminTls) -> io::Result<Self> {
        let written = written_at(paths(files));
        Ok(Self { read: (written, Arc::new(read(files)?)), files: files.clone() })
    }

    /// As the files say now, or as they said when they could be used last.
    fn config(&mut self) -> Arc<ServerConfig> {
        let written = written_at(paths(&self.files));
        if self.read.0 != written {
            match read(&self.files) {
                Ok(config) => {
                    log::info("admin.tls: its files have changed, and are in use");
                    self.read.1 = Arc::new(config);
                }
                Err(error) => log::error(format!("admin.tls: {error}; what was read before stays")),
            }
            // A fault is told once.
            self.read.0 = written;
        }
        Arc::clone(&self.read.1)
    }
}

fn paths(files: &AdminTls) -> impl Iterator<Item = &PathBuf> {
    [&files.cert, &files.key].into_iter().chain(&files.client_ca)
}

fn read(files: &AdminTls) -> io::Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| named(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| named(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let secret = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| named(&files.key, error))?;
    let mut config = builder
        .with_single_cert(certificates(&files.cert)?, secret)
        .map_err(|error| named(&files.key, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A port whose connections are served once both sides have agreed on TLS.
pub(super) struct Secured {
    agreed: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    bound: SocketAddr,
}

impl Secured {
    /// Accepts from here on; needs a tokio runtime.
    pub(super) fn over(listener: TcpListener, identity: Identity) -> io::Result<Self> {
        let bound = listener.local_addr()?;
        let (tell, agreed) = mpsc::channel(1);
        tokio::spawn(accept(listener, identity, tell));
        Ok(Self { agreed, bound })
    }
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.agreed.recv().await {
            Some(agreed) => agreed,
            // Only when the runtime ends.
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.bound)
    }
}

async fn accept(
    listener: TcpListener,
    mut identity: Identity,
    tell: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let seats = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let acceptor = TlsAcceptor::from(identity.config());
                tokio::spawn(agree(acceptor, stream, peer, seat, tell.clone()));
            }
            Err(error) => {
                log::warn(format!("admin.listen: {error}"));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn agree(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    seat: OwnedSemaphorePermit,
    tell: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let _ = stream.set_nodelay(true);
    let agreed = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    drop(seat);
    match agreed {
        Ok(Ok(stream)) => drop(tell.send((stream, peer)).await),
        Ok(Err(error)) => log::debug(format!("admin: {peer}: no TLS: {}", words(&error))),
        Err(_) => log::debug(format!("admin: {peer}: no TLS within {HANDSHAKE_TIMEOUT:?}")),
    }
}
