//! Active health checks: every upstream that has any is asked after by one task, for the whole process.
//!
//! ```text
//! snapshot ─▶ Prober ─▶ a task an upstream ─▶ ask the node ─▶ its cell ◀── requests of the cores
//!                └── looks at the cells, and tells of nodes that went down or came up
//! ```
//!
//! A task goes on while its upstream is the same; another version of the upstream gets another task, and nodes that are
//! in both keep their cells. Healthy and unhealthy nodes are asked at intervals of their own, and no two upstreams at
//! the same moment.

mod ask;
mod grpc;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::board::Board;
use super::dial::Dialer;
use super::log;
use crate::base::hash::Map;
use crate::base::rng::Rng;
use crate::link::health::Cell;
use crate::model::Settings;
use crate::snapshot::{Checks, Node, Upstream};

/// Checks under way at once, of all upstreams: each holds a descriptor. Others wait, and their time does not run.
const UNDER_WAY_MAX: usize = 256;
/// How far an interval is stretched or shortened by chance: a tenth.
const JITTER: f64 = 0.1;

/// Keeps a task for each upstream that has checks.
#[derive(Debug)]
pub(crate) struct Prober {
    dialer: Dialer,
    room: Arc<Semaphore>,
    dice: Dice,
    running: Map<Box<str>, Running>,
}

#[derive(Debug)]
struct Running {
    upstream: Arc<Upstream>,
    task: AbortHandle,
    /// Whether each node was up when that was last told.
    told: Vec<bool>,
    /// In the snapshot that is followed.
    is_wanted: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dice that tasks share.
#[derive(Clone, Debug)]
struct Dice(Arc<Mutex<Rng>>);

impl Dice {
    /// Some part of a time.
    fn part_of(&self, time: Duration) -> Duration {
        let thrown = self.0.lock().unwrap_or_else(PoisonError::into_inner).below(1 << 20);
        time.mul_f64(thrown as f64 / f64::from(1 << 20))
    }

    /// A time, a little longer or shorter.
    fn about(&self, time: Duration) -> Duration {
        time.mul_f64(1.0 - JITTER) + self.part_of(time.mul_f64(2.0 * JITTER))
    }
}

impl Prober {
    pub(crate) fn new(settings: &Settings, seed: u64) -> Self {
        Self {
            dialer: Dialer::new(settings),
            room: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            dice: Dice(Arc::new(Mutex::new(Rng::seeded(seed)))),
            running: Map::default(),
        }
    }

    /// Checks these upstreams from here on, and no others.
    pub(crate) fn follow<'a>(&mut self, checked: impl Iterator<Item = &'a Arc<Upstream>>, board: &Board) {
        let mut all = Vec::new();
        for upstream in checked {
            all.push(Arc::clone(upstream));
            match self.running.get_mut(&upstream.name) {
                Some(running) if Arc::ptr_eq(&running.upstream, upstream) => running.is_wanted = true,
                _ => {
                    let started = self.start(upstream);
                    self.running.insert(upstream.name.clone(), started);
                }
            }
        }
        self.running.retain(|_, running| std::mem::take(&mut running.is_wanted));
        board.watch(all);
    }

    fn start(&self, upstream: &Arc<Upstream>) -> Running {
        let round = Round {
            upstream: Arc::clone(upstream),
            dialer: self.dialer.clone(),
            room: Arc::clone(&self.room),
            dice: self.dice.clone(),
        };
        let before = self.running.get(&upstream.name);
        let was_up = |node: &Node| {
            let mut earlier =
                before.into_iter().flat_map(|before| before.upstream.nodes.iter().zip(&before.told));
            earlier.find(|(other, _)| other.address == node.address).is_none_or(|(_, told)| *told)
        };
        Running {
            told: upstream.nodes.iter().map(was_up).collect(),
            upstream: Arc::clone(upstream),
            task: tokio::spawn(round.go_on()).abort_handle(),
            is_wanted: true,
        }
    }

    /// Tells of nodes that went down or came up.
    pub(crate) fn tell(&mut self) {
        for running in self.running.values_mut() {
            for (node, told) in running.upstream.nodes.iter().zip(&mut running.told) {
                let Some(cell) = &node.cell else { continue };
                let record = cell.record();
                if record.health.is_up() == *told {
                    continue;
                }
                *told = record.health.is_up();
                let (name, address) = (&running.upstream.name, node.address);
                if *told {
                    log::info(format!("{name}: node {address} is healthy again"));
                } else {
                    log::warn(format!(
                        "{name}: node {address} is unhealthy; bad statuses: {}, broken connections: {}, timeouts: {}",
                        record.http_failures, record.tcp_failures, record.timeouts
                    ));
                }
            }
        }
    }
}

/// The checks of one upstream, again and again.
struct Round {
    upstream: Arc<Upstream>,
    dialer: Dialer,
    room: Arc<Semaphore>,
    dice: Dice,
}

impl Round {
    async fn go_on(self) {
        let Some(checks) = self.upstream.checks.clone() else { return };
        let (healthy_every, unhealthy_every) = (checks.active.healthy_every, checks.active.unhealthy_every);
        let first = Instant::now() + self.dice.part_of(healthy_every.min(Duration::from_secs(1)));
        let (mut healthy_at, mut unhealthy_at) = (first, first);
        loop {
            sleep_until(healthy_at.min(unhealthy_at)).await;
            let now = Instant::now();
            let (healthy_due, unhealthy_due) = (healthy_at <= now, unhealthy_at <= now);
            let is_due = |cell: &Cell| if cell.is_up() { healthy_due } else { unhealthy_due };
            if healthy_due {
                healthy_at = now + self.dice.about(healthy_every);
            }
            if unhealthy_due {
                unhealthy_at = now + self.dice.about(unhealthy_every);
            }
            self.ask_all(&checks, is_due).await;
        }
    }

    /// Asks the nodes that are due, so many at once as may be.
    async fn ask_all(&self, checks: &Arc<Checks>, is_due: impl Fn(&Cell) -> bool) {
        let mut asked = JoinSet::new();
        for node in &self.upstream.nodes {
            let Some(cell) = node.cell.clone().filter(|cell| is_due(cell)) else { continue };
            while asked.len() >= checks.active.concurrency {
                asked.join_next().await;
            }
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { return };
            let (checks, node, dialer) = (Arc::clone(checks), node.clone(), self.dialer.clone());
            asked.spawn(async move {
                if let Some(news) = ask::ask(&checks.active, &node, dialer).await {
                    cell.note(news, &checks.active.rules.thresholds);
                }
                drop(room);
            });
        }
        while asked.join_next().await.is_some() {}
    }
}
