//! Accounts from one ledger to the next, over a file, clocks that went back, and files that are no such files.

use super::*;
use crate::base::rng::Rng;
use crate::base::window::quota::{Gauge, Quota, Span, Unit};
use crate::link::ledger::{Name, Purse};

const HOUR: Span = Span::Lasting(3600);
const GAUGE: Gauge = Gauge::Quota(Quota::new(100, HOUR));

fn spend(ledger: &Arc<Ledger>, key: &str, times: usize) {
    let purse = Purse::new(ledger);
    let now = clock::now();
    let name = Name { bytes: key.as_bytes(), limit: 1 };
    purse.with_kept(now, name, Long::of_span(HOUR), |account| {
        (0..times).for_each(|_| assert!(account.spend(&GAUGE, ledger.when(now), 1).is_ok()));
    });
}

fn left(ledger: &Ledger, key: &str) -> u64 {
    ledger.look(key.as_bytes(), &GAUGE, clock::now(), 0).remaining
}

#[test]
fn what_is_spent_goes_from_one_ledger_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = Arc::new(Ledger::new());
    let keeper = Keeper::start(&state, &first).unwrap();
    spend(&first, "a", 30);
    spend(&first, "b", 100);
    keeper.end();
    let second = Arc::new(Ledger::new());
    let keeper = Keeper::start(&state, &second).unwrap();
    assert_eq!((left(&second, "a"), left(&second, "b"), left(&second, "c")), (70, 0, 100), "looked at");
    spend(&second, "a", 5);
    assert_eq!((left(&second, "a"), left(&second, "b")), (65, 0));
    keeper.end();
    // Who is not asked for in a whole process is not forgotten.
    let third = Arc::new(Ledger::new());
    let keeper = Keeper::start(&state, &third).unwrap();
    assert_eq!((left(&third, "a"), left(&third, "b")), (65, 0));
    keeper.end();
    assert!(
        fs::read_dir(&state).unwrap().flatten().all(|entry| entry.file_name() == FILE),
        "nothing is left beside"
    );
}

/// Its ledger, and what keeps it.
fn process(folder: &Path) -> (Arc<Ledger>, Desk) {
    let ledger = Arc::new(Ledger::new());
    let desk = Desk::open(folder, &ledger).unwrap();
    (ledger, desk)
}

fn save(desk: &mut Desk) {
    desk.save(PATIENCE);
    assert!(!desk.is_failing);
}

#[test]
fn of_two_processes_with_one_folder_each_adds_what_the_other_has_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (old, mut old_desk) = process(folder.path());
    spend(&old, "a", 10);
    save(&mut old_desk);
    // Of this the new one knows nothing when it starts.
    spend(&old, "a", 3);
    spend(&old, "only there", 4);
    let (new, mut new_desk) = process(folder.path());
    spend(&new, "a", 5);
    save(&mut new_desk);
    // The old one ends.
    spend(&old, "a", 7);
    save(&mut old_desk);
    assert_eq!(left(&old, "a"), 75, "it knows what the new one had counted");
    save(&mut new_desk);
    assert_eq!((left(&new, "a"), left(&new, "only there")), (75, 96));
    spend(&new, "only there", 1);
    save(&mut new_desk);
    let (next, _) = process(folder.path());
    assert_eq!((left(&next, "a"), left(&next, "only there")), (75, 95));
}

#[test]
fn two_processes_that_know_the_same_write_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (one, mut one_desk) = process(folder.path());
    let (_other, mut other_desk) = process(folder.path());
    spend(&one, "a", 1);
    save(&mut one_desk);
    let path = folder.path().join(FILE);
    let written = fs::metadata(&path).unwrap().ino();
    for _ in 0..3 {
        save(&mut other_desk);
        save(&mut one_desk);
    }
    assert_eq!(fs::metadata(&path).unwrap().ino(), written);
}

#[test]
fn whoever_comes_when_nothing_was_counted_yet_names_accounts_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (old, mut old_desk) = process(folder.path());
    let (new, mut new_desk) = process(folder.path());
    spend(&old, "a", 1);
    spend(&new, "a", 2);
    save(&mut old_desk);
    save(&mut new_desk);
    assert_eq!(left(&new, "a"), 97);
}

#[test]
fn while_another_process_has_the_folder_nothing_is_written_and_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, mut desk) = process(folder.path());
    let path = folder.path().join(FILE);
    let written = fs::metadata(&path).unwrap().ino();
    spend(&ledger, "a", 1);
    let other = lock(folder.path(), Duration::ZERO).unwrap();
    desk.save(Duration::ZERO);
    assert!(!desk.is_failing);
    assert_eq!(fs::metadata(&path).unwrap().ino(), written);
    desk.save(Duration::from_millis(10));
    assert!(desk.is_failing, "the last save does tell");
    drop(other);
    save(&mut desk);
    assert_eq!(left(&process(folder.path()).0, "a"), 99);
}

/// Three processes spend, save, and are followed by others, in any order: in the end what each knows is what all have spent.
#[test]
fn whatever_the_order_all_that_was_spent_is_known_in_the_end() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let seed = clock::wall();
    let mut rng = Rng::seeded(seed);
    for _ in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        let mut all: Vec<_> = (0..3).map(|_| process(folder.path())).collect();
        let mut spent = [0; KEYS.len()];
        for _ in 0..40 {
            let (at, key) = (rng.below(3) as usize, rng.below(KEYS.len() as u64) as usize);
            let (ledger, desk) = &mut all[at];
            match rng.below(8) {
                0 => {
                    save(desk);
                    all[at] = process(folder.path());
                }
                1 | 2 => save(desk),
                _ => {
                    spend(ledger, KEYS[key], 1);
                    spent[key] += 1;
                }
            }
        }
        // What the first knows of the last takes a second round.
        (0..2).for_each(|_| all.iter_mut().for_each(|(_, desk)| save(desk)));
        for (ledger, _) in &all {
            assert_eq!(KEYS.map(|key| 100 - left(ledger, key)), spent, "seed {seed}");
        }
    }
}

#[test]
fn where_there_is_a_folder_a_file_is_there_from_the_first_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::new());
    let none = folder.path().join("state");
    Keeper::start(&none, &ledger).unwrap().end();
    assert!(!none.exists(), "nothing was counted");
    let ledger = Arc::new(Ledger::new());
    Keeper::start(folder.path(), &ledger).unwrap().end();
    let (kept, _) = read(&folder.path().join(FILE)).unwrap().unwrap();
    assert_eq!(kept.accounts, []);
}

#[test]
fn a_file_that_is_none_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::new());
    let keeper = Keeper::start(folder.path(), &ledger).unwrap();
    spend(&ledger, "a", 1);
    keeper.end();
    let path = folder.path().join(FILE);
    let good = fs::read(&path).unwrap();
    assert!(parse(&good).is_some());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(parse(&bad), None, "byte {at}");
        assert_eq!(parse(&good[..at]), None, "the first {at}");
    }
    fs::write(&path, b"something").unwrap();
    let ledger = Arc::new(Ledger::new());
    Keeper::start(folder.path(), &ledger).unwrap().end();
    assert_eq!(left(&ledger, "a"), 100);
    assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), b"something");
}

#[test]
fn a_file_of_the_version_before_is_read() {
    let account = KeptAccount {
        id: [7; 16],
        words: [(clock::wall() / 1000) << 32 | 30, 0],
        until: clock::wall() + 3_600_000,
        long: Long::Quota(HOUR),
    };
    let mut bytes = MARK_BEFORE.to_vec();
    bytes.extend_from_slice(&[9; 32]);
    for number in [clock::wall(), 1] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&account.id);
    for number in [account.words[0], account.until, account.long.code()] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    let keepsake = parse(&bytes).unwrap();
    assert_eq!((keepsake.key, keepsake.accounts), ([9; 32], vec![account]));
}

#[test]
fn a_clock_that_went_back_meanwhile_neither_freezes_nor_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let (now, ahead) = (clock::wall(), 40 * 86_400_000);
    let month = Span::Calendar(Unit::Month);
    // As a process with a clock that is 40 days ahead leaves it: 100 spent a minute before.
    let then = now + ahead;
    let first = Arc::new(Ledger::new());
    let keeper = Keeper::start(folder.path(), &first).unwrap();
    spend(&first, "a", 100);
    keeper.end();
    let (mut keepsake, _) = read(&path).unwrap().unwrap();
    let start = (then - 60_000) / 1000;
    keepsake.at = then;
    keepsake.accounts[0].words = [start << 32 | 100, 0];
    keepsake.accounts[0].until = then + 3_540_000;
    write(&path, &keepsake).unwrap();
    let second = Arc::new(Ledger::new());
    let keeper = Keeper::start(folder.path(), &second).unwrap();
    let told = second.look(b"a", &GAUGE, clock::now(), 1);
    assert!(!told.admitted, "it is not open");
    assert!((3000..=3600).contains(&told.reset_in.as_secs()), "it is not frozen: {:?}", told.reset_in);
    keeper.end();
    let word = Quota::after_a_rest(month, month_word(then), ahead, now);
    let told = Gauge::Quota(Quota::new(100, month)).look(word, second.when(clock::now()), 1);
    assert!(!told.admitted && told.reset_in.as_secs() <= 31 * 86_400, "{told:?}");
}

fn month_word(at: u64) -> u64 {
    Unit::Month.around(at / 1000).0 << 32 | 100
}
