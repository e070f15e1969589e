//! Fields written as text.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::address;
use crate::base::cidr::Cidr;
use crate::base::text::is_token;
use crate::model::ConfigError;
use crate::model::schema::shown_text;

macro_rules! text_fields {
    ($($(#[$doc:meta])* $name:ident: $expected:literal, $holds:expr, { $($schema:tt)* };)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What a fault says was expected.
            pub const EXPECTED: &'static str = $expected;

            /// As written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, ConfigError> {
                let holds: fn(&str) -> bool = $holds;
                if holds(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ConfigError::new(format!("expected {}, got {}", $expected, shown_text(text))))
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(|error: ConfigError| D::Error::custom(error.problem))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-expected": $expected, $($schema)* })
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

/// Longest path pattern; longer ones could not be met anyway, as a request line ends before.
const URI_PATTERN_BYTES_MAX: usize = 4096;

text_fields! {
    /// A type of GraphQL, with the names of fields that lead from it: `Query.products.reviews`.
    FieldPath: "a type, with names of fields behind it, such as Query.products",
        |text| {
            let is_name = |name: &str| {
                name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            text.len() <= 512 && text.split('.').all(is_name)
        },
        { "pattern": r"^[A-Za-z_][0-9A-Za-z_]*(\.[A-Za-z_][0-9A-Za-z_]*)*$", "maxLength": 512 };

    /// An IP address or a range of them: `10.0.0.1`, `10.0.0.0/8`, `::1`, `fd00::/8`.
    AddressRange: "an IP address or a range such as 10.0.0.0/8", is_address_range,
        { "format": "ip-range" };

    /// A host: `example.com`, `*.example.com` for all below it, `*` for any; a port may follow.
    HostPattern: "a host such as example.com or *.example.com",
        |text| {
            let behind = text.strip_prefix('*').unwrap_or(text);
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
            !text.is_empty() && behind.bytes().all(legal)
        },
        { "pattern": r"^\*?[0-9a-zA-Z._\[\]:-]*$", "minLength": 1 };

    /// A path: `/exact`, `/prefix*`, `*` for any. With parameters (`/user/:id`) where the router has them.
    UriPattern: "a path of at most 4096 characters that starts with / or *",
        |text| text.len() <= URI_PATTERN_BYTES_MAX && text.starts_with(['/', '*']),
        { "pattern": "^[/*]", "maxLength": 4096 };

    /// The value of a label: no white space.
    LabelText: "text of 1 to 256 characters without spaces",
        |text| (1..=256).contains(&text.chars().count()) && !text.contains(char::is_whitespace),
        { "pattern": r"^\S+$", "maxLength": 256 };

    /// The name, and with it the id, of a consumer.
    Username: "a name of 1 to 256 letters, digits, _ and -",
        |text| (1..=256).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'),
        { "pattern": "^[a-zA-Z0-9_-]+$", "maxLength": 256 };

    /// The name of a header (RFC 9110 5.1).
    HeaderName: "the name of a header", |text| text.len() <= 256 && is_token(text.as_bytes()),
        { "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "maxLength": 256 };

    /// The name of a cookie (RFC 6265 4.1.1).
    CookieName: "the name of a cookie", |text| text.len() <= 256 && is_token(text.as_bytes()),
        { "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "maxLength": 256 };

    /// Text with variables: `$remote_addr $http_host`, `${arg_id ?? none}`. Compiled where it is used.
    TemplateText: "text, in which $name stands for a variable", |_| true, {};
}

impl HeaderName {
    /// A default.
    pub fn literal(text: &'static str) -> Self {
        debug_assert!(is_token(text.as_bytes()), "a default keeps the form of its field");
        Self(text.to_owned())
    }
}

impl AddressRange {
    /// As a range that can be asked.
    pub fn cidr(&self) -> Cidr {
        let (address, bits) = self.parts();
        Cidr::new(address, bits).expect("an AddressRange has no more bits than its address")
    }

    /// The address, and how many leading bits of it count.
    pub fn parts(&self) -> (IpAddr, u8) {
        address_range(&self.0).expect("an AddressRange was parsed when it was made")
    }
}

/// Is this an address or a range? For the schema's format of that name.
pub(in crate::model) fn is_address_range(text: &str) -> bool {
    address_range(text).is_some()
}

/// Reads `address` or `address/bits`.
fn address_range(text: &str) -> Option<(IpAddr, u8)> {
    if text == address::UNIX {
        return Some((address::NO_ADDRESS.ip(), 128));
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        // `u8::from_str` would take `+8`.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    (bits <= most).then_some((address, bits))
}

/// Text of `MIN` to `MAX` characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const MIN: usize, const MAX: usize>(Cow<'static, str>);

/// A name, a message, a remark.
pub type ShortText = Text<1, 256>;

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    /// A default. Its length is checked by the first test that builds it.
    pub const fn literal(text: &'static str) -> Self {
        assert!(text.len() >= MIN && text.len() <= MAX, "a default keeps the bounds of its field");
        Self(Cow::Borrowed(text))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> FromStr for Text<MIN, MAX> {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if (MIN..=MAX).contains(&text.chars().count()) {
            return Ok(Self(Cow::Owned(text.to_owned())));
        }
        let found = shown_text(text);
        Err(ConfigError::new(format!("expected text of {MIN} to {MAX} characters, got {found}")))
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(|error: ConfigError| D::Error::custom(error.problem))
    }
}

impl<const MIN: usize, const MAX: usize> JsonSchema for Text<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Text_{MIN}_to_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": MIN, "maxLength": MAX })
    }
}

impl<const MIN: usize, const MAX: usize> Deref for Text<MIN, MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Display for Text<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not shown: neither by `Debug`, nor in faults, nor when written out again.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str("***")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "writeOnly": true })
    }
}

/// The name of an object within its kind. Written as text or as a number; `7` and `"7"` are one id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectId(String);

impl ObjectId {
    /// What a fault says was expected.
    pub const EXPECTED: &'static str =
        "an id: 1 to 64 letters, digits, -, _ and ., or a whole number above 0";

    /// As text, the form in which ids are compared.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id that is several joined by `/`, as of credentials (`jack/credentials/1`) and secrets (`vault/1`).
    pub fn joined(text: &str) -> Result<Self, ConfigError> {
        for part in text.split('/') {
            part.parse::<Self>()?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The id of a consumer: its name, which may be longer than other ids.
    pub fn of_username(name: &str) -> Result<Self, ConfigError> {
        name.parse::<Username>().map(|name| Self(name.as_str().to_owned()))
    }

    /// The id of a credential: `USER/credentials/ID`.
    pub fn of_credential(id: &str) -> Result<Self, ConfigError> {
        let expected = || ConfigError::new(format!("expected USER/credentials/ID, got {}", shown_text(id)));
        let (user, last) = id.split_once("/credentials/").ok_or_else(expected)?;
        user.parse::<Username>().map_err(|_| expected())?;
        last.parse::<Self>().map_err(|_| expected())?;
        Ok(Self(id.to_owned()))
    }

    /// The id of a cost decoration: `SERVICE/graphql_cost_decorations/ID`.
    pub fn of_decoration(id: &str) -> Result<Self, ConfigError> {
        let expected = || {
            ConfigError::new(format!("expected SERVICE/graphql_cost_decorations/ID, got {}", shown_text(id)))
        };
        let (service, last) = id.split_once("/graphql_cost_decorations/").ok_or_else(expected)?;
        service.parse::<Self>().map_err(|_| expected())?;
        last.parse::<Self>().map_err(|_| expected())?;
        Ok(Self(id.to_owned()))
    }

    /// An id that was checked by another type already.
    pub(crate) fn of_checked(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for ObjectId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(ConfigError::new(format!("expected {}, got {}", Self::EXPECTED, shown_text(text))))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct TextOrNumber;
        impl Visitor<'_> for TextOrNumber {
            type Value = ObjectId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ObjectId::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ObjectId, E> {
                text.parse().map_err(|error: ConfigError| E::custom(error.problem))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<ObjectId, E> {
                if number == 0 {
                    return Err(E::custom(format!("expected {}, got 0", ObjectId::EXPECTED)));
                }
                Ok(ObjectId(number.to_string()))
            }
        }
        input.deserialize_any(TextOrNumber)
    }
}

impl JsonSchema for ObjectId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ObjectId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-expected": Self::EXPECTED,
            "anyOf": [
                { "type": "string", "pattern": "^[a-zA-Z0-9_.-]+$", "minLength": 1, "maxLength": 64 },
                { "type": "integer", "minimum": 1 },
            ],
        })
    }
}

macro_rules! methods {
    ($($variant:ident = $text:literal,)*) => {
        /// A request method that configuration may name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[schemars(inline)]
        pub enum HttpMethod {
            $(#[serde(rename = $text)] $variant,)*
        }

        impl HttpMethod {
            /// As on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

methods! {
    Get = "GET",
    Post = "POST",
    Put = "PUT",
    Delete = "DELETE",
    Patch = "PATCH",
    Head = "HEAD",
    Options = "OPTIONS",
    Connect = "CONNECT",
    Trace = "TRACE",
    Purge = "PURGE",
}
