//! What is wrong with the store on disk, in words: which file it is, and how to go on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{disk, journal};

/// What redb calls a file that is none of its own, or ends where it looks for a page; the last is in memory.
const NOT_A_STORE: [io::ErrorKind; 3] =
    [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidInput];

/// Does something with the file. A file that makes redb panic is damaged.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| explained(path, error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said =
                said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it makes redb panic");
            Err(damaged(path, said))
        }
    }
}

pub(super) fn explained(path: &Path, error: redb::Error) -> io::Error {
    let place = path.display();
    match error {
        redb::Error::DatabaseAlreadyOpen => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "{place}: another process has it open; end that first, or give this one a folder of its own"
            ),
        ),
        // None of ours: we have never written it.
        redb::Error::UpgradeRequired(format) => {
            damaged(path, &format!("its pages are in redb's format {format}"))
        }
        redb::Error::Io(error) if NOT_A_STORE.contains(&error.kind()) => damaged(path, &error.to_string()),
        redb::Error::Io(error) => named(path, &error),
        redb::Error::Corrupted(why) => damaged(path, &why),
        error @ (redb::Error::TableDoesNotExist(_)
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }) => damaged(path, &error.to_string()),
        error => io::Error::other(format!("{place}: {error}")),
    }
}

/// Why a file that can be read is not served.
pub(super) enum Unfit {
    /// It is not what we have written.
    Damaged(String),
    /// A secret in it does not open.
    Locked(String),
}

impl Unfit {
    /// As it is told of a file.
    pub(super) fn at(self, path: &Path) -> io::Error {
        let why = match self {
            Self::Damaged(why) => return damaged(path, &why),
            Self::Locked(why) => why,
        };
        let place = path.display();
        let how = "Nothing of it is served: bring the key back, or move the file away to begin anew";
        io::Error::new(io::ErrorKind::InvalidData, format!("{place}: {why}. {how}"))
    }
}

/// The fault of a file that is not what we have written.
pub(super) fn damaged(path: &Path, why: &str) -> io::Error {
    let place = path.display();
    let copy = path.with_file_name(disk::COPY);
    let why = format!(
        "{place}: damaged: {why}. It was left as it is. To go on with what it held at the last start, move it away \
         and copy {} in its place; to begin anew, move both away",
        copy.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The fault of the journal beside a file, which tells how to go on itself.
pub(super) fn of_journal(path: &Path, why: &str) -> io::Error {
    let place = path.with_file_name(journal::FILE);
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: damaged: {why}", place.display()))
}

pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
