//! `${{NAME}}` and `${{NAME:=default}}` in configuration become what the environment says.
//!
//! It is done on the values after parsing, so what a variable holds cannot become structure. Plain `$name` and
//! `${name}` stay: they are variables of a request, for plugins. A text that is one substitution and nothing
//! else becomes a number, `true` or `false` if it reads as one and nothing is lost by it (`007` stays text).

use serde_json::{Map, Value};

use super::ConfigError;
use super::path::{Step, render};

/// Asks the environment for a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Substitutes in every text and in every name of a field; tells of each variable that is not set.
pub fn substitute(value: &mut Value, env: Lookup<'_>) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    walk(value, env, &mut Vec::new(), &mut faults);
    faults
}

/// A step that is kept while the value it leads through is changed.
enum Owned {
    Key(String),
    Index(usize),
}

fn walk(value: &mut Value, env: Lookup<'_>, path: &mut Vec<Owned>, faults: &mut Vec<ConfigError>) {
    match value {
        Value::String(text) => match replaced(text, env) {
            Ok(None) => {}
            Ok(Some(new)) => *value = new,
            Err(problem) => faults.push(fault(path, problem)),
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(Owned::Index(index));
                walk(item, env, path, faults);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                path.push(Owned::Key(name.clone()));
                walk(field, env, path, faults);
                path.pop();
            }
            rename(fields, env, path, faults);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Substitutes in the names of fields, such as `{"${{HOST}}:80": 1}`, and keeps their order.
fn rename(fields: &mut Map<String, Value>, env: Lookup<'_>, path: &[Owned], faults: &mut Vec<ConfigError>) {
    if !fields.keys().any(|name| name.contains(OPEN)) {
        return;
    }
    for (name, value) in std::mem::take(fields) {
        let new = match expand(&name, env) {
            Ok(new) => new,
            Err(problem) => {
                faults.push(fault(path, problem));
                name
            }
        };
        if fields.contains_key(&new) {
            faults.push(fault(path, format!("the field {new} is given twice")));
        }
        fields.insert(new, value);
    }
}

fn fault(path: &[Owned], problem: String) -> ConfigError {
    let steps = path.iter().map(|step| match step {
        Owned::Key(key) => Step::Key(key),
        Owned::Index(index) => Step::Index(*index),
    });
    ConfigError::at(render(steps), problem)
}

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// The new value of a text, or nothing where there is nothing to substitute.
fn replaced(text: &str, env: Lookup<'_>) -> Result<Option<Value>, String> {
    if !text.contains(OPEN) {
        return Ok(None);
    }
    let new = expand(text, env)?;
    let whole = text
        .strip_prefix(OPEN)
        .and_then(|rest| rest.find(CLOSE).map(|end| end + CLOSE.len() == rest.len()))
        .unwrap_or(false);
    Ok(Some(if whole { scalar(new) } else { Value::String(new) }))
}

/// Reads a text as a number or a truth, if it says the same when written again.
pub(super) fn scalar(text: String) -> Value {
    let read =
        serde_json::from_str::<Value>(&text).ok().filter(|value| value.is_number() || value.is_boolean());
    let again = read.as_ref().map(Value::to_string);
    match read {
        Some(value) if again.as_ref() == Some(&text) => value,
        _ => Value::String(text),
    }
}

fn expand(text: &str, env: Lookup<'_>) -> Result<String, String> {
    let mut new = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        new.push_str(before);
        let Some((inner, after)) = behind.split_once(CLOSE) else {
            return Err(format!("expected {CLOSE} behind {OPEN}"));
        };
        new.push_str(&variable(inner, env)?);
        rest = after;
    }
    new.push_str(rest);
    Ok(new)
}

fn variable(inner: &str, env: Lookup<'_>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":=") {
        Some((name, default)) => (name.trim(), Some(default.trim())),
        None => (inner.trim(), None),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(legal) {
        let found = super::schema::shown_text(name);
        return Err(format!(
            "expected the name of an environment variable within {OPEN} {CLOSE}, got {found}"
        ));
    }
    // A variable set to nothing is set.
    env(name)
        .or_else(|| default.map(str::to_owned))
        .ok_or_else(|| format!("the environment variable {name} is not set, and no default is given"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::substitute;

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "HOST" => "origin.test",
            "PORT" => "8080",
            "ON" => "true",
            "ZIP" => "007",
            "EXP" => "1e5",
            "EMPTY" => "",
            "EVIL" => "x\", \"admin\": \"y\n- z: ${{HOST}}",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        let check = |written: Value, expected: Value| {
            let mut value = written.clone();
            assert_eq!(substitute(&mut value, &env), [], "{written}");
            assert_eq!(value, expected, "{written}");
        };
        check(json!("${{HOST}}"), json!("origin.test"));
        check(json!("${{ HOST }}:${{PORT}}/x"), json!("origin.test:8080/x"));
        check(json!("${{NONE:=a:=b}}"), json!("a:=b"));
        check(json!("${{NONE:=}}"), json!(""));
        check(json!("${{EMPTY:=x}}"), json!(""));
        check(json!({"a": [{"b": "${{HOST}}"}]}), json!({"a": [{"b": "origin.test"}]}));
        check(json!({"z": 0, "${{HOST}}:80": 1, "a": 2}), json!({"z": 0, "origin.test:80": 1, "a": 2}));
        // Types.
        check(json!("${{PORT}}"), json!(8080));
        check(json!("${{NONE:=0.5}}"), json!(0.5));
        check(json!("${{ON}}"), json!(true));
        check(json!("${{ZIP}}"), json!("007"));
        check(json!("${{EXP}}"), json!("1e5"));
        check(json!("${{PORT}}${{PORT}}"), json!("80808080"));
        check(json!("a${{PORT}}"), json!("a8080"));
        // What is not ours stays.
        check(json!("$remote_addr ${arg_x} {{name}} $$"), json!("$remote_addr ${arg_x} {{name}} $$"));
        check(json!(7), json!(7));
        // What a variable holds is neither structure nor substituted again.
        check(json!({"k": "${{EVIL}}"}), json!({"k": "x\", \"admin\": \"y\n- z: ${{HOST}}"}));
    }

    #[test]
    fn what_is_not_set_is_told_by_name_and_place() {
        let check = |mut value: Value, expected: &[&str]| {
            let faults: Vec<String> = substitute(&mut value, &env).iter().map(ToString::to_string).collect();
            assert_eq!(faults, expected);
        };
        check(
            json!({"routes": [{"uri": "/${{NO_1}}"}, {"uri": "${{NO_2}}"}]}),
            &[
                "routes[0].uri: the environment variable NO_1 is not set, and no default is given",
                "routes[1].uri: the environment variable NO_2 is not set, and no default is given",
            ],
        );
        check(
            json!({"a": {"${{NO}}": 1}}),
            &["a: the environment variable NO is not set, and no default is given"],
        );
        check(json!("${{HOST"), &["expected }} behind ${{"]);
        check(
            json!("${{a.b}}"),
            &["expected the name of an environment variable within ${{ }}, got \"a.b\""],
        );
        check(json!({"x": {"${{HOST}}": 1, "origin.test": 2}}), &["x: the field origin.test is given twice"]);
    }
}
