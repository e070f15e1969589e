//! `ua-restriction`: admits or refuses a client by the name it gives itself in `User-Agent`.
//!
//! ```yaml
//! plugins:
//!   ua-restriction:
//!     denylist: ["my-bot1", "(Baiduspider)/(\\d+)\\.(\\d+)"]
//! ```
//!
//! Exactly one of the two lists of patterns is given. A client that gives several names is admitted if one of them is
//! allowed, and refused if one is denied. Refused is answered 403 and `{"message": …}`. Differs from APISIX: refuses
//! unknown fields; a pattern that needs backtracking and tries for too long is not found.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::expr::{Pattern, compile_regex};
use crate::model::field::{NonEmpty, Text};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::head::HeaderId;

/// Admits or refuses clients by their User-Agent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["allowlist"]}, {"required": ["denylist"]}]))]
pub struct Config {
    /// Only clients whose name has one of these patterns in it may pass.
    allowlist: Option<NonEmpty<Text<1, 4096>>>,
    /// All clients but those may pass.
    denylist: Option<NonEmpty<Text<1, 4096>>>,
    /// Whether a client that gives no name may pass.
    #[serde(default)]
    bypass_missing: bool,
    /// What a refused client is told.
    #[serde(default = "not_allowed")]
    message: Text<1, 1024>,
}

/// What the core reads.
pub struct UaRestriction {
    patterns: Box<[Pattern]>,
    /// The outcome for a name that has one of the patterns.
    admit_listed: bool,
    admit_missing: bool,
    refusal: Reply,
}

impl Plugin for UaRestriction {
    const NAME: &'static str = "ua-restriction";
    const PRIORITY: i32 = 2999;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::judge);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let (list, admit_listed, field) = match (config.allowlist, config.denylist) {
            (Some(list), None) => (list, true, "allowlist"),
            (None, Some(list)) => (list, false, "denylist"),
            _ => return Err(ConfigError::new("expected exactly one of `allowlist` and `denylist`")),
        };
        let mut patterns = Vec::new();
        for (at, pattern) in list.iter().enumerate() {
            match compile_regex(pattern, false) {
                Ok(regex) => patterns.push(regex),
                Err(why) => cx.refuse(ConfigError::at(format!("{field}[{at}]"), why)),
            }
        }
        Ok(Self {
            patterns: patterns.into(),
            admit_listed,
            admit_missing: config.bypass_missing,
            refusal: Reply::message(403, &config.message),
        })
    }
}

impl UaRestriction {
    fn judge<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let headers = &ex.request.headers;
        let admits = if headers.has(HeaderId::UserAgent) {
            let mut names = headers.all_id(HeaderId::UserAgent);
            names.any(|name| self.patterns.iter().any(|pattern| pattern.is_match(name))) == self.admit_listed
        } else {
            self.admit_missing
        };
        if admits { Step::Next } else { Step::Reply(self.refusal.clone()) }
    }
}

fn not_allowed() -> Text<1, 1024> {
    Text::literal("Not allowed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check};

    const REFUSED: &str = "{\"message\":\"Not allowed\"}\n";

    fn admits(bench: &Bench<UaRestriction>, names: &[&str]) -> bool {
        let request = names.iter().fold(Request::get("/"), |request, name| request.header("User-Agent", name));
        let outcome = bench.request(request);
        if outcome.reply.is_none() {
            return true;
        }
        outcome.replies(403, REFUSED);
        false
    }

    #[test]
    fn an_allowed_name_opens_and_a_denied_one_closes() {
        let list = r#"["my-bot1", "(Baiduspider)/(\\d+)\\.(\\d+)"]"#;
        let allow = check::<UaRestriction>(&format!(r#"{{"allowlist": {list}}}"#)).unwrap();
        let deny = check::<UaRestriction>(&format!(r#"{{"denylist": {list}}}"#)).unwrap();
        for (names, is_listed) in [
            (&["my-bot1"][..], true),
            (&["x my-bot1/2"], true),
            (&["Baiduspider/3.0"], true),
            (&["foo", "my-bot1"], true),
            (&["my-bot1", "foo"], true),
            (&["MY-BOT1"], false),
            (&["Baiduspider/3"], false),
            (&["foo", "bar"], false),
            (&[""], false),
        ] {
            assert_eq!((admits(&allow, names), admits(&deny, names)), (is_listed, !is_listed), "{names:?}");
        }
    }

    #[test]
    fn who_gives_no_name_passes_only_where_that_is_said() {
        for list in ["allowlist", "denylist"] {
            for bypass in [false, true] {
                let config = format!(r#"{{"{list}": ["a"], "bypass_missing": {bypass}}}"#);
                assert_eq!(admits(&check(&config).unwrap(), &[]), bypass, "{config}");
            }
        }
    }

    #[test]
    fn every_pattern_that_is_none_is_told() {
        let Err(faults) = check::<UaRestriction>(r#"{"denylist": ["a(", "b", "c(?=d"]}"#) else { panic!("accepted") };
        let places: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(places, ["denylist[0]", "denylist[2]"]);
    }

    #[test]
    fn schema_and_compile_agree() {
        let one_of = "expected exactly one of `allowlist` and `denylist`";
        agree::<UaRestriction>(
            &[r#"{"allowlist": ["a"]}"#, r#"{"denylist": ["a"], "message": "go", "bypass_missing": true}"#],
            &[
                ("{}", one_of),
                (r#"{"allowlist": ["a"], "denylist": ["b"]}"#, one_of),
                (r#"{"allowlist": []}"#, "at least 1"),
                (r#"{"allowlist": [""]}"#, "allowlist[0]"),
                (r#"{"denylist": 100}"#, "denylist"),
                (r#"{"denylist": ["a"], "message": ""}"#, "message"),
                (r#"{"denylist": ["a"], "bypass_missing": "foo"}"#, "bypass_missing"),
                (r#"{"blacklist": ["a"]}"#, "additional properties forbidden, found blacklist"),
            ],
        );
    }
}
