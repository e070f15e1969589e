//! How many requests upstreams are given at once, as the control API shows it.

use serde_json::{Value, json};

use super::board::Board;
use super::health::name_of;

/// All upstreams that have a limit.
pub(super) fn all(board: &Board) -> Value {
    let watched = board.watched();
    let told = watched.iter().filter_map(|upstream| {
        let throttle = upstream.additions.throttle.as_ref()?;
        let sight = throttle.sight();
        Some(json!({
            "name": name_of(upstream),
            "limit": sight.limit,
            "min": throttle.rules.min,
            "max": throttle.rules.max,
            "under_way": sight.under_way,
            "latency_ms": sight.latency.as_secs_f64() * 1000.0,
            "best_latency_ms": sight.best_latency.as_secs_f64() * 1000.0,
            "shed": sight.shed,
            "shed_low": sight.shed_low,
        }))
    });
    told.collect()
}
