//! Outlier ejection: nodes that fail, or fail more than others, get no requests for a while. Not in APISIX.

use serde::{Deserialize, Serialize};

use crate::model::ConfigError;
use crate::model::field::{InRange, Seconds};

/// Which nodes are taken out for a while by how requests to them fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outliers {
    /// How many answers of 500 or more, or failures to answer, in a row; 0: never.
    pub consecutive_5xx: InRange<0, 1_000_000>,
    /// How many answers of 502, 503 or 504, or failures to answer, in a row; 0: never.
    pub consecutive_gateway_failures: InRange<0, 1_000_000>,
    /// When a node does less well than the others. Absent: that is not compared.
    pub success_rate: Option<SuccessRate>,
    /// Seconds that the first time lasts, and by which each further one is longer.
    pub base_time: Seconds,
    /// Seconds that it lasts at most; who does well for so long begins with `base_time` again.
    pub max_time: Seconds,
    /// Most nodes that are out at once, in percent.
    pub max_percent: InRange<1, 100>,
}

/// When a node does less well than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SuccessRate {
    /// The share of its answers below 500, in percent of what the others together have, below which it is out.
    pub percent_of_others: InRange<1, 100>,
    /// How many requests it must have had, and the others together, within the interval.
    pub min_requests: InRange<1, 1_000_000>,
    /// Seconds over which is counted.
    pub interval: Seconds,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            consecutive_5xx: InRange::literal(5),
            consecutive_gateway_failures: InRange::literal(5),
            success_rate: None,
            base_time: Seconds::literal(30),
            max_time: Seconds::literal(300),
            max_percent: InRange::literal(50),
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            percent_of_others: InRange::literal(80),
            min_requests: InRange::literal(100),
            interval: Seconds::literal(10),
        }
    }
}

impl Outliers {
    /// What contradicts itself.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.max_time.get() < self.base_time.get() {
            let problem = "expected no less than base_time, got less";
            faults.push(ConfigError::at("outliers.max_time", problem));
        }
        if self.consecutive_5xx.get() == 0
            && self.consecutive_gateway_failures.get() == 0
            && self.success_rate.is_none()
        {
            let problem =
                "expected one of consecutive_5xx, consecutive_gateway_failures and success_rate, got none";
            faults.push(ConfigError::at("outliers", problem));
        }
        faults
    }
}
