//! What is asked of etcd and what it answers, as its JSON gateway writes it: bytes in base64, whole numbers as text,
//! and what is zero or empty left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// A key or a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    pub(super) fn of(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A whole number, written as text.
fn number<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    match Value::deserialize(input)? {
        Value::String(text) => text.parse().map_err(serde::de::Error::custom),
        Value::Number(number) => {
            number.as_u64().ok_or_else(|| serde::de::Error::custom(format!("a strange number: {number}")))
        }
        other => Err(serde::de::Error::custom(format!("expected a whole number, got {other}"))),
    }
}

/// Whether there is an id, which may be any whole number but 0.
fn is_any<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Null => false,
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        other => other != 0,
    })
}

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    #[serde(deserialize_with = "number")]
    pub(super) create_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: u64,
    /// It goes with its lease.
    #[serde(rename = "lease", deserialize_with = "is_any")]
    pub(super) is_leased: bool,
}

/// The answer to a range.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
}

/// A line of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    pub(super) result: Option<Watched>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
    /// More of the same revision follows.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    /// `DELETE`, or nothing.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// The answer to a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) header: Header,
    pub(super) succeeded: bool,
}

/// Every key below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// The first key, with the slash at its end.
    pub(super) from: String,
    to: Bytes,
}

impl Span {
    pub(super) fn below(prefix: &str) -> Self {
        // `/` and what comes right after it.
        Self { from: format!("{prefix}/"), to: Bytes(format!("{prefix}0").into_bytes()) }
    }

    /// A page of it from a key on, as of a revision (0: the present).
    pub(super) fn page(&self, from: &Bytes, limit: usize, revision: u64) -> Value {
        json!({
            "key": from, "range_end": self.to, "limit": limit.to_string(), "revision": revision.to_string(),
        })
    }

    /// All that happens to it from a revision on.
    pub(super) fn watch(&self, from_revision: u64) -> Value {
        json!({"create_request": {
            "key": Bytes::of(&self.from),
            "range_end": self.to,
            "start_revision": from_revision.to_string(),
            "fragment": true,
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_leaves_out_is_nothing_and_numbers_are_text() {
        let text = r#"{"result":{"header":{"cluster_id":"324952591200643719","revision":"3","raft_term":"2"},
            "events":[{"type":"DELETE","kv":{"key":"L2EvYg==","mod_revision":"3"}}]}}"#;
        let line: Line = serde_json::from_str(text).expect("a line");
        let watched = line.result.expect("a result");
        assert_eq!(watched.header, Header { cluster_id: 324_952_591_200_643_719, revision: 3 });
        assert!(!watched.created && !watched.canceled && !watched.fragment && watched.compact_revision == 0);
        let event = &watched.events[0];
        assert_eq!((event.kind.as_str(), &event.kv.key), ("DELETE", &Bytes::of("/a/b")));
        assert!(event.kv.value.0.is_empty());
    }

    #[test]
    fn an_object_is_leased_where_there_is_a_lease() {
        let is_leased = |lease: &str| {
            let text = format!(r#"{{"kvs":[{{"key":"L2E="{lease}}}]}}"#);
            serde_json::from_str::<Range>(&text).expect("an answer").kvs[0].is_leased
        };
        for lease in [r#","lease":"-5""#, r#","lease":"7587877394823231233""#, r#","lease":7"#] {
            assert!(is_leased(lease), "{lease}");
        }
        for lease in ["", r#","lease":"0""#, r#","lease":0"#] {
            assert!(!is_leased(lease), "{lease}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_an_error() {
        for text in
            [r#"{"header":{"revision":"x"}}"#, r#"{"header":{"revision":-1}}"#, r#"{"kvs":[{"key":"%"}]}"#]
        {
            assert!(serde_json::from_str::<Range>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_ends_before_what_only_begins_like_it() {
        let asked = Span::below("/apisix").page(&Bytes::of("/apisix/"), 10, 0);
        assert_eq!(asked["key"], json!(Bytes::of("/apisix/")));
        assert_eq!(asked["range_end"], json!(Bytes::of("/apisix0")));
    }
}
