//! How many requests an upstream is given at once, learnt from how quickly it answers. Not in APISIX.

use serde::{Deserialize, Serialize};

use crate::model::ConfigError;
use crate::model::field::{InRange, NonEmpty, ShortText};

/// How many requests the nodes together are given at once; what comes beyond is answered 503.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// The limit is never below that.
    pub min: InRange<1, 1_000_000>,
    /// The limit is never above that.
    pub max: InRange<1, 1_000_000>,
    /// The limit at the start.
    pub initial: InRange<1, 1_000_000>,
    /// By how many percent answers may be slower than the quickest of late before the limit shrinks.
    pub tolerance_percent: InRange<0, 1000>,
    /// Which requests are refused before others. Absent: all are alike.
    pub priority: Option<Priority>,
}

/// Which requests are refused before others.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Priority {
    /// The variable that tells it: `http_x_priority` for the header `X-Priority`.
    pub variable: ShortText,
    /// Its values that are of low priority.
    pub low: NonEmpty<ShortText>,
    /// The share of the limit, in percent, up to which requests of low priority are let in.
    #[serde(default = "half")]
    pub low_percent: InRange<1, 100>,
}

const fn half() -> InRange<1, 100> {
    InRange::literal(50)
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            min: InRange::literal(4),
            max: InRange::literal(1000),
            initial: InRange::literal(20),
            tolerance_percent: InRange::literal(50),
            priority: None,
        }
    }
}

impl Concurrency {
    /// What contradicts itself.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let (min, initial, max) = (self.min.get(), self.initial.get(), self.max.get());
        let holds = min <= initial && initial <= max;
        let problem = format!("expected min <= initial <= max, got {min}, {initial} and {max}");
        (!holds).then(|| ConfigError::at("concurrency", problem)).into_iter().collect()
    }
}
