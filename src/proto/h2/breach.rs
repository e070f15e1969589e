//! What a client does against the rules of HTTP/2 that the `h2` crate calls by another name, or lets pass.
//!
//! The crate ends a connection for each of these but the last two, and says `PROTOCOL_ERROR` where the RFC asks for more than that.
//! Looked at are heads of frames, and payloads as far as they came together with their heads: nothing is kept for it but
//! the numbers of streams on which the client may still say something.

use h2::Reason;

use super::frames::{Frame, Frames};
use super::hpack;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// SETTINGS_INITIAL_WINDOW_SIZE and the most it may be (RFC 9113 6.5.2).
const INITIAL_WINDOW: u16 = 4;
const WINDOW_MAX: u32 = 0x7fff_ffff;

/// Streams that are remembered as open; of those before them nothing is said. More than a client may have at a time.
const OPEN_MAX: usize = 256;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A frame of a length that its type can not have (RFC 9113 4.2).
    FrameSize,
    /// Something more on a stream that was ended by whoever says it (5.1).
    StreamClosed,
    /// A window larger than there is (6.5.2).
    FlowControl,
    /// Headers that are not compressed by any rule (4.3).
    Compression,
    /// A pseudo-header in trailers (8.1).
    Trailers,
    /// A client pushes (8.4).
    Push,
}

impl Breach {
    /// The RFC's word for it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::FrameSize => Reason::FRAME_SIZE_ERROR,
            Self::StreamClosed => Reason::STREAM_CLOSED,
            Self::FlowControl => Reason::FLOW_CONTROL_ERROR,
            Self::Compression => Reason::COMPRESSION_ERROR,
            Self::Trailers | Self::Push => Reason::PROTOCOL_ERROR,
        }
    }
}

/// How one client keeps the rules.
#[derive(Debug)]
pub struct Conduct {
    frames: Frames,
    streams: Streams,
}

/// The streams that a client has begun.
#[derive(Debug, Default)]
struct Streams {
    /// Those it has not ended, in the order they were begun.
    open: Vec<u32>,
    /// The last that it began.
    last: u32,
    /// Of those up to this one that are not open, it is not known whether they ever were.
    forgotten: u32,
    /// A block of headers is under way; nothing else may come, as the crate knows.
    in_block: bool,
}

impl Streams {
    /// The client has begun a stream. It may have passed over some.
    fn reach(&mut self, stream: u32) {
        if stream > self.last + 2 {
            self.forgotten = stream - 2;
        }
        self.last = stream;
    }

    fn begin(&mut self, stream: u32) {
        if self.open.len() == OPEN_MAX {
            self.forgotten = self.open.remove(0);
        }
        self.open.push(stream);
    }

    fn end(&mut self, stream: u32) {
        // Mostly the youngest.
        if let Some(at) = self.open.iter().rposition(|open| *open == stream) {
            self.open.remove(at);
        }
    }

    /// Whether the client itself has ended it, for certain.
    fn is_over(&self, stream: u32) -> bool {
        stream <= self.last && stream > self.forgotten && !self.open.contains(&stream)
    }
}

impl Conduct {
    /// Of a connection that begins with a client's preface.
    pub fn after_preface() -> Self {
        Self { frames: Frames::after_preface(), streams: Streams::default() }
    }

    /// Looks at received bytes, however they were cut.
    ///
    /// # Errors
    /// What was done against the rules, and where in the bytes the frame begins that did it.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), (Breach, usize)> {
        let Self { frames, streams } = self;
        frames.each(bytes, |frame| judge(streams, &frame).map_err(|breach| (breach, frame.begins)))
    }
}

fn judge(streams: &mut Streams, frame: &Frame<'_>) -> Result<(), Breach> {
    if streams.in_block {
        // Anything but the rest of the block: the crate ends the connection.
        streams.in_block = frame.kind != 9 || !frame.has(END_HEADERS);
        return Ok(());
    }
    streams.in_block = frame.kind == 1 && !frame.has(END_HEADERS);
    // Streams of even numbers are not a client's: the crate says so.
    let is_clients = frame.stream % 2 == 1;
    match frame.kind {
        0 if is_clients => {
            if streams.is_over(frame.stream) {
                return Err(Breach::StreamClosed);
            }
            if frame.has(END_STREAM) {
                streams.end(frame.stream);
            }
            Ok(())
        }
        1 if is_clients => headers(streams, frame),
        3 => {
            streams.end(frame.stream);
            sized(frame, |length| length == 4)
        }
        2 => sized(frame, |length| length == 5),
        5 => Err(Breach::Push),
        4 => settings(frame),
        6 => sized(frame, |length| length == 8),
        8 => sized(frame, |length| length == 4),
        _ => Ok(()),
    }
}

fn sized(frame: &Frame<'_>, may_be: impl Fn(usize) -> bool) -> Result<(), Breach> {
    if may_be(frame.length) { Ok(()) } else { Err(Breach::FrameSize) }
}

fn settings(frame: &Frame<'_>) -> Result<(), Breach> {
    sized(frame, |length| length % 6 == 0 && (length == 0 || !frame.has(ACK)))?;
    let (settings, _) = frame.payload.as_chunks::<6>();
    let is_too_large = settings.iter().any(|[high, low, value @ ..]| {
        u16::from_be_bytes([*high, *low]) == INITIAL_WINDOW && u32::from_be_bytes(*value) > WINDOW_MAX
    });
    if is_too_large { Err(Breach::FlowControl) } else { Ok(()) }
}

fn headers(streams: &mut Streams, frame: &Frame<'_>) -> Result<(), Breach> {
    let is_new = frame.stream > streams.last;
    if streams.is_over(frame.stream) {
        return Err(Breach::StreamClosed);
    }
    if let Some(block) = block_of(frame) {
        let has_pseudo = hpack::has_pseudo(block).map_err(|hpack::Broken| Breach::Compression)?;
        if has_pseudo && streams.open.contains(&frame.stream) {
            return Err(Breach::Trailers);
        }
    }
    if is_new {
        streams.reach(frame.stream);
    }
    match (is_new, frame.has(END_STREAM)) {
        // It has said all with this.
        (true, true) => {}
        (true, false) => streams.begin(frame.stream),
        (false, true) => streams.end(frame.stream),
        (false, false) => {}
    }
    Ok(())
}

/// The block of headers, where all of it is here.
fn block_of<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    if !frame.has(END_HEADERS) || !frame.is_whole() {
        return None;
    }
    let mut block = frame.payload;
    if frame.has(PADDED) {
        let (padding, rest) = block.split_first()?;
        block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    if frame.has(PRIORITY) { block.get(5..) } else { Some(block) }
}
