//! Idle upstream connections. One pool a core, so no locks; the newest leaves first, being likeliest to be
//! alive. Never dials: see [`super::connect`]. All pools together keep no more than they may, and what one has to spare
//! another may have: see [`shelf`](crate::link::shelf) and [`super::loan`].
//!
//! A connection is put here only when its last response was read to its end and nothing came behind it; when it
//! is taken, it must still be quiet. A broken origin can therefore not speak into somebody else's request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::deadline::Wheel;
use super::socket::{Net, Socket};
use crate::base::address::Address;
use crate::base::hash::Map;
use crate::link::shelf::{Share, Shelves};
use crate::link::stats::CoreStats;

/// Idle connections that have a buffer for what comes. Worst case 2 MiB a core.
const NETS_MAX: usize = 128;

/// Idle connections beyond which no more over TLS are kept: a client that may choose the name it is asked for by could have as
/// many as it thinks of names.
const SECURE_MAX: usize = 4096;

/// What tells connections apart: those with equal keys may stand in for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolKey {
    pub node: Address,
    /// 0 in clear; else the same for those that speak TLS by the same rules, with the same name.
    pub tls: u64,
}

impl Hash for PoolKey {
    /// In as few words as tell nodes apart: this is hashed twice a request.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let node = match self.node {
            Address::Ip(node) => node,
            Address::Unix(path) => return state.write_u64(path.number() ^ self.tls),
        };
        let port = u64::from(node.port());
        match node.ip() {
            IpAddr::V4(ip) => state.write_u64((u64::from(ip.to_bits()) << 16 | port) ^ self.tls),
            IpAddr::V6(ip) => {
                state.write_u128(ip.to_bits());
                state.write_u64(port ^ self.tls);
            }
        }
    }
}

/// How long and how many; from `keepalive_pool` of the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Connections to one node, of all cores.
    pub size: usize,
    pub idle: Duration,
    /// Requests after which a connection is closed.
    pub requests: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { size: 320, idle: Duration::from_secs(60), requests: 1000 }
    }
}

/// An upstream connection and how often it was used.
#[derive(Debug)]
pub struct Leased {
    pub socket: Socket,
    /// Requests sent on it so far.
    pub requests: u32,
    /// Whether it has carried one before this lease.
    pub reused: bool,
    /// By which it is found again.
    pub key: PoolKey,
}

/// The idle connections to one node.
#[derive(Debug)]
struct Waiting {
    /// The newest last.
    leased: VecDeque<Leased>,
    /// Whether one was asked for since the last sweep: it may be on its way back.
    in_use: bool,
    share: Share,
    /// The most and the fewest there were since the last sweep.
    most: usize,
    fewest: usize,
    /// How many have stayed idle from the last sweep but one to the last, and are here still.
    spare: usize,
}

impl Waiting {
    fn new(share: Share) -> Self {
        Self { leased: VecDeque::new(), in_use: false, share, most: 0, fewest: 0, spare: 0 }
    }

    /// Takes stock of what was needed since it last did.
    fn take_stock(&mut self) {
        let now = self.leased.len();
        self.spare = self.fewest.min(now);
        self.share.offer(self.spare);
        self.share.keep(self.most.max(now));
        (self.most, self.fewest) = (now, now);
    }
}

/// The pool of one core.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<Map<PoolKey, Waiting>>,
    count: Cell<usize>,
    core: usize,
    shelves: Arc<Shelves>,
}

impl Pool {
    /// Of one of the cores that share the shelves.
    pub fn new(core: u16, shelves: Arc<Shelves>) -> Self {
        Self { idle: RefCell::default(), count: Cell::new(0), core: usize::from(core), shelves }
    }

    /// What hashes names, alike on all cores.
    pub fn names(&self) -> &ahash::RandomState {
        &self.shelves.names
    }

    /// The core to ask for a connection that there is none of here.
    pub fn lender(&self, key: &PoolKey) -> Option<usize> {
        self.shelves.lender((key.node, key.tls), self.core)
    }

    /// The oldest of those that this core can do without.
    pub fn lend(&self, key: &PoolKey, stats: &CoreStats) -> Option<Leased> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(key)?;
        while waiting.spare > 0 {
            let mut leased = waiting.leased.pop_front()?;
            self.count.set(self.count.get() - 1);
            waiting.spare -= 1;
            let left = waiting.leased.len();
            waiting.fewest = waiting.fewest.min(left);
            waiting.share.offer(waiting.spare);
            waiting.share.keep(waiting.most.saturating_sub(1).max(left));
            if leased.socket.is_quiet() {
                return Some(leased);
            }
            stats.upstream_stale.add(1);
        }
        None
    }

    /// The newest idle connection that is still as it was left. Dead ones met on the way are closed.
    pub fn lease(&self, key: &PoolKey, stats: &CoreStats) -> Option<Leased> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(key)?;
        waiting.in_use = true;
        while let Some(mut leased) = waiting.leased.pop_back() {
            self.count.set(self.count.get() - 1);
            waiting.fewest = waiting.fewest.min(waiting.leased.len());
            if leased.socket.is_quiet() {
                leased.reused = true;
                leased.socket.watch().disarm();
                return Some(leased);
            }
            stats.upstream_stale.add(1);
        }
        None
    }

    /// Keeps a connection for the next request, if it may serve one. The oldest makes room. The answer to that request
    /// goes into a net, unless many connections have one.
    pub fn give_back(&self, mut leased: Leased, keep: &Keep, wheel: &Wheel, net: impl FnOnce() -> Net) {
        let key = leased.key;
        let is_full = key.tls != 0 && self.count.get() >= SECURE_MAX;
        if leased.requests >= keep.requests || keep.size == 0 || leased.socket.watch().fired() || is_full {
            return;
        }
        if !leased.socket.is_settled() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let share = || self.shelves.share((key.node, key.tls), self.core);
        let waiting = idle.entry(key).or_insert_with(|| Waiting::new(share()));
        if !waiting.share.has_room(waiting.leased.len(), keep.size) {
            if waiting.leased.pop_front().is_none() {
                return;
            }
            self.count.set(self.count.get() - 1);
        }
        leased.socket.watch().arm(wheel, keep.idle);
        leased.socket.listen((self.count.get() < NETS_MAX).then(net));
        waiting.leased.push_back(leased);
        waiting.most = waiting.most.max(waiting.leased.len());
        self.count.set(self.count.get() + 1);
    }

    /// Closes what has been idle too long, and forgets nodes that nobody uses; about once a second.
    pub fn sweep(&self, stats: &CoreStats) {
        let (mut count, mut spare) = (0, 0);
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.leased.retain(|leased| !leased.socket.watch().fired());
            count += waiting.leased.len();
            waiting.take_stock();
            spare += waiting.spare;
            std::mem::take(&mut waiting.in_use) || !waiting.leased.is_empty()
        });
        self.count.set(count);
        stats.upstream_idle.set(count as u64);
        stats.upstream_spare.set(spare as u64);
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }
}
