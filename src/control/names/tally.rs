//! What becomes of questions after names: reasons, and their counts for the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a name has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can not be one.
    NoName,
    /// The servers say that it does not exist.
    Unknown,
    /// It exists and has no record that is asked for.
    NoRecord,
    /// The servers fail (SERVFAIL, REFUSED and their like).
    Failure(u8),
    /// No server answers in time.
    Silence,
    /// No server can be reached.
    Unreachable(String),
    /// What comes is no answer.
    Nonsense,
}

/// Words of troubles, as metrics have them.
pub(crate) const REASONS: [&str; 7] =
    ["no_name", "nxdomain", "no_record", "server_failure", "timeout", "unreachable", "nonsense"];

impl Trouble {
    const fn place(&self) -> usize {
        match self {
            Self::NoName => 0,
            Self::Unknown => 1,
            Self::NoRecord => 2,
            Self::Failure(_) => 3,
            Self::Silence => 4,
            Self::Unreachable(_) => 5,
            Self::Nonsense => 6,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("it is no name that can be asked for"),
            Self::Unknown => f.write_str("there is no such name (NXDOMAIN)"),
            Self::NoRecord => f.write_str("the name has no address"),
            Self::Failure(2) => f.write_str("the name servers fail (SERVFAIL)"),
            Self::Failure(5) => f.write_str("the name servers refuse (REFUSED)"),
            Self::Failure(code) => write!(f, "the name servers fail (code {code})"),
            Self::Silence => f.write_str("no name server answers"),
            Self::Unreachable(why) => write!(f, "no name server can be reached: {why}"),
            Self::Nonsense => f.write_str("the name servers send what can not be read"),
        }
    }
}

/// Counts over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    failed: [AtomicU64; REASONS.len()],
}

impl Tally {
    /// Notes what came of a name.
    pub(super) fn note<T>(&self, came: &Result<T, Trouble>) {
        let count = came.as_ref().map_or_else(|trouble| &self.failed[trouble.place()], |_| &self.answered);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Names that were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Names that were not, by why.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.failed).map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}
