//! A core's own way to accounts it has met: without a lock, and without memory for each request.
//!
//! A table of small sets: 8 bytes a key, of which half are the print's and half say the place. What it remembers is held
//! open. A key that finds its set full takes somebody's place now and then only, so that a million keys that come once
//! do not drive out those that come often; until then its account is found under the lock.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::account::Account;
use super::{Epoch, Ledger, Name, Print};
use crate::base::clock::Moment;
use crate::base::window::long::Long;
use crate::base::window::quota::When;

/// Keys a purse remembers accounts for: half a megabyte. All purses together remember no more than half of what there is
/// room for, because accounts they remember are not closed.
pub const PURSE_MAX: usize = 65_536;
/// Entries of a set: a line of the cache.
const WAYS: usize = 8;
/// Of so many keys that find their set full one takes a place in it.
const PATIENCE: u64 = 32;
/// The bit of an entry that says that it was used since somebody last looked for a place.
const USED: u64 = 1 << 31;

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set([u64; WAYS]);

/// Prints and places.
#[derive(Debug, Default)]
struct Met {
    sets: Vec<Set>,
    count: usize,
    /// Dice enough for who takes a place in a full set: never a beat that keys which come in turn could have in common.
    dice: u64,
}

/// An entry is never zero: the place is kept with one more.
const fn entry(print: Print, place: u32) -> u64 {
    tag(print) | (place as u64 + 1)
}

const fn tag(print: Print) -> u64 {
    (print.1 << 16) & !(u32::MAX as u64)
}

const fn place(entry: u64) -> u32 {
    (entry & (USED - 1)) as u32 - 1
}

impl Met {
    const fn set(&self, print: Print) -> usize {
        (((print.0 & u32::MAX as u64) * self.sets.len() as u64) >> 32) as usize
    }

    /// The place of a print, and the account there.
    #[inline]
    fn find<'a>(&mut self, print: Print, ledger: &'a Ledger) -> Option<(u32, &'a Account)> {
        let at = self.set(print);
        let set = self.sets.get_mut(at)?;
        for entry in &mut set.0 {
            if (*entry ^ tag(print)) >> 32 != 0 || *entry == 0 {
                continue;
            }
            let account = ledger.at(place(*entry));
            if account.print() == print {
                if *entry & USED == 0 {
                    *entry |= USED;
                }
                return Some((place(*entry), account));
            }
        }
        None
    }

    /// Whether an account is to be remembered that was met now, where there is room for `most`.
    fn wants(&mut self, print: Print, most: usize) -> bool {
        let at = self.set(print);
        let is_full = self.sets.get(at).is_some_and(|set| !set.0[..WAYS.min(most)].contains(&0));
        if !is_full || self.may_grow(most) {
            return true;
        }
        // The multiplier and the addend of Knuth's MMIX.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33).is_multiple_of(PATIENCE)
    }

    const fn may_grow(&self, most: usize) -> bool {
        let size = self.sets.len() * WAYS;
        self.count * 2 >= size && size + WAYS <= most
    }

    /// Remembers an account that is held open for it, and lets go whose place it takes.
    fn put(&mut self, print: Print, at: u32, most: usize, ledger: &Ledger) {
        let sets_most = (most / WAYS).max(1);
        if self.sets.len() > sets_most {
            self.resize(sets_most, most, ledger);
        }
        let set = self.set(print);
        let is_full = self.sets.get(set).is_none_or(|set| !set.0[..WAYS.min(most)].contains(&0));
        if self.sets.is_empty() || (is_full && self.may_grow(most)) {
            self.resize((self.sets.len() * 2).clamp(1, sets_most), most, ledger);
        }
        self.keep(print, at, most, ledger);
    }

    fn resize(&mut self, sets: usize, most: usize, ledger: &Ledger) {
        let before = std::mem::replace(&mut self.sets, vec![Set::default(); sets]);
        self.count = 0;
        for entry in before.iter().flat_map(|set| set.0).filter(|entry| *entry != 0) {
            self.keep(ledger.at(place(entry)).print(), place(entry), most, ledger);
        }
    }

    fn keep(&mut self, print: Print, at: u32, most: usize, ledger: &Ledger) {
        let set = self.set(print);
        let ways = &mut self.sets[set].0[..WAYS.min(most)];
        let way = match ways.iter().position(|entry| *entry == 0) {
            Some(way) => {
                self.count += 1;
                way
            }
            None => {
                // One that was not used lately; where all were, all get another chance but one.
                let first = (print.1 >> 8) as usize;
                let not_used =
                    (0..ways.len()).map(|way| (way + first) % ways.len()).find(|way| ways[*way] & USED == 0);
                let way = not_used.unwrap_or_else(|| {
                    ways.iter_mut().for_each(|entry| *entry &= !USED);
                    first % ways.len()
                });
                ledger.at(place(ways[way])).let_go();
                way
            }
        };
        ways[way] = entry(print, at);
    }
}

/// One core's table of accounts it has met: the way to them without a lock.
#[derive(Debug)]
pub struct Purse {
    ledger: Arc<Ledger>,
    /// For those who hold accounts beyond a request's moment.
    way: Rc<Way>,
    met: RefCell<Met>,
}

/// A way to the ledger that a core shares with itself: who holds an account counts up nothing that other cores look at.
#[derive(Debug)]
struct Way(Arc<Ledger>);

/// Where an account is.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Placed(u32),
    /// In the crowd's, which has no place.
    Crowd(&'a Arc<Account>),
}

impl Purse {
    /// An empty one.
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        ledger.purse_comes();
        Self { ledger: Arc::clone(ledger), way: Rc::new(Way(Arc::clone(ledger))), met: RefCell::default() }
    }

    /// Runs `spend` on the account of that name. It may be run under a lock: it neither waits nor asks for another.
    #[inline]
    pub fn with<R>(&self, now: Moment, name: Name<'_>, spend: impl FnOnce(&Account) -> R) -> R {
        self.with_kept(now, name, None, spend)
    }

    /// [`Self::with`] for an account of windows that are kept beyond the process, if they are.
    #[inline]
    pub fn with_kept<R>(
        &self,
        now: Moment,
        name: Name<'_>,
        keep: Option<Long>,
        spend: impl FnOnce(&Account) -> R,
    ) -> R {
        self.reach(now, name, keep, |account, _| spend(account))
    }

    /// The account of that name, to be held on to.
    pub fn hold(&self, now: Moment, name: Name<'_>, keep: Option<Long>) -> HeldAccount {
        let grip = self.reach(now, name, keep, |account, found| match found {
            Found::Placed(place) => {
                account.hold();
                Grip::Placed(place)
            }
            Found::Crowd(account) => Grip::Crowd(Arc::clone(account)),
        });
        HeldAccount { way: Rc::clone(&self.way), grip }
    }

    #[inline]
    fn reach<R>(
        &self,
        now: Moment,
        name: Name<'_>,
        keep: Option<Long>,
        spend: impl FnOnce(&Account, Found<'_>) -> R,
    ) -> R {
        let print = self.ledger.print(name.bytes);
        let met = self.met.borrow_mut().find(print, &self.ledger);
        match met {
            Some((place, account)) => spend(account, Found::Placed(place)),
            None => self.meet(print, (now, name, keep), spend),
        }
    }

    /// The same for an account that is not remembered.
    fn meet<R>(
        &self,
        print: Print,
        (now, name, keep): (Moment, Name<'_>, Option<Long>),
        spend: impl FnOnce(&Account, Found<'_>) -> R,
    ) -> R {
        let most = self.ledger.purse_share();
        let wants = self.met.borrow_mut().wants(print, most);
        let mut placed = None;
        let answer = self.ledger.visit(print, (now, name, keep), |account, found| {
            if let (Found::Placed(place), true) = (&found, wants) {
                account.hold();
                placed = Some(*place);
            }
            spend(account, found)
        });
        if let Some(place) = placed {
            self.met.borrow_mut().put(print, place, most, &self.ledger);
        }
        answer
    }

    /// How many accounts it remembers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let met = self.met.borrow();
        let entries = met.sets.iter().flat_map(|set| set.0).filter(|entry| *entry != 0).count();
        assert_eq!(entries, met.count);
        entries
    }

    /// Whether it remembers the account of that name.
    #[cfg(test)]
    pub(super) fn remembers(&self, name: &[u8]) -> bool {
        self.met.borrow_mut().find(self.ledger.print(name), &self.ledger).is_some()
    }

    /// What windows are aligned by that are not started by their first use.
    pub fn since_epoch(&self) -> Epoch {
        self.ledger.since_epoch()
    }

    /// A moment by both clocks.
    pub fn when(&self, now: Moment) -> When {
        self.ledger.when(now)
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        for entry in self.met.get_mut().sets.iter().flat_map(|set| set.0).filter(|entry| *entry != 0) {
            self.ledger.at(place(entry)).let_go();
        }
        self.ledger.purse_goes();
    }
}

/// An account that somebody holds on to: it is not closed meanwhile.
#[derive(Debug)]
pub struct HeldAccount {
    way: Rc<Way>,
    grip: Grip,
}

#[derive(Debug)]
enum Grip {
    Placed(u32),
    Crowd(Arc<Account>),
}

impl Deref for HeldAccount {
    type Target = Account;

    fn deref(&self) -> &Account {
        match &self.grip {
            Grip::Placed(place) => self.way.0.at(*place),
            Grip::Crowd(account) => account,
        }
    }
}

impl Drop for HeldAccount {
    fn drop(&mut self) {
        if let Grip::Placed(place) = self.grip {
            self.way.0.at(place).let_go();
        }
    }
}
