//! How the health of nodes is told: by asking them (active) and by how requests fare (passive).

use serde::{Deserialize, Serialize};

use crate::base::text::{is_field_byte, is_token};
use crate::model::ConfigError;
use crate::model::field::{HostPattern, InRange, Port, Seconds, Text, Unique};
use crate::model::schema::shown_text;

/// A status that a node may answer with.
type Status = InRange<200, 599>;
/// How often something must happen to count.
type Threshold = InRange<1, 254>;
/// The same, and 0 switches it off.
type ThresholdOrOff = InRange<0, 254>;

/// How the health of nodes is told.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    /// Nodes are asked from time to time.
    pub active: ActiveCheck,
    /// Requests are watched.
    pub passive: Option<PassiveCheck>,
}

impl Checks {
    /// What could not be asked as it is written: every node would count as sick.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let at = |field: &str, expected: &str, found: &str| {
            let found = shown_text(found);
            ConfigError::at(format!("checks.active.{field}"), format!("expected {expected}, got {found}"))
        };
        let path = self.active.http_path.as_str();
        let is_path =
            path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let path = (!is_path).then(|| at("http_path", "a path such as /status, without spaces", path));
        let lines = self.active.req_headers.iter().flat_map(|lines| lines.iter()).enumerate();
        let lines = lines.filter(|(_, line)| !is_header(line));
        let lines = lines.map(|(place, line)| at(&format!("req_headers[{place}]"), "`Name: value`", line));
        path.into_iter().chain(lines).collect()
    }
}

fn is_header(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, value)| {
        is_token(name.trim().as_bytes()) && value.trim().bytes().all(is_field_byte)
    })
}

/// What a check speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum CheckScheme {
    #[default]
    Http,
    Https,
    Tcp,
    Grpc,
    Grpcs,
}

/// How nodes are asked.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveCheck {
    /// What is spoken; `tcp` only connects, `grpc` and `grpcs` (over TLS) ask by gRPC's own health checks.
    #[serde(rename = "type")]
    pub scheme: CheckScheme,
    /// How long an answer may take, in seconds.
    pub timeout: Seconds,
    /// How many nodes are asked at once, at most.
    pub concurrency: InRange<1, 1024>,
    /// The `Host` sent. Absent: the node's.
    pub host: Option<HostPattern>,
    /// The port asked. Absent: the node's.
    pub port: Option<Port>,
    /// The method of the request.
    pub http_method: CheckMethod,
    /// The path of the request.
    pub http_path: Text<1, 4096>,
    /// The body of the request.
    pub http_req_body: Text<0, 65536>,
    /// With `grpc` and `grpcs`: the service that is asked about. Empty: the node as a whole.
    pub grpc_service: Text<0, 256>,
    /// With `https` and `grpcs`: is the node's certificate checked?
    pub https_verify_certificate: bool,
    /// Further headers, each `Name: value`.
    pub req_headers: Option<Unique<Text<1, 4096>, 1>>,
    /// When a node counts as healthy again.
    pub healthy: ActiveHealthy,
    /// When a node counts as unhealthy.
    pub unhealthy: ActiveUnhealthy,
}

/// The method of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum CheckMethod {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Options,
}

impl CheckMethod {
    /// As it is sent.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
        }
    }
}

/// When an unhealthy node counts as healthy again.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveHealthy {
    /// Seconds between asking healthy nodes.
    pub interval: Seconds,
    /// The statuses that are good news.
    pub http_statuses: Unique<Status, 1>,
    /// How many in a row.
    pub successes: Threshold,
}

/// When a healthy node counts as unhealthy.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveUnhealthy {
    /// Seconds between asking unhealthy nodes.
    pub interval: Seconds,
    /// The statuses that are bad news.
    pub http_statuses: Unique<Status, 1>,
    /// How many bad statuses.
    pub http_failures: Threshold,
    /// How many failed connections.
    pub tcp_failures: Threshold,
    /// How many answers that did not come in time.
    pub timeouts: Threshold,
}

/// How requests are watched.
#[derive(Clone, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveCheck {
    /// What the requests speak.
    #[serde(rename = "type")]
    pub scheme: CheckScheme,
    /// When a node counts as healthy again.
    pub healthy: PassiveHealthy,
    /// When a node counts as unhealthy.
    pub unhealthy: PassiveUnhealthy,
}

/// Good news from requests.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveHealthy {
    /// The statuses that are good news.
    pub http_statuses: Unique<Status, 1>,
    /// How many in a row; 0: never.
    pub successes: ThresholdOrOff,
}

/// Bad news from requests.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PassiveUnhealthy {
    /// The statuses that are bad news.
    pub http_statuses: Unique<Status, 1>,
    /// How many failed connections; 0: never.
    pub tcp_failures: ThresholdOrOff,
    /// How many answers that did not come in time; 0: never.
    pub timeouts: ThresholdOrOff,
    /// How many bad statuses; 0: never.
    pub http_failures: ThresholdOrOff,
}

// The defaults are APISIX's.

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            scheme: CheckScheme::Http,
            timeout: Seconds::literal(1),
            concurrency: InRange::literal(10),
            host: None,
            port: None,
            http_method: CheckMethod::Get,
            http_path: Text::literal("/"),
            http_req_body: Text::literal(""),
            grpc_service: Text::literal(""),
            https_verify_certificate: true,
            req_headers: None,
            healthy: ActiveHealthy::default(),
            unhealthy: ActiveUnhealthy::default(),
        }
    }
}

impl Default for ActiveHealthy {
    fn default() -> Self {
        Self {
            interval: Seconds::literal(1),
            http_statuses: statuses(&[200, 302]),
            successes: InRange::literal(2),
        }
    }
}

impl Default for ActiveUnhealthy {
    fn default() -> Self {
        Self {
            interval: Seconds::literal(1),
            http_statuses: statuses(&[429, 404, 500, 501, 502, 503, 504, 505]),
            http_failures: InRange::literal(5),
            tcp_failures: InRange::literal(2),
            timeouts: InRange::literal(3),
        }
    }
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        let good: Vec<i64> = (200..=208).chain([226]).chain(300..=308).collect();
        Self { http_statuses: statuses(&good), successes: InRange::literal(5) }
    }
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        Self {
            http_statuses: statuses(&[429, 500, 503]),
            tcp_failures: InRange::literal(2),
            timeouts: InRange::literal(7),
            http_failures: InRange::literal(5),
        }
    }
}

fn statuses(statuses: &[i64]) -> Unique<Status, 1> {
    let statuses = statuses.iter().map(|status| Status::literal(*status)).collect();
    Unique::new(statuses).expect("the statuses above are some, and all different")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_could_not_be_asked_is_refused_where_it_is_written() {
        let faults = |active: Value| -> Vec<String> {
            let checks: Checks = serde_json::from_value(json!({"active": active})).expect("well formed");
            checks.faults().iter().map(ToString::to_string).collect()
        };
        let fine = json!({"http_path": "/status?full=1", "req_headers": ["A: b", "X-Empty:", "User-Agent: curl/7.29.0"]});
        assert_eq!(faults(fine), Vec::<String>::new());
        assert_eq!(
            faults(json!({"http_path": "my status", "req_headers": ["A: b", "no header", "bad name: x"]})),
            [
                "checks.active.http_path: expected a path such as /status, without spaces, got \"my status\"",
                "checks.active.req_headers[1]: expected `Name: value`, got \"no header\"",
                "checks.active.req_headers[2]: expected `Name: value`, got \"bad name: x\"",
            ]
        );
    }
}
