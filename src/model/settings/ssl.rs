//! What TLS goes by: where it is spoken, and whose certificates are believed when the gateway is the client: the system's,
//! or those of a file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::listen::{Entrance, Listen, OptionalListeners};
use crate::model::field::{ShortText, Unique};
use crate::model::ssl::TlsVersion;

/// APISIX's port for it.
const HTTPS_PORT: u16 = 9443;

/// What TLS goes by.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SslSettings {
    /// Where requests come in over TLS, as in `listen`; an empty list: nowhere. Certificates are objects of kind ssl.
    pub listen: OptionalListeners,
    /// The versions that are spoken where an ssl does not say: `TLSv1.2`, `TLSv1.3`.
    pub protocols: Unique<TlsVersion, 1>,
    /// Are clients given tickets, with which their next connection begins sooner?
    pub session_tickets: bool,
    /// Is it fetched and sent along what authorities say of whether certificates were revoked (OCSP)?
    pub stapling: bool,
    /// Files of secrets that the gateways of a fleet share, so that each takes the tickets of the others: 32 bytes or more of
    /// chance each. The first seals, all open. Empty: keys are this process's own.
    pub ticket_keys: Vec<PathBuf>,
    /// The host that a client is taken to ask for which asks for none.
    pub fallback_sni: Option<ShortText>,
    /// Files of certificates, in PEM, of those who vouch for the services that the gateway itself asks (etcd, Vault) and for
    /// nodes of upstreams;
    /// `system` stands for what the system has of them. A list, or a text with commas.
    pub trusted_certificate: TrustedCertificates,
}

impl Default for SslSettings {
    fn default() -> Self {
        let spoken = vec![TlsVersion::V1_2, TlsVersion::V1_3];
        Self {
            listen: OptionalListeners::one(Entrance::Ip(Listen::everywhere(HTTPS_PORT))),
            protocols: Unique::new(spoken).unwrap_or_else(|| unreachable!("two different ones")),
            session_tickets: true,
            stapling: false,
            ticket_keys: Vec::new(),
            fallback_sni: None,
            trusted_certificate: TrustedCertificates::default(),
        }
    }
}

/// Those who vouch for others.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "Form")]
pub struct TrustedCertificates(Vec<Trusted>);

/// How they are written.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Form {
    Text(String),
    List(Vec<String>),
}

/// Somebody who vouches for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Whoever the system trusts.
    System,
    /// Whoever has a certificate in this file.
    File(PathBuf),
}

impl TrustedCertificates {
    pub fn list(&self) -> &[Trusted] {
        &self.0
    }
}

impl Default for TrustedCertificates {
    fn default() -> Self {
        Self(vec![Trusted::System])
    }
}

impl Serialize for TrustedCertificates {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_seq(self.0.iter().map(|trusted| match trusted {
            Trusted::System => "system".into(),
            Trusted::File(path) => path.to_string_lossy(),
        }))
    }
}

impl<'de> Deserialize<'de> for TrustedCertificates {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let words = match Form::deserialize(input)? {
            Form::Text(text) => text.split(',').map(str::to_owned).collect(),
            Form::List(list) => list,
        };
        let trusted = |word: &str| match word {
            "system" => Trusted::System,
            path => Trusted::File(PathBuf::from(path)),
        };
        let list: Vec<Trusted> =
            words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(trusted).collect();
        if list.is_empty() {
            return Err(serde::de::Error::custom("expected at least one path or `system`, got nothing"));
        }
        Ok(Self(list))
    }
}
