//! A route and a consumer, compiled.

use super::{Chain, Timeouts};
use crate::base::cidr::CidrSet;
use crate::exchange::{ConsumerLabels, RouteLabels};
use crate::expr::Rule;
use crate::plugin::Mount;
use crate::plugins::AnyPlugin;

/// Where a route sends its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The place of an upstream in the snapshot.
    Upstream(u32),
    /// Nowhere: a plugin answers, or nobody does.
    Nothing,
    /// To an upstream that is not there.
    Vanished,
}

/// A route, with what it takes from its service and plugin config.
#[derive(Debug)]
pub struct Route {
    pub labels: RouteLabels,
    /// Clients it is for; `None` is all.
    pub clients: Option<CidrSet>,
    /// Requests it is for, beyond path, host and method.
    pub rule: Option<Rule>,
    pub chain: Chain,
    pub target: Target,
    /// Wins over the upstream's.
    pub timeouts: Option<Timeouts>,
    pub websocket: bool,
    /// Answer when the route can not work because what it refers to is gone.
    pub broken: Option<u16>,
}

/// A consumer's part in chains: its group's plugins with its own over them.
#[derive(Debug)]
pub struct Consumer {
    pub labels: ConsumerLabels,
    pub mounts: Vec<Mount<AnyPlugin>>,
    /// Plugins that are not run for it, though a route has them.
    pub disabled: Vec<&'static str>,
}
