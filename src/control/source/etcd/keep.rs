//! The last good configuration of an etcd, in one file of the state's folder: for a start while etcd is away, and to
//! know at any start what was served before.
//!
//! It is written aside, synced and renamed, so it is whole or the one before. The first line has a checksum of the
//! rest; a file that does not fit it is refused, never read in part.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::hash;
use crate::control::seal::Seal;

/// Its name in the state's folder.
pub(super) const FILE: &str = "etcd.json";
/// What the first line begins with: what it is, and the version of its form.
const MARK: &str = "ringway-etcd 1";

/// All that is kept.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Another prefix is another configuration.
    pub(super) prefix: String,
    pub(super) cluster: u64,
    pub(super) revision: u64,
    /// When objects were seen to be missing, if any are.
    pub(super) gone_at: u64,
    /// In the order they were made.
    pub(super) objects: Vec<Object>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// It is served, and etcd has it no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_missing: bool,
    /// It goes with its lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_leased: bool,
}

impl Kept {
    /// As it is written.
    pub(super) fn to_text(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let mut text = format!("{MARK} {:016x}\n", hash::stable(&body)).into_bytes();
        text.extend_from_slice(&body);
        Ok(text)
    }

    /// What a file has, if there is one.
    ///
    /// # Errors
    /// When it can not be read, or is not as it was written.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        Self::of_text(&text).map(Some).map_err(|why| {
            let why = format!("{}: {why}; remove it to start with what etcd has", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// With its secrets as they are.
    pub(super) fn uncovered(mut self, seal: &Seal, path: &Path) -> io::Result<Self> {
        for object in &mut self.objects {
            let value = std::mem::take(&mut object.value);
            object.value = seal.uncover(&object.name, value).map_err(|why| {
                let why = format!("{}: {why}; bring the key back, or remove the file", path.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?;
        }
        Ok(self)
    }

    fn of_text(text: &[u8]) -> Result<Self, String> {
        let end = memchr::memchr(b'\n', text).ok_or("is cut short")?;
        let (head, body) = (&text[..end], &text[end + 1..]);
        if head != format!("{MARK} {:016x}", hash::stable(body)).as_bytes() {
            return Err("is damaged: its checksum is another".to_owned());
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::whole_file;
    use serde_json::json;

    fn kept() -> Kept {
        let object = |id: u32, is_missing| Object {
            name: format!("routes/{id}"),
            value: json!({"uri": "/"}),
            created: 3,
            modified: 4,
            is_missing,
            is_leased: is_missing,
        };
        Kept {
            prefix: "/apisix".to_owned(),
            cluster: u64::MAX,
            revision: 9,
            gone_at: 8,
            objects: vec![object(1, false), object(2, true)],
        }
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state").join(FILE);
        assert_eq!(Kept::read(&path).expect("no file is no fault"), None);
        whole_file::replace(&path, &kept().to_text().expect("text")).expect("written");
        assert_eq!(Kept::read(&path).expect("readable"), Some(kept()));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused() {
        let text = kept().to_text().expect("text");
        for at in 0..text.len() {
            assert!(Kept::of_text(&text[..at]).is_err(), "cut at {at}");
            let mut flipped = text.clone();
            flipped[at] ^= 1;
            assert!(Kept::of_text(&flipped).is_err(), "flipped at {at}");
        }
    }
}
