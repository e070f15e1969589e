//! A request's way through. Read `pipeline.rs` first; this file is the loop of one core.
//!
//! ```text
//! accept -> h1, h2 (connection -> requests) -> pipeline (one request) -> proxy (one upstream attempt)
//!                                                    |                     |
//!                                                 respond              deliver -> client
//! ```

mod accept;
mod access_log;
mod admit;
mod attend;
mod consumer;
mod datagram;
mod deadline;
mod deliver;
mod download;
mod drain;
mod forward_head;
mod greet;
mod grpc_status;
mod guarded;
mod h1;
mod h2;
mod health;
mod hedge;
mod hold;
mod log_line;
mod outlier;
mod pace;
mod parting;
mod pick;
mod pipeline;
mod proxy;
mod relay;
mod respond;
mod response_head;
mod retry_budget;
mod secure;
mod stage;
mod sticky;
mod stream;
mod tunnel;
mod upload;
mod vouch;

pub use respond::REASONS;
use retry_budget::RetryBudget;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, UdpSocket};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::hash::Map;
use crate::link::handover::{Handed, Neighbours};
use crate::link::mailbox::Letterbox;
use crate::link::outbox::{Level, Outbox, Report};
use crate::plugin::Env;
use crate::runtime::deadline::TICK;
use crate::runtime::driver::Driver;
use crate::runtime::event::Event;
use crate::runtime::listener::{Listener, Open};
use crate::runtime::loan::{self, Letter, Loans};
use crate::runtime::udp::Datagrams;
use crate::runtime::{Core, chore, errand};
use crate::snapshot::{Chain, Order, Snapshot};

/// Chains kept for pairs of route and consumer; beyond, the table starts over.
const MERGED_MAX: usize = 4096;
/// How often slow chores are done: wall clock, pool, counters.
const CHORES: Duration = Duration::from_secs(1);
/// How often a core looks how busy it is.
const LOOK: Duration = Duration::from_millis(100);

/// A core's hold on a snapshot. The atomic count of the `Arc` moves once a core and swap; requests count in the
/// `Rc`.
#[derive(Clone, Debug)]
struct View(Rc<Held>);

#[derive(Debug)]
struct Held {
    /// Taken only when dropped.
    snapshot: Option<Arc<Snapshot>>,
    outbox: Outbox,
}

impl View {
    fn new(snapshot: Arc<Snapshot>, outbox: Outbox) -> Self {
        Self(Rc::new(Held { snapshot: Some(snapshot), outbox }))
    }
}

impl std::ops::Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        self.0.snapshot.as_deref().expect("a snapshot is taken only when its last view is dropped")
    }
}

impl Drop for Held {
    /// The last request that saw this snapshot is over. Freeing it is not a core's work: mostly the control thread has it
    /// still and frees it; where it has not, it is sent off.
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take().and_then(Arc::into_inner) {
            let _ = self.outbox.send(Report::Retired(Box::new(snapshot)));
        }
    }
}

/// What all connections of a core share.
struct Hall {
    core: Core,
    view: RefCell<View>,
    /// Chains of routes with a consumer's plugins merged in, for the current view.
    merged: RefCell<Map<(u32, u32), Rc<Chain>>>,
    /// The core accepts no more and closes connections as they come to rest.
    draining: Cell<bool>,
    /// The core has nothing left to do.
    over: Event,
    retries: RetryBudget,
    /// Connections by client address, where they are limited.
    addresses: RefCell<Map<IpAddr, usize>>,
    log: RefCell<access_log::Batch>,
    stages: stage::Stages,
    /// Connections that speak HTTP/2.
    sessions: h2::Sessions,
    /// What passes in datagrams.
    datagrams: datagram::Sessions,
    /// Connections to nodes that speak it.
    nodes: h2::Nodes,
    /// What passes in frames of WebSocket.
    tunnels: parting::Tunnels,
    itself: Weak<Self>,
    /// Connections that stay on their stage between two requests.
    staying: Cell<u32>,
    /// The other cores.
    neighbours: Neighbours,
    /// When something was noted that may come often.
    noted: Cell<Option<Moment>>,
    /// How nodes are spoken to over TLS.
    node_configs: RefCell<secure::Configs>,
    /// Idle connections of the other cores.
    loans: Loans,
}

impl Hall {
    /// For tasks that outlive whoever begins them.
    fn itself(&self) -> Rc<Self> {
        self.itself.upgrade().expect("it is there while it is borrowed")
    }

    fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Notes what may happen as often as anybody likes: at most once a second.
    fn note_seldom(&self, level: Level, text: impl FnOnce() -> String) {
        let now = self.core.now();
        if self.noted.get().is_none_or(|noted| now.since(noted) >= CHORES) {
            self.noted.set(Some(now));
            self.core.note(level, text());
        }
    }

    fn env<'a>(&'a self, view: &'a View) -> Env<'a> {
        Env { core: &self.core, consumers: &view.index, prices: Some(&view.prices) }
    }

    fn swap(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        let live = &snapshot.live;
        self.core.forget_locals(&snapshot.retired, live.size(), |id| live.contains(id));
        self.merged.borrow_mut().clear();
        self.tunnels.end_where_changed(&snapshot.routes);
        let old = self.view.replace(View::new(snapshot, self.core.outbox.clone()));
        drop(old);
        self.core.stats.generation.set(generation);
    }
}

/// What a core is started with.
#[derive(Debug)]
pub struct Start {
    pub core: Core,
    pub snapshot: Arc<Snapshot>,
    pub listeners: Vec<Open>,
    /// Where datagrams come in.
    pub datagrams: Vec<UdpSocket>,
    pub letterbox: Letterbox<Order>,
    pub neighbours: Neighbours,
    /// Connections from other cores.
    pub handed: Letterbox<Handed>,
    /// To borrow connections to nodes from other cores.
    pub lenders: loan::Neighbour,
}

/// Runs one core until it is told to end.
///
/// # Errors
/// When a listener can not be taken over.
pub fn run_core(mut driver: Driver, start: Start) -> std::io::Result<()> {
    let nonblocking = driver.wants_nonblocking();
    driver.run(async {
        let Start { core, snapshot, listeners, datagrams, letterbox, neighbours, handed, lenders } = start;
        let (loans, letters) = lenders.settle();
        let listeners: Vec<Rc<Listener>> = listeners
            .into_iter()
            .map(|listener| Listener::new(listener, nonblocking).map(Rc::new))
            .collect::<std::io::Result<_>>()?;
        let generation = snapshot.generation;
        let hall = Rc::new_cyclic(|itself| Hall {
            view: RefCell::new(View::new(snapshot, core.outbox.clone())),
            log: RefCell::new(access_log::Batch::new(&core)),
            core,
            merged: RefCell::default(),
            draining: Cell::new(false),
            over: Event::default(),
            retries: RetryBudget::new(),
            addresses: RefCell::default(),
            stages: stage::Stages::default(),
            sessions: h2::Sessions::default(),
            datagrams: datagram::Sessions::default(),
            nodes: h2::Nodes::default(),
            tunnels: parting::Tunnels::default(),
            itself: Weak::clone(itself),
            staying: Cell::new(0),
            neighbours,
            noted: Cell::default(),
            node_configs: RefCell::default(),
            loans,
        });
        hall.core.stats.generation.set(generation);
        monoio::spawn(keep_time(Rc::clone(&hall)));
        monoio::spawn(run_errands(Rc::clone(&hall)));
        monoio::spawn(run_chores(Rc::clone(&hall)));
        monoio::spawn(accept::take_in_handed(Rc::clone(&hall), handed));
        monoio::spawn(trade(Rc::clone(&hall), letters));
        for listener in &listeners {
            accept::open(&hall, listener);
        }
        for (place, socket) in datagrams.into_iter().enumerate() {
            let port = Rc::new(Datagrams::new(socket, &hall.core.wheel)?);
            monoio::spawn(datagram::receive(Rc::clone(&hall), place, port));
        }
        hall.core.stats.ready.set(1);
        monoio::spawn(drain::follow_orders(Rc::clone(&hall), letterbox, listeners));
        hall.over.wait().await;
        hall.log.borrow_mut().flush(&hall.core);
        Ok::<(), std::io::Error>(())
    })?;
    // Tasks may still wait in the loop; it must not be dropped under them. The process ends next.
    std::mem::forget(driver);
    Ok(())
}

/// How busy a core is, of late.
struct Load {
    looked: Moment,
    busy: Duration,
}

impl Load {
    /// Notes the share of the time since the last look, if that was long enough ago.
    fn look(&mut self, core: &Core, now: Moment) {
        let passed = now.since(self.looked);
        if passed < LOOK {
            return;
        }
        let busy = core.busy();
        let share = busy.saturating_sub(self.busy).as_nanos() * 1000 / passed.as_nanos();
        // A third of each look: a core that turns idle is seen as such within half a second.
        let load = (core.stats.load.get() * 2 + (share as u64).min(1000)) / 3;
        core.stats.load.set(load);
        core.stats.busy_ns.set(busy.as_nanos() as u64);
        *self = Self { looked: now, busy };
    }
}

/// Sends what plugins want sent beside the road, each in a task of its own.
async fn run_errands(hall: Rc<Hall>) {
    loop {
        let errand = hall.core.errands.next().await;
        let hall = Rc::clone(&hall);
        monoio::spawn(async move { errand::carry_out(&hall.core, errand).await });
    }
}

/// Lends idle connections to other cores, and takes what they lend, for as long as the core lives.
async fn trade(hall: Rc<Hall>, letterbox: Letterbox<Letter>) {
    let core = &hall.core;
    drain::empty(core, letterbox, |letter| match letter {
        Letter::Wanted(wanted) => {
            let hall = Rc::clone(&hall);
            monoio::spawn(async move { hall.loans.lend(&hall.core, wanted).await });
        }
        Letter::Answer(answer) => {
            if let Some((late, keep)) = hall.loans.receive(core, answer) {
                core.pool.give_back(late, &keep, &core.wheel, || download::net(core));
            }
        }
    })
    .await;
}

/// Does what plugins leave to be done, each in a task of its own.
async fn run_chores(hall: Rc<Hall>) {
    loop {
        let chore = hall.core.chores.next().await;
        let hall = Rc::clone(&hall);
        monoio::spawn(async move { chore::carry_out(&hall.core, chore).await });
    }
}

/// The core's clockwork: turns the wheel, notes how late it came, does the chores.
async fn keep_time(hall: Rc<Hall>) {
    let core = &hall.core;
    let mut chores_due = core.now().plus(CHORES);
    let mut load = Load { looked: core.now(), busy: core.busy() };
    loop {
        let asked = core.now();
        monoio::time::sleep(TICK).await;
        let now = core.now();
        core.stats.loop_lag.observe(now.since(asked).saturating_sub(TICK));
        core.wheel.turn(now);
        hall.tunnels.tell_some();
        load.look(core, now);
        hall.log.borrow_mut().flush_if_old(core, now);
        if now >= chores_due {
            chores_due = now.plus(CHORES);
            core.renew_wall();
            core.pool.sweep(&core.stats);
            hall.sessions.look(&hall, now);
            hall.nodes.look(now);
            core.tidy_memory();
        }
    }
}
