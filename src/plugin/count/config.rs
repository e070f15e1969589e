//! What a user of plugins that count writes.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::field::{HeaderName, InRange, NonEmpty, Port, Secret, ShortText, Text};
use crate::plugin::limits::{AMOUNT_MAX, Amount};
use crate::plugin::redis::{self, OfSentinels, Store, with_redis};
use crate::plugin::{CompileCx, ConfigError};

with_redis! {
/// So many requests in a window of time, for each value of a key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["count", "time_window"]}, {"required": ["rules"]}],
    "dependentRequired" = {"count": ["time_window"], "time_window": ["count"]}
))]
pub struct Config {
    /// How many requests a window admits.
    pub(super) count: Option<Amount<1>>,
    /// How many seconds a window lasts.
    pub(super) time_window: Option<Amount<1>>,
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
    /// Where counters are kept.
    #[serde(default)]
    pub(super) policy: Policy,
    /// Do requests pass whose count or window does not come to a number, and, unless `without_redis` says otherwise, when
    /// Redis gives no answer?
    #[serde(default)]
    pub(super) allow_degradation: bool,
    /// Do answers say what is left?
    #[serde(default = "yes")]
    pub(super) show_limit_quota_header: bool,
    /// Do answers say what is left in the fields `RateLimit` and `RateLimit-Policy` of the IETF as well? Not in APISIX.
    #[serde(default)]
    pub(super) ietf_headers: bool,
    /// -1: Redis is asked for every request. Otherwise a core takes several at once, and gives back what it has not used
    /// for so many seconds. Like all that follows this is for policies other than `local`.
    #[serde(default = "each_time")]
    #[schemars(extend(
        "anyOf" = [{"minimum": -1, "maximum": -1}, {"minimum": 0.1, "maximum": AMOUNT_MAX}],
        "x-expected" = "-1 or a number of at least 0.1"
    ))]
    sync_interval: f64,
    /// Where the sentinels are.
    redis_sentinels: Option<NonEmpty<Sentinel>>,
    /// The name of the master, as the sentinels have it.
    redis_master_name: Option<ShortText>,
    /// Who is asked; only `master` is accepted, because counters are written.
    #[serde(default)]
    redis_role: Role,
    /// The user of the sentinels.
    sentinel_username: Option<String>,
    /// The password of the sentinels.
    #[schemars(extend("minLength" = 0))]
    sentinel_password: Option<Secret>,
    /// Milliseconds that connecting may take, to sentinels and the master together. This and the next are for
    /// `redis-sentinel`, in place of `redis_timeout`.
    #[serde(default = "redis::timeout")]
    redis_connect_timeout: InRange<1, AMOUNT_MAX>,
    /// Milliseconds that an answer of the master may take.
    #[serde(default = "redis::timeout")]
    redis_read_timeout: InRange<1, AMOUNT_MAX>,
}
}

impl Config {
    /// The Redis that keeps the counters; `None` where they are kept here.
    pub(super) fn store(&self, cx: &mut CompileCx<'_>) -> Result<Option<Arc<Store>>, ConfigError> {
        let policy = match self.policy {
            Policy::Local => redis::Policy::Local,
            Policy::Redis => redis::Policy::Redis,
            Policy::RedisCluster => redis::Policy::RedisCluster,
            Policy::RedisSentinel => {
                return Store::watched(&self.redis(), &self.sentinels(), cx)
                    .map(|store| Some(Arc::new(store)));
            }
        };
        policy.store(&self.redis(), cx)
    }

    /// For how long what was taken from Redis is held; `None` when nothing is.
    pub(super) fn interval(&self) -> Result<Option<Duration>, ConfigError> {
        let seconds = self.sync_interval;
        if (0.1..=AMOUNT_MAX as f64).contains(&seconds) {
            return Ok(Some(Duration::from_secs_f64(seconds)));
        }
        if (-1.0..=-1.0).contains(&seconds) {
            return Ok(None);
        }
        let problem = format!("expected -1 or a number of at least 0.1, got {seconds}");
        Err(ConfigError::at("sync_interval", problem))
    }

    /// Whether answers say what is left.
    pub const fn tells(&self) -> bool {
        self.show_limit_quota_header
    }

    fn sentinels(&self) -> OfSentinels<'_> {
        let sentinels = self.redis_sentinels.as_deref();
        OfSentinels {
            at: sentinels.map(|all| all.iter().map(|one| (one.host.as_str(), one.port.get())).collect()),
            master: self.redis_master_name.as_deref(),
            is_for_slave: matches!(self.redis_role, Role::Slave),
            username: self.sentinel_username.as_deref(),
            password: self.sentinel_password.as_ref().map(|secret| secret.expose()),
            connect: self.redis_connect_timeout,
            read: self.redis_read_timeout,
        }
    }
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Rule {
    /// How many requests a window admits.
    pub(super) count: Amount<1>,
    /// How many seconds a window lasts.
    pub(super) time_window: Amount<1>,
    /// What is counted apart; a template.
    pub(super) key: Text<1, 4096>,
    /// What stands for the rule in the names of headers, `X-<prefix>-RateLimit-Limit`; its number otherwise.
    pub(super) header_prefix: Option<HeaderName>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Sentinel {
    /// The host of a sentinel.
    host: ShortText,
    /// The port of a sentinel.
    port: Port,
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
    /// It moves with time, and each request counts for exactly as long as it lasts: for a `count` of at most 16, windows below an
    /// hour and policy `local`. Not in APISIX.
    Log,
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

/// Who of those that sentinels watch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Role {
    /// The one that takes what is written.
    #[default]
    Master,
    /// One that has a copy.
    Slave,
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

const fn each_time() -> f64 {
    -1.0
}

const fn yes() -> bool {
    true
}
