//! A route and a consumer, compiled, and what they mean for a request: one word for cores and for explanations.

use std::net::IpAddr;
use std::time::Duration;

use super::{Chain, Node, PassHost, Timeouts, Upstream};
use crate::base::cidr::CidrSet;
use crate::base::slots::Slots;
use crate::exchange::{ConsumerLabels, Exchange, Request, RouteLabels};
use crate::expr::{Rule, Vars};
use crate::plugin::{Hooks as _, Mount, PluginChain};
use crate::plugins::AnyPlugin;
use crate::proto::head::HeaderId;
use crate::router::{Match, Query};

/// Where a route sends its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The place of an upstream in the snapshot.
    Upstream(u32),
    /// Nowhere: a plugin answers, or nobody does.
    Nothing,
    /// To an upstream that is not there.
    Vanished,
}

/// A route, with what it takes from its service and plugin config.
#[derive(Debug)]
pub struct Route {
    pub labels: RouteLabels,
    /// Clients it is for; `None` is all.
    pub clients: Option<CidrSet>,
    /// Requests it is for, beyond path, host and method.
    pub rule: Option<Rule>,
    /// Whether the rule asks what the body says.
    pub reads_body: bool,
    pub chain: Chain,
    pub target: Target,
    /// Wins over the upstream's.
    pub timeouts: Option<Timeouts>,
    pub websocket: bool,
    pub websockets: WebSockets,
    /// Answer when the route can not work because what it refers to is gone.
    pub broken: Option<u16>,
}

/// What holds for the WebSockets of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebSockets {
    /// They are told to end when the route is no longer as it was.
    pub end_with_it: bool,
    /// How long they may be silent, where that is said: `Some(None)` is for ever.
    pub silence: Option<Option<Duration>>,
}

/// What of a route keeps a request away that has the right path, host and method.
#[derive(Clone, Copy, Debug)]
pub enum Bar<'r> {
    /// The client is none of those it is for.
    Clients(&'r CidrSet),
    Rule(&'r Rule),
}

impl Route {
    /// The first thing that keeps a request away; the only place that knows what else a route asks for than the router.
    pub fn bar<V: Vars + ?Sized>(&self, client: IpAddr, vars: &V) -> Option<Bar<'_>> {
        if let Some(clients) = self.clients.as_ref().filter(|clients| !clients.contains(client)) {
            return Some(Bar::Clients(clients));
        }
        self.rule.as_ref().filter(|rule| !rule.holds(vars)).map(Bar::Rule)
    }

    /// Whether the body must be there before it can be said what keeps a request away.
    pub fn waits_for_body(&self, client: IpAddr) -> bool {
        self.reads_body && self.clients.as_ref().is_none_or(|clients| clients.contains(client))
    }

    /// Whether nothing keeps a request away.
    pub fn takes<V: Vars + ?Sized>(&self, client: IpAddr, vars: &V) -> bool {
        self.bar(client, vars).is_none()
    }
}

/// A consumer's part in chains: its group's plugins with its own over them.
#[derive(Debug)]
pub struct Consumer {
    pub labels: ConsumerLabels,
    pub mounts: Vec<Mount<AnyPlugin>>,
    /// Plugins that are not run for it, though a route has them.
    pub disabled: Vec<&'static str>,
}

impl Consumer {
    /// Whether chains are the same with it as without.
    pub const fn changes_nothing(&self) -> bool {
        self.mounts.is_empty() && self.disabled.is_empty()
    }

    /// A route's chain with the consumer's plugins over it.
    pub fn over(&self, route: &Chain) -> Chain {
        let Self { mounts, disabled, .. } = self;
        let replaced =
            |name: &str| mounts.iter().any(|new| new.plugin.name() == name) || disabled.contains(&name);
        let kept = route.mounts().iter().filter(|own| !replaced(own.plugin.name()));
        PluginChain::new(kept.chain(mounts).cloned().collect())
    }
}

/// What the router is asked about a request.
pub fn query_of(request: &Request) -> Query<'_> {
    Query {
        path: &request.path,
        host: request.host.as_bytes(),
        raw_host: request.headers.get_id(HeaderId::Host).unwrap_or(b""),
        method_bit: request.method().bit(),
    }
}

/// The `Host` that a node gets.
pub fn host_for<'a>(upstream: &'a Upstream, node: &'a Node, request: &'a Request) -> &'a [u8] {
    match &upstream.pass_host {
        PassHost::Node => &node.host,
        PassHost::Rewrite(host) => host,
        PassHost::Pass if !request.forward.host.is_empty() => &request.forward.host,
        PassHost::Pass => match request.headers.get_id(HeaderId::Host) {
            Some(host) => host,
            None if !request.host.is_empty() => request.host.as_bytes(),
            // An HTTP/1.0 client that names no host; an HTTP/1.1 origin must get one.
            None => &node.host,
        },
    }
}

/// Notes in an exchange by which route it goes.
pub fn enter_route(ex: &mut Exchange, routes: &Slots<Route>, found: &Match<'_, u32>) {
    let params = found.params().map(|(name, range)| (name.to_owned(), range.start as u32..range.end as u32));
    ex.request.params.extend(params);
    ex.route.copy_from(&routes[*found.value].labels);
    ex.route.set_matched(found.pattern, found.host.unwrap_or(""));
}

/// Whether a merged chain has the plugin from the consumer: such ones missed the first `REWRITE`.
pub fn is_new(route: &Chain, plugin: &AnyPlugin) -> bool {
    !plugin.is_auth() && !route.has(plugin.name())
}

/// Tells the upstream who the request comes from.
pub fn show_consumer(ex: &mut Exchange) {
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
