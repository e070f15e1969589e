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
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::parting::Tie;
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
    /// By what it is told that it is over, where frames of WebSocket pass.
    tie: Option<&'a Tie>,
}

impl Road<'_> {
    /// Whether both sides are to be told that it is over. If not, a lane that says it waits is woken when they are.
    fn is_told(&self, cx: Option<&Context<'_>>) -> bool {
        let Some(tie) = self.tie else { return false };
        let is_told = tie.is_told(cx);
        if is_told && !tie.is_parting() {
            self.arm(Some(tie.within));
            tie.begin_parting();
        }
        is_told
    }

    fn arm(&self, span: Option<Ticks>) {
        // The time to answer our last runs.
        if self.tie.is_some_and(Tie::is_parting) {
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
                Box::pin(say_last(self.road, self.to, self.side)).await;
            }
            if self.road.tie.is_some_and(|tie| tie.is_over(self.side)) {
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

    /// Keeps in mind where frames end; whether our last may follow what is left to be passed on.
    fn follow(&mut self) -> bool {
        let Some(tie) = self.road.tie else { return false };
        // What is no WebSocket is left alone.
        let is_told = tie.is_open(self.side) && self.road.is_told(None);
        tie.follow(self.side, &mut self.buffer, is_told)
    }

    /// Receives; where it is told meanwhile that this is the end, it says so to whom it sends.
    async fn receive(&mut self) -> io::Result<usize> {
        let Self { road, from, to, side, buffer, .. } = self;
        let may_part = road.tie.is_some_and(|tie| tie.may_part(*side));
        let mut to = may_part.then_some(&mut **to);
        let mut receiving = pin!(from.receive_at_rest(std::mem::take(buffer), &road.core.buffers));
        let mut last: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        let (received, returned) = poll_fn(|cx| {
            loop {
                if let Some(saying) = &mut last {
                    ready!(saying.as_mut().poll(cx));
                    last = None;
                }
                if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                    return Poll::Ready(received);
                }
                let Some(to) = to.take_if(|_| road.is_told(Some(cx))) else { return Poll::Pending };
                last = Some(Box::pin(say_last(road, to, *side)));
            }
        })
        .await;
        *buffer = returned;
        received
    }

    /// Nothing more comes: the other side is to see how that ended.
    fn end(&self, received: io::Result<usize>) {
        let has_broken = match received {
            Ok(_) => self.road.broken.get() == Some(self.side),
            Err(error) => {
                let is_break = is_break(&error);
                if is_break {
                    self.road.note_broken(self.side);
                }
                is_break
            }
        };
        if self.road.tie.is_some_and(|tie| tie.has_parted(self.side)) {
            // Both sides know, and who has not answered yet still may.
        } else if has_broken {
            self.to.reset();
        } else {
            self.to.finish();
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
    let Some(frame) = road.tie.and_then(|tie| tie.last_frame(road.core, side)) else { return };
    let (sent, _) = to.send_at_rest(frame, road.core.sending_streams()).await;
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

/// Whether the peer has broken the connection, or the rules of TLS over it, rather than ended it. An end without the last word of
/// TLS is one: many leave so.
fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidData};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | InvalidData)
}

/// The size of the next buffer, where so many bytes came in one of this size: the next larger where it was full, a smaller one
/// where they were few. One that waits for a word now and then is not to wait with much.
const fn fitting(room: usize, count: usize) -> usize {
    if count >= room || count >= SMALL_BYTES {
        return match room {
            0..TINY_BYTES => TINY_BYTES,
            TINY_BYTES..SHORT_BYTES => SHORT_BYTES,
            SHORT_BYTES..SMALL_BYTES => SMALL_BYTES,
            _ => LARGE,
        };
    }
    match room {
        ..TINY_BYTES => TINY_BYTES,
        ..=SHORT_BYTES if count < TINY_BYTES / 2 => TINY_BYTES,
        ..=SMALL_BYTES if count < SHORT_BYTES / 2 => SHORT_BYTES,
        LARGE.. if count < SMALL_BYTES / 2 => SMALL_BYTES,
        _ => room,
    }
}

/// Joins a client's connection with a node's until both are done. `early` came from the client already; `tie` is given where
/// frames of WebSocket pass.
// Not an `async fn`: that would hold its arguments twice, for as long as the connections live.
#[allow(clippy::manual_async_fn)]
pub(super) fn relay<'a>(
    core: &'a Core,
    client: &'a mut Socket,
    node: &'a mut Socket,
    early: Vec<u8>,
    patience: Patience,
    tie: Option<&'a Tie>,
) -> impl Future<Output = Passed> + use<'a> {
    let road = Road {
        core,
        watches: [Rc::clone(client.watch()), Rc::clone(node.watch())],
        sending: patience.sending.map(Ticks::of),
        receiving: patience.receiving.map(Ticks::of),
        armed: Cell::new((u64::MAX, None)),
        broken: Cell::new(None),
        early: Cell::new(early),
        tie,
    };
    async move {
        let lane = |from, to, side, buffer| Lane { road: &road, from, to, side, buffer, passed: 0 };
        let mut up = lane(&mut client.reader, &mut node.writer, Side::Client, road.early.take());
        let mut down = lane(&mut node.reader, &mut client.writer, Side::Node, Vec::new());
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
    const TUNNEL_BYTES_MAX: usize = 1000;
    const STREAM_BYTES_MAX: usize = 1568;

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
