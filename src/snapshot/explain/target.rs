//! Where a request that goes on is sent: the upstream, its nodes, and what the node would get.

use std::time::Duration;

use serde_json::{Value, json};

use super::Grounds;
use crate::base::clock;
use crate::exchange::Exchange;
use crate::model::upstream::NodeSpec;
use crate::model::{self, ConfigError};
use crate::snapshot::{Fallback, Goal, Node, PassHost, Target, Upstream, host_for};

/// Nodes that are told of.
const NODES_MAX: usize = 100;

/// The upstream, and what becomes of the request.
pub(super) fn tell(grounds: &Grounds<'_>, ex: &Exchange, found: Option<u32>) -> (Value, Value) {
    let route = found.map(|at| &grounds.snapshot.routes[at]);
    let target = match ex.upstream_at {
        Some(at) => Target::Upstream(at),
        None => route.map_or(Target::Nothing, |route| route.target),
    };
    let refused = |status: u16, reason: &str| json!({"kind": "answered", "by": "gateway", "status": status, "reason": reason});
    let at = match target {
        Target::Upstream(at) => at,
        Target::Nothing => return (Value::Null, refused(503, "no_upstream")),
        Target::Vanished => return (Value::Null, refused(502, "upstream_vanished")),
    };
    let upstream = &grounds.snapshot.upstreams[at];
    let specs = specs(grounds, &upstream.name);
    let nodes: Vec<Value> =
        upstream.nodes.iter().take(NODES_MAX).map(|node| of_node(node, &specs, upstream)).collect();
    let own = route.and_then(|route| route.timeouts);
    let timeouts = own.unwrap_or(upstream.timeouts);
    let retries = upstream.retries.unwrap_or_else(|| upstream.other_nodes.min(grounds.limits.retries));
    let sticky = upstream.additions.sticky.as_ref().map(|sticky| {
        let node = sticky.node_of(ex).and_then(|node| upstream.nodes.get(node));
        json!({"cookie": sticky.cookie(), "node": node.map(|node| node.address.to_string())})
    });
    let told = json!({
        "name": &*upstream.name,
        "type": upstream.kind.word(),
        "nodes": nodes,
        "nodes_left_off": upstream.nodes.len().saturating_sub(NODES_MAX),
        "retries": retries,
        "retries_from": if upstream.retries.is_some() { "upstream" } else { "default" },
        "retry_timeout": (!upstream.retry_timeout.is_zero()).then(|| seconds(upstream.retry_timeout)),
        "timeout": {
            "connect": seconds(timeouts.connect),
            "send": seconds(timeouts.send),
            "read": seconds(timeouts.read),
            "from": if own.is_some() { "route" } else { "upstream" },
        },
        "sticky": sticky,
        "fallback": upstream.additions.fallback.as_ref().map(|fallback| of_fallback(grounds, fallback)),
        "concurrency": upstream.additions.throttle.as_ref().map(|throttle| {
            let sight = throttle.sight();
            json!({"limit": sight.limit, "under_way": sight.under_way, "low_priority": throttle.is_low(ex)})
        }),
        "hedge": upstream.additions.hedge.as_ref().map(|hedge| json!({
            "delay": seconds(hedge.delay), "percentile": hedge.percentile, "budget_percent": hedge.budget_percent,
        })),
        "deadlines": upstream.additions.deadlines.as_ref().map(|deadlines| json!({
            "total": deadlines.total.map(seconds),
            "per_try": deadlines.per_try.map(seconds),
            "from_client": deadlines.from_client,
        })),
    });
    let outcome =
        if upstream.serves_requests() { forwarded(grounds, ex, upstream) } else { refused(503, "no_nodes") };
    (told, outcome)
}

/// What a node gets.
fn forwarded(grounds: &Grounds<'_>, ex: &Exchange, upstream: &Upstream) -> Value {
    let request = &ex.request;
    let mut target = Vec::new();
    request.write_forward_target(&mut target);
    let host = match (&upstream.pass_host, upstream.nodes.first()) {
        // One for each.
        (PassHost::Node, _) if upstream.nodes.len() > 1 => Value::Null,
        (_, Some(first)) => grounds.veil.plain(host_for(upstream, first, request)).into(),
        (_, None) => Value::Null,
    };
    json!({
        "kind": "forwarded",
        "to": &*upstream.name,
        "method": request.forward_method().text(),
        "target": grounds.veil.target(&target),
        "host": host,
    })
}

/// Nodes as they are written where the upstream is.
fn specs(grounds: &Grounds<'_>, name: &str) -> Vec<NodeSpec> {
    let (object, field) = name.split_once('#').unwrap_or((name, ""));
    let Some(object) = grounds.archive.object(object) else { return Vec::new() };
    let pointer = if field.is_empty() { String::new() } else { ConfigError::at(field, "").pointer() };
    let written = object.pointer(&pointer).cloned().unwrap_or_default();
    let upstream: Option<model::Upstream> = serde_json::from_value(written).ok();
    upstream.and_then(|upstream| upstream.nodes().ok()).unwrap_or_default()
}

/// A node with what is written of it: an address is one of a name's, or itself.
fn of_node(node: &Node, specs: &[NodeSpec], upstream: &Upstream) -> Value {
    let cell = node.cell.as_ref().filter(|_| upstream.checks.is_some());
    let health = cell.map(|cell| cell.record().health.word());
    let cell = node.cell.as_ref().filter(|_| upstream.additions.outliers.is_some());
    let is_ejected = cell.map(|cell| cell.outlier.is_ejected(clock::now()));
    let port = node.address.port();
    let ip = node.address.host().to_string();
    let has_port = |spec: &&NodeSpec| node.address.is_unix() || spec.port.unwrap_or(80) == port;
    let host = String::from_utf8_lossy(&node.host);
    let is_named =
        |spec: &&NodeSpec| host.starts_with(&spec.host) || host.starts_with(&format!("[{}]", spec.host));
    let mut with_port = specs.iter().filter(has_port);
    let spec = with_port.clone().find(|spec| spec.host == ip).or_else(|| with_port.find(is_named));
    json!({
        "address": node.address.to_string(),
        "host": spec.map(|spec| spec.host.as_str()),
        "weight": spec.map(|spec| spec.weight),
        "priority": spec.map(|spec| spec.priority),
        "health": health,
        "ejected": is_ejected,
    })
}

/// What serves when the nodes do not.
fn of_fallback(grounds: &Grounds<'_>, fallback: &Fallback) -> Value {
    match &fallback.goal {
        Goal::Answer(reply) => json!({"status": reply.status}),
        Goal::Upstream(at) => {
            let name = grounds.snapshot.upstreams.get(*at).map(|upstream| &*upstream.name);
            json!({"to": name})
        }
        Goal::Missing => json!({"to": null}),
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
