//! The life of a request. Every other file in `edge` is the detail of one line here.

use std::rc::Rc;

use super::admit::Refusal;
use super::h1::Connection;
use super::proxy::upload_fault;
use super::upload::Upload;
use super::{Hall, MERGED_MAX, View, access_log, respond};
use crate::exchange::{Body, Exchange, Reply};
use crate::expr::Rule;
use crate::plugin::{Env, Hooks as _, Phase, PluginChain, Verdict};
use crate::proto::head::HeaderId;
use crate::router::Query;
use crate::snapshot::{AnyPlugin, Chain, Consumer, Route, Target};

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
}

/// Goes on with `Next`, returns anything else.
macro_rules! pass {
    ($verdict:expr) => {
        match $verdict {
            Verdict::Next => {}
            reply @ Verdict::Reply(_) => return reply,
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
        }
    }

    /// From a readable request to its log line.
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
        self.log();
        after
    }

    /// Answers a request that can not be read. No plugin but global ones sees it.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> After {
        self.refused = true;
        let reply = respond::to_refusal(&mut self.ex, refusal);
        self.answer(reply).await;
        self.log();
        After::Linger
    }

    /// Route, then every gate in APISIX's order. The only place that knows this order.
    async fn decide(&mut self) -> Verdict {
        self.find_route();
        pass!(self.hold_body().await);
        let env = self.hall.env(&self.view);
        let (global, ex) = (&self.view.global, &mut *self.ex);
        let Some(route) = self.route.map(|at| &self.view.routes[at as usize]) else {
            pass!(global.gate(Phase::Rewrite, ex, env).await);
            pass!(global.gate(Phase::Access, ex, env).await);
            return Verdict::Reply(respond::no_route(ex));
        };
        if let Some(reply) = respond::to_broken(ex, route) {
            return Verdict::Reply(reply);
        }
        pass!(global.gate(Phase::Rewrite, ex, env).await);
        pass!(route.chain.gate(Phase::Rewrite, ex, env).await);
        self.merged = merge_consumer(self.hall, &self.view, self.route, ex);
        show_consumer(ex);
        if let Some(merged) = &self.merged {
            let new = |plugin: &_| is_new(&route.chain, plugin);
            pass!(merged.gate_some(Phase::Rewrite, ex, env, new).await);
        }
        let chain = self.merged.as_deref().unwrap_or(&route.chain);
        pass!(global.gate(Phase::Access, ex, env).await);
        chain.gate(Phase::Access, ex, env).await
    }

    /// The plugins `BEFORE_PROXY`; once a try.
    pub(super) async fn before_proxy(&mut self) -> Verdict {
        let env = self.hall.env(&self.view);
        pass!(self.view.global.gate(Phase::BeforeProxy, &mut self.ex, env).await);
        match chain_of(&self.view, self.route, self.merged.as_ref()) {
            Some(chain) => chain.gate(Phase::BeforeProxy, &mut self.ex, env).await,
            None => Verdict::Next,
        }
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

    /// The plugins' say in a piece of the body.
    pub(super) fn body_filter(&mut self, bytes: &mut Vec<u8>, last: bool) {
        let env = self.hall.env(&self.view);
        let mut chunk = crate::exchange::Chunk { bytes, last };
        self.view.global.body_filter(&mut self.ex, env, &mut chunk);
        if let Some(chain) = chain_of(&self.view, self.route, self.merged.as_ref()) {
            chain.body_filter(&mut self.ex, env, &mut chunk);
        }
    }

    /// It is over: metrics, logs.
    fn log(&mut self) {
        self.ex.timing.finished = self.hall.core.now();
        self.ex.bytes_in += self.upload.bytes();
        let env: Env<'_> = self.hall.env(&self.view);
        let chain = chain_of(&self.view, self.route, self.merged.as_ref());
        self.view.global.log(&self.ex, env, |plugin| {
            plugin.prefers_route() && chain.is_some_and(|chain| chain.has(plugin.name()))
        });
        if let Some(chain) = chain {
            chain.log(&self.ex, env, |_| false);
        }
        access_log::hand_over(self.hall, &self.view, &self.ex);
    }

    /// The target of the matched route.
    pub(super) fn target(&self) -> Target {
        self.matched().map_or(Target::Nothing, |route| route.target)
    }

    /// The matched route.
    pub(super) fn matched(&self) -> Option<&Route> {
        self.route.map(|at| &self.view.routes[at as usize])
    }

    fn find_route(&mut self) -> Option<u32> {
        let ex = &*self.ex;
        let query = Query {
            path: &ex.request.path,
            host: ex.request.host.as_bytes(),
            raw_host: ex.request.headers.get_id(HeaderId::Host).unwrap_or(b""),
            method_bit: ex.request.method().bit(),
        };
        let routes = &self.view.routes;
        let found = self.view.router.find(&query, |at, _| {
            let route = &routes[*at as usize];
            route.clients.as_ref().is_none_or(|clients| clients.contains(ex.client.ip))
                && route.rule.as_ref().is_none_or(|rule: &Rule| rule.holds(ex))
        })?;
        let at = *found.value;
        let params: Vec<_> = found
            .params()
            .map(|(name, range)| (name.to_owned(), range.start as u32..range.end as u32))
            .collect();
        self.ex.request.params = params;
        self.ex.route.copy_from(&routes[at as usize].labels);
        self.ex.route.set_matched(found.pattern, found.host.unwrap_or(""));
        self.route = Some(at);
        Some(at)
    }
}

/// The chain a request goes by: the route's, or that with its consumer's plugins.
pub(super) fn chain_of<'v>(
    view: &'v View,
    route: Option<u32>,
    merged: Option<&'v Rc<Chain>>,
) -> Option<&'v Chain> {
    merged.map(Rc::as_ref).or_else(|| route.map(|at| &view.routes[at as usize].chain))
}

/// Whether a merged chain has the plugin from the consumer: such ones missed the first `REWRITE`.
fn is_new(route: &Chain, plugin: &AnyPlugin) -> bool {
    !plugin.is_auth() && !route.has(plugin.name())
}

/// The route's chain with the consumer's plugins over it, if the consumer has any.
fn merge_consumer(hall: &Hall, view: &View, route: Option<u32>, ex: &Exchange) -> Option<Rc<Chain>> {
    let (at, consumer) = (route?, ex.consumer_at?);
    let Consumer { mounts, disabled, .. } = view.consumers.get(consumer as usize)?;
    if mounts.is_empty() && disabled.is_empty() {
        return None;
    }
    let mut known = hall.merged.borrow_mut();
    if let Some(chain) = known.get(&(at, consumer)) {
        return Some(Rc::clone(chain));
    }
    if known.len() >= MERGED_MAX {
        known.clear();
    }
    let route = view.routes[at as usize].chain.mounts();
    let replaced =
        |name: &str| mounts.iter().any(|new| new.plugin.name() == name) || disabled.contains(&name);
    let kept = route.iter().filter(|own| !replaced(own.plugin.name()));
    let chain = Rc::new(PluginChain::new(kept.chain(mounts).cloned().collect()));
    // A request that outlives its snapshot must not leave a chain of it behind.
    if hall.view.borrow().generation == view.generation {
        known.insert((at, consumer), Rc::clone(&chain));
    }
    Some(chain)
}

/// Tells the upstream who the request comes from.
fn show_consumer(ex: &mut Exchange) {
    if ex.consumer_at.is_none() {
        return;
    }
    let headers = &mut ex.request.headers;
    for (id, value) in [
        (HeaderId::XConsumerUsername, ex.consumer.name()),
        (HeaderId::XCredentialIdentifier, ex.consumer.credential_id()),
        (HeaderId::XConsumerCustomId, ex.consumer.custom_id()),
    ] {
        if value.is_empty() {
            headers.remove_id(id);
        } else {
            headers.set_id(id, value.as_bytes());
        }
    }
}

impl Run<'_> {
    /// Receives the whole request body first, if a plugin of the route wants to see it.
    async fn hold_body(&mut self) -> Verdict {
        let route = self.matched().and_then(|route| route.chain.request_body_max());
        let Some(wish) = self.view.global.request_body_max().max(route) else { return Verdict::Next };
        let bytes_max = wish.min(self.hall.core.limits.held_body_bytes);
        if self.upload.is_done() {
            return Verdict::Next;
        }
        let core = &self.hall.core;
        let socket = &mut self.connection.socket;
        let watch = Rc::clone(socket.watch());
        if self.upload.awaits_continue() {
            let mut out = core.buffers.small();
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            let (_, out) = socket.writer.send(out, 0).await;
            core.buffers.give_back(out);
            self.upload.continued();
        }
        let max = core.limits.body_bytes_max;
        self.upload.limit(if max == 0 { bytes_max as u64 } else { max.min(bytes_max as u64) });
        let received = self.ex.request.headers.received();
        match self.upload.hold(core, received, &mut socket.reader, &watch).await {
            Ok(body) => {
                self.ex.request.body = Body::Held(body);
                Verdict::Next
            }
            Err(fault) => {
                let fault = upload_fault(&fault, watch.fired());
                Verdict::Reply(respond::to_fault(&mut self.ex, fault))
            }
        }
    }

    /// An answer of ours, through the plugins' filters, to the client.
    pub(super) async fn answer(&mut self, reply: Reply) -> After {
        respond::place(&mut self.ex, reply);
        self.header_filter();
        self.deliver_own().await
    }
}
