//! The way of a snapshot to the cores: posted to each, again while a box is full, until every core serves it.
//!
//! What was replaced is held on to for a moment after, so that no core is the last to let go of it, and has to have it freed.
//!
//! Nothing here waits: [`Publisher::advance`] is called every few milliseconds while something is under way.
//! A core that was given several snapshots in a row ends with the newest; so does one whose box was full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::link::mailbox::Mailbox;
use crate::link::stats::CoreStats;
use crate::snapshot::{Order, Snapshot};

use super::log;

/// A core that does not serve a snapshot for this long after it was published is named in the log.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// How long a snapshot is held on to after it was replaced: as long as most requests take.
const KEPT_FOR: Duration = Duration::from_millis(200);
/// Replaced snapshots that are held on to; the oldest goes when there are more.
const KEPT_MAX: usize = 16;

/// What is told to one core, and what is still to be told.
#[derive(Debug)]
struct Line {
    mailbox: Mailbox<Order>,
    stats: Arc<CoreStats>,
    /// Generation last posted.
    posted: u64,
    /// An order other than a snapshot that found no room. A later one takes its place, being stricter.
    owed: Option<Order>,
}

/// The snapshot every core shall serve.
#[derive(Debug)]
struct Wanted {
    snapshot: Arc<Snapshot>,
    since: Moment,
    is_late: bool,
}

/// Sends orders to all cores.
#[derive(Debug)]
pub(crate) struct Publisher {
    lines: Vec<Line>,
    /// Holds the newest snapshot even when all cores serve it, so that it is freed here.
    wanted: Option<Wanted>,
    /// Oldest first, each with when it was replaced.
    replaced: VecDeque<(Moment, Arc<Snapshot>)>,
    is_settled: bool,
}

impl Publisher {
    /// Lines to cores that may serve a snapshot already.
    pub(crate) fn new(mailboxes: Vec<Mailbox<Order>>, stats: &[Arc<CoreStats>]) -> Self {
        let lines = mailboxes.into_iter().zip(stats).map(|(mailbox, stats)| Line {
            mailbox,
            stats: Arc::clone(stats),
            posted: 0,
            owed: None,
        });
        Self { lines: lines.collect(), wanted: None, replaced: VecDeque::new(), is_settled: true }
    }

    /// From here on every core shall serve this snapshot.
    pub(crate) fn publish(&mut self, snapshot: Arc<Snapshot>, now: Moment) {
        if let Some(before) = self.wanted.replace(Wanted { snapshot, since: now, is_late: false }) {
            self.replaced.push_back((now, before.snapshot));
        }
        self.is_settled = false;
        self.advance(now);
    }

    /// Tells every core to drain or to stop.
    pub(crate) fn tell(&mut self, order: &Order) {
        for line in &mut self.lines {
            line.owed = Some(order.clone());
        }
        self.post_owed();
    }

    /// Goes on with what is under way.
    pub(crate) fn advance(&mut self, now: Moment) {
        self.post_owed();
        self.let_go(now);
        let Some(wanted) = &mut self.wanted else { return };
        if self.is_settled {
            return;
        }
        let generation = wanted.snapshot.generation;
        let mut behind = Vec::new();
        for (core, line) in self.lines.iter_mut().enumerate() {
            if line.stats.generation.get() >= generation {
                continue;
            }
            behind.push(core);
            if line.posted < generation
                && line.mailbox.post(Order::Swap(Arc::clone(&wanted.snapshot))).is_ok()
            {
                line.posted = generation;
            }
        }
        if behind.is_empty() {
            self.is_settled = true;
            log::info(format!("configuration {generation} is served by all cores"));
        } else if !wanted.is_late && now.since(wanted.since) > LATE_AFTER {
            wanted.is_late = true;
            log::warn(format!("configuration {generation} is not served yet by core {}", listed(&behind)));
        }
    }

    fn let_go(&mut self, now: Moment) {
        let surplus = self.replaced.len().saturating_sub(KEPT_MAX);
        let is_old = |(replaced, _): &(Moment, _)| now.since(*replaced) >= KEPT_FOR;
        let old = self.replaced.iter().take_while(|kept| is_old(kept)).count();
        self.replaced.drain(..surplus.max(old));
    }

    fn post_owed(&mut self) {
        for line in &mut self.lines {
            if let Some(order) = line.owed.take() {
                line.owed = line.mailbox.post(order).err();
            }
        }
    }

    /// Whether every core serves the newest snapshot and has every order.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled && self.lines.iter().all(|line| line.owed.is_none())
    }
}

fn listed(cores: &[usize]) -> String {
    let names: Vec<String> = cores.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::mailbox::{Letterbox, ORDERS_MAX, mailbox};
    use crate::model::Settings;
    use crate::model::resources::Resources;
    use crate::snapshot::{Compiler, at_once};

    struct House {
        publisher: Publisher,
        boxes: Vec<Letterbox<Order>>,
        stats: Vec<Arc<CoreStats>>,
        compiler: Compiler,
    }

    fn house(cores: usize) -> House {
        let (mailboxes, boxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| mailbox().expect("a pair")).unzip();
        let stats: Vec<Arc<CoreStats>> = (0..cores).map(|_| Arc::default()).collect();
        let compiler = Compiler::new(&Settings::default(), at_once(|_| Ok(Vec::new())));
        House { publisher: Publisher::new(mailboxes, &stats), boxes, stats, compiler }
    }

    impl House {
        fn publish(&mut self) -> u64 {
            let snapshot = self.compiler.compile(&Resources::default()).snapshot;
            let generation = snapshot.generation;
            self.publisher.publish(snapshot, Moment::ZERO);
            generation
        }

        /// The core takes its orders, and serves the last snapshot among them.
        fn work(&self, core: usize) -> Vec<u64> {
            let orders = self.boxes[core].orders.try_iter();
            let seen: Vec<u64> = orders
                .filter_map(|order| match order {
                    Order::Swap(snapshot) => Some(snapshot.generation),
                    Order::Drain { .. } | Order::Stop => None,
                })
                .collect();
            if let Some(last) = seen.last() {
                self.stats[core].generation.set(*last);
            }
            seen
        }
    }

    #[test]
    fn a_snapshot_is_settled_when_the_last_core_serves_it() {
        let mut house = house(2);
        let generation = house.publish();
        assert_eq!(house.work(0), [generation]);
        house.publisher.advance(Moment::ZERO);
        assert!(!house.publisher.is_settled());
        assert_eq!(house.work(1), [generation]);
        house.publisher.advance(Moment::ZERO);
        assert!(house.publisher.is_settled());
    }

    #[test]
    fn a_core_that_serves_it_already_is_not_told() {
        let mut house = house(1);
        house.stats[0].generation.set(1);
        assert_eq!(house.publish(), 1);
        assert!(house.publisher.is_settled());
        assert!(house.boxes[0].orders.is_empty());
    }

    #[test]
    fn a_full_box_is_tried_again_and_then_gets_only_the_newest() {
        let mut house = house(1);
        for _ in 0..ORDERS_MAX {
            let filler = Order::Drain { accept_for: Duration::ZERO, within: None, farewell: None };
            house.publisher.lines[0].mailbox.post(filler).expect("room");
        }
        house.publish();
        let newest = house.publish();
        assert_eq!(house.work(0), Vec::<u64>::new());
        house.publisher.advance(Moment::ZERO);
        house.publisher.advance(Moment::ZERO);
        assert_eq!(house.work(0), [newest]);
    }

    #[test]
    fn what_is_replaced_is_freed_here_a_moment_later() {
        let mut house = house(1);
        let first = house.compiler.compile(&Resources::default()).snapshot;
        let seen = Arc::downgrade(&first);
        house.publisher.publish(first, Moment::ZERO);
        house.publish();
        // The core lets go of the first, as one does that serves the second.
        house.work(0);
        house.publisher.advance(Moment::ZERO);
        assert!(house.publisher.is_settled());
        assert!(seen.upgrade().is_some());
        house.publisher.advance(Moment::ZERO.plus(KEPT_FOR));
        assert!(seen.upgrade().is_none());
    }

    #[test]
    fn few_of_many_replaced_at_once_are_held_on_to() {
        let mut house = house(1);
        for _ in 0..3 * KEPT_MAX {
            house.publish();
            house.work(0);
        }
        house.publisher.advance(Moment::ZERO);
        assert_eq!(house.publisher.replaced.len(), KEPT_MAX);
    }

    #[test]
    fn an_order_to_stop_outlives_a_full_box() {
        let mut house = house(1);
        for _ in 0..ORDERS_MAX {
            let filler = Order::Drain { accept_for: Duration::ZERO, within: None, farewell: None };
            house.publisher.lines[0].mailbox.post(filler).expect("room");
        }
        house.publisher.tell(&Order::Stop);
        assert!(!house.publisher.is_settled());
        assert_eq!(house.boxes[0].orders.try_iter().count(), ORDERS_MAX);
        house.publisher.advance(Moment::ZERO);
        assert!(matches!(house.boxes[0].orders.try_recv(), Ok(Order::Stop)));
        assert!(house.publisher.is_settled());
    }
}
