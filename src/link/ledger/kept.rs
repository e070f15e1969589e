//! Accounts of long windows, as they are kept beyond the process.
//!
//! Their names are not kept, because a key may be a credential: a keyed hash of the name is, with a key made for the
//! purpose. An account that was restored waits here until somebody asks for it by name. Cores come here once an account is
//! opened; who saves comes every few seconds.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use aws_lc_rs::hmac;

use super::Print;
use crate::base::clock::UnixMs;
use crate::base::hash::Map;
use crate::base::window::long::Long;

/// A name, as it is kept.
pub type KeptId = [u8; 16];

/// One account, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAccount {
    pub id: KeptId,
    pub words: [u64; 2],
    /// Until when it says anything that a fresh one would not.
    pub until: UnixMs,
    pub long: Long,
}

/// What another process says of an account, and what it said when ours knew as much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gain {
    pub(super) words: [u64; 2],
    pub(super) before: [u64; 2],
    pub(super) until: UnixMs,
    pub(super) long: Long,
}

/// All that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepsake {
    /// What names are hashed with.
    pub key: [u8; 32],
    /// When it was written.
    pub at: UnixMs,
    pub accounts: Vec<KeptAccount>,
}

impl Keepsake {
    /// Nothing, under a key of its own.
    ///
    /// # Errors
    /// When the system has nothing random to give.
    pub fn new() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        Ok(Self { key, at: 0, accounts: Vec::new() })
    }
}

/// Locks that accounts are spread over: who saves holds one of them at a time, and not for long.
const SHARDS: usize = 64;
/// Accounts of a shard that are noted between two saves, and that rest there because another process has them: twice as many as there can be, for those that are closed meanwhile.
/// One more is not kept.
const OPEN_MAX: usize = 2 * super::ACCOUNTS_MAX / SHARDS;

/// The times that two processes tell differ by no more, unless the clock was set back. A window that begins so much ahead is
/// one that begins now.
const DRIFT_MS_MAX: u64 = 60_000;

/// What is kept, or to be kept.
#[derive(Debug, Default)]
pub(super) struct Kept(OnceLock<Book>);

#[derive(Debug)]
struct Book {
    key: [u8; 32],
    hash: hmac::Key,
    shards: Vec<Mutex<Shard>>,
    /// One saves at a time: what it looks at is nowhere else meanwhile.
    saving: Mutex<()>,
}

#[derive(Debug, Default)]
struct Shard {
    /// What was kept of accounts that nobody has asked for since.
    resting: Map<KeptId, Resting>,
    /// Accounts there are. One that was closed meanwhile said nothing any more, and is left out by the next save.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Resting {
    words: [u64; 2],
    until: UnixMs,
    long: Long,
}

/// 32 bytes for each account that is kept.
#[derive(Debug)]
struct Open {
    id: KeptId,
    /// What the account is found by.
    print: Print,
    long: Long,
}

impl Book {
    fn id(&self, name: &[u8]) -> KeptId {
        let tag = hmac::sign(&self.hash, name);
        let mut id = KeptId::default();
        id.copy_from_slice(&tag.as_ref()[..16]);
        id
    }

    fn shard(&self, id: &KeptId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[shard_of(id)])
    }
}

impl Shard {
    /// Adds what another process has spent to what rests, or has it rest; if the account is among those that were opened
    /// since there were `noted`, nothing is done, and its print is told.
    fn rests(&mut self, id: KeptId, gain: &Gain, noted: usize) -> Option<Print> {
        if let Some(opened) = self.open.iter().skip(noted).rev().find(|open| open.id == id) {
            return Some(opened.print);
        }
        let Gain { words, before, until, long } = *gain;
        let has_room = self.resting.len() < OPEN_MAX;
        let ours = self.resting.get(&id).map_or([0; 2], |resting| resting.words);
        let joined = [0, 1].map(|at| long.join(ours[at], words[at], before[at]).unwrap_or(ours[at]));
        match self.resting.get_mut(&id) {
            Some(resting) => {
                resting.words = joined;
                resting.until = resting.until.max(until);
            }
            None if has_room => {
                self.resting.insert(id, Resting { words: joined, until, long });
            }
            None => {}
        }
        None
    }
}

fn shard_of(id: &KeptId) -> usize {
    usize::from(id[0]) % SHARDS
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// Keeps accounts from here on, beginning with these. Once in a process.
    pub(super) fn begin(&self, keepsake: Keepsake, now: UnixMs) {
        let back_ms = keepsake.at.saturating_sub(now);
        let hash = hmac::Key::new(hmac::HMAC_SHA256, &keepsake.key);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let book = Book { key: keepsake.key, hash, shards, saving: Mutex::default() };
        for kept in keepsake.accounts {
            let words = kept.long.after_a_rest(kept.words, back_ms, now);
            let until = kept.until.saturating_sub(back_ms);
            if until > now {
                let resting = Resting { words, until, long: kept.long };
                book.shard(&kept.id).resting.insert(kept.id, resting);
            }
        }
        let _ = self.0.set(book);
    }

    /// What was kept under a name that nobody has opened an account for.
    pub(super) fn words(&self, name: &[u8]) -> [u64; 2] {
        let Some(book) = self.0.get() else { return [0; 2] };
        let id = book.id(name);
        book.shard(&id).resting.get(&id).map_or([0; 2], |resting| resting.words)
    }

    /// Takes note of an account that is opened; its words, and until when they matter, if there was one before.
    pub(super) fn open(&self, name: &[u8], long: Long, print: Print) -> Option<([u64; 2], UnixMs)> {
        let book = self.0.get()?;
        let id = book.id(name);
        let mut shard = book.shard(&id);
        let Shard { resting, open } = &mut *shard;
        if open.len() < OPEN_MAX {
            if open.len() == open.capacity() {
                // A quarter more: twice as many would be as much in vain.
                open.reserve_exact((open.len() / 4).max(8));
            }
            open.push(Open { id, print, long });
        }
        resting.remove(&id).map(|resting| (resting.words, resting.until))
    }

    /// Adds what another process has spent; `add` does so to the account of a print, if there is one. It may lock what is
    /// locked while an account is opened, so nothing is locked here meanwhile.
    pub(super) fn join(
        &self,
        theirs: &Keepsake,
        before: &Keepsake,
        now: UnixMs,
        add: impl Fn(Print, &Gain) -> bool,
    ) {
        let Some(book) = self.0.get() else { return };
        let _alone = lock(&book.saving);
        let back_ms = theirs.at.saturating_sub(now);
        let back_ms = if back_ms > DRIFT_MS_MAX { back_ms } else { 0 };
        let words_of = |kept: &KeptAccount| match back_ms {
            0 => kept.words,
            _ => kept.long.after_a_rest(kept.words, back_ms, now),
        };
        let known: Map<KeptId, [u64; 2]> =
            before.accounts.iter().map(|kept| (kept.id, words_of(kept))).collect();
        let mut gains: Vec<Vec<(KeptId, Gain)>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for kept in &theirs.accounts {
            let KeptAccount { id, until, long, .. } = kept;
            let words = words_of(kept);
            let before = known.get(id).copied().unwrap_or_default();
            let until = until.saturating_sub(back_ms);
            if words != before && until > now {
                gains[shard_of(id)].push((*id, Gain { words, before, until, long: *long }));
            }
        }
        for (shard, gains) in book.shards.iter().zip(gains) {
            if gains.is_empty() {
                continue;
            }
            let open: Vec<(KeptId, Print)> =
                lock(shard).open.iter().map(|open| (open.id, open.print)).collect();
            let noted = open.len();
            // The last of an account that was closed and opened again is the one that counts.
            let open: Map<KeptId, Print> = open.into_iter().collect();
            for (id, gain) in gains {
                if !open.get(&id).is_some_and(|print| add(*print, &gain)) {
                    // It rests, nobody has it, or it was opened just now.
                    let opened = lock(shard).rests(id, &gain, noted);
                    if let Some(print) = opened {
                        add(print, &gain);
                    }
                }
            }
        }
    }

    /// All that is worth keeping; `look` tells the words of the account of a print, and until when they matter, if there is
    /// one. It may lock what is locked while an account is opened, so nothing is locked here meanwhile. `None` where nothing
    /// is kept.
    pub(super) fn save(
        &self,
        now: UnixMs,
        look: impl Fn(Print) -> Option<([u64; 2], UnixMs)>,
    ) -> Option<Keepsake> {
        let book = self.0.get()?;
        let _alone = lock(&book.saving);
        let mut accounts = Vec::new();
        for shard in &book.shards {
            let mut open = {
                let Shard { resting, open } = &mut *lock(shard);
                resting.retain(|id, Resting { words, until, long }| {
                    if *until > now {
                        accounts.push(KeptAccount { id: *id, words: *words, until: *until, long: *long });
                    }
                    *until > now
                });
                std::mem::take(open)
            };
            // One that was closed and opened again is there twice.
            open.sort_unstable_by_key(|open| open.id);
            open.dedup_by_key(|open| open.id);
            open.retain(|Open { id, print, long }| {
                let Some((words, until)) = look(*print) else { return false };
                if words != [0; 2] && until > now {
                    accounts.push(KeptAccount { id: *id, words, until, long: *long });
                }
                true
            });
            let mut shard = lock(shard);
            open.append(&mut shard.open);
            shard.open = open;
        }
        accounts.sort_unstable_by_key(|kept| kept.id);
        accounts.dedup_by_key(|kept| kept.id);
        Some(Keepsake { key: book.key, at: now, accounts })
    }
}
