//! Priorities, for every algorithm alike: the next lower one has its turn when no node of the higher ones is left.

use std::cmp::Reverse;

use super::{Context, TriedSet, Weighted};

/// How one of several nodes of equal priority is chosen.
pub trait Algorithm {
    /// Nodes by their place in the upstream's list; none has weight 0.
    fn new(nodes: &[(usize, Weighted<'_>)]) -> Self;

    /// One of the nodes that may be chosen.
    fn pick(&mut self, may: impl Fn(usize) -> bool, cx: &impl Context) -> Option<usize>;
}

/// The nodes of an upstream by priority, each group with an algorithm's state.
#[derive(Clone, Debug)]
pub struct Priorities<A> {
    /// The highest first; nodes of weight 0 are in none.
    groups: Box<[Group<A>]>,
}

#[derive(Clone, Debug)]
struct Group<A> {
    nodes: Box<[usize]>,
    algorithm: A,
}

impl<A: Algorithm> Priorities<A> {
    /// Nodes are known by their place in `nodes`.
    pub fn new(nodes: &[Weighted<'_>]) -> Self {
        let mut ranked: Vec<(usize, Weighted<'_>)> =
            nodes.iter().copied().enumerate().filter(|(_, node)| node.weight > 0).collect();
        ranked.sort_by_key(|(_, node)| Reverse(node.priority));
        let groups = ranked.chunk_by(|(_, a), (_, b)| a.priority == b.priority);
        let group = |nodes: &[(usize, Weighted<'_>)]| Group {
            nodes: nodes.iter().map(|(place, _)| *place).collect(),
            algorithm: A::new(nodes),
        };
        Self { groups: groups.map(group).collect() }
    }

    /// The place of the node to try next; `None` when none is left.
    pub fn pick(&mut self, tried: &TriedSet, cx: &impl Context) -> Option<usize> {
        if let [Group { nodes, .. }] = &*self.groups
            && let [only] = **nodes
        {
            // Up or down, there is no other.
            return (!tried.contains(only)).then_some(only);
        }
        let left_and_up = |node| !tried.contains(node) && cx.is_up(node);
        if let Some(node) = self.groups.iter_mut().find_map(|group| group.pick(left_and_up, cx)) {
            return Some(node);
        }
        if self.groups.iter().flat_map(|group| &group.nodes).any(|node| cx.is_up(*node)) {
            return None;
        }
        self.groups.iter_mut().find_map(|group| group.pick(|node| !tried.contains(node), cx))
    }

    #[cfg(test)]
    pub(super) fn states(&self) -> impl Iterator<Item = &A> {
        self.groups.iter().map(|group| &group.algorithm)
    }
}

impl<A: Algorithm> Group<A> {
    /// No algorithm looks for what is not there: a ring is long.
    fn pick(&mut self, may: impl Fn(usize) -> bool, cx: &impl Context) -> Option<usize> {
        if !self.nodes.iter().any(|node| may(*node)) {
            return None;
        }
        self.algorithm.pick(may, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixed, balancers, tried};

    #[test]
    fn a_node_is_not_tried_twice() {
        for nodes in [&[(1, 0), (1, 0), (1, 0)][..], &[(3, 0), (2, 0), (1, 0)], &[(1, 2), (1, 1), (1, 0)]] {
            for mut balancer in balancers(nodes) {
                let mut seen = tried(&[]);
                while let Some(node) = balancer.pick(&seen, &Fixed::default()) {
                    assert!(seen.insert(node), "{nodes:?}");
                }
                assert_eq!(seen.len(), 3, "{nodes:?} {balancer:?}");
            }
        }
        for mut balancer in balancers(&[(1, 0)]) {
            assert_eq!(balancer.pick(&tried(&[0]), &Fixed::default()), None);
        }
    }

    #[test]
    fn a_lower_priority_waits_until_the_higher_has_none_left() {
        for mut balancer in balancers(&[(1, -1), (1, 5), (1, 5), (1, 0)]) {
            let mut pick = |seen: &[usize], cx: &Fixed| balancer.pick(&tried(seen), cx);
            let all_up = Fixed::default();
            assert!(matches!(pick(&[], &all_up), Some(1 | 2)));
            assert_eq!(pick(&[1], &all_up), Some(2));
            assert_eq!(pick(&[1, 2], &all_up), Some(3));
            assert_eq!(pick(&[1, 2, 3], &all_up), Some(0));
            assert_eq!(pick(&[0, 1, 2, 3], &all_up), None);
            assert_eq!(pick(&[], &Fixed { down: vec![1, 2], ..Fixed::default() }), Some(3));
        }
    }

    #[test]
    fn health_is_ignored_only_when_all_are_down() {
        for mut balancer in balancers(&[(1, 0), (1, 1)]) {
            let mut pick = |seen: &[usize], down: &[usize]| {
                balancer.pick(&tried(seen), &Fixed { down: down.to_vec(), ..Fixed::default() })
            };
            assert_eq!(pick(&[], &[0, 1]), Some(1));
            assert_eq!(pick(&[1], &[0, 1]), Some(0));
            assert_eq!(pick(&[0, 1], &[0, 1]), None);
            assert_eq!(pick(&[1], &[0]), None, "the only node that is up was tried");
        }
    }

    #[test]
    fn a_weight_of_zero_is_never_chosen() {
        for mut balancer in balancers(&[(0, 0), (1, 0), (1, 0)]) {
            for _ in 0..100 {
                assert_ne!(balancer.pick(&tried(&[]), &Fixed::default()), Some(0));
            }
        }
        for mut balancer in balancers(&[(0, 0), (0, 0)]).into_iter().chain(balancers(&[])) {
            assert_eq!(balancer.pick(&tried(&[]), &Fixed::default()), None);
        }
    }

    #[test]
    fn more_nodes_than_a_word_has_bits_are_all_reached() {
        for mut balancer in balancers(&[(1, 0); 200]) {
            let mut seen = tried(&[]);
            while let Some(node) = balancer.pick(&seen, &Fixed::default()) {
                assert!(seen.insert(node));
            }
            assert_eq!(seen.len(), 200);
        }
    }
}
