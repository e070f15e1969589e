//! `cors`: tells browsers which pages of other origins may read the answers.
//!
//! ```yaml
//! plugins:
//!   cors:
//!     allow_origins: "https://a.example.com,https://b.example.com"
//!     allow_credential: true
//!     allow_methods: "GET,POST"
//!     allow_headers: "Content-Type"
//! ```
//!
//! Every `OPTIONS` request is answered here with 200. `*` allows all, `**` allows all and repeats what was asked
//! for, which credentials need. Differs from APISIX: where `allow_origins_by_regex` or `allow_origins_by_metadata`
//! is given, an absent `allow_origins` allows none rather than all.

use std::collections::BTreeMap;

use regex::bytes::RegexSet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::hash::Set;
use crate::base::text::comma_list;
use crate::exchange::{Exchange, Reply, SlotId};
use crate::model::field::{InRange, NonEmpty, ShortText};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, Plugin, Step};
use crate::proto::head::{HeaderId, HeaderList, Method};

const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";
/// `*`, `**`, `null`, or origins between commas.
const ORIGINS_PATTERN: &str = r"^(\*|\*\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^,\s/]+(,[A-Za-z][A-Za-z0-9+.-]*://[^,\s/]+)*)$";
/// The same in words.
const ORIGINS_EXPECTED: &str = "*, **, null, or origins such as https://a.example between commas";
/// Most memory the patterns of one use may take together.
const PATTERNS_BYTES_MAX: usize = 1 << 20;

/// Tells browsers which pages of other origins may read the answers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {
    "required": ["allow_credential"],
    "properties": {"allow_credential": {"const": true}},
    "anyOf": [
        {"properties": {"allow_methods": {"const": "*"}}},
        {"properties": {"allow_headers": {"const": "*"}}},
        {"properties": {"expose_headers": {"const": "*"}}, "required": ["expose_headers"]},
        {"properties": {"allow_origins": {"const": "*"}}, "required": ["allow_origins"]},
        {"not": {"anyOf": [
            {"required": ["allow_origins"]},
            {"required": ["allow_origins_by_regex"]},
            {"required": ["allow_origins_by_metadata"]}
        ]}}
    ],
    "x-expected": "`*` where `allow_credential` is true"
}))]
pub struct Config {
    /// Origins that may read: `*`; `**` for everyone, answered by name, which credentials need; `null`; or
    /// `scheme://host[:port]` between commas. Absent: `*`, unless one of the next two is given.
    #[schemars(regex(pattern = ORIGINS_PATTERN), extend("x-expected" = ORIGINS_EXPECTED))]
    allow_origins: Option<String>,
    /// Further origins that may read, as regular expressions.
    allow_origins_by_regex: Option<NonEmpty<ShortText>>,
    /// Names of lists in the plugin's metadata, whose origins may read as well.
    allow_origins_by_metadata: Option<NonEmpty<ShortText>>,
    /// Methods that may be used: `*`, `**` to name them all, or names between commas.
    #[serde(default = "any")]
    allow_methods: String,
    /// Headers that may be sent: `*`, `**` for those the browser asks for, or names between commas.
    #[serde(default = "any")]
    allow_headers: String,
    /// Headers of the answer that may be read: `*`, `**`, or names between commas.
    expose_headers: Option<String>,
    /// Seconds that a browser may keep the answer; -1: not at all.
    #[serde(default = "five")]
    max_age: InRange<-1, 2_147_483_647>,
    /// May cookies and the like be sent along? Then nothing else may be `*`.
    #[serde(default)]
    allow_credential: bool,
    /// Origins that may see timings, in the form of `allow_origins`. Absent: none.
    #[schemars(regex(pattern = ORIGINS_PATTERN), extend("x-expected" = ORIGINS_EXPECTED))]
    timing_allow_origins: Option<String>,
    /// Further origins that may see timings, as regular expressions.
    timing_allow_origins_by_regex: Option<NonEmpty<ShortText>>,
}

/// Lists of origins that uses may name.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Lists of origins by name, each in the form of `allow_origins`.
    #[serde(default)]
    #[schemars(extend("additionalProperties" = {"type": "string", "pattern": ORIGINS_PATTERN}))]
    allow_origins: BTreeMap<String, String>,
}

/// Who is allowed.
#[derive(Default)]
struct Origins {
    /// `*`: everyone, whoever they are.
    any: bool,
    /// `**`: everyone, by name.
    echo: bool,
    listed: Set<Box<[u8]>>,
    patterns: Option<RegexSet>,
}

impl Origins {
    fn add(&mut self, text: &str) {
        match text {
            "*" => self.any = true,
            "**" => self.echo = true,
            list => self.listed.extend(comma_list(list.as_bytes()).map(Box::from)),
        }
    }

    fn add_patterns(&mut self, field: &str, patterns: Option<&NonEmpty<ShortText>>) -> Result<(), ConfigError> {
        let Some(patterns) = patterns else { return Ok(()) };
        let texts = patterns.iter().map(ShortText::as_str);
        for (at, text) in texts.clone().enumerate() {
            crate::expr::compile_linear(text, false)
                .map_err(|why| ConfigError::at(format!("{field}[{at}]"), why))?;
        }
        let set = regex::bytes::RegexSetBuilder::new(texts).unicode(false).size_limit(PATTERNS_BYTES_MAX).build();
        self.patterns = Some(set.map_err(|why| ConfigError::at(field, why.to_string()))?);
        Ok(())
    }

    /// What to tell a page of `origin`; nothing if it is not allowed.
    fn answer<'a>(&self, origin: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match origin {
            _ if self.any => Some(b"*"),
            None => self.echo.then_some(b"*"),
            Some(origin) => {
                let matches = |patterns: &RegexSet| patterns.is_match(origin);
                (self.echo || self.listed.contains(origin) || self.patterns.as_ref().is_some_and(matches))
                    .then_some(origin)
            }
        }
    }
}

/// What the request said, before other plugins changed it.
#[derive(Default)]
struct Asked {
    seen: bool,
    origin: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
}

/// What the core reads.
pub struct Cors {
    origins: Origins,
    timing: Option<Origins>,
    methods: String,
    /// `None` repeats what the browser asked for.
    headers: Option<String>,
    expose: Option<String>,
    max_age: String,
    credential: bool,
    asked: SlotId,
}

impl Plugin for Cors {
    const NAME: &'static str = "cors";
    const PRIORITY: i32 = 4000;
    type Config = Config;
    type Metadata = Metadata;

    const REWRITE: Gate<Self> = Some(Self::greet);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let mut origins = Origins::default();
        let elsewhere = config.allow_origins_by_regex.is_some() || config.allow_origins_by_metadata.is_some();
        match &config.allow_origins {
            Some(list) => origins.add(checked("allow_origins", list)?),
            None if elsewhere => {}
            None => origins.any = true,
        }
        origins.add_patterns("allow_origins_by_regex", config.allow_origins_by_regex.as_ref())?;
        for name in config.allow_origins_by_metadata.iter().flatten() {
            // A list that is not there yet allows nobody.
            if let Some(list) = metadata.allow_origins.get(name.as_str()) {
                origins.add(checked("allow_origins_by_metadata", list)?);
            }
        }
        let wild = |text: &str| text == "*";
        if config.allow_credential
            && (origins.any
                || wild(&config.allow_methods)
                || wild(&config.allow_headers)
                || config.expose_headers.as_deref().is_some_and(wild))
        {
            return Err(ConfigError::new(
                "you can not set '*' for other option when 'allow_credential' is true",
            ));
        }
        let mut timing = Origins::default();
        if let Some(list) = &config.timing_allow_origins {
            timing.add(checked("timing_allow_origins", list)?);
        }
        timing.add_patterns("timing_allow_origins_by_regex", config.timing_allow_origins_by_regex.as_ref())?;
        let timed = config.timing_allow_origins.is_some() || config.timing_allow_origins_by_regex.is_some();
        Ok(Self {
            origins,
            timing: timed.then_some(timing),
            methods: if config.allow_methods == "**" { ALL_METHODS.to_owned() } else { config.allow_methods },
            headers: (config.allow_headers != "**").then_some(config.allow_headers),
            expose: config.expose_headers.filter(|names| !names.is_empty()),
            max_age: config.max_age.get().to_string(),
            credential: config.allow_credential,
            asked: cx.slot(),
        })
    }
}

impl Cors {
    fn greet<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let origin = ex.request.headers.get_id(HeaderId::Origin).map(<[u8]>::to_vec);
        let headers = ex.request.headers.get("access-control-request-headers").map(<[u8]>::to_vec);
        if origin.is_some() || headers.is_some() {
            *ex.slots.of::<Asked>(self.asked) = Asked { seen: true, origin, headers };
        }
        if ex.request.method() == Method::Options {
            return Step::Reply(Reply::empty(200));
        }
        Step::Next
    }

    fn tell(&self, ex: &mut Exchange, _: Env<'_>) {
        let Exchange { request, response, slots, .. } = ex;
        // Without a note, either the request said nothing, or its answer was made before this plugin ran.
        let asked = slots.get::<Asked>(self.asked).filter(|asked| asked.seen);
        let (origin, wanted) = match asked {
            Some(asked) => (asked.origin.as_deref(), asked.headers.as_deref()),
            None => (
                request.headers.get_id(HeaderId::Origin),
                request.headers.get("access-control-request-headers"),
            ),
        };
        response.is_shared = true;
        let out = &mut response.headers;
        if !self.origins.any {
            vary_by_origin(out);
        }
        if let Some(origin) = self.origins.answer(origin) {
            out.set("Access-Control-Allow-Origin", origin);
            out.set("Access-Control-Allow-Methods", self.methods.as_bytes());
            out.set("Access-Control-Max-Age", self.max_age.as_bytes());
            if let Some(headers) = self.headers.as_deref().map(str::as_bytes).or(wanted) {
                out.set("Access-Control-Allow-Headers", headers);
            }
            if let Some(expose) = &self.expose {
                out.set("Access-Control-Expose-Headers", expose.as_bytes());
            }
            if self.credential {
                out.set("Access-Control-Allow-Credentials", b"true");
            }
        }
        if let Some(origin) = self.timing.as_ref().and_then(|timing| timing.answer(origin)) {
            out.set("Timing-Allow-Origin", origin);
        }
    }
}

/// Appends `Origin` to `Vary`, unless it is there.
fn vary_by_origin(headers: &mut HeaderList) {
    let names = |word: &[u8]| word == b"*" || word.eq_ignore_ascii_case(b"origin");
    if !headers.all_id(HeaderId::Vary).any(|line| comma_list(line).any(names)) {
        headers.add("Vary", b"Origin");
    }
}

/// The schema's pattern once more, for who compiles without it.
fn checked<'a>(field: &str, list: &'a str) -> Result<&'a str, ConfigError> {
    let is_origin = |origin: &str| {
        origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains('/') && !origin.contains(char::is_whitespace)
        })
    };
    if matches!(list, "*" | "**" | "null") || list.split(',').all(is_origin) {
        return Ok(list);
    }
    Err(ConfigError::at(field, format!("expected *, **, null or origins such as https://a.com, got {list:?}")))
}

fn any() -> String {
    "*".to_owned()
}

const fn five() -> InRange<-1, 2_147_483_647> {
    InRange::literal(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Answer, Bench, Desk, Request, agree, check, refuses};

    fn answer(bench: &Bench<Cors>, origin: &str) -> Answer {
        bench.request(Request::get("/").header("Origin", origin)).passes().response(200, &[], b"")
    }

    fn allowed(config: &str, origin: &str) -> String {
        answer(&check::<Cors>(config).unwrap(), origin).header("Access-Control-Allow-Origin")
    }

    const A: &str = "https://a.com";

    #[test]
    fn an_origin_is_told_what_the_lists_say_of_it() {
        assert_eq!(allowed("{}", A), "*");
        assert_eq!(allowed(r#"{"allow_origins":"**"}"#, A), A);
        assert_eq!(allowed(r#"{"allow_origins":"null"}"#, "null"), "null");
        assert_eq!(allowed(r#"{"allow_origins":"null"}"#, A), "");
        let list = r#"{"allow_origins":"https://a.com,http://b.com:8080"}"#;
        assert_eq!(allowed(list, A), A);
        assert_eq!(allowed(list, "http://b.com:8080"), "http://b.com:8080");
        for other in ["http://a.com", "https://a.com:443", "https://A.com", "https://a.com.evil.org", "null", ""] {
            assert_eq!(allowed(list, other), "", "{other}");
        }
        let regex = r#"{"allow_origins_by_regex":["^https://[a-z]+\\.a\\.com$"]}"#;
        assert_eq!(allowed(regex, "https://x.a.com"), "https://x.a.com");
        assert_eq!(allowed(regex, A), "");
    }

    #[test]
    fn lists_of_the_metadata_are_used_by_name() {
        let mut desk = Desk::new().metadata("cors", r#"{"allow_origins":{"ours":"https://a.com,https://b.com"}}"#);
        let bench = desk.compile::<Cors>("routes/1", r#"{"allow_origins_by_metadata":["ours","gone"]}"#).unwrap();
        assert_eq!(answer(&bench, A).header("Access-Control-Allow-Origin"), A);
        assert_eq!(answer(&bench, "https://c.com").header("Access-Control-Allow-Origin"), "");
        let mut desk = Desk::new().metadata("cors", r#"{"allow_origins":{"ours":"a.com"}}"#);
        assert!(desk.compile::<Cors>("routes/1", "{}").is_err());
    }

    #[test]
    fn every_options_request_is_answered_here() {
        let bench = check::<Cors>(r#"{"allow_origins":"**","allow_headers":"**","allow_methods":"**"}"#).unwrap();
        let preflight = Request::new(Method::Options, "/")
            .header("Origin", A)
            .header("Access-Control-Request-Headers", "x-one, x-two");
        let answer = bench.request(preflight).replies(200, "").answer();
        assert_eq!(answer.header("Access-Control-Allow-Headers"), "x-one, x-two");
        assert_eq!(answer.header("Access-Control-Allow-Methods"), ALL_METHODS);
        assert_eq!(answer.header("Access-Control-Max-Age"), "5");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), "");
        bench.request(Request::new(Method::Options, "/")).replies(200, "");
        bench.request(Request::new(Method::Head, "/")).passes();
    }

    #[test]
    fn every_header_has_its_attribute() {
        let bench = check::<Cors>(
            r#"{"allow_origins":"https://a.com","allow_methods":"GET","allow_headers":"x-in","expose_headers":"x-out",
                "max_age":-1,"allow_credential":true,"timing_allow_origins":"*"}"#,
        );
        let bench = bench.unwrap();
        let told = answer(&bench, A);
        for (name, value) in [
            ("Access-Control-Allow-Origin", A),
            ("Access-Control-Allow-Methods", "GET"),
            ("Access-Control-Allow-Headers", "x-in"),
            ("Access-Control-Expose-Headers", "x-out"),
            ("Access-Control-Max-Age", "-1"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Timing-Allow-Origin", "*"),
        ] {
            assert_eq!(told.header(name), value, "{name}");
        }
        let other = answer(&bench, "https://b.com");
        assert_eq!(other.header("Access-Control-Allow-Methods"), "");
        assert_eq!(other.header("Access-Control-Allow-Credentials"), "");
        assert_eq!(other.header("Timing-Allow-Origin"), "*");
    }

    #[test]
    fn timings_have_lists_of_their_own() {
        let bench = check::<Cors>(r#"{"timing_allow_origins_by_regex":["b\\.com$"]}"#).unwrap();
        assert_eq!(answer(&bench, "https://b.com").header("Timing-Allow-Origin"), "https://b.com");
        assert_eq!(answer(&bench, A).header("Timing-Allow-Origin"), "");
        assert_eq!(answer(&check::<Cors>("{}").unwrap(), A).header("Timing-Allow-Origin"), "");
    }

    #[test]
    fn vary_is_appended_whenever_the_answer_depends_on_the_origin() {
        let vary = |config: &str, upstream: &[(&str, &str)]| {
            check::<Cors>(config).unwrap().response(200, upstream, b"").header("Vary")
        };
        assert_eq!(vary("{}", &[("Vary", "Accept")]), "Accept");
        let list = r#"{"allow_origins":"https://a.com"}"#;
        assert_eq!(vary(list, &[("Vary", "Accept")]), "Accept | Origin");
        assert_eq!(vary(list, &[("Vary", "Accept, origin")]), "Accept, origin");
        assert_eq!(vary(list, &[("Vary", "*")]), "*");
        assert_eq!(vary(list, &[]), "Origin");
    }

    #[test]
    fn what_later_plugins_do_to_the_request_is_not_seen() {
        let bench = check::<Cors>(r#"{"allow_origins":"https://a.com"}"#).unwrap();
        let mut outcome = bench.request(Request::get("/").header("Origin", A)).passes();
        outcome.ex.request.headers.remove("origin");
        assert_eq!(outcome.response(200, &[], b"").header("Access-Control-Allow-Origin"), A);
    }

    #[test]
    fn credentials_do_not_go_with_everyone() {
        let words = "allow_credential";
        let others = r#""allow_methods":"GET","allow_headers":"x""#;
        agree::<Cors>(
            &[
                &format!(r#"{{"allow_credential":true,"allow_origins":"**",{others}}}"#),
                &format!(r#"{{"allow_credential":true,"allow_origins_by_regex":["a"],{others}}}"#),
                r#"{"allow_credential":false}"#,
            ],
            &[
                (r#"{"allow_credential":true}"#, words),
                (&format!(r#"{{"allow_credential":true,{others}}}"#), words),
                (&format!(r#"{{"allow_credential":true,"allow_origins":"*",{others}}}"#), words),
                (r#"{"allow_credential":true,"allow_origins":"**","allow_headers":"x"}"#, words),
                (r#"{"allow_credential":true,"allow_origins":"**","allow_methods":"GET"}"#, words),
                (
                    &format!(r#"{{"allow_credential":true,"allow_origins":"**","expose_headers":"*",{others}}}"#),
                    words,
                ),
            ],
        );
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<Cors>(
            &[
                "{}",
                r#"{"allow_origins":"http://a.com:80,https://b.com","max_age":0,"allow_methods":"GET","expose_headers":""}"#,
                r#"{"timing_allow_origins":"**","timing_allow_origins_by_regex":["a"]}"#,
            ],
            &[
                (r#"{"allow_origins":""}"#, "allow_origins"),
                (r#"{"allow_origins":"a.com"}"#, "allow_origins"),
                (r#"{"allow_origins":"https://a.com,"}"#, "allow_origins"),
                (r#"{"allow_origins":"*,https://a.com"}"#, "allow_origins"),
                (r#"{"allow_origins_by_regex":[]}"#, "at least 1"),
                (r#"{"allow_origins_by_regex":[""]}"#, "allow_origins_by_regex[0]"),
                (r#"{"allow_origins_by_metadata":[]}"#, "at least 1"),
                (r#"{"allow_methods":["GET"]}"#, "text"),
                (r#"{"allow_headers":1}"#, "text"),
                (r#"{"expose_headers":1}"#, "text"),
                (r#"{"max_age":-2}"#, "max_age"),
                (r#"{"allow_credential":"true"}"#, "true or false"),
                (r#"{"timing_allow_origins":"x"}"#, "timing_allow_origins"),
                (r#"{"timing_allow_origins_by_regex":[]}"#, "at least 1"),
                (r#"{"allow_origin":"*"}"#, "additional properties forbidden, found allow_origin"),
            ],
        );
        refuses::<Cors>(r#"{"allow_origins_by_regex":["a","("]}"#, "allow_origins_by_regex[1]");
        refuses::<Cors>(r#"{"timing_allow_origins_by_regex":["(?=a)"]}"#, "look-ahead");
    }
}
