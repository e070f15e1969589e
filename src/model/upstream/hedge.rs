//! Hedging: a second node is asked where the first is late, and the first answer counts. Not in APISIX.

use serde::{Deserialize, Serialize};

use crate::model::field::{InRange, Seconds};

/// When a second node is asked for the same, of requests that are idempotent and have no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// Seconds without an answer after which it is asked.
    pub delay: Seconds,
    /// Where that many answers of a hundred begin sooner, by what was measured of late, counts in place of `delay` once it is
    /// known. Absent: always `delay`.
    pub percentile: Option<InRange<50, 99>>,
    /// Most requests that are asked for twice, in percent of all that could be.
    #[serde(default = "tenth")]
    pub budget_percent: InRange<1, 100>,
}

const fn tenth() -> InRange<1, 100> {
    InRange::literal(10)
}
