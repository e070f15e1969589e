//! Spending from the process's ledger, as a limit does once a request.

mod kit;

use std::process::ExitCode;
use std::time::Duration;

use kit::{Case, Scale, Work};
use std::sync::Arc;

use ringway::base::clock::Moment;
use ringway::base::window::{Fixed, Leaky, Seats, Sliding, Turn};
use ringway::link::ledger::{Account, Ledger, Name, Purse};

const WINDOW: Duration = Duration::from_secs(60);
const LIMIT: u64 = 1_000_000;
const NOW: Moment = Moment::from_nanos(120_000_000_000);

/// Goes round so many keys, each met before, with `spend`, which says something of the account and whether it admits.
fn spending(keys: usize, admits: bool, spend: impl Fn(&Account, &Purse) -> (u64, bool) + 'static) -> Work {
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

fn many(scale: Scale) -> usize {
    scale.pick(3, 1000)
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "fixed-window-1-key", iterations: 5000, make: |_| fixed(1, LIMIT) },
        Case { name: "fixed-window-1k-keys", iterations: 5000, make: |scale| fixed(many(scale), LIMIT) },
        Case { name: "fixed-window-refused", iterations: 5000, make: |_| fixed(1, 0) },
        Case { name: "sliding-window-1k-keys", iterations: 5000, make: |scale| sliding(many(scale)) },
        Case { name: "leaky-bucket-1k-keys", iterations: 5000, make: |scale| leaky(many(scale)) },
        Case { name: "seats-1k-keys", iterations: 5000, make: |scale| seats(many(scale)) },
    ])
}
