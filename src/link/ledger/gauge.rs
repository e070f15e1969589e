//! Spending from accounts what may be given back later: quotas and buckets of `base::window::quota`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Account;
use crate::base::clock::Moment;
use crate::base::window::Spent;
use crate::base::window::flow::Flow;
use crate::base::window::quota::{Bucket, Gauge, Quota, When};

/// What was spent from, so that it can be given back.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    word: u64,
    returned: u64,
}

impl Account {
    /// What spending `cost` would come to now. Changes nothing.
    pub fn look(&self, gauge: &Gauge, when: When, cost: u64) -> Spent {
        gauge.look(self.first.load(Ordering::Relaxed), when, cost)
    }

    /// Spends `cost`, if it is within the limit.
    pub fn spend(&self, gauge: &Gauge, when: When, cost: u64) -> Result<(Spent, Mark), Spent> {
        // Of a bucket the second word is what was given back, the third what somebody has begun to give back.
        // Before the word, so that whatever is given back meanwhile is thought to be before us: see `Bucket::give_back`.
        let returned = self.second.load(Ordering::Acquire);
        let mut seen = self.first.load(Ordering::Acquire);
        loop {
            let (spent, next) = match gauge {
                Gauge::Quota(quota) => quota.spend(seen, when.unix_ms, cost),
                Gauge::Bucket(bucket) => bucket.spend(seen, when.moment, cost),
            };
            let Some(next) = next else { return Err(spent) };
            match self.first.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.note_end(gauge, (seen, next), when, spent);
                    return Ok((spent, Mark { word: next, returned }));
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Counts bytes that pass; how long they have to wait before they may.
    pub fn pass(&self, flow: &Flow, now: Moment, bytes: u64) -> Duration {
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            let (next, wait) = flow.pass(seen, now, bytes);
            match self.first.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if seen == 0 {
                        self.matters_while_filling();
                    }
                    return wait;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Spends `cost` more, whatever the limit says.
    pub fn owe(&self, gauge: &Gauge, when: When, cost: u64) {
        let mut seen = self.first.load(Ordering::Acquire);
        loop {
            let next = match gauge {
                Gauge::Quota(quota) => quota.owe(seen, when.unix_ms, cost),
                Gauge::Bucket(bucket) => bucket.owe(seen, when.moment, cost),
            };
            match self.first.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return self.note_end(gauge, (seen, next), when, gauge.look(next, when, 0)),
                Err(other) => seen = other,
            }
        }
    }

    /// Gives back `cost` of what was spent: at most what is not there again anyway.
    pub fn give_back(&self, gauge: &Gauge, mark: Mark, when: When, cost: u64) {
        match gauge {
            Gauge::Quota(_) => self.give_back_quota(mark, cost),
            Gauge::Bucket(bucket) => self.give_back_tokens(bucket, mark, when, cost),
        }
    }

    fn give_back_quota(&self, mark: Mark, cost: u64) {
        let mut seen = self.first.load(Ordering::Relaxed);
        while let Some(next) = Quota::give_back(seen, mark.word, cost) {
            match self.first.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// Those who give back see what others have begun to, those who spend what others have done: either way it is
    /// taken to be more than it is, which is stricter.
    fn give_back_tokens(&self, bucket: &Bucket, mark: Mark, when: When, cost: u64) {
        let mut begun = self.third.load(Ordering::Relaxed);
        loop {
            let by = bucket.give_back(mark.word, begun.wrapping_sub(mark.returned), when.moment, cost);
            if by == 0 {
                return;
            }
            let next = begun.wrapping_add(by);
            match self.third.compare_exchange_weak(begun, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.first.fetch_sub(by, Ordering::AcqRel);
                    self.second.fetch_add(by, Ordering::Release);
                    return;
                }
                Err(other) => begun = other,
            }
        }
    }

    /// Notes until when the words matter, if that has changed.
    fn note_end(&self, gauge: &Gauge, (before, after): (u64, u64), when: When, spent: Spent) {
        match gauge {
            Gauge::Quota(_) if before == 0 || before >> 32 != after >> 32 => {
                self.matters_until(when.moment.plus(spent.reset_in));
            }
            // The word itself is the moment, and nothing comes after it.
            Gauge::Bucket(_) if before == 0 => self.matters_while_filling(),
            Gauge::Quota(_) | Gauge::Bucket(_) => {}
        }
    }
}
