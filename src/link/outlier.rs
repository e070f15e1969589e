//! Outliers: nodes that fail, or fail more than their neighbours, and get no requests for a while. One verdict for all
//! cores, beside that of [checks](super::health), and with nobody to ask: time alone brings a node back.
//!
//! A node is ejected after so many bad answers in a row, or when it does less well than the others together. Each time within
//! the longest time is longer by the first, and no more than a share of the nodes is out at once.
//!
//! Good news of a node without a bad row reads a word, and counts in another only where success is compared.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::Moment;

/// What makes a node an outlier, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Answers of 500 and more in a row, or none at all; 0 is never.
    pub failures_in_row: u32,
    /// The same of 502, 503, 504 and no answer.
    pub gateway_failures_in_row: u32,
    pub rate: Option<Rate>,
    /// How long the first time is, and by how much each further one is longer.
    pub base: Duration,
    pub longest: Duration,
    /// Most nodes that are out at once.
    pub share_max_percent: u32,
}

/// When a node does less well than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Its share of good answers, in percent of the others', below which it is out.
    pub percent: u32,
    /// How many requests it must have had, and the others together, within the window.
    pub requests_min: u32,
    pub window: Duration,
}

/// How a request ended for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    /// 500 and above, but for those below.
    Failure,
    /// 502, 503, 504, or no answer.
    GatewayFailure,
}

impl Outcome {
    pub const fn of(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            500.. => Self::Failure,
            _ => Self::Good,
        }
    }
}

/// Why a node is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Failures(u32),
    GatewayFailures(u32),
    /// Good answers in percent: its own, and the others'.
    Rate {
        own: u32,
        others: u32,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failures(count) => write!(f, "{count} answers of 500 and more, or none, in a row"),
            Self::GatewayFailures(count) => {
                write!(f, "{count} answers of 502, 503 or 504, or none, in a row")
            }
            Self::Rate { own, others } => {
                write!(f, "{own} % of its answers were good, of the others' {others} %")
            }
        }
    }
}

/// Bits of each count of a window.
const COUNT_BITS: u32 = 20;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// What a window counts: one word, so that it changes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    /// Its number, cut to what there is room for.
    number: u64,
    all: u64,
    good: u64,
}

impl Window {
    const fn pack(self) -> u64 {
        self.number << (2 * COUNT_BITS) | self.all << COUNT_BITS | self.good
    }

    const fn unpack(word: u64) -> Self {
        Self { number: word >> (2 * COUNT_BITS), all: word >> COUNT_BITS & COUNT_MAX, good: word & COUNT_MAX }
    }

    fn at(now: Moment, window: Duration) -> u64 {
        let number = u128::from(now.as_nanos()) / window.as_nanos().max(1);
        number as u64 & ((1 << (64 - 2 * COUNT_BITS)) - 1)
    }

    const fn percent(self) -> u32 {
        (self.good * 100 / if self.all > 0 { self.all } else { 1 }) as u32
    }
}

/// What all cores know of one node.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Outlier {
    /// Failures in a row, and of those of gateways.
    failures: AtomicU32,
    gateway_failures: AtomicU32,
    window: AtomicU64,
    /// Until when it is out, in nanoseconds.
    until: AtomicU64,
    /// How long the last time was, in nanoseconds, and how often it was out.
    last: AtomicU64,
    times: AtomicU64,
}

impl Outlier {
    /// Whether the node gets no requests.
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.until.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// How long it still gets none.
    pub fn left(&self, now: Moment) -> Duration {
        Moment::from_nanos(self.until.load(Ordering::Relaxed)).since(now)
    }

    /// How often it was ejected.
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    /// Takes in how a request ended; why the node is to be ejected, if it is. `others` are the other nodes.
    pub fn note<'a>(
        &self,
        outcome: Outcome,
        rules: &Rules,
        others: impl Iterator<Item = &'a Self>,
        now: Moment,
    ) -> Option<Cause> {
        let window = rules.rate.map(|rate| self.count(outcome == Outcome::Good, rate.window, now));
        if outcome == Outcome::Good {
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            if self.gateway_failures.load(Ordering::Relaxed) != 0 {
                self.gateway_failures.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let gateway_failures = match outcome {
            Outcome::GatewayFailure => {
                self.gateway_failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
            }
            Outcome::Good | Outcome::Failure => {
                self.gateway_failures.store(0, Ordering::Relaxed);
                0
            }
        };
        let reaches = |count: u32, limit: u32| limit > 0 && count >= limit;
        if reaches(gateway_failures, rules.gateway_failures_in_row) {
            return Some(Cause::GatewayFailures(gateway_failures));
        }
        if reaches(failures, rules.failures_in_row) {
            return Some(Cause::Failures(failures));
        }
        let (rate, own) = (rules.rate?, window?);
        rate.judge(own, others)
    }

    fn count(&self, is_good: bool, window: Duration, now: Moment) -> Window {
        let number = Window::at(now, window);
        let add = |word| {
            let before = Window::unpack(word);
            let kept = if before.number == number { before } else { Window { number, ..Window::default() } };
            // A window with more is as good a sample as it was.
            (kept.all < COUNT_MAX)
                .then(|| Window { all: kept.all + 1, good: kept.good + u64::from(is_good), ..kept }.pack())
        };
        match self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(before) => add(before).map_or_else(Window::default, Window::unpack),
            Err(full) => Window::unpack(full),
        }
    }

    /// Takes the node out, unless too many of `all` are; for how long, if so.
    pub fn eject<'a>(
        &self,
        all: impl Iterator<Item = &'a Self>,
        rules: &Rules,
        door: &Door,
        now: Moment,
    ) -> Option<Duration> {
        let _inside = door.enter()?;
        if self.is_ejected(now) {
            return None;
        }
        let (nodes, out) =
            all.fold((0_u64, 0_u64), |(nodes, out), node| (nodes + 1, out + u64::from(node.is_ejected(now))));
        if (out + 1) * 100 > nodes * u64::from(rules.share_max_percent) {
            return None;
        }
        let ended = Moment::from_nanos(self.until.load(Ordering::Relaxed));
        let before = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        let is_repeated = ended != Moment::ZERO && now.since(ended) < rules.longest;
        let time = if is_repeated { before + rules.base } else { rules.base }.min(rules.longest);
        self.last.store(time.as_nanos() as u64, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.gateway_failures.store(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
        self.times.fetch_add(1, Ordering::Relaxed);
        self.until.store(now.plus(time).as_nanos(), Ordering::Relaxed);
        Some(time)
    }
}

impl Rate {
    /// Whether a node does less well than the others together.
    fn judge<'a>(&self, own: Window, others: impl Iterator<Item = &'a Outlier>) -> Option<Cause> {
        // Others can not do better than well, so most nodes need not be compared.
        if own.all < u64::from(self.requests_min) || own.good * 100 >= own.all * u64::from(self.percent) {
            return None;
        }
        let windows = others.map(|other| Window::unpack(other.window.load(Ordering::Relaxed)));
        let (all, good) = windows
            .filter(|window| window.number == own.number)
            .fold((0, 0), |(all, good), window| (all + window.all, good + window.good));
        if all < u64::from(self.requests_min) {
            return None;
        }
        // own.good / own.all < percent / 100 * good / all
        let is_below = u128::from(own.good) * u128::from(all) * 100
            < u128::from(good) * u128::from(own.all) * u128::from(self.percent);
        let others = (good * 100 / all.max(1)) as u32;
        is_below.then(|| Cause::Rate { own: own.percent(), others })
    }
}

/// One at a time takes a node out, so that two can not both take the last one that may be; who comes second leaves it to
/// the next failure.
#[derive(Debug, Default)]
pub struct Door(AtomicBool);

struct Inside<'d>(&'d Door);

impl Door {
    fn enter(&self) -> Option<Inside<'_>> {
        (!self.0.swap(true, Ordering::Acquire)).then_some(Inside(self))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        failures_in_row: 5,
        gateway_failures_in_row: 3,
        rate: None,
        base: Duration::from_secs(30),
        longest: Duration::from_secs(100),
        share_max_percent: 50,
    };
    const RATE: Rules = Rules {
        failures_in_row: 0,
        gateway_failures_in_row: 0,
        rate: Some(Rate { percent: 80, requests_min: 20, window: Duration::from_secs(10) }),
        ..RULES
    };

    fn at(seconds: u64) -> Moment {
        Moment::ZERO.plus(Duration::from_secs(seconds))
    }

    /// The causes that outcomes, a letter each, lead to.
    fn causes(letters: &str) -> Vec<Cause> {
        let node = Outlier::default();
        let outcome = |letter| match letter {
            'g' => Outcome::Good,
            'f' => Outcome::Failure,
            _ => Outcome::GatewayFailure,
        };
        letters
            .chars()
            .filter_map(|letter| node.note(outcome(letter), &RULES, std::iter::empty(), at(1)))
            .collect()
    }

    #[test]
    fn so_many_failures_in_a_row_are_too_many() {
        assert_eq!(causes("ffffgffff"), []);
        assert_eq!(causes("fffff"), [Cause::Failures(5)]);
        assert_eq!(causes("xxgxx"), []);
        assert_eq!(causes("xxx"), [Cause::GatewayFailures(3)]);
        assert_eq!(causes("xxfxx"), [Cause::Failures(5)], "each is a failure as well");
        assert_eq!([499, 500, 501, 502, 503, 504, 505].map(Outcome::of), {
            use Outcome::{Failure, GatewayFailure, Good};
            [Good, Failure, Failure, GatewayFailure, GatewayFailure, GatewayFailure, Failure]
        });
    }

    #[test]
    fn a_node_is_out_longer_each_time_and_comes_back_by_the_clock() {
        let (node, other, door) = (Outlier::default(), Outlier::default(), Door::default());
        let both = || [&node, &other].into_iter();
        let mut now = 1;
        for expected in [30, 60, 90, 100, 100] {
            let time = node.eject(both(), &RULES, &door, at(now)).expect("may be");
            assert_eq!(time.as_secs(), expected);
            assert!(node.is_ejected(at(now + expected - 1)) && !node.is_ejected(at(now + expected)));
            assert_eq!(node.eject(both(), &RULES, &door, at(now + 1)), None, "it is out");
            now += expected + 1;
        }
        assert_eq!(node.times(), 5);
        assert_eq!(node.eject(both(), &RULES, &door, at(now + 101)).map(|time| time.as_secs()), Some(30));
    }

    #[test]
    fn no_more_than_a_share_is_out() {
        for (percent, expected) in [(0, 0), (10, 0), (25, 1), (50, 2), (74, 2), (100, 4)] {
            let nodes: [Outlier; 4] = Default::default();
            let rules = Rules { share_max_percent: percent, ..RULES };
            let door = Door::default();
            let out = nodes.iter().filter(|node| node.eject(nodes.iter(), &rules, &door, at(1)).is_some());
            assert_eq!(out.count(), expected, "{percent} %");
        }
        let node = Outlier::default();
        assert_eq!(node.eject([&node].into_iter(), &RULES, &Door::default(), at(1)), None, "the only one");
    }

    #[test]
    fn two_threads_do_not_both_take_the_last_one() {
        for _ in 0..200 {
            let (nodes, door): ([Outlier; 2], _) = (Default::default(), Door::default());
            let out: usize = std::thread::scope(|scope| {
                let eject = |node: usize| nodes[node].eject(nodes.iter(), &RULES, &door, at(1)).is_some();
                let both = [0, 1].map(|node| scope.spawn(move || eject(node)));
                both.into_iter().map(|one| usize::from(one.join().expect("no panic"))).sum()
            });
            assert_eq!(out, 1);
        }
    }

    /// Whether a node with such a share of good answers is ejected beside others with theirs.
    fn is_below(own: u32, others: u32, count: u32) -> bool {
        let (node, peers): (Outlier, [Outlier; 2]) = Default::default();
        let outcome = |at: u32, percent: u32| {
            if at * percent % 100 < percent { Outcome::Good } else { Outcome::Failure }
        };
        for turn in 0..count {
            for peer in &peers {
                assert_eq!(peer.note(outcome(turn, others), &RATE, [&node].into_iter(), at(21)), None);
            }
        }
        let mut causes =
            (0..count).filter_map(|turn| node.note(outcome(turn, own), &RATE, peers.iter(), at(21)));
        causes.next().is_some()
    }

    #[test]
    fn a_node_that_does_less_well_than_the_others_is_an_outlier() {
        assert!(is_below(50, 100, 100));
        assert!(is_below(50, 90, 100));
        assert!(!is_below(50, 50, 100), "all are as bad");
        assert!(!is_below(95, 100, 100));
        assert!(!is_below(0, 100, 19), "too few to tell");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let node = Outlier::default();
        for second in 0..100 {
            let counted = node.count(true, Duration::from_secs(10), at(second));
            assert_eq!(counted.all, second % 10 + 1);
        }
        let full = Window { number: 3, all: COUNT_MAX, good: 1 };
        assert_eq!(Window::unpack(full.pack()), full);
        node.window.store(full.pack(), Ordering::Relaxed);
        assert_eq!(node.count(true, Duration::from_secs(10), at(30)), full);
    }
}
