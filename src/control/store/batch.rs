//! What the store has on disk, and what is written to it at once: rows of text by name, and revisions.

use std::collections::BTreeMap;

/// What is on disk.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) revision: u64,
    /// Of the file: see [`mark`](super::mark).
    pub(super) life: u64,
    /// `routes/7` to [`Kept`](super::record::Kept).
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    /// A revision to [`Record`](super::record::Record).
    pub(super) history: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    /// Makes it what it is after a commit.
    pub(super) fn apply(&mut self, batch: Batch) {
        if batch.is_whole {
            self.objects.clear();
            self.history.clear();
        }
        for (name, text) in batch.objects {
            match text {
                Some(text) => drop(self.objects.insert(name, text)),
                None => drop(self.objects.remove(&name)),
            }
        }
        for revision in batch.forgotten {
            self.history.remove(&revision);
        }
        self.history.extend(batch.history);
        self.revision = batch.revision;
    }
}

/// One commit, or several in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// What is reached with it.
    pub(super) revision: u64,
    /// In place of all that is there.
    pub(super) is_whole: bool,
    /// None where it goes.
    pub(super) objects: BTreeMap<String, Option<Vec<u8>>>,
    /// Revisions that leave history, before others come.
    pub(super) forgotten: Vec<u64>,
    pub(super) history: BTreeMap<u64, Vec<u8>>,
}

impl Batch {
    pub(super) const fn changing(revision: u64) -> Self {
        Self {
            revision,
            is_whole: false,
            objects: BTreeMap::new(),
            forgotten: Vec::new(),
            history: BTreeMap::new(),
        }
    }

    pub(super) fn replacing(revision: u64) -> Self {
        Self { is_whole: true, ..Self::changing(revision) }
    }

    /// Both as one: the other after this.
    pub(super) fn then(mut self, next: Self) -> Self {
        if next.is_whole {
            return next;
        }
        self.revision = next.revision;
        self.objects.extend(next.objects);
        for revision in next.forgotten {
            // What came and went between is not there before either.
            if self.history.remove(&revision).is_none() {
                self.forgotten.push(revision);
            }
        }
        self.history.extend(next.history);
        self
    }
}
