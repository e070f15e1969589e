//! By what a port of the control thread speaks TLS: files, as `admin.tls` names them.
//!
//! They are read again when they change, so that certificates which are renewed need no restart. Files that can not be used
//! leave what was read before, and are tried again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::dial::{certificates, named, written_at};
use super::log;
use crate::base::clock::{self, Moment};
use crate::model::settings::AdminTls;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What TLS goes by, from files.
pub(super) struct Identity {
    files: AdminTls,
    /// When the files were written that were read last, and what they said.
    written: Vec<Option<SystemTime>>,
    config: Arc<ServerConfig>,
    looked: Moment,
    /// What was wrong with them then: it is told once.
    fault: Option<String>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// When one of them can not be used; the message names it.
    pub(super) fn open(files: &AdminTls) -> io::Result<Self> {
        let written = written_at(paths(files));
        let config = Arc::new(read(files)?);
        Ok(Self { files: files.clone(), written, config, looked: clock::now(), fault: None })
    }

    /// As the files say now, or as they said when they could be used last.
    pub(super) fn config(&mut self) -> Arc<ServerConfig> {
        let now = clock::now();
        if now.since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.look();
        }
        Arc::clone(&self.config)
    }

    fn look(&mut self) {
        let written = written_at(paths(&self.files));
        if self.written == written {
            return;
        }
        match read(&self.files) {
            Ok(config) => {
                log::info("admin.tls: its files have changed, and are in use");
                self.config = Arc::new(config);
                self.fault = None;
                self.written = written;
            }
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    log::error(format!("admin.tls: {fault}; what was read before stays"));
                }
                self.fault = Some(fault);
            }
        }
    }
}

/// What is wrong with the files, which the message names; nothing, if they can be used.
pub(crate) fn fault_of(files: &AdminTls) -> Option<String> {
    read(files).err().map(|error| error.to_string())
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
