//! The life of a request. Every other file in `edge` is the detail of one line here.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use super::admit::Refusal;
use super::h1::Connection;
use super::respond::Fault;
use super::tunnel::Joined;
use super::upload::Upload;
use super::{Hall, View, access_log, attend, consumer, grpc_status, respond};
use crate::base::clock::Moment;
use crate::exchange::{Body, Exchange, Reply};
use crate::plugin::{Env, Hooks as _, Phase, Verdict};
use crate::snapshot::{Chain, Route, Target, enter_route, is_new, query_of, show_consumer};

/// One request under way: what it says, which plugins see it, what they may reach.
pub(super) struct Run<'a> {
    pub(super) hall: &'a Hall,
    pub(super) view: View,
    pub(super) connection: &'a mut Connection,
    pub(super) ex: Box<Exchange>,
    pub(super) upload: Upload,
    /// The route's place in the snapshot.
    pub(super) route: Option<u32>,
    /// The route's chain with a consumer's plugins in it, where the consumer brings some.
    pub(super) merged: Option<Rc<Chain>>,
    /// The head of the response is out: no other answer can be given.
    pub(super) head_sent: bool,
    /// The request was not understood, so nothing behind it can be.
    pub(super) refused: bool,
    /// It was sent to what serves in its upstream's place: nothing serves in the place of that.
    pub(super) falls_back: bool,
    /// The node's connection, once both sides have agreed to go on as a tunnel.
    pub(super) joined: Option<Box<Joined>>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It may carry another request.
    Keep,
    /// Nothing more can be said on it.
    Close,
    /// The answer said that it ends; the client may still be sending.
    Linger,
    /// It is a tunnel from here on: what the request has joined is told by [`Run::joined`].
    Tunnel,
}

/// Goes on with `Next`, returns anything else. A chain that does not hook the phase costs a look.
macro_rules! pass {
    ($self:ident, $chain:expr, $phase:expr, $env:ident) => {
        if $chain.hooks($phase) {
            pass!($chain.gate($phase, &mut $self.ex, $env).await)
        }
    };
    ($verdict:expr) => {
        match $verdict {
            Verdict::Next => {}
            reply @ Verdict::Reply(_) => return reply,
        }
    };
}

/// The same for gates that may have the request wait for its turn: whose client has left is not let go on.
macro_rules! pass_attended {
    ($self:ident, $chain:expr, $phase:expr, $env:ident) => {
        if $chain.hooks($phase) {
            let verdict = {
                let mut gates = pin!($chain.gate($phase, &mut $self.ex, $env));
                let (core, client) = (&$self.hall.core, &$self.connection.socket);
                poll_fn(|cx| attend::poll(core, client, gates.as_mut(), cx)).await
            };
            match verdict {
                Some(verdict) => pass!(verdict),
                None => return Verdict::Reply(respond::to_fault(&mut $self.ex, Fault::ClientGone)),
            }
        }
    };
}

impl<'a> Run<'a> {
    pub(super) fn new(
        hall: &'a Hall,
        view: View,
        connection: &'a mut Connection,
        ex: Box<Exchange>,
        upload: Upload,
    ) -> Self {
        Self {
            hall,
            view,
            connection,
            ex,
            upload,
            route: None,
            merged: None,
            head_sent: false,
            refused: false,
            falls_back: false,
            joined: None,
        }
    }

    /// From a readable request to its log line, or to the tunnel that it becomes.
    pub(super) async fn serve(&mut self) -> After {
        let after = match self.decide().await {
            Verdict::Next => match self.forward().await {
                Ok(after) => after,
                Err(fault) => {
                    let reply = respond::to_fault(&mut self.ex, fault);
                    self.answer(reply).await
                }
            },
            Verdict::Reply(reply) => self.answer(reply).await,
        };
        self.note_upload();
        if after != After::Tunnel {
            self.log();
        }
        after
    }

    /// Answers a request that can not be read. No plugin but global ones sees it.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> After {
        self.refused = true;
        let reply = respond::to_refusal(&mut self.ex, refusal);
        self.answer(reply).await;
        self.note_upload();
        self.log();
        After::Linger
    }

    /// Route, then every gate in APISIX's order. [`explain`](crate::snapshot::explain) goes the same way on trial: what
    /// changes here changes there.
    async fn decide(&mut self) -> Verdict {
        if !self.view.challenges.is_empty()
            && let Some(reply) = respond::to_challenge(&mut self.ex, &self.view)
        {
            return Verdict::Reply(reply);
        }
        if self.find_route(!self.upload.is_done()) {
            pass!(self.find_route_by_body().await);
        }
        let view = self.view.clone();
        let (env, global) = (self.hall.env(&view), &view.global);
        let route = self.route.map(|at| &view.routes[at]);
        if let Some(reply) = respond::to_broken(&mut self.ex, &view, route) {
            return Verdict::Reply(reply);
        }
        let is_read_early =
            global.reads_body_early() || route.is_some_and(|route| route.chain.reads_body_early());
        if let Some(most) = self.body_to_hold().filter(|_| is_read_early) {
            pass!(self.hold_up_to(most).await);
        }
        pass!(self, global, Phase::Rewrite, env);
        if let Some(route) = route {
            pass!(self, route.chain, Phase::Rewrite, env);
            self.merged = consumer::merge(self.hall, &view, self.route, &self.ex);
            show_consumer(&mut self.ex);
            if let Some(merged) = &self.merged {
                let new = |plugin: &_| is_new(&route.chain, plugin);
                pass!(merged.gate_some(Phase::Rewrite, &mut self.ex, env, new).await);
            }
        }
        // Only now: nobody who is turned away above makes the gateway hold a body.
        if let Some(most) = self.body_to_hold() {
            pass!(self.hold_up_to(most).await);
        }
        pass_attended!(self, global, Phase::Access, env);
        let Some(chain) = chain_of(&view, self.route, self.merged.as_ref()) else {
            return Verdict::Reply(respond::no_route(&mut self.ex));
        };
        pass_attended!(self, chain, Phase::Access, env);
        Verdict::Next
    }

    /// The plugins `BEFORE_PROXY`; once a try.
    pub(super) async fn before_proxy(&mut self) -> Verdict {
        let env = self.hall.env(&self.view);
        pass!(self, self.view.global, Phase::BeforeProxy, env);
        if let Some(chain) = chain_of(&self.view, self.route, self.merged.as_ref()) {
            pass!(self, chain, Phase::BeforeProxy, env);
        }
        Verdict::Next
    }

    /// The plugins' say in the head of the response.
    pub(super) fn header_filter(&mut self) {
        let env = self.hall.env(&self.view);
        self.view.global.header_filter(&mut self.ex, env);
        if let Some(chain) = chain_of(&self.view, self.route, self.merged.as_ref()) {
            chain.header_filter(&mut self.ex, env);
        }
    }

    /// Whether any plugin wants to see the body of the response.
    pub(super) fn filters_body(&self) -> bool {
        self.view.global.hooks(Phase::BodyFilter)
            || chain_of(&self.view, self.route, self.merged.as_ref())
                .is_some_and(|chain| chain.hooks(Phase::BodyFilter))
    }

    /// Whether the access log or any plugin reads the head of the response once it is sent.
    pub(super) fn reads_sent_head(&self) -> bool {
        self.view.house.keep_sent_head
            || self.view.global.reads_sent_head()
            || chain_of(&self.view, self.route, self.merged.as_ref()).is_some_and(Chain::reads_sent_head)
    }

    /// The plugins' say in a piece of the body.
    pub(super) fn body_filter(&mut self, bytes: &mut Vec<u8>, last: bool) {
        let env = self.hall.env(&self.view);
        let mut chunk = crate::exchange::Chunk { bytes, last };
        self.view.global.body_filter(&mut self.ex, env, &mut chunk);
        if let Some(chain) = chain_of(&self.view, self.route, self.merged.as_ref()) {
            chain.body_filter(&mut self.ex, env, &mut chunk);
        }
    }

    /// What there was of a body is told by the exchange.
    fn note_upload(&mut self) {
        self.ex.bytes_in += self.upload.bytes();
        match self.upload.take_kept() {
            Some((kept, true)) => self.ex.request.body = Body::Held(kept),
            Some((kept, false)) => self.ex.request.body_beginning = kept,
            None => {}
        }
    }

    /// It is over: metrics, logs.
    fn log(&mut self) {
        if self.ex.timing.finished == Moment::ZERO {
            self.ex.timing.finished = self.hall.core.now();
        }
        log(self.hall, &self.view, chain_of(&self.view, self.route, self.merged.as_ref()), &self.ex);
    }

    /// An answer of ours, through the plugins' filters, to the client.
    pub(super) async fn answer(&mut self, reply: Reply) -> After {
        respond::place(&mut self.ex, reply);
        grpc_status::translate(&mut self.ex);
        self.header_filter();
        self.deliver_own().await
    }

    /// The upstream that a plugin chose, else the target of the matched route.
    pub(super) fn target(&self) -> Target {
        match self.ex.upstream_at {
            Some(at) => Target::Upstream(at),
            None => self.matched().map_or(Target::Nothing, |route| route.target),
        }
    }

    /// The matched route.
    pub(super) fn matched(&self) -> Option<&Route> {
        self.route.map(|at| &self.view.routes[at])
    }

    /// Whether the body must be there first; not where it `may_wait` for none.
    pub(super) fn find_route(&mut self, may_wait: bool) -> bool {
        let ex = &*self.ex;
        let query = query_of(&ex.request);
        let routes = &self.view.routes;
        let mut waits = false;
        let found = self.view.router.find(&query, |at, _| {
            waits = may_wait && routes[*at].waits_for_body(ex.client.ip);
            waits || routes[*at].takes(ex.client.ip, ex)
        });
        if let Some(found) = found.filter(|_| !waits) {
            enter_route(&mut self.ex, routes, &found);
            self.route = Some(*found.value);
        }
        waits
    }
}

/// Shows a request that is over to plugins and the access log.
pub(super) fn log(hall: &Hall, view: &View, chain: Option<&Chain>, ex: &Exchange) {
    let env: Env<'_> = hall.env(view);
    view.global
        .log(ex, env, |plugin| plugin.prefers_route() && chain.is_some_and(|chain| chain.has(plugin.name())));
    if let Some(chain) = chain {
        chain.log(ex, env, |_| false);
    }
    access_log::hand_over(hall, view, ex);
}

/// The chain a request goes by: the route's, or that with its consumer's plugins.
pub(super) fn chain_of<'v>(
    view: &'v View,
    route: Option<u32>,
    merged: Option<&'v Rc<Chain>>,
) -> Option<&'v Chain> {
    merged.map(Rc::as_ref).or_else(|| route.map(|at| &view.routes[at].chain))
}
