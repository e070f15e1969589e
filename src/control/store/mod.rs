//! Desired state: objects by kind and id, with revisions, kept on disk before anything is acknowledged.
//!
//! All of it is in memory as well, so that reading never waits: the objects as values, the history as text. A
//! commit is planned on the side, written (see [`disk`]), and only then made here; a commit that fails leaves
//! nothing behind. A store holds what it is given: whether an object is one is for whoever commits it to know.

mod batch;
mod disk;
mod journal;
mod mark;
mod record;
mod terms;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::clock::UnixMs;
use crate::model::resources::Resources;
use crate::model::{Kind, ObjectId, Raw, object_name};

use super::log;
use super::seal::{Seal, looks_sealed};
use batch::{Batch, Content};
use disk::Disk;

pub(crate) use crate::model::resources::Change;
pub(crate) use disk::FILE as STORE_FILE;
use record::{Kept, Record};
pub(crate) use terms::Term;
use terms::Terms;
use words::Unfit;

/// Revisions that can be looked at and gone back to.
pub(crate) const HISTORY_KEPT: usize = 1000;
/// Bytes they may take, here and once more on disk. The oldest go first, even where fewer than [`HISTORY_KEPT`]
/// are left; a single revision that is larger leaves no history at all.
pub(crate) const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How deep an object may be nested: less than what the reader of its record takes, by what is around it there.
const DEPTH_MAX: usize = 120;
/// Objects that go at a time because their term is over; the others a moment later.
const OVER_MAX: usize = 1000;

/// One object as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// The revision at which it was made.
    pub(crate) created: u64,
    /// The revision at which it was last written.
    pub(crate) modified: u64,
    pub(crate) term: Term,
}

/// Who changed what, for history and audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    pub(crate) who: String,
    pub(crate) from: String,
}

/// One commit of the past.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Revision {
    pub(crate) revision: u64,
    pub(crate) at: UnixMs,
    pub(crate) author: Author,
    /// Each object once, in the order of names.
    pub(crate) changes: Vec<Changed>,
}

/// What a commit did to one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) kind: Kind,
    pub(crate) id: ObjectId,
    /// None: it was made.
    pub(crate) before: Option<Value>,
    /// None: it was deleted.
    pub(crate) after: Option<Value>,
}

/// A revision as text, which is what it is on disk.
#[derive(Clone, Debug)]
struct Past {
    revision: u64,
    text: Vec<u8>,
}

/// What a commit will have done: each object by its name, None where it goes.
type Plan = BTreeMap<String, Option<Kept>>;

/// The objects, their history, and the file that both are in.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    /// By name, as `routes/7`.
    objects: BTreeMap<String, Kept>,
    terms: Terms,
    /// Oldest first, without a gap, up to the present.
    history: VecDeque<Past>,
    history_bytes: usize,
    disk: Option<Disk>,
    seal: Seal,
}

impl Store {
    /// In memory only, for tests and for what a file holds.
    pub(crate) fn in_memory() -> Self {
        Self {
            revision: 0,
            objects: BTreeMap::new(),
            terms: Terms::default(),
            history: VecDeque::new(),
            history_bytes: 0,
            disk: None,
            seal: Seal::default(),
        }
    }

    /// Opens `DIR/store.redb`, or makes it, and the folder. Refuses a file that is damaged, of an unknown format or
    /// held by another process, or of which a secret does not open; the error names the file and says how to go on.
    pub(crate) fn open(dir: &Path, seal: Seal) -> io::Result<Self> {
        let (mut disk, content) = Disk::open(dir)?;
        let mut store = Self::of(content, seal).map_err(|why| why.at(disk.path()))?;
        store.seal.keep_key()?;
        disk.begin();
        store.disk = Some(disk);
        Ok(store)
    }

    /// Takes what `DIR/store.redb` holds where it can not be written. Changes would stay in memory: refuse them.
    pub(crate) fn open_to_read(dir: &Path, seal: Seal) -> io::Result<Self> {
        let (path, content) = Disk::read(dir)?;
        Self::of(content, seal).map_err(|why| why.at(&path))
    }

    /// A store that holds this, and has no disk yet.
    fn of(content: Content, seal: Seal) -> Result<Self, Unfit> {
        let mut store = Self::in_memory();
        let mut lost = None;
        store.revision = content.revision;
        if store.revision == u64::MAX {
            return Err(Unfit::Damaged("its revision is the last there can be".to_owned()));
        }
        for (name, text) in content.objects {
            let mut kept = Kept::of_row(&name, &text).map_err(Unfit::Damaged)?;
            kept.entry.value = seal.uncover(&name, kept.entry.value).map_err(Unfit::Locked)?;
            store.terms.note(&name, kept.entry.term);
            store.objects.insert(name, kept);
        }
        for (revision, text) in content.history {
            // A key that has left the ring took the past with it, which is no reason not to serve the present.
            if Record::opens(&text, &seal).is_err() {
                lost = Some(revision);
                (store.history_bytes, store.history) = (0, VecDeque::new());
                continue;
            }
            store.history_bytes += text.len();
            store.history.push_back(Past { revision, text });
        }
        if let Some(revision) = lost {
            log::warn(format!(
                "history up to revision {revision} was sealed with a key that is not here: it is lost"
            ));
        }
        store.seal = seal;
        store.check().map_err(Unfit::Damaged)?;
        Ok(store)
    }

    /// Applies all changes as one revision. Durable when it returns Ok; unchanged, here and on disk, when it does
    /// not. Writing an object as it is counts as a change, deleting one that is not there does not; with no change
    /// at all, the revision stays. What is put stays for `term`.
    pub(crate) fn commit(
        &mut self,
        changes: Vec<Change>,
        author: &Author,
        at: UnixMs,
        term: Term,
    ) -> io::Result<u64> {
        for change in &changes {
            check_change(change)?;
        }
        let plan = self.plan(changes, term);
        if plan.is_empty() {
            return Ok(self.revision);
        }
        let revision = self.revision + 1;
        let past = Past { revision, text: self.record(&plan, author, at).to_text()? };
        let (forgotten, is_kept) = self.forgotten_for(past.text.len());
        self.write(&plan, &past, forgotten, is_kept)?;

        for (name, kept) in plan {
            if let Some(was) = self.objects.remove(&name) {
                self.terms.forget(&name, was.entry.term);
            }
            if let Some(kept) = kept {
                self.terms.note(&name, kept.entry.term);
                self.objects.insert(name, kept);
            }
        }
        for past in self.history.drain(..forgotten) {
            self.history_bytes -= past.text.len();
        }
        if is_kept {
            self.history_bytes += past.text.len();
            self.history.push_back(past);
        }
        self.revision = revision;
        Ok(revision)
    }

    /// Takes over what another store holds, with its revisions; `None`: it is not there. Without history, which is
    /// that store's, and never on disk.
    pub(crate) fn follow(&mut self, revision: u64, objects: Vec<(Kind, ObjectId, Option<Entry>)>) {
        debug_assert!(self.disk.is_none(), "a store of one's own follows nobody");
        for (kind, id, entry) in objects {
            let name = object_name(kind, id.as_str());
            match entry {
                Some(entry) => self.objects.insert(name, Kept { kind, id, entry, place: 0 }),
                None => self.objects.remove(&name),
            };
        }
        self.revision = revision;
    }

    /// The number of commits so far, over the life of the file.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Entry> {
        self.objects.get(&object_name(kind, id)).filter(|kept| kept.kind == kind).map(|kept| &kept.entry)
    }

    /// Of one kind, in the order they were made.
    pub(crate) fn list(&self, kind: Kind) -> Vec<(&ObjectId, &Entry)> {
        let found = in_order(self.objects.values().filter(|kept| kept.kind == kind));
        found.into_iter().map(|kept| (&kept.id, &kept.entry)).collect()
    }

    /// All objects, in the order they were made.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (Kind, &ObjectId, &Entry)> {
        in_order(self.objects.values()).into_iter().map(|kept| (kept.kind, &kept.id, &kept.entry))
    }

    /// What takes out the objects whose term is over, each with what belongs to it.
    pub(crate) fn over(&self, now: UnixMs) -> Vec<Change> {
        let over = self.terms.over(now).take(OVER_MAX).filter_map(|name| self.objects.get(name));
        let changes: BTreeMap<_, _> = over
            .flat_map(|kept| self.deletion(kept.kind, &kept.id))
            .map(|change| (change.key(), change))
            .collect();
        changes.into_values().collect()
    }

    /// What takes out an object: a consumer's credentials go with it, a service's decorations as well.
    pub(crate) fn deletion(&self, kind: Kind, id: &ObjectId) -> Vec<Change> {
        let mut changes = vec![Change::Delete(kind, id.clone())];
        if let Some(part) = kind.part() {
            let home = format!("{}/{}/", object_name(kind, id.as_str()), part.plural());
            let own = self.objects.range(home.clone()..).take_while(|(name, _)| name.starts_with(&home));
            changes.extend(own.map(|(_, kept)| Change::Delete(part, kept.id.clone())));
        }
        changes
    }

    /// Whether the term of any object is over.
    pub(crate) fn has_over(&self, now: UnixMs) -> bool {
        self.terms.over(now).next().is_some()
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// All objects, for the compiler, in the order they were made.
    pub(crate) fn resources(&self) -> Resources {
        resources_of(self.objects.values())
    }

    /// The newest `limit` revisions, newest first.
    pub(crate) fn history(&self, limit: usize) -> io::Result<Vec<Revision>> {
        self.history.iter().rev().take(limit).map(|past| self.read(past)).collect()
    }

    /// The changes that would bring the objects back to what they were at a revision, or None when history does not
    /// reach so far. What was deleted since comes back as made anew, so after what has stayed.
    pub(crate) fn changes_back_to(&self, revision: u64) -> io::Result<Option<Vec<Change>>> {
        let Some(back) = self.revision.checked_sub(revision) else { return Ok(None) };
        let Some(first) = usize::try_from(back).ok().and_then(|back| self.history.len().checked_sub(back))
        else {
            return Ok(None);
        };
        // From the newest to the oldest, so that what an object was first is what stays.
        let mut was: BTreeMap<String, Changed> = BTreeMap::new();
        for past in self.history.range(first..).rev() {
            for changed in self.read(past)?.changes {
                was.insert(object_name(changed.kind, changed.id.as_str()), changed);
            }
        }
        let back = was.into_iter().filter_map(|(name, Changed { kind, id, before, .. })| {
            let is = self.objects.get(&name).map(|kept| &kept.entry);
            // What comes back is to stay, so also what only got a term since is written again.
            let stays = is.is_none_or(|is| is.term == Term::Lasting);
            match before {
                before if stays && before.as_ref() == is.map(|is| &is.value) => None,
                Some(value) => Some(Change::Put(Raw { kind, id, value })),
                None => Some(Change::Delete(kind, id)),
            }
        });
        Ok(Some(back.collect()))
    }

    fn plan(&self, changes: Vec<Change>, term: Term) -> Plan {
        let revision = self.revision + 1;
        let mut plan = Plan::new();
        for (place, change) in changes.into_iter().enumerate() {
            let (Change::Put(Raw { kind, id, .. }) | Change::Delete(kind, id)) = &change;
            let name = object_name(*kind, id.as_str());
            let was = plan.get(&name).map_or_else(|| self.objects.get(&name), Option::as_ref);
            let kept = match change {
                Change::Delete(..) => None,
                Change::Put(Raw { kind, id, value }) => {
                    let (created, place) =
                        was.map_or((revision, place), |was| (was.entry.created, was.place));
                    let entry = Entry { value, created, modified: revision, term };
                    Some(Kept { kind, id, entry, place })
                }
            };
            plan.insert(name, kept);
        }
        plan.retain(|name, kept| kept.is_some() || self.objects.contains_key(name));
        plan
    }

    fn record(&self, plan: &Plan, author: &Author, at: UnixMs) -> Record {
        let mut record = Record::new(author.clone(), at);
        for (name, kept) in plan {
            let before = self.objects.get(name).map(|kept| kept.entry.value.clone());
            let after = kept.as_ref().map(|kept| kept.entry.value.clone());
            let kind = record::of_name(name).map(|(kind, _)| kind);
            let close = |value: Value| {
                kind.map_or_else(|| value.clone(), |kind| self.seal.close(name, kind, value.clone()))
            };
            record.push(name.clone(), before.map(close), after.map(close));
        }
        record
    }

    /// How many of the oldest revisions make way for one of that many bytes, and whether it is itself kept.
    fn forgotten_for(&self, bytes: usize) -> (usize, bool) {
        if bytes > HISTORY_BYTES_MAX {
            return (self.history.len(), false);
        }
        let mut left = self.history_bytes;
        let mut forgotten = 0;
        for past in &self.history {
            if self.history.len() - forgotten < HISTORY_KEPT && left + bytes <= HISTORY_BYTES_MAX {
                break;
            }
            left -= past.text.len();
            forgotten += 1;
        }
        (forgotten, true)
    }

    fn write(&mut self, plan: &Plan, past: &Past, forgotten: usize, is_kept: bool) -> io::Result<()> {
        let Some(mut disk) = self.disk.take() else { return Ok(()) };
        let outcome = self.batch(plan, past, forgotten, is_kept).and_then(|batch| {
            if disk.is_lost() {
                disk.find(self.revision, || self.whole())?;
            }
            let outcome = disk.write(&batch);
            if outcome.is_err() {
                // What has failed may still have reached the disk. If it can not be taken back now, it is before
                // the next commit.
                let _ = disk.find(self.revision, || self.whole());
            }
            outcome
        });
        self.disk = Some(disk);
        outcome
    }

    fn batch(&self, plan: &Plan, past: &Past, forgotten: usize, is_kept: bool) -> io::Result<Batch> {
        let mut batch = Batch::changing(past.revision);
        for (name, kept) in plan {
            let row = kept.as_ref().map(|kept| kept.to_row(&self.seal)).transpose()?;
            batch.objects.insert(name.clone(), row);
        }
        batch.forgotten.extend(self.history.iter().take(forgotten).map(|past| past.revision));
        if is_kept {
            batch.history.insert(past.revision, past.text.clone());
        }
        Ok(batch)
    }

    /// All there is, for a file of which it is not known what is in it.
    fn whole(&self) -> io::Result<Batch> {
        let mut batch = Batch::replacing(self.revision);
        for (name, kept) in &self.objects {
            batch.objects.insert(name.clone(), Some(kept.to_row(&self.seal)?));
        }
        batch.history.extend(self.history.iter().map(|past| (past.revision, past.text.clone())));
        Ok(batch)
    }

    fn read(&self, past: &Past) -> io::Result<Revision> {
        Record::of_text(&past.text)
            .and_then(|record| record.into_revision(past.revision, &self.seal))
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Whether what was read hangs together.
    fn check(&self) -> Result<(), String> {
        for (name, kept) in &self.objects {
            let Entry { created, modified, .. } = kept.entry;
            if created > modified || modified > self.revision {
                return Err(format!(
                    "{name} was made at revision {created} and last written at {modified}, but the last is {}",
                    self.revision
                ));
            }
        }
        let oldest = (self.revision + 1).saturating_sub(self.history.len() as u64);
        for (past, expected) in self.history.iter().zip(oldest..) {
            if past.revision != expected || expected == 0 {
                return Err(format!("history has revision {}, expected {expected}", past.revision));
            }
            self.read(past).map_err(|error| format!("revision {expected}: {error}"))?;
        }
        Ok(())
    }
}

/// Whether it could be read again once written.
fn check_change(change: &Change) -> io::Result<()> {
    let (Change::Put(Raw { kind, id, .. }) | Change::Delete(kind, id)) = change;
    let name = object_name(*kind, id.as_str());
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {why}")));
    if record::of_name(&name) != Some((*kind, id.clone())) {
        return refuse(&format!("is not the name of one of {kind}"));
    }
    match change {
        Change::Put(raw) if !raw.value.is_object() => refuse("is not an object"),
        Change::Put(raw) if looks_sealed(&raw.value) => refuse("has text that looks like a sealed secret"),
        Change::Put(raw) if is_deeper(&raw.value, DEPTH_MAX) => {
            refuse(&format!("is nested deeper than {DEPTH_MAX} levels"))
        }
        Change::Put(_) | Change::Delete(..) => Ok(()),
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return value.is_object() || value.is_array() };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, levels)),
        Value::Object(fields) => fields.values().any(|field| is_deeper(field, levels)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn in_order<'a>(objects: impl Iterator<Item = &'a Kept>) -> Vec<&'a Kept> {
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by_key(|kept| (kept.entry.created, kept.place));
    objects
}

fn resources_of<'a>(objects: impl Iterator<Item = &'a Kept>) -> Resources {
    let raw = |kept: &Kept| Raw { kind: kept.kind, id: kept.id.clone(), value: kept.entry.value.clone() };
    Resources { objects: in_order(objects).into_iter().map(raw).collect(), plugins: None }
}

#[cfg(test)]
mod tests;
