//! How names of nodes are resolved: by which servers, and for how long an answer counts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::field::Seconds;

/// The port of name servers.
const PORT: u16 = 53;

/// Names of nodes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSettings {
    /// Name servers, as `ADDRESS` or `ADDRESS:PORT`; the next is asked when one does not answer. Empty: those of
    /// `resolv_conf`.
    pub servers: Vec<NameServer>,
    /// For how many seconds an answer counts. Absent: for as long as it says.
    pub valid: Option<Seconds>,
    /// The file with the system's name servers, its domains to search and `ndots`.
    pub resolv_conf: PathBuf,
    /// The file with names that no server is asked for.
    pub hosts: PathBuf,
    /// Are the domains that `resolv_conf` names for it searched?
    pub search: bool,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            valid: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
            search: true,
        }
    }
}

/// DNS as a registry of services.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DnsRegistry {
    /// Name servers, as `ADDRESS` or `ADDRESS:PORT`. Empty: those of `resolv_conf`.
    pub servers: Vec<NameServer>,
    /// The file with name servers. Neither this nor `servers`: as for names of nodes.
    pub resolv_conf: Option<PathBuf>,
    /// Which records of a service are asked for, in this order, until there are some.
    pub order: Vec<RecordType>,
}

impl Default for DnsRegistry {
    fn default() -> Self {
        use RecordType::{A, Aaaa, Cname, Last, Srv};
        Self { servers: Vec::new(), resolv_conf: None, order: vec![Last, Srv, A, Aaaa, Cname] }
    }
}

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RecordType {
    /// The type that had an answer last: read and of no effect, as every type is asked for in turn.
    #[serde(rename = "last")]
    Last,
    /// Hosts with ports, weights and priorities.
    #[serde(rename = "SRV")]
    Srv,
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Other names: followed in any case.
    #[serde(rename = "CNAME")]
    Cname,
}

/// A name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "String")]
pub struct NameServer(SocketAddr);

impl NameServer {
    /// By address, at the port that name servers have.
    pub const fn at(address: IpAddr) -> Self {
        Self(SocketAddr::new(address, PORT))
    }

    pub const fn address(self) -> SocketAddr {
        self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match (text.parse(), bare.parse()) {
            (Ok(address), _) => Ok(Self(address)),
            (_, Ok(address)) => Ok(Self::at(address)),
            _ => Err(format!(
                "expected an address such as 127.0.0.1, 127.0.0.1:5353 or [::1]:5353, got {text:?}"
            )),
        }
    }
}

impl Serialize for NameServer {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_addresses_and_may_have_ports() {
        let check = |text: &str, expected: &str| {
            let parsed = NameServer::parse(text).map(|server| server.to_string());
            assert_eq!(parsed.as_deref(), Ok(expected), "{text}");
        };
        check("10.0.0.2", "10.0.0.2:53");
        check("10.0.0.2:1053", "10.0.0.2:1053");
        check("fe80::1", "[fe80::1]:53");
        check("[fe80::1]", "[fe80::1]:53");
        check("[fe80::1]:1053", "[fe80::1]:1053");
        for wrong in ["", "ns.example.com", "10.0.0.2:", "10.0.0.2:70000", "10.0.0"] {
            assert!(NameServer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
