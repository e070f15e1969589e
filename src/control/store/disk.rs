//! The file of the store: `store.redb`, in three tables, and `store.redb.bak`, a copy as of the last start.
//!
//! - A commit is on disk before it is anywhere else, whole or not at all: in `store.journal` ([`journal`]), which goes
//!   into the file when it is full, at a clean end and at a start.
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
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend as _, TableDefinition,
};

use super::super::log;
use super::super::step_aside::step_aside;
use super::batch::{Batch, Content};
use super::journal::{self, Journal};
use super::mark::{self, Mark};
use super::words::{damaged, explained, guarded, named, of_journal};

pub(crate) const FILE: &str = "store.redb";
/// How often, and how far apart, a start looks whether a file that is in use has become free: half a second in all.
const BUSY_LOOKS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
pub(super) const COPY: &str = "store.redb.bak";
const NEW_FILE: &str = "store.redb.new";
const NEW_COPY: &str = "store.redb.bak.new";

/// What the rows mean, and that commits may be in a journal. The first, without one, is read as well; any other is refused.
const FORMAT: u64 = 2;
/// For pages of the file. Little, as all rows are in memory anyway.
const CACHE_BYTES: usize = 1024 * 1024;

/// `routes/7` to [`Kept`](super::record::Kept).
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// A revision to [`Record`](super::record::Record).
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
/// A number that is another each time the file is begun to be written to: see [`mark`].
const META_LIFE: &str = "life";

/// What a journal holds, if it can be read.
type Bytes = io::Result<Vec<u8>>;

/// The file, held against other processes while it is open.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// None after an error.
    database: Option<Database>,
    /// Of the file, the revision that it has reached with its journal, and the one that it is at without.
    life: u64,
    reached: u64,
    taken_in: u64,
    /// The life that was begun last, or that somebody has tried to begin.
    drawn: u64,
    /// Whether a write to the file itself has failed since it was written anew: what the system has of it may not be on disk, and
    /// never come there.
    is_doubtful: bool,
    /// From [`Self::begin`] on.
    mark: Option<Mark>,
    journal: Option<Journal>,
}

impl Disk {
    /// Opens the file of a folder, or makes both.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Content)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| named(dir, &error))?;
        let path = dir.join(FILE);
        if !path.try_exists().map_err(|error| named(&path, &error))? {
            make(dir, &path)?;
        }
        let database = awaited(&path)?;
        let mut disk = Self {
            path,
            database: Some(database),
            life: 0,
            reached: 0,
            taken_in: 0,
            drawn: 0,
            is_doubtful: false,
            mark: None,
            journal: None,
        };
        let content = disk.guarded(load)?;
        (disk.life, disk.drawn, disk.taken_in) = (content.life, content.life, content.revision);
        let content = whole(&disk.path, content, &disk.journal()?)?;
        disk.reached = content.revision;
        Ok((disk, content))
    }

    /// Takes the journal in, copies the file, and begins to write to it. Where there is no room to write it is given up
    /// until [`Self::find`].
    pub(super) fn begin(&mut self) {
        let begun = self.take_in(None).and_then(|()| {
            self.keep_copy();
            self.begin_life()
        });
        if let Err(error) = begun {
            log::warn(format!("{error}; changes are refused until it can be written to"));
            self.lose();
        }
    }

    /// From here on, nothing that is in the journal counts, and no mark.
    fn begin_life(&mut self) -> io::Result<()> {
        let life = getrandom::u64().map_err(io::Error::other)?;
        (self.drawn, self.is_doubtful) = (life, true);
        // Twice, as a file may go back by one commit: if that were to another life, it would leave the journal behind.
        for _ in 0..2 {
            self.guarded(|database| {
                transact(database, |writing| {
                    let mut meta = writing.open_table(META)?;
                    meta.insert(META_FORMAT, FORMAT)?;
                    meta.insert(META_LIFE, life)?;
                    Ok(())
                })
            })?;
        }
        (self.life, self.is_doubtful) = (life, false);
        let journal = Journal::open(self.dir());
        self.journal =
            Some(journal.map_err(|error| named(&self.path.with_file_name(journal::FILE), &error))?);
        let mark = Mark::open(self.dir());
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
        let (content, journal) = in_memory(&path)?;
        let content = whole(&path, content, &journal?)?;
        not_gone_back(&path, &content)?;
        Ok((path, content))
    }

    /// Writes all of it or nothing. After an error the file is lost until found again.
    pub(super) fn write(&mut self, batch: &Batch) -> io::Result<()> {
        let outcome = self.add(batch);
        if outcome.is_ok() {
            self.reached = batch.revision;
        }
        // Its failure takes nothing back: what is written is written.
        if outcome.is_err() || self.note().is_err() {
            self.lose();
        }
        outcome
    }

    fn add(&mut self, batch: &Batch) -> io::Result<()> {
        let added = self.journal.as_mut().map_or(Ok(false), |journal| journal.add(self.life, batch));
        match added.map_err(|error| named(&self.path.with_file_name(journal::FILE), &error))? {
            true => Ok(()),
            false => self.take_in(Some(batch)),
        }
    }

    /// Writes what the journal has into the file, and one more.
    fn take_in(&mut self, more: Option<&Batch>) -> io::Result<()> {
        let mut commits = self.commits()?;
        let reached = commits.last().map_or(self.taken_in, |commit| commit.revision);
        if reached != self.reached {
            let why = format!("it ends at revision {reached}, and {} was written", self.reached);
            return Err(of_journal(&self.path, &why));
        }
        commits.extend(more.cloned());
        commits.into_iter().reduce(Batch::then).map_or(Ok(()), |batch| self.put(&batch))
    }

    /// Writes into the file itself, which leaves nothing in the journal that counts.
    fn put(&mut self, batch: &Batch) -> io::Result<()> {
        self.is_doubtful = true;
        self.guarded(|database| write(database, batch, self.life))?;
        (self.taken_in, self.is_doubtful) = (batch.revision, false);
        if let Some(journal) = &mut self.journal {
            journal.begin_again();
        }
        Ok(())
    }

    fn journal(&self) -> io::Result<Vec<u8>> {
        match &self.journal {
            Some(journal) => journal.bytes().map_err(|error| of_journal(&self.path, &error.to_string())),
            None => journal_of(&self.path),
        }
    }

    /// What the journal has that the file has not.
    fn commits(&self) -> io::Result<Vec<Batch>> {
        journal::commits(&self.journal()?, self.life, self.taken_in)
            .map_err(|why| of_journal(&self.path, &why))
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
        // Opening writes, too.
        let was_doubtful = std::mem::replace(&mut self.is_doubtful, true);
        self.database = Some(database(&self.path, |_, _, _| Ok(()))?);
        self.is_doubtful = was_doubtful;
        let outcome = self.settle(revision, whole).and_then(|()| self.begin_life());
        if outcome.is_err() {
            self.lose();
        }
        outcome
    }

    /// Brings the file to a revision, whatever it and the journal hold. One that has gone back, or is doubtful, is written anew.
    fn settle(&mut self, revision: u64, whole: impl FnOnce() -> io::Result<Batch>) -> io::Result<()> {
        let content = self.guarded(load)?;
        if ![self.life, self.drawn].contains(&content.life) {
            let why = "another process has written to it, or it was replaced; start again to go on with what it holds";
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{}: {why}", self.path.display()),
            ));
        }
        if self.is_doubtful {
            self.replace(&whole()?)?;
            self.reached = revision;
            return Ok(());
        }
        (self.life, self.taken_in) = (content.life, content.revision);
        let mut commits = self.commits().unwrap_or_default();
        // A commit that is called a failure may be there nevertheless.
        commits.retain(|commit| commit.revision <= revision);
        let reached = commits.last().map_or(content.revision, |commit| commit.revision);
        let batch = match commits.into_iter().reduce(Batch::then) {
            batch if reached == revision => batch,
            _ => Some(whole()?),
        };
        batch.map_or(Ok(()), |batch| self.put(&batch))?;
        self.reached = revision;
        Ok(())
    }

    /// Puts a new file in the place of one that is open, and held against others meanwhile.
    fn replace(&mut self, whole: &Batch) -> io::Result<()> {
        let new = self.path.with_file_name(NEW_FILE);
        self.drawn = getrandom::u64().map_err(io::Error::other)?;
        write_new(&new, whole, self.drawn)?;
        fs::rename(&new, &self.path)
            .and_then(|()| File::open(self.dir())?.sync_all())
            .map_err(|error| named(&self.path, &error))?;
        self.lose();
        self.database = Some(database(&self.path, |_, _, _| Ok(()))?);
        (self.life, self.taken_in, self.is_doubtful) = (self.drawn, whole.revision, false);
        Ok(())
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

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("."))
    }

    fn lose(&mut self) {
        self.journal = None;
        let path = &self.path;
        if let Some(database) = self.database.take() {
            // Closing writes.
            self.is_doubtful |= guarded(path, || database.close().map_err(redb::Error::from)).is_err();
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

impl Drop for Disk {
    /// After a clean end all is in one file.
    fn drop(&mut self) {
        if self.mark.is_some()
            && !self.is_lost()
            && let Err(error) = self.take_in(None)
        {
            log::warn(format!("{error}; the newest changes stay in {}", journal::FILE));
        }
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
    write_new(&new, &Batch::replacing(0), 0)?;
    match fs::hard_link(&new, path) {
        Ok(()) => {}
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(named(path, &error)),
    }
    fs::remove_file(&new).and_then(|()| File::open(dir)?.sync_all()).map_err(|error| named(&new, &error))
}

/// Makes a file that holds this, for a name of its own.
fn write_new(new: &Path, whole: &Batch, life: u64) -> io::Result<()> {
    create(new).map_err(|error| named(new, &error))?;
    guarded(new, || {
        let database = on_disk(new, |builder| builder.create(new))?;
        write(&database, whole, life)?;
        Ok(database.close()?)
    })?;
    File::open(new).and_then(|file| file.sync_all()).map_err(|error| named(new, &error))
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

/// Opens a file that passes a look at what it and its journal hold first.
fn database(path: &Path, look: fn(&Path, Content, Bytes) -> io::Result<()>) -> io::Result<Database> {
    let (content, journal) = in_memory(path)?;
    look(path, content, journal)?;
    guarded(path, || on_disk(path, |builder| builder.open(path)))
}

/// A file as redb has it, on a disk that tests can make fail.
fn on_disk(
    path: &Path,
    open: impl FnOnce(&redb::Builder) -> Result<Database, redb::DatabaseError>,
) -> Result<Database, redb::Error> {
    #[cfg(test)]
    if let Some(backend) = super::tests::faults::backend(path) {
        return Ok(builder().create_with_backend(backend)?);
    }
    let _ = path;
    Ok(open(&builder())?)
}

/// What the bytes of a file hold, which is not opened itself: redb repairs what it can before it finds that it can not, and a file
/// that is refused must be left as it was. And the bytes of its journal.
fn in_memory(path: &Path) -> io::Result<(Content, Bytes)> {
    let read = || {
        let mut file = File::open(path)?;
        // Until the bytes are read, as another process may be about to write.
        file.try_lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((bytes, journal_of(path)))
    };
    let (bytes, journal) = read().map_err(|error: io::Error| match error.kind() {
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
    .map(|content| (content, journal))
}

/// The journal beside a file.
fn journal_of(path: &Path) -> Bytes {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    journal::read(dir).map_err(|error| named(&path.with_file_name(journal::FILE), &error))
}

/// What a file holds together with its journal.
fn whole(path: &Path, mut content: Content, journal: &[u8]) -> io::Result<Content> {
    let commits = journal::commits(journal, content.life, content.revision);
    for commit in commits.map_err(|why| of_journal(path, &why))? {
        content.apply(commit);
    }
    Ok(content)
}

fn load(database: &Database) -> Result<Content, redb::Error> {
    let reading = database.begin_read()?;
    let meta = reading.open_table(META)?;
    let number = |name: &str| {
        let found = meta.get(name)?.map(|value| value.value());
        found.ok_or_else(|| redb::Error::Corrupted(format!("there is no {name}")))
    };
    let format = number(META_FORMAT)?;
    if !(1..=FORMAT).contains(&format) {
        return Err(redb::Error::Io(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "its format is {format}, this program knows none above {FORMAT}; use the program that wrote it"
            ),
        )));
    }
    let life = meta.get(META_LIFE)?.map_or(0, |value| value.value());
    let mut content = Content { revision: number(META_REVISION)?, life, ..Content::default() };
    for row in reading.open_table(OBJECTS)?.iter()? {
        let (name, text) = row?;
        content.objects.insert(name.value().to_owned(), text.value().to_vec());
    }
    for row in reading.open_table(HISTORY)?.iter()? {
        let (revision, text) = row?;
        content.history.insert(revision.value(), text.value().to_vec());
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
            step_aside();
        }
        for revision in &batch.forgotten {
            history.remove(revision)?;
        }
        for (revision, text) in &batch.history {
            history.insert(revision, text.as_slice())?;
            step_aside();
        }
        meta.insert(META_REVISION, batch.revision)?;
        meta.insert(META_LIFE, life)?;
        Ok(())
    })
}

/// Refuses a file that with its journal was further on before.
fn has_all(path: &Path, content: Content, journal: Bytes) -> io::Result<()> {
    not_gone_back(path, &whole(path, content, &journal?)?)
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
        match database(path, has_all) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::park_timeout(BUSY_PAUSE)
            }
            outcome => return outcome,
        }
    }
    database(path, has_all)
}
