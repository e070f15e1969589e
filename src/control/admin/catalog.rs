//! What there is to configure: the schemas of objects and plugins, and the list of plugins.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::Call;
use super::answer::Answer;
use crate::control::write::Refusal;
use crate::model::{Kind, ObjectId, Raw, typed};
use crate::plugins::{CATALOG, Card};

/// `/schema/KIND`, `/schema/plugins/NAME`, and `/schema/validate/KIND`.
pub(super) fn schema(call: &Call, path: &[&str]) -> Answer {
    match (call.method.clone(), path) {
        (Method::GET, ["plugins", name]) => of_plugin(call, name),
        (Method::GET, [kind]) => match of_singular(kind) {
            Some(kind) => Answer::json(200, (*kind.schema()).clone()),
            None => Answer::refused(Refusal::new(404, format!("not found schema: {kind}"))),
        },
        (Method::POST, ["validate", kind]) => validate(call, kind),
        _ => Answer::refused(Refusal::new(404, "not found")),
    }
}

fn of_singular(name: &str) -> Option<Kind> {
    Kind::ALL.iter().copied().find(|kind| kind.singular() == name || kind.plural() == name)
}

/// Whether an object would be taken, as far as can be said of it alone.
fn validate(call: &Call, kind: &str) -> Answer {
    let Some(kind) = of_singular(kind) else {
        return Answer::refused(Refusal::new(404, format!("not found schema: {kind}")));
    };
    let value: Value = match serde_json::from_slice(&call.body) {
        Ok(value) => value,
        Err(error) => return Answer::refused(Refusal::new(400, format!("invalid request body: {error}"))),
    };
    let id = ObjectId::joined("0").expect("a digit is an id");
    match typed(&Raw { kind, id, value }) {
        Ok(_) => Answer::empty(200),
        Err(faults) => Answer::refused(Refusal::invalid(faults)),
    }
}

/// `/plugins/list`, `/plugins?all=true`, `/plugins/NAME`, `/plugins/reload`.
pub(super) fn plugins(call: &Call, path: &[&str]) -> Answer {
    match (call.method.clone(), path) {
        (Method::PUT, ["reload"]) => Answer::text(200, "done"),
        (method, ["reload"]) => {
            let why = format!("please use PUT method to reload the plugins, {method} method is not allowed.");
            Answer::refused(Refusal::new(405, why))
        }
        (Method::GET, ["list"]) => {
            let of_streams = call.query("subsystem") == Some("stream");
            let names: Vec<&str> =
                by_priority().filter(|card| is_of(card, of_streams)).map(|card| card.name).collect();
            Answer::json(200, json!(names))
        }
        (Method::GET, []) => {
            let of_streams = call.query("subsystem") == Some("stream");
            let all = by_priority().filter(|card| is_of(card, of_streams));
            let all = all.map(|card| (card.name.to_owned(), card_of(card)));
            Answer::json(200, Value::Object(all.collect::<Map<_, _>>()))
        }
        (Method::GET, [name]) => of_plugin(call, name),
        _ => Answer::refused(Refusal::new(404, "not found")),
    }
}

/// All schemas there are: of objects by name, and of plugins with what else is known of them.
pub(crate) fn all_schemas() -> Value {
    let main = Kind::ALL.iter().map(|kind| (kind.singular().to_owned(), (*kind.schema()).clone()));
    let plugins = by_priority().filter(|card| is_of(card, false)).map(|card| {
        let mut told = card_of(card);
        told["scope"] = json!("global");
        if card.credential.is_some() {
            told["type"] = json!("auth");
        }
        (card.name.to_owned(), told)
    });
    let of_streams =
        by_priority().filter(|card| is_of(card, true)).map(|card| (card.name.to_owned(), card_of(card)));
    json!({
        "main": main.collect::<Map<_, _>>(),
        "plugins": plugins.collect::<Map<_, _>>(),
        "stream_plugins": of_streams.collect::<Map<_, _>>(),
    })
}

/// Highest first, as they run.
fn by_priority() -> impl Iterator<Item = &'static Card> {
    let mut cards: Vec<&Card> = CATALOG.iter().collect();
    cards.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(b.name)));
    cards.into_iter()
}

/// Whether a plugin works in streams, or with requests.
const fn is_of(card: &Card, streams: bool) -> bool {
    if streams { card.in_streams } else { card.with_requests }
}

fn card_of(card: &Card) -> Value {
    let mut told = json!({"name": card.name, "priority": card.priority, "schema": of_routes(card), "metadata_schema": (card.metadata_schema)()});
    if let Some(schema) = of_consumers(card) {
        told["consumer_schema"] = schema;
    }
    told
}

/// What routes, services and so on write of a plugin. Those of authentication plugins are told from what consumers write by
/// their titles.
fn of_routes(card: &Card) -> Value {
    let mut schema = (card.schema)();
    if card.credential.is_some() {
        schema["title"] = json!("work with route or service object");
    }
    schema
}

/// What consumers write of an authentication plugin.
fn of_consumers(card: &Card) -> Option<Value> {
    let mut schema = (card.credential?.schema)();
    schema["title"] = json!("work with consumer object");
    Some(schema)
}

fn of_plugin(call: &Call, name: &str) -> Answer {
    let of_streams = call.query("subsystem") == Some("stream");
    let card = Card::of(name).filter(|card| is_of(card, of_streams));
    let Some(card) = card else {
        let subsystem = call.query("subsystem").unwrap_or("http");
        let why = format!("plugin not found in subsystem {subsystem}");
        return Answer::refused(Refusal::new(404, why));
    };
    Answer::json(
        200,
        match call.query("schema_type") {
            Some("metadata") => (card.metadata_schema)(),
            Some("consumer") => of_consumers(card).unwrap_or_else(|| of_routes(card)),
            _ => of_routes(card),
        },
    )
}
