//! What a user of `limit` writes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::window::quota::Unit;
use crate::model::field::{InRange, NonEmpty, Seconds, Text};
use crate::plugin::limits::{AMOUNT_MAX, Amount};

/// Limits with names, several windows each, of which all or none count a request, and bodies that pass slowly.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The limits, each with a name of its own; at most 16. A request must be within all of them.
    pub(super) limits: NonEmpty<Limit>,
    /// What a request costs: a number, or a template that comes to one. Seats cost one.
    #[serde(default = "one")]
    pub(super) cost: Amount<0>,
    /// What a request costs whose `cost` does not come to a number.
    #[serde(default = "one_number")]
    pub(super) cost_default: InRange<0, AMOUNT_MAX>,
    /// What it has really cost, asked when it is over: a template such as `$upstream_http_x_cost`. The difference is given
    /// back, or taken. Where it does not come to a number, `cost` stands.
    pub(super) settle: Option<Text<1, 256>>,
    /// What becomes of requests beyond a limit.
    #[serde(default)]
    pub(super) mode: Mode,
    /// Other amounts for some consumers and groups.
    #[serde(default)]
    pub(super) tiers: Tiers,
    /// Have requests wait for room instead of refusing them.
    pub(super) wait: Option<Wait>,
    /// The status of a refusal.
    #[serde(default = "too_many")]
    pub(super) rejected_code: InRange<200, 599>,
    /// What a refused client is told, as `{"error_msg":"…"}`. Absent: the page of the status.
    pub(super) rejected_msg: Option<Text<1, 4096>>,
    /// Is every refusal told as problem details? If not, only those are who accept `application/problem+json`.
    #[serde(default)]
    pub(super) problem_details: bool,
    /// How answers say what is left.
    #[serde(default)]
    pub(super) headers: Headers,
}

/// One limit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Limit {
    /// What it is called in headers, metrics and logs: letters, digits, `_`, `-` and `.`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9_.-]+$", "x-expected" = "letters, digits, _, - and ."))]
    pub(super) name: Text<1, 64>,
    /// What is counted apart: as `key_type` says the name of a variable, a template, or anything.
    #[serde(default = "remote_addr")]
    pub(super) key: Text<1, 4096>,
    /// What `key` is.
    #[serde(default)]
    pub(super) key_type: KeyType,
    /// What a request is whose key has no value.
    #[serde(default)]
    pub(super) without_key: WithoutKey,
    /// Do all uses of the plugin count together that have a limit of this name with such a key?
    #[serde(default)]
    pub(super) shared: bool,
    /// So much in each window of time; at most 8.
    pub(super) windows: Option<NonEmpty<Window>>,
    /// So much a second, with bursts.
    pub(super) rate: Option<Rate>,
    /// So many requests at once.
    pub(super) concurrency: Option<InRange<1, AMOUNT_MAX>>,
    /// How fast bodies pass.
    pub(super) bandwidth: Option<Bandwidth>,
    /// What becomes of requests beyond this limit, if not what `mode` of the plugin says.
    pub(super) mode: Option<Mode>,
}

/// Other amounts of a limit.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Amounts {
    /// So much in each window of time; at most 8.
    pub(super) windows: Option<NonEmpty<Window>>,
    /// So much a second, with bursts.
    pub(super) rate: Option<Rate>,
    /// So many requests at once.
    pub(super) concurrency: Option<InRange<1, AMOUNT_MAX>>,
    /// How fast bodies pass.
    pub(super) bandwidth: Option<Bandwidth>,
}

/// A window of time: `per` a stretch of the calendar, or so many `seconds` from the first request on.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("oneOf" = [{"required": ["per"]}, {"required": ["seconds"]}]))]
pub(super) struct Window {
    /// How much a window admits.
    pub(super) count: InRange<1, AMOUNT_MAX>,
    /// The stretch of the calendar, in UTC, that a window is.
    pub(super) per: Option<Per>,
    /// How many seconds a window lasts that begins with its first request.
    pub(super) seconds: Option<InRange<1, AMOUNT_MAX>>,
}

/// A rate, and how much may come at once.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Rate {
    /// How much comes in each `per`.
    #[schemars(extend("exclusiveMinimum" = 0, "x-expected" = "a number above 0"))]
    pub(super) count: f64,
    /// What `count` is for.
    #[serde(default)]
    pub(super) per: Per,
    /// How much is kept of what was not used. Absent: what comes in a second, and one at least.
    pub(super) burst: Option<InRange<1, AMOUNT_MAX>>,
}

/// Bytes of bodies, of all requests with a key together.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("anyOf" = [{"required": ["up"]}, {"required": ["down"]}]))]
pub(super) struct Bandwidth {
    /// What clients send.
    pub(super) up: Option<Stream>,
    /// What clients get.
    pub(super) down: Option<Stream>,
}

/// Least bytes a second: slower, and a piece of a body takes seconds.
const BYTES_MIN: i64 = 1024;
/// Most: a terabyte.
const BYTES_MAX: i64 = 1 << 40;

/// So many bytes a second.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Stream {
    /// How many bytes pass in a second.
    pub(super) bytes: InRange<BYTES_MIN, BYTES_MAX>,
    /// How many pass at once, where fewer passed before. Absent: what passes in a second.
    pub(super) burst: Option<InRange<1, BYTES_MAX>>,
}

/// A stretch of the calendar.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Per {
    #[default]
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

impl Per {
    pub(super) const fn unit(self) -> Unit {
        match self {
            Self::Second => Unit::Second,
            Self::Minute => Unit::Minute,
            Self::Hour => Unit::Hour,
            Self::Day => Unit::Day,
            Self::Month => Unit::Month,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What a `key` is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A template.
    VarCombination,
    /// The same for all requests.
    Constant,
}

/// What a request is whose key has no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum WithoutKey {
    /// It is counted by its address.
    #[default]
    Address,
    /// It is none of the limit's business.
    Pass,
}

/// What becomes of requests beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Mode {
    /// They are refused.
    #[default]
    Enforce,
    /// They pass, and it is told that they would have been refused.
    Shadow,
}

/// Other amounts for some consumers and groups.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub(super) struct Tiers {
    /// By consumer, by limit: what holds in place of the limit's own amounts.
    pub(super) consumers: BTreeMap<String, BTreeMap<String, Amounts>>,
    /// By consumer group, for consumers that are not named themselves.
    pub(super) consumer_groups: BTreeMap<String, BTreeMap<String, Amounts>>,
}

/// Waiting for room.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Wait {
    /// Seconds that a request waits at most.
    #[serde(rename = "for")]
    pub(super) time: Seconds,
    /// How many requests wait at once, in the whole process; more are refused.
    #[serde(default = "hundred")]
    pub(super) at_most: InRange<1, 10_000>,
}

/// How answers say what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Headers {
    /// `RateLimit` and `RateLimit-Policy`, with each limit.
    #[default]
    Ietf,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, of the limit with least left.
    XRatelimit,
    /// Not at all.
    None,
}

fn remote_addr() -> Text<1, 4096> {
    Text::literal("remote_addr")
}

const fn too_many() -> InRange<200, 599> {
    InRange::literal(429)
}

const fn one() -> Amount<0> {
    Amount::Number(InRange::literal(1))
}

const fn one_number() -> InRange<0, AMOUNT_MAX> {
    InRange::literal(1)
}

const fn hundred() -> InRange<1, 10_000> {
    InRange::literal(100)
}
