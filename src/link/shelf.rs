//! How many idle connections to a node all cores keep together, and which core has more of them than it needs.
//!
//! A core takes a place for an idle connection when it first needs one more, and keeps it for the next: so a core at rest in
//! its rhythm touches nothing that is shared. What it did not use for a while it leaves to the others.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::base::address::Address;
use crate::base::hash::Map;

/// Shelves that may have gone out of use before they are looked through.
const SLACK: usize = 64;

/// Tells apart what connections lead to: a node, and by which rules it is spoken to.
type Key = (Address, u64);

/// What all cores keep idle to one node, in the same way of speaking.
#[derive(Debug)]
struct Shelf {
    /// Places that cores have, with a connection in them or not.
    taken: AtomicU32,
    /// Connections that each core could do without.
    spare: Box<[AtomicU32]>,
}

/// All shelves of a process.
#[derive(Debug)]
pub struct Shelves {
    known: Mutex<Known>,
    cores: usize,
    /// Hashes names, for all cores alike: what is lent must be known to whom it is lent.
    pub names: ahash::RandomState,
}

#[derive(Debug, Default)]
struct Known {
    shelves: Map<Key, Weak<Shelf>>,
    /// How many were in use when they were last looked through.
    in_use: usize,
}

/// One core's part of a shelf.
#[derive(Debug)]
pub struct Share {
    shelf: Arc<Shelf>,
    core: usize,
    places: usize,
}

impl Shelves {
    /// For so many cores.
    pub fn new(cores: usize) -> Self {
        Self { known: Mutex::default(), cores, names: ahash::RandomState::new() }
    }

    /// The part that a core has, without a place yet. Locks: for a core that has nothing to do with the node so far.
    pub fn share(&self, key: Key, core: usize) -> Share {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = known.shelves.get(&key).and_then(Weak::upgrade) {
            return Share { shelf, core, places: 0 };
        }
        if known.shelves.len() > 2 * known.in_use + SLACK {
            known.shelves.retain(|_, shelf| shelf.strong_count() > 0);
            known.in_use = known.shelves.len();
        }
        let spare = (0..self.cores.max(core + 1)).map(|_| AtomicU32::new(0)).collect();
        let shelf = Arc::new(Shelf { taken: AtomicU32::new(0), spare });
        known.shelves.insert(key, Arc::downgrade(&shelf));
        Share { shelf, core, places: 0 }
    }

    /// The core that has most to spare, for one that needs a connection and has none. Locks: what comes instead is a new
    /// connection.
    pub fn lender(&self, key: Key, borrower: usize) -> Option<usize> {
        if self.cores < 2 {
            return None;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = known.shelves.get(&key)?.upgrade()?;
        drop(known);
        let spare = shelf.spare.iter().map(|spare| spare.load(Relaxed)).enumerate();
        let most =
            spare.filter(|(core, spare)| *core != borrower && *spare > 0).max_by_key(|(_, spare)| *spare);
        most.map(|(core, _)| core)
    }
}

impl Share {
    /// Whether there is a place for one more than `used`, of `size` that all cores have together.
    pub fn has_room(&mut self, used: usize, size: usize) -> bool {
        if used < self.places {
            return true;
        }
        let one_more = |taken: u32| ((taken as usize) < size).then_some(taken + 1);
        let is_taken = self.shelf.taken.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        self.places += usize::from(is_taken);
        is_taken
    }

    /// Leaves all places but so many to the others.
    pub fn keep(&mut self, places: usize) {
        let left = self.places.saturating_sub(places);
        if left > 0 {
            self.shelf.taken.fetch_sub(left as u32, Relaxed);
            self.places -= left;
        }
    }

    /// Tells the others how many connections they may have.
    pub fn offer(&self, spare: usize) {
        if let Some(told) = self.shelf.spare.get(self.core) {
            told.store(u32::try_from(spare).unwrap_or(u32::MAX), Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.offer(0);
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn key(port: u16) -> Key {
        (Address::Ip(([127, 0, 0, 1], port).into()), 0)
    }

    #[test]
    fn all_cores_together_have_as_many_places_as_are_allowed() {
        const SIZE: usize = 7;
        let (seed, shelves) = (31, Shelves::new(4));
        let mut rng = Rng::seeded(seed);
        let mut shares: Vec<(Share, usize)> = (0..4).map(|core| (shelves.share(key(1), core), 0)).collect();
        for _ in 0..10_000 {
            let (share, used) = &mut shares[rng.below(4) as usize];
            match rng.below(4) {
                0 => share.keep(*used),
                1 => *used = used.saturating_sub(1),
                _ => *used += usize::from(share.has_room(*used, SIZE)),
            }
            let all: usize = shares.iter().map(|(_, used)| used).sum();
            assert!(all <= SIZE, "{all}, seed {seed}");
        }
        shares.clear();
        let mut last = shelves.share(key(1), 0);
        assert_eq!(
            (0..10).filter(|used| last.has_room(*used, SIZE)).count(),
            SIZE,
            "who ends leaves its places"
        );
    }

    #[test]
    fn a_core_with_places_needs_no_other_for_them() {
        let shelves = Shelves::new(2);
        let (mut one, mut other) = (shelves.share(key(1), 0), shelves.share(key(1), 1));
        assert!(one.has_room(0, 2) && one.has_room(1, 2) && !other.has_room(0, 2));
        assert!(one.has_room(0, 2), "it has kept them");
        one.keep(1);
        assert!(other.has_room(0, 2) && !one.has_room(1, 2));
    }

    #[test]
    fn whoever_has_most_to_spare_is_asked_and_never_oneself() {
        let shelves = Shelves::new(3);
        assert_eq!(shelves.lender(key(1), 0), None);
        let shares: Vec<Share> = (0..3).map(|core| shelves.share(key(1), core)).collect();
        assert_eq!(shelves.lender(key(1), 0), None, "nobody has offered one");
        shares[0].offer(9);
        shares[1].offer(1);
        shares[2].offer(2);
        assert_eq!(shelves.lender(key(1), 0), Some(2));
        assert_eq!(shelves.lender(key(1), 1), Some(0));
        assert_eq!(shelves.lender(key(2), 1), None, "that is another node");
        drop(shares);
        assert_eq!(shelves.lender(key(1), 1), None);
    }

    #[test]
    fn shelves_that_nobody_uses_are_forgotten() {
        let shelves = Shelves::new(2);
        (0..10_000).for_each(|port| drop(shelves.share(key(port), 0)));
        assert!(shelves.known.lock().expect("no panic").shelves.len() <= 2 * SLACK + 2);
    }
}
