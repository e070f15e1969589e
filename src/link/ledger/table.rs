//! Accounts in a table of their own prints: what is looked at to find one is what is spent from.
//!
//! A row is an account that no core remembers, 32 bytes. Rows stand in buckets of two lines of the cache side by side, and a key
//! that finds its bucket full stands in one after it; so nearly always one look at memory is all that it takes. All under
//! the lock of a shelf: words are plain, and rows move when the table grows.

use super::Print;
use super::account::Account;
use crate::base::clock::Moment;

/// Rows of a bucket.
const WAYS: usize = 4;
/// Buckets of a chunk: 4 KB. Tables grow by chunks, and give those they have moved out of to the next table that grows.
const CHUNK: usize = 32;
/// Chunks by which a table grows: one of so many there are. Tables differ, so that not all are at their emptiest at once.
const GROWTH: [usize; 4] = [4, 5, 6, 7];
/// Where a row is, until one is put in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    bucket: usize,
    way: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Bucket([Account; WAYS]);

impl Bucket {
    const fn empty() -> Self {
        Self([const { Account::none() }; WAYS])
    }
}

type Chunk = Box<[Bucket; CHUNK]>;

/// Rows by print. A fifth of them at least is empty.
#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Option<Chunk>>,
    used: usize,
}

impl Table {
    /// How many accounts there are.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    #[inline]
    const fn size(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    #[inline]
    const fn home(&self, print: Print) -> usize {
        (((print >> 32) * self.size() as u64) >> 32) as usize
    }

    const fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.size() { 0 } else { bucket + 1 }
    }

    /// How many buckets one is after another.
    const fn gap(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.size() - from }
    }

    #[inline]
    fn rows(&self, bucket: usize) -> Option<&[Account; WAYS]> {
        let chunk = self.chunks.get(bucket / CHUNK)?.as_ref()?;
        Some(&chunk[bucket % CHUNK].0)
    }

    #[inline]
    fn rows_mut(&mut self, bucket: usize) -> &mut [Account; WAYS] {
        let chunk =
            self.chunks[bucket / CHUNK].get_or_insert_with(|| Box::new([const { Bucket::empty() }; CHUNK]));
        &mut chunk[bucket % CHUNK].0
    }

    /// Where a key's row is.
    #[inline]
    pub(super) fn find(&self, print: Print) -> Option<At> {
        let mut bucket = self.home(print);
        loop {
            let rows = self.rows(bucket)?;
            // All four are looked at, without a branch that would have to be guessed before memory has answered.
            let way = (0..WAYS).fold(WAYS, |found, way| if rows[way].is_of(print) { way } else { found });
            if way < WAYS {
                return Some(At { bucket, way });
            }
            if rows[WAYS - 1].is_none() {
                return None;
            }
            bucket = self.after(bucket);
        }
    }

    #[inline]
    pub(super) fn row(&self, at: At) -> &Account {
        let chunk = self.chunks[at.bucket / CHUNK].as_ref().expect("there is a row");
        &chunk[at.bucket % CHUNK].0[at.way % WAYS]
    }

    /// Puts in a row whose key has none; where it is. `salt` makes tables differ in when they grow.
    pub(super) fn insert(&mut self, row: Account, salt: usize) -> At {
        if (self.used + 1) * 5 > self.size() * WAYS * 4 {
            self.grow(self.chunks.len() / GROWTH[salt % GROWTH.len()] + 1);
        }
        self.used += 1;
        self.put(row)
    }

    /// Moves into so many chunks more, one after the other, and leaves each as soon as it is empty: the next is made where
    /// it was.
    #[cold]
    fn grow(&mut self, by: usize) {
        let size = self.chunks.len() + by;
        let mut before = std::mem::replace(&mut self.chunks, (0..size).map(|_| None).collect());
        while let Some(chunk) = before.pop() {
            let mut chunk = chunk;
            for row in chunk.iter_mut().flat_map(|chunk| chunk.iter_mut()).flat_map(|bucket| &mut bucket.0) {
                if !row.is_none() {
                    self.put(std::mem::take(row));
                }
            }
        }
    }

    /// Rows of a bucket are taken from the first on: its last one says whether it is full.
    fn put(&mut self, row: Account) -> At {
        let mut bucket = self.home(row.print());
        loop {
            let rows = self.rows_mut(bucket);
            if let Some(way) = rows.iter().position(Account::is_none) {
                rows[way] = row;
                return At { bucket, way };
            }
            bucket = self.after(bucket);
        }
    }

    /// Takes a row out, and moves those up that went past it for want of room.
    pub(super) fn remove(&mut self, at: At) {
        self.used -= 1;
        let mut hole = at.bucket;
        let mut was_full = self.close_up(at);
        let mut bucket = self.after(hole);
        // Nobody went past a bucket that was not full.
        while was_full {
            let Some(rows) = self.rows(bucket) else { break };
            was_full = !rows[WAYS - 1].is_none();
            let went_past = |row: &Account| {
                !row.is_none() && self.gap(self.home(row.print()), bucket) >= self.gap(hole, bucket)
            };
            if let Some(way) = rows.iter().position(went_past) {
                let row = std::mem::take(&mut self.rows_mut(bucket)[way]);
                self.rows_mut(hole)[WAYS - 1] = row;
                self.close_up(At { bucket, way });
                hole = bucket;
            }
            bucket = self.after(bucket);
        }
    }

    /// Closes the gap in a bucket; whether it was full.
    fn close_up(&mut self, at: At) -> bool {
        let rows = self.rows_mut(at.bucket);
        let was_full = !rows[WAYS - 1].is_none();
        rows[at.way] = Account::none();
        rows[at.way..].rotate_left(1);
        was_full
    }

    /// Some row that is over, among `looks` of them from where `hand` points; it is moved on.
    pub(super) fn over(&self, hand: &mut usize, looks: usize, now: Moment) -> Option<At> {
        (0..looks).find_map(|_| {
            *hand = if *hand + 1 < self.size() * WAYS { *hand + 1 } else { 0 };
            let at = At { bucket: *hand / WAYS, way: *hand % WAYS };
            let row = &self.rows(at.bucket)?[at.way];
            let is_over = !row.is_none() && row.place().is_none() && !row.is_in_force(now);
            is_over.then_some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn a_bucket_is_two_lines_of_the_cache() {
        assert_eq!((size_of::<Account>(), size_of::<Bucket>(), align_of::<Bucket>()), (32, 128, 128));
    }

    #[test]
    fn a_table_knows_what_was_put_in_and_not_taken_out() {
        for seed in [4242, 4243, 4244] {
            let mut rng = Rng::seeded(seed);
            // Prints that often have the same home, also the last one, whose next is the first.
            let prints: Vec<Print> = (0..400).map(|key| (rng.below(9) * 7) << 58 | (key + 1) << 4).collect();
            let mut table = Table::default();
            let mut model = vec![false; prints.len()];
            for step in 0..60_000 {
                let key = rng.below(prints.len() as u64) as usize;
                let at = table.find(prints[key]);
                assert_eq!(at.is_some(), model[key], "seed {seed}, step {step}, {key}");
                match at {
                    Some(at) => {
                        assert_eq!(
                            table.row(at).third.load(Ordering::Relaxed),
                            key as u64,
                            "seed {seed}, step {step}"
                        );
                        if rng.below(3) > 0 {
                            table.remove(at);
                            model[key] = false;
                        }
                    }
                    None if rng.below(1000) < 500 + 400 * (step / 20_000) => {
                        let at = table.insert(Account::fresh(prints[key]), 3);
                        table.row(at).third.store(key as u64, Ordering::Relaxed);
                        model[key] = true;
                    }
                    None => {}
                }
                assert_eq!(table.len(), model.iter().filter(|is_in| **is_in).count());
            }
            for (key, is_in) in model.iter().enumerate() {
                assert_eq!(table.find(prints[key]).is_some(), *is_in, "seed {seed}, {key}");
            }
        }
    }
}
