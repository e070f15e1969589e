//! When a second node is asked, compiled; and what a core measures for it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::model::upstream as model;
use crate::runtime::LocalId;

/// What one hedge costs, in the unit that a request earns percents of.
const PRICE: u32 = 100;
/// Most hedges that can be saved up.
const SAVED_MAX: u32 = 10;
/// Answers that are to be measured before they count.
const KNOWN_MIN: u32 = 100;
/// Answers after which older ones count half.
const MEMORY: u32 = 2000;
/// How many answers are measured before the percentile is reckoned anew.
const RECKONED_EVERY: u32 = 50;
/// Latencies are told apart by a quarter of their size: four steps to each doubling of a microsecond.
const STEPS: usize = 4;
const BUCKETS: usize = 128;

/// See the module.
#[derive(Debug)]
pub struct Hedge {
    pub delay: Duration,
    pub percentile: Option<u32>,
    pub budget_percent: u32,
    /// Where a core keeps what it measures.
    pub tally: LocalId,
}

impl Hedge {
    pub(super) fn new(hedge: &model::Hedge) -> Self {
        Self {
            delay: hedge.delay.get(),
            percentile: hedge.percentile.map(|percentile| percentile.u32()),
            budget_percent: hedge.budget_percent.u32(),
            tally: LocalId::default(),
        }
    }
}

/// What one core knows: what it may spend, and how long answers took of late.
#[derive(Debug)]
pub struct HedgeTally {
    saved: Cell<u32>,
    counts: RefCell<Box<[u32; BUCKETS]>>,
    count: Cell<u32>,
    fresh: Cell<u32>,
    known: Cell<Option<Duration>>,
}

impl Default for HedgeTally {
    fn default() -> Self {
        Self {
            saved: Cell::new(PRICE),
            counts: RefCell::new(Box::new([0; BUCKETS])),
            count: Cell::new(0),
            fresh: Cell::new(0),
            known: Cell::new(None),
        }
    }
}

impl HedgeTally {
    /// A request that could be hedged earns its share; how long to wait before it is.
    pub fn begin(&self, hedge: &Hedge) -> Duration {
        self.saved.set((self.saved.get() + hedge.budget_percent).min(SAVED_MAX * PRICE));
        self.known.get().filter(|_| hedge.percentile.is_some()).unwrap_or(hedge.delay)
    }

    /// Pays for a hedge, if there is anything to pay with.
    pub fn spend(&self) -> bool {
        let Some(left) = self.saved.get().checked_sub(PRICE) else { return false };
        self.saved.set(left);
        true
    }

    /// Takes in how long an answer took to begin.
    pub fn note(&self, latency: Duration, hedge: &Hedge) {
        let Some(percentile) = hedge.percentile else { return };
        let mut counts = self.counts.borrow_mut();
        counts[bucket_of(latency)] += 1;
        self.count.set(self.count.get() + 1);
        if self.count.get() >= MEMORY {
            counts.iter_mut().for_each(|count| *count /= 2);
            self.count.set(counts.iter().sum());
        }
        self.fresh.set(self.fresh.get() + 1);
        if self.count.get() >= KNOWN_MIN && self.fresh.get() >= RECKONED_EVERY {
            self.fresh.set(0);
            let wanted = (u64::from(self.count.get()) * u64::from(percentile)).div_ceil(100);
            let mut seen = 0;
            let at = counts.iter().position(|count| {
                seen += u64::from(*count);
                seen >= wanted
            });
            self.known.set(at.map(end_of));
        }
    }
}

fn bucket_of(latency: Duration) -> usize {
    let micros = (latency.as_micros() as u64).max(1);
    let doublings = micros.ilog2() as usize;
    let steps = ((u128::from(micros) * STEPS as u128) >> doublings) as usize - STEPS;
    (doublings * STEPS + steps).min(BUCKETS - 1)
}

/// The least latency that is beyond a bucket.
fn end_of(bucket: usize) -> Duration {
    let (doublings, steps) = ((bucket + 1) / STEPS, (bucket + 1) % STEPS);
    let micros = (((STEPS + steps) as u128) << doublings).div_ceil(STEPS as u128);
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEDGE: Hedge = Hedge {
        delay: Duration::from_millis(500),
        percentile: Some(95),
        budget_percent: 10,
        tally: LocalId(0),
    };

    #[test]
    fn a_latency_is_less_than_the_end_of_its_bucket_by_a_quarter_at_most() {
        for micros in (1..5000).chain((5000..100_000_000).step_by(99_991)) {
            let end = end_of(bucket_of(Duration::from_micros(micros))).as_micros() as u64;
            assert!(end > micros && end <= micros + micros / 4 + 1, "{micros} ends at {end}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::ZERO), 0);
    }

    #[test]
    fn the_percentile_counts_once_it_is_known_and_follows() {
        let tally = HedgeTally::default();
        assert_eq!(tally.begin(&HEDGE), HEDGE.delay);
        for at in 0..KNOWN_MIN {
            let millis = if at % 20 == 0 { 100 } else { 10 };
            tally.note(Duration::from_millis(millis), &HEDGE);
        }
        let known = tally.begin(&HEDGE);
        assert!((10..14).contains(&known.as_millis()), "{known:?}");
        (0..3 * MEMORY).for_each(|_| tally.note(Duration::from_millis(40), &HEDGE));
        let known = tally.begin(&HEDGE);
        assert!((40..52).contains(&known.as_millis()), "{known:?}");
        assert_eq!(tally.begin(&Hedge { percentile: None, ..HEDGE }), HEDGE.delay);
    }

    #[test]
    fn hedges_are_a_share_of_requests() {
        let tally = HedgeTally::default();
        let spent = (0..1000).filter(|_| {
            tally.begin(&HEDGE);
            tally.spend()
        });
        assert!((100..=101).contains(&spent.count()));
        for _ in 0..100_000 {
            tally.begin(&HEDGE);
        }
        assert_eq!((0..100).filter(|_| tally.spend()).count() as u32, SAVED_MAX);
    }
}
