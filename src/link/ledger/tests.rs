//! What holds of accounts and of the way to them.

use super::*;
use crate::base::hash::Map;
use crate::base::rng::Rng;
use crate::base::window::log::Log;
use crate::base::window::quota::{Bucket, Quota, Span, Unit};
use crate::base::window::{Fixed, Leaky, Seats, Sliding, Turn};

const MINUTE: Duration = Duration::from_secs(60);

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

/// A key of limit `l`.
fn name(key: &[u8]) -> Name<'_> {
    Name { bytes: key, limit: 1 }
}

fn key(number: u64) -> Vec<u8> {
    format!("l{number}").into_bytes()
}

/// Spends one of `limit` a minute; whether it was admitted.
fn spend(purse: &Purse, key: &[u8], millis: u64, limit: u64) -> bool {
    let fixed = Fixed::new(limit, MINUTE);
    purse.with(at(millis), name(key), |account| account.spend_fixed(&fixed, MINUTE, at(millis), 1).admitted)
}

fn ledger(room: usize) -> (Arc<Ledger>, Purse) {
    let ledger = Arc::new(Ledger::with_room(room));
    let purse = Purse::new(&ledger);
    (ledger, purse)
}

#[test]
fn an_account_that_is_held_has_a_line_of_the_cache_to_itself() {
    assert_eq!((size_of::<Held>(), align_of::<Held>()), (64, 64));
}

#[test]
fn many_threads_never_spend_more_than_the_limit() {
    let ledger = Arc::new(Ledger::new());
    let bucket = Leaky::new(1.0, 999.0, Duration::from_secs(3600));
    let sliding = Sliding::new(1000, MINUTE);
    let log = Log::new(2, MINUTE).expect("it is short and small");
    let kinds: [&(dyn Fn(&Purse) -> bool + Sync); 4] = [
        // Five hundred accounts of two places.
        &|purse| {
            let until = log.until(at(1));
            (0..500_u16).any(|number| {
                let key = [&b"llog"[..], &number.to_le_bytes()].concat();
                purse.with(at(1), name(&key), |account| account.take_place(2, (at(1), until)))
            })
        },
        &|purse| spend(purse, b"lfixed", 1, 1000),
        &|purse| {
            purse.with(at(1), name(b"lsliding"), |account| {
                account.spend_sliding(&sliding, at(1), Epoch(60_000), 1).admitted
            })
        },
        &|purse| {
            purse.with(at(1), name(b"lleaky"), |account| {
                matches!(account.take_turn(&bucket, at(1)), Turn::Mine { .. })
            })
        },
    ];
    for kind in kinds {
        let admitted: usize = std::thread::scope(|scope| {
            let spenders: Vec<_> = (0..4)
                .map(|_| {
                    let ledger = Arc::clone(&ledger);
                    scope.spawn(move || {
                        let purse = Purse::new(&ledger);
                        (0..5000).filter(|_| kind(&purse)).count()
                    })
                })
                .collect();
            spenders.into_iter().map(|spender| spender.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, 1000);
    }
}

#[test]
fn seats_are_never_more_than_there_are_and_all_come_back() {
    let ledger = Arc::new(Ledger::new());
    let seats = Seats::new(3, 2);
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let purse = Purse::new(&ledger);
                for _ in 0..5000 {
                    let account = purse.hold(at(1), name(b"l"), None);
                    if let Some(taken) = account.enter(&seats) {
                        most.fetch_max(taken, Ordering::Relaxed);
                        account.leave();
                    }
                }
            });
        }
    });
    assert!(most.load(Ordering::Relaxed) <= 5);
    let purse = Purse::new(&ledger);
    assert_eq!(purse.with(at(1), name(b"l"), |account| account.seated()), 0);
}

#[test]
fn a_limit_in_force_outlives_any_number_of_other_keys() {
    let (ledger, purse) = ledger(4096);
    let other = Purse::new(&ledger);
    for _ in 0..3 {
        assert!(spend(&purse, b"lours", 0, 3));
    }
    for number in 0..100_000 {
        spend(&other, &key(number), 1000, 3);
    }
    assert!(ledger.accounts() <= 4096 + SHARDS);
    assert!(!spend(&other, b"lours", 2000, 3), "the count was forgotten");
    assert!(!spend(&purse, b"lours", 59_000, 3));
    assert!(spend(&other, b"lours", 60_001, 3), "the window is over");
}

#[test]
fn places_of_limits_that_are_over_are_taken_again() {
    let (ledger, purse) = ledger(4096);
    for minute in 0..50 {
        for number in 0..300 {
            assert!(
                spend(&purse, &key(minute * 1000 + number), minute * 61_000, 1),
                "minute {minute}, {number}"
            );
        }
    }
    assert_eq!(ledger.crowded(), 0);
    assert!(ledger.accounts() <= 4096);
}

#[test]
fn keys_without_a_place_share_one_count_and_never_get_more_than_their_own() {
    let seed = 77;
    let mut rng = Rng::seeded(seed);
    // One place a shard, and purses that come and go.
    let ledger = Arc::new(Ledger::with_room(SHARDS));
    let mut purses: Vec<Purse> = (0..4).map(|_| Purse::new(&ledger)).collect();
    // Five at once, and one more every twelve seconds.
    let bucket = Leaky::new(1.0 / 12.0, 4.0, Duration::from_secs(3600));
    let take = |purse: &Purse, key: &[u8], now: u64| {
        purse.with(at(now), name(key), |account| {
            matches!(account.take_turn(&bucket, at(now)), Turn::Mine { .. })
        })
    };
    let mut admitted: Map<u64, Vec<u64>> = Map::default();
    let mut now = 0;
    for _ in 0..200_000 {
        now += rng.below(20);
        if rng.below(1000) == 0 {
            now += rng.below(120_000);
        }
        let at = rng.below(4) as usize;
        if rng.below(500) == 0 {
            purses[at] = Purse::new(&ledger);
        }
        let number = rng.below(400);
        if take(&purses[at], &key(number), now) {
            admitted.entry(number).or_default().push(now);
        }
    }
    assert!(ledger.crowded() > 1000, "seed {seed}: nobody was without a place");
    for (number, times) in &admitted {
        for (first, from) in times.iter().enumerate() {
            for (last, to) in times.iter().enumerate().skip(first) {
                let most = (to - from) / 12_000 + 5;
                assert!(((last - first) as u64) < most, "seed {seed}: key {number}, {first} to {last}");
            }
        }
    }
    // When all is over, keys have places of their own again.
    now += 200_000;
    assert!((0..5).all(|_| take(&purses[0], b"lnew", now)));
}

#[test]
fn a_seat_that_is_taken_keeps_its_account() {
    let (ledger, purse) = ledger(SHARDS);
    let seats = Seats::new(1, 0);
    let held = purse.hold(at(0), name(b"lheld"), None);
    assert!(held.enter(&seats).is_some());
    let other = Purse::new(&ledger);
    for number in 0..10_000 {
        spend(&other, &key(number), 100_000 * number, 1);
    }
    drop(purse);
    let again = |millis| other.with(at(millis), name(b"lheld"), |account| account.enter(&seats).is_some());
    assert!(!again(2_000_000_000));
    held.leave();
    assert!(again(2_000_000_001));
}

#[test]
fn purses_remember_no_more_than_their_share() {
    let ledger = Arc::new(Ledger::with_room(6400));
    let purses: Vec<Purse> = (0..8).map(|_| Purse::new(&ledger)).collect();
    for number in 0..2000 {
        spend(&purses[0], &key(number), number, 1);
    }
    let held = Purse::held;
    assert!((75..=100).contains(&held(&purses[0])), "{}", held(&purses[0]));
    drop(purses);
    let alone = Purse::new(&ledger);
    for number in 0..2000 {
        spend(&alone, &key(number), number, 1);
    }
    assert!((700..=800).contains(&held(&alone)), "{}", held(&alone));
    let more: Vec<Purse> = (0..3).map(|_| Purse::new(&ledger)).collect();
    for number in 0..5000 {
        spend(&alone, &key(number + 100_000), 100_000 + number, 1);
    }
    assert!((150..=200).contains(&held(&alone)), "with three more its share is less: {}", held(&alone));
    drop(more);
}

#[test]
fn what_threads_give_back_is_there_for_others_and_nothing_more() {
    const LIMIT: u64 = 5000;
    let quota = Gauge::Quota(Quota::new(LIMIT, Span::Calendar(Unit::Month)));
    // One token in three hours: none comes while this runs.
    let bucket = Gauge::Bucket(Bucket::new(0.0001, LIMIT));
    for gauge in [quota, bucket] {
        let ledger = Ledger::new();
        let account = Account::default();
        let when = ledger.when(Moment::from_nanos(1));
        let kept: u64 = std::thread::scope(|scope| {
            let work: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let account = &account;
                    scope.spawn(move || {
                        let mut kept = 0;
                        for round in 0..20_000 {
                            let cost = 1 + (round + thread) % 3;
                            match account.spend(&gauge, when, cost) {
                                // Two of three find that another limit refuses.
                                Ok((_, mark)) if round % 3 != 0 => {
                                    account.give_back(&gauge, mark, when, cost)
                                }
                                Ok(_) => kept += cost,
                                Err(spent) => assert!(spent.remaining < cost),
                            }
                        }
                        kept
                    })
                })
                .collect();
            work.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let left = account.look(&gauge, when, 0).remaining;
        match gauge {
            Gauge::Quota(_) => assert_eq!(kept + left, LIMIT),
            // Strict where several give back at once: never more than there was.
            Gauge::Bucket(_) => assert!(kept + left <= LIMIT, "{kept} kept, {left} left"),
        }
    }
}

#[test]
fn an_account_that_is_held_or_remembered_stays_and_no_other_does() {
    let (ledger, purse) = ledger(SHARDS);
    let is_there = |key: &[u8]| ledger.find(ledger.print(key), |_| ()).is_some();
    spend(&purse, b"lheld", 0, 1);
    let held = purse.hold(at(0), name(b"lheld"), None);
    let place_of = |number: u64| ledger.find(ledger.print(&key(number)), |account| account.seated());
    // Long after all windows are over, from a purse that remembers nothing afterwards.
    for round in 0..50 {
        let other = Purse::new(&ledger);
        (0..200).for_each(|number| {
            spend(&other, &key(number), 100_000 * (round + 1), 1);
        });
    }
    assert!(is_there(b"lheld"));
    drop(purse);
    assert!(is_there(b"lheld"), "somebody holds it still");
    drop(held);
    let other = Purse::new(&ledger);
    (0..2000).for_each(|number| {
        spend(&other, &key(number), 10_000_000 + 100_000 * number, 1);
    });
    assert!(!is_there(b"lheld"));
    assert!((0..2000).filter(|number| place_of(*number).is_some()).count() <= SHARDS);
}

#[test]
fn an_account_is_the_same_whoever_holds_it_and_whoever_does_not() {
    let seed = 909;
    let mut rng = Rng::seeded(seed);
    let ledger = Arc::new(Ledger::with_room(6400));
    let mut purses: Vec<Purse> = (0..3).map(|_| Purse::new(&ledger)).collect();
    let mut held: Vec<(u64, HeldAccount)> = Vec::new();
    let mut model: Map<u64, u64> = Map::default();
    let fixed = Fixed::new(1_000_000, MINUTE);
    for step in 0..200_000 {
        if rng.below(50) == 0
            && let Some((_, account)) = held.last()
        {
            account.give_board();
        }
        let most = 1 + rng.below(3000);
        let number = rng.below(most);
        let purse = rng.below(3) as usize;
        let left = match rng.below(30) {
            0 => {
                held.push((number, purses[purse].hold(at(1), name(&key(number)), None)));
                continue;
            }
            1 if !held.is_empty() => {
                held.swap_remove(rng.below(held.len() as u64) as usize);
                continue;
            }
            2 if rng.below(100) == 0 => {
                purses[purse] = Purse::new(&ledger);
                continue;
            }
            3 if !held.is_empty() => {
                let (number, account) = &held[rng.below(held.len() as u64) as usize];
                let spent = model.entry(*number).or_default();
                *spent += 1;
                account.spend_fixed(&fixed, MINUTE, at(1), 1);
                (*spent, 1_000_000 - (ledger.words(&key(*number))[0] & u64::from(u32::MAX)))
            }
            _ => {
                let spent = model.entry(number).or_default();
                *spent += 1;
                let spend = |account: Hand<'_>| account.spend_fixed(&fixed, MINUTE, at(1), 1).remaining;
                let told = purses[purse].with(at(1), name(&key(number)), spend);
                let left = 1_000_000 - (ledger.words(&key(number))[0] & u64::from(u32::MAX));
                assert!(told <= left, "seed {seed}, step {step}: {told} of {left}");
                (*spent, left)
            }
        };
        assert_eq!(left.1, 1_000_000 - left.0, "seed {seed}, step {step}");
    }
    assert_eq!(ledger.crowded(), 0);
}

#[test]
fn a_purse_finds_what_comes_often_among_many_that_come_once() {
    let ledger = Arc::new(Ledger::with_room(65_536));
    let _others: Vec<Purse> = (0..15).map(|_| Purse::new(&ledger)).collect();
    let purse = Purse::new(&ledger);
    let mut lost = 0;
    for round in 0..4000_u64 {
        for often in 0..16 {
            spend(&purse, &key(often), round, 1_000_000);
        }
        spend(&purse, &key(1000 + round), round, 1);
        lost += usize::from(round > 100 && (0..16).any(|often| !purse.remembers(&key(often))));
    }
    assert!(lost < 400, "{lost} rounds of 3900 had one forgotten");
}
