//! What upstreams can do beyond APISIX's, compiled. All of it is absent unless it is asked for, and then costs a look.

use super::cells::Throttles;
use super::deadlines::{Backoff, Deadlines};
use super::fallback::Fallback;
use super::hedge::Hedge;
use super::sticky::Sticky;
use super::throttle::Throttle;
use super::upstream::Node;
use crate::balance::Weighted;
use crate::link::outlier::{Door, Rate, Rules};
use crate::model;

/// See the module.
#[derive(Debug, Default)]
pub struct Additions {
    /// How a client is kept at one node.
    pub sticky: Option<Box<Sticky>>,
    /// Which nodes are ejected, and when.
    pub outliers: Option<Box<Outliers>>,
    /// What serves when the nodes do not.
    pub fallback: Option<Box<Fallback>>,
    /// How many requests are let in at once.
    pub throttle: Option<Box<Throttle>>,
    pub deadlines: Option<Box<Deadlines>>,
    pub hedge: Option<Box<Hedge>>,
    pub backoff: Option<Box<Backoff>>,
}

/// Which nodes are ejected, and when.
#[derive(Debug)]
pub struct Outliers {
    pub rules: Rules,
    pub door: Door,
}

impl Additions {
    /// `weights` are those of the nodes, in their order; `name` is the upstream's.
    /// `spare` is the place of the upstream that the fallback names.
    pub(super) fn new(
        upstream: &model::Upstream,
        nodes: &[Node],
        weights: &[Weighted<'_>],
        (spare, name, throttles): (Option<u32>, &str, &mut Throttles),
    ) -> Self {
        let weights = weights.iter().map(|node| node.weight);
        Self {
            sticky: upstream.sticky.as_ref().map(|sticky| Box::new(Sticky::new(sticky, nodes, weights))),
            outliers: upstream.outliers.as_ref().map(|outliers| Box::new(Outliers::new(outliers))),
            fallback: upstream.fallback.as_ref().map(|fallback| Box::new(Fallback::new(fallback, spare))),
            throttle: upstream
                .concurrency
                .as_ref()
                .map(|of| Box::new(Throttle::new(of, |rules| throttles.of(name, rules)))),
            hedge: upstream.hedge.as_ref().map(|hedge| Box::new(Hedge::new(hedge))),
            deadlines: upstream.deadlines.as_ref().map(|deadlines| Box::new(Deadlines::new(deadlines))),
            backoff: upstream.retry_backoff.as_ref().map(|backoff| Box::new(Backoff::new(backoff))),
        }
    }

    /// Whether requests go the way of those that have something to go by when nodes do not serve.
    pub const fn is_guarded(&self) -> bool {
        self.fallback.is_some() || self.throttle.is_some()
    }
}

impl Outliers {
    fn new(outliers: &model::upstream::Outliers) -> Self {
        let rate = outliers.success_rate.map(|rate| Rate {
            percent: rate.percent_of_others.u32(),
            requests_min: rate.min_requests.u32(),
            window: rate.interval.get(),
        });
        let rules = Rules {
            failures_in_row: outliers.consecutive_5xx.u32(),
            gateway_failures_in_row: outliers.consecutive_gateway_failures.u32(),
            rate,
            base: outliers.base_time.get(),
            longest: outliers.max_time.get(),
            share_max_percent: outliers.max_percent.u32(),
        };
        Self { rules, door: Door::default() }
    }
}
