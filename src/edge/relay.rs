//! Bytes both ways between a client and a node; nobody looks at them.
//!
//! One side's end is passed on, and it is over with the second, or when nothing passes in either direction for a while. A
//! connection that breaks is no end: the other side sees that, too. What a side does not take holds the other side up: a
//! lane has one buffer, which is sent before more is received.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::Core;
use crate::runtime::buffers::SMALL_BYTES;
use crate::runtime::deadline::Watch;
use crate::runtime::socket::{Reader, Socket, Writer};

/// Bytes of the buffer that a silent lane holds.
const TINY_BYTES: usize = 1024;

/// How long may nothing pass in either direction; `None`: for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While a side is waited for to take something.
    pub(super) sending: Option<Duration>,
    /// While either side is waited for to say something.
    pub(super) receiving: Option<Duration>,
}

/// What passed, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) up: u64,
    pub(super) down: u64,
    /// A side broke the connection.
    pub(super) broken: Option<Side>,
}

/// An end of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Node,
}

/// What both lanes share.
struct Road<'a> {
    core: &'a Core,
    /// Both sockets' deadlines: whatever passes, in either direction, keeps both alive.
    watches: [&'a Rc<Watch>; 2],
    patience: Patience,
    broken: Cell<Option<Side>>,
}

impl Road<'_> {
    fn arm(&self, patience: Option<Duration>) {
        for watch in self.watches {
            match patience {
                Some(time) => watch.arm(&self.core.wheel, time),
                None => watch.disarm(),
            }
        }
    }

    fn note_broken(&self, side: Side) {
        self.broken.set(self.broken.get().or(Some(side)));
    }
}

/// One direction.
struct Lane<'a> {
    road: &'a Road<'a>,
    from: Reader,
    to: Writer,
    /// Where `from` leads.
    side: Side,
}

impl Lane<'_> {
    /// Passes bytes on, `first` before those received. Returns the halves and how many bytes passed.
    async fn run(mut self, first: Vec<u8>) -> (Reader, Writer, u64) {
        let Road { core, patience, .. } = self.road;
        let mut passed = 0;
        let mut buffer = first;
        if buffer.is_empty() {
            core.buffers.give_back(buffer);
            buffer = tiny();
        }
        loop {
            if !buffer.is_empty() {
                self.road.arm(patience.sending);
                let count = buffer.len();
                let (sent, returned) = self.to.send(buffer, 0, core.sending()).await;
                buffer = returned;
                if let Err(error) = sent {
                    if is_break(&error) {
                        self.road.note_broken(self.side.other());
                    }
                    // What it said before it broke can still be read.
                    self.to.abort();
                    break;
                }
                passed += count as u64;
                buffer = fitting(core, buffer, count);
            }
            buffer.clear();
            self.road.arm(patience.receiving);
            if self.from.waits_with_memory() {
                // How it broke is told by what follows.
                let _ = self.from.readable().await;
            }
            let room = buffer.capacity();
            let (received, returned) = self.from.receive(buffer, room).await;
            buffer = returned;
            match received {
                Ok(0) => {
                    if self.road.broken.get() == Some(self.side) {
                        self.to.reset();
                    } else {
                        self.to.finish();
                    }
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    if is_break(&error) {
                        self.road.note_broken(self.side);
                        self.to.reset();
                    } else {
                        self.to.finish();
                    }
                    break;
                }
            }
        }
        core.buffers.give_back(buffer);
        (self.from, self.to, passed)
    }
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Node,
            Self::Node => Self::Client,
        }
    }
}

/// Whether the peer has broken the connection, rather than ended it.
fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

/// A larger buffer where so many bytes came that this one was full of them, a smaller one where they were few: one that waits
/// for a word now and then is not to wait with much.
fn fitting(core: &Core, mut buffer: Vec<u8>, count: usize) -> Vec<u8> {
    let room = buffer.capacity();
    let is_few = count < if room > SMALL_BYTES { SMALL_BYTES / 2 } else { TINY_BYTES / 2 };
    let is_full = count >= room.min(SMALL_BYTES);
    match (room > SMALL_BYTES, room >= SMALL_BYTES) {
        (true, _) | (false, true) if is_few => {
            core.buffers.give_back(buffer);
            if room > SMALL_BYTES { core.buffers.small() } else { tiny() }
        }
        (false, true) if is_full => {
            buffer.clear();
            core.buffers.enlarge(buffer)
        }
        (false, false) if is_full => core.buffers.small(),
        _ => buffer,
    }
}

/// What a lane waits with.
fn tiny() -> Vec<u8> {
    Vec::with_capacity(TINY_BYTES)
}

/// Joins a client's connection with a node's until both are done. `early` came from the client already.
pub(super) async fn relay(
    core: &Core,
    client: &mut Socket,
    node: &mut Socket,
    early: Vec<u8>,
    patience: Patience,
) -> Passed {
    let watches = [&Rc::clone(client.watch()), &Rc::clone(node.watch())];
    let road = Road { core, watches, patience, broken: Cell::new(None) };
    let up = Lane { road: &road, from: client.reader.lend(), to: node.writer.lend(), side: Side::Client };
    let down = Lane { road: &road, from: node.reader.lend(), to: client.writer.lend(), side: Side::Node };
    let (up, down) = join(up.run(early), down.run(Vec::new())).await;
    client.reader.take_back(up.0);
    node.writer.take_back(up.1);
    node.reader.take_back(down.0);
    client.writer.take_back(down.1);
    Passed { up: up.2, down: down.2, broken: road.broken.get() }
}

/// Runs two futures to their ends.
pub(super) async fn join<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    use std::task::Poll;
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut a, mut b) = (None, None);
    std::future::poll_fn(|cx| {
        if a.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(cx)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(cx)
        {
            b = Some(value);
        }
        match (a.take(), b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (not_a, not_b) => {
                (a, b) = (not_a, not_b);
                Poll::Pending
            }
        }
    })
    .await
}
