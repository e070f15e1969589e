//! Messages that are sent beside the road: nobody waits for them, and their answers are read away.
//!
//! Whoever has one gives it to the core and goes on; a task takes it to its node on a connection of its own, with
//! deadlines of its own. What waits and what is under way is bounded, in number and in bytes: beyond, an errand is
//! given back at once, so that a slow node costs those who serve nothing but this memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Core;
use super::connect::dial;
use super::socket::Socket;

/// Errands of a core that wait or are under way.
pub const ERRANDS_MAX: usize = 128;
/// Bytes of all their messages.
pub const ERRAND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// An answer that is longer is not read to its end.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A message and where it goes.
#[derive(Debug)]
pub struct Errand {
    pub to: SocketAddr,
    pub message: Vec<u8>,
    pub times: Times,
}

/// How long each part may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub connect: Duration,
    pub send: Duration,
    /// For all of the answer.
    pub read: Duration,
}

/// The errands of one core.
#[derive(Debug, Default)]
pub struct Errands {
    waiting: RefCell<VecDeque<Errand>>,
    waker: RefCell<Option<Waker>>,
    /// Those that wait and those under way, and the bytes of their messages.
    count: Cell<usize>,
    bytes: Cell<usize>,
}

impl Errands {
    /// Takes one on; `false` when there are too many, and it is gone.
    pub fn give(&self, errand: Errand) -> bool {
        let bytes = self.bytes.get() + errand.message.len();
        if self.count.get() >= ERRANDS_MAX || bytes > ERRAND_BYTES_MAX {
            return false;
        }
        self.count.set(self.count.get() + 1);
        self.bytes.set(bytes);
        self.waiting.borrow_mut().push_back(errand);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    /// The next one that waits.
    pub fn take(&self) -> Option<Errand> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Waits for the next one. One task waits at a time.
    pub async fn next(&self) -> Errand {
        poll_fn(|cx| match self.take() {
            Some(errand) => Poll::Ready(errand),
            None => {
                self.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// One of so many bytes is over.
    fn done(&self, bytes: usize) {
        self.count.set(self.count.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
    }
}

/// Does one errand, and counts what came of it.
pub async fn carry_out(core: &Core, errand: Errand) {
    let (bytes, within) = (errand.message.len(), errand.times.read);
    match deliver(core, errand).await {
        Ok(socket) => {
            core.stats.copies_sent.add(1);
            read_away(core, socket, within).await;
        }
        Err(_) => core.stats.copies_failed.add(1),
    }
    core.errands.done(bytes);
}

async fn deliver(core: &Core, errand: Errand) -> io::Result<Socket> {
    let Errand { to, message, times } = errand;
    let mut socket = dial(core, to.into(), times.connect).await?;
    let watch = Rc::clone(socket.watch());
    watch.arm(&core.wheel, times.send);
    let (sent, _) = socket.writer.send(message, 0, core.sending()).await;
    sent?;
    if watch.fired() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(socket)
}

/// Reads an answer to its end: a node that is cut off may drop what it was told.
async fn read_away(core: &Core, mut socket: Socket, within: Duration) {
    let watch = Rc::clone(socket.watch());
    watch.arm(&core.wheel, within);
    let mut left = ANSWER_BYTES_MAX;
    while left > 0 && socket.readable().await.is_ok() {
        // Lent only while there is something to read.
        let buffer = core.buffers.small();
        let (received, buffer) = socket.reader.receive(buffer, left).await;
        core.buffers.give_back(buffer);
        match received {
            Ok(count) if count > 0 => left -= count.min(left),
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(bytes: usize) -> Errand {
        let second = Duration::from_secs(1);
        let times = Times { connect: second, send: second, read: second };
        Errand { to: "127.0.0.1:1".parse().expect("an address"), message: vec![0; bytes], times }
    }

    #[test]
    fn too_many_are_not_taken_on_until_some_are_over() {
        let errands = Errands::default();
        assert_eq!((0..ERRANDS_MAX + 9).filter(|_| errands.give(errand(1))).count(), ERRANDS_MAX);
        assert!(errands.take().is_some());
        assert!(!errands.give(errand(1)), "what is under way counts as well");
        errands.done(1);
        assert!(errands.give(errand(1)));
    }

    #[test]
    fn too_many_bytes_are_not_taken_on() {
        let errands = Errands::default();
        assert!(errands.give(errand(ERRAND_BYTES_MAX - 1)));
        assert!(errands.give(errand(1)));
        assert!(!errands.give(errand(1)));
        assert_eq!(errands.take().map(|errand| errand.message.len()), Some(ERRAND_BYTES_MAX - 1), "in order");
        errands.done(ERRAND_BYTES_MAX - 1);
        assert!(errands.give(errand(2)));
    }
}
