//! A service: what several routes have in common.

use serde_json::Value;

use super::field::{HostPattern, ObjectId, PluginMap, Unique};
use super::upstream::Upstream;
use super::websocket::WebSocket;
use super::{ConfigError, stored};

stored! {
    /// Hosts, plugins and upstream of the routes that refer to it; what a route says itself wins.
    #[schemars(extend("not" = { "required": ["script"] }))]
    pub struct Service {
        /// The hosts of those of its routes that name none.
        pub hosts: Option<Unique<HostPattern, 1>>,
        /// Plugins by name, each with its configuration; a route's own of the same name wins.
        #[schemars(with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
        /// The id of the upstream to send to.
        pub upstream_id: Option<ObjectId>,
        /// The upstream to send to, written here rather than kept as an object.
        pub upstream: Option<Upstream>,
        /// May connections be upgraded to WebSocket? Absent: no. A route's own word wins.
        pub enable_websocket: Option<bool>,
        /// How long WebSockets may last. A route's own word wins, in whole.
        pub websocket: Option<WebSocket>,
        /// Lua in place of plugins. Refused: Lua runs in plugins alone.
        pub script: Option<Value>,
    }
}

impl Service {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        Upstream::faults_within(self.upstream.as_ref())
    }
}
