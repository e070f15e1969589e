//! The numbers a core goes by. Every one has a name, a default with its reason, and a setting.

use std::time::Duration;

use crate::proto::h1::parse::HeadLimits;

/// A head must be complete this long after its first byte: slower clients are attacks or lost.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause between two reads of a request body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause between two writes of a response: what a reader may stall us.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may wait for its next request.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests after which a connection is closed, so that load balances again.
pub const KEEPALIVE_REQUESTS: u32 = 10_000;
/// A connection idle for this long gives its buffers back.
pub const IDLE_RELEASE: Duration = Duration::from_secs(1);
/// An unread request body up to this size is read and dropped to keep the connection; beyond, it closes.
pub const DRAIN_BODY_BYTES: u64 = 64 * 1024;
/// How long reading away such a body may take.
pub const DRAIN_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// A tunnel in which nothing passes ends after this.
pub const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a closing connection is read on, so that the client sees our answer rather than a reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// Interim (1xx) responses an upstream may send before the final one.
pub const INTERIM_RESPONSES: u32 = 10;
/// Connections a core serves at once; beyond, accepting pauses.
pub const CONNECTIONS_MAX: usize = 18_000;
/// Time a plugin-held body may have at most, if the plugin names no limit of its own: 64 MiB as in APISIX.
pub const HELD_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Size of the buffers bodies stream through.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Metric series a core makes; what goes beyond is counted together.
pub const SERIES_MAX: usize = 10_000;

/// The numbers, as set.
#[derive(Clone, Debug)]
pub struct Limits {
    pub head: HeadLimits,
    pub upstream_head: HeadLimits,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub keepalive_timeout: Duration,
    pub keepalive_requests: u32,
    /// Largest request body; 0 is unlimited.
    pub body_bytes_max: u64,
    pub drain_body_bytes: u64,
    pub drain_body_timeout: Duration,
    /// `None`: a tunnel may be silent for ever.
    pub tunnel_timeout: Option<Duration>,
    pub interim_responses: u32,
    pub connections_max: usize,
    pub buffer_bytes: usize,
    pub series_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::REQUEST,
            upstream_head: HeadLimits::REQUEST,
            head_timeout: HEAD_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            keepalive_requests: KEEPALIVE_REQUESTS,
            body_bytes_max: 0,
            drain_body_bytes: DRAIN_BODY_BYTES,
            drain_body_timeout: DRAIN_BODY_TIMEOUT,
            tunnel_timeout: Some(TUNNEL_TIMEOUT),
            interim_responses: INTERIM_RESPONSES,
            connections_max: CONNECTIONS_MAX,
            buffer_bytes: BUFFER_BYTES,
            series_max: SERIES_MAX,
        }
    }
}
