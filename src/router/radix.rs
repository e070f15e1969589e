//! A byte radix tree: which of many keys are prefixes of a text, longest first.
//!
//! Immutable and flat: nodes lie level by level in one array, the children of a node side by side, their first
//! bytes in an array of their own, so a step down is one search over a few bytes. Every node that ends a key
//! knows the next shorter key on its way (`above`), so a walk needs no stack and has no bound on how many keys
//! may be prefixes of each other. Cost: the bytes of the text that are shared with a key, whatever the number
//! of keys.

/// No node, no value.
const ABSENT: u32 = u32::MAX;

/// Keys to values.
#[derive(Debug, Default)]
pub(super) struct Radix {
    nodes: Box<[Node]>,
    /// The first byte of each node's label, in the order of the nodes.
    firsts: Box<[u8]>,
    /// All labels, one behind the other.
    labels: Box<[u8]>,
}

#[derive(Debug)]
struct Node {
    label_start: usize,
    label_bytes: u32,
    /// The first child, and how many lie behind each other from there, ordered by first byte.
    children: u32,
    children_count: u32,
    /// The value of the key that ends here.
    value: u32,
    /// The nearest node on the way from the root that ends a key.
    above: u32,
}

/// A node to be made: what of the sorted keys is below it.
struct Plan {
    from: usize,
    to: usize,
    /// How many bytes of the keys the nodes before have taken.
    depth: usize,
    above: u32,
}

impl Radix {
    /// Builds the tree of `keys`, in any order; of equal keys, the first stays.
    pub(super) fn build(mut keys: Vec<(&[u8], u32)>) -> Self {
        keys.sort_by_key(|(key, _)| *key);
        keys.dedup_by_key(|(key, _)| *key);
        if keys.is_empty() {
            return Self::default();
        }
        let (mut nodes, mut firsts, mut labels) = (Vec::<Node>::new(), Vec::new(), Vec::new());
        // The plans are a queue: a node's children are planned together, so they come to lie side by side.
        let mut plans = vec![Plan { from: 0, to: keys.len(), depth: 0, above: ABSENT }];
        let mut at = 0;
        while let Some(&Plan { from, to, depth, above }) = plans.get(at) {
            let (first, last) = (keys[from].0, keys[to - 1].0);
            let shared = first[depth..].iter().zip(&last[depth..]).take_while(|(a, b)| a == b).count();
            let end = depth + shared;
            let ends_key = first.len() == end;
            nodes.push(Node {
                label_start: labels.len(),
                label_bytes: shared as u32,
                children: plans.len() as u32,
                children_count: 0,
                value: if ends_key { keys[from].1 } else { ABSENT },
                above,
            });
            firsts.push(first.get(depth).copied().unwrap_or(0));
            labels.extend_from_slice(&first[depth..end]);
            let above = if ends_key { at as u32 } else { above };
            let mut below = from + usize::from(ends_key);
            while below < to {
                let branch = keys[below].0[end];
                let next = below + keys[below..to].partition_point(|(key, _)| key[end] == branch);
                plans.push(Plan { from: below, to: next, depth: end, above });
                nodes[at].children_count += 1;
                below = next;
            }
            at += 1;
        }
        Self { nodes: nodes.into(), firsts: firsts.into(), labels: labels.into() }
    }

    /// Whether there is no key.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The values of all keys that are prefixes of `text`, the longest key first.
    pub(super) fn prefixes_of(&self, text: &[u8]) -> impl Iterator<Item = u32> {
        let mut at = self.longest(text);
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.above;
            Some(node.value)
        })
    }

    /// The node that ends the longest key.
    fn longest(&self, text: &[u8]) -> u32 {
        let (mut rest, mut at, mut longest) = (text, 0, ABSENT);
        while let Some(node) = self.nodes.get(at) {
            let label = &self.labels[node.label_start..][..node.label_bytes as usize];
            let Some(behind) = rest.strip_prefix(label) else { break };
            if node.value != ABSENT {
                longest = at as u32;
            }
            let Some(first) = behind.first() else { break };
            let children = node.children as usize;
            let firsts = &self.firsts[children..][..node.children_count as usize];
            let Some(child) = position(firsts, *first) else { break };
            (rest, at) = (behind, children + child);
        }
        longest
    }
}

/// Where the byte is among sorted ones.
fn position(sorted: &[u8], byte: u8) -> Option<usize> {
    /// Up to this many, looking at each is quicker than halving.
    const LINEAR_MAX: usize = 16;
    if sorted.len() <= LINEAR_MAX {
        sorted.iter().position(|found| *found == byte)
    } else {
        sorted.binary_search(&byte).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn check(keys: &[&str], text: &str, expected: &[&str]) {
        let tree = Radix::build(keys.iter().zip(0..).map(|(key, value)| (key.as_bytes(), value)).collect());
        let found: Vec<&str> = tree.prefixes_of(text.as_bytes()).map(|value| keys[value as usize]).collect();
        assert_eq!(found, expected, "{text} among {keys:?}");
    }

    #[test]
    fn all_prefixes_are_found_longest_first() {
        let keys = ["/", "/api/", "/api/v1", "/api/v2/", "/app", ""];
        check(&keys, "/api/v1/x", &["/api/v1", "/api/", "/", ""]);
        check(&keys, "/api/v1", &["/api/v1", "/api/", "/", ""]);
        check(&keys, "/api/v", &["/api/", "/", ""]);
        check(&keys, "/ap", &["/", ""]);
        check(&keys, "x", &[""]);
        check(&keys, "", &[""]);
    }

    #[test]
    fn a_key_longer_than_the_text_is_no_prefix() {
        check(&["/api"], "/ap", &[]);
        check(&["/api"], "/apj", &[]);
        check(&["/api"], "", &[]);
        check(&[], "/api", &[]);
        assert!(Radix::build(Vec::new()).is_empty());
    }

    #[test]
    fn many_keys_may_be_prefixes_of_each_other() {
        let long = "a".repeat(5000);
        let keys: Vec<&str> = (0..5000).map(|bytes| &long[..bytes]).collect();
        let tree = Radix::build(keys.iter().zip(0..).map(|(key, value)| (key.as_bytes(), value)).collect());
        assert!(tree.prefixes_of(&long.as_bytes()[..3000]).eq((0..=3000).rev()));
    }

    #[test]
    fn the_tree_agrees_with_asking_every_key() {
        let seed = 0x7ad1;
        let mut rng = Rng::seeded(seed);
        for round in 0..200 {
            let mut word = |alphabet: u64, most: u64| -> Vec<u8> {
                (0..rng.below(most)).map(|_| rng.below(alphabet) as u8).collect()
            };
            // A large alphabet makes wide nodes, a small one deep trees.
            let alphabet = if round % 4 == 0 { 256 } else { 3 };
            let keys: Vec<Vec<u8>> = (0..100).map(|_| word(alphabet, 8)).collect();
            let tree = Radix::build(keys.iter().zip(0..).map(|(key, value)| (&**key, value)).collect());
            for _ in 0..100 {
                let text = word(alphabet, 12);
                let mut expected: Vec<&[u8]> =
                    keys.iter().map(|key| &**key).filter(|key| text.starts_with(key)).collect();
                expected.sort_by_key(|key| std::cmp::Reverse(key.len()));
                expected.dedup();
                let found: Vec<&[u8]> = tree.prefixes_of(&text).map(|value| &*keys[value as usize]).collect();
                assert_eq!(found, expected, "seed {seed:#x} round {round}: {text:?}");
            }
        }
    }
}
