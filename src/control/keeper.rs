//! Keeps accounts of long windows beyond the process: reads them at the start, saves them every few seconds, and at the end.
//!
//! One file, `limits.bin` in the state's folder, written whole beside its place and moved there, so that it is never half.
//! A thread of its own does it: neither cores nor the control loop wait for the disk. Where there is a
//! folder it is there from the first start on, so that all who come name accounts by its key; where there is none, nothing is made
//! before something long is counted. Where nothing can be kept, that is told once and limits count all the same.
//!
//! Two processes may have one folder: the old one that drains, and the new one. Each adds what the other has counted. The file as
//! a process has last read or written it stays open when another takes its place, so what has come since is the difference
//! of the two, and nothing has to be remembered. One at a time does so, by a lock on the folder.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{log, whole_file};
use crate::base::clock;
use crate::base::window::long::Long;
use crate::link::ledger::{Keepsake, KeptAccount, Ledger};

/// The name of the file.
const FILE: &str = "limits.bin";
/// Between two saves, if anything changed: what is lost at most when the process is killed.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// The same while another process counts, too: what each of the two may admit that the other has spent.
const SAVE_SHARED_EVERY: Duration = Duration::from_secs(1);
/// The same while there is no file.
const SAVE_FIRST_EVERY: Duration = Duration::from_millis(250);
/// Saves at that pace after another process has written.
const QUICK_SAVES: u32 = 60;
/// How long another process may have the folder for itself, at the start and at the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it has let go.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// Saving takes no more than one part in so many of a thread's time: with very many accounts it is done less often.
const SAVE_SHARE: u32 = 20;
/// What a file begins with: the form, and its version.
const MARK: &[u8; 17] = b"ringway limits 2\n";
/// The same of a file whose accounts have one word each, and are of no sliding window: it is read, and written anew.
const MARK_BEFORE: &[u8; 17] = b"ringway limits 1\n";
/// The mark, the key of names, when it was written, how many accounts.
const HEAD_BYTES: usize = MARK.len() + 32 + 8 + 8;
/// A name, until when, which window, two words.
const ACCOUNT_BYTES: usize = 16 + 8 + 8 + 16;
/// A name, a word, until when, which window.
const ACCOUNT_BYTES_BEFORE: usize = 16 + 8 + 8 + 8;
/// A checksum of all before it.
const TAIL_BYTES: usize = 4;

/// The handle on the thread.
#[derive(Debug)]
pub struct Keeper {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Reads what is there, and keeps from here on.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(folder: &Path, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let mut desk = Desk::open(folder, ledger)?;
        let (end, ended) = bounded(1);
        let thread = thread::Builder::new().name("limits".to_owned()).spawn(move || desk.work(&ended))?;
        Ok(Self { end, thread })
    }

    /// Saves once more, and ends. To be called when nobody spends any more.
    pub fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            log::error("what was spent of long windows is not kept: the thread that keeps it has failed");
        }
    }
}

struct Desk {
    path: PathBuf,
    ledger: Arc<Ledger>,
    /// What accounts are named with.
    key: [u8; 32],
    /// Of the accounts as they were saved last.
    saved: u32,
    /// The file as it was read or written last here: what it says, the ledger knows. `None` where there was none.
    known: Option<File>,
    /// Saves to come at the quicker pace.
    quick: u32,
    is_failing: bool,
    /// Whether it was told that another process writes the file.
    is_shared: bool,
}

impl Desk {
    /// Reads what is there.
    fn open(folder: &Path, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let path = folder.join(FILE);
        // What is wrong with the folder the first save will say.
        let alone = if folder.is_dir() { lock(folder, PATIENCE).ok() } else { None };
        let (keepsake, mut known) = match read(&path) {
            Ok(Some((keepsake, file))) => {
                log::info(format!("accounts of limits in {}: {}", path.display(), keepsake.accounts.len()));
                (keepsake, Some(file))
            }
            Ok(None) => (Keepsake::new()?, None),
            Err(error) => {
                log::error(format!("{}: {error}; limits of long windows begin anew", path.display()));
                set_aside(&path);
                (Keepsake::new()?, None)
            }
        };
        if alone.is_some() && known.is_none() && write(&path, &keepsake).is_ok() {
            known = File::open(&path).ok();
        }
        let (key, saved) = (keepsake.key, checksum(&keepsake));
        ledger.keep(keepsake);
        let ledger = Arc::clone(ledger);
        Ok(Self { path, ledger, key, saved, known, quick: 0, is_failing: false, is_shared: false })
    }

    fn work(&mut self, ended: &Receiver<()>) {
        // Until there is a file, another process would name accounts otherwise.
        let every = |desk: &Self| match (&desk.known, desk.quick) {
            (None, _) => SAVE_FIRST_EVERY,
            (_, 0) => SAVE_EVERY,
            _ => SAVE_SHARED_EVERY,
        };
        let mut pause = every(self);
        while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            let since = clock::now();
            self.save(Duration::ZERO);
            pause = every(self).max(clock::now().since(since) * SAVE_SHARE);
        }
        self.save(PATIENCE);
    }

    /// Adds what others have written, and writes what has changed. Where another is about to do so and takes longer than
    /// that, it is left to the next time.
    fn save(&mut self, patience: Duration) {
        self.quick = self.quick.saturating_sub(1);
        let Some(mut keepsake) = self.ledger.keepsake(clock::now()) else { return };
        if checksum(&keepsake) == self.saved && !self.is_anothers() {
            return;
        }
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        let done = lock(folder, patience).and_then(|_alone| {
            let mut written = None;
            if self.is_anothers() {
                written = self.join();
                if let Some(joined) = self.ledger.keepsake(clock::now()) {
                    keepsake = joined;
                }
            }
            // Two who know the same do not tell each other so for ever.
            if written != Some(checksum(&keepsake)) {
                write(&self.path, &keepsake)?;
                self.known = File::open(&self.path).ok();
            }
            Ok(())
        });
        match done {
            Ok(()) => {
                self.saved = checksum(&keepsake);
                if std::mem::take(&mut self.is_failing) {
                    log::info(format!("{}: limits are kept again", self.path.display()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience.is_zero() => {}
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                let path = self.path.display();
                log::error(format!(
                    "{path}: {error}; limits of long windows would begin anew with the next start"
                ));
            }
            Err(_) => {}
        }
    }

    /// Whether another process has written the file since this one did.
    fn is_anothers(&self) -> bool {
        // No other has the number of a file that is open.
        let number = |told: fs::Metadata| (told.dev(), told.ino());
        let found = fs::metadata(&self.path).map(number).ok();
        let known = self.known.as_ref().and_then(|file| file.metadata().map(number).ok());
        found.is_some() && found != known
    }

    /// Adds what another process has counted since it and this one knew the same; the checksum of what it has written.
    fn join(&mut self) -> Option<u32> {
        self.quick = QUICK_SAVES;
        let path = self.path.display();
        let (theirs, file) = match read(&self.path) {
            Ok(Some(found)) => found,
            Ok(None) => return None,
            Err(error) => {
                log::error(format!("{path}: {error}; what another process has counted is lost"));
                set_aside(&self.path);
                return None;
            }
        };
        if theirs.key != self.key {
            log::warn(format!(
                "{path}: another process has begun it anew; what that has counted is not known here"
            ));
            return None;
        }
        if !std::mem::replace(&mut self.is_shared, true) {
            log::info(format!("{path}: another process counts, too; each adds what the other has counted"));
        }
        let nothing = Keepsake { key: self.key, at: theirs.at, accounts: Vec::new() };
        let before = self.known.as_ref().and_then(|file| parse(&whole(file).ok()?)).unwrap_or(nothing);
        self.ledger.join(&theirs, &before, clock::now());
        self.known = Some(file);
        Some(checksum(&theirs))
    }
}

/// The right to change what is in the folder, until it is dropped; the folder is made where it is not there.
///
/// # Errors
/// That it would have to wait longer than that, or what the system says of the folder.
#[expect(clippy::disallowed_methods, reason = "on a thread of its own, or at start before there is a core")]
fn lock(folder: &Path, patience: Duration) -> io::Result<Option<File>> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = File::open(folder)?;
    let since = clock::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            // There are file systems that lock no folders, and no other way then than not to.
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if clock::now().since(since) >= patience => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process does not let go of it",
                ));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(ASK_AGAIN),
        }
    }
}

/// What nobody can read is somebody's to look at.
fn set_aside(path: &Path) {
    let _ = fs::rename(path, path.with_extension("damaged"));
}

/// Of the accounts alone: that time goes by is no change.
fn checksum(keepsake: &Keepsake) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    keepsake.accounts.iter().for_each(|account| sum.update(&bytes_of(account)));
    sum.finalize()
}

fn bytes_of(account: &KeptAccount) -> [u8; ACCOUNT_BYTES] {
    let mut bytes = [0; ACCOUNT_BYTES];
    bytes[..16].copy_from_slice(&account.id);
    bytes[16..24].copy_from_slice(&account.until.to_le_bytes());
    bytes[24..32].copy_from_slice(&account.long.code().to_le_bytes());
    bytes[32..40].copy_from_slice(&account.words[0].to_le_bytes());
    bytes[40..].copy_from_slice(&account.words[1].to_le_bytes());
    bytes
}

fn write(path: &Path, keepsake: &Keepsake) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + keepsake.accounts.len() * ACCOUNT_BYTES + TAIL_BYTES);
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(&keepsake.key);
    bytes.extend_from_slice(&keepsake.at.to_le_bytes());
    bytes.extend_from_slice(&(keepsake.accounts.len() as u64).to_le_bytes());
    keepsake.accounts.iter().for_each(|account| bytes.extend_from_slice(&bytes_of(account)));
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    whole_file::replace(path, &bytes)
}

/// What a file says, and the file; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<(Keepsake, File)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let keepsake = parse(&bytes).ok_or_else(|| io::Error::other("it is damaged, or of another version"))?;
    Ok(Some((keepsake, file)))
}

/// All bytes of a file that may have been read already.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Keepsake> {
    let (all, sum) = bytes.split_at_checked(bytes.len().checked_sub(TAIL_BYTES)?)?;
    if crc32fast::hash(all).to_le_bytes() != *sum {
        return None;
    }
    let (mark, rest) = all.split_first_chunk::<17>()?;
    let size = match mark {
        MARK => ACCOUNT_BYTES,
        MARK_BEFORE => ACCOUNT_BYTES_BEFORE,
        _ => return None,
    };
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let each = rest.chunks_exact(size);
    if each.len() as u64 != u64::from_le_bytes(*count) || !each.remainder().is_empty() {
        return None;
    }
    let accounts = each.map(|bytes| {
        let (id, numbers) = bytes.split_first_chunk::<16>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [until, code, words @ ..] = match numbers {
            [until, code, first, second] => [*until, *code, *first, *second],
            [first, until, code] => [*until, *code, *first, [0; 8]],
            _ => return None,
        };
        Some(KeptAccount {
            id: *id,
            words: words.map(u64::from_le_bytes),
            until: u64::from_le_bytes(until),
            long: Long::of_code(u64::from_le_bytes(code))?,
        })
    });
    Some(Keepsake { key: *key, at: u64::from_le_bytes(*at), accounts: accounts.collect::<Option<_>>()? })
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
