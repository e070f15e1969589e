//! What is known of nodes between snapshots: who they are, the addresses of their names, and how they fare, and how
//! they are spoken to over TLS.

use std::sync::{Arc, Weak};

use super::names::{Names, Resolve};
use super::services::Services;
use super::tls::Outward;
use crate::base::address::Address;
use crate::base::hash::Map;
use crate::link::health::Cell;
use crate::link::throttle::{Rules, Throttle};

/// Cells that may have gone out of use before they are looked through.
const SLACK: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct NodeBook {
    pub(super) names: Names,
    pub(super) services: Services,
    pub(super) cells: Cells,
    pub(super) throttles: Throttles,
    pub(super) outward: Outward,
}

impl NodeBook {
    /// `registries` are those that services may be asked of.
    pub(super) fn new(resolve: Resolve, registries: Vec<&'static str>) -> Self {
        Self {
            names: Names::new(resolve),
            services: Services::new(registries),
            cells: Cells::default(),
            throttles: Throttles::default(),
            outward: Outward::new(),
        }
    }
}

/// The cells in use. A node of an upstream keeps its cell from snapshot to snapshot while the rules stay that it is
/// judged by; nodes of two upstreams have two, as they may be judged by other rules.
#[derive(Debug, Default)]
pub(super) struct Cells {
    known: Map<(Box<str>, Address, u64), Weak<Cell>>,
    /// How many were in use when they were last looked through.
    in_use: usize,
}

impl Cells {
    /// The cell of a node. `rules` tells rules apart.
    pub(super) fn of(&mut self, upstream: &str, node: Address, rules: u64) -> Arc<Cell> {
        if self.known.len() > 2 * self.in_use + SLACK {
            self.known.retain(|_, cell| cell.strong_count() > 0);
            self.in_use = self.known.len();
        }
        let key = (upstream.into(), node, rules);
        if let Some(cell) = self.known.get(&key).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::default();
        self.known.insert(key, Arc::downgrade(&cell));
        cell
    }
}

/// What limits upstreams have learnt, kept from snapshot to snapshot while their rules stay.
#[derive(Debug, Default)]
pub(super) struct Throttles(Map<(Box<str>, Rules), Weak<Throttle>>);

impl Throttles {
    pub(super) fn of(&mut self, upstream: &str, rules: &Rules) -> Arc<Throttle> {
        let key = (upstream.into(), *rules);
        if let Some(throttle) = self.0.get(&key).and_then(Weak::upgrade) {
            return throttle;
        }
        // Few upstreams have one, and a new one comes seldom.
        self.0.retain(|_, throttle| throttle.strong_count() > 0);
        let throttle = Arc::default();
        self.0.insert(key, Arc::downgrade(&throttle));
        throttle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Address {
        Address::Ip(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn a_node_keeps_its_cell_while_it_is_in_use_and_its_rules_stay() {
        let mut cells = Cells::default();
        let one = cells.of("upstreams/1", node(1), 0);
        assert!(Arc::ptr_eq(&one, &cells.of("upstreams/1", node(1), 0)));
        for other in [("upstreams/2", 1, 0), ("upstreams/1", 2, 0), ("upstreams/1", 1, 7)] {
            assert!(!Arc::ptr_eq(&one, &cells.of(other.0, node(other.1), other.2)), "{other:?}");
        }
    }

    #[test]
    fn cells_that_nobody_uses_are_forgotten() {
        let mut cells = Cells::default();
        let kept = cells.of("kept", node(1), 0);
        (0..10_000).for_each(|port| drop(cells.of("gone", node(port), 0)));
        assert!(cells.known.len() <= 2 * SLACK + 2, "{}", cells.known.len());
        assert!(Arc::ptr_eq(&kept, &cells.of("kept", node(1), 0)));
    }
}
