//! What of an object is secret; and objects without it, for whoever may know of an object and not what opens it: the
//! audit log, the history and the control API.
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
    each_secret(kind, &mut value, &mut |secret| *secret = MASK.into());
    value
}

/// Does something to every secret of an object: text, or whatever else stands where a secret does. One may be met
/// more than once.
pub(super) fn each_secret(kind: Kind, value: &mut Value, act: Act<'_>) {
    let Value::Object(fields) = value else { return };
    if kind == Kind::Ssl {
        for name in ["key", "keys"] {
            if let Some(secret) = fields.get_mut(name) {
                inside(secret, act);
            }
        }
    }
    let of_user = matches!(kind, Kind::Consumer | Kind::Credential);
    let plugins = fields.get_mut("plugins").and_then(Value::as_object_mut);
    for (name, config) in plugins.into_iter().flatten() {
        let Some(card) = Card::of(name) else { continue };
        if of_user && card.credential.is_some() {
            all_but_names(config, act);
        } else {
            let schema = (card.schema)();
            by_schema(&schema, &schema, config, act);
            // In a group it opens nothing, and may open something elsewhere.
            if let Some(credential) = card.credential.filter(|_| kind == Kind::ConsumerGroup) {
                let schema = (credential.schema)();
                by_schema(&schema, &schema, config, act);
            }
        }
    }
    let schema = kind.schema();
    by_schema(&schema, &schema, value, act);
    by_name(value, act);
}

type Act<'a> = &'a mut dyn FnMut(&mut Value);

/// All text in a value; references stay.
fn inside(value: &mut Value, act: Act<'_>) {
    match value {
        Value::String(text) if is_reference(text) => {}
        Value::Array(items) => items.iter_mut().for_each(|item| inside(item, act)),
        Value::Object(fields) => fields.values_mut().for_each(|field| inside(field, act)),
        Value::Null => {}
        other => act(other),
    }
}

fn all_but_names(config: &mut Value, act: Act<'_>) {
    let Value::Object(fields) = config else { return };
    for (_, value) in
        fields.iter_mut().filter(|(name, _)| !NAMES.contains(&name.as_str()) && *name != "_meta")
    {
        inside(value, act);
    }
}

fn by_name(value: &mut Value, act: Act<'_>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if SECRET.contains(&name.as_str()) { inside(value, act) } else { by_name(value, act) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| by_name(item, act)),
        _ => {}
    }
}

/// What the schema says is only ever written.
fn by_schema(root: &Value, schema: &Value, value: &mut Value, act: Act<'_>) {
    let Some(schema) = resolved(root, schema) else { return };
    if schema.get("writeOnly") == Some(&Value::Bool(true)) {
        return inside(value, act);
    }
    for branches in ["anyOf", "oneOf", "allOf"] {
        for branch in schema.get(branches).and_then(Value::as_array).into_iter().flatten() {
            by_schema(root, branch, value, act);
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = schema.get("properties").and_then(|known| known.get(name)) {
                    by_schema(root, schema, value, act);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if let Some(schema) = schema.get("items") {
                    by_schema(root, schema, item, act);
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
        check(
            Kind::ConsumerGroup,
            json!({"plugins": {"key-auth": {"key": "k"}, "limit-count": {"key": "remote_addr"}}}),
            json!({"plugins": {"key-auth": {"key": MASK}, "limit-count": {"key": "remote_addr"}}}),
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
