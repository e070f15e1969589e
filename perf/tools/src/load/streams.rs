//! Connections of HTTP/2 with several requests under way each, plain ones and calls of gRPC.
//!
//! What goes out in one turn of the loop leaves each connection in one write. Streams are few, so they are looked for
//! one after the other. A connection that is told to go is at its end: nobody who is compared ends one within a run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::{REST, fault_of};
use super::fields::Table;
use super::options::Options;
use super::requests::{Protocol, Requests};
use super::tls::Tls;
use super::turns::{Done, Opened, Turns};
use super::wire::{Came, Scratch, Wire};
use super::{Crowd, Fault};
use crate::frames::{self, Broken, Frame, Windows};
use crate::poll::{Event, Poll, Token};

/// What an answer may be long without an update of its stream's window.
const STREAM_WINDOW: u32 = 1 << 24;
const CANCEL: u32 = 8;
const SETTING_ENABLE_PUSH: u16 = 2;
const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Waits for the connection's window.
    Held,
    Asked,
    Resting(Instant),
}

/// One of a connection's places for a request.
struct Place {
    state: State,
    text: usize,
    due: Instant,
    sent: Instant,
    stream: u32,
    status: Option<u16>,
    grpc_status: Option<u16>,
    /// Bytes of the body that came, and whether they are the ones that went.
    body: usize,
    same: bool,
    bytes: u64,
}

struct Connection {
    wire: Option<Wire>,
    generation: u16,
    connected: bool,
    counted: bool,
    out: Vec<u8>,
    written: usize,
    dirty: bool,
    inbox: Vec<u8>,
    table: Table,
    /// Header lines whose end has not come: the stream, its flags, the block so far.
    block: Option<(u32, u8, Vec<u8>)>,
    windows: Windows,
    next_stream: u32,
    /// Places whose requests wait for the window.
    held: VecDeque<u32>,
}

pub(crate) struct Streams {
    requests: Requests,
    tls: Option<Tls>,
    connections: Vec<Connection>,
    places: Vec<Place>,
    turns: Turns,
    timeout: Duration,
    scratch: Scratch,
    dirty: Vec<u32>,
    opened: Opened,
}

impl Connection {
    fn new() -> Self {
        Self {
            wire: None,
            generation: 0,
            connected: false,
            counted: false,
            out: Vec::new(),
            written: 0,
            dirty: false,
            inbox: Vec::new(),
            table: Table::new(),
            block: None,
            windows: Windows::new(),
            next_stream: 1,
            held: VecDeque::new(),
        }
    }

    /// As it is before it is connected, with what is to be said first.
    fn renew(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), dirty: self.dirty, ..Self::new() };
        self.out.extend_from_slice(frames::PREFACE);
        frames::write_settings(
            &mut self.out,
            &[(SETTING_ENABLE_PUSH, 0), (SETTING_INITIAL_WINDOW_SIZE, STREAM_WINDOW)],
        );
        frames::write(&mut self.out, frames::Kind::WindowUpdate, 0, 0, &frames::WINDOW_MORE.to_be_bytes());
    }
}

impl Streams {
    pub(crate) fn new(requests: Requests, tls: Option<Tls>, options: &Options) -> Self {
        let (each, now) = (usize::from(options.streams), Instant::now());
        let place = || Place {
            state: State::Idle,
            text: 0,
            due: now,
            sent: now,
            stream: 0,
            status: None,
            grpc_status: None,
            body: 0,
            same: true,
            bytes: 0,
        };
        let count = options.connections * each;
        Self {
            connections: (0..options.connections).map(|_| Connection::new()).collect(),
            places: (0..count).map(|_| place()).collect(),
            turns: Turns::new(count, options),
            timeout: options.timeout,
            scratch: Scratch::new(),
            dirty: Vec::new(),
            opened: Opened::default(),
            requests,
            tls,
        }
    }

    /// Places are dealt out to connections in turns, so that few requests at a time use all connections.
    fn connection_of(&self, place: u32) -> usize {
        place as usize % self.connections.len()
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.connections[at].dirty, true) {
            self.dirty.push(at as u32);
        }
    }

    fn begin(&mut self, number: u32, due: Instant, now: Instant, poll: &Poll) {
        let text = self.turns.chosen(&self.requests.wheel);
        self.turns.begins();
        let at = self.connection_of(number);
        let place = &mut self.places[number as usize];
        *place = Place {
            state: State::Held,
            text,
            due,
            sent: now,
            stream: 0,
            status: None,
            grpc_status: None,
            body: 0,
            same: true,
            bytes: 0,
        };
        if self.connections[at].wire.is_none() {
            self.connections[at].renew();
            self.opened.connections += 1;
            let generation = self.connections[at].generation;
            let token = Token { kind: crate::poll::Kind::Client, generation, slot: at as u32 };
            match Wire::open(self.requests.address, self.tls.as_ref(), token, poll) {
                Ok(wire) => self.connections[at].wire = Some(wire),
                Err(_) => return self.finish(number, Err(Fault::Connect), poll),
            }
        }
        self.send(number, at, poll);
    }

    /// Writes a request, or has it wait for the window.
    fn send(&mut self, number: u32, at: usize, poll: &Poll) {
        let (place, connection) = (&mut self.places[number as usize], &mut self.connections[at]);
        let length = self.requests.body.len() as i64;
        if length > connection.windows.stream {
            return self.finish(number, Err(Fault::Refused), poll);
        }
        if length > connection.windows.send {
            return connection.held.push_back(number);
        }
        (place.state, place.stream) = (State::Asked, connection.next_stream);
        connection.next_stream += 2;
        let text = &self.requests.texts[place.text];
        let end = if length == 0 { frames::END_STREAM } else { 0 };
        let flags = frames::END_HEADERS | end;
        frames::write(&mut connection.out, frames::Kind::Headers, flags, place.stream, text);
        if length > 0 {
            connection.windows.send -= length;
            let body = &self.requests.body;
            frames::write(&mut connection.out, frames::Kind::Data, frames::END_STREAM, place.stream, body);
        }
        self.touch(at);
    }

    fn finish(&mut self, number: u32, outcome: Result<u16, Fault>, poll: &Poll) {
        let at = Instant::now();
        let place = &mut self.places[number as usize];
        self.turns.ends(Done { due: place.due, sent: place.sent, at, outcome, bytes: place.bytes });
        if outcome.is_err() {
            place.state = State::Resting(at + REST);
        } else {
            self.free(number, at, poll);
        }
    }

    fn free(&mut self, number: u32, now: Instant, poll: &Poll) {
        self.places[number as usize].state = State::Idle;
        if let Some(due) = self.turns.free(number, now) {
            self.begin(number, due, now, poll);
        }
    }

    /// The connection is at its end, and what was under way on it.
    fn fail(&mut self, at: usize, fault: Fault, poll: &Poll) {
        self.connections[at].wire = None;
        self.connections[at].held.clear();
        for number in (at..self.places.len()).step_by(self.connections.len()) {
            if matches!(self.places[number].state, State::Held | State::Asked) {
                self.finish(number as u32, Err(fault), poll);
            }
        }
    }

    fn write_out(&mut self, at: usize, poll: &Poll) {
        let connection = &mut self.connections[at];
        let Some(wire) = connection.wire.as_mut().filter(|_| connection.connected) else { return };
        if let Err(error) = wire.send(&connection.out, &mut connection.written, poll) {
            return self.fail(at, fault_of(&error), poll);
        }
        if connection.written == connection.out.len() {
            connection.out.clear();
            connection.written = 0;
        }
    }

    fn receive(&mut self, at: usize, poll: &Poll) {
        let connection = &mut self.connections[at];
        let Some(wire) = &mut connection.wire else { return };
        match wire.read(&mut self.scratch, poll) {
            Ok(Came::Nothing) => {}
            Ok(Came::Bytes(bytes)) => {
                let mut inbox = std::mem::take(&mut connection.inbox);
                inbox.extend_from_slice(bytes);
                self.count_handshake(at);
                match self.take(at, &inbox, poll) {
                    Ok(taken) => {
                        inbox.drain(..taken);
                        self.connections[at].inbox = inbox;
                    }
                    Err(fault) => self.fail(at, fault, poll),
                }
            }
            Ok(Came::End) => self.fail(at, Fault::Closed, poll),
            Err(error) => self.fail(at, fault_of(&error), poll),
        }
    }

    fn count_handshake(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        let kind = connection.wire.as_ref().and_then(Wire::handshake);
        if let (Some(kind), false) = (kind, std::mem::replace(&mut connection.counted, true)) {
            match kind {
                rustls::HandshakeKind::Resumed => self.opened.resumed_handshakes += 1,
                _ => self.opened.full_handshakes += 1,
            }
        }
    }

    /// Takes whole frames and says how many bytes those were.
    fn take(&mut self, at: usize, bytes: &[u8], poll: &Poll) -> Result<usize, Fault> {
        let mut taken = 0;
        while let Some((frame, length)) = Frame::first(&bytes[taken..]).map_err(|Broken| Fault::Malformed)? {
            taken += length;
            self.on_frame(at, frame, poll)?;
        }
        Ok(taken)
    }

    fn on_frame(&mut self, at: usize, frame: Frame<'_>, poll: &Poll) -> Result<(), Fault> {
        let malformed = |Broken| Fault::Malformed;
        let connection = &mut self.connections[at];
        match frame.kind {
            frames::Kind::Headers => {
                connection.block = Some((frame.stream, frame.flags, Vec::new()));
                self.on_block(at, frame.content().map_err(malformed)?, frame.flags, poll)
            }
            frames::Kind::Continuation => self.on_block(at, frame.payload, frame.flags, poll),
            frames::Kind::Data => {
                connection.windows.on_data(frame, &mut connection.out);
                if !connection.out.is_empty() {
                    self.touch(at);
                }
                let content = frame.content().map_err(malformed)?;
                self.on_data(at, frame, content, poll);
                Ok(())
            }
            frames::Kind::Reset => {
                if let Some(number) = self.place_of(at, frame.stream) {
                    self.finish(number, Err(Fault::Refused), poll);
                }
                Ok(())
            }
            frames::Kind::Goaway => Err(Fault::Closed),
            frames::Kind::PushPromise => Err(Fault::Malformed),
            frames::Kind::Settings | frames::Kind::Ping | frames::Kind::WindowUpdate => {
                connection.windows.on_control(frame, &mut connection.out).map_err(malformed)?;
                self.touch(at);
                self.release(at, poll);
                Ok(())
            }
            frames::Kind::Other => Ok(()),
        }
    }

    /// The window may have grown: those that waited for it are sent.
    fn release(&mut self, at: usize, poll: &Poll) {
        let length = self.requests.body.len() as i64;
        while self.connections[at].windows.send >= length {
            let Some(number) = self.connections[at].held.pop_front() else { return };
            if self.places[number as usize].state == State::Held {
                self.send(number, at, poll);
            }
        }
    }

    fn place_of(&self, at: usize, stream: u32) -> Option<u32> {
        let mut own = (at..self.places.len()).step_by(self.connections.len());
        let found = own.find(|number| {
            let place = &self.places[*number];
            place.stream == stream && place.state == State::Asked
        });
        found.map(|number| number as u32)
    }

    fn on_block(&mut self, at: usize, piece: &[u8], flags: u8, poll: &Poll) -> Result<(), Fault> {
        let connection = &mut self.connections[at];
        let (stream, first_flags, mut block) = connection.block.take().ok_or(Fault::Malformed)?;
        if flags & frames::END_HEADERS == 0 {
            block.extend_from_slice(piece);
            if block.len() > frames::PAYLOAD_BYTES_MAX {
                return Err(Fault::Malformed);
            }
            connection.block = Some((stream, first_flags, block));
            return Ok(());
        }
        let whole = if block.is_empty() { Ok(piece) } else { Err([&block, piece].concat()) };
        let whole = whole.as_ref().map_or_else(Vec::as_slice, |piece| *piece);
        let fields = connection.table.read(whole).map_err(|Broken| Fault::Malformed)?;
        let Some(number) = self.place_of(at, stream) else { return Ok(()) };
        let place = &mut self.places[number as usize];
        place.bytes += whole.len() as u64;
        // Interim answers come before the one that counts.
        if place.status.is_none_or(|status| status < 200) {
            place.status = fields.status;
        }
        place.grpc_status = place.grpc_status.or(fields.grpc_status);
        if first_flags & frames::END_STREAM != 0 {
            self.answered(number, poll);
        }
        Ok(())
    }

    fn on_data(&mut self, at: usize, frame: Frame<'_>, content: &[u8], poll: &Poll) {
        let Some(number) = self.place_of(at, frame.stream) else { return };
        let place = &mut self.places[number as usize];
        place.bytes += content.len() as u64;
        if self.requests.protocol == Protocol::Grpc {
            let expected = self.requests.body.get(place.body..place.body + content.len());
            place.same &= expected == Some(content);
        }
        place.body += content.len();
        if frame.has(frames::END_STREAM) {
            self.answered(number, poll);
        }
    }

    fn answered(&mut self, number: u32, poll: &Poll) {
        let place = &self.places[number as usize];
        let is_call = self.requests.protocol == Protocol::Grpc;
        let outcome = match (place.status, place.grpc_status) {
            (None, _) => Err(Fault::Malformed),
            (Some(200), Some(0)) if is_call && place.same && place.body == self.requests.body.len() => {
                Ok(200)
            }
            (Some(200), Some(0)) if is_call => Err(Fault::Mismatch),
            (Some(200), _) if is_call => Err(Fault::Refused),
            (Some(status), _) => Ok(status),
        };
        self.finish(number, outcome, poll);
    }
}

impl Crowd for Streams {
    fn turns(&mut self) -> &mut Turns {
        &mut self.turns
    }

    fn opened(&self) -> Opened {
        self.opened
    }

    fn ask(&mut self, place: u32, due: Instant, now: Instant, poll: &Poll) {
        self.begin(place, due, now, poll);
    }

    fn sweep(&mut self, now: Instant, poll: &Poll) {
        for number in 0..self.places.len() as u32 {
            let at = self.connection_of(number);
            let place = &self.places[number as usize];
            match place.state {
                State::Held | State::Asked if now > place.sent + self.timeout => {
                    if place.state == State::Asked {
                        let out = &mut self.connections[at].out;
                        frames::write(out, frames::Kind::Reset, 0, place.stream, &CANCEL.to_be_bytes());
                        self.touch(at);
                    }
                    self.finish(number, Err(Fault::Timeout), poll);
                }
                State::Resting(until) if now >= until => self.free(number, now, poll),
                _ => {}
            }
        }
    }

    fn on_event(&mut self, event: Event, poll: &Poll) {
        let at = event.token.slot as usize;
        let Some(connection) = self.connections.get_mut(at) else { return };
        let Some(wire) = connection.wire.as_ref().filter(|_| connection.generation == event.token.generation)
        else {
            return;
        };
        if event.writable && !connection.connected {
            if !wire.is_connected() {
                return self.fail(at, Fault::Connect, poll);
            }
            connection.connected = true;
            self.write_out(at, poll);
        } else if event.writable && wire.waits_to_write() {
            self.write_out(at, poll);
        }
        if event.readable {
            self.receive(at, poll);
        }
    }

    fn flush(&mut self, poll: &Poll) {
        while let Some(at) = self.dirty.pop() {
            self.connections[at as usize].dirty = false;
            self.write_out(at as usize, poll);
        }
    }
}
