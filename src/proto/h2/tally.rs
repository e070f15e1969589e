//! Frames that cost a server more than whoever sends them: so many of each kind may come in a while, and no more.
//!
//! Clients that have much to do with us may say more: those of gRPC send a PING behind data they receive, to measure the way,
//! and give up calls they need no more. So each frame of DATA that a client is sent allows another PING, each answer that it was
//! given another reset.

use std::time::Duration;

use super::frames::{END_STREAM, Head, kind};
use crate::base::clock::Moment;

/// How long frames are counted before counting starts over.
const WHILE: Duration = Duration::from_secs(10);

/// What somebody did too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    Pings,
    Settings,
    Priorities,
    Resets,
    EmptyFrames,
    Continuations,
    UnknownFrames,
}

impl Abuse {
    /// All of them, in the order they are counted in.
    pub const ALL: [Self; 7] = [
        Self::Pings,
        Self::Settings,
        Self::Priorities,
        Self::Resets,
        Self::EmptyFrames,
        Self::Continuations,
        Self::UnknownFrames,
    ];

    /// One stable word for logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Priorities => "priorities",
            Self::Resets => "resets",
            Self::EmptyFrames => "empty_frames",
            Self::Continuations => "continuations",
            Self::UnknownFrames => "unknown_frames",
        }
    }

    /// How many may come in a while; of CONTINUATION, for one block of headers. Of PING and RST_STREAM, beside those that our
    /// own frames allow.
    const fn most(self) -> u32 {
        match self {
            Self::Pings | Self::Priorities | Self::EmptyFrames => 100,
            Self::Settings => 20,
            // A browser that leaves a page gives up what it still waits for.
            Self::Resets => 200,
            Self::Continuations => 10,
            Self::UnknownFrames => 1000,
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Tally {
    since: Moment,
    counts: [u32; Abuse::ALL.len()],
    /// Frames of DATA of ours, and answers that are whole.
    data: u32,
    answers: u32,
}

impl Tally {
    pub(super) const fn new(now: Moment) -> Self {
        Self { since: now, counts: [0; Abuse::ALL.len()], data: 0, answers: 0 }
    }

    /// Counting starts over after a while, but for what is under way.
    pub(super) fn turn(&mut self, now: Moment) {
        if now.since(self.since) >= WHILE {
            let continuations = self.counts[Abuse::Continuations as usize];
            *self = Self::new(now);
            self.counts[Abuse::Continuations as usize] = continuations;
        }
    }

    /// Notes a frame of DATA of ours that has something in it.
    pub(super) const fn tell_data(&mut self) {
        self.data = self.data.saturating_add(1);
    }

    /// Notes that an answer was given to its end.
    pub(super) const fn tell_end(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }

    /// Notes a frame of the client's.
    pub(super) fn note(&mut self, head: &Head) -> Result<(), Abuse> {
        let is_empty = head.length == 0;
        let abuse = match head.kind {
            // DATA that carries nothing, not even the end.
            kind::DATA if is_empty && !head.has(END_STREAM) => Abuse::EmptyFrames,
            kind::DATA | kind::PUSH_PROMISE | kind::GOAWAY | kind::WINDOW_UPDATE => return Ok(()),
            kind::HEADERS => {
                self.counts[Abuse::Continuations as usize] = 0;
                if !is_empty {
                    return Ok(());
                }
                Abuse::EmptyFrames
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE => Abuse::Priorities,
            kind::RST_STREAM => Abuse::Resets,
            kind::SETTINGS => Abuse::Settings,
            kind::PING => Abuse::Pings,
            kind::CONTINUATION => Abuse::Continuations,
            _ => Abuse::UnknownFrames,
        };
        let allowed = match abuse {
            Abuse::Pings => self.data,
            Abuse::Resets => self.answers,
            Abuse::Settings
            | Abuse::Priorities
            | Abuse::EmptyFrames
            | Abuse::Continuations
            | Abuse::UnknownFrames => 0,
        };
        let count = &mut self.counts[abuse as usize];
        *count += 1;
        if *count > abuse.most().saturating_add(allowed) { Err(abuse) } else { Ok(()) }
    }
}
