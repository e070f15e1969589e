//! Frames that cost a server more than whoever sends them: so many of each kind may come in a while, and no more.
//!
//! The `h2` crate bounds what it keeps; it answers every PING and SETTINGS there is, and takes any number of frames that
//! say nothing. So their heads (RFC 9113 4.1) are looked at as the bytes go by, before the crate sees them.

use std::time::Duration;

use super::frames::Frames;
use crate::base::clock::Moment;

/// How long frames are counted before counting starts over.
const WHILE: Duration = Duration::from_secs(10);

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

    /// How many may come in a while; of CONTINUATION, for one block of headers.
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
    frames: Frames,
    counts: [u32; Abuse::ALL.len()],
    since: Moment,
}

impl Meter {
    /// For a connection that begins with a client's preface.
    pub const fn after_preface(now: Moment) -> Self {
        Self { frames: Frames::after_preface(), counts: [0; Abuse::ALL.len()], since: now }
    }

    /// Looks at received bytes, however they were cut.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn look(&mut self, bytes: &[u8], now: Moment) -> Result<(), Abuse> {
        if now.since(self.since) >= WHILE {
            self.since = now;
            let continuations = self.counts[Abuse::Continuations as usize];
            self.counts = [0; Abuse::ALL.len()];
            self.counts[Abuse::Continuations as usize] = continuations;
        }
        let Self { frames, counts, .. } = self;
        frames.each(bytes, |frame| note(counts, frame.kind, frame.flags, frame.length == 0))
    }
}

type Counts = [u32; Abuse::ALL.len()];

fn note(counts: &mut Counts, kind: u8, flags: u8, is_empty: bool) -> Result<(), Abuse> {
    let abuse = match kind {
        // DATA that carries nothing, not even the end.
        0 if is_empty && flags & END_STREAM == 0 => Abuse::EmptyFrames,
        0 | 5 | 7 | 8 => return Ok(()),
        1 => {
            counts[Abuse::Continuations as usize] = 0;
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
    let count = &mut counts[abuse as usize];
    *count += 1;
    if *count > abuse.most() { Err(abuse) } else { Ok(()) }
}
