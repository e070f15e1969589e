//! One account: its words, how they are changed, and whether they still say anything.
//!
//! 32 bytes. Who finds an account holds its shard's lock, or has it held on the shelf; see the module above.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{Epoch, Print};
use crate::base::clock::Moment;
use crate::base::window::log::{Log, PLACES};
use crate::base::window::long::Long;
use crate::base::window::{Fixed, Leaky, Seats, Slide, Sliding, Spent, Turn};

/// Bits of a tag that say which rule holds; the others are the print's, but for the next.
const RULE: u64 = 3;
/// The account is on the shelf, in the place that the first word says.
const SHELVED: u64 = 4;
/// When an account says something that a fresh one would not: until the moment in its third word.
const UNTIL: u64 = 0;
/// The same: while its first word is not zero.
const ALWAYS: u64 = 1;
/// The same: until the first word, which is a moment, and the time in the second word after it.
const BY_TURN: u64 = 2;
/// The same: until the first word, which is a moment.
const BY_FULL: u64 = 3;

/// One counter, or one breaker (see [`crate::link::breaker`]).
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct Account {
    /// What it is found by, and a few bits more. Zero where there is none.
    tag: AtomicU64,
    pub(in crate::link) first: AtomicU64,
    /// Of a bucket: what was ever given back.
    pub(in crate::link) second: AtomicU64,
    /// Until when the words matter; of a bucket what somebody has begun to give back.
    pub(super) third: AtomicU64,
}

/// An account that somebody holds on to, on the shelf: a line of the cache to itself, so that two that are busy on two cores do
/// not meet.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Held {
    pub(super) account: Account,
    /// How many there are who hold it.
    holders: AtomicU32,
    /// Which board its portions are on, with one more: zero is none.
    board: AtomicU32,
    /// How often a swap failed, nearly.
    fought: AtomicU32,
}

impl Held {
    /// Holds it: whoever calls has the lock, or holds it already.
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

    /// Which board it has, with one more.
    #[inline]
    pub(super) fn board(&self) -> u32 {
        self.board.load(Ordering::Acquire)
    }

    /// Gives it a board, or none; under the lock of boards.
    pub(super) fn set_board(&self, board: u32) {
        self.fought.store(0, Ordering::Relaxed);
        self.board.store(board, Ordering::Release);
    }

    /// Counts a swap that failed; how many did. One that is not counted, because two failed at once, is no loss.
    pub(super) fn fought(&self) -> u32 {
        let fought = self.fought.load(Ordering::Relaxed).saturating_add(1);
        self.fought.store(fought, Ordering::Relaxed);
        fought
    }
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

    /// Gives back `cost` that [`Self::spend_fixed`] or whoever else spends of such windows has spent at `now`, when it told that the window lasts so long.
    pub fn give_back_fixed(&self, fixed: &Fixed, spent_at: (Moment, Duration), cost: u64) {
        // It fails only where the window is over.
        let back = |word| fixed.give_back(word, spent_at, cost);
        let _ = self.first.fetch_update(Ordering::AcqRel, Ordering::Acquire, back);
    }

    /// Gives back `cost` that [`Self::spend_sliding`] has spent at `now`.
    pub fn give_back_sliding(&self, sliding: &Sliding, now: Moment, epoch: Epoch, cost: u64) {
        let words = [&self.first, &self.second];
        loop {
            let seen = words.map(|word| word.load(Ordering::Acquire));
            let Some((at, next)) = sliding.give_back(seen, epoch.at(now), cost) else { return };
            if words[at].compare_exchange(seen[at], next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }

    /// Takes a turn of a leaky bucket.
    pub fn take_turn(&self, bucket: &Leaky, now: Moment) -> Turn {
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            let turn = bucket.ask(seen, now);
            let Turn::Mine { next, .. } = turn else {
                return turn;
            };
            match self.first.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if seen == 0 => {
                    self.second.store(bucket.spacing_ns(), Ordering::Relaxed);
                    self.tag.fetch_or(BY_TURN, Ordering::Relaxed);
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

    /// Takes one of so many places of a log from now until then, if one is free.
    pub fn take_place(&self, places: usize, (now, until): (Moment, u64)) -> bool {
        [&self.first, &self.second].into_iter().take(places).any(|word| {
            let mut seen = word.load(Ordering::Relaxed);
            while Log::is_free(seen, now) {
                match word.compare_exchange_weak(seen, until, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.matters_until(Moment::from_nanos(until));
                        return true;
                    }
                    Err(other) => seen = other,
                }
            }
            false
        })
    }

    /// Gives a place back that was taken until then; whether there was one. Of two alike it does not matter which.
    pub fn give_place_back(&self, until: u64) -> bool {
        let mut words = [&self.first, &self.second].into_iter();
        words.any(|word| word.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }

    /// Its places of a log.
    pub fn places(&self) -> [u64; PLACES] {
        self.words()
    }

    /// How many seats are taken.
    pub fn seated(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    /// Keeps the account open, whatever the time is, while its first word is not zero.
    pub(in crate::link) fn matters_always(&self) {
        self.tag.fetch_or(ALWAYS, Ordering::Relaxed);
    }

    /// The same until its first word, which is a moment.
    pub(super) fn matters_while_filling(&self) {
        self.tag.fetch_or(BY_FULL, Ordering::Relaxed);
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

    /// No account.
    pub(super) const fn none() -> Self {
        Self::fresh(0)
    }

    /// One that nothing was done to.
    pub(super) const fn fresh(print: Print) -> Self {
        Self {
            tag: AtomicU64::new(print),
            first: AtomicU64::new(0),
            second: AtomicU64::new(0),
            third: AtomicU64::new(0),
        }
    }

    /// Whether there is none. Prints are never zero.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.tag.load(Ordering::Relaxed) == 0
    }

    /// What it is found by.
    #[inline]
    pub(super) fn print(&self) -> Print {
        self.tag.load(Ordering::Acquire) & !(RULE | SHELVED)
    }

    /// Whether it is that key's.
    #[inline]
    pub(super) fn is_of(&self, print: Print) -> bool {
        self.tag.load(Ordering::Relaxed) ^ print <= (RULE | SHELVED)
    }

    /// The place on the shelf, if that is where it is.
    #[inline]
    pub(super) fn place(&self) -> Option<u32> {
        let is_shelved = self.tag.load(Ordering::Relaxed) & SHELVED != 0;
        is_shelved.then(|| self.first.load(Ordering::Relaxed) as u32)
    }

    /// Says in which place on the shelf it is, under the lock.
    pub(super) fn shelve(&self, place: u32) {
        self.tag.fetch_or(SHELVED, Ordering::Relaxed);
        self.first.store(u64::from(place), Ordering::Relaxed);
    }

    /// Makes it what another one is, under the lock and held by nobody.
    pub(super) fn become_of(&self, other: &Self) {
        self.tag.store(other.tag.load(Ordering::Acquire), Ordering::Release);
        self.first.store(other.first.load(Ordering::Acquire), Ordering::Release);
        self.second.store(other.second.load(Ordering::Acquire), Ordering::Release);
        self.third.store(other.third.load(Ordering::Acquire), Ordering::Release);
    }

    /// Takes words that were kept beyond a process, before anybody has found it.
    pub(super) fn restore(&self, words: [u64; 2], until: Moment) {
        self.first.store(words[0], Ordering::Relaxed);
        self.second.store(words[1], Ordering::Relaxed);
        self.third.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// Adds what somebody who keeps the same account beside us has spent, and until when that matters: see [`Long::join`].
    pub(super) fn join(&self, long: Long, theirs: [u64; 2], before: [u64; 2], until: Moment) {
        for (at, word) in [&self.first, &self.second].into_iter().enumerate() {
            let joined = |ours| long.join(ours, theirs[at], before[at]);
            // It fails only where nothing is to be added.
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, joined);
        }
        self.matters_until(until);
    }

    /// Whether its words say anything that a fresh account would not.
    pub(super) fn is_in_force(&self, now: Moment) -> bool {
        let first = self.first.load(Ordering::Relaxed);
        match self.tag.load(Ordering::Relaxed) & RULE {
            UNTIL => self.third.load(Ordering::Relaxed) > now.as_nanos(),
            ALWAYS => first != 0,
            BY_TURN => first.saturating_add(self.second.load(Ordering::Relaxed)) > now.as_nanos(),
            _ => first > now.as_nanos(),
        }
    }
}
