//! How many requests an upstream is given at once, learnt from how long it takes: one limit for all cores.
//!
//! Requests beyond the limit are refused at once, rather than wait behind those that the nodes can not keep up with. The
//! limit follows a gradient: the best mean latency of late, and somewhat more, over that of the last moment. Where nodes answer as
//! quickly as they can it grows by its root as long as it is made use of; where answers become slower it shrinks with them, to a half
//! at most at a time.
//!
//! A request that is let in adds to one word and takes from it; a sample adds to two. Whoever brings the last sample
//! of a window reckons anew, and nobody waits for that.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::Moment;

/// How long samples are gathered before the limit is reckoned anew,
const WINDOW: Duration = Duration::from_millis(100);
/// and how many there are to be.
const SAMPLES_MIN: u64 = 10;
/// How long the best latency counts, at least: it is sought anew in each such time, and that of the one before counts on.
const EPOCH: Duration = Duration::from_secs(30);
/// Parts of a request in which the limit is kept.
const PARTS: u32 = 1000;
/// Longest that anybody is told to stay away.
const RETRY_SECONDS_MAX: u64 = 60;

/// Within what the limit moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    pub min: u32,
    pub max: u32,
    pub initial: u32,
    /// By how much answers may be slower than the best before the limit shrinks.
    pub tolerance_percent: u32,
}

/// See the module.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Throttle {
    under_way: AtomicU32,
    /// In [`PARTS`]; 0 is the initial one.
    limit: AtomicU32,
    samples: AtomicU64,
    sum_us: AtomicU64,
    /// Since when samples are gathered, in nanoseconds.
    since: AtomicU64,
    /// Most requests under way meanwhile.
    peak: AtomicU32,
    is_reckoning: AtomicBool,
    /// The last mean, and the best of this epoch and of the one before, in microseconds; 0 is unknown.
    mean_us: AtomicU64,
    best_us: AtomicU64,
    best_before_us: AtomicU64,
    epoch: AtomicU64,
    shed: AtomicU64,
    shed_low: AtomicU64,
}

/// A request under way.
#[derive(Debug)]
pub struct Pass<T: Deref<Target = Throttle>>(T);

impl<T: Deref<Target = Throttle>> Drop for Pass<T> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pass<&Throttle> {
    /// The same for a request that may outlast whatever it came by.
    pub fn keep(self, of: &Arc<Throttle>) -> Pass<Arc<Throttle>> {
        debug_assert!(std::ptr::eq(self.0, &raw const **of), "a pass is for one throttle");
        std::mem::forget(self);
        Pass(Arc::clone(of))
    }
}

/// What there is to see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    pub limit: u32,
    pub under_way: u32,
    pub latency: Duration,
    pub best_latency: Duration,
    /// Requests that were refused, and those of low priority among them.
    pub shed: u64,
    pub shed_low: u64,
}

impl Throttle {
    /// Lets a request in, unless as many are under way as may be: of all the limit, or of those of low priority this share of it.
    pub fn enter(&self, rules: &Rules, low_percent: Option<u32>) -> Option<Pass<&Self>> {
        let limit = self.limit(rules);
        let room = low_percent.map_or(limit, |percent| (u64::from(limit) * u64::from(percent) / 100) as u32);
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let pass = Pass(self);
        if before < room.max(1) {
            if self.peak.load(Ordering::Relaxed) <= before {
                self.peak.fetch_max(before + 1, Ordering::Relaxed);
            }
            return Some(pass);
        }
        self.shed.fetch_add(1, Ordering::Relaxed);
        if low_percent.is_some() {
            self.shed_low.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    /// Most requests at once, as of now.
    pub fn limit(&self, rules: &Rules) -> u32 {
        match self.limit.load(Ordering::Relaxed) {
            0 => rules.initial,
            parts => (parts / PARTS).clamp(rules.min, rules.max),
        }
    }

    /// In how many seconds there may be room: as long as those under way take, if they leave at the rate of late.
    pub fn retry_after(&self, rules: &Rules) -> u64 {
        let mean = self.mean_us.load(Ordering::Relaxed);
        let under_way = u64::from(self.under_way.load(Ordering::Relaxed));
        let micros = mean.saturating_mul(under_way) / u64::from(self.limit(rules)).max(1);
        micros.div_ceil(1_000_000).clamp(1, RETRY_SECONDS_MAX)
    }

    /// Takes in how long a node took to begin an answer.
    pub fn note(&self, latency: Duration, rules: &Rules, now: Moment) {
        let samples = self.samples.fetch_add(1, Ordering::Relaxed) + 1;
        self.sum_us.fetch_add(latency.as_micros() as u64, Ordering::Relaxed);
        let since = Moment::from_nanos(self.since.load(Ordering::Relaxed));
        if samples < SAMPLES_MIN
            || now.since(since) < WINDOW
            || self.is_reckoning.swap(true, Ordering::Acquire)
        {
            return;
        }
        self.reckon(rules, now);
        self.since.store(now.as_nanos(), Ordering::Relaxed);
        self.is_reckoning.store(false, Ordering::Release);
    }

    /// One thread at a time.
    fn reckon(&self, rules: &Rules, now: Moment) {
        let samples = self.samples.swap(0, Ordering::Relaxed);
        let mean = self.sum_us.swap(0, Ordering::Relaxed) / samples.max(1);
        let mean = mean.max(1);
        self.mean_us.store(mean, Ordering::Relaxed);
        let best = self.best_with(mean, now);
        let allowed = best as f64 * f64::from(100 + rules.tolerance_percent) / 100.0;
        let gradient = (allowed / mean as f64).clamp(0.5, 1.0);
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => f64::from(rules.initial),
            parts => f64::from(parts) / f64::from(PARTS),
        };
        let peak = self.peak.swap(self.under_way.load(Ordering::Relaxed), Ordering::Relaxed);
        let is_used = f64::from(peak) * 2.0 >= limit;
        let grown = limit * gradient + if is_used { limit.sqrt() } else { 0.0 };
        let next = grown.clamp(f64::from(rules.min), f64::from(rules.max));
        self.limit.store((next * f64::from(PARTS)) as u32, Ordering::Relaxed);
    }

    /// The best mean of this epoch and the one before, with this one.
    fn best_with(&self, mean: u64, now: Moment) -> u64 {
        let epoch = now.as_nanos() / EPOCH.as_nanos() as u64 + 1;
        let known = self.epoch.swap(epoch, Ordering::Relaxed);
        let mut best = self.best_us.load(Ordering::Relaxed);
        if known != epoch {
            self.best_before_us.store(if known + 1 == epoch { best } else { 0 }, Ordering::Relaxed);
            best = 0;
        }
        let best = if best == 0 { mean } else { best.min(mean) };
        self.best_us.store(best, Ordering::Relaxed);
        match self.best_before_us.load(Ordering::Relaxed) {
            0 => best,
            before => before.min(best),
        }
    }

    /// What there is to see.
    pub fn sight(&self, rules: &Rules) -> Sight {
        let best = self.best_us.load(Ordering::Relaxed);
        let best = match self.best_before_us.load(Ordering::Relaxed) {
            0 => best,
            before => before.min(best),
        };
        Sight {
            limit: self.limit(rules),
            under_way: self.under_way.load(Ordering::Relaxed),
            latency: Duration::from_micros(self.mean_us.load(Ordering::Relaxed)),
            best_latency: Duration::from_micros(best),
            shed: self.shed.load(Ordering::Relaxed),
            shed_low: self.shed_low.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { min: 4, max: 100, initial: 20, tolerance_percent: 50 };

    fn at(millis: u64) -> Moment {
        Moment::ZERO.plus(Duration::from_millis(millis))
    }

    /// So many windows, each with so many requests under way that take so long; the limit after.
    fn run(throttle: &Throttle, from: u64, windows: u64, busy: usize, millis: u64) -> u32 {
        for window in 0..windows {
            let passes: Vec<_> = (0..busy).map_while(|_| throttle.enter(&RULES, None)).collect();
            for _ in 0..SAMPLES_MIN {
                throttle.note(Duration::from_millis(millis), &RULES, at(from + (window + 1) * 101));
            }
            drop(passes);
        }
        throttle.limit(&RULES)
    }

    #[test]
    fn the_limit_grows_while_it_is_used_and_answers_are_quick() {
        let throttle = Throttle::default();
        assert_eq!(run(&throttle, 0, 5, 1, 10), 20, "nobody needs more");
        let grown = run(&throttle, 1000, 5, 20, 10);
        assert_eq!(grown, 40, "twice what is made use of");
        assert_eq!(run(&throttle, 2000, 50, 100, 10), 100, "the most there may be");
    }

    #[test]
    fn the_limit_shrinks_where_answers_become_slower_and_recovers() {
        let throttle = Throttle::default();
        let before = run(&throttle, 0, 5, 20, 10);
        let slow = run(&throttle, 1000, 10, 20, 100);
        assert!(slow <= 8 && slow < before, "{slow} after {before}");
        assert_eq!(run(&throttle, 3000, 10, 0, 100), 4, "the least there may be");
        let again = run(&throttle, 5000, 20, 50, 10);
        assert!(again > 20, "{again}");
        assert!(run(&throttle, 8000, 5, 50, 14) >= again, "half as slow again is tolerated");
    }

    #[test]
    fn what_was_best_long_ago_is_forgotten() {
        let throttle = Throttle::default();
        run(&throttle, 0, 5, 20, 10);
        assert_eq!(throttle.best_with(100_000, at(31_000)), 10_000, "it counts on for an epoch");
        assert_eq!(throttle.best_with(100_000, at(61_000)), 100_000);
        assert_eq!(throttle.best_with(50_000, at(200_000)), 50_000);
    }

    #[test]
    fn no_more_are_let_in_than_may_be_and_low_priority_goes_first() {
        let throttle = Throttle::default();
        let mut passes: Vec<_> = (0..10).filter_map(|_| throttle.enter(&RULES, Some(50))).collect();
        assert_eq!(passes.len(), 10);
        assert!(throttle.enter(&RULES, Some(50)).is_none(), "half of it is theirs");
        passes.extend((0..15).filter_map(|_| throttle.enter(&RULES, None)));
        assert_eq!(passes.len(), 20);
        let sight = throttle.sight(&RULES);
        assert_eq!((sight.under_way, sight.shed, sight.shed_low), (20, 6, 1));
        drop(passes);
        assert_eq!(throttle.sight(&RULES).under_way, 0);
        let single = Rules { initial: 1, ..RULES };
        assert!(throttle.enter(&single, Some(1)).is_some(), "an idle upstream serves anybody");
    }

    #[test]
    fn threads_together_keep_to_the_limit() {
        let throttle = Throttle::default();
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let passes: Vec<_> = (0..10).filter_map(|_| throttle.enter(&RULES, None)).collect();
                        most.fetch_add(passes.len() as u32, Ordering::Relaxed);
                        assert!(most.load(Ordering::Relaxed) <= 20);
                        most.fetch_sub(passes.len() as u32, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(throttle.sight(&RULES).under_way, 0);
    }

    #[test]
    fn who_is_refused_is_told_when_there_may_be_room() {
        let throttle = Throttle::default();
        assert_eq!(throttle.retry_after(&RULES), 1);
        throttle.mean_us.store(2_500_000, Ordering::Relaxed);
        throttle.under_way.store(20, Ordering::Relaxed);
        assert_eq!(throttle.retry_after(&RULES), 3);
        throttle.mean_us.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(throttle.retry_after(&RULES), 60);
        throttle.under_way.store(0, Ordering::Relaxed);
    }
}
