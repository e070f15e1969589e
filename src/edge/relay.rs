//! Bytes both ways between a client and a node; nobody looks at them.
//!
//! One side's end is passed on, and it is over with the second, or when nothing passes in either direction for a while. A
//! connection that breaks is no end: the other side sees that, too. What a side does not take holds the other side up: a
//! lane has one buffer, which is sent before more is received. Where frames of WebSocket pass, their heads are looked at, so that
//! it is known where one more may be put in: the last (`parting.rs`).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::parting::{self, Parting};
use crate::proto::websocket::{Frames, From};
use crate::runtime::Core;
use crate::runtime::buffers::SMALL_BYTES;
use crate::runtime::deadline::{Ticks, Watch};
use crate::runtime::socket::{Reader, Socket, Writer};

/// Bytes of the buffer that a silent lane holds, and of the next larger one.
const TINY_BYTES: usize = 256;
const SHORT_BYTES: usize = 1024;
/// Stands for the size of the core's large buffers, whatever that is.
const LARGE: usize = SMALL_BYTES + 1;

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
    watches: [Rc<Watch>; 2],
    sending: Option<Ticks>,
    receiving: Option<Ticks>,
    /// When they were armed last, and for how long: once a tick is enough.
    armed: Cell<(u64, Option<Ticks>)>,
    broken: Cell<Option<Side>>,
    /// What came from the client before.
    early: Cell<Vec<u8>>,
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
            self.arm(Some(Ticks::of(parting.within)));
            self.is_parting.set(true);
        }
        is_told
    }

    fn arm(&self, span: Option<Ticks>) {
        if self.is_parting.get() {
            return;
        }
        let armed = (self.core.wheel.tick(), span);
        if self.armed.replace(armed) == armed {
            return;
        }
        for watch in &self.watches {
            match span {
                Some(span) => watch.arm_for(&self.core.wheel, span),
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
    from: &'a mut Reader,
    to: &'a mut Writer,
    /// Where `from` leads.
    side: Side,
    /// What is passed on next: at first what came before.
    buffer: Vec<u8>,
    passed: u64,
    /// Where frames begin and end in what passes; `None` where nobody can say.
    frames: Option<Frames>,
    /// Nothing more is passed on: we have said the last.
    has_parted: bool,
}

impl Lane<'_> {
    /// Passes bytes on until there are no more.
    async fn run(&mut self) {
        loop {
            let may_part = self.follow();
            if !self.buffer.is_empty() {
                self.road.arm(self.road.sending);
                let how = self.road.core.sending_streams();
                let (sent, returned) = self.to.send_at_rest(std::mem::take(&mut self.buffer), how).await;
                self.buffer = returned;
                if let Err(error) = sent {
                    if is_break(&error) {
                        self.road.note_broken(self.side.other());
                    }
                    // What it said before it broke can still be read.
                    self.to.abort();
                    break;
                }
                self.passed += self.buffer.len() as u64;
            }
            if may_part {
                self.has_parted = true;
                Box::pin(say_last(self.road, self.to, self.side)).await;
            }
            if self.has_parted && self.frames.as_ref().is_none_or(Frames::has_closed) {
                break;
            }
            self.prepare();
            self.road.arm(self.road.receiving);
            let received = self.receive().await;
            if !matches!(received, Ok(1..)) {
                self.end(received);
                break;
            }
        }
        self.road.core.buffers.give_back(std::mem::take(&mut self.buffer));
    }

    /// Keeps in mind where frames end. What is not to be passed on is taken out; whether our last may follow what is left.
    fn follow(&mut self) -> bool {
        let Some(frames) = &mut self.frames else { return false };
        if self.has_parted {
            frames.pass(&self.buffer);
            self.buffer.clear();
            return false;
        }
        if !self.road.is_told(None) {
            frames.pass(&self.buffer);
            if frames.is_lost() {
                self.frames = None;
            } else if frames.has_closed() {
                self.road.is_closing.set(true);
            }
            return false;
        }
        let own = frames.finish(&self.buffer);
        let may_part = frames.is_between();
        frames.pass(&self.buffer[own..]);
        if may_part {
            self.buffer.truncate(own);
        }
        may_part
    }

    /// Receives; where it is told meanwhile that this is the end, it says so to whom it sends.
    async fn receive(&mut self) -> io::Result<usize> {
        let Self { road, from, to, frames, has_parted, side, buffer, .. } = self;
        let may_part = !*has_parted && frames.as_ref().is_some_and(Frames::is_between);
        let mut receiving = pin!(from.receive_at_rest(std::mem::take(buffer), &road.core.buffers));
        let caught = poll_fn(|cx| match receiving.as_mut().poll(cx) {
            Poll::Ready(caught) => Poll::Ready(Some(caught)),
            Poll::Pending if may_part && road.is_told(Some(cx)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        let (received, returned) = if let Some(caught) = caught {
            caught
        } else {
            *has_parted = true;
            Box::pin(say_last(road, to, *side)).await;
            receiving.await
        };
        *buffer = returned;
        received
    }

    /// Nothing more comes: the other side is to see how that ended.
    fn end(&self, received: io::Result<usize>) {
        let is_break = received.as_ref().is_err_and(is_break);
        if is_break {
            self.road.note_broken(self.side);
        }
        let has_broken = is_break || received.is_ok() && self.road.broken.get() == Some(self.side);
        match has_broken {
            // Both sides know, and who has not answered yet still may.
            _ if self.has_parted => {}
            true => self.to.reset(),
            false => self.to.finish(),
        }
    }

    /// What the lane waits with: where the system fills it, a buffer as large as what came last suggests, else none.
    fn prepare(&mut self) {
        let stock = &self.road.core.buffers;
        let buffer = std::mem::take(&mut self.buffer);
        let room = if self.from.is_plain() { fitting(buffer.capacity(), buffer.len()) } else { 0 };
        self.buffer = if buffer.capacity() == room {
            buffer
        } else {
            stock.give_back(buffer);
            match room {
                SMALL_BYTES => stock.small(),
                LARGE.. => stock.large(),
                room => Vec::with_capacity(room),
            }
        };
        self.buffer.clear();
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

/// The size of the next buffer, where so many bytes came in one of this size: the next larger where it was full, a smaller one
/// where they were few. One that waits for a word now and then is not to wait with much.
const fn fitting(room: usize, count: usize) -> usize {
    if room < TINY_BYTES {
        TINY_BYTES
    } else if count >= room || count >= SMALL_BYTES {
        if room < SHORT_BYTES {
            SHORT_BYTES
        } else if room < SMALL_BYTES {
            SMALL_BYTES
        } else {
            LARGE
        }
    } else if room <= SHORT_BYTES && count < TINY_BYTES / 2 {
        TINY_BYTES
    } else if room <= SMALL_BYTES && count < SHORT_BYTES / 2 {
        SHORT_BYTES
    } else if room >= LARGE && count < SMALL_BYTES / 2 {
        SMALL_BYTES
    } else {
        room
    }
}

/// Joins a client's connection with a node's until both are done. `early` came from the client already; `parting` is given
/// where frames of WebSocket pass.
// Not an `async fn`: that would hold its arguments twice, for as long as the connections live.
#[allow(clippy::manual_async_fn)]
pub(super) fn relay<'a>(
    core: &'a Core,
    client: &'a mut Socket,
    node: &'a mut Socket,
    early: Vec<u8>,
    patience: Patience,
    parting: Option<Parting<'a>>,
) -> impl Future<Output = Passed> + use<'a> {
    let mut road = Road {
        core,
        watches: [Rc::clone(client.watch()), Rc::clone(node.watch())],
        sending: patience.sending.map(Ticks::of),
        receiving: patience.receiving.map(Ticks::of),
        armed: Cell::new((u64::MAX, None)),
        broken: Cell::new(None),
        early: Cell::new(early),
        parting,
        is_closing: Cell::new(false),
        is_parting: Cell::new(false),
    };
    async move {
        let said = road.parting.as_mut().map(|parting| std::mem::take(&mut parting.said));
        let frames = |from| said.is_some().then(|| Frames::new(from));
        let lane = |from, to, side, buffer, frames| Lane {
            road: &road,
            from,
            to,
            side,
            buffer,
            passed: 0,
            frames,
            has_parted: false,
        };
        let early = road.early.take();
        let mut up = lane(&mut client.reader, &mut node.writer, Side::Client, early, frames(From::Client));
        let mut down =
            lane(&mut node.reader, &mut client.writer, Side::Node, Vec::new(), frames(From::Server));
        if let (Some(frames), Some(said)) = (&mut down.frames, said) {
            frames.pass(&said);
            road.is_closing.set(frames.has_closed());
        }
        join(pin!(up.run()), pin!(down.run())).await;
        Passed { up: up.passed, down: down.passed, broken: road.broken.get() }
    }
}

/// Runs two futures to their ends.
pub(super) async fn join(mut one: Pin<&mut impl Future>, mut other: Pin<&mut impl Future>) {
    let (mut is_one, mut is_other) = (false, false);
    poll_fn(|cx| {
        is_one = is_one || one.as_mut().poll(cx).is_ready();
        is_other = is_other || other.as_mut().poll(cx).is_ready();
        if is_one && is_other { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::super::{Hall, h1, stream, tunnel};
    use super::*;

    /// Bytes of the futures of a tunnel and of a stream while they last, whose connections may last for days.
    const TUNNEL_BYTES_MAX: usize = 1472;
    const STREAM_BYTES_MAX: usize = 2048;

    /// The size of what a function of three arguments returns.
    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_futures_of_tunnels_and_streams_are_small() {
        let tunnel = size::<&'static Hall, &'static mut h1::Connection, _, _>(tunnel::run);
        let stream = size(stream::attend);
        println!("tunnel: {tunnel} bytes, stream: {stream} bytes");
        assert!(tunnel <= TUNNEL_BYTES_MAX, "{tunnel}");
        assert!(stream <= STREAM_BYTES_MAX, "{stream}");
    }

    /// The sizes of buffers that a lane goes through where so many bytes come at a time, as long as it has room for them.
    fn sizes(begin: usize, counts: &[usize]) -> Vec<usize> {
        let mut room = begin;
        let next = |count: &usize| {
            room = fitting(room, (*count).min(room));
            room
        };
        counts.iter().map(next).collect()
    }

    #[test]
    fn a_buffer_grows_where_it_was_full_and_shrinks_where_little_came() {
        assert_eq!(sizes(0, &[0, 5, 64]), [TINY_BYTES; 3]);
        assert_eq!(sizes(5, &[5]), [TINY_BYTES], "what came early is no measure");
        let growing = sizes(TINY_BYTES, &[1 << 20, 1 << 20, 1 << 20, 1 << 20]);
        assert_eq!(growing, [SHORT_BYTES, SMALL_BYTES, LARGE, LARGE]);
        assert_eq!(sizes(64 << 10, &[64 << 10, 20 << 10, 9 << 10]), [LARGE; 3]);
        assert_eq!(sizes(LARGE, &[5, 5, 5]), [SMALL_BYTES, SHORT_BYTES, TINY_BYTES]);
        assert_eq!(sizes(300, &[300, 200, 130]), [SHORT_BYTES; 3], "of no size that there is");
        assert_eq!(sizes(SHORT_BYTES, &[1000, 130, 127]), [SHORT_BYTES, SHORT_BYTES, TINY_BYTES]);
    }
}
