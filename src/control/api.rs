//! The control API: what the gateway runs on, for those who look after it. Paths and shapes are those of APISIX's
//! `/v1`; `/v1/quarantine` and `/v1/explain` are ours. Nobody is asked for a key, so it listens on loopback, changes nothing, and shows
//! no secret.
//!
//! Objects are shown as they are in force, with defaults: for one that was set aside, its last good version.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::admin::{self, Shared, held, key};
use super::ask::Booth;
use super::board::{Board, SetAside};
use super::explain;
use super::mask::masked;
use crate::model::{ConfigError, Kind, Object, ObjectId, Raw, typed};
use crate::snapshot::Compiler;

/// All that the API is made of.
pub(crate) struct Api {
    pub(crate) board: Arc<Board>,
    pub(crate) booth: Booth,
    pub(crate) store: Shared,
}

/// What the listener serves.
pub(crate) fn router(api: Api) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(api))
}

/// An answer, or a status and why.
type Told = Result<Value, (u16, String)>;

async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let told = match (&parts.method, path.as_slice()) {
        (&Method::GET, ["v1", "schema"]) => Ok(admin::all_schemas()),
        (&Method::GET, ["v1", "quarantine"]) => Ok(quarantine(&api.board)),
        (&Method::GET, ["v1", "explain"]) => explain::answer(&api.booth, parts.uri.query()).await,
        (&Method::GET, ["v1", "healthcheck"]) => return checkers(&api, &parts.headers).await,
        (&Method::GET, ["v1", "healthcheck", kind, rest @ ..]) => {
            return checker(&api, &parts.headers, kind, rest).await;
        }
        // There is no collector here: memory is given back as it comes free.
        (&Method::POST, ["v1", "gc"]) => return StatusCode::OK.into_response(),
        (&Method::PUT, ["v1", "plugins", "reload"]) => return "done".into_response(),
        (&Method::GET, ["v1", "plugin_metadatas"]) => list(&api, Kind::PluginMetadata).await.map(values_of),
        (&Method::GET, ["v1", "plugin_metadata", name]) => {
            let found = one(&api, Kind::PluginMetadata, name).await;
            found.map(value_of).map_err(|(status, _)| (status, format!("plugin metadata[{name}] not found")))
        }
        (&Method::GET, ["v1", "discovery", kind, "dump"]) => {
            Err((404, format!("discovery {kind} is not there")))
        }
        (&Method::GET, ["v1", name]) => match listed(name) {
            Some(kind) => list(&api, kind).await,
            None => Err((404, "not found".to_owned())),
        },
        (&Method::GET, ["v1", name, id]) => match SHOWN.iter().find(|kind| kind.singular() == *name) {
            Some(kind) => one(&api, *kind, id).await,
            None => Err((404, "not found".to_owned())),
        },
        _ => Err((404, "not found".to_owned())),
    };
    answer(told)
}

fn answer(told: Told) -> Response {
    let (status, body) = match told {
        Ok(body) => (200, body),
        Err((status, why)) => (status, json!({"error_msg": why})),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// Kinds that are shown one by one.
const SHOWN: [Kind; 3] = [Kind::Route, Kind::Service, Kind::Upstream];

fn listed(name: &str) -> Option<Kind> {
    SHOWN.into_iter().find(|kind| kind.plural() == name)
}

fn ended() -> (u16, String) {
    (503, "the gateway is ending".to_owned())
}

/// The objects of a kind that are in force, in their order.
async fn list(api: &Api, kind: Kind) -> Told {
    let objects =
        api.booth.ask(move |compiler: &Compiler| compiler.in_force(kind)).await.ok_or_else(ended)?;
    Ok(objects.iter().map(|(id, text)| shown(api, kind, id, text)).collect())
}

async fn one(api: &Api, kind: Kind, id: &str) -> Told {
    let wanted = id.to_owned();
    let found = api.booth.ask(move |compiler: &Compiler| compiler.in_force_of(kind, &wanted)).await;
    let text = found.ok_or_else(ended)?;
    let text = text.ok_or_else(|| (404, format!("{}[{id}] not found", kind.singular())))?;
    Ok(shown(api, kind, id, &text))
}

fn value_of(mut shown: Value) -> Value {
    shown["value"].take()
}

fn values_of(shown: Value) -> Value {
    match shown {
        Value::Array(items) => items.into_iter().map(value_of).collect(),
        other => other,
    }
}

/// An object in force, with its defaults and without its secrets.
fn shown(api: &Api, kind: Kind, id: &str, text: &str) -> Value {
    let written: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let has_domain = has_domain(&written) || written.get("upstream").is_some_and(has_domain);
    let value = masked(kind, with_defaults(kind, id, written));
    let mut shown = json!({"key": key(kind, id), "value": value, "has_domain": has_domain});
    if let Some(entry) = held(&api.store).get(kind, id) {
        shown["createdIndex"] = entry.created.into();
        shown["modifiedIndex"] = entry.modified.into();
    }
    shown
}

/// Fills in what the object's type has where nothing was written.
fn with_defaults(kind: Kind, id: &str, written: Value) -> Value {
    let raw = Raw { kind, id: ObjectId::of_checked(id), value: written };
    let filled = match typed(&raw) {
        Ok(Object::Route(route)) => serde_json::to_value(*route),
        Ok(Object::Service(service)) => serde_json::to_value(*service),
        Ok(Object::Upstream(upstream)) => serde_json::to_value(*upstream),
        _ => return raw.value,
    };
    let (Ok(Value::Object(filled)), Value::Object(mut fields)) = (filled, raw.value) else {
        return Value::Null;
    };
    complete(&mut fields, filled);
    Value::Object(fields)
}

/// What is written stays as it is, whatever a typed form would make of it.
fn complete(written: &mut Map<String, Value>, filled: Map<String, Value>) {
    for (name, value) in filled {
        match (written.get_mut(&name), value) {
            (_, Value::Null) => {}
            (None, value) => {
                written.insert(name, without_nulls(value));
            }
            (Some(Value::Object(inner)), Value::Object(value)) if name == "upstream" || name == "checks" => {
                complete(inner, value);
            }
            (Some(_), _) => {}
        }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// Whether a node is known by name.
fn has_domain(upstream: &Value) -> bool {
    let is_name = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
    match upstream.get("nodes") {
        Some(Value::Object(nodes)) => nodes.keys().any(|address| {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            is_name(host) && is_name(address)
        }),
        Some(Value::Array(nodes)) => nodes.iter().filter_map(|node| node.get("host")?.as_str()).any(is_name),
        _ => false,
    }
}

/// What was set aside and why, and what is in force but does not get all it asks for.
fn quarantine(board: &Board) -> Value {
    let fault = |fault: &ConfigError| json!({"path": fault.path, "pointer": fault.pointer(), "problem": fault.problem});
    let set_aside = |object: &SetAside| {
        let reasons: Vec<String> = object
            .faults
            .iter()
            .map(|fault| ConfigError { object: String::new(), ..fault.clone() }.to_string())
            .collect();
        json!({
            "object": object.name,
            "reason": reasons.join("; "),
            "faults": object.faults.iter().map(fault).collect::<Vec<_>>(),
            "since": object.since,
            "last_good": object.last_good,
        })
    };
    let list: Vec<Value> = board.quarantined().iter().map(set_aside).collect();
    let warned = |limit: &ConfigError| {
        let mut warned = fault(limit);
        warned["object"] = limit.object.clone().into();
        warned
    };
    let warnings: Vec<Value> = board.limits().iter().map(warned).collect();
    json!({"generation": board.generation(), "total": list.len(), "list": list, "warnings": warnings})
}

// ---- health ---------------------------------------------------------------------------------------------------------

/// Kinds that may have checks.
const CHECKED: [Kind; 4] = [Kind::Route, Kind::Service, Kind::Upstream, Kind::StreamRoute];

async fn checkers(api: &Api, headers: &HeaderMap) -> Response {
    let mut found = Vec::new();
    for kind in CHECKED {
        match list(api, kind).await {
            Ok(Value::Array(objects)) => found.extend(objects.iter().filter_map(checker_of)),
            Ok(_) => {}
            Err(why) => return answer(Err(why)),
        }
    }
    health(headers, Value::Array(found))
}

async fn checker(api: &Api, headers: &HeaderMap, kind: &str, rest: &[&str]) -> Response {
    let Some(id) = rest.first() else {
        return answer(Err((404, format!("missing src id for src type {kind}"))));
    };
    let Some(found) = CHECKED.into_iter().find(|known| known.plural() == kind) else {
        return answer(Err((400, format!("invalid src type {kind}"))));
    };
    match one(api, found, id).await {
        Err((404, _)) => answer(Err((404, format!("{kind}[{id}] not found")))),
        Err(why) => answer(Err(why)),
        Ok(object) => match checker_of(&object) {
            None => answer(Err((404, format!("no checker for {kind}[{id}]")))),
            Some(checker) => health(headers, checker),
        },
    }
}

/// The checker of an object, if it has one. No node is listed until something checks them.
fn checker_of(object: &Value) -> Option<Value> {
    let value = object.get("value")?;
    let checks = value.get("checks").or_else(|| value.get("upstream")?.get("checks"))?;
    let kind = ["active", "passive"].iter().find_map(|part| checks.get(part)?.get("type"));
    let kind = kind.and_then(Value::as_str).unwrap_or("http");
    Some(json!({"name": object["key"], "type": kind, "nodes": []}))
}

/// As JSON, or as a page where a browser asks.
fn health(headers: &HeaderMap, found: Value) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accept.contains("text/html") {
        return answer(Ok(found));
    }
    let checkers = match found {
        Value::Array(checkers) => checkers,
        one => vec![one],
    };
    let mut page = String::from(
        "<!doctype html>\n<title>Upstream health</title>\n<h1>Upstream health</h1>\n<table>\n\
         <tr><th>Upstream<th>Check<th>Nodes</tr>\n",
    );
    for checker in &checkers {
        // Ids and types are of letters, digits, dots and dashes: nothing to escape.
        let text = |name: &str| checker[name].as_str().unwrap_or_default().to_owned();
        page.push_str(&format!("<tr><td>{}<td>{}<td>not checked yet</tr>\n", text("name"), text("type")));
    }
    page.push_str("</table>\n");
    (StatusCode::OK, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_what_is_written_stays() {
        let written = json!({"id": "1", "uri": "/a", "upstream": {"nodes": {"a.test:80": 1}}, "plugins": {"x": {"y": null}}});
        let filled = with_defaults(Kind::Route, "1", written);
        assert_eq!((&filled["priority"], &filled["status"]), (&json!(0), &json!(1)));
        assert_eq!(filled["upstream"]["type"], "roundrobin");
        assert_eq!(filled["upstream"]["nodes"], json!({"a.test:80": 1}));
        assert!(filled.get("host").is_none(), "{filled}");
        assert_eq!(filled["plugins"], json!({"x": {"y": null}}));
    }

    #[test]
    fn a_node_with_a_name_is_told_from_one_with_an_address() {
        for (nodes, expect) in [
            (json!({"127.0.0.1:80": 1}), false),
            (json!({"127.0.0.1": 1}), false),
            (json!({"[::1]:80": 1}), false),
            (json!({"a.test:80": 1, "127.0.0.1:80": 1}), true),
            (json!([{"host": "127.0.0.1", "weight": 1}]), false),
            (json!([{"host": "a.test", "weight": 1}]), true),
        ] {
            assert_eq!(has_domain(&json!({"nodes": nodes})), expect, "{nodes}");
        }
    }
}
