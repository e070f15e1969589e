//! A tunnel after `101`: from here on bytes are passed both ways (`relay.rs`).
//!
//! It may last for days, so it is run by the connection's own small future: the stage that served its request is free for
//! another, and of the request there is only what its log line tells, in no more memory than that takes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::h1::Connection;
use super::parting::{Listed, Tie};
use super::pipeline::{self, After, Run, chain_of};
use super::proxy::Plan;
use super::relay::{self, Patience};
use super::{Hall, View, health};
use crate::base::clock::Moment;
use crate::exchange::Exchange;
use crate::link::health::{Cell, Visit};
use crate::link::throttle::{Pass, Throttle};
use crate::proto::websocket::{Frames, From};
use crate::runtime::pool::Leased;
use crate::runtime::socket::Socket;
use crate::snapshot::{Chain, Route};

/// A node's connection that goes on as a tunnel, and what counts the request as under way there.
pub(super) struct Joined {
    node: Socket,
    /// What the client sent behind its request was held back until now.
    early: Vec<u8>,
    /// What the node said behind its answer was passed on with that.
    said: Frames,
    _visit: Option<Visit<Arc<Cell>>>,
    pub(super) pass: Option<Pass<Arc<Throttle>>>,
}

/// What there is of a request that has become a tunnel.
pub(super) struct Tunnel {
    joined: Joined,
    began: Moment,
    ex: Exchange,
    view: View,
    route: Option<u32>,
    merged: Option<Rc<Chain>>,
}

impl Run<'_> {
    /// Both sides have agreed: the request ends as a tunnel.
    pub(super) fn join(&mut self, plan: &Plan<'_>, leased: Leased) -> After {
        let mut node = leased.socket;
        node.watch().unfollow();
        node.listen_no_more();
        let early = self.ex.request.headers.received()[self.ex.request.line.head.end()..].to_vec();
        let mut said = Frames::new(From::Server);
        said.pass(&self.ex.response.headers.received()[self.ex.response.line.head.end()..]);
        let visit = health::enter_for_long(plan.upstream, plan.served.get());
        self.joined = Some(Box::new(Joined { node, early, said, _visit: visit, pass: None }));
        After::Tunnel
    }

    /// What is left of the request that has become a tunnel.
    pub(super) fn into_tunnel(self, joined: Joined) -> Box<Tunnel> {
        let core = &self.hall.core;
        let mut lent = self.ex;
        let mut ex = std::mem::take(&mut *lent);
        core.give_back(lent);
        // Heads that nobody changes any more.
        ex.compact(|buffer| core.buffers.give_back(buffer));
        let Self { view, route, merged, .. } = self;
        Box::new(Tunnel { joined, began: core.now(), ex, view, route, merged })
    }
}

/// Joins the client's connection with the node's until both are done.
// Not an `async fn`: that would hold its arguments twice, for as long as the tunnel lasts.
#[allow(clippy::manual_async_fn)]
pub(super) fn run(
    hall: &Hall,
    connection: &mut Connection,
    mut tunnel: Box<Tunnel>,
) -> impl Future<Output = ()> {
    async move {
        let listed = Listed::new(hall, tunnel.ends_with(), tunnel.joined.said.clone());
        let passed = tunnel.relay(hall, connection, &listed.tie).await;
        drop(listed);
        hall.core.stats.requests_active.sub(1);
        tunnel.end(hall, passed);
    }
}

impl Tunnel {
    fn relay<'a>(
        &'a mut self,
        hall: &'a Hall,
        connection: &'a mut Connection,
        tie: &'a Tie,
    ) -> impl Future<Output = relay::Passed> + use<'a> {
        let core = &hall.core;
        let silence = self.silence().unwrap_or(core.limits.tunnel_timeout);
        let patience = Patience { sending: silence, receiving: silence };
        let Joined { node, early, .. } = &mut self.joined;
        let client = &mut connection.socket;
        relay::relay(core, client, node, std::mem::take(early), patience, Some(tie))
    }

    /// The route it ends with, and its place.
    fn ends_with(&self) -> Option<(u32, Arc<Route>)> {
        let (at, route) = self.route.and_then(|at| Some((at, self.view.routes.shared(at)?)))?;
        route.websockets.end_with_it.then(|| (at, Arc::clone(route)))
    }

    /// How long nothing may pass, where its route says so.
    fn silence(&self) -> Option<Option<Duration>> {
        self.view.routes[self.route?].websockets.silence
    }

    /// It is over, and its log line due.
    fn end(&mut self, hall: &Hall, passed: relay::Passed) {
        let ex = &mut self.ex;
        let now = hall.core.now();
        let time = now.since(self.began);
        ex.bytes_in += passed.up;
        ex.bytes_out += passed.down;
        ex.timing.finished = now;
        ex.timing.upstream += time;
        if let Some(attempt) = ex.attempts.last_mut() {
            attempt.total += time;
        }
        let chain = chain_of(&self.view, self.route, self.merged.as_ref());
        pipeline::log(hall, &self.view, chain, ex);
    }
}
