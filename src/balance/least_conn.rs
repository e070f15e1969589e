//! Least connections: the node with the fewest requests under way for its weight. Those that are equal take turns.
//!
//! What is under way is counted for the whole process, so cores that choose alone do not all choose the same node.
//! Cost: linear in the nodes of one priority.

use super::priority::Algorithm;
use super::{Context, Weighted};

/// The nodes of one priority.
#[derive(Clone, Debug)]
pub struct LeastConn {
    nodes: Box<[(usize, u32)]>,
    /// Where to begin to look.
    next: usize,
}

impl Algorithm for LeastConn {
    fn new(nodes: &[(usize, Weighted<'_>)]) -> Self {
        Self { nodes: nodes.iter().map(|(place, node)| (*place, node.weight)).collect(), next: 0 }
    }

    fn pick(&mut self, may: impl Fn(usize) -> bool, cx: &impl Context) -> Option<usize> {
        let (before, from_next) = self.nodes.split_at(self.next);
        let mut best: Option<(usize, u64, u64)> = None;
        for (node, weight) in from_next.iter().chain(before).filter(|(node, _)| may(*node)) {
            // With this request. Compared as fractions, so that no weight is rounded.
            let (load, weight) = (u64::from(cx.in_flight(*node)) + 1, u64::from(*weight));
            if best.is_none_or(|(_, least, of)| load * of < least * weight) {
                best = Some((*node, load, weight));
            }
        }
        self.next = (self.next + 1) % self.nodes.len().max(1);
        best.map(|(node, ..)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::priority::Priorities;
    use super::super::testing::{Fixed, ids, tried, weighted};
    use super::*;

    fn balancer(weights: &[u32]) -> Priorities<LeastConn> {
        let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        Priorities::new(&weighted(&nodes, &ids(nodes.len())))
    }

    #[test]
    fn the_node_with_the_fewest_requests_for_its_weight_is_chosen() {
        for (weights, in_flight, expected) in [
            (&[1, 1, 1][..], &[3, 1, 2][..], 1),
            (&[4, 1], &[3, 1], 0),
            (&[4, 1], &[8, 1], 1),
            (&[1, 1_000_000], &[0, 999_998], 1),
        ] {
            let cx = Fixed { in_flight: in_flight.to_vec(), ..Fixed::default() };
            assert_eq!(balancer(weights).pick(&tried(&[]), &cx), Some(expected), "{weights:?} {in_flight:?}");
        }
    }

    #[test]
    fn idle_nodes_take_turns() {
        let mut balancer = balancer(&[1, 1, 1]);
        let picks: Vec<_> = (0..6).map(|_| balancer.pick(&tried(&[]), &Fixed::default())).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2].map(Some));
    }

    #[test]
    fn requests_that_stay_are_shared_out_exactly_by_weight() {
        let weights = [5, 3, 2];
        let mut balancer = balancer(&weights);
        let mut cx = Fixed { in_flight: vec![0; 3], ..Fixed::default() };
        for _ in 0..100_000 {
            let node = balancer.pick(&tried(&[]), &cx).expect("all are up");
            cx.in_flight[node] += 1;
        }
        assert_eq!(cx.in_flight, [50_000, 30_000, 20_000]);
    }
}
