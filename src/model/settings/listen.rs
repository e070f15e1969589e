//! Where the process listens: addresses with ports, and for clients Unix sockets, too.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::base::address;
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

    /// On an address, or all of IPv4.
    pub(super) fn of(address: Option<IpAddr>, port: u16) -> Self {
        address.map_or_else(|| Self::everywhere(port), |address| Self(SocketAddr::new(address, port)))
    }

    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

/// Who may connect to a Unix socket, where nothing is said: the process's user and group.
const UNIX_MODE: u32 = 0o660;

/// Where clients come in: an address with a port, or a Unix socket. That is written as `unix:/run/ringway.sock`, or as
/// `{unix: /run/ringway.sock, mode: "0660"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entrance {
    Ip(Listen),
    Unix(UnixListen),
}

/// A Unix socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixListen {
    /// As in `unix:/run/ringway.sock`.
    pub name: String,
    /// Who may connect, as `chmod` says it.
    pub mode: u32,
}

impl Entrance {
    /// Whether the same clients come in at both. Each place of port 0 is another one.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ip(one), Self::Ip(other)) => one == other && one.0.port() != 0,
            (Self::Unix(one), Self::Unix(other)) => one.name == other.name,
            (Self::Ip(_), Self::Unix(_)) | (Self::Unix(_), Self::Ip(_)) => false,
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(listen) => listen.0.fmt(f),
            Self::Unix(unix) => f.write_str(&unix.name),
        }
    }
}

/// One or several places to listen; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners(Vec<Entrance>);

impl Default for Listeners {
    fn default() -> Self {
        Self(vec![Entrance::Ip(Listen::everywhere(HTTP_PORT))])
    }
}

impl Deref for Listeners {
    type Target = [Entrance];

    fn deref(&self) -> &[Entrance] {
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
            Written::Parts(Parts { address, port }) => Self::of(address, port),
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

/// A Unix socket in parts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnixParts {
    unix: String,
    mode: Option<String>,
}

impl UnixListen {
    /// From its name, such as `unix:/run/ringway.sock`, and the digits of its mode.
    pub(super) fn new(name: String, mode: Option<&str>) -> Option<Self> {
        address::path_in(&name)?;
        let mode = match mode {
            None => UNIX_MODE,
            Some(digits) => u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)?,
        };
        Some(Self { name, mode })
    }

    /// From its path.
    pub(super) fn at(path: &str, mode: Option<&str>) -> Option<Self> {
        Self::new(format!("{}{path}", address::UNIX), mode)
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        self.name.strip_prefix(address::UNIX).unwrap_or(&self.name)
    }

    /// Its mode, as it is written.
    pub(super) fn mode_text(&self) -> String {
        format!("{:04o}", self.mode)
    }
}

impl<'de> Deserialize<'de> for Entrance {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Ip(Listen),
            Unix(UnixParts),
            Text(String),
        }
        let unix = match Either::deserialize(input)? {
            Either::Ip(listen) => return Ok(Self::Ip(listen)),
            Either::Unix(UnixParts { unix, mode }) => UnixListen::at(&unix, mode.as_deref()),
            Either::Text(text) => UnixListen::new(text, None),
        };
        unix.map(Self::Unix).ok_or_else(|| serde::de::Error::custom(format!("expected {PLACE}")))
    }
}

impl Serialize for Entrance {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unix(unix) if unix.mode != UNIX_MODE => {
                json!({ "unix": unix.path(), "mode": unix.mode_text() }).serialize(output)
            }
            Self::Ip(_) | Self::Unix(_) => output.collect_str(self),
        }
    }
}

/// What is expected where clients come in.
pub(super) const PLACE: &str =
    "an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes";

/// The schemas of a Unix socket's path, and of its mode.
pub(super) fn unix_schemas() -> [Value; 2] {
    [
        json!({
            "description": "The path of a Unix socket. A file left behind is replaced; one that somebody listens on is not.",
            "type": "string", "format": "unix-path",
            "x-expected": "an absolute path of at most 107 bytes, such as /run/ringway.sock",
        }),
        json!({
            "description": "Who may connect, as `chmod` says it.", "type": ["string", "null"],
            "pattern": "^0?[0-7]{3}$", "default": "0660", "x-expected": "a mode such as \"0660\"",
        }),
    ]
}

impl JsonSchema for Entrance {
    fn schema_name() -> Cow<'static, str> {
        "Entrance".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut forms = Listen::json_schema(generator);
        let [unix, mode] = unix_schemas();
        forms.insert("description".to_owned(), "An address with port such as 0.0.0.0:9080, a port, {address, port}, unix:/run/ringway.sock or {unix, mode}. Port 0 is any free one.".into());
        if let Some(Value::Array(forms)) = forms.get_mut("anyOf") {
            if let Some(text) = forms.first_mut() {
                *text = json!({ "type": "string", "format": "listen-place", "x-expected": PLACE });
            }
            forms.push(json!({
                "type": "object",
                "properties": { "unix": unix, "mode": mode },
                "required": ["unix"],
                "additionalProperties": false,
            }));
        }
        forms
    }
}

/// Places to listen; maybe none, as by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OptionalListeners<T = Entrance>(Vec<T>);

impl<T> Default for OptionalListeners<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> OptionalListeners<T> {
    /// One place.
    pub(super) fn one(place: T) -> Self {
        Self(vec![place])
    }
}

impl<T> Deref for OptionalListeners<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OptionalListeners<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        one_or_many(input).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OptionalListeners<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OptionalListeners_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "array", "items": one, "uniqueItems": true }, one] })
    }
}

/// A place, or a list of places.
fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
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
        let one = generator.subschema_for::<Entrance>();
        json_schema!({
            "anyOf": [{ "type": "array", "items": one, "minItems": 1, "uniqueItems": true }, one],
        })
    }
}
