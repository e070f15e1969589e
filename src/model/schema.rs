//! From a JSON value to a typed one, or every fault of it.
//!
//! [`parse`] checks the value against the JSON schema of the type first, because a schema finds all faults where
//! serde stops at the first; what a schema cannot say the type's `Deserialize` says afterwards. The validator
//! knows the subset of JSON Schema that schemars writes and that plugins add, and passes over other keywords.
//! Keywords of ours: `x-expected` (the words for what was expected), `writeOnly` (a fault does not show the
//! value), and the format `ip-range`.

mod bounds;
mod check;
mod words;

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::ConfigError;
use super::path::{Step, render};

pub use check::check;
pub use words::joined;
pub(super) use words::{shown as shown_value, shown_text};

/// The JSON schema of a type. Made once a type, and kept: types are as many as the program has.
pub fn schema_of<T: JsonSchema + 'static>() -> Arc<Value> {
    static MADE: Mutex<BTreeMap<TypeId, Arc<Value>>> = Mutex::new(BTreeMap::new());
    let key = TypeId::of::<T>();
    // A schema is inserted whole, so a panic elsewhere while the lock was held left nothing half done.
    let lock = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = lock().get(&key) {
        return Arc::clone(schema);
    }
    let schema = Arc::new(Value::from(schemars::SchemaGenerator::default().into_root_schema_for::<T>()));
    Arc::clone(lock().entry(key).or_insert(schema))
}

/// Reads a value as a type, or tells all that is wrong with it.
pub fn parse<T: DeserializeOwned + JsonSchema + 'static>(mut value: Value) -> Result<T, Vec<ConfigError>> {
    let faults = check(&schema_of::<T>(), &value);
    if !faults.is_empty() {
        return Err(faults);
    }
    make_whole(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let steps: Vec<Step<'_>> = error.path().iter().filter_map(step).collect();
        vec![ConfigError::at(render(steps), error.inner().to_string())]
    })
}

/// The whole number that a number such as `10.0` is, which is one by JSON Schema and for serde is not.
pub(super) fn whole(number: &Number) -> Option<i64> {
    // Beyond, neighbours are not told apart.
    const MAX: f64 = 9_007_199_254_740_992.0;
    let is_whole = |number: &f64| number.fract() == 0.0 && number.abs() < MAX;
    number.as_f64().filter(|_| number.is_f64()).filter(is_whole).map(|number| number as i64)
}

/// Writes whole numbers as such, wherever they stand.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn step(segment: &serde_path_to_error::Segment) -> Option<Step<'_>> {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key)),
        Segment::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
