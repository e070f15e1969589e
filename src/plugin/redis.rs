//! Counters in a Redis, for every plugin that limits: what a user writes of it, and how it is asked.
//!
//! A counter is changed by a script, so that looking and counting are one step for all gateways. Scripts are called by
//! their digest; a Redis that has not seen one is sent its text. Where there is no reply in time the plugin decides, by
//! its `without_redis` and `allow_degradation`.
//!
//! There may be one Redis, one of several that sentinels watch, or a cluster: plugins do not notice which.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CompileCx, ConfigError};

mod script;
mod store;
mod written;

pub use script::{Call, Script};
pub use store::{Borrowed, Store};
pub use written::{OfCluster, OfSentinels, Written};

/// Appends the fields of a Redis, and of a cluster of them, to a configuration. They are read for every policy, as APISIX
/// does, and mean something for those that keep counters outside of this process.
macro_rules! with_redis {
    ($(#[$of_struct:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$of_struct])*
        #[allow(dead_code)] // What belongs to other policies is read, and refused with them.
        pub struct $name {
            $($fields)*
            /// Where Redis is: an address or a name.
            redis_host: Option<$crate::model::field::ShortText>,
            /// The port of Redis.
            #[serde(default = "crate::plugin::redis::port")]
            redis_port: $crate::model::field::Port,
            /// The user of Redis.
            redis_username: Option<String>,
            /// The password of Redis.
            #[schemars(extend("minLength" = 0))]
            redis_password: Option<$crate::model::field::Secret>,
            /// The number of the database.
            #[serde(default)]
            redis_database: $crate::model::field::InRange<0, { $crate::plugin::limits::AMOUNT_MAX }>,
            /// Milliseconds that Redis or the cluster may take for a request, connecting included.
            #[serde(default = "crate::plugin::redis::timeout")]
            redis_timeout: $crate::plugin::redis::Millis,
            /// Is TLS spoken with Redis, and with its sentinels?
            #[serde(default)]
            redis_ssl: bool,
            /// Is the certificate of Redis checked, by those who vouch for nodes?
            #[serde(default)]
            redis_ssl_verify: bool,
            /// Milliseconds that an idle connection to Redis is kept.
            #[serde(default = "crate::plugin::redis::keepalive")]
            redis_keepalive_timeout: $crate::plugin::redis::Millis,
            /// Most idle connections to Redis. A core has one at most, whatever is written.
            #[serde(default = "crate::plugin::redis::pool")]
            redis_keepalive_pool: $crate::plugin::redis::Millis,
            /// Nodes of the cluster, as `host:port`.
            redis_cluster_nodes: Option<$crate::model::field::NonEmpty<$crate::model::field::ShortText>>,
            /// The name of the cluster, as it is called in the log.
            redis_cluster_name: Option<$crate::model::field::ShortText>,
            /// Is TLS spoken with the cluster?
            #[serde(default)]
            redis_cluster_ssl: bool,
            /// Are the certificates of the cluster checked?
            #[serde(default)]
            redis_cluster_ssl_verify: bool,
            /// What becomes of requests while Redis gives no answer. Absent: as `allow_degradation` says. Not in APISIX.
            without_redis: Option<$crate::plugin::redis::WithoutRedis>,
        }

        impl $name {
            /// What becomes of requests while it gives no answer, if nothing is written but that they may pass.
            #[allow(dead_code)] // A plugin may count here only.
            pub(crate) fn without_redis(&self, degrade: bool) -> $crate::plugin::redis::WithoutRedis {
                $crate::plugin::redis::WithoutRedis::of(self.without_redis, degrade)
            }

            /// What was written of a Redis.
            #[allow(dead_code)] // A plugin may count here only.
            pub(crate) fn redis(&self) -> $crate::plugin::redis::Written<'_> {
                $crate::plugin::redis::Written {
                    host: self.redis_host.as_deref(),
                    port: self.redis_port.get(),
                    username: self.redis_username.as_deref(),
                    password: self.redis_password.as_ref().map(|secret| secret.expose()),
                    database: self.redis_database.u64(),
                    timeout: self.redis_timeout,
                    ssl: self.redis_ssl.then_some(self.redis_ssl_verify),
                    keepalive: self.redis_keepalive_timeout,
                    cluster: $crate::plugin::redis::OfCluster {
                        nodes: self.redis_cluster_nodes.as_deref(),
                        name: self.redis_cluster_name.as_deref(),
                        ssl: self.redis_cluster_ssl.then_some(self.redis_cluster_ssl_verify),
                    },
                }
            }
        }
    };
}
pub(crate) use with_redis;

/// What becomes of requests while Redis gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum WithoutRedis {
    /// They fail with 500.
    Fail,
    /// They pass, uncounted.
    Pass,
    /// This process decides by a count of its own.
    Local,
}

impl WithoutRedis {
    /// What was written, else what `allow_degradation` says.
    pub fn of(written: Option<Self>, degrade: bool) -> Self {
        written.unwrap_or(if degrade { Self::Pass } else { Self::Fail })
    }
}

/// A positive number, of milliseconds as a rule.
pub type Millis = crate::model::field::InRange<1, { super::limits::AMOUNT_MAX }>;

pub const fn port() -> crate::model::field::Port {
    crate::model::field::Port::literal(6379)
}

/// A second, as APISIX has it.
pub const fn timeout() -> Millis {
    Millis::literal(1000)
}

pub const fn keepalive() -> Millis {
    Millis::literal(10_000)
}

pub const fn pool() -> Millis {
    Millis::literal(100)
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Policy {
    /// In this process, exactly over all cores.
    #[default]
    Local,
    /// In a Redis.
    Redis,
    /// In a cluster of Redis.
    RedisCluster,
}

impl Policy {
    /// The Redis that keeps the counters; `None` where they are kept here.
    ///
    /// # Errors
    /// What is wrong with what was written of it.
    pub fn store(
        self,
        written: &Written<'_>,
        cx: &mut CompileCx<'_>,
    ) -> Result<Option<Arc<Store>>, ConfigError> {
        let store = match self {
            Self::Local => return Ok(None),
            Self::Redis => Store::one(written, cx),
            Self::RedisCluster => Store::cluster(written, cx),
        };
        store.map(|store| Some(Arc::new(store)))
    }
}
