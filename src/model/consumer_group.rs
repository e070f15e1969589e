//! A consumer group: plugins that several consumers share.

use super::field::PluginMap;
use super::stored;

stored! {
    /// Plugins for the requests of the consumers that name it; what a consumer has itself wins.
    pub struct ConsumerGroup {
        /// Plugins by name, each with its configuration; they win over those of the route.
        #[schemars(with = "super::field::PluginMapForm")]
        pub plugins: PluginMap,
    }
}
