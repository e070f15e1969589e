//! A wait for readability that goes on while nobody awaits it.
//!
//! An idle upstream connection is listened to, so that its peer's leaving, or speaking out of turn, is known
//! before it is used again, without asking the system each time; and once it is used, the same wait tells when
//! its answer has begun to arrive, so that a buffer is lent only then.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What the ear can do, whatever its future's type: that one has no name.
trait Listen {
    fn begin(&mut self);
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

struct Listening<W, M> {
    make: M,
    wait: Pin<Box<Option<W>>>,
}

impl<W: Future<Output = io::Result<()>>, M: Fn() -> W> Listen for Listening<W, M> {
    fn begin(&mut self) {
        self.wait.set(Some((self.make)()));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.wait.as_mut().as_pin_mut() {
            // A broken socket is heard as well: whoever reads next learns what is wrong with it.
            Some(wait) => wait.poll(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }
}

/// One socket's ear. Its memory is made once and serves every wait.
pub(super) struct Ear {
    listen: Box<dyn Listen>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Listening,
    Heard,
}

impl Ear {
    /// An ear that is off. `make` begins a wait.
    pub(super) fn new<W>(make: impl Fn() -> W + 'static) -> Self
    where
        W: Future<Output = io::Result<()>> + 'static,
    {
        Self { listen: Box::new(Listening { make, wait: Box::pin(None) }), state: State::Off }
    }

    /// Begins to listen, unless it does already.
    pub(super) fn listen(&mut self) {
        if self.state != State::Listening {
            self.listen.begin();
            self.state = State::Listening;
            // What is there already is noted.
            let _ = self.poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Whether a wait is under way. Only then does the kernel have business with this socket.
    pub(super) fn is_listening(&self) -> bool {
        self.state == State::Listening
    }

    /// Whether something was heard by now.
    pub(super) fn has_heard(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Waits until something is heard, or was since [`Self::listen`]; listens if it is off.
    pub(super) async fn heard(&mut self) {
        if self.state == State::Off {
            self.listen();
        }
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state == State::Listening && self.listen.poll(cx).is_ready() {
            self.state = State::Heard;
        }
        if self.state == State::Heard { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// An ear over a cell: it hears when the cell is true. And how many waits were begun.
    fn over(cell: &Rc<Cell<bool>>) -> (Ear, Rc<Cell<u32>>) {
        let (cell, begun) = (Rc::clone(cell), Rc::new(Cell::new(0)));
        let count = Rc::clone(&begun);
        let ear = Ear::new(move || {
            count.set(count.get() + 1);
            let cell = Rc::clone(&cell);
            poll_fn(move |_| if cell.get() { Poll::Ready(Ok(())) } else { Poll::Pending })
        });
        (ear, begun)
    }

    #[test]
    fn what_is_heard_while_nobody_waits_is_known_afterwards() {
        let cell = Rc::new(Cell::new(false));
        let (mut ear, begun) = over(&cell);
        assert!(!ear.is_listening() && !ear.has_heard());
        ear.listen();
        assert!(ear.is_listening() && !ear.has_heard());
        cell.set(true);
        assert!(ear.has_heard() && ear.has_heard());
        assert_eq!(begun.get(), 1);
    }

    #[test]
    fn a_wait_that_is_under_way_is_awaited_and_not_begun_again() {
        let cell = Rc::new(Cell::new(false));
        let (mut ear, begun) = over(&cell);
        ear.listen();
        cell.set(true);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_ready());
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_ready());
        assert_eq!(begun.get(), 1);
        cell.set(false);
        ear.listen();
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_pending());
        assert_eq!(begun.get(), 2);
    }
}
