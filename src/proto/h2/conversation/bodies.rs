//! Bodies as they are heard, and the windows that bound them (RFC 9113 5.2 and 6.1).

use super::{Conversation, Data, Fault};
use crate::proto::h2::code::Code;
use crate::proto::h2::frames::{self, END_STREAM, Head, PADDED, kind};
use crate::proto::h2::streams::{Hears, Known};

impl Conversation {
    pub(super) fn begin_data(&mut self, head: &Head) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Fault::Breach(Code::Protocol));
        }
        let is_padded = head.has(PADDED);
        if is_padded && head.length == 0 {
            return Err(Fault::Breach(Code::FrameSize));
        }
        let length = head.length as i64;
        if length > self.window_in {
            return Err(Fault::Breach(Code::FlowControl));
        }
        self.window_in -= length;
        match self.streams.find(head.stream) {
            Known::Here(key) => self.take_window(key, length)?,
            Known::LeftOpen => {}
            Known::Idle | Known::PassedOver => return Err(Fault::Breach(Code::Protocol)),
            Known::Over => return Err(Fault::Breach(Code::StreamClosed)),
        }
        let (stream, ends) = (head.stream, head.has(END_STREAM));
        self.data = Some(Data { stream, ends, left: head.length, padding: 0, is_padded });
        Ok(())
    }

    fn take_window(&mut self, key: usize, length: i64) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if stream.hears != Hears::Open {
            return Err(Fault::Breach(Code::StreamClosed));
        }
        if !stream.gone && length > stream.window_in {
            return self.reset_owed(key, Code::FlowControl);
        }
        stream.window_in -= length;
        Ok(())
    }

    /// Takes in what there is of the frame of DATA under way.
    pub(super) fn hear_data(&mut self, bytes: &mut &[u8]) -> Result<(), Fault> {
        let Some(mut data) = self.data else { return Ok(()) };
        if data.is_padded {
            let Some((padding, rest)) = bytes.split_first() else { return Ok(()) };
            *bytes = rest;
            data.is_padded = false;
            data.left -= 1;
            data.padding = usize::from(*padding);
            if data.padding > data.left {
                return Err(Fault::Breach(Code::Protocol));
            }
            self.credit_padding(data.stream, 1 + data.padding);
        }
        let (piece, rest) = bytes.split_at((data.left - data.padding).min(bytes.len()));
        data.left -= piece.len();
        let behind = if data.left == data.padding { data.padding.min(rest.len()) } else { 0 };
        data.left -= behind;
        data.padding -= behind;
        *bytes = &rest[behind..];
        let is_over = data.left == 0;
        self.data = if is_over { None } else { Some(data) };
        self.deliver(data.stream, piece, is_over && data.ends)
    }

    /// Padding is taken as it comes (6.9.1).
    fn credit_padding(&mut self, id: u32, count: usize) {
        self.credit(count);
        if let Known::Here(key) = self.streams.find(id) {
            self.credit_stream(key, count);
        }
    }

    fn deliver(&mut self, id: u32, piece: &[u8], ends: bool) -> Result<(), Fault> {
        let live = match self.streams.find(id) {
            Known::Here(key) => {
                self.streams.get(key).filter(|stream| !stream.gone).map(|stream| (key, stream))
            }
            _ => None,
        };
        let Some((key, stream)) = live else {
            self.credit(piece.len());
            return Ok(());
        };
        let count = piece.len() as u64;
        let fits = stream.awaited.is_none_or(|awaited| count <= awaited && (!ends || count == awaited));
        if !fits {
            self.credit(piece.len());
            return self.reset_owed(key, Code::Protocol);
        }
        stream.awaited = stream.awaited.map(|awaited| awaited - count);
        stream.inbox.extend_from_slice(piece);
        stream.owed += piece.len();
        if ends {
            stream.hears = Hears::Ended;
        }
        if ends || !piece.is_empty() {
            stream.wake();
        }
        Ok(())
    }

    /// The client may send so much more on the connection.
    pub(super) fn credit(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.limits.connection_window as usize / 2 {
            frames::write_word(&mut self.outbox, kind::WINDOW_UPDATE, 0, self.taken as u32);
            self.window_in += self.taken as i64;
            self.taken = 0;
            self.wake_sender();
        }
    }

    pub(super) fn credit_stream(&mut self, key: usize, count: usize) {
        let Some(stream) = self.streams.get(key) else { return };
        stream.taken += count;
        if stream.gone || stream.hears != Hears::Open || stream.taken < self.limits.stream_window as usize / 2
        {
            return;
        }
        stream.window_in += stream.taken as i64;
        let taken = std::mem::take(&mut stream.taken) as u32;
        frames::write_word(&mut self.outbox, kind::WINDOW_UPDATE, stream.id, taken);
        self.wake_sender();
    }
}
