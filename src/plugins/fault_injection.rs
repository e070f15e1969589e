//! `fault-injection`: lets requests wait, or answers them itself, to see how clients take it.
//!
//! ```yaml
//! plugins:
//!   fault-injection:
//!     delay: {duration: 0.5, percentage: 20}
//!     abort:
//!       http_status: 503
//!       body: "not for $arg_name"
//!       vars: [[["arg_name", "==", "jack"]]]
//! ```
//!
//! First the delay, then the answer; each hits its percentage of the requests for which one of its `vars` holds. Runs
//! before anything else of the route, so what a body says is not known yet. A request that waits costs one allocation
//! and a timer. Differs from APISIX: an empty `vars` is refused, as nobody can tell whether it means all or none;
//! unknown fields are refused.

use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Exchange, Reply};
use crate::expr::{Rule, Template};
use crate::model::field::{InRange, NonEmpty, Percent, Seconds};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step, Verdict};

/// Delays requests, or answers them in place of the route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Config {
    /// The answer given in place of the route's.
    abort: Option<AbortConfig>,
    /// The time a request waits before it goes on.
    delay: Option<DelayConfig>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct AbortConfig {
    /// The status.
    http_status: InRange<200, 599>,
    /// The body; a template.
    body: Option<String>,
    /// Headers; values are templates.
    headers: Option<HeaderEdits>,
    /// The share of requests that is hit; absent: all.
    percentage: Option<Percent>,
    /// Rules of which one must hold; absent: all requests.
    vars: Option<NonEmpty<Value>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct DelayConfig {
    /// How long, in seconds.
    duration: Seconds,
    /// The share of requests that is hit; absent: all.
    percentage: Option<Percent>,
    /// Rules of which one must hold; absent: all requests.
    vars: Option<NonEmpty<Value>>,
}

/// What the core reads.
pub struct FaultInjection {
    delay: Option<(Hits, Duration)>,
    abort: Option<(Hits, Answer)>,
}

/// Which requests are hit.
struct Hits {
    percentage: u8,
    /// One of them must hold, if there is any.
    conditions: Box<[Rule]>,
}

struct Answer {
    status: u16,
    body: Option<Body>,
    headers: HeaderChanges,
}

enum Body {
    Fixed(Bytes),
    Template(Template),
}

impl Plugin for FaultInjection {
    const NAME: &'static str = "fault-injection";
    const PRIORITY: i32 = 11000;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::inject);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        if config.abort.is_none() && config.delay.is_none() {
            return Err(ConfigError::new("expected at least one of `abort` and `delay`"));
        }
        let delay = config.delay.map(|delay| {
            let hits = Hits::compile(delay.percentage, delay.vars, "delay")?;
            Ok((hits, delay.duration.get()))
        });
        let abort = config.abort.map(|abort| {
            let hits = Hits::compile(abort.percentage, abort.vars, "abort")?;
            let headers = abort.headers.unwrap_or_default().compile().map_err(|fault| fault.under("abort"))?;
            let body = abort.body.map(|text| {
                let template = Template::parse(&text);
                match template.as_constant() {
                    Some(constant) => Body::Fixed(Bytes::from(constant.to_owned())),
                    None => Body::Template(template),
                }
            });
            Ok((hits, Answer { status: abort.http_status.u16(), body, headers }))
        });
        Ok(Self { delay: delay.transpose()?, abort: abort.transpose()? })
    }
}

impl FaultInjection {
    fn inject<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        match &self.delay {
            Some((hits, duration)) if hits.hit(ex, env) => Step::Wait(Box::pin(async move {
                env.core.sleep(*duration).await;
                self.answer(ex, env).map_or(Verdict::Next, Verdict::Reply)
            })),
            _ => self.answer(ex, env).map_or(Step::Next, Step::Reply),
        }
    }

    fn answer(&self, ex: &Exchange, env: Env<'_>) -> Option<Reply> {
        let (hits, answer) = self.abort.as_ref()?;
        hits.hit(ex, env).then(|| answer.to(ex))
    }
}

impl Hits {
    fn compile(
        percentage: Option<Percent>,
        vars: Option<NonEmpty<Value>>,
        field: &str,
    ) -> Result<Self, ConfigError> {
        let conditions = vars.iter().flatten().enumerate().map(|(at, rule)| {
            Rule::compile(rule).map_err(|why| {
                let problem = format!("failed to validate the 'vars' expression: {why}");
                ConfigError::at(format!("{field}.vars[{at}]"), problem)
            })
        });
        Ok(Self {
            percentage: percentage.map_or(100, Percent::get),
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    fn hit(&self, ex: &Exchange, env: Env<'_>) -> bool {
        (self.conditions.is_empty() || self.conditions.iter().any(|rule| rule.holds(ex)))
            && (self.percentage == 100 || env.core.dice(|dice| dice.below(100)) < self.percentage.into())
    }
}

impl Answer {
    fn to(&self, ex: &Exchange) -> Reply {
        let reply = match &self.body {
            None => Reply::status(self.status),
            Some(Body::Fixed(body)) => Reply::bytes(self.status, body.clone()),
            Some(Body::Template(template)) => {
                let mut body = Vec::new();
                template.render(ex, &mut body);
                Reply::bytes(self.status, body)
            }
        };
        self.headers.put_on(reply, ex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check, refuses};

    #[test]
    fn an_answer_is_given_in_place_of_the_routes() {
        let bench = check::<FaultInjection>(
            r#"{"abort": {"http_status": 403, "body": "no $arg_a\n", "headers": {"X-Uri": "$uri", "X-N": 2}}}"#,
        );
        let bench = bench.unwrap();
        let outcome = bench.request(Request::get("/p?a=1")).replies(403, "no 1\n");
        outcome.header("X-Uri", "/p").header("X-N", "2");
        let fixed = check::<FaultInjection>(r#"{"abort": {"http_status": 200, "body": "fixed"}}"#).unwrap();
        fixed.request(Request::get("/")).replies(200, "fixed");
        let bare = check::<FaultInjection>(r#"{"abort": {"http_status": 200}}"#).unwrap();
        assert!(bare.request(Request::get("/")).replies(200, "").reply.unwrap().body().is_empty());
    }

    #[test]
    fn one_of_the_rules_must_hold() {
        let bench = check::<FaultInjection>(
            r#"{"abort": {"http_status": 403, "vars": [[["arg_a", "==", "1"], ["arg_b", "==", "1"]], [["arg_c", "==", "1"]]]}}"#,
        );
        let bench = bench.unwrap();
        for target in ["/?a=1&b=1", "/?c=1", "/?a=1&b=1&c=1"] {
            bench.request(Request::get(target)).replies(403, "");
        }
        for target in ["/", "/?a=1", "/?b=1", "/?c=2"] {
            bench.request(Request::get(target)).passes();
        }
    }

    #[test]
    fn about_its_percentage_of_requests_is_hit() {
        let hits = |percentage: u8| {
            let config = format!(r#"{{"abort": {{"http_status": 503, "percentage": {percentage}}}}}"#);
            let bench = check::<FaultInjection>(&config).unwrap();
            (0..1000).filter(|_| bench.request(Request::get("/")).reply.is_some()).count()
        };
        assert_eq!((hits(0), hits(100)), (0, 1000));
        // The dice are seeded: the same count each time.
        assert!((150..350).contains(&hits(25)), "{}", hits(25));
    }

    #[test]
    fn a_delay_that_hits_nobody_is_none() {
        let config = r#"{"delay": {"duration": 60, "percentage": 0}, "abort": {"http_status": 503, "percentage": 0}}"#;
        check::<FaultInjection>(config).unwrap().request(Request::get("/")).passes();
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<FaultInjection>(
            &[
                r#"{"abort": {"http_status": 200}}"#,
                r#"{"delay": {"duration": 0.1, "percentage": 0, "vars": [[["arg_a", "==", "1"]]]}}"#,
            ],
            &[
                ("{}", "at least 1"),
                (r#"{"abort": {}}"#, "abort"),
                (r#"{"abort": {"http_status": 100}}"#, "abort.http_status"),
                (r#"{"abort": {"http_status": 200, "percentage": 101}}"#, "abort.percentage"),
                (r#"{"abort": {"http_status": 200, "vars": []}}"#, "abort.vars"),
                (r#"{"delay": {}}"#, "delay"),
                (r#"{"delay": {"duration": 0}}"#, "delay.duration"),
                (r#"{"delay": {"duration": "test"}}"#, "delay.duration"),
                (r#"{"delays": {}}"#, "additional properties forbidden, found delays"),
            ],
        );
        refuses::<FaultInjection>(
            r#"{"delay": {"duration": 1, "vars": [["arg_a", "==", "1"]]}}"#,
            "delay.vars[0]: failed to validate the 'vars' expression: rule should be wrapped inside brackets",
        );
        refuses::<FaultInjection>(
            r#"{"abort": {"http_status": 200, "headers": {"a b": "1"}}}"#,
            "abort.headers: invalid field character in header",
        );
    }
}
