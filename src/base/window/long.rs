//! Windows that are kept beyond the process: what there is to know of one to make sense of its words in the next.

use std::time::Duration;

use super::quota::{LONG, Quota, Span};
use super::{COUNT_MAX, SLIDING_MAX, Sliding, pack, unpack};
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

    /// A word of ours with what somebody who counts the same beside us has spent: what is in `theirs` and was not in
    /// `before`, when both knew the same. `None` where nothing changes.
    ///
    /// Of two windows that began with their first uses and overlap, it is one that began with the first of these, as it
    /// would be had one process counted both.
    pub fn join(self, ours: u64, theirs: u64, before: u64) -> Option<u64> {
        if theirs == 0 || theirs == before {
            return None;
        }
        let (apart, most) = match self {
            Self::Quota(Span::Lasting(seconds)) => (u64::from(seconds), COUNT_MAX),
            Self::Quota(Span::Calendar(_)) => (1, COUNT_MAX),
            Self::Sliding(_) => (1, SLIDING_MAX),
        };
        let is_one = |one: u64, other: u64| one.abs_diff(other) < apart;
        let parts = |word: u64| {
            let (start, count) = unpack(word);
            (start, count & most, count & !most)
        };
        let ((our_start, our_count, our_seal), (start, count, seal)) = (parts(ours), parts(theirs));
        let (known_start, known, _) = parts(before);
        let known = if before != 0 && is_one(known_start, start) { known } else { 0 };
        let joined = if ours != 0 && is_one(our_start, start) {
            let all = (our_count + count).saturating_sub(known).min(most);
            pack(our_start.min(start), all | our_seal)
        } else if ours == 0 || our_start < start {
            pack(start, count.saturating_sub(known) | seal)
        } else {
            ours
        };
        (joined != ours).then_some(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::Unit;
    use super::super::{SEALED, Slide};
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
    fn of_two_who_count_the_same_each_adds_what_the_other_has_spent() {
        const DAY: Long = Long::Quota(Span::Calendar(Unit::Day));
        const HOUR: Long = Long::Quota(Span::Lasting(3600));
        const SLIDE: Long = Long::Sliding(3600);
        let sealed = |start, count| pack(start, count | SEALED);
        for (long, ours, theirs, before, joined) in [
            (DAY, pack(86_400, 7), pack(86_400, 9), pack(86_400, 4), Some(pack(86_400, 12))),
            (DAY, pack(86_400, 7), pack(86_400, 4), pack(86_400, 4), None),
            // What was given back there; more than there is can not be.
            (DAY, pack(86_400, 7), pack(86_400, 2), pack(86_400, 4), Some(pack(86_400, 5))),
            (DAY, pack(86_400, 1), pack(86_400, 0), pack(86_400, 4), Some(pack(86_400, 0))),
            // Another day there; another one here.
            (DAY, pack(86_400, 7), pack(172_800, 2), pack(86_400, 4), Some(pack(172_800, 2))),
            (DAY, pack(172_800, 7), pack(86_400, 6), pack(86_400, 4), None),
            (DAY, 0, pack(86_400, 6), 0, Some(pack(86_400, 6))),
            (DAY, pack(86_400, u64::from(u32::MAX)), pack(86_400, 6), 0, None),
            // Each has begun for itself.
            (HOUR, pack(5000, 7), pack(5010, 2), 0, Some(pack(5000, 9))),
            (HOUR, pack(5010, 7), pack(5000, 2), 0, Some(pack(5000, 9))),
            // They know by now when ours began.
            (HOUR, pack(5000, 8), pack(5000, 10), pack(5010, 7), Some(pack(5000, 11))),
            (HOUR, pack(5000, 7), pack(8600, 2), pack(5000, 7), Some(pack(8600, 2))),
            (SLIDE, pack(9, 7), pack(9, 5), pack(9, 2), Some(pack(9, 10))),
            (SLIDE, sealed(9, 7), pack(9, 5), pack(9, 2), Some(sealed(9, 10))),
            (SLIDE, pack(7, 7), sealed(9, 5), pack(7, 2), Some(sealed(9, 5))),
            (SLIDE, pack(9, SLIDING_MAX), pack(9, 5), pack(9, 2), None),
        ] {
            let told = long.join(ours, theirs, before);
            assert_eq!(
                told.map(unpack),
                joined.map(unpack),
                "{long:?}: {:?} and {:?}",
                unpack(ours),
                unpack(theirs)
            );
        }
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
