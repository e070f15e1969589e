//! A service: what several routes have in common.

use serde_json::Value;

use super::field::{HostPattern, ObjectId, PluginMap, Unique};
use super::upstream::Upstream;
use super::{ConfigError, stored};

stored! {
    /// Hosts, plugins and upstream of the routes that refer to it; what a route says itself wins.
    #[schemars(extend("not" = { "required": ["script"] }))]
    pub struct Service {
        /// The hosts of routes that name none.
        pub hosts: Option<Unique<HostPattern, 1>>,
        /// Plugins by name, each with its configuration.
        #[schemars(with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
        /// The upstream to send to, kept elsewhere.
        pub upstream_id: Option<ObjectId>,
        /// The upstream to send to, written here.
        pub upstream: Option<Upstream>,
        /// May the connection be upgraded to WebSocket?
        pub enable_websocket: Option<bool>,
        /// Lua in place of plugins. Not taken: there is no Lua here.
        pub script: Option<Value>,
    }
}

impl Service {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        Upstream::faults_within(self.upstream.as_ref())
    }
}
