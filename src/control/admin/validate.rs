//! `POST /configs/validate`: everything at once, as a file would have it; nothing is changed.

use serde_json::{Value, json};

use super::answer::Answer;
use super::configs::unmask_all;
use super::{Admin, Call, held};
use crate::control::write::Refusal;
use crate::model::resources::{self, Format, Resources};
use crate::model::{ConfigError, Kind};

/// All that is wrong with a document, each with the object it is in.
pub(super) fn all(admin: &Admin, call: &Call) -> Result<Answer, Refusal> {
    let text =
        std::str::from_utf8(&call.body).map_err(|_| Refusal::new(400, "invalid request body: not UTF-8"))?;
    if text.trim().is_empty() {
        return Err(Refusal::new(400, "invalid request body: empty request body"));
    }
    let mut resources = match resources::parse(text, Format::Yaml, &|_| None) {
        Ok(resources) => resources,
        Err(faults) => {
            let errors = faults.iter().map(of_document).collect();
            return Ok(failed(faults, errors));
        }
    };
    let mut faults = unmask_all(&held(&admin.store), &mut resources.objects);
    if faults.is_empty() {
        faults = (admin.check)(&resources);
    }
    if faults.is_empty() {
        return Ok(Answer::json(200, json!({})));
    }
    let errors = faults.iter().map(|fault| of_object(fault, &resources)).collect();
    Ok(failed(faults, errors))
}

fn failed(faults: Vec<ConfigError>, errors: Vec<Value>) -> Answer {
    let message = "Configuration validation failed";
    let body = json!({"error_msg": message, "errors": errors});
    Answer::refused_as(Refusal { status: 400, message: message.to_owned(), faults }, body)
}

/// A fault of the document itself: such begin with the place in a list, `routes[1]`, unless they are about no object.
fn of_document(fault: &ConfigError) -> Value {
    let place = fault.path.split_once('[').and_then(|(plural, rest)| {
        let index: usize = rest.split_once(']')?.0.parse().ok()?;
        Kind::of_plural(plural).map(|_| (plural, index))
    });
    match place {
        Some((plural, index)) => {
            json!({"resource_type": plural, "index": index, "error": fault.to_string()})
        }
        None => json!({"resource_type": "", "error": fault.to_string()}),
    }
}

fn of_object(fault: &ConfigError, resources: &Resources) -> Value {
    let (plural, id) = fault.object.split_once('/').unwrap_or((&fault.object, ""));
    let names = resources.objects.iter().map(|raw| raw.name());
    let mut of_kind = names.filter(|name| name.split('/').next() == Some(plural));
    let index = of_kind.position(|name| name == fault.object);
    let inside = ConfigError { object: String::new(), ..fault.clone() };
    json!({"resource_type": plural, "resource_id": id, "index": index, "error": inside.to_string()})
}
