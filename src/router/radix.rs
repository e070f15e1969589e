//! A byte radix tree: which of many keys are prefixes of a text, longest first.
//!
//! Nodes are shared with copies of the tree: a change copies the nodes on its way and no other. The first bytes of a
//! node's children lie in an array of their own, so a step down is one search over a few bytes. Cost: the bytes of
//! the text that are shared with a key, whatever the number of keys.

use std::ops::ControlFlow;
use std::sync::Arc;

/// Keys on one way that are remembered going down it; when all of them are refused, the way is gone again for the
/// shorter ones.
const REMEMBERED: usize = 8;

/// Keys to values.
#[derive(Clone, Debug)]
pub(super) struct Radix<V> {
    root: Option<Arc<Node<V>>>,
}

#[derive(Clone, Debug)]
struct Node<V> {
    /// The bytes between the parent's keys and this node's.
    label: Box<[u8]>,
    /// Of the key that ends here.
    value: Option<V>,
    /// The first byte of each child's label, in ascending order.
    firsts: Vec<u8>,
    children: Vec<Arc<Self>>,
}

impl<V> Default for Radix<V> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<V> Radix<V> {
    /// Whether there is no key.
    pub(super) const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Calls `see` with the value of every key that is a prefix of `text`, the longest key first, until it breaks.
    pub(super) fn each_prefix<'r, B>(
        &'r self,
        text: &[u8],
        see: &mut impl FnMut(&'r V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        // Keys of so many bytes and more have been seen.
        let mut seen = usize::MAX;
        loop {
            let mut last: [Option<(&'r V, usize)>; REMEMBERED] = [None; REMEMBERED];
            let mut count = 0;
            self.each_down(text, |value, bytes| {
                if bytes < seen {
                    last[count % REMEMBERED] = Some((value, bytes));
                    count += 1;
                }
            });
            for at in (count.saturating_sub(REMEMBERED)..count).rev() {
                if let Some((value, bytes)) = last[at % REMEMBERED] {
                    seen = bytes;
                    see(value)?;
                }
            }
            if count <= REMEMBERED {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Calls `see` with the value and the length of every key that is a prefix, the shortest first.
    fn each_down<'r>(&'r self, text: &[u8], mut see: impl FnMut(&'r V, usize)) {
        let (mut rest, mut next) = (text, self.root.as_deref());
        while let Some(node) = next {
            let Some(behind) = rest.strip_prefix(&*node.label) else { break };
            if let Some(value) = &node.value {
                see(value, text.len() - behind.len());
            }
            let Some(first) = behind.first() else { break };
            rest = behind;
            next = position(&node.firsts, *first).map(|at| &*node.children[at]);
        }
    }
}

impl<V: Clone> Radix<V> {
    /// The value of a key, to be changed; made if there is none.
    pub(super) fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> &mut V {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::leaf(key)));
        Node::reach(root, key).value.get_or_insert_with(make)
    }

    /// The value of a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        // Looked at first: nothing is copied for what is not there.
        let mut exists = false;
        self.each_down(key, |_, bytes| exists = bytes == key.len());
        let root = self.root.as_mut().filter(|_| exists)?;
        Node::reach(root, key).value.as_mut()
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.get_mut(key).is_some()
            && let Some(root) = &mut self.root
            && Node::remove(root, key)
        {
            self.root = None;
        }
    }
}

impl<V: Clone> Node<V> {
    fn leaf(label: &[u8]) -> Self {
        Self { label: label.into(), value: None, firsts: Vec::new(), children: Vec::new() }
    }

    /// The node of a key, made if there is none.
    fn reach<'a>(shared: &'a mut Arc<Self>, key: &[u8]) -> &'a mut Self {
        let common = shared.label.iter().zip(key).take_while(|(a, b)| a == b).count();
        if common < shared.label.len() {
            Self::split(shared, common);
        }
        let node = Arc::make_mut(shared);
        let behind = &key[common..];
        let Some(first) = behind.first() else { return node };
        let at = node.firsts.partition_point(|found| found < first);
        if node.firsts.get(at) != Some(first) {
            node.firsts.insert(at, *first);
            node.children.insert(at, Arc::new(Self::leaf(behind)));
        }
        Self::reach(&mut node.children[at], behind)
    }

    /// Divides a node in two, the upper one with so many bytes of the label.
    fn split(shared: &mut Arc<Self>, bytes: usize) {
        let (upper, lower) = shared.label.split_at(bytes);
        let first = lower.first().copied().unwrap_or_default();
        let mut above = Self::leaf(upper);
        let mut below = Self::clone(shared);
        below.label = lower.into();
        above.firsts.push(first);
        above.children.push(Arc::new(below));
        *shared = Arc::new(above);
    }

    /// Takes a key out that is there; whether the node is to go altogether.
    fn remove(shared: &mut Arc<Self>, key: &[u8]) -> bool {
        let node = Arc::make_mut(shared);
        let behind = &key[node.label.len()..];
        match behind.first() {
            None => node.value = None,
            Some(first) => {
                let Some(at) = position(&node.firsts, *first) else { return false };
                if Self::remove(&mut node.children[at], behind) {
                    node.firsts.remove(at);
                    node.children.remove(at);
                }
            }
        }
        if node.value.is_none() && node.children.len() == 1 {
            Self::join(shared);
            return false;
        }
        node.value.is_none() && node.children.is_empty()
    }

    /// Makes a node that ends no key one with its only child.
    fn join(shared: &mut Arc<Self>) {
        let mut below = Self::clone(&shared.children[0]);
        below.label = [&*shared.label, &*below.label].concat().into();
        *shared = Arc::new(below);
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

    fn tree<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Radix<usize> {
        let mut tree = Radix::default();
        for (value, key) in keys.into_iter().enumerate() {
            tree.get_or_insert_with(key, || value);
        }
        tree
    }

    fn found(tree: &Radix<usize>, text: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        let _: ControlFlow<()> = tree.each_prefix(text, &mut |value| {
            found.push(*value);
            ControlFlow::Continue(())
        });
        found
    }

    fn check(keys: &[&str], text: &str, expected: &[&str]) {
        let tree = tree(keys.iter().map(|key| key.as_bytes()));
        let found: Vec<&str> = found(&tree, text.as_bytes()).into_iter().map(|value| keys[value]).collect();
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
        assert!(Radix::<()>::default().is_empty());
    }

    #[test]
    fn many_keys_may_be_prefixes_of_each_other() {
        let long = "a".repeat(500);
        let tree = tree((0..500).map(|bytes| &long.as_bytes()[..bytes]));
        assert!(found(&tree, &long.as_bytes()[..300]).into_iter().eq((0..=300).rev()));
    }

    #[test]
    fn the_tree_agrees_with_asking_every_key_while_keys_come_and_go() {
        let seed = 0x7ad1;
        let mut rng = Rng::seeded(seed);
        for round in 0..200 {
            // A large alphabet makes wide nodes, a small one deep trees.
            let alphabet = if round % 4 == 0 { 256 } else { 3 };
            let mut word =
                |most: u64| -> Vec<u8> { (0..rng.below(most)).map(|_| rng.below(alphabet) as u8).collect() };
            let mut keys: Vec<Vec<u8>> = (0..100).map(|_| word(8)).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut tree = tree(keys.iter().map(|key| &**key));
            let whole = tree.clone();
            let gone: Vec<usize> = (0..keys.len()).filter(|at| (at * 7 + round) % 3 == 0).collect();
            for at in &gone {
                tree.remove(&keys[*at]);
                tree.remove(&word(9).iter().chain(b"no such key").copied().collect::<Vec<u8>>());
            }
            for _ in 0..100 {
                let text = word(12);
                let mut expected: Vec<usize> =
                    (0..keys.len()).filter(|at| text.starts_with(&keys[*at])).collect();
                expected.sort_by_key(|at| std::cmp::Reverse(keys[*at].len()));
                let told = format!("seed {seed:#x} round {round}: {text:?}");
                assert_eq!(found(&whole, &text), expected, "{told}");
                expected.retain(|at| !gone.contains(at));
                assert_eq!(found(&tree, &text), expected, "{told}, some gone");
            }
            for (value, key) in keys.iter().enumerate() {
                assert_eq!(tree.get_mut(key).copied(), (!gone.contains(&value)).then_some(value));
                tree.remove(key);
            }
            assert!(tree.is_empty(), "seed {seed:#x} round {round}");
        }
    }
}
