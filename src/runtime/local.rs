//! State of a core that outlives requests and snapshots: a plugin's buckets, a balancer's turn.
//!
//! An id is handed out by the control thread for one owner, plugin and configuration; the same three get the
//! same id in the next snapshot, so their state goes on, and an id is never used for anything else again.
//! With a snapshot come the ids that were retired lately, and the core forgets them; what a request of an older
//! snapshot makes again after that is swept up later.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::base::hash::Numbered;

/// Names one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalId(pub u64);

/// All such state of one core.
#[derive(Debug, Default)]
pub struct Locals {
    states: RefCell<Numbered<LocalId, Rc<dyn Any>>>,
}

impl Locals {
    /// The state of an id, made on first use.
    pub fn of<T: 'static>(&self, id: LocalId, make: impl FnOnce() -> T) -> Rc<T> {
        if let Some(state) = self.states.borrow().get(&id) {
            return Rc::clone(state).downcast().expect("a LocalId is handed out for one type");
        }
        // `make` runs outside of any borrow, so it may ask for other states.
        let state = Rc::new(make());
        self.states.borrow_mut().insert(id, Rc::clone(&state) as Rc<dyn Any>);
        state
    }

    /// Forgets the states of these ids.
    pub fn forget(&self, ids: &[LocalId]) {
        // Dropped after the borrow ends: a state's own drop may ask for others.
        let gone: Vec<Rc<dyn Any>> = {
            let mut states = self.states.borrow_mut();
            ids.iter().filter_map(|id| states.remove(id)).collect()
        };
        drop(gone);
    }

    /// Forgets the states of ids that are not live.
    pub fn sweep(&self, is_live: impl Fn(&LocalId) -> bool) {
        let dead: Vec<LocalId> = self.states.borrow().keys().filter(|id| !is_live(id)).copied().collect();
        self.forget(&dead);
    }

    /// How many states there are.
    pub fn len(&self) -> usize {
        self.states.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::base::hash::{Map, Set};
    use crate::base::rng::Rng;

    #[test]
    fn state_follows_its_owner_and_no_one_else_through_random_swaps() {
        let seed = 20;
        let mut rng = Rng::seeded(seed);
        let locals = Locals::default();
        let mut expected: Map<LocalId, u64> = Map::default();
        for _ in 0..2000 {
            let id = LocalId(rng.below(40));
            if rng.below(20) == 0 {
                let live: Set<LocalId> = (0..40).map(LocalId).filter(|_| rng.below(2) == 0).collect();
                if rng.below(2) == 0 {
                    locals.sweep(|id| live.contains(id));
                } else {
                    let gone: Vec<LocalId> = (0..40).map(LocalId).filter(|id| !live.contains(id)).collect();
                    locals.forget(&gone);
                }
                expected.retain(|id, _| live.contains(id));
                assert_eq!(locals.len(), expected.len(), "seed {seed}");
            }
            let state = locals.of(id, || Cell::new(0_u64));
            let count = expected.entry(id).or_default();
            assert_eq!(state.get(), *count, "seed {seed}, {id:?}");
            *count += 1;
            state.set(*count);
        }
    }
}
