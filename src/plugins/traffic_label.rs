//! `traffic-label`: marks requests with headers, by rules, or a share of them, for whoever is behind.
//!
//! ```yaml
//! plugins:
//!   traffic-label:
//!     rules:
//!       - match: [["arg_version", "==", "v2"]]
//!         actions:
//!           - set_headers: {X-Canary: "yes"}
//!       - actions:
//!           - {set_headers: {X-Group: a}, weight: 3}
//!           - {weight: 7}
//! ```
//!
//! The first rule that is for the request decides; of its actions one is taken, each by its weight, in turns that each
//! core keeps by itself. Runs before `traffic-split`, whose rules see the headers. Differs from APISIX: a header whose
//! value comes out empty is removed; headers of framing cannot be set; unknown fields are refused.

use std::cell::RefCell;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::balance::RoundRobin;
use crate::exchange::{Exchange, Reply};
use crate::expr::{Rule, Template, Var};
use crate::model::field::{InRange, NonEmpty};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Marks requests with headers, by rules, or a share of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Asked in turn; the first that is for the request decides.
    rules: NonEmpty<RuleConfig>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct RuleConfig {
    /// The requests it is for: a rule over variables, `[["arg_name", "==", "jack"]]`. Absent: all.
    #[serde(rename = "match")]
    matches: Option<NonEmpty<Value>>,
    /// What is done, each by its weight.
    actions: NonEmpty<ActionConfig>,
}

/// One thing to do. Without `set_headers` it is nothing.
#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct ActionConfig {
    /// Headers the request is given; values are templates.
    set_headers: Option<HeaderEdits>,
    /// Its share against the others'.
    #[serde(default = "one")]
    weight: InRange<1, 1_000_000_000>,
    /// What it is named in addition, all of which is refused.
    #[serde(flatten)]
    #[schemars(skip)]
    others: serde_json::Map<String, Value>,
}

/// What the core reads.
pub struct TrafficLabel {
    labels: Box<[Label]>,
    /// Where a core keeps whose turn it is, for each rule.
    turns: LocalId,
}

/// One rule.
struct Label {
    condition: Option<Rule>,
    actions: Box<[Action]>,
    /// Whose turn it is at the start.
    turns: RoundRobin,
}

/// What is done to the request.
#[derive(Default)]
struct Action {
    /// The authority the upstream is told, which is no header like the others.
    host: Option<Template>,
    headers: HeaderChanges,
}

/// The turns of one core, a rule each.
type Turns = Box<[RefCell<RoundRobin>]>;

impl Plugin for TrafficLabel {
    const NAME: &'static str = "traffic-label";
    const PRIORITY: i32 = 967;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::mark);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let labels = config.rules.into_iter().enumerate();
        let labels = labels.map(|(at, rule)| {
            Label::compile(rule, cx).map_err(|fault| fault.under(&format!("rules[{at}]")))
        });
        Ok(Self { labels: labels.collect::<Result<_, _>>()?, turns: cx.local() })
    }
}

impl TrafficLabel {
    fn mark<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let found = self.labels.iter().enumerate().find(|(_, label)| label.is_for(ex));
        let Some((at, label)) = found else { return Step::Next };
        let action = match &*label.actions {
            [only] => only,
            actions => {
                let turns = env.core.local(self.turns, || self.turns_at_start());
                // All may be picked, so one is.
                let picked = turns[at].borrow_mut().turn(|_| true);
                picked.map_or(&actions[0], |place| &actions[place])
            }
        };
        let mut text = env.core.buffers.small();
        let done = action.carry_out(ex, &mut text);
        env.core.buffers.give_back(text);
        match done {
            Ok(()) => Step::Next,
            Err(problem) => Step::Reply(Reply::error_msg(400, problem)),
        }
    }

    fn turns_at_start(&self) -> Turns {
        self.labels.iter().map(|label| RefCell::new(label.turns.clone())).collect()
    }
}

impl Label {
    fn compile(config: RuleConfig, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let matches = config.matches.map(|items| Value::Array(items.into_vec()));
        let condition = matches.map(|written| {
            Rule::compile(&written).map_err(|why| {
                let problem = format!("failed to validate the 'match' expression: {written} err: {why}");
                ConfigError::at("match", problem)
            })
        });
        let condition = condition.transpose()?;
        let mut asks_body = false;
        condition.iter().for_each(|rule| rule.each_var(|var| asks_body |= Var::needs_request_body(var)));
        if asks_body {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let (mut actions, mut weights) = (Vec::new(), Vec::new());
        for (at, action) in config.actions.into_iter().enumerate() {
            weights.push(action.weight.u32());
            actions.push(Action::compile(action).map_err(|fault| fault.under(&format!("actions[{at}]")))?);
        }
        Ok(Self { condition, actions: actions.into(), turns: RoundRobin::of(weights.into_iter().enumerate()) })
    }

    fn is_for(&self, ex: &Exchange) -> bool {
        self.condition.as_ref().is_none_or(|rule| rule.holds(ex))
    }
}

impl Action {
    fn compile(config: ActionConfig) -> Result<Self, ConfigError> {
        if let Some(other) = config.others.keys().next() {
            return Err(ConfigError::new(format!("not supported action: {other}")));
        }
        let Some(edits) = config.set_headers else { return Ok(Self::default()) };
        let mut headers = edits.compile().map_err(|ConfigError { problem, .. }| {
            ConfigError::at("set_headers", format!("failed to validate the 'set_headers' action: {problem}"))
        })?;
        Ok(Self { host: headers.take("host"), headers })
    }

    fn carry_out(&self, ex: &mut Exchange, text: &mut Vec<u8>) -> Result<(), &'static str> {
        if let Some(host) = &self.host {
            text.clear();
            host.render(ex, text);
            let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
            if !text.iter().all(legal) {
                return Err("the host to set is not valid");
            }
            ex.request.forward.host.clear();
            ex.request.forward.host.extend_from_slice(text);
        }
        self.headers.apply(ex, |ex| &mut ex.request.headers, &[], text);
        Ok(())
    }
}

const fn one() -> InRange<1, 1_000_000_000> {
    InRange::literal(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check, refuses};

    fn bench(rules: &str) -> Bench<TrafficLabel> {
        check::<TrafficLabel>(&format!(r#"{{"rules": {rules}}}"#)).unwrap()
    }

    /// The label `X-L` that so many requests get, one after the other; `-` is none.
    fn labels(bench: &Bench<TrafficLabel>, target: &str, count: usize) -> String {
        let label = |_| {
            let lines = bench.request(Request::get(target)).passes().forwarded("X-L");
            if lines.is_empty() { "-".to_owned() } else { lines.join("|") }
        };
        (0..count).map(label).collect()
    }

    #[test]
    fn the_first_rule_that_is_for_the_request_decides() {
        let bench = bench(
            r#"[{"match": [["arg_a", "==", "1"], ["arg_b", "==", "1"]], "actions": [{"set_headers": {"X-L": "a"}}]},
                {"match": ["OR", ["arg_a", "==", "1"], ["arg_b", "==", "1"]], "actions": [{"set_headers": {"X-L": 2}}]},
                {"match": [["arg_c", "==", "1"]], "actions": [{}]},
                {"actions": [{"set_headers": {"X-L": "$arg_d"}}]}]"#,
        );
        for (target, expected) in
            [("/?a=1&b=1", "a"), ("/?a=1", "2"), ("/?b=1", "2"), ("/?c=1&d=d", "-"), ("/?d=d", "d"), ("/", "-")]
        {
            assert_eq!(labels(&bench, target, 1), expected, "{target}");
        }
    }

    #[test]
    fn actions_take_turns_by_weight_and_each_rule_has_its_own() {
        let bench = bench(
            r#"[{"match": [["arg_a", "==", "1"]], "actions":
                    [{"set_headers": {"X-L": "a"}}, {"set_headers": {"X-L": "b"}, "weight": 2}]},
                {"actions": [{"set_headers": {"X-L": "c"}, "weight": 3}, {"weight": 2}]}]"#,
        );
        let drawn = |target| {
            let mut drawn: Vec<_> = labels(&bench, target, 30).chars().collect();
            drawn.sort_unstable();
            drawn.iter().collect::<String>()
        };
        assert_eq!(drawn("/?a=1"), format!("{}{}", "a".repeat(10), "b".repeat(20)));
        assert_eq!(drawn("/"), format!("{}{}", "-".repeat(12), "c".repeat(18)));
    }

    #[test]
    fn what_the_client_sent_is_replaced_and_the_host_is_the_upstreams() {
        let bench = bench(r#"[{"actions": [{"set_headers": {"X-L": "new", "X-Empty": "$arg_x", "Host": "b.test"}}]}]"#);
        let request = Request::get("/").header("x-l", "1").header("X-L", "2").header("X-Empty", "3");
        let outcome = bench.request(request).passes();
        assert_eq!(outcome.forwarded("X-L"), ["new"]);
        assert!(outcome.forwarded("X-Empty").is_empty());
        assert_eq!(outcome.ex.request.forward.host, b"b.test");
        let asked = self::bench(r#"[{"actions": [{"set_headers": {"Host": "$arg_h"}}]}]"#);
        assert_eq!(asked.request(Request::get("/?h=a:80")).passes().ex.request.forward.host, b"a:80");
        asked.request(Request::get("/?h=a%0d%0ab")).replies(400, "the host to set is not valid");
    }

    #[test]
    fn only_a_rule_about_the_body_has_it_held() {
        let of = |var: &str| bench(&format!(r#"[{{"match": [["{var}", "==", "1"]], "actions": [{{}}]}}]"#));
        assert_eq!(of("post_arg_id").request_body_max, Some(HELD_BODY_BYTES));
        assert_eq!(of("arg_id").request_body_max, None);
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<TrafficLabel>(
            &[r#"{"rules": [{"actions": [{"set_headers": {"a": 1, "b": "x"}, "weight": 1000000000}, {}]}]}"#],
            &[
                ("{}", "rules"),
                (r#"{"rules": []}"#, "rules"),
                (r#"{"rules": [{}]}"#, "rules[0]"),
                (r#"{"rules": [{"actions": []}]}"#, "rules[0].actions"),
                (r#"{"rules": [{"actions": [{"weight": 0}]}]}"#, "rules[0].actions[0].weight"),
                (r#"{"rules": [{"actions": [{"set_headers": 1}]}]}"#, "set_headers"),
                (r#"{"rules": [{"match": [], "actions": [{}]}]}"#, "rules[0].match"),
                (r#"{"rules": [{"match": 1, "actions": [{}]}]}"#, "rules[0].match"),
                (r#"{"rules": [{"case": [], "actions": [{}]}]}"#, "found case"),
            ],
        );
        for (rule, words) in [
            (r#"{"actions": [{"add_headers": {"a": 1}}]}"#, "rules[0].actions[0]: not supported action: add_headers"),
            (r#"{"actions": [{"set_headers": {}}]}"#, "set_headers"),
            (
                r#"{"actions": [{"set_headers": {"a b": 1}}]}"#,
                "rules[0].actions[0].set_headers: failed to validate the 'set_headers' action: invalid field character",
            ),
            (
                r#"{"match": ["arg_a", "==", "1"], "actions": [{}]}"#,
                "rules[0].match: failed to validate the 'match' expression: [\"arg_a\",\"==\",\"1\"] err: rule should",
            ),
        ] {
            refuses::<TrafficLabel>(&format!(r#"{{"rules": [{rule}]}}"#), words);
        }
    }
}
