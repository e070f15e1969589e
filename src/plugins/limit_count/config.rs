//! What a user of `limit-count` writes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::model::field::{HeaderName, InRange, NonEmpty, Port, ShortText, Text};

/// Most of either requests or seconds.
pub(super) const AMOUNT_MAX: i64 = u32::MAX as i64;

/// What the user writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["count", "time_window"]}, {"required": ["rules"]}],
    "dependentRequired" = {"count": ["time_window"], "time_window": ["count"]}
))]
#[allow(dead_code)] // What belongs to the other policies is read, and refused with them.
pub struct Config {
    /// How many requests a window admits; a number or a template.
    pub(super) count: Option<Amount>,
    /// How many seconds a window lasts; a number or a template.
    pub(super) time_window: Option<Amount>,
    /// Several limits, instead of `count` and `time_window`.
    pub(super) rules: Option<NonEmpty<Rule>>,
    /// `fixed` windows begin with the first request of a key; `sliding` ones move with time.
    #[serde(default)]
    pub(super) window_type: WindowType,
    /// What is counted apart; a request without a value is counted by its address.
    #[serde(default = "remote_addr")]
    pub(super) key: Text<1, 4096>,
    /// Whether `key` is the name of a variable, a template, or one counter for all.
    #[serde(default)]
    pub(super) key_type: KeyType,
    /// Uses with the same group share their counters, and must be configured alike.
    pub(super) group: Option<ShortText>,
    /// The status of a refusal.
    #[serde(default = "unavailable")]
    pub(super) rejected_code: InRange<200, 599>,
    /// What a refused client is told.
    pub(super) rejected_msg: Option<Text<1, 4096>>,
    /// Where counters are kept; `local` is this process.
    #[serde(default)]
    pub(super) policy: Policy,
    /// Whether requests pass when their limit cannot be told.
    #[serde(default)]
    pub(super) allow_degradation: bool,
    /// Whether answers say what is left.
    #[serde(default = "yes")]
    pub(super) show_limit_quota_header: bool,
    /// For policies other than `local`, as are all below.
    sync_interval: Option<f64>,
    redis_host: Option<ShortText>,
    redis_port: Option<Port>,
    redis_username: Option<String>,
    redis_password: Option<String>,
    redis_database: Option<InRange<0, AMOUNT_MAX>>,
    redis_timeout: Option<InRange<1, AMOUNT_MAX>>,
    redis_ssl: Option<bool>,
    redis_ssl_verify: Option<bool>,
    redis_keepalive_timeout: Option<InRange<1, AMOUNT_MAX>>,
    redis_keepalive_pool: Option<InRange<1, AMOUNT_MAX>>,
    redis_cluster_nodes: Option<NonEmpty<ShortText>>,
    redis_cluster_name: Option<ShortText>,
    redis_cluster_ssl: Option<bool>,
    redis_cluster_ssl_verify: Option<bool>,
    redis_sentinels: Option<NonEmpty<Sentinel>>,
    redis_master_name: Option<ShortText>,
    redis_role: Option<ShortText>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    redis_connect_timeout: Option<InRange<1, AMOUNT_MAX>>,
    redis_read_timeout: Option<InRange<1, AMOUNT_MAX>>,
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Rule {
    /// How many requests a window admits; a number or a template.
    pub(super) count: Amount,
    /// How many seconds a window lasts; a number or a template.
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
    host: ShortText,
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
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum WindowType {
    #[default]
    Fixed,
    Sliding,
}

/// What `key` is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum KeyType {
    #[default]
    Var,
    VarCombination,
    Constant,
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Policy {
    #[default]
    Local,
    Redis,
    RedisCluster,
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

/// What the user writes once for all uses.
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
