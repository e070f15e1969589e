//! Which object needs which: what is deleted must not be needed by what stays.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::control::store::Store;
use crate::model::{Kind, ObjectId, object_name};

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

/// Why an object can not be written: the first thing it refers to that is not there, in APISIX's words.
pub(super) fn missing(store: &Store, kind: Kind, value: &Value) -> Option<String> {
    for (holder, field, of) in FIELDS {
        if holder != kind {
            continue;
        }
        let pointer = format!("/{}", field.replace('.', "/"));
        let Some(id) = value.pointer(&pointer).and_then(text_of) else { continue };
        let what = words(of);
        match store.get(of, &id) {
            None => {
                return Some(format!("failed to fetch {what} info by {what} id [{id}], response code: 404"));
            }
            Some(entry) if of == Kind::Ssl && entry.value.get("type").is_none_or(|kind| kind != "client") => {
                return Some(format!("failed to fetch {what} info by {what} id [{id}], wrong ssl type"));
            }
            Some(_) => {}
        }
    }
    missing_in_plugins(store, value)
}

/// [`missing`] for what plugins refer to. One that is off may say what it likes.
fn missing_in_plugins(store: &Store, value: &Value) -> Option<String> {
    let plugins = value.get("plugins").and_then(Value::as_object)?;
    let is_on = |config: &&Value| config.pointer("/_meta/disable") != Some(&Value::Bool(true));
    for (field, of) in IN_PLUGINS {
        let mut lost = None;
        for config in plugins.values().filter(is_on) {
            each_field(config, field, &mut |id| {
                let id = text_of(id);
                let is_lost = id.as_ref().is_some_and(|id| store.get(of, id).is_none());
                lost = lost.take().or_else(|| id.filter(|_| is_lost));
            });
        }
        if let Some(id) = lost {
            let what = words(of);
            return Some(format!("failed to fetch {what} info by {what} id [{id}], response code: 404"));
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
    each_field(value, field, &mut |value| found |= is_id(value, id));
    found
}

/// Shows what every field of that name holds, however deep it stands.
fn each_field<'v>(value: &'v Value, field: &str, see: &mut dyn FnMut(&'v Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == field {
                    see(value);
                }
                each_field(value, field, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_field(item, field, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
