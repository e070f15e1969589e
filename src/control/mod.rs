//! The control plane: everything that may wait, on one thread beside the cores.
//!
//! [`run`] is one loop over signals and a timer; nothing else changes state, so there is no lock to reason about:
//!
//! ```text
//! signals ─▶ Stage ─▶ drain, stop ──────────────────┐
//! files ───▶ Watch ─▶ parse ─▶ compile ─▶ Publisher ├─▶ mailboxes of the cores
//!                                 └▶ Board ◀── status, metrics (HTTP, on this thread)
//! inbox of the cores ─▶ reports thread: access log, series, notes, what is to be freed
//! ```
//!
//! What stops whom: a signal tells the cores to drain; when all have ended, the loop ends, the HTTP listeners with
//! it, and last the reports thread, when it has written what the cores left.

mod acme;
mod admin;
mod api;
mod ask;
mod audit;
mod board;
pub mod caller;
mod certificates;
mod concurrency;
mod dial;
pub mod discovery;
mod expiry;
pub mod explain;
mod export;
mod floor;
mod health;
mod helm;
mod holdings;
mod keeper;
mod learn;
mod limits;
mod lines;
pub mod log;
mod mask;
pub mod names;
mod ocsp;
pub mod origin;
mod port;
mod ports;
mod probe;
mod publish;
mod ready_file;
mod seal;
pub mod secrets;
mod secured;
mod signals;
mod socket;
pub mod source;
mod status;
mod step_aside;
mod store;
mod unmask;
mod whole_file;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::address::Address;
use crate::base::clock::{self, Moment};
use crate::link::mailbox::Mailbox;
use crate::link::outbox::Inbox;
use crate::link::stats::CoreStats;
use crate::model::{ConfigError, Kind, Settings, object_name};
use crate::snapshot::compile::Outcome;
use crate::snapshot::{Compiler, Order};

use ask::Question;
use board::Board;
use discovery::Discovery;
use export::reports;
use floor::{Doors, Floor};
use names::Names;
use probe::Prober;
use publish::Publisher;
use ready_file::Ready;
use secrets::Secrets;
use signals::{Act, Patience, Signals, Stage};
use source::etcd::{Etcd, News};
use source::file::{self, LOOK_EVERY, Source};
use step_aside::step_aside;
use write::{Done, Refusal, Write};

pub use acme::Acme;
pub use dial::{roots_of_nodes, ticket_keys};
pub use export::process::kernel_release;
pub use holdings::Holdings;
pub use keeper::Keeper;
pub(crate) use mask::{MASK, masked};
pub use ports::Ports;
pub use seal::Seal;
pub(crate) use secured::fault_of as fault_of_tls;
pub use signals::{Ended, Signal};
pub use socket::pid_file;
pub(crate) use unmask::unmask;

/// Between two turns while orders are under way or cores are ending.
const TURN_WHEN_BUSY: Duration = Duration::from_millis(10);
/// Between two turns while somebody waits for a change to be served.
const TURN_WHEN_AWAITED: Duration = Duration::from_millis(1);
/// What cores get beyond the time of a drain, before they are told to stop.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// What cores get after they were told to stop, before the process ends without them.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// What the reports thread gets to write what is left.
const REPORTS_GRACE: Duration = Duration::from_secs(2);
/// Between two measurements of how busy cores are.
const BUSY_EVERY: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// All that the control plane is made of.
pub struct Parts {
    pub settings: Settings,
    /// Where objects came from, to be watched from here on.
    pub resources: Option<Source>,
    /// The etcd that holds the objects, to be watched from here on.
    pub etcd: Option<Etcd>,
    /// The objects, and who may change them.
    pub holdings: Holdings,
    /// Bound, to be served from here on.
    pub ports: Ports,
    pub compiler: Compiler,
    /// What stores of secrets have said, and when.
    pub secrets: Secrets,
    /// Names of nodes, and who resolves them.
    pub names: Names,
    /// What registries have told.
    pub discovery: Discovery,
    /// Certificates that are asked for.
    pub acme: Acme,
    /// What `compiler` made of the resources at start. Posted to the cores that do not serve it yet.
    pub first: Outcome,
    /// One per core, in order, as `stats`.
    pub mailboxes: Vec<Mailbox<Order>>,
    pub stats: Vec<Arc<CoreStats>>,
    pub inbox: Inbox,
    /// Whether every core's thread has ended.
    pub cores_done: Box<dyn Fn() -> bool>,
    /// Has the calling thread leave its processor to cores that want it.
    pub leave_room: fn(),
    /// The driver in use, as people read it.
    pub driver: String,
    /// Where clients come in, by kind (`http`), with real ports.
    pub listeners: Vec<(String, Address)>,
    pub ready_file: Option<PathBuf>,
    /// Names of the places in [`CoreStats::reasons`].
    pub reasons: &'static [&'static str],
}

/// Runs the control plane until all cores have ended. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// When a listener can not be bound, a log not opened, or signals not be had. The cores are then told to stop.
pub async fn run(parts: Parts) -> io::Result<Ended> {
    let board = Arc::new(Board::new(parts.stats.clone(), parts.reasons));
    let (doors, waiting) = Doors::new();
    let mut parts = parts;
    let ground = async { Ok((Signals::listen()?, Floor::build(&mut parts, &board, doors)?)) };
    match ground.await {
        Ok((signals, floor)) => {
            // From here on: the thread that writes records is there, and has not inherited it.
            (parts.leave_room)();
            // All of the control plane's state is in it: kilobytes.
            Ok(Box::pin(Control::new(parts, board, floor, waiting).live(signals)).await)
        }
        Err(error) => {
            let mut publisher = Publisher::new(parts.mailboxes, &parts.stats);
            publisher.tell(&Order::Stop);
            let since = clock::now();
            while !(parts.cores_done)() && clock::now().since(since) < STOP_GRACE {
                publisher.advance(clock::now());
                tokio::time::sleep(TURN_WHEN_BUSY).await;
            }
            Err(error)
        }
    }
}

/// When things were last done.
#[derive(Default)]
struct Times {
    looked: Moment,
    ticked: Moment,
    measured: Moment,
    /// Until then nothing is due.
    expired_until: Moment,
}

/// When patience with the cores ends.
#[derive(Clone, Copy)]
struct Deadline {
    at: Moment,
    signal: Signal,
}

struct Control {
    settings: Settings,
    resources: Option<Source>,
    etcd: Option<Etcd>,
    compiler: Compiler,
    publisher: Publisher,
    prober: Prober,
    board: Arc<Board>,
    cores_done: Box<dyn Fn() -> bool>,
    driver: String,
    listeners: Vec<(String, Address)>,
    ready_file: Option<PathBuf>,
    floor: Floor,
    stage: Stage,
    deadline: Option<Deadline>,
    done: Times,
    names: Names,
    secrets: Secrets,
    discovery: Discovery,
    acme: Acme,
    ocsp: ocsp::Ocsp,
    ends: certificates::Ends,
    holdings: Holdings,
    waiting: Waiting,
    /// What was wrong with objects, and what those in force lacked, at the last compilation.
    told: BTreeSet<String>,
    /// Changes that are made and not yet served by every core, oldest first: by generation.
    unanswered: VecDeque<(u64, Written)>,
}

/// Who waits for the loop, by what for.
struct Waiting {
    writes: mpsc::Receiver<Write>,
    questions: mpsc::Receiver<Question>,
    wishes: mpsc::Receiver<helm::Asked>,
}

/// A change that is made, and who waits to hear of it.
type Written = (Done, oneshot::Sender<Result<Done, Refusal>>);

impl Control {
    fn new(parts: Parts, board: Arc<Board>, floor: Floor, waiting: Waiting) -> Self {
        let mut control = Self {
            publisher: Publisher::new(parts.mailboxes, &parts.stats),
            prober: Prober::new(&parts.settings, clock::wall()),
            ocsp: ocsp::Ocsp::new(&parts.settings),
            ends: certificates::Ends::default(),
            settings: parts.settings,
            resources: parts.resources,
            etcd: parts.etcd,
            compiler: parts.compiler,
            board,
            cores_done: parts.cores_done,
            driver: parts.driver,
            listeners: parts.listeners,
            ready_file: parts.ready_file,
            floor,
            stage: Stage::Serving,
            deadline: None,
            done: Times::default(),
            names: parts.names,
            secrets: parts.secrets,
            discovery: parts.discovery,
            acme: parts.acme,
            holdings: parts.holdings,
            waiting,
            told: BTreeSet::new(),
            unanswered: VecDeque::new(),
        };
        control.board.see_names(control.names.tally());
        control.board.see_acme(control.acme.sight());
        if let Some(etcd) = &control.etcd {
            control.board.see_etcd(etcd.sight());
            control.acme.join(etcd.shelf());
        }
        control.take_over(parts.first, clock::now());
        control
    }

    async fn live(mut self, mut signals: Signals) -> Ended {
        if let Some(etcd) = &mut self.etcd {
            etcd.start();
        }
        let ended = loop {
            if let Some(ended) = self.turn(clock::now()) {
                break ended;
            }
            self.expire(clock::now()).await;
            let pause = match (self.unanswered.is_empty(), self.is_busy()) {
                (false, _) => TURN_WHEN_AWAITED,
                (true, true) => TURN_WHEN_BUSY,
                (true, false) => LOOK_EVERY,
            };
            tokio::select! {
                signal = signals.next() => self.on_signal(signal, clock::now()),
                Some(write) = self.waiting.writes.recv() => self.on_write(write, clock::now()).await,
                Some(news) = Etcd::next(&mut self.etcd), if self.stage == Stage::Serving => {
                    self.on_news(news, clock::now());
                }
                Some(news) = self.names.next() => self.on_names(news, clock::now()),
                Some(told) = self.discovery.next() => self.on_told(told, clock::now()),
                Some(news) = self.acme.next() => self.on_acme(news, clock::now()),
                Some(question) = self.waiting.questions.recv() => question(&self.compiler),
                Some(asked) = self.waiting.wishes.recv() => self.on_wish(asked, clock::now()),
                () = tokio::time::sleep(pause) => {}
            }
        };
        if let Some(etcd) = &mut self.etcd {
            let store = Arc::clone(&self.holdings.store);
            etcd.keep_last(&store).await;
        }
        self.floor.reports.end();
        let is_over = reports::ended(&self.floor.reports, REPORTS_GRACE).await;
        self.board.shipped.settle(REPORTS_GRACE).await;
        if !is_over {
            log::warn("the access log is stuck in a write, what was left is lost");
        }
        match ended {
            Ended::Asked => log::info("ended"),
            Ended::Forced(_) => log::warn("ended by force"),
            Ended::Unasked => log::error("all cores have ended and nobody asked"),
        }
        log::flush();
        ended
    }

    /// Does what is due. Says how it ended, when it has.
    fn turn(&mut self, now: Moment) -> Option<Ended> {
        self.publisher.advance(now);
        self.answer_writes();
        self.announce_start();
        self.look_after_certificates(now);
        self.look_at_ends(now);
        if now.since(self.done.looked) >= LOOK_EVERY {
            self.done.looked = now;
            self.look_at_resources(now);
            self.look_at_secrets(now);
            self.look_at_staples(now);
            self.prober.tell();
            self.names.follow(&self.compiler);
            self.discovery.follow(&self.compiler);
            if let Some(etcd) = &mut self.etcd {
                etcd.keep(now, &admin::held(&self.holdings.store));
            }
        }
        if now.since(self.done.ticked) >= SECOND {
            self.done.ticked = now;
            log::tick();
        }
        if now.since(self.done.measured) >= BUSY_EVERY {
            self.done.measured = now;
            self.board.look_at_cores(now);
        }
        self.how_ended(now)
    }

    /// Whether the next turn should come soon.
    fn is_busy(&self) -> bool {
        !self.board.has_started() || !self.publisher.is_settled() || self.stage > Stage::Paused
    }

    /// Once: when all cores serve, so that whoever waits for us may come.
    fn announce_start(&mut self) {
        let accepting = || self.board.stats.iter().all(|core| core.ready.get() != 0);
        if self.board.has_started() || !self.publisher.is_settled() || !accepting() {
            return;
        }
        self.board.start();
        let ready = Ready {
            listeners: &self.listeners,
            metrics: self.floor.metrics,
            status: self.floor.status,
            admin: self.floor.admin,
            control: self.floor.control,
            cores: self.board.stats.len(),
            driver: &self.driver,
        };
        for (name, address) in &self.listeners {
            log::info(format!("{name} on {address}"));
        }
        let floor = &self.floor;
        let others = [
            ("metrics", floor.metrics),
            ("status", floor.status),
            ("admin", floor.admin),
            ("control", floor.control),
        ];
        for (name, address) in others {
            if let Some(address) = address {
                log::info(format!("{name} on {address}"));
            }
        }
        if let Some(socket) = &self.holdings.socket {
            log::info(format!("control socket on {}", socket.path.display()));
        }
        log::info(format!("ready; cores: {}, driver: {}", ready.cores, ready.driver));
        if let Some(path) = &self.ready_file
            && let Err(error) = ready.write(path)
        {
            log::error(format!("ready file {}: {error}", path.display()));
        }
    }

    fn look_at_resources(&mut self, now: Moment) {
        if self.stage != Stage::Serving {
            return;
        }
        let Some(Source(watch)) = &mut self.resources else { return };
        let change = watch.poll_once(now);
        let _ = self.on_change(change, now);
    }

    /// Takes over what a file says now. What it is refused for was told already.
    fn on_change(&mut self, change: file::Change, now: Moment) -> Result<(), Vec<ConfigError>> {
        let faults = match change {
            file::Change::None => return Ok(()),
            file::Change::Trouble(why) => vec![ConfigError::new(why)],
            file::Change::Pieces(pieces) => match file::merge(&pieces) {
                Ok(resources) => {
                    let outcome = self.compiler.compile(&resources);
                    if let Err(error) = self.holdings.show(&resources) {
                        log::error(format!("the Admin API shows an earlier configuration: {error}"));
                    }
                    self.take_over(outcome, now);
                    return Ok(());
                }
                Err(faults) => faults,
            },
        };
        self.refuse(&faults);
        Err(faults)
    }

    /// What etcd tells.
    fn on_news(&mut self, news: News, now: Moment) {
        let Some(etcd) = &mut self.etcd else { return };
        let outcome = etcd.take(news, &mut admin::held(&self.holdings.store), &mut self.compiler);
        self.board.see_etcd(etcd.sight());
        if let Some(outcome) = outcome {
            self.take_over(outcome, now);
        }
    }

    /// Leaves everything as it was, and says why.
    fn refuse(&self, faults: &[ConfigError]) {
        self.board.refused();
        for fault in faults {
            log::error(fault.to_string());
        }
        log::error(format!("configuration refused; {} stays", self.board.generation()));
    }

    /// Gives a compiled configuration to the cores.
    fn take_over(&mut self, outcome: Outcome, now: Moment) {
        let set_aside: BTreeSet<String> =
            outcome.quarantined.iter().map(|object| object_name(object.kind, &object.id)).collect();
        let (faults, limits): (Vec<_>, Vec<_>) =
            outcome.faults.into_iter().partition(|fault| set_aside.contains(&fault.object));
        let wrong = faults.iter().chain(&limits).map(|fault| (log::Level::Error, fault.to_string()));
        let aside = outcome.quarantined.iter().map(|object| {
            let name = object_name(object.kind, &object.id);
            let instead = match (object.last_good, object.refuses, object.kind) {
                (true, ..) => "its last good version stays",
                (false, true, Kind::GlobalRule) => "all requests are answered 503 until it can be taken",
                (false, true, Kind::StreamRoute) => "its connections are closed",
                (false, true, _) => "its requests are answered 404",
                (false, false, _) => "it is left out",
            };
            (log::Level::Warn, format!("{name}: set aside; {instead}"))
        });
        // Once: it is true of every configuration until somebody changes the object.
        let told = std::mem::take(&mut self.told);
        for (level, line) in wrong.chain(aside) {
            if !told.contains(&line) {
                log::write(level, &line);
            }
            self.told.insert(line);
        }
        let generation = outcome.snapshot.generation;
        self.board.reloaded(clock::wall(), generation, &outcome.quarantined, limits);
        log::info(format!("configuration {generation} taken over; set aside: {}", outcome.quarantined.len()));
        self.board.show(&outcome.snapshot.certificates);
        step_aside();
        self.prober.follow(outcome.snapshot.upstreams.watched(), &self.board);
        self.publisher.publish(outcome.snapshot, now);
    }

    fn on_signal(&mut self, signal: Signal, now: Moment) {
        let limits = &self.settings.limits;
        let patience = Patience {
            pre_stop_delay: limits.pre_stop_delay.get(),
            shutdown_timeout: limits.shutdown_timeout.get(),
        };
        let (stage, act) = self.stage.on(signal, patience);
        self.stage = stage;
        match act {
            Act::Nothing => log::debug(format!("{signal}: nothing to do")),
            Act::Unavailable => {
                log::warn("USR2: upgrading in place is not available; start anew and send QUIT")
            }
            Act::Reload => self.reload(now),
            Act::ReopenLogs => self.reopen_logs(),
            Act::Drain { accept_for, within, farewell } => {
                log::info(match within {
                    Some(within) => {
                        format!("{signal}: draining within {within:?}, accepting for {accept_for:?}")
                    }
                    None => format!("{signal}: accepting nothing more, open connections are served on"),
                });
                self.board.drain();
                self.deadline =
                    within.map(|within| Deadline { at: now.plus(accept_for + within + DRAIN_GRACE), signal });
                self.publisher.tell(&Order::Drain { accept_for, within, farewell });
            }
            Act::Stop => {
                log::warn(format!("{signal}: stopping at once"));
                self.stop(now, signal);
            }
        }
    }

    fn stop(&mut self, now: Moment, signal: Signal) {
        self.stage = Stage::Stopping;
        self.deadline = Some(Deadline { at: now.plus(STOP_GRACE), signal });
        self.publisher.tell(&Order::Stop);
    }

    fn reopen_logs(&mut self) {
        if let Some(audit) = &mut self.floor.audit
            && let Err(error) = audit.reopen()
        {
            log::error(format!("audit log can not be reopened: {error}; the old file stays"));
        }
        match log::reopen() {
            Ok(()) => log::info("logs are reopened"),
            Err(error) => log::error(format!("log can not be reopened: {error}; the old file stays")),
        }
        self.floor.reports.reopen();
    }

    /// Whether it is over: all cores have ended, or patience with them has.
    fn how_ended(&mut self, now: Moment) -> Option<Ended> {
        let overdue = self.deadline.filter(|deadline| now >= deadline.at);
        if (self.cores_done)() {
            return match (self.stage, self.deadline) {
                (Stage::Serving, _) => Some(Ended::Unasked),
                // Stays for the metrics, until told to go.
                (Stage::Paused, _) => None,
                (Stage::Stopping, Some(deadline)) => Some(Ended::Forced(deadline.signal)),
                (Stage::Finishing | Stage::Draining | Stage::Stopping, _) => Some(Ended::Asked),
            };
        }
        let deadline = overdue?;
        if self.stage == Stage::Stopping {
            log::error("cores do not end, ending without them");
            return Some(Ended::Forced(deadline.signal));
        }
        log::warn("cores did not end in time, telling them to stop");
        self.stop(now, deadline.signal);
        None
    }
}

#[cfg(test)]
mod tests;
