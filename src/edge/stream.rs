//! A connection that is passed on as it is, from its first byte to its log line: what comes before its bytes, the route, the
//! gates of plugins, a node, the relay.

mod dial;
mod preread;

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use super::accept::{Place, catch};
use super::greet::{self, Follows, Greeted};
use super::h1::Connection;
use super::relay::{self, Patience, Side};
use super::respond::Fault;
use super::vouch::{self, Heard};
use super::{Hall, View, access_log, health};
use crate::exchange::{Exchange, Source};
use crate::link::health::{Cell, Visit};
use crate::plugin::{Phase, Verdict};
use crate::runtime::socket::Socket;
use crate::snapshot::{StreamQuery, StreamRoute, Target, Upstream};

/// Serves a stream. A panic ends it alone.
// Not an `async fn`: that would hold its arguments twice, as given and as used, for as long as the stream lives.
#[allow(clippy::manual_async_fn)]
pub(super) fn attend(
    hall: Rc<Hall>,
    connection: Box<Connection>,
    listener: SocketAddr,
) -> impl Future<Output = ()> {
    async move {
        let peer = connection.client.peer;
        let Some(_place) = Place::take(&hall, peer) else {
            hall.core.stats.connections_refused.add(1);
            return;
        };
        let stats = &hall.core.stats;
        stats.connections_active.add(1);
        stats.streams.add(1);
        stats.streams_active.add(1);
        catch(&hall, peer, pin!(serve(&hall, connection, listener))).await;
        stats.streams_active.sub(1);
        stats.connections_active.sub(1);
    }
}

/// Why a stream is not passed on: a status of HTTP, as nginx tells it of streams, and a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    status: u16,
    word: &'static str,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self { status: fault.status(), word: fault.word() }
    }
}

/// One stream under way.
pub(super) struct Pass<'a> {
    pub(super) hall: &'a Hall,
    /// With the client; of datagrams there is none.
    pub(super) connection: Option<Box<Connection>>,
    pub(super) ex: Box<Exchange>,
}

/// Where a stream goes.
struct Way {
    node: Socket,
    patience: Patience,
    _visit: Option<Visit<Arc<Cell>>>,
}

/// Serves a stream to its end. What comes before its bytes is apart: it takes much more memory, and not for long.
// Not an `async fn`: as above.
#[allow(clippy::manual_async_fn)]
fn serve(hall: &Hall, connection: Box<Connection>, listener: SocketAddr) -> impl Future<Output = ()> {
    async move {
        let Some(mut pass) = Box::pin(meet(hall, connection, listener)).await else { return };
        let view = hall.view();
        let (route, found) = Box::pin(pass.find_way(&view)).await;
        let passed = match found {
            Ok(way) => {
                pass.relay(way).await;
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        let ex = finish(hall, &view, route, passed, pass.ex);
        // One that was passed on has no more memory than it took, and is no good for the stock.
        if passed.is_err() {
            hall.core.give_back(ex);
        }
    }
}

/// What there is to know of a client before it has said anything for the node. `None`: nothing comes of it.
async fn meet(hall: &Hall, mut connection: Box<Connection>, listener: SocketAddr) -> Option<Pass<'_>> {
    let core = &hall.core;
    let received_at = core.now();
    let Heard { called, behind: early } = begin(hall, &mut connection).await?;
    let mut ex = core.exchange();
    ex.timing.received = received_at;
    ex.timing.received_at = core.wall(received_at);
    ex.client = connection.client;
    ex.security.clone_from(&connection.security);
    ex.core = core.id;
    ex.stream.protocol = if connection.security.is_some() { "tls" } else { "tcp" };
    ex.stream.listener = Some(listener);
    ex.stream.called = called;
    ex.stream.received = early;
    Some(Pass { hall, connection: Some(connection), ex })
}

/// Shows a stream that is over to plugins and the log. The exchange, to be given back.
pub(super) fn finish(
    hall: &Hall,
    view: &View,
    route: Option<&StreamRoute>,
    passed: Result<(), Refusal>,
    mut ex: Box<Exchange>,
) -> Box<Exchange> {
    let core = &hall.core;
    if let Err(refusal) = passed {
        ex.response.status = refusal.status;
        ex.bytes_in = ex.bytes_in.max(ex.stream.received.len() as u64);
        if !matches!(ex.response.source, Source::Plugin(_)) {
            ex.response.source = Source::Gateway;
        }
        ex.reason = refusal.word;
    }
    ex.timing.finished = core.now();
    if let Some(route) = route {
        route.chain.log(&ex, hall.env(view), |_| false);
    }
    access_log::hand_over(hall, view, &ex);
    core.buffers.give_back(std::mem::take(&mut ex.stream.received));
    ex
}

/// Hears whose connection it is, and agrees on TLS, as far as either is spoken here. `None`: nothing comes of it.
async fn begin(hall: &Hall, connection: &mut Connection) -> Option<Heard> {
    let core = &hall.core;
    let spoken = std::mem::take(&mut connection.awaits);
    let mut heard = Heard { called: None, behind: Vec::new() };
    if spoken.is_proxied {
        heard = vouch::hear(hall, connection, spoken.is_tls).await?;
    }
    if spoken.is_tls {
        match greet::greet(hall, connection, std::mem::take(&mut heard.behind), Follows::Stream).await {
            Greeted::Agreed => {}
            Greeted::InClear(_) | Greeted::Gone => return None,
        }
    }
    connection.socket.watch().disarm();
    if heard.behind.capacity() == 0 {
        heard.behind = core.buffers.small();
    }
    Some(heard)
}

impl Pass<'_> {
    /// The route of the stream, once its name is known where that may decide.
    pub(super) async fn route<'v>(&mut self, view: &'v View) -> Result<&'v StreamRoute, Refusal> {
        let fallback = view.house.fallback_sni.as_deref();
        if let Some(security) = &self.ex.security
            && !view.certificates.admits_stream(security, fallback, self.ex.timing.received_at)
        {
            return Err(Refusal { status: 403, word: "client_certificate" });
        }
        let may_tell = self.connection.is_some() && self.ex.security.is_none();
        if may_tell && view.streams.asks_for_name(&self.query()) {
            self.learn_name().await?;
        }
        let found = view.streams.find(&self.query());
        let route = found.ok_or(Refusal { status: 404, word: "route_not_found" })?;
        self.ex.route.copy_from(&route.labels);
        Ok(route)
    }

    fn query(&self) -> StreamQuery<'_> {
        let ex = &self.ex;
        let agreed = ex.security.as_ref().map(|security| security.server_name.as_deref().unwrap_or_default());
        StreamQuery {
            server_name: agreed.unwrap_or(&ex.stream.server_name),
            port: ex.client.local.port(),
            server: ex.client.local.ip().to_canonical(),
            client: ex.client.ip,
        }
    }

    /// The route, if there is one, and the connection to a node.
    async fn find_way<'v>(&mut self, view: &'v View) -> (Option<&'v StreamRoute>, Result<Way, Refusal>) {
        match self.route(view).await {
            Ok(route) => (Some(route), self.reach(view, route).await),
            Err(refusal) => (None, Err(refusal)),
        }
    }

    async fn reach(&mut self, view: &View, route: &StreamRoute) -> Result<Way, Refusal> {
        let upstream = self.upstream(view, route).await?;
        if !upstream.scheme.is_for_streams() {
            return Err(Fault::NoNodes.into());
        }
        let (node, at) = self.connect(upstream).await?;
        let idle = self.hall.core.limits.stream_idle;
        let patience = if upstream.has_own_timeouts {
            let own = &upstream.timeouts;
            Patience { sending: Some(own.send), receiving: Some(own.read) }
        } else {
            Patience { sending: idle, receiving: idle }
        };
        Ok(Way { node, patience, _visit: health::enter_for_long(upstream, at) })
    }

    /// Where the stream goes, if its plugins let it.
    pub(super) async fn upstream<'v>(
        &mut self,
        view: &'v View,
        route: &StreamRoute,
    ) -> Result<&'v Upstream, Refusal> {
        self.ask_plugins(view, route).await?;
        if route.is_broken {
            return Err(Refusal { status: 503, word: "route_broken" });
        }
        let target = self.ex.upstream_at.map_or(route.target, Target::Upstream);
        match target {
            Target::Upstream(at) => Ok(&view.upstreams[at]),
            Target::Nothing => Err(Fault::NoUpstream.into()),
            Target::Vanished => Err(Fault::UpstreamVanished.into()),
        }
    }

    /// The gates, in their order; one that needs to see more is asked again when more has come.
    async fn ask_plugins(&mut self, view: &View, route: &StreamRoute) -> Result<(), Refusal> {
        for mount in route.chain.at(Phase::Preread) {
            loop {
                self.ex.stream.wants_more = false;
                let verdict = mount.gate(Phase::Preread, &mut self.ex, self.hall.env(view)).await;
                if let Verdict::Reply(reply) = verdict {
                    use crate::plugin::Hooks as _;
                    self.ex.response.source = Source::Plugin(mount.plugin.name());
                    return Err(Refusal { status: reply.status, word: "plugin" });
                }
                if !self.ex.stream.wants_more {
                    break;
                }
                if !self.receive_more().await? {
                    return Err(Refusal { status: 400, word: "preread_ended" });
                }
            }
        }
        Ok(())
    }

    async fn relay(&mut self, mut way: Way) {
        let core = &self.hall.core;
        let Some(connection) = &mut self.connection else { return };
        let began = core.now();
        let early = std::mem::take(&mut self.ex.stream.received);
        self.ex.compact(|buffer| core.buffers.give_back(buffer));
        let (client, node) = (&mut connection.socket, &mut way.node);
        let passed = relay::relay(core, client, node, early, way.patience, None).await;
        let ex = &mut self.ex;
        ex.bytes_in += passed.up;
        ex.bytes_out += passed.down;
        ex.response.source = Source::Upstream;
        (ex.response.status, ex.reason) = match passed.broken {
            Some(Side::Client) => (499, "client_reset"),
            Some(Side::Node) => (502, "upstream_reset"),
            None if client.watch().fired() || node.watch().fired() => (502, "idle_timeout"),
            None => (200, ""),
        };
        ex.timing.upstream = core.now().since(began);
    }
}
