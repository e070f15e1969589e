//! How requests tell of the health of nodes, where an upstream asks for it. Where none does, this costs a look.

use std::sync::Arc;
use std::time::Duration;

use super::respond::Fault;
use super::{Hall, outlier};
use crate::base::clock::Moment;
use crate::exchange::Attempt;
use crate::link::health::{Cell, Visit};
use crate::link::outlier::Outcome;
use crate::snapshot::{PassHost, Upstream};

/// Counts a request as under way to a node.
pub(super) fn enter(upstream: &Upstream, node: usize) -> Option<Visit<&Cell>> {
    if !upstream.is_measured {
        return None;
    }
    upstream.nodes[node].cell.as_deref().map(|cell| cell.enter())
}

/// The same for a request that lasts longer than its snapshot is looked at.
pub(super) fn enter_for_long(upstream: &Upstream, node: usize) -> Option<Visit<Arc<Cell>>> {
    if !upstream.is_measured {
        return None;
    }
    upstream.nodes[node].cell.as_ref().map(Cell::enter_for_long)
}

/// A node has answered.
pub(super) fn note_answer(
    hall: &Hall,
    upstream: &Upstream,
    node: usize,
    attempt: Option<&Attempt>,
    now: Moment,
) {
    let (Some(cell), Some(attempt)) = (upstream.nodes[node].cell.as_deref(), attempt) else { return };
    if upstream.is_measured {
        cell.note_latency(attempt.header, now);
    }
    if let Some(rules) = upstream.checks.as_ref().and_then(|checks| checks.passive.as_ref())
        && let Some(news) = rules.news_of(attempt.status)
    {
        cell.note(news, &rules.thresholds);
    }
    if let Some(outliers) = &upstream.additions.outliers {
        outlier::note(hall, upstream, outliers, node, Outcome::of(attempt.status), now);
    }
}

/// A node did not answer as it should.
pub(super) fn note_fault(hall: &Hall, upstream: &Upstream, node: usize, fault: Fault) {
    // The name was the client's: that the node has no certificate for it says nothing of the node.
    if fault == Fault::TlsRefused && matches!(upstream.pass_host, PassHost::Pass) {
        return;
    }
    let (Some(cell), Some(news)) = (upstream.nodes[node].cell.as_deref(), fault.news()) else { return };
    if let Some(rules) = upstream.checks.as_ref().and_then(|checks| checks.passive.as_ref()) {
        cell.note(news, &rules.thresholds);
    }
    if let Some(outliers) = &upstream.additions.outliers {
        outlier::note(hall, upstream, outliers, node, Outcome::GatewayFailure, hall.core.now());
    }
}

/// Whether no node is to be asked: there is none, or each is unhealthy or ejected.
pub(super) fn are_all_down(upstream: &Upstream, now: Moment) -> bool {
    let ejects = upstream.additions.outliers.is_some();
    let is_up = |cell: &Cell| cell.is_up() && !(ejects && cell.outlier.is_ejected(now));
    !upstream.nodes.iter().any(|node| node.cell.as_deref().is_none_or(is_up))
}

/// A node was too late with its answer, so that nobody has waited for it.
pub(super) fn note_late(upstream: &Upstream, node: usize, time: Duration, now: Moment) {
    if let Some(cell) = upstream.nodes[node].cell.as_deref().filter(|_| upstream.is_measured) {
        cell.note_latency(time, now);
    }
}
