//! `store.journal`: the commits since the last that went into `store.redb`, each of them on disk after one write and one sync.
//!
//! It is as long as it gets from the start on, so that a commit changes bytes of a file and nothing of the file system.
//! What does not fit goes into `store.redb` together with all that is in here ([`Disk`](super::disk::Disk)), after which
//! it is written from its start again. So old commits stay behind the new ones, and two numbers say which count: those of
//! this life of the file ([`mark`](super::mark)), each with the revision that follows the one before, the first the one that `store.redb` is at.
//!
//! A commit that was cut short by a sudden end was never acknowledged, and is the end. One that is followed by another that counts
//! was damaged later, or `store.redb` has gone back: that is refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::step_aside::step_aside;
use super::batch::Batch;

pub(super) const FILE: &str = "store.journal";
/// Its length. The more fits, the rarer is the transaction that takes all of it into `store.redb`, and the longer: a hundred changes
/// of a route of 500 bytes each.
const BYTES: usize = 256 * 1024;
/// A commit begins so; 0xF5 is in no text.
const MAGIC: [u8; 4] = [0xF5, b'R', b'W', b'J'];
/// A commit begins at a multiple of it, so that a disk that writes one sector badly as it loses power spoils no other.
const SECTOR_BYTES: usize = 512;
/// [`MAGIC`], the length of the text, and the checksum of both that and the text.
const HEAD_BYTES: usize = 12;

/// A commit as text.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    life: u64,
    revision: u64,
    #[serde(borrow)]
    objects: BTreeMap<Cow<'a, str>, Option<&'a RawValue>>,
    forgotten: Vec<u64>,
    #[serde(borrow)]
    history: BTreeMap<u64, &'a RawValue>,
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Where the next commit goes.
    end: usize,
}

impl Journal {
    /// Opens the file of a folder, or makes it. Whatever is in it counts no more.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(dir.join(FILE))?;
        if file.metadata()?.len() != BYTES as u64 {
            file.set_len(0)?;
            file.write_all_at(&vec![0; BYTES], 0)?;
        }
        // Whoever made it may have ended before it was on disk.
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file, end: 0 })
    }

    /// What it holds: not what is under its name, which somebody may have given to another file.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BYTES];
        self.file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    }

    /// Adds a commit, which is on disk then. False: there is no room for it, and nothing was written.
    pub(super) fn add(&mut self, life: u64, batch: &Batch) -> io::Result<bool> {
        let commit = commit(life, batch)?;
        if commit.len() > BYTES - self.end {
            return Ok(false);
        }
        if let Err(error) = self.write(&commit) {
            // It may be there all the same, and is not to be found by whoever starts before the file was.
            let _ = done(|| self.file.write_all_at(&[0; HEAD_BYTES], self.end as u64));
            let _ = done(|| self.file.sync_data());
            return Err(error);
        }
        self.end = (self.end + commit.len()).next_multiple_of(SECTOR_BYTES);
        Ok(true)
    }

    fn write(&self, commit: &[u8]) -> io::Result<()> {
        done(|| self.file.write_all_at(commit, self.end as u64))?;
        step_aside();
        done(|| self.file.sync_data())
    }

    /// All that is in it has gone elsewhere.
    pub(super) const fn begin_again(&mut self) {
        self.end = 0;
    }
}

/// What the file of a folder holds; nothing where there is none.
pub(super) fn read(dir: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(dir.join(FILE)) {
        Ok(file) => file.take(BYTES as u64).read_to_end(&mut bytes).map(|_| bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(error),
    }
}

/// The commits that follow a revision in a life, in their order. What is wrong is told in words.
pub(super) fn commits(bytes: &[u8], life: u64, mut reached: u64) -> Result<Vec<Batch>, String> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((commit, end)) = batch(bytes, at, life)?
        && reached.checked_add(1) == Some(commit.revision)
    {
        (reached, at) = (commit.revision, end);
        found.push(commit);
    }
    for place in (at..bytes.len()).step_by(SECTOR_BYTES) {
        if let Some((later, _)) = batch(bytes, place, life)?
            && later.revision > reached
        {
            return Err(format!(
                "revision {} is at byte {place}, and none before it follows on revision {reached}. It was left as it is. To \
                 go on at revision {reached}, cut it to {at} bytes and move {} away",
                later.revision,
                super::mark::FILE
            ));
        }
    }
    Ok(found)
}

/// The commit of a life that begins at a byte, and where the next one does.
fn batch(bytes: &[u8], at: usize, life: u64) -> Result<Option<(Batch, usize)>, String> {
    let Some(text) = bytes.get(at..).and_then(text) else { return Ok(None) };
    let line: Line<'_> =
        serde_json::from_slice(text).map_err(|error| format!("the commit at byte {at}: {error}"))?;
    if line.life != life {
        return Ok(None);
    }
    let owned = |row: &RawValue| row.get().as_bytes().to_vec();
    let batch = Batch {
        objects: line.objects.into_iter().map(|(name, row)| (name.into_owned(), row.map(owned))).collect(),
        forgotten: line.forgotten,
        history: line.history.into_iter().map(|(revision, row)| (revision, owned(row))).collect(),
        ..Batch::changing(line.revision)
    };
    Ok(Some((batch, (at + HEAD_BYTES + text.len()).next_multiple_of(SECTOR_BYTES))))
}

/// The text of the commit that these bytes begin with, if it is whole.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let text = rest.get(..number(4) as usize)?;
    (head[..4] == MAGIC && number(8) == checksum(text)).then_some(text)
}

fn commit(life: u64, batch: &Batch) -> io::Result<Vec<u8>> {
    let mut line = Line {
        life,
        revision: batch.revision,
        objects: BTreeMap::new(),
        forgotten: batch.forgotten.clone(),
        history: BTreeMap::new(),
    };
    for (name, row) in &batch.objects {
        line.objects.insert(Cow::Borrowed(name), row.as_deref().map(raw).transpose()?);
    }
    for (revision, row) in &batch.history {
        line.history.insert(*revision, raw(row)?);
    }
    let mut commit = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut commit, &line)?;
    let (head, text) = commit.split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(&MAGIC);
    // Whatever is longer than the number can say is longer than the file.
    head[4..8].copy_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    head[8..].copy_from_slice(&checksum(text).to_le_bytes());
    Ok(commit)
}

fn raw(row: &[u8]) -> io::Result<&RawValue> {
    Ok(serde_json::from_slice(row)?)
}

/// Of a text and its length.
fn checksum(text: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&(text.len() as u64).to_le_bytes());
    sum.update(text);
    sum.finalize()
}

/// Writes, on a disk that tests can make fail.
fn done(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    #[cfg(test)]
    return super::tests::faults::through(work);
    #[cfg(not(test))]
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u64 = 7;

    /// The commit of a revision, with rows of that many bytes.
    fn batch_of(revision: u64, bytes: usize) -> Batch {
        let row = serde_json::to_vec(&"é".repeat(bytes / 2)).unwrap();
        Batch {
            objects: [("routes/1".to_owned(), Some(row.clone())), ("routes/\"2".to_owned(), None)].into(),
            forgotten: vec![revision.saturating_sub(1)],
            history: [(revision, row)].into(),
            ..Batch::changing(revision)
        }
    }

    fn bytes_of(revisions: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let padded = |revision| {
            let mut bytes = commit(LIFE, &batch_of(revision, 40)).unwrap();
            bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 7);
            bytes
        };
        revisions.into_iter().flat_map(padded).collect()
    }

    fn revisions(found: Result<Vec<Batch>, String>) -> Result<Vec<u64>, String> {
        found.map(|commits| commits.iter().map(|commit| commit.revision).collect())
    }

    #[test]
    fn what_is_added_is_found_again_until_there_is_no_room() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let mut added = Vec::new();
        while journal.add(LIFE, &batch_of(added.len() as u64 + 1, 3_000)).unwrap() {
            added.push(batch_of(added.len() as u64 + 1, 3_000));
        }
        assert!((40..BYTES / 6_000).contains(&added.len()), "{}", added.len());
        let bytes = read(dir.path()).unwrap();
        assert_eq!((bytes.len(), commits(&bytes, LIFE, 0).unwrap()), (BYTES, added.clone()));
        assert_eq!(revisions(commits(&bytes, LIFE + 1, 0)), Ok(vec![]), "of another life");

        // All of it has gone elsewhere, and the next is written over the first.
        let next = batch_of(added.len() as u64 + 1, 100);
        journal.begin_again();
        assert!(journal.add(LIFE, &next).unwrap());
        let bytes = read(dir.path()).unwrap();
        assert_eq!(commits(&bytes, LIFE, added.len() as u64).unwrap(), [next]);

        let mut journal = Journal::open(dir.path()).unwrap();
        assert!(!journal.add(LIFE, &batch_of(1, BYTES)).unwrap());
        assert!(read(dir.path()).unwrap() == bytes, "what does not fit is not written");
        assert!(read(&dir.path().join("nowhere")).unwrap().is_empty());
    }

    #[test]
    fn a_commit_that_was_cut_short_is_the_end() {
        let (whole, last) = (bytes_of(1..=3), bytes_of([1, 2]).len());
        let length = commit(LIFE, &batch_of(3, 40)).unwrap().len();
        for cut in last..last + length {
            for rest in [0, 0xFF] {
                let mut bytes = whole.clone();
                bytes[cut..].fill(rest);
                assert_eq!(revisions(commits(&bytes, LIFE, 0)), Ok(vec![1, 2]), "{cut} with {rest}");
            }
            assert_eq!(revisions(commits(&whole[..cut], LIFE, 0)), Ok(vec![1, 2]), "{cut}");
        }
    }

    #[test]
    fn a_commit_that_is_damaged_before_another_is_told_and_where_to_cut() {
        let whole = bytes_of(1..=3);
        let (one, two) = (bytes_of([1]).len(), bytes_of([1, 2]).len());
        let length = commit(LIFE, &batch_of(2, 40)).unwrap().len();
        for at in one..one + length {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let why = commits(&bytes, LIFE, 0).unwrap_err();
            assert!(why.starts_with(&format!("revision 3 is at byte {two}, and none before it")), "{why}");
            assert!(
                why.ends_with(&format!(
                    "go on at revision 1, cut it to {one} bytes and move store.mark away"
                ))
            );
            assert_eq!(revisions(commits(&bytes[..one], LIFE, 0)), Ok(vec![1]), "as told");
        }
    }

    #[test]
    fn what_goes_on_further_than_the_file_is_told() {
        let bytes = bytes_of(5..=7);
        assert_eq!(revisions(commits(&bytes, LIFE, 4)), Ok(vec![5, 6, 7]));
        assert!(commits(&bytes, LIFE, 3).unwrap_err().starts_with("revision 5 is at byte 0"));
        // In the file already, which was not written over yet.
        assert_eq!(revisions(commits(&bytes, LIFE, 7)), Ok(vec![]));
    }

    #[test]
    fn no_bytes_are_more_than_a_commit_cut_short() {
        let seed = crate::base::clock::wall();
        let mut rng = crate::base::rng::Rng::seeded(seed);
        for round in 0..2_000 {
            let mut bytes = bytes_of(1..=4);
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.next_u64() as u8,
                    1 => bytes.truncate(at + 1),
                    _ => bytes[at / SECTOR_BYTES * SECTOR_BYTES..]
                        .iter_mut()
                        .zip(MAGIC)
                        .for_each(|(b, m)| *b = m),
                }
            }
            // Whatever is found was written so.
            for found in commits(&bytes, LIFE, 0).unwrap_or_default() {
                assert_eq!(found, batch_of(found.revision, 40), "seed {seed}, round {round}");
            }
        }
    }
}
