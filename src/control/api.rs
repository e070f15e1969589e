//! The control API: what the gateway runs on, for those who look after it. Paths and shapes are those of APISIX's
//! `/v1`; `/v1/quarantine`, `/v1/certificates`, `/v1/concurrency`, `/v1/explain` and
//! `/v1/limits` are ours. Nobody is asked for a key, so it listens on loopback,
//! changes nothing, and shows
//! no secret.
//!
//! Objects are shown as they are in force, with defaults: for one that was set aside, its last good version.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::admin::{self, Shared, held, key};
use super::ask::Booth;
use super::board::{Board, SetAside};
use super::certificates;
use super::concurrency;
use super::explain;
use super::export::process;
use super::health;
use super::limits;
use super::mask::masked;
use crate::base::hash;
use crate::model::{ConfigError, Kind, Object, ObjectId, Raw, typed};
use crate::snapshot::Compiler;

/// All that the API is made of.
pub(crate) struct Api {
    pub(crate) board: Arc<Board>,
    pub(crate) booth: Booth,
    pub(crate) store: Shared,
    /// The registries that are asked after services.
    pub(crate) registries: Vec<&'static str>,
    /// What tells this gateway from others.
    pub(crate) id: String,
}

/// What the listener serves.
pub(crate) fn router(api: Api) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(api))
}

/// An answer, or a status and why.
pub(super) type Told = Result<Value, (u16, String)>;

async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let told = match (&parts.method, path.as_slice()) {
        (&Method::GET, ["v1", "schema"]) => Ok(admin::all_schemas()),
        (&Method::GET, ["v1", "quarantine"]) => Ok(quarantine(&api.board)),
        (&Method::GET, ["v1", "server_info"]) => Ok(server_info(&api)),
        (&Method::GET, ["v1", "concurrency"]) => Ok(concurrency::all(&api.board)),
        (&Method::GET, ["v1", "certificates"]) => Ok(certificates::all(&api.board)),
        (&Method::GET, ["v1", "explain"]) => explain::answer(&api.booth, parts.uri.query()).await,
        (&Method::GET, ["v1", "limits"]) => limits::answer(&api.booth, parts.uri.query()).await,
        (&Method::GET, ["v1", "healthcheck"]) => return health::all(&api.board, &parts.headers),
        (&Method::GET, ["v1", "healthcheck", kind, rest @ ..]) => {
            return match health::named(kind, rest) {
                Ok((kind, id)) => {
                    let found = one(&api, kind, id).await;
                    health::one(&api.board, &parts.headers, kind, id, found.is_ok())
                }
                Err(refused) => answer(Err(refused)),
            };
        }
        // There is no collector here: memory is given back as it comes free.
        (&Method::POST, ["v1", "gc"]) => return StatusCode::OK.into_response(),
        (&Method::PUT, ["v1", "plugins", "reload"]) => return "done".into_response(),
        (&Method::GET, ["v1", "plugin_metadatas"]) => list(&api, Kind::PluginMetadata).await.map(values_of),
        (&Method::GET, ["v1", "plugin_metadata", name]) => {
            let found = one(&api, Kind::PluginMetadata, name).await;
            found.map(value_of).map_err(|(status, _)| (status, format!("plugin metadata[{name}] not found")))
        }
        (&Method::GET, ["v1", "discovery", kind, "dump"]) => services(&api, kind).await,
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

pub(super) fn answer(told: Told) -> Response {
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

/// Who answers, in the form of APISIX's server-info.
fn server_info(api: &Api) -> Value {
    json!({
        "id": api.id,
        "hostname": process::hostname(),
        "version": concat!("ringway/", env!("CARGO_PKG_VERSION")),
        "boot_time": api.board.started_at / 1000,
        // Nobody asks etcd for it.
        "etcd_version": "unknown",
    })
}

/// The id of a gateway: the same as long as it runs on this machine with this folder for its state.
pub(super) fn id_of(state_dir: &Path) -> String {
    let whole = format!("{}\0{}", process::hostname(), state_dir.display());
    let (one, other) = (hash::stable(whole.as_bytes()), hash::stable(format!("{whole}\0").as_bytes()));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        one >> 32,
        one >> 16 & 0xffff,
        one & 0xffff,
        other >> 48,
        other & 0xffff_ffff_ffff
    )
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

/// The services of a registry that are in use, with their nodes.
async fn services(api: &Api, kind: &str) -> Told {
    if !api.registries.contains(&kind) {
        return Err((404, format!("discovery {kind} is not there")));
    }
    let kind = kind.to_owned();
    let known =
        api.booth.ask(move |compiler: &Compiler| compiler.services_of(&kind)).await.ok_or_else(ended)?;
    let mut services = Map::new();
    for (service, nodes) in known {
        let nodes = nodes.iter().map(|node| {
            json!({"host": node.host, "port": node.port, "weight": node.weight, "priority": node.priority})
        });
        services.insert(service.name, nodes.collect());
    }
    Ok(json!({"services": services}))
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

/// Objects inside objects that have defaults of their own. Others have names that users give, such as `nodes` and `labels`.
const WITH_DEFAULTS: [&str; 8] =
    ["upstream", "checks", "active", "passive", "healthy", "unhealthy", "keepalive_pool", "tls"];

/// What is written stays as it is, whatever a typed form would make of it.
fn complete(written: &mut Map<String, Value>, filled: Map<String, Value>) {
    for (name, value) in filled {
        match (written.get_mut(&name), value) {
            (_, Value::Null) => {}
            (None, value) => {
                written.insert(name, without_nulls(value));
            }
            (Some(Value::Object(inner)), Value::Object(value)) if WITH_DEFAULTS.contains(&name.as_str()) => {
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
            "refuses": object.refuses,
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
