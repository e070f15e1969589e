//! Looks at a search from outside: which trees it entered, which entries it came to and why they did not match.
//!
//! A search is compiled for each kind of look. The one of requests wants matches only: what else a look may be told
//! of is an empty function there, and nothing is left of it.

use std::ops::ControlFlow;

use super::Match;

/// What is told of a search.
pub trait Look<'r, T: 'r, B> {
    /// An entry whose host and path match, whatever its methods.
    fn met(&mut self, found: Match<'r, T>) -> ControlFlow<B>;

    /// An entry that the search came to and that does not match after all.
    fn missed(&mut self, _near: Near<'r, T>) -> ControlFlow<B> {
        ControlFlow::Continue(())
    }

    /// The search goes on among the entries of a host; `None`: among those that no host leads to.
    fn entered(&mut self, _host: Option<&'r str>) {}
}

/// An entry that was come to and does not match.
#[derive(Clone, Copy, Debug)]
pub struct Near<'r, T> {
    pub value: &'r T,
    /// The path pattern as written.
    pub pattern: &'r str,
    /// The host pattern that led here.
    pub host: Option<&'r str>,
    pub why: Miss,
}

/// Why an entry that was come to does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None of its hosts is asked for.
    Host,
    /// The path begins as it wants, and does not go on so.
    Path,
}

/// Matches only.
pub(super) struct Matches<F>(pub(super) F);

impl<'r, T: 'r, B, F: FnMut(Match<'r, T>) -> ControlFlow<B>> Look<'r, T, B> for Matches<F> {
    fn met(&mut self, found: Match<'r, T>) -> ControlFlow<B> {
        (self.0)(found)
    }
}
