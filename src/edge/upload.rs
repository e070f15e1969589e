//! The request body on its way from the client: framed anew, piece by piece, never held unless a plugin asks.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::pace;
use super::proxy::Plan;
use crate::exchange::{Exchange, Pace, piece_bytes_max};
use crate::proto::h1::chunked::{self, Decoder};
use crate::proto::h1::framing::Framing;
use crate::runtime::Core;
use crate::runtime::deadline::Watch;
use crate::runtime::socket::{Reader, Writer};

/// Room before a piece for the line that says its size.
pub(super) const PIECE_HEAD: usize = 20;
/// Room behind a piece for its end and the last chunk.
pub(super) const PIECE_TAIL: usize = 16;

/// What is still to come of a body.
#[derive(Debug, Default)]
enum Left {
    #[default]
    Nothing,
    Length(u64),
    Chunked(Box<Decoder>),
}

/// Why a body did not get across.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// The client left or stalled.
    Client,
    Malformed,
    TooLarge,
    /// The upstream takes no more; its answer may say why.
    Upstream,
}

/// A request body.
#[derive(Debug, Default)]
pub(super) struct Upload {
    left: Left,
    chunked: bool,
    /// In the request's receive buffer, the first byte that was not taken yet.
    at: usize,
    /// Bytes received beyond the end of the body, if they are in a buffer of their own.
    beyond: Option<Vec<u8>>,
    /// Body bytes so far, and the most there may be (0: no limit).
    bytes: u64,
    bytes_max: u64,
    /// The client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
    /// As it was at first, for another try.
    first: Option<(Framing, usize, bool)>,
    /// Pieces were received that are gone now.
    streamed: bool,
    /// All of it is in the exchange.
    held: bool,
    /// A copy of what passes, while it is not too long.
    copy: Copied,
}

/// A copy of a body, or of its beginning.
#[derive(Debug, Default)]
struct Copied {
    bytes: Option<Vec<u8>>,
    bytes_max: usize,
    /// Of one that is longer, so much stays.
    beginning_max: usize,
    /// It was longer.
    is_cut: bool,
}

impl Copied {
    fn add(&mut self, piece: &[u8]) {
        let Some(bytes) = &mut self.bytes else { return };
        let most = if self.is_cut { self.beginning_max } else { self.bytes_max };
        if bytes.len() + piece.len() <= most {
            return bytes.extend_from_slice(piece);
        }
        self.is_cut = true;
        if self.beginning_max == 0 {
            self.bytes = None;
            return;
        }
        bytes.truncate(self.beginning_max);
        let room = self.beginning_max - bytes.len();
        bytes.extend_from_slice(&piece[..room.min(piece.len())]);
    }
}

impl Upload {
    /// The body of a head that ends at `at` in its receive buffer.
    pub(super) fn begin(&mut self, framing: Framing, at: usize, awaits_continue: bool) {
        self.left = match framing {
            Framing::None | Framing::UntilClose | Framing::Length(0) => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::Chunked(Box::default()),
        };
        self.first = Some((framing, at, awaits_continue));
        self.chunked = framing == Framing::Chunked;
        self.at = at;
        self.bytes = 0;
        self.awaits_continue = awaits_continue && !self.is_done();
    }

    /// Starts over for another try. False when part of the body is gone.
    pub(super) fn rewind(&mut self) -> bool {
        if self.streamed || self.held {
            return self.held;
        }
        if let Some((framing, at, awaits_continue)) = self.first {
            self.begin(framing, at, awaits_continue);
        }
        true
    }

    /// Sets the most body bytes there may be; 0 is no limit.
    pub(super) const fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Keeps a copy of what passes from here on, if it is no longer than `whole_max`; else of its beginning.
    pub(super) fn keep(&mut self, whole_max: usize, beginning_max: usize) {
        let bytes_max = whole_max.max(beginning_max);
        let bytes = (bytes_max > 0).then(Vec::new);
        self.copy = Copied { bytes, bytes_max, beginning_max, is_cut: false };
    }

    /// The copy, and whether all of the body was taken and is in it.
    pub(super) fn take_kept(&mut self) -> Option<(Vec<u8>, bool)> {
        let is_whole = self.is_done() && !self.copy.is_cut;
        self.copy.bytes.take().map(|copy| (copy, is_whole))
    }

    /// Whether all of it was taken.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// Whether it comes, and goes on, in chunks.
    pub(super) const fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Whether the client waits to be told to go on.
    pub(super) const fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// The client was told to go on.
    pub(super) const fn continued(&mut self) {
        self.awaits_continue = false;
    }

    /// Body bytes taken so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Declared bytes that are still to come; `None` when nobody knows.
    pub(super) const fn declared_left(&self) -> Option<u64> {
        match self.left {
            Left::Nothing => Some(0),
            Left::Length(length) => Some(length),
            Left::Chunked(_) => None,
        }
    }

    /// Appends to `out`, framed for the upstream, what came along with the head.
    pub(super) fn take_received(
        &mut self,
        core: &Core,
        received: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), UploadFault> {
        let waiting = &received[self.at..];
        match &mut self.left {
            Left::Nothing => {}
            Left::Length(left) => {
                let count = waiting.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&waiting[..count]);
                self.copy.add(&waiting[..count]);
                self.at += count;
                *left -= count as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                self.count(count)?;
            }
            Left::Chunked(decoder) => {
                let mut piece = core.buffers.small();
                piece.extend_from_slice(waiting);
                let decoded = decoder.decode(&mut piece).map_err(|_| UploadFault::Malformed);
                let step = match decoded {
                    Ok(step) => step,
                    Err(fault) => {
                        core.buffers.give_back(piece);
                        return Err(fault);
                    }
                };
                self.at += step.consumed;
                self.copy.add(&piece[..step.data]);
                if step.data > 0 {
                    chunked::write_size(out, step.data);
                    out.extend_from_slice(&piece[..step.data]);
                    out.extend_from_slice(b"\r\n");
                }
                core.buffers.give_back(piece);
                if step.done {
                    write_last_chunk(out, decoder);
                    self.left = Left::Nothing;
                }
                self.count(step.data)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, data: usize) -> Result<(), UploadFault> {
        self.bytes += data as u64;
        if self.bytes_max > 0 && self.bytes > self.bytes_max { Err(UploadFault::TooLarge) } else { Ok(()) }
    }

    /// Receives the next piece, of at most so many bytes, into `buffer` (empty, with room for its frame before and behind), leaving it
    /// ready to send from the index returned.
    async fn next(
        &mut self,
        core: &Core,
        from: &mut Reader,
        (mut buffer, most): (Vec<u8>, usize),
    ) -> (Result<usize, UploadFault>, Vec<u8>) {
        buffer.clear();
        buffer.resize(PIECE_HEAD, 0);
        let room = (buffer.capacity() - PIECE_HEAD - PIECE_TAIL).min(most);
        self.streamed = true;
        let (received, mut buffer) = from.receive(buffer, room).await;
        match received {
            Ok(count) if count > 0 => {}
            _ => return (Err(UploadFault::Client), buffer),
        }
        let count = buffer.len() - PIECE_HEAD;
        let result = match &mut self.left {
            Left::Nothing => Err(UploadFault::Client),
            Left::Length(left) => {
                let data = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                self.copy.add(&buffer[PIECE_HEAD..PIECE_HEAD + data]);
                self.keep_beyond(core, &mut buffer, PIECE_HEAD + data);
                self.count(data).map(|()| PIECE_HEAD)
            }
            Left::Chunked(decoder) => match decoder.decode(&mut buffer[PIECE_HEAD..]) {
                Err(_) => Err(UploadFault::Malformed),
                Ok(step) => {
                    self.copy.add(&buffer[PIECE_HEAD..PIECE_HEAD + step.data]);
                    let mut ending = Vec::new();
                    if step.done {
                        write_last_chunk(&mut ending, decoder);
                        self.left = Left::Nothing;
                        self.keep_beyond(core, &mut buffer, PIECE_HEAD + step.consumed);
                    }
                    buffer.truncate(PIECE_HEAD + step.data);
                    let from = frame_piece(&mut buffer, PIECE_HEAD);
                    buffer.extend_from_slice(&ending);
                    self.count(step.data).map(|()| from)
                }
            },
        };
        (result, buffer)
    }

    /// Saves the bytes from `end` on, which belong to the next request, and cuts them off.
    fn keep_beyond(&mut self, core: &Core, buffer: &mut Vec<u8>, end: usize) {
        if buffer.len() > end {
            let mut beyond = core.buffers.large();
            beyond.extend_from_slice(&buffer[end..]);
            self.beyond = Some(beyond);
            buffer.truncate(end);
        }
    }

    /// Passes on what is left, with back-pressure: a piece is read only when the last one was sent.
    pub(super) async fn pump(&mut self, ends: &mut Ends<'_>) -> Result<(), UploadFault> {
        let mut buffer = ends.core.buffers.large();
        let most = ends.pace.as_deref().map_or(usize::MAX, piece_bytes_max);
        let mut result = Ok(());
        while !self.is_done() && result.is_ok() {
            ends.await_client();
            let before = self.bytes;
            let (piece, returned) = self.next(ends.core, ends.from, (buffer, most)).await;
            buffer = returned;
            result = match piece {
                Err(fault) => Err(fault),
                Ok(from) => {
                    if let Some(pace) = &ends.pace {
                        Box::pin(ends.await_turn(&**pace, self.bytes - before)).await;
                    }
                    let (sent, returned) = ends.send(buffer, from).await;
                    buffer = returned;
                    sent.map_err(|_| UploadFault::Upstream)
                }
            };
        }
        ends.core.buffers.give_back(buffer);
        if result.is_ok() {
            // From here on it is the node's turn.
            ends.to_watch.arm(&ends.core.wheel, ends.plan.within(ends.core, ends.plan.timeouts.read));
        }
        result
    }

    /// Reads all of the body, decoded.
    pub(super) async fn hold(
        &mut self,
        core: &Core,
        received: &[u8],
        from: &mut Reader,
        watch: &Rc<Watch>,
    ) -> Result<Vec<u8>, UploadFault> {
        let mut held = Vec::new();
        let mut plain = Plain { upload: self, out: &mut held };
        plain.take_received(core, received)?;
        let mut buffer = core.buffers.large();
        while !plain.upload.is_done() {
            watch.arm(&core.wheel, core.limits.body_timeout);
            let (result, returned) = plain.next(core, from, buffer).await;
            buffer = returned;
            result?;
        }
        core.buffers.give_back(buffer);
        self.held = true;
        Ok(held)
    }

    /// Reads and drops what is left, if it is little. Whether the connection can carry on.
    pub(super) async fn discard(
        &mut self,
        core: &Core,
        received: &[u8],
        from: &mut Reader,
        watch: &Rc<Watch>,
    ) -> bool {
        self.bytes_max = self.bytes + core.limits.drain_body_bytes;
        if self.awaits_continue {
            return false;
        }
        watch.arm(&core.wheel, core.limits.drain_body_timeout);
        let mut sink = Vec::new();
        if self.take_received(core, received, &mut sink).is_err() {
            return false;
        }
        let mut buffer = core.buffers.large();
        while !self.is_done() {
            let (result, returned) = self.next(core, from, (buffer, usize::MAX)).await;
            buffer = returned;
            if result.is_err() {
                core.buffers.give_back(buffer);
                return false;
            }
        }
        core.buffers.give_back(buffer);
        true
    }

    /// Takes the receive buffer from the exchange, and says where the next request begins, if any of it is here.
    pub(super) fn take_leftover(&mut self, ex: &mut Exchange) -> (Vec<u8>, Option<(Vec<u8>, usize)>) {
        let buffer = ex.request.headers.take_received();
        if let Some(beyond) = self.beyond.take() {
            return (buffer, Some((beyond, 0)));
        }
        if self.at < buffer.len() && self.at > 0 {
            return (Vec::new(), Some((buffer, self.at)));
        }
        (buffer, None)
    }
}

/// Reads a body without its frame.
struct Plain<'a> {
    upload: &'a mut Upload,
    out: &'a mut Vec<u8>,
}

impl Plain<'_> {
    fn take_received(&mut self, core: &Core, received: &[u8]) -> Result<(), UploadFault> {
        let upload = &mut *self.upload;
        if !upload.chunked {
            return upload.take_received(core, received, self.out);
        }
        let Left::Chunked(decoder) = &mut upload.left else { return Ok(()) };
        let from = self.out.len();
        self.out.extend_from_slice(&received[upload.at..]);
        let step = decoder.decode(&mut self.out[from..]).map_err(|_| UploadFault::Malformed)?;
        self.out.truncate(from + step.data);
        upload.at += step.consumed;
        if step.done {
            upload.left = Left::Nothing;
        }
        upload.count(step.data)
    }

    async fn next(
        &mut self,
        core: &Core,
        from: &mut Reader,
        buffer: Vec<u8>,
    ) -> (Result<(), UploadFault>, Vec<u8>) {
        let before = self.upload.bytes;
        let (piece, buffer) = self.upload.next(core, from, (buffer, usize::MAX)).await;
        let result = piece.map(|_| {
            let data = (self.upload.bytes - before) as usize;
            self.out.extend_from_slice(&buffer[PIECE_HEAD..PIECE_HEAD + data]);
        });
        (result, buffer)
    }
}

/// The two sockets of an upload.
pub(super) struct Ends<'a> {
    pub(super) core: &'a Core,
    pub(super) from: &'a mut Reader,
    pub(super) from_watch: &'a Rc<Watch>,
    pub(super) to: &'a mut Writer,
    pub(super) to_watch: &'a Rc<Watch>,
    /// How long things may take.
    pub(super) plan: &'a Plan<'a>,
    /// Who slows it down, if anybody.
    pub(super) pace: Option<Rc<dyn Pace>>,
}

impl Ends<'_> {
    /// Gives the client its time. The node owes nothing meanwhile; only the request's own time runs on.
    fn await_client(&self) {
        let patience = self.core.limits.body_timeout;
        self.from_watch.arm(&self.core.wheel, patience);
        self.to_watch.arm(&self.core.wheel, self.plan.within(self.core, patience.saturating_mul(2)));
    }

    /// Longest pause between two writes to the node.
    fn send_timeout(&self) -> Duration {
        self.plan.within(self.core, self.plan.timeouts.send)
    }

    /// Waits until so many bytes may pass.
    async fn await_turn(&self, pace: &dyn Pace, bytes: u64) {
        let quiet = [(self.from_watch, self.core.limits.body_timeout), (self.to_watch, self.send_timeout())];
        pace::turn(self.core, pace, bytes as usize, quiet).await;
    }

    async fn send(&mut self, buffer: Vec<u8>, from: usize) -> (io::Result<()>, Vec<u8>) {
        self.to_watch.arm(&self.core.wheel, self.send_timeout());
        self.to.send(buffer, from, self.core.sending()).await
    }
}

/// Puts the size line before the data from `start` to the end and its line end behind. Returns where the piece
/// begins now. No data makes no piece: an empty chunk would end the body.
pub(super) fn frame_piece(buffer: &mut Vec<u8>, start: usize) -> usize {
    let data = buffer.len() - start;
    if data == 0 {
        return start;
    }
    let mut line = [0_u8; PIECE_HEAD];
    let mut at = PIECE_HEAD - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut size = data;
    while size > 0 {
        at -= 1;
        line[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
    }
    let line = &line[at..];
    let from = start - line.len();
    buffer[from..start].copy_from_slice(line);
    buffer.extend_from_slice(b"\r\n");
    from
}

/// Appends the last chunk with the trailers that may pass.
fn write_last_chunk(out: &mut Vec<u8>, decoder: &Decoder) {
    end_chunks(out, decoder.trailer_fields());
}

/// [`write_last_chunk`] for trailers from wherever they are.
pub(super) fn end_chunks<'a>(out: &mut Vec<u8>, trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if chunked::allowed_trailer(name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_framed_in_place() {
        for data in [1_usize, 15, 16, 4095, 65_000] {
            let mut buffer = vec![0; PIECE_HEAD];
            buffer.extend(std::iter::repeat_n(b'x', data));
            let from = frame_piece(&mut buffer, PIECE_HEAD);
            let expect = format!("{data:x}\r\n{}\r\n", "x".repeat(data));
            assert_eq!(String::from_utf8_lossy(&buffer[from..]), expect);
        }
    }

    #[test]
    fn no_data_makes_no_piece() {
        let mut buffer = vec![0; PIECE_HEAD];
        assert_eq!(frame_piece(&mut buffer, PIECE_HEAD), PIECE_HEAD);
        assert_eq!(buffer.len(), PIECE_HEAD);
    }
}
