//! A list with gaps that shares what has not changed with its copies.
//!
//! A value has a place, a small number, for as long as it is in the list; others come and go around it. The places
//! lie in chunks, each behind an [`Arc`], and so do the values: a copy copies the list of chunks, a change one
//! chunk of pointers. Reading follows two pointers.

use std::ops::Index;
use std::sync::Arc;

/// Places of a chunk.
const CHUNK: usize = 64;

#[derive(Debug)]
struct Chunk<T> {
    values: [Option<Arc<T>>; CHUNK],
    used: usize,
}

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), used: self.used }
    }
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self { values: std::array::from_fn(|_| None), used: 0 }
    }
}

/// Values by place.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    len: usize,
    /// No chunk before this one has room.
    roomy: usize,
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len, roomy: self.roomy }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0, roomy: 0 }
    }
}

impl<T> Slots<T> {
    /// The value at a place.
    pub fn get(&self, place: u32) -> Option<&T> {
        let place = place as usize;
        self.chunks.get(place / CHUNK)?.values[place % CHUNK].as_deref()
    }

    /// The value at a place, to be held on to.
    pub fn shared(&self, place: u32) -> Option<&Arc<T>> {
        let place = place as usize;
        self.chunks.get(place / CHUNK)?.values[place % CHUNK].as_ref()
    }

    /// Puts a value in some place that is free, the lowest there is, and tells which.
    pub fn add(&mut self, value: T) -> u32 {
        let has_room = |chunk: &Arc<Chunk<T>>| chunk.used < CHUNK;
        let behind = self.chunks[self.roomy..].iter().position(has_room);
        self.roomy = behind.map_or(self.chunks.len(), |behind| self.roomy + behind);
        if self.roomy == self.chunks.len() {
            self.chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut self.chunks[self.roomy]);
        let free = chunk.values.iter().position(Option::is_none).expect("not all places are used");
        chunk.values[free] = Some(Arc::new(value));
        chunk.used += 1;
        self.len += 1;
        (self.roomy * CHUNK + free) as u32
    }

    /// Puts a value in a given place, whether that is free or not.
    pub fn put(&mut self, place: u32, value: T) {
        let place = place as usize;
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut self.chunks[place / CHUNK]);
        if chunk.values[place % CHUNK].replace(Arc::new(value)).is_none() {
            chunk.used += 1;
            self.len += 1;
        }
    }

    /// Frees a place.
    pub fn remove(&mut self, place: u32) {
        if self.get(place).is_none() {
            return;
        }
        let place = place as usize;
        let chunk = Arc::make_mut(&mut self.chunks[place / CHUNK]);
        chunk.values[place % CHUNK] = None;
        chunk.used -= 1;
        self.len -= 1;
        self.roomy = self.roomy.min(place / CHUNK);
    }

    /// All values, by place.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.values.iter().filter_map(Option::as_deref))
    }

    /// How many values there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// For places that are known to be taken, as those are that a list's own values name.
impl<T> Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        self.get(place).expect("the place is taken")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn places_stay_free_ones_are_used_again_and_copies_stay_what_they_were() {
        let seed = 0x51075;
        let mut rng = Rng::seeded(seed);
        let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
        let mut copies: Vec<(Slots<u64>, BTreeMap<u32, u64>)> = Vec::new();
        for step in 0..20_000_u64 {
            let place = rng.below(700) as u32;
            match rng.below(if step % 4000 < 2000 { 5 } else { 3 }) {
                0 | 1 => {
                    slots.remove(place);
                    model.remove(&place);
                }
                2 if model.contains_key(&place) => {
                    slots.put(place, step);
                    model.insert(place, step);
                }
                _ => {
                    let free = (0..).find(|place| !model.contains_key(place));
                    let place = slots.add(step);
                    assert_eq!(Some(place), free, "seed {seed:#x}, step {step}");
                    model.insert(place, step);
                }
            }
            assert_eq!(slots.len(), model.len(), "seed {seed:#x}, step {step}");
            if rng.below(500) == 0 {
                copies.push((slots.clone(), model.clone()));
            }
        }
        copies.push((slots, model));
        for (slots, model) in &copies {
            assert!(slots.iter().eq(model.values()), "seed {seed:#x}");
            assert!((0..800).all(|place| slots.get(place) == model.get(&place)), "seed {seed:#x}");
            assert_eq!(slots.is_empty(), model.is_empty());
        }
    }
}
