//! `/configs`: all objects as one document, as clients of APISIX's standalone API write it.
//!
//! A document carries a digest, which the client makes, and a version for each kind: what has the version that is held
//! already is left as it is. Digest and versions are in memory only, as in APISIX; a digest counts as long as nothing
//! else has changed the objects since.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::objects::{known_manager, may_be_put, may_write_all};
use super::shown::{Telling, without_keys};
use super::{Admin, Call, held};
use crate::base::clock;
use crate::control::mask::masked;
use crate::control::store::{Change, Store, Term};
use crate::control::unmask::unmask;
use crate::control::write::{Plan, Refusal};
use crate::model::resources::{self, Format};
use crate::model::{ConfigError, Kind, Raw};

/// Largest document: some ten thousand objects.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;

const DIGEST: &str = "x-digest";
const LAST_MODIFIED: &str = "x-last-modified";

/// Of the document that was last taken.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    versions: BTreeMap<Kind, u64>,
    digest: Option<String>,
    /// Seconds since 1970; 0: never.
    written_at: u64,
    /// The store's revision that has it.
    revision: u64,
}

impl Sheet {
    fn version(&self, kind: Kind) -> u64 {
        self.versions.get(&kind).copied().unwrap_or(0)
    }

    /// The digest, as long as it is of what is held.
    fn digest_at(&self, revision: u64) -> Option<&str> {
        self.digest.as_deref().filter(|_| self.revision == revision)
    }

    fn head(&self, answer: Answer, revision: u64) -> Answer {
        let mut answer = answer.at(revision);
        if let Some(digest) = self.digest_at(revision) {
            answer = answer.with_header(DIGEST, digest);
        }
        if self.written_at > 0 {
            answer = answer.with_header(LAST_MODIFIED, &self.written_at.to_string());
        }
        answer
    }
}

/// Kinds with a list of their own in a document; credentials stand among the consumers, decorations among the services.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.home() == *kind)
}

fn version_key(kind: Kind) -> String {
    format!("{}_conf_version", kind.plural())
}

/// Answers a request about the whole.
pub(super) async fn serve(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    match call.method {
        Method::GET | Method::HEAD => show(admin, call).await,
        Method::PUT => put(admin, call).await,
        _ => Err(Refusal::new(405, format!("not supported `{}` method for configs", call.method))),
    }
}

async fn show(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    let telling = Telling::of(admin, call)?;
    let sheet = admin.sheet.lock().await;
    let store = held(&admin.store);
    let document = document(&store, &sheet, telling);
    let answer = if asks_for_yaml(&call.headers, "accept") {
        let encoded = serde_yaml_ng::to_string(&document);
        Answer::yaml(encoded.map_err(|error| Refusal::new(500, format!("failed to encode yaml: {error}")))?)
    } else {
        Answer::json(200, document)
    };
    Ok(sheet.head(answer, store.revision()))
}

fn asks_for_yaml(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/yaml"))
}

fn document(store: &Store, sheet: &Sheet, telling: Telling) -> Value {
    let mut fields = Map::new();
    for kind in kinds() {
        let mut items = items_of(store, kind, telling);
        if let Some(part) = kind.part() {
            items.extend(items_of(store, part, telling));
        }
        if !items.is_empty() {
            fields.insert(kind.plural().to_owned(), Value::Array(items));
        }
        fields.insert(version_key(kind), json!(sheet.version(kind)));
    }
    Value::Object(fields)
}

fn items_of(store: &Store, kind: Kind, telling: Telling) -> Vec<Value> {
    let item = |id: &str, value: &Value| {
        let value = value.clone();
        let mut value = match telling {
            Telling::AsWritten => without_keys(kind, value),
            Telling::Masked => masked(kind, value),
            Telling::All => value,
        };
        // In a document ids are whole: `vault/1`, `jack/credentials/1`.
        // What others have written to etcd need not be an object.
        if kind != Kind::Consumer
            && let Value::Object(fields) = &mut value
        {
            fields.insert("id".to_owned(), json!(id));
        }
        value
    };
    store.list(kind).into_iter().map(|(id, entry)| item(id.as_str(), &entry.value)).collect()
}

async fn put(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    let how = may_write_all(admin, call)?;
    let digest = call.headers.get(DIGEST).and_then(|value| value.to_str().ok());
    let digest = digest.ok_or_else(|| Refusal::new(400, "missing digest header"))?.to_owned();
    // Held to the end: versions are compared with what the one before has left.
    let mut sheet = admin.sheet.lock().await;
    let revision = held(&admin.store).revision();
    if sheet.digest_at(revision) == Some(digest.as_str()) {
        return Ok(sheet.head(Answer::empty(204), revision));
    }
    let mut fields = fields_of(call)?;
    let versions = next_versions(&sheet, &fields)?;
    for (kind, version) in &versions {
        if *version == sheet.version(*kind) {
            fields.shift_remove(kind.plural());
        }
    }
    let replaced: Vec<Kind> = kinds().filter(|kind| versions[kind] > sheet.version(*kind)).collect();
    no_doubles(&fields)?;
    let parsed = resources::of_document(Value::Object(fields)).map_err(Refusal::invalid)?;
    if parsed.plugins.is_some_and(|plugins| !plugins.is_empty()) {
        return Err(Refusal::new(400, "plugins: set by `plugins` in the settings of the process here"));
    }
    let mut objects: Vec<Raw> = parsed.objects.into_iter().map(as_kept).collect();
    for raw in &objects {
        may_be_put(admin.stream_routes, raw.kind)?;
        known_manager(raw.kind, raw.id.as_str())?;
    }
    let order: Vec<(Kind, String)> = objects.iter().map(|raw| (raw.kind.home(), raw.name())).collect();
    let if_match = call.if_match.clone();
    let prepare = move |store: &Store| {
        check_match(if_match.as_deref(), store.revision())?;
        let unknown = unmask_all(store, &mut objects);
        if !unknown.is_empty() {
            return Err(Refusal::invalid(unknown));
        }
        Ok(Plan { changes: changes(store, objects, &replaced), then: () })
    };
    let dry_run = how.dry_run;
    let written = admin.desk.write(how, prepare).await;
    let (done, ()) = written.map_err(|refusal| at_its_place(refusal, &order))?;
    if !dry_run {
        let written_at = clock::wall() / 1000;
        *sheet = Sheet { versions, digest: Some(digest), written_at, revision: done.revision };
    }
    Ok(sheet.head(Answer::empty(202), done.revision).warned(&done.warnings))
}

/// Puts held secrets where objects say `***`; each that is not known is a fault.
pub(super) fn unmask_all(store: &Store, objects: &mut [Raw]) -> Vec<ConfigError> {
    let unmasked = |raw: &mut Raw| {
        let held = store.get(raw.kind, raw.id.as_str()).map(|entry| &entry.value);
        let unknown = unmask(raw.kind, &mut raw.value, held);
        unknown.into_iter().map(|fault| fault.in_object(raw.name())).collect::<Vec<_>>()
    };
    objects.iter_mut().flat_map(unmasked).collect()
}

/// Refuses when the objects are not at the revision that the client knows.
fn check_match(if_match: Option<&str>, revision: u64) -> Result<(), Refusal> {
    let Some(wanted) = if_match.map(str::trim) else { return Ok(()) };
    let found = format!("\"{revision}\"");
    if wanted == "*" || wanted.split(',').any(|tag| tag.trim() == found) {
        return Ok(());
    }
    Err(Refusal::new(412, format!("If-Match: expected the objects at revision {found}, got {wanted}")))
}

fn fields_of(call: &Call) -> Result<Map<String, Value>, Refusal> {
    let invalid = |why: &str| Refusal::new(400, format!("invalid request body: {why}"));
    if call.body.is_empty() {
        return Err(invalid("empty request body"));
    }
    let text = std::str::from_utf8(&call.body).map_err(|_| invalid("not UTF-8"))?;
    let format = if asks_for_yaml(&call.headers, "content-type") { Format::Yaml } else { Format::Json };
    match resources::read_document(text, format) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("expected an object of routes, upstreams and so on")),
        Err(fault) => Err(invalid(&fault.to_string())),
    }
}

/// The version of each kind that a document brings; one more than now where it says none.
fn next_versions(sheet: &Sheet, fields: &Map<String, Value>) -> Result<BTreeMap<Kind, u64>, Refusal> {
    let next = |kind: Kind| {
        let (key, now) = (version_key(kind), sheet.version(kind));
        let version = match fields.get(&key) {
            None => now + 1,
            Some(version) => version.as_u64().ok_or_else(|| {
                Refusal::new(400, format!("{key} must be a number, and whole, got {version}"))
            })?,
        };
        if version < now {
            return Err(Refusal::new(400, format!("{key} must be greater than or equal to ({now})")));
        }
        Ok((kind, version))
    };
    kinds().map(next).collect()
}

/// Refuses what is in a list twice, in APISIX's words.
fn no_doubles(fields: &Map<String, Value>) -> Result<(), Refusal> {
    for kind in kinds() {
        let mut seen = BTreeSet::new();
        for item in fields.get(kind.plural()).and_then(Value::as_array).into_iter().flatten() {
            let (what, known_by) = match (kind, item.get("id")) {
                (Kind::Consumer, None) => ("username", item.get("username")),
                (Kind::Consumer, id) => ("credential id", id),
                (_, id) => ("id", id),
            };
            let id = match known_by {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => continue,
            };
            if !seen.insert(id.clone()) {
                return Err(Refusal::new(400, format!("found duplicate {what} {id} in {kind}")));
            }
        }
    }
    Ok(())
}

/// As the other paths keep it: an id is the last part of a whole one.
fn as_kept(mut raw: Raw) -> Raw {
    if let (true, Some(Value::String(id))) = (raw.kind.has_joined_ids(), raw.value.get_mut("id"))
        && let Some((_, last)) = id.rsplit_once('/')
    {
        *id = last.to_owned();
    }
    raw
}

/// What makes the objects of the replaced kinds these. What is as it was is no change.
fn changes(store: &Store, wanted: Vec<Raw>, replaced: &[Kind]) -> Vec<Change> {
    let named: BTreeSet<(Kind, &str)> = wanted.iter().map(|raw| (raw.kind, raw.id.as_str())).collect();
    let mut changes = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| replaced.contains(&kind.home())) {
        let gone = store.list(kind).into_iter().filter(|(id, _)| !named.contains(&(kind, id.as_str())));
        changes.extend(gone.map(|(id, _)| Change::Delete(kind, id.clone())));
    }
    // What is here for a time and is in the document is to stay.
    let is_new = |raw: &Raw| {
        let held = store.get(raw.kind, raw.id.as_str());
        held.is_none_or(|entry| entry.value != raw.value || entry.term != Term::Lasting)
    };
    changes.extend(wanted.iter().filter(|raw| is_new(raw)).cloned().map(Change::Put));
    changes
}

/// Says of the first fault where in the document it is.
fn at_its_place(refusal: Refusal, order: &[(Kind, String)]) -> Refusal {
    let Some(fault) = refusal.faults.first() else { return refusal };
    let Some((kind, _)) = order.iter().find(|(_, name)| *name == fault.object) else { return refusal };
    let of_kind = order.iter().filter(|(known, _)| known == kind);
    let index = of_kind.map(|(_, name)| name).position(|name| *name == fault.object).unwrap_or(0);
    let inside = ConfigError { object: String::new(), ..fault.clone() };
    let message = format!("invalid {kind} at index {index}, err: invalid configuration: {inside}");
    Refusal { message, ..refusal }
}
