//! The paths of one host: exact ones in a table, prefixes in a radix tree, and the entries that share one path.
//!
//! A list of entries is in the order to try them. A long list is divided by what its entries want literally, so
//! that ten thousand entries under one prefix (`/:tenant/orders`, `/:tenant/users`, ...) or on one path with a
//! host each cost no more than a few. Dividing is done by [`Tree::settle`], once for any number of changes; a list
//! that is not divided yet is gone through.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::path::{PathKind, PathPattern};
use super::radix::Radix;
use super::{Entry, Query};
use crate::base::byte_map::ByteMap;
use crate::base::hash::Map;

/// Up to this many entries on one path are tried one after the other.
const LIST_LINEAR_MAX: usize = 8;

/// The segments behind a prefix that may divide a list.
const DIVIDING_SEGMENTS: usize = 8;

/// Paths to entries.
#[derive(Debug)]
pub(super) struct Tree<T> {
    exact: ByteMap<List<T>>,
    prefixes: Radix<List<T>>,
}

/// The entries of one path, in the order to try them.
#[derive(Debug)]
enum List<T> {
    /// At least one.
    One(Arc<Entry<T>>),
    Many(Arc<Many<T>>),
}

#[derive(Debug)]
struct Many<T> {
    entries: Vec<Arc<Entry<T>>>,
    divided: Option<Divided>,
    /// Whether it is as it should be: divided if it is long and that helps.
    is_settled: bool,
}

/// A long list, by what each entry wants literally; numbers are places in the list.
#[derive(Clone, Debug)]
struct Divided {
    by: Divider,
    parts: Map<Box<[u8]>, Box<[u32]>>,
    /// Entries that want nothing literal there; they take part in every search.
    common: Box<[u32]>,
}

#[derive(Clone, Copy, Debug)]
enum Divider {
    Host,
    /// A segment of the path, counted behind the prefix.
    Segment {
        prefix_bytes: usize,
        index: usize,
    },
}

// Not derived, which would ask for `T: Clone`.
impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { exact: self.exact.clone(), prefixes: self.prefixes.clone() }
    }
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        match self {
            Self::One(entry) => Self::One(Arc::clone(entry)),
            Self::Many(many) => Self::Many(Arc::clone(many)),
        }
    }
}

impl<T> Clone for Many<T> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), divided: self.divided.clone(), is_settled: self.is_settled }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { exact: ByteMap::default(), prefixes: Radix::default() }
    }
}

impl<T> Tree<T> {
    /// Calls `see` with every entry whose path may match, in order of precedence: the exact path, then prefixes
    /// from the longest to the shortest.
    pub(super) fn each<'r, B>(
        &'r self,
        query: &Query<'_>,
        see: &mut impl FnMut(&'r Entry<T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(list) = self.exact.get(query.path) {
            list.each(query, see)?;
        }
        self.prefixes.each_prefix(query.path, &mut |list| list.each(query, see))
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// Puts an entry in its place. Whether its list is to be settled, and was not before.
    pub(super) fn insert(&mut self, entry: &Arc<Entry<T>>) -> bool {
        let key = &entry.path.key;
        let mut is_new = false;
        let mut make = || {
            is_new = true;
            List::One(Arc::clone(entry))
        };
        let list = match entry.path.kind {
            PathKind::Exact => self.exact.get_or_insert_with(key, &mut make),
            PathKind::Prefix | PathKind::Shape(_) => self.prefixes.get_or_insert_with(key, &mut make),
        };
        !is_new && list.insert(entry)
    }

    /// Takes out the entries of a path for which `is_it` holds. Whether their list is to be settled, and was not
    /// before.
    pub(super) fn remove(&mut self, path: &PathPattern, is_it: impl Fn(&Entry<T>) -> bool) -> bool {
        let key = &path.key;
        let list = match path.kind {
            PathKind::Exact => self.exact.get_mut(key),
            PathKind::Prefix | PathKind::Shape(_) => self.prefixes.get_mut(key),
        };
        match list.map(|list| list.remove(is_it)) {
            None | Some(Removal::Done) => false,
            Some(Removal::Unsettled) => true,
            Some(Removal::Empty) => {
                match path.kind {
                    PathKind::Exact => drop(self.exact.remove(key)),
                    PathKind::Prefix | PathKind::Shape(_) => self.prefixes.remove(key),
                }
                false
            }
        }
    }

    /// Divides the list of a path, if it is long.
    pub(super) fn settle(&mut self, key: &[u8], is_exact: bool) {
        let list = if is_exact { self.exact.get_mut(key) } else { self.prefixes.get_mut(key) };
        if let Some(List::Many(many)) = list {
            Arc::make_mut(many).settle(key.len());
        }
    }
}

/// What became of a list.
enum Removal {
    Done,
    Unsettled,
    Empty,
}

impl<T> List<T> {
    fn each<'r, B>(
        &'r self,
        query: &Query<'_>,
        see: &mut impl FnMut(&'r Entry<T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Self::One(entry) => see(entry),
            Self::Many(many) => match &many.divided {
                None => many.entries.iter().try_for_each(|entry| see(entry)),
                Some(divided) => divided.each(query, &mut |number| {
                    many.entries.get(number as usize).map_or(ControlFlow::Continue(()), |entry| see(entry))
                }),
            },
        }
    }

    /// Whether it is to be settled, and was not before.
    fn insert(&mut self, entry: &Arc<Entry<T>>) -> bool {
        let many = match self {
            Self::One(one) => {
                let entries = vec![Arc::clone(one)];
                *self = Self::Many(Arc::new(Many { entries, divided: None, is_settled: true }));
                return self.insert(entry);
            }
            Self::Many(many) => Arc::make_mut(many),
        };
        // Behind its equals, so that who came first stays first.
        let at = many.entries.partition_point(|held| held.rank <= entry.rank);
        many.entries.insert(at, Arc::clone(entry));
        many.touched()
    }

    fn remove(&mut self, is_it: impl Fn(&Entry<T>) -> bool) -> Removal {
        match self {
            Self::One(one) if is_it(one) => Removal::Empty,
            Self::One(_) => Removal::Done,
            Self::Many(many) => {
                let many = Arc::make_mut(many);
                many.entries.retain(|entry| !is_it(entry));
                match &*many.entries {
                    [] => return Removal::Empty,
                    [one] => {
                        let one = Arc::clone(one);
                        *self = Self::One(one);
                        return Removal::Done;
                    }
                    _ => {}
                }
                if many.touched() { Removal::Unsettled } else { Removal::Done }
            }
        }
    }
}

impl<T> Many<T> {
    /// After a change: whether it is to be settled, and was not before.
    fn touched(&mut self) -> bool {
        let was_settled = self.is_settled;
        self.divided = None;
        self.is_settled = self.entries.len() <= LIST_LINEAR_MAX;
        was_settled && !self.is_settled
    }

    fn settle(&mut self, prefix_bytes: usize) {
        if self.is_settled {
            return;
        }
        self.is_settled = true;
        let segments = (0..DIVIDING_SEGMENTS).map(|index| Divider::Segment { prefix_bytes, index });
        let divided = segments.chain([Divider::Host]).map(|by| Divided::build(by, &self.entries));
        let best = divided.min_by_key(Divided::longest);
        self.divided = best.filter(|divided| divided.longest() < self.entries.len());
    }
}

impl Divided {
    fn build<T>(by: Divider, entries: &[Arc<Entry<T>>]) -> Self {
        let mut parts: Map<Box<[u8]>, Vec<u32>> = Map::default();
        let mut common = Vec::new();
        for (entry, number) in entries.iter().zip(0_u32..) {
            let mut want = |text: &[u8]| {
                let part = parts.entry(text.into()).or_default();
                // A host may be named twice.
                if part.last() != Some(&number) {
                    part.push(number);
                }
            };
            let wants = match (by, &entry.path.kind, &entry.hosts) {
                (Divider::Host, _, Some(hosts)) => hosts.all_exact().map(|hosts| hosts.for_each(want)),
                (Divider::Segment { index, .. }, PathKind::Shape(shape), _) => {
                    shape.literal_segment(index).map(&mut want)
                }
                _ => None,
            };
            if wants.is_none() {
                common.push(number);
            }
        }
        let parts = parts.into_iter().map(|(text, numbers)| (text, numbers.into()));
        Self { by, parts: parts.collect(), common: common.into() }
    }

    /// How many entries the worst search tries.
    fn longest(&self) -> usize {
        self.common.len() + self.parts.values().map(|part| part.len()).max().unwrap_or(0)
    }

    fn part(&self, query: &Query<'_>) -> &[u32] {
        let text = match self.by {
            Divider::Host => Some(query.host),
            Divider::Segment { prefix_bytes, index } => query
                .path
                .get(prefix_bytes..)
                .and_then(|behind| behind.split(|byte| *byte == b'/').nth(index)),
        };
        text.and_then(|text| self.parts.get(text)).map_or(&[], |part| part)
    }

    /// Goes through the part and the common entries at once, in ascending order.
    fn each<B>(&self, query: &Query<'_>, see: &mut impl FnMut(u32) -> ControlFlow<B>) -> ControlFlow<B> {
        let (mut ours, mut common) = (self.part(query), &*self.common);
        loop {
            let from = match (ours.first(), common.first()) {
                (Some(a), Some(b)) if a > b => &mut common,
                (Some(_), _) => &mut ours,
                (None, _) => &mut common,
            };
            let Some((number, behind)) = from.split_first() else { return ControlFlow::Continue(()) };
            *from = behind;
            see(*number)?;
        }
    }
}
