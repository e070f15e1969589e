//! Heads as they are heard: blocks of headers put together, read, and made requests (RFC 9113 4.3 and 8.3).

use super::{Begun, Block, Conversation, Fault, Leaving, Listener, Scratch};
use crate::proto::h1::framing::Framing;
use crate::proto::h2::code::Code;
use crate::proto::h2::frames::{
    self, END_HEADERS, END_STREAM, FRAME_BYTES_MAX, Head, PADDED, PRIORITY, kind,
};
use crate::proto::h2::request::{self, Request, Told};
use crate::proto::h2::streams::{Hears, Known, Stream};

/// A client whose streams begin with less room than that for an answer has so many at a time.
const NARROW_BYTES: u32 = 512;
const NARROW_STREAMS_MAX: usize = 8;

impl Conversation {
    pub(super) fn headers(
        &mut self,
        head: &Head,
        payload: &[u8],
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Fault::Breach(Code::Protocol));
        }
        let (block, is_malformed) = block_of(head, payload)?;
        let ends = head.has(END_STREAM);
        if !head.has(END_HEADERS) {
            let bytes = block.to_vec();
            self.block = Some(Block { stream: head.stream, ends, is_malformed, bytes });
            return Ok(());
        }
        self.fields(head.stream, ends, (block, is_malformed), scratch, listener)
    }

    pub(super) fn continuation(
        &mut self,
        head: &Head,
        payload: &[u8],
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else { return Err(Fault::Breach(Code::Protocol)) };
        block.bytes.extend_from_slice(payload);
        // Compressed it may be a little more than it says, not much.
        if block.bytes.len() > self.limits.header_bytes_max as usize + FRAME_BYTES_MAX {
            return Err(Fault::Breach(Code::EnhanceYourCalm));
        }
        if !head.has(END_HEADERS) {
            self.block = Some(block);
            return Ok(());
        }
        let Block { stream, ends, is_malformed, bytes } = block;
        self.fields(stream, ends, (&bytes, is_malformed), scratch, listener)
    }

    /// A whole block: a request's head, or what is behind a body.
    fn fields(
        &mut self,
        id: u32,
        ends: bool,
        (block, is_malformed): (&[u8], bool),
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        match self.streams.find(id) {
            Known::Idle => self.request(id, ends, (block, is_malformed), scratch, listener),
            Known::Here(key) => self.trailers(key, ends, block, scratch),
            Known::LeftOpen => self.skip(block, scratch),
            Known::PassedOver => Err(Fault::Breach(Code::Protocol)),
            Known::Over => Err(Fault::Breach(Code::StreamClosed)),
        }
    }

    /// Bytes of fields beyond which a block is not read to its end: far more than anybody sends who knows our limit.
    const fn most(&self) -> usize {
        4 * self.limits.header_bytes_max as usize
    }

    /// Reads a block that is nobody's business, as those behind it depend on it.
    fn skip(&mut self, block: &[u8], scratch: &mut Scratch) -> Result<(), Fault> {
        let most = self.most();
        Ok(self.decoder.decode(block, most, &mut scratch.texts, |_, _| {})?)
    }

    fn request(
        &mut self,
        id: u32,
        ends: bool,
        (block, is_malformed): (&[u8], bool),
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        let most = self.limits.header_bytes_max as usize;
        let bound = self.most();
        let Scratch { texts, pieces, head } = scratch;
        head.clear();
        let mut request = Request::new(head, pieces);
        let read = self.decoder.decode(block, bound, texts, |name, value| request.field(name, value, most));
        let is_large = request.bytes() > most;
        let told = request.end(ends, || listener.nonce());
        read?;
        self.streams.reach(id);
        if self.leaving == Leaving::Known {
            // It was told that no such stream is looked at (6.8), and may not have known.
            if !ends {
                self.streams.leave_open(id);
            }
            return Ok(());
        }
        self.last = id;
        if self.streams.are_as_many_as(self.streams_max()) {
            self.refuse(id, ends, Code::RefusedStream);
            return Ok(());
        }
        if is_large {
            self.answer_large(id, ends);
            return Ok(());
        }
        match told {
            Ok(told) if !is_malformed => {
                self.begin(id, ends, head, told);
                Ok(())
            }
            _ => {
                listener.note_malformed();
                self.refuse(id, ends, Code::Protocol);
                self.note_owed()
            }
        }
    }

    fn begin(&mut self, id: u32, ends: bool, head: &[u8], told: Told) {
        let awaited = match told.framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        };
        let windows = (i64::from(self.stream_window_in), i64::from(self.stream_window_out));
        let key = self.streams.add(Stream::new(id, ends, awaited, windows.0, windows.1));
        self.begun.push(Begun { key, head: head.to_vec(), told, ends });
    }

    /// Has those served that begin.
    pub(super) fn begin_all(&mut self, listener: &mut impl Listener) {
        let mut all = std::mem::take(&mut self.begun);
        for begun in all.drain(..) {
            let key = begun.key;
            let Some(stream) = self.streams.get(key) else { continue };
            let id = stream.id;
            stream.unseen = false;
            if !listener.begin(begun) {
                self.drop_stream(key);
                frames::write_word(&mut self.outbox, kind::RST_STREAM, id, Code::RefusedStream as u32);
            }
        }
        self.begun = all;
    }

    /// A stream is over before anybody serves it.
    pub(super) fn begin_not(&mut self, key: usize) {
        self.begun.retain(|begun| begun.key != key);
        self.drop_stream(key);
    }

    /// How many streams there may be now. Whoever has its windows closed from the start has what it asks for lie here, so it has few.
    fn streams_max(&self) -> usize {
        let all = self.limits.streams_max as usize;
        if self.stream_window_out < NARROW_BYTES { all.min(NARROW_STREAMS_MAX) } else { all }
    }

    /// Resets a stream that did not begin.
    fn refuse(&mut self, id: u32, ended: bool, code: Code) {
        frames::write_word(&mut self.outbox, kind::RST_STREAM, id, code as u32);
        if !ended {
            self.streams.leave_open(id);
        }
    }

    /// Answers what has more fields than may be (RFC 6585 5).
    fn answer_large(&mut self, id: u32, ended: bool) {
        let begun = self.begin_block();
        self.encoder.status(&mut self.outbox, 431);
        frames::close_block(&mut self.outbox, begun, id, true);
        if !ended {
            self.refuse(id, false, Code::None);
        }
    }

    fn trailers(&mut self, key: usize, ends: bool, block: &[u8], scratch: &mut Scratch) -> Result<(), Fault> {
        let bound = self.most();
        let Some(stream) = self.streams.get(key) else { return self.skip(block, scratch) };
        if stream.hears != Hears::Open {
            return Err(Fault::Breach(Code::StreamClosed));
        }
        if stream.gone {
            return self.skip(block, scratch);
        }
        let (mut lines, mut bytes, mut is_malformed) = (Vec::new(), 0, false);
        let most = self.limits.header_bytes_max as usize;
        self.decoder.decode(block, bound, &mut scratch.texts, |name, value| {
            bytes += name.len() + value.len();
            is_malformed |= request::check_trailer(name, value).is_err();
            if bytes <= most && !is_malformed {
                request::write_line(&mut lines, name, value);
            }
        })?;
        if !ends || is_malformed || stream.awaited.is_some_and(|awaited| awaited > 0) {
            return self.reset_owed(key, Code::Protocol);
        }
        if bytes > most {
            return self.reset_owed(key, Code::EnhanceYourCalm);
        }
        if !lines.is_empty() {
            stream.trailers = Some(lines);
        }
        stream.hears = Hears::Ended;
        stream.wake();
        Ok(())
    }
}

/// The block in a frame of HEADERS, and whether its stream is to depend on itself (RFC 7540 5.3.1).
fn block_of<'a>(head: &Head, payload: &'a [u8]) -> Result<(&'a [u8], bool), Fault> {
    let mut block = payload;
    if head.has(PADDED) {
        let (padding, rest) = block.split_first().ok_or(Fault::Breach(Code::FrameSize))?;
        let length = rest.len().checked_sub(usize::from(*padding)).ok_or(Fault::Breach(Code::Protocol))?;
        block = &rest[..length];
    }
    if !head.has(PRIORITY) {
        return Ok((block, false));
    }
    let (priority, block) = block.split_first_chunk::<5>().ok_or(Fault::Breach(Code::FrameSize))?;
    let on = u32::from_be_bytes([priority[0], priority[1], priority[2], priority[3]]) & 0x7fff_ffff;
    Ok((block, on == head.stream))
}
