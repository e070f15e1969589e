//! Host patterns: exact, with a leading `*` for any beginning, and with a port when the port is to match, too.
//!
//! `*.x` is a test of the end, so it matches several labels, and not `x` itself. A pattern with a port is
//! compared with the `Host` header as it came, any other with the host alone. The more a pattern says, the earlier
//! it is tried: exact before wildcard, of these the longest first, with a port before without. Finding them is
//! a hash lookup and a walk over the bytes of the host from its end, whatever the number of patterns.

use std::ops::ControlFlow;

use super::radix::Radix;
use super::{Query, RouterError};
use crate::base::byte_map::ByteMap;

/// Most bytes of a host pattern: a name has at most 253, and a port at most five and a colon.
pub const HOST_BYTES_MAX: usize = 260;

/// Up to this many patterns, comparing each is quicker than an index, and smaller.
const FILTER_LINEAR_MAX: usize = 8;

/// A pattern, read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostPattern {
    /// As written, in lower case.
    text: Box<str>,
    is_wildcard: bool,
    has_port: bool,
}

impl HostPattern {
    pub(super) fn parse(pattern: &str) -> Result<Self, RouterError> {
        let text = pattern.to_ascii_lowercase();
        let ending = text.strip_prefix('*');
        let is_wildcard = ending.is_some();
        let ending = ending.unwrap_or(&text);
        if pattern.is_empty() || ending.contains('*') || pattern.len() > HOST_BYTES_MAX {
            return Err(RouterError(format!(
                "expected a host of at most {HOST_BYTES_MAX} bytes, with no `*` but in front, got {pattern:?}"
            )));
        }
        // The colons of an IPv6 address are in brackets.
        let has_port = ending.rsplit(']').next().is_some_and(|behind| behind.contains(':'));
        Ok(Self { text: text.into(), is_wildcard, has_port })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The host, when there is but one that matches, whatever its port.
    pub(super) fn as_exact(&self) -> Option<&[u8]> {
        (!self.is_wildcard && !self.has_port).then_some(self.text.as_bytes())
    }

    /// What the host must be, or end with.
    fn ending(&self) -> &[u8] {
        self.text.as_bytes().get(usize::from(self.is_wildcard)..).unwrap_or_default()
    }

    /// The ending from its end.
    fn reversed(&self) -> Vec<u8> {
        self.ending().iter().rev().copied().collect()
    }

    /// How much the pattern says of a host that it matches; what says more is greater.
    fn weight(&self, query: &Query<'_>) -> Option<(bool, bool, usize)> {
        let (ending, host) = (self.ending(), if self.has_port { query.raw_host } else { query.host });
        let start = host.len().checked_sub(ending.len())?;
        let matches = (self.is_wildcard || start == 0)
            && host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(ending));
        matches.then_some((!self.is_wildcard, self.has_port, ending.len()))
    }
}

/// Patterns to values.
#[derive(Clone, Debug)]
pub(super) struct HostIndex<V> {
    plain: HostTable<V>,
    /// For patterns with a port; most configurations have none.
    with_port: Option<Box<HostTable<V>>>,
}

#[derive(Clone, Debug)]
struct HostTable<V> {
    exact: ByteMap<V>,
    /// Endings, reversed.
    endings: Radix<V>,
}

impl<V> Default for HostTable<V> {
    fn default() -> Self {
        Self { exact: ByteMap::default(), endings: Radix::default() }
    }
}

impl<V> Default for HostIndex<V> {
    fn default() -> Self {
        Self { plain: HostTable::default(), with_port: None }
    }
}

impl<V: Clone> HostIndex<V> {
    /// The value of a pattern, to be changed; made if there is none.
    pub(super) fn get_or_insert_with(&mut self, pattern: &HostPattern, make: impl FnOnce() -> V) -> &mut V {
        let table = if pattern.has_port { self.with_port.get_or_insert_default() } else { &mut self.plain };
        if pattern.is_wildcard {
            table.endings.get_or_insert_with(&pattern.reversed(), make)
        } else {
            table.exact.get_or_insert_with(pattern.ending(), make)
        }
    }

    /// The value of a pattern, to be changed.
    pub(super) fn get_mut(&mut self, pattern: &HostPattern) -> Option<&mut V> {
        let table = self.table_mut(pattern)?;
        if pattern.is_wildcard {
            table.endings.get_mut(&pattern.reversed())
        } else {
            table.exact.get_mut(pattern.ending())
        }
    }

    /// Takes a pattern out.
    pub(super) fn remove(&mut self, pattern: &HostPattern) {
        let Some(table) = self.table_mut(pattern) else { return };
        if pattern.is_wildcard {
            table.endings.remove(&pattern.reversed());
        } else {
            table.exact.remove(pattern.ending());
        }
        if self.with_port.as_ref().is_some_and(|table| table.is_empty()) {
            self.with_port = None;
        }
    }

    fn table_mut(&mut self, pattern: &HostPattern) -> Option<&mut HostTable<V>> {
        if pattern.has_port { self.with_port.as_deref_mut() } else { Some(&mut self.plain) }
    }
}

impl<V> HostIndex<V> {
    /// Whether there is no pattern.
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.with_port.is_none()
    }

    /// Calls `see` with the value of every pattern that matches, the most telling first.
    pub(super) fn each<'r, B>(
        &'r self,
        query: &Query<'_>,
        see: &mut impl FnMut(&'r V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let with_port = self.with_port.as_deref();
        if let Some(value) = with_port.and_then(|table| table.exact_of(query.raw_host)) {
            see(value)?;
        }
        if let Some(value) = self.plain.exact.get(query.host) {
            see(value)?;
        }
        if let Some(table) = with_port {
            table.each_ending(query.raw_host, see)?;
        }
        self.plain.each_ending(query.host, see)
    }
}

impl<V> HostTable<V> {
    const fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.endings.is_empty()
    }

    /// The exact pattern of a host that may have capitals.
    fn exact_of(&self, raw_host: &[u8]) -> Option<&V> {
        let mut buffer = [0; HOST_BYTES_MAX];
        let lower = buffer.get_mut(..raw_host.len())?;
        lower.copy_from_slice(raw_host);
        lower.make_ascii_lowercase();
        self.exact.get(lower)
    }

    fn each_ending<'r, B>(
        &'r self,
        host: &[u8],
        see: &mut impl FnMut(&'r V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if self.endings.is_empty() {
            return ControlFlow::Continue(());
        }
        // No ending is longer than the buffer, so of a longer host its end suffices.
        let mut buffer = [0; HOST_BYTES_MAX];
        let bytes = host.len().min(HOST_BYTES_MAX);
        for (to, from) in buffer.iter_mut().zip(host.iter().rev()) {
            *to = from.to_ascii_lowercase();
        }
        self.endings.each_prefix(&buffer[..bytes], see)
    }
}

/// The hosts of one entry, where the host is a filter rather than the way to the entry.
#[derive(Debug)]
pub(super) struct HostFilter {
    patterns: Box<[HostPattern]>,
    /// Instead of comparing each, when there are many.
    index: Option<Box<HostIndex<u32>>>,
}

impl HostFilter {
    pub(super) fn new(patterns: Vec<HostPattern>) -> Self {
        let index = (patterns.len() > FILTER_LINEAR_MAX).then(|| {
            let mut index = Box::<HostIndex<u32>>::default();
            for (pattern, number) in patterns.iter().zip(0..) {
                index.get_or_insert_with(pattern, || number);
            }
            index
        });
        Self { patterns: patterns.into(), index }
    }

    /// The hosts, when each is exact and without a port.
    pub(super) fn all_exact(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let exact = self.patterns.iter().all(|pattern| pattern.as_exact().is_some());
        exact.then(|| self.patterns.iter().filter_map(HostPattern::as_exact))
    }

    /// The pattern that says most of the host; `None` when none matches.
    pub(super) fn find(&self, query: &Query<'_>) -> Option<&str> {
        if let Some(index) = &self.index {
            let first = index.each(query, &mut ControlFlow::Break).break_value()?;
            return self.patterns.get(*first as usize).map(HostPattern::text);
        }
        let weighed = self.patterns.iter().filter_map(|pattern| Some((pattern.weight(query)?, pattern)));
        // Of equal ones any will do: they are the same text.
        weighed.max_by_key(|(weight, _)| *weight).map(|(_, pattern)| pattern.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(patterns: &[&str]) -> HostFilter {
        let parse = |pattern: &&str| HostPattern::parse(pattern).expect("the sample is a pattern");
        HostFilter::new(patterns.iter().map(parse).collect())
    }

    fn query<'a>(host: &'a str, raw_host: &'a str) -> Query<'a> {
        Query { path: b"/", host: host.as_bytes(), raw_host: raw_host.as_bytes(), method_bit: 1 }
    }

    /// Asks a short list, and the same list made long enough to be indexed.
    fn check(patterns: &[&str], raw_host: &str, expected: Option<&str>) {
        let lower = raw_host.to_ascii_lowercase();
        let host = match lower.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &lower,
        };
        let fillers: Vec<String> = (0..10_000).map(|number| format!("filler-{number}.test")).collect();
        let asked = query(host, raw_host);
        assert_eq!(filter(patterns).find(&asked), expected, "{raw_host} against {patterns:?}");
        for count in [1, 99, 101, 10_000] {
            let long: Vec<&str> =
                fillers[..count].iter().map(String::as_str).chain(patterns.iter().copied()).collect();
            assert_eq!(filter(&long).find(&asked), expected, "{raw_host} against {patterns:?} and {count}");
        }
    }

    #[test]
    fn a_wildcard_matches_several_labels_but_not_its_own_parent() {
        check(&["*.x.com"], "a.x.com", Some("*.x.com"));
        check(&["*.x.com"], "b.a.x.com", Some("*.x.com"));
        check(&["*.x.com"], "x.com", None);
        check(&["*.x.com"], "ax.com", None);
        check(&["*x.com"], "ax.com", Some("*x.com"));
        check(&["*"], "anything", Some("*"));
        check(&["*"], "", Some("*"));
        check(&["x.com"], "", None);
    }

    #[test]
    fn what_says_more_is_found_first() {
        let all = ["*", "*.com", "*.x.com", "a.x.com", "*:80", "a.x.com:80"];
        check(&all, "a.x.com:80", Some("a.x.com:80"));
        check(&all, "a.x.com:81", Some("a.x.com"));
        check(&all, "b.x.com:80", Some("*:80"));
        check(&all, "b.x.com", Some("*.x.com"));
        check(&all, "b.com", Some("*.com"));
        check(&all, "localhost", Some("*"));
    }

    #[test]
    fn case_does_not_matter_on_either_side() {
        check(&["A.X.com"], "a.x.COM", Some("a.x.com"));
        check(&["*.X.com:8080"], "A.x.com:8080", Some("*.x.com:8080"));
        check(&["a.com:8080"], "A.com:8080", Some("a.com:8080"));
        check(&["a.com:8080"], "A.com:808", None);
    }

    #[test]
    fn the_colons_of_an_ipv6_address_are_no_port() {
        check(&["[::1]"], "[::1]", Some("[::1]"));
        check(&["[::1]"], "[::1]:80", Some("[::1]"));
        check(&["[::1]:80"], "[::1]:80", Some("[::1]:80"));
        check(&["[::1]:80"], "[::1]", None);
    }

    #[test]
    fn a_host_longer_than_any_pattern_is_judged_by_its_end() {
        let long = format!("{}.x.com", "a".repeat(5000));
        check(&["*.x.com"], &long, Some("*.x.com"));
        check(&["*.x.com:80"], &format!("{long}:80"), Some("*.x.com:80"));
        check(&["*.y.com"], &long, None);
    }

    #[test]
    fn other_forms_are_refused() {
        for pattern in ["", "a.*", "**", "*.*.com", &"a".repeat(HOST_BYTES_MAX + 1)] {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
