//! Cost decorations: what is refused of one that other objects do not know.

use serde_json::{Map, Value, json};

use crate::control::store::Store;
use crate::control::write::Refusal;
use crate::model::Kind;

/// Says of a decoration whose it is, or why it can not be put there.
pub(super) fn complete(store: &Store, id: &str, fields: &mut Map<String, Value>) -> Result<(), Refusal> {
    let service = id.split('/').next().unwrap_or("");
    if fields.get("service_id").is_some_and(|own| own != service) {
        return Err(Refusal::new(400, "wrong service_id, it is taken from the path"));
    }
    fields.insert("service_id".to_owned(), json!(service));
    let home = format!("{service}/{}/", Kind::CostDecoration.plural());
    for (other, entry) in store.list(Kind::CostDecoration) {
        let Some(own) = other.as_str().strip_prefix(&home) else { continue };
        if other.as_str() != id
            && let Some(path) = fields.get("field_path").and_then(Value::as_str)
            && entry.value["field_path"] == path
        {
            let problem = format!("field_path {path} is already decorated on this service by [{own}]");
            return Err(Refusal::new(400, problem));
        }
    }
    Ok(())
}

/// Refuses to move a decoration to another service.
pub(super) fn may_be_patched(inner: &[String], patch: &Value) -> Result<(), Refusal> {
    let is_about_service = match inner.first() {
        Some(field) => field == "service_id",
        None => patch.get("service_id").is_some(),
    };
    if is_about_service { Err(Refusal::new(400, "service_id can not be patched")) } else { Ok(()) }
}
