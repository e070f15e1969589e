//! What upstreams can do beyond APISIX's, compiled. All of it is absent unless it is asked for, and then costs a look.

use super::sticky::Sticky;
use super::upstream::Node;
use crate::balance::Weighted;
use crate::model;

/// See the module.
#[derive(Debug, Default)]
pub struct Additions {
    /// How a client is kept at one node.
    pub sticky: Option<Box<Sticky>>,
}

impl Additions {
    /// `weights` are those of the nodes, in their order.
    pub(super) fn new(upstream: &model::Upstream, nodes: &[Node], weights: &[Weighted<'_>]) -> Self {
        let weights = || weights.iter().map(|node| node.weight);
        Self {
            sticky: upstream.sticky.as_ref().map(|sticky| Box::new(Sticky::new(sticky, nodes, weights()))),
        }
    }
}
