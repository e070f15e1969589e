//! What a user writes of a Redis that keeps counters: the same for every plugin that limits.

/// Appends the fields of a Redis, and of a cluster of them, to a configuration. They are read for every policy, as APISIX
/// does, and mean something for those that keep counters outside of this process.
macro_rules! with_redis {
    ($(#[$of_struct:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$of_struct])*
        #[allow(dead_code)] // What belongs to other policies is read, and refused with them.
        pub struct $name {
            $($fields)*
            /// Where Redis is.
            redis_host: Option<$crate::model::field::ShortText>,
            /// The port of Redis.
            redis_port: Option<$crate::model::field::Port>,
            /// The user of Redis.
            redis_username: Option<String>,
            /// The password of Redis.
            redis_password: Option<String>,
            /// The number of the database.
            redis_database: Option<$crate::model::field::InRange<0, { $crate::plugin::limits::AMOUNT_MAX }>>,
            /// Milliseconds that Redis may take.
            redis_timeout: Option<$crate::model::field::InRange<1, { $crate::plugin::limits::AMOUNT_MAX }>>,
            /// Is TLS spoken with Redis?
            redis_ssl: Option<bool>,
            /// Is the certificate of Redis checked?
            redis_ssl_verify: Option<bool>,
            /// Milliseconds that an idle connection to Redis is kept.
            redis_keepalive_timeout: Option<$crate::model::field::InRange<1, { $crate::plugin::limits::AMOUNT_MAX }>>,
            /// Most idle connections to Redis.
            redis_keepalive_pool: Option<$crate::model::field::InRange<1, { $crate::plugin::limits::AMOUNT_MAX }>>,
            /// Nodes of the cluster, as `host:port`.
            redis_cluster_nodes: Option<$crate::model::field::NonEmpty<$crate::model::field::ShortText>>,
            /// The name of the cluster.
            redis_cluster_name: Option<$crate::model::field::ShortText>,
            /// Is TLS spoken with the cluster?
            redis_cluster_ssl: Option<bool>,
            /// Are the certificates of the cluster checked?
            redis_cluster_ssl_verify: Option<bool>,
        }
    };
}
pub(crate) use with_redis;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;

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
    /// Refuses policies that keep counters outside of this process.
    ///
    /// # Errors
    /// Any other policy than `local`.
    pub fn is_here(self) -> Result<(), ConfigError> {
        match self {
            Self::Local => Ok(()),
            Self::Redis => Err(elsewhere("redis")),
            Self::RedisCluster => Err(elsewhere("redis-cluster")),
        }
    }
}

/// The refusal of a policy that keeps counters outside of this process.
pub fn elsewhere(policy: &str) -> ConfigError {
    let problem = format!("this build counts in its own process only: expected local, got {policy}");
    ConfigError::at("policy", problem)
}
