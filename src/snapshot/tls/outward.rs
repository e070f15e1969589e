//! How nodes are spoken to over TLS: whom to believe, and who we are.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::identity::Identity;

/// Reads the certificates of those who vouch for nodes, or says why it can not.
pub type ReadRoots = Box<dyn Fn() -> Result<RootCertStore, String> + Send>;

/// How the nodes of an upstream are spoken to.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// The same as long as it says the same.
    pub id: u64,
    pub config: Arc<ClientConfig>,
}

/// Makes and remembers it.
pub(crate) struct Outward {
    provider: Arc<CryptoProvider>,
    read_roots: Option<ReadRoots>,
    roots: Option<Result<Arc<RootCertStore>, String>>,
    /// Where we show no certificate: by whether nodes are verified and what is said to be spoken.
    plain: [Option<NodeTls>; 8],
}

impl Outward {
    pub(crate) fn new() -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            read_roots: None,
            roots: None,
            plain: [const { None }; 8],
        }
    }

    /// Has those who vouch for nodes be read this way; without it, nobody does.
    pub(crate) fn read_roots(&mut self, read: ReadRoots) {
        self.read_roots = Some(read);
    }

    pub(crate) fn provider(&self) -> &CryptoProvider {
        &self.provider
    }

    /// How to speak to nodes that are verified or not, showing who we are if they ask. `spoken` is what may follow, by
    /// names of RFC 7301, the best first; none: nothing is said of it.
    ///
    /// # Errors
    /// When nobody is known who could vouch for them.
    pub(crate) fn for_nodes(
        &mut self,
        verify: bool,
        own: Option<&Identity>,
        spoken: &[&[u8]],
    ) -> Result<NodeTls, String> {
        let kind = match spoken {
            [] => 2,
            [b"h2"] => 1,
            [_] => 0,
            [_, ..] => 3,
        };
        let place = usize::from(verify) | kind << 1;
        if let (None, Some(made)) = (own, &self.plain[place]) {
            return Ok(made.clone());
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if verify {
            builder.with_root_certificates(self.roots()?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(Arc::clone(&self.provider))))
        };
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(Own(Arc::clone(&own.key)))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
        let id = own.map_or(1, |own| own.id | 2) << 3 | place as u64;
        let made = NodeTls { id, config: Arc::new(config) };
        if own.is_none() {
            self.plain[place] = Some(made.clone());
        }
        Ok(made)
    }

    fn roots(&mut self) -> Result<Arc<RootCertStore>, String> {
        let read = || match &self.read_roots {
            Some(read) => read().map(Arc::new),
            None => Err("nobody is known who vouches for nodes".to_owned()),
        };
        self.roots.get_or_insert_with(read).clone()
    }
}

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outward").finish_non_exhaustive()
    }
}

/// Our certificate, whoever asks.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate, as `verify: false` asks; that the other side has its key is still seen.
#[derive(Debug)]
pub struct Anyone(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
