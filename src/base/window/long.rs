//! Windows that are kept beyond the process: what there is to know of one to make sense of its words in the next.

use std::time::Duration;

use super::quota::{LONG, Quota, Span};
use super::{SLIDING_MAX, Sliding};
use crate::base::clock::UnixMs;

/// A window of an hour and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Long {
    /// In one word, of a [`Quota`].
    Quota(Span),
    /// In two words, of a [`Sliding`] window of so many seconds.
    Sliding(u32),
}

/// What a code of the sliding kind begins with: those of spans are less.
const SLIDING: u64 = 2 << 32;

impl Long {
    /// A window of that span, if it is worth keeping.
    pub fn of_span(span: Span) -> Option<Self> {
        span.is_long().then_some(Self::Quota(span))
    }

    /// A sliding window of so many seconds, if it is worth keeping.
    pub fn of_sliding(seconds: u64) -> Option<Self> {
        let seconds = u32::try_from(seconds).ok()?;
        (u64::from(seconds) >= LONG.as_secs()).then_some(Self::Sliding(seconds))
    }

    /// As a number.
    pub const fn code(self) -> u64 {
        match self {
            Self::Quota(span) => span.code(),
            Self::Sliding(seconds) => SLIDING | seconds as u64,
        }
    }

    /// The one with that number.
    pub fn of_code(code: u64) -> Option<Self> {
        match u32::try_from(code.wrapping_sub(SLIDING)) {
            Ok(0) => None,
            Ok(seconds) => Some(Self::Sliding(seconds)),
            Err(_) => Span::of_code(code).map(Self::Quota),
        }
    }

    /// Words that were kept beyond their process, as they are when the clock says `now_ms`, which is `back_ms` less than
    /// it said when they were kept.
    pub fn after_a_rest(self, words: [u64; 2], back_ms: u64, now_ms: UnixMs) -> [u64; 2] {
        match self {
            Self::Quota(span) => [Quota::after_a_rest(span, words[0], back_ms, now_ms), 0],
            Self::Sliding(seconds) => {
                Sliding::new(SLIDING_MAX, Duration::from_secs(u64::from(seconds))).after_a_rest(words, now_ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slide;
    use super::super::quota::Unit;
    use super::*;

    #[test]
    fn every_window_has_a_number_of_its_own() {
        let spans =
            Unit::ALL.into_iter().map(Span::Calendar).chain([Span::Lasting(1), Span::Lasting(u32::MAX)]);
        let all =
            spans.map(Long::Quota).chain([Long::Sliding(1), Long::Sliding(3600), Long::Sliding(u32::MAX)]);
        for long in all {
            assert_eq!(Long::of_code(long.code()), Some(long));
        }
        for code in [0, SLIDING, 3 << 32, u64::MAX] {
            assert_eq!(Long::of_code(code), None, "{code}");
        }
        assert_eq!((Long::of_sliding(3599), Long::of_sliding(3600)), (None, Some(Long::Sliding(3600))));
    }

    #[test]
    fn a_clock_that_went_back_neither_opens_nor_freezes_a_sliding_window() {
        let hour = 3_600_000;
        let sliding = Sliding::new(10, Duration::from_secs(3600));
        let spend = |words: &mut [u64; 2], now_ms: u64| loop {
            match sliding.step(*words, now_ms, 1) {
                Slide::Move { word, next } => words[word] = next,
                Slide::Admit { word, next, .. } => {
                    words[word] = next;
                    return true;
                }
                Slide::Refuse(_) => return false,
            }
        };
        for back in [0, 1, 2, 7, 1000] {
            let (then, now) = (2000 * hour + 5, (2000 - back) * hour + 5);
            let mut words = [0, 0];
            assert_eq!((0..20).filter(|_| spend(&mut words, then)).count(), 10);
            let mut words = Long::Sliding(3600).after_a_rest(words, back * hour, now);
            assert!(!spend(&mut words, now), "{back} hours back: it is not open");
            assert!(spend(&mut words, now + hour + hour / 2), "{back} hours back: it is not frozen");
        }
    }
}
