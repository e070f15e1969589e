//! What authentication plugins have in common: reading `Basic` credentials, the refusal with its challenge, and the consumer that
//! stands in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::exchange::{Exchange, Reply};
use crate::model::field::ShortText;

use super::{Env, Step};

/// Names a protection space in a challenge (RFC 9110 11.5): printable ASCII that needs no quoting.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Realm(String);

const REALM_BYTES_MAX: usize = 128;

impl Realm {
    /// A default.
    pub fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Realm {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if (1..=REALM_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom("expected 1 to 128 printable ASCII characters without \" and \\"))
        }
    }
}

impl JsonSchema for Realm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Realm".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": REALM_BYTES_MAX,
            "pattern": r#"^[ !#-\[\]-~]+$"#,
            "x-expected": "1 to 128 printable ASCII characters without \" and \\",
        })
    }
}

/// Longest `user:password`, decoded; what is longer is no credential of ours. Costs that much stack.
pub const BASIC_BYTES_MAX: usize = 1024;

/// User and password of `Basic <base64>`.
pub fn basic<'d>(line: &[u8], decoded: &'d mut [u8]) -> Option<(&'d [u8], &'d [u8])> {
    let (scheme, behind) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let length = STANDARD.decode_slice(behind.trim_ascii(), decoded).ok()?;
    let decoded = decoded.get(..length)?;
    let colon = memchr::memchr(b':', decoded)?;
    Some((&decoded[..colon], &decoded[colon + 1..]))
}

/// What becomes of a request that no credential vouches for.
#[derive(Clone, Debug)]
pub struct Refusals {
    challenge: String,
    anonymous: Option<ShortText>,
    anonymous_unknown: Reply,
}

impl Refusals {
    /// `scheme` is the name in `WWW-Authenticate`; `anonymous` the consumer that stands in.
    pub fn new(scheme: &str, realm: &Realm, anonymous: Option<ShortText>) -> Self {
        let challenge = format!("{scheme} realm=\"{}\"", realm.0);
        let anonymous_unknown = challenged(&challenge, "Invalid user authorization");
        Self { challenge, anonymous, anonymous_unknown }
    }

    /// 401 with the challenge and this message.
    pub fn reply(&self, message: &str) -> Reply {
        challenged(&self.challenge, message)
    }

    /// Lets the anonymous consumer in, if one is named; otherwise refuses.
    pub fn settle<'a>(&self, ex: &mut Exchange, env: Env<'a>, refusal: &Reply) -> Step<'a> {
        let Some(name) = &self.anonymous else { return Step::Reply(refusal.clone()) };
        match env.consumers.named(name.as_str()) {
            Some(known) => {
                ex.attach(known);
                Step::Next
            }
            None => Step::Reply(self.anonymous_unknown.clone()),
        }
    }
}

fn challenged(challenge: &str, message: &str) -> Reply {
    Reply::message(401, message).with("WWW-Authenticate", challenge.to_owned())
}
