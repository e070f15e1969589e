//! Batches: several objects put and deleted as one revision, or none of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::answer::Answer;
use super::objects::{
    Place, delete_changes, id_of, is_forced, key, may_be_put, may_write, put_change, value_of, without_times,
};
use super::{Admin, Call};
use crate::control::store::{Change, Store};
use crate::control::write::{Plan, Refusal};
use crate::model::object_name;

/// Operations of one batch.
const BATCH_MAX: usize = 1000;

/// `POST /batch` with `[{"method": "PUT", "path": "/routes/1", "body": {…}}, …]`: all of it as one revision, or none.
pub(super) async fn make(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    let how = may_write(admin, call)?;
    let Value::Array(operations) = value_of(call)? else {
        return Err(Refusal::new(400, "expected a list of operations"));
    };
    if operations.len() > BATCH_MAX {
        return Err(Refusal::new(
            400,
            format!("expected at most {BATCH_MAX} operations, got {}", operations.len()),
        ));
    }
    let (force, streams) = (is_forced(call), admin.stream_routes);
    let prepare = move |store: &Store| {
        let (mut changes, mut keys) = (Vec::new(), Vec::new());
        let rules = Rules { force, streams, gone: operations.iter().filter_map(deleted).collect() };
        for (at, operation) in operations.iter().enumerate() {
            let of_this = |refusal: Refusal| Refusal {
                message: format!("operation {at}: {}", refusal.message),
                ..refusal
            };
            let (more, key) = operation_changes(store, operation, &rules).map_err(of_this)?;
            changes.extend(more);
            keys.push(key);
        }
        Ok(Plan { changes, then: keys })
    };
    let (done, keys) = admin.desk.write(how, prepare).await?;
    Ok(Answer::json(200, json!({"revision": done.revision, "keys": keys}))
        .at(done.revision)
        .warned(&done.warnings))
}

/// What holds for all operations of a batch.
struct Rules {
    force: bool,
    streams: bool,
    /// Names of what is deleted.
    gone: BTreeSet<String>,
}

fn path_of(operation: &Value) -> Vec<String> {
    let path = operation.get("path").and_then(Value::as_str).unwrap_or("");
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The name of what an operation deletes.
fn deleted(operation: &Value) -> Option<String> {
    let path = path_of(operation);
    let place = Place::of(&path)?;
    (operation.get("method")? == "DELETE")
        .then(|| object_name(place.spec.kind, place.id.as_deref().unwrap_or("")))
}

fn operation_changes(
    store: &Store,
    operation: &Value,
    rules: &Rules,
) -> Result<(Vec<Change>, String), Refusal> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = path_of(operation);
    let place = Place::of(&path).filter(|place| place.inner.is_empty()).ok_or_else(|| {
        Refusal::new(
            400,
            format!("path: expected one such as /routes/1, got {:?}", text("path").unwrap_or("")),
        )
    })?;
    let kind = place.spec.kind;
    match text("method") {
        Some("PUT") => {
            let Some(Value::Object(fields)) = operation.get("body") else {
                return Err(Refusal::new(400, "body: expected an object"));
            };
            without_times(fields)?;
            may_be_put(rules.streams, kind)?;
            let id = id_of(&place, fields)?;
            let (change, _) = put_change(store, kind, &id, fields.clone())?;
            Ok((vec![change], key(kind, &id)))
        }
        Some("DELETE") => {
            let id = place.id.clone().ok_or_else(|| place.missing_id())?;
            Ok((delete_changes(store, (kind, &id), rules.force, &rules.gone)?, key(kind, &id)))
        }
        other => {
            Err(Refusal::new(400, format!("method: expected PUT or DELETE, got {}", other.unwrap_or("none"))))
        }
    }
}
