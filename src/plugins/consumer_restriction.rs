//! `consumer-restriction`: admits or refuses a request by its consumer, or by the route or service it meets.
//!
//! ```yaml
//! plugins:
//!   consumer-restriction:
//!     whitelist: [jack]
//!     allowed_by_methods:
//!       - {user: jill, methods: [GET, HEAD]}
//! ```
//!
//! A name on the blacklist is refused; one on the whitelist may pass; any other is refused where there is a whitelist, and
//! may else do what `allowed_by_methods` says of it, or all if that names it not. Where there is no name, because
//! nobody was authenticated, the answer is 401. On a consumer, `type: route_id` or `service_id` says where it may go.
//! Differs from APISIX: refuses unknown fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::hash::Set;
use crate::exchange::{Exchange, Reply};
use crate::model::field::{HttpMethod, InRange, NonEmpty};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::head::Method;

/// Says who may use a route, and where a consumer may go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["blacklist"]}, {"required": ["whitelist"]}, {"required": ["allowed_by_methods"]}
]))]
pub struct Config {
    /// What the lists name.
    #[serde(default, rename = "type")]
    kind: Kind,
    /// Names that may not pass.
    blacklist: Option<NonEmpty<String>>,
    /// The only names that may pass.
    whitelist: Option<NonEmpty<String>>,
    /// What names that are on no list may do.
    allowed_by_methods: Option<NonEmpty<Allowance>>,
    /// The status of a refusal.
    #[serde(default = "forbidden")]
    rejected_code: InRange<200, 599>,
    /// What a refused client is told; absent: that the name is forbidden.
    rejected_msg: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Allowance {
    /// The name.
    user: String,
    /// The methods it may use.
    methods: Vec<HttpMethod>,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Kind {
    #[default]
    ConsumerName,
    ConsumerGroupId,
    ServiceId,
    RouteId,
}

/// What the core reads.
pub struct ConsumerRestriction {
    kind: Kind,
    blacklist: Set<String>,
    whitelist: Set<String>,
    /// For each name, what it may do, as bits of methods.
    by_methods: Box<[(String, u32)]>,
    nameless: Reply,
    refusal: Reply,
}

impl Plugin for ConsumerRestriction {
    const NAME: &'static str = "consumer-restriction";
    const PRIORITY: i32 = 2400;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::judge);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let Config { kind, blacklist, whitelist, allowed_by_methods, rejected_code, rejected_msg } = config;
        if blacklist.is_none() && whitelist.is_none() && allowed_by_methods.is_none() {
            let problem = "expected at least one of `blacklist`, `whitelist` and `allowed_by_methods`";
            return Err(ConfigError::new(problem));
        }
        let word = kind.word();
        let nameless = format!("The request is rejected, please check the {word} for this request");
        let refusal = rejected_msg.unwrap_or_else(|| format!("The {word} is forbidden."));
        let set = |list: Option<NonEmpty<String>>| list.into_iter().flatten().collect();
        let allowances = allowed_by_methods.into_iter().flatten();
        Ok(Self {
            kind,
            blacklist: set(blacklist),
            whitelist: set(whitelist),
            by_methods: allowances.map(|Allowance { user, methods }| (user, bits(&methods))).collect(),
            nameless: Reply::message(401, &nameless),
            refusal: Reply::message(rejected_code.u16(), &refusal),
        })
    }
}

impl ConsumerRestriction {
    fn judge<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let name = match self.kind {
            Kind::ConsumerName => ex.consumer.name(),
            Kind::ConsumerGroupId => ex.consumer.group_id(),
            Kind::ServiceId => ex.route.service_id(),
            Kind::RouteId => ex.route.route_id(),
        };
        if name.is_empty() {
            return Step::Reply(self.nameless.clone());
        }
        if self.admits(name, ex.request.method()) { Step::Next } else { Step::Reply(self.refusal.clone()) }
    }

    fn admits(&self, name: &str, method: Method) -> bool {
        if self.blacklist.contains(name) {
            return false;
        }
        if !self.whitelist.is_empty() {
            return self.whitelist.contains(name);
        }
        let own = self.by_methods.iter().find(|(user, _)| user == name);
        own.is_none_or(|(_, methods)| methods & method.bit() != 0)
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::ConsumerName => "consumer_name",
            Self::ConsumerGroupId => "consumer_group_id",
            Self::ServiceId => "service_id",
            Self::RouteId => "route_id",
        }
    }
}

fn bits(methods: &[HttpMethod]) -> u32 {
    let known = methods.iter().filter_map(|method| Method::of(method.as_str().as_bytes()));
    known.fold(0, |bits, method| bits | method.bit())
}

fn forbidden() -> InRange<200, 599> {
    InRange::literal(403)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{ConsumerLabels, RouteLabels};
    use crate::plugin::testing::{Bench, Request, agree, check};

    const FORBIDDEN: &str = "{\"message\":\"The consumer_name is forbidden.\"}\n";

    fn from(name: &str, method: Method) -> Request {
        let group = if name == "jack" { "group1" } else { "" };
        Request::new(method, "/").with(|ex| ex.consumer = ConsumerLabels::new(name, group, "", ""))
    }

    /// Asserts who may GET and who may POST.
    fn admits(bench: &Bench<ConsumerRestriction>, name: &str, expected: (bool, bool)) {
        let passes = |method| bench.request(from(name, method)).reply.is_none();
        assert_eq!((passes(Method::Get), passes(Method::Post)), expected, "{name}");
    }

    #[test]
    fn the_blacklist_goes_before_the_whitelist_and_that_before_the_methods() {
        let get_only = r#""allowed_by_methods": [{"user": "jack", "methods": ["GET"]}]"#;
        for (config, jack, jill) in [
            (r#""whitelist": ["jack"]"#.to_owned(), (true, true), (false, false)),
            (r#""blacklist": ["jack"]"#.to_owned(), (false, false), (true, true)),
            (get_only.to_owned(), (true, false), (true, true)),
            (format!(r#""blacklist": ["jack"], {get_only}"#), (false, false), (true, true)),
            (format!(r#""whitelist": ["jack"], {get_only}"#), (true, true), (false, false)),
            (r#""whitelist": ["jack"], "blacklist": ["jack"]"#.to_owned(), (false, false), (false, false)),
            (r#""allowed_by_methods": [{"user": "jack", "methods": []}]"#.to_owned(), (false, false), (true, true)),
        ] {
            let bench = check(&format!("{{{config}}}")).unwrap();
            admits(&bench, "jack", jack);
            admits(&bench, "jill", jill);
        }
    }

    #[test]
    fn a_request_without_a_name_is_told_which() {
        let told = |kind: &str, request: Request| {
            let config = format!(r#"{{"type": "{kind}", "blacklist": ["x"]}}"#);
            let message = format!("please check the {kind} for this request\"}}\n");
            check::<ConsumerRestriction>(&config).unwrap().request(request).replies(401, &message);
        };
        told("consumer_name", Request::get("/"));
        told("consumer_group_id", from("jill", Method::Get));
        told("service_id", Request::get("/"));
    }

    #[test]
    fn each_type_looks_at_its_own_name() {
        let request = || {
            let route = RouteLabels::new("r1", "", "s1", "", "/*", "");
            from("jack", Method::Get).with(|ex| ex.route = route)
        };
        for (kind, name) in
            [("consumer_name", "jack"), ("consumer_group_id", "group1"), ("service_id", "s1"), ("route_id", "r1")]
        {
            let config = |list: &str| format!(r#"{{"type": "{kind}", "{list}": ["{name}"], "rejected_code": 404}}"#);
            check::<ConsumerRestriction>(&config("whitelist")).unwrap().request(request()).passes();
            let refused = check::<ConsumerRestriction>(&config("blacklist")).unwrap();
            refused.request(request()).replies(404, &format!("The {kind} is forbidden."));
        }
    }

    #[test]
    fn the_refusal_is_as_configured() {
        let plain = check::<ConsumerRestriction>(r#"{"blacklist": ["jack"]}"#).unwrap();
        plain.request(from("jack", Method::Get)).replies(403, FORBIDDEN);
        let own = check::<ConsumerRestriction>(r#"{"blacklist": ["jack"], "rejected_msg": "go"}"#).unwrap();
        own.request(from("jack", Method::Get)).replies(403, "{\"message\":\"go\"}\n");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ConsumerRestriction>(
            &[
                r#"{"whitelist": ["a"], "blacklist": ["b"], "rejected_msg": "x", "rejected_code": 401}"#,
                r#"{"type": "route_id", "allowed_by_methods": [{"user": "a", "methods": ["GET"]}]}"#,
            ],
            &[
                ("{}", "blacklist"),
                (r#"{"blacklist": []}"#, "at least 1"),
                (r#"{"blacklist": [1]}"#, "blacklist[0]"),
                (r#"{"type": "name", "blacklist": ["a"]}"#, "type"),
                (r#"{"blacklist": ["a"], "rejected_code": 100}"#, "rejected_code"),
                (r#"{"allowed_by_methods": [{"user": "a"}]}"#, "allowed_by_methods[0]"),
                (r#"{"allowed_by_methods": [{"user": "a", "methods": ["get"]}]}"#, "methods[0]"),
                (r#"{"denylist": ["a"]}"#, "additional properties forbidden, found denylist"),
            ],
        );
    }
}
