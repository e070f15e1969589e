//! A part of the ledger: accounts by print under a lock, and those that cores hold on to in places that never move.
//!
//! An account that nobody holds is a row of the [`Table`]. One that a core remembers or a request holds on to is put on the shelf:
//! places come in chunks that are made when they are needed and stay, so it is reached by its number without a lock. When
//! nobody holds it any more its place is given to the next one, and it is a row again.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Print;
use super::account::{Account, Held};
use super::lease::Boards;
use super::table::{At, Table};
use crate::base::clock::Moment;
use crate::base::hash::Map;

/// Places of the first chunk: most processes count few keys. A power of two, as the next.
const FIRST: u32 = 32;
/// Places of any other. 16 KB: half a chunk of each shelf is in vain on average.
const CHUNK: u32 = 256;
/// Most places that can be told apart.
pub(super) const PLACES_MAX: u32 = 1 << 21;
/// Rows, empty ones too, that are looked at for one that is over when there are as many as there may be.
const LOOKS_MAX: usize = 64;
/// Places that are looked at for one that nobody holds any more, before there is one more.
const PLACE_LOOKS_MAX: u32 = 4;

type Chunk = OnceLock<Box<[Held]>>;

/// Accounts of keys that have something in common: their hash, so that not all need the same lock.
#[derive(Debug)]
pub(super) struct Shelf {
    first: Chunk,
    chunks: Box<[Chunk]>,
    room: u32,
    salt: usize,
    pub(super) boards: Arc<Boards>,
    desk: Mutex<Desk>,
}

/// What is known under the lock alone.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) table: Table,
    /// How many places there are.
    places: u32,
    /// Where the last look for a place ended, and the last one for a row.
    place_hand: u32,
    hand: usize,
    /// Accounts of new keys that found no row, by limit. Empty unless all are taken.
    pub(super) crowds: Map<Print, Arc<Account>>,
}

impl Shelf {
    /// For so many accounts. `salt` makes shelves differ in when they grow.
    pub(super) fn new(room: u32, salt: usize, boards: &Arc<Boards>) -> Self {
        let room = room.clamp(1, PLACES_MAX);
        let chunks = room.div_ceil(CHUNK);
        Self {
            first: Chunk::new(),
            chunks: (0..chunks).map(|_| Chunk::new()).collect(),
            room,
            salt,
            boards: Arc::clone(boards),
            desk: Mutex::default(),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account in a place that was given to somebody.
    #[inline]
    pub(super) fn at(&self, place: u32) -> &Held {
        let (chunk, size) = self.chunk(place);
        let chunk = chunk.get().expect("a place that was given away was made before");
        &chunk[(place & (size - 1)) as usize]
    }

    #[inline]
    fn chunk(&self, place: u32) -> (&Chunk, u32) {
        if place < FIRST { (&self.first, FIRST) } else { (&self.chunks[(place / CHUNK) as usize], CHUNK) }
    }

    /// A row with a fresh account, if there may be one more, or one of those that are looked at is over.
    pub(super) fn open(&self, desk: &mut Desk, print: Print, now: Moment) -> Option<At> {
        if desk.table.len() >= self.room as usize {
            // Those on the shelf that nobody holds are looked at first: they are rows again.
            if let Some(place) = self.unheld(desk, PLACE_LOOKS_MAX) {
                self.unshelve(desk, place);
            }
            let over = desk.table.over(&mut desk.hand, LOOKS_MAX, now)?;
            desk.table.remove(over);
        }
        Some(desk.table.insert(Account::fresh(print), self.salt))
    }

    /// Puts the account of a row on the shelf, if it is not there, and holds it; its place.
    pub(super) fn shelve(&self, desk: &mut Desk, at: At) -> u32 {
        let place = desk.table.row(at).place().unwrap_or_else(|| {
            let place = self.place(desk);
            let row = desk.table.row(at);
            self.at(place).account.become_of(row);
            row.shelve(place);
            place
        });
        self.at(place).hold();
        place
    }

    /// A place for an account.
    fn place(&self, desk: &mut Desk) -> u32 {
        // There are no more rows than places there may be, and at least one row has none.
        let is_last = desk.places >= self.room;
        let looks = if is_last { desk.places } else { PLACE_LOOKS_MAX };
        if let Some(place) = self.unheld(desk, looks) {
            self.unshelve(desk, place);
            return place;
        }
        assert!(!is_last, "fewer are held than there are places");
        let (chunk, size) = self.chunk(desk.places);
        chunk.get_or_init(|| (0..size).map(|_| Held::default()).collect());
        desk.places += 1;
        desk.places - 1
    }

    /// Some place whose account nobody holds any more, if one of so many has such a one.
    fn unheld(&self, desk: &mut Desk, looks: u32) -> Option<u32> {
        (0..looks.min(desk.places)).find_map(|_| {
            let place = if desk.place_hand < desk.places { desk.place_hand } else { 0 };
            desk.place_hand = place + 1;
            self.at(place).is_free().then_some(place)
        })
    }

    /// Makes the account of a place a row again.
    fn unshelve(&self, desk: &mut Desk, place: u32) {
        let held = self.at(place);
        self.boards.take(held);
        let Some(at) = desk.table.find(held.account.print()) else {
            return;
        };
        // A place that is nobody's has no print, and one that was given away is in its row.
        let row = desk.table.row(at);
        if row.place() == Some(place) {
            row.become_of(&held.account);
        }
        held.account.become_of(&Account::none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_on_the_shelf_and_in_its_row() {
        let shelf = Shelf::new(CHUNK * 2, 0, &Arc::new(Boards::new()));
        let mut desk = shelf.lock();
        let desk = &mut *desk;
        let print = |key: u64| key << 40 | 8;
        let keys: Vec<u64> = (0..u64::from(CHUNK) * 2).collect();
        for key in &keys {
            let at = shelf.open(desk, print(*key), Moment::ZERO).expect("there is room");
            let place = shelf.shelve(desk, at);
            shelf.at(place).account.matters_until(Moment::from_nanos(1000 + key));
        }
        let place =
            |desk: &Desk, key: u64| desk.table.row(desk.table.find(print(key)).expect("it is there")).place();
        let mut all: Vec<usize> =
            keys.iter().map(|key| std::ptr::from_ref(shelf.at(place(desk, *key).unwrap())).addr()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), keys.len(), "each has a place of its own");
        let one_more = print(5000);
        assert_eq!(shelf.open(desk, one_more, Moment::from_nanos(9_999_999)), None, "all are held");
        for key in &keys {
            shelf.at(place(desk, *key).unwrap()).let_go();
        }
        for key in &keys {
            let was = place(desk, *key).unwrap();
            shelf.unshelve(desk, was);
            let row = desk.table.row(desk.table.find(print(*key)).unwrap());
            assert_eq!((row.place(), row.until()), (None, Moment::from_nanos(1000 + key)));
        }
        assert!(shelf.open(desk, one_more, Moment::from_nanos(9_999_999)).is_some());
    }
}
