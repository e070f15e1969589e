//! Hashing: seeded maps against chosen collisions, and a stable hash for things that outlive a process.

#![allow(clippy::disallowed_types)] // This is the file that names them, with a hasher of its own.

use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A map whose hash is seeded per process, so that no client can choose colliding keys.
pub type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// A set with the same property.
pub type Set<K> = std::collections::HashSet<K, ahash::RandomState>;

/// A map by numbers that are given out here one after the other: nobody else chooses them, so they need no seed.
pub type Numbered<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Numbers>>;

/// Spreads numbers over a table by one multiplication (Fibonacci hashing).
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// A hash that is the same in every run and on every machine (FNV-1a, 64 bits).
/// For fingerprints of configuration; never for keys a client chooses.
pub fn stable(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A hash seeded per process, for tables that keep the hash rather than the key.
pub fn seeded<T: Hash + ?Sized>(state: &ahash::RandomState, value: &T) -> u64 {
    state.hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_fall_on_places_of_their_own() {
        let hash = |number: u64| {
            let mut hasher = Numbers::default();
            number.hash(&mut hasher);
            hasher.finish()
        };
        // By which a table of that many places is looked up, and what it compares first.
        let places: Set<u64> = (0..1024).map(|number| hash(number) % 1024).collect();
        let tags: Set<u64> = (0..1024).map(|number| hash(number) >> 57).collect();
        assert_eq!((places.len(), tags.len()), (1024, 128));
    }

    #[test]
    fn the_stable_hash_is_fnv_1a() {
        assert_eq!(stable(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
