//! What holds for the WebSockets of a route or a service.

use serde::{Deserialize, Serialize};

use super::field::SecondsOrOff;

/// How long WebSockets may last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// What becomes of those that are open when the route is changed or removed?
    pub on_change: OnChange,
    /// Seconds that one may stay silent both ways; 0: without end. Absent: `limits.tunnel_timeout` of the settings.
    pub idle_timeout: Option<SecondsOrOff>,
}

/// What becomes of WebSockets whose route is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnChange {
    /// They go on as they began.
    #[default]
    Keep,
    /// Both sides get a Close frame with code 1012 (service restart).
    Close,
}
