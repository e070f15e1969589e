//! A plugin config: plugins that several routes share.

use super::field::PluginMap;
use super::stored;

stored! {
    /// Plugins for the routes that name it; what a route has itself wins.
    pub struct PluginConfig {
        /// Plugins by name, each with its configuration.
        #[schemars(with = "super::field::PluginMapForm")]
        pub plugins: PluginMap,
    }
}
