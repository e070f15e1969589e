//! The standalone file: all objects in one text, `apisix.yaml` or `.json` as it is, or our `resources.yaml`.
//!
//! ```yaml
//! routes:
//!   - id: 1
//!     uri: /hello
//!     upstream: {nodes: {"127.0.0.1:1980": 1}}
//! consumers:
//!   - username: jack
//! #END
//! ```
//!
//! [`parse`] sees to the file: names of kinds, ids, doubles, the environment. What an object says is read by
//! [`super::typed`]. `#END` is not asked for; a reader that polls may want to (see [`ends_with_marker`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::field::Username;
use super::nearest::hint;
use super::path::{Step, render};
use super::schema::{check, schema_of, shown_value, whole};
use super::substitute::{Lookup, substitute};
use super::values::read;
use super::{ConfigError, Kind, ObjectId, Raw};

pub use super::values::{DEPTH_MAX, FILE_BYTES_MAX, Format, VALUE_BYTES_MAX};

/// All that a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// In the file's order.
    pub objects: Vec<Raw>,
    /// The plugins that may be used, if the file says so.
    pub plugins: Option<Vec<String>>,
}

/// What is to be done to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Make it or take its place.
    Put(Raw),
    /// See that it is not there.
    Delete(Kind, ObjectId),
}

impl Change {
    /// The object it is about.
    pub fn key(&self) -> (Kind, String) {
        match self {
            Self::Put(raw) => (raw.kind, raw.id.as_str().to_owned()),
            Self::Delete(kind, id) => (*kind, id.as_str().to_owned()),
        }
    }
}

/// Does the text end as APISIX asks, with a line `#END`? Whoever writes a file in place puts it there last.
pub fn ends_with_marker(text: &str) -> bool {
    text.trim_end().lines().next_back().is_some_and(|line| line.trim() == "#END")
}

/// Reads a file, or tells every fault of its frame.
pub fn parse(text: &str, format: Format, env: Lookup<'_>) -> Result<Resources, Vec<ConfigError>> {
    let mut value = read(text, format).map_err(|fault| vec![fault])?;
    let mut faults = substitute(&mut value, env);
    let resources = of_value(value, &mut faults);
    if faults.is_empty() { Ok(resources) } else { Err(faults) }
}

/// The value of a text, for whoever has to look into it before [`of_document`].
pub fn read_document(text: &str, format: Format) -> Result<Value, ConfigError> {
    read(text, format)
}

/// [`parse`] of what was read already, and says nothing of an environment.
pub fn of_document(document: Value) -> Result<Resources, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let resources = of_value(document, &mut faults);
    if faults.is_empty() { Ok(resources) } else { Err(faults) }
}

fn of_value(value: Value, faults: &mut Vec<ConfigError>) -> Resources {
    let fields = match value {
        Value::Null => return Resources::default(),
        Value::Object(fields) => fields,
        other => {
            let found = shown_value(&other);
            faults.push(ConfigError::new(format!(
                "expected an object of routes, upstreams and so on, got {found}"
            )));
            return Resources::default();
        }
    };
    let mut resources = Resources::default();
    // Of each object the place in its list.
    let mut seen: BTreeMap<(Kind, ObjectId), usize> = BTreeMap::new();
    for (name, value) in fields {
        if name == "plugins" {
            resources.plugins = plugins(&value, faults);
            continue;
        }
        // A credential stands among the consumers, a decoration among the services.
        let kind = Kind::of_plural(&name).filter(|kind| kind.home() == *kind);
        match (kind, value) {
            (None, _) if is_version(&name) => {}
            (None, _) => {
                let kinds = Kind::ALL.iter().filter(|kind| kind.home() == **kind).map(|kind| kind.plural());
                let hint = hint(&name, kinds.chain(["plugins"]));
                faults.push(ConfigError::new(format!("additional properties forbidden, found {name}{hint}")));
            }
            // `routes:` with nothing behind it.
            (Some(_), Value::Null) => {}
            (Some(kind), Value::Array(items)) => {
                for (index, item) in items.into_iter().enumerate() {
                    match object(kind, index, item) {
                        Ok(raw) => match seen.entry((raw.kind, raw.id.clone())) {
                            Entry::Occupied(first) => {
                                let first = place(kind, *first.get());
                                let problem = format!("the id {} is taken by {first}", raw.id);
                                faults.push(ConfigError::at(place(kind, index), problem));
                            }
                            Entry::Vacant(free) => {
                                free.insert(index);
                                resources.objects.push(raw);
                            }
                        },
                        Err(fault) => faults.push(fault.under(&place(kind, index))),
                    }
                }
            }
            (Some(_), other) => {
                let found = shown_value(&other);
                faults.push(ConfigError::at(name, format!("expected a list of objects, got {found}")));
            }
        }
    }
    resources
}

fn place(kind: Kind, index: usize) -> String {
    render([Step::Key(kind.plural()), Step::Index(index)])
}

/// `routes_conf_version`, which APISIX writes when asked for all there is. It is of no use to a reader.
fn is_version(name: &str) -> bool {
    name.strip_suffix("_conf_version")
        .is_some_and(|kind| Kind::of_plural(kind).is_some() || kind == "plugins")
}

/// Finds the id of an object, and so what it is.
fn object(kind: Kind, index: usize, item: Value) -> Result<Raw, ConfigError> {
    let Value::Object(mut fields) = item else {
        return Err(ConfigError::new(format!("expected an object, got {}", shown_value(&item))));
    };
    // Where a store's dump says when it was changed.
    fields.shift_remove("modifiedIndex");
    fields.shift_remove("createdIndex");
    let (kind, id) = match kind {
        Kind::Consumer => consumer_id(&fields)?,
        Kind::Service => service_id(index, &fields)?,
        _ => (kind, id_of(kind, index, &fields)?),
    };
    Ok(Raw { kind, id, value: Value::Object(fields) })
}

fn service_id(index: usize, fields: &Map<String, Value>) -> Result<(Kind, ObjectId), ConfigError> {
    match fields.get("id") {
        Some(Value::String(id)) if id.contains('/') => ObjectId::of_decoration(id)
            .map(|id| (Kind::CostDecoration, id))
            .map_err(|fault| fault.under("id")),
        _ => id_of(Kind::Service, index, fields).map(|id| (Kind::Service, id)),
    }
}

fn consumer_id(fields: &Map<String, Value>) -> Result<(Kind, ObjectId), ConfigError> {
    if let Some(Value::String(id)) = fields.get("id")
        && id.contains('/')
    {
        return ObjectId::of_credential(id)
            .map(|id| (Kind::Credential, id))
            .map_err(|fault| fault.under("id"));
    }
    let name = fields.get("username").ok_or_else(|| ConfigError::new("username is required"))?;
    first(check(&schema_of::<Username>(), name)).map_err(|fault| fault.under("username"))?;
    Ok((Kind::Consumer, ObjectId::of_checked(name.as_str().unwrap_or_default())))
}

/// The id an object says, or, as APISIX has it, one made of its place in the list, from 1.
fn id_of(kind: Kind, index: usize, fields: &Map<String, Value>) -> Result<ObjectId, ConfigError> {
    let Some(id) = fields.get("id") else {
        return match kind {
            Kind::Secret => Err(ConfigError::new("id is required")),
            // Metadata of no plugin: it is for whoever reads the object to say so, and to pass over this one alone.
            _ => Ok(ObjectId::of_checked(&format!("arr_{}", index + 1))),
        };
    };
    if kind == Kind::Secret {
        let expected = || ConfigError::at("id", format!("expected MANAGER/ID, got {}", shown_value(id)));
        let text = id.as_str().ok_or_else(expected)?;
        let (_, last) = text.split_once('/').ok_or_else(expected)?;
        return if last.contains('/') {
            Err(expected())
        } else {
            ObjectId::joined(text).map_err(|_| expected())
        };
    }
    first(check(&schema_of::<ObjectId>(), id)).map_err(|fault| fault.under("id"))?;
    Ok(match id {
        Value::String(text) => ObjectId::of_checked(text),
        Value::Number(number) => match whole(number) {
            Some(whole) => ObjectId::of_checked(&whole.to_string()),
            None => ObjectId::of_checked(&number.to_string()),
        },
        other => ObjectId::of_checked(&other.to_string()),
    })
}

fn first(faults: Vec<ConfigError>) -> Result<(), ConfigError> {
    faults.into_iter().next().map_or(Ok(()), Err)
}

/// The JSON schema of a plugin in the list of those that may be used, where it is not just a name.
pub fn listed_plugin() -> Value {
    json!({
        "description": "A plugin that may be used.",
        "type": "object",
        "properties": {
            "name": { "description": "The plugin's name.", "type": "string" },
            "stream": {
                "description": "Is it meant for TCP and UDP? Such are passed over.",
                "type": "boolean", "default": false,
            },
        },
        "required": ["name"],
    })
}

/// The list of plugins, each a name or `{name, stream}`; those for streams are another list's.
fn plugins(value: &Value, faults: &mut Vec<ConfigError>) -> Option<Vec<String>> {
    if value.is_null() {
        return None;
    }
    let Value::Array(items) = value else {
        let found = shown_value(value);
        faults.push(ConfigError::at("plugins", format!("expected a list of names, got {found}")));
        return None;
    };
    let mut names = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let is_for_streams = item.get("stream").and_then(Value::as_bool).unwrap_or(false);
        match item.as_str().or_else(|| item.get("name")?.as_str()) {
            Some(_) if is_for_streams => {}
            Some(name) => names.push(name.to_owned()),
            None => {
                let place = render([Step::Key("plugins"), Step::Index(index)]);
                let problem = format!("expected a name or an object with one, got {}", shown_value(item));
                faults.push(ConfigError::at(place, problem));
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests;
