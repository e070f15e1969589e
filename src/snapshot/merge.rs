//! Plugins of objects to mounts, and mounts of several objects to one list: service < plugin config < route, and
//! consumer group < consumer. A later one of the same name replaces the earlier, whole.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::expr::Rule;
use crate::model::nearest::hint;
use crate::model::schema::check;
use crate::model::{ConfigError, Object, PluginMetadata, Raw, field::PluginMap, typed};
use crate::plugin::{
    self, Actions, CompileCx, Holds, Hooks as _, Makings, Meta, Mount, Registry, Surroundings, Upstreams,
};
use crate::plugins::{AnyPlugin, CATALOG, Card};

/// The plugins of an object, or of several laid over each other; none named twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts {
    pub(super) list: Vec<Mount<AnyPlugin>>,
    /// Those written with `_meta.disable`: they are not run, and neither is what they lie over.
    pub(super) disabled: Vec<&'static str>,
}

/// What compiling plugins needs besides their configuration.
#[derive(Debug)]
pub(super) struct Workbench<'a> {
    pub(super) registry: &'a mut Registry,
    /// What the object at hand uses of it.
    pub(super) holds: Holds,
    pub(super) surroundings: &'a Surroundings,
    /// The plugins that may be used; `None` is all.
    pub(super) enabled: Option<&'a [String]>,
}

/// `over` laid over `under`.
pub(super) fn lay_over(under: &Mounts, over: &Mounts) -> Mounts {
    let named =
        |name: &str| over.list.iter().any(|new| new.plugin.name() == name) || over.disabled.contains(&name);
    let kept = under.list.iter().filter(|mount| !named(mount.plugin.name()));
    let disabled = under.disabled.iter().filter(|name| !named(name));
    Mounts {
        list: kept.chain(&over.list).cloned().collect(),
        disabled: disabled.chain(&over.disabled).copied().collect(),
    }
}

/// The card of a plugin that is among the enabled ones.
fn card(name: &str, enabled: Option<&[String]>) -> Result<&'static Card, ConfigError> {
    let allowed = |name: &str| enabled.is_none_or(|enabled| enabled.iter().any(|allowed| allowed == name));
    match Card::of(name).filter(|_| allowed(name)) {
        Some(card) => Ok(card),
        None => {
            let hint = hint(name, CATALOG.iter().map(|card| card.name).filter(|name| allowed(name)));
            Err(ConfigError::at(format!("plugins.{name}"), format!("unknown plugin [{name}]{hint}")))
        }
    }
}

/// Reads the metadata of a plugin: the plugin's name, and what is written.
pub(super) fn metadata(
    metadata: PluginMetadata,
    enabled: Option<&[String]>,
) -> Result<(String, Value), Vec<ConfigError>> {
    let plugin = metadata.id.as_str().to_owned();
    let unknown = |_| vec![ConfigError::new(format!("unknown plugin [{plugin}]"))];
    let card = card(&plugin, enabled).map_err(unknown)?;
    let fields = Value::Object(metadata.fields);
    let faults = check(&(card.metadata_schema)(), &fields);
    if faults.is_empty() { Ok((plugin, fields)) } else { Err(faults) }
}

/// [`metadata`] of an object that is one.
pub(super) fn read_metadata(
    raw: &Raw,
    enabled: Option<&[String]>,
) -> Result<(String, Value), Vec<ConfigError>> {
    match typed(raw)? {
        Object::PluginMetadata(read) => metadata(*read, enabled),
        _ => Err(Vec::new()),
    }
}

impl Workbench<'_> {
    /// The card of a plugin that may be used.
    pub(super) fn card(&self, name: &str) -> Result<&'static Card, ConfigError> {
        card(name, self.enabled)
    }

    /// Compiles the plugins of one object, or tells every fault. Credentials are not among them: what a consumer
    /// writes under an authentication plugin is for the index.
    pub(super) fn mounts(
        &mut self,
        owner: &str,
        plugins: Option<&PluginMap>,
        upstreams: &mut dyn Upstreams,
    ) -> Result<Mounts, Vec<ConfigError>> {
        let mut mounts = Mounts::default();
        let mut faults = Vec::new();
        let owner = Arc::from(owner);
        for (name, config) in plugins.into_iter().flatten() {
            match self.mount(&owner, (name, config), upstreams) {
                Ok(Use::Active(mount)) => mounts.list.push(mount),
                Ok(Use::Disabled(name)) => mounts.disabled.push(name),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(mounts) } else { Err(faults) }
    }

    /// One plugin.
    fn mount(
        &mut self,
        owner: &Arc<str>,
        (name, config): (&str, &Value),
        upstreams: &mut dyn Upstreams,
    ) -> Result<Use, Vec<ConfigError>> {
        let card = self.card(name).map_err(|fault| vec![fault])?;
        let under = format!("plugins.{name}");
        let mut config = config.clone();
        let meta = config.as_object_mut().and_then(|config| config.shift_remove("_meta"));
        let meta = read_meta(meta).map_err(|fault| vec![fault.under(&format!("{under}._meta"))])?;
        if meta.disable {
            return Ok(Use::Disabled(card.name));
        }
        let metadata = self.surroundings.metadata.get(name).cloned().unwrap_or(Value::Null);
        let actions = Offered { enabled: self.enabled, surroundings: self.surroundings };
        let makings =
            Makings { registry: &mut *self.registry, holds: &mut self.holds, upstreams, actions: &actions };
        let mut cx = CompileCx::new(makings, self.surroundings, owner, card.name, &config);
        let compiled = card.compile(config, metadata, &mut cx);
        let request_body_max = cx.request_body_max();
        let plugin = compiled
            .map_err(|faults| faults.into_iter().map(|fault| fault.under(&under)).collect::<Vec<_>>())?;
        let priority = meta.priority.unwrap_or(card.priority);
        let meta = Meta { witness: self.surroundings.witness.clone(), ..meta.meta };
        let special = meta.filter.is_some() || meta.error_response.is_some() || meta.witness.is_some();
        let meta = special.then(|| Arc::new(meta));
        Ok(Use::Active(Mount { plugin, priority, meta, request_body_max, owner: Arc::clone(owner) }))
    }
}

/// The plugins that one may run, of those that may be used.
#[derive(Debug)]
struct Offered<'a> {
    enabled: Option<&'a [String]>,
    surroundings: &'a Surroundings,
}

impl Actions for Offered<'_> {
    fn named(&self, name: &str) -> Option<&'static str> {
        card(name, self.enabled).ok().filter(|card| card.is_action).map(|card| card.name)
    }

    fn compile(
        &self,
        name: &'static str,
        config: Value,
        cx: &mut CompileCx<'_>,
    ) -> Result<Arc<dyn plugin::Inner>, Vec<ConfigError>> {
        let card = card(name, self.enabled).map_err(|fault| vec![fault])?;
        let metadata = self.surroundings.metadata.get(name).cloned().unwrap_or(Value::Null);
        let plugin = card.compile(config, metadata, cx)?;
        Ok(Arc::new(plugin))
    }
}

/// What one plugin of an object comes to.
enum Use {
    Active(Mount<AnyPlugin>),
    Disabled(&'static str),
}

/// `_meta` as read.
#[derive(Debug, Default)]
struct ReadMeta {
    disable: bool,
    priority: Option<i32>,
    meta: Meta,
}

const META_FIELDS: [&str; 4] = ["disable", "filter", "priority", "error_response"];

/// The JSON schema of `_meta`, for those who write it: `read_meta` says what is wrong with it.
pub fn meta_schema() -> Value {
    json!({
        "description": "What any plugin may be told besides its own configuration.",
        "type": ["object", "null"],
        "properties": {
            "disable": {
                "description": "Is the plugin switched off? Its configuration is kept and not looked at, and neither runs one of the same name that it would take the place of.",
                "type": "boolean", "default": false,
            },
            "filter": {
                "description": "An expression that must hold for the plugin to run: `[[\"arg_debug\", \"==\", \"1\"]]`.",
                "type": "array",
            },
            "priority": {
                "description": "Its place among the plugins of a phase: the higher runs first. Absent: the plugin's own.",
                "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "format": "int32",
            },
            "error_response": {
                "description": "The body in place of the plugin's own when it answers with 400 or more; an object is sent as JSON.",
                "type": ["string", "object"],
            },
        },
        "additionalProperties": false,
    })
}

fn read_meta(meta: Option<Value>) -> Result<ReadMeta, ConfigError> {
    let mut read = ReadMeta::default();
    let fields = match meta {
        None | Some(Value::Null) => return Ok(read),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(ConfigError::new(format!("expected an object, got {other}"))),
    };
    let Map { .. } = &fields;
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("disable", Value::Bool(disable)) => read.disable = disable,
            ("priority", Value::Number(number))
                if number.as_i64().is_some_and(|at| i32::try_from(at).is_ok()) =>
            {
                read.priority = number.as_i64().and_then(|at| i32::try_from(at).ok());
            }
            ("filter", filter) => {
                let rule = Rule::compile(&filter).map_err(|error| {
                    ConfigError::at("filter", format!("failed to validate the 'vars' expression: {error}"))
                })?;
                read.meta.filter = (!rule.is_always()).then_some(rule);
            }
            ("error_response", Value::String(text)) => read.meta.error_response = Some(Bytes::from(text)),
            ("error_response", object @ Value::Object(_)) => {
                read.meta.error_response = Some(Bytes::from(format!("{object}\n")));
            }
            ("disable", other) => {
                return Err(ConfigError::at("disable", format!("expected true or false, got {other}")));
            }
            ("priority", other) => {
                return Err(ConfigError::at("priority", format!("expected a whole number, got {other}")));
            }
            ("error_response", other) => {
                return Err(ConfigError::at(
                    "error_response",
                    format!("expected text or an object, got {other}"),
                ));
            }
            (other, _) => {
                let hint = hint(other, META_FIELDS);
                return Err(ConfigError::new(format!(
                    "additional properties forbidden, found {other}{hint}"
                )));
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{META_FIELDS, check, meta_schema, read_meta};

    #[test]
    fn meta_is_read_and_what_it_can_not_be_is_refused() {
        let read = read_meta(Some(json!({"disable": true, "priority": -7, "error_response": {"a": 1}})))
            .expect("valid");
        assert_eq!((read.disable, read.priority), (true, Some(-7)));
        assert_eq!(read.meta.error_response.as_deref(), Some(b"{\"a\":1}\n".as_slice()));
        for (meta, expect) in [
            (json!(7), "expected an object, got 7"),
            (json!({"disable": 1}), "disable: expected true or false, got 1"),
            (json!({"priority": 1.5}), "priority: expected a whole number, got 1.5"),
            (json!({"pre_function": "x"}), "additional properties forbidden, found pre_function"),
            (
                json!({"prioriti": 1}),
                "additional properties forbidden, found prioriti; did you mean \"priority\"?",
            ),
        ] {
            assert_eq!(check(&meta_schema(), &meta).len(), 1, "{meta}");
            assert_eq!(read_meta(Some(meta)).expect_err("refused").to_string(), expect);
        }
    }

    #[test]
    fn the_schema_of_meta_has_the_fields_that_are_read() {
        let schema = meta_schema();
        let known = schema["properties"].as_object().expect("an object").keys();
        assert_eq!(known.collect::<Vec<_>>(), META_FIELDS);
        let whole =
            json!({"disable": false, "filter": [["uri", "==", "/"]], "priority": 1, "error_response": "no"});
        assert!(check(&schema, &whole).is_empty() && read_meta(Some(whole)).is_ok());
    }
}
