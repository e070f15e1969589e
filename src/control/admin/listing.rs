//! Lists of objects: filtered, in the order they were made, and by the page where asked.

use regex::Regex;
use serde_json::{Value, json};

use super::Call;
use super::objects::Spec;
use super::shown::{Telling, shown, told};
use crate::control::store::{Entry, Store};
use crate::control::write::Refusal;
use crate::model::{Kind, ObjectId};

/// Objects of a page, at least and at most.
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 10..=500;

/// The objects of a kind that a request asks for. `home` is what their ids begin with, for credentials.
pub(super) fn list(
    store: &Store,
    (spec, home): (&Spec, &str),
    call: &Call,
    telling: Telling,
) -> Result<Value, Refusal> {
    let filter = Filter::of(call)?;
    let found: Vec<(&ObjectId, &Entry)> = store
        .list(spec.kind)
        .into_iter()
        .filter(|(id, entry)| id.as_str().starts_with(home) && filter.takes(spec.kind, &entry.value, telling))
        .collect();
    let total = found.len();
    let page = match page_of(call)? {
        None => found,
        Some((page, size)) => found.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect(),
    };
    let item = |(id, entry): (&ObjectId, &Entry)| shown(spec.kind, id.as_str(), entry, telling);
    let list: Vec<Value> = page.into_iter().map(item).collect();
    Ok(json!({"total": total, "list": list}))
}

/// Page and size, where a size is asked for.
fn page_of(call: &Call) -> Result<Option<(usize, usize)>, Refusal> {
    let Some(size) = call.query("page_size") else { return Ok(None) };
    let expected = || {
        let (least, most) = (PAGE_SIZES.start(), PAGE_SIZES.end());
        Refusal::new(400, format!("page_size must be between {least} and {most}"))
    };
    let size = size.parse::<usize>().ok().filter(|size| PAGE_SIZES.contains(size)).ok_or_else(expected)?;
    let page = match call.query("page") {
        None => 1,
        Some(text) => {
            let page = text.parse::<i64>().map_err(|_| Refusal::new(400, "page must be a number"))?;
            usize::try_from(page.max(1)).unwrap_or(1)
        }
    };
    Ok(Some((page, size)))
}

/// What is asked of the objects of a list.
struct Filter {
    name: Option<Regex>,
    label: Option<String>,
    uri: Option<Regex>,
    /// Values that fields must have.
    fields: Vec<(String, String)>,
}

impl Filter {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let pattern = |name: &str| {
            let text = call.query(name);
            text.map(|text| {
                Regex::new(text).map_err(|error| {
                    Refusal::new(400, format!("{name}: expected a regular expression, got {text:?}: {error}"))
                })
            })
            .transpose()
        };
        let fields = call.query("filter").unwrap_or("");
        let fields = fields.split('&').filter_map(|pair| pair.split_once('='));
        Ok(Self {
            name: pattern("name")?,
            label: call.query("label").map(str::to_owned),
            uri: pattern("uri")?,
            fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        })
    }

    /// By no more of the value than is told: else whoever is not told a secret could find it out by guesses.
    fn takes(&self, kind: Kind, value: &Value, telling: Telling) -> bool {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let fits_name = self.name.as_ref().is_none_or(|name| text("name").is_some_and(|t| name.is_match(t)));
        let fits_label = self
            .label
            .as_ref()
            .is_none_or(|label| value.get("labels").is_some_and(|labels| labels.get(label).is_some()));
        let fits_uri = self.uri.as_ref().is_none_or(|uri| {
            let several = value.get("uris").and_then(Value::as_array).into_iter().flatten();
            let mut all = several.filter_map(Value::as_str).chain(text("uri"));
            all.any(|text| uri.is_match(text))
        });
        fits_name
            && fits_label
            && fits_uri
            && (self.fields.is_empty() || self.fits(&told(kind, value, telling)))
    }

    fn fits(&self, told: &Value) -> bool {
        self.fields.iter().all(|(name, wanted)| match told.get(name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Number(number)) => number.to_string() == *wanted,
            _ => false,
        })
    }
}
