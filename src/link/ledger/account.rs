//! One account: its words, how they are changed, and whether they still say anything.
//!
//! 48 bytes, in four lines of the cache three accounts: what is looked at for every request is in the first 32. Who finds
//! an account holds its shard's lock, or has it held open; see the module above.

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
/// The bits of a state that say which of these it is; the others say how often the place was given anew.
const RULE: u32 = 3;

/// One counter, or one breaker (see [`crate::link::breaker`]).
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct Account {
    print: [AtomicU64; 2],
    pub(in crate::link) first: AtomicU64,
    /// How many there are who have it held open.
    holders: AtomicU32,
    state: AtomicU32,
    /// Of a bucket: what was ever given back.
    pub(in crate::link) second: AtomicU64,
    /// Until when the words matter; of a bucket what somebody has begun to give back.
    pub(super) third: AtomicU64,
}

impl Account {
    /// Spends `cost` in a window that starts with its first use.
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
                    self.state.fetch_or(BY_TURN, Ordering::Relaxed);
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
        self.state.fetch_or(ALWAYS, Ordering::Relaxed);
    }

    /// The same until its first word, which is a moment.
    pub(super) fn matters_while_filling(&self) {
        self.state.fetch_or(BY_FULL, Ordering::Relaxed);
    }

    /// The same until a moment.
    pub(super) fn matters_until(&self, until: Moment) {
        self.third.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Its first two words.
    pub(super) fn words(&self) -> [u64; 2] {
        [self.first.load(Ordering::Acquire), self.second.load(Ordering::Acquire)]
    }

    /// Its words as they were kept beyond a process, before anybody has found it.
    pub(super) fn restore(&self, words: [u64; 2], until: Moment) {
        self.first.store(words[0], Ordering::Relaxed);
        self.second.store(words[1], Ordering::Relaxed);
        self.third.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// What it is found by.
    pub(super) fn print(&self) -> Print {
        (self.print[0].load(Ordering::Acquire), self.print[1].load(Ordering::Acquire))
    }

    /// How often the place was given to somebody else.
    pub(super) fn generation(&self) -> u32 {
        self.state.load(Ordering::Acquire) / (RULE + 1)
    }

    /// Makes it the fresh account of somebody, under the lock and held by nobody. What was there before is told from it by
    /// the generation, which changes first.
    pub(super) fn begin(&self, print: Print) {
        let generation = self.generation().wrapping_add(1);
        self.state.store(generation.wrapping_mul(RULE + 1), Ordering::Release);
        for (word, value) in [(&self.first, 0), (&self.second, 0), (&self.third, 0)] {
            word.store(value, Ordering::Release);
        }
        self.print[0].store(print.0, Ordering::Release);
        self.print[1].store(print.1, Ordering::Release);
    }

    /// Holds it open: whoever calls has the lock, or holds it already.
    pub(super) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Holds it no more. What was done to it before is seen by whoever closes it.
    pub(super) fn let_go(&self) {
        self.holders.fetch_sub(1, Ordering::Release);
    }

    /// Whether nobody holds it, and a fresh account would say the same. Under the lock that stays so.
    pub(super) fn is_free(&self, now: Moment) -> bool {
        self.holders.load(Ordering::Acquire) == 0 && !self.is_in_force(now)
    }

    /// Whether its words say anything that a fresh account would not.
    pub(super) fn is_in_force(&self, now: Moment) -> bool {
        let first = self.first.load(Ordering::Relaxed);
        match self.state.load(Ordering::Relaxed) & RULE {
            UNTIL => self.third.load(Ordering::Relaxed) > now.as_nanos(),
            ALWAYS => first != 0,
            BY_TURN => first.saturating_add(self.second.load(Ordering::Relaxed)) > now.as_nanos(),
            _ => first > now.as_nanos(),
        }
    }
}
