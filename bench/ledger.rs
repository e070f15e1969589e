//! Spending from the process's ledger, as a limit does once a request.

mod kit;

use std::process::ExitCode;
use std::time::Duration;

use kit::{Case, Scale, Work};
use ringway::base::clock::Moment;
use ringway::link::ledger::{Account, Ledger, Purse, Spent};

const WINDOW: Duration = Duration::from_secs(60);
const LIMIT: u64 = 1_000_000;
const NOW: Moment = Moment::from_nanos(120_000_000_000);

/// Goes round so many keys, each met before, with `spend`.
fn spending(keys: usize, limit: u64, spend: fn(&Account, u64) -> Spent) -> Work {
    let (ledger, purse) = (Ledger::new(), Purse::default());
    let keys: Vec<String> = (0..keys).map(|number| format!("routes/{number}:consumer-{number}")).collect();
    for key in &keys {
        let spent = purse.with(&ledger, key.as_bytes(), |account| spend(account, limit));
        assert_eq!((spent.admitted, spent.remaining), (limit > 0, limit.saturating_sub(1)));
    }
    let mut at = 0;
    Box::new(move || {
        let key = &keys[at];
        at = if at + 1 == keys.len() { 0 } else { at + 1 };
        let spent = purse.with(&ledger, key.as_bytes(), |account| spend(account, limit));
        spent.remaining << 1 | u64::from(spent.admitted)
    })
}

fn fixed(account: &Account, limit: u64) -> Spent {
    account.spend_fixed(NOW, WINDOW, limit, 1)
}

fn sliding(account: &Account, limit: u64) -> Spent {
    account.spend_sliding(NOW, WINDOW, limit, 1)
}

fn many(scale: Scale) -> usize {
    scale.pick(3, 1000)
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "fixed-window-1-key", iterations: 5000, make: |_| spending(1, LIMIT, fixed) },
        Case {
            name: "fixed-window-1k-keys",
            iterations: 5000,
            make: |scale| spending(many(scale), LIMIT, fixed),
        },
        Case { name: "fixed-window-refused", iterations: 5000, make: |_| spending(1, 0, fixed) },
        Case {
            name: "sliding-window-1k-keys",
            iterations: 5000,
            make: |scale| spending(many(scale), LIMIT, sliding),
        },
    ])
}
