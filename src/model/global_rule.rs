//! A global rule: plugins that act on every request.

use super::field::PluginMap;
use super::stored;

stored! {
    /// Plugins for every request, routed or not, before those of the route. A plugin stands in one rule only.
    pub struct GlobalRule {
        /// Plugins by name, each with its configuration. No other global rule may have the same.
        #[schemars(with = "super::field::PluginMapForm")]
        pub plugins: PluginMap,
    }
}
