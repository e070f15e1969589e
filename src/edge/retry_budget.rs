//! How many retries a core may make: a share of its requests, and a few a second in any case. When every node
//! fails, retrying is not what they need.

use std::cell::Cell;

use crate::base::clock::Moment;

/// What one retry costs, in the unit that a request earns percents of.
const PRICE: u64 = 100;
/// Most retries that can be saved up: what a node's death costs a core with many requests in flight.
const SAVED_MAX: u64 = 1000;
/// Retries at the start, before any request has earned one.
const AT_START: u64 = 100;

/// The budget of one core.
#[derive(Debug)]
pub(super) struct RetryBudget {
    saved: Cell<u64>,
    /// The second for which the free retries were last counted, and how many of it were taken.
    second: Cell<u64>,
    free_taken: Cell<u32>,
}

impl RetryBudget {
    pub(super) const fn new() -> Self {
        Self { saved: Cell::new(AT_START * PRICE), second: Cell::new(0), free_taken: Cell::new(0) }
    }

    /// A request earns its share.
    pub(super) fn earn(&self, percent: u32) {
        self.saved.set((self.saved.get() + u64::from(percent)).min(SAVED_MAX * PRICE));
    }

    /// Pays for a retry, if there is anything to pay with.
    pub(super) fn spend(&self, now: Moment, free_per_second: u32) -> bool {
        if self.saved.get() >= PRICE {
            self.saved.set(self.saved.get() - PRICE);
            return true;
        }
        let second = now.as_millis() / 1000;
        if self.second.replace(second) != second {
            self.free_taken.set(0);
        }
        let taken = self.free_taken.get();
        if taken < free_per_second {
            self.free_taken.set(taken + 1);
        }
        taken < free_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_and_a_few_a_second() {
        let budget = RetryBudget::new();
        let now = Moment::from_nanos(5_000_000_000);
        let spent = (0..1000).filter(|_| budget.spend(now, 10)).count();
        assert_eq!(spent as u64, AT_START + 10);
        for _ in 0..100 {
            budget.earn(20);
        }
        assert_eq!((0..100).filter(|_| budget.spend(now, 10)).count(), 20);
        assert_eq!((0..100).filter(|_| budget.spend(Moment::from_nanos(6_000_000_000), 10)).count(), 10);
    }

    #[test]
    fn what_is_saved_has_a_bound() {
        let budget = RetryBudget::new();
        (0..1_000_000).for_each(|_| budget.earn(20));
        let now = Moment::from_nanos(1);
        assert_eq!((0..5000).filter(|_| budget.spend(now, 0)).count() as u64, SAVED_MAX);
    }
}
