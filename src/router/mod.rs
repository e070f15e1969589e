//! `Router<T>`: many patterns, one answer; asking allocates nothing.
//!
//! A copy shares everything with its original, and a change of one copies what lies on its way and no more: so the
//! control thread changes one route among a hundred thousand in microseconds, while the cores go on asking the
//! router they have.
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
mod look;
mod path;
mod radix;
mod tree;

use std::cmp::Reverse;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use self::host::{HostFilter, HostIndex, HostPattern};
use self::path::{PathKind, PathPattern, Spans, range};
use self::tree::Tree;

pub use self::host::HOST_BYTES_MAX;
pub use self::look::{Look, Miss, Near};
pub use self::path::PARAMS_MAX;

use self::look::Matches;

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
    mode: Mode,
    /// Entries whose host decides, by host.
    hosts: HostIndex<Arc<Site<T>>>,
    /// The others: in `HostUri` those without host, else all.
    anywhere: Tree<T>,
    len: usize,
    /// Lists that are to be divided anew.
    unsettled: Vec<Unsettled>,
}

/// A host and its entries.
#[derive(Debug)]
struct Site<T> {
    host: HostPattern,
    tree: Tree<T>,
}

#[derive(Clone, Debug)]
struct Unsettled {
    host: Option<HostPattern>,
    key: Box<[u8]>,
    is_exact: bool,
}

#[derive(Debug)]
struct Entry<T> {
    rank: Rank,
    path: PathPattern,
    /// As written.
    pattern: Box<str>,
    methods: u32,
    /// Only where the host filters.
    hosts: Option<HostFilter>,
    value: T,
}

/// Precedence among entries on one path; the least is tried first.
type Rank = (Reverse<i64>, Reverse<usize>, u64);

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

    /// Whether the method is one that it admits.
    pub const fn admits(&self, query: &Query<'_>) -> bool {
        self.methods & query.method_bit != 0
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
            if found.admits(query) && accept(found.value, &found) {
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
        see: impl FnMut(Match<'r, T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.walk(query, &mut Matches(see))
    }

    /// Goes the way of every search, and tells `look` of what lies on it until it breaks. What a look does not ask
    /// for costs nothing.
    pub fn walk<'r, B>(&'r self, query: &Query<'_>, look: &mut impl Look<'r, T, B>) -> ControlFlow<B> {
        if !self.hosts.is_empty() {
            self.hosts.each(query, &mut |site| {
                look.entered(Some(site.host.text()));
                site.tree.each(query, &mut |entry| entry.compare(Some(site.host.text()), query, look))
            })?;
        }
        look.entered(None);
        self.anywhere.each(query, &mut |entry| entry.compare(None, query, look))
    }

    /// What decides first here.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A router without entries.
    pub fn new(mode: Mode) -> Self {
        Self { mode, hosts: HostIndex::default(), anywhere: Tree::default(), len: 0, unsettled: Vec::new() }
    }
}

impl<T> Entry<T> {
    /// Compares what table and tree could not, and hands a match on.
    fn compare<'r, B>(
        &'r self,
        site: Option<&'r str>,
        query: &Query<'_>,
        look: &mut impl Look<'r, T, B>,
    ) -> ControlFlow<B> {
        let near = |why| Near { value: &self.value, pattern: &self.pattern, host: site, why };
        let host = match &self.hosts {
            None => site,
            Some(hosts) => match hosts.find(query) {
                Some(host) => Some(host),
                None => return look.missed(near(Miss::Host)),
            },
        };
        let mut spans = Spans::default();
        let names = match &self.path.kind {
            PathKind::Exact | PathKind::Prefix => &[][..],
            PathKind::Shape(shape) if shape.matches(query.path, self.path.key.len(), &mut spans) => {
                shape.names()
            }
            PathKind::Shape(_) => return look.missed(near(Miss::Path)),
        };
        let (value, pattern, methods) = (&self.value, &*self.pattern, self.methods);
        look.met(Match { value, pattern, host, methods, names, spans })
    }
}

impl<T> Clone for Site<T> {
    fn clone(&self) -> Self {
        Self { host: self.host.clone(), tree: self.tree.clone() }
    }
}

impl<T> Clone for Router<T> {
    fn clone(&self) -> Self {
        Self {
            mode: self.mode,
            hosts: self.hosts.clone(),
            anywhere: self.anywhere.clone(),
            len: self.len,
            unsettled: self.unsettled.clone(),
        }
    }
}

impl<T> Default for Router<T> {
    /// A router that finds nothing.
    fn default() -> Self {
        Self::new(Mode::default())
    }
}

/// A pattern, read.
#[derive(Debug)]
struct Parsed {
    path: PathPattern,
    hosts: Vec<HostPattern>,
}

impl<T: PartialEq> Router<T> {
    /// Whether a pattern means something here, and if not, why not.
    ///
    /// # Errors
    /// Names the path or host at fault.
    pub fn check(&self, pattern: &Pattern<'_>) -> Result<(), RouterError> {
        self.parse(pattern).map(drop)
    }

    fn parse(&self, pattern: &Pattern<'_>) -> Result<Parsed, RouterError> {
        let path = PathPattern::parse(pattern.path, self.mode == Mode::UriWithParameter)?;
        let mut hosts = Vec::with_capacity(pattern.hosts.len());
        for host in pattern.hosts {
            let host = HostPattern::parse(host)?;
            // A host may be named twice.
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(Parsed { path, hosts })
    }

    /// Adds an entry, or says why its pattern means nothing. An object with several paths is as many entries. Among
    /// entries that nothing else orders, the one with the smaller `order` is tried first, then who came first.
    /// [`Self::settle`] is to be called after the last of several changes.
    ///
    /// # Errors
    /// As [`Self::check`]; nothing is added then.
    pub fn insert(&mut self, pattern: &Pattern<'_>, order: u64, value: T) -> Result<(), RouterError> {
        let Parsed { path, hosts } = self.parse(pattern)?;
        let (key, is_exact) = (path.key.clone(), matches!(path.kind, PathKind::Exact));
        let by_host = self.mode == Mode::HostUri && !hosts.is_empty();
        let (sites, hosts) = if by_host { (hosts, Vec::new()) } else { (Vec::new(), hosts) };
        let entry = Arc::new(Entry {
            rank: (Reverse(pattern.priority), Reverse(pattern.path.len()), order),
            path,
            pattern: pattern.path.into(),
            methods: if pattern.methods == 0 { u32::MAX } else { pattern.methods },
            hosts: (!hosts.is_empty()).then(|| HostFilter::new(hosts)),
            value,
        });
        self.len += 1;
        if !by_host && self.anywhere.insert(&entry) {
            self.unsettled.push(Unsettled { host: None, key: key.clone(), is_exact });
        }
        for host in sites {
            let make = || Arc::new(Site { host: host.clone(), tree: Tree::default() });
            let site = Arc::make_mut(self.hosts.get_or_insert_with(&host, make));
            if site.tree.insert(&entry) {
                self.unsettled.push(Unsettled { host: Some(host), key: key.clone(), is_exact });
            }
        }
        Ok(())
    }

    /// Takes the entries out that were added with this path, these hosts and this value.
    pub fn remove(&mut self, pattern: &Pattern<'_>, value: &T) {
        // What means nothing was never added.
        let Ok(Parsed { path, hosts }) = self.parse(pattern) else { return };
        let is_it = |entry: &Entry<T>| entry.value == *value && *entry.pattern == *pattern.path;
        let is_exact = matches!(path.kind, PathKind::Exact);
        self.len = self.len.saturating_sub(1);
        if self.mode != Mode::HostUri || hosts.is_empty() {
            if self.anywhere.remove(&path, is_it) {
                self.unsettled.push(Unsettled { host: None, key: path.key, is_exact });
            }
            return;
        }
        for host in hosts {
            let Some(site) = self.hosts.get_mut(&host).map(Arc::make_mut) else { continue };
            if site.tree.remove(&path, is_it) {
                self.unsettled.push(Unsettled { host: Some(host), key: path.key.clone(), is_exact });
            } else if site.tree.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }

    /// Puts long lists in a form in which they are found quickly.
    pub fn settle(&mut self) {
        for Unsettled { host, key, is_exact } in std::mem::take(&mut self.unsettled) {
            let tree = match &host {
                None => Some(&mut self.anywhere),
                Some(host) => self.hosts.get_mut(host).map(|site| &mut Arc::make_mut(site).tree),
            };
            if let Some(tree) = tree {
                tree.settle(&key, is_exact);
            }
        }
    }
}

#[cfg(test)]
mod tests;
