//! How much of a core's time handshakes may have. One takes some tenths of a millisecond of pure arithmetic, during which
//! the core does nothing else; a thousand clients that come at once must not keep those who are there waiting. Who finds the
//! time used up stands in line: one of them watches the clock, and each lets the next one in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{self, Moment};
use crate::link::stats::CoreStats;
use crate::runtime::event::Event;

/// Of any stretch of time handshakes may have three quarters,
const SHARE: (u64, u64) = (3, 4);
/// and of a core that had none for a while so much more: some three milliseconds in a row.
const CREDIT_NS_MAX: i64 = 750_000;
/// Who finds it used up looks again after so long.
const PAUSE: Duration = Duration::from_millis(1);

/// The turnstile of one core.
#[derive(Debug, Default)]
pub struct Turnstile {
    /// Until when time has been counted, and what handshakes may have of it still. A step that takes longer leaves a debt.
    looked: Cell<Moment>,
    credit_ns: Cell<i64>,
    /// Those that wait, in the order they came. The first knows that it is.
    line: RefCell<VecDeque<Rc<Event>>>,
    stats: Arc<CoreStats>,
}

/// A place in the line.
struct Place<'a> {
    turnstile: &'a Turnstile,
    turn: Rc<Event>,
}

impl<'a> Place<'a> {
    fn take(turnstile: &'a Turnstile) -> Self {
        let turn = Rc::new(Event::default());
        turnstile.line.borrow_mut().push_back(Rc::clone(&turn));
        turnstile.let_in();
        turnstile.stats.tls_handshakes_waiting.add(1);
        turnstile.stats.tls_handshakes_delayed.add(1);
        Self { turnstile, turn }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.turnstile.line.borrow_mut();
        // Mostly it is the first.
        if let Some(at) = line.iter().position(|turn| Rc::ptr_eq(turn, &self.turn)) {
            line.remove(at);
        }
        drop(line);
        self.turnstile.let_in();
        self.turnstile.stats.tls_handshakes_waiting.sub(1);
    }
}

impl Turnstile {
    pub fn new(stats: Arc<CoreStats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.borrow().len()
    }

    /// Waits for the turn of a step of a handshake.
    pub async fn turn(&self) {
        if self.line.borrow().is_empty() && self.has_room(clock::now()) {
            return;
        }
        let place = Place::take(self);
        place.turn.wait().await;
        while !self.has_room(clock::now()) {
            monoio::time::sleep(PAUSE).await;
        }
    }

    /// Does a step whose turn it is.
    pub fn spend<T>(&self, step: impl FnOnce() -> T) -> T {
        let now = clock::now();
        let outcome = step();
        self.charge(clock::now().since(now));
        outcome
    }

    /// The first in line learns that it is.
    fn let_in(&self) {
        if let Some(first) = self.line.borrow().front() {
            first.set();
        }
    }

    fn has_room(&self, now: Moment) -> bool {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + micros * 1000)
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
    fn who_waits_stands_in_line_and_leaves_it_in_any_order() {
        let turnstile = Turnstile::default();
        let is_first = |place: &Place<'_>| place.turn.has_happened();
        let [first, second, third] = std::array::from_fn(|_| Place::take(&turnstile));
        assert_eq!((turnstile.waiting(), turnstile.stats.tls_handshakes_waiting.get()), (3, 3));
        assert!(is_first(&first) && !is_first(&second));
        drop(second);
        assert!(!is_first(&third));
        drop(first);
        assert!(is_first(&third));
        drop(third);
        assert_eq!((turnstile.waiting(), turnstile.stats.tls_handshakes_waiting.get()), (0, 0));
        assert_eq!(turnstile.stats.tls_handshakes_delayed.get(), 3);
    }
}
