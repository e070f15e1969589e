//! An idle connection to a node, from a core that could do without it to one that would have to open another.
//!
//! Whoever needs one asks the core that offers most, and waits a moment; the answer is a connection or none. What comes
//! too late is kept for the next.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::event::Event;
use super::pool::{Keep, Leased, PoolKey};
use super::socket::{Parted, Socket};
use crate::base::hash::Map;
use crate::link::mailbox::{Letterbox, Mailbox, mailbox};

/// How long an answer is waited for. A core at work looks into its letterbox after each turn, which is some hundred
/// microseconds; later than this, a new connection is likely to be there first.
const WAIT: Duration = Duration::from_millis(2);

/// A letter between cores.
#[derive(Debug)]
pub enum Letter {
    Wanted(Wanted),
    Answer(Box<Answer>),
}

/// A core needs a connection.
#[derive(Debug)]
pub struct Wanted {
    key: PoolKey,
    keep: Keep,
    by: usize,
    ticket: u64,
}

/// What it gets.
#[derive(Debug)]
pub struct Answer {
    ticket: u64,
    key: PoolKey,
    keep: Keep,
    lent: Option<Lent>,
}

/// A connection on its way.
#[derive(Debug)]
struct Lent {
    parted: Parted,
    requests: u32,
}

/// Who waits for an answer.
#[derive(Default)]
struct Waiter {
    come: Event,
    leased: Cell<Option<Leased>>,
}

/// All cores as one of them sees them.
pub struct Loans {
    me: usize,
    boxes: Arc<[Mailbox<Letter>]>,
    tickets: Cell<u64>,
    waiting: RefCell<Map<u64, Rc<Waiter>>>,
}

/// What each core is given to ask others by, before it has a loop.
#[derive(Debug)]
pub struct Neighbour {
    me: usize,
    boxes: Arc<[Mailbox<Letter>]>,
    letterbox: Letterbox<Letter>,
}

/// What each of so many cores needs.
///
/// # Errors
/// When the system has no socket pair to give.
pub fn among(cores: usize) -> io::Result<Vec<Neighbour>> {
    let pairs: Vec<_> = (0..cores).map(|_| mailbox()).collect::<io::Result<_>>()?;
    let (boxes, letterboxes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let boxes: Arc<[_]> = boxes.into();
    let of = |(me, letterbox)| Neighbour { me, boxes: Arc::clone(&boxes), letterbox };
    Ok(letterboxes.into_iter().enumerate().map(of).collect())
}

impl Neighbour {
    /// What a core needs that has none beside it.
    ///
    /// # Errors
    /// When the system has no socket pair to give.
    pub fn alone() -> io::Result<Self> {
        among(1)?.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// On the core's own thread.
    pub fn settle(self) -> (Loans, Letterbox<Letter>) {
        let loans =
            Loans { me: self.me, boxes: self.boxes, tickets: Cell::default(), waiting: RefCell::default() };
        (loans, self.letterbox)
    }
}

impl Loans {
    /// A connection that the other core can do without, if it has one still and answers soon.
    pub async fn borrow(&self, lender: usize, key: PoolKey, keep: Keep) -> Option<Leased> {
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().insert(ticket, Rc::clone(&waiter));
        let _leave = Leave { loans: self, ticket };
        self.boxes.get(lender)?.post(Letter::Wanted(Wanted { key, keep, by: self.me, ticket })).ok()?;
        monoio::time::timeout(WAIT, waiter.come.wait()).await.ok()?;
        waiter.leased.take()
    }

    /// Answers a core that needs a connection.
    pub async fn lend(&self, core: &Core, wanted: Wanted) {
        let Wanted { key, keep, by, ticket } = wanted;
        let lent = match core.pool.lend(&key, &core.stats) {
            Some(leased) => {
                let requests = leased.requests;
                leased.socket.part().await.ok().map(|parted| Lent { parted, requests })
            }
            None => None,
        };
        // Where it finds no room, the connection is closed with it, and whoever asked opens one.
        if let Some(asker) = self.boxes.get(by) {
            let _ = asker.post(Letter::Answer(Box::new(Answer { ticket, key, keep, lent })));
        }
    }

    /// Gives whoever waits for it what has come. Returned when nobody does any more.
    pub fn receive(&self, core: &Core, answer: Box<Answer>) -> Option<(Leased, Keep)> {
        let Answer { ticket, key, keep, lent } = *answer;
        let joined = lent.and_then(|Lent { parted, requests }| {
            let socket = Socket::join(parted, &core.wheel, &core.tls_buffers).ok()?;
            socket.is_quiet_now().then_some(Leased { socket, requests, reused: true, key })
        });
        core.stats.upstream_borrows.add(u64::from(joined.is_some()));
        match self.waiting.borrow_mut().remove(&ticket) {
            Some(waiter) => {
                waiter.leased.set(joined);
                waiter.come.set();
                None
            }
            None => joined.map(|leased| (leased, keep)),
        }
    }
}

/// Whoever leaves is waited for no more.
struct Leave<'a> {
    loans: &'a Loans,
    ticket: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.loans.waiting.borrow_mut().remove(&self.ticket);
    }
}

impl std::fmt::Debug for Loans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loans").field("me", &self.me).finish_non_exhaustive()
    }
}
