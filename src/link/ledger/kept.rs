//! Accounts of long windows, as they are kept beyond the process.
//!
//! Their names are not kept, because a key may be a credential: a keyed hash of the name is, with a key made for the
//! purpose. An account that was restored waits here until somebody asks for it by name. Cores come here once an account is
//! opened; who saves comes every few seconds.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use aws_lc_rs::hmac;

use super::Account;
use crate::base::clock::UnixMs;
use crate::base::hash::Map;
use crate::base::window::quota::{Quota, Span};

/// A name, as it is kept.
pub type KeptId = [u8; 16];

/// One account, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAccount {
    pub id: KeptId,
    pub word: u64,
    /// Until when it says anything that a fresh one would not.
    pub until: UnixMs,
    pub span: Span,
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

/// Locks that accounts are spread over: who saves holds one of them at a time, and not for long.
const SHARDS: usize = 64;

/// What is kept, or to be kept.
#[derive(Debug, Default)]
pub(super) struct Kept(OnceLock<Book>);

#[derive(Debug)]
struct Book {
    key: [u8; 32],
    hash: hmac::Key,
    shards: Vec<Mutex<Map<KeptId, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    account: Weak<Account>,
    word: u64,
    until: UnixMs,
    span: Span,
}

impl Book {
    fn id(&self, name: &[u8]) -> KeptId {
        let tag = hmac::sign(&self.hash, name);
        let mut id = KeptId::default();
        id.copy_from_slice(&tag.as_ref()[..16]);
        id
    }

    fn shard(&self, id: &KeptId) -> MutexGuard<'_, Map<KeptId, Entry>> {
        lock(&self.shards[usize::from(id[0]) % SHARDS])
    }
}

fn lock(shard: &Mutex<Map<KeptId, Entry>>) -> MutexGuard<'_, Map<KeptId, Entry>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// Keeps accounts from here on, beginning with these. Once in a process.
    pub(super) fn begin(&self, keepsake: Keepsake, now: UnixMs) {
        let back_ms = keepsake.at.saturating_sub(now);
        let hash = hmac::Key::new(hmac::HMAC_SHA256, &keepsake.key);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let book = Book { key: keepsake.key, hash, shards };
        for kept in keepsake.accounts {
            let word = Quota::after_a_rest(kept.span, kept.word, back_ms, now);
            let until = kept.until.saturating_sub(back_ms);
            if until > now {
                let entry = Entry { account: Weak::new(), word, until, span: kept.span };
                book.shard(&kept.id).insert(kept.id, entry);
            }
        }
        let _ = self.0.set(book);
    }

    /// What was kept under a name that nobody has opened an account for.
    pub(super) fn word(&self, name: &[u8]) -> u64 {
        let Some(book) = self.0.get() else { return 0 };
        let id = book.id(name);
        book.shard(&id).get(&id).map_or(0, |entry| entry.word)
    }

    /// Takes note of an account that is opened; its word, and until when it matters, if there was one before.
    pub(super) fn open(&self, name: &[u8], span: Span, account: &Arc<Account>) -> Option<(u64, UnixMs)> {
        let book = self.0.get()?;
        let id = book.id(name);
        let mut shard = book.shard(&id);
        let fresh = || Entry { account: Weak::new(), word: 0, until: 0, span };
        let entry = shard.entry(id).or_insert_with(fresh);
        entry.account = Arc::downgrade(account);
        entry.span = span;
        (entry.word != 0).then_some((entry.word, entry.until))
    }

    /// All that is worth keeping; `look` tells the word of an account, and until when it matters. `None` where nothing is
    /// kept.
    pub(super) fn save(&self, now: UnixMs, look: impl Fn(&Account) -> (u64, UnixMs)) -> Option<Keepsake> {
        let book = self.0.get()?;
        let mut accounts = Vec::new();
        for shard in &book.shards {
            lock(shard).retain(|id, entry| {
                let account = entry.account.upgrade();
                if let Some(account) = &account {
                    (entry.word, entry.until) = look(account);
                }
                if entry.word != 0 && entry.until > now {
                    let Entry { word, until, span, .. } = *entry;
                    accounts.push(KeptAccount { id: *id, word, until, span });
                }
                account.is_some() || entry.until > now
            });
        }
        accounts.sort_unstable_by_key(|kept| kept.id);
        Some(Keepsake { key: book.key, at: now, accounts })
    }
}
