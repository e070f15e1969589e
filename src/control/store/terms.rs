//! How long objects stay: most until somebody deletes them, some for a time (APISIX's `?ttl`).

use std::collections::BTreeSet;

use crate::base::clock::UnixMs;

/// How long an object stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Term {
    /// Until it is deleted.
    #[default]
    Lasting,
    /// Until then; whoever keeps the store takes it out.
    Until(UnixMs),
    /// As long as its lease in etcd, which takes it out.
    Leased,
}

impl Term {
    /// When it is over, as far as that is known here.
    pub(crate) const fn end(self) -> Option<UnixMs> {
        match self {
            Self::Until(end) => Some(end),
            Self::Lasting | Self::Leased => None,
        }
    }
}

/// When which objects go, by name.
#[derive(Debug, Default)]
pub(super) struct Terms(BTreeSet<(UnixMs, String)>);

impl Terms {
    /// An object has come with a term.
    pub(super) fn note(&mut self, name: &str, term: Term) {
        if let Some(end) = term.end() {
            self.0.insert((end, name.to_owned()));
        }
    }

    /// An object has gone, or has another term now.
    pub(super) fn forget(&mut self, name: &str, term: Term) {
        if let Some(end) = term.end() {
            self.0.remove(&(end, name.to_owned()));
        }
    }

    /// Those whose term is over, the longest first.
    pub(super) fn over(&self, now: UnixMs) -> impl Iterator<Item = &str> {
        self.0.iter().take_while(move |(end, _)| *end <= now).map(|(_, name)| name.as_str())
    }
}
