//! Spending from the process's ledger, as a limit does once a request.

mod kit;

use std::process::ExitCode;
use std::time::Duration;

use kit::{Case, Scale, Work};
use std::sync::Arc;

use ringway::base::clock::Moment;
use ringway::base::window::quota::{Gauge, Quota, Span, Unit};
use ringway::base::window::{Fixed, Leaky, Seats, Sliding, Turn};
use ringway::link::ledger::{Hand, Ledger, Name, Purse};

const WINDOW: Duration = Duration::from_secs(60);
const LIMIT: u64 = 1_000_000;
const NOW: Moment = Moment::from_nanos(120_000_000_000);

/// Goes round so many keys, each met before, with `spend`, which says something of the account and whether it admits.
fn spending(keys: usize, admits: bool, spend: impl Fn(Hand<'_>, &Purse) -> (u64, bool) + 'static) -> Work {
    let purse = Purse::new(&Arc::new(Ledger::new()));
    let keys: Vec<String> = (0..keys).map(|number| format!("routes/{number}:consumer-{number}")).collect();
    let name = |key: &'static str| Name { bytes: key.as_bytes(), limit: 7 };
    let keys: Vec<&'static str> = keys.into_iter().map(|key| &*key.leak()).collect();
    for key in &keys {
        assert_eq!(purse.with(NOW, name(key), |account| spend(account, &purse)).1, admits);
    }
    let mut at = 0;
    Box::new(move || {
        let key = keys[at];
        at = if at + 1 == keys.len() { 0 } else { at + 1 };
        let (told, admitted) = purse.with(NOW, name(key), |account| spend(account, &purse));
        told << 1 | u64::from(admitted)
    })
}

fn fixed(keys: usize, limit: u64) -> Work {
    let fixed = Fixed::new(limit, WINDOW);
    spending(keys, limit > 0, move |account, _| {
        let spent = account.spend_fixed(&fixed, WINDOW, NOW, 1);
        (spent.remaining, spent.admitted)
    })
}

fn sliding(keys: usize) -> Work {
    let sliding = Sliding::new(LIMIT, WINDOW);
    spending(keys, true, move |account, purse| {
        let spent = account.spend_sliding(&sliding, NOW, purse.since_epoch(), 1);
        (spent.remaining, spent.admitted)
    })
}

fn leaky(keys: usize) -> Work {
    let bucket = Leaky::new(1e9, 1e12, WINDOW);
    spending(keys, true, move |account, _| match account.take_turn(&bucket, NOW) {
        Turn::Mine { after, .. } => (after.as_nanos() as u64, true),
        Turn::Full { retry_in } => (retry_in.as_nanos() as u64, false),
    })
}

fn seats(keys: usize) -> Work {
    let seats = Seats::new(5, 5);
    spending(keys, true, move |account, _| {
        let taken = account.enter(&seats);
        account.leave();
        (taken.unwrap_or(0), taken.is_some())
    })
}

/// Looks and spends as the plugin `limit` does, in a window of the calendar.
fn gauge(keys: usize) -> Work {
    let gauge = Gauge::Quota(Quota::new(LIMIT * 1000, Span::Calendar(Unit::Minute)));
    spending(keys, true, move |account, purse| {
        let when = purse.when(NOW);
        let looked = account.look(&gauge, when, 1).admitted;
        let spent = account.spend(&gauge, when, 1);
        (spent.map_or(0, |(spent, _)| spent.remaining), looked && spent.is_ok())
    })
}

fn many(scale: Scale) -> usize {
    scale.pick(3, 1000)
}

/// What callgrind can not count: memory, caches that are too small, and cores that meet. Printed by `cargo bench` alone; on
/// tiny input it is checked that it works.
mod at_large {
    use std::hint::black_box;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    use ringway::base::clock;
    use ringway::base::prefetch::Whereabouts;
    use ringway::base::rng::Rng;
    use ringway::base::window::Fixed;
    use ringway::link::ledger::{Ledger, Name, Purse};
    use rustix::time::{ClockId, clock_gettime};

    use super::{LIMIT, NOW, WINDOW};

    /// What a key may take, with what a core remembers of it. A million take so many megabytes.
    const BYTES_PER_KEY: usize = 64;
    /// What is promised of times, in nanoseconds. Told beside what was measured; nothing fails for it, because other work on
    /// the machine would have it do so.
    const HOT_NS: u64 = 20;
    const COLD_NS: u64 = 60;
    /// Two cores on one key over two cores on two, in percent.
    const SHARED_PERCENT: u64 = 110;
    /// Spends of each thread.
    const SPENDS: u64 = 10_000_000;
    /// Requests whose accounts are asked of memory before they are decided: bytes of theirs have come.
    const UNDER_WAY: usize = 8;
    /// As a plugin has it: made when it is configured.
    static FIXED: Fixed = Fixed::new(LIMIT * 1000, WINDOW);
    /// Below, memory that is not ours tells more than ours.
    const WEIGHED_MIN: usize = 100_000;

    /// Keys do not fall evenly on the parts of a ledger: few fall less evenly.
    const ROOM_MIN: usize = 65_536;

    fn spend(purse: &Purse, key: u64) {
        let fixed = black_box(&FIXED);
        let name = Name { bytes: &key.to_le_bytes(), limit: 0 };
        assert!(purse.with(NOW, name, |account| account.spend_fixed(fixed, WINDOW, NOW, 1)).admitted);
    }

    /// Where each key's account is: what its connection remembers.
    fn whereabouts(purse: &Purse, keys: &[u64]) -> Vec<Whereabouts> {
        let of = |key: &u64| {
            let name = Name { bytes: &key.to_le_bytes(), limit: 0 };
            purse.with(NOW, name, |account| account.whereabouts())
        };
        keys.iter().map(of).collect()
    }

    /// Bytes of memory that the process holds.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        pages * 4096
    }

    /// To a tenth of a nanosecond.
    fn tenths(time: Duration, times: u64) -> f64 {
        time.as_nanos() as f64 / times.max(1) as f64
    }

    fn each(time: Duration, times: u64) -> u128 {
        time.as_nanos() / u128::from(times.max(1))
    }

    /// So many keys in one ledger: what they take, and what it takes to meet one that no core remembers.
    pub(super) fn keys(keys: u64) -> Vec<String> {
        let before = resident();
        let ledger = Arc::new(Ledger::with_room((keys as usize + keys as usize / 8).max(ROOM_MIN)));
        let purse = Purse::new(&ledger);
        let begun = clock::now();
        (0..keys).for_each(|key| spend(&purse, key));
        let opened = clock::now().since(begun);
        let taken = resident().saturating_sub(before);
        assert_eq!((ledger.accounts(), ledger.crowded()), (keys as usize, 0));
        let per_key = taken / keys as usize;
        assert!(
            (keys as usize) < WEIGHED_MIN || per_key <= BYTES_PER_KEY,
            "{per_key} bytes a key, {} MB for {keys}",
            taken / 1_000_000
        );
        // In no order that memory could foresee: the purse remembers 65,536 of them.
        let mut rng = Rng::seeded(1);
        let order: Vec<u64> = (0..keys.min(500_000)).map(|_| rng.below(keys)).collect();
        let rounds = order.len() as u64;
        let begun = processor();
        order.iter().for_each(|key| spend(&purse, *key));
        let surprising = processor().saturating_sub(begun);
        let known = whereabouts(&purse, &order);
        let begun = processor();
        for (at, key) in order.iter().enumerate() {
            known.get(at + UNDER_WAY).copied().unwrap_or_default().foresee();
            spend(&purse, *key);
        }
        let foreseen = processor().saturating_sub(begun);
        (0..rounds / 10).for_each(|_| spend(&purse, 1));
        let hot_rounds = if rounds < 100_000 { rounds } else { SPENDS };
        let begun = processor();
        (0..hot_rounds).for_each(|_| spend(&purse, 1));
        let hot = processor().saturating_sub(begun);
        vec![
            format!(
                "of-{keys}-keys: {} MB, {per_key} bytes each; opened in {} ns",
                taken / 1_000_000,
                each(opened, keys),
            ),
            format!("hot-key: {:.1} ns, promised {HOT_NS}", tenths(hot, hot_rounds)),
            format!("cold-key-of-{keys}: {:.1} ns, promised {COLD_NS}", tenths(foreseen, rounds)),
            format!("cold-key-of-{keys}, first of its connection: {:.1} ns", tenths(surprising, rounds)),
        ]
    }

    /// Processor time of this thread, to the nanosecond: what others do on the machine is not in it.
    fn processor() -> Duration {
        let told = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(told.tv_sec.unsigned_abs(), told.tv_nsec.unsigned_abs() as u32)
    }

    /// Two threads at it at once, on one key or on two: processor time of both for each spending.
    fn two_threads(keys: u64, spends: u64) -> f64 {
        let ledger = Arc::new(Ledger::new());
        let start = Barrier::new(2);
        let spent: Duration = thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|number| {
                    let (ledger, start) = (&ledger, &start);
                    scope.spawn(move || {
                        let purse = Purse::new(ledger);
                        spend(&purse, number % keys);
                        start.wait();
                        let before = processor();
                        (0..spends).for_each(|_| spend(&purse, number % keys));
                        processor().saturating_sub(before)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        tenths(spent, spends * 2)
    }

    /// In turns, so that what disturbs one disturbs the other; of each the middle one.
    pub(super) fn shared(rounds: usize, spends: u64) -> String {
        let (mut one, mut two): (Vec<f64>, Vec<f64>) =
            (0..rounds).map(|_| (two_threads(1, spends), two_threads(2, spends))).unzip();
        let middle = |all: &mut Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (one, two) = (middle(&mut one), middle(&mut two));
        let percent = 100.0 * one / two.max(0.1);
        format!(
            "two-cores-one-key: {one:.1} ns, two keys {two:.1} ns, {percent:.0} %, promised {SHARED_PERCENT} %"
        )
    }

    /// As `limit` does: a look, and then the spending.
    fn looked_at(spends: u64) -> String {
        let mut work = super::gauge(1000);
        let begun = clock::now();
        let answer = (0..spends).fold(0_u64, |sum, _| sum.rotate_left(1) ^ work());
        let each = each(clock::now().since(begun), spends);
        format!("looked-at-and-spent-1k-keys: {each} ns each, answer {answer:x}")
    }

    pub(super) fn all(full: bool) -> Vec<String> {
        let (count, spends) = if full { (1_000_000, SPENDS) } else { (1000, 100) };
        let mut told = keys(count);
        told.extend([shared(if full { 5 } else { 1 }, spends), looked_at(spends)]);
        told
    }
}

fn main() -> ExitCode {
    let told = kit::run(&[
        Case { name: "fixed-window-1-key", iterations: 5000, make: |_| fixed(1, LIMIT) },
        Case { name: "fixed-window-1k-keys", iterations: 5000, make: |scale| fixed(many(scale), LIMIT) },
        Case { name: "fixed-window-refused", iterations: 5000, make: |_| fixed(1, 0) },
        Case { name: "sliding-window-1k-keys", iterations: 5000, make: |scale| sliding(many(scale)) },
        Case { name: "leaky-bucket-1k-keys", iterations: 5000, make: |scale| leaky(many(scale)) },
        Case { name: "seats-1k-keys", iterations: 5000, make: |scale| seats(many(scale)) },
    ]);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_counted = words.iter().any(|word| word == "--list" || word == "--iterations");
    if !is_counted && words.iter().all(|word| word.starts_with('-')) {
        at_large::all(words.iter().any(|word| word == "--bench")).iter().for_each(|line| kit::say(line));
    }
    told
}
