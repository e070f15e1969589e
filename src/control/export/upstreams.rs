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

/// How many requests upstreams are given at once.
pub(super) fn throttles(page: &mut Page, board: &Board) {
    let watched = board.watched();
    let sights: Vec<_> = watched
        .iter()
        .filter_map(|upstream| {
            let sight = upstream.additions.throttle.as_ref()?.sight();
            Some((format!("name=\"{}\"", escaped(&name_of(upstream))), sight))
        })
        .collect();
    if sights.is_empty() {
        return;
    }
    let help = "Most requests that an upstream is given at once";
    let mut family = page.family("ringway_concurrency_limit", Kind::Gauge, help);
    for (labels, sight) in &sights {
        family.sample(labels, sight.limit);
    }
    let help = "Requests under way to an upstream that has such a limit";
    let mut family = page.family("ringway_concurrency_under_way", Kind::Gauge, help);
    for (labels, sight) in &sights {
        family.sample(labels, sight.under_way);
    }
    let help = "Requests refused for such a limit";
    let mut family = page.family("ringway_concurrency_shed_total", Kind::Counter, help);
    for (labels, sight) in &sights {
        family.sample(&format!("{labels},priority=\"normal\""), sight.shed.saturating_sub(sight.shed_low));
        family.sample(&format!("{labels},priority=\"low\""), sight.shed_low);
    }
}
