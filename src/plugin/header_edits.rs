//! Changes to the headers of a message as a user writes them, for plugins that rewrite requests or responses.
//!
//! Two forms: `{"add": {…}, "set": {…}, "remove": […]}`, carried out in that order, or flat `{"X-Name": "value"}`,
//! which sets. Values are templates; one that comes out empty removes what it would have set. An object that has
//! a field `add`, `set` or `remove` is of the first form.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::base::text::is_token;
use crate::exchange::{Exchange, Reply};
use crate::expr::Template;
use crate::model::ConfigError;
use crate::proto::head::{HeaderId, HeaderList};

/// Headers that only the gateway writes, since where a body ends depends on them (RFC 9112 6).
pub(super) const FRAMING: [HeaderId; 2] = [HeaderId::ContentLength, HeaderId::TransferEncoding];

/// As the user writes it.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    add: Vec<(String, String)>,
    set: Vec<(String, Vec<String>)>,
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operations {
    #[serde(default)]
    add: Option<Additions>,
    #[serde(default)]
    set: Option<Map<String, Value>>,
    #[serde(default)]
    remove: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Additions {
    /// `{"X-Name": "value"}`, as in `proxy-rewrite`.
    Fields(Map<String, Value>),
    /// `["X-Name: value"]`, as in `response-rewrite`.
    Lines(Vec<String>),
}

fn is_operation(name: &str) -> bool {
    matches!(name, "add" | "set" | "remove")
}

/// The texts of a value: one, or one a line.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Array(items) => {
            let each = items.iter().map(|item| texts(item).filter(|_| !item.is_array()));
            each.collect::<Option<Vec<_>>>().map(|lines| lines.concat())
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

impl<'de> Deserialize<'de> for HeaderEdits {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(input)?;
        let lines = |(name, value): (&String, &Value)| {
            texts(value).map(|texts| (name.clone(), texts)).ok_or_else(|| {
                D::Error::custom(format!("expected text, a number or a list of them for {name}"))
            })
        };
        if !fields.keys().any(|name| is_operation(name)) {
            let set = fields.iter().map(lines).collect::<Result<_, _>>()?;
            return Ok(Self { set, ..Self::default() });
        }
        let operations: Operations =
            serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        let mut edits = Self { remove: operations.remove.unwrap_or_default(), ..Self::default() };
        edits.set = operations.set.iter().flatten().map(lines).collect::<Result<_, _>>()?;
        match operations.add {
            None => {}
            Some(Additions::Fields(fields)) => {
                for field in &fields {
                    let (name, texts) = lines(field)?;
                    edits.add.extend(texts.into_iter().map(|text| (name.clone(), text)));
                }
            }
            Some(Additions::Lines(lines)) => {
                for line in lines {
                    let (name, text) = line
                        .split_once(':')
                        .ok_or_else(|| D::Error::custom(format!("expected `name: value`, got {line:?}")))?;
                    edits.add.push((name.trim().to_owned(), text.trim().to_owned()));
                }
            }
        }
        Ok(edits)
    }
}

impl JsonSchema for HeaderEdits {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HeaderEdits".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = serde_json::json!({ "type": ["string", "number"] });
        let value = serde_json::json!({
            "x-expected": "text, a number or a list of them",
            "anyOf": [scalar, { "type": "array", "items": scalar }],
        });
        let fields = serde_json::json!({ "type": "object", "additionalProperties": value });
        let line =
            serde_json::json!({ "type": "string", "pattern": ":", "x-expected": "text such as name: value" });
        json_schema!({
            "type": "object",
            "minProperties": 1,
            "if": { "anyOf": [{ "required": ["add"] }, { "required": ["set"] }, { "required": ["remove"] }] },
            "then": {
                "properties": {
                    "add": {
                        "x-expected": "an object of headers or a list of name: value",
                        "anyOf": [fields, { "type": "array", "items": line }],
                    },
                    "set": fields,
                    "remove": { "type": "array", "items": { "type": "string" } },
                },
                "additionalProperties": false,
            },
            "else": { "additionalProperties": value },
        })
    }
}

impl HeaderEdits {
    /// Edits that add these lines.
    pub fn adding(lines: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { add: lines.into_iter().collect(), ..Self::default() }
    }

    /// Reads the templates; names that no header can have are refused, and those of framing.
    pub fn compile(self) -> Result<HeaderChanges, ConfigError> {
        for (name, at) in [
            self.add.iter().map(|(name, _)| (name, true)).collect::<Vec<_>>(),
            self.set.iter().map(|(name, _)| (name, true)).collect(),
            self.remove.iter().map(|name| (name, false)).collect(),
        ]
        .concat()
        {
            if !is_token(name.as_bytes()) {
                return Err(ConfigError::at(
                    "headers",
                    format!("invalid field character in header {name:?}"),
                ));
            }
            if at && FRAMING.contains(&HeaderId::of(name.as_bytes())) {
                return Err(ConfigError::at(
                    "headers",
                    format!("{name} says where a body ends, which only the gateway may"),
                ));
            }
        }
        let add = self.add.into_iter().map(|(name, text)| (name, Template::parse(&text))).collect();
        let set = self
            .set
            .into_iter()
            .map(|(name, texts)| (name, texts.iter().map(|text| Template::parse(text)).collect()))
            .collect();
        Ok(HeaderChanges { add, set, remove: self.remove })
    }
}

/// As the core runs it.
#[derive(Debug, Default)]
pub struct HeaderChanges {
    add: Vec<(String, Template)>,
    set: Vec<(String, Vec<Template>)>,
    remove: Vec<String>,
}

impl HeaderChanges {
    /// Takes out what would be set for one header, for who treats it specially.
    pub fn take(&mut self, name: &str) -> Option<Template> {
        let at = self.set.iter().position(|(set, _)| set.eq_ignore_ascii_case(name))?;
        self.set.remove(at).1.into_iter().next()
    }

    /// Carries them out on the headers that `of` names. `captures` are `$0`, `$1`, … of the templates.
    pub fn apply(
        &self,
        ex: &mut Exchange,
        of: fn(&mut Exchange) -> &mut HeaderList,
        captures: &[&[u8]],
        scratch: &mut Vec<u8>,
    ) {
        for (name, template) in &self.add {
            scratch.clear();
            template.render_with(ex, captures, scratch);
            if !scratch.is_empty() {
                of(ex).add(name, scratch);
            }
        }
        for (name, templates) in &self.set {
            let mut placed = false;
            for template in templates {
                scratch.clear();
                template.render_with(ex, captures, scratch);
                match (scratch.is_empty(), placed) {
                    (true, _) => continue,
                    (false, false) => of(ex).set(name, scratch),
                    (false, true) => of(ex).add(name, scratch),
                }
                placed = true;
            }
            if !placed {
                of(ex).remove(name);
            }
        }
        for name in &self.remove {
            of(ex).remove(name);
        }
    }

    /// Puts what would be added or set on an answer made here.
    #[must_use]
    pub fn put_on(&self, mut reply: Reply, ex: &Exchange) -> Reply {
        // What is set takes the place of what the plugin itself has said.
        if let Some(lines) = &mut reply.headers {
            lines.retain(|(name, _)| !self.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)));
        }
        let added = self.add.iter().map(|(name, template)| (name, template));
        let set = self.set.iter().flat_map(|(name, each)| each.iter().map(move |template| (name, template)));
        for (name, template) in added.chain(set) {
            let mut value = Vec::new();
            template.render(ex, &mut value);
            if !value.is_empty() {
                reply = reply.with(name, value);
            }
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(config: &str, before: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let edits: HeaderEdits = serde_json::from_str(config).map_err(|error| error.to_string())?;
        let changes = edits.compile().map_err(|error| error.to_string())?;
        let mut ex = Exchange::new();
        for (name, value) in before {
            ex.request.headers.add(name, value.as_bytes());
        }
        ex.request.host = "a.com".to_owned();
        changes.apply(&mut ex, |ex| &mut ex.request.headers, &[b"all", b"one"], &mut Vec::new());
        let line = |(_, name, value): (_, &[u8], &[u8])| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        Ok(ex.request.headers.iter().map(line).collect())
    }

    #[test]
    fn both_forms_are_carried_out() {
        let check = |config: &str, before: &[(&str, &str)], after: &[&str]| {
            assert_eq!(edit(config, before).unwrap(), after, "{config}");
        };
        check(r#"{"X-A":"1","X-B":2}"#, &[("x-a", "0")], &["X-A: 1", "X-B: 2"]);
        check(r#"{"set":{"X-A":["1","2"]}}"#, &[("x-a", "0"), ("x-a", "9")], &["X-A: 1", "X-A: 2"]);
        check(r#"{"add":{"X-A":"$host"}}"#, &[("X-A", "0")], &["X-A: 0", "X-A: a.com"]);
        check(r#"{"add":["X-A: 1:2","X-B:"]}"#, &[], &["X-A: 1:2"]);
        check(r#"{"X-A":"${1}-$0"}"#, &[], &["X-A: one-all"]);
        check(r#"{"X-A":"$http_gone"}"#, &[("X-A", "0")], &[]);
        check(r#"{"remove":["x-a"]}"#, &[("X-A", "0"), ("X-A", "1")], &[]);
        // Add, then set, then remove.
        check(r#"{"remove":["X-C"],"set":{"X-A":"s"},"add":{"X-A":"a","X-C":"c"}}"#, &[], &["X-A: s"]);
    }

    #[test]
    fn a_value_never_ends_its_line() {
        assert_eq!(edit(r#"{"X-A":"a\r\nEvil: 1"}"#, &[]).unwrap(), ["X-A: a  Evil: 1"]);
    }

    #[test]
    fn names_that_no_header_has_are_refused() {
        for config in
            [r#"{"X A":"1"}"#, r#"{"add":{"":"1"}}"#, r#"{"add":["X\r\nA: 1"]}"#, r#"{"remove":["a:b"]}"#]
        {
            let error = edit(config, &[]).unwrap_err();
            assert!(error.contains("invalid field character in header"), "{config}: {error}");
        }
        for config in [r#"{"Content-Length":"1"}"#, r#"{"add":{"transfer-encoding":"chunked"}}"#] {
            assert!(edit(config, &[]).unwrap_err().contains("only the gateway may"), "{config}");
        }
    }

    #[test]
    fn values_of_other_kinds_are_refused() {
        for config in [r#"{"X-A":true}"#, r#"{"X-A":{}}"#, r#"{"X-A":[[1]]}"#, r#"{"set":{},"X-A":"1"}"#] {
            assert!(edit(config, &[]).is_err(), "{config}");
        }
    }
}
