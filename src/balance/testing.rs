//! What balancers are tested with: a context whose answers are given, and one balancer of each algorithm.

use std::cell::RefCell;

use super::{Balancer, Context, Kind, TriedSet, Weighted};
use crate::base::rng::Rng;

/// Answers as they are set; dice of its own.
pub(super) struct Fixed {
    pub down: Vec<usize>,
    pub key: u32,
    /// By node; what is not there is 0.
    pub in_flight: Vec<u32>,
    pub latency_us: Vec<f32>,
    pub rng: RefCell<Rng>,
}

impl Default for Fixed {
    fn default() -> Self {
        let rng = RefCell::new(Rng::seeded(0xf17ed));
        Self { down: vec![], key: 0, in_flight: vec![], latency_us: vec![], rng }
    }
}

impl Context for Fixed {
    fn is_up(&self, node: usize) -> bool {
        !self.down.contains(&node)
    }

    fn key(&self) -> u32 {
        self.key
    }

    fn in_flight(&self, node: usize) -> u32 {
        self.in_flight.get(node).copied().unwrap_or(0)
    }

    fn latency_us(&self, node: usize) -> f32 {
        self.latency_us.get(node).copied().unwrap_or(0.0)
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }
}

/// Names for so many nodes: `n0`, `n1`, ...
pub(super) fn ids(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|node| format!("n{node}").into_bytes()).collect()
}

/// Nodes as weight and priority.
pub(super) fn weighted<'a>(nodes: &[(u32, i32)], ids: &'a [Vec<u8>]) -> Vec<Weighted<'a>> {
    let nodes = nodes.iter().zip(ids);
    nodes.map(|((weight, priority), id)| Weighted { weight: *weight, priority: *priority, id }).collect()
}

/// One balancer of each kind.
pub(super) fn balancers(nodes: &[(u32, i32)]) -> Vec<Balancer> {
    let ids = ids(nodes.len());
    Kind::ALL.iter().map(|kind| Balancer::new(*kind, &weighted(nodes, &ids))).collect()
}

pub(super) fn tried(nodes: &[usize]) -> TriedSet {
    let mut tried = TriedSet::new();
    nodes.iter().for_each(|node| assert!(tried.insert(*node)));
    tried
}
