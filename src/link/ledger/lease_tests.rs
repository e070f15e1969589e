//! What holds of portions: no more than the limit, and nobody refused while somebody has some left.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::base::rng::Rng;

const MS: u64 = 1_000_000;

/// Steps of each game; `RINGWAY_LIMIT_STEPS` has others.
fn steps() -> u64 {
    std::env::var("RINGWAY_LIMIT_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

/// What the dice begin with; `RINGWAY_LIMIT_SEED` has another.
fn seed() -> u64 {
    std::env::var("RINGWAY_LIMIT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_128)
}

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * MS)
}

/// An account with a board.
fn leased() -> (Boards, Held) {
    let (boards, account) = (Boards::new(), Held::default());
    boards.give(&account);
    assert!(boards.of(&account).is_some());
    (boards, account)
}

/// In turns, purses with portions say what one counter without any would.
#[test]
fn portions_are_seen_by_nobody() {
    for purses in 1..=8 {
        let seed = seed() + purses;
        let mut rng = Rng::seeded(seed);
        let (boards, account) = leased();
        let (mut limit, window) = (600 + rng.below(20_000), 100 + 10 * rng.below(500));
        let (mut began, mut spent, mut now) = (None::<u64>, 0, 10);
        let (mut admitted, mut refused, mut ahead) = (0, 0, 0);
        for step in 0..steps() / 8 {
            let told = || format!("seed {seed}, step {step}, {purses} purses");
            now += match rng.below(limit) {
                0 => rng.below(3 * window),
                rare if rare < 40 => 1,
                _ => 0,
            };
            if rng.below(20_000) == 0 {
                limit = 600 + rng.below(20_000);
            }
            let fixed = Fixed::new(limit, Duration::from_millis(window));
            let tick = now / 10;
            if began.is_none_or(|began| tick >= began + window / 10) {
                (began, spent) = (None, 0);
            }
            let purse = rng.below(purses) as usize * 3;
            let cost = 1 + rng.below(9) / 8 * rng.below(40);
            let hand = Hand::of(&account, &boards, purse);
            let said = hand.spend_fixed(&fixed, Duration::from_millis(window), at(now), cost);
            assert_eq!(said.admitted, spent + cost <= limit, "{}: {spent} and {cost} of {limit}", told());
            if said.admitted {
                began = began.or(Some(tick));
                spent += cost;
                admitted += 1;
                assert!(said.remaining <= limit - spent, "{}: {said:?}", told());
            } else {
                refused += 1;
                assert_eq!(said.remaining, limit.saturating_sub(spent), "{}", told());
            }
            if let Some(began) = began {
                let ends = (began * 10 + window) * MS;
                assert_eq!(said.reset_in.as_nanos() as u64, ends - tick * 10 * MS, "{}", told());
                assert_eq!(boards.words(&account)[0], pack(began, spent), "{}", told());
            }
            ahead += u64::from(unpack(account.account.words()[0]).1 > spent);
        }
        assert!(admitted > 500 && refused > 50 && ahead > 500, "{admitted} {refused} {ahead}, seed {seed}");
    }
}

/// At once, on a clock that all of them move: in no window more than the limit, and in the last one all of it.
#[test]
fn threads_with_portions_spend_what_there_is_and_no_more() {
    const LIMIT: u64 = 3000;
    const WINDOW: Duration = Duration::from_millis(50);
    let seed = seed();
    for round in 0..(steps() / 100_000).max(3) {
        let (boards, account) = leased();
        // Read while it stands still: one that is behind says of a window that it ends earlier than it does.
        let (clock, ahead) = (RwLock::new(1000), AtomicUsize::new(0));
        let fixed = Fixed::new(LIMIT, WINDOW);
        let spend = |purse: usize, now: u64| {
            let said = Hand::of(&account, &boards, purse).spend_fixed(&fixed, WINDOW, at(now), 1);
            let ends = now / 10 * 10 + said.reset_in.as_millis() as u64;
            said.admitted.then_some(ends)
        };
        let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (clock, spend, ahead, boards, account) = (&clock, &spend, &ahead, &boards, &account);
                    scope.spawn(move || {
                        let mut rng = Rng::seeded(seed + 10 * round + thread);
                        let mut admitted: BTreeMap<u64, u64> = BTreeMap::new();
                        for _ in 0..400 {
                            if rng.below(6) == 0 {
                                *clock.write().expect("no panic") += rng.below(20);
                            }
                            let now = clock.read().expect("no panic");
                            for _ in 0..1 + rng.below(100) {
                                if let Some(ends) = spend(thread as usize, *now) {
                                    *admitted.entry(ends).or_default() += 1;
                                }
                            }
                            let is_used = boards
                                .of(account)
                                .is_some_and(|board| board.head.in_use.load(Ordering::Relaxed));
                            ahead.fetch_add(usize::from(is_used), Ordering::Relaxed);
                        }
                        admitted
                    })
                })
                .collect();
            for thread in threads {
                for (ends, count) in thread.join().expect("no panic") {
                    *windows.entry(ends).or_default() += count;
                }
            }
        });
        // What is left of the last window is all there is.
        let now = clock.into_inner().expect("no panic");
        while let Some(ends) = spend(9, now) {
            *windows.entry(ends).or_default() += 1;
        }
        let last = windows.iter().next_back();
        assert_eq!(last.map(|(_, count)| *count), Some(LIMIT), "seed {seed}, round {round}");
        for (ends, count) in &windows {
            assert!(*count <= LIMIT, "seed {seed}, round {round}: {count} in the window until {ends}");
        }
        assert!(ahead.load(Ordering::Relaxed) > 100 && windows.len() > 3, "seed {seed}: no portions");
    }
}

#[test]
fn a_board_that_is_taken_leaves_nothing_behind() {
    let (boards, account) = leased();
    let fixed = Fixed::new(100_000, Duration::from_secs(60));
    for purse in 0..3 {
        Hand::of(&account, &boards, purse).spend_fixed(&fixed, Duration::from_secs(60), at(10), 1);
    }
    assert!(unpack(account.account.words()[0]).1 > 3, "they have some ahead");
    boards.take(&account);
    assert_eq!((unpack(account.account.words()[0]).1, account.board()), (3, 0));
    // The next account is given the same, and finds it empty.
    let other = Held::default();
    boards.give(&other);
    assert_eq!(other.board(), 1);
    assert!(
        boards
            .of(&other)
            .is_some_and(|board| { board.lines.iter().all(|line| line.word.load(Ordering::Relaxed) == 0) })
    );
}

#[test]
fn there_are_so_many_boards_and_others_go_without() {
    let boards = Boards::new();
    let accounts: Vec<Held> = (0..BOARDS_MAX + 2).map(|_| Held::default()).collect();
    accounts.iter().for_each(|account| boards.give(account));
    assert_eq!(accounts.iter().filter(|account| account.board() > 0).count(), BOARDS_MAX);
    let fixed = Fixed::new(1000, Duration::from_secs(60));
    let last = Hand::of(&accounts[BOARDS_MAX + 1], &boards, 0);
    let spend = || last.spend_fixed(&fixed, Duration::from_secs(60), at(10), 1).admitted;
    assert_eq!((0..2000).filter(|_| spend()).count(), 1000);
}
