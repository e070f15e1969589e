//! Objects as answers show them: without the private keys of certificates, and with the time for which these hold.

use serde_json::{Value, json};

use super::objects::key;
use crate::control::mask::masked;
use crate::control::store::Entry;
use crate::model::Kind;
use crate::model::reference::is_reference;
use crate::snapshot::validity;

/// An object as it is shown; to a viewer without any secret.
pub(super) fn shown(kind: Kind, id: &str, entry: &Entry, is_viewer: bool) -> Value {
    let mut value = without_keys(kind, entry.value.clone());
    if is_viewer {
        value = masked(kind, value);
    }
    if kind == Kind::Ssl {
        tell_validity(&mut value);
    }
    let mut shown = json!({
        "key": key(kind, id),
        "value": value,
        "createdIndex": entry.created,
        "modifiedIndex": entry.modified,
    });
    if let Some(end) = entry.term.end() {
        shown["expires"] = json!(end / 1000);
    }
    shown
}

/// A certificate's private key is never shown to anybody.
pub(super) fn without_keys(kind: Kind, mut value: Value) -> Value {
    if let (Kind::Ssl, Value::Object(fields)) = (kind, &mut value) {
        fields.shift_remove("key");
        fields.shift_remove("keys");
    }
    value
}

/// Tells when a certificate holds, unless whoever wrote it has.
fn tell_validity(value: &mut Value) {
    let Some((start, end)) = value.get("cert").and_then(Value::as_str).and_then(validity) else { return };
    if let Value::Object(fields) = value {
        for (name, moment) in [("validity_start", start), ("validity_end", end)] {
            fields.entry(name).or_insert_with(|| json!(moment));
        }
    }
}

/// What a write has made of an object. A key that is only referred to is told: the reference is no secret.
pub(super) fn written(kind: Kind, value: Value) -> Value {
    let references: Vec<(String, Value)> = match (kind, &value) {
        (Kind::Ssl, Value::Object(fields)) => ["key", "keys"]
            .iter()
            .filter_map(|name| fields.get_key_value(*name))
            .filter(|(_, held)| is_all_references(held))
            .map(|(name, held)| (name.clone(), held.clone()))
            .collect(),
        _ => Vec::new(),
    };
    let mut value = without_keys(kind, value);
    if let Value::Object(fields) = &mut value {
        fields.extend(references);
    }
    value
}

fn is_all_references(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().all(is_all_references),
        _ => false,
    }
}
