//! Deadlines by a coarse wheel, one a core.
//!
//! Reads are never dropped to time out (bytes could be lost): when a deadline passes, the socket is shut down,
//! which completes whatever waits on it, or, where a wait should merely end, the wait is cancelled and gives
//! its buffer back. Arming a deadline later than the one before is a store into a cell; only an earlier one
//! touches the wheel. So a request costs no timer.
//!
//! The wheel's own tick is the time deadlines are counted from, so that arming one reads no clock. A deadline
//! passes no earlier than asked and at most two ticks later. A watch is visited at least once a turn of the wheel, so one whose socket has closed
//! stays in memory for at most `SLOTS` ticks.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{CancelHandle, Canceller};

use super::pipe::Pipe;
use super::sys;
use crate::base::clock::Moment;

/// How often the wheel moves.
pub const TICK: Duration = Duration::from_millis(20);
/// Ticks of one turn: deadlines further away are visited on the way.
const SLOTS: usize = 256;
/// Watches a slot has room for from the start, so that a core with few connections asks the heap for nothing the first
/// time round. 16 KiB a core.
const SLOT_ROOM: usize = 8;
/// How often a followed socket is looked at, in ticks: who has left is noticed within a second, whatever else there is to do.
const FOLLOW_TICKS: u64 = 40;
const NEVER: u64 = u64::MAX;
const CLOSED: RawFd = -1;
/// Of a socket that is the end of a pipe.
const PIPED: RawFd = -2;

/// The deadline of one socket.
pub struct Watch {
    fd: Cell<RawFd>,
    due: Cell<u64>,
    visit: Cell<u64>,
    fired: Cell<bool>,
    /// Whether a passed deadline ends the current wait only, not the socket.
    spare: Cell<bool>,
    /// Whether the socket waits between two requests, so that ending it costs nobody an answer.
    resting: Cell<bool>,
    /// Made when first wanted; a resting socket has none.
    canceller: Cell<Option<Canceller>>,
    /// The socket this one works for: when that breaks, there is nobody left to work for.
    client: Cell<Option<Rc<Self>>>,
    /// What the socket is the end of, if that is not a connection of the system's.
    pipe: Cell<Option<Rc<Pipe>>>,
    abandoned: Cell<bool>,
    /// Whether the end of what the peer says is its leave.
    leaves_at_end: Cell<bool>,
}

const TICK_NS: u64 = TICK.as_nanos() as u64;

impl Watch {
    /// Shuts the socket down after `within`, unless armed again or disarmed before.
    pub fn arm(self: &Rc<Self>, wheel: &Wheel, within: Duration) {
        self.spare.set(false);
        self.set(wheel, within);
    }

    /// Ends the wait begun with [`Self::cancel_handle`] after `within`; the socket lives on.
    pub fn arm_spare(self: &Rc<Self>, wheel: &Wheel, within: Duration) {
        self.spare.set(true);
        self.set(wheel, within);
    }

    /// As [`Self::arm`], of a span that was reckoned before.
    pub fn arm_for(self: &Rc<Self>, wheel: &Wheel, span: Ticks) {
        self.spare.set(false);
        self.set_due(wheel, wheel.at.get() + span.0);
    }

    fn set(self: &Rc<Self>, wheel: &Wheel, within: Duration) {
        self.set_due(wheel, wheel.at.get() + Ticks::of(within).0);
    }

    fn set_due(self: &Rc<Self>, wheel: &Wheel, due: u64) {
        self.due.set(due);
        if due < self.visit.get() {
            wheel.place(self, due);
        }
    }

    /// No deadline for now.
    pub fn disarm(&self) {
        self.due.set(NEVER);
    }

    /// Whether a deadline has passed and ended the socket.
    pub fn fired(&self) -> bool {
        self.fired.get()
    }

    /// Ends this socket, within about a second, when `client` breaks while it is followed.
    pub fn follow(self: &Rc<Self>, wheel: &Wheel, client: &Rc<Self>) {
        client.leaves_at_end.set(false);
        self.client.replace(Some(Rc::clone(client)));
        if self.visit.get() > wheel.at.get() + FOLLOW_TICKS {
            wheel.place(self, self.due.get());
        }
    }

    /// From here on, until it is followed anew, the peer has left when it has said all it will, rather than waits for what there is
    /// to come.
    pub fn take_end_for_leaving(&self) {
        self.leaves_at_end.set(true);
    }

    /// Follows nobody any more.
    pub fn unfollow(&self) {
        self.client.take();
    }

    /// Whether the followed socket broke, and this one was ended for it.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    fn is_deserted(&self) -> bool {
        self.is_following(|client| match client.fd.get() {
            CLOSED => false,
            PIPED => client.with_pipe(Pipe::is_broken).unwrap_or(false),
            fd if client.leaves_at_end.get() => sys::has_left(fd),
            fd => sys::is_broken(fd),
        })
    }

    /// Whether the peer has left. Over TLS it says so in bytes that nobody has read yet.
    pub(super) fn has_left(&self, is_secure: bool) -> bool {
        match self.fd.get() {
            CLOSED => true,
            PIPED => self.with_pipe(Pipe::is_broken).unwrap_or(true),
            fd if is_secure => sys::has_left(fd),
            fd => sys::is_over(fd),
        }
    }

    fn with_pipe<R>(&self, act: impl FnOnce(&Pipe) -> R) -> Option<R> {
        let pipe = self.pipe.take();
        let result = pipe.as_deref().map(act);
        self.pipe.set(pipe);
        result
    }

    /// Whether it follows one that is so.
    fn is_following(&self, is_so: impl FnOnce(&Self) -> bool) -> bool {
        let client = self.client.take();
        let answer = client.as_deref().is_some_and(is_so);
        self.client.set(client);
        answer
    }

    /// Notes whether the socket waits between two requests.
    pub fn set_resting(&self, resting: bool) {
        self.resting.set(resting);
    }

    /// Whether it does.
    pub fn is_resting(&self) -> bool {
        self.resting.get()
    }

    /// For a wait that [`Self::arm_spare`] may end.
    pub fn cancel_handle(&self) -> CancelHandle {
        let canceller = self.canceller.take().unwrap_or_default();
        let handle = canceller.handle();
        self.canceller.set(Some(canceller));
        handle
    }

    /// Gives back what [`Self::cancel_handle`] made; while no wait uses it.
    pub fn forget_canceller(&self) {
        self.canceller.take();
    }

    /// Ends the socket now, as a passed deadline would.
    pub fn expire(&self) {
        let fd = self.fd.get();
        if fd != CLOSED {
            self.fired.set(true);
            if self.with_pipe(Pipe::abort).is_none() {
                sys::shutdown_both(fd);
            }
        }
    }

    /// The socket's descriptor, until it closes.
    pub(super) const fn fd(&self) -> RawFd {
        self.fd.get()
    }

    /// The socket is about to close: its number means nothing from here on.
    pub(super) fn close(&self) {
        self.fd.set(CLOSED);
        self.client.take();
        self.pipe.take();
    }

    fn fire(&self) {
        self.due.set(NEVER);
        if self.spare.get() {
            if self.with_pipe(Pipe::lapse).is_some() {
                return;
            }
            let canceller = self.canceller.take();
            self.canceller.set(canceller.map(Canceller::cancel));
        } else {
            self.expire();
        }
    }
}

/// A span of time in turns of the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(u64);

impl Ticks {
    /// After which `time` has surely passed. The present tick may be almost over.
    pub const fn of(time: Duration) -> Self {
        let ns = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64);
        Self(1 + ns.div_ceil(TICK_NS))
    }
}

/// The wheel of one core.
pub struct Wheel {
    slots: RefCell<Vec<Vec<Rc<Watch>>>>,
    /// The last tick visited.
    at: Cell<u64>,
    /// The list being visited, kept for its memory.
    visiting: RefCell<Vec<Rc<Watch>>>,
}

impl Wheel {
    /// A wheel that starts at `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            slots: RefCell::new((0..SLOTS).map(|_| Vec::with_capacity(SLOT_ROOM)).collect()),
            at: Cell::new(now.as_nanos() / TICK_NS),
            visiting: RefCell::new(Vec::with_capacity(SLOT_ROOM)),
        }
    }

    /// A watch over a socket, without deadline yet.
    pub fn watch(&self, fd: RawFd) -> Rc<Watch> {
        self.begin(fd, None)
    }

    /// A watch over the end of a pipe.
    pub(super) fn watch_pipe(&self, pipe: &Rc<Pipe>) -> Rc<Watch> {
        self.begin(PIPED, Some(Rc::clone(pipe)))
    }

    fn begin(&self, fd: RawFd, pipe: Option<Rc<Pipe>>) -> Rc<Watch> {
        let watch = Rc::new(Watch {
            fd: Cell::new(fd),
            due: Cell::new(NEVER),
            visit: Cell::new(NEVER),
            fired: Cell::new(false),
            spare: Cell::new(false),
            resting: Cell::new(false),
            canceller: Cell::default(),
            client: Cell::default(),
            pipe: Cell::new(pipe),
            abandoned: Cell::new(false),
            leaves_at_end: Cell::new(false),
        });
        self.place(&watch, NEVER);
        watch
    }

    /// The tick that is now: who has armed a watch since it began need not do so again.
    pub const fn tick(&self) -> u64 {
        self.at.get()
    }

    fn place(&self, watch: &Rc<Watch>, due: u64) {
        let far = if watch.is_following(|_| true) { FOLLOW_TICKS } else { SLOTS as u64 - 1 };
        let visit = due.clamp(self.at.get() + 1, self.at.get() + far);
        watch.visit.set(visit);
        self.slots.borrow_mut()[visit as usize % SLOTS].push(Rc::clone(watch));
    }

    /// Fires what is due at `now`.
    pub fn turn(&self, now: Moment) {
        let end = now.as_nanos() / TICK_NS;
        while self.at.get() < end {
            let tick = self.at.get() + 1;
            self.at.set(tick);
            let mut visiting = self.visiting.borrow_mut();
            std::mem::swap(&mut *visiting, &mut self.slots.borrow_mut()[tick as usize % SLOTS]);
            for watch in visiting.drain(..) {
                self.visit(&watch, tick);
            }
        }
    }

    fn visit(&self, watch: &Rc<Watch>, tick: u64) {
        // A watch that moved to an earlier slot leaves its old entry behind; that one is dropped here.
        if watch.fd.get() == CLOSED || watch.visit.get() != tick {
            return;
        }
        if watch.due.get() <= tick {
            watch.fire();
        } else if watch.is_deserted() {
            watch.abandoned.set(true);
            watch.expire();
        }
        self.place(watch, watch.due.get());
    }

    /// Runs `act` on every open watch; for draining.
    pub fn for_each(&self, mut act: impl FnMut(&Rc<Watch>)) {
        let open: Vec<Rc<Watch>> = {
            let slots = self.slots.borrow();
            slots.iter().flatten().filter(|watch| watch.fd.get() != CLOSED).cloned().collect()
        };
        for watch in open {
            act(&watch);
        }
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("at", &self.at.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        (near, listener.accept().expect("accepts").0)
    }

    #[test]
    fn a_passed_deadline_ends_the_socket_and_a_postponed_one_does_not() {
        let wheel = Wheel::new(at(0));
        let (mut near, _far) = socket();
        let watch = wheel.watch(near.as_raw_fd());
        watch.arm(&wheel, millis(100));
        wheel.turn(at(80));
        watch.arm(&wheel, millis(8_920));
        wheel.turn(at(9_000));
        assert!(!watch.fired());
        wheel.turn(at(9_020));
        assert!(watch.fired());
        assert_eq!(near.read(&mut [0; 1]).expect("ended"), 0);
    }

    #[test]
    fn an_earlier_deadline_is_kept_though_a_later_one_was_set_before() {
        let wheel = Wheel::new(at(0));
        let (near, _far) = socket();
        let watch = wheel.watch(near.as_raw_fd());
        watch.arm(&wheel, millis(60_000));
        watch.arm(&wheel, millis(200));
        wheel.turn(at(200));
        assert!(!watch.fired());
        wheel.turn(at(220));
        assert!(watch.fired());
    }

    /// An upstream socket that follows a client which has just left, by a reset or in peace.
    fn follower_of_a_client_that_left(reset: bool) -> (Wheel, Rc<Watch>, [TcpStream; 3]) {
        let wheel = Wheel::new(at(0));
        let ((near, far), (upstream, origin)) = (socket(), socket());
        let (client, watch) = (wheel.watch(near.as_raw_fd()), wheel.watch(upstream.as_raw_fd()));
        watch.arm(&wheel, millis(60_000));
        watch.follow(&wheel, &client);
        if reset {
            socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).expect("an option");
        }
        drop(far);
        (wheel, watch, [near, upstream, origin])
    }

    #[test]
    fn a_socket_ends_when_the_one_it_works_for_breaks() {
        // On loopback the reset has arrived when the call that caused it returns.
        let (wheel, watch, _sockets) = follower_of_a_client_that_left(true);
        wheel.turn(at(1_500));
        assert!(watch.is_abandoned() && watch.fired());
    }

    #[test]
    fn a_socket_goes_on_when_the_one_it_works_for_has_sent_all() {
        let (wheel, watch, _sockets) = follower_of_a_client_that_left(false);
        wheel.turn(at(3_000));
        assert!(!watch.is_abandoned() && !watch.fired());
    }

    #[test]
    fn a_closed_watch_is_forgotten_and_never_fires() {
        let wheel = Wheel::new(at(0));
        let (near, _far) = socket();
        let watch = wheel.watch(near.as_raw_fd());
        watch.arm(&wheel, millis(40));
        watch.close();
        wheel.turn(at(10_000));
        assert!(!watch.fired());
        assert_eq!(Rc::strong_count(&watch), 1);
    }

    #[test]
    fn every_deadline_fires_in_time_whatever_the_order() {
        let seed = 11;
        let mut rng = crate::base::rng::Rng::seeded(seed);
        let wheel = Wheel::new(at(0));
        let (near, _far) = socket();
        let mut watches: Vec<(Rc<Watch>, u64)> =
            (0..200).map(|_| (wheel.watch(near.as_raw_fd()), u64::MAX)).collect();
        for now in (0..20_000).step_by(20) {
            wheel.turn(at(now));
            for (watch, due) in &mut watches {
                assert_eq!(watch.fired(), *due <= now, "seed {seed}, now {now}, due {due}");
                if *due > now && rng.below(50) == 0 {
                    let within = rng.below(12_000);
                    *due = (now + within).next_multiple_of(20) + 20;
                    watch.arm(&wheel, millis(within));
                }
            }
        }
    }
}
