//! `acme`: authorities that issue certificates by themselves (RFC 8555), and how they are asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrustedCertificates;
use crate::model::ConfigError;
use crate::model::field::{InRange, NonEmpty, Seconds, Secret, ShortText, Text};

/// A third of its life is left: what authorities of ninety days recommend.
const RENEW_BEFORE_PERCENT: i64 = 33;
/// A failure is seldom over sooner, and authorities count them.
const RETRY_SECONDS: u64 = 60;
/// Name servers that are told by a program may need a while.
const HOOK_SECONDS: u64 = 120;

/// An authority that certificates are had from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeIssuer {
    /// The name by which an ssl asks for it.
    pub name: Text<1, 64>,
    /// Where its directory is: an `https://` URL.
    pub directory: Text<1, 2048>,
    /// The address at which people are told of trouble with certificates.
    pub email: Option<ShortText>,
    /// Are the authority's terms of service agreed to? It issues nothing otherwise.
    #[serde(default)]
    pub terms_agreed: bool,
    /// The account with the authority that this one is bound to, where it asks for that.
    pub external_account: Option<ExternalAccount>,
    /// Who vouches for the directory's own certificate, as in `ssl.trusted_certificate`. Absent: as there.
    pub trusted_certificate: Option<TrustedCertificates>,
    /// The kind of keys of certificates: `ecdsa` (P-256) or `rsa2048`.
    #[serde(default)]
    pub key_type: AcmeKeyType,
    /// How it is proven that a name is ours.
    #[serde(default)]
    pub challenge: AcmeChallenge,
    /// The program that publishes proofs in DNS, for `dns-01`.
    pub hook: Option<AcmeHook>,
    /// The share of its life, in percent, that a certificate has left when it is renewed; up to a tenth of that sooner, by
    /// chance.
    #[serde(default = "renew_before")]
    pub renew_before: InRange<1, 90>,
    /// Seconds from a failure to the next try; doubled with each, up to six hours.
    #[serde(default = "retry")]
    pub retry_interval: Seconds,
}

/// An account with an authority, made elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// The id of its key.
    pub id: ShortText,
    /// The key, in base64 as authorities show it.
    pub key: Secret,
}

/// The kind of keys of certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AcmeKeyType {
    /// On the curve P-256.
    #[default]
    Ecdsa,
    /// RSA of 2048 bits, for clients that know nothing else.
    Rsa2048,
}

/// How it is proven that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AcmeChallenge {
    /// By an answer on port 80 of the name.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a certificate on port 443 of the name.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a record in DNS; the only one for wildcards.
    #[serde(rename = "dns-01")]
    Dns01,
}

/// A program that publishes records.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeHook {
    /// The program and its first arguments; `add` or `remove`, the record's name and its value come behind. No shell is
    /// in between.
    pub command: NonEmpty<String>,
    /// Seconds it may take each time. It returns when the record can be seen.
    #[serde(default = "hook_timeout")]
    pub timeout: Seconds,
}

impl AcmeIssuer {
    /// Rules between its fields.
    pub(super) fn faults(issuers: &[Self]) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        for (at, issuer) in issuers.iter().enumerate() {
            let mut fault = |field: &str, problem: String| {
                faults.push(ConfigError::at(format!("acme[{at}].{field}"), problem));
            };
            let name = issuer.name.as_str();
            if issuers[..at].iter().any(|other| other.name == issuer.name) {
                fault("name", format!("expected a name of its own, got {name:?} again"));
            }
            if !issuer.directory.as_str().starts_with("https://") {
                fault("directory", format!("expected an https:// URL, got {:?}", issuer.directory.as_str()));
            }
            if !issuer.terms_agreed {
                fault(
                    "terms_agreed",
                    format!("expected true, as {name} issues nothing otherwise, got false"),
                );
            }
            let is_dns = issuer.challenge == AcmeChallenge::Dns01;
            if is_dns && issuer.hook.is_none() {
                fault("hook", "expected, as challenge is dns-01, got nothing".to_owned());
            }
            if !is_dns && issuer.hook.is_some() {
                fault("hook", "expected nothing, as only dns-01 has one".to_owned());
            }
        }
        faults
    }
}

fn renew_before() -> InRange<1, 90> {
    InRange::literal(RENEW_BEFORE_PERCENT)
}

fn retry() -> Seconds {
    Seconds::literal(RETRY_SECONDS)
}

fn hook_timeout() -> Seconds {
    Seconds::literal(HOOK_SECONDS)
}
