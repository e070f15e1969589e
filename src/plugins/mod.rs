//! The list of plugins: one line each. None knows another.
//!
//! The macro makes the modules, [`AnyPlugin`] (an enum whose calls the compiler sees through), its dispatch and
//! [`CATALOG`]. Adding a plugin is its file, its line here and its page in `docs/plugins/`; `scripts/new-plugin`
//! writes the frame of all three.

use std::sync::Arc;

use serde_json::Value;

use crate::exchange::{Chunk, Exchange};
use crate::model::ConfigError;
use crate::plugin::{CompileCx, CredentialKind, Env, Hooks, Look, Phase, Phases, Plugin, Step};

/// What is known of a plugin without an instance.
#[derive(Clone, Copy)]
pub struct Card {
    pub name: &'static str,
    pub priority: i32,
    pub phases: Phases,
    /// JSON schema of its configuration, and of its metadata.
    pub schema: fn() -> Value,
    pub metadata_schema: fn() -> Value,
    /// Set for authentication plugins.
    pub credential: Option<CredentialKind>,
    /// Whether another plugin may run it.
    pub is_action: bool,
    /// Whether stream routes may have it.
    pub in_streams: bool,
    /// Whether objects that are for requests may have it.
    pub with_requests: bool,
    compile: fn(Value, Value, &mut CompileCx<'_>) -> Result<AnyPlugin, Vec<ConfigError>>,
}

impl Card {
    /// The card of a plugin.
    pub fn of(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|card| card.name == name)
    }

    /// Compiles one use of the plugin.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn compile(
        &self,
        config: Value,
        metadata: Value,
        cx: &mut CompileCx<'_>,
    ) -> Result<AnyPlugin, Vec<ConfigError>> {
        (self.compile)(config, metadata, cx)
    }
}

/// The phases a plugin hooks, computed from its constants.
const fn phases_of<P: Plugin>() -> Phases {
    let none = Phases::NONE;
    none.with(Phase::Preread, P::PREREAD.is_some())
        .with(Phase::Rewrite, P::REWRITE.is_some())
        .with(Phase::Access, P::ACCESS.is_some())
        .with(Phase::BeforeProxy, P::BEFORE_PROXY.is_some())
        .with(Phase::HeaderFilter, P::HEADER_FILTER.is_some())
        .with(Phase::BodyFilter, P::BODY_FILTER.is_some())
        .with(Phase::Log, P::LOG.is_some())
}

fn compile_one<P: Plugin>(
    config: Value,
    metadata: Value,
    cx: &mut CompileCx<'_>,
) -> Result<Arc<P>, Vec<ConfigError>> {
    let config = crate::model::schema::parse::<P::Config>(config)?;
    let metadata = if metadata.is_null() {
        P::Metadata::default()
    } else {
        crate::model::schema::parse::<P::Metadata>(metadata)?
    };
    let compiled = P::compile(config, metadata, cx);
    let mut faults = cx.take_refusals();
    match compiled {
        Ok(plugin) if faults.is_empty() => return Ok(Arc::new(plugin)),
        Ok(_) => {}
        Err(fault) => faults.push(fault),
    }
    Err(faults)
}

#[inline]
fn gate_one<'a, P: Plugin>(plugin: &'a P, phase: Phase, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
    let hook = match phase {
        Phase::Preread => P::PREREAD,
        Phase::Rewrite => P::REWRITE,
        Phase::Access => P::ACCESS,
        Phase::BeforeProxy => P::BEFORE_PROXY,
        Phase::HeaderFilter | Phase::BodyFilter | Phase::Log => None,
    };
    match hook {
        Some(hook) => hook(plugin, ex, env),
        None => Step::Next,
    }
}

macro_rules! plugins {
    ($($(#[$condition:meta])* $module:ident: $type:ident,)*) => {
        $($(#[$condition])* pub mod $module;)*

        /// Any of the plugins, compiled. Sixteen bytes; clones share the instance.
        #[derive(Clone)]
        pub enum AnyPlugin { $($(#[$condition])* $type(Arc<$module::$type>),)* }

        impl std::fmt::Debug for AnyPlugin {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        /// All cards, by name.
        pub const CATALOG: &[Card] = &[$($(#[$condition])* Card {
            name: <$module::$type as Plugin>::NAME,
            priority: <$module::$type as Plugin>::PRIORITY,
            phases: phases_of::<$module::$type>(),
            schema: || schemars::schema_for!(<$module::$type as Plugin>::Config).to_value(),
            metadata_schema: || schemars::schema_for!(<$module::$type as Plugin>::Metadata).to_value(),
            credential: <$module::$type as Plugin>::CREDENTIAL,
            is_action: <$module::$type as Plugin>::IS_ACTION,
            in_streams: <$module::$type as Plugin>::IN_STREAMS,
            with_requests: <$module::$type as Plugin>::WITH_REQUESTS,
            compile: |config, metadata, cx| compile_one(config, metadata, cx).map(AnyPlugin::$type),
        },)*];

        impl Hooks for AnyPlugin {
            fn name(&self) -> &'static str {
                match self { $($(#[$condition])* Self::$type(_) => <$module::$type as Plugin>::NAME,)* }
            }

            fn phases(&self) -> Phases {
                match self { $($(#[$condition])* Self::$type(plugin) => const { phases_of::<$module::$type>() }.and(plugin.active()),)* }
            }

            fn reads_body_early(&self) -> bool {
                match self { $($(#[$condition])* Self::$type(plugin) => plugin.reads_body_early(),)* }
            }

            fn reads_sent_head(&self) -> bool {
                match self { $($(#[$condition])* Self::$type(plugin) => plugin.reads_sent_head(),)* }
            }

            fn is_auth(&self) -> bool {
                match self { $($(#[$condition])* Self::$type(_) => <$module::$type as Plugin>::CREDENTIAL.is_some(),)* }
            }

            fn prefers_route(&self) -> bool {
                match self { $($(#[$condition])* Self::$type(_) => <$module::$type as Plugin>::PREFER_ROUTE,)* }
            }

            fn gate<'a>(&'a self, phase: Phase, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
                match self { $($(#[$condition])* Self::$type(plugin) => gate_one(&**plugin, phase, ex, env),)* }
            }

            fn header_filter(&self, ex: &mut Exchange, env: Env<'_>) {
                match self { $($(#[$condition])* Self::$type(plugin) => {
                    if let Some(hook) = <$module::$type as Plugin>::HEADER_FILTER { hook(plugin, ex, env); }
                })* }
            }

            fn body_filter(&self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>) {
                match self { $($(#[$condition])* Self::$type(plugin) => {
                    if let Some(hook) = <$module::$type as Plugin>::BODY_FILTER { hook(plugin, ex, env, chunk); }
                })* }
            }

            fn standing(&self, look: Look<'_>) -> Vec<Value> {
                match self { $($(#[$condition])* Self::$type(plugin) => {
                    <$module::$type as Plugin>::LOOKING.map_or_else(Vec::new, |hook| hook(plugin, look))
                })* }
            }

            fn log(&self, ex: &Exchange, env: Env<'_>) {
                match self { $($(#[$condition])* Self::$type(plugin) => {
                    if let Some(hook) = <$module::$type as Plugin>::LOG { hook(plugin, ex, env); }
                })* }
            }
        }
    };
}

plugins! {
    api_breaker: ApiBreaker,
    basic_auth: BasicAuth,
    client_control: ClientControl,
    consumer_restriction: ConsumerRestriction,
    cors: Cors,
    #[cfg(feature = "test-plugins")]
    crash: Crash,
    echo: Echo,
    fault_injection: FaultInjection,
    file_logger: FileLogger,
    graphql_limit_count: GraphqlLimitCount,
    grpc_transcode: GrpcTranscode,
    grpc_web: GrpcWeb,
    http_logger: HttpLogger,
    ip_restriction: IpRestriction,
    key_auth: KeyAuth,
    ldap_auth: LdapAuth,
    limit: Limit,
    limit_conn: LimitConn,
    limit_count: LimitCount,
    limit_req: LimitReq,
    mocking: Mocking,
    mqtt_proxy: MqttProxy,
    prometheus: Prometheus,
    proxy_buffering: ProxyBuffering,
    proxy_control: ProxyControl,
    proxy_mirror: ProxyMirror,
    proxy_rewrite: ProxyRewrite,
    public_api: PublicApi,
    real_ip: RealIp,
    redirect: Redirect,
    referer_restriction: RefererRestriction,
    request_id: RequestId,
    response_rewrite: ResponseRewrite,
    serverless_post_function: ServerlessPostFunction,
    serverless_pre_function: ServerlessPreFunction,
    syslog: Syslog,
    traffic_label: TrafficLabel,
    traffic_split: TrafficSplit,
    ua_restriction: UaRestriction,
    uri_blocker: UriBlocker,
    workflow: Workflow,
}
