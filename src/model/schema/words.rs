//! What a schema expects, and what was found instead, in words.

use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::check::resolve;

/// Most characters of a found text that a message repeats.
const SHOWN_CHARS_MAX: usize = 48;
/// How far `$ref` and alternatives are followed for words; deeper ones are "another form".
const DESCRIBED_DEPTH_MAX: usize = 8;

/// A found value as a message shows it: `"ten"`, `7`, `a list of 3`.
pub(in crate::model) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => shown_text(text),
        Value::Array(items) if items.is_empty() => "an empty list".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) if fields.is_empty() => "an empty object".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A found text as a message shows it: quoted, and cut where it is long.
pub(in crate::model) fn shown_text(text: &str) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => quoted(text),
        Some((end, _)) => {
            let count = text.chars().count();
            format!("{} and so on, {count} characters", quoted(&text[..end]))
        }
    }
}

/// What a schema asks for: `a whole number above 0`, `one of http, https or grpc`.
pub(super) fn expected(root: &Value, schema: &Value) -> String {
    describe(root, schema, 0)
}

/// `a, b or c`.
fn either(words: &[String]) -> String {
    joined(words, "or")
}

/// `a, b and c`.
pub(super) fn both(words: &[String]) -> String {
    joined(words, "and")
}

/// `a, b LAST c`.
pub fn joined(words: &[String], last: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// The texts that a schema of fixed choices names, for "did you mean".
pub(super) fn choices<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolve(root, schema);
    if let Some(one) = schema.get("const") {
        return vec![one];
    }
    if let Some(Value::Array(all)) = schema.get("enum") {
        return all.iter().collect();
    }
    let mut found = Vec::new();
    for branch in branches(schema) {
        let branch = resolve(root, branch);
        match (branch.get("const"), branch.get("enum")) {
            (Some(one), _) => found.push(one),
            (None, Some(Value::Array(all))) => found.extend(all),
            _ => return Vec::new(),
        }
    }
    found
}

/// The alternatives of a schema but for `null`, which stands for an absent field and is never worth a word.
pub(super) fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|keyword| schema.get(keyword)?.as_array())
        .flatten()
        .filter(|branch| branch.get("type").and_then(Value::as_str) != Some("null"))
}

fn describe(root: &Value, schema: &Value, depth: usize) -> String {
    let mut words = Vec::new();
    forms(root, schema, depth, &mut words);
    either(&words)
}

/// The words for each form a value may have, alternatives of alternatives included.
fn forms(root: &Value, schema: &Value, depth: usize, words: &mut Vec<String>) {
    let mut say = |word: String| {
        if !words.contains(&word) {
            words.push(word);
        }
    };
    let schema = resolve(root, schema);
    if depth > DESCRIBED_DEPTH_MAX {
        return say("another form".to_owned());
    }
    if let Some(expected) = schema.get("x-expected").and_then(Value::as_str) {
        return say(expected.to_owned());
    }
    let choices = choices(root, schema);
    if !choices.is_empty() {
        return say(describe_choices(&choices));
    }
    let types = schema.as_object().map(types).unwrap_or_default();
    match schema {
        Value::Object(fields) if !types.is_empty() => {
            types
                .into_iter()
                .filter(|name| *name != "null")
                .for_each(|name| say(describe_type(name, fields)));
        }
        Value::Object(_) if branches(schema).next().is_some() => {
            branches(schema).for_each(|branch| forms(root, branch, depth + 1, words));
        }
        Value::Bool(false) => say("nothing".to_owned()),
        _ => say("anything".to_owned()),
    }
}

fn describe_choices(choices: &[&Value]) -> String {
    let names: Vec<String> = choices
        .iter()
        .filter(|choice| !choice.is_null())
        .map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned))
        .collect();
    if names.len() == 1 { either(&names) } else { format!("one of {}", either(&names)) }
}

/// The types a schema names, be it one or several.
pub(super) fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn describe_type(name: &str, schema: &Map<String, Value>) -> String {
    let count = |keyword| schema.get(keyword).and_then(Value::as_u64).filter(|count| *count > 0);
    match name {
        "integer" => format!("a whole number{}", Bounds::of(schema).words()),
        "number" => format!("a number{}", Bounds::of(schema).words()),
        "boolean" => "true or false".to_owned(),
        "null" => "null".to_owned(),
        "string" => match (count("minLength"), count("maxLength"), schema.get("pattern")) {
            (_, _, Some(pattern)) => format!("text matching {}", pattern.as_str().unwrap_or_default()),
            (Some(1), None, _) => "text that is not empty".to_owned(),
            (Some(least), None, _) => format!("text of at least {least} characters"),
            (None, Some(most), _) => format!("text of at most {most} characters"),
            (Some(least), Some(most), _) => format!("text of {least} to {most} characters"),
            (None, None, _) => "text".to_owned(),
        },
        "array" => match (count("minItems"), count("maxItems")) {
            (None, None) => "a list".to_owned(),
            (Some(least), None) => format!("a list of at least {least}"),
            (None, Some(most)) => format!("a list of at most {most}"),
            (Some(least), Some(most)) => format!("a list of {least} to {most}"),
        },
        "object" => match (count("minProperties"), count("maxProperties")) {
            (None, None) => "an object".to_owned(),
            (Some(least), None) => format!("an object of at least {least} {}", fields(least)),
            (None, Some(most)) => format!("an object of at most {most} {}", fields(most)),
            (Some(least), Some(most)) => format!("an object of {least} to {most} fields"),
        },
        other => other.to_owned(),
    }
}

fn fields(count: u64) -> &'static str {
    if count == 1 { "field" } else { "fields" }
}
