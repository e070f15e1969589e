//! The way back from [`mask`](super::mask): where whoever was shown `***` for a secret writes that, the secret that is held
//! is meant.

use serde_json::Value;

use super::mask::{MASK, masked};
use crate::model::path::{Step, render};
use crate::model::{ConfigError, Kind};

/// Puts the secrets that are held where the object says `***` for them; each that is not known is a fault.
pub(crate) fn unmask(kind: Kind, value: &mut Value, held: Option<&Value>) -> Vec<ConfigError> {
    let mut probe = value.clone();
    if !replace(&mut probe, MASK, "a secret") {
        return Vec::new();
    }
    // What is masked again is the place of a secret; any other text is meant as it is.
    let places = masked(kind, probe);
    let mut faults = Vec::new();
    fill(value, &places, held, &mut faults);
    faults
}

/// Replaces a text wherever it is all there is. Whether it was anywhere.
fn replace(value: &mut Value, from: &str, to: &str) -> bool {
    let mut items: Vec<&mut Value> = match value {
        Value::String(text) if text == from => {
            *text = to.to_owned();
            return true;
        }
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return false,
    };
    // All of them, not up to the first.
    items.iter_mut().filter_map(|item| replace(item, from, to).then_some(())).count() > 0
}

fn fill(value: &mut Value, places: &Value, held: Option<&Value>, faults: &mut Vec<ConfigError>) {
    match value {
        Value::String(text) if text == MASK && places.as_str() == Some(MASK) => match held {
            // Numbers and switches beside a secret are masked as it is.
            Some(held @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => *value = held.clone(),
            _ => {
                let problem = format!("expected the secret, as none is held that {MASK} could stand for");
                faults.push(ConfigError::new(problem));
            }
        },
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                let inside = faults.len();
                fill(item, &places[at], held.and_then(|held| held.get(at)), faults);
                put_under(Step::Index(at), &mut faults[inside..]);
            }
        }
        Value::Object(fields) => {
            for (name, item) in fields.iter_mut() {
                let inside = faults.len();
                fill(item, &places[name.as_str()], held.and_then(|held| held.get(name)), faults);
                put_under(Step::Key(name), &mut faults[inside..]);
            }
        }
        _ => {}
    }
}

fn put_under(step: Step<'_>, faults: &mut [ConfigError]) {
    for fault in faults {
        *fault = fault.clone().under(&render([step]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_masked_and_written_back_is_what_was_held() {
        for (kind, held) in [
            (
                Kind::Consumer,
                json!({"username": "jack", "plugins": {"basic-auth": {"username": "j", "password": "p"}}}),
            ),
            (Kind::Secret, json!({"uri": "u", "token": "$env://TOKEN"})),
            (Kind::Ssl, json!({"cert": "c", "key": "k", "certs": ["d"], "keys": ["l"]})),
            // What is no text is masked where it stands beside a secret.
            (Kind::Credential, json!({"plugins": {"key-auth": {"key": 7, "on": true}}})),
        ] {
            let mut value = masked(kind, held.clone());
            assert_eq!(unmask(kind, &mut value, Some(&held)), [], "{held}");
            assert_eq!(value, held);
        }
    }

    #[test]
    fn what_nobody_holds_is_named_and_stars_elsewhere_are_stars() {
        let mut value = json!({"desc": MASK, "plugins": {"key-auth": {"key": MASK}}});
        let held = json!({"plugins": {"basic-auth": {"password": "p"}}});
        for held in [None, Some(&held)] {
            let faults = unmask(Kind::Consumer, &mut value, held);
            assert_eq!(faults.len(), 1);
            assert_eq!(faults[0].path, "plugins.key-auth.key");
        }
        assert_eq!(value["desc"], MASK);
        let faults = unmask(Kind::Ssl, &mut json!({"keys": ["k", MASK]}), Some(&json!({"keys": ["k"]})));
        assert_eq!(faults[0].path, "keys[1]");
    }
}
