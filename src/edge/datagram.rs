//! Datagrams that are passed on by stream routes. Those of one client to one place are a session, which has a socket to a
//! node of its own, so that the node's answers find back. It is over when nothing passes for a while.
//!
//! A core has so many sessions and no more: the one that has been silent for longest makes room. Nothing is queued but a few
//! datagrams of a session whose plugins have not decided yet.

mod session;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::Hall;
use crate::base::hash::Map;
use crate::link::outbox::Level;
use crate::runtime::udp::Datagrams;

/// Datagrams that are read before others have their turn.
const BATCH: usize = 64;
/// Datagrams that a session keeps while it is not decided where they go. 512 KiB at worst, for the time a plugin takes.
const WAITING_MAX: usize = 8;
/// How long a session may be silent once the gateway stops.
const PARTING: Duration = Duration::from_secs(1);

/// By where it came in (the place among the core's sockets), and whose it is.
type Key = (usize, SocketAddr);

/// What passes between one client and one node.
struct Session {
    key: Key,
    /// None yet while plugins decide.
    node: RefCell<Option<Rc<Datagrams>>>,
    waiting: RefCell<Vec<Vec<u8>>>,
    /// Its client has said more since it began, or since it was last spared.
    was_used: Cell<bool>,
    is_over: Cell<bool>,
    /// The node's machine says that nobody is there.
    is_refused: Cell<bool>,
    /// What comes after silence.
    idle: Cell<Option<Duration>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

/// The sessions of one core.
#[derive(Default)]
pub(super) struct Sessions {
    open: RefCell<Map<Key, Rc<Session>>>,
    /// In the order in which they began, or were last spared.
    line: RefCell<VecDeque<Rc<Session>>>,
    /// Where datagrams of nodes are read.
    buffer: RefCell<Vec<u8>>,
}

impl Sessions {
    /// Makes room for one more, and gives it a place. The one makes room that has been silent for longest: each has a second
    /// chance if its client said more since the last look.
    fn begin(&self, hall: &Hall, key: Key) -> Rc<Session> {
        let core = &hall.core;
        let most = core.limits.udp_sessions;
        let mut line = self.line.borrow_mut();
        if line.len() >= most.saturating_mul(2) {
            line.retain(|session| !session.is_over.get());
        }
        while self.open.borrow().len() >= most {
            let Some(session) = line.pop_front() else { break };
            if session.is_over.get() {
                continue;
            }
            if session.was_used.replace(false) {
                line.push_back(session);
                continue;
            }
            core.stats.udp_evictions.add(1);
            self.end(&session);
        }
        while line.front().is_some_and(|session| session.is_over.get()) {
            line.pop_front();
        }
        let session = Rc::new(Session {
            key,
            node: RefCell::default(),
            waiting: RefCell::default(),
            was_used: Cell::new(false),
            is_over: Cell::new(false),
            is_refused: Cell::new(false),
            idle: Cell::new(core.limits.udp_idle),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
        });
        line.push_back(Rc::clone(&session));
        self.open.borrow_mut().insert(key, Rc::clone(&session));
        session
    }

    /// It takes no more, and whoever waits for its node is woken.
    fn end(&self, session: &Session) {
        session.is_over.set(true);
        let mut open = self.open.borrow_mut();
        // Its client may have come back in the meantime.
        if open.get(&session.key).is_some_and(|found| std::ptr::eq(&raw const **found, session)) {
            open.remove(&session.key);
        }
        if let Some(node) = &*session.node.borrow() {
            node.watch().expire();
        }
    }
}

impl Session {
    /// Something passed.
    fn stay(&self, hall: &Hall, node: &Datagrams) {
        let core = &hall.core;
        if hall.draining.get() {
            node.watch().set_resting(false);
            node.watch().arm(&core.wheel, self.idle.get().unwrap_or(PARTING).min(PARTING));
            return;
        }
        match self.idle.get() {
            Some(idle) => node.watch().arm(&core.wheel, idle),
            None => node.watch().disarm(),
        }
    }

    /// A datagram of the client.
    fn take(&self, hall: &Hall, bytes: &[u8]) {
        let node = self.node.borrow();
        let Some(node) = &*node else {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() < WAITING_MAX {
                waiting.push(bytes.to_vec());
            } else {
                hall.core.stats.datagrams_dropped.add(1);
            }
            return;
        };
        self.was_used.set(true);
        self.pass(hall, node, bytes);
    }

    fn pass(&self, hall: &Hall, node: &Datagrams, bytes: &[u8]) {
        self.stay(hall, node);
        match node.send(bytes) {
            Ok(()) => self.bytes_in.set(self.bytes_in.get() + bytes.len() as u64),
            Err(error) => {
                hall.core.stats.datagrams_dropped.add(1);
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.is_refused.set(true);
                    node.watch().expire();
                }
            }
        }
    }
}

/// Takes what comes in at a place, for as long as the core lives.
pub(super) async fn receive(hall: Rc<Hall>, place: usize, port: Rc<Datagrams>) {
    let core = &hall.core;
    // One more than may come, so that what is too long is seen.
    let mut buffer = vec![0; core.limits.datagram_bytes + 1];
    loop {
        if let Err(error) = port.readable().await {
            core.note(Level::Error, format!("can not receive on {}: {error}", port.local()));
            return;
        }
        for _ in 0..BATCH {
            match port.receive_from(&mut buffer) {
                Ok((count, _)) if count > core.limits.datagram_bytes => core.stats.datagrams_dropped.add(1),
                Ok((count, client)) => take(&hall, (place, client), &port, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Of what was sent before: somebody is not there any more.
                Err(_) => {}
            }
        }
    }
}

/// A datagram of a client: for its session, or the first of one.
fn take(hall: &Rc<Hall>, key: Key, port: &Rc<Datagrams>, bytes: &[u8]) {
    let sessions = &hall.datagrams;
    let found = sessions.open.borrow().get(&key).cloned();
    if let Some(session) = found {
        return session.take(hall, bytes);
    }
    if hall.draining.get() {
        hall.core.stats.datagrams_dropped.add(1);
        return;
    }
    let session = sessions.begin(hall, key);
    monoio::spawn(session::attend(Rc::clone(hall), session, Rc::clone(port), bytes.to_vec()));
}
