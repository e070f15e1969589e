//! Idle upstream connections. One pool a core, so no locks; the newest leaves first, being likeliest to be
//! alive. Never dials: see [`super::connect`].
//!
//! A connection is put here only when its last response was read to its end and nothing came behind it; when it
//! is taken, it must still be quiet. A broken origin can therefore not speak into somebody else's request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::deadline::Wheel;
use super::socket::{Net, Socket};
use crate::base::hash::Map;
use crate::link::stats::CoreStats;

/// Idle connections that have a buffer for what comes. Worst case 2 MiB a core.
const NETS_MAX: usize = 128;

/// Idle connections beyond which no more over TLS are kept: a client that may choose the name it is asked for by could have as
/// many as it thinks of names.
const SECURE_MAX: usize = 4096;

/// What tells connections apart: those with equal keys may stand in for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolKey {
    pub node: SocketAddr,
    /// 0 in clear; else the same for those that speak TLS by the same rules, with the same name.
    pub tls: u64,
}

impl Hash for PoolKey {
    /// In as few words as tell nodes apart: this is hashed twice a request.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = u64::from(self.node.port());
        match self.node.ip() {
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
    /// Connections to one node.
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
#[derive(Debug, Default)]
struct Waiting {
    /// The newest last.
    leased: VecDeque<Leased>,
    /// Whether one was asked for since the last sweep: it may be on its way back.
    in_use: bool,
}

/// The pool of one core.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Map<PoolKey, Waiting>>,
    count: Cell<usize>,
}

impl Pool {
    /// The newest idle connection that is still as it was left. Dead ones met on the way are closed.
    pub fn lease(&self, key: &PoolKey, stats: &CoreStats) -> Option<Leased> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(key)?;
        waiting.in_use = true;
        while let Some(mut leased) = waiting.leased.pop_back() {
            self.count.set(self.count.get() - 1);
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
        leased.socket.watch().arm(wheel, keep.idle);
        leased.socket.listen((self.count.get() < NETS_MAX).then(net));
        let mut idle = self.idle.borrow_mut();
        let waiting = &mut idle.entry(key).or_default().leased;
        waiting.push_back(leased);
        self.count.set(self.count.get() + 1);
        if waiting.len() > keep.size {
            waiting.pop_front();
            self.count.set(self.count.get() - 1);
        }
    }

    /// Closes what has been idle too long, and forgets nodes that nobody uses; about once a second.
    pub fn sweep(&self) {
        let mut count = 0;
        self.idle.borrow_mut().retain(|_, waiting| {
            waiting.leased.retain(|leased| !leased.socket.watch().fired());
            count += waiting.leased.len();
            std::mem::take(&mut waiting.in_use) || !waiting.leased.is_empty()
        });
        self.count.set(count);
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.count.get()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
