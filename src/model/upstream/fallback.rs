//! What is answered, or asked, when the nodes of an upstream do not serve. Not in APISIX.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::text::{is_field_byte, is_token};
use crate::model::ConfigError;
use crate::model::field::{InRange, ObjectId, Text, Unique};
use crate::model::schema::shown_text;

/// What serves when the nodes do not: another upstream, or an answer.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{ "required": ["upstream_id"] }, { "required": ["status"] }],
    "dependentRequired" = { "body": ["status"], "headers": ["status"] },
))]
pub struct Fallback {
    /// The upstream that is asked in place of this one. Its own fallback does not count then.
    pub upstream_id: Option<ObjectId>,
    /// The status of the answer.
    pub status: Option<InRange<200, 599>>,
    /// The body of the answer. Absent: none.
    pub body: Option<Text<0, 65536>>,
    /// Headers of the answer.
    pub headers: Option<BTreeMap<String, Text<0, 4096>>>,
    /// What it is for.
    #[serde(default = "all_faults")]
    pub on: Unique<FallbackOn, 1>,
    /// The statuses of nodes in whose place it is taken, too. Absent: none.
    pub statuses: Option<Unique<InRange<500, 599>, 1>>,
}

/// What a fallback is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum FallbackOn {
    /// No node could be reached, or none kept its connection until it had answered.
    Connect,
    /// No node has answered in time.
    Timeout,
    /// There is no node, or each is unhealthy or ejected; then none is asked.
    Unhealthy,
    /// As many requests are under way as `concurrency` lets in; not unless it is written.
    Overload,
}

fn all_faults() -> Unique<FallbackOn, 1> {
    let all = vec![FallbackOn::Connect, FallbackOn::Timeout, FallbackOn::Unhealthy];
    Unique::new(all).expect("no two are alike")
}

/// Headers that say where a body ends, or are one connection's: the gateway's own.
const FRAMING: [&str; 5] = ["connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"];

impl Fallback {
    /// Headers that can not be sent.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        for (name, value) in self.headers.iter().flatten() {
            let is_name = is_token(name.as_bytes()) && name.len() <= 256;
            if !is_name || FRAMING.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
                let problem = format!(
                    "expected names of headers that do not frame the answer, got {}",
                    shown_text(name)
                );
                faults.push(ConfigError::at("fallback.headers", problem));
            } else if !value.bytes().all(is_field_byte) {
                let problem = format!("expected one line of text, got {}", shown_text(value));
                faults.push(ConfigError::at(format!("fallback.headers.{name}"), problem));
            }
        }
        faults
    }
}
