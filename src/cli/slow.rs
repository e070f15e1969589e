//! Patterns of an object that need backtracking, for `check` to warn of: they are matched by trying.

use serde_json::Value;

use crate::expr::pattern::{Pattern, compile_regex, needs_backtracking};
use crate::model::path::{Step, render};
use crate::model::{ConfigError, Raw};

/// Fields with patterns in them: conditions of a route, and what plugins are told.
const FIELDS: [&str; 2] = ["vars", "plugins"];

/// Each such pattern, with its place.
pub(super) fn patterns(raw: &Raw) -> Vec<ConfigError> {
    let mut found = Vec::new();
    for field in FIELDS {
        if let Some(value) = raw.value.get(field) {
            walk(value, &mut vec![Step::Key(field)], &mut found);
        }
    }
    found.into_iter().map(|fault| fault.in_object(raw.name())).collect()
}

fn walk<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, found: &mut Vec<ConfigError>) {
    match value {
        Value::String(text) => {
            // Any text may be a pattern; what is none seldom looks like one of these.
            if let Some(why) = needs_backtracking(text)
                && matches!(compile_regex(text, false), Ok(Pattern::Trying(_)))
            {
                let problem = format!(
                    "the pattern uses {why}: it is matched by trying, which is slower, and given up when it takes too long"
                );
                found.push(ConfigError::at(render(path.iter().copied()), problem));
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(Step::Index(at));
                walk(item, path, found);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push(Step::Key(name));
                walk(field, path, found);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
