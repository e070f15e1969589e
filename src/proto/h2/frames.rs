//! Frames (RFC 9113 4.1 and 6): their heads read however the bytes were cut, and frames written.

use super::PREFACE;

/// Of a frame: length, type, flags, stream.
pub(super) const HEAD_BYTES: usize = 9;

/// Largest frame that is sent, and taken: the least that must be (6.5.2).
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// The types of frames.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
    pub(in super::super) const PRIORITY_UPDATE: u8 = 16;
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of the payload.
    pub(super) length: usize,
}

impl Head {
    const fn of(bytes: [u8; HEAD_BYTES]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = bytes;
        let length = (high as usize) << 16 | (middle as usize) << 8 | low as usize;
        // The first bit is reserved, and ignored.
        Self { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, length }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in what a client says we are.
#[derive(Debug)]
pub(super) struct Scan {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD_BYTES],
    seen: usize,
}

/// A client did not begin as one does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPreface;

impl Scan {
    /// Of a connection that begins with a client's preface.
    pub(super) const fn new() -> Self {
        Self { preface: PREFACE.len(), head: [0; HEAD_BYTES], seen: 0 }
    }

    /// Takes the preface off the bytes, as far as it is there.
    pub(super) fn preface(&mut self, bytes: &mut &[u8]) -> Result<(), NoPreface> {
        let count = self.preface.min(bytes.len());
        let (seen, rest) = bytes.split_at(count);
        let awaited = &PREFACE[PREFACE.len() - self.preface..][..count];
        self.preface -= count;
        *bytes = rest;
        if seen == awaited { Ok(()) } else { Err(NoPreface) }
    }

    /// Takes the head of the next frame off the bytes; none unless all of it is there by now.
    pub(super) fn head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        if self.seen == 0
            && let Some((head, rest)) = bytes.split_first_chunk()
        {
            *bytes = rest;
            return Some(Head::of(*head));
        }
        let count = (HEAD_BYTES - self.seen).min(bytes.len());
        let (taken, rest) = bytes.split_at(count);
        self.head[self.seen..self.seen + count].copy_from_slice(taken);
        self.seen += count;
        *bytes = rest;
        if self.seen < HEAD_BYTES {
            return None;
        }
        self.seen = 0;
        Some(Head::of(self.head))
    }
}

/// Appends the head of a frame.
pub(super) fn write_head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    out.extend_from_slice(&head(kind, flags, stream, length));
}

const fn head(kind: u8, flags: u8, stream: u32, length: usize) -> [u8; HEAD_BYTES] {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    [high, middle, low, kind, flags, a, b, c, d]
}

/// Appends a frame whose payload is one number.
pub(super) fn write_word(out: &mut Vec<u8>, kind: u8, stream: u32, word: u32) {
    write_head(out, kind, 0, stream, 4);
    out.extend_from_slice(&word.to_be_bytes());
}

/// Appends settings.
pub(super) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_head(out, kind::SETTINGS, 0, 0, settings.len() * 6);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends what ends a connection: the last stream that was looked at, and why.
pub(super) fn write_goaway(out: &mut Vec<u8>, last: u32, code: u32) {
    write_head(out, kind::GOAWAY, 0, 0, 8);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
}

/// Makes frames of a block of headers that stands behind room for a head at `begun`. `ends`: nothing follows it.
pub(super) fn close_block(out: &mut Vec<u8>, begun: usize, stream: u32, ends: bool) {
    let flags = if ends { END_STREAM } else { 0 };
    let length = out.len() - begun - HEAD_BYTES;
    if length <= FRAME_BYTES_MAX {
        let head = head(kind::HEADERS, flags | END_HEADERS, stream, length);
        out[begun..begun + HEAD_BYTES].copy_from_slice(&head);
        return;
    }
    let block = out.split_off(begun + HEAD_BYTES);
    out.truncate(begun);
    let mut pieces = block.chunks(FRAME_BYTES_MAX).peekable();
    let (mut kind, mut flags) = (kind::HEADERS, flags);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        write_head(out, kind, flags | last, stream, piece.len());
        out.extend_from_slice(piece);
        (kind, flags) = (kind::CONTINUATION, 0);
    }
}
