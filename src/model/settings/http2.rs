//! HTTP/2 with clients: over TLS where both sides want it, in clear with those that begin with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Streams at a time. What peers allow; a browser asks for a few dozen at most.
const STREAMS: u32 = 100;
/// Bytes of one stream's body that may be under way unread: the protocol's own number. Worst case this much a stream.
const STREAM_WINDOW: u32 = 65_535;
/// The same for all streams of a connection together. Worst case this much a connection.
const CONNECTION_WINDOW: u32 = 1_048_576;
/// Streams that a client may reset before anybody looked at them: beyond is an attack that costs only us.
const RESETS_UNSEEN: usize = 50;
/// Streams that we may have to reset for what a client does wrong on them.
const RESETS_OWED: usize = 200;

/// HTTP/2 with clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Settings {
    /// Is it spoken at all?
    pub enabled: bool,
    /// Most streams of a connection at a time.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Bytes of a stream's body that may be under way before any was read.
    #[schemars(range(min = 65_535, max = 16_777_216))]
    pub stream_window: u32,
    /// The same for all streams of a connection together.
    #[schemars(range(min = 65_535, max = 67_108_864))]
    pub connection_window: u32,
    /// Most streams that a client may reset before they were looked at; beyond: the connection is closed.
    #[schemars(range(min = 1, max = 10_000))]
    pub resets_unseen: usize,
    /// Most streams that had to be reset for what the client did; beyond: the connection is closed.
    #[schemars(range(min = 1, max = 100_000))]
    pub resets_owed: usize,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            streams: STREAMS,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            resets_unseen: RESETS_UNSEEN,
            resets_owed: RESETS_OWED,
        }
    }
}
