//! Metrics of what upstreams can do beyond APISIX's, where any does.

use super::super::board::Board;
use super::super::health::name_of;
use super::exposition::{Kind, Page, escaped};
use crate::base::clock::Moment;

/// Nodes that are ejected, and how often any was.
pub(super) fn ejections(page: &mut Page, board: &Board, now: Moment) {
    let watched = board.watched();
    let ejecting = || watched.iter().filter(|upstream| upstream.additions.outliers.is_some());
    if ejecting().next().is_none() {
        return;
    }
    let mut family = page.family("ringway_nodes_ejected", Kind::Gauge, "Nodes that are ejected as outliers");
    for upstream in ejecting() {
        let cells = upstream.nodes.iter().filter_map(|node| node.cell.as_ref());
        let out = cells.filter(|cell| cell.outlier.is_ejected(now)).count();
        family.sample(&format!("name=\"{}\"", escaped(&name_of(upstream))), out);
    }
    let help = "Ejections of nodes as outliers";
    let mut family = page.family("ringway_ejections_total", Kind::Counter, help);
    for (core, stats) in board.stats.iter().enumerate() {
        family.sample(&format!("core=\"{core}\""), stats.ejections.get());
    }
}
