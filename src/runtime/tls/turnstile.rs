//! How much of a core's time handshakes may have, and who has the next one. A handshake takes some tenths of a millisecond
//! of pure arithmetic, during which the core does nothing else; a thousand clients that come at once must not keep those who are
//! there waiting.
//!
//! Clients that come while there is no room stand in line. It moves on in the order they came, until the first of it has stood
//! there for so long that it may have lost patience: then the last goes first, so that under an overload those who are let in
//! are answered in time, in place of all of them too late. A line that is full turns away whoever has stood there longest.
//! Only one of the line waits for room by the clock; the others are called.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::clock::{self, Moment};

/// Of each such stretch of time,
const STRETCH: Duration = Duration::from_millis(4);
/// handshakes may have so much.
const SHARE: Duration = Duration::from_millis(3);
/// Whose turn it is looks for room again after so long.
const PAUSE: Duration = Duration::from_millis(1);
/// Who has stood in line for so long may have lost patience.
const LATE: Duration = Duration::from_millis(100);
/// Clients in line. Worst case some 30 KiB each, 15 MiB a core.
const LINE_MAX: usize = 512;

/// The line is too long: whoever gets this was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

/// The turnstile of one core.
#[derive(Debug, Default)]
pub struct Turnstile {
    began: Cell<Moment>,
    spent: Cell<Duration>,
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

    /// Does a step of a handshake, and counts what it takes.
    pub fn spend<T>(&self, step: impl FnOnce() -> T) -> T {
        let now = clock::now();
        let outcome = step();
        self.spent.set(self.spent.get() + clock::now().since(now));
        outcome
    }

    fn has_room(&self, now: Moment) -> bool {
        if now.since(self.began.get()) >= STRETCH {
            self.began.set(now);
            self.spent.set(Duration::ZERO);
        }
        self.spent.get() < SHARE
    }

    /// Takes the last place in line.
    fn stand(&self, now: Moment) -> Standing<'_> {
        let place = Rc::new(Place { since: now, call: Cell::new(Call::NotYet), waker: RefCell::default() });
        self.line.borrow_mut().push_back(Rc::clone(&place));
        if self.line.borrow().len() > LINE_MAX
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
    fn what_is_spent_of_a_stretch_is_there_again_in_the_next() {
        let turnstile = Turnstile::default();
        assert!(turnstile.has_room(at(0)));
        turnstile.spent.set(Duration::from_micros(2_999));
        assert!(turnstile.has_room(at(2_999)));
        turnstile.spent.set(Duration::from_micros(3_000));
        assert!(!turnstile.has_room(at(3_999)));
        assert!(turnstile.has_room(at(4_000)));
        assert_eq!(turnstile.spent.get(), Duration::ZERO);
    }

    #[test]
    fn one_is_called_at_a_time_the_first_first_until_it_is_late_then_the_last() {
        let turnstile = Turnstile::default();
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
        let turnstile = Turnstile::default();
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
        let turnstile = Turnstile::default();
        let now = clock::now();
        let standing: Vec<_> = (0..LINE_MAX + 3).map(|_| turnstile.stand(now)).collect();
        let told: Vec<_> = standing.iter().take(4).map(|one| one.place.call.get()).collect();
        assert_eq!(told, [Call::Next, Call::Away, Call::Away, Call::NotYet]);
        assert_eq!(turnstile.line.borrow().len(), LINE_MAX);
    }
}
