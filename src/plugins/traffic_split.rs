//! `traffic-split`: sends a share of the requests, or those that a rule picks out, to another upstream.
//!
//! ```yaml
//! plugins:
//!   traffic-split:
//!     rules:
//!       - match:
//!           - vars: [["http_x_canary", "==", "yes"]]
//!         weighted_upstreams:
//!           - upstream_id: canary
//!       - weighted_upstreams:
//!           - {upstream_id: canary, weight: 1}
//!           - {weight: 9}
//! ```
//!
//! The first rule that is for the request decides; where none is, and for an item without an upstream, the route's
//! own is taken. Upstreams are found or made when configuration is compiled, so that a request costs its rules and a
//! turn, which each core keeps by itself: shares are exact over a cycle of one core. Differs from APISIX: an inline
//! upstream has all that other upstreams have; an `upstream_id` of nothing is refused when it is written; unknown
//! fields are refused.

use std::cell::RefCell;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::balance::RoundRobin;
use crate::exchange::{Exchange, Reply};
use crate::expr::{Rule, Var};
use crate::model::Upstream;
use crate::model::field::{InRange, NonEmpty, ObjectId};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Upstreams among which one rule chooses.
const UPSTREAMS_MAX: usize = 20;

/// Sends shares of the traffic, or requests of a kind, to another upstream.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Asked in turn; the first that is for the request decides.
    #[serde(default)]
    rules: Vec<SplitConfig>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct SplitConfig {
    /// The requests it is for: those for which one of these holds. Absent or empty: all.
    #[serde(default, rename = "match")]
    matches: Vec<Match>,
    /// Where they go, each by its weight.
    #[serde(default = "own_only")]
    #[schemars(length(max = UPSTREAMS_MAX))]
    weighted_upstreams: NonEmpty<Share>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Match {
    /// A rule over variables, `[["arg_name", "==", "jack"]]`.
    #[schemars(extend("type" = "array"))]
    vars: Value,
}

/// One place for requests to go. Without an upstream it is the route's own.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Share {
    /// An upstream that is kept elsewhere. Wins over `upstream`.
    upstream_id: Option<ObjectId>,
    /// An upstream, written here.
    upstream: Option<Box<Upstream>>,
    /// Its share against the others'; 0 takes it out.
    #[serde(default = "one")]
    weight: InRange<0, 1_000_000_000>,
}

/// What the core reads.
pub struct TrafficSplit {
    splits: Box<[Split]>,
    /// Where a core keeps whose turn it is, for each rule.
    turns: LocalId,
}

/// One rule.
struct Split {
    /// It is for requests for which one of these holds; for all, if there is none.
    conditions: Box<[Rule]>,
    /// Those that have a weight.
    goals: Box<[Goal]>,
    /// Whose turn it is at the start.
    turns: RoundRobin,
}

/// Where a request may go.
enum Goal {
    /// To the route's own upstream.
    Own,
    /// To the upstream at this place of the snapshot.
    Upstream(u32),
    /// To one that is not there: this is answered.
    Missing(Reply),
}

/// The turns of one core, a rule each.
type Turns = Box<[RefCell<RoundRobin>]>;

impl Plugin for TrafficSplit {
    const NAME: &'static str = "traffic-split";
    const PRIORITY: i32 = 966;
    type Config = Config;
    type Metadata = NoMetadata;

    const PREREAD: Gate<Self> = Some(Self::choose);
    const ACCESS: Gate<Self> = Some(Self::choose);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let splits = config.rules.iter().enumerate();
        let splits = splits.map(|(at, split)| Split::compile(split, &format!("rules[{at}]"), cx));
        Ok(Self { splits: splits.collect::<Result<_, _>>()?, turns: cx.local() })
    }
}

impl TrafficSplit {
    fn choose<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let found = self.splits.iter().enumerate().find(|(_, split)| split.is_for(ex));
        let Some((at, split)) = found else { return Step::Next };
        let goal = match &*split.goals {
            [] => return Step::Next,
            [only] => only,
            goals => {
                let turns = env.core.local(self.turns, || self.turns_at_start());
                // All may be picked, so one is.
                let picked = turns[at].borrow_mut().turn(|_| true);
                picked.map_or(&goals[0], |place| &goals[place])
            }
        };
        match goal {
            Goal::Own => ex.upstream_at = None,
            Goal::Upstream(place) => ex.upstream_at = Some(*place),
            Goal::Missing(reply) => return Step::Reply(reply.clone()),
        }
        Step::Next
    }

    /// The places of the upstreams it may choose.
    #[cfg(test)]
    pub(crate) fn places(&self) -> Vec<u32> {
        let goals = self.splits.iter().flat_map(|split| &split.goals);
        goals.filter_map(|goal| if let Goal::Upstream(place) = goal { Some(*place) } else { None }).collect()
    }

    fn turns_at_start(&self) -> Turns {
        self.splits.iter().map(|split| RefCell::new(split.turns.clone())).collect()
    }
}

impl Split {
    fn compile(config: &SplitConfig, field: &str, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let shares = &config.weighted_upstreams;
        if shares.len() > UPSTREAMS_MAX {
            let problem = format!("expected a list of at most {UPSTREAMS_MAX}, got {}", shares.len());
            return Err(ConfigError::at(format!("{field}.weighted_upstreams"), problem));
        }
        let conditions = config.matches.iter().enumerate().map(|(at, condition)| {
            Rule::compile(&condition.vars).map_err(|why| {
                let problem = format!("failed to validate the 'vars' expression: {why}");
                ConfigError::at(format!("{field}.match[{at}].vars"), problem)
            })
        });
        let conditions: Box<[Rule]> = conditions.collect::<Result<_, _>>()?;
        let mut asks_body = false;
        conditions.iter().for_each(|rule| rule.each_var(|var| asks_body |= Var::needs_request_body(var)));
        if asks_body {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let (mut goals, mut weights) = (Vec::new(), Vec::new());
        for (at, share) in shares.iter().enumerate() {
            // One without a weight is looked at, too: it must be well formed for when it gets one.
            let goal = Goal::compile(share, &format!("{field}.weighted_upstreams[{at}]"), cx);
            if share.weight.get() > 0 {
                goals.push(goal);
                weights.push(share.weight.u32());
            }
        }
        Ok(Self { conditions, goals: goals.into(), turns: RoundRobin::of(weights.into_iter().enumerate()) })
    }

    fn is_for(&self, ex: &Exchange) -> bool {
        self.conditions.is_empty() || self.conditions.iter().any(|rule| rule.holds(ex))
    }
}

impl Goal {
    fn compile(share: &Share, field: &str, cx: &mut CompileCx<'_>) -> Self {
        match (&share.upstream_id, &share.upstream) {
            (Some(id), _) => cx.kept_upstream(&format!("{field}.upstream_id"), id).map_or_else(
                || {
                    let problem = format!("failed to fetch upstream info by upstream id: {}", id.as_str());
                    Self::Missing(Reply::error_msg(500, &problem))
                },
                Self::Upstream,
            ),
            // Where it can not be made, the plugin is refused.
            (None, Some(upstream)) => {
                cx.inline_upstream(&format!("{field}.upstream"), upstream).map_or(Self::Own, Self::Upstream)
            }
            (None, None) => Self::Own,
        }
    }
}

fn own_only() -> NonEmpty<Share> {
    let own = Share { upstream_id: None, upstream: None, weight: one() };
    NonEmpty::new(vec![own]).expect("a list of one is not empty")
}

fn one() -> InRange<0, 1_000_000_000> {
    InRange::literal(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};

    const NODES: &str = r#""nodes": {"127.0.0.1:80": 1}"#;

    fn bench(config: &str) -> Bench<TrafficSplit> {
        Desk::new().upstreams(&["kept", "7"]).compile("routes/1", config).unwrap()
    }

    /// Where requests go one after the other: `o` is the route's own, other letters are upstreams in the order of
    /// their places.
    fn goals(bench: &Bench<TrafficSplit>, target: &str, count: usize) -> String {
        let goal = |_| match bench.request(Request::get(target)).passes().ex.upstream_at {
            None => 'o',
            Some(place) => char::from(b'a' + (place % 100) as u8),
        };
        (0..count).map(goal).collect()
    }

    #[test]
    fn shares_are_exact_and_spread() {
        let split = |shares: &str| bench(&format!(r#"{{"rules": [{{"weighted_upstreams": [{shares}]}}]}}"#));
        let inline = |weight: u32| format!(r#"{{"upstream": {{{NODES}}}, "weight": {weight}}}"#);
        for (shares, expected) in [
            (format!(r#"{}, {{"weight": 1}}"#, inline(2)), "aoaaoa"),
            (format!("{}, {}, {{}}", inline(5), inline(1)), "aabaoaa"),
            (format!(r#"{}, {{"weight": 0}}"#, inline(1)), "aaa"),
            (format!(r#"{}, {{"weight": 3}}"#, inline(0)), "ooo"),
            (inline(1), "aaa"),
            (format!(r#"{}, {{"weight": 0}}"#, inline(0)), "ooo"),
            ("{}".to_owned(), "ooo"),
            (r#"{"upstream_id": "kept"}, {"upstream_id": 7}"#.to_owned(), "abab"),
            (format!(r#"{{"upstream_id": 7, "upstream": {{{NODES}}}}}"#), "bbb"),
        ] {
            assert_eq!(goals(&split(&shares), "/", expected.len()), expected, "{shares}");
        }
        for config in ["{}", r#"{"rules": []}"#, r#"{"rules": [{}]}"#] {
            assert_eq!(goals(&bench(config), "/", 2), "oo", "{config}");
        }
    }

    #[test]
    fn the_first_rule_that_is_for_the_request_decides_and_each_has_its_own_turns() {
        let bench = bench(
            r#"{"rules": [
                {"match": [{"vars": [["arg_a", "==", "1"]]}, {"vars": [["arg_b", "==", "1"], ["arg_c", "==", "1"]]}],
                 "weighted_upstreams": [{"upstream_id": "kept"}]},
                {"match": [{"vars": [["arg_d", "==", "1"]]}],
                 "weighted_upstreams": [{"upstream_id": "kept"}, {"upstream_id": "7"}]},
                {"match": [{"vars": []}], "weighted_upstreams": [{}, {"upstream_id": "7"}]}
            ]}"#,
        );
        for (target, expected) in [
            ("/?a=1", "aa"),
            ("/?b=1&c=1", "aa"),
            ("/?a=1&d=1", "aa"),
            ("/?d=1", "a"),
            ("/?b=1", "o"),
            ("/?d=1", "ba"),
            ("/", "bo"),
        ] {
            assert_eq!(goals(&bench, target, expected.len()), expected, "{target}");
        }
    }

    #[test]
    fn an_upstream_that_is_not_there_is_answered_for_its_share_only() {
        let bench = bench(r#"{"rules": [{"weighted_upstreams": [{"upstream_id": "kept"}, {"upstream_id": "gone"}]}]}"#);
        for _ in 0..2 {
            bench.request(Request::get("/")).passes();
            bench
                .request(Request::get("/"))
                .replies(500, "{\"error_msg\":\"failed to fetch upstream info by upstream id: gone\"}\n");
        }
    }

    #[test]
    fn what_was_chosen_before_is_chosen_anew() {
        let bench = bench(r#"{"rules": [{"match": [{"vars": [["arg_a", "==", "1"]]}]}]}"#);
        let chosen = |target: &str| Request::get(target).with(|ex| ex.upstream_at = Some(5));
        assert_eq!(bench.request(chosen("/?a=1")).ex.upstream_at, None);
        assert_eq!(bench.request(chosen("/")).ex.upstream_at, Some(5), "no rule is for it");
    }

    #[test]
    fn only_a_rule_about_the_body_has_it_held() {
        let of = |var: &str| bench(&format!(r#"{{"rules": [{{"match": [{{"vars": [["{var}", "==", "1"]]}}]}}]}}"#));
        assert_eq!(of("post_arg_id").request_body_max, Some(HELD_BODY_BYTES));
        assert_eq!(of("arg_id").request_body_max, None);
    }

    #[test]
    fn schema_and_compile_agree() {
        let twenty_one = format!(r#"{{"rules": [{{"weighted_upstreams": [{}]}}]}}"#, vec!["{}"; 21].join(","));
        agree::<TrafficSplit>(
            &["{}", r#"{"rules": [{"match": [], "weighted_upstreams": [{"weight": 1000000000}]}]}"#],
            &[
                (r#"{"rule": []}"#, "additional properties forbidden, found rule"),
                (r#"{"rules": [{"weighted_upstreams": []}]}"#, "rules[0].weighted_upstreams"),
                (&twenty_one, "rules[0].weighted_upstreams"),
                (r#"{"rules": [{"match": [{}]}]}"#, "rules[0].match[0]"),
                (r#"{"rules": [{"match": [{"vars": 1}]}]}"#, "rules[0].match[0].vars"),
                (r#"{"rules": [{"weighted_upstreams": [{"weight": -1}]}]}"#, "weighted_upstreams[0].weight"),
                (r#"{"rules": [{"weighted_upstreams": [{"upstream_id": ""}]}]}"#, "weighted_upstreams[0].upstream_id"),
            ],
        );
        for (upstream, words) in [
            ("{}", "upstream"),
            (r#"{"nodes": {}, "retry": 1}"#, "upstream: additional properties forbidden, found retry"),
            (r#"{"nodes": {}, "pass_host": "rewrite"}"#, "upstream: upstream_host is required"),
            (r#"{"nodes": {"::1": 1}}"#, "rules[0].weighted_upstreams[0].upstream.nodes"),
        ] {
            refuses::<TrafficSplit>(
                &format!(r#"{{"rules": [{{"weighted_upstreams": [{{"upstream": {upstream}}}]}}]}}"#),
                words,
            );
        }
        refuses::<TrafficSplit>(
            r#"{"rules": [{"match": [{"vars": ["arg_a", "==", "1"]}]}]}"#,
            "rules[0].match[0].vars: failed to validate the 'vars' expression: ",
        );
    }

    #[test]
    fn every_fault_of_every_upstream_is_told() {
        let config = r#"{"rules": [{"weighted_upstreams": [
            {"upstream": {"nodes": {"::1": 1}}},
            {"upstream": {"nodes": {"a:0": 1}, "type": "chash"}}
        ]}]}"#;
        let Err(faults) = check::<TrafficSplit>(config) else { panic!("accepted") };
        let places: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            places,
            [
                r#"rules[0].weighted_upstreams[0].upstream.nodes["::1"]"#,
                r#"rules[0].weighted_upstreams[1].upstream.nodes["a:0"]"#,
                "rules[0].weighted_upstreams[1].upstream",
            ]
        );
    }
}
