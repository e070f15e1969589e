//! Plugin metadata: what all uses of a plugin have in common.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What all uses of one plugin share, such as a log format. Its fields are the plugin's to check.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PluginMetadata {
    /// The plugin's name.
    pub id: super::ObjectId,
    /// The plugin's own fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
