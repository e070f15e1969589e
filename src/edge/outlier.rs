//! How requests tell of outliers, where an upstream ejects them.

use super::Hall;
use crate::base::clock::Moment;
use crate::link::outbox::Level;
use crate::link::outlier::{Outcome, Outlier};
use crate::snapshot::{Outliers, Upstream};

/// Takes in how a request to a node ended, and ejects the node if that is due.
pub(super) fn note(
    hall: &Hall,
    upstream: &Upstream,
    outliers: &Outliers,
    node: usize,
    outcome: Outcome,
    now: Moment,
) {
    let cell_of = |place: usize| upstream.nodes.get(place).and_then(|node| node.cell.as_deref());
    let Some(cell) = cell_of(node) else { return };
    let places = 0..upstream.nodes.len();
    let of = |place: usize| -> Option<&Outlier> { cell_of(place).map(|cell| &cell.outlier) };
    let others = places.clone().filter(|place| *place != node).filter_map(of);
    let Some(cause) = cell.outlier.note(outcome, &outliers.rules, others, now) else { return };
    let Some(time) = cell.outlier.eject(places.filter_map(of), &outliers.rules, &outliers.door, now) else {
        return;
    };
    cell.begin_anew();
    hall.core.stats.ejections.add(1);
    let (name, address) = (&upstream.name, upstream.nodes[node].address);
    hall.core.note(
        Level::Warn,
        format!("{name}: node {address} is ejected for {} s: {cause}", time.as_secs_f64()),
    );
}
