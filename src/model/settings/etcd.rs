//! An etcd that holds the objects: where it is, who we are to it, and how long it may take.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::ConfigError;
use crate::model::field::{Seconds, Secret};

/// Where objects are in APISIX's layout, so that its tools find them.
const PREFIX: &str = "/apisix";
/// One request to etcd. APISIX's.
const TIMEOUT_SECONDS: u64 = 30;
/// A watch that hears nothing for so long is begun anew: a connection may be dead and not know it. APISIX's.
const WATCH_TIMEOUT_SECONDS: u64 = 50;
/// Further tries at start, before there is any configuration at all. APISIX's.
const STARTUP_RETRY: u32 = 2;

/// An etcd 3 that holds the objects.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSettings {
    /// Its members, as `http://HOST:PORT` or `https://HOST:PORT`; the next is asked when one does not answer.
    pub endpoints: Vec<Endpoint>,
    /// What keys of objects begin with.
    pub prefix: Prefix,
    /// Seconds that one request may take.
    pub timeout: Seconds,
    /// Seconds that a watch may hear nothing before it is begun anew.
    pub watch_timeout: Seconds,
    /// Further tries at a start where no earlier configuration is kept.
    pub startup_retry: u32,
    /// The user it is asked as. Absent: it asks nobody for a name.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<Secret>,
    /// TLS to members with `https://`.
    pub tls: EtcdTls,
}

/// TLS to etcd.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdTls {
    /// A file with our certificate, in PEM, where members ask for one. Read again when it changes.
    pub cert: Option<PathBuf>,
    /// The file with its private key.
    pub key: Option<PathBuf>,
    /// Are the members' certificates checked, by `ssl.trusted_certificate`?
    pub verify: bool,
    /// The name that is in the members' certificates, where they are reached by another.
    pub sni: Option<String>,
}

impl Default for EtcdTls {
    fn default() -> Self {
        Self { cert: None, key: None, verify: true, sni: None }
    }
}

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            endpoints: vec![Endpoint { authority: "127.0.0.1:2379".to_owned(), is_tls: false }],
            prefix: Prefix(PREFIX.to_owned()),
            timeout: Seconds::literal(TIMEOUT_SECONDS),
            watch_timeout: Seconds::literal(WATCH_TIMEOUT_SECONDS),
            startup_retry: STARTUP_RETRY,
            user: None,
            password: None,
            tls: EtcdTls::default(),
        }
    }
}

impl EtcdSettings {
    /// Rules between its fields.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.endpoints.is_empty() {
            faults.push(ConfigError::at("etcd.endpoints", "expected at least one, got none"));
        }
        if self.user.is_some() != self.password.is_some() {
            let (given, lacking) =
                if self.user.is_some() { ("user", "password") } else { ("password", "user") };
            let problem = format!("expected, as etcd.{given} is given, got nothing");
            faults.push(ConfigError::at(format!("etcd.{lacking}"), problem));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            let (given, lacking) = if self.tls.cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            let problem = format!("expected, as etcd.tls.{given} is given, got nothing");
            faults.push(ConfigError::at(format!("etcd.tls.{lacking}"), problem));
        }
        faults
    }
}

/// A member of etcd: host and port, and whether TLS is spoken there.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "String")]
pub struct Endpoint {
    authority: String,
    is_tls: bool,
}

impl Endpoint {
    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub fn port(&self) -> u16 {
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }

    /// Whether TLS is spoken there.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "expected one such as http://127.0.0.1:2379 or https://etcd.example.com:2379, got {text:?}"
            )
        };
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(expected()),
            None => (false, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or_else(expected)?;
        let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        if !is_host || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(expected());
        }
        Ok(Self { authority: authority.to_owned(), is_tls })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

/// What keys begin with: `/apisix`, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Prefix(String);

impl Prefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let text = text.trim_end_matches('/');
        // All of etcd is nobody's prefix: what else is kept there would be taken for ours.
        if text.is_empty() {
            return Err(serde::de::Error::custom("expected one such as /apisix, got nothing"));
        }
        Ok(Self(text.to_owned()))
    }
}
