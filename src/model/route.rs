//! A route: which requests it takes, and what becomes of them.

use serde_json::Value;

use super::field::{AddressRange, HostPattern, HttpMethod, InRange, ObjectId, PluginMap, Unique, UriPattern};
use super::upstream::{Timeout, Upstream};
use super::websocket::WebSocket;
use super::{ConfigError, stored};

stored! {
    /// Which requests are taken, what plugins do with them, and where they go.
    #[schemars(extend("allOf" = [
        { "oneOf": [{ "required": ["uri"] }, { "required": ["uris"] }] },
        { "not": { "required": ["host", "hosts"] } },
        { "not": { "required": ["remote_addr", "remote_addrs"] } },
        { "anyOf": [
            { "required": ["plugins"] },
            { "required": ["upstream"] },
            { "required": ["upstream_id"] },
            { "required": ["service_id"] },
        ] },
        { "not": { "required": ["script"] } },
        { "not": { "required": ["script_id"] } },
    ]))]
    pub struct Route {
        /// The path: `/exact`, `/prefix*`, or `*` for any. With the router `radixtree_uri_with_parameter` also
        /// `/user/:id`.
        pub uri: Option<UriPattern>,
        /// Several paths, in place of `uri`.
        pub uris: Option<Unique<UriPattern, 1>>,
        /// The host: `example.com`, or `*.example.com` for all below it. Absent: the service's hosts, else any.
        pub host: Option<HostPattern>,
        /// Several hosts, in place of `host`.
        pub hosts: Option<Unique<HostPattern, 1>>,
        /// The client's address, or a range of addresses it must be in. Absent: any.
        pub remote_addr: Option<AddressRange>,
        /// Several addresses or ranges, in place of `remote_addr`.
        pub remote_addrs: Option<Unique<AddressRange, 1>>,
        /// The request methods; absent or empty: all.
        #[serde(default)]
        pub methods: Option<Unique<HttpMethod>>,
        /// Among routes of one host and path the higher is asked first.
        #[serde(default)]
        pub priority: i32,
        /// An expression that must hold for the request: `[["arg_version", "==", "2"]]`.
        pub vars: Option<Vec<Value>>,
        /// A predicate in Lua, `function(vars) return vars.arg_name == 'json' end`: comparisons of variables with constants,
        /// joined by `and`, `or` and `not`. It is read as a rule, not run; anything else is refused.
        #[schemars(extend("pattern" = "^function", "x-expected" = "a Lua function, starting with `function`"))]
        pub filter_func: Option<String>,
        /// Plugins by name, each with its configuration. They win over those of the service and the plugin config.
        #[schemars(with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
        /// The id of the plugin config whose plugins are added where the route has none of that name.
        pub plugin_config_id: Option<ObjectId>,
        /// The id of the service to take hosts, plugins and upstream from, where the route has none.
        pub service_id: Option<ObjectId>,
        /// The id of the upstream to send to.
        pub upstream_id: Option<ObjectId>,
        /// The upstream to send to, written here rather than kept as an object.
        pub upstream: Option<Upstream>,
        /// How long the upstream may take; wins over the upstream's own `timeout`.
        pub timeout: Option<Timeout>,
        /// May the connection be upgraded to WebSocket? Absent: as the service says, else no.
        pub enable_websocket: Option<bool>,
        /// How long WebSockets may last. Absent: as the service says, else the defaults.
        pub websocket: Option<WebSocket>,
        /// 1: in use; 0: kept, and no request is routed to it.
        #[serde(default = "in_use")]
        pub status: InRange<0, 1>,
        /// Lua in place of plugins. Refused: Lua runs in plugins alone.
        pub script: Option<Value>,
        /// Lua kept elsewhere. Refused: Lua runs in plugins alone.
        pub script_id: Option<ObjectId>,
    }
}

impl Route {
    /// Is it routed to at all?
    pub fn is_in_use(&self) -> bool {
        self.status.get() == 1
    }

    /// Its path patterns, from whichever field they are in.
    pub fn uris(&self) -> impl Iterator<Item = &UriPattern> {
        self.uri.iter().chain(self.uris.iter().flatten())
    }

    /// Its hosts, from whichever field they are in; none: the service's.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.host.iter().chain(self.hosts.iter().flatten())
    }

    /// The clients it takes, from whichever field they are in; none: all.
    pub fn remote_addrs(&self) -> impl Iterator<Item = &AddressRange> {
        self.remote_addr.iter().chain(self.remote_addrs.iter().flatten())
    }

    pub(super) fn faults(&self) -> Vec<ConfigError> {
        Upstream::faults_within(self.upstream.as_ref())
    }
}

/// A route that was written is meant to be used.
fn in_use() -> InRange<0, 1> {
    InRange::literal(1)
}
