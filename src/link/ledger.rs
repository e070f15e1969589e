//! Counters all cores share, for limits that count the whole process: exact, without a lock.
//!
//! An [`Account`] is one word that holds its window and what was spent in it, changed by compare-and-swap, so
//! the sum over all cores can never exceed the limit. Finding the account by key takes a lock, but only the
//! first time a core meets the key: cores keep the `Arc` in a table of their own (see [`Purse`]).
//! The decision record on exact limits says why accounts are not leased out in portions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::hash::Map;

/// Accounts a process keeps. One more evicts accounts whose window is over; failing that, the key is counted
/// in an account it shares with others. 1 million accounts take about 100 MB.
pub const ACCOUNTS_MAX: usize = 1_000_000;
/// Keys a core remembers accounts for, before it starts over.
pub const PURSE_MAX: usize = 65_536;
const SHARDS: usize = 64;
/// Windows begin at multiples of this, which is also what `X-RateLimit-Reset` shows.
const TICK: Duration = Duration::from_millis(10);

/// What asking an account came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whether the request is within the limit; if not, nothing was counted.
    pub admitted: bool,
    /// How many more the window admits.
    pub remaining: u64,
    /// When the window ends.
    pub reset_in: Duration,
}

/// One counter, or one breaker (see [`super::breaker`]). Aligned to a cache line, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Account {
    /// Window start in ticks (high half) and units spent in it (low half).
    pub(super) current: AtomicU64,
    /// The sliding kind's window before the current one, in the same form.
    pub(super) previous: AtomicU64,
}

const fn pack(start: u64, spent: u64) -> u64 {
    (start & 0xffff_ffff) << 32 | spent
}

const fn unpack(word: u64) -> (u64, u64) {
    (word >> 32, word & 0xffff_ffff)
}

const fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

fn now_ticks(now: Moment) -> u64 {
    // One is added so that no window starts at zero, which stands for "never used".
    now.as_nanos() / TICK.as_nanos() as u64 + 1
}

impl Account {
    /// Spends `cost` in a window that starts with its first use and lasts `window`.
    pub fn spend_fixed(&self, now: Moment, window: Duration, limit: u64, cost: u64) -> Spent {
        let (now, window) = (now_ticks(now), ticks(window).max(1));
        let limit = limit.min(u64::from(u32::MAX));
        let mut seen = self.current.load(Ordering::Relaxed);
        loop {
            let (start, spent) = unpack(seen);
            let over = start == 0 || now >= start + window;
            let (start, spent) = if over { (now, 0) } else { (start, spent) };
            let reset_in = TICK * (start + window).saturating_sub(now) as u32;
            if spent + cost > limit {
                return Spent { admitted: false, remaining: limit.saturating_sub(spent), reset_in };
            }
            match self.current.compare_exchange_weak(
                seen,
                pack(start, spent + cost),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Spent { admitted: true, remaining: limit - spent - cost, reset_in },
                Err(other) => seen = other,
            }
        }
    }

    /// Spends `cost` in windows aligned to multiples of `window`, the one before counting in proportion to how
    /// much of it a sliding window still covers.
    pub fn spend_sliding(&self, now: Moment, window: Duration, limit: u64, cost: u64) -> Spent {
        let (now, window) = (now_ticks(now), ticks(window).max(1));
        let start = now - now % window + 1;
        let left = start + window - 1 - now;
        let limit = limit.min(u64::from(u32::MAX));
        let mut seen = self.current.load(Ordering::Acquire);
        loop {
            let (seen_start, spent) = unpack(seen);
            // Another core's clock may have been read a moment later: time never goes back to an old window.
            let (start, left) = if seen_start > start { (seen_start, window) } else { (start, left) };
            if seen_start != start {
                // Whoever enters a window files the old one first; a late hand cannot file an older one over it,
                // because windows grow.
                if seen_start + window == start {
                    self.previous.fetch_max(seen, Ordering::AcqRel);
                }
                match self.current.compare_exchange(seen, pack(start, 0), Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => seen = pack(start, 0),
                    Err(other) => seen = other,
                }
                continue;
            }
            let (before_start, before) = unpack(self.previous.load(Ordering::Acquire));
            let carried = if before_start + window == start { before * left / window } else { 0 };
            let reset_in = TICK * left as u32;
            if spent + cost > limit || carried + spent + cost > limit {
                return Spent { admitted: false, remaining: 0, reset_in };
            }
            let next = pack(start, spent + cost);
            match self.current.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    return Spent { admitted: true, remaining: limit - carried - spent - cost, reset_in };
                }
                Err(other) => seen = other,
            }
        }
    }
}

/// All accounts of the process, by key.
#[derive(Debug)]
pub struct Ledger {
    shards: Vec<Mutex<Map<Box<[u8]>, Weak<Account>>>>,
    hasher: ahash::RandomState,
    /// Keeps accounts alive while nobody uses them, so that a key that comes back finds its count.
    kept: Vec<Mutex<Vec<Arc<Account>>>>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
            kept: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// The account of a key, opened if need be. Takes a lock: keep the result.
    pub fn account(&self, key: &[u8]) -> Arc<Account> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        let mut accounts = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(key).and_then(Weak::upgrade) {
            return account;
        }
        let mut kept = self.kept[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ACCOUNTS_MAX / SHARDS {
            // Half of the oldest go; those still in a core's table live on through it.
            kept.drain(..ACCOUNTS_MAX / SHARDS / 2);
            accounts.retain(|_, account| account.strong_count() > 0);
        }
        let account = Arc::new(Account::default());
        kept.push(Arc::clone(&account));
        accounts.insert(key.into(), Arc::downgrade(&account));
        account
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

/// One core's table of accounts it has met: the way to them without a lock.
#[derive(Debug, Default)]
pub struct Purse {
    met: std::cell::RefCell<Map<Box<[u8]>, Arc<Account>>>,
}

impl Purse {
    /// Runs `spend` on the account of `key`.
    pub fn with<R>(&self, ledger: &Ledger, key: &[u8], spend: impl FnOnce(&Account) -> R) -> R {
        let mut met = self.met.borrow_mut();
        if let Some(account) = met.get(key) {
            return spend(account);
        }
        if met.len() >= PURSE_MAX {
            met.clear();
        }
        let account = ledger.account(key);
        let result = spend(&account);
        met.insert(key.into(), account);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_fixed_window_starts_with_its_first_use() {
        let account = Account::default();
        let first = account.spend_fixed(at(5_300), SECOND, 2, 1);
        assert_eq!((first.admitted, first.remaining, first.reset_in), (true, 1, SECOND));
        assert!(account.spend_fixed(at(5_900), SECOND, 2, 1).admitted);
        let third = account.spend_fixed(at(6_000), SECOND, 2, 1);
        assert_eq!((third.admitted, third.remaining), (false, 0));
        assert_eq!(third.reset_in, Duration::from_millis(300));
        assert!(account.spend_fixed(at(6_300), SECOND, 2, 1).admitted);
    }

    #[test]
    fn a_sliding_window_carries_over_in_proportion() {
        let account = Account::default();
        for _ in 0..10 {
            assert!(account.spend_sliding(at(10_000), SECOND, 10, 1).admitted);
        }
        assert!(!account.spend_sliding(at(10_500), SECOND, 10, 1).admitted);
        let admitted = (0..10).filter(|_| account.spend_sliding(at(11_500), SECOND, 10, 1).admitted).count();
        assert!(
            (5..=6).contains(&admitted),
            "half of the last window counts, so half are admitted: {admitted}"
        );
    }

    #[test]
    fn a_clock_read_late_does_not_reopen_an_old_window() {
        let account = Account::default();
        for _ in 0..10 {
            assert!(account.spend_sliding(at(10_500), SECOND, 10, 1).admitted);
        }
        assert!(account.spend_sliding(at(12_000), SECOND, 10, 1).admitted);
        let admitted = (0..20).filter(|_| account.spend_sliding(at(10_500), SECOND, 10, 1).admitted).count();
        assert_eq!(admitted, 9);
        assert!(!account.spend_sliding(at(12_100), SECOND, 10, 1).admitted);
    }

    #[test]
    fn many_threads_never_spend_more_than_the_limit() {
        let ledger = Arc::new(Ledger::new());
        let admitted: usize = std::thread::scope(|scope| {
            let spenders: Vec<_> = (0..4)
                .map(|_| {
                    let ledger = Arc::clone(&ledger);
                    scope.spawn(move || {
                        let purse = Purse::default();
                        (0..5000)
                            .filter(|_| {
                                purse.with(&ledger, b"key", |account| {
                                    account.spend_fixed(at(1), Duration::from_secs(60), 1000, 1).admitted
                                })
                            })
                            .count()
                    })
                })
                .collect();
            spenders.into_iter().map(|spender| spender.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, 1000);
    }
}
