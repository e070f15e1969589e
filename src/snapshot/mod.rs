//! Configuration frozen into the form the cores read.
//!
//! A [`Snapshot`] is made by [`Compiler`] on the control thread, never changes, and is freed there, too: a core
//! hands its last hold back through the outbox. What one snapshot has in common with the next, they share: a change
//! of one route makes one route, and a few nodes of the tables that lead to it.

mod additions;
mod cells;
mod challenges;
mod checks;
pub mod compile;
mod deadlines;
pub mod explain;
mod fallback;
mod hedge;
pub mod intake;
mod limits;
mod merge;
mod names;
mod references;
mod route;
mod services;
pub mod standing;
mod sticky;
mod streams;
mod throttle;
mod tls;
mod upstream;
mod upstreams;

pub use crate::expr::pattern::given_up as patterns_given_up;
pub use crate::model::upstream::{FallbackOn, Scheme};
pub use crate::plugins::AnyPlugin;
pub use additions::{Additions, Outliers};
pub use challenges::Challenges;
pub use checks::{ActiveCheck, CheckScheme, Checks};
pub use compile::{Compiler, Outcome, Quarantined, is_reference_to_nothing};
pub use deadlines::{Backoff, Deadlines};
pub use fallback::{Fallback, Goal};
pub use hedge::{Hedge, HedgeTally};
pub use limits::limits_of;
pub use merge::meta_schema;
pub use names::{Answers, Resolve, at_once};
pub use references::{Learnt, ReadEnv, ReadFile, Unread, Wanted};
pub use route::{
    Bar, Consumer, Route, Target, WebSockets, enter_route, host_for, is_new, query_of, show_consumer,
};
pub use services::Service;
pub use sticky::Sticky;
pub use streams::{StreamQuery, StreamRoute, Streams};
pub use throttle::Throttle;
pub(crate) use tls::check_pair;
pub use tls::{Anyone, CertificateEnd, Certificates, NodeTls, ReadRoots, ServerRules, validity};
pub use upstream::{HashKey, Node, PassHost, SlowStart, Timeouts, Upstream};
pub use upstreams::Upstreams;

use std::sync::Arc;
use std::time::Duration;

use rpds::HashTrieSetSync;

use crate::base::cidr::CidrSet;
use crate::base::slots::Slots;
use crate::expr::Template;
use crate::plugin::{ConsumerIndex, PluginChain, PriceBook};
use crate::proto::uri::UriOptions;
use crate::router::Router;
use crate::runtime::LocalId;

/// A chain of any plugins.
pub type Chain = PluginChain<AnyPlugin>;

/// What the control thread tells a core.
#[derive(Clone, Debug)]
pub enum Order {
    /// New requests see this from now on.
    Swap(Arc<Snapshot>),
    /// Stop accepting after `accept_for`, then tell WebSockets to end if there is a `farewell`, finish what is in flight, give up
    /// after `within` (`None`: never).
    Drain { accept_for: Duration, within: Option<Duration>, farewell: Option<Farewell> },
    /// Close everything now.
    Stop,
}

/// Why WebSockets are told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The gateway goes away.
    Stopping,
    /// Another takes its place.
    Replaced,
    /// The route has changed, or is gone.
    Changed,
}

/// How a line of the access log is written.
#[derive(Debug, Default)]
pub enum LogFormat {
    /// No access log.
    #[default]
    Off,
    /// One JSON object, fields fixed.
    Json,
    /// The user's own `$variables`.
    Template(Template),
}

/// What holds for all requests alike.
#[derive(Debug, Default)]
pub struct House {
    pub uri: UriOptions,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted: CidrSet,
    /// Whether an `X-Forwarded-For` of anybody else is sent on as well.
    pub appends_forwarded_for: bool,
    /// Load balancers whose PROXY header is believed.
    pub balancers: CidrSet,
    /// Whether `Via` is sent on.
    pub via: bool,
    /// Whether the upstream's status is shown on every answer, not only on its errors.
    pub show_upstream_status: bool,
    pub log_format: LogFormat,
    /// Whether the log asks for headers of responses.
    pub keep_sent_head: bool,
    /// The name that a client is taken to ask for which asks for none.
    pub fallback_sni: Option<Box<str>>,
    /// The `Server` line's value.
    pub server: String,
}

/// Everything a core needs to serve requests.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every snapshot of the process, from 1.
    pub generation: u64,
    pub house: Arc<House>,
    /// Finds the place of a route in `routes`.
    pub router: Router<u32>,
    pub routes: Slots<Route>,
    /// Where connections go that are passed on as they are.
    pub streams: Streams,
    pub upstreams: Upstreams,
    pub consumers: Slots<Consumer>,
    pub index: ConsumerIndex,
    /// What fields of GraphQL cost.
    pub prices: PriceBook,
    /// By which rules clients are answered over TLS.
    pub certificates: Certificates,
    /// How it is proven to authorities that names are ours; empty but while certificates are asked for.
    pub challenges: Arc<Challenges>,
    /// Plugins of all global rules.
    pub global: Arc<Chain>,
    /// Whether a global rule that may turn requests away is not among them: none is let through then.
    pub is_unguarded: bool,
    /// Ids of the per-core state its plugins and upstreams use.
    pub live: HashTrieSetSync<LocalId>,
    /// Those that went out of use lately; not all of them, if there were many.
    pub retired: Arc<[LocalId]>,
}
