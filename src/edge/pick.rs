//! Upstream to node to connection: balance, then pool, then dialling.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Hall;
use crate::balance::{Balancer, TriedSet};
use crate::base::clock::Moment;
use crate::runtime::connect;
use crate::runtime::pool::{Leased, PoolKey};
use crate::snapshot::{Timeouts, Upstream};

/// A node that failed is passed over for so long, if another is there to serve: whoever lost one request to it
/// need not be followed by thousands.
const PAUSE: Duration = Duration::from_secs(1);

/// What a core keeps of an upstream between requests.
struct Turn {
    balancer: RefCell<Balancer>,
    /// When each node last failed; `Moment::ZERO` for never.
    failed: Box<[Cell<Moment>]>,
}

fn turn(hall: &Hall, upstream: &Upstream) -> Rc<Turn> {
    hall.core.local(upstream.turn, || Turn {
        balancer: RefCell::new(upstream.balancer.clone()),
        failed: upstream.nodes.iter().map(|_| Cell::default()).collect(),
    })
}

/// The next node to try. `None` when all were tried, or there is none.
pub(super) fn node(hall: &Hall, upstream: &Upstream, tried: &TriedSet, now: Moment) -> Option<usize> {
    if upstream.nodes.len() == 1 {
        // No turn to take.
        return tried.is_empty().then_some(0);
    }
    let turn = turn(hall, upstream);
    let is_up = |node: usize| {
        let failed = turn.failed.get(node).map_or(Moment::ZERO, Cell::get);
        failed == Moment::ZERO || now.since(failed) >= PAUSE
    };
    turn.balancer.borrow_mut().pick(tried, is_up)
}

/// Notes that a node failed, for the next requests' choice.
pub(super) fn note_failure(hall: &Hall, upstream: &Upstream, node: usize, now: Moment) {
    if upstream.nodes.len() > 1
        && let Some(failed) = turn(hall, upstream).failed.get(node)
    {
        failed.set(now);
    }
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
