//! Each story on both drivers of the runtime.

use std::cell::Cell;
use std::sync::OnceLock;
use std::thread;

/// How the gateway talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// As written in the settings.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

thread_local! {
    /// What gateways started by this test run on.
    static DRIVER: Cell<Driver> = const { Cell::new(Driver::Epoll) };
}

/// The driver of the test that runs on this thread.
pub(crate) fn current() -> Driver {
    DRIVER.get()
}

/// Whether the kernel lets us have a ring, asked once. On a thread of its own: taking a ring down interrupts system
/// calls of the thread that had it.
fn has_io_uring() -> &'static Result<(), String> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let ask = || io_uring::IoUring::new(8).map(drop).map_err(|error| error.to_string());
    OUTCOME.get_or_init(|| thread::spawn(ask).join().expect("asking for a ring does not panic"))
}

/// Tells the story on a driver. A kernel without io_uring fails it, so that a green run can not hide that half
/// of it never ran; who knows better says so with `RINGWAY_TEST_DRIVERS=epoll`.
pub(crate) fn on(driver: Driver, story: fn()) {
    let wanted = std::env::var("RINGWAY_TEST_DRIVERS").unwrap_or_else(|_| "io_uring,epoll".to_owned());
    if !wanted.split(',').any(|name| name.trim() == driver.name()) {
        eprintln!("not run on {}: RINGWAY_TEST_DRIVERS={wanted}", driver.name());
        return;
    }
    if let (Driver::IoUring, Err(error)) = (driver, has_io_uring()) {
        panic!("the kernel forbids io_uring ({error}); set RINGWAY_TEST_DRIVERS=epoll to go without it");
    }
    DRIVER.set(driver);
    story();
}

/// Makes of each function two tests, `name::io_uring` and `name::epoll`. A story left out is dead code, which
/// does not compile.
macro_rules! on_both_drivers {
    ($($story:ident),* $(,)?) => {
        $(mod $story {
            #[test]
            fn io_uring() {
                crate::kit::on(crate::kit::Driver::IoUring, super::$story);
            }

            #[test]
            fn epoll() {
                crate::kit::on(crate::kit::Driver::Epoll, super::$story);
            }
        })*
    };
}
