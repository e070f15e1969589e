//! What is known of the TLS of a client's connection.

use std::cell::Cell;

/// What was agreed on, and who the client has shown to be.
#[derive(Debug, Default)]
pub struct Security {
    /// The host the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// Such as `TLSv1.3`.
    pub protocol: &'static str,
    /// By the name that openssl has for it.
    pub cipher: &'static str,
    pub certificate: Option<Box<ClientCertificate>>,
}

/// The certificate a client has shown. That it has the key of it is certain; the rest is what [`Self::verdict`] says.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Itself, then those of its issuers it brought along, in DER.
    pub chain: Box<[Box<[u8]>]>,
    /// Distinguished names as RFC 4514 writes them.
    pub subject: String,
    pub issuer: String,
    /// In hexadecimal digits, as is the SHA-1 of it.
    pub serial: String,
    pub fingerprint: String,
    /// Whether it is vouched for, and by which rules that was found.
    pub verdict: Cell<Verdict>,
}

/// What was found about a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The number of the rules it was looked at by; 0 for none.
    pub rules: u64,
    pub is_trusted: bool,
}

impl Security {
    /// `SUCCESS`, `FAILED` or `NONE`.
    pub fn client_verify(&self) -> &'static str {
        match &self.certificate {
            None => "NONE",
            Some(certificate) if certificate.verdict.get().is_trusted => "SUCCESS",
            Some(_) => "FAILED",
        }
    }
}
