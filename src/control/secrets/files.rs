//! Files that `$file://` references name: read when an object is compiled, looked at again ever after.
//!
//! Only below the folders of `secrets.directories`, links followed: whoever may write objects must not get at what else the
//! process may read. What is no plain file is never waited for.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::Settings;
use crate::snapshot::{Learnt, ReadFile, Unread};

/// Largest file: certificates with their chains have room, and a log that was named by mistake is told.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The folders that secrets may be read from.
#[derive(Clone, Debug)]
pub struct Files(Arc<[PathBuf]>);

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    written: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    node: (u64, u64),
}

impl Stamp {
    /// Of a file, behind all links; `None`: there is none.
    pub(super) fn of(path: &str) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            bytes: found.len(),
            node: (found.dev(), found.ino()),
        })
    }
}

impl Files {
    pub fn new(settings: &Settings) -> Self {
        Self(settings.secrets.directories.iter().cloned().collect())
    }

    /// What a file says, without the line break at its end.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn read(&self, path: &str) -> Result<String, Unread> {
        let named = Path::new(path);
        // Before it is looked at: whether a file is there is nobody's business elsewhere.
        if !self.0.iter().any(|folder| named.starts_with(folder)) {
            return Err(Unread::Outside(self.outside()));
        }
        let real = fs::canonicalize(named).map_err(|error| unread(path, &error))?;
        let is_inside = |folder: &PathBuf| {
            fs::canonicalize(folder).is_ok_and(|real_folder| real.starts_with(real_folder))
        };
        if !self.0.iter().any(is_inside) {
            return Err(Unread::Outside(format!("{}, and its links lead elsewhere", self.outside())));
        }
        let mut file = OpenOptions::new()
            .read(true)
            // A pipe would hold up everything until somebody writes to it.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(&real)
            .map_err(|error| unread(path, &error))?;
        let is_plain = file.metadata().as_ref().is_ok_and(Metadata::is_file);
        if !is_plain {
            return Err(Unread::Failed(format!("{path} is no plain file")));
        }
        let mut bytes = Vec::new();
        let read = io::Read::by_ref(&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| unread(path, &error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Unread::Failed(format!("{path} is larger than {FILE_BYTES_MAX} bytes")));
        }
        let mut text =
            String::from_utf8(bytes).map_err(|_| Unread::Failed(format!("{path} is not UTF-8")))?;
        if text.ends_with('\n') {
            text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
        }
        Ok(text)
    }

    /// How a compiler reads files.
    pub fn reader(self) -> ReadFile {
        Box::new(move |path| self.read(path))
    }

    /// The same, as it is learnt.
    pub(super) fn learn(&self, path: &str) -> Learnt {
        match self.read(path) {
            Ok(text) => Learnt::Value(text.into()),
            Err(Unread::Missing(why) | Unread::Outside(why)) => Learnt::Absent(why),
            Err(Unread::Failed(why)) => Learnt::Failed(why),
        }
    }

    fn outside(&self) -> String {
        let folders: Vec<String> = self.0.iter().map(|folder| folder.display().to_string()).collect();
        match folders.join(", ") {
            none if none.is_empty() => {
                "no file may be read, as secrets.directories of the settings is empty".to_owned()
            }
            folders => format!("expected a file below {folders} (secrets.directories of the settings)"),
        }
    }
}

fn unread(path: &str, error: &io::Error) -> Unread {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Unread::Missing(format!("the file {path} is not there"))
        }
        _ => Unread::Failed(format!("the file {path} can not be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn below(folder: &Path) -> Files {
        Files(vec![folder.to_owned()].into())
    }

    #[test]
    fn a_file_is_read_without_the_break_at_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = below(folder.path());
        let path = folder.path().join("key");
        let name = path.to_str().expect("text");
        let too_long = "x".repeat(FILE_BYTES_MAX as usize + 1);
        for (content, expected) in
            [("k\n", Ok("k")), ("k\r\n", Ok("k")), ("k\n\n", Ok("k\n")), (" k", Ok(" k"))]
                .into_iter()
                .chain([(&*too_long, Err(()))])
        {
            fs::write(&path, content).expect("written");
            assert_eq!(files.read(name).map_err(drop), expected.map(str::to_owned));
        }
        fs::write(&path, [0xff]).expect("written");
        assert!(matches!(files.read(name), Err(Unread::Failed(why)) if why.contains("UTF-8")));
        assert!(matches!(files.read(folder.path().to_str().expect("text")), Err(Unread::Failed(_))));
        fs::remove_file(&path).expect("removed");
        assert!(matches!(files.read(name), Err(Unread::Missing(why)) if why.contains("is not there")));
    }

    #[test]
    fn only_what_is_below_the_folders_is_read_wherever_links_lead() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&inside).expect("made");
        fs::write(&outside, "secret").expect("written");
        fs::write(inside.join("key"), "k").expect("written");
        symlink(&outside, inside.join("out")).expect("linked");
        symlink(inside.join("key"), inside.join("in")).expect("linked");
        symlink(&inside, folder.path().join("linked")).expect("linked");
        let read = |files: &Files, path: PathBuf| files.read(path.to_str().expect("text"));
        let files = below(&inside);
        assert_eq!(read(&files, inside.join("in")).ok().as_deref(), Some("k"));
        for path in [outside, inside.join("out"), inside.join("../outside"), folder.path().join("inside2/x")]
        {
            match read(&files, path.clone()) {
                Err(Unread::Outside(why)) => assert!(why.contains("secrets.directories"), "{why}"),
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        let linked = below(&folder.path().join("linked"));
        assert_eq!(read(&linked, folder.path().join("linked/key")).ok().as_deref(), Some("k"));
        assert!(matches!(read(&Files(Vec::new().into()), inside.join("key")), Err(Unread::Outside(_))));
    }

    #[test]
    fn a_file_that_is_replaced_has_another_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("key"), folder.path().join("other"));
        let name = path.to_str().expect("text");
        assert_eq!(Stamp::of(name), None);
        fs::write(&path, "a").expect("written");
        let first = Stamp::of(name);
        assert_eq!(Stamp::of(name), first);
        fs::write(&other, "b").expect("written");
        fs::rename(&other, &path).expect("renamed");
        assert_ne!(Stamp::of(name), first);
    }
}
