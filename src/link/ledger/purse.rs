//! A core's own way to accounts it has met: without a lock, and without memory for each request.
//!
//! A table of small sets: 8 bytes a key, of which half are the print's and half say the place. What it remembers is held
//! on the shelf. A key that finds its set full takes somebody's place now and then only, so that a million keys that come
//! once do not drive out those that come often; until then its account is found under the lock.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::account::{Account, Held};
use super::{Epoch, Grip, Hand, Ledger, Name, Opening, Print, Visit};
use crate::base::clock::Moment;
use crate::base::window::long::Long;
use crate::base::window::quota::When;

/// Keys a purse remembers accounts for: half a megabyte, and four on the shelf. All purses together remember no more than an
/// eighth of what there is room for, because those have a line of the cache each.
pub const PURSE_MAX: usize = 65_536;
/// Entries of a set: half a line of the cache, and as many as are compared at once.
const WAYS: usize = 4;
/// Of so many keys that find their set full one takes a place in it.
const PATIENCE: u64 = 256;
/// The bit of a place that says that it was used since somebody last looked for one to give away.
const USED: u32 = 1 << 31;

/// A bit for each way.
const BITS: [u32; WAYS] = [1, 2, 4, 8];

/// Parts of prints, and places with one more: zero is none.
#[derive(Clone, Debug, Default)]
#[repr(align(32))]
struct Set {
    tags: [u32; WAYS],
    places: [u32; WAYS],
}

/// Prints and places.
#[derive(Debug, Default)]
struct Met {
    sets: Vec<Set>,
    count: usize,
    /// There is no place in any set, and there will be no more sets.
    is_full: bool,
    /// How many it may remember, as it was when somebody last asked.
    most: usize,
    /// Dice enough for who takes a place in a full set: never a beat that keys which come in turn could have in common.
    dice: u64,
}

impl Met {
    #[inline]
    const fn set(&self, print: Print) -> usize {
        ((((print >> 10) as u32) as u64 * self.sets.len() as u64) >> 32) as usize
    }

    const fn tag(print: Print) -> u32 {
        (print >> 4) as u32
    }

    const fn place(entry: u32) -> u32 {
        (entry & !USED) - 1
    }

    /// The place of a print, and the account there.
    #[inline]
    fn find<'a>(&mut self, print: Print, ledger: &'a Ledger) -> Option<(u32, &'a Held)> {
        let at = self.set(print);
        let set = self.sets.get_mut(at)?;
        let tag = Self::tag(print);
        // Four comparisons at once.
        let mut same =
            set.tags.iter().zip(BITS).fold(0, |same, (own, bit)| same | if *own == tag { bit } else { 0 });
        while same != 0 {
            let entry = &mut set.places[same.trailing_zeros() as usize % WAYS];
            same &= same - 1;
            if *entry == 0 {
                continue;
            }
            let held = ledger.at(Self::place(*entry));
            if held.account.print() == print {
                if *entry & USED == 0 {
                    *entry |= USED;
                }
                return Some((Self::place(*entry), held));
            }
        }
        None
    }

    /// Whether an account is to be remembered that was met now.
    #[inline]
    fn wants(&mut self, print: Print) -> bool {
        if !self.is_full && (self.has_place(print) || self.may_grow()) {
            return true;
        }
        // The multiplier and the addend of Knuth's MMIX.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice < u64::MAX / PATIENCE
    }

    fn has_place(&self, print: Print) -> bool {
        let set = self.sets.get(self.set(print));
        set.is_none_or(|set| set.places[..self.ways()].contains(&0))
    }

    /// Ways of a set that may be used.
    const fn ways(&self) -> usize {
        if self.most < WAYS { self.most } else { WAYS }
    }

    const fn may_grow(&self) -> bool {
        let size = self.sets.len() * WAYS;
        self.count * 2 >= size && size + WAYS <= self.most
    }

    /// Remembers an account that is held for it, and lets go whose place it takes.
    fn put(&mut self, print: Print, at: u32, ledger: &Ledger) {
        self.most = ledger.purse_share();
        let sets_most = (self.most / WAYS).max(1);
        if self.sets.len() > sets_most {
            self.resize(sets_most, ledger);
        }
        if self.sets.is_empty() || (!self.has_place(print) && self.may_grow()) {
            self.resize((self.sets.len() * 2).clamp(1, sets_most), ledger);
        }
        self.keep(print, at, ledger);
        self.is_full = self.count == self.sets.len() * self.ways() && !self.may_grow();
    }

    fn resize(&mut self, sets: usize, ledger: &Ledger) {
        let before = std::mem::replace(&mut self.sets, vec![Set::default(); sets]);
        self.count = 0;
        for entry in before.iter().flat_map(|set| set.places).filter(|entry| *entry != 0) {
            self.keep(ledger.at(Self::place(entry)).account.print(), Self::place(entry), ledger);
        }
    }

    fn keep(&mut self, print: Print, at: u32, ledger: &Ledger) {
        let (set, ways) = (self.set(print), self.ways());
        let Set { tags, places } = &mut self.sets[set];
        let places = &mut places[..ways];
        let way = match places.iter().position(|entry| *entry == 0) {
            Some(way) => {
                self.count += 1;
                way
            }
            None => {
                // One that was not used lately; where all were, all get another chance but one.
                let first = (print >> 8) as usize % ways;
                let not_used = (0..ways).map(|way| (way + first) % ways).find(|way| places[*way] & USED == 0);
                let way = not_used.unwrap_or_else(|| {
                    places.iter_mut().for_each(|entry| *entry &= !USED);
                    first
                });
                ledger.at(Self::place(places[way])).let_go();
                way
            }
        };
        (tags[way], places[way]) = (Self::tag(print), at + 1);
    }
}

/// One core's table of accounts it has met: the way to them without a lock.
#[derive(Debug)]
pub struct Purse {
    ledger: Arc<Ledger>,
    /// For those who hold accounts beyond a request's moment.
    way: Rc<Way>,
    met: RefCell<Met>,
    number: usize,
}

/// A way to the ledger that a core shares with itself: who holds an account counts up nothing that other cores look at.
#[derive(Debug)]
struct Way(Arc<Ledger>);

impl Purse {
    /// An empty one.
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        let number = ledger.purse_comes();
        Self {
            number,
            ledger: Arc::clone(ledger),
            way: Rc::new(Way(Arc::clone(ledger))),
            met: RefCell::default(),
        }
    }

    /// Runs `spend` on the account of that name. It may be run under a lock: it neither waits nor asks for another.
    #[inline]
    pub fn with<R>(&self, now: Moment, name: Name<'_>, spend: impl FnOnce(Hand<'_>) -> R) -> R {
        self.with_kept(now, name, None, spend)
    }

    /// [`Self::with`] for an account of windows that are kept beyond the process, if they are.
    #[inline]
    pub fn with_kept<R>(
        &self,
        now: Moment,
        name: Name<'_>,
        keep: Option<Long>,
        spend: impl FnOnce(Hand<'_>) -> R,
    ) -> R {
        // Asked for in one place only: then what is spent there is compiled in its place.
        let visit = self.visit(now, name, keep);
        spend(visit.hand(&self.ledger.boards, self.number))
    }

    #[inline]
    fn visit(&self, now: Moment, name: Name<'_>, keep: Option<Long>) -> Visit<'_> {
        let print = self.ledger.print(name.bytes);
        let mut met = self.met.borrow_mut();
        if let Some((_, held)) = met.find(print, &self.ledger) {
            return Visit { held: Some(held), ..Visit::default() };
        }
        if met.wants(print) {
            return self.remember(print, (now, name, keep), &mut met);
        }
        self.ledger.visit(print, now, name, keep)
    }

    /// Visits an account that is to be remembered.
    #[cold]
    fn remember(&self, print: Print, opening: Opening<'_>, met: &mut Met) -> Visit<'_> {
        match self.ledger.hold(print, opening) {
            Grip::Placed(place) => {
                met.put(print, place, &self.ledger);
                Visit { held: Some(self.ledger.at(place)), ..Visit::default() }
            }
            Grip::Crowd(crowd) => Visit { crowd: Some(crowd), ..Visit::default() },
        }
    }

    /// The account of that name, to be held on to.
    pub fn hold(&self, now: Moment, name: Name<'_>, keep: Option<Long>) -> HeldAccount {
        let print = self.ledger.print(name.bytes);
        let mut met = self.met.borrow_mut();
        let grip = match met.find(print, &self.ledger) {
            Some((place, held)) => {
                held.hold();
                Grip::Placed(place)
            }
            None => {
                let wants = met.wants(print);
                let grip = self.ledger.hold(print, (now, name, keep));
                if let (Grip::Placed(place), true) = (&grip, wants) {
                    self.ledger.at(*place).hold();
                    met.put(print, *place, &self.ledger);
                }
                grip
            }
        };
        HeldAccount { way: Rc::clone(&self.way), grip }
    }

    /// How many accounts it remembers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let met = self.met.borrow();
        let entries = met.sets.iter().flat_map(|set| set.places).filter(|entry| *entry != 0).count();
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
        for entry in self.met.get_mut().sets.iter().flat_map(|set| set.places).filter(|entry| *entry != 0) {
            self.ledger.at(Met::place(entry)).let_go();
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

#[cfg(test)]
impl HeldAccount {
    pub(super) fn give_board(&self) {
        if let Grip::Placed(place) = self.grip {
            self.way.0.boards.give(self.way.0.at(place));
        }
    }
}

impl Deref for HeldAccount {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.way.0.held(&self.grip)
    }
}

impl Drop for HeldAccount {
    fn drop(&mut self) {
        if let Grip::Placed(place) = self.grip {
            self.way.0.at(place).let_go();
        }
    }
}
