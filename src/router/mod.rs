//! `Router<T>`: many patterns, one answer. Built whole, then never changed; asking allocates nothing.
//!
//! Precedence is APISIX's, and fixed by [`Mode`]: in `HostUri` the host decides first (exact, then the longest
//! wildcard, then entries without host), and inside a host, or with `Uri` altogether, the path: an exact one
//! before any prefix, a longer prefix before a shorter, whatever the priorities. Only among entries on one path
//! does priority count, then the longer pattern, then who came first. When every entry of a host is refused, the
//! next host has its turn.
//!
//! Cost: a hash of the host, a hash of the path, and a walk over the bytes of each; not the number of entries.
//! What is linear is the number of entries that match host and path alike, until one is accepted.

mod host;
mod path;
mod radix;
mod tree;

use std::cmp::Reverse;
use std::fmt;
use std::ops::{ControlFlow, Range};

use self::host::{HostFilter, HostIndex, HostPattern};
use self::path::{PathKind, PathPattern, Spans, range};
use self::tree::Tree;
use crate::base::hash::Map;

pub use self::host::HOST_BYTES_MAX;
pub use self::path::PARAMS_MAX;

/// What decides first, and what a path may say; APISIX's `apisix.router.http`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `radixtree_host_uri`: the host, then the path.
    #[default]
    HostUri,
    /// `radixtree_uri`: the path; the host only filters.
    Uri,
    /// `radixtree_uri_with_parameter`: as `Uri`, and paths may have `:name` and `*name`.
    UriWithParameter,
}

impl Mode {
    /// The mode of APISIX's name for it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "radixtree_host_uri" => Some(Self::HostUri),
            "radixtree_uri" => Some(Self::Uri),
            "radixtree_uri_with_parameter" => Some(Self::UriWithParameter),
            _ => None,
        }
    }
}

/// What an entry wants of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern<'a> {
    pub path: &'a str,
    /// None is any host.
    pub hosts: &'a [&'a str],
    /// Bits of methods; 0 is any method.
    pub methods: u32,
    /// Counts among entries on one path only; bigger first.
    pub priority: i64,
}

/// What a request asks.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Normalised and decoded.
    pub path: &'a [u8],
    /// In lower case, without port.
    pub host: &'a [u8],
    /// As it came.
    pub raw_host: &'a [u8],
    /// One bit.
    pub method_bit: u32,
}

/// Why a pattern is refused; reads as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterError(String);

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouterError {}

/// Many patterns, one answer.
#[derive(Debug)]
pub struct Router<T> {
    /// In order of precedence among those on one path; everything else names entries by their place here.
    entries: Box<[Entry<T>]>,
    hosts: HostIndex,
    /// The patterns of `hosts`, each with its entries.
    sites: Box<[(HostPattern, Tree)]>,
    /// Entries whose host did not decide: in `HostUri` those without one, else all.
    anywhere: Tree,
}

#[derive(Debug)]
struct Entry<T> {
    path: PathPattern,
    /// As written.
    pattern: Box<str>,
    methods: u32,
    /// Only where the host filters.
    hosts: Option<HostFilter>,
    value: T,
}

/// An entry that matches, and what of the request it took.
#[derive(Clone, Debug)]
pub struct Match<'r, T> {
    pub value: &'r T,
    /// The path pattern as written: `matched_uri`.
    pub pattern: &'r str,
    /// The host pattern in lower case, if the entry has hosts: `matched_host`.
    pub host: Option<&'r str>,
    /// The methods it admits.
    pub methods: u32,
    names: &'r [Box<str>],
    spans: Spans,
}

impl<'r, T> Match<'r, T> {
    /// The parameters from left to right, as ranges of the path that was asked for.
    pub fn params(&self) -> impl Iterator<Item = (&'r str, Range<usize>)> {
        self.names.iter().zip(self.spans).map(|(name, span)| (&**name, range(span)))
    }

    /// One parameter; of several with one name, the last.
    pub fn param(&self, name: &str) -> Option<Range<usize>> {
        self.params().filter(|(found, _)| *found == name).last().map(|(_, range)| range)
    }
}

impl<T> Router<T> {
    /// The first entry in order of precedence that matches and that `accept` takes; `accept` is what else the
    /// caller wants of a request.
    pub fn find<'r>(
        &'r self,
        query: &Query<'_>,
        mut accept: impl FnMut(&'r T, &Match<'r, T>) -> bool,
    ) -> Option<Match<'r, T>> {
        let walk = self.each(query, |found| {
            if found.methods & query.method_bit != 0 && accept(found.value, &found) {
                return ControlFlow::Break(found);
            }
            ControlFlow::Continue(())
        });
        walk.break_value()
    }

    /// The methods for which a request like this would be found: not 0 after a miss means 405, not 404.
    pub fn methods_of<'r>(
        &'r self,
        query: &Query<'_>,
        mut accept: impl FnMut(&'r T, &Match<'r, T>) -> bool,
    ) -> u32 {
        let mut methods = 0;
        let _: ControlFlow<()> = self.each(query, |found| {
            if accept(found.value, &found) {
                methods |= found.methods;
            }
            ControlFlow::Continue(())
        });
        methods
    }

    /// Calls `see` with every entry whose host and path match, whatever its methods, in order of precedence, until
    /// it breaks. An entry may come once for each of its hosts.
    pub fn each<'r, B>(
        &'r self,
        query: &Query<'_>,
        mut see: impl FnMut(Match<'r, T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !self.sites.is_empty() {
            self.hosts.each(query, &mut |site| {
                let Some((host, tree)) = self.sites.get(site as usize) else {
                    return ControlFlow::Continue(());
                };
                tree.each(query, &mut |number| self.compare(number, Some(host.text()), query, &mut see))
            })?;
        }
        self.anywhere.each(query, &mut |number| self.compare(number, None, query, &mut see))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Compares what table and tree could not, and hands a match on.
    fn compare<'r, B>(
        &'r self,
        number: u32,
        site: Option<&'r str>,
        query: &Query<'_>,
        see: &mut impl FnMut(Match<'r, T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(entry) = self.entries.get(number as usize) else { return ControlFlow::Continue(()) };
        let host = match &entry.hosts {
            None => site,
            Some(hosts) => match hosts.find(query) {
                Some(host) => Some(host),
                None => return ControlFlow::Continue(()),
            },
        };
        let mut spans = Spans::default();
        let names = match &entry.path.kind {
            PathKind::Exact | PathKind::Prefix => &[][..],
            PathKind::Shape(shape) if shape.matches(query.path, entry.path.key.len(), &mut spans) => {
                shape.names()
            }
            PathKind::Shape(_) => return ControlFlow::Continue(()),
        };
        let (value, pattern, methods) = (&entry.value, &*entry.pattern, entry.methods);
        see(Match { value, pattern, host, methods, names, spans })
    }
}

impl<T> Default for Router<T> {
    /// A router that finds nothing.
    fn default() -> Self {
        RouterBuilder::new(Mode::default()).build()
    }
}

/// Takes entries in any order, then makes the router.
#[derive(Debug)]
pub struct RouterBuilder<T> {
    mode: Mode,
    drafts: Vec<Draft<T>>,
}

#[derive(Debug)]
struct Draft<T> {
    path: PathPattern,
    pattern: Box<str>,
    hosts: Vec<HostPattern>,
    methods: u32,
    priority: i64,
    value: T,
}

impl<T> RouterBuilder<T> {
    /// No entries yet.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, drafts: Vec::new() }
    }

    /// Adds an entry, or says why its pattern means nothing. An object with several paths is as many entries.
    pub fn insert(&mut self, pattern: &Pattern<'_>, value: T) -> Result<(), RouterError> {
        let path = PathPattern::parse(pattern.path, self.mode == Mode::UriWithParameter)?;
        let mut hosts = Vec::with_capacity(pattern.hosts.len());
        for host in pattern.hosts {
            hosts.push(HostPattern::parse(host)?);
        }
        let methods = if pattern.methods == 0 { u32::MAX } else { pattern.methods };
        let (pattern, priority) = (pattern.path.into(), pattern.priority);
        self.drafts.push(Draft { path, pattern, hosts, methods, priority, value });
        Ok(())
    }

    /// An empty builder of the same mode: for entries that go in together or not at all.
    pub const fn like(&self) -> Self {
        Self::new(self.mode)
    }

    /// Takes in the entries of another builder, behind its own.
    pub fn append(&mut self, other: Self) {
        self.drafts.extend(other.drafts);
    }

    /// Makes the router.
    pub fn build(self) -> Router<T> {
        let Self { mode, mut drafts } = self;
        // Stable, so that who came first stays first.
        drafts.sort_by_key(|draft| (Reverse(draft.priority), Reverse(draft.pattern.len())));
        let mut places: Map<HostPattern, usize> = Map::default();
        let mut sites: Vec<(HostPattern, Vec<u32>)> = Vec::new();
        let mut anywhere = Vec::new();
        let mut entries = Vec::with_capacity(drafts.len());
        for (draft, number) in drafts.into_iter().zip(0_u32..) {
            let Draft { path, pattern, hosts, methods, value, .. } = draft;
            let filter = if mode == Mode::HostUri && !hosts.is_empty() {
                for host in hosts {
                    let place = *places.entry(host.clone()).or_insert(sites.len());
                    if place == sites.len() {
                        sites.push((host, Vec::new()));
                    }
                    // A host may be named twice.
                    if sites[place].1.last() != Some(&number) {
                        sites[place].1.push(number);
                    }
                }
                None
            } else {
                anywhere.push(number);
                (!hosts.is_empty()).then(|| HostFilter::new(hosts))
            };
            entries.push(Entry { path, pattern, methods, hosts: filter, value });
        }
        let entries: Box<[Entry<T>]> = entries.into();
        let patterns: Vec<HostPattern> = sites.iter().map(|(host, _)| host.clone()).collect();
        let sites = sites.into_iter().map(|(host, numbers)| (host, Tree::build(&numbers, &entries)));
        Router {
            hosts: HostIndex::build(&patterns),
            sites: sites.collect(),
            anywhere: Tree::build(&anywhere, &entries),
            entries,
        }
    }
}

#[cfg(test)]
mod tests;
