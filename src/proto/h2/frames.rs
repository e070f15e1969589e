//! Frames (RFC 9113 4.1) as their bytes go by, however these were cut; nothing is kept but the head under way.

use super::PREFACE;

/// Of a frame: length, type, flags, stream.
const HEAD_BYTES: usize = 9;

/// Where in a connection's frames we are.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes still to pass by before the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// How many bytes of the head were seen.
    seen: usize,
}

/// A frame whose head is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of its payload.
    pub(super) length: usize,
    /// As much of it as has come.
    pub(super) payload: &'a [u8],
    /// Where the head begins in the bytes looked at; 0 if it began before.
    pub(super) begins: usize,
}

impl Frame<'_> {
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.payload.len() == self.length
    }
}

impl Frames {
    /// Of a connection that begins with a client's preface.
    pub(super) const fn after_preface() -> Self {
        Self { skip: PREFACE.len(), head: [0; HEAD_BYTES], seen: 0 }
    }

    /// Of whoever says nothing before its first frame.
    pub(super) const fn from_the_start() -> Self {
        Self { skip: 0, head: [0; HEAD_BYTES], seen: 0 }
    }

    /// Looks at each frame whose head becomes complete with these bytes, until one is objected to.
    pub(super) fn each<E>(
        &mut self,
        bytes: &[u8],
        mut look: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len() - at);
                self.skip -= passed;
                at += passed;
                continue;
            }
            let taken = (HEAD_BYTES - self.seen).min(bytes.len() - at);
            self.head[self.seen..self.seen + taken].copy_from_slice(&bytes[at..at + taken]);
            let begins = at.saturating_sub(self.seen);
            self.seen += taken;
            at += taken;
            if self.seen == HEAD_BYTES {
                self.seen = 0;
                let [high, middle, low, kind, flags, stream @ ..] = self.head;
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.skip = length;
                let payload = &bytes[at..bytes.len().min(at + length)];
                // The first bit is reserved, and ignored.
                let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
                look(Frame { kind, flags, stream, length, payload, begins })?;
            }
        }
        Ok(())
    }
}
