//! Limits that count a request, by what their plugins were told, with the key that it would be counted under.

use serde_json::{Map, Value, json};

use super::Grounds;
use crate::base::clock;
use crate::exchange::Exchange;
use crate::expr::{Template, Var, Vars as _};
use crate::plugin::{Hooks as _, Look, Mount, Whose};
use crate::plugins::AnyPlugin;

/// Plugins that limit, besides [`OWN`].
const OTHERS: [&str; 4] = ["limit-count", "graphql-limit-count", "limit-req", "limit-conn"];
/// The plugin that tells all of its limits itself.
const OWN: &str = "limit";
/// What plugins know besides what is written.
const LEFT: [&str; 2] = ["remaining", "reset_in"];
/// Rules of one plugin that are told of.
const RULES_MAX: usize = 50;
/// Fields of theirs that say how much; none is a secret.
const FIELDS: [&str; 12] = [
    "count",
    "time_window",
    "window_type",
    "rate",
    "burst",
    "conn",
    "default_conn_delay",
    "policy",
    "group",
    "rejected_code",
    "key",
    "key_type",
];

/// The limits of one plugin; most have none.
pub(super) fn limits(grounds: &Grounds<'_>, mount: &Mount<AnyPlugin>, ex: &Exchange) -> Vec<Value> {
    let name = mount.plugin.name();
    let standing = grounds.ledger.map_or_else(Vec::new, |ledger| {
        mount.plugin.standing(Look { ledger, now: clock::now(), whose: Whose::Request(ex) })
    });
    if name == OWN {
        return standing
            .into_iter()
            .map(|mut limit| {
                limit["from"] = (*mount.owner).into();
                limit
            })
            .collect();
    }
    if !OTHERS.contains(&name) {
        return Vec::new();
    }
    let mut limits = written(grounds, mount, ex);
    for (limit, left) in limits.iter_mut().zip(standing).filter(|(_, left)| !left.is_null()) {
        for field in LEFT {
            limit[field] = left[field].clone();
        }
    }
    limits
}

/// What is written of a plugin's limits.
fn written(grounds: &Grounds<'_>, mount: &Mount<AnyPlugin>, ex: &Exchange) -> Vec<Value> {
    let name = mount.plugin.name();
    let config = grounds.archive.plugin(&mount.owner, name).unwrap_or_default();
    let of = |fields: &Value, key_type: &str| {
        let mut limit = Map::new();
        limit.insert("plugin".to_owned(), name.into());
        limit.insert("from".to_owned(), (*mount.owner).into());
        let given = FIELDS.iter().filter_map(|field| Some((*field, fields.get(field)?)));
        limit.extend(given.map(|(field, value)| (field.to_owned(), value.clone())));
        let key = fields.get("key").and_then(Value::as_str).unwrap_or("remote_addr");
        limit.insert("key".to_owned(), key.into());
        limit.insert("key_value".to_owned(), key_value(grounds, key, key_type, ex));
        Value::Object(limit)
    };
    match config.get("rules").and_then(Value::as_array) {
        Some(rules) => {
            let mut limits: Vec<Value> =
                rules.iter().take(RULES_MAX).map(|rule| of(rule, "var_combination")).collect();
            if let Some(beyond) = rules.len().checked_sub(RULES_MAX).filter(|beyond| *beyond > 0) {
                limits.push(json!({"plugin": name, "from": &*mount.owner, "rules_left_off": beyond}));
            }
            limits
        }
        None => {
            let key_type = config.get("key_type").and_then(Value::as_str).unwrap_or("var");
            vec![of(&config, key_type)]
        }
    }
}

/// What a request is counted under; null: all alike.
fn key_value(grounds: &Grounds<'_>, key: &str, key_type: &str, ex: &Exchange) -> Value {
    let address = || Value::from(ex.client.ip.to_string());
    match key_type {
        "constant" => Value::Null,
        "var_combination" => {
            let template = Template::parse(key);
            let mut text = Vec::new();
            let filled = template.render(ex, &mut text);
            if template.is_constant() {
                Value::Null
            } else if filled == 0 || text.is_empty() {
                address()
            } else if template.vars().any(|var| grounds.veil.variable(var, Some(b"x")) != "x") {
                "***".into()
            } else {
                grounds.veil.plain(&text).into()
            }
        }
        _ => {
            let var = Var::parse(key);
            match ex.var(&var).filter(|value| !value.is_empty()) {
                Some(value) => grounds.veil.variable(&var, Some(&value)),
                None => address(),
            }
        }
    }
}
