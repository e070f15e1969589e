//! Counters all cores share, for limits that count the whole process: exact, without a lock.
//!
//! An [`Account`] is a word or two, changed by compare-and-swap as `base::window` says, so the sum over all cores can
//! never exceed the limit. Finding the account by key takes a lock, but only the first time a core meets the key: cores
//! keep the `Arc` in a table of their own (see [`Purse`]). The decision record on exact limits says why accounts are not
//! leased out in portions.
//!
//! There is room for so many accounts ([`ACCOUNTS_MAX`]). One that is still in force is never closed for another: when a
//! new key finds no room, it is counted together with the other new keys of its limit in one account, the crowd's. So no
//! key ever gets more than its limit, and keys that come while all places are taken may get less.

mod gauge;
mod kept;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;

use crate::base::clock::{Moment, UnixMs};
use crate::base::hash::Map;
use crate::base::window::quota::{Gauge, Span, When};
use crate::base::window::{Fixed, Leaky, Seats, Slide, Sliding, Turn};
use kept::Kept;

pub use crate::base::window::Spent;
pub use gauge::Mark;
pub use kept::{Keepsake, KeptAccount, KeptId};

/// Accounts a process keeps: a million, and some more, because keys do not fall evenly on shards. A million take about
/// 120 MB.
pub const ACCOUNTS_MAX: usize = 1 << 20;
/// Keys a purse remembers accounts for; one more has it forget one that was not used lately. All purses together
/// remember no more than half of what there is room for, because accounts they remember are not closed.
pub const PURSE_MAX: usize = 65_536;
const SHARDS: usize = 64;
/// Places that are looked at for one that may be had, when all are taken.
const LOOKS_MAX: usize = 16;
/// In place of the moment until which an account matters: while its first word is not zero.
const ALWAYS: u64 = u64::MAX;
/// The same: until the first word, which is a moment, and the time in the second word after it.
const BY_TURN: u64 = u64::MAX - 1;

/// One counter, or one breaker (see [`super::breaker`]). With the counts of its `Arc` it fills a cache line, so that
/// neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(16))]
pub struct Account {
    pub(super) first: AtomicU64,
    pub(super) second: AtomicU64,
    /// Until when the words say anything that a fresh account would not.
    matters: AtomicU64,
    /// Of a bucket: what was ever given back, and what somebody has begun to give back.
    returned: AtomicU64,
    returning: AtomicU64,
    _rest: u64,
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
                        self.matters.fetch_max(now.plus(window).as_nanos(), Ordering::Relaxed);
                    }
                    return spent;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Spends `cost` in windows aligned to multiples of their length, by the clock of [`Ledger::since_epoch`].
    pub fn spend_sliding(&self, sliding: &Sliding, now: Moment, epoch: Epoch, cost: u64) -> Spent {
        let now_ms = epoch.at(now);
        let words = [&self.first, &self.second];
        loop {
            // What is not swapped stands still while the other is what it was: see `Sliding`.
            let seen = words.map(|word| word.load(Ordering::Acquire));
            let (at, next, spent) = match sliding.step(seen, now_ms, cost) {
                Slide::Refuse(spent) => return spent,
                Slide::Move { word, next } => {
                    let until = now.plus(Duration::from_millis(sliding.matters_ms(now_ms) - now_ms));
                    self.matters.fetch_max(until.as_nanos(), Ordering::Relaxed);
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
                    self.matters.store(BY_TURN, Ordering::Relaxed);
                    return turn;
                }
                Ok(_) => return turn,
                Err(other) => seen = other,
            }
        }
    }

    /// Takes one of so many seats; how many are taken with it. To be given back by [`Self::leave`], by somebody who holds
    /// on to the account until then.
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
    pub(super) fn matters_always(&self) {
        self.matters.store(ALWAYS, Ordering::Relaxed);
    }

    /// Whether its words say anything that a fresh account would not.
    fn is_in_force(&self, now: Moment) -> bool {
        match self.matters.load(Ordering::Relaxed) {
            ALWAYS => self.first.load(Ordering::Relaxed) != 0,
            BY_TURN => {
                let turn = self.first.load(Ordering::Relaxed);
                turn.saturating_add(self.second.load(Ordering::Relaxed)) > now.as_nanos()
            }
            until => until > now.as_nanos(),
        }
    }
}

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

/// Bounded memory from prints to accounts.
#[derive(Debug, Default)]
struct Places {
    places: Vec<Place>,
    by_print: HashTable<u32>,
    /// Where the last look for a free place ended.
    hand: usize,
}

#[derive(Debug)]
struct Place {
    print: Print,
    account: Arc<Account>,
    /// Whether it was used since the hand last came by.
    used: bool,
}

impl Places {
    fn find(&mut self, print: Print) -> Option<&mut Place> {
        let places = &mut self.places;
        let at = *self.by_print.find(print.0, |at| places[*at as usize].print == print)?;
        Some(&mut places[at as usize])
    }

    /// Gives the account a place, if there are fewer than `most` or one of those that are looked at `may_go`.
    fn put(
        &mut self,
        print: Print,
        account: Arc<Account>,
        most: usize,
        may_go: impl Fn(&mut Place) -> bool,
    ) -> bool {
        let place = Place { print, account, used: true };
        let at = if self.places.len() < most {
            self.places.push(place);
            self.places.len() - 1
        } else {
            let looks = LOOKS_MAX.min(self.places.len());
            let found = (0..looks).find_map(|_| {
                let at = self.hand % self.places.len();
                self.hand = at + 1;
                may_go(&mut self.places[at]).then_some(at)
            });
            let Some(at) = found else { return false };
            self.forget(at);
            self.places[at] = place;
            at
        };
        let places = &self.places;
        self.by_print.insert_unique(print.0, at as u32, |at| places[*at as usize].print.0);
        true
    }

    /// Gives up a place if there are more than `most`.
    fn shrink(&mut self, most: usize) {
        if self.places.len() > most {
            self.forget(self.places.len() - 1);
            self.places.pop();
        }
    }

    fn forget(&mut self, at: usize) {
        if let Ok(entry) = self.by_print.find_entry(self.places[at].print.0, |known| *known as usize == at) {
            entry.remove();
        }
    }
}

/// Accounts of keys that have something in common: their hash, so that not all need the same lock.
#[derive(Debug, Default)]
struct Shard {
    places: Places,
    /// Accounts of new keys that found no place, by limit. Empty unless all places are taken.
    crowds: Map<Print, Arc<Account>>,
}

/// All accounts of the process, by key.
#[derive(Debug)]
pub struct Ledger {
    shards: Vec<Mutex<Shard>>,
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
        let epoch = crate::base::clock::wall().saturating_sub(crate::base::clock::now().as_millis());
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashers: [ahash::RandomState::new(), ahash::RandomState::new()],
            room: accounts.div_ceil(SHARDS),
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
        self.kept.save(self.epoch.at(now), |account| {
            let until = account.matters.load(Ordering::Relaxed);
            (account.first.load(Ordering::Relaxed), self.epoch.at(Moment::from_nanos(until)))
        })
    }

    /// What spending `cost` from an account would come to. Opens none, and changes nothing.
    pub fn look(&self, name: &[u8], gauge: &Gauge, now: Moment, cost: u64) -> Spent {
        let when = self.when(now);
        match self.find(name) {
            Some(account) => account.look(gauge, when, cost),
            None => gauge.look(self.kept.word(name), when, cost),
        }
    }

    /// The words of an account, as they are now; as those of a fresh one where there is none.
    pub fn words(&self, name: &[u8]) -> [u64; 2] {
        self.find(name).map_or([0; 2], |account| {
            [account.first.load(Ordering::Relaxed), account.second.load(Ordering::Relaxed)]
        })
    }

    /// How many seats of an account are taken.
    pub fn seated(&self, name: &[u8]) -> u64 {
        self.find(name).map_or(0, |account| account.seated())
    }

    fn find(&self, name: &[u8]) -> Option<Arc<Account>> {
        let print = self.print(name);
        let mut shard = self.shard(print);
        shard.places.find(print).map(|place| Arc::clone(&place.account))
    }

    fn shard(&self, print: Print) -> std::sync::MutexGuard<'_, Shard> {
        // The table uses the ends of a hash itself.
        self.shards[(print.0 >> 24) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
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
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).places.places.len())
            .sum()
    }

    fn print(&self, bytes: &[u8]) -> Print {
        (self.hashers[0].hash_one(bytes), self.hashers[1].hash_one(bytes))
    }

    /// The account of a key, opened if need be, and whether it is its own. Takes a lock: keep what is its own.
    fn account(&self, print: Print, name: Name<'_>, now: Moment, keep: Option<Span>) -> (Arc<Account>, bool) {
        let mut shard = self.shard(print);
        if let Some(place) = shard.places.find(print) {
            return (Arc::clone(&place.account), true);
        }
        // Under the lock nobody gets hold of an account that nobody holds.
        let is_free = |account: &Arc<Account>| Arc::strong_count(account) == 1 && !account.is_in_force(now);
        let limit = || self.print(&name.bytes[..name.limit]);
        if !shard.crowds.is_empty() {
            // The key may have been counted there: as long as that counts, it is not counted anew.
            shard.crowds.retain(|_, crowd| !is_free(crowd));
            if let Some(crowd) = shard.crowds.get(&limit()) {
                self.crowded.fetch_add(1, Ordering::Relaxed);
                return (Arc::clone(crowd), false);
            }
        }
        let account = Arc::new(Account::default());
        if shard.places.put(print, Arc::clone(&account), self.room, |place| is_free(&place.account)) {
            // Nobody has found it yet.
            if let Some((word, until)) = keep.and_then(|span| self.kept.open(name.bytes, span, &account)) {
                account.first.store(word, Ordering::Relaxed);
                account.matters.store(self.epoch.back(until).as_nanos(), Ordering::Relaxed);
            }
            return (account, true);
        }
        self.crowded.fetch_add(1, Ordering::Relaxed);
        shard.crowds.insert(limit(), Arc::clone(&account));
        (account, false)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// One core's table of accounts it has met: the way to them without a lock.
#[derive(Debug)]
pub struct Purse {
    ledger: Arc<Ledger>,
    met: RefCell<Places>,
}

impl Purse {
    /// An empty one.
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        ledger.purses.fetch_add(1, Ordering::Relaxed);
        Self { ledger: Arc::clone(ledger), met: RefCell::default() }
    }

    /// Runs `spend` on the account of that name.
    pub fn with<R>(&self, now: Moment, name: Name<'_>, spend: impl FnOnce(&Arc<Account>) -> R) -> R {
        self.with_kept(now, name, None, spend)
    }

    /// [`Self::with`] for an account of windows that are kept beyond the process, if they have such a span.
    pub fn with_kept<R>(
        &self,
        now: Moment,
        name: Name<'_>,
        keep: Option<Span>,
        spend: impl FnOnce(&Arc<Account>) -> R,
    ) -> R {
        let print = self.ledger.print(name.bytes);
        let mut met = self.met.borrow_mut();
        if let Some(place) = met.find(print) {
            place.used = true;
            return spend(&place.account);
        }
        let (account, own) = self.ledger.account(print, name, now, keep);
        if own {
            let share = self.ledger.room * SHARDS / 2 / self.ledger.purses.load(Ordering::Relaxed).max(1);
            let most = share.clamp(1, PURSE_MAX);
            met.shrink(most);
            // The hand gives every place a second chance; when all it sees were used, the key is looked up again.
            let may_go = |place: &mut Place| !std::mem::take(&mut place.used);
            met.put(print, Arc::clone(&account), most, may_go);
        }
        drop(met);
        spend(&account)
    }

    /// What windows are aligned by that are not started by their first use.
    pub fn since_epoch(&self) -> Epoch {
        self.ledger.since_epoch()
    }

    /// A moment by both clocks.
    pub fn when(&self, now: Moment) -> When {
        self.ledger.when(now)
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.ledger.purses.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
