//! Choosing a node: given weights and priorities, what is up, and what this request tried already.
//!
//! A [`Balancer`] is the pure state of one upstream on one core. It knows nodes by their place in the upstream's
//! list; who is up is a question it asks, so health and connections stay elsewhere. The rules are the same for
//! every algorithm:
//!
//! - A node that was tried is not chosen again, and one of weight 0 never.
//! - Nodes that are down are passed over, unless all of the upstream are down: then health is ignored.
//! - The next lower priority has its turn when no node of the higher ones is left.

mod round_robin;

pub use self::round_robin::RoundRobin;

/// What a balancer knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Its share among the nodes of its priority; 0 is none.
    pub weight: u32,
    /// Higher is chosen first.
    pub priority: i32,
}

/// An algorithm with its state.
#[derive(Clone, Debug)]
pub enum Balancer {
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// The place of the node to try next; `None` when none is left.
    pub fn pick(&mut self, tried: &TriedSet, is_up: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::RoundRobin(round_robin) => round_robin.pick(tried, is_up),
        }
    }
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
