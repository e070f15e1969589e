//! A tunnel after `101`: bytes both ways, nobody looks at them. One side's end is passed on; the tunnel ends
//! with the second, or when nothing passes in either direction for a while.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::pipeline::{After, Run};
use crate::runtime::Core;
use crate::runtime::deadline::Watch;
use crate::runtime::pool::Leased;
use crate::runtime::socket::{Reader, Writer};

/// One direction.
struct Lane<'a> {
    core: &'a Core,
    from: Reader,
    to: Writer,
    /// Both sockets' deadlines: whatever passes, in either direction, keeps both alive.
    watches: [&'a Rc<Watch>; 2],
    /// `None`: silence never ends it.
    idle: Option<Duration>,
}

impl Lane<'_> {
    /// Passes bytes on, `first` before those received. Returns the halves and how many bytes passed.
    async fn run(mut self, first: Vec<u8>) -> (Reader, Writer, u64) {
        let mut passed = 0;
        let mut buffer = first;
        loop {
            if !buffer.is_empty() {
                passed += buffer.len() as u64;
                self.stay_alive();
                let (sent, returned) = self.to.send(buffer, 0, self.core.sending()).await;
                buffer = returned;
                if sent.is_err() {
                    break;
                }
            }
            buffer.clear();
            self.stay_alive();
            let room = buffer.capacity();
            let (received, returned) = self.from.receive(buffer, room).await;
            buffer = returned;
            if !matches!(received, Ok(count) if count > 0) {
                break;
            }
        }
        self.core.buffers.give_back(buffer);
        self.to.finish();
        (self.from, self.to, passed)
    }

    fn stay_alive(&self) {
        for watch in self.watches {
            match self.idle {
                Some(idle) => watch.arm(&self.core.wheel, idle),
                None => watch.disarm(),
            }
        }
    }
}

impl Run<'_> {
    /// Joins the client's connection with the upstream's until both are done.
    pub(super) async fn tunnel(&mut self, mut leased: Leased) -> After {
        let core = &self.hall.core;
        let idle = core.limits.tunnel_timeout;
        let client = &mut self.connection.socket;
        let watches = [&Rc::clone(client.watch()), &Rc::clone(leased.socket.watch())];
        // What the client sent behind its request was held back until now.
        let mut early = core.buffers.small();
        early.extend_from_slice(&self.ex.request.headers.received()[self.ex.request.line.head.end()..]);
        let up = Lane { core, from: client.reader.lend(), to: leased.socket.writer.lend(), watches, idle };
        let down = Lane { core, from: leased.socket.reader.lend(), to: client.writer.lend(), watches, idle };
        core.stats.tunnels_active.add(1);
        let (up, down) = join(up.run(early), down.run(core.buffers.small())).await;
        core.stats.tunnels_active.sub(1);
        client.reader.take_back(up.0);
        leased.socket.writer.take_back(up.1);
        leased.socket.reader.take_back(down.0);
        client.writer.take_back(down.1);
        self.ex.bytes_in += up.2;
        self.ex.bytes_out += down.2;
        After::Close
    }
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
