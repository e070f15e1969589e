//! An HTTP/2 connection of a client: its bytes to and from the `h2` crate, its streams begun, and its end.
//!
//! Each stream is served as a connection of HTTP/1 whose other end is in this core (`stream.rs`), so nothing behind knows
//! which version a client speaks. A connection on which nothing goes on holds no buffer of ours.

mod carry;
mod node;
mod node_stream;
mod stream;

pub(super) use node::{Nodes, stream as stream_to};

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Connection as Http2;
use slab::Slab;

use self::carry::carry;
use super::Hall;
use super::h1::Connection;
use crate::base::clock::Moment;
use crate::exchange::{Client, Security};
use crate::link::outbox::Level;
use crate::proto::h2::breach::{Breach, Conduct};
use crate::proto::h2::meter::{Abuse, Meter};
use crate::proto::h2::wire::{Pump, Wire, wire};
use crate::runtime::deadline::Watch;
use crate::runtime::limits::LINGER;
use crate::runtime::socket::Reader;

/// One connection, as its streams and the core's clockwork see it.
struct Session {
    client: Client,
    security: Option<Rc<Security>>,
    watch: Rc<Watch>,
    /// Streams under way, and those begun so far.
    streams: Cell<u32>,
    begun: Cell<u32>,
    /// Since when there is none.
    idle_since: Cell<Moment>,
    /// When the client was told that no more streams are taken.
    leaving: Cell<Option<Moment>>,
    /// What the client did that ends it.
    offence: Cell<Option<Offence>>,
    /// Counts what the client says, and what it is told.
    meter: RefCell<Meter>,
    /// Whoever talks to the client.
    talker: RefCell<Option<Waker>>,
}

/// Why a connection is ended.
#[derive(Clone, Copy)]
enum Offence {
    /// Something too often.
    Abuse(Abuse),
    /// Something that may not be.
    Breach(Breach),
}

impl Session {
    fn new(connection: &Connection, now: Moment) -> Self {
        Self {
            client: Client { http2: true, ..connection.client },
            security: connection.security.clone(),
            watch: Rc::clone(connection.socket.watch()),
            streams: Cell::new(0),
            begun: Cell::new(0),
            idle_since: Cell::new(now),
            leaving: Cell::new(None),
            offence: Cell::new(None),
            meter: RefCell::new(Meter::after_preface(now)),
            talker: RefCell::new(None),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.talker.take() {
            waker.wake();
        }
    }

    const fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// How long nothing has gone on, and whether that is too long.
    fn look(&self, hall: &Hall, now: Moment) {
        let limits = &hall.core.limits;
        let has_left = self.leaving.get().is_some_and(|since| now.since(since) >= LINGER);
        if !self.is_idle() {
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
            self.wake();
        }
    }
}

/// All of a core.
#[derive(Default)]
pub(super) struct Sessions(RefCell<Slab<Rc<Session>>>);

impl Sessions {
    /// Ends those on which nothing goes on for too long; about once a second.
    pub(super) fn look(&self, hall: &Hall, now: Moment) {
        self.all().iter().for_each(|session| session.look(hall, now));
    }

    /// Tells all clients that no more streams are taken.
    pub(super) fn leave(&self, now: Moment) {
        self.all().iter().for_each(|session| session.leave(now));
    }

    fn all(&self) -> Vec<Rc<Session>> {
        self.0.borrow().iter().map(|(_, session)| Rc::clone(session)).collect()
    }
}

/// A session's place among those of its core.
struct Listed<'a> {
    hall: &'a Hall,
    key: usize,
}

impl<'a> Listed<'a> {
    fn new(hall: &'a Hall, session: &Rc<Session>) -> Self {
        let key = hall.sessions.0.borrow_mut().insert(Rc::clone(session));
        hall.core.stats.http2_connections.add(1);
        Self { hall, key }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.hall.core.stats.http2_connections.sub(1);
        drop(self.hall.sessions.0.borrow_mut().try_remove(self.key));
    }
}

/// Serves a connection to its end. `received` has come already.
pub(super) async fn serve(hall: &Rc<Hall>, connection: &mut Connection, received: Vec<u8>) {
    let core = &hall.core;
    let now = core.now();
    let session = Rc::new(Session::new(connection, now));
    let _listed = Listed::new(hall, &session);
    session.watch.disarm();
    session.watch.set_resting(true);
    if hall.draining.get() {
        session.leave(now);
    }
    let (wire, pump) = wire();
    let listen = async |reader: &mut Reader| listen(hall, &session, reader, &pump, received).await;
    let talk = talk(hall, &session, wire);
    let said = |bytes: &[u8]| session.meter.borrow_mut().tell(bytes);
    carry(hall, &mut connection.socket, &pump, (|| session.is_idle(), said), listen, talk).await;
}

/// Receives what the client says, until it says nothing more, or too much of the wrong kind.
async fn listen(hall: &Hall, session: &Session, reader: &mut Reader, pump: &Pump, received: Vec<u8>) {
    let core = &hall.core;
    let mut conduct = Conduct::after_preface();
    let mut buffer = received;
    loop {
        if !buffer.is_empty() {
            if let Some(offence) = offence(&session.meter, &mut conduct, &mut buffer, core.now()) {
                session.offence.set(Some(offence));
                // Taken, so that both have said hello and it can be told; no more than this is.
                pump.feed(buffer);
                pump.end();
                session.wake();
                return listen_no_more(hall, reader).await;
            }
            pump.feed(buffer);
            buffer = pump.emptied().await;
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
    pump.end();
}

/// What is wrong with what was received, if anything. Bytes that break a rule are taken away, and those behind them: the crate
/// would call it by another name.
fn offence(
    meter: &RefCell<Meter>,
    conduct: &mut Conduct,
    received: &mut Vec<u8>,
    now: Moment,
) -> Option<Offence> {
    let breach = conduct.look(received).err().map(|(breach, begins)| {
        received.truncate(begins);
        Offence::Breach(breach)
    });
    meter.borrow_mut().look(received, now).err().map(Offence::Abuse).or(breach)
}

/// Reads on until the connection ends: closed with something unread, it would be reset, and the client not see what it did.
async fn listen_no_more(hall: &Hall, reader: &mut Reader) {
    let mut buffer = hall.core.buffers.small();
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

/// Begins the client's streams.
async fn talk(hall: &Rc<Hall>, session: &Rc<Session>, wire: Wire) {
    let core = &hall.core;
    let Ok(mut http2) = core.limits.http2.unwrap_or_default().server().handshake::<_, Bytes>(wire).await
    else {
        core.stats.http2_errors.add(1);
        return;
    };
    let mut told = false;
    loop {
        let next = poll_fn(|cx| {
            session.talker.replace(Some(cx.waker().clone()));
            match session.offence.take() {
                Some(Offence::Abuse(abuse)) => {
                    note_abuse(hall, session, abuse);
                    http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Some(Offence::Breach(breach)) => http2.abrupt_shutdown(breach.reason()),
                None => {}
            }
            if session.leaving.get().is_some() && !told {
                told = true;
                http2.graceful_shutdown();
            }
            poll_accept(&mut http2, cx)
        })
        .await;
        match next {
            // As many requests as connections, whoever they come from: each holds what a connection does.
            Some(Ok((_, mut respond))) if is_full(hall) => {
                core.stats.http2_refused.add(1);
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            Some(Ok((request, respond))) => {
                if session.begun.get() + 1 >= core.limits.keepalive_requests {
                    session.leave(core.now());
                }
                stream::begin(hall, session, request, respond);
            }
            Some(Err(error)) => {
                // A client that just left is none of it.
                if !error.is_io() {
                    core.stats.http2_errors.add(1);
                }
                return;
            }
            None => return,
        }
    }
}

/// Whether the core has as many streams under way as it may have connections.
fn is_full(hall: &Hall) -> bool {
    hall.core.stats.http2_streams_active.get() >= hall.core.limits.connections_max as u64
}

type Begun = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

fn poll_accept(
    http2: &mut Http2<Wire, Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Begun, h2::Error>>> {
    pin!(http2.accept()).poll(cx)
}

fn note_abuse(hall: &Hall, session: &Session, abuse: Abuse) {
    hall.core.stats.http2_abuses[abuse as usize].add(1);
    hall.note_seldom(Level::Warn, || {
        format!("ended the HTTP/2 connection of {}: too many {}", session.client.peer, abuse.word())
    });
}

/// Longest a client may leave an answer where it is, its window being full.
const fn patience(hall: &Hall) -> Duration {
    hall.core.limits.write_timeout
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::stats::HTTP2_ABUSES;

    #[test]
    fn what_is_counted_goes_by_the_words_of_the_meter() {
        let words = Abuse::ALL.map(Abuse::word);
        assert_eq!(words, HTTP2_ABUSES);
        assert!(Abuse::ALL.iter().enumerate().all(|(at, abuse)| at == *abuse as usize));
    }
}
