//! Frames that cost a server more than whoever sends them: so many of each kind may come in a while, and no more.
//!
//! The `h2` crate bounds what it keeps; it answers every PING and SETTINGS there is, and takes any number of frames that
//! say nothing. So their heads (RFC 9113 4.1) are looked at as the bytes go by, before the crate sees them.
//!
//! Clients that have much to do with us may say more: those of gRPC send a PING behind data they receive, to measure the way,
//! and give up calls they need no more. So our own frames are looked at, too: each of DATA allows another PING, each answer
//! that was given another reset.

use std::time::Duration;

use super::PREFACE;
use crate::base::clock::Moment;

/// How long frames are counted before counting starts over.
const WHILE: Duration = Duration::from_secs(10);
/// Of a frame: length, type, flags, stream.
const HEAD_BYTES: usize = 9;

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

/// Finds the heads of frames in bytes that go by, however they were cut.
#[derive(Debug)]
struct Heads {
    /// Bytes still to pass by before the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How many bytes of the head were seen.
    seen: usize,
}

/// What the head of a frame says.
struct Head {
    kind: u8,
    flags: u8,
    is_empty: bool,
}

impl Heads {
    const fn behind(skip: usize) -> Self {
        Self { skip, head: [0; HEAD_BYTES], seen: 0 }
    }

    /// The next head, taken off the bytes with what is before it.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let passed = self.skip.min(bytes.len());
        self.skip -= passed;
        *bytes = &bytes[passed..];
        let taken = (HEAD_BYTES - self.seen).min(bytes.len());
        self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
        self.seen += taken;
        *bytes = &bytes[taken..];
        if self.seen < HEAD_BYTES {
            return None;
        }
        self.seen = 0;
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        Some(Head { kind, flags, is_empty: self.skip == 0 })
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub struct Meter {
    heard: Heads,
    said: Heads,
    counts: [u32; Abuse::ALL.len()],
    /// Frames of DATA of ours, and answers that are whole.
    data: u32,
    answers: u32,
    since: Moment,
}

impl Meter {
    /// For a connection that begins with a client's preface.
    pub const fn after_preface(now: Moment) -> Self {
        Self {
            heard: Heads::behind(PREFACE.len()),
            said: Heads::behind(0),
            counts: [0; Abuse::ALL.len()],
            data: 0,
            answers: 0,
            since: now,
        }
    }

    /// Looks at received bytes.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn look(&mut self, mut bytes: &[u8], now: Moment) -> Result<(), Abuse> {
        if now.since(self.since) >= WHILE {
            self.since = now;
            let continuations = self.counts[Abuse::Continuations as usize];
            self.counts = [0; Abuse::ALL.len()];
            self.counts[Abuse::Continuations as usize] = continuations;
            (self.data, self.answers) = (0, 0);
        }
        while let Some(head) = self.heard.next(&mut bytes) {
            self.note(&head)?;
        }
        Ok(())
    }

    /// Looks at bytes of ours.
    pub fn tell(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.said.next(&mut bytes) {
            if head.kind == DATA && !head.is_empty {
                self.data = self.data.saturating_add(1);
            }
            if matches!(head.kind, DATA | HEADERS) && head.flags & END_STREAM != 0 {
                self.answers = self.answers.saturating_add(1);
            }
        }
    }

    fn note(&mut self, head: &Head) -> Result<(), Abuse> {
        let abuse = match head.kind {
            // DATA that carries nothing, not even the end.
            DATA if head.is_empty && head.flags & END_STREAM == 0 => Abuse::EmptyFrames,
            DATA | 5 | 7 | 8 => return Ok(()),
            HEADERS => {
                self.counts[Abuse::Continuations as usize] = 0;
                if !head.is_empty {
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
