//! Objects: read, written, patched, deleted, one by one or several at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::answer::{Answer, KEY_NOT_FOUND};
use super::shown::{Telling, shown, written};
use super::{Admin, Call, batch, decorations, form, held, listing, references};
use crate::base::clock;
use crate::control::store::{Change, Entry, Store};
use crate::control::unmask::unmask;
use crate::control::write::{How, Plan, Refusal};
use crate::model::resources;
use crate::model::settings::AdminApiVersion;
use crate::model::{Kind, ObjectId, Raw, object_name};

/// Seconds of the longest `?ttl`: as long as a lease of etcd may be.
pub(super) const TTL_MAX: f64 = 9e9;

/// The kinds of stores of secrets.
const MANAGERS: [&str; 3] = ["vault", "aws", "gcp"];

/// What may be done with objects of a kind, besides reading, putting and deleting them.
pub(super) struct Spec {
    pub(super) kind: Kind,
    pub(super) post: bool,
    pub(super) patch: bool,
}

pub(super) const SPECS: [Spec; 12] = [
    Spec { kind: Kind::Route, post: true, patch: true },
    Spec { kind: Kind::Service, post: true, patch: true },
    Spec { kind: Kind::Upstream, post: true, patch: true },
    Spec { kind: Kind::Ssl, post: true, patch: true },
    Spec { kind: Kind::Consumer, post: false, patch: false },
    Spec { kind: Kind::ConsumerGroup, post: false, patch: true },
    Spec { kind: Kind::PluginConfig, post: false, patch: true },
    Spec { kind: Kind::GlobalRule, post: false, patch: true },
    Spec { kind: Kind::StreamRoute, post: true, patch: false },
    Spec { kind: Kind::Proto, post: true, patch: false },
    Spec { kind: Kind::PluginMetadata, post: false, patch: false },
    Spec { kind: Kind::Secret, post: false, patch: true },
];
pub(super) static CREDENTIALS: Spec = Spec { kind: Kind::Credential, post: false, patch: false };
pub(super) static DECORATIONS: Spec = Spec { kind: Kind::CostDecoration, post: true, patch: true };

/// Where a path leads.
pub(super) struct Place<'a> {
    pub(super) spec: &'a Spec,
    /// What ids begin with there: `jack/credentials/`.
    home: String,
    /// The whole id, if one is named.
    pub(super) id: Option<String>,
    /// Behind the id: where a patch goes.
    pub(super) inner: &'a [String],
}

impl<'a> Place<'a> {
    pub(super) fn of(path: &'a [String]) -> Option<Self> {
        let [plural, rest @ ..] = path else { return None };
        let spec = SPECS.iter().find(|spec| spec.kind.plural() == plural)?;
        Some(match (spec.kind, rest) {
            (Kind::Consumer, [user, word, rest @ ..]) if word == "credentials" => {
                let home = format!("{user}/credentials/");
                let id = rest.first().map(|id| format!("{home}{id}"));
                Self { spec: &CREDENTIALS, home, id, inner: rest.get(1..).unwrap_or(&[]) }
            }
            (Kind::Service, [service, word, rest @ ..]) if word == Kind::CostDecoration.plural() => {
                let home = format!("{service}/{word}/");
                let id = rest.first().map(|id| format!("{home}{id}"));
                Self { spec: &DECORATIONS, home, id, inner: rest.get(1..).unwrap_or(&[]) }
            }
            (Kind::Secret, [manager, id, inner @ ..]) => {
                Self { spec, home: String::new(), id: Some(format!("{manager}/{id}")), inner }
            }
            (Kind::Secret, [manager]) => Self { spec, home: format!("{manager}/"), id: None, inner: &[] },
            (_, [id, inner @ ..]) => Self { spec, home: String::new(), id: Some(id.clone()), inner },
            (_, []) => Self { spec, home: String::new(), id: None, inner: &[] },
        })
    }

    pub(super) fn missing_id(&self) -> Refusal {
        Refusal::new(400, format!("missing {} id", words(self.spec.kind)))
    }
}

/// `plugin config` for `plugin_config`.
fn words(kind: Kind) -> String {
    kind.singular().replace('_', " ")
}

/// The path of an object in a store that others of its ecosystem share.
pub(crate) fn key(kind: Kind, id: &str) -> String {
    format!("/apisix/{}", object_name(kind, id))
}

/// Answers a request about objects.
pub(super) async fn serve(admin: &Arc<Admin>, call: &Call) -> Result<Answer, Refusal> {
    if call.path.first().is_some_and(|first| first == "batch") && call.method == Method::POST {
        return batch::make(admin, call).await;
    }
    let Some(place) = Place::of(&call.path) else {
        let first = call.path.first().map_or("", String::as_str);
        return Err(Refusal::new(404, format!("Unsupported resource type: {first}")));
    };
    // Only a patch goes into an object: a slip that is taken for the whole of it would delete too much.
    if !place.inner.is_empty() && call.method != Method::PATCH {
        return Err(Refusal::new(404, "not found"));
    }
    let singular = words(place.spec.kind);
    let not_supported =
        |method: &str| Refusal::new(405, format!("not supported `{method}` method for {singular}"));
    let answer = match call.method.clone() {
        Method::GET => read(admin, call, &place),
        Method::PUT => put(admin, call, &place).await,
        Method::POST if !place.spec.post => Err(not_supported("POST")),
        Method::POST => post(admin, call, &place).await,
        Method::PATCH if !place.spec.patch => Err(not_supported("PATCH")),
        Method::PATCH => patch(admin, call, &place).await,
        Method::DELETE => delete(admin, call, &place).await,
        _ => Err(Refusal::new(404, "not found")),
    }?;
    if call.is_local || admin.version == AdminApiVersion::V3 {
        return Ok(answer);
    }
    let list = key(place.spec.kind, place.home.trim_end_matches('/'));
    Ok(answer.reformed(|body| form::older(&call.method, list.trim_end_matches('/'), body)))
}

fn not_found() -> Refusal {
    Refusal::new(404, KEY_NOT_FOUND)
}

fn read(admin: &Admin, call: &Call, place: &Place<'_>) -> Result<Answer, Refusal> {
    let telling = Telling::of(admin, call)?;
    let store = held(&admin.store);
    let kind = place.spec.kind;
    let Some(id) = &place.id else {
        let list = listing::list(&store, (place.spec, &place.home), call, telling)?;
        // A consumer that has none, or is none.
        if kind == Kind::Credential && list["total"] == 0 {
            return Err(not_found());
        }
        return Ok(Answer::json(200, list).at(store.revision()));
    };
    let entry = store.get(kind, id).ok_or_else(not_found)?;
    Ok(Answer::json(200, shown(kind, id, entry, telling)).at(store.revision()).tagged(entry.modified))
}

/// How a change is to be made; refuses it where a file holds the objects.
pub(super) fn may_write(admin: &Admin, call: &Call) -> Result<How, Refusal> {
    let dry_run = call.is_set("dry_run");
    if let Some(why) = &admin.read_only
        && !dry_run
    {
        return Err(Refusal::new(403, why.clone()));
    }
    let ttl = call.query("ttl").map(ttl_of).transpose()?;
    Ok(How { author: call.author.clone(), dry_run, force: is_forced(call), ttl })
}

/// The same for what is not about single objects.
pub(super) fn may_write_all(admin: &Admin, call: &Call) -> Result<How, Refusal> {
    let how = may_write(admin, call)?;
    if how.ttl.is_some() {
        return Err(Refusal::new(400, "invalid argument ttl: it is for objects that are put one by one"));
    }
    Ok(how)
}

fn ttl_of(text: &str) -> Result<Duration, Refusal> {
    let seconds: f64 =
        text.trim().parse().map_err(|_| Refusal::new(400, "invalid argument ttl: should be a number"))?;
    if seconds.fract() == 0.0 && (1.0..=TTL_MAX).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let why = format!("invalid argument ttl: expected whole seconds from 1 to {TTL_MAX}, got {text}");
    Err(Refusal::new(400, why))
}

/// Stream routes are taken where streams come in, or somebody says that they are to be kept.
pub(super) fn may_be_put(streams: bool, kind: Kind) -> Result<(), Refusal> {
    if kind == Kind::StreamRoute && !streams {
        return Err(Refusal::new(400, "stream mode is disabled, can not add stream routes"));
    }
    Ok(())
}

/// Only this word: who misspells it does not mean to break references.
pub(super) fn is_forced(call: &Call) -> bool {
    call.query("force") == Some("true")
}

/// Refuses a store of secrets of a kind that there is not.
pub(super) fn known_manager(kind: Kind, id: &str) -> Result<(), Refusal> {
    let manager = id.split('/').next().unwrap_or(id);
    if kind == Kind::Secret && !MANAGERS.contains(&manager) {
        return Err(Refusal::new(400, format!("invalid secret manager: {manager}")));
    }
    Ok(())
}

/// The body as an object.
fn fields_of(call: &Call) -> Result<Map<String, Value>, Refusal> {
    if call.body.is_empty() {
        return Err(Refusal::new(400, "missing configuration"));
    }
    match value_of(call)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Refusal::new(400, "invalid configuration: expected an object")),
    }
}

pub(super) fn value_of(call: &Call) -> Result<Value, Refusal> {
    serde_json::from_slice(&call.body)
        .map_err(|error| Refusal::new(400, format!("invalid request body: {error}")))
}

/// What only the gateway says of an object.
pub(super) fn without_times(fields: &Map<String, Value>) -> Result<(), Refusal> {
    let inline = fields.get("upstream").and_then(Value::as_object);
    for name in ["create_time", "update_time"] {
        if [Some(fields), inline].into_iter().flatten().any(|fields| fields.contains_key(name)) {
            return Err(Refusal::new(400, format!("the property is forbidden: {name}")));
        }
    }
    Ok(())
}

/// The id to put an object under: of the path, else of the object; they must not differ.
pub(super) fn id_of(place: &Place<'_>, fields: &Map<String, Value>) -> Result<String, Refusal> {
    let kind = place.spec.kind;
    let (field, wrong) = match kind {
        Kind::Consumer => ("username", "wrong username".to_owned()),
        _ => ("id", format!("wrong {} id", words(kind))),
    };
    let own = match fields.get(field) {
        Some(Value::String(text)) => Some(format!("{}{text}", place.home)),
        Some(Value::Number(number)) if number.as_u64().is_some_and(|number| number > 0) => {
            Some(format!("{}{number}", place.home))
        }
        None => None,
        Some(_) => {
            let problem = format!("invalid configuration: property \"{field}\" validation failed");
            return Err(Refusal::new(400, problem));
        }
    };
    match (&place.id, own) {
        (Some(named), Some(own)) if *named != own && !named.ends_with(&format!("/{own}")) => {
            Err(Refusal::new(400, wrong))
        }
        (Some(named), _) => Ok(named.clone()),
        (None, Some(own)) => Ok(own),
        (None, None) if kind == Kind::Consumer => {
            Err(Refusal::new(400, "invalid configuration: property \"username\" is required"))
        }
        (None, None) => Err(place.missing_id()),
    }
}

/// A put as a change, and the object as it will be kept.
pub(super) fn put_change(
    store: &Store,
    kind: Kind,
    id: &str,
    mut fields: Map<String, Value>,
) -> Result<(Change, Value), Refusal> {
    known_manager(kind, id)?;
    if kind == Kind::CostDecoration {
        decorations::complete(store, id, &mut fields)?;
    }
    let now = clock::wall() / 1000;
    let created = store.get(kind, id).and_then(|entry| entry.value.get("create_time").cloned());
    if kind != Kind::Consumer {
        let own = id.rsplit('/').next().unwrap_or(id);
        fields.insert("id".to_owned(), json!(own));
    }
    if kind != Kind::PluginMetadata {
        fields.insert("create_time".to_owned(), created.unwrap_or_else(|| json!(now)));
        fields.insert("update_time".to_owned(), json!(now));
    }
    let mut value = Value::Object(fields);
    let unknown = unmask(kind, &mut value, store.get(kind, id).map(|entry| &entry.value));
    if !unknown.is_empty() {
        let name = object_name(kind, id);
        return Err(Refusal::invalid(unknown.into_iter().map(|fault| fault.in_object(&name)).collect()));
    }
    let id = object_id(kind, id)?;
    Ok((Change::Put(Raw { kind, id, value: value.clone() }), value))
}

/// Refuses a part of what is not there. A batch may bring that along, and what it refers to; there the compiler tells.
fn has_owner(store: &Store, kind: Kind, id: &str) -> Result<(), Refusal> {
    let (home, owner) = (kind.home(), id.split('/').next().unwrap_or(""));
    if home == kind || store.get(home, owner).is_some() {
        return Ok(());
    }
    Err(Refusal::new(404, format!("{} not found", words(home))))
}

fn object_id(kind: Kind, id: &str) -> Result<ObjectId, Refusal> {
    let parsed = match kind {
        Kind::Consumer => ObjectId::of_username(id),
        Kind::Credential => ObjectId::of_credential(id),
        Kind::CostDecoration => ObjectId::of_decoration(id),
        Kind::Secret => ObjectId::joined(id),
        _ => id.parse(),
    };
    parsed.map_err(|fault| Refusal::invalid(vec![fault.under("id")]))
}

/// Refuses when the object is not at the revision that the client knows.
fn check_match(if_match: Option<&str>, entry: Option<&Entry>) -> Result<(), Refusal> {
    let Some(wanted) = if_match else { return Ok(()) };
    let found = entry.map(|entry| format!("\"{}\"", entry.modified));
    let holds = match &found {
        None => false,
        Some(found) => wanted.trim() == "*" || wanted.split(',').any(|tag| tag.trim() == found),
    };
    if holds {
        return Ok(());
    }
    let found = found.unwrap_or_else(|| "no object".to_owned());
    Err(Refusal::new(412, format!("If-Match: expected the object at {found}, got {wanted}")))
}

async fn put(admin: &Admin, call: &Call, place: &Place<'_>) -> Result<Answer, Refusal> {
    let (how, telling) = (may_write(admin, call)?, Telling::of(admin, call)?);
    may_be_put(admin.stream_routes, place.spec.kind)?;
    let fields = fields_of(call)?;
    without_times(&fields)?;
    let (kind, id) = (place.spec.kind, id_of(place, &fields)?);
    let (wanted, if_match) = (id.clone(), call.if_match.clone());
    let prepare = move |store: &Store| {
        let entry = store.get(kind, &id);
        check_match(if_match.as_deref(), entry)?;
        has_owner(store, kind, &id)?;
        let status = if entry.is_some() { 200 } else { 201 };
        let (change, value) = put_change(store, kind, &id, fields)?;
        references::check(store, (kind, &id), &value)?;
        Ok(Plan { changes: vec![change], then: (status, value) })
    };
    let (done, (status, value)) = admin.desk.write(how, prepare).await?;
    let body = json!({"key": key(kind, &wanted), "value": written(kind, value, telling)});
    Ok(Answer::json(status, body).at(done.revision).tagged(done.revision).warned(&done.warnings))
}

async fn post(admin: &Admin, call: &Call, place: &Place<'_>) -> Result<Answer, Refusal> {
    let (how, telling) = (may_write(admin, call)?, Telling::of(admin, call)?);
    may_be_put(admin.stream_routes, place.spec.kind)?;
    if place.id.is_some() {
        return Err(Refusal::new(400, format!("wrong {} id, do not need it", words(place.spec.kind))));
    }
    let fields = fields_of(call)?;
    without_times(&fields)?;
    if fields.contains_key("id") {
        return Err(Refusal::new(400, format!("wrong {} id, do not need it", words(place.spec.kind))));
    }
    let (kind, home) = (place.spec.kind, place.home.clone());
    let prepare = move |store: &Store| {
        let id = free_id(store, kind, &home);
        has_owner(store, kind, &id)?;
        let (change, value) = put_change(store, kind, &id, fields)?;
        references::check(store, (kind, &id), &value)?;
        Ok(Plan { changes: vec![change], then: (id, value) })
    };
    let (done, (id, value)) = admin.desk.write(how, prepare).await?;
    let body = json!({"key": key(kind, &id), "value": written(kind, value, telling)});
    Ok(Answer::json(201, body).at(done.revision).tagged(done.revision).warned(&done.warnings))
}

/// An id for what nobody named, as a store of revisions gives it; past what was brought here under such a name.
fn free_id(store: &Store, kind: Kind, home: &str) -> String {
    let mut number = store.revision() + 1;
    loop {
        let id = format!("{home}{number:020}");
        if store.get(kind, &id).is_none() {
            return id;
        }
        number += 1;
    }
}

async fn patch(admin: &Admin, call: &Call, place: &Place<'_>) -> Result<Answer, Refusal> {
    let (how, telling) = (may_write(admin, call)?, Telling::of(admin, call)?);
    let missing = || match place.spec.kind {
        Kind::Secret => Refusal::new(400, "no secret id"),
        _ => place.missing_id(),
    };
    let id = place.id.clone().ok_or_else(missing)?;
    if call.body.is_empty() {
        return Err(Refusal::new(400, "missing new configuration"));
    }
    let patch = value_of(call)?;
    // What walks through a value does so on the stack, and no object is that deep.
    if place.inner.len() > resources::DEPTH_MAX {
        let (most, found) = (resources::DEPTH_MAX, place.inner.len());
        return Err(Refusal::new(
            400,
            format!("invalid sub-path: expected at most {most} steps, got {found}"),
        ));
    }
    if place.inner.is_empty() && !patch.is_object() {
        return Err(Refusal::new(400, "invalid configuration: expected an object"));
    }
    if place.spec.kind == Kind::CostDecoration {
        decorations::may_be_patched(place.inner, &patch)?;
    }
    // An object keeps its id, whether a patch says it in the whole or by itself.
    let said = match place.inner {
        [] => patch.get("id").cloned(),
        [field] if field == "id" => Some(patch.clone()),
        _ => None,
    };
    if let Some(said) = said.filter(|said| !said.is_null()) {
        id_of(place, &Map::from_iter([("id".to_owned(), said)]))?;
    }
    let (kind, inner, if_match) = (place.spec.kind, place.inner.to_vec(), call.if_match.clone());
    let wanted = id.clone();
    let prepare = move |store: &Store| {
        let entry = store.get(kind, &id).ok_or_else(not_found)?;
        check_match(if_match.as_deref(), Some(entry))?;
        let mut value = entry.value.clone();
        if inner.is_empty() {
            merge(&mut value, patch);
        } else {
            put_inside(&mut value, &inner, patch)?;
        }
        let Value::Object(fields) = value else { return Err(not_found()) };
        let (change, value) = put_change(store, kind, &id, fields)?;
        references::check(store, (kind, &id), &value)?;
        Ok(Plan { changes: vec![change], then: value })
    };
    let (done, value) = admin.desk.write(how, prepare).await?;
    let body = json!({"key": key(kind, &wanted), "value": written(kind, value, telling)});
    Ok(Answer::json(200, body).at(done.revision).tagged(done.revision).warned(&done.warnings))
}

/// Objects are merged, everything else replaces, `null` removes (RFC 7396).
fn merge(value: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(fields) = value else { return };
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), change);
        }
    }
}

/// Sets what a path of names leads to, making objects on the way.
fn put_inside(value: &mut Value, path: &[String], new: Value) -> Result<(), Refusal> {
    let wrong = || Refusal::new(400, format!("invalid sub-path: /{}", path.join("/")));
    let Some((last, way)) = path.split_last() else { return Err(wrong()) };
    let mut at = value;
    for name in way {
        at = match at {
            Value::Object(fields) => fields.entry(name.clone()).or_insert_with(|| Value::Object(Map::new())),
            _ => return Err(wrong()),
        };
    }
    let Value::Object(fields) = at else { return Err(wrong()) };
    if new.is_null() {
        fields.shift_remove(last);
    } else {
        fields.insert(last.clone(), new);
    }
    Ok(())
}

/// A deletion as changes, with what belongs to the object.
/// `gone` are the names of what goes with it: that does not need it any more.
pub(super) fn delete_changes(
    store: &Store,
    (kind, id): (Kind, &str),
    force: bool,
    gone: &BTreeSet<String>,
) -> Result<Vec<Change>, Refusal> {
    if store.get(kind, id).is_none() {
        return Err(not_found());
    }
    if !force && let Some(why) = references::needed(store, (kind, id), gone) {
        return Err(Refusal::new(400, why));
    }
    Ok(store.deletion(kind, &object_id(kind, id)?))
}

async fn delete(admin: &Admin, call: &Call, place: &Place<'_>) -> Result<Answer, Refusal> {
    let how = may_write(admin, call)?;
    let id = place.id.clone().ok_or_else(|| place.missing_id())?;
    let (kind, force, if_match) = (place.spec.kind, is_forced(call), call.if_match.clone());
    let wanted = id.clone();
    let prepare = move |store: &Store| {
        check_match(if_match.as_deref(), store.get(kind, &id))?;
        Ok(Plan { changes: delete_changes(store, (kind, &id), force, &BTreeSet::new())?, then: () })
    };
    let (done, ()) = admin.desk.write(how, prepare).await?;
    Ok(Answer::json(200, json!({"deleted": "1", "key": key(kind, &wanted)}))
        .at(done.revision)
        .warned(&done.warnings))
}
