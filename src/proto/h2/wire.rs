//! What the `h2` crate takes for a connection: bytes that were received are put in at one end, bytes to be sent are taken
//! out of the other. All within one task, or tasks of one thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait to be sent, at most, before the crate has to wait.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;

/// What is between the two ends.
#[derive(Debug, Default)]
struct Between {
    inbox: Vec<u8>,
    /// How many bytes of it were read.
    read: usize,
    has_inbox: bool,
    /// Nothing more is received.
    ended: bool,
    outbox: Vec<u8>,
    /// Nothing more is sent.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whoever puts in what is received, and whoever takes out what is to be sent.
    feeder: Option<Waker>,
    drainer: Option<Waker>,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The end that the crate reads and writes.
#[derive(Debug)]
pub struct Wire(Rc<RefCell<Between>>);

/// The end that the socket is at.
#[derive(Clone, Debug)]
pub struct Pump(Rc<RefCell<Between>>);

/// A wire, and the pump of it.
pub fn wire() -> (Wire, Pump) {
    let between = Rc::new(RefCell::new(Between::default()));
    (Wire(Rc::clone(&between)), Pump(between))
}

impl Pump {
    /// Puts in what was received. The buffer comes back by [`Self::emptied`]; until then nothing more is to be put in.
    pub fn feed(&self, received: Vec<u8>) {
        let mut between = self.0.borrow_mut();
        debug_assert!(!between.has_inbox, "one buffer at a time");
        between.inbox = received;
        between.read = 0;
        between.has_inbox = true;
        wake(&mut between.reader);
    }

    /// Nothing more is received.
    pub fn end(&self) {
        let mut between = self.0.borrow_mut();
        between.ended = true;
        wake(&mut between.reader);
    }

    /// Waits until all that was put in is read; the buffer it was in.
    pub async fn emptied(&self) -> Vec<u8> {
        poll_fn(|cx| {
            let mut between = self.0.borrow_mut();
            if between.has_inbox && between.read < between.inbox.len() && !between.closed {
                between.feeder = Some(cx.waker().clone());
                return Poll::Pending;
            }
            between.has_inbox = false;
            between.read = 0;
            let mut buffer = std::mem::take(&mut between.inbox);
            buffer.clear();
            Poll::Ready(buffer)
        })
        .await
    }

    /// Whether something waits to be sent.
    pub fn has_outgoing(&self) -> bool {
        !self.0.borrow().outbox.is_empty()
    }
}

/// Where bytes of a connection come from that are to be sent.
pub trait Outlet {
    /// Waits for some, and takes all there are; what was in `spare` is lost, and its memory used next. False: there will be no
    /// more.
    fn poll_outgoing(&self, cx: &Context<'_>, spare: &mut Vec<u8>) -> Poll<bool>;
    /// Nobody sends anything any more.
    fn close(&self);
}

impl Outlet for Pump {
    fn poll_outgoing(&self, cx: &Context<'_>, spare: &mut Vec<u8>) -> Poll<bool> {
        let mut between = self.0.borrow_mut();
        if between.outbox.is_empty() {
            if between.closed {
                return Poll::Ready(false);
            }
            between.drainer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wake(&mut between.writer);
        spare.clear();
        std::mem::swap(&mut between.outbox, spare);
        Poll::Ready(true)
    }

    fn close(&self) {
        close(&mut self.0.borrow_mut());
    }
}

fn close(between: &mut Between) {
    between.closed = true;
    wake(&mut between.drainer);
    wake(&mut between.feeder);
}

impl Drop for Wire {
    fn drop(&mut self) {
        close(&mut self.0.borrow_mut());
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut between = self.0.borrow_mut();
        let waiting = &between.inbox[between.read..];
        let count = waiting.len().min(buffer.remaining());
        if count > 0 {
            buffer.put_slice(&waiting[..count]);
            between.read += count;
            if between.read == between.inbox.len() {
                wake(&mut between.feeder);
            }
            return Poll::Ready(Ok(()));
        }
        if between.ended {
            return Poll::Ready(Ok(()));
        }
        between.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut between = self.0.borrow_mut();
        if between.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if between.outbox.len() >= OUTBOX_BYTES_MAX {
            between.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = between.outbox.len();
        for slice in slices {
            between.outbox.extend_from_slice(slice);
        }
        wake(&mut between.drainer);
        Poll::Ready(Ok(between.outbox.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        close(&mut self.0.borrow_mut());
        Poll::Ready(Ok(()))
    }
}
