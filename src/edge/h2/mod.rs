//! An HTTP/2 connection of a client: its bytes to and from the conversation, its streams begun, and its end.
//!
//! Each stream is served as a connection of HTTP/1 whose other end is in this core (`stream.rs`), so nothing behind knows
//! which version a client speaks. A connection on which nothing goes on holds no buffer of ours.

mod carry;
mod node;
mod node_stream;
mod stream;

pub(super) use node::{Nodes, stream as stream_to};

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, ready};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use slab::Slab;

use self::carry::carry;
use super::Hall;
use super::h1::Connection;
use crate::base::clock::Moment;
use crate::base::prefetch::Whereabouts;
use crate::exchange::{Client, Security};
use crate::link::outbox::Level;
use crate::proto::h2::conversation::{Begun, Conversation, Fault, Listener, Scratch};
use crate::proto::h2::wire::Outlet;
use crate::runtime::deadline::Watch;
use crate::runtime::limits::LINGER;
use crate::runtime::socket::Reader;

/// One connection, as its streams and the core's clockwork see it.
struct Session {
    client: Client,
    security: Option<Rc<Security>>,
    watch: Rc<Watch>,
    conversation: RefCell<Conversation>,
    /// Streams under way, and those begun so far.
    streams: Cell<u32>,
    begun: Cell<u32>,
    /// See [`Connection::counted_at`].
    counted_at: Cell<Whereabouts>,
    /// Since when there is none.
    idle_since: Cell<Moment>,
    /// When the client was told that no more streams are taken.
    leaving: Cell<Option<Moment>>,
    /// All that was taken out of the conversation was sent.
    is_silent: Cell<bool>,
}

impl Session {
    fn new(hall: &Hall, connection: &Connection, now: Moment) -> Self {
        let limits = hall.core.limits.http2.unwrap_or_default();
        Self {
            client: Client { http2: true, ..connection.client },
            security: connection.security.clone(),
            watch: Rc::clone(connection.socket.watch()),
            conversation: RefCell::new(Conversation::new(limits, now)),
            streams: Cell::new(0),
            begun: Cell::new(0),
            counted_at: Cell::new(connection.counted_at),
            idle_since: Cell::new(now),
            leaving: Cell::new(None),
            is_silent: Cell::new(false),
        }
    }

    const fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Whether nothing goes on and nothing is still to be sent: then an end cuts no answer short.
    fn is_at_rest(&self) -> bool {
        let has_said_all =
            || self.conversation.try_borrow().is_ok_and(|conversation| !conversation.has_outgoing());
        self.is_idle() && self.is_silent.get() && has_said_all()
    }

    /// How long nothing has gone on, and whether that is too long.
    fn look(&self, hall: &Hall, now: Moment) {
        let limits = &hall.core.limits;
        let has_left = self.leaving.get().is_some_and(|since| now.since(since) >= LINGER);
        // Who takes nothing of what is to be sent is ended by whoever sends it.
        if !self.is_at_rest() {
            return;
        }
        if has_left {
            // It was told, and keeps the connection open.
            return self.watch.expire();
        }
        let patience = if self.begun.get() == 0 { limits.head_timeout } else { limits.keepalive_timeout };
        if self.leaving.get().is_none() && now.since(self.idle_since.get()) >= patience {
            self.leave(now);
        }
    }

    /// No more streams are taken; those under way come to their ends.
    fn leave(&self, now: Moment) {
        if self.leaving.get().is_none() {
            self.leaving.set(Some(now));
            self.conversation.borrow_mut().leave();
        }
    }
}

impl Outlet for Session {
    fn poll_outgoing(&self, cx: &Context<'_>, spare: &mut Vec<u8>) -> Poll<bool> {
        let polled = self.conversation.borrow_mut().poll_outgoing(cx, spare);
        // Whoever asks for more has sent what it had.
        self.is_silent.set(!matches!(polled, Poll::Ready(true)));
        self.watch.set_resting(self.is_at_rest());
        polled
    }

    fn close(&self) {
        self.conversation.borrow_mut().close();
    }
}

/// All of a core.
#[derive(Default)]
pub(super) struct Sessions {
    all: RefCell<Slab<Rc<Session>>>,
    /// What reading heads takes, for one at a time.
    scratch: RefCell<Scratch>,
}

impl Sessions {
    /// Ends those on which nothing goes on for too long; about once a second.
    pub(super) fn look(&self, hall: &Hall, now: Moment) {
        self.list().iter().for_each(|session| session.look(hall, now));
    }

    /// Tells all clients that no more streams are taken.
    pub(super) fn leave(&self, now: Moment) {
        self.list().iter().for_each(|session| session.leave(now));
    }

    fn list(&self) -> Vec<Rc<Session>> {
        self.all.borrow().iter().map(|(_, session)| Rc::clone(session)).collect()
    }
}

/// A session's place among those of its core.
struct Listed<'a> {
    hall: &'a Hall,
    key: usize,
}

impl<'a> Listed<'a> {
    fn new(hall: &'a Hall, session: &Rc<Session>) -> Self {
        let key = hall.sessions.all.borrow_mut().insert(Rc::clone(session));
        hall.core.stats.http2_connections.add(1);
        Self { hall, key }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.hall.core.stats.http2_connections.sub(1);
        drop(self.hall.sessions.all.borrow_mut().try_remove(self.key));
    }
}

/// Serves a connection to its end. `received` has come already.
pub(super) async fn serve(hall: &Rc<Hall>, connection: &mut Connection, received: Vec<u8>) {
    let now = hall.core.now();
    let session = Rc::new(Session::new(hall, connection, now));
    let _listed = Listed::new(hall, &session);
    session.watch.disarm();
    session.watch.set_resting(true);
    if hall.draining.get() {
        session.leave(now);
    }
    let listen = async |reader: &mut Reader| listen(hall, &session, reader, received).await;
    // Streams speak for themselves.
    carry(hall, &mut connection.socket, &*session, || session.is_idle(), listen, ready(())).await;
}

/// Receives what the client says, until it says nothing more, or something wrong.
async fn listen(hall: &Rc<Hall>, session: &Rc<Session>, reader: &mut Reader, received: Vec<u8>) {
    let core = &hall.core;
    let mut buffer = received;
    loop {
        if !buffer.is_empty() {
            if let Err(fault) = hear(hall, session, &buffer) {
                note(hall, session, fault);
                session.conversation.borrow_mut().fail(fault);
                return listen_no_more(hall, reader, buffer).await;
            }
            buffer.clear();
            poll_fn(|cx| session.conversation.borrow_mut().poll_hearing(cx)).await;
        }
        if session.is_idle() && !reader.holds_bytes() {
            core.buffers.give_back(std::mem::take(&mut buffer));
            if reader.readable().await.is_err() {
                break;
            }
        }
        if buffer.capacity() == 0 {
            buffer = core.buffers.small();
        }
        let room = buffer.capacity();
        let (received, returned) = reader.receive(buffer, room).await;
        buffer = returned;
        if !matches!(received, Ok(count) if count > 0) {
            break;
        }
    }
    core.buffers.give_back(buffer);
    session.conversation.borrow_mut().close();
}

/// Takes in what the client said.
fn hear(hall: &Rc<Hall>, session: &Rc<Session>, bytes: &[u8]) -> Result<(), Fault> {
    let now = hall.core.now();
    let mut scratch = hall.sessions.scratch.borrow_mut();
    let heard =
        session.conversation.borrow_mut().receive(bytes, now, &mut scratch, &mut Door { hall, session });
    if session.begun.get() >= hall.core.limits.keepalive_requests {
        session.leave(now);
    }
    heard
}

/// Where streams come in.
struct Door<'a> {
    hall: &'a Rc<Hall>,
    session: &'a Rc<Session>,
}

impl Listener for Door<'_> {
    fn nonce(&mut self) -> [u8; 16] {
        self.hall.core.dice(crate::base::rng::Rng::bytes16)
    }

    fn begin(&mut self, begun: Begun) -> bool {
        // As many requests as connections, whoever they come from: each holds what a connection does.
        if is_full(self.hall) {
            self.hall.core.stats.http2_refused.add(1);
            return false;
        }
        stream::begin(self.hall, self.session, begun);
        true
    }

    fn note_malformed(&mut self) {
        self.hall.core.stats.http2_errors.add(1);
    }
}

/// Reads on until the connection ends: closed with something unread, it would be reset, and the client not see what it did.
async fn listen_no_more(hall: &Hall, reader: &mut Reader, mut buffer: Vec<u8>) {
    loop {
        buffer.clear();
        let room = buffer.capacity();
        let (received, returned) = reader.receive(buffer, room).await;
        buffer = returned;
        if !matches!(received, Ok(count) if count > 0) {
            return hall.core.buffers.give_back(buffer);
        }
    }
}

/// Whether the core has as many streams under way as it may have connections.
fn is_full(hall: &Hall) -> bool {
    hall.core.stats.http2_streams_active.get() >= hall.core.limits.connections_max as u64
}

fn note(hall: &Hall, session: &Session, fault: Fault) {
    let stats = &hall.core.stats;
    match fault {
        Fault::Abuse(abuse) => stats.http2_abuses[abuse as usize].add(1),
        Fault::Breach(_) => stats.http2_errors.add(1),
    }
    hall.note_seldom(Level::Warn, || {
        let peer = session.client.peer;
        match fault {
            Fault::Abuse(abuse) => {
                format!("ended the HTTP/2 connection of {peer}: too many {}", abuse.word())
            }
            Fault::Breach(code) => {
                format!("ended the HTTP/2 connection of {peer}: it broke the rules ({})", code.word())
            }
        }
    });
}

/// Longest a client may leave an answer where it is, its window being full.
const fn patience(hall: &Hall) -> Duration {
    hall.core.limits.write_timeout
}

#[cfg(test)]
mod tests {
    use crate::link::stats::HTTP2_ABUSES;
    use crate::proto::h2::tally::Abuse;

    #[test]
    fn what_is_counted_goes_by_the_words_of_the_meter() {
        let words = Abuse::ALL.map(Abuse::word);
        assert_eq!(words, HTTP2_ABUSES);
        assert!(Abuse::ALL.iter().enumerate().all(|(at, abuse)| at == *abuse as usize));
    }
}
