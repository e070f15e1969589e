//! How long requests may take in all, and how long is waited between tries. Not in APISIX.

use serde::{Deserialize, Serialize};

use crate::model::ConfigError;
use crate::model::field::Seconds;

/// Longest wait between two tries, in seconds.
const BACKOFF_SECONDS_MAX: u64 = 60;

/// How long a request may take, whatever is sent and received meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// Seconds for all tries together, to the last byte of the answer. Absent: no bound.
    pub total: Option<Seconds>,
    /// Seconds for one try, from choosing the node until its answer begins. Absent: what `timeout` leaves.
    pub per_try: Option<Seconds>,
    /// Does the client bound it, too, by `X-Request-Deadline` (milliseconds) or `grpc-timeout`? The node is told what is left.
    #[serde(default)]
    pub from_client: bool,
}

/// How long is waited before another try: by chance from nothing to `base`, doubled with each try, `max` at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Seconds that the first wait has at most.
    pub base: Seconds,
    /// Seconds that any wait has at most; no more than 60.
    #[serde(default = "second")]
    pub max: Seconds,
}

const fn second() -> Seconds {
    Seconds::literal(1)
}

impl Deadlines {
    /// What bounds nothing.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let is_empty = self.total.is_none() && self.per_try.is_none() && !self.from_client;
        let problem = "expected one of total, per_try and from_client: true, got none";
        is_empty.then(|| ConfigError::at("deadlines", problem)).into_iter().collect()
    }
}

impl Backoff {
    /// What holds requests too long.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.max.get().as_secs_f64() > BACKOFF_SECONDS_MAX as f64 {
            let problem = format!("expected at most {BACKOFF_SECONDS_MAX} seconds, got more");
            faults.push(ConfigError::at("retry_backoff.max", problem));
        }
        if self.base.get() > self.max.get() {
            faults.push(ConfigError::at("retry_backoff.base", "expected at most max, got more"));
        }
        faults
    }
}
