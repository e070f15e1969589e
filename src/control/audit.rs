//! The audit log: a line of JSON for each change over the Admin API, with who made it, from where, and each object
//! before and after, without secrets.
//!
//! A line is written when the change is on disk and before it is acknowledged. A line that can not be written is told
//! in the process's own log, and the change stands: the store's history has it as well.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::log;
use super::mask::masked;
use super::store::{Change, Changed, Revision, Store};
use crate::base::clock::UnixMs;
use crate::model::object_name;

/// Where it is unless somebody says otherwise, in the state's folder.
const FILE: &str = "audit.jsonl";

/// An open audit log.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: File,
}

impl Audit {
    /// Opens it for lines to be added, and makes it where there is none, readable by its owner only. Nobody wants it
    /// where the path is `off`.
    pub(super) fn open(wanted: Option<&Path>, state: &Path) -> io::Result<Option<Self>> {
        let path = match wanted {
            Some(path) if path == Path::new("off") => return Ok(None),
            Some(path) => path.to_owned(),
            None => state.join(FILE),
        };
        let file = open(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("admin.audit_log {}: {error}", path.display()))
        })?;
        Ok(Some(Self { path, file }))
    }

    /// Opens the file anew, when it was moved away. The old one stays where that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Adds a revision.
    pub(super) fn note(&mut self, revision: &Revision) {
        let changes: Vec<Value> = revision.changes.iter().map(line_of).collect();
        let line = json!({
            "time": revision.at,
            "revision": revision.revision,
            "who": revision.author.who,
            "from": revision.author.from,
            "changes": changes,
        });
        self.write(&line, &format!("revision {}", revision.revision));
    }

    /// Adds that a certificate was issued for an ssl, which changes no object.
    pub(super) fn note_issued(&mut self, at: UnixMs, issuer: &str, ssl: &str, names: &[String]) {
        let line = json!({
            "time": at, "who": "acme", "from": issuer, "issued": {"ssl": ssl, "names": names},
        });
        self.write(&line, &format!("the certificate of ssls/{ssl}"));
    }

    fn write(&mut self, line: &Value, what: &str) {
        // One write, so that lines of two processes do not mix.
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            let path = self.path.display();
            log::error(format!("audit log {path}: {error}; {what} is not in it"));
        }
    }
}

/// What changes will have done, before they are made.
pub(super) fn changed(store: &Store, changes: &[Change]) -> Vec<Changed> {
    let of_change = |change: &Change| {
        let (kind, id, after) = match change {
            Change::Put(raw) => (raw.kind, raw.id.clone(), Some(raw.value.clone())),
            Change::Delete(kind, id) => (*kind, id.clone(), None),
        };
        let before = store.get(kind, id.as_str()).map(|entry| entry.value.clone());
        (before.is_some() || after.is_some()).then_some(Changed { kind, id, before, after })
    };
    changes.iter().filter_map(of_change).collect()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn line_of(changed: &Changed) -> Value {
    let side = |value: &Option<Value>| value.clone().map(|value| masked(changed.kind, value));
    let act = match (&changed.before, &changed.after) {
        (None, _) => "create",
        (_, None) => "delete",
        (Some(_), Some(_)) => "update",
    };
    json!({
        "object": object_name(changed.kind, changed.id.as_str()),
        "act": act,
        "before": side(&changed.before),
        "after": side(&changed.after),
    })
}
