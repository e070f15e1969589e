//! `store.mark`: which revision the store has reached, beside it, so that one that has gone back is noticed.
//!
//! It is written after a commit is on disk and before that is acknowledged, and not synced: what notices damage need not
//! survive the loss of power. The file of the store is begun anew in a life of its own at each start, after it was copied;
//! so a copy that is put in its place is of another life, and nothing is held against it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

pub(super) const FILE: &str = "store.mark";
/// Life, revision, and the checksum of both.
const BYTES: usize = 24;

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens the file of a folder, or makes it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(dir.join(FILE)).map(Self)
    }

    /// Says which revision a life has reached.
    pub(super) fn write(&self, life: u64, revision: u64) -> io::Result<()> {
        self.0.write_all_at(&bytes(life, revision), 0)
    }
}

/// The revision that a life had reached, as far as it is known. A mark that is damaged says nothing.
pub(super) fn reached(dir: &Path, life: u64) -> Option<u64> {
    let mut found = [0; BYTES];
    File::open(dir.join(FILE)).and_then(|file| file.read_exact_at(&mut found, 0)).ok()?;
    let number = |at: usize| found[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (number(0) == life && found == bytes(life, number(8))).then(|| number(8))
}

fn bytes(life: u64, revision: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&life.to_le_bytes());
    bytes[8..16].copy_from_slice(&revision.to_le_bytes());
    let sum = u64::from(crc32fast::hash(&bytes[..16]));
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_mark_is_of_one_life_and_says_nothing_once_damaged() {
        let dir = TempDir::new().unwrap();
        assert_eq!(reached(dir.path(), 1), None);
        let mark = Mark::open(dir.path()).unwrap();
        mark.write(1, 7).unwrap();
        mark.write(1, 8).unwrap();
        assert_eq!((reached(dir.path(), 1), reached(dir.path(), 2)), (Some(8), None));
        let file = dir.path().join(FILE);
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&file, damaged).unwrap();
            assert_eq!(reached(dir.path(), 1), None, "byte {at}");
        }
        fs::write(&file, &whole[..BYTES - 1]).unwrap();
        assert_eq!(reached(dir.path(), 1), None);
    }
}
