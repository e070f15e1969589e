//! The contract of a plugin.
//!
//! A plugin is one file in `plugins/`: its configuration, a type made from it by [`Plugin::compile`], and hooks,
//! named as constants, so that a phase nobody hooks never appears in a chain and costs nothing. Hooks are plain
//! functions; one that must wait for I/O returns [`Step::Wait`] and pays one allocation beside its round trip.
//!
//! State has three homes: the plugin's own fields (immutable, shared by all cores), `env.core.local(id, …)`
//! (of a core, kept across snapshots), and `ex.slots.of(id)` (of a request). A limit that must count the whole
//! process uses `env.core.ledger`.

pub mod auth;
pub mod chain;
pub mod compile;
pub mod consumers;
pub mod count;
pub mod header_edits;
pub mod inner;
pub mod limits;
pub mod logger;
pub mod phase;
pub mod redis;
pub mod regex_uri;
pub mod script;
pub mod standing;
pub mod tally;
#[cfg(test)]
pub mod testing;

pub use chain::{Hooks, Meta, Mount, PluginChain, Tried, Witness};
pub use compile::{CompileCx, Holds, Makings, Registry, Surroundings, Upstreams};
pub use consumers::{ConsumerIndex, Credential, CredentialKind, Known};
pub use inner::{Actions, Inner};
pub use phase::{Phase, Phases};
pub use standing::{Look, Looking, Whose};

pub use crate::model::ConfigError;

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::exchange::graphql::Prices;
use crate::exchange::{Chunk, Exchange, Reply};
use crate::runtime::Core;

/// What fields of GraphQL cost, by service.
pub type PriceBook = rpds::HashTrieMapSync<std::sync::Arc<str>, std::sync::Arc<Prices>>;

/// What a hook may reach besides the exchange. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    pub core: &'a Core,
    pub consumers: &'a ConsumerIndex,
    /// What fields of GraphQL cost, where that is said.
    pub prices: Option<&'a PriceBook>,
}

/// What a gate decides.
pub enum Step<'a> {
    /// Go on.
    Next,
    /// Stop here and answer this.
    Reply(Reply),
    /// The answer takes I/O. The only variant that allocates.
    Wait(Pin<Box<dyn Future<Output = Verdict> + 'a>>),
}

/// What a gate came to.
#[derive(Debug)]
pub enum Verdict {
    Next,
    Reply(Reply),
}

/// May look at and change the request, and may end it.
pub type Gate<P> = Option<for<'a> fn(&'a P, &'a mut Exchange, Env<'a>) -> Step<'a>>;
/// May change the head of the response.
pub type Edit<P> = Option<fn(&P, &mut Exchange, Env<'_>)>;
/// May change the body of the response, piece by piece.
pub type Transform<P> = Option<fn(&P, &mut Exchange, Env<'_>, &mut Chunk<'_>)>;
/// Sees an exchange that is over.
pub type Observe<P> = Option<fn(&P, &Exchange, Env<'_>)>;

/// A feature that acts on requests as they pass.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// APISIX's name; also the file's, with `_` for `-`.
    const NAME: &'static str;
    /// APISIX's number: higher runs earlier within a phase.
    const PRIORITY: i32;
    /// What the user writes. Parsing it is checking it.
    type Config: DeserializeOwned + JsonSchema + 'static;
    /// What the user may write once for all uses, under `plugin_metadata`; `NoMetadata` when nothing.
    type Metadata: DeserializeOwned + JsonSchema + Default + 'static;

    /// For authentication plugins: what a consumer writes under the plugin's name.
    const CREDENTIAL: Option<CredentialKind> = None;
    /// Whether a copy in a global rule stays silent when the route has its own.
    const PREFER_ROUTE: bool = false;
    /// Whether another plugin may run it as an action ([`Inner`]). Then its later hooks are called for every request, and
    /// must know from what its gate noted whether they have anything to do.
    const IS_ACTION: bool = false;

    /// Turns configuration into what the hooks read. Runs on the control thread, once per use.
    ///
    /// # Errors
    /// The rules that a type can not say.
    fn compile(
        config: Self::Config,
        metadata: Self::Metadata,
        cx: &mut CompileCx<'_>,
    ) -> Result<Self, ConfigError>;

    /// Whether stream routes may have it.
    const IN_STREAMS: bool = Self::PREREAD.is_some();
    /// Whether objects that are for requests may have it.
    const WITH_REQUESTS: bool = true;

    /// Of a stream, before a node is chosen: may it go on? What the client has said so far is in the exchange.
    const PREREAD: Gate<Self> = None;
    /// Before the consumer is known; authentication identifies it here.
    const REWRITE: Gate<Self> = None;
    /// May this exchange go on?
    const ACCESS: Gate<Self> = None;
    /// The upstream is known, nothing is sent.
    const BEFORE_PROXY: Gate<Self> = None;
    /// The head of the response, from upstream or a [`Reply`].
    const HEADER_FILTER: Edit<Self> = None;
    /// The body of the response.
    const BODY_FILTER: Transform<Self> = None;
    /// It is over.
    const LOG: Observe<Self> = None;

    /// Of the phases hooked above, those in which this use has something to do; the others cost nothing.
    fn active(&self) -> Phases {
        Phases::ALL
    }

    /// Whether `REWRITE` reads the body of the request, that it asked for when it was compiled: then it is held before.
    fn reads_body_early(&self) -> bool {
        false
    }

    /// Whether `LOG`, or `BODY_FILTER`, reads the head of the response as it was sent: then it is kept, as the bytes it was received in
    /// serve for the body.
    fn reads_sent_head(&self) -> bool {
        false
    }

    /// What is left of limits; asked by those who look, never by a core.
    const LOOKING: Looking<Self> = None;
}

/// Metadata of a plugin that has none.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoMetadata {}
