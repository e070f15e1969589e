//! Smooth weighted round robin: shares are exact over one cycle, and a heavy node's turns are spread over it.
//!
//! Every pick, each node that may be chosen gains its weight; the one with most is chosen and pays what all
//! gained together. So weights 5, 1, 1 give `a a b a c a a`, not five turns of `a` in a row. Where all weights are
//! equal this is plain rotation, which is what is done then. Cost: linear in the nodes of one priority, or in the
//! nodes passed over while rotating. Allocates nothing after `new`.

use super::priority::Algorithm;
use super::{Context, Weighted, common_divisor};

/// The state of the nodes of one priority on one core.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    turns: Box<[Turn]>,
    /// Where to look next, when all weights are equal.
    rotation: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    node: usize,
    weight: i64,
    /// What it gained and did not pay; all of them add up to 0.
    credit: i64,
}

impl Algorithm for RoundRobin {
    fn new(nodes: &[(usize, Weighted<'_>)]) -> Self {
        Self::of(nodes.iter().map(|(node, known)| (*node, known.weight)))
    }

    fn pick(&mut self, may: impl Fn(usize) -> bool, _: &impl Context) -> Option<usize> {
        self.turn(may)
    }
}

impl RoundRobin {
    /// Places with their weights, none of which is 0.
    pub fn of(places: impl Iterator<Item = (usize, u32)>) -> Self {
        let places: Vec<(usize, u32)> = places.collect();
        // Reduced, so that credits stay small whatever unit the weights are in.
        let divisor = common_divisor(places.iter().map(|(_, weight)| *weight));
        let turns: Box<[Turn]> = places
            .iter()
            .map(|(node, weight)| Turn { node: *node, weight: i64::from(weight / divisor), credit: 0 })
            .collect();
        let is_even = turns.iter().all(|turn| turn.weight == 1);
        Self { turns, rotation: is_even.then_some(0) }
    }

    /// The next of those that may have a turn.
    pub fn turn(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let Some(next) = self.rotation else { return self.turn_weighted(may) };
        let (before, from_next) = self.turns.split_at(next);
        let turn = from_next.iter().chain(before).position(|turn| may(turn.node))?;
        let chosen = (next + turn) % self.turns.len();
        // Behind the chosen one, not one further than last time: else the node behind one that is down would
        // take its turns, too.
        self.rotation = Some((chosen + 1) % self.turns.len());
        Some(self.turns[chosen].node)
    }

    fn turn_weighted(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut gained = 0;
        let mut best: Option<&mut Turn> = None;
        for turn in self.turns.iter_mut().filter(|turn| may(turn.node)) {
            turn.credit += turn.weight;
            gained += turn.weight;
            if best.as_ref().is_none_or(|best| turn.credit > best.credit) {
                best = Some(turn);
            }
        }
        let best = best?;
        best.credit -= gained;
        Some(best.node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::priority::Priorities;
    use super::super::testing::{Fixed, ids, tried, weighted};
    use super::*;
    use crate::base::rng::Rng;

    fn balancer(weights: &[u32]) -> Priorities<RoundRobin> {
        let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        Priorities::new(&weighted(&nodes, &ids(nodes.len())))
    }

    /// The first picks of weights of one priority, as letters.
    fn check(weights: &[u32], down: &[usize], expected: &str) {
        let mut balancer = balancer(weights);
        let cx = Fixed { down: down.to_vec(), ..Fixed::default() };
        let picks: String = (0..expected.len())
            .map(|_| match balancer.pick(&tried(&[]), &cx) {
                Some(node) => char::from(b'a' + node as u8),
                None => '-',
            })
            .collect();
        assert_eq!(picks, expected, "weights {weights:?} with {down:?} down");
    }

    #[test]
    fn heavy_nodes_have_their_turns_spread() {
        check(&[5, 1, 1], &[], "aabacaaaabacaa");
        check(&[500, 100, 100], &[], "aabacaa");
        check(&[3, 2], &[], "ababaababa");
        check(&[1, 2], &[], "babbab");
    }

    #[test]
    fn equal_nodes_take_turns() {
        check(&[1, 1, 1], &[], "abcabc");
        check(&[7, 7], &[], "abab");
        check(&[9], &[], "aaa");
    }

    #[test]
    fn a_weight_of_zero_has_no_turn() {
        check(&[0, 1], &[], "bbb");
        check(&[0, 1, 1], &[1, 2], "bcbc");
        check(&[0, 0], &[], "--");
        check(&[], &[], "--");
    }

    #[test]
    fn the_turns_of_a_node_that_is_down_are_shared_by_all_others() {
        check(&[1, 1, 1], &[1], "acacac");
        check(&[2, 2, 1], &[0], "bcbbcb");
        check(&[1, 1], &[0, 1], "abab");
        check(&[2, 1], &[0, 1], "abaaba");
        check(&[1], &[0], "aa");
    }

    #[test]
    fn shares_are_exact_over_a_cycle_and_credits_stay_bounded() {
        let seed = 0xba1a;
        let mut rng = Rng::seeded(seed);
        for round in 0..100 {
            let weights: Vec<u32> = (0..1 + rng.below(12)).map(|_| rng.below(20) as u32).collect();
            let cycle: u32 = weights.iter().sum();
            let mut balancer = balancer(&weights);
            let mut counts = vec![0; weights.len()];
            for _ in 0..cycle {
                let node = balancer.pick(&tried(&[]), &Fixed::default()).expect("a node has weight");
                counts[node] += 1;
            }
            assert_eq!(counts, weights, "seed {seed:#x} round {round}");
            for _ in 0..500 {
                let word = rng.next_u64();
                let down = (0..weights.len()).filter(|node| word >> node & 1 == 1).collect();
                balancer.pick(&tried(&[]), &Fixed { down, ..Fixed::default() });
            }
            let turns = || balancer.states().flat_map(|state| &state.turns);
            assert_eq!(turns().map(|turn| turn.credit).sum::<i64>(), 0, "seed {seed:#x} round {round}");
            let is_bounded = |turn: &Turn| turn.credit.abs() <= 2 * i64::from(cycle);
            assert!(turns().all(is_bounded), "seed {seed:#x} round {round}: {balancer:?}");
        }
    }
}
