//! Frames that cost a server more than whoever sends them: so many of each kind may come in a while, and no more.
//!
//! The `h2` crate bounds what it keeps; it answers every PING and SETTINGS there is, and takes any number of frames that
//! say nothing. So their heads (RFC 9113 4.1) are looked at as the bytes go by, before the crate sees them.
//!
//! Clients that have much to do with us may say more: those of gRPC send a PING behind data they receive, to measure the way,
//! and give up calls they need no more. So our own frames are looked at, too: each of DATA allows another PING, each answer
//! that was given another reset.

use std::convert::Infallible;
use std::time::Duration;

use super::frames::{Frame, Frames};
use crate::base::clock::Moment;

/// How long frames are counted before counting starts over.
const WHILE: Duration = Duration::from_secs(10);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

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
pub struct Meter {
    heard: Frames,
    said: Frames,
    tally: Tally,
    since: Moment,
}

/// What was counted in a while.
#[derive(Debug, Default)]
struct Tally {
    counts: [u32; Abuse::ALL.len()],
    /// Frames of DATA of ours, and answers that are whole.
    data: u32,
    answers: u32,
}

impl Meter {
    /// For a connection that begins with a client's preface.
    pub fn after_preface(now: Moment) -> Self {
        let (heard, said) = (Frames::after_preface(), Frames::from_the_start());
        Self { heard, said, tally: Tally::default(), since: now }
    }

    /// Looks at received bytes.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn look(&mut self, bytes: &[u8], now: Moment) -> Result<(), Abuse> {
        let Self { heard, tally, .. } = self;
        if now.since(self.since) >= WHILE {
            self.since = now;
            let continuations = tally.counts[Abuse::Continuations as usize];
            *tally = Tally::default();
            tally.counts[Abuse::Continuations as usize] = continuations;
        }
        heard.each(bytes, |frame| tally.note(&frame))
    }

    /// Looks at bytes of ours.
    pub fn tell(&mut self, bytes: &[u8]) {
        let Self { said, tally, .. } = self;
        let told = said.each(bytes, |frame| {
            tally.tell(&frame);
            Ok::<_, Infallible>(())
        });
        told.unwrap_or_else(|never| match never {});
    }
}

impl Tally {
    fn tell(&mut self, frame: &Frame<'_>) {
        if frame.kind == DATA && frame.length > 0 {
            self.data = self.data.saturating_add(1);
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM) {
            self.answers = self.answers.saturating_add(1);
        }
    }

    fn note(&mut self, frame: &Frame<'_>) -> Result<(), Abuse> {
        let is_empty = frame.length == 0;
        let abuse = match frame.kind {
            // DATA that carries nothing, not even the end.
            DATA if is_empty && !frame.has(END_STREAM) => Abuse::EmptyFrames,
            DATA | 5 | 7 | 8 => return Ok(()),
            HEADERS => {
                self.counts[Abuse::Continuations as usize] = 0;
                if !is_empty {
                    return Ok(());
                }
                Abuse::EmptyFrames
            }
            2 | 16 => Abuse::Priorities,
            3 => Abuse::Resets,
            4 => Abuse::Settings,
            6 => Abuse::Pings,
            9 => Abuse::Continuations,
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
