//! Where the process listens.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::field::{AddressRange, Unique};

/// APISIX's port, so that clients need not be told of the change.
const HTTP_PORT: u16 = 9080;

/// Where load balancers say for whom they pass bytes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolSettings {
    /// Where a connection in clear begins with a PROXY header, version 1 or 2, as in `listen`. Without one it is closed.
    pub listen: OptionalListeners,
    /// The same where TLS follows.
    pub ssl_listen: OptionalListeners,
    /// Addresses of the load balancers; others are not served there. Empty: those of `trusted_addresses`.
    pub from: Unique<AddressRange>,
}

/// An address with a port. Written as `0.0.0.0:9080`, as `{address, port}`, or as a port of all addresses. Port 0
/// asks the system for a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen(SocketAddr);

impl Listen {
    /// On this machine only.
    pub const fn loopback(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// On all addresses of IPv4.
    pub const fn everywhere(port: u16) -> Self {
        Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
    }

    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

/// One or several places to listen; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners(Vec<Listen>);

impl Default for Listeners {
    fn default() -> Self {
        Self(vec![Listen::everywhere(HTTP_PORT)])
    }
}

impl Deref for Listeners {
    type Target = [Listen];

    fn deref(&self) -> &[Listen] {
        &self.0
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
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(match Written::deserialize(input)? {
            Written::Port(port) => Self::everywhere(port),
            Written::Text(address) => Self(address),
            Written::Parts(Parts { address: None, port }) => Self::everywhere(port),
            Written::Parts(Parts { address: Some(address), port }) => Self(SocketAddr::new(address, port)),
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(&self.0)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An address with port such as 0.0.0.0:9080, a port, or {address, port}. Port 0 is any free one.",
            "anyOf": [
                {
                    "type": "string", "format": "socket-address",
                    "x-expected": "an address with port such as 0.0.0.0:9080",
                },
                { "type": "integer", "minimum": 0, "maximum": 65535 },
                {
                    "type": "object",
                    "properties": {
                        "address": {
                            "type": ["string", "null"], "format": "ip", "x-expected": "an IP address",
                        },
                        "port": { "type": "integer", "minimum": 0, "maximum": 65535 },
                    },
                    "required": ["port"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// Places to listen; maybe none, as by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptionalListeners(Vec<Listen>);

impl OptionalListeners {
    /// One place.
    pub(super) fn one(place: Listen) -> Self {
        Self(vec![place])
    }
}

impl Deref for OptionalListeners {
    type Target = [Listen];

    fn deref(&self) -> &[Listen] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for OptionalListeners {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        one_or_many(input).map(Self)
    }
}

impl JsonSchema for OptionalListeners {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OptionalListeners".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Listen>();
        json_schema!({ "anyOf": [{ "type": "array", "items": one, "uniqueItems": true }, one] })
    }
}

/// A place, or a list of places.
fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Listen>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(Listen),
        Many(Vec<Listen>),
    }
    Ok(match OneOrMany::deserialize(input)? {
        OneOrMany::One(place) => vec![place],
        OneOrMany::Many(places) => places,
    })
}

impl<'de> Deserialize<'de> for Listeners {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let places = one_or_many(input)?;
        if places.is_empty() {
            return Err(serde::de::Error::custom("expected a list of at least 1, got an empty list"));
        }
        Ok(Self(places))
    }
}

impl Serialize for Listeners {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(output)
    }
}

impl JsonSchema for Listeners {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listeners".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Listen>();
        json_schema!({
            "anyOf": [{ "type": "array", "items": one, "minItems": 1, "uniqueItems": true }, one],
        })
    }
}
