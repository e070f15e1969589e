//! What a user of `limit-count` writes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::model::field::{HeaderName, InRange, NonEmpty, Port, ShortText, Text};

/// Most of either requests or seconds.
pub(super) const AMOUNT_MAX: i64 = u32::MAX as i64;

/// So many requests in a window of time, for each value of a key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["count", "time_window"]}, {"required": ["rules"]}],
    "dependentRequired" = {"count": ["time_window"], "time_window": ["count"]}
))]
#[allow(dead_code)] // What belongs to the other policies is read, and refused with them.
pub struct Config {
    /// How many requests a window admits.
    pub(super) count: Option<Amount>,
    /// How many seconds a window lasts.
    pub(super) time_window: Option<Amount>,
    /// Several limits, asked one after the other, in place of `count` and `time_window`.
    pub(super) rules: Option<NonEmpty<Rule>>,
    /// How windows lie in time.
    #[serde(default)]
    pub(super) window_type: WindowType,
    /// What is counted apart: as `key_type` says the name of a variable, or a template. A request without a value is
    /// counted by its address.
    #[serde(default = "remote_addr")]
    pub(super) key: Text<1, 4096>,
    /// What `key` is.
    #[serde(default)]
    pub(super) key_type: KeyType,
    /// Uses with the same group share their counters, and must be configured alike.
    pub(super) group: Option<ShortText>,
    /// The status of a refusal.
    #[serde(default = "unavailable")]
    pub(super) rejected_code: InRange<200, 599>,
    /// What a refused client is told, as `{"error_msg":"…"}`. Absent: the page of the status.
    pub(super) rejected_msg: Option<Text<1, 4096>>,
    /// Where counters are kept; only `local` is accepted.
    #[serde(default)]
    pub(super) policy: Policy,
    /// Do requests pass whose count or window does not come to a number?
    #[serde(default)]
    pub(super) allow_degradation: bool,
    /// Do answers say what is left?
    #[serde(default = "yes")]
    pub(super) show_limit_quota_header: bool,
    /// Seconds between two exchanges with Redis. Like all that follows it is for policies other than `local`, and has
    /// no effect.
    sync_interval: Option<f64>,
    /// Where Redis is.
    redis_host: Option<ShortText>,
    /// The port of Redis.
    redis_port: Option<Port>,
    /// The user of Redis.
    redis_username: Option<String>,
    /// The password of Redis.
    redis_password: Option<String>,
    /// The number of the database.
    redis_database: Option<InRange<0, AMOUNT_MAX>>,
    /// Milliseconds that Redis may take.
    redis_timeout: Option<InRange<1, AMOUNT_MAX>>,
    /// Is TLS spoken with Redis?
    redis_ssl: Option<bool>,
    /// Is the certificate of Redis checked?
    redis_ssl_verify: Option<bool>,
    /// Milliseconds that an idle connection to Redis is kept.
    redis_keepalive_timeout: Option<InRange<1, AMOUNT_MAX>>,
    /// Most idle connections to Redis.
    redis_keepalive_pool: Option<InRange<1, AMOUNT_MAX>>,
    /// Nodes of the cluster, as `host:port`.
    redis_cluster_nodes: Option<NonEmpty<ShortText>>,
    /// The name of the cluster.
    redis_cluster_name: Option<ShortText>,
    /// Is TLS spoken with the cluster?
    redis_cluster_ssl: Option<bool>,
    /// Are the certificates of the cluster checked?
    redis_cluster_ssl_verify: Option<bool>,
    /// Where the sentinels are.
    redis_sentinels: Option<NonEmpty<Sentinel>>,
    /// The name of the master that the sentinels watch.
    redis_master_name: Option<ShortText>,
    /// Whether the master or a slave is asked.
    redis_role: Option<ShortText>,
    /// The user of the sentinels.
    sentinel_username: Option<String>,
    /// The password of the sentinels.
    sentinel_password: Option<String>,
    /// Milliseconds that connecting to Redis may take.
    redis_connect_timeout: Option<InRange<1, AMOUNT_MAX>>,
    /// Milliseconds that an answer of Redis may take.
    redis_read_timeout: Option<InRange<1, AMOUNT_MAX>>,
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Rule {
    /// How many requests a window admits.
    pub(super) count: Amount,
    /// How many seconds a window lasts.
    pub(super) time_window: Amount,
    /// What is counted apart; a template.
    pub(super) key: Text<1, 4096>,
    /// What stands for the rule in the names of headers, `X-<prefix>-RateLimit-Limit`; its number otherwise.
    pub(super) header_prefix: Option<HeaderName>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
#[allow(dead_code)] // See `Config`.
struct Sentinel {
    /// The host of a sentinel.
    host: ShortText,
    /// The port of a sentinel.
    port: Port,
}

/// A number, or a template that comes to one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Amount {
    Number(InRange<1, AMOUNT_MAX>),
    Template(Text<1, 256>),
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-expected": "a whole number above 0 or a template",
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": AMOUNT_MAX },
                { "type": "string", "minLength": 1, "maxLength": 256 },
            ],
        })
    }
}

/// How windows lie in time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum WindowType {
    /// One begins with the first request of a key.
    #[default]
    Fixed,
    /// It moves with time: the window before counts in proportion.
    Sliding,
}

/// What `key` is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A template.
    VarCombination,
    /// Anything: one counter for all.
    Constant,
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Policy {
    /// In this process, exactly over all cores.
    #[default]
    Local,
    /// In a Redis.
    Redis,
    /// In a cluster of Redis.
    RedisCluster,
    /// In a Redis behind sentinels.
    RedisSentinel,
}

impl Policy {
    /// The name of a policy that keeps counters outside of this process.
    pub(super) const fn elsewhere(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Redis => Some("redis"),
            Self::RedisCluster => Some("redis-cluster"),
            Self::RedisSentinel => Some("redis-sentinel"),
        }
    }
}

/// The names of the headers that say what is left.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// The header that says how many requests a window admits.
    pub(super) limit_header: HeaderName,
    /// The header that says how many are left.
    pub(super) remaining_header: HeaderName,
    /// The header that says in how many seconds the window ends.
    pub(super) reset_header: HeaderName,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            limit_header: HeaderName::literal("X-RateLimit-Limit"),
            remaining_header: HeaderName::literal("X-RateLimit-Remaining"),
            reset_header: HeaderName::literal("X-RateLimit-Reset"),
        }
    }
}

fn remote_addr() -> Text<1, 4096> {
    Text::literal("remote_addr")
}

const fn unavailable() -> InRange<200, 599> {
    InRange::literal(503)
}

const fn yes() -> bool {
    true
}
