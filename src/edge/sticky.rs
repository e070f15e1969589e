//! Sticky sessions: which node a client was at before, and how it is told where it is now.

use crate::exchange::Exchange;
use crate::proto::head::HeaderId;
use crate::snapshot::{Sticky, Upstream};

/// Gives the client the cookie of the node that has answered, unless it has shown just that.
pub(super) fn mark(ex: &mut Exchange, upstream: &Upstream, sticky: &Sticky) {
    let Some(address) = ex.last_attempt().map(|attempt| attempt.node) else { return };
    let is_it = |node: usize| upstream.nodes.get(node).is_some_and(|node| node.address == address);
    if sticky.node_of(ex).is_some_and(is_it) {
        return;
    }
    let place = upstream.nodes.iter().position(|node| node.address == address);
    if let Some(line) = place.and_then(|place| sticky.line(place)) {
        ex.response.headers.add_id(HeaderId::SetCookie, line);
    }
}
