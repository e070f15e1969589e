//! Smooth weighted round robin: shares are exact over one cycle, and a heavy node's turns are spread over it.
//!
//! Every pick, each node that may be chosen gains its weight; the one with most is chosen and pays what all
//! gained together. So weights 5, 1, 1 give `a a b a c a a`, not five turns of `a` in a row. Where all weights are
//! equal this is plain rotation, which is what is done then. Cost: linear in the nodes of one priority, or in the
//! nodes passed over while rotating. Allocates nothing after `new`.

use std::cmp::Reverse;

use super::{TriedSet, Weighted};

/// The state of one upstream on one core.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// By priority, the highest first; nodes of weight 0 are in none.
    groups: Box<[Group]>,
}

/// The nodes of one priority.
#[derive(Clone, Debug)]
struct Group {
    turns: Box<[Turn]>,
    /// Where to look next, when all weights are equal.
    rotation: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    node: usize,
    weight: i64,
    /// What it gained and did not pay; within a group these add up to 0.
    credit: i64,
}

impl RoundRobin {
    /// Nodes are known by their place in `nodes`.
    pub fn new(nodes: &[Weighted]) -> Self {
        let mut places: Vec<usize> = (0..nodes.len()).filter(|place| nodes[*place].weight > 0).collect();
        places.sort_by_key(|place| Reverse(nodes[*place].priority));
        let groups = places.chunk_by(|a, b| nodes[*a].priority == nodes[*b].priority);
        Self { groups: groups.map(|places| Group::new(places, nodes)).collect() }
    }

    /// The place of the node to try next; `None` when none is left.
    pub fn pick(&mut self, tried: &TriedSet, is_up: impl Fn(usize) -> bool) -> Option<usize> {
        if let [Group { turns, .. }] = &*self.groups
            && let [only] = **turns
        {
            // Up or down, there is no other.
            return (!tried.contains(only.node)).then_some(only.node);
        }
        let left_and_up = |node| !tried.contains(node) && is_up(node);
        if let Some(node) = self.groups.iter_mut().find_map(|group| group.pick(left_and_up)) {
            return Some(node);
        }
        if self.groups.iter().flat_map(|group| &group.turns).any(|turn| is_up(turn.node)) {
            return None;
        }
        self.groups.iter_mut().find_map(|group| group.pick(|node| !tried.contains(node)))
    }
}

impl Group {
    fn new(places: &[usize], nodes: &[Weighted]) -> Self {
        // Reduced, so that credits stay small whatever unit the weights are in.
        let divisor =
            places.iter().fold(0, |divisor, place| common_divisor(divisor, nodes[*place].weight)).max(1);
        let turns: Box<[Turn]> = places
            .iter()
            .map(|place| Turn { node: *place, weight: i64::from(nodes[*place].weight / divisor), credit: 0 })
            .collect();
        let is_even = turns.iter().all(|turn| turn.weight == 1);
        Self { turns, rotation: is_even.then_some(0) }
    }

    fn pick(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let Some(next) = self.rotation else { return self.pick_weighted(may) };
        let (before, from_next) = self.turns.split_at(next);
        let turn = from_next.iter().chain(before).position(|turn| may(turn.node))?;
        let chosen = (next + turn) % self.turns.len();
        // Behind the chosen one, not one further than last time: else the node behind one that is down would
        // take its turns, too.
        self.rotation = Some((chosen + 1) % self.turns.len());
        Some(self.turns[chosen].node)
    }

    fn pick_weighted(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
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

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn balancer(nodes: &[(u32, i32)]) -> RoundRobin {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(weight, priority)| Weighted { weight: *weight, priority: *priority })
            .collect();
        RoundRobin::new(&nodes)
    }

    fn tried(nodes: &[usize]) -> TriedSet {
        let mut tried = TriedSet::new();
        nodes.iter().for_each(|node| assert!(tried.insert(*node)));
        tried
    }

    /// The first picks of weights of one priority, as letters.
    fn check(weights: &[u32], down: &[usize], expected: &str) {
        let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        let mut balancer = balancer(&nodes);
        let picks: String = (0..expected.len())
            .map(|_| match balancer.pick(&TriedSet::new(), |node| !down.contains(&node)) {
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
    fn a_weight_of_zero_is_never_chosen() {
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
    fn a_node_is_not_tried_twice() {
        for nodes in [&[(1, 0), (1, 0), (1, 0)][..], &[(3, 0), (2, 0), (1, 0)], &[(1, 2), (1, 1), (1, 0)]] {
            let mut balancer = balancer(nodes);
            let mut tried = TriedSet::new();
            while let Some(node) = balancer.pick(&tried, |_| true) {
                assert!(tried.insert(node), "{nodes:?}");
            }
            assert_eq!(tried.len(), 3, "{nodes:?}");
        }
        assert_eq!(balancer(&[(1, 0)]).pick(&tried(&[0]), |_| true), None);
    }

    #[test]
    fn a_lower_priority_waits_until_the_higher_has_none_left() {
        let mut balancer = balancer(&[(1, -1), (1, 5), (1, 5), (1, 0)]);
        let up = |_| true;
        assert_eq!((balancer.pick(&tried(&[]), up), balancer.pick(&tried(&[]), up)), (Some(1), Some(2)));
        assert_eq!(balancer.pick(&tried(&[1]), up), Some(2));
        assert_eq!(balancer.pick(&tried(&[1, 2]), up), Some(3));
        assert_eq!(balancer.pick(&tried(&[1, 2, 3]), up), Some(0));
        assert_eq!(balancer.pick(&tried(&[0, 1, 2, 3]), up), None);
        assert_eq!(balancer.pick(&tried(&[]), |node| node == 0 || node == 3), Some(3));
    }

    #[test]
    fn health_is_ignored_only_when_all_are_down() {
        let mut balancer = balancer(&[(1, 0), (1, 1)]);
        assert_eq!(balancer.pick(&tried(&[]), |_| false), Some(1));
        assert_eq!(balancer.pick(&tried(&[1]), |_| false), Some(0));
        assert_eq!(balancer.pick(&tried(&[0, 1]), |_| false), None);
        assert_eq!(balancer.pick(&tried(&[1]), |node| node == 1), None, "the only node that is up was tried");
    }

    #[test]
    fn shares_are_exact_over_a_cycle_and_credits_stay_bounded() {
        let seed = 0xba1a;
        let mut rng = Rng::seeded(seed);
        for round in 0..100 {
            let weights: Vec<u32> = (0..1 + rng.below(12)).map(|_| rng.below(20) as u32).collect();
            let cycle: u32 = weights.iter().sum();
            let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
            let mut balancer = balancer(&nodes);
            let mut counts = vec![0; weights.len()];
            for _ in 0..cycle {
                let node = balancer.pick(&TriedSet::new(), |_| true).expect("a node has weight");
                counts[node] += 1;
            }
            assert_eq!(counts, weights, "seed {seed:#x} round {round}");
            for _ in 0..500 {
                let down = rng.next_u64();
                balancer.pick(&TriedSet::new(), |node| down >> node & 1 == 0);
            }
            let turns = || balancer.groups.iter().flat_map(|group| &group.turns);
            assert_eq!(turns().map(|turn| turn.credit).sum::<i64>(), 0, "seed {seed:#x} round {round}");
            let is_bounded = |turn: &Turn| turn.credit.abs() <= 2 * i64::from(cycle);
            assert!(turns().all(is_bounded), "seed {seed:#x} round {round}: {balancer:?}");
        }
    }

    #[test]
    fn more_nodes_than_a_word_has_bits_are_all_reached() {
        let mut balancer = balancer(&[(1, 0); 200]);
        let mut tried = TriedSet::new();
        while let Some(node) = balancer.pick(&tried, |_| true) {
            assert!(tried.insert(node));
        }
        assert_eq!(tried.len(), 200);
    }
}
