//! Objects without their secrets, for whoever may know of an object and not what opens it: the audit log, the history
//! and the control API.
//!
//! A secret is known by the schema (`writeOnly`), by its name, or by where it stands: whatever an authentication
//! plugin is given for a consumer is one, but for names. References such as `$env://NAME` tell nothing and stay.

use serde_json::{Map, Value};

use crate::model::Kind;
use crate::model::reference::is_reference;
use crate::plugins::Card;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";

/// Fields that hold a secret wherever they stand.
const SECRET: [&str; 12] = [
    "client_key",
    "client_secret",
    "password",
    "private_key",
    "secret",
    "secret_access_key",
    "secret_key",
    "access_key_secret",
    "session_token",
    "token",
    "api_key",
    "auth_config",
];
/// Fields of a credential that tell who it is, not what proves it.
const NAMES: [&str; 4] = ["username", "key_id", "user_dn", "algorithm"];

/// An object as it may be shown to anybody.
pub(crate) fn masked(kind: Kind, mut value: Value) -> Value {
    let Value::Object(fields) = &mut value else { return value };
    if kind == Kind::Ssl {
        for name in ["key", "keys"] {
            if let Some(secret) = fields.get_mut(name) {
                hide(secret);
            }
        }
    }
    let of_user = matches!(kind, Kind::Consumer | Kind::Credential);
    let plugins = fields.get_mut("plugins").and_then(Value::as_object_mut);
    for (name, config) in plugins.into_iter().flatten() {
        let Some(card) = Card::of(name) else { continue };
        if of_user && card.credential.is_some() {
            hide_all_but_names(config);
        } else {
            let schema = (card.schema)();
            hide_by_schema(&schema, &schema, config);
        }
    }
    let schema = kind.schema();
    hide_by_schema(&schema, &schema, &mut value);
    hide_by_name(&mut value);
    value
}

/// All text in a value; references stay.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if is_reference(text) => {}
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Null => {}
        other => *other = MASK.into(),
    }
}

fn hide_all_but_names(config: &mut Value) {
    let Value::Object(fields) = config else { return };
    for (_, value) in
        fields.iter_mut().filter(|(name, _)| !NAMES.contains(&name.as_str()) && *name != "_meta")
    {
        hide(value);
    }
}

fn hide_by_name(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if SECRET.contains(&name.as_str()) { hide(value) } else { hide_by_name(value) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_by_name),
        _ => {}
    }
}

/// What the schema says is only ever written.
fn hide_by_schema(root: &Value, schema: &Value, value: &mut Value) {
    let Some(schema) = resolved(root, schema) else { return };
    if schema.get("writeOnly") == Some(&Value::Bool(true)) {
        return hide(value);
    }
    for branches in ["anyOf", "oneOf", "allOf"] {
        for branch in schema.get(branches).and_then(Value::as_array).into_iter().flatten() {
            hide_by_schema(root, branch, value);
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.get("properties").and_then(|known| known.get(name)) {
                    hide_by_schema(root, schema, value);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if let Some(schema) = schema.get("items") {
                    hide_by_schema(root, schema, item);
                }
            }
        }
        _ => {}
    }
}

/// What a schema says itself, behind at most one reference: ours refer to definitions, not to other references.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Map<String, Value>> {
    match schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer)?.as_object(),
        None => schema.as_object(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: Kind, value: Value, expect: Value) {
        assert_eq!(masked(kind, value), expect);
    }

    #[test]
    fn what_proves_a_user_is_hidden_and_who_it_is_is_not() {
        check(
            Kind::Consumer,
            json!({"username": "jack", "plugins": {"basic-auth": {"username": "j", "password": "p"}}}),
            json!({"username": "jack", "plugins": {"basic-auth": {"username": "j", "password": MASK}}}),
        );
        check(
            Kind::Credential,
            json!({"plugins": {"key-auth": {"key": "k"}}}),
            json!({"plugins": {"key-auth": {"key": MASK}}}),
        );
    }

    #[test]
    fn a_key_that_is_only_a_name_stays() {
        let route = json!({"plugins": {"limit-count": {"key": "remote_addr"}}, "upstream": {"key": "uri"}});
        check(Kind::Route, route.clone(), route);
    }

    #[test]
    fn private_keys_are_hidden_and_references_are_not() {
        check(
            Kind::Ssl,
            json!({"cert": "c", "key": "k", "keys": ["k", "$env://KEY"]}),
            json!({"cert": "c", "key": MASK, "keys": [MASK, "$env://KEY"]}),
        );
        check(
            Kind::Upstream,
            json!({"tls": {"client_cert": "c", "client_key": "k"}}),
            json!({"tls": {"client_cert": "c", "client_key": MASK}}),
        );
        check(Kind::Secret, json!({"uri": "u", "token": "t"}), json!({"uri": "u", "token": MASK}));
    }
}
