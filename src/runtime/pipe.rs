//! A connection within a core: what a [`Socket`](super::socket::Socket) sends comes out at its far end, and the other way
//! round, without the system. So that what speaks another protocol on the wire can be served as if it spoke HTTP/1.
//!
//! One task works at each end. A lane holds a bounded number of bytes; whoever wants to send more waits until the other end
//! has taken some. Who has to fetch first what it sends may wait until the far end waits for it, and learns how much that
//! would take: so what nobody takes yet is not held here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::socket::Waited;

/// Bytes on their way in one direction, at most. Worst case twice that a pipe.
pub const LANE_BYTES_MAX: usize = 32 * 1024;

/// One direction.
#[derive(Debug)]
struct Lane {
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
    /// Nothing more will be sent.
    finished: bool,
    /// Nobody takes anything any more.
    deserted: bool,
    taker: Option<Waker>,
    sender: Option<Waker>,
    /// How much the taker would take next.
    appetite: usize,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            finished: false,
            deserted: false,
            taker: None,
            sender: None,
            appetite: LANE_BYTES_MAX,
        }
    }
}

/// Both directions between a socket and its far end.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// To the socket.
    inward: RefCell<Lane>,
    /// From the socket.
    outward: RefCell<Lane>,
    /// The far end did not look at what was sent, and whoever sent it may do so elsewhere.
    refused: Cell<bool>,
    /// A wait of the socket's that may be given up has lasted too long.
    lapsed: Cell<bool>,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Lane {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Appends to the buffer what there is, at most `room` bytes; 0 is the end.
    fn poll_take(&mut self, cx: &Context<'_>, buffer: &mut Vec<u8>, room: usize) -> Poll<usize> {
        let count = self.waiting().len().min(room);
        if count == 0 {
            return self.poll_readable(cx).map(|()| 0);
        }
        buffer.extend_from_slice(&self.bytes[self.taken..self.taken + count]);
        self.taken += count;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        wake(&mut self.sender);
        Poll::Ready(count)
    }

    /// All there is, and the memory it is in. `None` is the end.
    fn poll_take_all(&mut self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        if self.waiting().is_empty() {
            return self.poll_readable(cx).map(|()| None);
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.taken));
        wake(&mut self.sender);
        Poll::Ready(Some(bytes))
    }

    fn poll_readable(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.waiting().is_empty() || self.finished {
            return Poll::Ready(());
        }
        if self.taker.replace(cx.waker().clone()).is_none() {
            wake(&mut self.sender);
        }
        Poll::Pending
    }

    /// Waits until the taker has all there is and waits for more, or nobody does any more. How much it would take.
    fn poll_hunger(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let is_hungry = self.waiting().is_empty() && self.taker.is_some();
        if is_hungry || self.finished || self.deserted {
            return Poll::Ready(self.appetite);
        }
        self.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes in as much as there is room for.
    fn poll_send(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.deserted || self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = LANE_BYTES_MAX.saturating_sub(self.waiting().len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(&bytes[..count]);
        wake(&mut self.taker);
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self) {
        self.finished = true;
        wake(&mut self.taker);
        wake(&mut self.sender);
    }

    fn desert(&mut self) {
        self.deserted = true;
        wake(&mut self.sender);
    }
}

async fn send(lane: &RefCell<Lane>, bytes: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        at += poll_fn(|cx| lane.borrow_mut().poll_send(cx, &bytes[at..])).await?;
    }
    Ok(())
}

/// The socket's side.
impl Pipe {
    /// As [`super::socket::Reader::receive`].
    pub(super) async fn receive(&self, mut buffer: Vec<u8>, room: usize) -> (io::Result<usize>, Vec<u8>) {
        let room = room.min(buffer.capacity() - buffer.len());
        let count = poll_fn(|cx| self.inward.borrow_mut().poll_take(cx, &mut buffer, room)).await;
        (Ok(count), buffer)
    }

    /// Appends what there is to the buffer, as much as it has room for; 0 is the end. Once it was found readable.
    pub(super) fn take_now(&self, buffer: &mut Vec<u8>) -> usize {
        let room = buffer.capacity() - buffer.len();
        match self.inward.borrow_mut().poll_take(&Context::from_waker(Waker::noop()), buffer, room) {
            Poll::Ready(count) => count,
            Poll::Pending => 0,
        }
    }

    /// As [`super::socket::Socket::receive_or_idle`].
    pub(super) async fn receive_or_idle(&self, mut buffer: Vec<u8>, room: usize) -> (Waited, Vec<u8>) {
        let room = room.min(buffer.capacity() - buffer.len());
        let waited = poll_fn(|cx| {
            if let Poll::Ready(count) = self.inward.borrow_mut().poll_take(cx, &mut buffer, room) {
                return Poll::Ready(Waited::Received(count));
            }
            if self.lapsed.replace(false) { Poll::Ready(Waited::Idle) } else { Poll::Pending }
        })
        .await;
        (waited, buffer)
    }

    /// Ends a wait of [`Self::receive_or_idle`].
    pub(super) fn lapse(&self) {
        self.lapsed.set(true);
        wake(&mut self.inward.borrow_mut().taker);
    }

    /// Waits until there is something to take, or the end.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| self.inward.borrow_mut().poll_readable(cx)).await;
    }

    pub(super) async fn send(&self, buffer: Vec<u8>, from: usize) -> (io::Result<()>, Vec<u8>) {
        (send(&self.outward, &buffer[from..]).await, buffer)
    }

    /// Waits until the far end has taken all and waits for more. How much it would take.
    pub(super) async fn hunger(&self) -> usize {
        poll_fn(|cx| self.outward.borrow_mut().poll_hunger(cx)).await
    }

    pub(super) fn appetite(&self) -> usize {
        self.outward.borrow().appetite
    }

    /// Nothing more comes from the socket.
    pub(super) fn finish(&self) {
        self.outward.borrow_mut().finish();
    }

    /// The socket was closed.
    pub(super) fn close(&self) {
        self.finish();
        self.inward.borrow_mut().desert();
    }

    /// Ends both directions, as the system does for a socket that is shut down.
    pub(super) fn abort(&self) {
        for lane in [&self.inward, &self.outward] {
            let mut lane = lane.borrow_mut();
            lane.finish();
            lane.desert();
        }
    }

    /// Whether the far end still holds, and has said nothing that was not taken.
    pub(super) fn is_quiet(&self) -> bool {
        let lane = self.inward.borrow();
        lane.waiting().is_empty() && !lane.finished
    }

    pub(super) const fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// Whether the far end is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.outward.borrow().deserted
    }
}

/// The far end of a pipe. Dropping it closes it.
#[derive(Debug)]
pub struct FarEnd(Rc<Pipe>);

impl FarEnd {
    pub(super) const fn new(pipe: Rc<Pipe>) -> Self {
        Self(pipe)
    }

    /// What the socket has sent. `None`: it will send nothing more.
    pub async fn take(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| self.poll_take(cx)).await
    }

    /// As [`Self::take`].
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.0.outward.borrow_mut().poll_take_all(cx)
    }

    /// Whether there is something to take, or the end; if not, its task is woken when there is.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.outward.borrow_mut().poll_readable(cx)
    }

    /// Sends all of it to the socket.
    ///
    /// # Errors
    /// When the socket is closed.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.0.inward, bytes).await
    }

    /// How much of what the socket sends would be taken next.
    pub fn set_appetite(&self, bytes: usize) {
        self.0.outward.borrow_mut().appetite = bytes.min(LANE_BYTES_MAX);
    }

    /// What was sent here was not looked at.
    pub fn refuse(&self) {
        self.0.refused.set(true);
    }

    /// Nothing more comes from this end.
    pub fn finish(&self) {
        self.0.inward.borrow_mut().finish();
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.0.inward.borrow_mut().finish();
        self.0.outward.borrow_mut().desert();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use super::*;

    fn pair() -> (Rc<Pipe>, FarEnd) {
        let pipe = Rc::new(Pipe::default());
        (Rc::clone(&pipe), FarEnd::new(pipe))
    }

    fn ready<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_sent_at_one_end_is_taken_at_the_other() {
        let (pipe, far) = pair();
        ready(far.send(b"hello")).expect("room").expect("open");
        let (count, buffer) = ready(pipe.receive(Vec::with_capacity(3), 8)).expect("bytes");
        assert_eq!((count.ok(), &buffer[..]), (Some(3), &b"hel"[..]), "no more than fits");
        let (count, buffer) = ready(pipe.receive(Vec::with_capacity(8), 1)).expect("bytes");
        assert_eq!((count.ok(), &buffer[..]), (Some(1), &b"l"[..]), "no more than is wanted");
        assert!(ready(pipe.send(b"xyz".to_vec(), 1)).expect("room").0.is_ok());
        assert_eq!(ready(far.take()).expect("bytes").as_deref(), Some(&b"yz"[..]));
        assert!(ready(far.take()).is_none(), "nothing more yet");
    }

    #[test]
    fn who_fetches_what_it_sends_waits_until_the_far_end_has_taken_all_and_waits_for_more() {
        let (pipe, far) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        far.set_appetite(5000);
        let mut hunger = pin!(pipe.hunger());
        assert!(hunger.as_mut().poll(&mut cx).is_pending(), "nobody waits yet");
        assert!(ready(pipe.send(b"abc".to_vec(), 0)).expect("room").0.is_ok());
        assert!(far.poll_ready(&cx).is_ready());
        assert!(hunger.as_mut().poll(&mut cx).is_pending(), "something is there that was not taken");
        assert!(ready(far.take()).expect("bytes").is_some());
        assert!(hunger.as_mut().poll(&mut cx).is_pending(), "it was taken, and may be under way still");
        far.set_appetite(7);
        assert!(far.poll_ready(&cx).is_pending());
        assert_eq!(hunger.as_mut().poll(&mut cx), Poll::Ready(7));
        far.set_appetite(usize::MAX);
        assert_eq!(pipe.appetite(), LANE_BYTES_MAX);
    }

    #[test]
    fn who_waits_for_hunger_learns_that_the_far_end_is_gone() {
        let (pipe, far) = pair();
        assert!(ready(pipe.send(b"abc".to_vec(), 0)).expect("room").0.is_ok());
        assert!(ready(pipe.hunger()).is_none());
        drop(far);
        assert!(ready(pipe.hunger()).is_some());
    }

    #[test]
    fn who_sends_more_than_fits_waits_until_it_is_taken() {
        let (pipe, far) = pair();
        let bytes = vec![7; LANE_BYTES_MAX + 10];
        let mut sending = pin!(far.send(&bytes));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        let (count, _) = ready(pipe.receive(Vec::with_capacity(100), 100)).expect("bytes");
        assert_eq!(count.ok(), Some(100));
        assert!(matches!(sending.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    }

    #[test]
    fn the_end_comes_after_what_was_sent_and_who_is_left_alone_can_send_nothing() {
        let (pipe, far) = pair();
        ready(far.send(b"last")).expect("room").expect("open");
        drop(far);
        assert!(!pipe.is_quiet() && pipe.is_broken());
        assert_eq!(ready(pipe.receive(Vec::with_capacity(8), 8)).expect("bytes").0.ok(), Some(4));
        assert_eq!(ready(pipe.receive(Vec::with_capacity(8), 8)).expect("the end").0.ok(), Some(0));
        assert!(ready(pipe.send(b"x".to_vec(), 0)).expect("no wait").0.is_err());
        let (pipe, far) = pair();
        pipe.close();
        assert!(ready(far.send(b"x")).expect("no wait").is_err());
        assert_eq!(ready(far.take()).expect("the end"), None);
    }

    #[test]
    fn a_wait_may_be_given_up_and_loses_nothing() {
        let (pipe, far) = pair();
        assert!(ready(pipe.receive_or_idle(Vec::with_capacity(8), 8)).is_none());
        pipe.lapse();
        let (waited, _) = ready(pipe.receive_or_idle(Vec::with_capacity(8), 8)).expect("given up");
        assert!(matches!(waited, Waited::Idle));
        ready(far.send(b"x")).expect("room").expect("open");
        let (waited, _) = ready(pipe.receive_or_idle(Vec::with_capacity(8), 8)).expect("bytes");
        assert!(matches!(waited, Waited::Received(1)));
    }

    #[test]
    fn an_abort_wakes_both_ends() {
        let (pipe, far) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        let mut taking = pin!(far.take());
        assert!(taking.as_mut().poll(&mut cx).is_pending());
        pipe.abort();
        assert!(matches!(taking.poll(&mut cx), Poll::Ready(None)));
        assert_eq!(ready(pipe.receive(Vec::with_capacity(8), 8)).expect("the end").0.ok(), Some(0));
        assert!(ready(far.send(b"x")).expect("no wait").is_err());
    }
}
