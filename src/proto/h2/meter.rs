//! Frames that cost a server more than whoever sends them: so many of each kind may come in a while, and no more.
//!
//! The `h2` crate bounds what it keeps; it answers every PING and SETTINGS there is, and takes any number of frames that
//! say nothing. So their heads (RFC 9113 4.1) are looked at as the bytes go by, before the crate sees them.

use std::time::Duration;

use super::PREFACE;
use crate::base::clock::Moment;

/// How long frames are counted before counting starts over.
const WHILE: Duration = Duration::from_secs(10);
/// Of a frame: length, type, flags, stream.
const HEAD_BYTES: usize = 9;

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
    /// Bytes still to pass by before the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How many bytes of the head were seen.
    seen: usize,
    counts: [u32; Abuse::ALL.len()],
    since: Moment,
}

impl Meter {
    /// For a connection that begins with a client's preface.
    pub const fn after_preface(now: Moment) -> Self {
        Self {
            skip: PREFACE.len(),
            head: [0; HEAD_BYTES],
            seen: 0,
            counts: [0; Abuse::ALL.len()],
            since: now,
        }
    }

    /// Looks at received bytes, however they were cut.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn look(&mut self, mut bytes: &[u8], now: Moment) -> Result<(), Abuse> {
        if now.since(self.since) >= WHILE {
            self.since = now;
            let continuations = self.counts[Abuse::Continuations as usize];
            self.counts = [0; Abuse::ALL.len()];
            self.counts[Abuse::Continuations as usize] = continuations;
        }
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEAD_BYTES - self.seen).min(bytes.len());
            self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            bytes = &bytes[taken..];
            if self.seen == HEAD_BYTES {
                self.seen = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.note(kind, flags)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: u8, flags: u8) -> Result<(), Abuse> {
        let is_empty = self.skip == 0;
        let abuse = match kind {
            // DATA that carries nothing, not even the end.
            0 if is_empty && flags & END_STREAM == 0 => Abuse::EmptyFrames,
            0 | 5 | 7 | 8 => return Ok(()),
            1 => {
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
        let count = &mut self.counts[abuse as usize];
        *count += 1;
        if *count > abuse.most() { Err(abuse) } else { Ok(()) }
    }
}
