//! What each core counts, as metrics.

use std::sync::atomic::Ordering;

use super::super::board::Board;
use super::exposition::{Kind, Page, escaped};
use crate::link::lines::LOGGERS;
use crate::link::stats::{Cell, CoreStats, HTTP2_ABUSES, LAG_BOUNDS_US};

/// All of it.
pub(super) fn write(page: &mut Page, board: &Board) {
    cores(page, board);
    connections(page, board);
    copies(page, board);
    entries(page, board);
    abuses(page, board);
    answers(page, board);
}

fn cores(page: &mut Page, board: &Board) {
    let ratios = board.busy_ratios();
    if !ratios.is_empty() {
        let mut family = page.family(
            "ringway_core_busy_ratio",
            Kind::Gauge,
            "Share of the last seconds that the core spent on its processor",
        );
        for (core, ratio) in ratios.iter().enumerate() {
            family.sample(&format!("core=\"{core}\""), ratio);
        }
        per_core(
            page,
            board,
            "ringway_core_busy_nanoseconds_total",
            Kind::Counter,
            "Processor time of the core",
            |c| &c.busy_ns,
        );
    }
    let mut family = page.family(
        "ringway_loop_lag_seconds",
        Kind::Histogram,
        "How late the core's loop came to what was due",
    );
    for (core, stats) in board.stats.iter().enumerate() {
        let lag = &stats.loop_lag;
        let counts: Vec<u64> = lag.buckets.iter().map(Cell::get).collect();
        let sum = lag.sum_us.get() as f64 / 1e6;
        family.histogram(&format!("core=\"{core}\""), &LAG_BOUNDS_US, 1_000_000, &counts, sum);
    }
    per_core(
        page,
        board,
        "ringway_panics_total",
        Kind::Counter,
        "Panics caught; each cost one connection",
        |c| &c.panics,
    );
}

fn per_core(page: &mut Page, board: &Board, name: &str, kind: Kind, help: &str, of: fn(&CoreStats) -> &Cell) {
    let mut family = page.family(name, kind, help);
    for (core, stats) in board.stats.iter().enumerate() {
        family.sample(&format!("core=\"{core}\""), of(stats).get());
    }
}

/// One of a core's counters.
type Of = fn(&CoreStats) -> &Cell;

/// What each core counts: the metric, what it says, and where.
const COUNTERS: &[(&str, &str, Kind, Of)] = &[
    ("ringway_hedges_total", "Requests for which a second node was asked", Kind::Counter, |c| &c.hedges),
    ("ringway_hedges_won_total", "Of those, the ones that the second node answered", Kind::Counter, |c| {
        &c.hedges_won
    }),
    ("ringway_fallbacks_total", "Requests for which a fallback was taken", Kind::Counter, |c| &c.fallbacks),
    (
        "ringway_connections_refused_total",
        "Client connections closed unheard: too many of an address, or no load balancer",
        Kind::Counter,
        |c| &c.connections_refused,
    ),
    ("ringway_tls_handshakes_total", "TLS handshakes with clients", Kind::Counter, |c| &c.tls_handshakes),
    ("ringway_tls_handshakes_waiting", "Clients that wait for their TLS handshake", Kind::Gauge, |c| {
        &c.tls_handshakes_waiting
    }),
    (
        "ringway_tls_handshakes_delayed_total",
        "Clients that had to wait for their TLS handshake",
        Kind::Counter,
        |c| &c.tls_handshakes_delayed,
    ),
    ("ringway_tls_handshake_errors_total", "Connections that came to no TLS handshake", Kind::Counter, |c| {
        &c.tls_handshake_errors
    }),
    (
        "ringway_tls_handshakes_shed_total",
        "Connections closed before a TLS handshake, because more came than there was time for",
        Kind::Counter,
        |c| &c.tls_handshakes_shed,
    ),
    (
        "ringway_tls_handshakes_aside_total",
        "Steps of TLS handshakes that took too long for a core, and were taken beside it",
        Kind::Counter,
        |c| &c.tls_handshakes_aside,
    ),
    ("ringway_http2_connections", "Client connections that speak HTTP/2", Kind::Gauge, |c| {
        &c.http2_connections
    }),
    ("ringway_http2_streams_total", "Streams of HTTP/2 begun by clients", Kind::Counter, |c| {
        &c.http2_streams
    }),
    ("ringway_http2_streams_active", "Streams of HTTP/2 under way", Kind::Gauge, |c| &c.http2_streams_active),
    (
        "ringway_http2_refused_total",
        "Streams of HTTP/2 refused unseen because too much is under way",
        Kind::Counter,
        |c| &c.http2_refused,
    ),
    (
        "ringway_http2_errors_total",
        "Connections and streams of HTTP/2 that broke its rules",
        Kind::Counter,
        |c| &c.http2_errors,
    ),
    (
        "ringway_upstream_tls_errors_total",
        "Upstream connections without an agreement on TLS",
        Kind::Counter,
        |c| &c.upstream_tls_errors,
    ),
    (
        "ringway_connections_handed_over_total",
        "Client connections left to an idler core",
        Kind::Counter,
        |c| &c.handed_over,
    ),
    ("ringway_connections_accepted_total", "Client connections accepted", Kind::Counter, |c| &c.accepted),
    ("ringway_accept_errors_total", "Accepts that failed", Kind::Counter, |c| &c.accept_errors),
    ("ringway_streams_total", "Connections taken for stream routes", Kind::Counter, |c| &c.streams),
    ("ringway_streams_active", "Connections of stream routes open now", Kind::Gauge, |c| &c.streams_active),
    (
        "ringway_datagrams_dropped_total",
        "Datagrams lost here: too long, or no room for them",
        Kind::Counter,
        |c| &c.datagrams_dropped,
    ),
    (
        "ringway_udp_evictions_total",
        "Sessions of UDP that ended to make room for others",
        Kind::Counter,
        |c| &c.udp_evictions,
    ),
    ("ringway_requests_total", "Requests received", Kind::Counter, |c| &c.requests),
    ("ringway_requests_active", "Requests under way", Kind::Gauge, |c| &c.requests_active),
    ("ringway_received_bytes_total", "Bytes received from clients", Kind::Counter, |c| &c.bytes_in),
    ("ringway_sent_bytes_total", "Bytes sent to clients", Kind::Counter, |c| &c.bytes_out),
    ("ringway_upstream_connects_total", "Upstream connections opened", Kind::Counter, |c| {
        &c.upstream_connects
    }),
    (
        "ringway_upstream_connect_errors_total",
        "Upstream connections that could not be opened",
        Kind::Counter,
        |c| &c.upstream_connect_errors,
    ),
    ("ringway_upstream_reuses_total", "Requests on a pooled connection", Kind::Counter, |c| {
        &c.upstream_reuses
    }),
    (
        "ringway_upstream_borrows_total",
        "Idle upstream connections had from another core",
        Kind::Counter,
        |c| &c.upstream_borrows,
    ),
    ("ringway_upstream_stale_total", "Pooled connections found dead", Kind::Counter, |c| &c.upstream_stale),
    ("ringway_upstream_idle", "Upstream connections in the pool", Kind::Gauge, |c| &c.upstream_idle),
    ("ringway_upstream_spare", "Of these, those that other cores may have", Kind::Gauge, |c| {
        &c.upstream_spare
    }),
    ("ringway_retries_total", "Second and further attempts", Kind::Counter, |c| &c.retries),
    ("ringway_limit_refusals_total", "Requests that a limit refused", Kind::Counter, |c| &c.limit_refusals),
    ("ringway_limit_waits_total", "Requests that a limit had wait", Kind::Counter, |c| &c.limit_waits),
    ("ringway_limit_leased_total", "Requests decided without asking Redis", Kind::Counter, |c| {
        &c.limit_leased
    }),
    ("ringway_limit_local_total", "Decisions by a count of our own for want of Redis", Kind::Counter, |c| {
        &c.limit_local
    }),
    ("ringway_redis_failures_total", "Times a Redis with counters gave no reply", Kind::Counter, |c| {
        &c.redis_failures
    }),
    (
        "ringway_ldap_failures_total",
        "Times a directory did not say whether a password is right",
        Kind::Counter,
        |c| &c.ldap_failures,
    ),
    ("ringway_redis_returns_lost_total", "What a Redis did not get back in time", Kind::Counter, |c| {
        &c.redis_returns_lost
    }),
    ("ringway_breaker_openings_total", "Times a circuit breaker was opened", Kind::Counter, |c| {
        &c.breakers_opened
    }),
];

fn connections(page: &mut Page, board: &Board) {
    let states: [(&str, Of); 3] = [
        ("active", |c| &c.connections_active),
        ("idle", |c| &c.connections_idle),
        ("tunnel", |c| &c.tunnels_active),
    ];
    let mut family = page.family(
        "ringway_connections",
        Kind::Gauge,
        "Client connections open; idle and tunnel are part of active",
    );
    for (core, stats) in board.stats.iter().enumerate() {
        for (state, of) in states {
            family.sample(&format!("core=\"{core}\",state=\"{state}\""), of(stats).get());
        }
    }
    for (name, help, kind, of) in COUNTERS {
        per_core(page, board, name, *kind, help, *of);
    }
    let reuses = board.sum(|core| core.upstream_reuses.get());
    let leases = reuses + board.sum(|core| core.upstream_connects.get());
    if leases > 0 {
        page.single(
            "ringway_pool_reuse_ratio",
            Kind::Gauge,
            "Share of upstream requests that found an open connection, since the start",
            reuses as f64 / leases as f64,
        );
    }
}

/// What became of requests' copies.
fn copies(page: &mut Page, board: &Board) {
    let outcomes: [(&str, Of); 3] =
        [("sent", |c| &c.copies_sent), ("failed", |c| &c.copies_failed), ("dropped", |c| &c.copies_dropped)];
    let help = "Copies of requests for another origin, by what became of them";
    let mut family = page.family("ringway_copies_total", Kind::Counter, help);
    for (core, stats) in board.stats.iter().enumerate() {
        for (outcome, of) in outcomes {
            family.sample(&format!("core=\"{core}\",outcome=\"{outcome}\""), of(stats).get());
        }
    }
}

/// What became of entries of logs that are for others.
fn entries(page: &mut Page, board: &Board) {
    let help = "Entries of logs for others, by the plugin they are of and by what became of them";
    let mut family = page.family("ringway_log_entries_total", Kind::Counter, help);
    for (at, name) in LOGGERS.iter().enumerate() {
        let (fate, on_cores) = (&board.shipped.of[at], board.sum(|core| core.entry_drops[at].get()));
        let outcomes = [
            ("sent", fate.sent.load(Ordering::Relaxed)),
            ("dropped", fate.dropped.load(Ordering::Relaxed) + on_cores),
            ("failed", fate.failed.load(Ordering::Relaxed)),
        ];
        for (outcome, count) in outcomes {
            family.sample(&format!("plugin=\"{name}\",outcome=\"{outcome}\""), count);
        }
    }
}

/// Connections of HTTP/2 that had to be ended.
fn abuses(page: &mut Page, board: &Board) {
    let help = "Connections of HTTP/2 that were ended for what their clients did too often";
    let mut family = page.family("ringway_http2_abuses_total", Kind::Counter, help);
    for (at, kind) in HTTP2_ABUSES.iter().enumerate() {
        let count = board.sum(|core| core.http2_abuses[at].get());
        family.sample(&format!("kind=\"{kind}\""), count);
    }
}

fn answers(page: &mut Page, board: &Board) {
    let mut family = page.family(
        "ringway_responses_total",
        Kind::Counter,
        "Answers made by the gateway itself, by reason",
    );
    for (at, reason) in board.reasons.iter().enumerate() {
        let count = board.sum(|core| core.reasons.get(at).map_or(0, Cell::get));
        family.sample(&format!("reason=\"{}\"", escaped(reason)), count);
    }
}
