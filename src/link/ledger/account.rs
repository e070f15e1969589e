//! One account: its words, how they are changed, and whether they still say anything.
//!
//! A line of the cache each: two that are busy on two cores do not meet. Who finds an account holds its shard's lock, or has it
//! held open; see the module above. Accounts that no core remembers are rows of a table, and become this for the moment that
//! they are spent from.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Epoch, Print};
use crate::base::clock::Moment;
use crate::base::window::{Fixed, Leaky, Seats, Slide, Sliding, Spent, Turn};

/// When an account says something that a fresh one would not: until the moment in its third word.
const UNTIL: u32 = 0;
/// The same: while its first word is not zero.
const ALWAYS: u32 = 1;
/// The same: until the first word, which is a moment, and the time in the second word after it.
const BY_TURN: u32 = 2;
/// The same: until the first word, which is a moment.
const BY_FULL: u32 = 3;

/// One counter, or one breaker (see [`crate::link::breaker`]).
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Account {
    /// What it is found by; zero in a place that nobody has.
    print: AtomicU64,
    pub(in crate::link) first: AtomicU64,
    /// How many there are who have it held open.
    holders: AtomicU32,
    /// Which rule says when it is in force.
    rule: AtomicU32,
    /// Of a bucket: what was ever given back.
    pub(in crate::link) second: AtomicU64,
    /// Until when the words matter; of a bucket what somebody has begun to give back.
    pub(super) third: AtomicU64,
}

impl Account {
    /// Spends `cost` in a window that starts with its first use.
    #[inline]
    pub fn spend_fixed(&self, fixed: &Fixed, window: Duration, now: Moment, cost: u64) -> Spent {
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            let (spent, next) = fixed.spend(seen, now, cost);
            let Some(next) = next else { return spent };
            match self.first.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // A window that begins; whoever looks whether the account may be closed finds it held meanwhile.
                    if next >> 32 != seen >> 32 || seen == 0 {
                        self.matters_until(now.plus(window));
                    }
                    return spent;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Spends `cost` in windows aligned to multiples of their length, by the clock of `Ledger::since_epoch`.
    pub fn spend_sliding(&self, sliding: &Sliding, now: Moment, epoch: Epoch, cost: u64) -> Spent {
        let now_ms = epoch.at(now);
        let words = [&self.first, &self.second];
        loop {
            // What is not swapped stands still while the other is what it was: see `Sliding`.
            let seen = words.map(|word| word.load(Ordering::Acquire));
            let (at, next, spent) = match sliding.step(seen, now_ms, cost) {
                Slide::Refuse(spent) => return spent,
                Slide::Move { word, next } => {
                    let until = Duration::from_millis(sliding.matters_ms(now_ms) - now_ms);
                    self.matters_until(now.plus(until));
                    (word, next, None)
                }
                Slide::Admit { word, next, spent } => (word, next, Some(spent)),
            };
            let swapped = words[at].compare_exchange(seen[at], next, Ordering::AcqRel, Ordering::Acquire);
            if let (Ok(_), Some(spent)) = (swapped, spent) {
                return spent;
            }
        }
    }

    /// Takes a turn of a leaky bucket.
    pub fn take_turn(&self, bucket: &Leaky, now: Moment) -> Turn {
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            let turn = bucket.ask(seen, now);
            let Turn::Mine { next, .. } = turn else { return turn };
            match self.first.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if seen == 0 => {
                    self.second.store(bucket.spacing_ns(), Ordering::Relaxed);
                    self.rule.fetch_or(BY_TURN, Ordering::Relaxed);
                    return turn;
                }
                Ok(_) => return turn,
                Err(other) => seen = other,
            }
        }
    }

    /// Takes one of so many seats; how many are taken with it. To be given back by [`Self::leave`], by somebody who has
    /// the account held open until then.
    pub fn enter(&self, seats: &Seats) -> Option<u64> {
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            let taken = seats.enter(seen)?;
            match self.first.compare_exchange_weak(seen, taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(taken),
                Err(other) => seen = other,
            }
        }
    }

    /// Gives a seat back.
    pub fn leave(&self) {
        self.first.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many seats are taken.
    pub fn seated(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    /// Keeps the account open, whatever the time is, while its first word is not zero.
    pub(in crate::link) fn matters_always(&self) {
        self.rule.fetch_or(ALWAYS, Ordering::Relaxed);
    }

    /// The same until its first word, which is a moment.
    pub(super) fn matters_while_filling(&self) {
        self.rule.fetch_or(BY_FULL, Ordering::Relaxed);
    }

    /// The same until a moment.
    pub(super) fn matters_until(&self, until: Moment) {
        self.third.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Its first two words.
    pub(super) fn words(&self) -> [u64; 2] {
        [self.first.load(Ordering::Acquire), self.second.load(Ordering::Acquire)]
    }

    /// Until when its words matter, if time alone says so.
    pub(super) fn until(&self) -> Moment {
        Moment::from_nanos(self.third.load(Ordering::Acquire))
    }

    /// What it is found by.
    #[inline]
    pub(super) fn print(&self) -> Print {
        self.print.load(Ordering::Acquire)
    }

    /// One with all that it says, held by nobody.
    #[inline]
    pub(super) const fn with(print: Print, rule: u32, words: [u64; 3]) -> Self {
        Self {
            print: AtomicU64::new(print),
            first: AtomicU64::new(words[0]),
            holders: AtomicU32::new(0),
            rule: AtomicU32::new(rule),
            second: AtomicU64::new(words[1]),
            third: AtomicU64::new(words[2]),
        }
    }

    /// The rule and all words.
    #[inline]
    pub(super) fn parts(&mut self) -> (u32, [u64; 3]) {
        (*self.rule.get_mut(), [*self.first.get_mut(), *self.second.get_mut(), *self.third.get_mut()])
    }

    /// The same of one that others may see; under the lock and held by nobody.
    pub(super) fn told(&self) -> Self {
        let words = [&self.first, &self.second, &self.third].map(|word| word.load(Ordering::Acquire));
        Self::with(self.print(), self.rule.load(Ordering::Acquire), words)
    }

    /// Makes it what another one is, under the lock and held by nobody.
    pub(super) fn become_of(&self, mut other: Self) {
        let (rule, words) = other.parts();
        self.rule.store(rule, Ordering::Release);
        for (word, value) in [&self.first, &self.second, &self.third].into_iter().zip(words) {
            word.store(value, Ordering::Release);
        }
        self.print.store(other.print(), Ordering::Release);
    }

    /// Makes its place nobody's.
    pub(super) fn leave_place(&self) {
        self.print.store(0, Ordering::Release);
    }

    /// Holds it open: whoever calls has the lock, or holds it already.
    pub(super) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Holds it no more. What was done to it before is seen by whoever closes it.
    pub(super) fn let_go(&self) {
        self.holders.fetch_sub(1, Ordering::Release);
    }

    /// Whether nobody holds it. Under the lock that stays so.
    pub(super) fn is_free(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0
    }

    /// Whether its words say anything that a fresh account would not.
    pub(super) fn is_in_force(&self, now: Moment) -> bool {
        let (rule, words) = self.told().parts();
        is_in_force(rule, words, now)
    }
}

/// Whether words say anything that those of a fresh account would not, by their rule.
pub(super) const fn is_in_force(rule: u32, words: [u64; 3], now: Moment) -> bool {
    match rule {
        UNTIL => words[2] > now.as_nanos(),
        ALWAYS => words[0] != 0,
        BY_TURN => words[0].saturating_add(words[1]) > now.as_nanos(),
        _ => words[0] > now.as_nanos(),
    }
}
