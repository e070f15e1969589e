//! What is heard: frames, however their bytes were cut, and what those do that are of the whole connection.

use super::{Conversation, Fault, LEAVING, Leaving, Listener, Scratch, WINDOW_MAX};
use crate::base::clock::Moment;
use crate::proto::h2::code::Code;
use crate::proto::h2::frames::{self, ACK, FRAME_BYTES_MAX, Head, kind};
use crate::proto::h2::streams::{Hears, Known};
use crate::proto::h2::tally::Abuse;

impl Conversation {
    /// Takes in bytes, however they were cut.
    ///
    /// # Errors
    /// When the connection can not go on; [`Self::fail`] ends it.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        now: Moment,
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        if self.closed {
            // Nobody sends what it would be answered.
            return Ok(());
        }
        self.tally.turn(now);
        self.resets_unseen = 0;
        let heard = self.hear(&mut bytes, scratch, listener);
        match heard {
            Ok(()) => self.begin_all(listener),
            // None of what ends so is served.
            Err(_) => self.begun.clear(),
        }
        self.wake_sender();
        heard
    }

    fn hear(
        &mut self,
        bytes: &mut &[u8],
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        self.scan.preface(bytes).map_err(|frames::NoPreface| Fault::Breach(Code::Protocol))?;
        while !bytes.is_empty() {
            if self.data.is_some() {
                self.hear_data(bytes)?;
                continue;
            }
            let Some(head) = self.frame else {
                let Some(head) = self.scan.head(bytes) else { return Ok(()) };
                self.admit(&head)?;
                if head.kind == kind::DATA {
                    self.begin_data(&head)?;
                    // One of nothing is over.
                    self.hear_data(bytes)?;
                } else if head.length == 0 {
                    self.act(&head, &[], scratch, listener)?;
                } else {
                    self.frame = Some(head);
                }
                continue;
            };
            let (piece, rest) = bytes.split_at((head.length - self.held.len()).min(bytes.len()));
            *bytes = rest;
            if self.held.is_empty() && piece.len() == head.length {
                self.frame = None;
                self.act(&head, piece, scratch, listener)?;
                continue;
            }
            self.held.extend_from_slice(piece);
            if self.held.len() == head.length {
                self.frame = None;
                let held = std::mem::take(&mut self.held);
                self.act(&head, &held, scratch, listener)?;
            }
        }
        Ok(())
    }

    /// Whether a frame may come now.
    fn admit(&mut self, head: &Head) -> Result<(), Fault> {
        if head.length > FRAME_BYTES_MAX {
            return Err(Fault::Breach(Code::FrameSize));
        }
        let is_settings = head.kind == kind::SETTINGS && !head.has(ACK);
        let goes_on = head.kind == kind::CONTINUATION;
        let fits = match &self.block {
            Some(block) => goes_on && head.stream == block.stream,
            None => !goes_on,
        };
        if !fits || !self.is_greeted && !is_settings {
            return Err(Fault::Breach(Code::Protocol));
        }
        Ok(self.tally.note(head)?)
    }

    fn act(
        &mut self,
        head: &Head,
        payload: &[u8],
        scratch: &mut Scratch,
        listener: &mut impl Listener,
    ) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload, scratch, listener),
            kind::CONTINUATION => self.continuation(head, payload, scratch, listener),
            kind::PRIORITY if head.length != 5 => Err(Fault::Breach(Code::FrameSize)),
            kind::PRIORITY if head.stream == 0 => Err(Fault::Breach(Code::Protocol)),
            kind::RST_STREAM => self.reset_by_client(head),
            kind::SETTINGS => self.settings(head, payload),
            kind::PUSH_PROMISE => Err(Fault::Breach(Code::Protocol)),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY if head.stream != 0 => Err(Fault::Breach(Code::Protocol)),
            kind::GOAWAY if head.length < 8 => Err(Fault::Breach(Code::FrameSize)),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::PRIORITY_UPDATE if head.stream != 0 => Err(Fault::Breach(Code::Protocol)),
            // Priorities are nothing to us; whoever says that it goes does so; the rest is to be ignored (5.5).
            _ => Ok(()),
        }
    }

    fn reset_by_client(&mut self, head: &Head) -> Result<(), Fault> {
        if head.length != 4 {
            return Err(Fault::Breach(Code::FrameSize));
        }
        let key = match self.streams.find(head.stream) {
            Known::Here(key) => key,
            Known::Idle => return Err(Fault::Breach(Code::Protocol)),
            _ if head.stream == 0 => return Err(Fault::Breach(Code::Protocol)),
            _ => return Ok(()),
        };
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.gone) else { return Ok(()) };
        stream.hears = Hears::Reset;
        stream.end();
        if stream.unseen {
            self.resets_unseen += 1;
            self.begin_not(key);
        }
        if self.resets_unseen > self.limits.resets_unseen_max {
            return Err(Fault::Abuse(Abuse::Resets));
        }
        Ok(())
    }

    fn settings(&mut self, head: &Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::Breach(Code::Protocol));
        }
        if head.has(ACK) {
            return if head.length == 0 {
                self.settings_known()
            } else {
                Err(Fault::Breach(Code::FrameSize))
            };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault::Breach(Code::FrameSize));
        }
        for [high, low, value @ ..] in settings {
            self.setting(u16::from_be_bytes([*high, *low]), u32::from_be_bytes(*value))?;
        }
        self.is_greeted = true;
        frames::write_head(&mut self.outbox, kind::SETTINGS, ACK, 0, 0);
        Ok(())
    }

    /// One of RFC 9113 6.5.2.
    fn setting(&mut self, name: u16, value: u32) -> Result<(), Fault> {
        match name {
            1 => self.encoder.allow(value as usize),
            // ENABLE_PUSH and NO_RFC7540_PRIORITIES; MAX_FRAME_SIZE, of which we need no more than the least.
            2 | 9 if value > 1 => return Err(Fault::Breach(Code::Protocol)),
            5 if !(FRAME_BYTES_MAX as u32..=0x00ff_ffff).contains(&value) => {
                return Err(Fault::Breach(Code::Protocol));
            }
            4 => {
                if i64::from(value) > WINDOW_MAX {
                    return Err(Fault::Breach(Code::FlowControl));
                }
                let more = i64::from(value) - i64::from(self.stream_window_out);
                self.stream_window_out = value;
                for stream in self.streams.each() {
                    stream.window_out += more;
                    if stream.window_out > WINDOW_MAX {
                        return Err(Fault::Breach(Code::FlowControl));
                    }
                    stream.wake();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The client knows what we want, so it holds from now on.
    fn settings_known(&mut self) -> Result<(), Fault> {
        let more = i64::from(self.limits.stream_window) - i64::from(self.stream_window_in);
        self.stream_window_in = self.limits.stream_window;
        self.streams.each().for_each(|stream| stream.window_in += more);
        Ok(())
    }

    fn ping(&mut self, head: &Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::Breach(Code::Protocol));
        }
        if head.length != 8 {
            return Err(Fault::Breach(Code::FrameSize));
        }
        if !head.has(ACK) {
            frames::write_head(&mut self.outbox, kind::PING, ACK, 0, 8);
            self.outbox.extend_from_slice(payload);
        } else if self.leaving == Leaving::Told && payload == LEAVING {
            self.leaving = Leaving::Known;
            frames::write_goaway(&mut self.outbox, self.last, Code::None as u32);
            self.close_if_left();
        }
        Ok(())
    }

    fn window_update(&mut self, head: &Head, payload: &[u8]) -> Result<(), Fault> {
        let Ok(word) = <[u8; 4]>::try_from(payload) else { return Err(Fault::Breach(Code::FrameSize)) };
        let more = i64::from(u32::from_be_bytes(word) & 0x7fff_ffff);
        if head.stream == 0 {
            self.window_out += more;
            return match more {
                0 => Err(Fault::Breach(Code::Protocol)),
                _ if self.window_out > WINDOW_MAX => Err(Fault::Breach(Code::FlowControl)),
                _ => {
                    self.wake_waiting();
                    Ok(())
                }
            };
        }
        match self.streams.find(head.stream) {
            Known::Idle => Err(Fault::Breach(Code::Protocol)),
            Known::Here(key) => {
                let Some(stream) = self.streams.get(key).filter(|stream| !stream.gone) else { return Ok(()) };
                stream.window_out += more;
                if more == 0 {
                    return self.reset_owed(key, Code::Protocol);
                }
                if stream.window_out > WINDOW_MAX {
                    return self.reset_owed(key, Code::FlowControl);
                }
                stream.wake();
                Ok(())
            }
            Known::PassedOver | Known::LeftOpen | Known::Over => Ok(()),
        }
    }

    /// Resets a stream for what the client did on it.
    pub(super) fn reset_owed(&mut self, key: usize, code: Code) -> Result<(), Fault> {
        self.reset(key, code);
        self.note_owed()
    }

    pub(super) fn note_owed(&mut self) -> Result<(), Fault> {
        self.resets_owed += 1;
        if self.resets_owed > self.limits.resets_owed_max { Err(Fault::Abuse(Abuse::Resets)) } else { Ok(()) }
    }
}
