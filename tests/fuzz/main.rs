//! Can bytes make a parser panic, hang, or disagree with itself? Seeded mutation of real messages: what a campaign
//! finds, it finds again.
//!
//! Every case has a seed of its own, printed with its bytes when it fails: `FUZZ_SEED=… FUZZ_CASES=1` runs it
//! alone. `FUZZ_SECONDS=60` runs each campaign for so long, from a seed that is another every time.
// No core runs on a test's thread: it may wait, and ask for the time.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

#[path = "../inprocess/mod.rs"]
mod inprocess;

mod bodies;
mod connections;
mod grpc;
mod heads;
mod http2;
mod ldap;
mod mutate;
mod prereads;
mod tls;
mod uris;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;
use ringway::base::rng::Rng;

/// Cases of a campaign by default.
const CASES: u64 = 20_000;
/// A case that takes longer hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(2);

/// How far a campaign goes.
pub(crate) struct Extent {
    seed: u64,
    cases: u64,
    until: Option<Instant>,
}

impl Extent {
    /// As the environment says, else `cases` from the first seed on.
    pub(crate) fn of(cases: u64) -> Self {
        let number =
            |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect("a number"));
        let began = Instant::now();
        let until = number("FUZZ_SECONDS").map(|seconds| began + Duration::from_secs(seconds));
        let anew = || u64::from(std::process::id()) << 32;
        let seed = number("FUZZ_SEED").unwrap_or_else(|| if until.is_some() { anew() } else { 1 });
        Self { seed, cases: number("FUZZ_CASES").unwrap_or(cases), until }
    }

    /// The seeds of the cases.
    pub(crate) fn seeds(self) -> impl Iterator<Item = u64> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let goes_on = match self.until {
                Some(until) => Instant::now() < until,
                None => at < self.cases,
            };
            at += 1;
            goes_on.then_some(self.seed.wrapping_add(at - 1))
        })
    }
}

/// Mutates the samples and shows every mutant to `case`, with dice for what else it wants to vary.
pub(crate) fn campaign(samples: &[&[u8]], words: &[&[u8]], case: impl Fn(&[u8], &mut Rng)) {
    let mutator = Mutator { samples, words };
    let (mut bytes, mut count) = (Vec::new(), 0_u64);
    for seed in Extent::of(CASES).seeds() {
        let mut rng = Rng::seeded(seed);
        mutator.mutate(&mut rng, &mut bytes);
        let began = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&bytes, &mut rng))) {
            eprintln!("FUZZ_SEED={seed} FUZZ_CASES=1, {} bytes: b\"{}\"", bytes.len(), bytes.escape_ascii());
            resume_unwind(panic);
        }
        let took = began.elapsed();
        assert!(took < CASE_TIME_MAX, "FUZZ_SEED={seed}: took {took:?} for b\"{}\"", bytes.escape_ascii());
        count += 1;
    }
    println!("{count} cases");
}

/// Where to cut `len` bytes into segments: a few places in order, the end last.
pub(crate) fn cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.below(8)).map(|_| rng.below(len as u64 + 1) as usize).collect();
    // Now and then byte by byte through the end, where line ends and sizes are cut.
    if rng.below(4) == 0 {
        cuts.extend(len.saturating_sub(40)..len);
    }
    cuts.sort_unstable();
    cuts.push(len);
    cuts
}
