//! The origin behind every gateway: fixed bodies by the last part of the path, as little work as possible.
//!
//! `/128`, `/1k`, `/64k`, `/1m`; `/stall?ms=1000` answers later; `/echo` answers with the head it was sent, which shows
//! what a gateway adds. Anything else is `/128`. Bodies of requests are read to their end before the answer. On the same
//! addresses it takes HTTP/2 in clear and WebSockets, on others it sends back what it gets. It waits on the loop of whoever
//! owns it, so that load and origin can share a thread.

mod http2;
mod talk;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::framing::Body;
use crate::poll::{Event, Interest, Kind, Poll, Token};
use crate::websocket;
use http2::Http2;
use talk::{Mirror, Talk, WebSocket};

const HEADERS_MAX: usize = 64;
/// A head beyond this is no request of ours.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What one read may bring; uploads of 64 KiB arrive in one.
const READ_BYTES: usize = 128 * 1024;
const BACKLOG: i32 = 4096;
/// How a connection of HTTP/2 begins: no request of HTTP/1.1 does.
const HTTP2: &[u8] = b"PRI ";
/// What may wait to be sent on a connection; nobody here has more under way.
const OUT_BYTES_MAX: usize = 1 << 22;
const STALL_DEFAULT: Duration = Duration::from_millis(1000);

pub struct Origin {
    listeners: Vec<TcpListener>,
    /// Listeners from here on are of those who get back what they send.
    mirrors_from: usize,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u16,
    replies: Replies,
    stalled: BinaryHeap<Reverse<(Instant, u32, u16)>>,
    scratch: Box<[u8]>,
    /// Requests answered.
    pub served: u64,
    /// Connections accepted.
    pub accepted: u64,
}

struct Connection {
    socket: TcpStream,
    generation: u16,
    /// The beginning of a head whose end has not come yet.
    held: Vec<u8>,
    body: Body,
    /// The answer to give once the request's body is read.
    next: Option<Answer>,
    /// The answer under way and how much of it is written.
    reply: Option<(Rc<[u8]>, usize)>,
    stalled: bool,
    close: bool,
    /// Whether writability is waited for, not bytes.
    waits_to_write: bool,
    /// What is spoken other than HTTP/1.1, and what of it is to be sent.
    talk: Option<Box<dyn Talk>>,
    out: Vec<u8>,
}

enum Answer {
    Now(Rc<[u8]>),
    Later(Duration),
    /// A WebSocket is opened.
    Upgrade,
}

/// Whole responses, made once.
struct Replies {
    small: Rc<[u8]>,
    kib: Rc<[u8]>,
    large: Rc<[u8]>,
    huge: Rc<[u8]>,
    upgrade: Rc<[u8]>,
}

fn reply(body: &[u8]) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

impl Replies {
    fn new() -> Self {
        let filled = |bytes: usize| reply(&vec![b'x'; bytes]);
        let upgrade = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            websocket::ACCEPT
        );
        Self {
            small: filled(128),
            kib: filled(1024),
            large: filled(64 * 1024),
            huge: filled(1024 * 1024),
            upgrade: upgrade.into_bytes().into(),
        }
    }

    fn to(&self, path: &str, head: &[u8]) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path.rsplit('/').next().unwrap_or("") {
            "1k" => Answer::Now(self.kib.clone()),
            "64k" => Answer::Now(self.large.clone()),
            "1m" => Answer::Now(self.huge.clone()),
            "echo" => Answer::Now(reply(head)),
            "stall" => {
                let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok());
                Answer::Later(ms.map_or(STALL_DEFAULT, Duration::from_millis))
            }
            _ => Answer::Now(self.small.clone()),
        }
    }
}

impl Origin {
    /// Listens on the addresses. All connections are accepted on the owner's thread.
    /// Whoever comes to one of the mirrors gets back what it sends.
    pub fn bind(addresses: &[SocketAddr], mirrors: &[SocketAddr], poll: &Poll) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (slot, address) in addresses.iter().chain(mirrors).enumerate() {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            // Accepted sockets inherit it.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            let token = Token { kind: Kind::OriginListener, generation: 0, slot: slot as u32 };
            poll.add(&listener, token, Interest::Read)?;
            listeners.push(listener);
        }
        Ok(Self {
            listeners,
            mirrors_from: addresses.len(),
            connections: Vec::new(),
            free: Vec::new(),
            generation: 0,
            replies: Replies::new(),
            stalled: BinaryHeap::new(),
            scratch: vec![0; READ_BYTES].into(),
            served: 0,
            accepted: 0,
        })
    }

    /// Where it listens; port 0 has become a real one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// When it next has to be woken without an event.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.stalled.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Gives the answers whose time has come.
    pub fn on_time(&mut self, now: Instant, poll: &Poll) {
        while let Some(&Reverse((at, slot, generation))) = self.stalled.peek() {
            if at > now {
                break;
            }
            self.stalled.pop();
            let reply = self.replies.small.clone();
            self.with(slot, generation, |connection, origin| {
                connection.stalled = false;
                connection.reply = Some((reply, 0));
                origin.advance(connection, slot, poll)
            });
        }
    }

    pub fn on_event(&mut self, event: Event, poll: &Poll) {
        let Token { kind, generation, slot } = event.token;
        if kind == Kind::OriginListener {
            self.accept(slot, poll);
        } else {
            self.with(slot, generation, |connection, origin| {
                origin.on_connection(connection, slot, event, poll)
            });
        }
    }

    /// Takes the connection out while it is worked on, and drops it if that is its end.
    fn with(&mut self, slot: u32, generation: u16, work: impl FnOnce(&mut Connection, &mut Self) -> bool) {
        let place = self.connections.get_mut(slot as usize);
        let Some(mut connection) =
            place.and_then(|place| place.take_if(|here| here.generation == generation))
        else {
            return;
        };
        if work(&mut connection, self) {
            self.connections[slot as usize] = Some(connection);
        } else {
            self.free.push(slot);
        }
    }

    fn accept(&mut self, listener: u32, poll: &Poll) {
        let is_mirror = listener as usize >= self.mirrors_from;
        while let Some(Ok((socket, _))) = self.listeners.get(listener as usize).map(TcpListener::accept) {
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() as u32 - 1
            });
            self.generation = self.generation.wrapping_add(1);
            let token = Token { kind: Kind::OriginConnection, generation: self.generation, slot };
            if poll.add(&socket, token, Interest::Read).is_err() {
                self.free.push(slot);
                continue;
            }
            self.accepted += 1;
            self.connections[slot as usize] = Some(Connection {
                socket,
                generation: self.generation,
                held: Vec::new(),
                body: Body::Done,
                next: None,
                reply: None,
                stalled: false,
                close: false,
                waits_to_write: false,
                talk: is_mirror.then(|| Box::new(Mirror) as Box<dyn Talk>),
                out: Vec::new(),
            });
        }
    }

    /// Whether the connection lives on.
    fn on_connection(&mut self, connection: &mut Connection, slot: u32, event: Event, poll: &Poll) -> bool {
        if connection.reply.is_some() {
            return !event.writable || self.advance(connection, slot, poll);
        }
        if connection.waits_to_write {
            return !event.writable || connection.write_out(slot, poll);
        }
        if !event.readable {
            return true;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let alive = match connection.socket.read(&mut scratch) {
            Ok(0) => false,
            Ok(count) if connection.talk.is_some() => {
                let alive = self.talk(connection, &scratch[..count], slot, poll);
                self.scratch = scratch;
                return alive;
            }
            Ok(count) if connection.held.is_empty() => {
                let taken = self.take(connection, slot, &scratch[..count]);
                taken.is_some_and(|taken| {
                    connection.held.extend_from_slice(&scratch[taken..count]);
                    true
                })
            }
            Ok(count) => {
                connection.held.extend_from_slice(&scratch[..count]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        self.scratch = scratch;
        alive && self.advance(connection, slot, poll)
    }

    /// Other protocols than HTTP/1.1: takes what came, answers.
    fn talk(&mut self, connection: &mut Connection, bytes: &[u8], slot: u32, poll: &Poll) -> bool {
        let Some(talk) = &mut connection.talk else { return false };
        let mut held = std::mem::take(&mut connection.held);
        let taken = if held.is_empty() {
            talk.take(bytes, &mut connection.out).map(|(taken, served)| {
                held.extend_from_slice(&bytes[taken..]);
                served
            })
        } else {
            held.extend_from_slice(bytes);
            talk.take(&held, &mut connection.out).map(|(taken, served)| {
                held.drain(..taken);
                served
            })
        };
        connection.held = held;
        let Ok(served) = taken else { return false };
        self.served += served;
        connection.out.len() < OUT_BYTES_MAX && connection.write_out(slot, poll)
    }

    /// Writes what is due, then looks at what was held back meanwhile.
    fn advance(&mut self, connection: &mut Connection, slot: u32, poll: &Poll) -> bool {
        let token = Token { kind: Kind::OriginConnection, generation: connection.generation, slot };
        loop {
            if let Some((bytes, written)) = &mut connection.reply {
                match connection.socket.write(&bytes[*written..]) {
                    Ok(count) => *written += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        connection.waits_to_write = true;
                        return poll.modify(&connection.socket, token, Interest::Write).is_ok();
                    }
                    Err(_) => return false,
                }
                if *written < bytes.len() {
                    continue;
                }
                connection.reply = None;
                self.served += 1;
                if connection.close {
                    return false;
                }
                if std::mem::take(&mut connection.waits_to_write)
                    && poll.modify(&connection.socket, token, Interest::Read).is_err()
                {
                    return false;
                }
            }
            if connection.held.is_empty() || connection.stalled {
                return true;
            }
            let held = std::mem::take(&mut connection.held);
            if connection.talk.is_some() {
                return self.talk(connection, &held, slot, poll);
            }
            let Some(taken) = self.take(connection, slot, &held) else { return false };
            connection.held.extend_from_slice(&held[taken..]);
            if connection.reply.is_none() {
                return connection.held.len() < HEAD_BYTES_MAX;
            }
        }
    }

    /// Reads heads and bodies up to the first request that is whole; none means nonsense.
    fn take(&mut self, connection: &mut Connection, slot: u32, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while connection.reply.is_none() && !connection.stalled {
            if connection.next.is_none() {
                let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
                let mut request = httparse::Request::new(&mut headers);
                let rest = &bytes[at..];
                if rest.starts_with(HTTP2) {
                    connection.talk = Some(Box::new(Http2::new()));
                    break;
                }
                let httparse::Status::Complete(head) = request.parse(rest).ok()? else { break };
                let is_upgrade =
                    request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("upgrade"));
                connection.next = Some(if is_upgrade && is_known(request.headers) {
                    Answer::Upgrade
                } else {
                    self.replies.to(request.path.unwrap_or("/"), &rest[..head])
                });
                connection.body = Body::of(request.headers, Body::Done).ok()?;
                connection.close = request.headers.iter().any(|header| {
                    header.name.eq_ignore_ascii_case("connection")
                        && header.value.eq_ignore_ascii_case(b"close")
                });
                at += head;
            }
            at += connection.body.take(&bytes[at..]).ok()?;
            if !connection.body.is_done() {
                break;
            }
            match connection.next.take()? {
                Answer::Now(reply) => connection.reply = Some((reply, 0)),
                Answer::Upgrade => {
                    connection.talk = Some(Box::new(WebSocket));
                    connection.reply = Some((self.replies.upgrade.clone(), 0));
                }
                Answer::Later(wait) => {
                    connection.stalled = true;
                    self.stalled.push(Reverse((Instant::now() + wait, slot, connection.generation)));
                }
            }
        }
        Some(at)
    }
}

/// Whether the key of a WebSocket is the one whose answer is known.
fn is_known(headers: &[httparse::Header<'_>]) -> bool {
    headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("sec-websocket-key") && header.value == websocket::KEY.as_bytes()
    })
}

impl Connection {
    /// Writes what there is of other protocols; whether the connection lives on.
    fn write_out(&mut self, slot: u32, poll: &Poll) -> bool {
        let mut written = 0;
        let mut is_full = false;
        while written < self.out.len() && !is_full {
            match self.socket.write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.out.drain(..written);
        if std::mem::replace(&mut self.waits_to_write, is_full) == is_full {
            return true;
        }
        let token = Token { kind: Kind::OriginConnection, generation: self.generation, slot };
        let interest = if is_full { Interest::Write } else { Interest::Read };
        poll.modify(&self.socket, token, interest).is_ok()
    }
}
