//! What the control thread shows of itself and of the cores, for those who ask over HTTP. Asking never stops
//! a core's loop: everything here is read from counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::clock::{self, Moment, UnixMs};
use crate::link::stats::{CoreStats, Series};
use crate::model::settings::exported::METRIC_PREFIX;
use crate::model::{ConfigError, object_name};
use crate::snapshot::compile::Quarantined;
use crate::snapshot::{Certificates, Upstream};

use super::export::shipping::Shipped;
use super::names::tally::Tally;
use super::source::etcd::Sight;

/// The board.
#[derive(Debug)]
pub(crate) struct Board {
    /// One per core, in order.
    pub(crate) stats: Vec<Arc<CoreStats>>,
    /// Names of the places in [`CoreStats::reasons`].
    pub(crate) reasons: &'static [&'static str],
    /// Metric series the cores announced.
    pub(crate) registry: Registry,
    /// Access-log lines the sink could not write.
    pub(crate) lines_lost: AtomicU64,
    /// What became of entries of logs that are for others.
    pub(crate) shipped: Arc<Shipped>,
    pub(crate) started_at: UnixMs,
    is_draining: AtomicBool,
    has_started: AtomicBool,
    reload_ok: AtomicBool,
    reload_at: AtomicU64,
    reloads_refused: AtomicU64,
    generation: AtomicU64,
    quarantined: Mutex<Vec<SetAside>>,
    limits: Mutex<Vec<ConfigError>>,
    busy: Mutex<Busy>,
    etcd: Mutex<Option<Sight>>,
    metric_prefix: OnceLock<String>,
    names: OnceLock<Arc<Tally>>,
    watched: Mutex<Vec<Arc<Upstream>>>,
    certificates: Mutex<Certificates>,
    acme: OnceLock<Arc<super::acme::Sight>>,
}

/// An object that is not in force as it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct SetAside {
    /// As `kind/id`.
    pub(crate) name: String,
    pub(crate) faults: Vec<ConfigError>,
    /// The generation in which it was set aside.
    pub(crate) since: u64,
    /// The last generation in which it was in force as wanted; what was in force then still is. None: it is left out.
    pub(crate) last_good: Option<u64>,
    /// Whether requests that it may have guarded are refused: 404 for a route's, 503 for all where a global rule is missed; connections are closed.
    pub(crate) refuses: bool,
}

/// Share of time each core was on its processor between the last two looks.
#[derive(Debug, Default)]
struct Busy {
    looked: Moment,
    busy_ns: Vec<u64>,
    ratios: Vec<f64>,
}

impl Board {
    pub(crate) fn new(stats: Vec<Arc<CoreStats>>, reasons: &'static [&'static str]) -> Self {
        Self {
            stats,
            reasons,
            registry: Registry::default(),
            lines_lost: AtomicU64::new(0),
            shipped: Arc::default(),
            started_at: clock::wall(),
            is_draining: AtomicBool::new(false),
            has_started: AtomicBool::new(false),
            reload_ok: AtomicBool::new(true),
            reload_at: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            quarantined: Mutex::default(),
            limits: Mutex::default(),
            busy: Mutex::default(),
            etcd: Mutex::default(),
            metric_prefix: OnceLock::new(),
            names: OnceLock::new(),
            watched: Mutex::default(),
            certificates: Mutex::default(),
            acme: OnceLock::new(),
        }
    }

    /// Configuration was taken over, but for the objects that were set aside; `limits` is what objects in force ask for
    /// and do not get.
    pub(crate) fn reloaded(
        &self,
        wall: UnixMs,
        generation: u64,
        quarantined: &[Quarantined],
        limits: Vec<ConfigError>,
    ) {
        self.reload_ok.store(true, Ordering::Relaxed);
        self.reload_at.store(wall, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        *lock(&self.limits) = limits;
        let mut held = lock(&self.quarantined);
        let before: BTreeMap<String, SetAside> =
            held.drain(..).map(|object| (object.name.clone(), object)).collect();
        held.extend(quarantined.iter().map(|object| {
            let name = object_name(object.kind, &object.id);
            let earlier = before.get(&name);
            let since = earlier.map_or(generation, |earlier| earlier.since);
            let last_good = object.last_good.then(|| since.saturating_sub(1));
            SetAside { name, faults: object.faults.clone(), since, last_good, refuses: object.refuses }
        }));
    }

    /// Configuration was refused whole.
    pub(crate) fn refused(&self) {
        self.reload_ok.store(false, Ordering::Relaxed);
        self.reloads_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What names of metrics begin with that APISIX has as well; for good.
    pub(crate) fn begin_metrics_with(&self, prefix: &str) {
        let _ = self.metric_prefix.set(prefix.to_owned());
    }

    /// The same.
    pub(crate) fn metric_prefix(&self) -> &str {
        self.metric_prefix.get().map_or(METRIC_PREFIX, String::as_str)
    }

    /// Where it is counted what becomes of names; for good.
    pub(crate) fn see_names(&self, tally: Arc<Tally>) {
        let _ = self.names.set(tally);
    }

    /// The same; `None`: nobody asks for names.
    pub(crate) fn names(&self) -> Option<&Tally> {
        self.names.get().map(|tally| &**tally)
    }

    /// Where it is seen what becomes of certificates that are asked for; for good.
    pub(crate) fn see_acme(&self, sight: Arc<super::acme::Sight>) {
        let _ = self.acme.set(sight);
    }

    /// The same.
    pub(crate) fn acme(&self) -> Option<&super::acme::Sight> {
        self.acme.get().map(|sight| &**sight)
    }

    /// What is seen of the etcd that holds the objects.
    pub(crate) fn see_etcd(&self, sight: Sight) {
        *lock(&self.etcd) = Some(sight);
    }

    /// The same; `None`: none holds them.
    pub(crate) fn etcd(&self) -> Option<Sight> {
        *lock(&self.etcd)
    }

    /// The nodes of these upstreams are checked or may be ejected, or learn how much they can do, from here on.
    pub(crate) fn watch(&self, watched: Vec<Arc<Upstream>>) {
        *lock(&self.watched) = watched;
    }

    /// These certificates are shown to clients from here on.
    pub(crate) fn show(&self, certificates: &Certificates) {
        lock(&self.certificates).clone_from(certificates);
    }

    /// The certificates that are shown to clients.
    pub(crate) fn certificates(&self) -> Certificates {
        lock(&self.certificates).clone()
    }

    /// The upstreams of which there is something to see.
    pub(crate) fn watched(&self) -> Vec<Arc<Upstream>> {
        lock(&self.watched).clone()
    }

    /// From here on readiness fails.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// All cores serve and all listeners are bound.
    pub(crate) fn start(&self) {
        self.has_started.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Relaxed)
    }

    pub(crate) fn reload_ok(&self) -> bool {
        self.reload_ok.load(Ordering::Relaxed)
    }

    /// When configuration was last taken over.
    pub(crate) fn reload_at(&self) -> UnixMs {
        self.reload_at.load(Ordering::Relaxed)
    }

    pub(crate) fn reloads_refused(&self) -> u64 {
        self.reloads_refused.load(Ordering::Relaxed)
    }

    /// The generation the cores were last told to serve.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Objects set aside.
    pub(crate) fn quarantined(&self) -> Vec<SetAside> {
        lock(&self.quarantined).clone()
    }

    /// How many objects are set aside.
    pub(crate) fn quarantined_count(&self) -> usize {
        lock(&self.quarantined).len()
    }

    /// What objects in force ask for and do not get.
    pub(crate) fn limits(&self) -> Vec<ConfigError> {
        lock(&self.limits).clone()
    }

    /// Measures how busy the cores were since the last call; about every few seconds.
    pub(crate) fn look_at_cores(&self, now: Moment) {
        let mut busy = lock(&self.busy);
        let passed = now.since(busy.looked).as_nanos() as u64;
        let fresh: Vec<u64> = self.stats.iter().map(|core| core.busy_ns.get()).collect();
        if passed > 0 && busy.busy_ns.len() == fresh.len() {
            let spent = fresh.iter().zip(&busy.busy_ns).map(|(new, old)| new.saturating_sub(*old));
            busy.ratios = spent.map(|spent| spent as f64 / passed as f64).collect();
        }
        (busy.looked, busy.busy_ns) = (now, fresh);
    }

    /// The share of time each core was busy; empty when it is not measured.
    pub(crate) fn busy_ratios(&self) -> Vec<f64> {
        let busy = lock(&self.busy);
        if busy.busy_ns.iter().all(|spent| *spent == 0) { Vec::new() } else { busy.ratios.clone() }
    }

    /// The sum of one counter over all cores.
    pub(crate) fn sum(&self, of: impl Fn(&CoreStats) -> u64) -> u64 {
        self.stats.iter().map(|core| of(core)).sum()
    }
}

/// Metric series of all cores, in the order of their announcement. Never shrinks: a core bounds how many it
/// makes, and a counter that vanished would look like a restart.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Vec<Arc<Series>>>);

impl Registry {
    pub(crate) fn add(&self, series: Arc<Series>) {
        lock(&self.0).push(series);
    }

    /// All series so far.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        lock(&self.0).clone()
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn an_object_set_aside_keeps_the_generation_in_which_it_was() {
        let board = Board::new(Vec::new(), &[]);
        let object = |last_good| Quarantined {
            kind: Kind::Route,
            id: "1".to_owned(),
            faults: Vec::new(),
            last_good,
            refuses: false,
        };
        let told =
            || board.quarantined().iter().map(|object| (object.since, object.last_good)).collect::<Vec<_>>();
        board.reloaded(0, 1, &[object(false)], Vec::new());
        board.reloaded(0, 2, &[object(false)], Vec::new());
        assert_eq!(told(), [(1, None)]);
        board.reloaded(0, 3, &[], Vec::new());
        board.reloaded(0, 5, &[object(true)], Vec::new());
        board.reloaded(0, 6, &[object(true)], Vec::new());
        assert_eq!((told(), board.quarantined_count()), (vec![(5, Some(4))], 1));
    }

    #[test]
    fn a_busy_ratio_is_of_the_time_between_two_looks() {
        let board = Board::new(vec![Arc::default(), Arc::default()], &[]);
        board.look_at_cores(Moment::from_nanos(1_000));
        assert!(board.busy_ratios().is_empty());
        board.stats[0].busy_ns.add(500);
        board.look_at_cores(Moment::from_nanos(2_000));
        assert_eq!(board.busy_ratios(), [0.5, 0.0]);
    }
}
