//! `graphql-limit-count`: what queries of GraphQL cost in a window of time, for each value of a key.
//!
//! ```yaml
//! plugins:
//!   graphql-limit-count:
//!     count: 100
//!     time_window: 60
//!     key: remote_addr
//!     rejected_code: 429
//! ```
//!
//! Counts as `limit-count` does, but what a query costs: how many fields stand in one another, or by `cost_strategy` what it asks for. A
//! request that is no query is refused: it would not be counted. Differs from APISIX: the node is not asked for its types, so fields have the
//! price of a type only where the query says it; operations that are not the one that is named cost nothing, and where none is named the
//! dearest counts; every request costs one at least; unknown fields are refused.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::exchange::graphql::{self, NoCost, Strategy, Unpriced};
use crate::exchange::{Exchange, Reply, SlotId};
use crate::plugin::count::{self, Counter, Metadata};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, Looking, Plugin, Step, Verdict};
use crate::runtime::LocalId;

const COST_HEADER: &str = "X-Graphql-Query-Cost";

/// What queries of GraphQL cost in a window of time, for each value of a key.
pub struct Config {
    own: Own,
    count: count::Config,
}

/// What it has beside what counting has.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Own {
    /// How a cost is reckoned.
    #[serde(default)]
    cost_strategy: CostStrategy,
    /// A query that costs more is refused with 403; it has been counted. 0: there is no such bound.
    #[serde(default)]
    #[schemars(extend("minimum" = 0))]
    max_cost: f64,
    /// What a cost is multiplied by before it is rounded up and counted.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    score_factor: f64,
    /// Do numbers count that variables stand for?
    #[serde(default = "yes")]
    resolve_variables: bool,
}

/// How a cost is reckoned.
#[derive(Clone, Copy, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum CostStrategy {
    /// How many fields stand in one another.
    #[default]
    Depth,
    /// All fields, each with what stands in it, by their prices.
    Complexity,
    /// The fields alone that say how many they ask for, each as often as it is resolved.
    NodeQuantifier,
}

const fn one() -> f64 {
    1.0
}

const fn yes() -> bool {
    true
}

const OWN: [&str; 4] = ["cost_strategy", "max_cost", "score_factor", "resolve_variables"];

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut own, mut others) = (Map::new(), Map::new());
        for (name, value) in Map::deserialize(deserializer)? {
            let part = if OWN.contains(&name.as_str()) { &mut own } else { &mut others };
            part.insert(name, value);
        }
        Ok(Self {
            own: serde_json::from_value(Value::Object(own)).map_err(D::Error::custom)?,
            count: serde_json::from_value(Value::Object(others)).map_err(D::Error::custom)?,
        })
    }
}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = count::Config::json_schema(generator);
        let mut own = Own::json_schema(generator);
        let own = own.ensure_object().shift_remove("properties");
        let fields = schema.ensure_object();
        let text = "What queries of GraphQL cost in a window of time, for each value of a key.";
        fields.insert("description".to_owned(), text.into());
        if let (Some(Value::Object(all)), Some(Value::Object(own))) = (fields.get_mut("properties"), own) {
            all.extend(own);
        }
        schema
    }
}

/// What the core reads.
pub struct GraphqlLimitCount {
    counter: Counter,
    strategy: Strategy,
    with_variables: bool,
    cost_max: Option<f64>,
    factor: f64,
    tell: bool,
    me: LocalId,
    seen: SlotId,
}

/// What a use said the query costs.
#[derive(Default)]
struct Seen(Vec<(LocalId, u64)>);

impl Plugin for GraphqlLimitCount {
    const NAME: &'static str = "graphql-limit-count";
    const PRIORITY: i32 = 1004;
    type Config = Config;
    type Metadata = Metadata;

    const ACCESS: Gate<Self> = Some(Self::spend);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);
    const LOOKING: Looking<Self> = Some(|this, look| this.counter.standing(look));

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let Config { own, count } = config;
        // A schema says so as well, but not everybody asks it.
        if own.max_cost < 0.0 {
            return Err(ConfigError::at("max_cost", format!("expected at least 0, got {}", own.max_cost)));
        }
        if own.score_factor <= 0.0 {
            let problem = format!("expected more than 0, got {}", own.score_factor);
            return Err(ConfigError::at("score_factor", problem));
        }
        let counter = Counter::compile(Self::NAME, &count, &metadata, cx)?;
        cx.needs_request_body(graphql::BYTES_MAX);
        Ok(Self {
            counter,
            strategy: match own.cost_strategy {
                CostStrategy::Depth => Strategy::Depth,
                CostStrategy::Complexity => Strategy::Complexity,
                CostStrategy::NodeQuantifier => Strategy::Quantifiers,
            },
            with_variables: own.resolve_variables,
            cost_max: (own.max_cost > 0.0).then_some(own.max_cost),
            factor: own.score_factor,
            tell: count.tells(),
            me: cx.local(),
            seen: cx.slot(),
        })
    }
}

impl GraphqlLimitCount {
    fn spend<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let priced = env.prices.and_then(|book| book.get(ex.route.service_id()));
        let cost = graphql::cost(&ex.request, (self.strategy, self.with_variables), priced.map(|prices| &**prices));
        let cost = match cost {
            Ok(cost) => cost * self.factor,
            Err(why) => return Step::Reply(refused(why)),
        };
        let is_over = self.cost_max.is_some_and(|most| cost > most);
        // A float beyond the largest number becomes that.
        let counted = (cost.ceil() as u64).clamp(1, u64::from(u32::MAX));
        if self.tell {
            ex.slots.of::<Seen>(self.seen).0.push((self.me, counted));
        }
        match self.counter.spend(ex, env, counted) {
            Step::Next if is_over => Step::Reply(over()),
            Step::Wait(counting) if is_over => Step::Wait(Box::pin(async move {
                match counting.await {
                    Verdict::Next => Verdict::Reply(over()),
                    refused @ Verdict::Reply(_) => refused,
                }
            })),
            step => step,
        }
    }

    fn tell(&self, ex: &mut Exchange, env: Env<'_>) {
        self.counter.tell(ex, env);
        let Exchange { slots, response, .. } = ex;
        let Some(seen) = slots.get::<Seen>(self.seen) else { return };
        if let Some((_, cost)) = seen.0.iter().find(|(by, _)| *by == self.me) {
            response.headers.set(COST_HEADER, itoa::Buffer::new().format(*cost).as_bytes());
        }
    }
}

fn over() -> Reply {
    Reply::error_msg(403, "the query costs more than max_cost")
}

fn refused(why: NoCost) -> Reply {
    let say = |what: &str| Reply::message(400, &format!("Invalid graphql request: {what}"));
    match why {
        NoCost::Method => Reply::status(405),
        NoCost::NoBody => say("can't get graphql request body"),
        NoCost::ContentType => say("error content-type, expected application/json or application/graphql"),
        NoCost::Json => say("the body is not JSON"),
        NoCost::NoQuery => say("json body[query] is nil"),
        NoCost::Empty => say("empty graphql query"),
        NoCost::Syntax | NoCost::Unpriced(Unpriced::Argument) => say("failed to parse graphql query"),
        NoCost::Unpriced(Unpriced::Fragment) => say("a fragment contains itself or is not there"),
        NoCost::Unpriced(Unpriced::NoOperation) => say("there is no operation"),
        NoCost::Unpriced(Unpriced::TooMuch) => say("the query is too deep or too long"),
    }
}

#[cfg(test)]
#[path = "graphql_limit_count/tests.rs"]
mod tests;
