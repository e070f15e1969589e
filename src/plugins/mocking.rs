//! `mocking`: answers from an example or a schema, while there is no origin yet.
//!
//! ```yaml
//! plugins:
//!   mocking:
//!     response_schema:
//!       type: object
//!       properties:
//!         id: {type: integer, example: 7}
//!         tags: {type: array, items: {type: string}}
//! ```
//!
//! An example is a template. Of a schema, what has an `example` is that, and everything else is made up anew for each
//! answer. Differs from APISIX: `X-Mock-By` names Ringway; a schema is answered as JSON only, and one that can not be
//! followed is refused; unknown fields are refused.

use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::base::rng::Rng;
use crate::base::text::write_json_string;
use crate::exchange::{Exchange, Reply};
use crate::expr::Template;
use crate::model::field::{InRange, SecondsOrOff, Text};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step, Verdict};

/// Deepest nesting of a schema, which is how deep reading and following it recurse.
const DEPTH_MAX: usize = 16;
/// Items of a list that is made up.
const ITEMS_MAX: u64 = 3;
/// Letters of a text that is made up.
const LETTERS_MAX: u64 = 10;
/// Numbers that are made up are below this, or it.
const NUMBER_MAX: u64 = 10_000;
const MOCK_BY: &str = concat!("ringway/", env!("CARGO_PKG_VERSION"));

/// Answers from an example or a schema, while there is no origin yet.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["response_example"]}, {"required": ["response_schema"]}]))]
pub struct Config {
    /// How long an answer takes, in seconds.
    #[serde(default)]
    delay: SecondsOrOff,
    /// The status.
    #[serde(default = "ok")]
    response_status: InRange<200, 599>,
    /// What the answer says it is.
    #[serde(default = "json")]
    content_type: Text<1, 256>,
    /// The body; a template. Wins over `response_schema`.
    response_example: Option<String>,
    /// A JSON schema that bodies are made up by.
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    response_schema: Option<Value>,
    /// Further headers; values are templates.
    response_headers: Option<HeaderEdits>,
    /// Whether the answer says in `X-Mock-By` that it is made up.
    #[serde(default = "yes")]
    with_mock_header: bool,
}

/// What the core reads.
pub struct Mocking {
    delay: Duration,
    status: u16,
    content_type: Bytes,
    body: Body,
    headers: HeaderChanges,
    with_mock_header: bool,
}

enum Body {
    Example(Template),
    Made(Shape),
}

/// A value to be made up.
enum Shape {
    /// This one, as JSON.
    Given(Box<[u8]>),
    Text,
    Number,
    Whole,
    Bool,
    /// A list of such, or an empty one.
    List(Option<Box<Self>>),
    /// Fields, each with its name as JSON.
    Object(Box<[(Box<[u8]>, Self)]>),
}

impl Plugin for Mocking {
    const NAME: &'static str = "mocking";
    const PRIORITY: i32 = 10900;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::answer);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let kind = config.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = matches!(kind.as_str(), "application/json" | "text/plain");
        if !is_json && !matches!(kind.as_str(), "application/xml" | "text/xml" | "text/html") {
            return Err(ConfigError::at("content_type", "unsupported content type!"));
        }
        let body = match (&config.response_example, &config.response_schema) {
            (Some(example), _) => Body::Example(Template::parse(example)),
            (None, Some(_)) if !is_json => {
                let problem = "expected application/json or text/plain, as bodies are made up in JSON";
                return Err(ConfigError::at("content_type", problem));
            }
            (None, Some(schema)) => {
                Body::Made(Shape::of(schema, 1).map_err(|fault| fault.under("response_schema"))?)
            }
            (None, None) => {
                let problem = "expected at least one of `response_example` and `response_schema`";
                return Err(ConfigError::new(problem));
            }
        };
        let headers = config.response_headers.unwrap_or_default().compile();
        Ok(Self {
            delay: config.delay.get(),
            status: config.response_status.u16(),
            content_type: Bytes::copy_from_slice(config.content_type.as_bytes()),
            body,
            headers: headers.map_err(|fault| ConfigError { path: "response_headers".to_owned(), ..fault })?,
            with_mock_header: config.with_mock_header,
        })
    }
}

impl Mocking {
    fn answer<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        if self.delay.is_zero() {
            return Step::Reply(self.reply(ex, env));
        }
        Step::Wait(Box::pin(async move {
            env.core.sleep(self.delay).await;
            Verdict::Reply(self.reply(ex, env))
        }))
    }

    fn reply(&self, ex: &Exchange, env: Env<'_>) -> Reply {
        let mut body = Vec::new();
        match &self.body {
            Body::Example(template) => drop(template.render(ex, &mut body)),
            Body::Made(shape) => env.core.dice(|dice| shape.write(dice, &mut body)),
        }
        let mut reply = Reply::bytes(self.status, body).with("Content-Type", self.content_type.clone());
        if self.with_mock_header {
            reply = reply.with("X-Mock-By", MOCK_BY);
        }
        self.headers.put_on(reply, ex)
    }
}

impl Shape {
    fn of(schema: &Value, depth: usize) -> Result<Self, ConfigError> {
        if depth > DEPTH_MAX {
            return Err(ConfigError::new(format!("expected at most {DEPTH_MAX} levels")));
        }
        if let Some(example) = schema.get("example") {
            return Ok(Self::Given(example.to_string().into_bytes().into()));
        }
        Ok(match schema.get("type").and_then(Value::as_str) {
            Some("string") => Self::Text,
            Some("number") => Self::Number,
            Some("integer") => Self::Whole,
            Some("boolean") => Self::Bool,
            Some("array") => {
                let items = schema.get("items").map(|items| Self::of(items, depth + 1));
                Self::List(items.transpose().map_err(|fault| fault.under("items"))?.map(Box::new))
            }
            Some("object") => {
                let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
                let fields = fields.map(|(name, schema)| {
                    let shape = Self::of(schema, depth + 1);
                    let shape = shape.map_err(|fault| fault.under(&format!("properties.{name}")))?;
                    let mut key = Vec::new();
                    write_json_string(&mut key, name.as_bytes());
                    Ok((key.into(), shape))
                });
                Self::Object(fields.collect::<Result<_, _>>()?)
            }
            _ => {
                let problem = "expected string, number, integer, boolean, array or object";
                return Err(ConfigError::at("type", problem));
            }
        })
    }

    fn write(&self, dice: &mut Rng, out: &mut Vec<u8>) {
        match self {
            Self::Given(value) => out.extend_from_slice(value),
            Self::Text => {
                out.push(b'"');
                for _ in 0..=dice.below(LETTERS_MAX) {
                    out.push(b'a' + dice.below(26) as u8);
                }
                out.push(b'"');
            }
            Self::Number => {
                // With two digits behind the point: what is made up is to be read by people.
                let hundredths = dice.below(NUMBER_MAX * 100);
                out.extend_from_slice(format!("{}.{:02}", hundredths / 100, hundredths % 100).as_bytes());
            }
            Self::Whole => {
                let number = 1 + dice.below(NUMBER_MAX);
                out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            Self::Bool => out.extend_from_slice(if dice.below(2) == 0 { b"false" } else { b"true" }),
            Self::List(shape) => {
                out.push(b'[');
                let count = if shape.is_some() { 1 + dice.below(ITEMS_MAX) } else { 0 };
                for at in 0..count {
                    if at > 0 {
                        out.push(b',');
                    }
                    shape.iter().for_each(|shape| shape.write(dice, out));
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (at, (key, shape)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    out.push(b':');
                    shape.write(dice, out);
                }
                out.push(b'}');
            }
        }
    }
}

fn ok() -> InRange<200, 599> {
    InRange::literal(200)
}

fn json() -> Text<1, 256> {
    Text::literal("application/json;charset=utf8")
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check, refuses};

    #[test]
    fn an_example_is_a_template() {
        let config = r#"{"response_example": "{\"at\": \"$uri\"}", "response_status": 201,
            "response_headers": {"X-A": "$arg_a", "X-N": 2}, "content_type": "text/html"}"#;
        let bench = check::<Mocking>(config).unwrap();
        let outcome = bench.request(Request::get("/p?a=1")).replies(201, r#"{"at": "/p"}"#);
        outcome.header("Content-Type", "text/html").header("X-A", "1").header("X-N", "2").header("X-Mock-By", MOCK_BY);
    }

    #[test]
    fn the_mark_may_be_left_out() {
        let bench = check::<Mocking>(r#"{"response_example": "", "with_mock_header": false}"#).unwrap();
        let reply = bench.request(Request::get("/")).replies(200, "").reply.unwrap();
        let names: Vec<_> = reply.headers.iter().flat_map(|lines| lines.iter()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Content-Type"]);
    }

    #[test]
    fn a_type_that_is_set_takes_the_place_of_the_usual_one() {
        let config = r#"{"response_example": "<svg/>", "with_mock_header": false,
            "response_headers": {"content-type": "image/svg+xml"}}"#;
        let reply = check::<Mocking>(config).unwrap().request(Request::get("/")).replies(200, "<svg/>").reply.unwrap();
        let lines: Vec<_> = reply.headers.iter().flat_map(|lines| lines.iter()).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].1, "image/svg+xml");
    }

    #[test]
    fn a_body_is_made_up_as_its_schema_says() {
        let config = r#"{"response_schema": {"type": "object", "properties": {
            "text": {"type": "string"}, "number": {"type": "number"}, "whole": {"type": "integer"},
            "is": {"type": "boolean"}, "list": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}},
            "none": {"type": "array"}, "empty": {"type": "object"},
            "given": {"type": "object", "example": {"a\"b": [null]}}, "a\"b": {"type": "string", "example": "c\"d"}}}}"#;
        let bench = check::<Mocking>(config).unwrap();
        for _ in 0..200 {
            let reply = bench.request(Request::get("/")).reply.unwrap();
            let body: Value = serde_json::from_slice(reply.body()).unwrap();
            assert!(body["text"].as_str().is_some_and(|text| (1..=10).contains(&text.len())), "{body}");
            assert!(body["number"].as_f64().is_some_and(|number| (0.0..10_000.0).contains(&number)), "{body}");
            assert!(body["whole"].as_u64().is_some_and(|number| (1..=10_000).contains(&number)), "{body}");
            assert!(body["is"].is_boolean(), "{body}");
            let list = body["list"].as_array().unwrap();
            assert!((1..=3).contains(&list.len()) && list.iter().all(|item| item[0].is_boolean()), "{body}");
            assert_eq!((&body["none"], &body["empty"]), (&serde_json::json!([]), &serde_json::json!({})));
            assert_eq!((&body["given"], &body["a\"b"]), (&serde_json::json!({"a\"b": [null]}), &serde_json::json!("c\"d")));
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<Mocking>(
            &[r#"{"response_example": "", "delay": 1.5}"#, r#"{"response_schema": {"type": "string"}}"#],
            &[
                ("{}", "response_example"),
                (r#"{"response_example": 1}"#, "response_example"),
                (r#"{"response_example": "", "response_status": 100}"#, "response_status"),
                (r#"{"response_example": "", "delay": -1}"#, "delay"),
                (r#"{"response_schema": []}"#, "response_schema"),
                (r#"{"response": ""}"#, "additional properties forbidden, found response"),
            ],
        );
        for (config, words) in [
            (r#"{"response_example": "", "content_type": "image/png"}"#, "content_type: unsupported content type!"),
            (r#"{"response_schema": {"type": "string"}, "content_type": "text/xml"}"#, "content_type: expected "),
            (r#"{"response_schema": {}}"#, "response_schema.type: expected string"),
            (r#"{"response_schema": {"type": "array", "items": {"type": "x"}}}"#, "response_schema.items.type: "),
            (
                r#"{"response_schema": {"type": "object", "properties": {"a": {"type": 1}}}}"#,
                "response_schema.properties.a.type: ",
            ),
            (r#"{"response_example": "", "response_headers": {"a b": "1"}}"#, "response_headers: invalid field"),
        ] {
            refuses::<Mocking>(config, words);
        }
        let deep = format!("{}{{\"type\": \"string\"}}{}", r#"{"type":"array","items":"#.repeat(16), "}".repeat(16));
        refuses::<Mocking>(&format!(r#"{{"response_schema": {deep}}}"#), "at most 16 levels");
    }
}
