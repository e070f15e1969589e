//! Bytes both ways between a client and a node; nobody looks at them.
//!
//! One side's end is passed on, and it is over with the second, or when nothing passes in either direction for a while. A
//! connection that breaks is no end: the other side sees that, too. What a side does not take holds the other side up: a
//! lane has one buffer, which is sent before more is received. Where frames of WebSocket pass, their heads are looked at, so that
//! it is known where one more may be put in: the last (`parting.rs`).

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::parting::{self, Parting};
use crate::proto::websocket::{Frames, From};
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
    parting: Option<Parting<'a>>,
    /// A side has said its last before we could.
    is_closing: Cell<bool>,
    /// The time to answer our last runs.
    is_parting: Cell<bool>,
}

impl Road<'_> {
    /// Whether both sides are to be told that it is over. If not, a lane that says it waits is woken when they are.
    fn is_told(&self, cx: Option<&Context<'_>>) -> bool {
        let Some(parting) = self.parting.as_ref().filter(|_| !self.is_closing.get()) else { return false };
        let is_told = match cx {
            Some(cx) => parting.tie.poll_told(cx).is_some(),
            None => parting.tie.told().is_some(),
        };
        if is_told && !self.is_parting.get() {
            self.arm(Some(parting.within));
            self.is_parting.set(true);
        }
        is_told
    }

    fn arm(&self, patience: Option<Duration>) {
        if self.is_parting.get() {
            return;
        }
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
    /// Where frames begin and end in what passes; `None` where nobody can say.
    frames: Option<Frames>,
    /// Nothing more is passed on: we have said the last.
    has_parted: bool,
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
            let may_part = self.follow(&mut buffer);
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
            if may_part {
                Box::pin(self.part()).await;
            }
            if self.has_parted && self.frames.as_ref().is_none_or(Frames::has_closed) {
                break;
            }
            buffer.clear();
            self.road.arm(patience.receiving);
            let (received, returned) = self.receive(buffer).await;
            buffer = returned;
            if !self.goes_on(received) {
                break;
            }
        }
        core.buffers.give_back(buffer);
        (self.from, self.to, passed)
    }

    /// Keeps in mind where frames end. What is not to be passed on is taken out; whether our last may follow what is left.
    fn follow(&mut self, buffer: &mut Vec<u8>) -> bool {
        let Some(frames) = &mut self.frames else { return false };
        if self.has_parted {
            frames.pass(buffer);
            buffer.clear();
            return false;
        }
        if !self.road.is_told(None) {
            frames.pass(buffer);
            if frames.is_lost() {
                self.frames = None;
            } else if frames.has_closed() {
                self.road.is_closing.set(true);
            }
            return false;
        }
        let own = frames.finish(buffer);
        let may_part = frames.is_between();
        frames.pass(&buffer[own..]);
        if may_part {
            buffer.truncate(own);
        }
        may_part
    }

    /// Receives; where it is told meanwhile that this is the end, it says so to whom it sends.
    async fn receive(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let Self { road, from, to, frames, has_parted, side } = self;
        let room = buffer.capacity();
        let mut receiving = pin!(async {
            if from.waits_with_memory() {
                // How it broke is told by what follows.
                let _ = from.readable().await;
            }
            from.receive(buffer, room).await
        });
        let may_part = !*has_parted && frames.as_ref().is_some_and(Frames::is_between);
        let received = std::future::poll_fn(|cx| match receiving.as_mut().poll(cx) {
            Poll::Ready(received) => Poll::Ready(Some(received)),
            Poll::Pending if road.is_told(Some(cx)) && may_part => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        if let Some(received) = received {
            return received;
        }
        *has_parted = true;
        Box::pin(say_last(road, to, *side)).await;
        receiving.await
    }

    async fn part(&mut self) {
        self.has_parted = true;
        say_last(self.road, &mut self.to, self.side).await;
    }

    /// Passes on how receiving ended, if it did.
    fn goes_on(&self, received: io::Result<usize>) -> bool {
        if let Ok(1..) = received {
            return true;
        }
        if let Err(error) = &received
            && is_break(error)
        {
            self.road.note_broken(self.side);
        }
        match received {
            // Both sides know, and who has not answered yet still may.
            _ if self.has_parted => {}
            Ok(_) if self.road.broken.get() == Some(self.side) => self.to.reset(),
            Err(error) if is_break(&error) => self.to.reset(),
            Ok(_) | Err(_) => self.to.finish(),
        }
        false
    }
}

/// Says the last to where a side's bytes go, in its place.
async fn say_last(road: &Road<'_>, to: &mut Writer, side: Side) {
    let Some(farewell) = road.parting.as_ref().and_then(|parting| parting.tie.told()) else { return };
    let from = if side == Side::Client { From::Client } else { From::Server };
    let frame = parting::last_frame(road.core, farewell, from);
    let (sent, frame) = to.send(frame, 0, road.core.sending()).await;
    road.core.buffers.give_back(frame);
    if sent.is_err() {
        to.abort();
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

/// Joins a client's connection with a node's until both are done. `early` came from the client already; `parting` is given
/// where frames of WebSocket pass.
pub(super) async fn relay(
    core: &Core,
    client: &mut Socket,
    node: &mut Socket,
    early: Vec<u8>,
    patience: Patience,
    mut parting: Option<Parting<'_>>,
) -> Passed {
    let watches = [&Rc::clone(client.watch()), &Rc::clone(node.watch())];
    let frames = |from| parting.is_some().then(|| Frames::new(from));
    let (from_client, mut from_node) = (frames(From::Client), frames(From::Server));
    if let (Some(frames), Some(parting)) = (&mut from_node, &mut parting) {
        frames.pass(&std::mem::take(&mut parting.said));
    }
    let road = Road {
        core,
        watches,
        patience,
        broken: Cell::new(None),
        is_closing: Cell::new(from_node.as_ref().is_some_and(Frames::has_closed)),
        is_parting: Cell::new(false),
        parting,
    };
    let lane = |from, to, side, frames| Lane { road: &road, from, to, side, frames, has_parted: false };
    let up = lane(client.reader.lend(), node.writer.lend(), Side::Client, from_client);
    let down = lane(node.reader.lend(), client.writer.lend(), Side::Node, from_node);
    let (up, down) = join(up.run(early), down.run(Vec::new())).await;
    client.reader.take_back(up.0);
    node.writer.take_back(up.1);
    node.reader.take_back(down.0);
    client.writer.take_back(down.1);
    Passed { up: up.2, down: down.2, broken: road.broken.get() }
}

/// Runs two futures to their ends.
pub(super) async fn join<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
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
