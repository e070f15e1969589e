//! HTTP/2 at the origin: what has a body gets it back as a call of gRPC does, what has none gets 128 bytes.
//!
//! Header lines are not looked at, and so cost nothing: the same is answered whatever they say.

use std::collections::VecDeque;

use super::talk::{Nonsense, Talk};
use crate::frames::{self, Frame, Kind, Windows};

/// :status 200, content-type: application/grpc, without a table.
const CALL_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const CALL_END: &[u8] = b"\x00\x0bgrpc-status\x010";
/// :status 200, content-length: 128, content-type: text/plain.
const PLAIN_HEAD: &[u8] = b"\x88\x0f\x0d\x03128\x0f\x10\x0atext/plain";
const PLAIN_BODY: [u8; 128] = [b'x'; 128];
/// As much as any message of the load generator.
const BODY_BYTES_MAX: usize = frames::PAYLOAD_BYTES_MAX;
/// Streams at a time; whoever opens more has not read the settings.
const STREAMS_MAX: usize = 1024;
const SETTING_STREAMS_MAX: u16 = 3;

struct Stream {
    number: u32,
    body: Vec<u8>,
}

pub(super) struct Http2 {
    greeted: bool,
    windows: Windows,
    /// Those whose body has not ended.
    open: Vec<Stream>,
    /// Whether the block of header lines under way ends its stream.
    ends: bool,
    /// Answers that wait for the window.
    held: VecDeque<Stream>,
}

impl Http2 {
    pub(super) fn new() -> Self {
        Self { greeted: false, windows: Windows::new(), open: Vec::new(), ends: false, held: VecDeque::new() }
    }

    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<u64, Nonsense> {
        match frame.kind {
            Kind::Headers | Kind::Continuation => {
                if frame.kind == Kind::Headers {
                    self.ends = frame.has(frames::END_STREAM);
                    if self.open.iter().all(|stream| stream.number != frame.stream) {
                        self.open.push(Stream { number: frame.stream, body: Vec::new() });
                    }
                    if self.open.len() > STREAMS_MAX {
                        return Err(Nonsense);
                    }
                }
                let is_over = self.ends && frame.has(frames::END_HEADERS);
                return Ok(if is_over { self.answer(frame.stream, out) } else { 0 });
            }
            Kind::Data => {
                let content = frame.content().map_err(|_| Nonsense)?;
                self.windows.on_data(frame, out);
                let Some(stream) = self.open.iter_mut().find(|stream| stream.number == frame.stream) else {
                    return Ok(0);
                };
                stream.body.extend_from_slice(content);
                if stream.body.len() > BODY_BYTES_MAX {
                    return Err(Nonsense);
                }
                return Ok(if frame.has(frames::END_STREAM) { self.answer(frame.stream, out) } else { 0 });
            }
            Kind::Reset => {
                self.open.retain(|stream| stream.number != frame.stream);
                self.held.retain(|stream| stream.number != frame.stream);
            }
            Kind::Settings | Kind::Ping | Kind::WindowUpdate => {
                self.windows.on_control(frame, out).map_err(|_| Nonsense)?;
                return Ok(self.release(out));
            }
            Kind::Goaway | Kind::Other => {}
            Kind::PushPromise => return Err(Nonsense),
        }
        Ok(0)
    }

    fn answer(&mut self, number: u32, out: &mut Vec<u8>) -> u64 {
        let Some(at) = self.open.iter().position(|stream| stream.number == number) else { return 0 };
        let stream = self.open.swap_remove(at);
        self.held.push_back(stream);
        self.release(out)
    }

    /// Writes the answers for which there is room, and says how many.
    fn release(&mut self, out: &mut Vec<u8>) -> u64 {
        let mut count = 0;
        while let Some(Stream { number, body }) = self.held.front() {
            let (head, content) =
                if body.is_empty() { (PLAIN_HEAD, &PLAIN_BODY[..]) } else { (CALL_HEAD, &body[..]) };
            if content.len() as i64 > self.windows.send.min(self.windows.stream) {
                break;
            }
            self.windows.send -= content.len() as i64;
            frames::write(out, Kind::Headers, frames::END_HEADERS, *number, head);
            if body.is_empty() {
                frames::write(out, Kind::Data, frames::END_STREAM, *number, content);
            } else {
                frames::write(out, Kind::Data, 0, *number, content);
                let end = frames::END_HEADERS | frames::END_STREAM;
                frames::write(out, Kind::Headers, end, *number, CALL_END);
            }
            self.held.pop_front();
            count += 1;
        }
        count
    }
}

impl Talk for Http2 {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64), Nonsense> {
        let (mut at, mut served) = (0, 0);
        if !self.greeted {
            if bytes.len() < frames::PREFACE.len() {
                return Ok((0, 0));
            }
            at = frames::PREFACE.len();
            if bytes[..at] != *frames::PREFACE {
                return Err(Nonsense);
            }
            self.greeted = true;
            frames::write_settings(out, &[(SETTING_STREAMS_MAX, STREAMS_MAX as u32)]);
            frames::write(out, Kind::WindowUpdate, 0, 0, &frames::WINDOW_MORE.to_be_bytes());
        }
        while let Some((frame, length)) = Frame::first(&bytes[at..]).map_err(|_| Nonsense)? {
            at += length;
            served += self.on_frame(frame, out)?;
        }
        Ok((at, served))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(http2: &mut Http2, bytes: &[u8]) -> (u64, Vec<(Kind, u32, Vec<u8>)>) {
        let mut out = Vec::new();
        let (taken, served) = http2.take(bytes, &mut out).unwrap();
        assert_eq!(taken, bytes.len());
        let (mut at, mut seen) = (0, Vec::new());
        while let Some((frame, length)) = Frame::first(&out[at..]).unwrap() {
            at += length;
            seen.push((frame.kind, frame.stream, frame.payload.to_vec()));
        }
        (served, seen)
    }

    fn greeted() -> Http2 {
        let mut http2 = Http2::new();
        let (_, seen) = answered(&mut http2, frames::PREFACE);
        assert_eq!(seen.iter().map(|one| one.0).collect::<Vec<_>>(), [Kind::Settings, Kind::WindowUpdate]);
        http2
    }

    #[test]
    fn a_call_gets_its_message_back_and_a_status() {
        let (mut http2, mut bytes) = (greeted(), Vec::new());
        frames::write(&mut bytes, Kind::Headers, frames::END_HEADERS, 1, b"\x83");
        frames::write(&mut bytes, Kind::Data, frames::END_STREAM, 1, b"\0\0\0\0\x01m");
        let (served, seen) = answered(&mut http2, &bytes);
        assert_eq!(served, 1);
        assert_eq!(seen[1], (Kind::Data, 1, b"\0\0\0\0\x01m".to_vec()));
        assert_eq!(seen[2], (Kind::Headers, 1, CALL_END.to_vec()));
    }

    #[test]
    fn an_answer_waits_for_the_window() {
        let (mut http2, mut bytes) = (greeted(), Vec::new());
        http2.windows.send = 100;
        frames::write(&mut bytes, Kind::Headers, frames::END_HEADERS | frames::END_STREAM, 1, b"\x82");
        assert_eq!(answered(&mut http2, &bytes), (0, Vec::new()));
        bytes.clear();
        frames::write(&mut bytes, Kind::WindowUpdate, 0, 0, &28_u32.to_be_bytes());
        assert_eq!(answered(&mut http2, &bytes).0, 1);
        assert_eq!(http2.windows.send, 0);
    }
}
