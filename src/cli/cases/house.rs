//! The gateway of one case: a real core with a snapshot of its own, started and stopped as `boot` does it, with this
//! thread in the control thread's place.
//!
//! No listener is opened: connections are handed to the core as another core would hand them, so that a client can
//! have any address. The core is of epoll, which every container has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::ground::Ground;
use super::town::Town;
use crate::base::clock;
use crate::edge::{self, Start};
use crate::link::handover::{self, Handed, Neighbours, Spoken};
use crate::link::mailbox::{Mailbox, mailbox};
use crate::link::outbox::{Inbox, Level, Report, outbox};
use crate::link::stats::CoreStats;
use crate::plugin::{Phase, Witness};
use crate::runtime::Core;
use crate::runtime::connect::Detour;
use crate::runtime::core::Hatches;
use crate::runtime::deadline::TICK;
use crate::runtime::driver::{Driver, Wanted};
use crate::runtime::loan;
use crate::snapshot::{Order, Snapshot, limits_of};

/// Longest wait for what must come, in real time; a machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that is let pass at once: the core visits every tick of it.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Dice of cores fall alike in every run.
const SEED: u64 = 26;

/// What ran, in its order.
pub(super) type Ran = Vec<(Phase, &'static str)>;

/// See the module.
pub(super) struct House {
    pub(super) snapshot: Arc<Snapshot>,
    stats: Arc<CoreStats>,
    ran: Arc<Mutex<Ran>>,
    inbox: Inbox,
    orders: Mailbox<Order>,
    door: Neighbours,
    thread: Option<JoinHandle<()>>,
}

impl House {
    /// Starts a core that goes to this town for its nodes.
    ///
    /// # Errors
    /// When the system has no descriptors or threads left.
    pub(super) fn open(ground: &Ground, town: &Arc<Town>) -> io::Result<Self> {
        let ran: Arc<Mutex<Ran>> = Arc::default();
        let witnessed = Arc::clone(&ran);
        let witness = Witness::new(move |phase, plugin| {
            witnessed.lock().unwrap_or_else(PoisonError::into_inner).push((phase, plugin));
        });
        let snapshot = ground.compile(witness).snapshot;
        let (outbox, inbox) = outbox();
        let (orders, letterbox) = mailbox()?;
        let stats = Arc::new(CoreStats::default());
        let (door, handed) = handover::among(&[Arc::clone(&stats)])?
            .pop()
            .ok_or_else(|| io::Error::other("a core has a door of its own"))?;
        let lenders = loan::Neighbour::alone()?;
        let hatches = Hatches::alone(outbox, Arc::clone(&stats));
        // Each record at once: it tells what became of the request before the next is made.
        let limits = crate::runtime::Limits { log_batch_bytes: 0, ..limits_of(&ground.settings) };
        let (tell, hear) = mpsc::channel();
        let (neighbours, shared, town) = (door.clone(), Arc::clone(&snapshot), Arc::clone(town));
        town.watch(Arc::clone(&stats));
        let life = move || {
            let driver = match Driver::build(Wanted::Epoll) {
                Ok(driver) => driver,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let mut core = Core::new(0, limits, hatches, SEED);
            core.detour = Some(Detour::new(move |node| town.door(node)));
            let _ = tell.send(Ok(()));
            let start = Start {
                core,
                snapshot: shared,
                listeners: Vec::new(),
                datagrams: Vec::new(),
                letterbox,
                neighbours,
                handed,
                lenders,
            };
            let _ = edge::run_core(driver, start);
        };
        let thread = thread::Builder::new().name("core".to_owned()).spawn(life)?;
        hear.recv().map_err(|_| io::Error::other("the core ended while it started"))??;
        Ok(Self { snapshot, stats, ran, inbox, orders, door, thread: Some(thread) })
    }

    /// A connection of a client with this address, to this port.
    ///
    /// # Errors
    /// When the system has none to give.
    pub(super) fn connect(&self, peer: SocketAddr, port: u16, is_tls: bool) -> io::Result<TcpStream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        far.set_nonblocking(true)?;
        far.set_nodelay(true)?;
        near.set_nodelay(true)?;
        near.set_read_timeout(Some(PATIENCE))?;
        near.set_write_timeout(Some(PATIENCE))?;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let handed = Handed { stream: far, peer, local, spoken: Spoken { is_tls, ..Spoken::default() } };
        self.door.hand(0, handed).map_err(|_| io::Error::other("the core takes no more connections"))?;
        Ok(near)
    }

    /// The record of the request that was just answered, and what the core had to say besides. `None`: the connection
    /// ended before there was a request.
    pub(super) fn record(&self, is_expected: bool) -> (Option<Value>, Vec<String>) {
        let mut notes = Vec::new();
        let patience = if is_expected { PATIENCE } else { Duration::ZERO };
        loop {
            match self.inbox.reports.recv_timeout(patience) {
                Ok(Report::AccessLog(bytes)) => {
                    let record = serde_json::from_slice(&bytes).ok();
                    self.inbox.give_back(bytes);
                    return (record, notes);
                }
                Ok(Report::Note(Level::Error | Level::Warn, text)) => notes.push(text),
                // What would leave the machine does not.
                Ok(Report::Note(..) | Report::Lines { .. } | Report::Series(_)) => {}
                // Where configurations are tried nobody answers.
                Ok(Report::Retired(_) | Report::Asked(_)) => {}
                Err(_) => return (None, notes),
            }
        }
    }

    /// What ran since this was last asked.
    pub(super) fn ran(&self) -> Ran {
        std::mem::take(&mut *self.ran.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets time pass, and the core see that it has.
    pub(super) fn wait(&self, time: Duration) {
        pass(&self.stats, time);
    }
}

/// Lets time pass, and the core come to all that was due by then.
pub(super) fn pass(stats: &CoreStats, time: Duration) {
    clock::advance(time);
    // The core looks at the clock once a tick, and counts its looks. One may be under way.
    let seen = stats.loop_lag.count.get() + 2;
    let ticks = PATIENCE.as_millis() / TICK.as_millis();
    for _ in 0..ticks {
        if stats.loop_lag.count.get() >= seen {
            return;
        }
        thread::park_timeout(TICK);
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.orders.post(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
