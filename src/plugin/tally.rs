//! Counters of what plugins that limit make of requests: a series for each outcome of a use or a named limit, made on a
//! core when it is first needed. What was configured stands for it, never a key, so there are no more than there are uses.

use std::cell::OnceCell;
use std::sync::Arc;

use super::CompileCx;
use crate::base::hash::stable;
use crate::link::stats::Series;
use crate::runtime::{Core, LocalId};

/// The family of all series.
pub const FAMILY: &str = "limit_requests_total";

/// What a limit makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Admitted,
    Rejected,
    WouldReject,
}

impl Outcome {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected => "rejected",
            Self::WouldReject => "would_reject",
        }
    }
}

/// A counter, or there was no room for it.
pub type Meter = OnceCell<Option<Arc<Series>>>;

/// The counters of one use of a plugin, which is called by the object that has it.
#[derive(Debug)]
pub struct Tally {
    labels: String,
    meters: LocalId,
}

/// By outcome.
#[derive(Debug, Default)]
struct Meters([Meter; 3]);

impl Tally {
    /// Those of the use that is compiled; they go on when its configuration changes.
    pub fn new(cx: &mut CompileCx<'_>) -> Self {
        // Names of objects need no escapes.
        let owner = cx.owner().replace('\n', ":");
        let labels = format!("plugin=\"{}\",limit=\"{owner}\"", cx.plugin());
        Self { meters: cx.local_of("limit requests", stable(labels.as_bytes())), labels }
    }

    /// Counts what was made of a request.
    pub fn count(&self, outcome: Outcome, core: &Core) {
        let meters = core.local(self.meters, Meters::default);
        let series = meters.0[outcome as usize].get_or_init(|| {
            let labels = format!("{},result=\"{}\"", self.labels, outcome.word());
            core.announce(Series::count(FAMILY, labels))
        });
        if let Some(series) = series {
            series.add(1);
        }
    }
}
