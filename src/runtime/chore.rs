//! Work beside the road that asks for answers: what a request leaves to be done when it is over. Nobody waits for it.
//!
//! Whoever has some gives it to the core and goes on; it runs in a task of its own. How much there may be is bounded:
//! beyond, it is given back at once. A core that ends has its chores hurry, and waits for them for a moment.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Core;
use crate::base::hash::Map;

/// Chores of a core that wait or are under way. One holds a kilobyte or two.
pub const CHORES_MAX: usize = 16 * 1024;

/// Something to be done. It ends by itself, in bounded time after it was told to hurry.
pub trait Chore: fmt::Debug {
    fn run<'a>(self: Box<Self>, core: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>>;
}

/// The chores of one core.
#[derive(Debug, Default)]
pub struct Chores {
    waiting: RefCell<VecDeque<Box<dyn Chore>>>,
    waker: RefCell<Option<Waker>>,
    /// Those that wait and those under way.
    count: Cell<usize>,
    /// Those that were given back and not counted yet.
    refused: Cell<u64>,
    hurried: Cell<bool>,
    /// Those that let time pass, each under a number of its own.
    sleepers: RefCell<Map<u64, Waker>>,
    last_sleeper: Cell<u64>,
}

/// One that lets time pass.
struct Sleeper<'a> {
    chores: &'a Chores,
    number: u64,
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.chores.sleepers.borrow_mut().remove(&self.number);
    }
}

impl Chores {
    /// Takes one on; it comes back when there are too many.
    ///
    /// # Errors
    /// What was given.
    pub fn give(&self, chore: Box<dyn Chore>) -> Result<(), Box<dyn Chore>> {
        if self.count.get() >= CHORES_MAX {
            self.refused.set(self.refused.get() + 1);
            return Err(chore);
        }
        self.count.set(self.count.get() + 1);
        self.waiting.borrow_mut().push_back(chore);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Waits for the next one. One task waits at a time.
    pub async fn next(&self) -> Box<dyn Chore> {
        poll_fn(|cx| match self.waiting.borrow_mut().pop_front() {
            Some(chore) => Poll::Ready(chore),
            None => {
                self.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// How many wait or are under way.
    pub const fn len(&self) -> usize {
        self.count.get()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// The core is about to end.
    pub fn hurry(&self) {
        self.hurried.set(true);
        let sleepers: Vec<Waker> = self.sleepers.borrow_mut().drain().map(|(_, waker)| waker).collect();
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Whether it is.
    pub const fn is_hurried(&self) -> bool {
        self.hurried.get()
    }

    /// Lets time pass, unless the core is about to end.
    pub async fn rest(&self, core: &Core, time: Duration) {
        self.last_sleeper.set(self.last_sleeper.get() + 1);
        let me = Sleeper { chores: self, number: self.last_sleeper.get() };
        let mut sleep = pin!(core.sleep(time));
        poll_fn(|cx| {
            if self.hurried.get() || sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.sleepers.borrow_mut().insert(me.number, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Does one chore.
pub async fn carry_out(core: &Core, chore: Box<dyn Chore>) {
    chore.run(core).await;
    core.chores.count.set(core.chores.count.get() - 1);
    core.stats.redis_returns_lost.add(core.chores.refused.take());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl Chore for Nothing {
        fn run<'a>(self: Box<Self>, _: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
            Box::pin(async {})
        }
    }

    #[test]
    fn too_many_are_given_back_until_some_are_over() {
        let core = Core::for_trial(super::super::Limits::default());
        let given = (0..CHORES_MAX + 9).filter(|_| core.chores.give(Box::new(Nothing)).is_ok()).count();
        assert_eq!(given, CHORES_MAX);
        let mut done = pin!(async {
            let chore = core.chores.next().await;
            assert!(core.chores.give(Box::new(Nothing)).is_err(), "what is under way counts as well");
            carry_out(&core, chore).await;
        });
        assert!(done.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_ready());
        assert!(core.chores.give(Box::new(Nothing)).is_ok());
    }
}
