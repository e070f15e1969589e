//! The file of the store: `store.redb`, in three tables, and `store.redb.bak`, a copy as of the last start.
//!
//! - A commit is on disk before it is anywhere else, whole or not at all.
//! - The head of the file points at the last two commits, with one bit without a checksum to say which is newer; and redb takes a
//!   newest commit with a damaged page for one that was cut short, and goes back to the one before. Either shows
//!   in the revision, which `store.mark` remembers ([`mark`]): a file that has gone back is refused.
//! - Opening reads every page and compares its checksum, first in memory, as redb writes while it checks. What does
//!   not hold is refused, and the file stays as it was.
//! - After an error the file is given up, for it is not known what has reached the disk. [`Disk::find`] opens it
//!   again and, where it is not what memory has, writes it anew.
//!
//! Blocks while the disk works, which is for the control thread only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend as _, TableDefinition,
};

use super::super::log;
use super::super::step_aside::step_aside;
use super::mark::{self, Mark};

pub(crate) const FILE: &str = "store.redb";
/// How often, and how far apart, a start looks whether a file that is in use has become free: half a second in all.
const BUSY_LOOKS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const COPY: &str = "store.redb.bak";
const NEW_FILE: &str = "store.redb.new";
const NEW_COPY: &str = "store.redb.bak.new";

/// What the rows mean. Any other is refused.
const FORMAT: u64 = 1;
/// What redb calls a file that is none of its own, or ends where it looks for a page; the last is in memory.
const NOT_A_STORE: [io::ErrorKind; 3] =
    [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidInput];
/// For pages of the file. Little, as all rows are in memory anyway.
const CACHE_BYTES: usize = 1024 * 1024;

/// `routes/7` to [`Kept`](super::record::Kept).
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// A revision to [`Record`](super::record::Record).
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
/// How often the file was begun to be written to: see [`mark`].
const META_LIFE: &str = "life";

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) revision: u64,
    life: u64,
    pub(super) objects: Vec<(String, Vec<u8>)>,
    /// Oldest first.
    pub(super) history: Vec<(u64, Vec<u8>)>,
}

/// What is written at once.
#[derive(Debug)]
pub(super) struct Batch {
    revision: u64,
    /// In place of all that is there.
    is_whole: bool,
    /// None where it goes.
    pub(super) objects: Vec<(String, Option<Vec<u8>>)>,
    pub(super) history: Vec<(u64, Vec<u8>)>,
    /// Revisions that leave history.
    pub(super) forgotten: Vec<u64>,
}

impl Batch {
    pub(super) const fn changing(revision: u64) -> Self {
        Self { revision, is_whole: false, objects: Vec::new(), history: Vec::new(), forgotten: Vec::new() }
    }

    pub(super) fn replacing(revision: u64) -> Self {
        Self { is_whole: true, ..Self::changing(revision) }
    }
}

/// The file, held against other processes while it is open.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// None after an error.
    database: Option<Database>,
    /// Of the file, from [`Self::begin`] on, and the revision that it has reached.
    life: u64,
    reached: u64,
    mark: Option<Mark>,
}

impl Disk {
    /// Opens the file of a folder, or makes both.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Content)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| named(dir, &error))?;
        let path = dir.join(FILE);
        if !path.try_exists().map_err(|error| named(&path, &error))? {
            make(dir, &path)?;
        }
        let mut disk = Self { database: Some(awaited(&path)?), path, life: 0, reached: 0, mark: None };
        let content = disk.guarded(load)?;
        (disk.life, disk.reached) = (content.life, content.revision);
        Ok((disk, content))
    }

    /// Copies the file, and begins to write to it. Where there is no room to write it is given up until [`Self::find`].
    pub(super) fn begin(&mut self) {
        self.keep_copy();
        if let Err(error) = self.begin_life() {
            log::warn(format!("{error}; changes are refused until it can be written to"));
            self.lose();
        }
    }

    fn begin_life(&mut self) -> io::Result<()> {
        let life = self.life.wrapping_add(1);
        self.guarded(|database| {
            transact(database, |writing| {
                writing.open_table(META)?.insert(META_LIFE, life)?;
                Ok(())
            })
        })?;
        self.life = life;
        let mark = Mark::open(self.path.parent().unwrap_or_else(|| Path::new(".")));
        self.mark = Some(mark.map_err(|error| named(&self.path.with_file_name(mark::FILE), &error))?);
        self.note()
    }

    /// Notes which revision is on disk.
    fn note(&self) -> io::Result<()> {
        let noted = self.mark.as_ref().map_or(Ok(()), |mark| mark.write(self.life, self.reached));
        noted.map_err(|error| named(&self.path.with_file_name(mark::FILE), &error))
    }

    /// What the file of a folder holds, where neither may be written.
    pub(super) fn read(dir: &Path) -> io::Result<(PathBuf, Content)> {
        let path = dir.join(FILE);
        let content = in_memory(&path)?;
        not_gone_back(&path, &content)?;
        Ok((path, content))
    }

    /// Writes all of it or nothing. After an error the file is lost until found again.
    pub(super) fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let outcome = self.guarded(|database| write(database, batch, self.life));
        if outcome.is_ok() {
            self.reached = batch.revision;
        }
        // Its failure takes nothing back: what is written is written.
        if outcome.is_err() || self.note().is_err() {
            self.lose();
        }
        outcome
    }

    /// Whether an error has left it unknown what the file holds.
    pub(super) const fn is_lost(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the file again after an error, and sees that it holds what memory does, which is at a revision.
    pub(super) fn find(
        &mut self,
        revision: u64,
        whole: impl FnOnce() -> io::Result<Batch>,
    ) -> io::Result<()> {
        self.lose();
        if !self.path.try_exists().map_err(|error| named(&self.path, &error))? {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: is gone", self.path.display())));
        }
        // One that has gone back is written anew.
        self.database = Some(database(&self.path, |_, _| Ok(()))?);
        let outcome = match self.guarded(|database| Ok(load(database)?.revision)) {
            Ok(found) if found == revision => Ok(()),
            Ok(_) => whole().and_then(|batch| self.write(&batch)),
            Err(error) => Err(error),
        };
        let outcome = outcome.and_then(|()| if self.mark.is_none() { self.begin_life() } else { Ok(()) });
        if outcome.is_err() {
            self.lose();
        }
        outcome
    }

    /// Copies the file beside itself. That it can not is no reason to stop.
    fn keep_copy(&self) {
        if let Err(error) = copy(&self.path) {
            let copy = self.path.with_file_name(COPY);
            log::warn(format!(
                "{}: {error}; the copy of an earlier start stays, if there is one",
                copy.display()
            ));
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn lose(&mut self) {
        let path = &self.path;
        if let Some(database) = self.database.take() {
            // Closing writes.
            let _ = guarded(path, || database.close().map_err(redb::Error::from));
        }
    }

    fn guarded<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> io::Result<T> {
        let Some(database) = &self.database else {
            let why = format!("{}: is closed after an error", self.path.display());
            return Err(io::Error::other(why));
        };
        guarded(&self.path, || work(database))
    }
}

/// Makes a file with nothing in it. It appears under its name only when it is whole, and never in place of another.
fn make(dir: &Path, path: &Path) -> io::Result<()> {
    let copy = dir.join(COPY);
    if copy.try_exists().map_err(|error| named(&copy, &error))? {
        let why = format!(
            "{}: is not there, but {} is. To go on with what it held at the last start, copy the latter to the \
             former; to begin anew, move it away",
            path.display(),
            copy.display()
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let new = dir.join(NEW_FILE);
    create(&new).map_err(|error| named(&new, &error))?;
    guarded(&new, || {
        let database = builder().create(&new)?;
        write(&database, &Batch::replacing(0), 0)?;
        Ok(database.close()?)
    })?;
    match fs::hard_link(&new, path) {
        Ok(()) => {}
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(named(path, &error)),
    }
    fs::remove_file(&new).and_then(|()| File::open(dir)?.sync_all()).map_err(|error| named(&new, &error))
}

/// An empty file for our eyes only, in place of what a process that died has left there.
fn create(path: &Path) -> io::Result<File> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Copies the bytes of a file that is open and still: as if its process had been killed just now.
fn copy(path: &Path) -> io::Result<()> {
    let new = path.with_file_name(NEW_COPY);
    let mut file = create(&new)?;
    let copied = File::open(path).and_then(|mut source| io::copy(&mut source, &mut file));
    let outcome = copied
        .and_then(|_| file.sync_all())
        .and_then(|()| fs::rename(&new, path.with_file_name(COPY)))
        .and_then(|()| File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all());
    if outcome.is_err() {
        let _ = fs::remove_file(&new);
    }
    outcome
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Opens a file whose content passes a look at it first.
fn database(path: &Path, look: fn(&Path, &Content) -> io::Result<()>) -> io::Result<Database> {
    look(path, &in_memory(path)?)?;
    guarded(path, || {
        #[cfg(test)]
        if let Some(backend) = super::tests::faults::backend(path) {
            return Ok(builder().create_with_backend(backend)?);
        }
        Ok(builder().open(path)?)
    })
}

/// What the bytes of a file hold, which is not opened itself: redb repairs what it can before it finds that it can not, and a file
/// that is refused must be left as it was.
fn in_memory(path: &Path) -> io::Result<Content> {
    let read = || {
        let mut file = File::open(path)?;
        // Until the bytes are read, as another process may be about to write.
        file.try_lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => explained(path, redb::Error::DatabaseAlreadyOpen),
        _ => named(path, &error),
    })?;
    if bytes.is_empty() {
        return Err(damaged(path, "it is empty"));
    }
    guarded(path, || {
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64)?;
        memory.write(0, &bytes)?;
        drop(bytes);
        load(&builder().create_with_backend(memory)?)
    })
}

fn load(database: &Database) -> Result<Content, redb::Error> {
    let reading = database.begin_read()?;
    let meta = reading.open_table(META)?;
    let number = |name: &str| {
        let found = meta.get(name)?.map(|value| value.value());
        found.ok_or_else(|| redb::Error::Corrupted(format!("there is no {name}")))
    };
    let format = number(META_FORMAT)?;
    if format != FORMAT {
        return Err(redb::Error::Io(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "its format is {format}, this program knows {FORMAT} only; use the program that wrote it"
            ),
        )));
    }
    let life = meta.get(META_LIFE)?.map_or(0, |value| value.value());
    let mut content = Content { revision: number(META_REVISION)?, life, ..Content::default() };
    for row in reading.open_table(OBJECTS)?.iter()? {
        let (name, text) = row?;
        content.objects.push((name.value().to_owned(), text.value().to_vec()));
    }
    for row in reading.open_table(HISTORY)?.iter()? {
        let (revision, text) = row?;
        content.history.push((revision.value(), text.value().to_vec()));
    }
    Ok(content)
}

/// One commit, durable when it returns.
fn transact(
    database: &Database,
    work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate)?;
    work(&writing)?;
    step_aside();
    Ok(writing.commit()?)
}

fn write(database: &Database, batch: &Batch, life: u64) -> Result<(), redb::Error> {
    transact(database, |writing| {
        let mut meta = writing.open_table(META)?;
        let mut objects = writing.open_table(OBJECTS)?;
        let mut history = writing.open_table(HISTORY)?;
        if batch.is_whole {
            objects.retain(|_, _| false)?;
            history.retain(|_, _| false)?;
            meta.insert(META_FORMAT, FORMAT)?;
        }
        for (name, text) in &batch.objects {
            match text {
                Some(text) => objects.insert(name.as_str(), text.as_slice())?,
                None => objects.remove(name.as_str())?,
            };
        }
        for revision in &batch.forgotten {
            history.remove(revision)?;
        }
        for (revision, text) in &batch.history {
            history.insert(revision, text.as_slice())?;
        }
        meta.insert(META_REVISION, batch.revision)?;
        meta.insert(META_LIFE, life)?;
        Ok(())
    })
}

/// Refuses what was further on before.
fn not_gone_back(path: &Path, content: &Content) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    match mark::reached(dir, content.life) {
        Some(reached) if reached > content.revision => Err(damaged(
            path,
            &format!(
                "it is at revision {}, and {} says that {reached} was reached; whoever wants to go on with the former \
                 moves that away",
                content.revision,
                dir.join(mark::FILE).display()
            ),
        )),
        _ => Ok(()),
    }
}

/// The file, once whoever has it is gone: a process that was just ended, or one that a process is about to become.
fn awaited(path: &Path) -> io::Result<Database> {
    for _ in 0..BUSY_LOOKS {
        match database(path, not_gone_back) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::park_timeout(BUSY_PAUSE)
            }
            outcome => return outcome,
        }
    }
    database(path, not_gone_back)
}

/// Does something with the file. A file that makes redb panic is damaged.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> io::Result<T> {
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

fn explained(path: &Path, error: redb::Error) -> io::Error {
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
fn damaged(path: &Path, why: &str) -> io::Error {
    let place = path.display();
    let copy = path.with_file_name(COPY);
    let why = format!(
        "{place}: damaged: {why}. It was left as it is. To go on with what it held at the last start, move it away \
         and copy {} in its place; to begin anew, move both away",
        copy.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
