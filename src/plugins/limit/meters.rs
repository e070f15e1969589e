//! What a core keeps for all uses of `limit`, and the counters of one use.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::bandwidth::Way;
use crate::base::clock::Moment;
use crate::base::hash::Map;
use crate::link::outbox::Level;
use crate::link::stats::Series;
use crate::plugin::limits::{AMOUNT_MAX, Till};
use crate::plugin::tally::{FAMILY, Meter, Outcome};
use crate::runtime::Core;

/// Limits whose counters a core remembers beyond a change of configuration; others make theirs anew.
const NAMES_MAX: usize = 1024;
/// Least time between two lines in the log about costs that are no numbers: clients may say what they like.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Bytes of such a cost that the log shows.
const SHOWN_BYTES: usize = 32;

/// What is told of bodies that pass slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slowness {
    Bytes,
    Millis,
}

impl Slowness {
    const ALL: [Self; 2] = [Self::Bytes, Self::Millis];

    const fn family(self) -> &'static str {
        match self {
            Self::Bytes => "limit_delayed_bytes_total",
            Self::Millis => "limit_delay_ms_total",
        }
    }
}

/// What is told, which way, and whether it does not really wait.
type Slowed = (Slowness, Way, bool);

/// What all uses on a core share: the way to the accounts, and series by name of the limit.
pub(super) struct Desk {
    pub(super) till: Till,
    #[allow(clippy::type_complexity)] // A name with what came of it, or there was no room for it.
    series: RefCell<Map<(String, Outcome), Option<Arc<Series>>>>,
    #[allow(clippy::type_complexity)] // The same of bodies.
    slowness: RefCell<Map<(String, Slowed), Option<Arc<Series>>>>,
}

impl Desk {
    pub(super) fn new(core: &Core) -> Self {
        Self { till: Till::new(&core.ledger), series: RefCell::default(), slowness: RefCell::default() }
    }

    /// The counter of what waits of a limit's bodies.
    fn slowness(&self, name: &str, (what, way, is_shadow): Slowed, core: &Core) -> Option<Arc<Series>> {
        let mut all = self.slowness.borrow_mut();
        if all.len() >= NAMES_MAX {
            all.clear();
        }
        let entry = all.entry((name.to_owned(), (what, way, is_shadow))).or_insert_with(|| {
            let result = if is_shadow { "would_delay" } else { "delayed" };
            let labels =
                format!("plugin=\"limit\",limit=\"{name}\",direction=\"{}\",result=\"{result}\"", way.word());
            core.announce(Series::count(what.family(), labels))
        });
        entry.clone()
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
pub(super) struct Meters {
    outcomes: Vec<[Meter; 3]>,
    /// By direction, and what is told.
    slowness: Vec<[[Meter; 2]; 2]>,
    /// When the log was last told of a cost that is no number; zero if never.
    noted: Cell<Moment>,
}

impl Meters {
    pub(super) fn new(limits: usize) -> Self {
        let each = 0..limits;
        Self {
            outcomes: each.clone().map(|_| Default::default()).collect(),
            slowness: each.map(|_| Default::default()).collect(),
            noted: Cell::new(Moment::ZERO),
        }
    }

    /// Tells the log of a cost that is no number, unless it was told of another a moment ago.
    pub(super) fn note_no_number(&self, (owner, field, what): (&str, &str, &[u8]), instead: &str, core: &Core) {
        let (now, noted) = (core.now(), self.noted.get());
        if noted != Moment::ZERO && now.since(noted) < NOTE_EVERY {
            return;
        }
        self.noted.set(now);
        let shown = String::from_utf8_lossy(&what[..what.len().min(SHOWN_BYTES)]);
        let text = format!(
            "{owner}: plugins.limit.{field}: expected a whole number from 0 to {AMOUNT_MAX}, got {shown:?}; {instead}"
        );
        core.note(Level::Warn, text);
    }

    /// Counts what the limit at that place made of a request.
    pub(super) fn count(&self, name: &str, (limit, outcome): (usize, Outcome), desk: &Desk, core: &Core) {
        let Some(meter) = self.outcomes.get(limit).map(|meters| &meters[outcome as usize]) else { return };
        if let Some(series) = meter.get_or_init(|| desk.series(name, outcome, core)) {
            series.add(1);
        }
    }

    /// The counters of what waits of bodies on their way, for the limit at that place.
    pub(super) fn slowness(
        &self,
        (limit, name, is_shadow): (usize, &str, bool),
        way: Way,
        (desk, core): (&Desk, &Core),
    ) -> [Option<Arc<Series>>; 2] {
        let Some(meters) = self.slowness.get(limit) else { return [None, None] };
        Slowness::ALL.map(|what| {
            let meter = &meters[way as usize][what as usize];
            meter.get_or_init(|| desk.slowness(name, (what, way, is_shadow), core)).clone()
        })
    }
}
