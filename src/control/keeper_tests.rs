//! Accounts from one ledger to the next, over a file, clocks that went back, and files that are no such files.

use super::*;
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

#[test]
fn of_two_processes_with_one_folder_the_one_that_stays_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let old = Arc::new(Ledger::new());
    let mut old_desk = Desk::open(folder.path(), &old).unwrap();
    spend(&old, "a", 10);
    old_desk.save();
    let new = Arc::new(Ledger::new());
    let mut new_desk = Desk::open(folder.path(), &new).unwrap();
    spend(&new, "a", 5);
    new_desk.save();
    // The old one ends, and says what it has counted, which is not what the new one has.
    spend(&old, "a", 7);
    old_desk.save();
    // Nobody has asked the new one since.
    new_desk.save();
    let next = Arc::new(Ledger::new());
    drop(Desk::open(folder.path(), &next).unwrap());
    assert_eq!((left(&new, "a"), left(&next, "a")), (85, 85));
}

#[test]
fn a_file_is_made_only_when_there_is_something_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::new());
    Keeper::start(folder.path(), &ledger).unwrap().end();
    assert!(!folder.path().join(FILE).exists());
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
    let mut keepsake = read(&path).unwrap().unwrap();
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
