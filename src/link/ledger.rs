//! Counters all cores share, for limits that count the whole process: exact, without a lock.
//!
//! An [`Account`] is a word or two, changed by compare-and-swap as `base::window` says, so the sum over all cores can
//! never exceed the limit. Finding the account by key takes a lock, but not for keys that come often: cores remember where their accounts
//! are in a table of their own (see [`Purse`]). Those that cores fight over are given away in portions (`lease`), by
//! which no more is admitted and nobody is refused earlier.
//!
//! There is room for so many accounts ([`ACCOUNTS_MAX`]). One that is still in force is never closed for another: when a
//! new key finds no room, it is counted together with the other new keys of its limit in one account, the crowd's. So no
//! key ever gets more than its limit, and keys that come while all places are taken may get less.
//!
//! An account is a row of 32 bytes in a table under a lock (`table`) as long as nobody holds on to it. Those that cores remember, or
//! requests hold, are on a shelf (`shelf`), where they are reached without a lock: a line of the cache each. A million accounts
//! take 44 to 55 MB, with what is on the shelf and what two cores remember of them.

mod account;
mod gauge;
mod kept;
mod lease;
mod purse;
mod shelf;
mod table;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::base::clock::{Moment, UnixMs};
use crate::base::window::long::Long;
use crate::base::window::quota::{Gauge, When};
use account::Held;
use kept::Kept;
use lease::Boards;
use shelf::{Desk, Shelf};
use table::At;

pub use crate::base::window::Spent;
pub use account::Account;
pub use gauge::Mark;
pub use kept::{Keepsake, KeptAccount, KeptId};
pub use lease::Hand;
pub use purse::{HeldAccount, PURSE_MAX, Purse};

/// Accounts a process keeps: a million, and some more, because keys do not fall evenly on shards. They take about 64 MB.
pub const ACCOUNTS_MAX: usize = 1 << 20;
const SHARDS: usize = 64;
/// Of so many accounts purses may hold one on the shelf, all together.
const HELD_PART: usize = 8;

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

/// A keyed hash, of which 60 bits are the key's and the others those of [`PRINT`]. Two keys with the same would share an account.
type Print = u64;
/// Of four bits that say nothing of a key three are for tables, and one has no print be zero.
const PRINT: Print = 1 << 3;

/// All accounts of the process, by key.
#[derive(Debug)]
pub struct Ledger {
    shelves: Box<[Shelf; SHARDS]>,
    hasher: ahash::RandomState,
    room: usize,
    epoch: Epoch,
    crowded: AtomicU64,
    purses: AtomicUsize,
    /// Numbers that purses were given.
    numbers: AtomicUsize,
    boards: Arc<Boards>,
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
        let boards = Arc::new(Boards::new());
        Self {
            shelves: Box::new(std::array::from_fn(|shard| Shelf::new(room as u32, shard, &boards))),
            hasher: ahash::RandomState::new(),
            room,
            epoch: Epoch(epoch),
            crowded: AtomicU64::new(0),
            purses: AtomicUsize::new(0),
            numbers: AtomicUsize::new(0),
            boards,
            kept: Kept::default(),
        }
    }

    /// Keeps accounts of long windows from here on, beginning with what was kept before.
    pub fn keep(&self, keepsake: Keepsake) {
        self.kept.begin(keepsake, self.epoch.at(crate::base::clock::now()));
    }

    /// All that is worth keeping now; `None` where nothing is kept.
    pub fn keepsake(&self, now: Moment) -> Option<Keepsake> {
        self.kept.save(self.epoch.at(now), |print| {
            self.find(print, |account| (account.words(), self.epoch.at(account.until())))
        })
    }

    /// Adds what another process that keeps the same accounts has spent of them: what `theirs` says and `before`, of which
    /// ours know, does not. Both are named with our key.
    pub fn join(&self, theirs: &Keepsake, before: &Keepsake, now: Moment) {
        self.kept.join(theirs, before, self.epoch.at(now), |print, gain| {
            let until = self.epoch.back(gain.until);
            self.find(print, |account| account.join(gain.long, gain.words, gain.before, until)).is_some()
        });
    }

    /// What spending `cost` from an account would come to. Opens none, and changes nothing.
    pub fn look(&self, name: &[u8], gauge: &Gauge, now: Moment, cost: u64) -> Spent {
        let when = self.when(now);
        let looked = self.find(self.print(name), |account| account.look(gauge, when, cost));
        looked.unwrap_or_else(|| gauge.look(self.kept.words(name)[0], when, cost))
    }

    /// The words of an account, as they are now; of one that was kept as they were; as those of a fresh one where there is none.
    pub fn words(&self, name: &[u8]) -> [u64; 2] {
        self.find(self.print(name), |hand| hand.words()).unwrap_or_else(|| self.kept.words(name))
    }

    /// How many seats of an account are taken.
    pub fn seated(&self, name: &[u8]) -> u64 {
        self.find(self.print(name), |hand| hand.seated()).unwrap_or(0)
    }

    fn find<R>(&self, print: Print, look: impl FnOnce(Hand<'_>) -> R) -> Option<R> {
        let shelf = &self.shelves[shard_of(print)];
        let desk = shelf.lock();
        let row = desk.table.row(desk.table.find(print)?);
        Some(match row.place() {
            Some(place) => look(Hand::of(shelf.at(place), &self.boards, 0)),
            None => look(Hand::alone(row)),
        })
    }

    /// The account in a place.
    #[inline]
    fn at(&self, place: u32) -> &Held {
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
        self.shelves.iter().map(|shelf| shelf.lock().table.len()).sum()
    }

    /// Accounts that each purse may hold on to.
    fn purse_share(&self) -> usize {
        let share = self.room * SHARDS / HELD_PART / self.purses.load(Ordering::Relaxed).max(1);
        share.clamp(1, PURSE_MAX)
    }

    /// The number of a new purse.
    fn purse_comes(&self) -> usize {
        self.purses.fetch_add(1, Ordering::Relaxed);
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn purse_goes(&self) {
        self.purses.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn print(&self, bytes: &[u8]) -> Print {
        self.hasher.hash_one(bytes) & !(2 * PRINT - 1) | PRINT
    }

    /// A visit to the account of a key, opened if need be. Until it ends the lock is held.
    #[inline]
    fn visit(&self, print: Print, now: Moment, name: Name<'_>, keep: Option<Long>) -> Visit<'_> {
        let shelf = &self.shelves[shard_of(print)];
        let mut desk = shelf.lock();
        let at = match desk.table.find(print) {
            Some(at) => at,
            None => match self.open(print, (now, name, keep), (shelf, &mut desk)) {
                Ok(at) => at,
                Err(crowd) => {
                    return Visit { crowd: Some(crowd), ..Visit::default() };
                }
            },
        };
        let held = desk.table.row(at).place().map(|place| shelf.at(place));
        Visit { held, desk: Some((desk, at)), crowd: None }
    }

    /// The account of a key, opened if need be, held from here on.
    fn hold(&self, print: Print, opening: Opening<'_>) -> Grip {
        let shard = shard_of(print);
        let shelf = &self.shelves[shard];
        let desk = &mut *shelf.lock();
        let at = match desk.table.find(print) {
            Some(at) => Ok(at),
            None => self.open(print, opening, (shelf, desk)),
        };
        match at {
            Ok(at) => Grip::Placed(shelf.shelve(desk, at) * SHARDS as u32 + shard as u32),
            Err(crowd) => Grip::Crowd(crowd),
        }
    }

    /// What is held.
    #[inline]
    fn held<'a>(&'a self, grip: &'a Grip) -> &'a Account {
        match grip {
            Grip::Placed(place) => &self.at(*place).account,
            Grip::Crowd(account) => account,
        }
    }

    /// A row for a key that has none, or the crowd's account.
    #[cold]
    fn open(
        &self,
        print: Print,
        (now, name, keep): Opening<'_>,
        (shelf, desk): (&Shelf, &mut Desk),
    ) -> Result<At, Arc<Account>> {
        let limit = || self.print(&name.bytes[..name.limit]);
        if !desk.crowds.is_empty() {
            // The key may have been counted there: as long as that counts, it is not counted anew.
            desk.crowds.retain(|_, crowd| Arc::strong_count(crowd) > 1 || crowd.is_in_force(now));
            if let Some(crowd) = desk.crowds.get(&limit()) {
                self.crowded.fetch_add(1, Ordering::Relaxed);
                return Err(Arc::clone(crowd));
            }
        }
        let Some(at) = shelf.open(desk, print, now) else {
            self.crowded.fetch_add(1, Ordering::Relaxed);
            return Err(Arc::clone(desk.crowds.entry(limit()).or_default()));
        };
        if let Some((words, until)) = keep.and_then(|long| self.kept.open(name.bytes, long, print)) {
            desk.table.row(at).restore(words, self.epoch.back(until));
        }
        Ok(at)
    }
}

/// What an account is opened with: when, under which name, and as what it is kept beyond the process.
type Opening<'a> = (Moment, Name<'a>, Option<Long>);

/// An account that is visited, and what keeps it where it is.
#[derive(Debug, Default)]
struct Visit<'a> {
    /// It is on the shelf, and held by the purse if nothing is locked.
    held: Option<&'a Held>,
    /// The lock it is under, and its row.
    desk: Option<(MutexGuard<'a, Desk>, At)>,
    /// It is the crowd's.
    crowd: Option<Arc<Account>>,
}

impl Visit<'_> {
    #[inline]
    fn hand<'a>(&'a self, boards: &'a Boards, purse: usize) -> Hand<'a> {
        match (self.held, &self.desk, &self.crowd) {
            (Some(held), ..) => Hand::of(held, boards, purse),
            (None, Some((desk, at)), _) => Hand::alone(desk.table.row(*at)),
            (None, None, Some(crowd)) => Hand::alone(crowd),
            (None, None, None) => unreachable!("a visit has an account"),
        }
    }
}

/// What is held.
#[derive(Debug)]
enum Grip {
    Placed(u32),
    /// The crowd's, which has no place.
    Crowd(Arc<Account>),
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// Which lock a print is under.
const fn shard_of(print: Print) -> usize {
    (print >> 4) as usize % SHARDS
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
