//! What a text is expected to be, and whether it is.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::expr::{Pattern, compile_regex};

/// Longest part of a text that is shown.
const SHOWN_MAX: usize = 400;

/// What is expected of a text that may not be there.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// It is not there, or has nothing in it.
    Absent,
    Is(String),
    Contains(String),
    Matches(String, Pattern),
    /// It is JSON of this value.
    Json(Value),
    Not(Box<Self>),
}

impl Wish {
    /// Whether a text is as wished.
    pub(super) fn is_met(&self, found: Option<&[u8]>) -> bool {
        match self {
            Self::Absent => found.is_none_or(<[u8]>::is_empty),
            Self::Not(wish) => !wish.is_met(found),
            _ => found.is_some_and(|found| self.is_met_by(found)),
        }
    }

    fn is_met_by(&self, found: &[u8]) -> bool {
        match self {
            Self::Is(text) => found == text.as_bytes(),
            Self::Contains(text) => memchr::memmem::find(found, text.as_bytes()).is_some(),
            Self::Matches(_, regex) => regex.is_match(found),
            Self::Json(value) => serde_json::from_slice::<Value>(found).is_ok_and(|found| found == *value),
            Self::Absent | Self::Not(_) => false,
        }
    }

    fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self::Absent),
            Value::String(text) => Ok(Self::Is(text)),
            Value::Number(number) => Ok(Self::Is(number.to_string())),
            Value::Bool(truth) => Ok(Self::Is(truth.to_string())),
            Value::Object(fields) => {
                let mut fields = fields.into_iter();
                match (fields.next(), fields.next()) {
                    (Some((name, value)), None) => Self::named(&name, value),
                    _ => Err(format!("expected one of {}", NAMES.join(", "))),
                }
            }
            Value::Array(_) => Err("expected a text, null or an object, got a list".to_owned()),
        }
    }

    fn named(name: &str, value: Value) -> Result<Self, String> {
        match (name, value) {
            ("contains", Value::String(text)) => Ok(Self::Contains(text)),
            ("matches", Value::String(text)) => {
                let regex = compile_regex(&text, false)?;
                Ok(Self::Matches(text, regex))
            }
            ("json", value) => Ok(Self::Json(value)),
            ("not", value) => Self::of(value).map(Box::new).map(Self::Not),
            ("contains" | "matches", other) => Err(format!("{name}: expected a text, got {other}")),
            _ => Err(format!("expected one of {}, got {name}", NAMES.join(", "))),
        }
    }
}

/// A text that may be written as a number, or as `true` or `false`.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Value::deserialize(input)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            Value::Bool(truth) => Ok(Self(truth.to_string())),
            other => Err(D::Error::custom(format!("expected a text, got {other}"))),
        }
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number", "boolean"]})
    }
}

const NAMES: [&str; 4] = ["contains", "matches", "json", "not"];

impl<'de> Deserialize<'de> for Wish {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::of(Value::deserialize(input)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Wish {
    fn schema_name() -> Cow<'static, str> {
        "Wish".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text that is expected whole, null for none, or an object that asks for less.",
            "anyOf": [
                {"type": ["string", "number", "boolean", "null"]},
                {
                    "type": "object",
                    "properties": {
                        "contains": {"description": "A part of it.", "type": "string"},
                        "matches": {"description": "A regular expression that it fits somewhere.", "type": "string"},
                        "json": {"description": "It is JSON of this value."},
                        "not": {"description": "What it is not."},
                    },
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            ],
        })
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Is(text) => f.write_str(&shown(text.as_bytes())),
            Self::Contains(text) => write!(f, "a text with {} in it", shown(text.as_bytes())),
            Self::Matches(pattern, _) => write!(f, "a text that fits /{pattern}/"),
            Self::Json(value) => write!(f, "JSON {}", cut(&value.to_string())),
            Self::Not(wish) => write!(f, "anything but {wish}"),
        }
    }
}

/// A text as it is told: quoted, and not all of a long one.
pub(super) fn shown(text: &[u8]) -> String {
    format!("{:?}", cut(&String::from_utf8_lossy(text)))
}

/// What was found, if anything was.
pub(super) fn shown_or_nothing(text: Option<&[u8]>) -> String {
    text.map_or_else(|| "nothing".to_owned(), shown)
}

fn cut(text: &str) -> String {
    if text.len() <= SHOWN_MAX {
        return text.to_owned();
    }
    let end = (0..=SHOWN_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}... ({} bytes)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn met(wish: Value, found: Option<&str>) -> bool {
        Wish::of(wish).expect("a wish").is_met(found.map(str::as_bytes))
    }

    #[test]
    fn a_text_is_compared_whole_unless_less_is_asked_for() {
        for (wish, found, expect) in [
            (json!("a"), Some("a"), true),
            (json!("a"), Some("ab"), false),
            (json!("a"), None, false),
            (json!(7), Some("7"), true),
            (json!(true), Some("true"), true),
            (json!(null), None, true),
            (json!(null), Some(""), true),
            (json!(null), Some("a"), false),
            (json!({"contains": "b"}), Some("abc"), true),
            (json!({"contains": "d"}), Some("abc"), false),
            (json!({"matches": "^a.c$"}), Some("abc"), true),
            (json!({"matches": "^b"}), Some("abc"), false),
            (json!({"json": {"a": [1]}}), Some("{\"a\" : [1] }"), true),
            (json!({"json": {"a": 1}}), Some("no"), false),
            (json!({"not": "a"}), Some("b"), true),
            (json!({"not": "a"}), Some("a"), false),
            (json!({"not": null}), Some("a"), true),
            (json!({"not": {"contains": "b"}}), Some("abc"), false),
        ] {
            assert_eq!(met(wish.clone(), found), expect, "{wish} of {found:?}");
        }
    }

    #[test]
    fn what_is_no_wish_is_refused() {
        for (wish, why) in [
            (json!([]), "got a list"),
            (json!({}), "expected one of contains"),
            (json!({"contians": "a"}), "got contians"),
            (json!({"contains": 1}), "contains: expected a text, got 1"),
            (json!({"matches": "("}), "is not valid"),
            (json!({"contains": "a", "json": 1}), "expected one of"),
        ] {
            let told = Wish::of(wish.clone()).expect_err("no wish");
            assert!(told.contains(why), "{wish}: {told}");
        }
    }
}
