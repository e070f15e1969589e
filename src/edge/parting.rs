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
use super::relay::Side;
use crate::base::slots::Slots;
use crate::proto::websocket::{self, Frames, From};
use crate::runtime::Core;
use crate::runtime::deadline::Ticks;
use crate::snapshot::{Farewell, Route};

/// Tunnels that are told in one tick of the core's clockwork: 12,800 a second.
const TOLD_A_TICK: usize = 256;

/// What a tunnel is told by, and how far it has come. Apart from the tunnel's future, which holds much twice.
pub(super) struct Tie {
    told: Cell<Option<Farewell>>,
    waker: Cell<Option<Waker>>,
    /// The route it ends with, and its place.
    route: Option<(u32, Arc<Route>)>,
    /// How long it may take once it was told.
    pub(super) within: Ticks,
    flows: [RefCell<Flow>; 2],
    /// A side has said its last before we could.
    is_closing: Cell<bool>,
    is_parting: Cell<bool>,
}

/// What comes from one side.
struct Flow {
    frames: Frames,
    /// Nothing more is passed on: we have said the last in its place.
    has_parted: bool,
}

impl Tie {
    fn new(route: Option<(u32, Arc<Route>)>, within: Duration, node: Frames) -> Self {
        let is_closing = node.has_closed();
        let flow = |frames| RefCell::new(Flow { frames, has_parted: false });
        Self {
            told: Cell::new(None),
            waker: Cell::new(None),
            route,
            within: Ticks::of(within),
            flows: [flow(Frames::new(From::Client)), flow(node)],
            is_closing: Cell::new(is_closing),
            is_parting: Cell::new(false),
        }
    }

    /// Whether both sides are to be told that it is over. If not, whoever waits is woken when they are.
    pub(super) fn is_told(&self, cx: Option<&Context<'_>>) -> bool {
        if let Some(cx) = cx.filter(|_| self.told.get().is_none()) {
            let known = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
            self.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
        }
        self.told.get().is_some() && !self.is_closing.get()
    }

    /// Whether the time to answer our last runs.
    pub(super) const fn is_parting(&self) -> bool {
        self.is_parting.get()
    }

    pub(super) fn begin_parting(&self) {
        self.is_parting.set(true);
    }

    fn flow(&self, side: Side) -> &RefCell<Flow> {
        &self.flows[usize::from(side == Side::Node)]
    }

    /// Keeps in mind where frames of a side end. Where it `is_told`, what is not to be passed on is taken out; whether our last
    /// may follow what is left.
    pub(super) fn follow(&self, side: Side, buffer: &mut Vec<u8>, is_told: bool) -> bool {
        let Flow { frames, has_parted } = &mut *self.flow(side).borrow_mut();
        if *has_parted {
            frames.pass(buffer);
            buffer.clear();
            return false;
        }
        if !is_told {
            frames.pass(buffer);
            if frames.has_closed() {
                self.is_closing.set(true);
            }
            return false;
        }
        let own = frames.finish(buffer);
        let may_part = frames.is_between();
        frames.pass(&buffer[own..]);
        if may_part {
            buffer.truncate(own);
        }
        may_part
    }

    /// Whether what a side says are frames, and more may follow.
    pub(super) fn is_open(&self, side: Side) -> bool {
        self.flow(side).borrow().frames.is_open()
    }

    /// Whether our last may take the place of what a side says next.
    pub(super) fn may_part(&self, side: Side) -> bool {
        let flow = self.flow(side).borrow();
        !flow.has_parted && flow.frames.is_between()
    }

    /// Whether we have said the last in this side's place.
    pub(super) fn has_parted(&self, side: Side) -> bool {
        self.flow(side).borrow().has_parted
    }

    /// Whether we have, and the side has said its own.
    pub(super) fn is_over(&self, side: Side) -> bool {
        let flow = self.flow(side).borrow();
        flow.has_parted && !flow.frames.is_open()
    }

    /// The last in this side's place.
    pub(super) fn last_frame(&self, core: &Core, side: Side) -> Option<Vec<u8>> {
        let farewell = self.told.get()?;
        self.flow(side).borrow_mut().has_parted = true;
        Some(last_frame(core, farewell, if side == Side::Client { From::Client } else { From::Server }))
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
        let left = all.iter().filter(|(_, tie)| tie.told.get().is_none() && tie.is_left_by(routes));
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
    /// `route`: the one it ends with, and its place; `node`: how far the node has come by what it said behind its answer.
    pub(super) fn new(hall: &'a Hall, route: Option<(u32, Arc<Route>)>, node: Frames) -> Self {
        let tie = Rc::new(Tie::new(route, hall.core.limits.tunnel_close_timeout, node));
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

/// The last frame to a side; `from` is whose part we take.
fn last_frame(core: &Core, farewell: Farewell, from: From) -> Vec<u8> {
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

    fn tie() -> Rc<Tie> {
        Rc::new(Tie::new(None, Duration::from_secs(5), Frames::new(From::Server)))
    }

    #[test]
    fn so_many_are_told_a_tick_and_each_once() {
        let tunnels = Tunnels::default();
        let ties: Vec<Rc<Tie>> = (0..TOLD_A_TICK + 5).map(|_| tie()).collect();
        for tie in &ties {
            tunnels.all.borrow_mut().insert(Rc::clone(tie));
        }
        tunnels.end(Farewell::Stopping);
        tunnels.end(Farewell::Replaced);
        let told = || ties.iter().filter(|tie| tie.told.get().is_some()).count();
        tunnels.tell_some();
        assert_eq!(told(), TOLD_A_TICK);
        tunnels.tell_some();
        assert_eq!(told(), ties.len());
        assert!(ties.iter().all(|tie| tie.told.get() == Some(Farewell::Stopping)));
    }
}
