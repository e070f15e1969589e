//! An upstream, compiled: nodes with addresses, and how to talk to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::additions::Additions;
use super::cells::NodeBook;
use super::checks::Checks;
use super::services::Service;
use super::tls::{Identity, NodeTls};
use crate::balance::{Balancer, Kind, Weighted};
use crate::base::address::{self, Address, UnixPath};
use crate::base::clock::{self, Moment};
use crate::base::hash::stable;
use crate::expr::Template;
use crate::link::health::Cell;
use crate::model::upstream::{Algorithm, HashOn, NodeSpec, OfferHttp2, Scheme};
use crate::model::{self, ConfigError};
use crate::proto::proxy_protocol::Version;
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

/// How a node comes to its share by and by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    pub window: Duration,
    /// Of [`Self::WHOLE`].
    pub least: u64,
}

impl SlowStart {
    /// The weight of a node that has come to all of it.
    pub const WHOLE: u64 = 10_000;

    /// What a node has of its weight, of [`Self::WHOLE`].
    pub fn share(self, cell: &Cell, now: Moment) -> u64 {
        let age = now.since(cell.since(now)).as_millis();
        let grown = u128::from(Self::WHOLE) * age / self.window.as_millis().max(1);
        self.least.max(grown.min(u128::from(Self::WHOLE)) as u64)
    }
}

/// One address.
#[derive(Clone, Debug)]
pub struct Node {
    pub address: Address,
    /// `Host` for `pass_host: node`.
    pub host: Box<[u8]>,
    /// The name or address it was written as.
    pub name: Box<str>,
    /// What all cores know of it, where its upstream asks for that.
    pub cell: Option<Arc<Cell>>,
}

/// What leads a request to its node, with a consistent hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Address,
    /// This text; the client's address where none of its variables has a value.
    Text(Template),
}

/// An upstream.
#[derive(Debug)]
pub struct Upstream {
    /// As in `upstreams/1` or `routes/7#upstream`: for logs.
    pub name: Box<str>,
    pub nodes: Vec<Node>,
    pub kind: Kind,
    /// A balancer at its start; each core runs a copy of its own.
    pub balancer: Balancer,
    /// Where a core keeps that copy.
    pub turn: LocalId,
    pub hash_key: HashKey,
    /// How the health of its nodes is told, if at all.
    pub checks: Option<Arc<Checks>>,
    /// How new nodes begin, if not at once.
    pub slow_start: Option<SlowStart>,
    /// Whether its balancer asks how busy and how quick nodes are.
    pub is_measured: bool,
    /// The same as long as the nodes and the way they are chosen are.
    fingerprint: u64,
    pub pass_host: PassHost,
    /// How nodes are spoken to; `None`: in clear.
    pub tls: Option<NodeTls>,
    /// The same where a node may pick the HTTP that is spoken; `None`: it is not asked.
    pub offer: Option<NodeTls>,
    /// Whether they speak HTTP/2.
    pub is_http2: bool,
    /// What is spoken with them.
    pub scheme: Scheme,
    pub timeouts: Timeouts,
    /// Whether the user says how long things may take.
    pub has_own_timeouts: bool,
    /// Further tries after the first, if the user says so,
    pub retries: Option<u32>,
    /// else as many as there are other nodes, within the process's limit.
    pub other_nodes: u32,
    /// No new try starts after this; zero is unlimited.
    pub retry_timeout: Duration,
    pub keep: Keep,
    /// By which version of the PROXY header the nodes of streams are told whose connection it is.
    pub proxy_protocol: Option<Version>,
    pub additions: Additions,
}

/// The certificate that nodes are shown, if any is; or what is lacking for it. Without it nothing is sent: they would take us
/// for somebody else.
pub(super) type Own = Result<Option<Arc<Identity>>, ConfigError>;

/// Compiles an upstream. What can not be resolved is told and left out, and so is what this build can not do: an
/// upstream that would have to be spoken to in another way than it says has no nodes, so that requests are answered
/// 503 rather than sent in clear.
pub(super) fn compile(
    name: &str,
    upstream: &model::Upstream,
    book: &mut NodeBook,
    (own, spare): (Own, Option<u32>),
) -> Result<(Upstream, Vec<ConfigError>), Vec<ConfigError>> {
    let Absent { faults: mut lacks, mut is_mute } = absent_features(upstream);
    let port = if is_secret(upstream) { 443 } else { 80 };
    let (tls, offer) = own.and_then(|own| tls_of(upstream, book, own.as_deref())).unwrap_or_else(|lack| {
        is_mute = true;
        lacks.push(lack);
        (None, None)
    });
    let specs = specs_of(upstream, book, &mut lacks).map_err(|fault| vec![fault])?;
    let kind = kind_of(upstream.algorithm);
    let pass_host = pass_host_of(upstream);
    let checks = upstream.checks.as_ref().map(|checks| {
        let rewritten =
            upstream.upstream_host.as_deref().filter(|_| matches!(pass_host, PassHost::Rewrite(_)));
        Arc::new(Checks::new(checks, rewritten))
    });
    let rules = checks.as_ref().map_or(0, |checks| stable(format!("{checks:?}").as_bytes()));
    let slow_start = slow_start_of(upstream);
    let has_cells =
        checks.is_some() || slow_start.is_some() || upstream.outliers.is_some() || kind.asks_of_nodes();
    let (mut nodes, mut shares) = (Vec::new(), Vec::new());
    for spec in specs.iter().filter(|_| !is_mute) {
        match addresses_of(spec, upstream, port, book) {
            Ok(addresses) => {
                for address in addresses {
                    nodes.push(Node {
                        address,
                        host: host_of(spec, port),
                        name: spec.host.as_str().into(),
                        cell: has_cells.then(|| cell_of(book, name, address, rules)),
                    });
                    shares.push((spec.weight, spec.priority, id_of(address)));
                }
            }
            Err(problem) => lacks.push(ConfigError::at("nodes", problem)),
        }
    }
    let weights: Vec<_> = shares
        .iter()
        .map(|(weight, priority, id)| Weighted { weight: *weight, priority: *priority, id })
        .collect();
    let additions = Additions::new(upstream, &nodes, &weights, (spare, name, &mut book.throttles));
    let compiled = Upstream {
        name: name.into(),
        kind,
        balancer: Balancer::new(kind, &weights),
        fingerprint: stable(format!("{kind:?}{weights:?}").as_bytes()),
        hash_key: hash_key_of(upstream),
        checks,
        slow_start,
        is_measured: kind.asks_of_nodes(),
        retries: upstream.retries,
        other_nodes: weights.iter().filter(|node| node.weight > 0).count().saturating_sub(1) as u32,
        nodes,
        additions,
        turn: LocalId::default(),
        pass_host,
        tls,
        offer,
        is_http2: is_http2(upstream),
        scheme: upstream.scheme(),
        timeouts: timeouts_of(upstream),
        has_own_timeouts: upstream.timeout.is_some(),
        retry_timeout: upstream.retry_timeout.and_then(|timeout| timeout.bound()).unwrap_or(Duration::ZERO),
        keep: keep_of(upstream),
        proxy_protocol: version_of(upstream),
    };
    Ok((compiled, lacks))
}

impl Upstream {
    /// A number that is the same as long as the nodes are, addresses and weights, and how they are chosen: what a core
    /// notes of them is good for so long.
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether there is a node for requests.
    pub const fn serves_requests(&self) -> bool {
        !self.nodes.is_empty() && !self.scheme.is_of_streams()
    }

    /// Whether its nodes may be unhealthy, or ejected.
    pub const fn judges_nodes(&self) -> bool {
        self.checks.is_some() || self.additions.outliers.is_some()
    }

    /// Whether there is something of it that whoever looks after the gateway is shown.
    pub const fn is_watched(&self) -> bool {
        self.judges_nodes() || self.additions.throttle.is_some()
    }
}

/// The nodes that are written, or that a registry tells.
fn specs_of(
    upstream: &model::Upstream,
    book: &mut NodeBook,
    lacks: &mut Vec<ConfigError>,
) -> Result<Vec<NodeSpec>, ConfigError> {
    let Some(service) = Service::of(upstream) else { return upstream.nodes() };
    Ok(book.services.nodes(&service).unwrap_or_else(|why| {
        lacks.push(ConfigError::at("discovery_type", format!("{why}; requests to it are answered 503")));
        Vec::new()
    }))
}

/// Where a node is, which may be in several places; or what is wrong with it.
fn addresses_of(
    spec: &NodeSpec,
    upstream: &model::Upstream,
    port: u16,
    book: &mut NodeBook,
) -> Result<Vec<Address>, String> {
    // A registry tells of machines, not of files of this one.
    if spec.host.starts_with(address::UNIX) && Service::of(upstream).is_none() {
        if upstream.scheme() == Scheme::Udp {
            return Err(format!("expected an address with port for datagrams, got {}", spec.host));
        }
        let path = UnixPath::of(&spec.host).map_err(|why| format!("{why}, got {}", spec.host))?;
        return Ok(vec![Address::Unix(path)]);
    }
    let port = spec.port.unwrap_or(port);
    let found = book.names.addresses(&spec.host);
    let found = found.map_err(|error| format!("can not resolve {}: {error}", spec.host))?;
    Ok(found.into_iter().map(|ip| Address::Ip(SocketAddr::new(ip, port))).collect())
}

/// How the nodes of an upstream are spoken to.
fn tls_of(
    upstream: &model::Upstream,
    book: &mut NodeBook,
    own: Option<&Identity>,
) -> Result<(Option<NodeTls>, Option<NodeTls>), ConfigError> {
    if !is_secret(upstream) {
        return Ok((None, None));
    }
    let verify = upstream.tls.as_ref().and_then(|tls| tls.verify).unwrap_or(true);
    let told =
        |why| format!("expected to know who vouches for its nodes: {why}; requests to it are answered 503");
    let mut speaking = |spoken: &[&[u8]]| {
        let made = book.outward.for_nodes(verify, own, spoken);
        made.map(Some).map_err(|why| ConfigError::at("scheme", told(why)))
    };
    let tls = speaking(spoken_with(upstream))?;
    let offer = if offers_http2(upstream) { speaking(&[b"h2", b"http/1.1"])? } else { None };
    Ok((tls, offer))
}

/// Whether its nodes may pick HTTP/2.
fn offers_http2(upstream: &model::Upstream) -> bool {
    let wanted = upstream.tls.as_ref().map(|tls| tls.http2).unwrap_or_default();
    wanted == OfferHttp2::Auto && upstream.scheme() == Scheme::Https
}

/// Whether its nodes are spoken to over TLS.
fn is_secret(upstream: &model::Upstream) -> bool {
    matches!(upstream.scheme(), Scheme::Https | Scheme::Grpcs | Scheme::Tls)
}

/// What is said over TLS to be spoken with its nodes.
fn spoken_with(upstream: &model::Upstream) -> &'static [&'static [u8]] {
    match upstream.scheme() {
        Scheme::Tls => &[],
        Scheme::Grpcs => &[b"h2"],
        _ => &[b"http/1.1"],
    }
}

/// Whether they speak HTTP/2, as everything of gRPC does.
fn is_http2(upstream: &model::Upstream) -> bool {
    matches!(upstream.scheme(), Scheme::Grpc | Scheme::Grpcs)
}

fn cell_of(book: &mut NodeBook, upstream: &str, node: Address, rules: u64) -> Arc<Cell> {
    let cell = book.cells.of(upstream, node, rules);
    // It is there from now on, also where it is the only one and no balancer looks at it.
    cell.since(clock::now());
    cell
}

fn version_of(upstream: &model::Upstream) -> Option<Version> {
    upstream.proxy_protocol.map(|version| if version.get() == 1 { Version::Text } else { Version::Binary })
}

fn keep_of(upstream: &model::Upstream) -> Keep {
    let keep = upstream.keepalive_pool.unwrap_or_default();
    Keep {
        size: keep.size.usize(),
        idle: keep.idle_timeout.bound().unwrap_or(FOREVER),
        requests: keep.requests.u32(),
    }
}

fn timeouts_of(upstream: &model::Upstream) -> Timeouts {
    upstream.timeout.map_or_else(Timeouts::default, |timeout| Timeouts {
        connect: timeout.connect.get(),
        send: timeout.send.get(),
        read: timeout.read.get(),
    })
}

fn slow_start_of(upstream: &model::Upstream) -> Option<SlowStart> {
    upstream.slow_start.map(|slow| SlowStart {
        window: slow.window.get(),
        least: SlowStart::WHOLE * u64::from(slow.min_weight_percent.u32()) / 100,
    })
}

fn kind_of(algorithm: Algorithm) -> Kind {
    match algorithm {
        // The clients of what has none choose themselves; HTTP requests take turns.
        Algorithm::Roundrobin | Algorithm::None => Kind::RoundRobin,
        Algorithm::Chash => Kind::Chash,
        Algorithm::LeastConn => Kind::LeastConn,
        Algorithm::Ewma => Kind::Ewma,
    }
}

fn pass_host_of(upstream: &model::Upstream) -> PassHost {
    use model::upstream::PassHost as Wanted;
    match (upstream.pass_host, &upstream.upstream_host) {
        (Wanted::Pass, _) => PassHost::Pass,
        (Wanted::Rewrite, Some(host)) => PassHost::Rewrite(host.as_str().as_bytes().into()),
        (Wanted::Node | Wanted::Rewrite, _) => PassHost::Node,
    }
}

fn hash_key_of(upstream: &model::Upstream) -> HashKey {
    let key = upstream.key.as_deref().unwrap_or("remote_addr");
    let text = match upstream.hash_on {
        HashOn::Vars if key == "remote_addr" => return HashKey::Address,
        HashOn::Vars => format!("${{{key}}}"),
        HashOn::Header => format!("${{http_{key}}}"),
        HashOn::Cookie => format!("${{cookie_{key}}}"),
        HashOn::Consumer => "${consumer_name}".to_owned(),
        HashOn::VarsCombinations => key.to_owned(),
    };
    HashKey::Text(Template::parse(&text))
}

/// What a consistent hash knows a node by: nginx's and APISIX's form, so that keys stay where they are.
fn id_of(node: Address) -> Vec<u8> {
    format!("{}\0{}", node.host(), node.port()).into_bytes()
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
    let mut faults = Vec::new();
    let mut absent = |field: &str, expected: &str, found: String, instead: &str| {
        let problem = format!("expected {expected} in this version, got {found}; {instead}");
        faults.push(ConfigError::at(field, problem));
    };
    let filter = upstream.discovery_args.as_ref().and_then(|args| args.metadata.as_ref());
    let is_spoken = upstream.scheme() != Scheme::Kafka;
    let is_mute = !is_spoken || filter.is_some();
    if !is_spoken {
        absent(
            "scheme",
            "http, https, grpc, grpcs, tcp, tls or udp",
            text_of(&upstream.scheme()),
            "requests to it are answered 503",
        );
    }
    if let Some(filter) = filter {
        absent("discovery_args.metadata", "none", text_of(filter), "requests to it are answered 503");
    }
    if upstream.tls.is_some() && is_spoken && !is_secret(upstream) {
        let problem = "expected scheme: https, grpcs or tls beside it; nothing of it is done, and nodes are spoken to in clear";
        faults.push(ConfigError::at("tls", problem));
    }
    if let Some(tls) = &upstream.tls
        && tls.http2 == OfferHttp2::Auto
        && upstream.scheme() != Scheme::Https
    {
        let found = text_of(&upstream.scheme());
        let problem = format!("expected scheme: https beside it, got {found}; nothing of it is done");
        faults.push(ConfigError::at("tls.http2", problem));
    }
    Absent { faults, is_mute }
}

fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// `Host` for `pass_host: node`: the port is written unless it is the scheme's own.
fn host_of(spec: &NodeSpec, own_port: u16) -> Box<[u8]> {
    if spec.host.starts_with(address::UNIX) {
        // As nginx says it to such a node.
        return b"localhost"[..].into();
    }
    let host = if spec.host.contains(':') { format!("[{}]", spec.host) } else { spec.host.clone() };
    match spec.port {
        Some(port) if port != own_port => format!("{host}:{port}").into_bytes().into(),
        None | Some(_) => host.into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_of_a_new_node_grows_evenly_from_the_least_to_the_whole() {
        let slow = SlowStart { window: Duration::from_secs(10), least: SlowStart::WHOLE / 10 };
        let (cell, begin) = (Cell::default(), Moment::ZERO.plus(Duration::from_secs(3)));
        let shares = [0, 500, 1_000, 2_500, 5_000, 9_999, 10_000, 60_000]
            .map(|millis| slow.share(&cell, begin.plus(Duration::from_millis(millis))));
        assert_eq!(shares, [1_000, 1_000, 1_000, 2_500, 5_000, 9_999, 10_000, 10_000]);
    }
}
