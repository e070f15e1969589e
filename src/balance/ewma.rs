//! Peak EWMA with two choices: of two nodes, the one that answers quicker, as far as that is known, most likely.
//!
//! A node's cost is the time until it begins an answer, lately and at its worst, for each request that it has. The first
//! of two candidates is drawn by weight, the second from all others alike; between them each has a chance of its weight
//! over the square of its cost. So nodes that are equally quick get exactly what their weights say, one that is ten
//! times slower a hundredth of it, and no two cores run after the same one. Cost: linear in the nodes of one priority.

use super::priority::Algorithm;
use super::{Context, Weighted};

/// What a node with requests but without any answer yet is taken to cost, in microseconds a request.
const UNKNOWN_US: f32 = 1_000_000.0;
/// Chances are thrown for in so many steps.
const STEPS: u64 = 1 << 32;

/// The nodes of one priority.
#[derive(Clone, Debug)]
pub struct Ewma {
    nodes: Box<[(usize, u32)]>,
}

impl Algorithm for Ewma {
    fn new(nodes: &[(usize, Weighted<'_>)]) -> Self {
        Self { nodes: nodes.iter().map(|(place, node)| (*place, node.weight)).collect() }
    }

    fn pick(&mut self, may: impl Fn(usize) -> bool, cx: &impl Context) -> Option<usize> {
        let left = || self.nodes.iter().filter(|(node, _)| may(*node));
        let (count, all) =
            left().fold((0, 0), |(count, all), (_, weight)| (count + 1, all + u64::from(*weight)));
        if count < 2 {
            return left().next().map(|(node, _)| *node);
        }
        let mut thrown = cx.below(all);
        let first = left().position(|(_, weight)| {
            let is_here = thrown < u64::from(*weight);
            thrown = thrown.saturating_sub(u64::from(*weight));
            is_here
        })?;
        let second = cx.below(count - 1) as usize;
        let second = if second >= first { second + 1 } else { second };
        let (a, b) = (left().nth(first)?, left().nth(second)?);
        let (chance_of_a, chance_of_b) = (chance(a, cx), chance(b, cx));
        let share_of_a = chance_of_a / (chance_of_a + chance_of_b);
        let is_a = (cx.below(STEPS) as f64) < share_of_a * STEPS as f64;
        Some(if is_a { a.0 } else { b.0 })
    }
}

fn chance((node, weight): &(usize, u32), cx: &impl Context) -> f64 {
    let (latency, in_flight) = (cx.latency_us(*node), cx.in_flight(*node) as f32);
    // One that nobody has asked yet is as good as the best, until it has a request to answer.
    let cost = if latency > 0.0 { latency * (in_flight + 1.0) } else { UNKNOWN_US * in_flight };
    let cost = f64::from(cost.max(1.0));
    f64::from(*weight) / (cost * cost)
}

#[cfg(test)]
mod tests {
    use super::super::priority::Priorities;
    use super::super::testing::{Fixed, ids, tried, weighted};
    use super::*;

    /// How often each node is chosen of 100,000 times.
    fn shares(weights: &[u32], latency_us: &[f32], in_flight: &[u32]) -> Vec<u32> {
        let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        let mut balancer: Priorities<Ewma> = Priorities::new(&weighted(&nodes, &ids(nodes.len())));
        let cx = Fixed { latency_us: latency_us.to_vec(), in_flight: in_flight.to_vec(), ..Fixed::default() };
        let mut counts = vec![0; weights.len()];
        (0..100_000).for_each(|_| counts[balancer.pick(&tried(&[]), &cx).expect("all are up")] += 1);
        counts
    }

    #[test]
    fn nodes_that_are_equally_quick_get_what_their_weights_say() {
        for weights in [&[1, 1][..], &[2, 1], &[5, 3, 2], &[1, 1, 1, 1, 1, 1, 1]] {
            let counts = shares(weights, &vec![500.0; weights.len()], &[]);
            let all: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*count) / 100_000.0 - f64::from(*weight) / f64::from(all);
                assert!(share.abs() < 0.01, "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn a_slow_node_gets_little() {
        let counts = shares(&[1, 1, 1], &[500.0, 5_000.0, 500.0], &[]);
        assert!(counts[1] < 1_500, "{counts:?}");
        let counts = shares(&[1, 1], &[500.0, 500.0], &[0, 9]);
        assert!(counts[1] < 1_500, "{counts:?}");
    }

    #[test]
    fn a_node_that_nobody_has_asked_yet_is_asked_but_not_by_all() {
        let counts = shares(&[1, 1], &[500.0, 0.0], &[]);
        assert!(counts[1] > 99_000, "{counts:?}");
        let counts = shares(&[1, 1], &[500.0, 0.0], &[0, 1]);
        assert!(counts[1] < 1_000, "{counts:?}");
    }
}
