//! `workflow`: rules about requests, the first of which to hold has its action run.
//!
//! ```yaml
//! plugins:
//!   workflow:
//!     rules:
//!       - case: [["uri", "==", "/private"]]
//!         actions: [[return, {code: 403}]]
//!       - case: [["http_x_plan", "==", "free"]]
//!         actions: [[limit-count, {count: 10, time_window: 60, rejected_code: 429}]]
//! ```
//!
//! An action is an answer, or a plugin that may be one, with its configuration; such a plugin has state of its own for
//! each rule, and does not run once more in its usual place for that request. Where no rule holds nothing is done.
//! Differs from APISIX: a `return` below 200 is refused, as no answer can begin so; unknown fields are refused.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Exchange, Reply};
use crate::expr::{Rule, Var};
use crate::model::field::{InRange, NonEmpty};
use crate::model::schema;
use crate::plugin::{
    CompileCx, ConfigError, Edit, Env, Gate, Inner, NoMetadata, Observe, Phase, Plugin, Step,
};
use crate::runtime::limits::HELD_BODY_BYTES;

/// Runs an action for requests that a rule is for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Asked in turn; the first that holds has its action run.
    rules: Vec<RuleConfig>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct RuleConfig {
    /// A rule over variables, `[["arg_name", "==", "jack"]]`. Absent: it holds for all requests.
    case: Option<NonEmpty<Value>>,
    /// What is done, as `[name, configuration]`. Only the first is run; others are checked.
    actions: NonEmpty<NonEmpty<Value>>,
}

/// What `return` is told.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Return {
    /// The status that is answered.
    code: InRange<200, 599>,
}

/// What the core reads.
pub struct Workflow {
    branches: Box<[Branch]>,
}

/// One rule.
struct Branch {
    case: Option<Rule>,
    action: Action,
}

enum Action {
    Return(Reply),
    Run(Arc<dyn Inner>),
}

impl Plugin for Workflow {
    const NAME: &'static str = "workflow";
    const PRIORITY: i32 = 1006;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::run);
    const HEADER_FILTER: Edit<Self> = Some(Self::header_filter);
    const LOG: Observe<Self> = Some(Self::log);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let rules = config.rules.into_iter().enumerate();
        let branches = rules.filter_map(|(at, rule)| Branch::compile(rule, &format!("rules[{at}]"), cx));
        Ok(Self { branches: branches.collect() })
    }
}

impl Workflow {
    fn run<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let Some(branch) = self.branches.iter().find(|branch| branch.is_for(ex)) else { return Step::Next };
        match &branch.action {
            Action::Return(reply) => Step::Reply(reply.clone()),
            Action::Run(action) => {
                ex.passed_over.push(action.name());
                action.gate(Phase::Access, ex, env)
            }
        }
    }

    // Actions know from what their gate noted whether it is theirs: see `Plugin::IS_ACTION`.
    fn header_filter(&self, ex: &mut Exchange, env: Env<'_>) {
        self.actions().for_each(|action| action.header_filter(ex, env));
    }

    fn log(&self, ex: &Exchange, env: Env<'_>) {
        self.actions().for_each(|action| action.log(ex, env));
    }

    fn actions(&self) -> impl Iterator<Item = &dyn Inner> {
        self.branches.iter().filter_map(|branch| match &branch.action {
            Action::Return(_) => None,
            Action::Run(action) => Some(&**action),
        })
    }
}

impl Branch {
    /// `None` where something is wrong with it, which the desk is told.
    fn compile(config: RuleConfig, field: &str, cx: &mut CompileCx<'_>) -> Option<Self> {
        let case = config.case.map(|items| {
            Rule::compile(&Value::Array(items.into_vec())).map_err(|why| {
                let problem = format!("failed to validate the 'case' expression: {why}");
                cx.refuse(ConfigError::at(format!("{field}.case"), problem));
            })
        });
        // All are compiled, so that all faults are told.
        let actions = config.actions.iter().enumerate();
        let actions: Vec<_> = actions
            .map(|(at, action)| Action::compile(action, &format!("{field}.actions[{at}]"), cx))
            .collect();
        let case = case.transpose().ok()?;
        let mut asks_body = false;
        case.iter().for_each(|rule| rule.each_var(|var| asks_body |= Var::needs_request_body(var)));
        if asks_body {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let actions: Vec<_> = actions.into_iter().collect::<Option<_>>()?;
        actions.into_iter().next().map(|action| Self { case, action })
    }

    fn is_for(&self, ex: &Exchange) -> bool {
        self.case.as_ref().is_none_or(|rule| rule.holds(ex))
    }
}

impl Action {
    /// `None` where something is wrong with it, which the desk is told.
    fn compile(written: &[Value], field: &str, cx: &mut CompileCx<'_>) -> Option<Self> {
        let [Value::String(name), config @ Value::Object(_)] = written else {
            cx.refuse(ConfigError::at(field, "expected [name, configuration]"));
            return None;
        };
        let under = format!("{field}[1]");
        let made = match name.as_str() {
            "return" => Some(schema::parse::<Return>(config.clone()).map(|told| {
                Self::Return(Reply::error_msg(told.code.u16(), "rejected by workflow"))
            })),
            name => cx.action(field, name, config).map(|made| made.map(Self::Run)),
        };
        match made {
            Some(Ok(action)) => return Some(action),
            Some(Err(faults)) => {
                for mut fault in faults {
                    fault.problem = format!("failed to validate the '{name}' action: {}", fault.problem);
                    cx.refuse(fault.under(&under));
                }
            }
            None => cx.refuse(ConfigError::at(field, format!("unsupported action: {name}"))),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Actions;
    use crate::plugin::testing::{Bench, Desk, Request, check};

    /// An action `mark`: notes in headers of the request that its gate ran, and of the response what came after.
    #[derive(Debug)]
    struct Mark(String);

    #[derive(Debug)]
    struct OnlyMark;

    impl Actions for OnlyMark {
        fn named(&self, name: &str) -> Option<&'static str> {
            (name == "mark").then_some("mark")
        }

        fn compile(
            &self,
            _: &'static str,
            config: Value,
            cx: &mut CompileCx<'_>,
        ) -> Result<Arc<dyn Inner>, Vec<ConfigError>> {
            assert!(cx.is_action());
            cx.needs_request_body(7);
            match config["as"].as_str() {
                Some(text) => Ok(Arc::new(Mark(format!("{text} {}", cx.owner().replace('\n', "/"))))),
                None => Err(vec![ConfigError::at("as", "expected text"), ConfigError::new("really")]),
            }
        }
    }

    impl Inner for Mark {
        fn name(&self) -> &'static str {
            "mark"
        }

        fn gate<'a>(&'a self, phase: Phase, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
            assert_eq!(phase, Phase::Access);
            ex.request.headers.add("X-Mark", self.0.as_bytes());
            if self.0.starts_with("stop") { Step::Reply(Reply::status(429)) } else { Step::Next }
        }

        fn header_filter(&self, ex: &mut Exchange, _: Env<'_>) {
            ex.response.headers.add("X-Seen", self.0.as_bytes());
        }

        fn log(&self, _: &Exchange, _: Env<'_>) {}
    }

    fn compile(rules: &str) -> Result<Bench<Workflow>, Vec<ConfigError>> {
        Desk::new().actions(&OnlyMark).compile("routes/1", &format!(r#"{{"rules": {rules}}}"#))
    }

    #[test]
    fn the_first_rule_that_holds_has_its_first_action_run() {
        let bench = compile(
            r#"[{"case": [["arg_a", "==", "1"]], "actions": [["return", {"code": 403}], ["mark", {"as": "x"}]]},
                {"case": ["OR", ["arg_a", "==", "1"], ["arg_b", "==", "1"]], "actions": [["mark", {"as": "b"}]]},
                {"case": [["arg_c", "==", "1"]], "actions": [["mark", {"as": "stop"}]]}]"#,
        );
        let bench = bench.unwrap();
        let rejected = "{\"error_msg\":\"rejected by workflow\"}\n";
        bench.request(Request::get("/?a=1&b=1&c=1")).replies(403, rejected);
        let passed = bench.request(Request::get("/?b=1&c=1")).passes();
        assert_eq!(passed.forwarded("X-Mark"), ["b routes/1/workflow/rules[1].actions[0]"]);
        assert!(passed.ex.passes_over("mark") && !passed.ex.passes_over("other"));
        bench.request(Request::get("/?c=1")).replies(429, "");
        let none = bench.request(Request::get("/")).passes();
        assert!(none.forwarded("X-Mark").is_empty() && !none.ex.passes_over("mark"));
    }

    #[test]
    fn a_rule_without_a_case_holds_always_and_no_rule_never() {
        let bench = compile(r#"[{"actions": [["return", {"code": 599}]]}]"#).unwrap();
        bench.request(Request::get("/")).replies(599, "rejected by workflow");
        compile("[]").unwrap().request(Request::get("/")).passes();
    }

    #[test]
    fn actions_see_what_comes_after_their_gate() {
        let bench = compile(r#"[{"actions": [["mark", {"as": "a"}]]}]"#).unwrap();
        let answer = bench.response(200, &[], b"");
        assert_eq!(answer.header("X-Seen"), "a routes/1/workflow/rules[0].actions[0]");
    }

    #[test]
    fn what_a_rule_or_an_action_needs_of_the_body_is_held() {
        let of = |rules: &str| compile(rules).unwrap().request_body_max;
        assert_eq!(of(r#"[{"actions": [["return", {"code": 403}]]}]"#), None);
        assert_eq!(of(r#"[{"actions": [["mark", {"as": "a"}]]}]"#), Some(7));
        let about_body = r#"[{"case": [["post_arg_a", "==", "1"]], "actions": [["return", {"code": 403}]]}]"#;
        assert_eq!(of(about_body), Some(HELD_BODY_BYTES));
    }

    #[test]
    fn every_fault_is_told_in_its_place() {
        let faults = |rules: &str| -> Vec<String> {
            let Err(faults) = compile(rules) else { panic!("accepted: {rules}") };
            faults.iter().map(ToString::to_string).collect()
        };
        let told = faults(
            r#"[{"case": ["arg_a", "==", "1"], "actions": [["nothing", {}], ["mark", {}]]},
                {"actions": [["return", {"code": 199}], ["return"], [1, {}], ["return", {"code": 200}, 3]]}]"#,
        );
        assert_eq!(told[1..4], [
            "rules[0].actions[0]: unsupported action: nothing",
            "rules[0].actions[1][1].as: failed to validate the 'mark' action: expected text",
            "rules[0].actions[1][1]: failed to validate the 'mark' action: really",
        ]);
        assert!(told[0].starts_with("rules[0].case: failed to validate the 'case' expression: rule should"));
        assert!(told[4].starts_with("rules[1].actions[0][1].code: failed to validate the 'return' action: "));
        for (at, place) in [(5, "rules[1].actions[1]"), (6, "rules[1].actions[2]"), (7, "rules[1].actions[3]")] {
            assert_eq!(told[at], format!("{place}: expected [name, configuration]"));
        }
        for config in [
            "{}",
            r#"{"rules": [{}]}"#,
            r#"{"rules": [{"actions": []}]}"#,
            r#"{"rules": [{"actions": [[]]}]}"#,
            r#"{"rules": [{"actions": ["return"]}]}"#,
            r#"{"rules": [{"case": [], "actions": [["return", {"code": 403}]]}]}"#,
            r#"{"rules": [], "rule": 1}"#,
            // Nothing of that name may be run by another here.
            r#"{"rules": [{"actions": [["limit-count", {"count": 1, "time_window": 1}]]}]}"#,
        ] {
            assert!(check::<Workflow>(config).is_err(), "{config}");
        }
    }
}
