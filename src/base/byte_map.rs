//! A hash map from bytes that shares what has not changed with its copies.
//!
//! The entries lie in small tables, each behind an [`Arc`]. A copy copies the list of tables; a change copies the
//! one table it falls into, unless nobody shares it. So of a hundred thousand entries a change touches some thirty,
//! and readers of an earlier copy never notice. A lookup hashes once, as in any map, and follows one more pointer.

use std::fmt;
use std::sync::Arc;

use ahash::RandomState;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use hashbrown::HashTable;

/// Entries of a table on average, when there are enough for more than one. Larger ones make changes dearer, smaller
/// ones copies of the list.
const TABLE_ENTRIES: usize = 32;
/// How many times as many tables there are after the map has grown.
const GROWTH: usize = 4;

#[derive(Clone)]
struct Entry<V> {
    key: Box<[u8]>,
    value: V,
}

/// Bytes to values. Its hash is seeded per process, so that no client can choose colliding keys.
#[derive(Clone)]
pub struct ByteMap<V> {
    /// None, or a power of two of them.
    tables: Vec<Arc<HashTable<Entry<V>>>>,
    len: usize,
    hasher: RandomState,
}

impl<V> Default for ByteMap<V> {
    fn default() -> Self {
        Self { tables: Vec::new(), len: 0, hasher: RandomState::default() }
    }
}

impl<V> ByteMap<V> {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.find(key, |own| own == key)
    }

    /// [`Self::get`] for a key that is a secret: comparing it with another takes as long however much of it is right.
    pub fn get_secret(&self, key: &[u8]) -> Option<&V> {
        self.find(key, |own| verify_slices_are_equal(own, key).is_ok())
    }

    fn find(&self, key: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<&V> {
        if self.tables.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let table = &self.tables[self.place(hash)];
        table.find(hash, |entry| is_it(&entry.key)).map(|entry| &entry.value)
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.tables.iter().flat_map(|table| table.iter()).map(|entry| (&*entry.key, &entry.value))
    }

    /// The table of a hash. The tables use its ends themselves, so this goes by the middle.
    fn place(&self, hash: u64) -> usize {
        (hash >> 24) as usize & (self.tables.len() - 1)
    }
}

impl<V: Clone> ByteMap<V> {
    /// The value of a key, to be changed; made if there is none.
    pub fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> &mut V {
        if self.len >= self.tables.len() * TABLE_ENTRIES {
            self.grow();
        }
        let hash = self.hasher.hash_one(key);
        let place = self.place(hash);
        let (len, hasher) = (&mut self.len, &self.hasher);
        let table = Arc::make_mut(&mut self.tables[place]);
        let entry = table.entry(hash, |entry| &*entry.key == key, |entry| hasher.hash_one(&*entry.key));
        let entry = entry.or_insert_with(|| {
            *len += 1;
            Entry { key: key.into(), value: make() }
        });
        &mut entry.into_mut().value
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        // Looked at first: a table is not copied for what it does not have.
        self.get(key)?;
        let hash = self.hasher.hash_one(key);
        let place = self.place(hash);
        let table = Arc::make_mut(&mut self.tables[place]);
        table.find_mut(hash, |entry| &*entry.key == key).map(|entry| &mut entry.value)
    }

    /// Puts a value in, and gives back the one before.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let mut value = Some(value);
        let held = self.get_or_insert_with(key, || value.take().expect("made once"));
        value.map(|value| std::mem::replace(held, value))
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.get(key)?;
        let hash = self.hasher.hash_one(key);
        let place = self.place(hash);
        let table = Arc::make_mut(&mut self.tables[place]);
        let (entry, _) = table.find_entry(hash, |entry| &*entry.key == key).ok()?.remove();
        self.len -= 1;
        Some(entry.value)
    }

    /// Divides the entries among more tables.
    fn grow(&mut self) {
        let count = (self.tables.len() * GROWTH).max(1);
        let mut tables: Vec<HashTable<Entry<V>>> = (0..count).map(|_| HashTable::new()).collect();
        for shared in std::mem::take(&mut self.tables) {
            let table = Arc::try_unwrap(shared).unwrap_or_else(|shared| HashTable::clone(&shared));
            for entry in table {
                let hash = self.hasher.hash_one(&*entry.key);
                let table = &mut tables[(hash >> 24) as usize & (count - 1)];
                table.insert_unique(hash, entry, |entry| self.hasher.hash_one(&*entry.key));
            }
        }
        self.tables = tables.into_iter().map(Arc::new).collect();
    }
}

impl<V: fmt::Debug> fmt::Debug for ByteMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (String::from_utf8_lossy(key), value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::rng::Rng;

    fn content(map: &ByteMap<u64>) -> BTreeMap<Vec<u8>, u64> {
        map.iter().map(|(key, value)| (key.to_vec(), *value)).collect()
    }

    #[test]
    fn a_secret_is_found_as_any_key_is() {
        let mut map = ByteMap::default();
        map.insert(b"secret", 1);
        assert_eq!(
            (map.get_secret(b"secret"), map.get_secret(b"secres"), map.get_secret(b"")),
            (Some(&1), None, None)
        );
    }

    #[test]
    fn it_agrees_with_an_ordered_map_and_copies_stay_what_they_were() {
        let seed = 0xb17e;
        let mut rng = Rng::seeded(seed);
        let (mut map, mut model) = (ByteMap::default(), BTreeMap::new());
        let mut copies: Vec<(ByteMap<u64>, BTreeMap<Vec<u8>, u64>)> = Vec::new();
        for step in 0..20_000_u64 {
            // Grows and shrinks by turns.
            let key = format!("key-{}", rng.below(3000)).into_bytes();
            let told = format!("seed {seed:#x}, step {step}");
            match rng.below(if step % 8000 < 4000 { 6 } else { 3 }) {
                0 | 1 => assert_eq!(map.remove(&key), model.remove(&key), "{told}"),
                2 => {
                    let (ours, theirs) = (map.get_mut(&key), model.get_mut(&key));
                    assert_eq!(ours, theirs, "{told}");
                    if let (Some(ours), Some(theirs)) = (ours, theirs) {
                        *ours += 1;
                        *theirs += 1;
                    }
                }
                3 => {
                    let ours = *map.get_or_insert_with(&key, || step);
                    assert_eq!(ours, *model.entry(key).or_insert(step), "{told}");
                }
                _ => assert_eq!(map.insert(&key, step), model.insert(key, step), "{told}"),
            }
            assert_eq!(map.len(), model.len(), "{told}");
            if rng.below(500) == 0 {
                copies.push((map.clone(), model.clone()));
            }
        }
        copies.push((map, model));
        for (map, model) in &copies {
            assert_eq!(content(map), *model, "seed {seed:#x}");
            assert!(model.iter().all(|(key, value)| map.get(key) == Some(value)), "seed {seed:#x}");
            assert_eq!(map.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn a_change_copies_one_table_only() {
        let mut map: ByteMap<Arc<()>> = ByteMap::default();
        let value = Arc::new(());
        for key in 0..10_000_u32 {
            map.insert(&key.to_le_bytes(), Arc::clone(&value));
        }
        let copy = map.clone();
        let before = Arc::strong_count(&value);
        map.remove(&7_u32.to_le_bytes());
        let copied = Arc::strong_count(&value) - before;
        assert!(copied < 8 * TABLE_ENTRIES, "{copied} entries were copied");
        assert_eq!((copy.len(), map.len()), (10_000, 9_999));
    }
}
