//! TCP, TLS and UDP passed on as they are: where they come in, and how much of everything.

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::listen::{PLACE, unix_schemas};
use super::{Entrance, Listen, OptionalListeners, UnixListen};
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
    /// Where connections come in: each an address with port, a port (all IPv4 addresses), `unix:/path`, `{address, port, tls,
    /// proxy_protocol}` or `{unix, mode, tls, proxy_protocol}`. Empty: nowhere.
    pub tcp: Unique<StreamListen>,
    /// Where datagrams come in: addresses with ports, in the forms of the outer `listen`. Empty: nowhere.
    pub udp: OptionalListeners<Listen>,
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

/// Where streams come in, and what comes before their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamListen {
    pub entrance: Entrance,
    /// Is TLS ended here, by the `ssls`?
    pub tls: bool,
    /// Does each connection begin with a PROXY header?
    pub proxy_protocol: bool,
}

impl Serialize for StreamListen {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let (tls, proxy_protocol) = (self.tls, self.proxy_protocol);
        let written = match &self.entrance {
            Entrance::Ip(listen) => {
                let at = listen.address();
                json!({ "address": at.ip(), "port": at.port(), "tls": tls, "proxy_protocol": proxy_protocol })
            }
            Entrance::Unix(unix) => json!({
                "unix": unix.path(), "mode": unix.mode_text(), "tls": tls, "proxy_protocol": proxy_protocol,
            }),
        };
        written.serialize(output)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    address: Option<IpAddr>,
    port: Option<u16>,
    unix: Option<String>,
    mode: Option<String>,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    proxy_protocol: bool,
}

impl Parts {
    fn entrance(&self) -> Option<Entrance> {
        match (&self.unix, self.port) {
            (Some(path), None) if self.address.is_none() => {
                UnixListen::at(path, self.mode.as_deref()).map(Entrance::Unix)
            }
            (None, Some(port)) if self.mode.is_none() => Some(Entrance::Ip(Listen::of(self.address, port))),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for StreamListen {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bare(Entrance),
            Parts(Parts),
        }
        match Written::deserialize(input)? {
            Written::Bare(entrance) => Ok(Self { entrance, tls: false, proxy_protocol: false }),
            Written::Parts(parts) => {
                let entrance = parts
                    .entrance()
                    .ok_or_else(|| serde::de::Error::custom(format!("expected {PLACE}, in parts")))?;
                Ok(Self { entrance, tls: parts.tls, proxy_protocol: parts.proxy_protocol })
            }
        }
    }
}

impl JsonSchema for StreamListen {
    fn schema_name() -> Cow<'static, str> {
        "StreamListen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [unix, mode] = unix_schemas();
        let tls = json!({
            "description": "Is TLS ended here, by the `ssls`?", "type": "boolean", "default": false,
        });
        let proxied = json!({
            "description": "Does each connection begin with a PROXY header, of a load balancer in `proxy_protocol.from`?",
            "type": "boolean", "default": false,
        });
        json_schema!({
            "description": "An address with port such as 0.0.0.0:9100, a port, unix:/run/streams.sock, {address, port, tls, proxy_protocol} or {unix, mode, tls, proxy_protocol}. Port 0 is any free one.",
            "anyOf": [
                { "type": "string", "format": "listen-place", "x-expected": PLACE },
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
                        "tls": tls,
                        "proxy_protocol": proxied,
                    },
                    "required": ["port"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "unix": unix, "mode": mode, "tls": tls, "proxy_protocol": proxied },
                    "required": ["unix"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
