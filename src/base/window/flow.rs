//! So many bytes a second: what passes is counted when it comes, and waits until it is its turn.
//!
//! A word is the moment at which nothing would be owed and all of the burst were there again, as the word of a
//! [`Bucket`](super::quota::Bucket) is; but bytes are not tokens of whole nanoseconds, so that rates of gigabytes are what is written.
//! Whatever stretch of time one looks at, no more has had its turn than the rate times its length, and the burst.

use std::time::Duration;

use crate::base::clock::Moment;

/// Longest that bytes may have to wait: what comes while so much is owed has its turn then, and the rate is exceeded. It
/// takes an hour's worth of bytes that all wait at once.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);
const SECOND_NS: u64 = 1_000_000_000;

/// A rate, and how much of it that was not used is kept.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    bytes: u64,
    burst: u64,
    room_ns: u64,
}

impl Flow {
    /// `bytes` a second, and `burst` of them at once. Both above 0.
    pub const fn new(bytes: u64, burst: u64) -> Self {
        let bytes = if bytes == 0 { 1 } else { bytes };
        Self { bytes, burst, room_ns: span(burst, bytes) }
    }

    /// Bytes a second.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many at once, where none passed lately.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The word after so many bytes, and when they have their turn.
    pub const fn pass(&self, word: u64, now: Moment, bytes: u64) -> (u64, Duration) {
        let now = now.as_nanos();
        let from = if word > now { word } else { now };
        let most = now.saturating_add(self.room_ns).saturating_add(WAIT_MAX.as_nanos() as u64);
        let next = from.saturating_add(span(bytes, self.bytes));
        let next = if next < most { next } else { most };
        (next, Duration::from_nanos((next - now).saturating_sub(self.room_ns)))
    }

    /// How many bytes would have their turn at once, and when all of the burst is there.
    pub const fn left(&self, word: u64, now: Moment) -> (u64, Duration) {
        let owed = word.saturating_sub(now.as_nanos());
        let left = self.room_ns.saturating_sub(owed) as u128 * self.bytes as u128 / SECOND_NS as u128;
        let left = if left < self.burst as u128 { left as u64 } else { self.burst };
        (if owed == 0 { self.burst } else { left }, Duration::from_nanos(owed))
    }
}

/// How long so many bytes take, rounded up.
const fn span(bytes: u64, rate: u64) -> u64 {
    let nanos = (bytes as u128 * SECOND_NS as u128).div_ceil(rate as u128);
    let most = u64::MAX as u128 / 4;
    if nanos < most { nanos as u64 } else { most as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn in_no_stretch_of_time_more_has_its_turn_than_rate_and_burst() {
        for seed in 1..40 {
            let mut rng = Rng::seeded(seed);
            let flow = Flow::new(1000 + rng.below(5_000_000_000), 1 + rng.below(1_000_000));
            let (mut word, mut now, mut turns) = (0, 7, Vec::<(u64, u64)>::new());
            for _ in 0..400 {
                now += rng.below(2 * span(flow.burst, flow.bytes) / 3 + 1);
                let bytes = 1 + rng.below(flow.burst);
                let (next, wait) = flow.pass(word, Moment::from_nanos(now), bytes);
                word = next;
                turns.push((now + wait.as_nanos() as u64, bytes));
            }
            for first in 0..turns.len() {
                let mut sum = 0;
                for (at, bytes) in &turns[first..] {
                    sum += bytes;
                    let most =
                        u128::from(at - turns[first].0) * u128::from(flow.bytes) / u128::from(SECOND_NS);
                    assert!(
                        u128::from(sum) <= most + u128::from(flow.burst) + 1,
                        "seed {seed}: {sum} bytes, {most}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_was_not_used_is_kept_up_to_the_burst() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let flow = Flow::new(10_000, 5000);
        assert_eq!(flow.left(0, at(1)), (5000, Duration::ZERO));
        let (word, wait) = flow.pass(0, at(1000), 4000);
        assert_eq!((wait, flow.left(word, at(1000))), (Duration::ZERO, (1000, Duration::from_millis(400))));
        let (word, wait) = flow.pass(word, at(1000), 3000);
        assert_eq!((wait, flow.left(word, at(1000)).0), (Duration::from_millis(200), 0));
        assert_eq!(flow.left(word, at(1700)), (5000, Duration::ZERO));
        // Nobody owes for ever.
        let (word, wait) = flow.pass(word, at(1000), u64::MAX);
        assert_eq!(wait, WAIT_MAX);
        assert_eq!(flow.pass(word, at(1000), 1).1, WAIT_MAX);
        assert_eq!(Flow::new(3_000_000_000, 1).pass(0, at(0), 3_000_000_001).1, Duration::from_secs(1));
    }
}
