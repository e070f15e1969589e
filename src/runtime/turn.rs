//! Waiting for a turn, as limits have requests do. Whoever waits so holds nothing of the kernel's, may be given up at any
//! moment, and says at each look that it still waits: so whoever runs it can see whether anybody is left to wait for.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::Core;

/// So often whoever waits is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether what was polled last on a core waits for a turn.
#[derive(Debug, Default)]
pub struct Turns(Cell<bool>);

impl Turns {
    /// Before something is polled: whether it waits for a turn is not known yet.
    pub fn forget(&self) {
        self.0.set(false);
    }

    /// After that: whether it does.
    pub fn is_waited_for(&self) -> bool {
        self.0.get()
    }
}

impl Core {
    /// Waits so long for a turn. It is looked at about once a second, and when it is about to have it.
    pub async fn wait_for_turn(&self, time: Duration) {
        let until = self.now().plus(time);
        let mut is_over = time.is_zero();
        while !is_over {
            let mut sleep = pin!(self.sleep(until.since(self.now()).min(LOOK_EVERY)));
            poll_fn(|cx| {
                let slept = sleep.as_mut().poll(cx);
                self.turns.0.set(slept.is_pending());
                slept
            })
            .await;
            is_over = self.now() >= until;
        }
        self.be_looked_at().await;
    }

    /// Waits for nothing but to be looked at.
    async fn be_looked_at(&self) {
        let mut was_seen = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut was_seen, true) {
                return Poll::Ready(());
            }
            self.turns.0.set(true);
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
