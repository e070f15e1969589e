//! TLS as a client and as an origin of a test speak it: rustls, from files that openssl made.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::certs::Certs;
use super::client::{Client, Raw};
use super::wire::Wire;

/// Pieces as large as can be.
const WHOLE: usize = usize::MAX;

/// A client to be.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) config: Arc<ClientConfig>,
    piece: usize,
}

impl Caller {
    /// Believes the authority of that name; shows the certificate of `own`, if it is to show one.
    pub(crate) fn new(certs: &Certs, authority: &str, own: Option<&str>) -> Self {
        Self::speaking(certs, authority, own, rustls::ALL_VERSIONS)
    }

    pub(crate) fn speaking(
        certs: &Certs,
        authority: &str,
        own: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&certs.path(&format!("{authority}.crt"))) {
            roots.add(certificate).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(chain(&certs.path(&format!("{own}.crt"))), key(certs, own))
                .unwrap(),
        };
        Self { config: Arc::new(config), piece: WHOLE }
    }

    /// Sends in pieces of so many bytes.
    pub(crate) fn cutting(mut self, piece: usize) -> Self {
        self.piece = piece;
        self
    }

    /// A connection to `name` at an address; nothing is said yet.
    pub(crate) fn call(&self, to: SocketAddr, name: &str) -> Raw {
        self.call_over(Raw::connect(to), name)
    }

    /// The same over a connection that is there.
    pub(crate) fn call_over(&self, mut raw: Raw, name: &str) -> Raw {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        raw.wire = raw.wire.secured(session, self.piece);
        raw
    }

    /// A connection for one request after the other.
    pub(crate) fn client(&self, to: SocketAddr, name: &str) -> Client {
        Client { raw: self.call(to, name) }
    }
}

/// Has an origin speak TLS as `own`, asking its clients for a certificate of `authority` if one is given.
pub(crate) fn as_node(
    certs: &Certs,
    own: &str,
    authority: Option<&str>,
) -> impl Fn(Wire) -> Wire + Send + 'static {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(chain(&certs.path(&format!("{authority}.crt"))).remove(0)).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config =
        builder.with_single_cert(chain(&certs.path(&format!("{own}.crt"))), key(certs, own)).unwrap();
    let config = Arc::new(config);
    move |wire| wire.secured(ServerConnection::new(Arc::clone(&config)).unwrap(), WHOLE)
}

/// How a server speaks TLS as `own`.
pub(crate) fn server_config(certs: &Certs, own: &str) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(&certs.path(&format!("{own}.crt"))), key(certs, own))
        .unwrap()
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn key(certs: &Certs, name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(certs.path(name)).unwrap()
}
