//! From an upstream to a connection with one of its nodes; another is tried where one can not be reached.

use std::net::SocketAddr;

use super::{Pass, Refusal};
use crate::balance::TriedSet;
use crate::edge::pick::Call;
use crate::edge::respond::Fault;
use crate::edge::{health, pick};
use crate::exchange::{Attempt, Exchange};
use crate::proto::proxy_protocol;
use crate::runtime::socket::Socket;
use crate::snapshot::{Node, PassHost, Upstream};

/// What a connection counts as where statuses tell of a node's health.
const CONNECTED: u16 = 200;

impl Pass<'_> {
    /// Connects to a node: nothing was sent, so every other may be tried, as far as the upstream and the budget of retries
    /// allow.
    pub(super) async fn connect(&mut self, upstream: &Upstream) -> Result<(Socket, usize), Refusal> {
        let core = &self.hall.core;
        let limits = &core.limits;
        let started = core.now();
        let end = (!upstream.retry_timeout.is_zero()).then(|| started.plus(upstream.retry_timeout));
        let mut retries_left = upstream.retries.unwrap_or_else(|| upstream.other_nodes.min(limits.retries));
        self.hall.retries.earn(limits.retry_budget_percent);
        let mut tried = TriedSet::new();
        let mut first = Vec::new();
        if let Some(version) = upstream.proxy_protocol {
            let client = SocketAddr::new(self.ex.client.ip, self.ex.client.port);
            let called = self.ex.stream.called.unwrap_or(self.ex.client.local);
            proxy_protocol::write(version, client, called, &mut first);
        }
        let mut last = Fault::NoNodes;
        loop {
            let Some(node) = pick::node(self.hall, upstream, &tried, &self.ex, started) else {
                return Err(last.into());
            };
            let began = core.now();
            self.ex.attempts.push(Attempt::at(upstream.nodes[node].address));
            let name = name_for(upstream, &upstream.nodes[node], &self.ex);
            let within =
                end.map_or(upstream.timeouts.connect, |end| upstream.timeouts.connect.min(end.since(began)));
            let call = Call { name, first: &first, tls: upstream.tls.as_ref(), within };
            let reached = pick::reach(self.hall, upstream, node, call).await;
            let now = core.now();
            let attempt = self.ex.attempts.last_mut().expect("one was noted when it began");
            attempt.total = now.since(began);
            match reached {
                Ok((socket, _)) => {
                    (attempt.connect, attempt.header) = (attempt.total, attempt.total);
                    let told = Attempt { status: CONNECTED, ..*attempt };
                    health::note_answer(self.hall, upstream, node, Some(&told), now);
                    return Ok((socket, node));
                }
                Err(unreached) => {
                    last = unreached.into();
                    attempt.status = last.status();
                }
            }
            health::note_fault(self.hall, upstream, node, last);
            pick::note_failure(self.hall, upstream, node, now);
            if retries_left == 0 || !self.hall.retries.spend(now, limits.retry_budget_per_second) {
                return Err(last.into());
            }
            if end.is_some_and(|end| now >= end) {
                return Err(Fault::RetryTimeout.into());
            }
            retries_left -= 1;
            tried.insert(node);
            core.stats.retries.add(1);
        }
    }
}

/// The name that a node goes by over TLS: the one that the client asks for, unless the upstream says another.
fn name_for<'a>(upstream: &'a Upstream, node: &'a Node, ex: &'a Exchange) -> &'a [u8] {
    let asked = match &ex.security {
        Some(security) => security.server_name.as_deref().unwrap_or_default(),
        None => &ex.stream.server_name,
    };
    match &upstream.pass_host {
        PassHost::Rewrite(host) => host,
        PassHost::Pass if !asked.is_empty() => asked.as_bytes(),
        PassHost::Pass | PassHost::Node => node.name.as_bytes(),
    }
}
