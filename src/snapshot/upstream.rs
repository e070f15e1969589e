//! An upstream, compiled: nodes with addresses, and how to talk to them.

use std::net::SocketAddr;
use std::time::Duration;

use super::names::Names;
use crate::balance::{Balancer, RoundRobin, Weighted};
use crate::model::{self, ConfigError};
use crate::runtime::LocalId;
use crate::runtime::pool::Keep;

/// What `Host` a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's, with its port unless it is the scheme's own.
    Node,
    /// This.
    Rewrite(Box<[u8]>),
}

/// Deadlines of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Between two writes.
    pub send: Duration,
    /// Between two reads.
    pub read: Duration,
}

/// nginx's, and so APISIX's.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: TIMEOUT, send: TIMEOUT, read: TIMEOUT }
    }
}

/// One address.
#[derive(Clone, Debug)]
pub struct Node {
    pub address: SocketAddr,
    /// `Host` for `pass_host: node`.
    pub host: Box<[u8]>,
}

/// An upstream.
#[derive(Debug)]
pub struct Upstream {
    /// As in `upstreams/1` or `routes/7#upstream`: for logs.
    pub name: Box<str>,
    pub nodes: Vec<Node>,
    /// A balancer at its start; each core runs a copy of its own.
    pub balancer: Balancer,
    /// Where a core keeps that copy.
    pub turn: LocalId,
    pub pass_host: PassHost,
    pub timeouts: Timeouts,
    /// Further tries after the first, if the user says so,
    pub retries: Option<u32>,
    /// else as many as there are other nodes, within the process's limit.
    pub other_nodes: u32,
    /// No new try starts after this; zero is unlimited.
    pub retry_timeout: Duration,
    pub keep: Keep,
}

/// Compiles an upstream. What can not be resolved is told and left out, and so is what this build can not do: an
/// upstream that would have to be spoken to in another way than it says has no nodes, so that requests are answered
/// 503 rather than sent in clear.
pub(super) fn compile(
    name: &str,
    upstream: &model::Upstream,
    names: &mut Names,
) -> Result<(Upstream, Vec<ConfigError>), Vec<ConfigError>> {
    let specs = upstream.nodes().map_err(|fault| vec![fault])?;
    let Absent { faults: mut lacks, is_mute } = absent_features(upstream);
    let (mut nodes, mut weights) = (Vec::new(), Vec::new());
    for spec in specs.iter().filter(|_| !is_mute) {
        match names.addresses(&spec.host) {
            Ok(addresses) => {
                for address in addresses {
                    nodes.push(Node {
                        address: SocketAddr::new(address, spec.port.unwrap_or(80)),
                        host: host_of(spec),
                    });
                    weights.push(Weighted { weight: spec.weight, priority: spec.priority });
                }
            }
            Err(error) => {
                lacks.push(ConfigError::at("nodes", format!("can not resolve {}: {error}", spec.host)));
            }
        }
    }
    let keep = upstream.keepalive_pool.unwrap_or_default();
    let usable = weights.iter().filter(|node| node.weight > 0).count();
    let compiled = Upstream {
        name: name.into(),
        balancer: Balancer::RoundRobin(RoundRobin::new(&weights)),
        retries: upstream.retries,
        other_nodes: usable.saturating_sub(1) as u32,
        nodes,
        turn: LocalId::default(),
        pass_host: match (upstream.pass_host, &upstream.upstream_host) {
            (model::upstream::PassHost::Pass, _) => PassHost::Pass,
            (model::upstream::PassHost::Rewrite, Some(host)) => {
                PassHost::Rewrite(host.as_str().as_bytes().into())
            }
            (model::upstream::PassHost::Node | model::upstream::PassHost::Rewrite, _) => PassHost::Node,
        },
        timeouts: upstream.timeout.map_or_else(Timeouts::default, |timeout| Timeouts {
            connect: timeout.connect.get(),
            send: timeout.send.get(),
            read: timeout.read.get(),
        }),
        retry_timeout: upstream.retry_timeout.and_then(|timeout| timeout.bound()).unwrap_or(Duration::ZERO),
        keep: Keep {
            size: keep.size.usize(),
            idle: keep.idle_timeout.bound().unwrap_or(FOREVER),
            requests: keep.requests.u32(),
        },
    };
    Ok((compiled, lacks))
}

impl Upstream {
    /// A number that is the same as long as the nodes are, addresses and weights: what a core notes of them is
    /// good for so long.
    pub(super) fn fingerprint(&self) -> u64 {
        crate::base::hash::stable(format!("{:?}{:?}", self.nodes, self.balancer).as_bytes())
    }
}

/// A year: for waits the user does not want to end.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a user of the model may ask for and this build does not do.
struct Absent {
    faults: Vec<ConfigError>,
    /// Nothing may be sent to its nodes.
    is_mute: bool,
}

fn absent_features(upstream: &model::Upstream) -> Absent {
    use model::upstream::{Algorithm, Scheme};
    let mut faults = Vec::new();
    let mut absent = |field: &str, expected: &str, found: String, instead: &str| {
        let problem = format!("expected {expected} in this version, got {found}; {instead}");
        faults.push(ConfigError::at(field, problem));
    };
    let is_mute = upstream.scheme() != Scheme::Http || upstream.discovery_type.is_some();
    if upstream.scheme() != Scheme::Http {
        absent("scheme", "http", text_of(&upstream.scheme()), "requests to it are answered 503");
    }
    if upstream.algorithm != Algorithm::Roundrobin {
        absent("type", "roundrobin", text_of(&upstream.algorithm), "its nodes take turns");
    }
    if let Some(kind) = &upstream.discovery_type {
        absent("discovery_type", "nodes", text_of(kind), "requests to it are answered 503");
    }
    if upstream.checks.is_some() {
        absent("checks", "none", "some".to_owned(), "all its nodes count as healthy");
    }
    if upstream.tls.is_some() {
        absent("tls", "none", "some".to_owned(), "it is kept for when it is");
    }
    Absent { faults, is_mute }
}

fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// `Host` for `pass_host: node`: the port is written unless it is the scheme's own.
fn host_of(spec: &model::upstream::NodeSpec) -> Box<[u8]> {
    let host = if spec.host.contains(':') { format!("[{}]", spec.host) } else { spec.host.clone() };
    match spec.port {
        None | Some(80) => host.into_bytes().into(),
        Some(port) => format!("{host}:{port}").into_bytes().into(),
    }
}
