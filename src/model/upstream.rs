//! An upstream: nodes, how one is chosen, and how it is spoken to.

mod checks;
mod concurrency;
mod deadlines;
mod fallback;
mod hedge;
mod nodes;
mod outliers;
mod sticky;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{HostPattern, InRange, ObjectId, Seconds, SecondsOrOff, Secret, ShortText};
use super::{ConfigError, stored};

pub use checks::{
    ActiveCheck, ActiveHealthy, ActiveUnhealthy, CheckMethod, CheckScheme, Checks, PassiveCheck,
    PassiveHealthy, PassiveUnhealthy,
};
pub use concurrency::{Concurrency, Priority};
pub use deadlines::{Backoff, Deadlines};
pub use fallback::{Fallback, FallbackOn};
pub use hedge::Hedge;
pub use nodes::{Node, NodeSpec, Nodes};
pub use outliers::{Outliers, SuccessRate};
pub use sticky::{SameSite, Sticky};

/// Idle connections kept to an upstream, a core, where it does not say.
pub const KEEPALIVE_SIZE: u32 = 320;
/// How long an idle connection is kept, in seconds: less than most origins wait, so that we close first.
pub const KEEPALIVE_IDLE_SECONDS: u64 = 60;
/// What is said of a consistent hash without a key, in APISIX's words.
pub const KEY_MISSING: &str = "missing key";
/// Requests after which a connection is renewed, so that nodes new in DNS get their share.
pub const KEEPALIVE_REQUESTS: u32 = 1000;

stored! {
    /// The nodes behind a route, how one is chosen, and how it is spoken to.
    #[schemars(extend(
        "allOf" = [
            { "oneOf": [{ "required": ["nodes"] }, { "required": ["service_name", "discovery_type"] }] },
        ],
        "dependentRequired" = { "discovery_args": ["discovery_type"] },
    ))]
    pub struct Upstream {
        /// Where requests go: `{"host:port": weight}`, or a list. A weight is a node's share against the others'; 0 takes
        /// it out.
        pub nodes: Option<Nodes>,
        /// How a node is chosen for a request.
        #[serde(default, rename = "type")]
        pub algorithm: Algorithm,
        /// For `chash`: what `key` names.
        #[serde(default)]
        pub hash_on: HashOn,
        /// For `chash`: the variable, header, cookie or template whose value chooses the node.
        pub key: Option<ShortText>,
        /// How the health of nodes is told. Absent: all count as healthy.
        pub checks: Option<Checks>,
        /// Which nodes get no requests for a while, by how requests to them fare. Absent: none.
        pub outliers: Option<Outliers>,
        /// How a node that is new, or healthy again by `checks`, comes to its share. Absent: it has it at once.
        pub slow_start: Option<SlowStart>,
        /// A cookie that leads a client to the node that it was at before. Absent: each request goes as `type` says.
        pub sticky: Option<Sticky>,
        /// How often another node is tried when one fails; 0: never. Absent: as often as there are other nodes. Never more
        /// often than `limits.retries` of the settings.
        pub retries: Option<u32>,
        /// How long, in seconds, all tries of a request together may take; 0 or absent: no bound.
        pub retry_timeout: Option<SecondsOrOff>,
        /// How long is waited before another try. Absent: not at all.
        pub retry_backoff: Option<Backoff>,
        /// How long a request, and each try of it, may take in all. Absent: what `timeout` leaves.
        pub deadlines: Option<Deadlines>,
        /// How many requests the nodes together are given at once, learnt from how quickly they answer. Absent: no bound.
        pub concurrency: Option<Concurrency>,
        /// What serves when the nodes do not. Absent: the client is told so.
        pub fallback: Option<Fallback>,
        /// When a second node is asked for the same, of requests that are idempotent and have no body. Absent: never.
        pub hedge: Option<Hedge>,
        /// How long connecting, sending and reading may take. Absent: 60 seconds each.
        pub timeout: Option<Timeout>,
        /// Which `Host` a node is sent.
        #[serde(default)]
        pub pass_host: PassHost,
        /// The `Host` sent with `pass_host: rewrite`, which needs it.
        pub upstream_host: Option<HostPattern>,
        /// What is spoken with the nodes: `http`, `https`, or HTTP/2 by `grpc` (in clear) and `grpcs`; of stream routes `tcp`,
        /// `tls` or `udp`. Absent: `http`, and of stream routes what comes in. An upstream of scheme `kafka` has no nodes for now:
        /// 503, never in clear.
        pub scheme: Option<Scheme>,
        /// The registry that tells the nodes, in place of `nodes`: `consul`, `dns`, `eureka` or `nacos`, set up in `discovery` of
        /// the settings.
        pub discovery_type: Option<ShortText>,
        /// The name by which the discovery knows the nodes.
        pub service_name: Option<ShortText>,
        /// What else the discovery is told.
        pub discovery_args: Option<DiscoveryArgs>,
        /// TLS with the nodes, where the scheme is `https`, `grpcs` or `tls`.
        pub tls: Option<UpstreamTls>,
        /// Of stream routes: the version of the PROXY header by which a node is told whose connection it is, 1 or 2. Absent: it
        /// is told nothing.
        pub proxy_protocol: Option<InRange<1, 2>>,
        /// The idle connections that are kept for the next requests.
        pub keepalive_pool: Option<KeepalivePool>,
    }
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Algorithm {
    /// In turns, by weight.
    #[default]
    Roundrobin,
    /// By a consistent hash of `key`, the same as nginx's.
    Chash,
    /// Most likely the quicker of two, by how they answered of late.
    Ewma,
    /// The one with the fewest requests under way for its weight, over all cores.
    LeastConn,
    /// For scheme kafka, whose clients choose themselves.
    None,
}

/// What chooses the node of a consistent hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum HashOn {
    /// A variable such as `remote_addr`, `uri`, `host` or `arg_name`.
    #[default]
    Vars,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// The consumer, which needs no `key`.
    Consumer,
    /// A template such as `$request_uri$remote_addr`.
    VarsCombinations,
}

/// Which Host a node is sent: the client's, the node's own, or `upstream_host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PassHost {
    /// The client's.
    #[default]
    Pass,
    /// The node's own name, as `nodes` has it.
    Node,
    /// What `upstream_host` says.
    Rewrite,
}

/// What is spoken with the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Scheme {
    #[default]
    Http,
    Https,
    Grpc,
    Grpcs,
    Tcp,
    Tls,
    Udp,
    Kafka,
}

impl Scheme {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::Kafka => "kafka",
        }
    }

    /// Whether no requests are sent to its nodes.
    pub const fn is_of_streams(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Udp)
    }

    /// Whether datagrams may be passed on to its nodes.
    pub const fn is_for_datagrams(self) -> bool {
        matches!(self, Self::Http | Self::Udp)
    }

    /// Whether streams may be passed on to its nodes: http is what it is where nothing is written.
    pub const fn is_for_streams(self) -> bool {
        matches!(self, Self::Http | Self::Tcp | Self::Tls)
    }
}

/// How long the parts of a proxied request may take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// Seconds until the connection stands.
    pub connect: Seconds,
    /// Seconds that the node may take nothing of the request.
    pub send: Seconds,
    /// Seconds between two reads of the response.
    pub read: Seconds,
}

/// What a discovery is told besides the service's name.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoveryArgs {
    /// The namespace to ask in: Consul's and Nacos'.
    pub namespace_id: Option<String>,
    /// The group to ask for: Nacos'.
    pub group_name: Option<String>,
    /// What nodes must be labelled with. An upstream that asks for it has no nodes for now: 503.
    pub metadata: Option<Map<String, Value>>,
}

/// How a node comes to its share of the requests by and by: its weight grows evenly over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// Seconds until it has its whole weight, from when it is in the configuration or healthy again.
    pub window: Seconds,
    /// What it has of its weight at least, in percent.
    #[serde(default = "least_percent")]
    pub min_weight_percent: InRange<1, 100>,
}

/// Enough for a node to become warm by.
const fn least_percent() -> InRange<1, 100> {
    InRange::literal(10)
}

/// TLS with the nodes.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "not" = { "required": ["client_cert", "client_cert_id"] },
    "dependentRequired" = { "client_cert": ["client_key"], "client_key": ["client_cert"] },
))]
pub struct UpstreamTls {
    /// The certificate shown to nodes, in PEM.
    pub client_cert: Option<super::ssl::Certificate>,
    /// The key of `client_cert`, in PEM.
    pub client_key: Option<Secret>,
    /// The id of the ssl of type `client` whose certificate is shown to nodes.
    pub client_cert_id: Option<ObjectId>,
    /// Is the node's certificate checked, by `ssl.trusted_certificate` of the settings, for the `Host` it is sent? Absent: yes.
    /// `false` lets anybody between the gateway and the node read and change everything.
    pub verify: Option<bool>,
    /// With `https`: is HTTP/2 offered to nodes beside HTTP/1.1, and what a node picks spoken with it? WebSockets go by HTTP/1.1
    /// in any case.
    #[serde(default)]
    pub http2: OfferHttp2,
}

/// Whether nodes may pick HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OfferHttp2 {
    /// HTTP/1.1 is all that is offered.
    #[default]
    Off,
    /// Both are, by ALPN; a node that says nothing is spoken to in HTTP/1.1.
    Auto,
}

/// The idle connections kept to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepalivePool {
    /// Most idle connections to a node, of all cores together.
    pub size: InRange<1, 1_000_000>,
    /// How long an idle one is kept, in seconds; 0: until the other side closes.
    pub idle_timeout: SecondsOrOff,
    /// After how many requests a connection is closed.
    pub requests: InRange<1, 1_000_000_000>,
}

impl Default for KeepalivePool {
    fn default() -> Self {
        Self {
            size: InRange::literal(KEEPALIVE_SIZE as i64),
            idle_timeout: SecondsOrOff::literal(KEEPALIVE_IDLE_SECONDS),
            requests: InRange::literal(KEEPALIVE_REQUESTS as i64),
        }
    }
}

impl Upstream {
    /// What is spoken, by default http.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or_default()
    }

    /// The nodes as written, in either form; none where they are discovered. The order is the user's for a list
    /// and the addresses' for an object.
    pub fn nodes(&self) -> Result<Vec<NodeSpec>, ConfigError> {
        self.nodes.as_ref().map_or_else(|| Ok(Vec::new()), Nodes::specs)
    }

    /// The faults of an upstream written inside another object.
    pub(super) fn faults_within(upstream: Option<&Self>) -> Vec<ConfigError> {
        let faults = upstream.map(Self::faults).unwrap_or_default();
        faults.into_iter().map(|fault| fault.under("upstream")).collect()
    }

    /// What is wrong with it beyond what a schema can say.
    pub(crate) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = self.nodes.as_ref().map(Nodes::faults).unwrap_or_default();
        faults.extend(self.checks.iter().flat_map(Checks::faults));
        faults.extend(self.outliers.iter().flat_map(Outliers::faults));
        faults.extend(self.fallback.iter().flat_map(Fallback::faults));
        faults.extend(self.deadlines.iter().flat_map(Deadlines::faults));
        faults.extend(self.retry_backoff.iter().flat_map(Backoff::faults));
        faults.extend(self.concurrency.iter().flat_map(Concurrency::faults));
        faults.extend(self.sticky.iter().flat_map(Sticky::faults));
        if self.algorithm == Algorithm::Chash {
            faults.extend(self.key_fault());
        }
        if self.pass_host == PassHost::Rewrite && self.upstream_host.is_none() {
            faults.push(ConfigError::new("upstream_host is required when pass_host is rewrite"));
        }
        faults
    }

    /// What is wrong with the key of a consistent hash.
    fn key_fault(&self) -> Option<ConfigError> {
        let Some(key) = self.key.as_deref() else {
            // A consumer is its own key, and with no consumer the client's address is.
            return (self.hash_on != HashOn::Consumer).then(|| ConfigError::new(KEY_MISSING));
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let (holds, expected) = match self.hash_on {
            HashOn::Consumer => return None,
            HashOn::Vars => (is_hash_var(key), "a variable such as remote_addr, uri, host or arg_name"),
            HashOn::Header => (key.bytes().all(is_name), "the name of a header"),
            HashOn::Cookie => (key.bytes().all(is_name), "the name of a cookie"),
            HashOn::VarsCombinations => (key.contains('$'), "variables such as $request_uri$remote_addr"),
        };
        let found = super::schema::shown_text(key);
        (!holds).then(|| ConfigError::at("key", format!("expected {expected}, got {found}")))
    }
}

/// The variables by which APISIX lets a hash choose.
fn is_hash_var(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "uri",
        "server_name",
        "server_addr",
        "request_uri",
        "remote_port",
        "remote_addr",
        "query_string",
        "host",
        "hostname",
        "mqtt_client_id",
    ];
    NAMES.contains(&name) || name.strip_prefix("arg_").is_some_and(|argument| !argument.is_empty())
}
