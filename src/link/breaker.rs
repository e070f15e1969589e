//! Circuit breakers all cores share, in the words of an [`Account`]: one holds what was counted, the other when it
//! was last opened.
//!
//! The rules are APISIX's. Every so many bad answers in all open it, each time for twice as long; a bad answer in
//! between makes the time under way longer already. Times are whole seconds, both ends included, so two seconds are
//! between two and three. Nothing counts down: an open breaker lets requests through again by the clock alone, and
//! forgets what it counted when so many good answers came with no bad one among them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ledger::Account;
use crate::base::clock::Moment;

/// Most answers, bad or good, that can be asked for: the bits a count has.
pub const ANSWERS_MAX: u64 = (1 << COUNT_BITS) - 1;
const COUNT_BITS: u32 = 28;
/// Times it was opened that are told apart; long before, the time is the longest there is.
const OPENED_MAX: u64 = 63;

/// What was counted: one word, so that it changes at once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    /// How often it was opened.
    opened: u64,
    /// Bad answers since.
    bad: u64,
    /// Good answers since the last bad one.
    good: u64,
}

impl Counted {
    const fn pack(self) -> u64 {
        self.opened << (2 * COUNT_BITS) | self.bad << COUNT_BITS | self.good
    }

    const fn unpack(word: u64) -> Self {
        let low = ANSWERS_MAX;
        Self { opened: word >> (2 * COUNT_BITS), bad: word >> COUNT_BITS & low, good: word & low }
    }

    /// How long it is open.
    const fn seconds(self, longest: u64) -> u64 {
        let doubled = self.opened + (self.bad > 0) as u64;
        let seconds = if doubled < OPENED_MAX { 1 << doubled } else { u64::MAX };
        if seconds < longest { seconds } else { longest }
    }
}

impl Account {
    /// Whether requests are to be kept away.
    pub fn is_open(&self, now: Moment, longest: Duration) -> bool {
        let counted = Counted::unpack(self.first.load(Ordering::Acquire));
        if counted.opened == 0 {
            return false;
        }
        // A moment after the count may come the time; who looks in between finds an old one and passes.
        let (opened, now) = (self.second.load(Ordering::Acquire), now.as_millis());
        let longest_ms = longest.as_millis() as u64;
        now < opened.saturating_add(longest_ms)
            && now / 1000 <= (opened / 1000).saturating_add(counted.seconds(longest.as_secs()))
    }

    /// Counts a bad answer; for how many seconds it opened, if it is the last of `bad_max` that do so.
    pub fn count_bad(&self, now: Moment, bad_max: u64, longest: Duration) -> Option<u64> {
        let mut opens = false;
        let counted = self.count(|counted| {
            opens = counted.bad + 1 >= bad_max;
            Some(match opens {
                true => Counted { opened: OPENED_MAX.min(counted.opened + 1), bad: 0, good: 0 },
                false => Counted { bad: counted.bad + 1, good: 0, ..counted },
            })
        });
        if opens {
            self.second.store(now.as_millis(), Ordering::Release);
        }
        opens.then(|| counted.seconds(longest.as_secs()))
    }

    /// Counts a good answer, if there were bad ones; the last of `good_max` in a row lets all be forgotten.
    pub fn count_good(&self, good_max: u64) {
        self.count(|counted| match counted.good + 1 {
            _ if counted == Counted::default() => None,
            good if good >= good_max => Some(Counted::default()),
            good => Some(Counted { good, ..counted }),
        });
    }

    /// Changes what was counted; `change` may be asked several times. What it came to.
    fn count(&self, mut change: impl FnMut(Counted) -> Option<Counted>) -> Counted {
        let mut seen = self.first.load(Ordering::Acquire);
        loop {
            let Some(next) = change(Counted::unpack(seen)) else { return Counted::unpack(seen) };
            match self.first.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // No clock ends what was counted.
                    if seen == 0 {
                        self.matters_always();
                    }
                    return next;
                }
                Err(other) => seen = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(300);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Counts so many bad answers at a time; for how long each of them opened it.
    fn bad(account: &Account, count: usize, millis: u64) -> Vec<u64> {
        (0..count).filter_map(|_| account.count_bad(at(millis), 3, LONGEST)).collect()
    }

    #[test]
    fn it_opens_with_the_last_of_so_many_and_closes_by_the_clock() {
        let account = Account::default();
        assert!(bad(&account, 2, 10_900).is_empty());
        assert!(!account.is_open(at(10_900), LONGEST));
        assert_eq!(bad(&account, 1, 10_900), [2]);
        for (millis, open) in
            [(10_900, true), (12_900, true), (12_999, true), (13_000, false), (99_000, false)]
        {
            assert_eq!(account.is_open(at(millis), LONGEST), open, "{millis}");
        }
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_the_longest() {
        let account = Account::default();
        let mut times = Vec::new();
        for _ in 0..70 {
            times.extend(bad(&account, 3, 1000));
        }
        assert_eq!(times[..9], [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(times[9..].iter().all(|seconds| *seconds == 300));
        assert!(account.is_open(at(300_999), LONGEST));
        assert!(!account.is_open(at(301_000), LONGEST), "the longest is to the millisecond");
    }

    #[test]
    fn a_bad_answer_after_the_time_makes_it_longer_at_once() {
        let account = Account::default();
        bad(&account, 3, 10_000);
        assert!(!account.is_open(at(13_000), LONGEST));
        assert!(bad(&account, 1, 13_000).is_empty());
        assert!(account.is_open(at(14_999), LONGEST), "four seconds from when it was opened");
        assert!(!account.is_open(at(15_000), LONGEST));
    }

    #[test]
    fn good_answers_in_a_row_let_it_forget() {
        let account = Account::default();
        bad(&account, 2, 10_000);
        account.count_good(2);
        assert_eq!(bad(&account, 1, 10_000), [2], "one good answer is no row");
        account.count_good(2);
        assert!(account.is_open(at(10_000), LONGEST));
        account.count_good(2);
        assert!(!account.is_open(at(10_000), LONGEST));
        assert_eq!(bad(&account, 3, 20_000), [2], "the first time again");
        let fresh = Account::default();
        (0..9).for_each(|_| fresh.count_good(9));
        assert_eq!(bad(&fresh, 3, 20_000), [2], "good answers are not saved up");
    }

    #[test]
    fn a_count_as_large_as_can_be_written_keeps_to_its_bits() {
        let account = Account::default();
        account.first.store(Counted { opened: 1, bad: ANSWERS_MAX - 1, good: 7 }.pack(), Ordering::Relaxed);
        assert_eq!(account.count_bad(at(1000), ANSWERS_MAX, LONGEST), Some(4));
        let counted = Counted::unpack(account.first.load(Ordering::Relaxed));
        assert_eq!((counted.opened, counted.bad, counted.good), (2, 0, 0));
    }

    #[test]
    fn no_answer_is_lost_between_threads() {
        let account = Arc::new(Account::default());
        let opened: usize = std::thread::scope(|scope| {
            let counting: Vec<_> = (0..4)
                .map(|_| {
                    let account = Arc::clone(&account);
                    scope.spawn(move || {
                        (0..3000).filter(|_| account.count_bad(at(1000), 100, LONGEST).is_some()).count()
                    })
                })
                .collect();
            counting.into_iter().map(|one| one.join().expect("no panic")).sum()
        });
        assert_eq!(opened, 120);
    }
}
