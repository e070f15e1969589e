//! Disks that fail: each write in turn refused, or done and called a failure; no room; no right to write.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::*;

/// When a disk fails, and how.
#[derive(Debug, Default)]
struct Fault {
    /// Writes until the first failure, and below 0 those since. `i64::MAX` is never.
    until: AtomicI64,
    /// Failures from there on.
    failures: AtomicI64,
    /// Whether what fails is done nevertheless.
    is_done: AtomicBool,
}

impl Fault {
    fn arm(&self, until: i64, failures: i64, is_done: bool) {
        self.failures.store(failures, Ordering::Relaxed);
        self.is_done.store(is_done, Ordering::Relaxed);
        self.until.store(until, Ordering::Relaxed);
    }

    /// Ends it, and says whether it has struck.
    fn disarm(&self) -> bool {
        self.until.swap(i64::MAX, Ordering::Relaxed) < 0
    }

    fn strike(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let left = self.until.fetch_sub(1, Ordering::Relaxed);
        if left > 0 || left <= -self.failures.load(Ordering::Relaxed) {
            return work();
        }
        if self.is_done.load(Ordering::Relaxed) {
            work()?;
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

thread_local! {
    static FAULT: RefCell<Option<Arc<Fault>>> = const { RefCell::new(None) };
}

/// Makes files that this thread opens from here on fail as told.
fn faulty() -> Arc<Fault> {
    let fault = Arc::new(Fault::default());
    fault.disarm();
    FAULT.set(Some(Arc::clone(&fault)));
    fault
}

/// A write of this thread to another file, which may be to fail.
pub(in super::super) fn through(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match FAULT.with_borrow(Clone::clone) {
        Some(fault) => fault.strike(work),
        None => work(),
    }
}

/// The file, if it is to fail.
pub(in super::super) fn backend(path: &Path) -> Option<Faulty> {
    let fault = FAULT.with_borrow(Clone::clone)?;
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    Some(Faulty { file: FileBackend::new(file).ok()?, fault })
}

#[derive(Debug)]
pub(in super::super) struct Faulty {
    file: FileBackend,
    fault: Arc<Fault>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault.strike(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault.strike(|| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fault.strike(|| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

/// Lets every write of a commit fail in turn, that many in a row, and checks what is left each time. `padding`: how many bytes
/// a commit has at least.
fn check_each_write(failures: i64, is_done: bool, padding: usize) {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let fault = faulty();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "first"), route("2", "first")]);
    let mut errors = 0;
    for until in 0.. {
        let place = format!(
            "RINGWAY_SEED={seed}, write {until}, {failures} failures, done: {is_done}, {padding} more"
        );
        let before = State::of(&store);
        let text = format!("{place}{}", "x".repeat(padding));
        let changes =
            vec![route("1", &text), delete(Kind::Route, "2"), put(Kind::Route, "3", random_value(&mut rng))];
        let mut after = before.clone();
        after.apply(&changes);
        fault.arm(until, failures, is_done);
        let outcome = store.commit(changes, &author(), 0, Term::Lasting);
        let has_struck = fault.disarm();
        if let Err(error) = &outcome {
            errors += 1;
            assert!(error.to_string().starts_with(&dir.path().display().to_string()), "{place}: {error}");
            assert_eq!(State::of(&store), before, "{place}");
        } else {
            assert_eq!(State::of(&store), after, "{place}");
        }
        let expected = State::of(&store);
        if rng.below(2) == 0 {
            drop(store);
            store = Store::open(dir.path(), Seal::default()).unwrap();
            let found = State::of(&store);
            // With every write failing, nothing can be taken back before the end of the process.
            assert!(found == expected || (failures > 1 && found == after), "{place}: {found:?}");
        }
        if !has_struck {
            break;
        }
        commit(&mut store, vec![route("2", "room again")]);
    }
    // A journal is written to and synced.
    let fewest = if padding > 0 { 3 } else { 2 };
    assert!(errors >= fewest, "RINGWAY_SEED={seed}: only {errors} errors");
    let state = State::of(&store);
    drop(store);
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state);
    FAULT.set(None);
}

/// More than the journal has room for.
const LARGE: usize = 300_000;

#[test]
fn a_write_that_fails_once_leaves_everything_as_it_was() {
    for padding in [0, LARGE] {
        check_each_write(1, false, padding);
    }
}

#[test]
fn a_write_that_is_called_a_failure_but_was_done_leaves_everything_as_it_was() {
    for padding in [0, LARGE] {
        check_each_write(1, true, padding);
    }
}

#[test]
fn a_disk_that_fails_from_some_write_on_leaves_what_was_or_what_is_new() {
    for padding in [0, LARGE] {
        check_each_write(i64::MAX, false, padding);
    }
    for padding in [0, LARGE] {
        check_each_write(i64::MAX, true, padding);
    }
}

/// A store with a commit that has failed, as so many writes of a disk that serves again have.
fn failed_store(dir: &Path, padding: usize, failures: i64) -> Store {
    let fault = faulty();
    let mut store = Store::open(dir, Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "first")]);
    fault.arm(0, failures, false);
    let large = vec![route("1", &"x".repeat(padding))];
    store.commit(large, &author(), 0, Term::Lasting).unwrap_err();
    fault.disarm();
    store
}

#[test]
fn a_file_of_which_a_write_has_failed_is_not_gone_on_with() {
    use std::os::unix::fs::MetadataExt as _;
    for (padding, failures, is_another) in [(LARGE, i64::MAX, true), (10, i64::MAX, true), (10, 1, false)] {
        let dir = TempDir::new().unwrap();
        let mut store = failed_store(dir.path(), padding, failures);
        let inode = || fs::metadata(dir.path().join("store.redb")).unwrap().ino();
        let before = inode();
        commit(&mut store, vec![route("2", "second")]);
        // What the system has in memory of one whose sync has failed may never be on disk. A journal is.
        assert_eq!(inode() != before, is_another, "{padding}");
        let state = State::of(&store);
        drop(store);
        assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state, "{padding}");
    }
    FAULT.set(None);
}

#[test]
fn what_another_process_has_written_since_is_not_written_over() {
    let dir = TempDir::new().unwrap();
    let mut store = failed_store(dir.path(), LARGE, i64::MAX);
    FAULT.set(None);
    let mut other = Store::open(dir.path(), Seal::default()).unwrap();
    commit(&mut other, vec![route("1", "another's")]);
    let state = State::of(&other);
    drop(other);
    let error = store.commit(vec![route("1", "ours")], &author(), 0, Term::Lasting).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("start again to go on with what it holds"), "{error}");
    drop(store);
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state);
}

/// A small file system in memory, until dropped.
struct Mounted(TempDir);

impl Mounted {
    /// None, with the reason said, where one may not mount.
    fn of_size(size: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let outcome =
            Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(dir.path()).output();
        let why = match outcome {
            Ok(output) if output.status.success() => return Some(Self(dir)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let mut output = io::stderr().lock();
        writeln!(output, "not tested on a file system of {size}, as it can not be mounted: {why}").unwrap();
        None
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(self.0.path()).status().unwrap();
        assert!(status.success(), "remount {options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_a_commit_until_there_is_room_again() {
    let Some(mounted) = Mounted::of_size("size=16m") else { return };
    let dir = mounted.0.path();
    let mut store = Store::open(dir, Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "before")]);
    let before = State::of(&store);

    let filler = dir.join("filler");
    let full = io::copy(&mut io::repeat(7), &mut File::create(&filler).unwrap()).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let large = vec![route("2", &"x".repeat(4 << 20)), delete(Kind::Route, "1")];
    for _ in 0..3 {
        let error = store.commit(large.clone(), &author(), 0, Term::Lasting).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().starts_with(&dir.join("store.redb").display().to_string()), "{error}");
        assert_eq!(State::of(&store), before);
    }
    fs::remove_file(&filler).unwrap();
    commit(&mut store, vec![route("3", "room again")]);
    let state = State::of(&store);
    assert_eq!((state.revision, state.objects.len()), (2, 2));
    drop(store);
    assert_eq!(State::of(&Store::open(dir, Seal::default()).unwrap()), state);
}

#[test]
fn a_full_disk_still_opens_or_says_so() {
    let Some(mounted) = Mounted::of_size("size=16m") else { return };
    let dir = mounted.0.path();
    let mut store = Store::open(dir, Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "before")]);
    let state = State::of(&store);
    drop(store);
    let filler = dir.join("filler");
    io::copy(&mut io::repeat(7), &mut File::create(&filler).unwrap()).unwrap_err();
    match Store::open(dir, Seal::default()) {
        Ok(store) => assert_eq!(State::of(&store), state),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}"),
    }
    fs::remove_file(&filler).unwrap();
    assert_eq!(State::of(&Store::open(dir, Seal::default()).unwrap()), state);
}

#[test]
fn a_folder_that_may_not_be_written_to_is_named() {
    let check = |dir: &Path| {
        let error = Store::open(dir, Seal::default()).unwrap_err();
        assert!(error.to_string().starts_with(&dir.display().to_string()), "{error}");
        error.kind()
    };
    let home = TempDir::new().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    check(&file);
    check(&file.join("below"));

    // Nobody is kept out of a folder by its mode who is root; a file system does so.
    let closed = home.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if File::create(closed.join("probe")).is_err() {
        assert_eq!(check(&closed), io::ErrorKind::PermissionDenied);
    }
    let Some(mounted) = Mounted::of_size("size=16m") else { return };
    drop(Store::open(&mounted.0.path().join("made"), Seal::default()).unwrap());
    mounted.remount("remount,ro");
    assert_eq!(check(&mounted.0.path().join("made")), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(check(mounted.0.path()), io::ErrorKind::ReadOnlyFilesystem);
}
