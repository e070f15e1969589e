//! What a core does with what it holds: spends it in its window, asks for as much as it needs, and gives the rest back.

use super::*;
use crate::runtime::Limits;

fn leasing() -> Leasing {
    Leasing::new(false, Duration::from_millis(100), LocalId(1))
}

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

/// Notes what Redis said at a time, of a window that ends in a minute.
fn note(leases: &Leases, given: u64, spent: u64, mark: u64, millis: u64) -> Spent {
    leases.note(b"k", [given, spent, 60_000, mark], (at(millis), at(millis)), &leasing()).1
}

fn held(leases: &Leases) -> u64 {
    leases.keys.borrow().get(b"k".as_slice()).map_or(0, |lease| lease.left)
}

#[test]
fn what_is_held_is_spent_without_asking_until_the_window_ends() {
    let (core, leasing) = (Core::for_trial(Limits::default()), leasing());
    let leases = leasing.leases(&core);
    assert!(leasing.spend_held(&core, b"k", 100).is_none());
    let now = core.now();
    leases.note(b"k", [3, 3, 60_000, 1], (now, now), &leasing);
    for remaining in [98, 97] {
        let spent = leasing.spend_held(&core, b"k", 100).unwrap();
        assert_eq!((spent.admitted, spent.remaining), (true, remaining));
    }
    assert!(leasing.spend_held(&core, b"k", 100).is_none(), "all three are spent");
    assert_eq!(core.stats.limit_leased.get(), 2);
    // Whoever was told that nothing is left does not ask again at once.
    leases.note(b"k", [0, 100, 60_000, 1], (now, now), &leasing);
    let refused = leasing.spend_held(&core, b"k", 100).unwrap();
    assert_eq!((refused.admitted, refused.remaining), (false, 0));
    // A window that is over admits nobody.
    leases.note(b"k", [9, 9, 0, 100_000], (now, now), &leasing);
    assert!(leasing.spend_held(&core, b"k", 100).is_none());
}

#[test]
fn nothing_of_one_window_is_spent_in_another() {
    let leases = Leases::default();
    note(&leases, 10, 10, 50_000, 0);
    assert_eq!(held(&leases), 9);
    note(&leases, 5, 15, 50_300, 0);
    assert_eq!(held(&leases), 13, "two marks of one window");
    note(&leases, 4, 4, 110_000, 0);
    assert_eq!(held(&leases), 3);
    note(&leases, 7, 22, 50_001, 0);
    assert_eq!(held(&leases), 3, "it came late");
    note(&leases, 0, 100, 170_000, 0);
    assert_eq!(held(&leases), 0);
}

#[test]
fn more_is_asked_for_while_it_does_not_last_and_by_one_at_a_time() {
    let leases = Leases::default();
    let wants: Vec<u64> = (0..14)
        .map(|_| {
            let (want, asking) = leases.begin(b"k");
            assert_eq!(asking.as_ref().map(|_| leases.begin(b"k").0), asking.as_ref().map(|_| 1));
            drop(asking);
            note(&leases, want, 9, 1, 0);
            want
        })
        .collect();
    assert_eq!(wants[..5], [1, 2, 4, 8, 16]);
    assert_eq!(wants[13], TAKEN_MAX);
}

#[test]
fn what_was_not_needed_goes_back_and_idle_keys_are_forgotten() {
    let leases = Leases::default();
    note(&leases, 10, 10, 1, 0);
    let back = |millis, all| leases.collect(at(millis), all).into_iter().map(|one| one.1).sum::<u64>();
    // One was used: as many are kept.
    assert_eq!((back(100, false), held(&leases)), (8, 1));
    assert_eq!((back(200, false), held(&leases)), (1, 0));
    assert!(leases.keys.borrow().is_empty());
    note(&leases, 10, 10, 1, 0);
    assert_eq!(back(100, true), 9);
    // What is of a window that is over is nobody's.
    note(&leases, 10, 10, 1, 0);
    assert_eq!(back(60_000, true), 0);
    assert!(leases.keys.borrow().is_empty());
}

#[test]
fn what_is_put_back_is_held_again_in_its_own_window_alone() {
    let leases = Leases::default();
    note(&leases, 1, 10, 1, 0);
    let ends = leases.keys.borrow().values().next().map(|lease| lease.ends).unwrap();
    let key = leases.keys.borrow().keys().next().cloned().unwrap();
    leases.put_back(&key, at(10), ends.plus(Duration::from_millis(2)));
    assert_eq!(held(&leases), 1);
    leases.put_back(&key, at(10), ends.plus(Duration::from_secs(1)));
    leases.put_back(&key, ends, ends);
    leases.put_back(b"another", at(10), ends);
    assert_eq!((held(&leases), leases.keys.borrow().len()), (1, 1));
}

#[test]
fn keys_are_not_held_without_end() {
    let leases = Leases::default();
    for key in 0..KEYS_MAX + 9 {
        let spent = leases.note(key.to_string().as_bytes(), [2, 2, 60_000, 1], (at(0), at(0)), &leasing()).1;
        assert!(spent.admitted);
    }
    assert_eq!(leases.keys.borrow().len(), KEYS_MAX);
}
