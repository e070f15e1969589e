//! The past: who changed what, without secrets, and the way back.

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::Answer;
use super::objects::{key, may_write_all};
use super::{Admin, Call, held};
use crate::control::mask::masked;
use crate::control::store::{Changed, Revision, Store};
use crate::control::write::{Plan, Refusal};

/// Revisions told where nobody says how many.
const LIMIT: usize = 20;

/// `GET /history?limit=N`: the newest revisions, newest first.
pub(super) fn tell(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::new(405, format!("not supported `{}` method for history", call.method)));
    }
    let limit = match call.query("limit") {
        None => LIMIT,
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::new(400, format!("limit: expected a whole number, got {text:?}")))?,
    };
    let store = held(&admin.store);
    let history = store.history(limit).map_err(|error| Refusal::new(503, error.to_string()))?;
    let list: Vec<Value> = history.iter().map(shown).collect();
    Ok(Answer::json(200, json!({"total": list.len(), "list": list})).at(store.revision()))
}

fn shown(revision: &Revision) -> Value {
    let changes: Vec<Value> = revision.changes.iter().map(change).collect();
    json!({
        "revision": revision.revision,
        "time": revision.at,
        "who": revision.author.who,
        "from": revision.author.from,
        "changes": changes,
    })
}

fn change(changed: &Changed) -> Value {
    let side = |value: &Option<Value>| value.clone().map(|value| masked(changed.kind, value));
    json!({
        "key": key(changed.kind, changed.id.as_str()),
        "before": side(&changed.before),
        "after": side(&changed.after),
    })
}

/// `POST /rollback/REVISION`: objects as they were then, as a new revision.
pub(super) async fn go_back(admin: &Admin, call: &Call, revision: &str) -> Result<Answer, Refusal> {
    let how = may_write_all(admin, call)?;
    if call.method != Method::POST {
        return Err(Refusal::new(405, format!("not supported `{}` method for rollback", call.method)));
    }
    let wanted: u64 =
        revision.parse().map_err(|_| Refusal::new(400, format!("expected a revision, got {revision:?}")))?;
    let prepare = move |store: &Store| {
        let changes = store
            .changes_back_to(wanted)
            .map_err(|error| Refusal::new(503, error.to_string()))?
            .ok_or_else(|| Refusal::new(404, format!("history does not reach back to revision {wanted}")))?;
        let keys: Vec<String> = changes
            .iter()
            .map(|change| {
                let (kind, id) = change.key();
                key(kind, &id)
            })
            .collect();
        Ok(Plan { changes, then: keys })
    };
    let (done, keys) = admin.desk.write(how, prepare).await?;
    Ok(Answer::json(200, json!({"revision": done.revision, "keys": keys}))
        .at(done.revision)
        .warned(&done.warnings))
}
