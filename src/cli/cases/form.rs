//! The form of a file of tests: what it names, which requests it makes, and what it expects of each.
//!
//! The comments here are the schema's, and so the reference's.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::moment::Time;
use super::wish::{Text, Wish};
use crate::model::ConfigError;
use crate::model::field::Seconds;

/// Cases of one file: each takes some hundred kilobytes until the command ends.
pub(super) const CASES_MAX: usize = 1000;

/// One, or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMore<T> {
    One(T),
    Several(Vec<T>),
}

impl<T> OneOrMore<T> {
    pub(super) fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// Tests of a configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    /// The file of settings, from where this file is. Absent: what holds without one.
    pub(super) config: Option<String>,
    /// The file of objects, or a folder of such files, or a list of both; from where this file is.
    pub(super) resources: Option<OneOrMore<String>>,
    /// Objects, as a file of them has them; besides those of `resources`.
    pub(super) objects: Option<Map<String, Value>>,
    /// Variables of the environment, for `${{NAME}}` and `$env://NAME`; they go before those of the process.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// When the first request of each case is made, as `2026-01-31T12:00:00Z`. The clock stands still but for `wait`,
    /// for `delay`, and for what plugins wait.
    #[serde(default)]
    pub(super) time: Time,
    /// What nodes answer, by `HOST:PORT` as an upstream names them; `*` stands for all others. Without, status 200 and no
    /// body. Of a list, each request gets the next, and all after its end the last.
    #[serde(default)]
    pub(super) nodes: BTreeMap<String, OneOrMore<Answer>>,
    /// The tests. Each has a gateway of its own, which has counted nothing yet.
    pub(super) cases: Vec<Case>,
}

/// One test: a request, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What is tested; no two of a file have the same.
    pub(super) name: String,
    /// In place of the file's.
    pub(super) time: Option<Time>,
    /// What nodes answer here; those of the file stay for nodes not named.
    #[serde(default)]
    pub(super) nodes: BTreeMap<String, OneOrMore<Answer>>,
    /// The request, where there is one only.
    pub(super) request: Option<Request>,
    /// What is expected of it.
    pub(super) expect: Option<Expect>,
    /// Requests one after the other, at the same gateway.
    #[serde(default)]
    pub(super) steps: Vec<Step>,
}

/// A part of a case.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// So much time passes first: seconds, at most a day.
    pub(super) wait: Option<Seconds>,
    /// The request. Absent: only time passes.
    pub(super) request: Option<Request>,
    /// How often it is made; each must be answered as expected.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1000))]
    pub(super) times: u32,
    /// What is expected of it.
    pub(super) expect: Option<Expect>,
}

const fn once() -> u32 {
    1
}

/// A request as a client makes it, on a connection of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Its method. Absent: GET, or POST where there is a body.
    pub(super) method: Option<String>,
    /// `http://HOST/PATH`, `https://HOST/PATH`, or a path alone, whose host is `localhost`.
    pub(super) url: String,
    /// Its headers; several of a name as a list. `Host` goes before the URL's.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, OneOrMore<Text>>,
    /// Its body: a text, or a value that is sent as JSON.
    #[serde(default)]
    pub(super) body: Option<Value>,
    /// The address that the client has. Absent: 127.0.0.1.
    pub(super) from: Option<std::net::IpAddr>,
}

/// What a node does with a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The status it answers with. Absent: 200.
    #[schemars(range(min = 200, max = 599))]
    pub(super) status: Option<u16>,
    /// Headers of the answer; `Content-Length` is added, unless they have `Transfer-Encoding: chunked`.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, OneOrMore<Text>>,
    /// Its body: a text, or a value that is sent as JSON.
    pub(super) body: Option<Value>,
    /// Seconds until it answers, on the clock of the test.
    pub(super) delay: Option<Seconds>,
    /// In place of an answer.
    pub(super) fails: Option<Failure>,
}

/// How a node fails.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// It can not be connected to.
    Refused,
    /// It closes when it has the request.
    Closed,
    /// It closes in the middle of the answer.
    Cut,
    /// It never answers.
    Silent,
}

/// What is expected of one request; what is not named may be anything.
///
/// Texts are compared whole; `null` is none at all; `{contains: TEXT}`, `{matches: REGEX}`, `{not: ...}` and
/// `{json: VALUE}` ask for less.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The status of the answer.
    #[schemars(range(min = 100, max = 599))]
    pub(super) status: Option<u16>,
    /// Headers of the answer. Several of a name are joined by `, `.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Wish>,
    /// The body of the answer.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) body: Option<Wish>,
    /// The id of the route that took it.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) route: Option<Wish>,
    /// The id of that route's service.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) service: Option<Wish>,
    /// The name of the consumer.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) consumer: Option<Wish>,
    /// The word that the access log has as `error_code`.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) reason: Option<Wish>,
    /// Plugins whose turn came before a node was asked, in their order; or a list for each phase that is named.
    pub(super) plugins: Option<Plugins>,
    /// The node that was asked last, by address or as it is named.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) node: Option<Wish>,
    /// All nodes that were tried, in their order.
    pub(super) tries: Option<Vec<String>>,
    /// The upstream that has this node, as `upstreams/ID` or `ID`; one of a route's own as `routes/ID#upstream`.
    pub(super) upstream: Option<String>,
    /// The request as the last node got it.
    pub(super) forwarded: Option<Forwarded>,
}

/// The request as a node gets it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Forwarded {
    /// Its method.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) method: Option<Wish>,
    /// Its path with the query.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) uri: Option<Wish>,
    /// Its headers. Several of a name are joined by `, `.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Wish>,
    /// Its body.
    #[serde(default, deserialize_with = "even_null")]
    pub(super) body: Option<Wish>,
}

/// Plugins that ran.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Plugins {
    Gates(Vec<String>),
    Phases(BTreeMap<String, Vec<String>>),
}

/// The phases, as they are named here.
pub(super) const PHASES: [&str; 6] =
    ["rewrite", "access", "before_proxy", "header_filter", "body_filter", "log"];

impl JsonSchema for Plugins {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Plugins".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = json_schema!({"type": "array", "items": {"type": "string"}});
        json_schema!({"anyOf": [
            names.clone(),
            {"type": "object", "propertyNames": {"enum": PHASES}, "additionalProperties": names},
        ]})
    }
}

/// What is written as null is a wish, too.
fn even_null<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Wish>, D::Error> {
    Wish::deserialize(input).map(Some)
}

/// One request of a case, wherever it stands.
pub(super) struct Turn<'a> {
    /// Where in its case; empty for one that has no steps.
    path: String,
    pub(super) wait: Option<Seconds>,
    pub(super) request: Option<&'a Request>,
    pub(super) times: u32,
    pub(super) expect: Option<&'a Expect>,
}

impl Turn<'_> {
    /// What stands before the names of its fields.
    pub(super) fn step(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}.", self.path) }
    }
}

impl Case {
    /// All of it, in order.
    pub(super) fn turns(&self) -> Vec<Turn<'_>> {
        let own = self.request.as_ref().map(|request| Turn {
            path: String::new(),
            wait: None,
            request: Some(request),
            times: 1,
            expect: self.expect.as_ref(),
        });
        let steps = self.steps.iter().enumerate().map(|(at, step)| Turn {
            path: format!("steps[{at}]"),
            wait: step.wait,
            request: step.request.as_ref(),
            times: step.times,
            expect: step.expect.as_ref(),
        });
        own.into_iter().chain(steps).collect()
    }
}

/// What the schema can not say.
pub(super) fn faults(file: &TestFile) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    if file.resources.is_none() && file.objects.is_none() {
        faults.push(ConfigError::new("expected resources or objects, got neither"));
    }
    if file.cases.is_empty() || file.cases.len() > CASES_MAX {
        let found = file.cases.len();
        faults.push(ConfigError::at("cases", format!("expected 1 to {CASES_MAX}, got {found}")));
    }
    for (at, case) in file.cases.iter().enumerate() {
        let under = format!("cases[{at}]");
        let mut fault = |path: &str, problem: &str| {
            let object = format!("case {:?}", case.name);
            faults.push(ConfigError::at(path, problem).under(&under).in_object(object));
        };
        if file.cases[..at].iter().any(|other| other.name == case.name) {
            fault("name", "is the name of a case before, too");
        }
        match (&case.request, case.steps.is_empty()) {
            (None, true) => fault("", "expected a request or steps, got neither"),
            (Some(_), false) => fault("", "expected a request or steps, got both"),
            (None, false) if case.expect.is_some() => fault("expect", "belongs to a step"),
            _ => {}
        }
        for (number, step) in case.steps.iter().enumerate() {
            let path = format!("steps[{number}]");
            if step.request.is_none() && step.wait.is_none() {
                fault(&path, "expected request or wait, got neither");
            }
            if step.request.is_none() && step.expect.is_some() {
                fault(&format!("{path}.expect"), "expected nothing, as there is no request");
            }
            if step.wait.is_some_and(|wait| wait.get() > super::house::WAIT_MAX) {
                fault(&format!("{path}.wait"), "expected at most a day (86400)");
            }
        }
    }
    faults
}
