//! Quotas and buckets against models too simple to be wrong, and clocks that jump.

use super::*;
use crate::base::rng::Rng;

const SECOND_MS: u64 = 1000;
/// 2024-02-15T12:00:00Z.
const NOON: u64 = 1_707_998_400_000;

fn at(ns: u64) -> Moment {
    Moment::from_nanos(ns)
}

/// Spends until it is refused; how often it was admitted, and the word then.
fn drain(quota: &Quota, mut word: u64, now_ms: u64) -> (u64, u64) {
    for times in 0.. {
        match quota.spend(word, now_ms, 1).1 {
            Some(next) => word = next,
            None => return (times, word),
        }
    }
    unreachable!()
}

#[test]
fn the_calendar_has_its_windows_where_people_have_them() {
    let noon = NOON / 1000;
    for (unit, start, end) in [
        (Unit::Second, noon, noon + 1),
        (Unit::Minute, noon, noon + 60),
        (Unit::Hour, noon, noon + 3600),
        (Unit::Day, noon - 12 * 3600, noon + 12 * 3600),
        // February 2024 has 29 days.
        (Unit::Month, 1_706_745_600, 1_706_745_600 + 29 * 86_400),
    ] {
        assert_eq!(unit.around(noon), (start, end), "{unit:?}");
        assert_eq!(unit.around(end - 1), (start, end), "{unit:?}");
        assert_eq!(unit.around(end).0, end, "{unit:?}");
    }
}

#[test]
fn a_window_admits_its_limit_and_the_next_one_as_much() {
    for span in [
        Span::Lasting(1),
        Span::Lasting(90),
        Span::Lasting(3600),
        Span::Lasting(86_400),
        Span::Calendar(Unit::Minute),
        Span::Calendar(Unit::Month),
    ] {
        let quota = Quota::new(5, span);
        let (times, word) = drain(&quota, 0, NOON + 250);
        let refused = quota.spend(word, NOON + 250, 1).0;
        assert_eq!((times, refused.admitted, refused.remaining), (5, false, 0), "{span:?}");
        let left = refused.reset_in.as_millis() as u64;
        assert!(left > 0 && left <= 31 * 86_400 * SECOND_MS, "{span:?} {left}");
        // Never longer than a second and never shorter than it was told.
        assert_eq!(drain(&quota, word, NOON + 250 + left - 20).0, 0, "{span:?}");
        assert_eq!(drain(&quota, word, NOON + 250 + left).0, 5, "{span:?}");
        assert_eq!(Span::of_code(span.code()), Some(span));
    }
}

#[test]
fn a_cost_is_taken_whole_or_not_and_given_back_to_its_own_window() {
    let quota = Quota::new(10, Span::Lasting(60));
    let (told, word) = quota.spend(0, NOON, 7);
    let word = word.unwrap();
    assert_eq!((told.admitted, told.remaining), (true, 3));
    assert!(quota.spend(word, NOON, 4).1.is_none());
    let back = Quota::give_back(word, word, 5).unwrap();
    assert_eq!(quota.spend(back, NOON, 8).0.remaining, 0);
    // Owing goes beyond the limit, and what is left is none.
    let owing = quota.owe(back, NOON, 100);
    assert_eq!(quota.spend(owing, NOON, 0).0.remaining, 0);
    let later = quota.spend(owing, NOON + 60_000, 1).1.unwrap();
    assert_eq!(Quota::give_back(later, word, 1), None, "that window is over");
    assert_eq!(quota.owe(0, NOON, u64::MAX) & COUNT_MAX, COUNT_MAX);
}

#[test]
fn a_clock_that_jumps_neither_freezes_nor_opens_a_limit() {
    const DAY_MS: u64 = DAY * 1000;
    for span in [
        Span::Lasting(86_400),
        Span::Calendar(Unit::Day),
        Span::Calendar(Unit::Hour),
        Span::Calendar(Unit::Month),
    ] {
        let quota = Quota::new(5, span);
        for back_ms in [0, 1, 999, 60_000, 3_600_001, DAY_MS, 400 * DAY_MS, NOON - DAY_MS] {
            let (_, word) = drain(&quota, 0, NOON);
            // The clock was ahead by so much when it was kept, and is right again when it is read.
            let now = NOON - back_ms;
            let kept = Quota::after_a_rest(span, word, back_ms, now);
            assert_eq!(drain(&quota, kept, now).0, 0, "{span:?} opens after {back_ms} ms");
            let left = quota.spend(kept, now, 1).0.reset_in.as_millis() as u64;
            assert!(left <= 31 * DAY_MS, "{span:?} is frozen for {left} ms");
            assert_eq!(drain(&quota, kept, now + left + 1000).0, 5, "{span:?} is frozen after {back_ms} ms");
            // Nobody but who restores it meets such a word; it is strict all the same.
            assert_eq!(drain(&quota, word, now).0, 0, "{span:?} opens after {back_ms} ms");
        }
        // While the process was away nothing of it is forgotten, if its window is not over.
        let (_, word) = drain(&quota, 0, NOON);
        assert_eq!(drain(&quota, Quota::after_a_rest(span, word, 0, NOON + 60_000), NOON + 60_000).0, 0);
    }
}

#[test]
fn a_bucket_gives_no_more_than_its_rate_and_burst_however_it_is_asked() {
    let mut dice = Rng::seeded(11);
    for (rate, burst) in [(1.0, 1), (10.0, 5), (333.3, 100), (1e6, 1000)] {
        let bucket = Bucket::new(rate, burst);
        let (mut word, mut now) = (0, 1);
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for _ in 0..20_000 {
            now += dice.below((2e9 / rate) as u64 + 1) / 2;
            let cost = 1 + dice.below(3);
            let (told, next) = bucket.spend(word, at(now), cost);
            if let Some(next) = next {
                word = next;
                admitted.push((now, cost));
            } else if cost <= burst {
                let again = bucket.spend(word, at(now + told.reset_in.as_nanos() as u64), cost).0;
                assert!(again.admitted, "it was told when");
            }
        }
        let mut sum = vec![0_u64];
        admitted.iter().for_each(|(_, cost)| sum.push(sum[sum.len() - 1] + cost));
        for (from, (since, _)) in admitted.iter().enumerate().step_by(97) {
            for (to, (until, _)) in admitted.iter().enumerate().skip(from).step_by(89) {
                let most = rate * (until - since) as f64 / 1e9 + burst as f64 + 1e-6;
                assert!((sum[to + 1] - sum[from]) as f64 <= most, "{rate} {burst}: {from} to {to}");
            }
        }
    }
}

/// What is given back is never more than would be there if it had never been taken.
#[test]
fn what_a_bucket_gets_back_it_never_had_more_of() {
    let mut dice = Rng::seeded(5);
    for _ in 0..300 {
        let bucket = Bucket::new(1.0, 10);
        // The bucket at hand, what was given back so far, and what is still to be settled: mark, seen returned, cost.
        let (mut word, mut returned, mut open) = (0, 0, Vec::new());
        // In the model only what was truly used is taken: when, and how much.
        let mut used: Vec<(u64, u64)> = Vec::new();
        let mut now = 1;
        for _ in 0..200 {
            now += dice.below(3_000) * 1_000_000;
            if dice.below(3) == 0 && !open.is_empty() {
                let (mark, seen, cost, at_then) = open.swap_remove(dice.below(open.len() as u64) as usize);
                let really = dice.below(cost + 1);
                let by = bucket.give_back(mark, returned - seen, at(now), cost - really);
                word -= by;
                returned += by;
                used.push((at_then, really));
                continue;
            }
            let cost = 1 + dice.below(8);
            if let (_, Some(next)) = bucket.spend(word, at(now), cost) {
                word = next;
                open.push((next, returned, cost, now));
            }
        }
        used.extend(open.iter().map(|(_, _, cost, then)| (*then, *cost)));
        used.sort_unstable();
        for from in 0..used.len() {
            let mut sum = 0;
            for (then, cost) in &used[from..] {
                sum += cost;
                let most = (then - used[from].0) as f64 / 1e9 + 10.0 + 1e-6;
                assert!(sum as f64 <= most, "{sum} in {} s", (then - used[from].0) / 1_000_000_000);
            }
        }
    }
}

#[test]
fn numbers_at_their_ends_do_no_harm() {
    for bucket in [Bucket::new(1e-12, u64::MAX), Bucket::new(1e12, 1), Bucket::new(f64::MIN_POSITIVE, 3)] {
        for word in [0, 1, u64::MAX / 2, u64::MAX] {
            for cost in [0, 1, u64::MAX] {
                bucket.spend(word, at(u64::MAX / 2), cost);
                assert!(bucket.owe(word, at(5), cost) >= 5);
                bucket.give_back(word, cost, at(1), cost);
            }
        }
    }
    for span in [Span::Lasting(1), Span::Lasting(u32::MAX), Span::Calendar(Unit::Month)] {
        for word in [0, 1, u64::MAX] {
            for now in [0, 1, u64::MAX / 4] {
                Quota::new(u64::MAX, span).spend(word, now, u64::MAX);
                Quota::new(0, span).owe(word, now, 1);
                Quota::after_a_rest(span, word, now, now);
            }
        }
    }
}
