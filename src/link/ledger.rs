//! Counters all cores share, for limits that count the whole process: exact, without a lock.
//!
//! An [`Account`] is a word or two, changed by compare-and-swap as `base::window` says, so the sum over all cores can
//! never exceed the limit. Finding the account by key takes a lock, but not for keys that come often: cores remember where their accounts
//! are in a table of their own (see [`Purse`]). The decision record on exact limits says why accounts are not
//! leased out in portions.
//!
//! There is room for so many accounts ([`ACCOUNTS_MAX`]). One that is still in force is never closed for another: when a
//! new key finds no room, it is counted together with the other new keys of its limit in one account, the crowd's. So no
//! key ever gets more than its limit, and keys that come while all places are taken may get less.
//!
//! A million accounts take 60 MB with what a core remembers of them: 48 bytes each in chunks that never move
//! (`shelf`), 8 in tables from prints to places, 8 for each key in a purse.

mod account;
mod gauge;
mod kept;
mod purse;
mod shelf;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::base::clock::{Moment, UnixMs};
use crate::base::window::long::Long;
use crate::base::window::quota::{Gauge, When};
use kept::Kept;
use purse::Found;
use shelf::Shelf;

pub use crate::base::window::Spent;
pub use account::Account;
pub use gauge::Mark;
pub use kept::{Keepsake, KeptAccount, KeptId};
pub use purse::{HeldAccount, PURSE_MAX, Purse};

/// Accounts a process keeps: a million, and some more, because keys do not fall evenly on shards. They take about 64 MB.
pub const ACCOUNTS_MAX: usize = 1 << 20;
const SHARDS: usize = 64;

/// Wall time at the first moment of the process. Windows are aligned by it, and do not move when the wall clock is set.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(UnixMs);

impl Epoch {
    /// Milliseconds since 1970 at a moment, by the wall clock as it was at the start.
    pub const fn at(self, moment: Moment) -> u64 {
        self.0.saturating_add(moment.as_millis())
    }

    /// The moment at such a time, if the process was there.
    const fn back(self, at: UnixMs) -> Moment {
        Moment::ZERO.plus(Duration::from_millis(at.saturating_sub(self.0)))
    }
}

/// The name of an account: what it counts, and of whose.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub bytes: &'a [u8],
    /// So many of the bytes name the limit; the others are the key.
    pub limit: usize,
}

/// A keyed hash as long as none to be met twice. Two keys with the same would share an account.
type Print = (u64, u64);

/// All accounts of the process, by key.
#[derive(Debug)]
pub struct Ledger {
    shelves: Vec<Shelf>,
    hashers: [ahash::RandomState; 2],
    room: usize,
    epoch: Epoch,
    crowded: AtomicU64,
    purses: AtomicUsize,
    kept: Kept,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::with_room(ACCOUNTS_MAX)
    }

    /// An empty ledger for so many accounts, in all shards together.
    pub fn with_room(accounts: usize) -> Self {
        let room = accounts.div_ceil(SHARDS).clamp(1, shelf::PLACES_MAX as usize);
        let epoch = crate::base::clock::wall().saturating_sub(crate::base::clock::now().as_millis());
        Self {
            shelves: (0..SHARDS).map(|_| Shelf::new(room as u32)).collect(),
            hashers: [ahash::RandomState::new(), ahash::RandomState::new()],
            room,
            epoch: Epoch(epoch),
            crowded: AtomicU64::new(0),
            purses: AtomicUsize::new(0),
            kept: Kept::default(),
        }
    }

    /// Keeps accounts of long windows from here on, beginning with what was kept before.
    pub fn keep(&self, keepsake: Keepsake) {
        self.kept.begin(keepsake, self.epoch.at(crate::base::clock::now()));
    }

    /// All that is worth keeping now; `None` where nothing is kept.
    pub fn keepsake(&self, now: Moment) -> Option<Keepsake> {
        self.kept.save(self.epoch.at(now), |place, generation| {
            let account = self.at(place);
            let words = account.words();
            let until = account.third.load(Ordering::Acquire);
            // A place that was given to somebody else says so before its words do.
            let is_it = account.generation() == generation;
            is_it.then(|| (words, self.epoch.at(Moment::from_nanos(until))))
        })
    }

    /// What spending `cost` from an account would come to. Opens none, and changes nothing.
    pub fn look(&self, name: &[u8], gauge: &Gauge, now: Moment, cost: u64) -> Spent {
        let when = self.when(now);
        let looked = self.find(name, |account| account.look(gauge, when, cost));
        looked.unwrap_or_else(|| gauge.look(self.kept.words(name)[0], when, cost))
    }

    /// The words of an account, as they are now; of one that was kept as they were; as those of a fresh one where there is none.
    pub fn words(&self, name: &[u8]) -> [u64; 2] {
        self.find(name, Account::words).unwrap_or_else(|| self.kept.words(name))
    }

    /// How many seats of an account are taken.
    pub fn seated(&self, name: &[u8]) -> u64 {
        self.find(name, Account::seated).unwrap_or(0)
    }

    fn find<R>(&self, name: &[u8], look: impl FnOnce(&Account) -> R) -> Option<R> {
        let print = self.print(name);
        let shelf = &self.shelves[shard_of(print)];
        let desk = shelf.lock();
        let place = shelf.find(&desk, print)?;
        Some(look(shelf.at(place)))
    }

    /// The account in a place.
    #[inline]
    fn at(&self, place: u32) -> &Account {
        self.shelves[place as usize % SHARDS].at(place / SHARDS as u32)
    }

    /// A moment by both clocks.
    pub const fn when(&self, now: Moment) -> When {
        When { moment: now, unix_ms: self.epoch.at(now) }
    }

    /// What windows are aligned by that are not started by their first use.
    pub const fn since_epoch(&self) -> Epoch {
        self.epoch
    }

    /// How often a key was counted in an account that it shares, because all places were taken.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// How many accounts there are. Takes every lock: for those who look, once in a while.
    pub fn accounts(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().accounts()).sum()
    }

    /// Accounts that each purse may hold open.
    fn purse_share(&self) -> usize {
        let share = self.room * SHARDS / 2 / self.purses.load(Ordering::Relaxed).max(1);
        share.clamp(1, PURSE_MAX)
    }

    fn purse_comes(&self) {
        self.purses.fetch_add(1, Ordering::Relaxed);
    }

    fn purse_goes(&self) {
        self.purses.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn print(&self, bytes: &[u8]) -> Print {
        (self.hashers[0].hash_one(bytes), self.hashers[1].hash_one(bytes))
    }

    /// Runs `visit` on the account of a key, opened if need be, under the lock.
    fn visit<R>(
        &self,
        print: Print,
        (now, name, keep): (Moment, Name<'_>, Option<Long>),
        visit: impl FnOnce(&Account, Found<'_>) -> R,
    ) -> R {
        let shard = shard_of(print);
        let shelf = &self.shelves[shard];
        let mut desk = shelf.lock();
        let number = |place: u32| place * SHARDS as u32 + shard as u32;
        if let Some(place) = shelf.find(&desk, print) {
            return visit(shelf.at(place), Found::Placed(number(place)));
        }
        let limit = || self.print(&name.bytes[..name.limit]);
        if !desk.crowds.is_empty() {
            // The key may have been counted there: as long as that counts, it is not counted anew.
            desk.crowds.retain(|_, crowd| Arc::strong_count(crowd) > 1 || crowd.is_in_force(now));
            if let Some(crowd) = desk.crowds.get(&limit()) {
                self.crowded.fetch_add(1, Ordering::Relaxed);
                return visit(crowd, Found::Crowd(crowd));
            }
        }
        if let Some(place) = shelf.open(&mut desk, print, now) {
            let account = shelf.at(place);
            // Nobody has found it yet.
            let known =
                keep.and_then(|long| self.kept.open(name.bytes, long, (number(place), account.generation())));
            if let Some((words, until)) = known {
                account.restore(words, self.epoch.back(until));
            }
            return visit(account, Found::Placed(number(place)));
        }
        self.crowded.fetch_add(1, Ordering::Relaxed);
        let crowd = desk.crowds.entry(limit()).or_default();
        visit(crowd, Found::Crowd(crowd))
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// Which lock a print is under.
const fn shard_of(print: Print) -> usize {
    (print.0 >> 32) as usize % SHARDS
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
