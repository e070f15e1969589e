//! The fields of a schema as a table of Markdown, for the pages of the documentation: what the types say, in words.

use serde_json::{Map, Value};

use crate::model::schema::joined;

/// The head of a table.
const HEAD: &str = "| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n";
/// What is said in a word, of one and of several: an object with a page of its own, and a value in several forms.
const WORDS: [(&str, [&str; 2]); 3] = [
    ("#/$defs/Upstream", ["[upstream](../objects/upstream.md)", "[upstreams](../objects/upstream.md)"]),
    ("#/$defs/Listen", ["address", "addresses"]),
    ("#/$defs/Entrance", ["address or Unix socket", "addresses or Unix sockets"]),
];
/// A bound that is there for arithmetic only is not worth a word.
const WORTH_A_WORD_MAX: f64 = 1e9;

/// All fields, those of inner objects below their own, and a line on which go together.
pub(super) fn table(schema: &Value) -> String {
    let mut table = Table { root: schema, rows: String::new(), rules: Vec::new() };
    table.object(schema, "");
    let rules = match table.rules.as_slice() {
        [] => String::new(),
        rules => format!("\nTogether: {}.\n", rules.join("; ")),
    };
    format!("{HEAD}{}{rules}", table.rows).trim_end().to_owned()
}

struct Table<'a> {
    root: &'a Value,
    rows: String,
    rules: Vec<String>,
}

impl<'a> Table<'a> {
    fn object(&mut self, schema: &'a Value, prefix: &str) {
        let required: Vec<&str> = texts(schema.get("required")).collect();
        for (name, field) in object_of(schema.get("properties")) {
            self.field(&format!("{prefix}{name}"), field, required.contains(&name.as_str()));
        }
        self.together(schema, prefix);
    }

    fn field(&mut self, name: &str, field: &'a Value, is_required: bool) {
        let forms = self.forms(field);
        let kind = either(forms.iter().map(|form| self.kind(form, false)));
        let default = match field.get("default").filter(|default| !default.is_null()) {
            _ if is_required => "required".to_owned(),
            None => "none".to_owned(),
            Some(_) if forms.iter().any(|form| has_fields(form)) => "as below".to_owned(),
            Some(default) => code(default),
        };
        let cells = [format!("`{name}`"), kind, default, self.allowed(field), meaning(field, &forms)];
        // A pipe would end the cell, in code as well.
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        self.rows += &format!("| {} |\n", cells.join(" | "));
        for form in forms {
            self.inner(name, form);
        }
    }

    /// The fields of the objects that a value is, or has in it.
    fn inner(&mut self, name: &str, form: &'a Value) {
        if word_of(form).is_some() {
            return;
        }
        self.object(form, &format!("{name}."));
        for (keyword, place) in [("items", "[]"), ("additionalProperties", ".*")] {
            for inner in form.get(keyword).map_or_else(Vec::new, |inner| self.forms(inner)) {
                self.inner(&format!("{name}{place}"), inner);
            }
        }
    }

    /// The forms that a value may have, but for `null`, which stands for an absent field.
    fn forms(&self, schema: &'a Value) -> Vec<&'a Value> {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return if word_of(schema).is_some() {
                vec![schema]
            } else {
                found.map_or(vec![], |found| self.forms(found))
            };
        }
        let options = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        match (options, schema.get("type")) {
            (Some(options), None) => options.iter().flat_map(|option| self.forms(option)).collect(),
            (_, Some(Value::String(kind))) if kind == "null" => Vec::new(),
            _ => vec![schema],
        }
    }

    /// What a value is: `text`, `list of objects`.
    fn kind(&self, form: &'a Value, is_plural: bool) -> String {
        let s = |one: &str| if is_plural { format!("{one}s") } else { one.to_owned() };
        if let Some(words) = word_of(form) {
            return words[usize::from(is_plural)].to_owned();
        }
        let of = |keyword| {
            let inner = form.get(keyword).map_or_else(Vec::new, |inner| self.forms(inner));
            let words = either(inner.into_iter().map(|form| self.kind(form, true)));
            if words.is_empty() { words } else { format!(" of {words}") }
        };
        let known = |kind: &str| match kind {
            "string" if form["writeOnly"] == true => s("secret text"),
            "string" => s("text"),
            "integer" => s("whole number"),
            "number" => s("number"),
            "boolean" => "true or false".to_owned(),
            "array" => s("list") + &of("items"),
            "object" => s("object") + &of("additionalProperties"),
            other => other.to_owned(),
        };
        let kinds = kinds(form).into_iter().filter(|kind| *kind != "null");
        let words = either(kinds.map(known));
        match (words.is_empty(), form.is_boolean()) {
            (false, _) => words,
            (true, true) => String::new(),
            (true, false) => "anything".to_owned(),
        }
    }

    /// Within which bounds.
    fn allowed(&self, field: &'a Value) -> String {
        let forms = self.forms(field);
        let mut words: Vec<String> = Vec::new();
        let choices: Vec<String> = forms.iter().flat_map(|form| choices(form)).map(code).collect();
        if !choices.is_empty() {
            words.push(choices.join(", "));
        }
        if let Some(expected) = expected_of_forms(field) {
            return expected.to_owned();
        }
        words.extend(forms.into_iter().map(|form| self.bounds(form)));
        words.retain(|word| !word.is_empty());
        words.dedup();
        words.join("; ")
    }

    fn bounds(&self, form: &'a Value) -> String {
        let kinds = kinds(form);
        let has = |kind: &str| kinds.contains(&kind);
        let mut words = Vec::new();
        if has("integer") || has("number") {
            words.push(range(form, ["minimum", "exclusiveMinimum", "maximum"], ""));
        } else if let Some(expected) = form.get("x-expected").and_then(Value::as_str) {
            return expected.to_owned();
        }
        if has("string") {
            words.push(range(form, ["minLength", "", "maxLength"], " characters"));
            let pattern = form.get("pattern").and_then(Value::as_str);
            words.extend(pattern.map(|pattern| format!("matching `{pattern}`")));
        }
        if has("object") {
            words.push(range(form, ["minProperties", "", "maxProperties"], " fields"));
        }
        if has("array") {
            words.push(range(form, ["minItems", "", "maxItems"], ""));
            if form["uniqueItems"] == true {
                words.push("no two alike".to_owned());
            }
            let each = form.get("items").map_or_else(String::new, |items| self.allowed(items));
            if !each.is_empty() {
                words.push(format!("each: {each}"));
            }
        }
        words.retain(|word| !word.is_empty());
        words.join(", ")
    }

    /// Which fields are given with which, in words.
    fn together(&mut self, schema: &'a Value, prefix: &str) {
        let quoted = |name: &str| format!("`{prefix}{name}`");
        let parts = schema.get("allOf").and_then(Value::as_array);
        for part in std::iter::once(schema).chain(parts.into_iter().flatten()) {
            for (keyword, how_many) in [("oneOf", "exactly one of"), ("anyOf", "at least one of")] {
                let options = part.get(keyword).and_then(Value::as_array);
                let groups: Option<Vec<Vec<&str>>> =
                    options.map(|all| all.iter().map(group).collect()).unwrap_or(None);
                let Some(groups) = groups else { continue };
                let words = groups
                    .iter()
                    .map(|group| group.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" with "));
                self.rules.push(format!("{how_many} {}", and(&words.collect::<Vec<_>>())));
            }
            match part.get("not").and_then(group).as_deref() {
                Some([one]) => self.rules.push(format!("never {}", quoted(one))),
                Some(several) => {
                    let words: Vec<String> = several.iter().map(|name| quoted(name)).collect();
                    self.rules.push(format!("at most one of {}", and(&words)));
                }
                None => {}
            }
        }
        for (name, others) in object_of(schema.get("dependentRequired")) {
            let others: Vec<String> = texts(Some(others)).map(quoted).collect();
            self.rules.push(format!("{} only with {}", quoted(name), and(&others)));
        }
        if prefix.is_empty() && schema["minProperties"] == 1 {
            self.rules.push("at least one field".to_owned());
        }
    }
}

/// What it says, and what each of its choices says.
fn meaning(field: &Value, forms: &[&Value]) -> String {
    let says = |schema: &Value| {
        let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let own = match (says(field), forms) {
        (own, [form]) if own.is_empty() => says(form),
        (own, _) => own,
    };
    let of_choice = |form: &&Value| {
        let (choice, says) = (form.get("const")?, says(form));
        (!says.is_empty()).then(|| format!("{}: {}", code(choice), uncapitalized(says.trim_end_matches('.'))))
    };
    let choices: Vec<String> = forms.iter().filter_map(of_choice).collect();
    if choices.is_empty() { own } else { format!("{own} {}.", choices.join("; ")) }
}

/// A sentence as a part of another.
fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().filter(|_| !letters.as_str().starts_with(char::is_uppercase));
    first.map_or_else(|| text.to_owned(), |first| first.to_lowercase().chain(letters).collect())
}

fn word_of(schema: &Value) -> Option<[&'static str; 2]> {
    let target = schema.get("$ref")?.as_str()?;
    WORDS.iter().find(|(known, _)| *known == target).map(|(_, words)| *words)
}

/// What stands for the bounds of all forms of a value.
fn expected_of_forms(schema: &Value) -> Option<&str> {
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array)
        && let [one] = options.iter().filter(|option| option["type"] != "null").collect::<Vec<_>>().as_slice()
    {
        return expected_of_forms(one);
    }
    schema.get("x-expected")?.as_str().filter(|_| kinds(schema).is_empty())
}

fn has_fields(form: &Value) -> bool {
    object_of(form.get("properties")).next().is_some()
}

fn choices(form: &Value) -> Vec<&Value> {
    let all = form.get("enum").and_then(Value::as_array).into_iter().flatten();
    form.get("const").into_iter().chain(all).filter(|choice| !choice.is_null()).collect()
}

fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        several => texts(several).collect(),
    }
}

/// The names of a schema that says nothing but `required`.
fn group(schema: &Value) -> Option<Vec<&str>> {
    let fields = schema.as_object()?;
    (fields.len() == 1 && fields.contains_key("required")).then(|| texts(schema.get("required")).collect())
}

/// `1 to 5`, `above 0`, `at most 7 characters`; `keywords` name least, above and most.
fn range(form: &Value, keywords: [&str; 3], unit: &str) -> String {
    let [least, above, most] = keywords.map(|keyword| form.get(keyword).and_then(Value::as_f64));
    let most = most.filter(|most| *most < WORTH_A_WORD_MAX);
    // A length of at least 0 is no bound.
    let least = least.filter(|least| unit.is_empty() && !kinds(form).contains(&"array") || *least > 0.0);
    let least = least.filter(|least| *least > -WORTH_A_WORD_MAX);
    let unit_of = |count: f64| if count == 1.0 { unit.trim_end_matches('s') } else { unit };
    match (least, above, most) {
        (Some(least), _, Some(most)) if least == most => format!("exactly {least}{}", unit_of(least)),
        (Some(least), _, Some(most)) => format!("{least} to {most}{unit}"),
        (Some(least), _, None) => format!("at least {least}{}", unit_of(least)),
        (None, Some(above), Some(most)) => format!("above {above}, at most {most}"),
        (None, Some(above), None) => format!("above {above}"),
        (None, None, Some(most)) => format!("at most {most}{}", unit_of(most)),
        (None, None, None) => String::new(),
    }
}

/// A value as the user would write it.
fn code(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn object_of(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// `a, b or c`, each once.
fn either(words: impl Iterator<Item = String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !each.contains(&word) {
            each.push(word);
        }
    }
    if each.is_empty() { String::new() } else { joined(&each, "or") }
}

/// `a, b and c`.
fn and(words: &[String]) -> String {
    joined(words, "and")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::table;

    #[test]
    fn a_row_tells_type_default_bounds_and_meaning() {
        let check = |field: Value, expected: &str| {
            let table = table(&json!({"properties": {"a": field}}));
            assert_eq!(table.lines().skip(2).collect::<Vec<_>>(), [format!("| `a` | {expected} |")]);
        };
        let count =
            json!({"type": "integer", "minimum": 1, "maximum": 5, "default": 3, "description": "How\nmany."});
        check(count, "whole number | `3` | 1 to 5 | How many.");
        let span =
            json!({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1e9, "default": null});
        check(span, "number | none | above 0 | ");
        check(
            json!({"type": "string", "minLength": 1, "default": ""}),
            "text | `\"\"` | at least 1 character | ",
        );
        check(json!({"type": "string", "pattern": "^(a|b)$"}), "text | none | matching `^(a\\|b)$` | ");
        check(json!({"type": "string", "pattern": "^/", "x-expected": "a path"}), "text | none | a path | ");
        check(json!({"type": "string", "writeOnly": true}), "secret text | none |  | ");
        check(
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}),
            "list of true or false | none | exactly 2 | ",
        );
        check(
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            "object of whole numbers | none |  | ",
        );
        let mode = json!({"description": "Which.", "oneOf": [
            {"type": "string", "const": "a", "description": "A letter."}, {"type": "string", "const": "b"},
        ]});
        check(mode, "text | none | `a`, `b` | Which. `a`: a letter.");
        let either = json!({"x-expected": "one or many", "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}]});
        check(either, "text or whole number | none | one or many | ");
        check(json!(true), " | none |  | ");
        check(json!({}), "anything | none |  | ");
    }

    #[test]
    fn fields_of_inner_objects_follow_below_their_path_and_rules_below_the_table() {
        let schema = json!({
            "properties": {
                "one": {"$ref": "#/$defs/One"},
                "several": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/One"}, {"type": "null"}]}},
                "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/One"}},
                "upstream": {"$ref": "#/$defs/Upstream"},
            },
            "required": ["one"],
            "oneOf": [{"required": ["one"]}, {"required": ["several", "by_name"]}],
            "not": {"required": ["by_name"]},
            "dependentRequired": {"several": ["by_name"]},
            "$defs": {
                "One": {
                    "type": "object", "properties": {"x": {"type": "boolean", "default": true}},
                    "not": {"required": ["x", "y"]},
                },
                "Upstream": {"type": "object", "properties": {"nodes": {}}},
            },
        });
        let told = table(&schema);
        let names: Vec<&str> = told.lines().filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(
            names[..7],
            ["one", "one.x", "several", "several[].x", "by_name", "by_name.*.x", "upstream"]
        );
        assert!(told.contains("| `one` | object | required |"), "{told}");
        assert!(told.contains("| `upstream` | [upstream](../objects/upstream.md) |"), "{told}");
        assert!(told.ends_with(
            "exactly one of `one` and `several` with `by_name`; never `by_name`; `several` only with `by_name`."
        ));
        assert!(told.contains("\nTogether: at most one of `one.x` and `one.y`; "), "{told}");
    }
}
