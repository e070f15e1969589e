//! Counters a core writes alone and the exporter reads.
//!
//! Each has exactly one writer, so adding is a load and a store, not a locked instruction; readers may be a
//! moment behind but never see a torn value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lines::LOGGERS;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning core may.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Subtracts; only the owning core may.
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    /// Overwrites; only the owning core may.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Release);
    }

    /// Reads, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Upper bounds of latency buckets in milliseconds, APISIX's.
pub const LATENCY_BOUNDS_MS: [u64; 15] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// The same in microseconds, for histograms of nobody who says otherwise.
pub fn latency_bounds() -> Arc<[u64]> {
    LATENCY_BOUNDS_MS.iter().map(|bound| bound * 1000).collect()
}

/// A histogram of times.
#[derive(Debug)]
pub struct Latency {
    /// Upper bounds in microseconds, rising.
    pub bounds_us: Arc<[u64]>,
    /// One per bound and one beyond; not cumulative.
    pub buckets: Box<[Cell]>,
    pub sum_us: Cell,
    pub count: Cell,
}

impl Latency {
    /// An empty one.
    pub fn new(bounds_us: Arc<[u64]>) -> Self {
        let buckets = (0..=bounds_us.len()).map(|_| Cell::default()).collect();
        Self { bounds_us, buckets, sum_us: Cell::default(), count: Cell::default() }
    }

    /// Notes one time.
    pub fn observe(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let at = self.bounds_us.iter().position(|bound| us <= *bound).unwrap_or(self.bounds_us.len());
        self.buckets[at].add(1);
        self.sum_us.add(us);
        self.count.add(1);
    }
}

/// Upper bounds of loop-turn buckets in microseconds.
pub const LAG_BOUNDS_US: [u64; 10] = [100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 1_000_000];

/// How late a core's loop came to what was due.
#[derive(Debug, Default)]
pub struct LoopLag {
    pub buckets: [Cell; LAG_BOUNDS_US.len() + 1],
    pub sum_us: Cell,
    pub count: Cell,
}

impl LoopLag {
    /// Notes one delay.
    pub fn observe(&self, lag: Duration) {
        let us = lag.as_micros() as u64;
        let at = LAG_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(LAG_BOUNDS_US.len());
        self.buckets[at].add(1);
        self.sum_us.add(us);
        self.count.add(1);
    }
}

/// What a [`Series`] holds.
#[derive(Debug)]
pub enum SeriesValue {
    Count(Cell),
    Latency(Box<Latency>),
}

/// One line (or histogram) of a metric: a family, its labels as they are printed, and a value.
#[derive(Debug)]
pub struct Series {
    /// The metric's name without prefix, such as `http_status`.
    pub family: &'static str,
    /// `code="200",route="1"`: escaped, in the family's order. Series of several cores with equal labels are
    /// summed when printed.
    pub labels: String,
    pub value: SeriesValue,
}

impl Series {
    /// A counter at zero.
    pub fn count(family: &'static str, labels: String) -> Self {
        Self { family, labels, value: SeriesValue::Count(Cell::default()) }
    }

    /// An empty histogram; bounds are in microseconds.
    pub fn latency(family: &'static str, labels: String, bounds_us: &Arc<[u64]>) -> Self {
        let latency = Latency::new(Arc::clone(bounds_us));
        Self { family, labels, value: SeriesValue::Latency(Box::new(latency)) }
    }

    /// Adds to a counter; does nothing to a histogram.
    pub fn add(&self, by: u64) {
        if let SeriesValue::Count(cell) = &self.value {
            cell.add(by);
        }
    }

    /// Takes from what was added: for what comes and goes.
    pub fn sub(&self, by: u64) {
        if let SeriesValue::Count(cell) = &self.value {
            cell.sub(by);
        }
    }

    /// Notes a time in a histogram; does nothing to a counter.
    pub fn observe(&self, time: Duration) {
        if let SeriesValue::Latency(latency) = &self.value {
            latency.observe(time);
        }
    }
}

macro_rules! core_stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What one core counts about itself, whatever plugins are configured.
        #[derive(Debug, Default)]
        pub struct CoreStats {
            $($(#[$doc])* pub $field: Cell,)*
            /// How late the loop came to its timer.
            pub loop_lag: LoopLag,
            /// Answers made by the gateway, by the place of their reason in its table.
            pub reasons: [Cell; REASONS_MAX],
            /// Connections of HTTP/2 that were ended for what came too often, by its place in the table of the meter.
            pub http2_abuses: [Cell; ABUSES_MAX],
            /// Entries of logs that found no room on their way to the control thread, by whose they are.
            pub entry_drops: [Cell; LOGGERS.len()],
        }
    };
}

/// Places in [`CoreStats::http2_abuses`]; what is counted is in `proto/h2/meter.rs`.
pub const ABUSES_MAX: usize = HTTP2_ABUSES.len();

/// What clients of HTTP/2 may do too often.
pub const HTTP2_ABUSES: [&str; 7] =
    ["pings", "settings", "priorities", "resets", "empty_frames", "continuations", "unknown_frames"];

/// Places for reasons in [`CoreStats::reasons`]; the table itself is in `edge/respond.rs`.
pub const REASONS_MAX: usize = 32;

core_stats! {
    /// Generation of the snapshot that new requests see.
    generation,
    /// 1 once the core accepts connections.
    ready,
    /// Connections accepted, ever.
    accepted,
    /// Connections open now.
    connections_active,
    /// Of those, waiting for a request.
    connections_idle,
    /// Accepts that failed, and connections closed because their address had too many.
    accept_errors,
    connections_refused,
    /// TLS handshakes with clients that came to an agreement, and those that did not.
    tls_handshakes,
    tls_handshake_errors,
    /// Clients that wait for their handshake now, that had to, ever, and that were turned away before it began, because more came than
    /// there was time for.
    tls_handshakes_waiting,
    tls_handshakes_delayed,
    tls_handshakes_shed,
    /// Steps of handshakes that a thread beside the cores took.
    tls_handshakes_aside,
    /// Connections of HTTP/2 open now, their streams, ever and now, and what was wrong with either.
    http2_connections,
    http2_streams,
    http2_streams_active,
    http2_errors,
    /// Streams that were refused, unseen, because the core has too many requests under way.
    http2_refused,
    /// Requests received, ever.
    requests,
    /// Requests under way.
    requests_active,
    /// Bytes received from and sent to clients.
    bytes_in,
    bytes_out,
    /// Upstream connections opened, borrowed from other cores, reused, found dead when wanted, idle now, and of these
    /// those that the core could do without.
    upstream_connects,
    upstream_borrows,
    upstream_connect_errors,
    /// Of those, the ones where TLS was not agreed on.
    upstream_tls_errors,
    upstream_reuses,
    upstream_stale,
    upstream_idle,
    upstream_spare,
    /// Second and further attempts, and those the budget did not allow.
    retries,
    retry_budget_exhausted,
    /// Nodes ejected as outliers by what was heard here.
    ejections,
    /// Requests for which a fallback was taken.
    fallbacks,
    /// Requests for which a second node was asked, and those that it has answered.
    hedges,
    hedges_won,
    /// Panics caught; each cost one connection.
    panics,
    /// Access-log lines and other reports that found no room.
    log_drops,
    report_drops,
    /// Metric series refused because there were too many.
    series_overflow,
    /// Upgraded connections open now.
    tunnels_active,
    /// Connections of stream routes, ever and now.
    streams,
    streams_active,
    /// Datagrams that were lost here, and sessions that made room for others.
    datagrams_dropped,
    udp_evictions,
    /// Time the core spent on its processor, in nanoseconds, and its share lately, in thousandths.
    busy_ns,
    load,
    /// Connections left to another core when they were accepted.
    handed_over,
    /// Copies of requests that were sent beside the road, that could not be, and that there was no room for.
    copies_sent,
    copies_failed,
    copies_dropped,
    /// Times a circuit breaker was opened here.
    breakers_opened,
    /// Requests that a limit refused, and that it had wait.
    limit_refusals,
    limit_waits,
    /// Requests on which a limit of a Redis decided without asking it.
    limit_leased,
    /// Times a limit of a Redis decided by a count of this process, because there was no reply.
    limit_local,
    /// Times a Redis that keeps counters gave no reply that could be used.
    redis_failures,
    /// Times a directory did not say whether a password is right.
    ldap_failures,
    /// What was taken of a Redis and could not be given back: it is free when its time is over.
    redis_returns_lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_in_the_bucket_whose_bound_it_does_not_exceed() {
        let latency = Latency::new(latency_bounds());
        for micros in [1000, 1001, 60_000_000, 60_000_001] {
            latency.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = latency.buckets.iter().map(Cell::get).collect();
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (1, 1, 1, 1));
        assert_eq!(latency.count.get(), 4);
    }
}
