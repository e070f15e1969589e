//! Portions of a window that cores take ahead, so that two that hammer one key do not fight for a line of the cache.
//!
//! An account that cores were seen to fight over is given a board: a line for each purse. A purse takes a portion from the
//! account's word by one swap, writes it on its line and spends it there, and touches nothing that others touch. A portion is
//! counted as spent in the word all the while, so no window ever admits more than its limit. And nobody is refused
//! while somebody has something left: lines can be taken back by anyone, because they are spent from by swaps too.
//!
//! | who | does | locked |
//! |---|---|---|
//! | a purse | spends from its line, with a swap | no |
//! | a purse | spends from the word, when there is too little left for portions | no |
//! | a purse | takes a portion: word, then line | yes |
//! | whoever finds too little in the word | takes all lines back: lines, then word | yes |
//! | whoever finds too little, and no line in use | is refused | no |
//!
//! So what is on its way from one to the other is so under the lock alone, and [`Head::in_use`] says whether it may be anywhere.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::account::{Account, Held};
use crate::base::clock::Moment;
use crate::base::prefetch::Whereabouts;
use crate::base::window::{Fixed, Spent};

/// Lines of a board. Purses beyond share lines, which is as right and less quick.
const LINES: usize = 16;
/// Boards of a process: half a megabyte. Accounts beyond go without.
const BOARDS_MAX: usize = 256;
/// Swaps that have to fail before an account is given a board.
const FOUGHT_MAX: u32 = 16;
/// A portion is so large a part of what is left,
const PART: u64 = 4 * LINES as u64;
/// at least so much: with less left there are no portions,
const PORTION_MIN: u64 = 8;
/// and at most so much.
const PORTION_MAX: u64 = 1 << 16;

/// What one purse has ahead, as a window of which all else is spent: so it is asked and changed as the account's word is.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line {
    /// Zero is nothing.
    word: AtomicU64,
    /// The limit it is written for; changed under the lock alone, and while the word is zero.
    limit: AtomicU64,
}

/// The portions of one account, but for its lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Head {
    /// Something may be on a line, or on its way there. Set before a portion leaves the word, and cleared after all have come
    /// back to it, under the lock.
    in_use: AtomicBool,
    moving: Mutex<()>,
}

/// A board.
#[derive(Clone, Copy, Debug)]
struct Board<'a> {
    head: &'a Head,
    lines: &'a [Line],
}

/// All boards of a process.
#[derive(Debug)]
pub(super) struct Boards {
    heads: OnceLock<Box<[Head]>>,
    /// Those of all boards, one board after another: made once somebody needs one.
    lines: OnceLock<Box<[Line]>>,
    idle: Mutex<Idle>,
}

/// Boards that no account has.
#[derive(Debug, Default)]
struct Idle {
    returned: Vec<u32>,
    never_used: usize,
}

/// An account, as one purse has it at hand.
#[derive(Clone, Copy, Debug)]
pub struct Hand<'a> {
    account: &'a Account,
    /// Of one on the shelf, where its boards are, and which line of one is whose.
    shelf: Option<(&'a Held, &'a Boards, usize)>,
}

const fn pack(start: u64, spent: u64) -> u64 {
    start << 32 | spent
}

const fn unpack(word: u64) -> (u64, u64) {
    (word >> 32, word & u32::MAX as u64)
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Boards {
    pub(super) fn new() -> Self {
        Self { heads: OnceLock::new(), lines: OnceLock::new(), idle: Mutex::default() }
    }

    /// The board of an account.
    fn of(&self, account: &Held) -> Option<Board<'_>> {
        let number = account.board().checked_sub(1)? as usize;
        let lines = self.lines.get()?.get(number * LINES..(number + 1) * LINES)?;
        Some(Board { head: self.heads.get()?.get(number)?, lines })
    }

    /// A line of the board of that number, with one more: zero is none.
    #[inline]
    fn line(&self, board: u32, line: usize) -> Option<&Line> {
        if board == 0 {
            return None;
        }
        self.lines.get()?.get((board as usize).wrapping_sub(1).wrapping_mul(LINES) + line)
    }

    /// Gives an account a board, if there is one.
    #[cold]
    pub(super) fn give(&self, account: &Held) {
        let mut idle = lock(&self.idle);
        if account.board() != 0 {
            return;
        }
        let number = idle.returned.pop().or_else(|| {
            let next = idle.never_used;
            idle.never_used = BOARDS_MAX.min(next + 1);
            (next < BOARDS_MAX).then_some(next as u32)
        });
        if let Some(number) = number {
            self.heads.get_or_init(|| (0..BOARDS_MAX).map(|_| Head::default()).collect());
            self.lines.get_or_init(|| (0..BOARDS_MAX * LINES).map(|_| Line::default()).collect());
            account.set_board(number + 1);
        }
    }

    /// Takes the board of an account that nobody holds, and all that is on it back.
    pub(super) fn take(&self, account: &Held) {
        if let Some(board) = self.of(account) {
            board.take_back(&account.account, &board.lock());
            lock(&self.idle).returned.push(account.board() - 1);
            account.set_board(0);
        }
    }

    /// The words of an account, with what nobody has spent yet.
    pub(super) fn words(&self, account: &Held) -> [u64; 2] {
        let Some(board) = self.of(account) else {
            return account.account.words();
        };
        let _still = board.lock();
        let [first, second] = account.account.words();
        let (start, spent) = unpack(first);
        let left: u64 =
            board.lines.iter().map(|line| line.left(line.word.load(Ordering::Acquire), start)).sum();
        [pack(start, spent.saturating_sub(left)), second]
    }
}

impl Board<'_> {
    fn lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.head.moving)
    }

    /// Takes all lines back into the word. What is of a window that is over is nobody's.
    fn take_back(&self, account: &Account, _moving: &MutexGuard<'_, ()>) {
        for line in self.lines.iter().filter(|line| line.word.load(Ordering::Relaxed) != 0) {
            let was = line.word.swap(0, Ordering::AcqRel);
            let back = |word| {
                let (start, spent) = unpack(word);
                let left = line.left(was, start);
                (left > 0).then(|| pack(start, spent.saturating_sub(left)))
            };
            // It fails only where there is nothing to give back.
            let _ = account.first.fetch_update(Ordering::AcqRel, Ordering::Acquire, back);
        }
        self.head.in_use.store(false, Ordering::Release);
    }
}

/// How much to take ahead where so much is left.
const fn portion(left: u64) -> u64 {
    let portion = left / PART;
    if portion < PORTION_MIN {
        0
    } else if portion < PORTION_MAX {
        portion
    } else {
        PORTION_MAX
    }
}

impl<'a> Hand<'a> {
    /// On an account that has no board and needs none.
    #[inline]
    pub(super) const fn alone(account: &'a Account) -> Self {
        Self { account, shelf: None }
    }

    /// On an account of the shelf, for the purse of that number.
    #[inline]
    pub(super) const fn of(held: &'a Held, boards: &'a Boards, purse: usize) -> Self {
        Self { account: &held.account, shelf: Some((held, boards, purse % LINES)) }
    }

    /// Where it is found just now.
    #[inline]
    pub fn whereabouts(&self) -> Whereabouts {
        Whereabouts::of(self.account)
    }

    /// Its words, with what nobody has spent yet.
    pub(super) fn words(&self) -> [u64; 2] {
        self.shelf.map_or_else(|| self.account.words(), |(held, boards, _)| boards.words(held))
    }

    #[inline]
    fn has_board(&self) -> bool {
        self.shelf.is_some_and(|(held, ..)| held.board() != 0)
    }

    /// Spends `cost` in a window that starts with its first use.
    // Asked for in few places, and by far dearer where what it is given goes through memory.
    #[inline(always)]
    pub fn spend_fixed(&self, fixed: &Fixed, window: Duration, now: Moment, cost: u64) -> Spent {
        let asked = || Asked { fixed: *fixed, window, now, cost };
        let line = self.shelf.and_then(|(held, boards, line)| boards.line(held.board(), line));
        let Some(line) = line else {
            let word = &self.account.first;
            let seen = word.load(Ordering::Acquire);
            let (told, next) = fixed.spend(seen, now, cost);
            let is_done = match next {
                // Unless it is given a board just now, and others have some of what is gone.
                None => !self.has_board(),
                Some(next) => !begins(seen, next) && swap(word, seen, next),
            };
            return if is_done { told } else { self.spend_slowly(&asked()) };
        };
        let seen = line.word.load(Ordering::Acquire);
        let (told, next) = fixed.spend(seen, now, cost);
        let is_own = |next: u64| !begins(seen, next) && line.limit.load(Ordering::Relaxed) == fixed.limit();
        if next.is_some_and(|next| is_own(next) && swap(&line.word, seen, next)) {
            let (_, spent) = unpack(self.account.first.load(Ordering::Relaxed));
            return Spent { remaining: told.remaining + fixed.limit().saturating_sub(spent), ..told };
        }
        self.spend_slowly(&asked())
    }

    /// The same where a window begins, others come in between, or there are portions and none here.
    #[cold]
    #[inline(never)]
    fn spend_slowly(&self, asked: &Asked) -> Spent {
        let Some((held, boards, line)) = self.shelf else {
            return self.account.spend_fixed(&asked.fixed, asked.window, asked.now, asked.cost);
        };
        if let Some(board) = boards.of(held) {
            return board.spend(self.account, &board.lines[line], asked);
        }
        let first = &self.account.first;
        let mut seen = first.load(Ordering::Acquire);
        // Whoever comes here and no window begins has lost a swap before.
        if asked.ask(seen).1.is_some_and(|next| !begins(seen, next)) {
            held.fought();
        }
        loop {
            let (told, next) = asked.ask(seen);
            let Some(next) = next else { return told };
            match first.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    asked.note(self.account, seen, next);
                    return told;
                }
                Err(other) => seen = other,
            }
            if held.fought() > FOUGHT_MAX && portion(told.remaining) > 0 {
                boards.give(held);
                return self.spend_slowly(asked);
            }
        }
    }
}

#[inline]
fn swap(word: &AtomicU64, seen: u64, next: u64) -> bool {
    word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// What is asked of a window.
struct Asked {
    fixed: Fixed,
    window: Duration,
    now: Moment,
    cost: u64,
}

impl Asked {
    fn ask(&self, word: u64) -> (Spent, Option<u64>) {
        self.fixed.spend(word, self.now, self.cost)
    }

    /// Notes until when the words matter, if a window began.
    fn note(&self, account: &Account, word: u64, next: u64) {
        if begins(word, next) {
            account.matters_until(self.now.plus(self.window));
        }
    }
}

impl Line {
    /// What a word that is or was here has left of the window that began then.
    fn left(&self, word: u64, start: u64) -> u64 {
        let (of, spent) = unpack(word);
        let is_of = word != 0 && of == start;
        if is_of { self.limit.load(Ordering::Relaxed).saturating_sub(spent) } else { 0 }
    }

    /// Adds a portion of the window that began then, under the lock.
    fn add(&self, start: u64, portion: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        let add = |word| Some(pack(start, limit.saturating_sub(self.left(word, start) + portion)));
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Whether it is written for another limit.
    fn is_of_other(&self, limit: u64) -> bool {
        self.limit.load(Ordering::Relaxed) != limit && self.word.load(Ordering::Relaxed) != 0
    }
}

const fn begins(word: u64, next: u64) -> bool {
    word == 0 || word >> 32 != next >> 32
}

impl Board<'_> {
    /// Spends what is not on one's own line.
    fn spend(&self, account: &Account, own: &Line, asked: &Asked) -> Spent {
        let first = &account.first;
        let mut seen = first.load(Ordering::Acquire);
        // Without the lock as long as there is nothing to move.
        while !self.head.in_use.load(Ordering::Acquire) {
            let (told, next) = asked.ask(seen);
            match next {
                None => {
                    // Unless a portion came back between the two looks.
                    let again = first.load(Ordering::Acquire);
                    if again == seen {
                        return told;
                    }
                    seen = again;
                }
                Some(_) if portion(told.remaining) > 0 => break,
                Some(next) => match first.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        asked.note(account, seen, next);
                        return told;
                    }
                    Err(other) => seen = other,
                },
            }
        }
        self.spend_moving(account, own, asked)
    }

    /// The same where portions move.
    fn spend_moving(&self, account: &Account, own: &Line, asked: &Asked) -> Spent {
        let moving = self.lock();
        let first = &account.first;
        let mut seen = first.load(Ordering::Acquire);
        loop {
            let (told, next) = asked.ask(seen);
            let ahead = if next.is_some() { portion(told.remaining) } else { 0 };
            let begins = next.is_some_and(|next| begins(seen, next));
            // Too little is left for all to have some ahead, or a window begins: what is on lines comes back or goes.
            if (ahead == 0 || begins || own.is_of_other(asked.fixed.limit()))
                && self.head.in_use.load(Ordering::Relaxed)
            {
                self.take_back(account, &moving);
                seen = first.load(Ordering::Acquire);
                continue;
            }
            let Some(next) = next else { return told };
            if ahead > 0 {
                self.head.in_use.store(true, Ordering::Release);
            }
            if let Err(other) =
                first.compare_exchange(seen, next + ahead, Ordering::AcqRel, Ordering::Acquire)
            {
                seen = other;
                continue;
            }
            asked.note(account, seen, next);
            if ahead > 0 {
                own.limit.store(asked.fixed.limit(), Ordering::Relaxed);
                own.add(next >> 32, ahead);
            }
            return told;
        }
    }
}

impl Deref for Hand<'_> {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.account
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
