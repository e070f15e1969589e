//! The event loop of a core: io_uring with the best flags the kernel has, or epoll.
//!
//! Flags are stepped down one by one, because an older kernel refuses the whole set for one it does not know;
//! a kernel or container without io_uring gets epoll, which runs the same code.

use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// Submissions that fit into the ring; completions get four times as many.
const ENTRIES: u32 = 4096;

/// Which driver the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// io_uring, and epoll where it is not to be had.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    Epoll,
}

/// A set of ring flags with its name in logs, best first.
const STEPS: [(&str, fn(&mut io_uring::Builder)); 4] = [
    ("io_uring(single_issuer, defer_taskrun)", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    }),
    ("io_uring(coop_taskrun)", |ring| {
        ring.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    }),
    ("io_uring(submit_all)", |ring| {
        ring.setup_submit_all();
    }),
    ("io_uring", |_| {}),
];

/// An event loop, made on the thread that runs it.
pub enum Driver {
    IoUring(&'static str, Runtime<TimeDriver<IoUringDriver>>),
    /// With the reason why it is not io_uring, if that was wanted.
    Epoll(String, Runtime<TimeDriver<LegacyDriver>>),
}

impl Driver {
    /// Makes the best loop to be had.
    ///
    /// # Errors
    /// When io_uring was insisted on and is not to be had, or the system has no descriptors left.
    pub fn build(wanted: Wanted) -> io::Result<Self> {
        if wanted == Wanted::Epoll {
            return Self::epoll("epoll".to_owned());
        }
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for (name, flags) in STEPS {
            match uring(flags) {
                Ok(runtime) => return Ok(Self::IoUring(name, runtime)),
                Err(error) => last = error,
            }
        }
        if wanted == Wanted::IoUring {
            return Err(io::Error::new(last.kind(), format!("io_uring can not be set up: {last}")));
        }
        Self::epoll(format!("epoll, because io_uring can not be set up: {last}"))
    }

    fn epoll(why: String) -> io::Result<Self> {
        RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().map(|runtime| Self::Epoll(why, runtime))
    }

    /// Its name in logs and on the status page.
    pub fn name(&self) -> &str {
        match self {
            Self::IoUring(name, _) => name,
            Self::Epoll(why, _) => why,
        }
    }

    /// Whether listening sockets must not block: the epoll loop needs that, the ring must not have it.
    pub const fn wants_nonblocking(&self) -> bool {
        matches!(self, Self::Epoll(..))
    }

    /// Runs a future, and all it spawns, to its end.
    pub fn run<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Self::IoUring(_, runtime) => runtime.block_on(future),
            Self::Epoll(_, runtime) => runtime.block_on(future),
        }
    }
}

fn uring(flags: fn(&mut io_uring::Builder)) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_clamp().setup_cqsize(ENTRIES * 4);
    flags(&mut ring);
    RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(ring).enable_timer().build()
}

/// What the loops of this machine would be, in words.
pub fn probe() -> String {
    // On a thread of its own: a loop belongs to the thread that made it.
    let probe = std::thread::spawn(|| match Driver::build(Wanted::Auto) {
        Ok(driver) => driver.name().to_owned(),
        Err(error) => format!("none: {error}"),
    });
    probe.join().unwrap_or_else(|_| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_loop_run_a_future() {
        for wanted in [Wanted::Auto, Wanted::Epoll] {
            let answer = std::thread::spawn(move || {
                let mut driver = Driver::build(wanted).expect("a loop");
                driver.run(async { monoio::spawn(async { 42 }).await })
            });
            assert_eq!(answer.join().expect("no panic"), 42);
        }
    }

    #[test]
    fn the_probe_names_what_it_found() {
        let found = probe();
        assert!(found.starts_with("io_uring") || found.starts_with("epoll"), "{found}");
    }
}
