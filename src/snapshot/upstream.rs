//! An upstream, compiled: nodes with addresses, and how to talk to them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::balance::Balancer;
use crate::runtime::LocalId;
use crate::runtime::pool::Keep;

/// What `Host` a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's, with its port unless it is the scheme's own.
    Node,
    /// This.
    Rewrite(Box<[u8]>),
}

/// Deadlines of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Between two writes.
    pub send: Duration,
    /// Between two reads.
    pub read: Duration,
}

/// nginx's, and so APISIX's.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: TIMEOUT, send: TIMEOUT, read: TIMEOUT }
    }
}

/// One address.
#[derive(Clone, Debug)]
pub struct Node {
    pub address: SocketAddr,
    /// `Host` for `pass_host: node`.
    pub host: Box<[u8]>,
}

/// An upstream.
#[derive(Debug)]
pub struct Upstream {
    /// As in `upstreams/1` or `routes/7#upstream`: for logs.
    pub name: Box<str>,
    pub nodes: Vec<Node>,
    /// A balancer at its start; each core runs a copy of its own.
    pub balancer: Balancer,
    /// Where a core keeps that copy.
    pub turn: LocalId,
    pub pass_host: PassHost,
    pub timeouts: Timeouts,
    /// Further tries after the first.
    pub retries: u32,
    /// No new try starts after this; zero is unlimited.
    pub retry_timeout: Duration,
    pub keep: Keep,
}
