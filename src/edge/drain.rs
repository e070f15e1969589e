//! Orders from the control thread, and the end: stop accepting, finish what is in flight, within a deadline.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::AsyncReadRent as _;

use super::Hall;
use crate::base::clock::Moment;
use crate::link::mailbox::Letterbox;
use crate::link::outbox::Level;
use crate::runtime::Core;
use crate::runtime::listener::Listener;
use crate::snapshot::{Farewell, Order};

/// How long an idle connection may still bring a request, and learn from its answer that it is the last: so a
/// client that reuses it at this moment sees no reset.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// Time for ended connections to wind up.
const SETTLE: Duration = Duration::from_millis(250);
/// How often a drain looks whether it is over.
const LOOK: Duration = Duration::from_millis(10);

/// Follows orders for as long as the core lives.
pub(super) async fn follow_orders(hall: Rc<Hall>, letterbox: Letterbox<Order>, listeners: Vec<Rc<Listener>>) {
    let follow = |order| match order {
        Order::Swap(snapshot) => hall.swap(snapshot),
        // In a task of its own, so that a second order (`Stop`) is still heard.
        Order::Drain { accept_for, within, farewell } => {
            let last = Last { accept_for, within, farewell };
            monoio::spawn(drain(Rc::clone(&hall), listeners.clone(), last));
        }
        Order::Stop => {
            close_all(&hall, &listeners);
            monoio::spawn(settle(Rc::clone(&hall)));
        }
    };
    // The control thread is gone, and so is the process.
    if empty(&hall.core, letterbox, follow).await {
        hall.over.set();
    }
}

/// Takes whatever comes into a letterbox until nobody is left to put anything in; false where that can not be heard.
pub(super) async fn empty<T>(core: &Core, letterbox: Letterbox<T>, mut take: impl FnMut(T)) -> bool {
    let Letterbox { orders, bell } = letterbox;
    let mut bell = match hear(bell) {
        Ok(bell) => bell,
        Err(error) => {
            core.note(Level::Error, format!("core {} can not hear its letterbox: {error}", core.id));
            return false;
        }
    };
    let mut rung = Vec::with_capacity(64);
    loop {
        rung.clear();
        let (heard, buffer) = bell.read(rung).await;
        rung = buffer;
        if matches!(heard, Ok(0)) {
            return true;
        }
        orders.try_iter().for_each(&mut take);
    }
}

fn hear(bell: std::os::unix::net::UnixStream) -> io::Result<monoio::net::UnixStream> {
    bell.set_nonblocking(monoio::utils::is_legacy())?;
    monoio::net::UnixStream::from_std(bell)
}

/// What a drain goes by, as [`Order::Drain`] has it.
struct Last {
    accept_for: Duration,
    within: Option<Duration>,
    farewell: Option<Farewell>,
}

async fn drain(hall: Rc<Hall>, listeners: Vec<Rc<Listener>>, last: Last) {
    let Last { accept_for, within, farewell } = last;
    let core = &hall.core;
    let started = core.now();
    hall.draining.set(true);
    hall.sessions.leave(started);
    core.stats.ready.set(0);
    monoio::time::sleep(accept_for).await;
    for listener in &listeners {
        listener.close();
    }
    // Only now: who comes back is not to come here.
    if let Some(farewell) = farewell {
        hall.tunnels.end(farewell);
    }
    let grace_over = core.now().plus(IDLE_GRACE);
    let end = within.map(|within| started.plus(within.max(accept_for)));
    let over = |now: Moment| end.is_some_and(|end| now >= end);
    while core.in_flight.get() > 0 && !over(core.now()) {
        monoio::time::sleep(LOOK).await;
        if core.now() >= grace_over {
            // Idle connections had their chance.
            core.pool.clear();
            hall.nodes.leave();
            core.wheel.for_each(|watch| {
                if watch.is_resting() {
                    watch.expire();
                }
            });
        }
    }
    let left = core.in_flight.get();
    if left > 0 {
        core.note(
            Level::Warn,
            format!("core {}: {left} connections were cut off at the end of the drain", core.id),
        );
    }
    close_all(&hall, &listeners);
    settle(Rc::clone(&hall)).await;
}

/// Lets connections that were just ended finish: they log, and hand their buffers back; and what they leave to be done.
async fn settle(hall: Rc<Hall>) {
    let end = hall.core.now().plus(SETTLE);
    let core = &hall.core;
    core.chores.hurry();
    while (core.in_flight.get() > 0 || !core.chores.is_empty()) && core.now() < end {
        monoio::time::sleep(LOOK).await;
    }
    hall.over.set();
}

fn close_all(hall: &Hall, listeners: &[Rc<Listener>]) {
    hall.draining.set(true);
    for listener in listeners {
        listener.close();
    }
    hall.core.pool.clear();
    hall.nodes.leave();
    hall.core.wheel.for_each(|watch| watch.expire());
}
