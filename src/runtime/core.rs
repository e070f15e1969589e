//! What one loop owns, and all a plugin can reach besides the exchange. Never leaves its thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{self, Moment, UnixMs, WallAnchor};
use crate::base::rng::Rng;
use crate::exchange::Exchange;
use crate::link::ledger::Ledger;
use crate::link::outbox::{Level, Outbox, Report, outbox};
use crate::link::shelf::Shelves;
use crate::link::stats::{CoreStats, Series};

use super::Limits;
use super::buffers::Buffers;
use super::chore::Chores;
use super::connect::Detour;
use super::deadline::Wheel;
use super::errand::Errands;
use super::local::{LocalId, Locals};
use super::pool::Pool;
use super::socket::Sending;
use super::tls::{Aside, Stock, Turnstile};
use super::turn::Turns;

/// With so many requests under way a core is quiet: see [`Sending`].
const QUIET_MAX: u64 = 4;
/// So much must have been too much for the stocks before giving memory back is worth its time.
const SPILLED_MIN: u32 = 256;
/// States of plugins and upstreams beyond those that are wanted, before they are looked through.
const LOCALS_SLACK: usize = 64;
/// What the dice of trials begin with: the same, so that a throw is noticed.
const TRIAL_SEED: u64 = 1;
/// Exchanges kept in stock; each holds some kilobytes.
const EXCHANGES_KEPT: usize = 256;

/// Everything a core shares with other threads, handed to it at start.
#[derive(Clone, Debug)]
pub struct Hatches {
    pub outbox: Outbox,
    pub stats: Arc<CoreStats>,
    pub ledger: Arc<Ledger>,
    pub shelves: Arc<Shelves>,
    pub aside: Aside,
}

impl Hatches {
    /// Of a core that shares nothing.
    pub fn alone(outbox: Outbox, stats: Arc<CoreStats>) -> Self {
        Self {
            outbox,
            stats,
            ledger: Arc::new(Ledger::new()),
            shelves: Arc::new(Shelves::new(1)),
            aside: Aside::default(),
        }
    }
}

/// One core.
#[derive(Debug)]
pub struct Core {
    /// Its number, from 0.
    pub id: u16,
    pub limits: Limits,
    pub buffers: Buffers,
    pub outbox: Outbox,
    pub stats: Arc<CoreStats>,
    pub ledger: Arc<Ledger>,
    pub wheel: Wheel,
    pub pool: Pool,
    pub errands: Errands,
    pub chores: Rc<Chores>,
    pub turns: Turns,
    pub tls_buffers: Rc<Stock>,
    pub turnstile: Turnstile,
    /// For handshakes that are made beside the core.
    pub turnstile_beside: Turnstile,
    /// Of a core on which configurations are tried: where nodes are instead, so that none that is real is reached.
    pub detour: Option<Detour>,
    /// Connections being served.
    pub in_flight: Cell<usize>,
    /// Questions to the control side that are under way.
    pub(super) asking: Cell<usize>,
    rng: RefCell<Rng>,
    anchor: WallAnchor,
    locals: Locals,
    #[allow(clippy::vec_box)] // A box is what is lent.
    exchanges: RefCell<Vec<Box<Exchange>>>,
    date: RefCell<(u64, Vec<u8>)>,
    series: Cell<usize>,
    /// What did not fit into the stocks since memory was last given back, and since the last look.
    spilled: Cell<(u32, u32)>,
    /// When the clock was last looked at in the poll under way; `None` outside of polls.
    looked: Cell<Option<Moment>>,
}

/// Something is being polled: until that returns, nobody waits.
#[derive(Debug)]
pub struct Polling<'a>(&'a Core);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.looked.set(None);
    }
}

impl Core {
    /// A core at rest: no socket, no buffer yet.
    pub fn new(id: u16, limits: Limits, hatches: Hatches, seed: u64) -> Self {
        let (waiting_max, stats) = (limits.handshakes_waiting_max, Arc::clone(&hatches.stats));
        Self {
            id,
            buffers: Buffers::new(limits.buffer_bytes, limits.buffers_kept),
            limits,
            outbox: hatches.outbox,
            stats: hatches.stats,
            ledger: hatches.ledger,
            wheel: Wheel::new(clock::now()),
            pool: Pool::new(id, hatches.shelves),
            errands: Errands::default(),
            chores: Rc::default(),
            turns: Turns::default(),
            tls_buffers: Rc::default(),
            turnstile: Turnstile::new(waiting_max, Arc::clone(&stats)),
            turnstile_beside: Turnstile::beside(hatches.aside, waiting_max, stats),
            detour: None,
            in_flight: Cell::new(0),
            asking: Cell::new(0),
            rng: RefCell::new(Rng::seeded(seed)),
            anchor: WallAnchor::new(),
            locals: Locals::default(),
            exchanges: RefCell::default(),
            date: RefCell::default(),
            series: Cell::new(0),
            spilled: Cell::default(),
            looked: Cell::default(),
        }
    }

    /// A core that no thread runs, for trials: nobody hears it, and what is spent on it is spent nowhere else.
    pub fn for_trial(limits: Limits) -> Self {
        let (outbox, _) = outbox();
        let hatches = Hatches::alone(outbox, Arc::default());
        Self::new(0, limits, hatches, TRIAL_SEED)
    }

    /// Of a core for trials: whether its dice were thrown, and whether anything was kept on it.
    pub fn traces(&self) -> (bool, bool) {
        (*self.rng.borrow() != Rng::seeded(TRIAL_SEED), !self.locals.is_empty())
    }

    /// The time. A reading of the vDSO clock, some 25 ns: pass it on rather than ask twice.
    pub fn now(&self) -> Moment {
        clock::now()
    }

    /// A poll begins: until what is returned is dropped, [`Self::lately`] does not ask twice.
    pub fn polling(&self) -> Polling<'_> {
        self.looked.set(Some(Moment::ZERO));
        Polling(self)
    }

    /// The time, for what comes after it in this poll as well.
    pub fn look(&self) -> Moment {
        let now = self.now();
        if self.looked.get().is_some() {
            self.looked.set(Some(now));
        }
        now
    }

    /// The time, or when it was last looked at in this poll: earlier by what has been done since, never by a wait.
    pub fn lately(&self) -> Moment {
        self.looked.get().filter(|looked| *looked != Moment::ZERO).unwrap_or_else(|| self.look())
    }

    /// How to send what is to be sent now.
    pub fn sending(&self) -> Sending {
        if self.stats.requests_active.get() <= QUIET_MAX { Sending::Alone } else { Sending::Together }
    }

    /// How to send bytes of tunnels and streams, which are no requests of their own.
    pub fn sending_streams(&self) -> Sending {
        let active = self.stats.requests_active.get() + self.stats.streams_active.get();
        if active <= QUIET_MAX { Sending::Alone } else { Sending::Together }
    }

    /// Wall time at a moment.
    pub fn wall(&self, at: Moment) -> UnixMs {
        self.anchor.at(at)
    }

    /// Renews the anchor of wall time; about once a second.
    pub fn renew_wall(&self) {
        self.anchor.renew();
    }

    /// The dice.
    pub fn dice<R>(&self, throw: impl FnOnce(&mut Rng) -> R) -> R {
        throw(&mut self.rng.borrow_mut())
    }

    /// Lets time pass. Costs a timer of its own: for the rare wait that is the purpose, not for deadlines.
    pub async fn sleep(&self, time: Duration) {
        if clock::is_held() {
            // What would pass has passed: deadlines that are set from here on are counted from then.
            clock::advance(time);
            return self.wheel.turn(self.now());
        }
        monoio::time::sleep(time).await;
    }

    /// A plugin's state on this core, made on first use.
    pub fn local<T: 'static>(&self, id: LocalId, make: impl FnOnce() -> T) -> Rc<T> {
        self.locals.of(id, make)
    }

    /// Forgets the state of ids that were retired lately, and, when there is clearly more than the `live` ids can
    /// need, all state that is not theirs.
    pub fn forget_locals(&self, retired: &[LocalId], live: usize, is_live: impl Fn(&LocalId) -> bool) {
        self.locals.forget(retired);
        if self.locals.len() > live + LOCALS_SLACK {
            self.locals.sweep(is_live);
        }
    }

    /// Lends an empty exchange.
    pub fn exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an exchange back.
    pub fn give_back(&self, mut exchange: Box<Exchange>) {
        exchange.clear();
        let mut stock = self.exchanges.borrow_mut();
        if stock.len() < EXCHANGES_KEPT {
            stock.push(exchange);
        } else {
            self.note_spill();
        }
    }

    /// Appends the value of a `Date` header, written once a second.
    pub fn write_date(&self, now: Moment, out: &mut Vec<u8>) {
        let wall = self.wall(now);
        let mut date = self.date.borrow_mut();
        if date.0 != wall / 1000 {
            date.0 = wall / 1000;
            date.1.clear();
            clock::write_http_date(&mut date.1, wall);
        }
        out.extend_from_slice(&date.1);
    }

    /// Announces a new metric series. `None` when the core has too many: the caller then counts in a series
    /// of its own for the rest.
    pub fn announce(&self, series: Series) -> Option<Arc<Series>> {
        if self.series.get() >= self.limits.series_max {
            self.stats.series_overflow.add(1);
            return None;
        }
        let series = Arc::new(series);
        if self.outbox.send(Report::Series(Arc::clone(&series))).is_err() {
            self.stats.report_drops.add(1);
            return None;
        }
        self.series.set(self.series.get() + 1);
        Some(series)
    }

    /// Notes that something lent was freed, because its stock was full.
    pub fn note_spill(&self) {
        let (total, fresh) = self.spilled.get();
        self.spilled.set((total, fresh.saturating_add(1)));
    }

    /// Gives memory back to the system once a wave is over that was higher than the stocks; about once a second.
    /// In a steady state nothing is freed, and this does nothing.
    pub fn tidy_memory(&self) {
        let (total, fresh) = self.spilled.get();
        let total = total.saturating_add(fresh);
        let over = fresh == 0 && total >= SPILLED_MIN;
        self.spilled.set((if over { 0 } else { total }, 0));
        if over {
            super::sys::give_memory_back();
        }
    }

    /// Processor time this core has used so far.
    pub fn busy(&self) -> Duration {
        thread_busy()
    }

    /// A line for the process's log. Never waits; lost when the control thread is far behind.
    pub fn note(&self, level: Level, text: String) {
        if self.outbox.send(Report::Note(level, text)).is_err() {
            self.stats.report_drops.add(1);
        }
    }
}

/// Processor time this thread has used so far.
pub fn thread_busy() -> Duration {
    Duration::from_nanos(super::sys::thread_cpu_ns())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(core: &Core) {
        let before = core.now();
        while core.now() == before {}
    }

    #[test]
    fn within_a_poll_the_clock_is_looked_at_once_unless_somebody_looks_again() {
        let core = Core::for_trial(Limits::default());
        let polling = core.polling();
        let first = core.lately();
        pass(&core);
        assert_eq!(core.lately(), first);
        let second = core.look();
        pass(&core);
        assert!(second > first && core.lately() == second);
        drop(polling);
        assert!(core.lately() > second);
    }

    #[test]
    fn outside_of_polls_nothing_is_remembered() {
        let core = Core::for_trial(Limits::default());
        let looked = core.look();
        pass(&core);
        assert!(core.lately() > looked);
    }
}
