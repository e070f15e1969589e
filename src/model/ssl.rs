//! An ssl: a certificate, its key, and for which names.

use serde::{Deserialize, Serialize};

use super::field::{HostPattern, InRange, NonEmpty, Secret, Text, Unique};
use super::{ConfigError, stored};

/// Most names in a certificate that is asked for: what authorities put into one.
const ACME_NAMES_MAX: usize = 100;

/// A certificate, or a reference to where it is kept.
pub type Certificate = Text<1, 65536>;

stored! {
    /// A certificate with its key, and the server names it is for.
    #[schemars(extend("not" = { "required": ["sni", "snis"] }))]
    pub struct Ssl {
        /// To whom it is shown.
        #[serde(default, rename = "type")]
        pub purpose: Purpose,
        /// The certificate in PEM: that of the key first, then its issuer's, and so on.
        pub cert: Option<Certificate>,
        /// The key of `cert` in PEM, without a passphrase: PKCS 8, PKCS 1 or SEC 1.
        pub key: Option<Secret>,
        /// From whom certificate and key are had, in place of `cert` and `key`.
        pub acme: Option<Acme>,
        /// Further certificates for the same names, of another kind of key.
        pub certs: Option<NonEmpty<Certificate>>,
        /// The keys of `certs`, in the same order.
        pub keys: Option<NonEmpty<Secret>>,
        /// The server name: `example.com`, or `*.example.com` for one label below it.
        pub sni: Option<HostPattern>,
        /// Several server names, in place of `sni`.
        pub snis: Option<Unique<HostPattern, 1>>,
        /// What is asked of a client's own certificate. Absent: clients need none.
        pub client: Option<ClientCertificates>,
        /// The versions of TLS. Absent: 1.2 and 1.3.
        pub ssl_protocols: Option<Unique<TlsVersion, 1>>,
        /// 1: in use; 0: kept only.
        #[serde(default = "in_use")]
        pub status: InRange<0, 1>,
        /// Until when the certificate holds, in seconds since 1970. Read from the certificate when it is shown.
        pub validity_end: Option<u64>,
        /// Since when the certificate holds, in seconds since 1970. Read from the certificate when it is shown.
        pub validity_start: Option<u64>,
    }
}

/// A certificate that the gateway has issued and renewed.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// The name of the authority, in `acme` of the settings.
    pub issuer: Text<1, 64>,
}

/// To whom a certificate is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To clients.
    #[default]
    Server,
    /// To upstreams.
    Client,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.1")]
    V1_1,
    #[serde(rename = "TLSv1.2")]
    V1_2,
    #[serde(rename = "TLSv1.3")]
    V1_3,
}

/// What is asked of a client's certificate.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// The certificates in PEM of those who may have signed it.
    pub ca: Certificate,
    /// Lists in PEM of what they have revoked.
    pub crl: Option<Text<1, 1048576>>,
    /// Most certificates between the client's and one of `ca`.
    #[serde(default = "one")]
    pub depth: u32,
    /// Paths for which none is needed, as regular expressions.
    pub skip_mtls_uri_regex: Option<Unique<String, 1>>,
}

impl Ssl {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.purpose == Purpose::Server && self.sni.is_none() && self.snis.is_none() {
            faults.push(ConfigError::new("expected exactly one of `sni` and `snis`"));
        }
        faults.extend(self.source_faults());
        let count = |list: Option<usize>| list.unwrap_or(0);
        let (certs, keys) =
            (count(self.certs.as_deref().map(<[_]>::len)), count(self.keys.as_deref().map(<[_]>::len)));
        if certs != keys {
            faults.push(ConfigError::at(
                "keys",
                format!("expected a key for each of {certs} certs, got {keys}"),
            ));
        }
        faults
    }

    /// What is wrong with where its certificate comes from.
    fn source_faults(&self) -> Vec<ConfigError> {
        let given = [
            ("cert", self.cert.is_some()),
            ("key", self.key.is_some()),
            ("certs", self.certs.is_some()),
            ("keys", self.keys.is_some()),
        ];
        if self.acme.is_none() {
            let lacking = given.into_iter().take(2).filter(|(_, is_given)| !is_given);
            return lacking.map(|(field, _)| ConfigError::new(format!("{field} is required"))).collect();
        }
        let surplus = given.into_iter().filter(|(_, is_given)| *is_given);
        let mut faults: Vec<_> = surplus
            .map(|(field, _)| ConfigError::at(field, "expected nothing, as acme brings it, got one"))
            .collect();
        if self.purpose == Purpose::Client {
            faults.push(ConfigError::at("type", "expected server, as acme is for names of ours, got client"));
        }
        let is_any = |name: &HostPattern| name.as_str() == "*";
        if self.names().any(is_any) {
            faults.push(ConfigError::new("expected names that an authority can certify, got *"));
        }
        if self.names().count() > ACME_NAMES_MAX {
            faults.push(ConfigError::at(
                "snis",
                format!("expected at most {ACME_NAMES_MAX} names in a certificate by acme"),
            ));
        }
        faults
    }

    /// The names it is for.
    pub fn names(&self) -> impl Iterator<Item = &HostPattern> {
        self.sni.iter().chain(self.snis.iter().flatten())
    }
}

fn in_use() -> InRange<0, 1> {
    InRange::literal(1)
}

fn one() -> u32 {
    1
}
