//! How much of a core's time handshakes may have. One takes some tenths of a millisecond of pure arithmetic, during which
//! the core does nothing else; a thousand clients that come at once must not keep those who are there waiting.

use std::cell::Cell;
use std::time::Duration;

use crate::base::clock::{self, Moment};

/// Of each such stretch of time,
const STRETCH: Duration = Duration::from_millis(4);
/// handshakes may have so much.
const SHARE: Duration = Duration::from_millis(3);
/// Who finds it used up comes back after so long.
const PAUSE: Duration = Duration::from_millis(1);

/// The turnstile of one core.
#[derive(Debug, Default)]
pub struct Turnstile {
    began: Cell<Moment>,
    spent: Cell<Duration>,
}

impl Turnstile {
    /// Does the next step of a handshake, when it is its turn.
    pub async fn pass<T>(&self, step: impl FnOnce() -> T) -> T {
        let mut now = clock::now();
        while !self.has_room(now) {
            monoio::time::sleep(PAUSE).await;
            now = clock::now();
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + micros * 1000)
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
}
