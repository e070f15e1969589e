//! TCP, TLS and UDP passed on as they are: where they come in, and how much of everything.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::OptionalListeners;
use crate::model::field::{Seconds, SecondsOrOff, Unique};

/// How long a connection may stay silent both ways, where its upstream does not say: nginx's `proxy_timeout`.
pub const IDLE_TIMEOUT_SECONDS: u64 = 600;
/// What is read of a client before its route is known. A TLS hello has at most 16 KiB. Worst case this much a connection.
pub const PREREAD_BYTES: usize = 16 * 1024;
/// How long that may take. What decides a route is in the first packets.
pub const PREREAD_TIMEOUT_SECONDS: u64 = 10;

/// Sessions of UDP, a core. Each has a socket and some 2 KiB; a process has as many descriptors as its hard limit says.
pub const UDP_SESSIONS: usize = 4096;
/// How long a session of UDP may stay silent both ways, where its upstream does not say. Longer than a resolver asks again.
pub const UDP_IDLE_TIMEOUT_SECONDS: u64 = 60;
/// The longest datagram that is passed on: as long as one of IPv4 can be. Twice this much a core, and once a place.
pub const DATAGRAM_BYTES: usize = 65_507;

/// Connections and datagrams that are passed on by stream routes, as they are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSettings {
    /// Where connections come in: each an address with port, a port (all IPv4 addresses), or `{address, port, tls,
    /// proxy_protocol}`. Empty: nowhere.
    pub tcp: Unique<StreamListen>,
    /// Where datagrams come in, in the forms of the outer `listen`. Empty: nowhere.
    pub udp: OptionalListeners,
    /// Seconds that a connection may stay silent both ways, where the upstream has no `timeout`; 0: without end.
    pub idle_timeout: SecondsOrOff,
    /// Most bytes read of a client before its route is known; beyond: the connection is closed.
    #[schemars(range(min = 1024, max = 65_536))]
    pub preread_bytes: usize,
    /// Seconds that this may take.
    pub preread_timeout: Seconds,
    /// Most sessions of UDP, a core; beyond: the one that was silent for longest ends.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub udp_sessions: usize,
    /// Seconds that a session of UDP may stay silent both ways, where the upstream has no `timeout`; 0: without end.
    pub udp_idle_timeout: SecondsOrOff,
    /// Most bytes of a datagram; longer ones are dropped.
    #[schemars(range(min = 512, max = 65_535))]
    pub datagram_bytes: usize,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            tcp: Unique::new(Vec::new()).expect("an empty list has no doubles"),
            udp: OptionalListeners::default(),
            idle_timeout: SecondsOrOff::literal(IDLE_TIMEOUT_SECONDS),
            preread_bytes: PREREAD_BYTES,
            preread_timeout: Seconds::literal(PREREAD_TIMEOUT_SECONDS),
            udp_sessions: UDP_SESSIONS,
            udp_idle_timeout: SecondsOrOff::literal(UDP_IDLE_TIMEOUT_SECONDS),
            datagram_bytes: DATAGRAM_BYTES,
        }
    }
}

impl StreamSettings {
    /// Whether streams come in anywhere.
    pub fn is_on(&self) -> bool {
        !self.tcp.is_empty() || !self.udp.is_empty()
    }
}

/// An address with a port where streams come in, and what comes before their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct StreamListen {
    address: IpAddr,
    port: u16,
    /// Is TLS ended here, by the `ssls`?
    pub tls: bool,
    /// Does each connection begin with a PROXY header?
    pub proxy_protocol: bool,
}

impl StreamListen {
    pub const fn address(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Port(u16),
    Text(SocketAddr),
    Parts(Parts),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    address: Option<IpAddr>,
    port: u16,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    proxy_protocol: bool,
}

impl<'de> Deserialize<'de> for StreamListen {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let bare = |address, port| Self { address, port, tls: false, proxy_protocol: false };
        Ok(match Written::deserialize(input)? {
            Written::Port(port) => bare(everywhere, port),
            Written::Text(address) => bare(address.ip(), address.port()),
            Written::Parts(Parts { address, port, tls, proxy_protocol }) => {
                Self { address: address.unwrap_or(everywhere), port, tls, proxy_protocol }
            }
        })
    }
}

impl JsonSchema for StreamListen {
    fn schema_name() -> Cow<'static, str> {
        "StreamListen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An address with port such as 0.0.0.0:9100, a port, or {address, port, tls, proxy_protocol}. Port 0 is any free one.",
            "anyOf": [
                {
                    "type": "string", "format": "socket-address",
                    "x-expected": "an address with port such as 0.0.0.0:9100",
                },
                { "type": "integer", "minimum": 0, "maximum": 65535 },
                {
                    "type": "object",
                    "properties": {
                        "address": {
                            "description": "Absent: all addresses of IPv4.",
                            "type": ["string", "null"], "format": "ip", "x-expected": "an IP address",
                        },
                        "port": {
                            "description": "0: any free one.", "type": "integer", "minimum": 0, "maximum": 65535,
                        },
                        "tls": {
                            "description": "Is TLS ended here, by the `ssls`?", "type": "boolean", "default": false,
                        },
                        "proxy_protocol": {
                            "description": "Does each connection begin with a PROXY header, of a load balancer in `proxy_protocol.from`?",
                            "type": "boolean", "default": false,
                        },
                    },
                    "required": ["port"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
