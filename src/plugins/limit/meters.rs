//! What a core keeps for all uses of `limit`, and the counters of one use.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use crate::base::hash::Map;
use crate::link::stats::Series;
use crate::plugin::limits::Till;
use crate::runtime::Core;

/// The family of all series.
const FAMILY: &str = "limit_requests_total";
/// Limits whose counters a core remembers beyond a change of configuration; others make theirs anew.
const NAMES_MAX: usize = 1024;

/// What a limit makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Admitted,
    Rejected,
    WouldReject,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected => "rejected",
            Self::WouldReject => "would_reject",
        }
    }
}

/// What all uses on a core share: the way to the accounts, and series by name of the limit.
pub(super) struct Desk {
    pub(super) till: Till,
    #[allow(clippy::type_complexity)] // A name with what came of it, or there was no room for it.
    series: RefCell<Map<(String, Outcome), Option<Arc<Series>>>>,
}

impl Desk {
    pub(super) fn new(core: &Core) -> Self {
        Self { till: Till::new(&core.ledger), series: RefCell::default() }
    }

    fn series(&self, name: &str, outcome: Outcome, core: &Core) -> Option<Arc<Series>> {
        let mut all = self.series.borrow_mut();
        if all.len() >= NAMES_MAX {
            all.clear();
        }
        let entry = all.entry((name.to_owned(), outcome)).or_insert_with(|| {
            // Names of limits need no escapes.
            let labels = format!("plugin=\"limit\",limit=\"{name}\",result=\"{}\"", outcome.word());
            core.announce(Series::count(FAMILY, labels))
        });
        entry.clone()
    }
}

/// The counters of one use on a core, made as they are needed.
pub(super) struct Meters(Vec<[OnceCell<Option<Arc<Series>>>; 3]>);

impl Meters {
    pub(super) fn new(limits: usize) -> Self {
        Self((0..limits).map(|_| Default::default()).collect())
    }

    /// Counts what the limit at that place made of a request.
    pub(super) fn count(&self, name: &str, (limit, outcome): (usize, Outcome), desk: &Desk, core: &Core) {
        let Some(meter) = self.0.get(limit).map(|meters| &meters[outcome as usize]) else { return };
        if let Some(series) = meter.get_or_init(|| desk.series(name, outcome, core)) {
            series.add(1);
        }
    }
}
