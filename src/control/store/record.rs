//! The text of rows: an object, and a revision of history. Both are JSON; what can not be read is a fault, in words.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;

use crate::base::clock::UnixMs;
use crate::control::seal::Seal;
use crate::model::{Kind, ObjectId, object_name};

use super::{Author, Changed, Entry, Revision, Term};

/// An object with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) kind: Kind,
    pub(super) id: ObjectId,
    pub(super) entry: Entry,
    /// Among those made by the same commit.
    pub(super) place: usize,
}

#[derive(Serialize, Deserialize)]
struct Row {
    value: Value,
    created: u64,
    modified: u64,
    place: usize,
    /// When it goes, where it does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<UnixMs>,
}

impl Kept {
    pub(super) fn of_row(name: &str, text: &[u8]) -> Result<Self, String> {
        let (kind, id) = of_name(name).ok_or_else(|| format!("{name:?} is not the name of an object"))?;
        let row: Row = serde_json::from_slice(text).map_err(|error| format!("{name}: {error}"))?;
        let Row { value, created, modified, place, expires } = row;
        let term = expires.map_or(Term::Lasting, Term::Until);
        Ok(Self { kind, id, entry: Entry { value, created, modified, term }, place })
    }

    pub(super) fn to_row(&self, seal: &Seal) -> io::Result<Vec<u8>> {
        let Entry { value, created, modified, term } = self.entry.clone();
        let value = seal.close(&object_name(self.kind, self.id.as_str()), self.kind, value);
        let row = Row { value, created, modified, place: self.place, expires: term.end() };
        serde_json::to_vec(&row).map_err(io::Error::from)
    }
}

/// A revision of history.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    at: UnixMs,
    author: Author,
    changes: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

impl Record {
    pub(super) const fn new(author: Author, at: UnixMs) -> Self {
        Self { at, author, changes: Vec::new() }
    }

    pub(super) fn push(&mut self, name: String, before: Option<Value>, after: Option<Value>) {
        self.changes.push(Line { name, before, after });
    }

    pub(super) fn of_text(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    pub(super) fn to_text(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::from)
    }

    /// Whether all of it opens; what can not be read at all is for others to tell.
    pub(super) fn opens(text: &[u8], seal: &Seal) -> Result<(), String> {
        let lines = Self::of_text(text).map(|record| record.changes).unwrap_or_default();
        for Line { name, before, after } in lines {
            for value in [before, after].into_iter().flatten() {
                seal.uncover(&name, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn into_revision(self, revision: u64, seal: &Seal) -> Result<Revision, String> {
        let changed = |line: Line| {
            let (kind, id) =
                of_name(&line.name).ok_or_else(|| format!("{:?} is not the name of an object", line.name))?;
            let open = |value: Option<Value>| value.map(|value| seal.uncover(&line.name, value)).transpose();
            Ok::<_, String>(Changed { kind, id, before: open(line.before)?, after: open(line.after)? })
        };
        let changes = self.changes.into_iter().map(changed).collect::<Result<_, _>>()?;
        Ok(Revision { revision, at: self.at, author: self.author, changes })
    }
}

/// Kind and id of an object by its name, `routes/7`. A consumer's name has no slash, a credential's has.
pub(super) fn of_name(name: &str) -> Option<(Kind, ObjectId)> {
    let (plural, id) = name.split_once('/')?;
    let kind = Kind::of_plural(plural)?.of_id(id);
    (object_name(kind, id) == name && !id.is_empty()).then(|| (kind, ObjectId::of_checked(id)))
}
