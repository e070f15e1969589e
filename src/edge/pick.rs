//! Upstream to node to connection: balance, then pool, then dialling.

use std::cell::{self, RefCell};
use std::io;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use super::proxy::Plan;
use super::{Hall, h2, secure};
use crate::balance::{Balancer, Context, TriedSet};
use crate::base::clock::Moment;
use crate::exchange::Exchange;
use crate::link::health::Cell;
use crate::runtime::connect;
use crate::runtime::pool::{Leased, PoolKey};
use crate::runtime::socket::Socket;
use crate::snapshot::{HashKey, NodeTls, SlowStart, Upstream, host_for};

/// A node that failed is passed over for so long, if another is there to serve: whoever lost one request to it
/// need not be followed by thousands.
const PAUSE: Duration = Duration::from_secs(1);

/// What a core keeps of an upstream between requests.
struct Turn {
    balancer: RefCell<Balancer>,
    /// When each node last failed; `Moment::ZERO` for never.
    failed: Box<[cell::Cell<Moment>]>,
    /// Where the text of a hash is written.
    text: RefCell<Vec<u8>>,
}

fn turn(hall: &Hall, upstream: &Upstream) -> Rc<Turn> {
    hall.core.local(upstream.turn, || Turn {
        balancer: RefCell::new(upstream.balancer.clone()),
        failed: upstream.nodes.iter().map(|_| cell::Cell::default()).collect(),
        text: RefCell::default(),
    })
}

/// What the balancer may ask while it chooses for one request.
struct Asked<'a> {
    hall: &'a Hall,
    upstream: &'a Upstream,
    turn: &'a Turn,
    ex: &'a Exchange,
    now: Moment,
    /// Nodes that have less of their weight are passed over; thrown anew for each choice.
    thrown: u64,
    /// Whether nodes that failed of late are passed over.
    heeds_pauses: bool,
}

impl Context for Asked<'_> {
    fn is_up(&self, node: usize) -> bool {
        let failed = self.turn.failed.get(node).map_or(Moment::ZERO, cell::Cell::get);
        let is_paused = self.heeds_pauses && failed != Moment::ZERO && self.now.since(failed) < PAUSE;
        let cell = self.upstream.nodes.get(node).and_then(|node| node.cell.as_deref());
        !is_paused && cell.is_none_or(|cell| cell.is_up() && !self.is_ejected(cell) && self.may_begin(cell))
    }

    fn key(&self) -> u32 {
        let mut text = self.turn.text.borrow_mut();
        text.clear();
        let is_set = match &self.upstream.hash_key {
            HashKey::Text(template) => template.render(self.ex, &mut text) > 0,
            HashKey::Address => false,
        };
        if !is_set {
            text.clear();
            // Writing to a vector can not fail.
            let _ = write!(text, "{}", self.ex.client.ip);
        }
        crc32fast::hash(&text)
    }

    fn in_flight(&self, node: usize) -> u32 {
        self.upstream.nodes[node].cell.as_ref().map_or(0, |cell| cell.in_flight())
    }

    fn latency_us(&self, node: usize) -> f32 {
        self.upstream.nodes[node].cell.as_ref().map_or(0.0, |cell| cell.latency_us(self.now))
    }

    fn below(&self, bound: u64) -> u64 {
        self.hall.core.dice(|dice| dice.below(bound))
    }
}

impl Asked<'_> {
    fn is_ejected(&self, cell: &Cell) -> bool {
        self.upstream.additions.outliers.is_some() && cell.outlier.is_ejected(self.now)
    }

    /// Whether a node that is new has grown into this request.
    fn may_begin(&self, cell: &Cell) -> bool {
        self.upstream.slow_start.is_none_or(|slow| slow.share(cell, self.now) > self.thrown)
    }

    /// Throws for this choice: nodes get requests by what they have of their weight, against the one that has most of
    /// those that are up and left. So there always is one to choose, and health is not ignored for who is only new.
    fn throw(&mut self, slow: SlowStart, tried: &TriedSet) {
        let left = (0..self.upstream.nodes.len()).filter(|node| !tried.contains(*node) && self.is_up(*node));
        let cells = left.filter_map(|node| self.upstream.nodes[node].cell.as_deref());
        let most = cells.map(|cell| slow.share(cell, self.now)).max();
        self.thrown = most.map_or(0, |most| self.below(most.max(1)));
    }
}

/// The next node to try. `None` when all were tried, or there is none.
pub(super) fn node(
    hall: &Hall,
    upstream: &Upstream,
    tried: &TriedSet,
    ex: &Exchange,
    now: Moment,
) -> Option<usize> {
    if upstream.nodes.len() == 1 {
        // No turn to take.
        return tried.is_empty().then_some(0);
    }
    let turn = turn(hall, upstream);
    let mut asked = Asked { hall, upstream, turn: &turn, ex, now, thrown: 0, heeds_pauses: true };
    // A pause is for where another serves: who failed once is better than who is known to be down.
    asked.heeds_pauses = (0..upstream.nodes.len()).any(|node| !tried.contains(node) && asked.is_up(node));
    if let Some(sticky) = &upstream.additions.sticky
        && let Some(node) = sticky.node_of(ex)
        && !tried.contains(node)
        && asked.is_up(node)
    {
        return Some(node);
    }
    if let Some(slow) = upstream.slow_start {
        asked.throw(slow, tried);
    }
    turn.balancer.borrow_mut().pick(tried, &asked)
}

/// Notes that a node failed, for the next requests' choice.
pub(super) fn note_failure(hall: &Hall, upstream: &Upstream, node: usize, now: Moment) {
    if upstream.nodes.len() > 1
        && let Some(failed) = turn(hall, upstream).failed.get(node)
    {
        failed.set(now);
    }
}

/// Why there is no connection to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreached {
    Timeout,
    Refused,
    /// There is one, but no agreement on TLS.
    Mistrusted,
}

/// A connection to a node: an idle one, or a new one. `fresh` insists on a new one.
pub(super) async fn connection(
    hall: &Hall,
    ex: &Exchange,
    plan: &Plan<'_>,
    node: usize,
    fresh: bool,
) -> Result<Leased, Unreached> {
    let core = &hall.core;
    let upstream = plan.upstream;
    let address = upstream.nodes[node].address;
    // Over HTTP/2 there are no tunnels to nodes.
    let offer = upstream.offer.as_ref().filter(|_| !plan.tunnel && core.detour.is_none());
    let tls = offer.or(upstream.tls.as_ref());
    let key = match tls {
        None => PoolKey { node: address, tls: 0 },
        Some(tls) => PoolKey { node: address, tls: secure::key(hall, tls, server_name(upstream, node, ex)) },
    };
    if !fresh
        && !upstream.is_http2
        && let Some(leased) = core.pool.lease(&key, &core.stats)
    {
        core.stats.upstream_reuses.add(1);
        return Ok(leased);
    }
    if !fresh
        && !upstream.is_http2
        && let Some(lender) = core.pool.lender(&key)
        && let Some(leased) = Box::pin(hall.loans.borrow(lender, key, upstream.keep)).await
    {
        core.stats.upstream_reuses.add(1);
        return Ok(leased);
    }
    let opened = open(hall, ex, plan, (node, tls));
    if upstream.is_http2 || offer.is_some() {
        // Large, and the requests of HTTP/1 have no need of it.
        return Box::pin(h2::stream_to(hall, (key, offer.is_some()), upstream.keep, opened)).await;
    }
    let (socket, _) = opened.await?;
    Ok(Leased { socket, requests: 0, reused: false, key })
}

/// Opens a connection to a node; whether HTTP/2 was agreed on.
async fn open(
    hall: &Hall,
    ex: &Exchange,
    plan: &Plan<'_>,
    (node, tls): (usize, Option<&NodeTls>),
) -> Result<(Socket, bool), Unreached> {
    let core = &hall.core;
    let upstream = plan.upstream;
    let connect = plan.timeouts.connect;
    let within = plan.end.map_or(connect, |end| connect.min(end.since(core.now())));
    let within = plan.within(core, within);
    let call = Call { name: server_name(upstream, node, ex), first: &[], tls, within };
    reach(hall, upstream, node, call).await
}

/// How a node is called.
pub(super) struct Call<'a> {
    /// Whom it goes by over TLS.
    pub(super) name: &'a [u8],
    /// What is said before anything else.
    pub(super) first: &'a [u8],
    /// What it has to agree on, if anything.
    pub(super) tls: Option<&'a NodeTls>,
    pub(super) within: Duration,
}

/// Connects to a node, says what is to be said first, and agrees with it on TLS; whether HTTP/2 over it.
pub(super) async fn reach(
    hall: &Hall,
    upstream: &Upstream,
    node: usize,
    Call { name, first, tls, within }: Call<'_>,
) -> Result<(Socket, bool), Unreached> {
    let (core, began) = (&hall.core, hall.core.now());
    let dialled = connect::dial(core, upstream.nodes[node].address, within).await;
    let mut socket = dialled.map_err(|error| {
        core.stats.upstream_connect_errors.add(1);
        if error.kind() == io::ErrorKind::TimedOut { Unreached::Timeout } else { Unreached::Refused }
    })?;
    if !first.is_empty() {
        let (sent, _) = socket.writer.send(first.to_vec(), 0, core.sending()).await;
        sent.map_err(|_| Unreached::Refused)?;
    }
    // What stands in a node's place speaks in clear.
    let mut is_http2 = false;
    if let Some(tls) = tls.filter(|_| core.detour.is_none()) {
        // Large, and as seldom as a new connection is.
        // Both together have the time.
        let left = within.saturating_sub(core.now().since(began));
        let secured = Box::pin(secure::secure(hall, &mut socket, tls, name, left)).await;
        is_http2 = secured.inspect_err(|_| core.stats.upstream_connect_errors.add(1))?;
    }
    core.stats.upstream_connects.add(1);
    Ok((socket, is_http2))
}

/// The name that a node goes by over TLS: that of the `Host` it is sent, without the port.
fn server_name<'a>(upstream: &'a Upstream, node: usize, ex: &'a Exchange) -> &'a [u8] {
    let host = host_for(upstream, &upstream.nodes[node], &ex.request);
    match host.strip_prefix(b"[") {
        // An address of IPv6 has colons of its own.
        Some(rest) => &rest[..memchr::memchr(b']', rest).unwrap_or(rest.len())],
        None => &host[..memchr::memchr(b':', host).unwrap_or(host.len())],
    }
}
