//! An etcd that holds the objects: where it is, who we are to it, and how long it may take.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// Its members, as `http://HOST:PORT`; the next is asked when one does not answer.
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
}

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            endpoints: vec![Endpoint("127.0.0.1:2379".to_owned())],
            prefix: Prefix(PREFIX.to_owned()),
            timeout: Seconds::literal(TIMEOUT_SECONDS),
            watch_timeout: Seconds::literal(WATCH_TIMEOUT_SECONDS),
            startup_retry: STARTUP_RETRY,
            user: None,
            password: None,
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
        faults
    }
}

/// A member of etcd: host and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Endpoint(String);

impl Endpoint {
    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("expected one such as http://127.0.0.1:2379, got {text:?}");
        let authority = match text.split_once("://") {
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => {
                return Err(format!("expected http://, as TLS to etcd is not there yet, got {text:?}"));
            }
            Some(_) => return Err(expected()),
            None => text,
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(expected)?;
        let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        if !is_host || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
            return Err(expected());
        }
        Ok(Self(authority.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
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
