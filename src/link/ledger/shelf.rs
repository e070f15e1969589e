//! A part of the ledger: accounts in places that never move, and the way from a print to a place.
//!
//! Places come in chunks that are made when they are needed and stay, so an account is reached by its number without a
//! lock. Which print has which place is known under the lock alone. Accounts that were opened one after the other do not lie side by side,
//! because two that are busy on two cores would slow each other down.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Print;
use super::account::Account;
use crate::base::clock::Moment;
use crate::base::hash::Map;

/// Places of the first chunk: most processes count few keys. A power of two, as the next.
const FIRST: u32 = 32;
/// Places of any other. 24 KB: half a chunk of each shard is in vain on average.
const CHUNK: u32 = 512;
/// Odd, so that steps of so many places come to all of a chunk.
const STRIDE: u32 = 197;
/// Places that are looked at for one that may be had, when all are taken.
const LOOKS_MAX: u32 = 16;

type Chunk = OnceLock<Box<[Account]>>;

/// Accounts of keys that have something in common: their hash, so that not all need the same lock.
#[derive(Debug)]
pub(super) struct Shelf {
    first: Chunk,
    chunks: Box<[Chunk]>,
    room: u32,
    desk: Mutex<Desk>,
}

/// What is known under the lock alone.
#[derive(Debug, Default)]
pub(super) struct Desk {
    index: Index,
    /// How many places are taken: those before it.
    taken: u32,
    /// Where the last look for a place ended.
    hand: u32,
    /// Accounts of new keys that found no place, by limit. Empty unless all places are taken.
    pub(super) crowds: Map<Print, Arc<Account>>,
}

impl Shelf {
    /// For so many accounts.
    pub(super) fn new(room: u32) -> Self {
        let room = room.clamp(1, PLACES_MAX);
        let chunks = room.div_ceil(CHUNK);
        Self {
            first: Chunk::new(),
            chunks: (0..chunks).map(|_| Chunk::new()).collect(),
            room,
            desk: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account in a place that was given to somebody.
    #[inline]
    pub(super) fn at(&self, place: u32) -> &Account {
        let (chunk, size) = self.chunk(place);
        let chunk = chunk.get().expect("a place that was given away was made before");
        &chunk[(place.wrapping_mul(STRIDE) & (size - 1)) as usize]
    }

    #[inline]
    fn chunk(&self, place: u32) -> (&Chunk, u32) {
        if place < FIRST { (&self.first, FIRST) } else { (&self.chunks[(place / CHUNK) as usize], CHUNK) }
    }

    /// The place of a print.
    #[inline]
    pub(super) fn find(&self, desk: &Desk, print: Print) -> Option<u32> {
        desk.index.find(print, |place| self.at(place).print() == print)
    }

    /// A place with a fresh account, if there is one never taken, or one of those that are looked at may be had.
    pub(super) fn open(&self, desk: &mut Desk, print: Print, now: Moment) -> Option<u32> {
        let place = if desk.taken < self.room {
            let (chunk, size) = self.chunk(desk.taken);
            chunk.get_or_init(|| (0..size).map(|_| Account::default()).collect());
            desk.taken += 1;
            desk.taken - 1
        } else {
            let found = (0..LOOKS_MAX.min(self.room)).find_map(|_| {
                let place = desk.hand % self.room;
                desk.hand = place + 1;
                self.at(place).is_free(now).then_some(place)
            })?;
            desk.index.remove(self.at(found).print(), found, |place| self.at(place).print());
            found
        };
        self.at(place).begin(print);
        desk.index.insert(print, place, |place| self.at(place).print());
        Some(place)
    }
}

impl Desk {
    /// How many accounts there are.
    pub(super) const fn accounts(&self) -> usize {
        self.taken as usize
    }
}

/// Bits of an entry that say the place.
const PLACE_BITS: u32 = 21;
/// Most places that can be told apart, with one for "none".
pub(super) const PLACES_MAX: u32 = (1 << PLACE_BITS) - 1;

/// From prints to places: an open table of 32 bits an entry, of which some are the print's, so that seldom an account is
/// looked at in vain.
#[derive(Debug, Default)]
struct Index {
    /// A power of two. Zero: nothing.
    entries: Vec<u32>,
    used: usize,
}

impl Index {
    const fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    const fn home(&self, print: Print) -> usize {
        (print.1 >> 32) as usize & self.mask()
    }

    const fn entry(print: Print, place: u32) -> u32 {
        (print.1 as u32) << PLACE_BITS | (place + 1)
    }

    #[inline]
    fn find(&self, print: Print, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let tag = (print.1 as u32) << PLACE_BITS;
        let mut at = self.home(print);
        // An eighth is empty.
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            if (entry ^ tag) >> PLACE_BITS == 0 {
                let place = (entry & PLACES_MAX) - 1;
                if is_it(place) {
                    return Some(place);
                }
            }
            at = (at + 1) & self.mask();
        }
    }

    fn insert(&mut self, print: Print, place: u32, print_of: impl Fn(u32) -> Print) {
        if (self.used + 1) * 8 > self.entries.len() * 7 {
            let size = (self.entries.len() * 2).max(16);
            let before = std::mem::replace(&mut self.entries, vec![0; size]);
            for entry in before.into_iter().filter(|entry| *entry != 0) {
                let place = (entry & PLACES_MAX) - 1;
                self.put(print_of(place), place);
            }
        }
        self.put(print, place);
        self.used += 1;
    }

    fn put(&mut self, print: Print, place: u32) {
        let mut at = self.home(print);
        while self.entries[at] != 0 {
            at = (at + 1) & self.mask();
        }
        self.entries[at] = Self::entry(print, place);
    }

    /// Takes an entry out, and moves those up that were put after it for want of their own place.
    fn remove(&mut self, print: Print, place: u32, print_of: impl Fn(u32) -> Print) {
        let entry = Self::entry(print, place);
        let mut hole = self.home(print);
        while self.entries[hole] != entry {
            if self.entries[hole] == 0 {
                return;
            }
            hole = (hole + 1) & self.mask();
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let entry = self.entries[at];
            if entry == 0 {
                break;
            }
            let home = self.home(print_of((entry & PLACES_MAX) - 1));
            // How far it is from home; it may move up to the hole if that is not before its home.
            let (away, gap) = (at.wrapping_sub(home) & self.mask(), at.wrapping_sub(hole) & self.mask());
            if away >= gap {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole] = 0;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Prints that often have the same home, and the same bits in an entry.
    fn print(rng: &mut Rng) -> Print {
        (rng.below(4), rng.below(24) << 32 | rng.below(3))
    }

    #[test]
    fn an_index_knows_what_was_put_in_and_not_taken_out() {
        let seed = 4242;
        let mut rng = Rng::seeded(seed);
        let mut index = Index::default();
        let mut model: Vec<Option<Print>> = vec![None; 200];
        for step in 0..40_000 {
            let place = rng.below(200) as u32;
            let there = model[place as usize];
            match there {
                Some(print) if rng.below(3) > 0 => {
                    index.remove(print, place, |place| model[place as usize].unwrap());
                    model[place as usize] = None;
                }
                Some(_) => {}
                None => {
                    let print = print(&mut rng);
                    if model.contains(&Some(print)) {
                        continue;
                    }
                    index.insert(print, place, |place| model[place as usize].unwrap());
                    model[place as usize] = Some(print);
                }
            }
            let print = print(&mut rng);
            let expected = model.iter().position(|known| *known == Some(print)).map(|at| at as u32);
            let found = index.find(print, |place| model[place as usize] == Some(print));
            assert_eq!(found, expected, "seed {seed}, step {step}");
            assert_eq!(index.used, model.iter().flatten().count(), "seed {seed}, step {step}");
        }
    }

    #[test]
    fn places_of_a_chunk_are_all_used_and_neighbours_lie_apart() {
        let shelf = Shelf::new(CHUNK * 2);
        let mut desk = shelf.lock();
        let places: Vec<u32> = (0..u64::from(CHUNK) * 2)
            .map_while(|key| shelf.open(&mut desk, (key, key << 32), Moment::ZERO))
            .collect();
        assert_eq!(places.len(), CHUNK as usize * 2);
        assert_eq!(shelf.open(&mut desk, (0, 7), Moment::ZERO), Some(0), "one that nobody needs");
        let mut all: Vec<usize> =
            places.iter().map(|place| std::ptr::from_ref(shelf.at(*place)).addr()).collect();
        for pair in all.windows(2) {
            assert!(pair[0].abs_diff(pair[1]) >= 128, "{pair:?}");
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), places.len());
    }
}
