//! When requests are due, and dice that fall the same way for the same seed.

use std::time::{Duration, Instant};

/// xorshift64*: enough for arrivals and for choosing among addresses.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Above 0, at most 1.
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

pub(crate) struct Pace {
    start: Instant,
    rate: f64,
    dice: Option<Dice>,
    /// Requests so far, when evenly spaced: times are multiplied, not added, so nothing drifts.
    count: u64,
    /// Seconds since the start, at random times.
    at: f64,
}

impl Pace {
    pub(crate) fn new(start: Instant, rate: f64, poisson: bool, seed: u64) -> Self {
        Self { start, rate, dice: poisson.then(|| Dice::new(seed)), count: 0, at: 0.0 }
    }

    pub(crate) fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.at)
    }

    pub(crate) fn advance(&mut self) {
        self.count += 1;
        self.at = match &mut self.dice {
            Some(dice) => self.at - dice.fraction().ln() / self.rate,
            None => self.count as f64 / self.rate,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(poisson: bool, tolerance: f64) {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0, poisson, 7);
        let mut before = pace.due();
        for _ in 0..100_000 {
            pace.advance();
            assert!(pace.due() >= before);
            before = pace.due();
        }
        let seconds = before.duration_since(start).as_secs_f64();
        assert!((seconds - 100.0).abs() < tolerance, "{seconds} s for 100,000 at 1,000 a second");
    }

    #[test]
    fn requests_are_due_at_the_rate_that_was_asked_for() {
        check(false, 0.001);
        check(true, 2.0);
    }
}
