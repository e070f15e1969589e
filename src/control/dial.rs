//! Connections of the control thread: to services such as etcd and Vault, and to nodes that are checked. In clear, or
//! over TLS.
//!
//! Certificates are read from their files when a connection is made and they have changed since, so that those which
//! are renewed need no restart.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::base::address::Address;
use crate::model::settings::{EtcdSettings, Settings, Trusted, TrustedCertificates};
use crate::snapshot::{Anyone, ReadRoots};

/// A connection, whatever carries it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections, those over TLS all by the same rules.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    trusted: Vec<Trusted>,
    /// Our certificate and its key, for who asks.
    identity: Option<(PathBuf, PathBuf)>,
    is_verified: bool,
    /// The name that the other side's certificate must have, where that is not the one it is dialled by.
    name: Option<String>,
    /// What is spoken over TLS; empty: nothing is said of it.
    protocol: &'static [u8],
    /// What TLS goes by, and when its files were written.
    config: Option<(Vec<Option<SystemTime>>, Arc<ClientConfig>)>,
}

impl Dialer {
    /// For services that know us by a word of ours, such as Vault by its token.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            trusted: settings.ssl.trusted_certificate.list().to_vec(),
            identity: None,
            is_verified: true,
            name: None,
            protocol: b"http/1.1",
            config: None,
        }
    }

    /// The same, believing others than the settings say, if any are given.
    pub(crate) fn believing(settings: &Settings, trusted: Option<&TrustedCertificates>) -> Self {
        let own = Self::new(settings);
        match trusted {
            Some(trusted) => Self { trusted: trusted.list().to_vec(), ..own },
            None => own,
        }
    }

    /// The same, for those with whom HTTP/2 is spoken.
    pub(crate) fn speaking_http2(self) -> Self {
        Self { protocol: b"h2", config: None, ..self }
    }

    /// The same, where nothing is said of what follows over TLS.
    pub(crate) fn saying_nothing(self) -> Self {
        Self { protocol: b"", config: None, ..self }
    }

    /// The same, where the certificate of the other side is checked, or not.
    pub(crate) fn verifying(self, is_verified: bool) -> Self {
        Self { is_verified, config: None, ..self }
    }

    /// For the members of an etcd.
    pub(crate) fn to_etcd(settings: &Settings, etcd: &EtcdSettings) -> Self {
        let tls = &etcd.tls;
        Self {
            identity: tls.cert.clone().zip(tls.key.clone()),
            is_verified: tls.verify,
            name: tls.sni.clone(),
            ..Self::new(settings)
        }
    }

    /// A connection to a node at an address; over TLS if a name is given, which its certificate must have if that is
    /// verified.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub(crate) async fn dial_node(
        &mut self,
        node: Address,
        name: Option<&str>,
        is_verified: bool,
    ) -> io::Result<Box<dyn Stream>> {
        if self.is_verified != is_verified {
            (self.is_verified, self.config) = (is_verified, None);
        }
        self.name = name.map(str::to_owned);
        let path = match node {
            Address::Ip(node) => {
                return self.dial(&node.ip().to_string(), node.port(), name.is_some()).await;
            }
            Address::Unix(path) => path.path(),
        };
        let config = if name.is_some() { Some(self.config()?) } else { None };
        let stream = UnixStream::connect(path).await?;
        self.secure(stream, config, path).await
    }

    /// A connection to a host by name or address, without brackets.
    ///
    /// # Errors
    /// When there is none, when the other side is not who it should be, or when a file with certificates can not be used;
    /// the message names it.
    pub(crate) async fn dial(&mut self, host: &str, port: u16, is_tls: bool) -> io::Result<Box<dyn Stream>> {
        let config = if is_tls { Some(self.config()?) } else { None };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.secure(stream, config, host).await
    }

    /// What is said over a connection is said in clear, or over TLS where that is configured.
    async fn secure(
        &self,
        stream: impl Stream + 'static,
        config: Option<Arc<ClientConfig>>,
        host: &str,
    ) -> io::Result<Box<dyn Stream>> {
        let Some(config) = config else { return Ok(Box::new(stream)) };
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        stream.map(|stream| Box::new(stream) as _).map_err(|error| io::Error::other(format!("TLS: {error}")))
    }

    /// What TLS goes by, from the files as they are now.
    ///
    /// # Errors
    /// When one of them can not be used; the message names it.
    pub(crate) fn config(&mut self) -> io::Result<Arc<ClientConfig>> {
        let written = self.written();
        if let Some((at, config)) = &self.config
            && *at == written
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.read()?);
        self.config = Some((written, Arc::clone(&config)));
        Ok(config)
    }

    /// When each of the files was written, where it is there.
    fn written(&self) -> Vec<Option<SystemTime>> {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        let trusted = self.trusted.iter().filter_map(|trusted| match trusted {
            Trusted::System => None,
            Trusted::File(path) => Some(path),
        });
        written_at(identity.chain(trusted))
    }

    fn read(&self) -> io::Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = if self.is_verified {
            builder.with_root_certificates(self.roots()?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        };
        let mut config = match &self.identity {
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| named(key, error))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| named(key, error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            Some(self.protocol.to_vec()).filter(|protocol| !protocol.is_empty()).into_iter().collect();
        Ok(config)
    }

    fn roots(&self) -> io::Result<RootCertStore> {
        roots(&self.trusted)
    }
}

/// Reads the certificates of those who vouch for nodes, by these settings.
pub fn roots_of_nodes(settings: &Settings) -> ReadRoots {
    let trusted = settings.ssl.trusted_certificate.list().to_vec();
    Box::new(move || roots(&trusted).map_err(|error| error.to_string()))
}

/// Least and most bytes of a secret of tickets.
const TICKET_KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// The secrets of tickets that gateways of a fleet share.
///
/// # Errors
/// When one can not be read, or is too short to be one; the message names it.
pub fn ticket_keys(settings: &Settings) -> io::Result<Vec<Vec<u8>>> {
    let read = |path: &std::path::PathBuf| {
        let named = |why: String| io::Error::other(format!("ssl.ticket_keys: {}: {why}", path.display()));
        let key = fs::read(path).map_err(|error| named(error.to_string()))?;
        let (least, most) = (TICKET_KEY_BYTES.start(), TICKET_KEY_BYTES.end());
        if !TICKET_KEY_BYTES.contains(&key.len()) {
            return Err(named(format!("expected {least} to {most} bytes of chance, got {}", key.len())));
        }
        Ok(key)
    };
    settings.ssl.ticket_keys.iter().map(read).collect()
}

/// Those who vouch for others.
fn roots(all: &[Trusted]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for trusted in all {
        match trusted {
            Trusted::System => {
                // Systems carry certificates that nobody can use; the others count.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Trusted::File(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| named(path, error))?;
                }
            }
        }
    }
    if roots.is_empty() {
        let why = "ssl.trusted_certificate: this system has no certificates that others are known by; name a file of them";
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    Ok(roots)
}

/// An error with what is behind it: that a peer refused our certificate is known to the innermost only.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        behind = error.source();
    }
    words
}

/// When each of these files was written, where it is there.
pub(super) fn written_at<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<Option<SystemTime>> {
    paths.map(|path| fs::metadata(path).and_then(|known| known.modified()).ok()).collect()
}

/// All certificates of a file in PEM, of which there must be one.
pub(super) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|error| named(path, error))?;
    if all.is_empty() { Err(named(path, "expected certificates in PEM, got none")) } else { Ok(all) }
}

pub(super) fn named(path: &Path, error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}
