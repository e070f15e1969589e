//! Shares of each algorithm over 100,000 picks, as one core makes them and as two do that know only what is counted for
//! both.

use std::collections::VecDeque;

use super::testing::{Fixed, ids, tried, weighted};
use super::{Balancer, Kind};

const PICKS: usize = 100_000;
/// Requests under way at any time, where that is what counts: then one more or less is far less than 1 %.
const UNDER_WAY: usize = 1_000;

/// How often each node is chosen, when so many cores choose in turn.
fn counts(kind: Kind, weights: &[u32], cores: usize) -> Vec<usize> {
    let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
    let ids = ids(nodes.len());
    let mut cores = vec![Balancer::new(kind, &weighted(&nodes, &ids)); cores];
    // All are equally quick.
    let latency_us = vec![500.0; weights.len()];
    let mut cx = Fixed { latency_us, in_flight: vec![0; weights.len()], ..Fixed::default() };
    let (mut counts, mut under_way) = (vec![0; weights.len()], VecDeque::new());
    for pick in 0..PICKS {
        let core = pick % cores.len();
        let node = cores[core].pick(&tried(&[]), &cx).expect("all are up");
        counts[node] += 1;
        if kind == Kind::LeastConn {
            cx.in_flight[node] += 1;
            under_way.push_back(node);
            if under_way.len() > UNDER_WAY
                && let Some(ended) = under_way.pop_front()
            {
                cx.in_flight[ended] -= 1;
            }
        }
    }
    counts
}

#[test]
fn shares_are_those_of_the_weights_on_one_core_and_on_two() {
    for kind in [Kind::RoundRobin, Kind::LeastConn, Kind::Ewma] {
        for weights in [&[1, 1][..], &[2, 1], &[5, 3, 2], &[100, 1], &[1; 16]] {
            for cores in [1, 2] {
                let counts = counts(kind, weights, cores);
                let all: u32 = weights.iter().sum();
                for (count, weight) in counts.iter().zip(weights) {
                    let off = *count as f64 / PICKS as f64 - f64::from(*weight) / f64::from(all);
                    assert!(off.abs() < 0.01, "{kind:?} on {cores}: {counts:?} by {weights:?}");
                }
            }
        }
    }
}
