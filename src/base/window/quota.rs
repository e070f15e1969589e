//! Windows that may be longer than a process lives, and buckets of tokens: what may cost more than one, be given back, or
//! be owed.
//!
//! Words count from 1970 where others of this module count from the start of the process, so a word means the same in
//! the next process. Who keeps them sees to it that the time they are asked with never goes back while a process lives
//! (it is that of the ledger); what is kept beyond, [`Quota::after_a_rest`] looks at.
//!
//! | kind | word | what it holds |
//! |---|---|---|
//! | [`Quota`] | 1 | when the window began, spent in it |
//! | [`Bucket`] | 1 | when the bucket will be full |

use std::time::Duration;

use super::{AHEAD_TICKS, COUNT_MAX, NANOS_MAX, Spent, TICK, pack, unpack};
use crate::base::clock::{Moment, UnixMs, civil};

/// Windows from here on are kept beyond the process, and measured in seconds.
pub const LONG: Duration = Duration::from_secs(3600);
/// A window that begins at most so many seconds after "now" began just now, on a clock that was read later.
const AHEAD_SECONDS: u64 = 3600;
const DAY: u64 = 86_400;

/// A point in time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct When {
    pub moment: Moment,
    pub unix_ms: UnixMs,
}

/// A stretch of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// Where the one begins and ends that a second is in; seconds since 1970.
    pub fn around(self, second: u64) -> (u64, u64) {
        let even = |length: u64| (second - second % length, second - second % length + length);
        match self {
            Self::Second => even(1),
            Self::Minute => even(60),
            Self::Hour => even(3600),
            Self::Day => even(DAY),
            Self::Month => {
                let today = civil(second.saturating_mul(1000));
                let first = second - second % DAY - u64::from(today.day - 1) * DAY;
                // The 28th and four days are in the next month, whichever it is.
                let next = first + 32 * DAY;
                (first, next - u64::from(civil(next.saturating_mul(1000)).day - 1) * DAY)
            }
        }
    }

    /// Seconds it lasts; a month is given with 30 days.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => DAY,
            Self::Month => 30 * DAY,
        }
    }
}

/// How long a window is, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many seconds from its first use.
    Lasting(u32),
    /// A stretch of the calendar.
    Calendar(Unit),
}

impl Span {
    /// Seconds it lasts, or nearly.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Lasting(seconds) => seconds as u64,
            Self::Calendar(unit) => unit.seconds(),
        }
    }

    /// Whether it is worth keeping beyond the process.
    pub const fn is_long(self) -> bool {
        self.seconds() >= LONG.as_secs()
    }

    /// Whether it begins at the same time for everybody.
    pub const fn is_aligned(self) -> bool {
        matches!(self, Self::Calendar(_))
    }

    /// As a number.
    pub const fn code(self) -> u64 {
        match self {
            Self::Lasting(seconds) => seconds as u64,
            Self::Calendar(unit) => 1 << 32 | unit as u64,
        }
    }

    /// The one with that number.
    pub fn of_code(code: u64) -> Option<Self> {
        match u32::try_from(code) {
            Ok(0) => None,
            Ok(seconds) => Some(Self::Lasting(seconds)),
            Err(_) => Unit::ALL.into_iter().map(Self::Calendar).find(|span| span.code() == code),
        }
    }
}

/// So much in each window.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    limit: u64,
    span: Span,
}

/// The window at hand.
struct Open {
    start: u64,
    spent: u64,
    left: Duration,
}

impl Quota {
    /// `limit` in each window of that span.
    pub const fn new(limit: u64, span: Span) -> Self {
        Self { limit: if limit < COUNT_MAX { limit } else { COUNT_MAX }, span }
    }

    /// What a window admits.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How long windows are, and where they begin.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// What spending `cost` comes to, and the word after it if it is admitted.
    pub fn spend(&self, word: u64, now_ms: UnixMs, cost: u64) -> (Spent, Option<u64>) {
        let Open { start, spent, left } = self.open(word, now_ms);
        // What costs nothing passes where there is a debt, too.
        match spent.checked_add(cost).filter(|spent| cost == 0 || *spent <= self.limit) {
            Some(spent) => {
                let remaining = self.limit.saturating_sub(spent);
                let told = Spent { admitted: true, remaining, reset_in: left };
                (told, Some(pack(start, spent)))
            }
            None => {
                let remaining = self.limit.saturating_sub(spent);
                (Spent { admitted: false, remaining, reset_in: left }, None)
            }
        }
    }

    /// The word after `cost` more was spent, whatever the limit says.
    pub fn owe(&self, word: u64, now_ms: UnixMs, cost: u64) -> u64 {
        let Open { start, spent, .. } = self.open(word, now_ms);
        pack(start, spent.saturating_add(cost).min(COUNT_MAX))
    }

    /// The word after `cost` was given back to the window that was spent from when the word was `mark`; `None` when that
    /// window is over.
    pub const fn give_back(word: u64, mark: u64, cost: u64) -> Option<u64> {
        let ((start, spent), (then, _)) = (unpack(word), unpack(mark));
        if start == then { Some(pack(start, spent.saturating_sub(cost))) } else { None }
    }

    /// A word that was kept beyond its process, as it is when the clock says `now_ms`. Where the clock has gone back, what
    /// began later begins now: it neither lasts until the clock is there again, nor is forgotten.
    pub fn after_a_rest(span: Span, word: u64, back_ms: u64, now_ms: UnixMs) -> u64 {
        let (start, spent) = unpack(word);
        let start = match span {
            Span::Calendar(unit) => start.min(unit.around(now_ms / 1000).0),
            Span::Lasting(_) => start.saturating_sub(back_ms.div_ceil(1000)).min(now_ms / 1000),
        };
        pack(start, spent)
    }

    fn open(&self, word: u64, now_ms: UnixMs) -> Open {
        let (start, spent) = unpack(word);
        let until = |second: u64| Duration::from_millis(second.saturating_mul(1000).saturating_sub(now_ms));
        match self.span {
            Span::Calendar(unit) => {
                let (mine, end) = unit.around(now_ms / 1000);
                if word != 0 && start > mine && start - mine <= AHEAD_SECONDS {
                    return Open { start, spent, left: until(unit.around(start).1) };
                }
                Open {
                    start: mine,
                    spent: if word != 0 && start >= mine { spent } else { 0 },
                    left: until(end),
                }
            }
            Span::Lasting(seconds) if self.span.is_long() => {
                let (now, seconds) = (now_ms / 1000, u64::from(seconds));
                let (start, spent) = match start {
                    _ if word == 0 || start.saturating_add(seconds) <= now => (now_ms.div_ceil(1000), 0),
                    start if start > now + AHEAD_SECONDS => (now, spent),
                    start => (start, spent),
                };
                Open { start, spent, left: until(start + seconds) }
            }
            Span::Lasting(seconds) => {
                let (tick_ms, window) = (TICK.as_millis() as u64, u64::from(seconds) * 100);
                let now = (now_ms / tick_ms) & COUNT_MAX;
                let age = now.wrapping_sub(start) & COUNT_MAX;
                let age = if age > COUNT_MAX - AHEAD_TICKS { 0 } else { age };
                let is_over = word == 0 || age >= window;
                let (start, age, spent) = if is_over { (now, 0, 0) } else { (start, age, spent) };
                Open { start, spent, left: Duration::from_millis((window - age) * tick_ms) }
            }
        }
    }
}

/// Tokens that come at a rate, of which so many are kept: as limits count that allow bursts and never more than
/// `rate * time + burst`.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    spacing_ns: u64,
    burst: u64,
}

impl Bucket {
    /// `rate` tokens a second (above 0), and room for `burst`. The time between two is rounded up to a nanosecond, so that
    /// the rate is never exceeded.
    pub fn new(rate: f64, burst: u64) -> Self {
        let spacing = (1e9 / rate).ceil();
        let most = NANOS_MAX / burst.clamp(1, COUNT_MAX);
        let spacing_ns = if spacing < most as f64 { (spacing as u64).max(1) } else { most };
        Self { spacing_ns, burst: burst.clamp(1, COUNT_MAX) }
    }

    /// How many tokens there is room for.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// How long an empty one takes to be full.
    pub const fn fills_in(&self) -> Duration {
        Duration::from_nanos(self.burst * self.spacing_ns)
    }

    /// What taking `cost` tokens comes to, and the word after it if it is admitted.
    pub const fn spend(&self, word: u64, now: Moment, cost: u64) -> (Spent, Option<u64>) {
        let now = now.as_nanos();
        let full_at = if word > now { word } else { now };
        let room = self.burst * self.spacing_ns;
        let next = full_at.saturating_add(self.span_of(cost));
        if cost == 0 || next - now <= room {
            let remaining = room.saturating_sub(next - now) / self.spacing_ns;
            let told = Spent { admitted: true, remaining, reset_in: Duration::from_nanos(next - now) };
            return (told, Some(next));
        }
        let remaining = room.saturating_sub(full_at - now) / self.spacing_ns;
        let reset_in = Duration::from_nanos(next - now - room);
        (Spent { admitted: false, remaining, reset_in }, None)
    }

    /// The word after `cost` more was taken, whether or not it was there.
    pub const fn owe(&self, word: u64, now: Moment, cost: u64) -> u64 {
        let full_at = if word > now.as_nanos() { word } else { now.as_nanos() };
        let next = full_at.saturating_add(self.span_of(cost));
        if next < u64::MAX / 2 { next } else { u64::MAX / 2 }
    }

    /// By how much the word may be put back when `cost` was not needed after all. Tokens come in the order they were taken:
    /// what has come meanwhile in place of these (the bucket would have been full at `mark`) is there already, and is not
    /// given twice. `returned` is what others gave back since, which may have moved that moment.
    pub const fn give_back(&self, mark: u64, returned: u64, now: Moment, cost: u64) -> u64 {
        let to_come = mark.saturating_sub(returned).saturating_sub(now.as_nanos());
        let taken = self.span_of(cost);
        if taken < to_come { taken } else { to_come }
    }

    const fn span_of(&self, cost: u64) -> u64 {
        let span = self.spacing_ns.saturating_mul(cost);
        if span < NANOS_MAX { span } else { NANOS_MAX }
    }
}

/// Either.
#[derive(Clone, Copy, Debug)]
pub enum Gauge {
    Quota(Quota),
    Bucket(Bucket),
}

impl Gauge {
    /// What there is when nothing is spent.
    pub const fn limit(&self) -> u64 {
        match self {
            Self::Quota(quota) => quota.limit(),
            Self::Bucket(bucket) => bucket.burst(),
        }
    }

    /// What spending `cost` would come to.
    pub fn look(&self, word: u64, when: When, cost: u64) -> Spent {
        match self {
            Self::Quota(quota) => quota.spend(word, when.unix_ms, cost).0,
            Self::Bucket(bucket) => bucket.spend(word, when.moment, cost).0,
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
