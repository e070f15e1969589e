//! What a signal asks for, and how far the process has come on its way out.
//!
//! ```text
//!            WINCH            QUIT               TERM, INT           INT
//! Serving ──────────▶ Paused ──────▶ Finishing ──────────▶ Draining ──────▶ Stopping
//!    └──── QUIT, TERM, INT lead on from anywhere to the left, never back ────┘
//! ```
//!
//! `TERM` drains within `shutdown_timeout` and goes on accepting for `pre_stop_delay` first, since a load balancer
//! learns of it late; `INT`, being a person's, does not wait. `QUIT` drains without bound. `WINCH` stops accepting
//! and stays, but not on a terminal, which sends it whenever its window is resized. `HUP` reads resources again, `USR1` reopens logs.

use std::fmt;
use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::log;
use crate::snapshot::Farewell;

/// The signals we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Hangup,
    Interrupt,
    Quit,
    Terminate,
    User1,
    User2,
    WindowChange,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "HUP",
            Self::Interrupt => "INT",
            Self::Quit => "QUIT",
            Self::Terminate => "TERM",
            Self::User1 => "USR1",
            Self::User2 => "USR2",
            Self::WindowChange => "WINCH",
        })
    }
}

/// How far the process has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    /// Accepts nothing, serves what is open, does not end by itself.
    Paused,
    /// Ends when idle.
    Finishing,
    /// Ends when idle, or when its time is over.
    Draining,
    /// Ends now.
    Stopping,
}

/// What is to be done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Nothing,
    Reload,
    ReopenLogs,
    /// Upgrading in place does not exist yet.
    Unavailable,
    Drain {
        accept_for: Duration,
        within: Option<Duration>,
        /// What WebSockets are told; `None`: they go on.
        farewell: Option<Farewell>,
    },
    Stop,
}

/// The times that drains go by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long `TERM` goes on accepting.
    pub(crate) pre_stop_delay: Duration,
    /// What `TERM` and `INT` give requests under way, after that.
    pub(crate) shutdown_timeout: Duration,
}

impl Stage {
    /// The next stage and what to do.
    pub(crate) fn on(self, signal: Signal, patience: Patience) -> (Self, Act) {
        let within = Some(patience.shutdown_timeout);
        let farewell = Some(Farewell::Stopping);
        match signal {
            Signal::Hangup if self == Self::Serving => (self, Act::Reload),
            Signal::User1 => (self, Act::ReopenLogs),
            Signal::User2 => (self, Act::Unavailable),
            Signal::WindowChange if self < Self::Paused => {
                (Self::Paused, Act::Drain { accept_for: Duration::ZERO, within: None, farewell: None })
            }
            Signal::Quit if self < Self::Finishing => {
                let farewell = Some(Farewell::Replaced);
                (Self::Finishing, Act::Drain { accept_for: Duration::ZERO, within: None, farewell })
            }
            Signal::Terminate if self < Self::Draining => {
                // Who stopped accepting already does not begin again.
                let accept_for = if self == Self::Serving { patience.pre_stop_delay } else { Duration::ZERO };
                (Self::Draining, Act::Drain { accept_for, within, farewell })
            }
            Signal::Interrupt if self < Self::Draining => {
                (Self::Draining, Act::Drain { accept_for: Duration::ZERO, within, farewell })
            }
            Signal::Interrupt if self == Self::Draining => (Self::Stopping, Act::Stop),
            Signal::Hangup | Signal::WindowChange | Signal::Quit | Signal::Terminate | Signal::Interrupt => {
                (self, Act::Nothing)
            }
        }
    }
}

/// All of them, as they arrive. From its making on, none has its default effect.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Stream,
    interrupt: Stream,
    quit: Stream,
    terminate: Stream,
    user1: Stream,
    user2: Stream,
    window_change: Stream,
    has_terminal: bool,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            window_change: signal(SignalKind::window_change())?,
            has_terminal: File::open("/dev/tty").is_ok(),
        })
    }

    /// The next one. Safe to give up on.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            match self.any().await {
                Signal::WindowChange if self.has_terminal => {
                    log::info("WINCH: passed over, a terminal sends it when its window is resized");
                }
                signal => return signal,
            }
        }
    }

    async fn any(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.hangup.recv() => Signal::Hangup,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.quit.recv() => Signal::Quit,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.user1.recv() => Signal::User1,
            Some(()) = self.user2.recv() => Signal::User2,
            Some(()) = self.window_change.recv() => Signal::WindowChange,
            else => std::future::pending().await,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked, by a drain.
    Asked,
    /// By force, after this signal.
    Forced(Signal),
    /// The cores ended by themselves.
    Unasked,
}

impl Ended {
    /// What the process exits with.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Forced(Signal::Interrupt) => 130,
            Self::Forced(_) => 143,
            Self::Unasked => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { pre_stop_delay: Duration::from_secs(5), shutdown_timeout: Duration::from_secs(30) };

    /// The stages and acts that a sequence of signals leads through.
    fn walk(signals: &[Signal]) -> Vec<(Stage, Act)> {
        let mut stage = Stage::Serving;
        let step = |signal: &Signal| {
            let (next, act) = stage.on(*signal, PATIENCE);
            stage = next;
            (next, act)
        };
        signals.iter().map(step).collect()
    }

    fn drain(accept_for: u64, within: Option<u64>, farewell: Option<Farewell>) -> Act {
        let accept_for = Duration::from_secs(accept_for);
        Act::Drain { accept_for, within: within.map(Duration::from_secs), farewell }
    }

    fn stop(accept_for: u64) -> Act {
        drain(accept_for, Some(30), Some(Farewell::Stopping))
    }

    #[test]
    fn term_waits_for_the_load_balancer_and_int_does_not() {
        assert_eq!(walk(&[Signal::Terminate]), [(Stage::Draining, stop(5))]);
        assert_eq!(walk(&[Signal::Interrupt]), [(Stage::Draining, stop(0))]);
    }

    #[test]
    fn the_second_int_ends_at_once_and_a_second_term_changes_nothing() {
        assert_eq!(walk(&[Signal::Interrupt, Signal::Interrupt])[1], (Stage::Stopping, Act::Stop));
        assert_eq!(walk(&[Signal::Terminate, Signal::Interrupt])[1], (Stage::Stopping, Act::Stop));
        assert_eq!(walk(&[Signal::Terminate, Signal::Terminate])[1], (Stage::Draining, Act::Nothing));
    }

    #[test]
    fn quit_has_no_bound_until_term_gives_it_one() {
        let walked = walk(&[Signal::Quit, Signal::Quit, Signal::Terminate]);
        assert_eq!(walked[0], (Stage::Finishing, drain(0, None, Some(Farewell::Replaced))));
        assert_eq!(walked[1], (Stage::Finishing, Act::Nothing));
        assert_eq!(walked[2], (Stage::Draining, stop(0)));
    }

    #[test]
    fn winch_pauses_and_quit_leads_on_but_never_back() {
        let walked = walk(&[Signal::WindowChange, Signal::Quit, Signal::WindowChange]);
        assert_eq!(walked[0], (Stage::Paused, drain(0, None, None)));
        assert_eq!(walked[1], (Stage::Finishing, drain(0, None, Some(Farewell::Replaced))));
        assert_eq!(walked[2], (Stage::Finishing, Act::Nothing));
    }

    #[test]
    fn configuration_is_not_read_again_on_the_way_out() {
        assert_eq!(walk(&[Signal::Hangup]), [(Stage::Serving, Act::Reload)]);
        assert_eq!(walk(&[Signal::Terminate, Signal::Hangup])[1].1, Act::Nothing);
        assert_eq!(walk(&[Signal::Terminate, Signal::User1])[1].1, Act::ReopenLogs);
    }
}
