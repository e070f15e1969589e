//! A wait for what an upstream says, which goes on while nobody awaits it.
//!
//! An idle upstream connection is listened to, so that its peer's leaving, or speaking out of turn, is known
//! before it is used again, without asking the system each time; and once it is used, the same wait brings its
//! answer. Mostly it does so in a buffer that the kernel has had all along; where none was given, it only tells that
//! the answer has begun to arrive, and a buffer is lent then.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A buffer, and the most bytes that may be appended to it.
pub type Net = (Vec<u8>, usize);
/// How many bytes were appended to a buffer; 0 is the end.
pub type Caught = (io::Result<usize>, Vec<u8>);

/// What the ear can do, whatever its future's type: that one has no name.
trait Listen {
    fn begin(&mut self, net: Option<Net>);
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Caught>>;
}

struct Listening<W, M> {
    make: M,
    wait: Pin<Box<Option<W>>>,
}

impl<W: Future<Output = Option<Caught>>, M: Fn(Option<Net>) -> W> Listen for Listening<W, M> {
    fn begin(&mut self, net: Option<Net>) {
        self.wait.set(Some((self.make)(net)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Caught>> {
        self.wait.as_mut().as_pin_mut().map_or(Poll::Ready(None), |wait| wait.poll(cx))
    }
}

/// One socket's ear. Its memory is made once and serves every wait.
pub(super) struct Ear {
    listen: Box<dyn Listen>,
    state: State,
}

enum State {
    Off,
    Listening,
    Heard(Option<Caught>),
}

impl Ear {
    /// An ear that is off. `make` begins a wait: until something may be read, or for what fits the net it gets.
    pub(super) fn new<W>(make: impl Fn(Option<Net>) -> W + 'static) -> Self
    where
        W: Future<Output = Option<Caught>> + 'static,
    {
        Self { listen: Box::new(Listening { make, wait: Box::pin(None) }), state: State::Off }
    }

    /// Begins to listen, unless it does already.
    pub(super) fn listen(&mut self, net: Option<Net>) {
        if !self.is_listening() {
            self.listen.begin(net);
            self.state = State::Listening;
            // What is there already is noted.
            let _ = self.poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Whether a wait is under way. Only then does the kernel have business with this socket.
    pub(super) const fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening)
    }

    /// Whether something was heard by now.
    pub(super) fn has_heard(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Waits until something is heard, or was since [`Self::listen`]; listens without a buffer if it is off.
    pub(super) async fn heard(&mut self) {
        if matches!(self.state, State::Off) {
            self.listen(None);
        }
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// What was heard, if a buffer was given for it. Once.
    pub(super) const fn take(&mut self) -> Option<Caught> {
        match &mut self.state {
            State::Heard(caught) => caught.take(),
            State::Off | State::Listening => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_listening()
            && let Poll::Ready(caught) = self.listen.poll(cx)
        {
            self.state = State::Heard(caught);
        }
        if matches!(self.state, State::Heard(_)) { Poll::Ready(()) } else { Poll::Pending }
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
        let ear = Ear::new(move |net: Option<Net>| {
            count.set(count.get() + 1);
            let (cell, mut net) = (Rc::clone(&cell), net);
            poll_fn(move |_| {
                let mut caught = || net.take().map(|(buffer, room)| (Ok(room), buffer));
                if cell.get() { Poll::Ready(caught()) } else { Poll::Pending }
            })
        });
        (ear, begun)
    }

    #[test]
    fn what_is_heard_while_nobody_waits_is_known_afterwards() {
        let cell = Rc::new(Cell::new(false));
        let (mut ear, begun) = over(&cell);
        assert!(!ear.is_listening() && !ear.has_heard());
        ear.listen(None);
        assert!(ear.is_listening() && !ear.has_heard());
        cell.set(true);
        assert!(ear.has_heard() && ear.has_heard());
        assert_eq!(begun.get(), 1);
    }

    #[test]
    fn a_wait_that_is_under_way_is_awaited_and_not_begun_again() {
        let cell = Rc::new(Cell::new(false));
        let (mut ear, begun) = over(&cell);
        ear.listen(None);
        cell.set(true);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_ready());
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_ready());
        assert_eq!(begun.get(), 1);
        cell.set(false);
        ear.listen(None);
        assert!(std::pin::pin!(ear.heard()).poll(&mut cx).is_pending());
        assert_eq!(begun.get(), 2);
    }

    #[test]
    fn what_is_caught_in_a_given_buffer_can_be_taken_once() {
        let cell = Rc::new(Cell::new(false));
        let (mut ear, _) = over(&cell);
        ear.listen(Some((Vec::with_capacity(8), 8)));
        assert!(ear.take().is_none());
        cell.set(true);
        assert!(ear.has_heard());
        let (count, buffer) = ear.take().expect("caught");
        assert_eq!((count.ok(), buffer.capacity()), (Some(8), 8));
        assert!(ear.take().is_none() && ear.has_heard());
    }
}
