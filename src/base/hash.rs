//! Hashing: seeded maps against chosen collisions, and a stable hash for things that outlive a process.

#![allow(clippy::disallowed_types)] // This is the file that names them, with a hasher of its own.

use std::hash::Hash;

/// A map whose hash is seeded per process, so that no client can choose colliding keys.
pub type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// A set with the same property.
pub type Set<K> = std::collections::HashSet<K, ahash::RandomState>;

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
    #[test]
    fn the_stable_hash_is_fnv_1a() {
        assert_eq!(super::stable(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::stable(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
