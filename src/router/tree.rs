//! The paths of one host: exact ones in a table, prefixes in a radix tree, and the entries that share one path.
//!
//! Entries are numbered in their order of precedence, so a list of numbers in ascending order is a list in the
//! order to try. A long list is divided by what its entries want literally, so that ten thousand entries under
//! one prefix (`/:tenant/orders`, `/:tenant/users`, ...) or on one path with a host each cost no more than a few.

use std::ops::ControlFlow;

use super::path::{PathKind, PathPattern};
use super::radix::Radix;
use super::{Entry, Query};
use crate::base::hash::Map;

/// Up to this many entries on one path are tried one after the other.
const LIST_LINEAR_MAX: usize = 8;

/// The segments behind a prefix that may divide a list.
const DIVIDING_SEGMENTS: usize = 8;

/// Paths to entries.
#[derive(Debug, Default)]
pub(super) struct Tree {
    exact: Map<Box<[u8]>, List>,
    prefixes: Radix,
    lists: Box<[List]>,
}

/// The entries of one path.
#[derive(Debug)]
enum List {
    One(u32),
    Few(Box<[u32]>),
    Divided(Box<Divided>),
}

/// A long list, by what each entry wants literally.
#[derive(Debug)]
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

impl Tree {
    /// Takes the entries with these numbers, which ascend.
    pub(super) fn build<T>(numbers: &[u32], entries: &[Entry<T>]) -> Self {
        let mut exact: Map<&[u8], Vec<u32>> = Map::default();
        let mut prefixes: Map<&[u8], Vec<u32>> = Map::default();
        for number in numbers {
            let PathPattern { key, kind } = &entries[*number as usize].path;
            let home = match kind {
                PathKind::Exact => &mut exact,
                PathKind::Prefix | PathKind::Shape(_) => &mut prefixes,
            };
            home.entry(key).or_default().push(*number);
        }
        let mut lists = Vec::with_capacity(prefixes.len());
        let mut keys = Vec::with_capacity(prefixes.len());
        for (key, numbers) in prefixes {
            keys.push((key, lists.len() as u32));
            lists.push(List::build(numbers, entries, key.len()));
        }
        let exact =
            exact.into_iter().map(|(key, numbers)| (key.into(), List::build(numbers, entries, key.len())));
        Self { exact: exact.collect(), prefixes: Radix::build(keys), lists: lists.into() }
    }

    /// Calls `see` with every entry whose path may match, in order of precedence: the exact path, then prefixes
    /// from the longest to the shortest.
    pub(super) fn each<B>(
        &self,
        query: &Query<'_>,
        see: &mut impl FnMut(u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(list) = self.exact.get(query.path) {
            list.each(query, see)?;
        }
        self.prefixes.prefixes_of(query.path).try_for_each(|list| match self.lists.get(list as usize) {
            Some(list) => list.each(query, see),
            None => ControlFlow::Continue(()),
        })
    }
}

impl List {
    fn build<T>(numbers: Vec<u32>, entries: &[Entry<T>], prefix_bytes: usize) -> Self {
        if let [one] = *numbers {
            return Self::One(one);
        }
        if numbers.len() <= LIST_LINEAR_MAX {
            return Self::Few(numbers.into());
        }
        let segments = (0..DIVIDING_SEGMENTS).map(|index| Divider::Segment { prefix_bytes, index });
        let divided = segments.chain([Divider::Host]).map(|by| Divided::build(by, &numbers, entries));
        match divided.min_by_key(Divided::longest) {
            Some(divided) if divided.longest() < numbers.len() => Self::Divided(Box::new(divided)),
            _ => Self::Few(numbers.into()),
        }
    }

    fn each<B>(&self, query: &Query<'_>, see: &mut impl FnMut(u32) -> ControlFlow<B>) -> ControlFlow<B> {
        match self {
            Self::One(number) => see(*number),
            Self::Few(numbers) => numbers.iter().copied().try_for_each(see),
            Self::Divided(divided) => divided.each(query, see),
        }
    }
}

impl Divided {
    fn build<T>(by: Divider, numbers: &[u32], entries: &[Entry<T>]) -> Self {
        let mut parts: Map<Box<[u8]>, Vec<u32>> = Map::default();
        let mut common = Vec::new();
        for number in numbers {
            let entry = &entries[*number as usize];
            let mut want = |text: &[u8]| {
                let part = parts.entry(text.into()).or_default();
                // A host may be named twice.
                if part.last() != Some(number) {
                    part.push(*number);
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
                common.push(*number);
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
