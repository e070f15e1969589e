//! How much of a core's time handshakes may have, and who has the next one. A handshake takes some tenths of a millisecond
//! of pure arithmetic, during which the core does nothing else; a thousand clients that come at once must not keep those who are
//! there waiting.
//!
//! Clients that come while there is no room stand in line. It moves on in the order they came, until the first of it has stood
//! there for so long that it may have lost patience: then the last goes first, so that under an overload those who are let in
//! are answered in time, in place of all of them too late. A line that is full turns away whoever has stood there longest.
//! Only one of the line waits for room by the clock; the others are called.
//!
//! Handshakes that take milliseconds each are not for the core: they have a turnstile of their own, which has room while
//! threads beside the cores have.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::aside::Aside;
use super::session::{Fault, Session};
use super::stock::Stock;
use crate::base::clock::{self, Moment};
use crate::link::stats::CoreStats;

/// Of any stretch of time handshakes may have three quarters,
const SHARE: (u64, u64) = (3, 4);
/// and of a core that had none for a while so much more: some three milliseconds in a row.
const CREDIT_NS_MAX: i64 = 750_000;
/// Whose turn it is looks for room again after so long.
const PAUSE: Duration = Duration::from_millis(1);
/// Who has stood in line for so long may have lost patience.
const LATE: Duration = Duration::from_millis(100);
/// The line is too long: whoever gets this was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

/// The turnstile of one core.
#[derive(Debug, Default)]
pub struct Turnstile {
    /// Where its handshakes are made, if not on the core.
    aside: Option<Aside>,
    /// Until when time has been counted, and what handshakes may have of it still. A step that takes longer leaves a debt.
    looked: Cell<Moment>,
    credit_ns: Cell<i64>,
    /// Most that stand in line. Worst case some 30 KiB each.
    line_max: usize,
    stats: Arc<CoreStats>,
    line: RefCell<VecDeque<Rc<Place>>>,
    /// Somebody was called and is not through yet.
    is_taken: Cell<bool>,
}

/// A place in line.
#[derive(Debug)]
struct Place {
    since: Moment,
    call: Cell<Call>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    NotYet,
    Next,
    Away,
}

/// Whoever stands in line. When it goes, through or not, the next is called.
struct Standing<'t> {
    turnstile: &'t Turnstile,
    place: Rc<Place>,
}

impl Turnstile {
    /// One that nobody has passed, with places for so many.
    pub fn new(line_max: usize, stats: Arc<CoreStats>) -> Self {
        Self { line_max, stats, ..Self::default() }
    }

    /// The same, for handshakes that are made beside the core.
    pub fn beside(aside: Aside, line_max: usize, stats: Arc<CoreStats>) -> Self {
        Self { aside: Some(aside), ..Self::new(line_max, stats) }
    }

    /// Waits for the turn of a client that has just come.
    ///
    /// # Errors
    /// When too many came later.
    pub async fn line_up(&self) -> Result<(), Crowded> {
        let now = clock::now();
        if !self.is_taken.get() && self.has_room(now) {
            return Ok(());
        }
        let standing = self.stand(now);
        standing.called().await?;
        self.wait_for_room().await;
        Ok(())
    }

    /// Waits for room beside the line.
    pub async fn wait_for_room(&self) {
        while !self.has_room(clock::now()) {
            monoio::time::sleep(PAUSE).await;
        }
    }

    /// Goes on with a handshake as [`Session::shake`] does.
    ///
    /// # Errors
    /// When the session is lost.
    pub(super) async fn shake(
        &self,
        mut session: Session,
        stock: &Rc<Stock>,
    ) -> io::Result<(Session, Result<bool, Fault>)> {
        if let Some(aside) = &self.aside {
            session = match aside.shake(session, stock).await? {
                Ok(taken) => {
                    self.stats.tls_handshakes_aside.add(1);
                    return Ok(taken);
                }
                Err(session) => session,
            };
        }
        let now = clock::now();
        let shaken = session.shake();
        self.charge(clock::now().since(now));
        Ok((session, shaken))
    }

    fn has_room(&self, now: Moment) -> bool {
        if let Some(has_room) = self.aside.as_ref().and_then(Aside::has_room) {
            return has_room;
        }
        let passed = now.since(self.looked.get()).min(Duration::from_secs(1)).as_nanos() as u64;
        self.looked.set(now);
        let earned = (passed * SHARE.0 / SHARE.1) as i64;
        self.credit_ns.set((self.credit_ns.get() + earned).min(CREDIT_NS_MAX));
        self.credit_ns.get() > 0
    }

    fn charge(&self, spent: Duration) {
        // A step that seems to have taken longer than that was the processor's doing.
        let spent = spent.min(Duration::from_millis(100)).as_nanos() as i64;
        self.credit_ns.set(self.credit_ns.get() - spent);
    }

    /// Takes the last place in line.
    fn stand(&self, now: Moment) -> Standing<'_> {
        let place = Rc::new(Place { since: now, call: Cell::new(Call::NotYet), waker: RefCell::default() });
        self.line.borrow_mut().push_back(Rc::clone(&place));
        self.stats.tls_handshakes_waiting.add(1);
        self.stats.tls_handshakes_delayed.add(1);
        if self.line.borrow().len() > self.line_max
            && let Some(longest) = self.line.borrow_mut().pop_front()
        {
            longest.tell(Call::Away);
        }
        if !self.is_taken.get() {
            self.call_next(now);
        }
        Standing { turnstile: self, place }
    }

    /// Calls whoever is to go next, if anybody stands there.
    fn call_next(&self, now: Moment) {
        let next = {
            let mut line = self.line.borrow_mut();
            let is_late = line.front().is_some_and(|first| now.since(first.since) >= LATE);
            if is_late { line.pop_back() } else { line.pop_front() }
        };
        self.is_taken.set(next.is_some());
        if let Some(next) = next {
            next.tell(Call::Next);
        }
    }
}

impl Place {
    fn tell(&self, call: Call) {
        self.call.set(call);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Standing<'_> {
    async fn called(&self) -> Result<(), Crowded> {
        poll_fn(|cx| match self.place.call.get() {
            Call::Next => Poll::Ready(Ok(())),
            Call::Away => Poll::Ready(Err(Crowded)),
            Call::NotYet => {
                self.place.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.turnstile.stats.tls_handshakes_waiting.sub(1);
        match self.place.call.get() {
            Call::Next => self.turnstile.call_next(clock::now()),
            // Left by itself.
            Call::NotYet => self.turnstile.line.borrow_mut().retain(|place| !Rc::ptr_eq(place, &self.place)),
            Call::Away => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + micros * 1000)
    }

    /// Who of those standing there was called.
    fn called(standing: &[Option<Standing<'_>>]) -> Vec<usize> {
        let is_next =
            |one: &Option<Standing<'_>>| one.as_ref().is_some_and(|one| one.place.call.get() == Call::Next);
        (0..standing.len()).filter(|at| is_next(&standing[*at])).collect()
    }

    #[test]
    fn handshakes_get_three_quarters_of_the_time_however_long_one_takes() {
        for step in [100, 700, 4_000, 9_000] {
            let turnstile = Turnstile::default();
            let (mut now, mut spent) = (0, 0);
            while now < 1_000_000 {
                if turnstile.has_room(at(now)) {
                    turnstile.charge(Duration::from_micros(step));
                    (now, spent) = (now + step, spent + step);
                } else {
                    now += 100;
                }
            }
            let share = spent * 100 / now;
            assert!((73..=77).contains(&share), "steps of {step} us: {share} %");
        }
    }

    #[test]
    fn a_core_that_had_none_for_long_has_three_milliseconds_in_a_row() {
        let turnstile = Turnstile::default();
        assert!(turnstile.has_room(at(60_000_000)));
        let in_a_row = (0..100).take_while(|step| {
            let has_room = turnstile.has_room(at(60_000_000 + step * 100));
            turnstile.charge(Duration::from_micros(100));
            has_room
        });
        assert!((28..=31).contains(&in_a_row.count()));
    }

    #[test]
    fn one_is_called_at_a_time_the_first_first_until_it_is_late_then_the_last() {
        let turnstile = Turnstile::new(5, Arc::default());
        let now = clock::now();
        let mut standing: Vec<_> = (0..5).map(|_| Some(turnstile.stand(now))).collect();
        assert_eq!(called(&standing), [0]);
        standing[0] = None;
        assert_eq!(called(&standing), [1], "in the order they came");
        turnstile.call_next(now.plus(LATE));
        assert_eq!(called(&standing), [1, 4], "the first may have gone by now, the last has not");
    }

    #[test]
    fn who_leaves_the_line_is_not_called_and_who_leaves_when_called_calls_the_next() {
        let turnstile = Turnstile::new(5, Arc::default());
        let now = clock::now();
        let mut standing: Vec<_> = (0..3).map(|_| Some(turnstile.stand(now))).collect();
        standing[1] = None;
        standing[0] = None;
        assert_eq!(called(&standing), [2]);
        standing[2] = None;
        assert!(!turnstile.is_taken.get() && turnstile.line.borrow().is_empty());
    }

    #[test]
    fn a_full_line_turns_away_who_has_stood_there_longest() {
        let turnstile = Turnstile::new(5, Arc::default());
        let now = clock::now();
        let standing: Vec<_> = (0..5 + 3).map(|_| turnstile.stand(now)).collect();
        let told: Vec<_> = standing.iter().take(4).map(|one| one.place.call.get()).collect();
        assert_eq!(told, [Call::Next, Call::Away, Call::Away, Call::NotYet]);
        assert_eq!(turnstile.line.borrow().len(), 5);
        assert_eq!(turnstile.stats.tls_handshakes_waiting.get(), 8, "until they have seen it");
        drop(standing);
        let stats = &turnstile.stats;
        assert_eq!((stats.tls_handshakes_waiting.get(), stats.tls_handshakes_delayed.get()), (0, 8));
    }
}
