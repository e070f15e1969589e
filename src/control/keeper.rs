//! Keeps accounts of long windows beyond the process: reads them at the start, saves them every few seconds, and at the end.
//!
//! One file, `limits.bin` in the state's folder, written whole beside its place and moved there, so that it is never half.
//! A thread of its own does it: neither cores nor the control loop wait for the disk. Where nothing long is counted, no
//! file is made; where nothing can be kept, that is told once and limits count all the same. Of two processes with one folder,
//! the old one that drains and the new one, whoever lives longer has the last word: nothing is added up.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
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
    /// Of the accounts as they were saved last.
    saved: u32,
    /// How the file ended when it was read or written last here; `None` where there was none.
    tail: Option<[u8; TAIL_BYTES]>,
    is_failing: bool,
    /// Whether it was told that another process writes the file.
    is_shared: bool,
}

impl Desk {
    /// Reads what is there.
    fn open(folder: &Path, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let path = folder.join(FILE);
        let keepsake = read(&path).unwrap_or_else(|error| {
            log::error(format!("{}: {error}; limits of long windows begin anew", path.display()));
            // What nobody can read is somebody's to look at.
            let _ = fs::rename(&path, path.with_extension("damaged"));
            None
        });
        let keepsake = match keepsake {
            Some(keepsake) => {
                log::info(format!("accounts of limits in {}: {}", path.display(), keepsake.accounts.len()));
                keepsake
            }
            None => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                Keepsake { key, at: 0, accounts: Vec::new() }
            }
        };
        let saved = checksum(&keepsake);
        ledger.keep(keepsake);
        let tail = tail(&path);
        Ok(Self { path, ledger: Arc::clone(ledger), saved, tail, is_failing: false, is_shared: false })
    }

    fn work(&mut self, ended: &Receiver<()>) {
        let mut pause = SAVE_EVERY;
        while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            let since = clock::now();
            self.save();
            pause = SAVE_EVERY.max(clock::now().since(since) * SAVE_SHARE);
        }
        self.save();
    }

    fn save(&mut self) {
        let Some(keepsake) = self.ledger.keepsake(clock::now()) else { return };
        let sum = checksum(&keepsake);
        let is_anothers = self.is_anothers();
        if sum == self.saved && !is_anothers {
            return;
        }
        if is_anothers && !std::mem::replace(&mut self.is_shared, true) {
            log::warn(format!(
                "{}: another process writes it, too; what that has counted since this one began is not kept",
                self.path.display()
            ));
        }
        match write(&self.path, &keepsake) {
            Ok(()) => {
                (self.saved, self.tail) = (sum, tail(&self.path));
                if std::mem::take(&mut self.is_failing) {
                    log::info(format!("{}: limits are kept again", self.path.display()));
                }
            }
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
}

impl Desk {
    /// Whether another process has written the file since this one did.
    fn is_anothers(&self) -> bool {
        let found = tail(&self.path);
        found.is_some() && found != self.tail
    }
}

/// How a file ends, which no two that differ do alike.
fn tail(path: &Path) -> Option<[u8; TAIL_BYTES]> {
    let mut file = File::open(path).ok()?;
    let mut tail = [0; TAIL_BYTES];
    file.seek(SeekFrom::End(-(TAIL_BYTES as i64))).ok()?;
    file.read_exact(&mut tail).ok()?;
    Some(tail)
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

/// What a file says; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<Keepsake>> {
    match fs::read(path) {
        Ok(bytes) => {
            parse(&bytes).map(Some).ok_or_else(|| io::Error::other("it is damaged, or of another version"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
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
