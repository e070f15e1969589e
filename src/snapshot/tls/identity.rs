//! A certificate with its key, in the form TLS takes.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::base::hash::stable;
use crate::base::pem;

/// A certificate, those of its issuers, and its key.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The same for the same certificate and key.
    pub(super) id: u64,
    pub(super) key: Arc<CertifiedKey>,
}

impl Identity {
    /// From PEM that was found to be right.
    ///
    /// # Errors
    /// When TLS can not work with the key all the same; nothing of it is in the words.
    pub(crate) fn of(provider: &CryptoProvider, cert: &str, key: &str) -> Result<Self, String> {
        let chain = pem::read(cert)?.into_iter().map(|block| CertificateDer::from(block.der)).collect();
        let block = pem::read(key)?.into_iter().find(|block| block.label.ends_with("PRIVATE KEY"));
        let block = block.ok_or("expected a private key in PEM, found none")?;
        let der = match block.label.as_str() {
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(block.der.into()),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(block.der.into()),
            _ => PrivateKeyDer::Pkcs8(block.der.into()),
        };
        let secret = provider.key_provider.load_private_key(der).map_err(|error| error.to_string())?;
        let id = stable(format!("{cert}\0{key}").as_bytes());
        Ok(Self { id, key: Arc::new(CertifiedKey::new(chain, secret)) })
    }

    /// With what an authority says of it, to be sent along.
    pub(super) fn stapled(self, answer: Option<&[u8]>) -> Self {
        let Some(answer) = answer else { return self };
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(answer.to_vec());
        Self { key: Arc::new(key), ..self }
    }
}
