//! Upstream to node to connection: balance, then pool, then dialling.

use std::cell::RefCell;
use std::io;

use super::Hall;
use crate::balance::TriedSet;
use crate::base::clock::Moment;
use crate::runtime::connect;
use crate::runtime::pool::{Leased, PoolKey};
use crate::snapshot::{Timeouts, Upstream};

/// The next node to try. `None` when all were tried, or there is none.
pub(super) fn node(hall: &Hall, upstream: &Upstream, tried: &TriedSet) -> Option<usize> {
    if upstream.nodes.len() == 1 {
        // One node: no turn to take. It may be tried again when all that failed was an old connection.
        return tried.is_empty().then_some(0);
    }
    let turn = hall.core.local(upstream.turn, || RefCell::new(upstream.balancer.clone()));
    turn.borrow_mut().pick(tried, |_| true)
}

/// A connection to a node: an idle one, or a new one. `fresh` insists on a new one.
pub(super) async fn connection(
    hall: &Hall,
    upstream: &Upstream,
    node: usize,
    timeouts: &Timeouts,
    end: Option<Moment>,
    fresh: bool,
) -> io::Result<Leased> {
    let core = &hall.core;
    let key = PoolKey { node: upstream.nodes[node].address };
    if !fresh && let Some(leased) = core.pool.lease(&key, &core.stats) {
        core.stats.upstream_reuses.add(1);
        return Ok(leased);
    }
    let within = end.map_or(timeouts.connect, |end| timeouts.connect.min(end.since(core.now())));
    let socket = connect::dial(key.node, within, &core.wheel).await.inspect_err(|_| {
        core.stats.upstream_connect_errors.add(1);
    })?;
    core.stats.upstream_connects.add(1);
    Ok(Leased { socket, requests: 0, reused: false })
}
