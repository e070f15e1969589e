//! `api-breaker`: keeps requests away from an upstream that answers badly, for longer each time.
//!
//! ```yaml
//! plugins:
//!   api-breaker:
//!     break_response_code: 503
//!     break_response_body: '{"error": "try again later"}'
//!     break_response_headers: [{key: Content-Type, value: application/json}]
//!     unhealthy: {http_statuses: [500, 502, 503], failures: 3}
//!     healthy: {http_statuses: [200], successes: 1}
//! ```
//!
//! Every `failures`-th bad status opens it, for 2, 4, 8 … seconds, at most `max_breaker_sec`; `successes` good ones in a
//! row let it forget. It is one for the process: all cores count in the same words. Costs a look-up before and one
//! after a request. Differs from APISIX: one breaker for each use and route, where APISIX has one for each host and
//! path that anybody asks for, without a bound; unknown fields are refused.

use std::cell::RefCell;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, Reply};
use crate::link::breaker::ANSWERS_MAX;
use crate::link::ledger::{Account, Name, Purse};
use crate::link::outbox::Level;
use crate::model::field::{HeaderName, InRange, Text, Unique};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Observe, Plugin, Step};
use crate::runtime::LocalId;

type Answers = InRange<1, { ANSWERS_MAX as i64 }>;
/// Longest time that can be asked for.
const SECONDS_MAX: i64 = u32::MAX as i64;

/// Keeps requests away from an upstream that answers badly.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The status that is answered while requests are kept away.
    break_response_code: InRange<200, 599>,
    /// The body that is answered then. Absent: the page of the status.
    break_response_body: Option<String>,
    /// Headers that are answered then, if there is a `break_response_body`.
    #[serde(default)]
    break_response_headers: Vec<BreakHeader>,
    /// The longest that requests are kept away, in seconds.
    #[serde(default = "five_minutes")]
    max_breaker_sec: InRange<3, SECONDS_MAX>,
    /// What tells that the upstream is not well.
    #[serde(default)]
    unhealthy: Unhealthy,
    /// What tells that it is well again.
    #[serde(default)]
    healthy: Healthy,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct BreakHeader {
    /// The name.
    key: HeaderName,
    /// The value; a template.
    value: Text<1, 4096>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
struct Unhealthy {
    /// Statuses that count against the upstream.
    http_statuses: Unique<InRange<500, 599>, 1>,
    /// How many of them have requests kept away.
    failures: Answers,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
struct Healthy {
    /// Statuses that count for the upstream.
    http_statuses: Unique<InRange<200, 499>, 1>,
    /// How many of them, with none against it in between, let all be forgotten.
    successes: Answers,
}

/// What the core reads.
pub struct ApiBreaker {
    refusal: Reply,
    headers: HeaderChanges,
    longest: Duration,
    bad: Judgement,
    good: Judgement,
    /// What the names of its accounts begin with.
    scope: Vec<u8>,
    /// The object it stands in, for the log.
    owner: String,
    panel: LocalId,
}

/// Statuses, and how many of them it takes.
struct Judgement {
    statuses: Box<[u16]>,
    count: u64,
}

/// A core's way to the accounts.
struct Panel {
    purse: Purse,
    name: RefCell<Vec<u8>>,
}

impl Plugin for ApiBreaker {
    const NAME: &'static str = "api-breaker";
    const PRIORITY: i32 = 1005;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::admit);
    const LOG: Observe<Self> = Some(Self::count);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let lines = config.break_response_headers.into_iter();
        let lines = lines.map(|line| (line.key.to_string(), line.value.to_string()));
        let headers = HeaderEdits::adding(lines).compile().map_err(|fault| {
            let ConfigError { problem, .. } = fault;
            ConfigError::at("break_response_headers", problem)
        })?;
        let status = config.break_response_code.u16();
        let (refusal, headers) = match config.break_response_body {
            Some(body) => (Reply::bytes(status, body), headers),
            None => (Reply::status(status), HeaderChanges::default()),
        };
        let bad = config.unhealthy;
        let good = config.healthy;
        Ok(Self {
            refusal,
            headers,
            longest: Duration::from_secs(config.max_breaker_sec.u64()),
            bad: Judgement {
                statuses: bad.http_statuses.iter().map(|status| status.u16()).collect(),
                count: bad.failures.u64(),
            },
            good: Judgement {
                statuses: good.http_statuses.iter().map(|status| status.u16()).collect(),
                count: good.successes.u64(),
            },
            scope: format!("{}\n{}\n{:x}\n", Self::NAME, cx.owner(), cx.fingerprint()).into_bytes(),
            owner: cx.owner().to_owned(),
            panel: cx.local_of_all_uses(),
        })
    }
}

impl ApiBreaker {
    fn admit<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let now = env.core.now();
        if self.with_account(ex, env, |account| account.is_open(now, self.longest)) {
            return Step::Reply(self.headers.put_on(self.refusal.clone(), ex));
        }
        Step::Next
    }

    fn count(&self, ex: &Exchange, env: Env<'_>) {
        let Some(last) = ex.last_attempt() else { return };
        // A node that did not answer is what the client was told of it: 502 or 504.
        let status = if last.status == 0 { ex.response.status } else { last.status };
        if self.bad.statuses.contains(&status) {
            let opened = self.with_account(ex, env, |account| {
                account.count_bad(env.core.now(), self.bad.count, self.longest)
            });
            if let Some(seconds) = opened {
                env.core.stats.breakers_opened.add(1);
                let (owner, route) = (&self.owner, ex.route.route_id());
                let problem = format!("{owner}: api-breaker: route {route} is answered here for {seconds} s");
                env.core.note(Level::Warn, problem);
            }
        } else if self.good.statuses.contains(&status) {
            self.with_account(ex, env, |account| account.count_good(self.good.count));
        }
    }

    fn with_account<R>(&self, ex: &Exchange, env: Env<'_>, act: impl FnOnce(&Account) -> R) -> R {
        let panel = env.core.local(self.panel, || Panel {
            purse: Purse::new(&env.core.ledger),
            name: RefCell::default(),
        });
        let mut name = panel.name.borrow_mut();
        name.clear();
        name.extend_from_slice(&self.scope);
        name.extend_from_slice(ex.route.route_id().as_bytes());
        let name = Name { bytes: &name, limit: self.scope.len() };
        panel.purse.with(env.core.now(), name, |account| act(&account))
    }
}

impl Default for Unhealthy {
    fn default() -> Self {
        Self { http_statuses: only(500), failures: Answers::literal(3) }
    }
}

impl Default for Healthy {
    fn default() -> Self {
        Self { http_statuses: only(200), successes: Answers::literal(3) }
    }
}

fn only<const MIN: i64, const MAX: i64>(status: i64) -> Unique<InRange<MIN, MAX>, 1> {
    Unique::new(vec![InRange::literal(status)]).expect("a list of one has no repeats")
}

const fn five_minutes() -> InRange<3, SECONDS_MAX> {
    InRange::literal(300)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Attempt;
    use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};

    /// A node that answers so; 0 is not at all.
    fn answered(status: u16) -> Request {
        Request::get("/p?x=1").with(|ex| {
            ex.attempts.push(Attempt {
                node: "10.0.0.1:80".parse().unwrap(),
                status,
                connect: Duration::ZERO,
                header: Duration::ZERO,
                total: Duration::ZERO,
                reused: false,
            });
        })
    }

    /// Sends a request that a node answers so.
    fn pass(bench: &Bench<ApiBreaker>, status: u16) {
        let status_sent = if status == 0 { 502 } else { status };
        bench.request(answered(status)).passes().response(status_sent, &[], b"");
    }

    #[test]
    fn bad_answers_open_it_and_the_configured_answer_is_given() {
        let bench = check::<ApiBreaker>(
            r#"{"break_response_code": 599, "break_response_body": "busy $uri", "break_response_headers":
                [{"key": "X-Who", "value": "$remote_addr$arg_x"}], "unhealthy": {"http_statuses": [500, 503], "failures": 2}}"#,
        );
        let bench = bench.unwrap();
        for status in [500, 200, 404, 503] {
            pass(&bench, status);
        }
        bench.request(answered(200)).replies(599, "busy $uri").header("X-Who", "192.0.2.11");
        assert_eq!(bench.core().stats.breakers_opened.get(), 1);
    }

    #[test]
    fn headers_come_with_a_body_only() {
        let bench = check::<ApiBreaker>(
            r#"{"break_response_code": 502, "break_response_headers": [{"key": "X-A", "value": "1"}],
                "unhealthy": {"failures": 1}}"#,
        );
        let bench = bench.unwrap();
        pass(&bench, 500);
        assert!(bench.request(answered(200)).replies(502, "").reply.unwrap().headers.is_none());
    }

    #[test]
    fn a_node_that_does_not_answer_is_as_bad_as_what_the_client_is_told() {
        let config =
            r#"{"break_response_code": 503, "unhealthy": {"http_statuses": [502], "failures": 1}}"#;
        let bench = check::<ApiBreaker>(config).unwrap();
        pass(&bench, 0);
        bench.request(answered(200)).replies(503, "");
    }

    #[test]
    fn what_no_node_answered_is_not_counted() {
        let bench =
            check::<ApiBreaker>(r#"{"break_response_code": 503, "unhealthy": {"failures": 1}}"#).unwrap();
        bench.request(Request::get("/")).passes().response(500, &[], b"");
        bench.request(Request::get("/")).passes();
    }

    #[test]
    fn good_answers_in_a_row_let_it_forget() {
        let config = r#"{"break_response_code": 503, "healthy": {"http_statuses": [200, 204], "successes": 2}}"#;
        let bench = check::<ApiBreaker>(config).unwrap();
        for status in [500, 500, 200, 204, 500, 500, 200, 302] {
            pass(&bench, status);
        }
        pass(&bench, 500);
        bench.request(answered(200)).replies(503, "");
    }

    #[test]
    fn each_use_and_route_has_its_own_whatever_the_path() {
        let config = r#"{"break_response_code": 503, "unhealthy": {"failures": 1}}"#;
        let mut desk = Desk::new();
        let one = desk.compile::<ApiBreaker>("services/1", config).unwrap();
        let two = desk.compile::<ApiBreaker>("services/2", config).unwrap();
        pass(&one, 500);
        one.request(Request::get("/other")).replies(503, "");
        let elsewhere = |ex: &mut Exchange| ex.route = crate::exchange::RouteLabels::new("2", "", "", "", "/", "");
        one.request(Request::get("/p").with(elsewhere)).passes();
        two.request(Request::get("/p")).passes();
        let again = desk.compile::<ApiBreaker>("services/1", config).unwrap();
        again.request(Request::get("/p")).replies(503, "");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ApiBreaker>(
            &[
                r#"{"break_response_code": 502}"#,
                r#"{"break_response_code": 200, "break_response_body": "", "max_breaker_sec": 3, "unhealthy": {}, "healthy": {}}"#,
                r#"{"break_response_code": 599, "unhealthy": {"http_statuses": [500, 599], "failures": 1},
                    "healthy": {"http_statuses": [200, 499], "successes": 268435455}}"#,
            ],
            &[
                ("{}", "break_response_code"),
                (r#"{"break_response_code": 199}"#, "break_response_code"),
                (r#"{"break_response_code": 600}"#, "break_response_code"),
                (r#"{"break_response_code": 502, "max_breaker_sec": 2}"#, "max_breaker_sec"),
                (r#"{"break_response_code": 502, "unhealthy": {"http_statuses": []}}"#, "unhealthy.http_statuses"),
                (r#"{"break_response_code": 502, "unhealthy": {"http_statuses": [500, 500]}}"#, "http_statuses"),
                (r#"{"break_response_code": 502, "unhealthy": {"http_statuses": [499]}}"#, "http_statuses[0]"),
                (r#"{"break_response_code": 502, "unhealthy": {"failures": 0}}"#, "unhealthy.failures"),
                (r#"{"break_response_code": 502, "healthy": {"http_statuses": [500]}}"#, "http_statuses[0]"),
                (r#"{"break_response_code": 502, "healthy": {"successes": 0}}"#, "healthy.successes"),
                (r#"{"break_response_code": 502, "break_response_headers": [{"content-type": "a"}]}"#, "headers[0]"),
                (r#"{"break_response_code": 502, "break_response_headers": [{"key": "", "value": "1"}]}"#, "key"),
                (r#"{"break_response_code": 502, "break_response_headers": [{"key": "a", "value": ""}]}"#, "value"),
                (r#"{"break_response_code": 502, "policy": "count"}"#, "found policy"),
            ],
        );
        refuses::<ApiBreaker>(
            r#"{"break_response_code": 502, "break_response_headers": [{"key": "Content-Length", "value": "1"}]}"#,
            "break_response_headers: Content-Length says where a body ends",
        );
    }
}
