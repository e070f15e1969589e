//! What upstreams can do beyond APISIX's, compiled. All of it is absent unless it is asked for, and then costs a look.

use super::sticky::Sticky;
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
}

/// Which nodes are ejected, and when.
#[derive(Debug)]
pub struct Outliers {
    pub rules: Rules,
    pub door: Door,
}

impl Additions {
    /// `weights` are those of the nodes, in their order.
    pub(super) fn new(upstream: &model::Upstream, nodes: &[Node], weights: &[Weighted<'_>]) -> Self {
        let weights = weights.iter().map(|node| node.weight);
        Self {
            sticky: upstream.sticky.as_ref().map(|sticky| Box::new(Sticky::new(sticky, nodes, weights))),
            outliers: upstream.outliers.as_ref().map(|outliers| Box::new(Outliers::new(outliers))),
        }
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
