//! How long requests may take in all, and how long is waited between tries, compiled.

use std::time::Duration;

use crate::model::upstream as model;

/// How long a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// All tries, to the last byte of the answer.
    pub total: Option<Duration>,
    /// One try, until the answer begins.
    pub per_try: Option<Duration>,
    /// Whether clients bound it, too, and nodes are told what is left.
    pub from_client: bool,
}

/// How long is waited before another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Deadlines {
    pub(super) fn new(deadlines: &model::Deadlines) -> Self {
        Self {
            total: deadlines.total.map(|total| total.get()),
            per_try: deadlines.per_try.map(|per_try| per_try.get()),
            from_client: deadlines.from_client,
        }
    }
}

impl Backoff {
    pub(super) fn new(backoff: &model::Backoff) -> Self {
        Self { base: backoff.base.get(), max: backoff.max.get() }
    }

    /// The longest wait after so many tries that came to nothing.
    pub fn longest(&self, tries: u32) -> Duration {
        let factor = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
        let waits = [0, 1, 2, 3, 4, 5, 33, u32::MAX].map(|tries| backoff.longest(tries).as_millis());
        assert_eq!(waits, [25, 25, 50, 100, 200, 250, 250, 250]);
    }
}
