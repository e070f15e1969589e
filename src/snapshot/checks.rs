//! How the health of an upstream's nodes is told, compiled: what is asked, how often, and what answers mean.

use std::time::Duration;

use crate::link::health::{Rules, Statuses, Thresholds};
use crate::model::field::InRange;
use crate::model::upstream as model;

pub use crate::model::upstream::CheckScheme;

/// Shortest time between two checks of a node, whatever is asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The rules of one upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Checks {
    pub active: ActiveCheck,
    /// For the requests that are served.
    pub passive: Option<Rules>,
}

/// How nodes are asked.
#[derive(Debug, PartialEq, Eq)]
pub struct ActiveCheck {
    pub scheme: CheckScheme,
    /// How long connecting and answering may take together.
    pub timeout: Duration,
    /// Nodes asked at once.
    pub concurrency: usize,
    /// The `Host` sent, else the node's.
    pub host: Option<String>,
    /// The port asked, else the node's.
    pub port: Option<u16>,
    pub method: &'static str,
    pub path: String,
    pub body: String,
    /// Asked about by gRPC.
    pub grpc_service: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Whether a certificate is checked, with `https` and `grpcs`.
    pub is_verified: bool,
    /// Between two checks of a healthy node.
    pub healthy_every: Duration,
    /// Between two checks of an unhealthy one.
    pub unhealthy_every: Duration,
    pub rules: Rules,
}

impl Checks {
    /// `rewritten` is the `Host` that requests to the nodes carry, if it is always the same.
    pub(super) fn new(checks: &model::Checks, rewritten: Option<&str>) -> Self {
        let model::ActiveCheck { healthy, unhealthy, .. } = &checks.active;
        let rules = Rules {
            good: statuses(&healthy.http_statuses),
            bad: statuses(&unhealthy.http_statuses),
            thresholds: thresholds(
                healthy.successes.get(),
                [unhealthy.http_failures.get(), unhealthy.tcp_failures.get(), unhealthy.timeouts.get()],
            ),
        };
        let check = &checks.active;
        let active = ActiveCheck {
            scheme: check.scheme,
            timeout: check.timeout.get(),
            concurrency: check.concurrency.usize(),
            host: check.host.as_ref().map(|host| host.as_str()).or(rewritten).map(str::to_owned),
            port: check.port.map(|port| port.get()),
            method: check.http_method.text(),
            path: check.http_path.as_str().to_owned(),
            grpc_service: check.grpc_service.as_str().to_owned(),
            body: check.http_req_body.as_str().to_owned(),
            headers: check
                .req_headers
                .iter()
                .flat_map(|lines| lines.iter())
                .filter_map(|line| split(line))
                .collect(),
            is_verified: check.https_verify_certificate,
            healthy_every: healthy.interval.get().max(INTERVAL_MIN),
            unhealthy_every: unhealthy.interval.get().max(INTERVAL_MIN),
            rules,
        };
        Self { active, passive: checks.passive.as_ref().map(passive) }
    }
}

fn passive(check: &model::PassiveCheck) -> Rules {
    let model::PassiveCheck { healthy, unhealthy, .. } = check;
    Rules {
        good: statuses(&healthy.http_statuses),
        bad: statuses(&unhealthy.http_statuses),
        thresholds: thresholds(
            healthy.successes.get(),
            [unhealthy.http_failures.get(), unhealthy.tcp_failures.get(), unhealthy.timeouts.get()],
        ),
    }
}

/// Counts of at most 254, as the model has them.
const fn thresholds(successes: i64, [http_failures, tcp_failures, timeouts]: [i64; 3]) -> Thresholds {
    Thresholds {
        successes: successes as u8,
        http_failures: http_failures as u8,
        tcp_failures: tcp_failures as u8,
        timeouts: timeouts as u8,
    }
}

fn statuses(list: &[InRange<200, 599>]) -> Statuses {
    list.iter().map(|status| status.get() as u16).collect()
}

/// A line as name and value; the model has seen that it is one.
fn split(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}
