//! The arithmetic of limits: words and a moment in, a decision and the next words out.
//!
//! Nothing here is shared, waits or asks for the time. Who keeps the words changes them by compare-and-swap, so a
//! decision holds only if the word it was made from is still there. A word of zero is one that was never used. Times of
//! callers may lie a little behind those of the words, because several clocks are read; that can make a decision
//! stricter, never laxer.
//!
//! | kind | words | what they hold |
//! |---|---|---|
//! | [`Fixed`] | 1 | start of the window, spent in it |
//! | [`Sliding`] | 2 | number of the window and spent in it, twice: this window and the one before |
//! | [`Leaky`] | 1 | when the last admitted request's turn was |
//! | [`Seats`] | 1 | how many are taken |
//!
//! [`flow`] has bytes that pass slowly, [`log`] windows that count exactly wherever they begin, [`quota`] has those that may outlive the process, as sliding ones may; [`long`] says what is kept of either.

pub mod flow;
pub mod log;
pub mod long;
pub mod quota;

use std::time::Duration;

use super::clock::Moment;

/// Most that a window may admit: the bits of a word that count.
pub const COUNT_MAX: u64 = u32::MAX as u64;
/// Windows of a fixed kind begin at multiples of this, or of [`LONG_TICK`].
const TICK: Duration = Duration::from_millis(10);
/// What windows are measured in that are longer than [`LONG_TICKS`] ticks.
const LONG_TICK: Duration = Duration::from_secs(1);
const TICK_NS: u64 = TICK.as_nanos() as u64;
const LONG_TICK_NS: u64 = LONG_TICK.as_nanos() as u64;
const SECOND_NS: u64 = 1_000_000_000;
/// 124 days of 10 ms: a quarter of what 32 bits can tell, so that what lies behind is told from what lies ahead.
const LONG_TICKS: u64 = 1 << 30;
/// A window that begins at most so many ticks after "now", an hour, began just now on a clock that was read later.
const AHEAD_TICKS: u64 = 360_000;
/// Longest spacing of a leaky bucket, and longest time its burst may stand for: 146 years.
const NANOS_MAX: u64 = 1 << 62;

/// What asking a window came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whether the request is within the limit; if not, nothing is counted.
    pub admitted: bool,
    /// How many more the window admits.
    pub remaining: u64,
    /// When more is admitted, or the window ends.
    pub reset_in: Duration,
}

/// A place in time and a count in one word.
const fn pack(at: u64, count: u64) -> u64 {
    at << 32 | count
}

const fn unpack(word: u64) -> (u64, u64) {
    (word >> 32, word & COUNT_MAX)
}

/// A window that starts with its first use.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    limit: u64,
    window: u64,
    tick_ns: u64,
}

impl Fixed {
    /// `limit` in each `window`, which is at least 10 ms.
    pub const fn new(limit: u64, window: Duration) -> Self {
        let nanos = window.as_secs().saturating_mul(SECOND_NS).saturating_add(window.subsec_nanos() as u64);
        let ticks = nanos / TICK_NS;
        let (window, tick_ns) =
            if ticks <= LONG_TICKS { (ticks, TICK_NS) } else { (nanos / LONG_TICK_NS, LONG_TICK_NS) };
        Self {
            limit: if limit < COUNT_MAX { limit } else { COUNT_MAX },
            window: if window == 0 {
                1
            } else if window < COUNT_MAX {
                window
            } else {
                COUNT_MAX
            },
            tick_ns,
        }
    }

    /// What a window admits.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Ticks until a moment. Either of two divisions by what is known costs less than one by what is not.
    #[inline]
    const fn ticks(&self, now: Moment) -> u64 {
        if self.tick_ns == TICK_NS { now.as_nanos() / TICK_NS } else { now.as_nanos() / LONG_TICK_NS }
    }

    /// What spending `cost` comes to, and the word after it if it is admitted.
    #[inline]
    pub fn spend(&self, word: u64, now: Moment, cost: u64) -> (Spent, Option<u64>) {
        // 32 bits of ticks come round after 497 days; differences do not mind.
        let now = self.ticks(now) & COUNT_MAX;
        let (start, spent) = unpack(word);
        let age = now.wrapping_sub(start) & COUNT_MAX;
        let age = if age > COUNT_MAX - AHEAD_TICKS { 0 } else { age };
        let is_over = word == 0 || age >= self.window;
        let (start, age, spent) = if is_over { (now, 0, 0) } else { (start, age, spent) };
        let reset_in = Duration::from_nanos((self.window - age).saturating_mul(self.tick_ns));
        match spent.checked_add(cost).filter(|spent| *spent <= self.limit) {
            Some(spent) => {
                let told = Spent { admitted: true, remaining: self.limit - spent, reset_in };
                (told, Some(pack(start, spent)))
            }
            None => {
                let remaining = self.limit.saturating_sub(spent);
                (Spent { admitted: false, remaining, reset_in }, None)
            }
        }
    }

    /// The word after `cost` was given back that was spent at `now`, when it was told to last so long; `None` when that window
    /// is over.
    pub fn give_back(&self, word: u64, (now, reset_in): (Moment, Duration), cost: u64) -> Option<u64> {
        let (told, next) = self.spend(word, now, 0);
        let (start, spent) = unpack(word);
        // No other window that is there now would have ended then.
        let is_it = word != 0 && told.reset_in == reset_in && next.is_none_or(|next| next >> 32 == start);
        is_it.then(|| pack(start, spent.saturating_sub(cost)))
    }
}

/// Windows at multiples of their length, of which the one before counts in proportion to how much of it a window that
/// moves with time still covers.
///
/// One word holds the window at hand if its number is even, the other if it is odd; either then holds the one before. A
/// request is admitted in a window only once the one before is sealed, so that nothing more is spent there, and what it
/// counts stays what it was: the words can not be changed at once, and so all but one must stand still.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    limit: u64,
    window_ms: u64,
}

/// Most that a sliding window may admit.
pub const SLIDING_MAX: u64 = SEALED - 1;
/// The bit of a count that says that it is final.
const SEALED: u64 = 1 << 31;

/// What is to be done to one of the two words of a [`Sliding`], if it is still there: `next` is to take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slide {
    /// Before anything can be said a window begins or ends. Whether or not that comes off, ask again.
    Move { word: usize, next: u64 },
    /// Admitted if it comes off; otherwise ask again.
    Admit { word: usize, next: u64, spent: Spent },
    /// Refused; nothing changes.
    Refuse(Spent),
}

impl Sliding {
    /// `limit` in any `window`, which is at least a second and has whole seconds.
    pub const fn new(limit: u64, window: Duration) -> Self {
        let seconds = if window.as_secs() == 0 { 1 } else { window.as_secs() };
        Self {
            limit: if limit < SLIDING_MAX { limit } else { SLIDING_MAX },
            window_ms: seconds.saturating_mul(1000),
        }
    }

    /// What spending `cost` takes. `now_ms` are milliseconds since 1970, or whatever all callers count from.
    #[inline]
    pub fn step(&self, words: [u64; 2], now_ms: u64, cost: u64) -> Slide {
        // A window's number is its own plus one, so that none is zero.
        let (mut number, mut left) = (now_ms / self.window_ms + 1, self.window_ms - now_ms % self.window_ms);
        // Time never goes back to a window that is over.
        let read = words.map(Self::read);
        let latest = read.map(|(at, sealed, _)| at + u64::from(sealed)).into_iter().fold(0, u64::max);
        if latest > number {
            (number, left) = (latest, self.window_ms);
        }
        let (this, other) = ((number & 1) as usize, (number & 1 ^ 1) as usize);
        let ((at, _, spent), (before_at, before_sealed, before)) = (read[this], read[other]);
        let is_before_over = before_at + 1 == number && before_sealed;
        // First the word of the latest window, where somebody whose clock is behind might still begin or spend.
        if !is_before_over && (at == number || latest & 1 == other as u64) {
            let count = if before_at + 1 == number { before } else { 0 };
            return Slide::Move { word: other, next: pack(number - 1, count | SEALED) };
        }
        if at != number {
            return Slide::Move { word: this, next: pack(number, 0) };
        }
        let carried = match before {
            0 => 0,
            // 31 bits and 32 bits, as with windows of up to 49 days.
            _ if left <= COUNT_MAX => before * left / self.window_ms,
            _ => (u128::from(before) * u128::from(left) / u128::from(self.window_ms)) as u64,
        };
        let used = carried.saturating_add(spent).saturating_add(cost);
        if used > self.limit {
            let reset_in = Duration::from_millis(self.wait_ms(before, spent.saturating_add(cost), left));
            return Slide::Refuse(Spent { admitted: false, remaining: 0, reset_in });
        }
        let reset_in = Duration::from_millis(left);
        let told = Spent { admitted: true, remaining: self.limit - used, reset_in };
        Slide::Admit { word: this, next: pack(number, spent + cost), spent: told }
    }

    /// Which word is to hold what after `cost` was given back that was spent at `now_ms`; `None` when that window is over.
    pub fn give_back(&self, words: [u64; 2], now_ms: u64, cost: u64) -> Option<(usize, u64)> {
        let number = now_ms / self.window_ms + 1;
        let this = (number & 1) as usize;
        let (at, is_sealed, spent) = Self::read(words[this]);
        // What is sealed has been reckoned with by the window after it.
        (at == number && !is_sealed).then(|| (this, pack(number, spent.saturating_sub(cost))))
    }

    /// The number of a window, whether it is sealed, and what was spent in it.
    const fn read(word: u64) -> (u64, bool, u64) {
        let (at, count) = unpack(word);
        (at, count & SEALED != 0, count & SLIDING_MAX)
    }

    /// Until so much of the window before has gone by that `wanted` fits; at most until this window ends.
    fn wait_ms(&self, before: u64, wanted: u64, left: u64) -> u64 {
        if before == 0 || wanted > self.limit {
            return left;
        }
        // `carried` may be `limit - wanted`: as long as `before * left < (that + 1) * window`.
        let bound = u128::from(self.limit - wanted + 1) * u128::from(self.window_ms);
        let fits_at = (bound - 1) / u128::from(before);
        left.saturating_sub(fits_at.min(u128::from(left)) as u64)
    }

    /// Words that were kept beyond their process, as they are when the clock says `now_ms`. Where it has gone back, the latest
    /// window is the one at hand, and the one before stays the one before: neither lasts until the clock is there again.
    pub fn after_a_rest(&self, words: [u64; 2], now_ms: u64) -> [u64; 2] {
        let latest = words.map(|word| unpack(word).0).into_iter().fold(0, u64::max);
        let back = latest.saturating_sub(now_ms / self.window_ms + 1);
        let moved = words.map(|word| match unpack(word) {
            (at, count) if at > back => pack(at - back, count),
            _ => 0,
        });
        // Which word is whose is in the number.
        if back.is_multiple_of(2) { moved } else { [moved[1], moved[0]] }
    }

    /// Until when the words matter at least, when a window begins at `now_ms`: that window and the next.
    pub fn matters_ms(&self, now_ms: u64) -> u64 {
        (now_ms / self.window_ms + 2).saturating_mul(self.window_ms)
    }
}

/// Requests have their turns one by one, evenly spaced; one that comes too early waits for its turn, and one whose turn
/// is too far away is refused. A word holds the turn of the last one that was admitted.
#[derive(Clone, Copy, Debug)]
pub struct Leaky {
    spacing_ns: u64,
    ahead_ns: u64,
}

/// What asking a leaky bucket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Admitted if `next` takes the place of the word; its turn is `after` now.
    Mine { next: u64, after: Duration },
    /// Refused; so much later it would be admitted.
    Full { retry_in: Duration },
}

impl Leaky {
    /// `rate` turns a second (above 0), and turns up to `burst` spacings ahead, but none further than `ahead_max`. The
    /// spacing is rounded up to a nanosecond, so that the rate is never exceeded.
    pub fn new(rate: f64, burst: f64, ahead_max: Duration) -> Self {
        let nanos = |number: f64| if number < NANOS_MAX as f64 { number as u64 } else { NANOS_MAX };
        let spacing_ns = nanos((1e9 / rate).ceil()).max(1);
        let most = ahead_max.as_nanos().min(u128::from(NANOS_MAX)) as u64;
        // A product of two such numbers may be a little below the whole number that it stands for.
        let ahead_ns = nanos(burst * spacing_ns as f64 + 0.5).min(most);
        Self { spacing_ns, ahead_ns }
    }

    /// What a request at `now` comes to.
    pub fn ask(&self, word: u64, now: Moment) -> Turn {
        let now = now.as_nanos().max(1);
        let turn = if word == 0 { now } else { word.saturating_add(self.spacing_ns).max(now) };
        let ahead = turn - now;
        if ahead > self.ahead_ns {
            return Turn::Full { retry_in: Duration::from_nanos(ahead - self.ahead_ns) };
        }
        Turn::Mine { next: turn, after: Duration::from_nanos(ahead) }
    }

    /// How many turns there are at a moment, and when there is one more.
    pub fn left(&self, word: u64, now: Moment) -> Spent {
        match self.ask(word, now) {
            Turn::Mine { after, .. } => {
                let ahead = after.as_nanos() as u64;
                let remaining = (self.ahead_ns - ahead) / self.spacing_ns + 1;
                Spent { admitted: true, remaining, reset_in: Duration::ZERO }
            }
            Turn::Full { retry_in } => Spent { admitted: false, remaining: 0, reset_in: retry_in },
        }
    }

    /// How many turns there are for a key that was never seen.
    pub const fn most(&self) -> u64 {
        self.ahead_ns / self.spacing_ns + 1
    }

    /// The spacing, rounded up, and how far ahead a turn may be, in microseconds.
    pub const fn micros(&self) -> [u64; 2] {
        [self.spacing_ns.div_ceil(1000), self.ahead_ns / 1000]
    }

    /// Nanoseconds between two turns.
    pub const fn spacing_ns(&self) -> u64 {
        self.spacing_ns
    }
}

/// So many at once. A word holds how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Seats {
    conn: u64,
    burst: u64,
}

impl Seats {
    /// `conn` at once, and `burst` more that have to wait for a while.
    pub const fn new(conn: u64, burst: u64) -> Self {
        Self { conn: if conn == 0 { 1 } else { conn }, burst }
    }

    /// How many there are with one more, if one more may come.
    pub const fn enter(&self, word: u64) -> Option<u64> {
        let taken = word.saturating_add(1);
        if taken > self.conn.saturating_add(self.burst) { None } else { Some(taken) }
    }

    /// How many spans of time the one that made it `taken` waits.
    pub const fn waits(&self, taken: u64) -> u64 {
        if taken > self.conn { (taken - 1) / self.conn } else { 0 }
    }
}

#[cfg(test)]
#[path = "window/tests.rs"]
mod tests;
