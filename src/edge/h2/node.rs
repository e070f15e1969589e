//! Connections of HTTP/2 to nodes: few for many requests, each of which is a stream.
//!
//! Who forwards a request gets the end of a pipe (`runtime/pipe.rs`) and speaks HTTP/1 to it; here is what makes a stream of
//! it. A core has connections of its own; another one is opened where all have as many streams as the node allows.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use h2::client::{Connection as Http2, SendRequest};

use super::carry::carry;
use super::node_stream;
use crate::base::address::Address;
use crate::base::clock::Moment;
use crate::base::hash::Map;
use crate::edge::Hall;
use crate::edge::pick::Unreached;
use crate::proto::h2::wire::{Outlet as _, Pump, Wire, wire};
use crate::runtime::pool::{Keep, Leased, PoolKey};
use crate::runtime::socket::{Reader, Socket};

/// Connections of a core to one node. With a hundred streams each, more than a core serves.
const CONNECTIONS_MAX: usize = 16;
/// Streams of a connection at a time, if the node allows as many.
const STREAMS_MAX: usize = 100;

/// Calls that clients gave up while they were answered, after which a connection is left: what of their answers is under way
/// counts against it for good.
const GIVEN_UP_MAX: u32 = 16;

/// One connection.
pub(super) struct NodeSession {
    /// `None` once no more streams are begun on it.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    key: PoolKey,
    keep: Keep,
    pub(super) streams: Cell<u32>,
    begun: Cell<u32>,
    given_up: Cell<u32>,
    pub(super) idle_since: Cell<Moment>,
    /// When the node last said anything.
    pub(super) heard: Cell<Moment>,
}

impl NodeSession {
    /// Whether another stream may begin on it.
    fn has_room(&self) -> bool {
        let sender = self.sender.borrow();
        let allowed = sender.as_ref().map_or(0, SendRequest::current_max_send_streams);
        (self.streams.get() as usize) < allowed.min(STREAMS_MAX)
    }

    pub(super) const fn node(&self) -> Address {
        self.key.node
    }

    pub(super) const fn is_https(&self) -> bool {
        self.key.tls != 0
    }

    fn is_open(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Streams under way end as they would; then the connection does.
    pub(super) fn leave(&self) {
        drop(self.sender.take());
    }

    /// A client has given up what it asked for.
    pub(super) fn give_up(&self) {
        self.given_up.set(self.given_up.get() + 1);
        if self.given_up.get() >= GIVEN_UP_MAX {
            self.leave();
        }
    }

    /// What the stream of one request is begun with.
    fn begin(&self) -> Option<SendRequest<Bytes>> {
        let sender = self.sender.borrow().clone()?;
        self.begun.set(self.begun.get() + 1);
        if self.begun.get() >= self.keep.requests {
            self.leave();
        }
        Some(sender)
    }
}

/// A connection that is being opened, and those who wait for it.
#[derive(Default)]
struct Dial {
    over: Cell<Option<Result<(), Unreached>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Dial {
    fn end(&self, result: Result<(), Unreached>) {
        self.over.set(Some(result));
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    async fn wait(&self) -> Result<(), Unreached> {
        poll_fn(|cx| {
            if let Some(result) = self.over.get() {
                return Poll::Ready(result);
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[derive(Default)]
struct ToNode {
    sessions: Vec<Rc<NodeSession>>,
    dial: Option<Rc<Dial>>,
    /// It was offered HTTP/2 of late, and has picked HTTP/1.1.
    has_declined: bool,
}

/// All of a core.
#[derive(Default)]
pub(in crate::edge) struct Nodes(RefCell<Map<PoolKey, ToNode>>);

/// What there is of connections to a node.
enum Found {
    Session(Rc<NodeSession>),
    Dialling(Rc<Dial>),
    /// One is to be opened, by whoever asked.
    ToDial(Rc<Dial>),
    /// The same, and there is nothing in it for others.
    ToDialAlone,
}

impl Nodes {
    fn find(&self, key: &PoolKey) -> Found {
        let mut nodes = self.0.borrow_mut();
        let to = nodes.entry(*key).or_default();
        let open = || to.sessions.iter().filter(|session| session.is_open());
        if let Some(session) = open().find(|session| session.has_room()) {
            return Found::Session(Rc::clone(session));
        }
        if let Some(dial) = &to.dial {
            return Found::Dialling(Rc::clone(dial));
        }
        // All are full: the least busy of many lets its streams wait.
        let least = open().min_by_key(|session| session.streams.get());
        if let Some(session) = least.filter(|_| to.sessions.len() >= CONNECTIONS_MAX) {
            return Found::Session(Rc::clone(session));
        }
        if to.has_declined {
            return Found::ToDialAlone;
        }
        let dial = Rc::new(Dial::default());
        to.dial = Some(Rc::clone(&dial));
        Found::ToDial(dial)
    }

    fn dialled(&self, key: &PoolKey, session: Option<Rc<NodeSession>>, has_declined: bool) {
        let mut nodes = self.0.borrow_mut();
        // Nothing keeps the place of a node that is dialled without others waiting for it: it may be gone by now.
        let to = nodes.entry(*key).or_default();
        to.dial = None;
        to.sessions.extend(session);
        to.has_declined = has_declined;
    }

    fn forget(&self, key: &PoolKey, session: &Rc<NodeSession>) {
        if let Some(to) = self.0.borrow_mut().get_mut(key) {
            to.sessions.retain(|other| !Rc::ptr_eq(other, session));
        }
    }

    /// Ends those that nobody has used for long, and forgets nodes without any; about once a second.
    pub(in crate::edge) fn look(&self, now: Moment) {
        self.0.borrow_mut().retain(|_, to| {
            for session in &to.sessions {
                if session.streams.get() == 0 && now.since(session.idle_since.get()) >= session.keep.idle {
                    session.leave();
                }
            }
            !to.sessions.is_empty() || to.dial.is_some()
        });
    }

    /// Ends all as soon as their streams have.
    pub(in crate::edge) fn leave(&self) {
        self.0.borrow().values().flat_map(|to| &to.sessions).for_each(|session| session.leave());
    }
}

/// Tells those who wait for a connection what became of it. Where whoever opens it is gone, another of them does.
struct Dialling<'a> {
    nodes: &'a Nodes,
    key: PoolKey,
    dial: Rc<Dial>,
    result: Result<(), Unreached>,
    session: Option<Rc<NodeSession>>,
    has_declined: bool,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.nodes.dialled(&self.key, self.session.take(), self.has_declined);
        self.dial.end(self.result);
    }
}

/// The end of a pipe to a stream of a connection to the node. `dial` opens one in the way that the upstream wants, and tells
/// whether HTTP/2 was agreed on; where the node may decline it, a new connection of HTTP/1.1 if it does. That it did is
/// remembered until [`Nodes::look`]: meanwhile nobody waits for what another learns.
pub(in crate::edge) async fn stream(
    hall: &Hall,
    (key, may_decline): (PoolKey, bool),
    keep: Keep,
    dial: impl Future<Output = Result<(Socket, bool), Unreached>>,
) -> Result<Leased, Unreached> {
    let mut dial = Some(dial);
    let mut reused = true;
    loop {
        match hall.nodes.find(&key) {
            Found::Session(session) => {
                if let Some(sender) = session.begin() {
                    return Ok(lease(hall, key, &session, sender, reused));
                }
            }
            Found::Dialling(other) => other.wait().await?,
            Found::ToDial(waited_for) => {
                let nodes = &hall.nodes;
                let (result, session, has_declined) = (Ok(()), None, false);
                let mut dialling = Dialling { nodes, key, dial: waited_for, result, session, has_declined };
                // With this at hand: those who wait are told, whatever becomes of us.
                let Some(dial) = dial.take() else {
                    dialling.result = Err(Unreached::Refused);
                    return Err(Unreached::Refused);
                };
                match open(hall, (key, may_decline), keep, dial).await {
                    Ok(Opened::Session(session)) => dialling.session = Some(session),
                    Ok(Opened::Declined(socket)) => {
                        dialling.has_declined = true;
                        return Ok(Leased { socket, requests: 0, reused: false, key });
                    }
                    Err(unreached) => {
                        dialling.result = Err(unreached);
                        return Err(unreached);
                    }
                }
                reused = false;
            }
            Found::ToDialAlone => {
                let Some(dial) = dial.take() else { return Err(Unreached::Refused) };
                match open(hall, (key, may_decline), keep, dial).await? {
                    Opened::Session(session) => hall.nodes.dialled(&key, Some(session), false),
                    Opened::Declined(socket) => {
                        return Ok(Leased { socket, requests: 0, reused: false, key });
                    }
                }
                reused = false;
            }
        }
    }
}

fn lease(
    hall: &Hall,
    key: PoolKey,
    session: &Rc<NodeSession>,
    sender: SendRequest<Bytes>,
    reused: bool,
) -> Leased {
    let core = &hall.core;
    if reused {
        core.stats.upstream_reuses.add(1);
    }
    let (socket, far) = Socket::piped(&core.wheel);
    node_stream::begin(hall, session, sender, far);
    Leased { socket, requests: 0, reused, key }
}

/// What came of opening a connection.
enum Opened {
    Session(Rc<NodeSession>),
    /// It speaks HTTP/1.1.
    Declined(Socket),
}

/// Opens a connection, and has it served in a task of its own.
async fn open(
    hall: &Hall,
    (key, may_decline): (PoolKey, bool),
    keep: Keep,
    dial: impl Future<Output = Result<(Socket, bool), Unreached>>,
) -> Result<Opened, Unreached> {
    let (socket, is_http2) = dial.await?;
    if may_decline && !is_http2 {
        return Ok(Opened::Declined(socket));
    }
    let (wire, pump) = wire();
    let limits = hall.core.limits.http2.unwrap_or_default();
    // Nothing is waited for: the node's settings come when they come.
    let (sender, http2) = limits.client().handshake(wire).await.map_err(|_| Unreached::Refused)?;
    let session = Rc::new(NodeSession {
        sender: RefCell::new(Some(sender)),
        key,
        keep,
        streams: Cell::new(0),
        begun: Cell::new(0),
        given_up: Cell::new(0),
        idle_since: Cell::new(hall.core.now()),
        heard: Cell::default(),
    });
    let (hall, served) = (hall.itself(), Rc::clone(&session));
    monoio::spawn(async move {
        serve(&hall, &served, socket, http2, pump).await;
        served.leave();
        hall.nodes.forget(&key, &served);
    });
    Ok(Opened::Session(session))
}

/// Serves a connection to its end.
async fn serve(
    hall: &Hall,
    session: &NodeSession,
    mut socket: Socket,
    http2: Http2<Wire, Bytes>,
    pump: Pump,
) {
    let listen = async |reader: &mut Reader| {
        listen(hall, session, reader, &pump).await;
        // The node is going, or gone: others begin elsewhere.
        session.leave();
    };
    let talk = async {
        // How it ended, each of its streams knows.
        let _ = http2.await;
        pump.close();
    };
    carry(hall, &mut socket, &pump, || session.streams.get() == 0, listen, talk).await;
}

/// Receives what the node says, to its end.
async fn listen(hall: &Hall, session: &NodeSession, reader: &mut Reader, pump: &Pump) {
    let core = &hall.core;
    loop {
        if !reader.holds_bytes() && reader.readable().await.is_err() {
            break;
        }
        let buffer = core.buffers.large();
        let room = buffer.capacity();
        let (received, buffer) = reader.receive(buffer, room).await;
        if !matches!(received, Ok(count) if count > 0) {
            core.buffers.give_back(buffer);
            break;
        }
        session.heard.set(core.now());
        pump.feed(buffer);
        core.buffers.give_back(pump.emptied().await);
    }
    pump.end();
}
