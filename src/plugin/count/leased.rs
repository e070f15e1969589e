//! Counting with `sync_interval`: a core takes several at once from a Redis, and spends them without asking.
//!
//! What is taken is counted in Redis when it is taken, so no window ever admits more than its count, whoever takes how
//! much and whatever is lost on the way. The price is that what one core holds others can not have. So nobody gets more at
//! once than [`SHARE`] of what is left, the last ones get one each, and what was not needed for an interval goes back.
//! It goes back once: of what may have been heard of before it is not said again, and it is spent when the window ends.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::hash::Map;
use crate::base::window::Spent;
use crate::plugin::redis::{Call, Script, Store};
use crate::runtime::chore::Chore;
use crate::runtime::{Core, LocalId};

/// The part of what is left in a window that one core may take at once: one of so many.
const SHARE: u64 = 16;
/// Most that is taken at once.
const TAKEN_MAX: u64 = 4096;
/// Keys of which a core holds something, for one use of the plugin. Further ones are asked for request by request.
const KEYS_MAX: usize = 10_000;
/// Questions of one chore that are under way at a time.
const AT_ONCE: usize = 64;

/// `want share limit window`, times in milliseconds; how many were given, what is spent, when the window ends, and its mark.
const TAKE_FIXED: &str = "\
local want, share = tonumber(ARGV[1]), tonumber(ARGV[2])
local limit, window = tonumber(ARGV[3]), tonumber(ARGV[4])
local left = redis.call('PTTL', KEYS[1])
local spent = 0
if left >= 0 then spent = tonumber(redis.call('GET', KEYS[1])) or 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rest = limit - spent
if rest < 1 then return {0, spent, left, now + left} end
local given = math.min(want, math.max(1, math.floor(rest / share)))
if left < 0 then
  left = window
  redis.call('SET', KEYS[1], given, 'PX', window)
else
  redis.call('INCRBY', KEYS[1], given)
end
return {given, spent + given, left, now + left}";

/// `unused mark slack`; whether they are back in the window they were taken from. A window is told by its end.
pub(super) const GIVE_FIXED: &str = "\
local unused, mark, slack = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left = redis.call('PTTL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if left < 0 or math.abs(now + left - mark) > slack then return {0} end
redis.call('DECRBY', KEYS[1], unused)
return {1}";

/// Milliseconds between what two scripts take for the end of one window: Redis counts what is left by a clock that stands
/// still while it is busy. The ends of two windows are a second apart at least.
pub(super) const SLACK: u64 = 400;

/// The same for a window that moves with time, whose mark is its number.
const TAKE_SLIDING: &str = "\
local want, share = tonumber(ARGV[1]), tonumber(ARGV[2])
local limit, window = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number, left = math.floor(now / window), window - now % window
local kept = redis.call('HMGET', KEYS[1], 'number', 'spent', 'before')
local at, spent, before = tonumber(kept[1]), tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
if at and at > number then number, left = at, window end
if at ~= number then
  before = at and at + 1 == number and spent or 0
  spent = 0
end
local used = math.floor(before * left / window) + spent
local rest = limit - used
if rest < 1 then return {0, used, left, number} end
local given = math.min(want, math.max(1, math.floor(rest / share)))
redis.call('HSET', KEYS[1], 'number', number, 'spent', spent + given, 'before', before)
redis.call('PEXPIRE', KEYS[1], left + window)
return {given, used + given, left, number}";

pub(super) const GIVE_SLIDING: &str = "\
if tonumber(redis.call('HGET', KEYS[1], 'number') or nil) ~= tonumber(ARGV[2]) then return {0} end
redis.call('HINCRBY', KEYS[1], 'spent', -tonumber(ARGV[1]))
return {1}";

/// How a use of the plugin takes and gives back.
pub(super) struct Leasing {
    take: Script,
    give: Arc<Script>,
    interval: Duration,
    /// Two marks that are no further apart are of one window.
    slack: u64,
    state: LocalId,
}

/// What a core holds.
#[derive(Debug, Default)]
pub(super) struct Leases {
    keys: RefCell<Map<Vec<u8>, Lease>>,
    /// Whether a chore looks after what is held.
    is_tended: Cell<bool>,
}

/// What a core holds of one window of one key.
#[derive(Debug, Default)]
struct Lease {
    left: u64,
    /// What Redis said was spent when it was asked last.
    spent: u64,
    mark: u64,
    ends: Moment,
    /// Until when it is not asked again, because nothing was left.
    dry_until: Moment,
    /// Requests since what is held was last looked through, and how many are wanted at once.
    used: u64,
    want: u64,
    /// Whether several are being asked for.
    is_asking: bool,
}

impl Lease {
    fn spent(&self, admitted: bool, count: u64, now: Moment) -> Spent {
        let remaining = count.saturating_sub(self.spent).saturating_add(self.left);
        Spent { admitted, remaining, reset_in: self.ends.since(now) }
    }
}

/// That several are being asked for, whatever comes of it.
struct Asking<'a>(&'a Leases, &'a [u8]);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.0.keys.borrow_mut().get_mut(self.1) {
            lease.is_asking = false;
        }
    }
}

impl Leasing {
    pub(super) fn new(sliding: bool, interval: Duration, state: LocalId) -> Self {
        let (take, give) = if sliding { (TAKE_SLIDING, GIVE_SLIDING) } else { (TAKE_FIXED, GIVE_FIXED) };
        let slack = if sliding { 0 } else { SLACK };
        Self { take: Script::new(take), give: Arc::new(Script::new(give)), interval, slack, state }
    }

    fn leases(&self, core: &Core) -> Rc<Leases> {
        core.local(self.state, Leases::default)
    }

    /// Decides by what is held; `None` when Redis must be asked.
    pub(super) fn spend_held(&self, core: &Core, key: &[u8], count: u64) -> Option<Spent> {
        let now = core.now();
        let leases = self.leases(core);
        let mut keys = leases.keys.borrow_mut();
        let lease = keys.get_mut(key).filter(|lease| now < lease.ends)?;
        let admitted = lease.left > 0;
        if !admitted && now >= lease.dry_until {
            return None;
        }
        lease.left = lease.left.saturating_sub(1);
        lease.used += u64::from(admitted);
        core.stats.limit_leased.add(1);
        Some(lease.spent(admitted, count, now))
    }

    /// Puts back one that was spent and is not needed, among what is held of the window that ends then.
    pub(super) fn put_back(&self, core: &Core, key: &[u8], ends: Moment) {
        self.leases(core).put_back(key, core.now(), ends);
    }

    /// Asks Redis for one, and for more that are held from then on.
    pub(super) async fn spend(
        &self,
        core: &Core,
        store: &Arc<Store>,
        (key, count, window): (&[u8], u64, u64),
        until: Moment,
    ) -> Option<Spent> {
        let leases = self.leases(core);
        let (want, asking) = leases.begin(key);
        let sent = core.now();
        let numbers = [want, SHARE, count, window];
        let told = store.run(core, (&self.take, Call { key, numbers: &numbers, text: None }), until).await;
        let told = <[i64; 4]>::try_from(told.ok()?).ok()?.map(|number| number.max(0) as u64);
        drop(asking);
        let spent = leases.note(key, told, (sent, core.now()), self);
        self.tend(core, store, &leases);
        Some(Spent { remaining: count.saturating_sub(spent.0), ..spent.1 })
    }

    /// Has what is held be looked after.
    fn tend(&self, core: &Core, store: &Arc<Store>, leases: &Rc<Leases>) {
        if leases.keys.borrow().is_empty() || leases.is_tended.replace(true) {
            return;
        }
        let tender = Tender {
            leases: Rc::clone(leases),
            store: Arc::clone(store),
            give: Arc::clone(&self.give),
            interval: self.interval,
            slack: self.slack,
        };
        if core.chores.give(Box::new(tender)).is_err() {
            leases.is_tended.set(false);
        }
    }
}

impl Leases {
    /// How many to ask for: several, unless somebody does that already.
    fn begin<'a>(&'a self, key: &'a [u8]) -> (u64, Option<Asking<'a>>) {
        let mut keys = self.keys.borrow_mut();
        match keys.get_mut(key) {
            Some(lease) if lease.is_asking => (1, None),
            Some(lease) => {
                lease.is_asking = true;
                // What was taken last did not last for an interval.
                lease.want = (lease.want * 2).clamp(1, TAKEN_MAX);
                (lease.want, Some(Asking(self, key)))
            }
            None => (1, None),
        }
    }

    /// Takes note of what Redis said: how many it gave, what is spent, when the window ends, and its mark.
    fn note(
        &self,
        key: &[u8],
        [given, spent, left, mark]: [u64; 4],
        (sent, now): (Moment, Moment),
        how: &Leasing,
    ) -> (u64, Spent) {
        // Redis was asked after this moment, so the window does not end before: nothing of it is spent in the next.
        let ends = sent.plus(Duration::from_millis(left));
        let mut keys = self.keys.borrow_mut();
        let told = |held| Spent { admitted: given > 0, remaining: held, reset_in: ends.since(now) };
        if !keys.contains_key(key) {
            if keys.len() >= KEYS_MAX {
                return (spent, told(0));
            }
            keys.insert(key.to_vec(), Lease { want: 1, ..Lease::default() });
        }
        let Some(lease) = keys.get_mut(key) else { return (spent, told(0)) };
        let is_new = lease.ends == Moment::ZERO;
        let is_same = !is_new && lease.mark.abs_diff(mark) <= how.slack;
        if !is_same && mark < lease.mark {
            // It came late, of a window that is over.
            return (spent, told(0));
        }
        if !is_same {
            // Nothing of one window is spent in another.
            *lease = Lease { want: lease.want, is_asking: lease.is_asking, mark, ends, ..Lease::default() };
        }
        lease.ends = lease.ends.min(ends);
        lease.spent = spent;
        if given == 0 {
            lease.dry_until = ends.min(now.plus(how.interval));
            return (spent, told(0));
        }
        lease.left += given - 1;
        lease.used += 1;
        lease.dry_until = Moment::ZERO;
        (spent.saturating_sub(lease.left), told(lease.left))
    }

    /// Puts back one of the window that ends then, or of none: another one ends a second later at least.
    fn put_back(&self, key: &[u8], now: Moment, ends: Moment) {
        if let Some(lease) = self.keys.borrow_mut().get_mut(key) {
            let apart = lease.ends.since(ends).max(ends.since(lease.ends));
            if now < lease.ends && apart <= Duration::from_millis(SLACK) {
                lease.left += 1;
                lease.used = lease.used.saturating_sub(1);
                lease.dry_until = Moment::ZERO;
            }
        }
    }

    /// What was not needed lately; with `all` whatever is held. Forgets what is over, or was not used.
    fn collect(&self, now: Moment, all: bool) -> Vec<(Vec<u8>, u64, u64)> {
        let mut unused = Vec::new();
        self.keys.borrow_mut().retain(|key, lease| {
            if now >= lease.ends {
                return lease.is_asking;
            }
            let kept = if all { 0 } else { lease.left.min(lease.used) };
            let back = lease.left - kept;
            if back > 0 {
                unused.push((key.clone(), back, lease.mark));
                lease.spent = lease.spent.saturating_sub(back);
            }
            (lease.left, lease.want) = (kept, lease.used.clamp(1, TAKEN_MAX));
            let is_idle = std::mem::take(&mut lease.used) == 0 && kept == 0 && now >= lease.dry_until;
            lease.is_asking || !is_idle
        });
        unused
    }
}

/// Looks after what a core holds, for as long as it holds anything.
#[derive(Debug)]
struct Tender {
    leases: Rc<Leases>,
    store: Arc<Store>,
    give: Arc<Script>,
    interval: Duration,
    slack: u64,
}

impl Tender {
    async fn tend(&self, core: &Core) {
        loop {
            core.chores.rest(core, self.interval).await;
            let is_last = core.chores.is_hurried();
            let unused = self.leases.collect(core.now(), is_last);
            for some in unused.chunks(AT_ONCE) {
                let back = some
                    .iter()
                    .map(|(key, count, mark)| self.give_back(core, key, [*count, *mark, self.slack]));
                all(back.collect()).await;
            }
            if is_last || self.leases.keys.borrow().is_empty() {
                self.leases.is_tended.set(false);
                return;
            }
        }
    }

    async fn give_back(&self, core: &Core, key: &[u8], numbers: [u64; 3]) {
        let call = Call { key, numbers: &numbers, text: None };
        let told = self.store.run_once(core, (&self.give, call), self.store.patience(core)).await;
        // Where its window was over it was nobody's any more.
        if told.is_err() {
            core.stats.redis_returns_lost.add(1);
        }
    }
}

impl Chore for Tender {
    fn run<'a>(self: Box<Self>, core: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move { self.tend(core).await })
    }
}

/// Waits until all of them are over.
async fn all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut waiting: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        waiting.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
#[path = "leased/tests.rs"]
mod tests;
