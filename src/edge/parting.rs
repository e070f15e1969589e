//! Tunnels are told to end, when the core does or when their route is another: each side gets a Close frame between two of its
//! frames, and has some time to answer (RFC 6455 7.1). Those that end at once would all come back at once, so a core tells so
//! many a tick.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;

use super::Hall;
use crate::base::slots::Slots;
use crate::proto::websocket::{self, From};
use crate::runtime::Core;
use crate::snapshot::{Farewell, Route};

/// Tunnels that are told in one tick of the core's clockwork: 12,800 a second.
const TOLD_A_TICK: usize = 256;

/// What a tunnel is told by.
#[derive(Default)]
pub(super) struct Tie {
    told: Cell<Option<Farewell>>,
    waker: Cell<Option<Waker>>,
    /// The route it ends with, and its place.
    route: Option<(u32, Arc<Route>)>,
}

impl Tie {
    /// What it was told; if nothing yet, whoever asks is woken when it is.
    pub(super) fn poll_told(&self, cx: &Context<'_>) -> Option<Farewell> {
        if self.told.get().is_none() {
            let known = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
            self.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
        }
        self.told.get()
    }

    /// What it was told.
    pub(super) const fn told(&self) -> Option<Farewell> {
        self.told.get()
    }

    fn tell(&self, farewell: Farewell) {
        if self.told.get().is_none() {
            self.told.set(Some(farewell));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether it ends with its route, which is no longer as it was.
    fn is_left_by(&self, routes: &Slots<Route>) -> bool {
        self.route
            .as_ref()
            .is_some_and(|(place, route)| !routes.shared(*place).is_some_and(|is| Arc::ptr_eq(is, route)))
    }
}

/// All tunnels of a core.
#[derive(Default)]
pub(super) struct Tunnels {
    all: RefCell<Slab<Rc<Tie>>>,
    /// Those that are to be told; no more than there are, twice.
    waiting: RefCell<VecDeque<(Rc<Tie>, Farewell)>>,
    /// What those are told that are still to come.
    ending: Cell<Option<Farewell>>,
}

impl Tunnels {
    /// Has all of them end, and those that are still to come.
    pub(super) fn end(&self, farewell: Farewell) {
        if self.ending.replace(Some(farewell)).is_none() {
            let all = self.all.borrow();
            self.waiting.borrow_mut().extend(all.iter().map(|(_, tie)| (Rc::clone(tie), farewell)));
        }
    }

    /// Has those end whose routes are no longer as they were.
    pub(super) fn end_where_changed(&self, routes: &Slots<Route>) {
        let all = self.all.borrow();
        let left = all.iter().filter(|(_, tie)| tie.told().is_none() && tie.is_left_by(routes));
        self.waiting.borrow_mut().extend(left.map(|(_, tie)| (Rc::clone(tie), Farewell::Changed)));
    }

    /// Tells some of those that wait.
    pub(super) fn tell_some(&self) {
        for _ in 0..TOLD_A_TICK {
            let next = self.waiting.borrow_mut().pop_front();
            let Some((tie, farewell)) = next else { return };
            tie.tell(farewell);
        }
    }
}

/// A tunnel's place among those of its core.
pub(super) struct Listed<'a> {
    hall: &'a Hall,
    key: usize,
    pub(super) tie: Rc<Tie>,
}

impl<'a> Listed<'a> {
    /// `route`: the one it ends with, and its place.
    pub(super) fn new(hall: &'a Hall, route: Option<(u32, Arc<Route>)>) -> Self {
        let tie = Rc::new(Tie { route, ..Tie::default() });
        let tunnels = &hall.tunnels;
        let key = tunnels.all.borrow_mut().insert(Rc::clone(&tie));
        // The route may have changed since the request came.
        let farewell = if tie.is_left_by(&hall.view.borrow().routes) {
            Some(Farewell::Changed)
        } else {
            tunnels.ending.get()
        };
        if let Some(farewell) = farewell {
            tunnels.waiting.borrow_mut().push_back((Rc::clone(&tie), farewell));
        }
        hall.core.stats.tunnels_active.add(1);
        Self { hall, key, tie }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.hall.core.stats.tunnels_active.sub(1);
        self.hall.tunnels.all.borrow_mut().remove(self.key);
    }
}

/// How a tunnel of WebSocket's is told, and how long it then may take.
pub(super) struct Parting<'a> {
    pub(super) tie: &'a Tie,
    pub(super) within: Duration,
    /// What the node said right behind its head, which has been passed on.
    pub(super) said: Vec<u8>,
}

/// The last frame to a side; `from` is whose part we take.
pub(super) fn last_frame(core: &Core, farewell: Farewell, from: From) -> Vec<u8> {
    let (code, reason) = match farewell {
        Farewell::Stopping => (1001, "the gateway is going away"),
        Farewell::Replaced => (1012, "the gateway restarts"),
        Farewell::Changed => (1012, "the route has changed"),
    };
    let key = || {
        let [a, b, c, d, ..] = core.dice(|dice| dice.next_u64()).to_le_bytes();
        [a, b, c, d]
    };
    websocket::close(code, reason, (from == From::Client).then(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_told_a_tick_and_each_once() {
        let tunnels = Tunnels::default();
        let ties: Vec<Rc<Tie>> = (0..TOLD_A_TICK + 5).map(|_| Rc::default()).collect();
        for tie in &ties {
            tunnels.all.borrow_mut().insert(Rc::clone(tie));
        }
        tunnels.end(Farewell::Stopping);
        tunnels.end(Farewell::Replaced);
        let told = || ties.iter().filter(|tie| tie.told().is_some()).count();
        tunnels.tell_some();
        assert_eq!(told(), TOLD_A_TICK);
        tunnels.tell_some();
        assert_eq!(told(), ties.len());
        assert!(ties.iter().all(|tie| tie.told() == Some(Farewell::Stopping)));
    }
}
