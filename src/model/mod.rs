//! The objects as the user writes them: one file an object, serde and JSON schema.
//!
//! An object comes in as a [`Raw`] value (from a file, the Admin API or a store) and becomes typed by [`typed`],
//! which finds every fault in it. Faults *between* objects, such as a reference to nothing, are not seen here.

pub mod consumer;
pub mod consumer_group;
pub mod cost_decoration;
pub mod credential;
pub mod error;
pub mod field;
pub mod global_rule;
pub mod nearest;
pub(crate) mod path;
pub mod plugin_config;
pub mod plugin_metadata;
pub mod position;
pub mod proto_file;
pub mod reference;
pub mod resources;
pub mod route;
pub mod schema;
pub mod secret;
pub mod service;
pub mod settings;
pub mod ssl;
pub mod stream_route;
pub mod substitute;
pub mod upstream;
mod values;
pub mod websocket;

use serde_json::Value;

pub use consumer::Consumer;
pub use consumer_group::ConsumerGroup;
pub use cost_decoration::CostDecoration;
pub use credential::Credential;
pub use error::ConfigError;
pub use field::ObjectId;
pub use global_rule::GlobalRule;
pub use plugin_config::PluginConfig;
pub use plugin_metadata::PluginMetadata;
pub use proto_file::ProtoFile;
pub use route::Route;
pub use secret::SecretStore;
pub use service::Service;
pub use settings::Settings;
pub use ssl::Ssl;
pub use stream_route::StreamRoute;
pub use upstream::Upstream;

/// An object that is kept under an id: its own fields, and those which all such objects have.
macro_rules! stored {
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        $(#[$meta])*
        pub struct $name {
            /// What tells it from others of its kind. The Admin API takes it from the path.
            pub id: Option<$crate::model::field::ObjectId>,
            /// A name for people; it need not be unique.
            pub name: Option<$crate::model::field::ShortText>,
            /// A remark for people.
            pub desc: Option<$crate::model::field::Text<0, 256>>,
            /// Words to find it by, each with a value: `{team: web}`.
            pub labels: Option<std::collections::BTreeMap<String, $crate::model::field::LabelText>>,
            /// When it was first written, in seconds since 1970. Set by the gateway.
            pub create_time: Option<u64>,
            /// When it was last written, in seconds since 1970. Set by the gateway.
            pub update_time: Option<u64>,
            $($fields)*
        }
    };
}
use stored;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $plural:literal, $singular:literal, $object:ty;)*) => {
        /// The kinds of object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Its name in paths, keys and files: `routes`.
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// Its name in sentences and in the schema's path: `route`.
            pub const fn singular(self) -> &'static str {
                match self { $(Self::$kind => $singular,)* }
            }

            /// The kind of that plural name.
            pub fn of_plural(plural: &str) -> Option<Self> {
                match plural { $($plural => Some(Self::$kind),)* _ => None }
            }

            /// The JSON schema of its objects.
            pub fn schema(self) -> std::sync::Arc<Value> {
                match self { $(Self::$kind => schema::schema_of::<$object>(),)* }
            }
        }

        /// One object, typed.
        #[derive(Clone, Debug)]
        pub enum Object {
            $($kind(Box<$object>),)*
        }

        impl Object {
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }
        }

        /// Reads a value as an object of a kind.
        fn parse(kind: Kind, value: Value) -> Result<Object, Vec<ConfigError>> {
            match kind { $(Kind::$kind => schema::parse(value).map(Box::new).map(Object::$kind),)* }
        }
    };
}

kinds! {
    Route = "routes", "route", Route;
    Service = "services", "service", Service;
    /// Kept among the services, with the id `SERVICE/graphql_cost_decorations/ID`.
    CostDecoration = "graphql_cost_decorations", "graphql_cost_decoration", CostDecoration;
    Upstream = "upstreams", "upstream", Upstream;
    Consumer = "consumers", "consumer", Consumer;
    /// Kept among the consumers, with the id `USER/credentials/ID`.
    Credential = "credentials", "credential", Credential;
    ConsumerGroup = "consumer_groups", "consumer_group", ConsumerGroup;
    PluginConfig = "plugin_configs", "plugin_config", PluginConfig;
    GlobalRule = "global_rules", "global_rule", GlobalRule;
    /// Its id is the plugin's name.
    PluginMetadata = "plugin_metadata", "plugin_metadata", PluginMetadata;
    Ssl = "ssls", "ssl", Ssl;
    StreamRoute = "stream_routes", "stream_route", StreamRoute;
    /// Its id is `MANAGER/ID`.
    Secret = "secrets", "secret", SecretStore;
    Proto = "protos", "proto", ProtoFile;
}

impl Kind {
    /// The kind among whose objects it stands, in files and in keys: its own, for most.
    pub const fn home(self) -> Self {
        match self {
            Self::Credential => Self::Consumer,
            Self::CostDecoration => Self::Service,
            kind => kind,
        }
    }

    /// The kind of objects that belong to one of this kind.
    pub const fn part(self) -> Option<Self> {
        match self {
            Self::Consumer => Some(Self::Credential),
            Self::Service => Some(Self::CostDecoration),
            _ => None,
        }
    }

    /// Whether its ids are of several parts, of which the last one is the object's own.
    pub const fn has_joined_ids(self) -> bool {
        matches!(self, Self::Credential | Self::CostDecoration | Self::Secret)
    }

    /// The kind of an object that stands among those of this kind, by its whole id.
    pub fn of_id(self, id: &str) -> Self {
        self.part().filter(|_| id.contains('/')).unwrap_or(self)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.plural())
    }
}

/// An object as it came, of which no more is known than kind and id.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub kind: Kind,
    pub id: ObjectId,
    pub value: Value,
}

impl Raw {
    /// How faults name it: `routes/7`, `consumers/jack/credentials/1`.
    pub fn name(&self) -> String {
        object_name(self.kind, self.id.as_str())
    }
}

/// How faults name an object: `routes/7`, `consumers/jack/credentials/1`.
pub fn object_name(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.home().plural())
}

/// Reads an object, or tells all that is wrong with it; each fault carries the object's name.
pub fn typed(raw: &Raw) -> Result<Object, Vec<ConfigError>> {
    let mut value = raw.value.clone();
    // Within its home the last part is the id: `vault/1` is 1.
    if let (true, Some(Value::String(id))) = (raw.kind.has_joined_ids(), value.get_mut("id"))
        && let Some((_, last)) = id.rsplit_once('/')
    {
        *id = last.to_owned();
    }
    let faults = match parse(raw.kind, value) {
        Err(faults) => faults,
        Ok(object) => {
            let faults = beyond_schema(&object);
            if faults.is_empty() {
                return Ok(object);
            }
            faults
        }
    };
    Err(faults.into_iter().map(|fault| fault.in_object(raw.name())).collect())
}

/// Rules between fields that a schema cannot say.
fn beyond_schema(object: &Object) -> Vec<ConfigError> {
    match object {
        Object::Route(route) => route.faults(),
        Object::Service(service) => service.faults(),
        Object::Upstream(upstream) => upstream.faults(),
        Object::StreamRoute(route) => route.faults(),
        Object::Ssl(ssl) => ssl.faults(),
        Object::Consumer(_)
        | Object::Credential(_)
        | Object::CostDecoration(_)
        | Object::ConsumerGroup(_)
        | Object::PluginConfig(_)
        | Object::GlobalRule(_)
        | Object::PluginMetadata(_)
        | Object::Secret(_)
        | Object::Proto(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
