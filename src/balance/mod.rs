//! Choosing a node: given weights and priorities, what is up, and what this request tried already.
//!
//! A [`Balancer`] is the pure state of one upstream on one core. It knows nodes by their place in the upstream's
//! list; who is up is a question it asks, so health and connections stay elsewhere. The rules are the same for
//! every algorithm:
//!
//! - A node that was tried is not chosen again, and one of weight 0 never.
//! - Nodes that are down are passed over, unless all of the upstream are down: then health is ignored.
//! - The next lower priority has its turn when no node of the higher ones is left.

mod chash;
mod ewma;
mod least_conn;
mod priority;
mod round_robin;
#[cfg(test)]
mod shares;
#[cfg(test)]
mod testing;

use chash::Chash;
use ewma::Ewma;
use least_conn::LeastConn;
use priority::Priorities;
pub use round_robin::RoundRobin;

/// What a balancer knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted<'a> {
    /// Its share among the nodes of its priority; 0 is none.
    pub weight: u32,
    /// Higher is chosen first.
    pub priority: i32,
    /// What it is known by on every core and in every process: a consistent hash is consistent in it.
    pub id: &'a [u8],
}

/// What a balancer may ask of the world when it chooses.
pub trait Context {
    /// Whether the node gets requests.
    fn is_up(&self, node: usize) -> bool;
    /// The hash of what is to lead to the same node each time.
    fn key(&self) -> u32;
    /// Requests under way to the node, of the whole process.
    fn in_flight(&self, node: usize) -> u32;
    /// Microseconds until the node begins its answers; 0 where that is not known.
    fn latency_us(&self, node: usize) -> f32;
    /// A throw of the dice: less than `bound`, which is not 0.
    fn below(&self, bound: u64) -> u64;
}

/// An algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    RoundRobin,
    Chash,
    LeastConn,
    Ewma,
}

impl Kind {
    #[cfg(test)]
    const ALL: [Self; 4] = [Self::RoundRobin, Self::Chash, Self::LeastConn, Self::Ewma];

    /// APISIX's name of it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::Chash => "chash",
            Self::LeastConn => "least_conn",
            Self::Ewma => "ewma",
        }
    }

    /// Whether it asks how busy or how quick nodes are.
    pub const fn asks_of_nodes(self) -> bool {
        matches!(self, Self::LeastConn | Self::Ewma)
    }
}

/// An algorithm with its state.
#[derive(Clone, Debug)]
pub enum Balancer {
    RoundRobin(Priorities<RoundRobin>),
    Chash(Priorities<Chash>),
    LeastConn(Priorities<LeastConn>),
    Ewma(Priorities<Ewma>),
}

impl Balancer {
    /// A balancer at its start. Nodes are known by their place in `nodes`.
    pub fn new(kind: Kind, nodes: &[Weighted<'_>]) -> Self {
        match kind {
            Kind::RoundRobin => Self::RoundRobin(Priorities::new(nodes)),
            Kind::Chash => Self::Chash(Priorities::new(nodes)),
            Kind::LeastConn => Self::LeastConn(Priorities::new(nodes)),
            Kind::Ewma => Self::Ewma(Priorities::new(nodes)),
        }
    }

    /// The place of the node to try next; `None` when none is left.
    pub fn pick(&mut self, tried: &TriedSet, cx: &impl Context) -> Option<usize> {
        match self {
            Self::RoundRobin(nodes) => nodes.pick(tried, cx),
            Self::Chash(nodes) => nodes.pick(tried, cx),
            Self::LeastConn(nodes) => nodes.pick(tried, cx),
            Self::Ewma(nodes) => nodes.pick(tried, cx),
        }
    }
}

/// What all weights can be divided by; 1 where there are none.
fn common_divisor(weights: impl Iterator<Item = u32>) -> u32 {
    fn of(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { of(b, a % b) }
    }
    weights.fold(0, of).max(1)
}

/// The nodes that a request tried, by their place. Allocates only beyond 64 nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriedSet {
    first: u64,
    /// Places from 64 on.
    others: Vec<u64>,
}

impl TriedSet {
    /// Nothing tried.
    pub const fn new() -> Self {
        Self { first: 0, others: Vec::new() }
    }

    /// Notes a node; whether it was new.
    pub fn insert(&mut self, node: usize) -> bool {
        let is_new = !self.contains(node);
        match (node / 64).checked_sub(1) {
            None => self.first |= bit(node),
            Some(word) => {
                if self.others.len() <= word {
                    self.others.resize(word + 1, 0);
                }
                self.others[word] |= bit(node);
            }
        }
        is_new
    }

    /// Whether the node was tried.
    pub fn contains(&self, node: usize) -> bool {
        let word = match (node / 64).checked_sub(1) {
            None => self.first,
            Some(word) => self.others.get(word).copied().unwrap_or(0),
        };
        word & bit(node) != 0
    }

    /// How many nodes were tried.
    pub fn len(&self) -> usize {
        let ones: u32 = self.others.iter().map(|word| word.count_ones()).sum();
        (self.first.count_ones() + ones) as usize
    }

    /// Whether no node was tried.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all nodes but keeps the memory.
    pub fn clear(&mut self) {
        self.first = 0;
        self.others.clear();
    }
}

const fn bit(node: usize) -> u64 {
    1 << (node % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_known_at_every_size() {
        let mut tried = TriedSet::new();
        assert!(tried.is_empty());
        for node in [0, 63, 64, 127, 128, 1000] {
            assert!(!tried.contains(node));
            assert!(tried.insert(node));
            assert!(!tried.insert(node));
            assert!(tried.contains(node));
        }
        assert!(!tried.contains(1) && !tried.contains(65) && !tried.contains(100_000));
        assert_eq!(tried.len(), 6);
        tried.clear();
        assert!(tried.is_empty() && !tried.contains(1000));
    }

    #[test]
    fn up_to_64_nodes_need_no_memory() {
        let mut tried = TriedSet::new();
        (0..64).for_each(|node| assert!(tried.insert(node)));
        assert_eq!((tried.len(), tried.others.capacity()), (64, 0));
    }
}
