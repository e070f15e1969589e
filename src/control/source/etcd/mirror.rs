//! What etcd has against what is served: from news to changes, with the doubts a wipe deserves.
//!
//! - An object that etcd no longer has goes, but not when it leaves etcd without any: a prefix that was emptied, or an
//!   etcd that lost its data, is more likely an accident than a wish. Such objects are *missing*: served on until they
//!   come back, or until somebody writes [`MARKER`] after it was noticed.
//! - While some are missing, what comes is served beside them: a backup that is put back key by key must not end with
//!   its first key the service of all others.
//! - What was changed from here is known before etcd tells, so news may be older than what is here.
//!
//! Nothing here waits or writes: time and etcd are elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::indexes::Indexes;
use super::keep::{Kept, Object};
use super::watch::{All, Changes, Item, term_of};
use super::wire::Header;
use crate::control::seal::Seal;
use crate::control::store::{Change, Entry, Store, Term};
use crate::model::{Kind, ObjectId, Raw, object_name};

/// A key below the prefix: written after a wipe was noticed, it says that the wipe is meant.
pub(super) const MARKER: &str = "ringway/accept-empty";
/// Deletions from here of which etcd has not told yet; the oldest are forgotten.
const BURIED_MAX: usize = 10_000;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) changes: Vec<Change>,
    /// What the changed objects were before.
    pub(super) before: BTreeMap<String, Value>,
    pub(super) told: Vec<Told>,
}

/// What an operator should know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// All objects have vanished; so many are served on.
    Wiped(usize),
    /// The wipe is meant; so many objects go.
    Accepted(usize),
    /// All that was missing is back.
    Restored,
    /// A key or a value that is none of ours, and why.
    Strange(String),
    /// Another etcd answers, or one that was put back to an earlier day.
    Another,
}

/// The state of following.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) header: Header,
    pub(super) indexes: Indexes,
    missing: BTreeSet<String>,
    /// When they were noticed.
    gone_at: u64,
    /// For objects that are set aside: the version that is in force.
    good: BTreeMap<String, Value>,
    /// Deleted from here, at which revision.
    buried: BTreeMap<String, u64>,
    /// For what APISIX has encrypted there, and for what is kept here.
    seal: Seal,
}

/// What a key is about.
enum Key {
    Object(Kind, ObjectId),
    Marker,
    /// Somebody else's, or a folder's placeholder.
    Other,
    Strange(String),
}

fn key_of(key: &[u8]) -> Key {
    let Ok(name) = std::str::from_utf8(key) else {
        return Key::Strange(format!("{}: expected UTF-8", String::from_utf8_lossy(key)));
    };
    if name == MARKER {
        return Key::Marker;
    }
    let Some((plural, id)) = name.split_once('/').filter(|(_, id)| !id.is_empty()) else { return Key::Other };
    let (kind, id) = match Kind::of_plural(plural) {
        None | Some(Kind::Credential | Kind::CostDecoration) => return Key::Other,
        Some(Kind::Consumer) if id.contains('/') => (Kind::Credential, ObjectId::of_credential(id)),
        Some(Kind::Consumer) => (Kind::Consumer, ObjectId::of_username(id)),
        Some(Kind::Service) if id.contains('/') => (Kind::CostDecoration, ObjectId::of_decoration(id)),
        Some(Kind::Secret) => (Kind::Secret, ObjectId::joined(id)),
        Some(kind) => (kind, id.parse()),
    };
    id.map_or_else(|fault| Key::Strange(format!("{name}: {}", fault.problem)), |id| Key::Object(kind, id))
}

impl Mirror {
    pub(super) fn sealing(seal: Seal) -> Self {
        Self { seal, ..Self::default() }
    }

    /// What was kept, as it is served until etcd tells more.
    pub(super) fn begin(&mut self, kept: Kept, store: &mut Store) {
        self.header = Header { cluster_id: kept.cluster, revision: kept.revision };
        self.gone_at = kept.gone_at;
        let mut objects = Vec::with_capacity(kept.objects.len());
        for Object { name, value, created, modified, is_missing, is_leased } in kept.objects {
            if let Key::Object(kind, id) = key_of(name.as_bytes()) {
                objects.push((kind, id, Some(Entry { value, created, modified, term: term_of(is_leased) })));
                if is_missing {
                    self.missing.insert(name);
                }
            }
        }
        self.indexes.note(&objects);
        store.follow(kept.revision, objects);
    }

    /// What is to be kept.
    pub(super) fn kept(&self, prefix: &str, store: &Store) -> Kept {
        let objects = store.objects().map(|(kind, id, entry)| {
            let name = object_name(kind, id.as_str());
            let value = self.good.get(&name).unwrap_or(&entry.value).clone();
            Object {
                value: self.seal.close(&name, kind, value),
                created: entry.created,
                modified: entry.modified,
                is_missing: self.missing.contains(&name),
                is_leased: entry.term == Term::Leased,
                name,
            }
        });
        Kept {
            prefix: prefix.to_owned(),
            cluster: self.header.cluster_id,
            revision: self.header.revision,
            gone_at: self.gone_at,
            objects: objects.collect(),
        }
    }

    /// How many objects are served that etcd no longer has.
    pub(super) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Goes over to all there is.
    pub(super) fn take_all(&mut self, all: All, store: &mut Store) -> Step {
        let mut step = Step::default();
        let revision = all.header.revision;
        let is_other = self.header.cluster_id != 0
            && (all.header.cluster_id != self.header.cluster_id || revision < self.header.revision);
        if is_other {
            step.told.push(Told::Another);
            self.buried.clear();
        }
        // From when on a word about a wipe is about this one.
        let noticed = match (is_other, self.missing.is_empty()) {
            (true, _) => revision,
            (false, false) => self.gone_at,
            (false, true) => self.header.revision,
        };
        if is_other && !self.missing.is_empty() {
            self.gone_at = revision;
        }
        let mut turn = Turn { step, puts: Vec::new(), gone: Vec::new(), is_accepted: false, is_other };
        let mut present = BTreeSet::new();
        for (key, item) in all.items {
            match key_of(&key) {
                Key::Marker => turn.is_accepted |= item.modified > noticed,
                Key::Other => {}
                Key::Strange(why) => turn.step.told.push(Told::Strange(why)),
                Key::Object(kind, id) => {
                    let name = object_name(kind, id.as_str());
                    let is_older =
                        store.get(kind, id.as_str()).is_some_and(|entry| entry.modified > revision)
                            || self.buried.get(&name).is_some_and(|buried| *buried > revision);
                    if is_other || !is_older {
                        turn.put(&name, kind, id, item);
                    }
                    present.insert(name);
                }
            }
        }
        for (kind, id, entry) in store.objects() {
            let name = object_name(kind, id.as_str());
            let is_newer = !is_other && entry.modified > revision;
            if !present.contains(&name) && !is_newer {
                turn.gone.push((name, kind, id.clone()));
            }
        }
        self.header = all.header;
        self.settle(turn, store)
    }

    /// Goes on by what has changed.
    pub(super) fn take_changes(&mut self, changes: Changes, store: &mut Store) -> Step {
        let step = Step::default();
        let mut turn = Turn { step, puts: Vec::new(), gone: Vec::new(), is_accepted: false, is_other: false };
        for (key, (revision, item)) in changes.items {
            match (key_of(&key), item) {
                (Key::Marker, item) => {
                    turn.is_accepted |= item.is_some_and(|item| item.modified > self.gone_at);
                }
                (Key::Strange(why), Some(_)) => turn.step.told.push(Told::Strange(why)),
                (Key::Other | Key::Strange(_), _) => {}
                (Key::Object(kind, id), item) => {
                    let name = object_name(kind, id.as_str());
                    // As when it was changed from here.
                    let is_known =
                        store.get(kind, id.as_str()).is_some_and(|entry| entry.modified >= revision)
                            || self.buried.get(&name).is_some_and(|buried| *buried >= revision);
                    match item {
                        _ if is_known => {}
                        Some(item) => turn.put(&name, kind, id, item),
                        None if store.get(kind, id.as_str()).is_some() && !self.missing.contains(&name) => {
                            turn.gone.push((name, kind, id));
                        }
                        None => {}
                    }
                }
            }
        }
        self.header.revision = self.header.revision.max(changes.revision);
        self.settle(turn, store)
    }

    /// A change from here that etcd has taken; what is put stays for `term`.
    pub(super) fn wrote(&mut self, revision: u64, changes: &[Change], term: Term, store: &mut Store) {
        let mut objects = Vec::with_capacity(changes.len());
        for change in changes {
            let (kind, text) = change.key();
            let name = object_name(kind, &text);
            let was_missing = self.missing.remove(&name);
            self.good.remove(&name);
            match change {
                Change::Put(raw) => {
                    let before = store.get(kind, &text).filter(|_| !was_missing);
                    let created = before.map_or(revision, |entry| entry.created);
                    let entry = Entry { value: raw.value.clone(), created, modified: revision, term };
                    objects.push((kind, raw.id.clone(), Some(entry)));
                    self.buried.remove(&name);
                }
                Change::Delete(_, id) => {
                    objects.push((kind, id.clone(), None));
                    self.buried.insert(name, revision);
                    if self.buried.len() > BURIED_MAX {
                        self.buried.pop_first();
                    }
                }
            }
        }
        self.indexes.note(&objects);
        store.follow(revision, objects);
    }

    /// The revision at which etcd has an object; 0: it has none.
    pub(super) fn modified(&self, kind: Kind, id: &str, store: &Store) -> u64 {
        let is_missing = self.missing.contains(&object_name(kind, id));
        store.get(kind, id).filter(|_| !is_missing).map_or(0, |entry| entry.modified)
    }

    /// Whether etcd would have no objects that are to stay after a change from here, of which what is put stays for `term`.
    pub(super) fn would_be_empty(&self, changes: &[Change], term: Term, store: &Store) -> bool {
        let stays = store.objects().filter(|(.., entry)| entry.term != Term::Leased);
        let mut left: BTreeSet<String> = stays.map(|(kind, id, _)| object_name(kind, id.as_str())).collect();
        let had_some = !left.is_empty();
        left.retain(|name| !self.missing.contains(name));
        for change in changes {
            let (kind, id) = change.key();
            match change {
                Change::Put(_) if term != Term::Leased => return false,
                Change::Put(_) | Change::Delete(..) => left.remove(&object_name(kind, &id)),
            };
        }
        had_some && left.is_empty()
    }

    /// Remembers what is in force for those that are set aside.
    pub(super) fn set_aside(&mut self, names: &BTreeSet<String>, before: BTreeMap<String, Value>) {
        self.good.retain(|name, _| names.contains(name));
        for (name, value) in before {
            if names.contains(&name) {
                self.good.entry(name).or_insert(value);
            }
        }
    }

    /// Decides about what is gone, and makes the store what it is to be.
    fn settle(&mut self, turn: Turn, store: &mut Store) -> Step {
        let Turn { mut step, mut puts, gone, is_accepted, is_other } = turn;
        puts.sort_by_key(|(_, _, _, item)| item.created);
        let gone = gone.into_iter().filter(|(name, ..)| is_accepted || !self.missing.contains(name));
        // What was there for a time is no loss, unless all is lost.
        let (over, gone): (Vec<_>, Vec<_>) = gone.partition(|(_, kind, id)| {
            !is_other && store.get(*kind, id.as_str()).is_some_and(|entry| entry.term == Term::Leased)
        });
        let had_missing = !self.missing.is_empty();
        for (name, ..) in &puts {
            self.missing.remove(name);
        }
        let stays = store.len().saturating_sub(self.missing.len() + gone.len() + over.len());
        let is_wiped = puts.is_empty() && !gone.is_empty() && stays == 0;
        let mut objects = Vec::with_capacity(puts.len() + gone.len());
        let mut leaving: BTreeMap<String, (Kind, ObjectId)> =
            over.into_iter().map(|(name, kind, id)| (name, (kind, id))).collect();
        if is_wiped && !is_accepted {
            self.missing.extend(gone.into_iter().map(|(name, ..)| name));
            self.gone_at = self.header.revision;
            step.told.push(Told::Wiped(self.missing.len()));
        } else {
            leaving.extend(gone.into_iter().map(|(name, kind, id)| (name, (kind, id))));
            if is_accepted && had_missing {
                for name in std::mem::take(&mut self.missing) {
                    if let Key::Object(kind, id) = key_of(name.as_bytes()) {
                        leaving.insert(name, (kind, id));
                    }
                }
            }
            if is_accepted && !leaving.is_empty() {
                step.told.push(Told::Accepted(leaving.len()));
            } else if had_missing && self.missing.is_empty() {
                step.told.push(Told::Restored);
            }
        }
        for (_, (kind, id)) in leaving {
            step.changes.push(Change::Delete(kind, id.clone()));
            objects.push((kind, id, None));
        }
        for (name, kind, id, item) in puts {
            let value = serde_json::from_slice(&item.value).unwrap_or_else(|error| {
                step.told.push(Told::Strange(format!("{name}: not JSON: {error}")));
                // No object is a text, so the compiler sets it aside.
                Value::String(String::from_utf8_lossy(&item.value).into_owned())
            });
            let value = self.seal.decrypt(kind, value);
            let before = store.get(kind, id.as_str()).map(|entry| &entry.value);
            if before != Some(&value) {
                step.before.extend(before.map(|before| (name, before.clone())));
                step.changes.push(Change::Put(Raw { kind, id: id.clone(), value: value.clone() }));
            }
            let term = item.term();
            objects.push((
                kind,
                id,
                Some(Entry { value, created: item.created, modified: item.modified, term }),
            ));
        }
        self.buried.retain(|_, revision| *revision > self.header.revision);
        let revision = if objects.is_empty() { store.revision() } else { self.header.revision };
        self.indexes.note(&objects);
        store.follow(revision, objects);
        step
    }
}

/// News being looked through.
struct Turn {
    step: Step,
    puts: Vec<(String, Kind, ObjectId, Item)>,
    gone: Vec<(String, Kind, ObjectId)>,
    is_accepted: bool,
    /// Another etcd tells.
    is_other: bool,
}

impl Turn {
    fn put(&mut self, name: &str, kind: Kind, id: ObjectId, item: Item) {
        self.puts.push((name.to_owned(), kind, id, item));
    }
}

#[cfg(test)]
mod tests;
