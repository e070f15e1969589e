//! Listener to connection: accepting, admitting no more than the limit, and catching panics.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Hall;
use super::drain::empty;
use super::h1::{self, Connection};
use super::stream;
use crate::base::address::is_none;
use crate::link::handover::{Handed, Spoken};
use crate::link::mailbox::Letterbox;
use crate::link::outbox::Level;
use crate::runtime::listener::{Accepted, Listener};

/// Accepts waiting at a listener: each takes one loop turn, so a burst wants several. So many that a core with more to do than it
/// can still hears of who comes faster than it serves them: it can choose whom to serve, the kernel's queue can not.
const ACCEPTS: usize = 64;
/// Pause after a failed accept (no descriptors left) and while the core is full.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts accepting.
pub(super) fn open(hall: &Rc<Hall>, listener: &Rc<Listener>) {
    // As many more than it may have a core can have, in the end.
    for _ in 0..ACCEPTS.min(hall.core.limits.connections_max) {
        monoio::spawn(accept(Rc::clone(hall), Rc::clone(listener)));
    }
}

async fn accept(hall: Rc<Hall>, listener: Rc<Listener>) {
    let core = &hall.core;
    loop {
        while core.in_flight.get() >= core.limits.connections_max {
            monoio::time::sleep(PAUSE).await;
        }
        match listener.accept().await {
            Ok((accepted, peer)) => {
                core.stats.accepted.add(1);
                place(&hall, accepted, peer, &listener);
            }
            // The listener was closed: a drain.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) => {
                core.stats.accept_errors.add(1);
                core.note(Level::Warn, format!("can not accept on {}: {error}", listener.name()));
                monoio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a connection, here or on another core.
fn place(hall: &Rc<Hall>, accepted: Accepted, peer: SocketAddr, listener: &Listener) {
    let (local, spoken) = (listener.local(), listener.spoken());
    let core = &hall.core;
    let Some(other) = core.dice(|dice| hall.neighbours.idler(dice, core.limits.connections_max)) else {
        return serve(hall, accepted, peer, local, spoken);
    };
    match hall.neighbours.hand(other, Handed { stream: accepted.leave(), peer, local, spoken }) {
        Ok(()) => core.stats.handed_over.add(1),
        Err(handed) => take_in(hall, handed),
    }
}

/// Serves what other cores leave to this one, for as long as it lives.
pub(super) async fn take_in_handed(hall: Rc<Hall>, letterbox: Letterbox<Handed>) {
    empty(&hall.core, letterbox, |handed| take_in(&hall, handed)).await;
}

/// Serves a connection that was accepted elsewhere.
fn take_in(hall: &Rc<Hall>, handed: Handed) {
    match Accepted::take(handed.stream) {
        Ok(accepted) => serve(hall, accepted, handed.peer, handed.local, handed.spoken),
        Err(error) => {
            hall.core.stats.accept_errors.add(1);
            hall.core
                .note(Level::Warn, format!("can not take over the connection of {}: {error}", handed.peer));
        }
    }
}

fn serve(hall: &Rc<Hall>, accepted: Accepted, peer: SocketAddr, local: SocketAddr, spoken: Spoken) {
    if spoken.is_stream {
        // Its address may decide the route. One that has none must not be asked.
        let called = if is_none(local.ip()) { local } else { accepted.local().unwrap_or(local) };
        let socket = accepted.keep(&hall.core.wheel);
        let connection = Box::new(Connection { awaits: spoken, ..Connection::new(socket, peer, called) });
        monoio::spawn(stream::attend(Rc::clone(hall), connection, local));
        return;
    }
    let socket = accepted.keep(&hall.core.wheel);
    let connection = Box::new(Connection { awaits: spoken, ..Connection::new(socket, peer, local) });
    monoio::spawn(attend(Rc::clone(hall), connection));
}

/// Serves one connection. A panic ends it alone.
// Not an `async fn`: that would hold its arguments twice, as given and as used, for as long as the connection lives.
#[allow(clippy::manual_async_fn)]
fn attend(hall: Rc<Hall>, connection: Box<Connection>) -> impl Future<Output = ()> {
    async move {
        let Some(place) = Place::take(&hall, connection.client.peer) else {
            hall.core.stats.connections_refused.add(1);
            return;
        };
        hall.core.stats.connections_active.add(1);
        let served = Caught(pin!(h1::serve(&hall, connection))).await;
        hall.core.stats.connections_active.sub(1);
        if let Err(panic) = served {
            note_panic(&hall, &place.peer, &*panic);
        }
    }
}

/// Runs what belongs to one client, whose panics end it alone.
pub(super) async fn catch<F: Future<Output = ()>>(hall: &Hall, peer: impl fmt::Display, served: Pin<&mut F>) {
    if let Err(panic) = Caught(served).await {
        note_panic(hall, &peer, &*panic);
    }
}

fn note_panic(hall: &Hall, peer: &dyn fmt::Display, panic: &(dyn Any + Send)) {
    hall.core.stats.panics.add(1);
    hall.core.note(Level::Error, format!("a panic ended the connection of {peer}: {}", words(panic)));
}

/// A connection's place among those of its core, and of its client's address.
pub(super) struct Place<'a> {
    hall: &'a Hall,
    peer: SocketAddr,
}

impl<'a> Place<'a> {
    /// `None` when the address has as many as it may. Those who have none are not counted by it.
    pub(super) fn take(hall: &'a Hall, peer: SocketAddr) -> Option<Self> {
        let max = hall.core.limits.connections_per_address;
        if max > 0 && !is_none(peer.ip()) {
            let mut addresses = hall.addresses.borrow_mut();
            let open = addresses.entry(peer.ip()).or_default();
            if *open >= max {
                return None;
            }
            *open += 1;
        }
        hall.core.in_flight.update(|count| count + 1);
        Some(Self { hall, peer })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hall.core.in_flight.update(|count| count - 1);
        if self.hall.core.limits.connections_per_address == 0 || is_none(self.peer.ip()) {
            return;
        }
        let mut addresses = self.hall.addresses.borrow_mut();
        if let Some(open) = addresses.get_mut(&self.peer.ip()) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.peer.ip());
            }
        }
    }
}

/// A future whose panics are its result.
struct Caught<F>(F);

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What the panic left half done is the connection's own and goes with it; what cores share across
        // connections is kept whole by its owners (cells and short borrows).
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::super::h1::Connection;
    use super::*;

    /// Bytes of the future of a connection while it rests: with what the loop adds, a task of 256. docs/performance.md,
    /// "Budgets".
    const RESTING_BYTES_MAX: usize = 216;
    /// Bytes a connection takes besides while requests come and go. Not a budget, a guard against doubling.
    const ACTIVE_BYTES_MAX: usize = 6 * 1024;

    /// The size of what an `async fn` of two arguments returns.
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_resting_connection_is_small_and_that_of_an_active_one_bounded() {
        let resting = size(attend);
        let active = size::<&'static Hall, &'static mut Connection, _>(h1::attend);
        println!("resting: {resting} bytes, active: {active} bytes more");
        assert!(resting <= RESTING_BYTES_MAX, "{resting}");
        assert!(active <= ACTIVE_BYTES_MAX, "{active}");
    }
}
