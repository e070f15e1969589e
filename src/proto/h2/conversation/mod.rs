//! One connection with a client (RFC 9113), without its socket: bytes are heard and frames are answered, streams begin and end,
//! and what is to be said waits in an outbox.
//!
//! Everything a client makes us keep is bounded: bodies by windows, blocks of headers by their limit, what waits to be sent
//! by the outbox, since nothing more is heard while it is full.

mod bodies;
mod heads;
mod hear;
mod say;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::task::Waker;

pub use say::Fields;

use super::H2Limits;
use super::code::Code;
use super::frames::{self, FRAME_BYTES_MAX, Head, Scan, kind};
use super::hpack::decode::{Decoder, Texts, Unread};
use super::hpack::encode::Encoder;
use super::request::{Pieces, Told};
use super::streams::Streams;
use super::tally::{Abuse, Tally};
use crate::base::clock::Moment;

/// Bytes that wait to be sent, at most, before nothing more is added that can wait.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a stream's body that are sent before it is another's turn.
const TURN_BYTES: usize = FRAME_BYTES_MAX;
/// The largest window there is (6.9.1).
const WINDOW_MAX: i64 = 0x7fff_ffff;
/// The window of whoever has not said otherwise (6.9.2).
const WINDOW_DEFAULT: u32 = 65_535;
/// What we say in a PING to learn that a client knows it is told to go.
const LEAVING: [u8; 8] = *b"leaving\n";

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something that may not be.
    Breach(Code),
    /// Something too often.
    Abuse(Abuse),
}

impl Fault {
    const fn code(self) -> Code {
        match self {
            Self::Breach(code) => code,
            Self::Abuse(_) => Code::EnhanceYourCalm,
        }
    }
}

impl From<Unread> for Fault {
    fn from(unread: Unread) -> Self {
        Self::Breach(match unread {
            Unread::Broken => Code::Compression,
            Unread::TooMuch => Code::EnhanceYourCalm,
        })
    }
}

impl From<Abuse> for Fault {
    fn from(abuse: Abuse) -> Self {
        Self::Abuse(abuse)
    }
}

/// The stream was reset, or its connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A stream that begins.
#[derive(Debug)]
pub struct Begun {
    /// What it is known by, until it is released.
    pub key: usize,
    /// Its request's head as HTTP/1.1 has it.
    pub head: Vec<u8>,
    pub told: Told,
    /// Nothing follows the head.
    pub ends: bool,
}

/// Whoever serves streams.
pub trait Listener {
    /// Sixteen bytes of chance.
    fn nonce(&mut self) -> [u8; 16];
    /// A stream begins. False: nobody looked at it, and nobody will.
    fn begin(&mut self, begun: Begun) -> bool;
    /// A stream did not begin, as its request is none.
    fn note_malformed(&mut self);
}

/// What reading heads takes for a while; nothing stays in it.
#[derive(Debug, Default)]
pub struct Scratch {
    texts: Texts,
    pieces: Pieces,
    head: Vec<u8>,
}

/// A block of headers that is under way.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends: bool,
    /// The stream is to depend on itself.
    is_malformed: bool,
    bytes: Vec<u8>,
}

/// A frame of DATA that is under way.
#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    ends: bool,
    /// Bytes of its payload that are still to come, and what of them is padding.
    left: usize,
    padding: usize,
    /// How much padding there is comes first.
    is_padded: bool,
}

/// How far a client was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// It was told; streams that it has begun meanwhile are served.
    Told,
    /// It knows.
    Known,
}

/// A connection with a client.
#[derive(Debug)]
pub struct Conversation {
    limits: H2Limits,
    scan: Scan,
    /// The frame under way, unless it is of DATA, and what has come of it.
    frame: Option<Head>,
    held: Vec<u8>,
    data: Option<Data>,
    block: Option<Block>,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    /// Streams that begin with what is heard at the moment: those that it resets, too, are nobody's business.
    begun: Vec<Begun>,
    tally: Tally,
    /// How many it has reset; how many streams we had to reset.
    resets_unseen: usize,
    resets_owed: usize,
    /// The client has said how it wants things.
    is_greeted: bool,
    /// Windows of new streams.
    stream_window_in: u32,
    stream_window_out: u32,
    /// How much more may be sent on all streams, and how much of what the client sent was taken since it was last told.
    window_in: i64,
    taken: usize,
    window_out: i64,
    leaving: Leaving,
    /// The last stream that was looked at.
    last: u32,
    outbox: Vec<u8>,
    /// Counts how often the outbox was emptied.
    turn: u32,
    /// Streams that wait for room in it, or in the connection's window; have they had some in this turn?
    waiting: VecDeque<(usize, bool)>,
    closed: bool,
    sender: Option<Waker>,
    hearer: Option<Waker>,
}

impl Conversation {
    /// Begins: what we want is said first.
    pub fn new(limits: H2Limits, now: Moment) -> Self {
        let mut outbox = Vec::new();
        frames::write_settings(
            &mut outbox,
            &[
                // SETTINGS_MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL.
                (3, limits.streams_max),
                (4, limits.stream_window),
                (6, limits.header_bytes_max),
                (8, 1),
            ],
        );
        let more = limits.connection_window.saturating_sub(WINDOW_DEFAULT);
        if more > 0 {
            frames::write_word(&mut outbox, kind::WINDOW_UPDATE, 0, more);
        }
        Self {
            limits,
            scan: Scan::new(),
            frame: None,
            held: Vec::new(),
            data: None,
            block: None,
            decoder: Decoder::new(H2Limits::TABLE_BYTES as usize),
            encoder: Encoder::default(),
            streams: Streams::default(),
            begun: Vec::new(),
            tally: Tally::new(now),
            resets_unseen: 0,
            resets_owed: 0,
            is_greeted: false,
            stream_window_in: WINDOW_DEFAULT,
            stream_window_out: WINDOW_DEFAULT,
            window_in: i64::from(WINDOW_DEFAULT + more),
            taken: 0,
            window_out: i64::from(WINDOW_DEFAULT),
            leaving: Leaving::No,
            last: 0,
            outbox,
            turn: 0,
            waiting: VecDeque::new(),
            closed: false,
            sender: None,
            hearer: None,
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
