//! How much of everything. Each default is a constant with its reason and its cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::field::{Percent, Seconds, SecondsOrOff};

/// A request's head, all of it. Cookies of large sites reach 16 KiB; 32 KiB is twice that. Worst case 32 KiB a
/// connection.
pub const HEAD_BYTES: usize = 32 * 1024;
/// A request line, and so a URL. What browsers and search engines keep to, with room.
pub const LINE_BYTES: usize = 8 * 1024;
/// Headers of a request. Browsers send some thirty; a hundred is what peers allow.
pub const HEADERS: usize = 100;
/// From a head's first byte to its last. A head fits a few packets: who needs longer holds a connection on
/// purpose.
pub const HEAD_TIMEOUT_SECONDS: u64 = 10;
/// From a connection's first byte until both sides have agreed on how to speak TLS. A handshake is two round trips.
pub const HANDSHAKE_TIMEOUT_SECONDS: u64 = 10;
/// Handshakes that wait for their turn, a core. At some tenths of a millisecond each that is a wait of a second or two; each holds a
/// hello and what serves it, some 40 KiB: worst case 160 MiB a core.
pub const HANDSHAKES_WAITING_MAX: usize = 512;
/// Between two reads of a request's body. Longer than a phone's dead spot, shorter than a proxy's patience.
pub const BODY_TIMEOUT_SECONDS: u64 = 30;
/// A request's body; 0 is no bound: bodies flow through and are not held, so they cost no memory.
pub const BODY_BYTES: u64 = 0;
/// What a plugin may have held of a body, a request. Worst case this much a request that such a plugin sees.
pub const HELD_BODY_BYTES: usize = 64 * 1024 * 1024;
/// What routes read of a body, whoever sent it: some milliseconds of a core.
pub const ROUTED_BODY_BYTES: usize = 1 << 20;
/// How long a connection may stay without a request. Longer than the pauses of a person reading.
pub const KEEPALIVE_TIMEOUT_SECONDS: u64 = 60;
/// Requests on one connection, after which it is closed in good order: so that load spreads again.
pub const KEEPALIVE_REQUESTS: u32 = 10_000;
/// How long the other side may take nothing of what is written to it.
pub const WRITE_TIMEOUT_SECONDS: u64 = 60;
/// A response's head. Worst case 32 KiB a request in flight.
pub const UPSTREAM_HEAD_BYTES: usize = 32 * 1024;
/// Responses of status 1xx before the one that counts. Each costs a write; nobody sends more than one or two.
pub const INTERIM_RESPONSES: u32 = 10;
/// Most further tries of one request, however many nodes there are.
pub const RETRIES: u32 = 2;
/// Retries as a share of requests: beyond it retrying makes an overload worse.
pub const RETRY_BUDGET_PERCENT: u8 = 20;
/// Retries that are always allowed, a second and core, so that quiet gateways may retry at all.
pub const RETRY_BUDGET_PER_SECOND: u32 = 10;
/// From the order to stop until open requests are cut. What Kubernetes waits before it kills.
pub const SHUTDOWN_TIMEOUT_SECONDS: u64 = 30;
/// From the order to stop until listening ends. 0, as a single machine wants; where a load balancer must notice
/// first (Kubernetes), 5 is right.
pub const PRE_STOP_DELAY_SECONDS: u64 = 0;
/// Open connections of clients, a core. Worst case 16,384 × (head + buffer), 1.5 GiB a core.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Open connections of one client address, a core; 0 is no bound: many may be behind one address.
pub const CONNECTIONS_PER_ADDRESS: usize = 0;
/// The buffer a body flows through. As large as a pipe's or a TLS record's fourfold: larger no longer helps.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Idle buffers a core keeps for the next. 16 MiB a core.
pub const BUFFERS_IDLE: usize = 256;
/// What is read and thrown away of a body that was answered early, to keep the connection.
pub const DRAIN_BODY_BYTES: u64 = 64 * 1024;
/// How long that may take.
pub const DRAIN_BODY_TIMEOUT_SECONDS: u64 = 5;
/// How long a tunnel (WebSocket, CONNECT) may stay silent both ways.
pub const TUNNEL_TIMEOUT_SECONDS: u64 = 3600;
/// How long both sides of a WebSocket that is told to end may take to answer. A round trip or two is enough for those who listen.
pub const TUNNEL_CLOSE_TIMEOUT_SECONDS: u64 = 5;

/// How much of everything. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most bytes of a request's head; beyond: 431.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub head_bytes: usize,
    /// Most bytes of a request line; beyond: 414.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub line_bytes: usize,
    /// Most headers of a request; beyond: 431.
    #[schemars(range(min = 1, max = 1000))]
    pub headers: usize,
    /// Seconds from the first byte of a head to its last; beyond: 408.
    pub head_timeout: Seconds,
    /// Seconds that a TLS handshake may take; beyond: the connection is closed.
    pub handshake_timeout: Seconds,
    /// Most clients that wait for their TLS handshake, a core: handshakes have three quarters of its time. Beyond, who has waited longest is closed.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub handshakes_waiting_max: usize,
    /// Seconds between two reads of a request's body; beyond: 408.
    pub body_timeout: Seconds,
    /// Most bytes of a request's body; beyond: 413. 0: no bound.
    pub body_bytes: u64,
    /// Most bytes of a body held for a plugin; beyond: 413.
    #[schemars(range(max = 1_073_741_824))]
    pub held_body_bytes: usize,
    /// Longest body of which routes' `vars` read what it says; a longer one says nothing.
    pub routed_body_bytes: usize,
    /// Seconds that a connection may stay without a request; 0: it is closed after each.
    pub keepalive_timeout: SecondsOrOff,
    /// Requests after which a client's connection is closed.
    #[schemars(range(min = 1))]
    pub keepalive_requests: u32,
    /// Seconds that a client may take nothing of a response; beyond: the connection is closed.
    pub write_timeout: Seconds,
    /// Most bytes of a response's head; beyond: 502.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub upstream_head_bytes: usize,
    /// Most interim (1xx) responses to one request; beyond: 502.
    #[schemars(range(max = 100))]
    pub interim_responses: u32,
    /// Most further tries of one request, however many nodes there are.
    #[schemars(range(max = 100))]
    pub retries: u32,
    /// Retries, as a share of a hundred requests; beyond: no retry.
    pub retry_budget_percent: Percent,
    /// Retries a second and core that are allowed in any case.
    pub retry_budget_per_second: u32,
    /// Seconds that open requests have when the process stops, before they are cut; 0: none.
    pub shutdown_timeout: SecondsOrOff,
    /// Seconds that listening goes on when the process stops, so that a load balancer notices; 0: it ends at once.
    pub pre_stop_delay: SecondsOrOff,
    /// Most open connections of clients, a core; beyond: accepting pauses.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub connections_max: usize,
    /// Most open connections of one client address, a core; 0: no bound.
    pub connections_per_address: usize,
    /// Bytes of the buffer that a body flows through.
    #[schemars(range(min = 4096, max = 16_777_216))]
    pub buffer_bytes: usize,
    /// Most idle buffers that a core keeps.
    #[schemars(range(max = 1_048_576))]
    pub buffers_idle: usize,
    /// Most bytes thrown away of a body that was answered early; more: the connection is closed.
    pub drain_body_bytes: u64,
    /// Seconds that reading such a body may take.
    pub drain_body_timeout: Seconds,
    /// Seconds that an upgraded connection may stay silent both ways; 0: without end.
    pub tunnel_timeout: SecondsOrOff,
    /// Seconds that a WebSocket that is told to end may still take: the frame at hand, and the answers of both sides.
    pub tunnel_close_timeout: Seconds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: HEAD_BYTES,
            line_bytes: LINE_BYTES,
            headers: HEADERS,
            head_timeout: Seconds::literal(HEAD_TIMEOUT_SECONDS),
            handshake_timeout: Seconds::literal(HANDSHAKE_TIMEOUT_SECONDS),
            handshakes_waiting_max: HANDSHAKES_WAITING_MAX,
            body_timeout: Seconds::literal(BODY_TIMEOUT_SECONDS),
            body_bytes: BODY_BYTES,
            held_body_bytes: HELD_BODY_BYTES,
            routed_body_bytes: ROUTED_BODY_BYTES,
            keepalive_timeout: SecondsOrOff::literal(KEEPALIVE_TIMEOUT_SECONDS),
            keepalive_requests: KEEPALIVE_REQUESTS,
            write_timeout: Seconds::literal(WRITE_TIMEOUT_SECONDS),
            upstream_head_bytes: UPSTREAM_HEAD_BYTES,
            interim_responses: INTERIM_RESPONSES,
            retries: RETRIES,
            retry_budget_percent: Percent::literal(RETRY_BUDGET_PERCENT),
            retry_budget_per_second: RETRY_BUDGET_PER_SECOND,
            shutdown_timeout: SecondsOrOff::literal(SHUTDOWN_TIMEOUT_SECONDS),
            pre_stop_delay: SecondsOrOff::literal(PRE_STOP_DELAY_SECONDS),
            connections_max: CONNECTIONS_MAX,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            buffer_bytes: BUFFER_BYTES,
            buffers_idle: BUFFERS_IDLE,
            drain_body_bytes: DRAIN_BODY_BYTES,
            drain_body_timeout: Seconds::literal(DRAIN_BODY_TIMEOUT_SECONDS),
            tunnel_timeout: SecondsOrOff::literal(TUNNEL_TIMEOUT_SECONDS),
            tunnel_close_timeout: Seconds::literal(TUNNEL_CLOSE_TIMEOUT_SECONDS),
        }
    }
}
