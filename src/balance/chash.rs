//! A consistent hash: equal keys lead to the same node, and when a node comes or goes only its share of keys moves.
//!
//! Nodes have points on a ring, 160 for each unit of weight, at the CRC-32 of their id and of the point before. A key
//! leads to the first point at or behind its own CRC-32; a retry, or a node that is down, to the next one behind.
//! That is nginx's `hash … consistent` and APISIX's `chash`, so keys stay where they were when one is replaced by this
//! gateway. Cost: logarithmic in the points. The ring is shared by all cores.

use std::sync::Arc;

use super::priority::Algorithm;
use super::{Context, Weighted, common_divisor};

/// Points for each unit of weight.
const POINTS: u64 = 160;
/// Points of a ring, 2 MiB: weights and nodes that ask for more get fewer points each, and a node at least one. It also
/// bounds how far a core looks for a node that is up.
const POINTS_MAX: u64 = 1 << 18;

/// The nodes of one priority.
#[derive(Clone, Debug)]
pub struct Chash {
    ring: Arc<[Point]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    node: u32,
}

impl Algorithm for Chash {
    fn new(nodes: &[(usize, Weighted<'_>)]) -> Self {
        let divisor = common_divisor(nodes.iter().map(|(_, node)| node.weight));
        let all: u64 = nodes.iter().map(|(_, node)| u64::from(node.weight / divisor)).sum();
        let scale = (all * POINTS).div_ceil(POINTS_MAX).max(1);
        let mut ring = Vec::new();
        for (place, node) in nodes {
            let points = (u64::from(node.weight / divisor) * POINTS / scale).max(1);
            let id = crc32fast::hash(node.id);
            let mut hash = 0;
            for _ in 0..points {
                let mut point = crc32fast::Hasher::new_with_initial(id);
                point.update(&u32::to_le_bytes(hash));
                hash = point.finalize();
                ring.push(Point { hash, node: *place as u32 });
            }
        }
        ring.sort_unstable();
        Self { ring: ring.into() }
    }

    fn pick(&mut self, may: impl Fn(usize) -> bool, cx: &impl Context) -> Option<usize> {
        let key = cx.key();
        let from = self.ring.partition_point(|point| point.hash < key);
        let (before, behind) = self.ring.split_at(from);
        let mut points = behind.iter().chain(before);
        points.find(|point| may(point.node as usize)).map(|point| point.node as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::priority::Priorities;
    use super::super::testing::{Fixed, tried};
    use super::*;

    fn balancer(nodes: &[(&str, u32)]) -> Priorities<Chash> {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(id, weight)| Weighted { weight: *weight, priority: 0, id: id.as_bytes() })
            .collect();
        Priorities::new(&nodes)
    }

    fn pick(balancer: &mut Priorities<Chash>, key: u32, down: &[usize]) -> usize {
        let cx = Fixed { key: crc32fast::hash(&key.to_le_bytes()), down: down.to_vec(), ..Fixed::default() };
        balancer.pick(&tried(&[]), &cx).expect("a node is up")
    }

    #[test]
    fn points_lie_where_nginx_puts_them() {
        // The first point of a server is the CRC-32 of its id and four zero bytes.
        let Chash { ring } =
            Chash::new(&[(0, Weighted { weight: 1, priority: 0, id: b"127.0.0.1\x001980" })]);
        let first = crc32fast::hash(b"127.0.0.1\x001980\0\0\0\0");
        assert_eq!(ring.len(), 160);
        assert!(ring.iter().any(|point| point.hash == first));
        assert!(ring.is_sorted());
    }

    #[test]
    fn keys_are_shared_out_by_weight() {
        let mut balancer = balancer(&[("a", 1), ("b", 2), ("c", 1)]);
        let mut counts = [0u32; 3];
        (0..100_000).for_each(|key| counts[pick(&mut balancer, key, &[])] += 1);
        // 160 points a unit leave some 8 % of unevenness; the same weights always have the same.
        for (count, expected) in counts.iter().zip([25_000.0, 50_000.0, 25_000.0]) {
            assert!((f64::from(*count) / expected - 1.0).abs() < 0.2, "{counts:?}");
        }
    }

    #[test]
    fn of_100_000_keys_each_node_has_its_part_of_the_ring() {
        for weights in [&[1, 1][..], &[5, 3, 2], &[1; 10]] {
            let names: Vec<String> =
                (0..weights.len()).map(|node| format!("10.0.0.{node}\0{}", 80)).collect();
            let nodes: Vec<_> =
                names.iter().zip(weights).map(|(name, weight)| (name.as_str(), *weight)).collect();
            let mut balancer = balancer(&nodes);
            let mut parts = vec![0u64; nodes.len()];
            let ring = balancer.states().map(|state| Arc::clone(&state.ring)).next().expect("a ring");
            // The first point also has what lies behind the last.
            let mut before = ring.last().map_or(0, |last| i64::from(last.hash) - (1 << 32));
            for point in &*ring {
                parts[point.node as usize] += (i64::from(point.hash) - before) as u64;
                before = i64::from(point.hash);
            }
            assert_eq!(parts.iter().sum::<u64>(), 1 << 32);
            let mut counts = vec![0u32; nodes.len()];
            (0..100_000).for_each(|key| counts[pick(&mut balancer, key, &[])] += 1);
            for (count, part) in counts.iter().zip(&parts) {
                let off = f64::from(*count) / 100_000.0 - *part as f64 / (1u64 << 32) as f64;
                assert!(off.abs() < 0.01, "{weights:?}: {counts:?} by {parts:?}");
            }
        }
    }

    /// Of `n` equal nodes the one that leaves has 1/n of the keys, but for the chance by which its 160 points lie: 8 %
    /// of that (one over the root of 160), and three times that is met once in some hundreds of nodes. All nodes together
    /// have all keys, so that it is 1/n exactly over all that may leave.
    #[test]
    fn when_a_node_leaves_only_its_keys_move_and_they_are_its_share() {
        const NODES: usize = 10;
        const KEYS: u32 = 20_000;
        let names: Vec<String> = (0..NODES).map(|node| format!("n{node}")).collect();
        let all: Vec<_> = names.iter().map(|node| (node.as_str(), 1)).collect();
        let mut before = balancer(&all);
        let mut all_moved = 0;
        for gone in 0..NODES {
            let mut left = all.clone();
            left.remove(gone);
            let mut after = balancer(&left);
            let mut moved = 0;
            for key in 0..KEYS {
                let was = pick(&mut before, key, &[]);
                let is = pick(&mut after, key, &[]);
                let is = is + usize::from(is >= gone);
                assert!(was == is || was == gone, "key {key} went from {was} to {is}");
                moved += u32::from(was != is);
                // One that is down is as one that left.
                assert_eq!(pick(&mut before, key, &[gone]), is);
            }
            let share = f64::from(moved) / f64::from(KEYS) * NODES as f64;
            assert!(share <= 1.0 + 3.0 / f64::sqrt(160.0), "without n{gone} {moved} of {KEYS} keys moved");
            all_moved += moved;
        }
        assert_eq!(all_moved, KEYS);
    }

    #[test]
    fn a_retry_goes_on_along_the_ring() {
        let mut balancer = balancer(&[("a", 1), ("b", 1), ("c", 1)]);
        for key in 0..100 {
            let first = pick(&mut balancer, key, &[]);
            let cx = Fixed { key: crc32fast::hash(&u32::to_le_bytes(key)), ..Fixed::default() };
            let second = balancer.pick(&tried(&[first]), &cx).expect("two are left");
            assert_eq!(second, pick(&mut balancer, key, &[first]));
        }
    }

    #[test]
    fn neither_huge_weights_nor_many_nodes_make_a_huge_ring() {
        let nodes = [(0, 4_000_000_000), (1, 3)];
        let nodes = nodes.map(|(place, weight)| (place, Weighted { weight, priority: 0, id: b"a" }));
        let Chash { ring } = Chash::new(&nodes);
        assert!(ring.len() as u64 <= POINTS_MAX + 2, "{}", ring.len());
        assert!(ring.iter().any(|point| point.node == 1));
        let nodes: Vec<_> =
            (0..10_000).map(|place| (place, Weighted { weight: 1, priority: 0, id: b"a" })).collect();
        let Chash { ring } = Chash::new(&nodes);
        assert!(ring.len() as u64 <= POINTS_MAX + 10_000, "{}", ring.len());
        assert!(ring.iter().map(|point| point.node).collect::<BTreeSet<_>>().len() == 10_000);
    }
}
