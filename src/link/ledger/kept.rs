//! Accounts of long windows, as they are kept beyond the process.
//!
//! Their names are not kept, because a key may be a credential: a keyed hash of the name is, with a key made for the
//! purpose. An account that was restored waits here until somebody asks for it by name. Cores come here once an account is
//! opened; who saves comes every few seconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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

/// What is kept, or to be kept.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<Book>>);

#[derive(Debug)]
struct Book {
    key: [u8; 32],
    hash: hmac::Key,
    entries: Map<KeptId, Entry>,
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
}

impl Kept {
    fn book(&self) -> MutexGuard<'_, Option<Book>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps accounts from here on, beginning with these.
    pub(super) fn begin(&self, keepsake: Keepsake, now: UnixMs) {
        let back_ms = keepsake.at.saturating_sub(now);
        let entries = keepsake.accounts.into_iter().map(|kept| {
            let word = Quota::after_a_rest(kept.span, kept.word, back_ms, now);
            let until = kept.until.saturating_sub(back_ms);
            (kept.id, Entry { account: Weak::new(), word, until, span: kept.span })
        });
        let entries = entries.filter(|(_, entry)| entry.until > now).collect();
        let hash = hmac::Key::new(hmac::HMAC_SHA256, &keepsake.key);
        *self.book() = Some(Book { key: keepsake.key, hash, entries });
    }

    /// What was kept under a name that nobody has opened an account for.
    pub(super) fn word(&self, name: &[u8]) -> u64 {
        let book = self.book();
        book.as_ref().and_then(|book| book.entries.get(&book.id(name))).map_or(0, |entry| entry.word)
    }

    /// Takes note of an account that is opened; its word, and until when it matters, if there was one before.
    pub(super) fn open(&self, name: &[u8], span: Span, account: &Arc<Account>) -> Option<(u64, UnixMs)> {
        let mut book = self.book();
        let book = book.as_mut()?;
        let id = book.id(name);
        let account = Arc::downgrade(account);
        let Some(entry) = book.entries.get_mut(&id) else {
            book.entries.insert(id, Entry { account, word: 0, until: 0, span });
            return None;
        };
        entry.account = account;
        entry.span = span;
        Some((entry.word, entry.until))
    }

    /// All that is worth keeping; `look` tells the word of an account, and until when it matters. `None` where nothing is
    /// kept.
    pub(super) fn save(&self, now: UnixMs, look: impl Fn(&Account) -> (u64, UnixMs)) -> Option<Keepsake> {
        let mut book = self.book();
        let book = book.as_mut()?;
        book.entries.retain(|_, entry| {
            let is_open = match entry.account.upgrade() {
                Some(account) => {
                    (entry.word, entry.until) = look(&account);
                    true
                }
                None => false,
            };
            is_open || entry.until > now
        });
        let worth = book.entries.iter().filter(|(_, entry)| entry.word != 0 && entry.until > now);
        let accounts = worth.map(|(id, entry)| KeptAccount {
            id: *id,
            word: entry.word,
            until: entry.until,
            span: entry.span,
        });
        let mut accounts: Vec<KeptAccount> = accounts.collect();
        accounts.sort_unstable_by_key(|kept| kept.id);
        Some(Keepsake { key: book.key, at: now, accounts })
    }
}
