//! The numbers a core goes by. Every one has a name, a default with its reason, and a setting.

use std::time::Duration;

use crate::proto::h1::parse::HeadLimits;
use crate::proto::h2::H2Limits;

/// A head must be complete this long after its first byte: slower clients are attacks or lost.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A TLS handshake must be over so long after a connection's first byte.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that wait for their turn on a core; who comes beyond is turned away.
pub const HANDSHAKES_WAITING_MAX: usize = 512;
/// Longest pause between two reads of a request body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest pause between two writes of a response: what a reader may stall us.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may wait for its next request.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests after which a connection is closed, so that load balances again.
pub const KEEPALIVE_REQUESTS: u32 = 10_000;
/// An unread request body up to this size is read and dropped to keep the connection; beyond, it closes.
pub const DRAIN_BODY_BYTES: u64 = 64 * 1024;
/// How long reading away such a body may take.
pub const DRAIN_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// A tunnel in which nothing passes ends after this.
pub const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long both sides of a tunnel that is told to end may take to answer.
pub const TUNNEL_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a closing connection is read on, so that the client sees our answer rather than a reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// A stream in which nothing passes ends after this, where its upstream does not say.
pub const STREAM_IDLE: Duration = Duration::from_secs(600);
/// Bytes read of a stream's client before its route is known.
pub const PREREAD_BYTES: usize = 16 * 1024;
/// How long that may take.
pub const PREREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions of UDP a core has at most.
pub const UDP_SESSIONS: usize = 4096;
/// A session of UDP in which nothing passes ends after this.
pub const UDP_IDLE: Duration = Duration::from_secs(60);
/// Bytes of the longest datagram that is passed on: all there are.
pub const DATAGRAM_BYTES: usize = 65_507;
/// Interim (1xx) responses an upstream may send before the final one.
pub const INTERIM_RESPONSES: u32 = 10;
/// Connections a core serves at once; beyond, accepting pauses.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Time a plugin-held body may have at most, if the plugin names no limit of its own: 64 MiB as in APISIX.
pub const HELD_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Longest body of which routes read what it says: reading costs the core, whoever sent it.
pub const ROUTED_BODY_BYTES: usize = 1 << 20;
/// Size of the buffers bodies stream through.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Further tries of a request whose upstream does not say how many.
pub const RETRIES: u32 = 2;
/// Retries as a share of requests: when all nodes fail, upstreams see at most a fifth more than clients send.
pub const RETRY_BUDGET_PERCENT: u32 = 20;
/// Retries a second that are always allowed, so that a quiet gateway may retry at all.
pub const RETRY_BUDGET_PER_SECOND: u32 = 10;
/// Large buffers kept in stock: 16 MiB a core.
pub const BUFFERS_KEPT: usize = 256;
/// An access-log batch leaves when it has so many bytes,
pub const LOG_BATCH_BYTES: usize = 32 * 1024;
/// or is so old.
pub const LOG_BATCH_AGE: Duration = Duration::from_millis(100);
/// Metric series a core makes; what goes beyond is counted together.
pub const SERIES_MAX: usize = 10_000;

/// The numbers, as set.
#[derive(Clone, Debug)]
pub struct Limits {
    pub head: HeadLimits,
    pub upstream_head: HeadLimits,
    pub head_timeout: Duration,
    pub handshake_timeout: Duration,
    pub handshakes_waiting_max: usize,
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
    pub tunnel_close_timeout: Duration,
    /// `None`: a stream may be silent for ever.
    pub stream_idle: Option<Duration>,
    pub preread_bytes: usize,
    pub preread_timeout: Duration,
    pub udp_sessions: usize,
    /// `None`: a session may be silent for ever.
    pub udp_idle: Option<Duration>,
    pub datagram_bytes: usize,
    pub interim_responses: u32,
    pub connections_max: usize,
    /// Connections of one client address; 0 is unlimited.
    pub connections_per_address: usize,
    /// Largest body held for a plugin.
    pub held_body_bytes: usize,
    pub routed_body_bytes: usize,
    /// Further tries of a request whose upstream does not say how many.
    pub retries: u32,
    /// Retries as a share of requests, in percent, and those always allowed, a second.
    pub retry_budget_percent: u32,
    pub retry_budget_per_second: u32,
    /// Large buffers kept in stock.
    pub buffers_kept: usize,
    /// An access-log batch leaves when it has so many bytes, or is so old.
    pub log_batch_bytes: usize,
    pub log_batch_age: Duration,
    pub buffer_bytes: usize,
    pub series_max: usize,
    /// Of connections that speak HTTP/2; `None` where nobody may.
    pub http2: Option<H2Limits>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::REQUEST,
            upstream_head: HeadLimits::REQUEST,
            head_timeout: HEAD_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_waiting_max: HANDSHAKES_WAITING_MAX,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            keepalive_requests: KEEPALIVE_REQUESTS,
            body_bytes_max: 0,
            drain_body_bytes: DRAIN_BODY_BYTES,
            drain_body_timeout: DRAIN_BODY_TIMEOUT,
            tunnel_timeout: Some(TUNNEL_TIMEOUT),
            tunnel_close_timeout: TUNNEL_CLOSE_TIMEOUT,
            stream_idle: Some(STREAM_IDLE),
            preread_bytes: PREREAD_BYTES,
            preread_timeout: PREREAD_TIMEOUT,
            udp_sessions: UDP_SESSIONS,
            udp_idle: Some(UDP_IDLE),
            datagram_bytes: DATAGRAM_BYTES,
            interim_responses: INTERIM_RESPONSES,
            connections_max: CONNECTIONS_MAX,
            connections_per_address: 0,
            held_body_bytes: HELD_BODY_BYTES,
            routed_body_bytes: ROUTED_BODY_BYTES,
            retries: RETRIES,
            retry_budget_percent: RETRY_BUDGET_PERCENT,
            retry_budget_per_second: RETRY_BUDGET_PER_SECOND,
            buffers_kept: BUFFERS_KEPT,
            log_batch_bytes: LOG_BATCH_BYTES,
            log_batch_age: LOG_BATCH_AGE,
            buffer_bytes: BUFFER_BYTES,
            series_max: SERIES_MAX,
            http2: Some(H2Limits::default()),
        }
    }
}
