//! `uri-blocker`: refuses requests whose target looks like one that nobody honest sends.
//!
//! ```yaml
//! plugins:
//!   uri-blocker:
//!     block_rules: ["\\.(env|git)(/|$)", "root.exe"]
//! ```
//!
//! The rules are patterns, looked for anywhere in the normalised path with the query behind it, and in the decoded
//! path. A refused request gets `rejected_code` and, where `rejected_msg` is set, `{"error_msg": …}`. Differs from APISIX:
//! refuses unknown fields; a pattern that needs backtracking and tries for too long is not found.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::expr::{Pattern, compile_regex};
use crate::model::field::{InRange, Text, Unique};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// Refuses requests by patterns in their target.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Patterns of what is refused.
    block_rules: Unique<Text<1, 4096>>,
    /// Whether capital and small letters are the same to the rules.
    #[serde(default)]
    case_insensitive: bool,
    /// The status a refused client gets.
    #[serde(default = "forbidden")]
    rejected_code: InRange<200, 599>,
    /// What it is told.
    rejected_msg: Option<Text<1, 4096>>,
}

/// What the core reads.
pub struct UriBlocker {
    rules: Box<[Pattern]>,
    refusal: Reply,
}

impl Plugin for UriBlocker {
    const NAME: &'static str = "uri-blocker";
    const PRIORITY: i32 = 2900;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::judge);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let mut rules = Vec::new();
        for (at, rule) in config.block_rules.iter().enumerate() {
            match compile_regex(rule, config.case_insensitive) {
                Ok(regex) => rules.push(regex),
                Err(why) => cx.refuse(ConfigError::at(format!("block_rules[{at}]"), why)),
            }
        }
        let status = config.rejected_code.u16();
        let refusal = match &config.rejected_msg {
            Some(message) => Reply::error_msg(status, message),
            None => Reply::status(status),
        };
        Ok(Self { rules: rules.into(), refusal })
    }
}

impl UriBlocker {
    fn judge<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let request = &ex.request;
        let is_blocked = if request.has_query {
            let mut target = env.core.buffers.small();
            request.write_request_uri(&mut target);
            let is_blocked = self.blocks(&target);
            env.core.buffers.give_back(target);
            is_blocked
        } else {
            self.blocks(&request.wire_path)
        };
        // As it is matched, too: an escape or a servlet's parameter must not hide what is to be blocked.
        let is_blocked = is_blocked || request.path != request.wire_path && self.blocks(&request.path);
        if is_blocked { Step::Reply(self.refusal.clone()) } else { Step::Next }
    }

    fn blocks(&self, target: &[u8]) -> bool {
        self.rules.iter().any(|rule| rule.is_match(target))
    }
}

fn forbidden() -> InRange<200, 599> {
    InRange::literal(403)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check, refuses};

    #[test]
    fn a_rule_is_looked_for_anywhere_in_path_and_query() {
        let gate = check::<UriBlocker>(r#"{"block_rules": ["root\\.exe", "^/admin(/|$)", "select.+from"]}"#).unwrap();
        for target in ["/a/root.exe", "/admin", "/admin/x", "/?q=select+a+from+b", "/a?root.exe=1"] {
            gate.request(Request::get(target)).replies(403, "");
        }
        for target in ["/a/root-exe", "/administration", "/a/admin", "/?q=selectfrom", "/ROOT.EXE", "/?"] {
            gate.request(Request::get(target)).passes();
        }
    }

    #[test]
    fn letters_of_either_case_are_the_same_where_asked() {
        let gate = check::<UriBlocker>(r#"{"block_rules": ["root.exe"], "case_insensitive": true}"#).unwrap();
        gate.request(Request::get("/Root.EXE")).replies(403, "");
    }

    #[test]
    fn the_refusal_is_as_configured() {
        let gate = check::<UriBlocker>(r#"{"block_rules": ["x"], "rejected_code": 404, "rejected_msg": "no \"x\""}"#);
        gate.unwrap().request(Request::get("/x")).replies(404, "{\"error_msg\":\"no \\\"x\\\"\"}\n");
    }

    #[test]
    fn without_rules_all_passes() {
        check::<UriBlocker>(r#"{"block_rules": []}"#).unwrap().request(Request::get("/x")).passes();
    }

    #[test]
    fn every_rule_that_is_no_pattern_is_told() {
        let Err(faults) = check::<UriBlocker>(r#"{"block_rules": ["a", "b(", "c(?=d"]}"#) else {
            panic!("accepted")
        };
        let places: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(places, ["block_rules[1]", "block_rules[2]"]);
        refuses::<UriBlocker>(r#"{"block_rules": ["c(?=d"]}"#, "missing closing parenthesis");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<UriBlocker>(
            &[r#"{"block_rules": ["a", "b"], "rejected_code": 200, "case_insensitive": false}"#],
            &[
                ("{}", "block_rules"),
                (r#"{"block_rules": [""]}"#, "block_rules[0]"),
                (r#"{"block_rules": ["a", "a"]}"#, "block_rules"),
                (r#"{"block_rules": "a"}"#, "block_rules"),
                (r#"{"block_rules": ["a"], "rejected_code": 199}"#, "rejected_code"),
                (r#"{"block_rules": ["a"], "rejected_msg": ""}"#, "rejected_msg"),
                (r#"{"block_rule": ["a"]}"#, "additional properties forbidden, found block_rule"),
            ],
        );
    }
}
