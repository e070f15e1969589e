//! A log of what was admitted, one by one: no window of its length, wherever it begins, has more than its limit.
//!
//! What is admitted takes a place for as long as the window lasts, and there are as many places as the limit. A place is a
//! word, which says until when it is taken; so each is taken by a swap of its own, and who finds none free is refused.

use std::time::Duration;

use super::Spent;
use crate::base::clock::Moment;

/// Most that a log may admit in a window: each is looked at for every request.
pub const LOG_MAX: u64 = 16;
/// What a window of a log is shorter than: longer ones are kept beyond the process, and a log is not.
pub const LOG_WINDOW: Duration = super::quota::LONG;
/// Places of an account.
pub const PLACES: usize = 2;

/// So many in any window of that length.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    limit: u64,
    window: Duration,
}

impl Log {
    /// `limit` in any `window`; `None` where that is more than [`LOG_MAX`], or not shorter than [`LOG_WINDOW`].
    pub fn new(limit: u64, window: Duration) -> Option<Self> {
        (limit <= LOG_MAX && window < LOG_WINDOW).then_some(Self { limit, window })
    }

    /// What a window admits.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How many places there are in each of its accounts.
    pub fn accounts(&self) -> impl Iterator<Item = usize> + use<> {
        let limit = self.limit as usize;
        (0..limit.div_ceil(PLACES)).map(move |account| (limit - account * PLACES).min(PLACES))
    }

    /// Until when what is admitted now has its place.
    pub fn until(&self, now: Moment) -> u64 {
        now.plus(self.window).as_nanos()
    }

    /// Whether a place with that word may be taken.
    #[inline]
    pub const fn is_free(word: u64, now: Moment) -> bool {
        word <= now.as_nanos()
    }

    /// What its places come to, where so many are wanted of which so many were taken.
    #[must_use]
    pub fn told(&self, taken: &mut Taken, (wanted, admitted): (u64, bool), now: Moment) -> Spent {
        let remaining = self.limit.saturating_sub(taken.count as u64);
        let more = if admitted { 1 } else { wanted.saturating_sub(remaining) };
        Spent { admitted, remaining, reset_in: taken.free_in(more, now).unwrap_or(self.window) }
    }
}

/// Places that are taken: until when.
#[derive(Debug, Default)]
pub struct Taken {
    until: [u64; LOG_MAX as usize],
    count: usize,
}

impl Taken {
    /// Notes those of an account's places that are taken.
    pub fn note(&mut self, words: &[u64], now: Moment) {
        for word in words.iter().filter(|word| !Log::is_free(**word, now)) {
            if let Some(place) = self.until.get_mut(self.count) {
                *place = *word;
                self.count += 1;
            }
        }
    }

    /// Forgets one that was taken until then: it is given back.
    pub fn forget(&mut self, until: u64) {
        if let Some(at) = self.until[..self.count].iter().position(|word| *word == until) {
            self.count -= 1;
            self.until.swap(at, self.count);
        }
    }

    /// In how long so many more are free, if there are so many.
    fn free_in(&mut self, more: u64, now: Moment) -> Option<Duration> {
        let taken = &mut self.until[..self.count];
        taken.sort_unstable();
        let until = taken.get((more as usize).checked_sub(1)?)?;
        Some(Duration::from_nanos(until.saturating_sub(now.as_nanos())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_log_has_as_many_places_as_its_limit() {
        for limit in 1..=LOG_MAX {
            let log = Log::new(limit, Duration::from_secs(1)).expect("it is short and small");
            assert_eq!(log.accounts().sum::<usize>() as u64, limit);
        }
        assert!(Log::new(LOG_MAX + 1, Duration::from_secs(1)).is_none());
        assert!(Log::new(1, LOG_WINDOW).is_none());
    }

    #[test]
    fn a_place_is_free_again_when_its_window_is_over() {
        let log = Log::new(3, Duration::from_secs(2)).expect("it is short and small");
        let until = log.until(at(500));
        assert_eq!((Log::is_free(until, at(2_499)), Log::is_free(until, at(2_500))), (false, true));
        assert!(Log::is_free(0, at(0)));
        let mut taken = Taken::default();
        taken.note(&[log.until(at(700)), until], at(1_000));
        taken.note(&[log.until(at(900)), at(999).as_nanos()], at(1_000));
        let refused = [1, 2, 3].map(|wanted| log.told(&mut taken, (wanted, false), at(1_000)));
        assert!(refused.iter().all(|told| (told.admitted, told.remaining) == (false, 0)), "{refused:?}");
        assert_eq!(refused.map(|told| told.reset_in.as_millis()), [1_500, 1_700, 1_900]);
        taken.forget(until);
        let admitted = log.told(&mut taken, (1, true), at(1_000));
        assert_eq!((admitted.remaining, admitted.reset_in.as_millis()), (1, 1_700));
    }
}
