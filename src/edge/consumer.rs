//! What a consumer adds to a request once it is known: its plugins, in chains that a core keeps.

use std::rc::Rc;

use super::{Hall, MERGED_MAX, View};
use crate::exchange::Exchange;
use crate::snapshot::Chain;

/// The route's chain with the consumer's plugins over it, if the consumer has any.
pub(super) fn merge(hall: &Hall, view: &View, route: Option<u32>, ex: &Exchange) -> Option<Rc<Chain>> {
    let (at, place) = (route?, ex.consumer_at?);
    let consumer = view.consumers.get(place)?;
    if consumer.changes_nothing() {
        return None;
    }
    let mut known = hall.merged.borrow_mut();
    if let Some(chain) = known.get(&(at, place)) {
        return Some(Rc::clone(chain));
    }
    if known.len() >= MERGED_MAX {
        known.clear();
    }
    let chain = Rc::new(consumer.over(&view.routes[at].chain));
    // A request that outlives its snapshot must not leave a chain of it behind.
    if hall.view.borrow().generation == view.generation {
        known.insert((at, place), Rc::clone(&chain));
    }
    Some(chain)
}
