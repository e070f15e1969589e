//! The frame of a benchmark: cases by name, a loop that callgrind finds, and a check on tiny input.
//!
//! ```text
//! NAME                         every case a few times on tiny input, as `cargo test` runs it
//! NAME --list                  the cases, each with the iterations that count
//! NAME --iterations N CASE     full input; what is counted is what runs inside `measured`
//! NAME --bench [CASE]          full input, with the time, as `cargo bench` runs it
//! ```
//!
//! The number that gates is instructions: `scripts/cost` has them counted and compares them with
//! `bench/instructions.json`. Time is for the eye. A case asserts its answer while it is set up, so what is
//! counted is known to work. Tables of the gateway are seeded per process, so a case that looks things up goes
//! round many keys: which of them collide differs from run to run, the mean hardly.

#![allow(clippy::print_stdout)] // What is printed is what was asked for.
#![allow(dead_code)] // A benchmark uses its part of this.

use std::hint::black_box;
use std::process::ExitCode;

use ringway::base::clock;

/// The allocator of the gateway, since setting up and compiling is allocating.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds before counting begins: buffers grow, tables fill.
const WARM_UP: u64 = 2;
/// Rounds on tiny input.
const TINY_ROUNDS: u64 = 3;

/// How large the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Tiny,
    Full,
}

impl Scale {
    /// `full`, or `tiny` where that will do.
    pub(crate) const fn pick(self, tiny: usize, full: usize) -> usize {
        match self {
            Self::Tiny => tiny,
            Self::Full => full,
        }
    }
}

/// One iteration. What it returns only keeps the work from being optimised away.
pub(crate) type Work = Box<dyn FnMut() -> u64>;

/// Something whose cost is watched.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How often it runs where instructions are counted. Enough that the loop's own do not show.
    pub(crate) iterations: u64,
    /// Sets it up, and asserts that it does what it should.
    pub(crate) make: fn(Scale) -> Work,
}

/// What the command line asks.
#[derive(Default)]
struct Args {
    list: bool,
    bench: bool,
    iterations: Option<u64>,
    case: Option<String>,
}

impl Args {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut args, mut words) = (Self::default(), words);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => args.list = true,
                "--bench" => args.bench = true,
                "--test" => args.bench = false,
                "--iterations" => {
                    let count = words.next().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
                    args.iterations = Some(count.ok_or("--iterations wants a whole number above 0")?);
                }
                name if !name.starts_with('-') && args.case.is_none() => args.case = Some(word),
                // Whatever else cargo passes on to a test binary, such as --nocapture.
                _ => {}
            }
        }
        Ok(args)
    }
}

/// Runs what the command line asks for.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let args = match Args::read(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(fault) => {
            println!("{fault}");
            return ExitCode::from(64);
        }
    };
    let wanted = |case: &&Case| args.case.as_deref().is_none_or(|name| case.name == name);
    let chosen: Vec<&Case> = cases.iter().filter(wanted).collect();
    let full = args.bench || args.iterations.is_some();
    if full && chosen.is_empty() {
        println!("no such case");
        return ExitCode::from(64);
    }
    for case in chosen {
        if args.list {
            println!("{} {}", case.name, case.iterations);
        } else if full {
            time(case, args.iterations.unwrap_or(case.iterations));
        } else {
            let mut work = (case.make)(Scale::Tiny);
            black_box(measured(TINY_ROUNDS, &mut work));
            println!("{}: ok", case.name);
        }
    }
    ExitCode::SUCCESS
}

/// Tells of what is no case.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

fn time(case: &Case, iterations: u64) {
    let mut work = (case.make)(Scale::Full);
    black_box(warm_up(&mut work));
    let begun = clock::now();
    let answer = measured(iterations, &mut work);
    let each = clock::now().since(begun).as_nanos() / u128::from(iterations);
    println!("{}: {iterations} iterations, {each} ns each, answer {answer:x}", case.name);
}

/// Apart from [`measured`], whose name is what marks the counted part.
fn warm_up(work: &mut dyn FnMut() -> u64) -> u64 {
    (0..WARM_UP).fold(0, |sum, _| sum ^ black_box(work()))
}

/// The counted part, between its beginning and its end. Never inlined, so that callgrind finds it by name, and
/// the work is behind a pointer, so that no iteration melts into the next.
#[inline(never)]
pub(crate) fn measured(iterations: u64, work: &mut dyn FnMut() -> u64) -> u64 {
    let mut answer = 0_u64;
    for _ in 0..iterations {
        answer = answer.rotate_left(1) ^ black_box(work());
    }
    answer
}
