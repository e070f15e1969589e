//! Connections that have at most one request under way each: HTTP/1.1, in clear and over TLS, and echoed messages.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;

use super::options::Options;
use super::requests::Requests;
use super::talk::{Step, Talk};
use super::tls::Tls;
use super::turns::{Done, Opened, Turns};
use super::wire::{Came, Scratch, Wire};
use super::{Crowd, Fault};
use crate::poll::{Event, Kind, Poll, Token};

/// How long a connection rests after a fault, so that a dead server is not asked as fast as the processor can.
pub(crate) const REST: Duration = Duration::from_millis(10);
/// How long the server's end of a connection that was to be closed is waited for.
const CLOSE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    Asked,
    /// Answered; the server is to close.
    Closing(Instant),
    /// After a fault, until then.
    Resting(Instant),
}

struct Client {
    wire: Option<Wire>,
    generation: u16,
    state: State,
    talk: Talk,
    written: usize,
    due: Instant,
    sent: Instant,
    bytes: u64,
    /// Whether this connection's handshake is counted.
    counted: bool,
}

pub(crate) struct Clients {
    requests: Requests,
    tls: Option<Tls>,
    clients: Vec<Client>,
    turns: Turns,
    new_connections: bool,
    timeout: Duration,
    /// After which a request is given up, from when it was due.
    within: Option<Duration>,
    /// From when on handshakes must be resumed.
    resumed_from: Option<Instant>,
    scratch: Scratch,
    opened: Opened,
}

impl Clients {
    pub(crate) fn new(
        requests: Requests,
        tls: Option<Tls>,
        options: &Options,
        measured_from: Instant,
    ) -> Self {
        let now = Instant::now();
        let client = |slot| Client {
            wire: None,
            generation: 0,
            state: State::Idle,
            talk: Talk::new(&requests, options.message_bytes, slot),
            written: 0,
            due: now,
            sent: now,
            bytes: 0,
            counted: false,
        };
        Self {
            clients: (0..options.connections as u32).map(client).collect(),
            turns: Turns::new(options.connections, options),
            new_connections: options.new_connections,
            timeout: options.timeout,
            within: options.within,
            resumed_from: options.resume.then_some(measured_from),
            scratch: Scratch::new(),
            opened: Opened::default(),
            requests,
            tls,
        }
    }

    fn take_step(&mut self, slot: u32, step: Step, poll: &Poll) {
        match step {
            Step::Wait => {}
            Step::Send => {
                let client = &mut self.clients[slot as usize];
                client.written = 0;
                let step = client.send(poll);
                self.take_step(slot, step, poll);
            }
            Step::Answered(status) => {
                let outcome = self.count_handshake(slot).map_or(Ok(status), Err);
                self.finish(slot, outcome, poll);
            }
            Step::Failed(fault) => self.finish(slot, Err(fault), poll),
        }
    }

    /// Counts how the connection was made, once; a fault if that is not what was asked for.
    fn count_handshake(&mut self, slot: u32) -> Option<Fault> {
        let client = &mut self.clients[slot as usize];
        let kind = client.wire.as_ref()?.handshake()?;
        if std::mem::replace(&mut client.counted, true) {
            return None;
        }
        if kind == HandshakeKind::Resumed {
            self.opened.resumed_handshakes += 1;
            return None;
        }
        self.opened.full_handshakes += 1;
        self.resumed_from.filter(|from| client.sent >= *from).map(|_| Fault::NotResumed)
    }

    /// Something on a connection that nothing was asked of: its end, or tickets of TLS.
    fn on_quiet(&mut self, slot: u32, poll: &Poll) {
        let client = &mut self.clients[slot as usize];
        let Some(wire) = &mut client.wire else { return };
        match wire.read(&mut self.scratch, poll) {
            Ok(Came::Nothing) => return,
            // Bytes that nobody asked for.
            Ok(Came::Bytes(_) | Came::End) | Err(_) => client.wire = None,
        }
        if matches!(client.state, State::Closing(_)) {
            self.free(slot, Instant::now(), poll);
        }
    }

    fn begin(&mut self, slot: u32, due: Instant, now: Instant, poll: &Poll) {
        let chosen = self.turns.chosen(&self.requests.wheel);
        self.turns.begins();
        let client = &mut self.clients[slot as usize];
        let is_new = client.wire.is_none();
        client.talk.begin(&self.requests.texts[chosen], is_new);
        (client.due, client.sent, client.written, client.bytes) = (due, now, 0, 0);
        let step = if is_new {
            self.opened.connections += 1;
            client.connect(self.requests.address, self.tls.as_ref(), slot, poll)
        } else {
            client.state = State::Asked;
            client.send(poll)
        };
        self.take_step(slot, step, poll);
    }

    fn finish(&mut self, slot: u32, outcome: Result<u16, Fault>, poll: &Poll) {
        let at = Instant::now();
        let client = &mut self.clients[slot as usize];
        self.turns.ends(Done { due: client.due, sent: client.sent, at, outcome, bytes: client.bytes });
        if outcome.is_err() {
            client.wire = None;
            client.state = State::Resting(at + REST);
        } else if client.talk.closes() || self.new_connections {
            client.state = State::Closing(at + CLOSE_MAX);
        } else {
            self.free(slot, at, poll);
        }
    }

    /// The connection may be asked again.
    fn free(&mut self, slot: u32, now: Instant, poll: &Poll) {
        self.clients[slot as usize].state = State::Idle;
        if let Some(due) = self.turns.free(slot, now) {
            self.begin(slot, due, now, poll);
        }
    }
}

impl Crowd for Clients {
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
        for slot in 0..self.clients.len() as u32 {
            let client = &mut self.clients[slot as usize];
            let is_late = self.within.is_some_and(|within| now > client.due + within);
            match client.state {
                State::Connecting | State::Asked if is_late || now > client.sent + self.timeout => {
                    self.finish(slot, Err(Fault::Timeout), poll);
                }
                State::Closing(until) | State::Resting(until) if now >= until => {
                    client.wire = None;
                    self.free(slot, now, poll);
                }
                _ => {}
            }
        }
    }

    fn on_event(&mut self, event: Event, poll: &Poll) {
        let slot = event.token.slot;
        let Some(client) = self.clients.get_mut(slot as usize) else { return };
        let Some(wire) = client.wire.as_ref().filter(|_| client.generation == event.token.generation) else {
            return;
        };
        let step = match client.state {
            State::Connecting if event.writable => client.connected(poll),
            State::Asked if event.writable && wire.waits_to_write() => client.send(poll),
            _ => Step::Wait,
        };
        let step = match (step, event.readable) {
            (Step::Wait, true) => match client.state {
                State::Asked => client.receive(&mut self.scratch, poll),
                State::Idle | State::Closing(_) => return self.on_quiet(slot, poll),
                State::Connecting | State::Resting(_) => Step::Wait,
            },
            (step, _) => step,
        };
        self.take_step(slot, step, poll);
    }

    fn flush(&mut self, _: &Poll) {}
}

/// What an error of a connection is called.
pub(crate) fn fault_of(error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::InvalidData { Fault::Tls } else { Fault::Reset }
}

impl Client {
    fn connect(&mut self, address: SocketAddr, tls: Option<&Tls>, slot: u32, poll: &Poll) -> Step {
        self.generation = self.generation.wrapping_add(1);
        (self.state, self.counted) = (State::Connecting, false);
        let token = Token { kind: Kind::Client, generation: self.generation, slot };
        match Wire::open(address, tls, token, poll) {
            Ok(wire) => self.wire = Some(wire),
            Err(_) => return Step::Failed(Fault::Connect),
        }
        Step::Wait
    }

    fn connected(&mut self, poll: &Poll) -> Step {
        if !self.wire.as_ref().is_some_and(Wire::is_connected) {
            return Step::Failed(Fault::Connect);
        }
        self.state = State::Asked;
        self.send(poll)
    }

    fn send(&mut self, poll: &Poll) -> Step {
        let Some(wire) = &mut self.wire else { return Step::Failed(Fault::Closed) };
        match wire.send(self.talk.text(), &mut self.written, poll) {
            Ok(()) => Step::Wait,
            Err(error) => Step::Failed(fault_of(&error)),
        }
    }

    fn receive(&mut self, scratch: &mut Scratch, poll: &Poll) -> Step {
        let Some(wire) = &mut self.wire else { return Step::Failed(Fault::Closed) };
        match wire.read(scratch, poll) {
            Ok(Came::Nothing) => Step::Wait,
            Ok(Came::Bytes(bytes)) => {
                self.bytes += bytes.len() as u64;
                self.talk.take(bytes)
            }
            Ok(Came::End) => self.talk.end(),
            Err(error) => Step::Failed(fault_of(&error)),
        }
    }
}
