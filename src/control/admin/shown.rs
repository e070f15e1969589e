//! Objects as answers show them: how much of their secrets is told to whom, and the time for which certificates hold.

use serde_json::{Value, json};

use super::objects::key;
use super::{Admin, Call};
use crate::control::mask::masked;
use crate::control::store::Entry;
use crate::control::write::Refusal;
use crate::model::Kind;
use crate::model::reference::is_reference;
use crate::model::settings::AdminSecrets;
use crate::snapshot::validity;

/// How much of secrets is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// `***` in their place.
    Masked,
    /// All but the private keys of certificates.
    AsWritten,
    All,
}

impl Telling {
    /// What a request is told: all that there is only over the control socket, and only where it asks.
    pub(super) fn of(admin: &Admin, call: &Call) -> Result<Self, Refusal> {
        match call.query("secrets") {
            None if call.is_local || call.is_viewer => Ok(Self::Masked),
            None if admin.secrets == AdminSecrets::Shown => Ok(Self::AsWritten),
            None | Some("false") => Ok(Self::Masked),
            Some("true") if call.is_local => Ok(Self::All),
            Some("true") => Err(Refusal::new(403, "secrets are told over the control socket only")),
            Some(other) => Err(Refusal::new(400, format!("secrets: expected true or false, got {other}"))),
        }
    }
}

/// An object as it is shown.
pub(super) fn shown(kind: Kind, id: &str, entry: &Entry, telling: Telling) -> Value {
    let mut value = told(kind, &entry.value, telling);
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

/// What is told of a value.
pub(super) fn told(kind: Kind, value: &Value, telling: Telling) -> Value {
    match telling {
        Telling::Masked => masked(kind, without_keys(kind, value.clone())),
        Telling::AsWritten => without_keys(kind, value.clone()),
        Telling::All => value.clone(),
    }
}

/// A certificate without its private key, which no port tells.
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
pub(super) fn written(kind: Kind, value: Value, telling: Telling) -> Value {
    if telling == Telling::All {
        return value;
    }
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
    if telling == Telling::Masked { masked(kind, value) } else { value }
}

fn is_all_references(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().all(is_all_references),
        _ => false,
    }
}
