//! The connections of a run. Each has at most one request under way.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Fault;
use super::options::{Options, Requests};
use super::pace::Dice;
use crate::framing::Body;
use crate::poll::{Event, Interest, Kind, Poll, Token};

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 256 * 1024;
/// How long a connection rests after a fault, so that a dead server is not asked as fast as the processor can.
const REST: Duration = Duration::from_millis(10);
/// How long the server's end of a connection that was to be closed is waited for.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A request that came to an end.
pub(crate) struct Done {
    /// When it was due.
    pub(crate) due: Instant,
    /// When it was sent or, on a new connection, when that was begun.
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
    pub(crate) outcome: Result<u16, Fault>,
    pub(crate) bytes: u64,
}

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
    socket: Option<TcpStream>,
    generation: u16,
    state: State,
    text: Rc<[u8]>,
    written: usize,
    waits_to_write: bool,
    due: Instant,
    sent: Instant,
    /// The beginning of a head.
    held: Vec<u8>,
    /// None before the head is read.
    answer: Option<(u16, Body)>,
    close: bool,
    bytes: u64,
}

pub(crate) struct Clients {
    requests: Requests,
    clients: Vec<Client>,
    /// Those that may be asked, the longest idle first.
    idle: VecDeque<u32>,
    /// Requests that are due and have no connection.
    queue: VecDeque<Instant>,
    done: Vec<Done>,
    dice: Dice,
    saturate: bool,
    new_connections: bool,
    timeout: Duration,
    stopped: bool,
    busy: u64,
    scratch: Box<[u8]>,
    /// Connections opened.
    pub(crate) opened: u64,
}

/// What a step leaves of a connection.
enum Step {
    Wait,
    Answered,
    Failed(Fault),
}

impl Clients {
    pub(crate) fn new(requests: Requests, options: &Options) -> Self {
        let (now, text) = (Instant::now(), requests.texts[0].clone());
        let client = || Client {
            socket: None,
            generation: 0,
            state: State::Idle,
            text: text.clone(),
            written: 0,
            waits_to_write: false,
            due: now,
            sent: now,
            held: Vec::new(),
            answer: None,
            close: false,
            bytes: 0,
        };
        Self {
            clients: (0..options.connections).map(|_| client()).collect(),
            idle: (0..options.connections as u32).collect(),
            queue: VecDeque::new(),
            done: Vec::new(),
            dice: Dice::new(options.seed ^ 0x5eed),
            saturate: options.rate.is_none(),
            new_connections: options.new_connections,
            timeout: options.timeout,
            stopped: false,
            busy: 0,
            scratch: vec![0; READ_BYTES].into(),
            opened: 0,
            requests,
        }
    }

    /// Every connection asks.
    pub(crate) fn fill(&mut self, now: Instant, poll: &Poll) {
        while let Some(slot) = self.idle.pop_front() {
            self.begin(slot, now, now, poll);
        }
    }

    /// A request is due: it goes out on a free connection or waits for one; none if too many wait.
    pub(crate) fn ask(&mut self, due: Instant, now: Instant, poll: &Poll, queue_max: usize) -> Option<()> {
        match self.idle.pop_front() {
            Some(slot) => self.begin(slot, due, now, poll),
            None if self.queue.len() < queue_max => self.queue.push_back(due),
            None => return None,
        }
        Some(())
    }

    pub(crate) fn stop_asking(&mut self) {
        self.stopped = true;
    }

    /// Requests that have not come to an end, those not sent yet among them.
    pub(crate) fn under_way(&self) -> u64 {
        self.busy + if self.saturate { 0 } else { self.queue.len() as u64 }
    }

    pub(crate) fn nothing_under_way(&self) -> bool {
        self.busy == 0 && self.queue.is_empty()
    }

    pub(crate) fn report(&mut self, mut to: impl FnMut(Done)) {
        self.done.drain(..).for_each(&mut to);
    }

    /// Ends what takes too long, and wakes those that rested.
    pub(crate) fn sweep(&mut self, now: Instant, poll: &Poll) {
        for slot in 0..self.clients.len() as u32 {
            let client = &mut self.clients[slot as usize];
            match client.state {
                State::Connecting | State::Asked if now > client.sent + self.timeout => {
                    self.finish(slot, Err(Fault::Timeout), poll);
                }
                State::Closing(until) | State::Resting(until) if now >= until => {
                    client.socket = None;
                    self.free(slot, now, poll);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn on_event(&mut self, event: Event, poll: &Poll) {
        let slot = event.token.slot;
        let Some(client) = self.clients.get_mut(slot as usize) else { return };
        if client.generation != event.token.generation || client.socket.is_none() {
            return;
        }
        let step = match client.state {
            State::Connecting if event.writable => client.connected(slot, poll),
            State::Asked if event.writable && client.waits_to_write => client.send(slot, poll),
            _ => Step::Wait,
        };
        let step = match (step, event.readable) {
            (Step::Wait, true) => match client.state {
                State::Asked => client.receive(&mut self.scratch, self.requests.bodiless),
                State::Idle | State::Closing(_) => return self.on_quiet(slot, poll),
                State::Connecting | State::Resting(_) => Step::Wait,
            },
            (step, _) => step,
        };
        self.take_step(slot, step, poll);
    }

    fn take_step(&mut self, slot: u32, step: Step, poll: &Poll) {
        match step {
            Step::Wait => {}
            Step::Answered => {
                let status = self.clients[slot as usize].answer.map_or(0, |(status, _)| status);
                self.finish(slot, Ok(status), poll);
            }
            Step::Failed(fault) => self.finish(slot, Err(fault), poll),
        }
    }

    /// Something on a connection that nothing was asked of: its end.
    fn on_quiet(&mut self, slot: u32, poll: &Poll) {
        let client = &mut self.clients[slot as usize];
        let Some(socket) = &mut client.socket else { return };
        if matches!(socket.read(&mut self.scratch), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        client.socket = None;
        if matches!(client.state, State::Closing(_)) {
            self.free(slot, Instant::now(), poll);
        }
    }

    fn begin(&mut self, slot: u32, due: Instant, now: Instant, poll: &Poll) {
        let chosen = match self.requests.wheel.len() {
            1 => 0,
            length => self.requests.wheel[self.dice.below(length)],
        };
        self.busy += 1;
        let client = &mut self.clients[slot as usize];
        client.text = self.requests.texts[chosen].clone();
        (client.due, client.sent) = (due, now);
        (client.written, client.bytes, client.answer, client.close) = (0, 0, None, false);
        client.held.clear();
        let step = if client.socket.is_some() {
            client.state = State::Asked;
            client.send(slot, poll)
        } else {
            self.opened += 1;
            client.connect(self.requests.address, slot, poll)
        };
        self.take_step(slot, step, poll);
    }

    fn finish(&mut self, slot: u32, outcome: Result<u16, Fault>, poll: &Poll) {
        let at = Instant::now();
        let client = &mut self.clients[slot as usize];
        self.busy -= 1;
        self.done.push(Done { due: client.due, sent: client.sent, at, outcome, bytes: client.bytes });
        if outcome.is_err() {
            client.socket = None;
            client.state = State::Resting(at + REST);
        } else if client.close || self.new_connections {
            client.state = State::Closing(at + CLOSE_MAX);
        } else {
            self.free(slot, at, poll);
        }
    }

    /// The connection may be asked again.
    fn free(&mut self, slot: u32, now: Instant, poll: &Poll) {
        self.clients[slot as usize].state = State::Idle;
        if self.stopped {
            self.queue.clear();
        } else if self.saturate {
            self.begin(slot, now, now, poll);
        } else if let Some(due) = self.queue.pop_front() {
            self.begin(slot, due, now, poll);
        } else {
            self.idle.push_back(slot);
        }
    }
}

impl Client {
    fn token(&self, slot: u32) -> Token {
        Token { kind: Kind::Client, generation: self.generation, slot }
    }

    fn connect(&mut self, address: std::net::SocketAddr, slot: u32, poll: &Poll) -> Step {
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Connecting;
        self.waits_to_write = true;
        let open = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
            let socket = TcpStream::from(socket);
            poll.add(&socket, self.token(slot), Interest::Both)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => self.socket = Some(socket),
            Err(_) => return Step::Failed(Fault::Connect),
        }
        Step::Wait
    }

    fn connected(&mut self, slot: u32, poll: &Poll) -> Step {
        let fault = self.socket.as_ref().is_none_or(|socket| !matches!(socket.take_error(), Ok(None)));
        if fault {
            return Step::Failed(Fault::Connect);
        }
        self.state = State::Asked;
        self.send(slot, poll)
    }

    fn send(&mut self, slot: u32, poll: &Poll) -> Step {
        let token = self.token(slot);
        let Some(socket) = &mut self.socket else { return Step::Failed(Fault::Closed) };
        while self.written < self.text.len() {
            match socket.write(&self.text[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut self.waits_to_write, true)
                        && poll.modify(&*socket, token, Interest::Both).is_err()
                    {
                        return Step::Failed(Fault::Reset);
                    }
                    return Step::Wait;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Step::Failed(Fault::Reset),
            }
        }
        if std::mem::take(&mut self.waits_to_write) && poll.modify(&*socket, token, Interest::Read).is_err() {
            return Step::Failed(Fault::Reset);
        }
        Step::Wait
    }

    fn receive(&mut self, scratch: &mut [u8], bodiless: bool) -> Step {
        let Some(socket) = &mut self.socket else { return Step::Failed(Fault::Closed) };
        let count = match socket.read(scratch) {
            Ok(0) => {
                return match self.answer {
                    Some((_, Body::UntilClose)) => {
                        self.close = true;
                        Step::Answered
                    }
                    _ => Step::Failed(Fault::Closed),
                };
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Step::Wait;
            }
            Err(_) => return Step::Failed(Fault::Reset),
        };
        self.bytes += count as u64;
        if self.held.is_empty() {
            return self.take(&scratch[..count], bodiless);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(&scratch[..count]);
        self.take(&held, bodiless)
    }

    /// Looks at what came: the head, if it was not there before, and the body.
    fn take(&mut self, bytes: &[u8], bodiless: bool) -> Step {
        let mut at = 0;
        while self.answer.is_none() {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&bytes[at..]) {
                Ok(httparse::Status::Complete(head)) => at += head,
                Ok(httparse::Status::Partial) if bytes.len() - at < HEAD_BYTES_MAX => {
                    self.held.extend_from_slice(&bytes[at..]);
                    return Step::Wait;
                }
                _ => return Step::Failed(Fault::Malformed),
            }
            let status = response.code.unwrap_or(0);
            if status < 200 {
                continue;
            }
            let body = match Body::of(response.headers, Body::UntilClose) {
                _ if bodiless || status == 204 || status == 304 => Body::Done,
                Ok(body) => body,
                Err(_) => return Step::Failed(Fault::Malformed),
            };
            self.close = response.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
            });
            self.answer = Some((status, body));
        }
        let Some((_, body)) = &mut self.answer else { return Step::Wait };
        match body.take(&bytes[at..]) {
            Ok(taken) if body.is_done() && at + taken == bytes.len() => Step::Answered,
            Ok(_) if body.is_done() => Step::Failed(Fault::Malformed),
            Ok(_) => Step::Wait,
            Err(_) => Step::Failed(Fault::Malformed),
        }
    }
}
