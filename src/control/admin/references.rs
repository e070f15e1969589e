//! Which object needs which: what is deleted must not be needed by what stays.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::control::store::Store;
use crate::control::write::Refusal;
use crate::model::path::{Step, render};
use crate::model::reference::Reference;
use crate::model::{ConfigError, Kind, ObjectId, object_name};

/// Fields that hold the id of another object: of whom, which, and of what.
const FIELDS: [(Kind, &str, Kind); 15] = [
    (Kind::Route, "service_id", Kind::Service),
    (Kind::Route, "upstream_id", Kind::Upstream),
    (Kind::Route, "plugin_config_id", Kind::PluginConfig),
    (Kind::Service, "upstream_id", Kind::Upstream),
    (Kind::StreamRoute, "service_id", Kind::Service),
    (Kind::StreamRoute, "upstream_id", Kind::Upstream),
    (Kind::StreamRoute, "protocol.superior_id", Kind::StreamRoute),
    (Kind::StreamRoute, "upstream.tls.client_cert_id", Kind::Ssl),
    (Kind::Consumer, "group_id", Kind::ConsumerGroup),
    (Kind::Upstream, "tls.client_cert_id", Kind::Ssl),
    (Kind::Route, "upstream.tls.client_cert_id", Kind::Ssl),
    (Kind::Service, "upstream.tls.client_cert_id", Kind::Ssl),
    (Kind::Upstream, "fallback.upstream_id", Kind::Upstream),
    (Kind::Route, "upstream.fallback.upstream_id", Kind::Upstream),
    (Kind::Service, "upstream.fallback.upstream_id", Kind::Upstream),
];
/// Fields of plugins that do.
const IN_PLUGINS: [(&str, Kind); 2] = [("upstream_id", Kind::Upstream), ("proto_id", Kind::Proto)];
/// Kinds that have plugins.
const WITH_PLUGINS: [Kind; 7] = [
    Kind::Route,
    Kind::Service,
    Kind::PluginConfig,
    Kind::ConsumerGroup,
    Kind::Consumer,
    Kind::GlobalRule,
    Kind::StreamRoute,
];

/// Refuses an object for the first thing it refers to that is not there, in APISIX's words and with its place.
pub(super) fn check(store: &Store, (kind, id): (Kind, &str), value: &Value) -> Result<(), Refusal> {
    let Some(fault) = missing(store, kind, value) else { return Ok(()) };
    let message = fault.problem.clone();
    Err(Refusal { status: 400, message, faults: vec![fault.in_object(object_name(kind, id))] })
}

/// The first reference of an object to what is not there.
fn missing(store: &Store, kind: Kind, value: &Value) -> Option<ConfigError> {
    for (holder, field, of) in FIELDS {
        if holder != kind {
            continue;
        }
        let pointer = format!("/{}", field.replace('.', "/"));
        let Some(id) = value.pointer(&pointer).and_then(text_of) else { continue };
        match store.get(of, &id) {
            None => {
                return Some(ConfigError::at(field, not_found(of, &id)));
            }
            Some(entry) if of == Kind::Ssl && entry.value.get("type").is_none_or(|kind| kind != "client") => {
                let what = words(of);
                let problem = format!("failed to fetch {what} info by {what} id [{id}], wrong ssl type");
                return Some(ConfigError::at(field, problem));
            }
            Some(_) => {}
        }
    }
    missing_in_plugins(store, value)
}

fn not_found(of: Kind, id: &str) -> String {
    let what = words(of);
    format!("failed to fetch {what} info by {what} id [{id}], response code: 404")
}

/// [`missing`] for what plugins refer to. One that is off may say what it likes.
fn missing_in_plugins(store: &Store, value: &Value) -> Option<ConfigError> {
    let plugins = value.get("plugins").and_then(Value::as_object)?;
    let is_on = |config: &Value| config.pointer("/_meta/disable") != Some(&Value::Bool(true));
    for (field, of) in IN_PLUGINS {
        let mut lost = None;
        for (name, config) in plugins.iter().filter(|(_, config)| is_on(config)) {
            let mut place = vec![Step::Key("plugins"), Step::Key(name)];
            each_field(config, field, &mut place, &mut |place, id| {
                let id = text_of(id).filter(|id| store.get(of, id).is_none());
                let fault = id.map(|id| ConfigError::at(render(place.iter().copied()), not_found(of, &id)));
                lost = lost.take().or(fault);
            });
        }
        if lost.is_some() {
            return lost;
        }
    }
    None
}

/// Why an object can not be deleted: the first that needs it, in APISIX's words. Not counting what is `gone` with it, by name.
pub(super) fn needed(store: &Store, (kind, id): (Kind, &str), gone: &BTreeSet<String>) -> Option<String> {
    let stays = |holder: Kind, id: &ObjectId| !gone.contains(&object_name(holder, id.as_str()));
    // Only of services it says so.
    let what = if kind == Kind::Service { "service directly".to_owned() } else { words(kind) };
    for (holder, field, of) in FIELDS {
        if of != kind {
            continue;
        }
        let pointer = format!("/{}", field.replace('.', "/"));
        for (holder_id, entry) in store.list(holder) {
            if entry.value.pointer(&pointer).is_some_and(|value| is_id(value, id)) && stays(holder, holder_id)
            {
                let holder = holder.singular();
                return Some(format!(
                    "can not delete this {what}, {holder} [{holder_id}] is still using it now"
                ));
            }
        }
    }
    if kind == Kind::Secret {
        return asked(store, id, stays);
    }
    for (field, of) in IN_PLUGINS {
        if of != kind {
            continue;
        }
        for holder in WITH_PLUGINS {
            for (holder_id, entry) in store.list(holder) {
                let mentions = |plugins| mentions(plugins, field, id);
                if entry.value.get("plugins").is_some_and(mentions) && stays(holder, holder_id) {
                    let holder = match holder {
                        Kind::GlobalRule => holder.plural(),
                        holder => holder.singular(),
                    };
                    // Of protos it says it without a word of plugins.
                    let user = if of == Kind::Proto { "" } else { "plugin in " };
                    return Some(format!(
                        "can not delete this {what}, {user}{holder} [{holder_id}] is still using it now"
                    ));
                }
            }
        }
    }
    None
}

/// [`needed`] for a store of secrets: who has a reference that it is asked about.
fn asked(store: &Store, id: &str, stays: impl Fn(Kind, &ObjectId) -> bool) -> Option<String> {
    for holder in Kind::ALL.iter().copied() {
        for (holder_id, entry) in store.list(holder) {
            if refers(&entry.value, id) && stays(holder, holder_id) {
                let holder = holder.singular();
                return Some(format!(
                    "can not delete this secret, {holder} [{holder_id}] is still using it now"
                ));
            }
        }
    }
    None
}

/// Whether a value has a reference to this store of secrets, however deep.
fn refers(value: &Value, id: &str) -> bool {
    match value {
        Value::String(text) => {
            matches!(Reference::of(text), Ok(Reference::Secret { store, .. }) if store == id)
        }
        Value::Array(items) => items.iter().any(|item| refers(item, id)),
        Value::Object(fields) => fields.values().any(|field| refers(field, id)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `plugin config` for `plugin_config`.
fn words(kind: Kind) -> String {
    kind.singular().replace('_', " ")
}

/// An id as text, whether it is written as text or as a number.
fn text_of(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_id(value: &Value, id: &str) -> bool {
    text_of(value).is_some_and(|text| text == id)
}

fn mentions(value: &Value, field: &str, id: &str) -> bool {
    let mut found = false;
    each_field(value, field, &mut Vec::new(), &mut |_, value| found |= is_id(value, id));
    found
}

/// Shows what every field of that name holds and where, however deep it stands.
fn each_field<'v>(
    value: &'v Value,
    field: &str,
    place: &mut Vec<Step<'v>>,
    see: &mut dyn FnMut(&[Step<'v>], &'v Value),
) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                place.push(Step::Key(name));
                if name == field {
                    see(place, value);
                }
                each_field(value, field, place, see);
                place.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                place.push(Step::Index(index));
                each_field(item, field, place, see);
                place.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
