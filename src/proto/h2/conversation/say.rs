//! What is said: the outbox, the end of a connection, and what whoever serves a stream does with it.

use std::task::{Context, Poll};

use super::{Conversation, Fault, Gone, LEAVING, Leaving, OUTBOX_BYTES_MAX, TURN_BYTES, WINDOW_MAX, wake};
use crate::proto::h2::code::Code;
use crate::proto::h2::frames::{self, END_STREAM, FRAME_BYTES_MAX, kind};
use crate::proto::h2::hpack::encode::Encoder;
use crate::proto::h2::streams::{Hears, Stream};

impl Conversation {
    pub(super) fn wake_sender(&mut self) {
        if !self.outbox.is_empty() || self.closed {
            wake(&mut self.sender);
        }
    }

    /// Waits for something to be sent, and takes all there is; what was in `spare` is lost, and its memory used next. False:
    /// there will be no more.
    pub fn poll_outgoing(&mut self, cx: &Context<'_>, spare: &mut Vec<u8>) -> Poll<bool> {
        if self.outbox.is_empty() {
            if self.closed {
                return Poll::Ready(false);
            }
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        spare.clear();
        std::mem::swap(&mut self.outbox, spare);
        self.turn = self.turn.wrapping_add(1);
        self.wake_waiting();
        wake(&mut self.hearer);
        Poll::Ready(true)
    }

    /// Whether something waits to be sent.
    pub fn has_outgoing(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Waits until there is room for what the client has to be answered.
    pub fn poll_hearing(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.outbox.len() < OUTBOX_BYTES_MAX || self.closed {
            return Poll::Ready(());
        }
        self.hearer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Wakes who waits for room; those first who had none in this turn.
    pub(super) fn wake_waiting(&mut self) {
        for had_some in [false, true] {
            for (key, had) in &self.waiting {
                if *had == had_some
                    && let Some(stream) = self.streams.get(*key)
                {
                    stream.listed = false;
                    stream.wake();
                }
            }
        }
        self.waiting.clear();
    }

    /// Begins no more streams, once the client knows; then, when none is under way, the connection is over.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No && !self.closed {
            self.leaving = Leaving::Told;
            frames::write_goaway(&mut self.outbox, WINDOW_MAX as u32, Code::None as u32);
            frames::write_head(&mut self.outbox, kind::PING, 0, 0, 8);
            self.outbox.extend_from_slice(&LEAVING);
            self.wake_sender();
        }
    }

    pub(super) fn close_if_left(&mut self) {
        if self.leaving == Leaving::Known && self.streams.is_empty() {
            self.close();
        }
    }

    /// Ends the connection, and says why.
    pub fn fail(&mut self, fault: Fault) {
        if !self.closed {
            frames::write_goaway(&mut self.outbox, self.last, fault.code() as u32);
            self.close();
        }
    }

    /// Nothing more can be heard or done; what was said is still to be sent.
    pub fn close(&mut self) {
        self.closed = true;
        self.streams.each().for_each(Stream::end);
        wake(&mut self.sender);
        wake(&mut self.hearer);
    }

    fn live(&mut self, key: usize) -> Result<&mut Stream, Gone> {
        self.streams.get(key).filter(|stream| !stream.gone).ok_or(Gone)
    }

    /// Whether it was given up; if not, its task is woken when it is.
    pub fn poll_gone(&mut self, key: usize, cx: &Context<'_>) -> Poll<Gone> {
        match self.live(key) {
            Ok(stream) => {
                stream.wait(cx);
                Poll::Pending
            }
            Err(Gone) => Poll::Ready(Gone),
        }
    }

    /// Waits for something of the body, and appends all that has come. `Ok(false)`: that was all of it.
    pub fn poll_body(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<Result<bool, Gone>> {
        let stream = match self.live(key) {
            Ok(stream) => stream,
            Err(Gone) => return Poll::Ready(Err(Gone)),
        };
        if !stream.inbox.is_empty() {
            if into.is_empty() {
                std::mem::swap(into, &mut stream.inbox);
            } else {
                into.append(&mut stream.inbox);
            }
            return Poll::Ready(Ok(true));
        }
        if stream.hears == Hears::Ended {
            return Poll::Ready(Ok(false));
        }
        stream.wait(cx);
        Poll::Pending
    }

    /// What came behind the body, as lines of HTTP/1.
    pub fn trailers_of(&mut self, key: usize) -> Option<Vec<u8>> {
        self.live(key).ok()?.trailers.take()
    }

    /// So much of the body was used, so that as much more may come.
    pub fn release(&mut self, key: usize, count: usize) {
        let Some(stream) = self.streams.get(key) else { return };
        let count = count.min(stream.owed);
        stream.owed -= count;
        self.credit_stream(key, count);
        self.credit(count);
    }

    /// Says a head, or what is behind a body. `ends`: nothing follows it.
    ///
    /// # Errors
    /// When nobody would hear it.
    pub fn tell(&mut self, key: usize, ends: bool, say: impl FnOnce(&mut Fields<'_>)) -> Result<(), Gone> {
        let id = self.live(key)?.id;
        let begun = self.begin_block();
        say(&mut Fields { encoder: &mut self.encoder, out: &mut self.outbox });
        frames::close_block(&mut self.outbox, begun, id, ends);
        if ends {
            self.end_answer(key);
        }
        self.wake_sender();
        Ok(())
    }

    /// Waits until there is room for a head.
    pub fn poll_space(&mut self, key: usize, cx: &Context<'_>) -> Poll<Result<(), Gone>> {
        let is_full = self.outbox.len() >= OUTBOX_BYTES_MAX;
        let stream = match self.live(key) {
            Ok(stream) => stream,
            Err(Gone) => return Poll::Ready(Err(Gone)),
        };
        if !is_full {
            return Poll::Ready(Ok(()));
        }
        stream.wait(cx);
        if !std::mem::replace(&mut stream.listed, true) {
            self.waiting.push_back((key, false));
        }
        Poll::Pending
    }

    pub(super) fn begin_block(&mut self) -> usize {
        let begun = self.outbox.len();
        self.outbox.extend_from_slice(&[0; frames::HEAD_BYTES]);
        self.encoder.begin(&mut self.outbox);
        begun
    }

    fn end_answer(&mut self, key: usize) {
        self.tally.tell_end();
        if let Ok(stream) = self.live(key) {
            stream.answered = true;
        }
    }

    /// How much the client would take of a stream now, whoever has the next turn.
    pub fn window_of(&mut self, key: usize) -> usize {
        let window = self.window_out;
        let own = self.live(key).map_or(0, |stream| stream.window_out);
        usize::try_from(own.min(window)).unwrap_or(0)
    }

    /// Waits until something may be sent, and says how much.
    pub fn poll_room(&mut self, key: usize, cx: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let (turn, window, is_full) = (self.turn, self.window_out, self.outbox.len() >= OUTBOX_BYTES_MAX);
        let others_wait = !self.waiting.is_empty();
        let stream = match self.live(key) {
            Ok(stream) => stream,
            Err(Gone) => return Poll::Ready(Err(Gone)),
        };
        if stream.turn != turn {
            (stream.turn, stream.sent) = (turn, 0);
        }
        let had_some = stream.sent >= TURN_BYTES;
        let has_window = stream.window_out > 0;
        if has_window && window > 0 && !is_full && !(had_some && others_wait) {
            let room = stream.window_out.min(window).min(FRAME_BYTES_MAX as i64);
            return Poll::Ready(Ok(room as usize));
        }
        stream.wait(cx);
        // What its own window lacks is told to it alone.
        if has_window && !std::mem::replace(&mut stream.listed, true) {
            self.waiting.push_back((key, had_some));
        }
        Poll::Pending
    }

    /// Sends a piece of the body, no more than there is room for. `ends`: it is the last.
    ///
    /// # Errors
    /// When nobody would hear it.
    pub fn send(&mut self, key: usize, piece: &[u8], ends: bool) -> Result<(), Gone> {
        let stream = self.live(key)?;
        stream.window_out -= piece.len() as i64;
        stream.sent += piece.len();
        let flags = if ends { END_STREAM } else { 0 };
        let id = stream.id;
        self.window_out -= piece.len() as i64;
        frames::write_head(&mut self.outbox, kind::DATA, flags, id, piece.len());
        self.outbox.extend_from_slice(piece);
        if !piece.is_empty() {
            self.tally.tell_data();
        }
        if ends {
            self.end_answer(key);
        }
        self.wake_sender();
        Ok(())
    }

    /// Ends a stream before its time.
    pub fn reset(&mut self, key: usize, code: Code) {
        if let Ok(stream) = self.live(key) {
            stream.end();
            let (id, unseen) = (stream.id, stream.unseen);
            frames::write_word(&mut self.outbox, kind::RST_STREAM, id, code as u32);
            self.wake_sender();
            if unseen {
                self.begin_not(key);
            }
        }
    }

    /// Whoever served it is done with it. An answer that is not whole is reset, and so is a request nobody wants more of.
    pub fn forget(&mut self, key: usize) {
        let Ok(stream) = self.live(key).map(|stream| (stream.answered, stream.hears)) else {
            return self.drop_stream(key);
        };
        match stream {
            (false, _) => self.reset(key, Code::Internal),
            (true, Hears::Open) => self.reset(key, Code::None),
            (true, _) => {}
        }
        self.drop_stream(key);
    }

    pub(super) fn drop_stream(&mut self, key: usize) {
        let Some(stream) = self.streams.remove(key) else { return };
        if stream.hears == Hears::Open {
            self.streams.leave_open(stream.id);
        }
        self.credit(stream.owed);
        self.close_if_left();
    }
}

/// Where fields of a head are said.
#[derive(Debug)]
pub struct Fields<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl Fields<'_> {
    pub fn status(&mut self, status: u16) {
        self.encoder.status(self.out, status);
    }

    /// The name is in lower case.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.encoder.field(self.out, name, value);
    }
}
