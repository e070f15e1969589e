//! `response-rewrite`: changes status, headers and body of a response, be it the upstream's or the gateway's own.
//!
//! ```yaml
//! plugins:
//!   response-rewrite:
//!     vars: [["status", "==", 200]]
//!     headers:
//!       set:
//!         X-Server: "$balancer_ip"
//!     filters:
//!       - regex: "secret"
//!         replace: "******"
//!         scope: global
//! ```
//!
//! `body` replaces the whole body; `filters` edit it, for which it is held in memory, and decoded if it is gzip or
//! brotli. Differs from APISIX: a body larger than 64 MiB, held or decoded, is not edited: one that says so in its
//! `Content-Length` passes as it is, one that turns out so is answered with an empty 502. A header whose value
//! comes out empty is removed.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exchange::{Chunk, Exchange, SlotId};
use crate::expr::{Pattern, Rule, Template, compile_regex};
use crate::model::field::{InRange, NonEmpty, Text};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::regex_uri::CAPTURES_MAX;
use crate::plugin::{CompileCx, ConfigError, Edit, Env, NoMetadata, Plugin, Transform};
use crate::proto::head::HeaderId;
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Most bytes of a body that filters see, before and after decoding, and most that they make of it.
const FILTERED_BYTES_MAX: usize = HELD_BODY_BYTES;
/// Input that the brotli decoder asks for at a time.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// Changes status, headers and body of a response, be it the upstream's or the gateway's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "not" = {"required": ["body", "filters"]}))]
pub struct Config {
    /// The new status.
    status_code: Option<InRange<200, 598>>,
    /// The new body.
    body: Option<String>,
    /// Is `body` written in base64?
    #[serde(default)]
    body_base64: bool,
    /// Changes to headers: `{add, set, remove}`, done in this order, or just an object of headers to set. Values are
    /// templates; `add` may be a list of `name: value`.
    headers: Option<HeaderEdits>,
    /// An expression that must hold when the head of the response is there; otherwise nothing is changed.
    #[schemars(extend("type" = ["array", "null"]))]
    vars: Option<Value>,
    /// Replacements in the body, done one after the other.
    filters: Option<NonEmpty<Filter>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Filter {
    /// The pattern that is looked for.
    regex: Text<1, 4096>,
    /// Which places are replaced.
    #[serde(default)]
    scope: Scope,
    /// What takes its place; `$1` is a capture.
    replace: String,
    /// Letters: `i` ignores case, `m`, `s` and `x` as in Perl; `j`, `o` and `u` change nothing.
    #[serde(default = "default_options")]
    #[schemars(regex(pattern = "^[imsxjou]*$"))]
    options: String,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Scope {
    /// The first.
    #[default]
    Once,
    /// Every one.
    Global,
}

/// What the core reads.
pub struct ResponseRewrite {
    status: Option<u16>,
    body: Option<Bytes>,
    headers: HeaderChanges,
    rule: Option<Rule>,
    filters: Vec<Replacement>,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    plans: SlotId,
}

struct Replacement {
    regex: Pattern,
    with: Template,
    everywhere: bool,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Brotli,
}

/// The bodies that uses of the plugin are about to edit.
type Plans = Vec<(LocalId, Coding)>;

impl Plugin for ResponseRewrite {
    const NAME: &'static str = "response-rewrite";
    const PRIORITY: i32 = 899;
    type Config = Config;
    type Metadata = NoMetadata;

    const HEADER_FILTER: Edit<Self> = Some(Self::edit_head);
    const BODY_FILTER: Transform<Self> = Some(Self::edit_body);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let nothing = config.status_code.is_none() && config.body.is_none() && config.headers.is_none();
        if nothing && config.filters.is_none() && config.vars.is_none() {
            return Err(ConfigError::new("expected at least one thing to rewrite"));
        }
        if config.body.is_some() && config.filters.is_some() {
            return Err(ConfigError::new("expected at most one of `body` and `filters`"));
        }
        let body = match config.body {
            Some(text) if config.body_base64 => {
                let decoded = STANDARD.decode(&text).ok().filter(|_| !text.is_empty());
                Some(Bytes::from(decoded.ok_or_else(|| ConfigError::at("body", "invalid base64 content"))?))
            }
            body => body.map(Bytes::from),
        };
        let rule = config.vars.as_ref().map(Rule::compile).transpose().map_err(|why| {
            ConfigError::at("vars", format!("failed to validate the 'vars' expression: {why}"))
        })?;
        let filters = config.filters.iter().flatten().enumerate().map(|(at, filter)| {
            Replacement::compile(filter).map_err(|why| ConfigError::at(format!("filters[{at}]"), why))
        });
        Ok(Self {
            status: config.status_code.map(InRange::u16),
            body,
            filters: filters.collect::<Result<_, _>>()?,
            headers: config.headers.unwrap_or_default().compile()?,
            rule,
            me: cx.local(),
            plans: cx.slot(),
        })
    }
}

impl Replacement {
    fn compile(filter: &Filter) -> Result<Self, String> {
        if let Some(odd) = filter.options.chars().find(|letter| !"imsxjou".contains(*letter)) {
            return Err(format!("expected options of the letters imsxjou, got {odd:?}"));
        }
        let flags: String = "msx".chars().filter(|flag| filter.options.contains(*flag)).collect();
        let pattern = match flags.as_str() {
            "" => filter.regex.as_str().to_owned(),
            flags => format!("(?{flags}){}", filter.regex.as_str()),
        };
        let regex = compile_regex(&pattern, filter.options.contains('i'))?;
        let with = Template::parse(&filter.replace);
        match with.capture_max() {
            Some(most) if most >= regex.captures_len().min(CAPTURES_MAX) => {
                Err(format!("the pattern has no capture ${most}"))
            }
            _ => Ok(Self { regex, with, everywhere: matches!(filter.scope, Scope::Global) }),
        }
    }

    /// The body with the pattern replaced; `None` when it is not found. Stops growing beyond the limit.
    fn replace(&self, body: &[u8], ex: &Exchange) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let (mut copied, mut from, mut last_end) = (0, 0, None);
        while from <= body.len() {
            let mut captures: [&[u8]; CAPTURES_MAX] = [&[]; CAPTURES_MAX];
            let Some(whole) = self.regex.captures(body, from, &mut captures) else { break };
            if whole.is_empty() && last_end == Some(whole.end) {
                // Nothing, where something has just been found: it is looked for from the next place on.
                from = whole.end + 1;
                continue;
            }
            (from, last_end) = (whole.end, Some(whole.end));
            // A look-behind may find what lies before.
            out.extend_from_slice(body.get(copied..whole.start).unwrap_or_default());
            self.with.render_with(ex, &captures, &mut out);
            copied = whole.end;
            if !self.everywhere || out.len() > FILTERED_BYTES_MAX {
                break;
            }
        }
        (copied > 0 || !out.is_empty()).then(|| {
            out.extend_from_slice(&body[copied..]);
            out
        })
    }
}

impl ResponseRewrite {
    fn edit_head(&self, ex: &mut Exchange, env: Env<'_>) {
        if self.rule.as_ref().is_some_and(|rule| !rule.holds(ex)) {
            return;
        }
        if let Some(status) = self.status {
            ex.response.status = status;
        }
        if let Some(body) = &self.body {
            ex.response.replace_body(body.clone());
        }
        if !self.filters.is_empty()
            && let Some(coding) = coding_of(ex)
        {
            ex.response.forget_body_headers();
            ex.response.hold_body(FILTERED_BYTES_MAX);
            ex.slots.of::<Plans>(self.plans).push((self.me, coding));
        }
        let mut scratch = env.core.buffers.small();
        self.headers.apply(ex, |ex| &mut ex.response.headers, &[], &mut scratch);
        env.core.buffers.give_back(scratch);
    }

    fn edit_body(&self, ex: &mut Exchange, _: Env<'_>, chunk: &mut Chunk<'_>) {
        let plans = ex.slots.get::<Plans>(self.plans);
        let Some((_, coding)) = plans.and_then(|plans| plans.iter().find(|(use_of, _)| *use_of == self.me)) else {
            return;
        };
        // What another plugin has put in its place since is not coded.
        let coding = if ex.response.is_replaced { Coding::Plain } else { *coding };
        // A piece that is not all of it was too large to be held.
        let edited = if chunk.last { self.edited(coding, chunk.bytes, ex) } else { None };
        if let Some(body) = edited {
            *chunk.bytes = body;
        } else {
            ex.response.status = 502;
            chunk.bytes.clear();
        }
    }

    fn edited(&self, coding: Coding, body: &mut Vec<u8>, ex: &Exchange) -> Option<Vec<u8>> {
        let mut text = decode(coding, std::mem::take(body))?;
        for filter in &self.filters {
            if let Some(replaced) = filter.replace(&text, ex) {
                text = replaced;
            }
        }
        (text.len() <= FILTERED_BYTES_MAX).then_some(text)
    }
}

/// How the body to come is written; `None` when it cannot be edited.
fn coding_of(ex: &Exchange) -> Option<Coding> {
    let headers = &ex.response.headers;
    let length = headers.get_id(HeaderId::ContentLength).and_then(crate::base::text::parse_u64);
    if length.is_some_and(|length| length > FILTERED_BYTES_MAX as u64) {
        return None;
    }
    let mut lines = headers.all_id(HeaderId::ContentEncoding);
    match (lines.next(), lines.next()) {
        (None, _) => Some(Coding::Plain),
        (Some(one), None) if one.eq_ignore_ascii_case(b"identity") => Some(Coding::Plain),
        (Some(one), None) if one.eq_ignore_ascii_case(b"gzip") => Some(Coding::Gzip),
        (Some(one), None) if one.eq_ignore_ascii_case(b"br") => Some(Coding::Brotli),
        _ => None,
    }
}

/// The decoded body; `None` when it is broken or grows beyond the limit.
fn decode(coding: Coding, body: Vec<u8>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let most = FILTERED_BYTES_MAX as u64 + 1;
    match coding {
        Coding::Plain => return Some(body),
        // An empty body says so by itself, whatever its coding.
        _ if body.is_empty() => return Some(body),
        Coding::Gzip => flate2::read::MultiGzDecoder::new(body.as_slice()).take(most).read_to_end(&mut text),
        Coding::Brotli => {
            brotli::Decompressor::new(body.as_slice(), BROTLI_BUFFER_BYTES).take(most).read_to_end(&mut text)
        }
    }
    .ok()?;
    (text.len() <= FILTERED_BYTES_MAX).then_some(text)
}

fn default_options() -> String {
    "jo".to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::plugin::testing::{Answer, Request, agree, check, refuses};

    fn rewritten(config: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        check::<ResponseRewrite>(config).unwrap().response(200, headers, body)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn status_body_and_headers_are_replaced() {
        let answer = rewritten(
            r#"{"status_code":201,"body":"new","headers":{"set":{"X-A":"$status"},"add":["X-B: 1"],"remove":["X-C"]}}"#,
            &[("X-C", "1"), ("ETag", "\"1\""), ("Content-Length", "3"), ("Content-Encoding", "gzip")],
            b"old",
        );
        assert_eq!((answer.status(), answer.text().as_str()), (201, "new"));
        assert_eq!((answer.header("X-A"), answer.header("X-B"), answer.header("X-C")), ("201".into(), "1".into(), String::new()));
        for gone in ["ETag", "Content-Length", "Content-Encoding"] {
            assert_eq!(answer.header(gone), "", "{gone}");
        }
        let untouched = rewritten(r#"{"headers":{"X-A":1}}"#, &[("ETag", "\"1\"")], b"old");
        assert_eq!((untouched.text().as_str(), untouched.header("ETag")), ("old", "\"1\"".to_owned()));
        assert_eq!(rewritten(r#"{"body":""}"#, &[], b"old").text(), "");
    }

    #[test]
    fn a_base64_body_is_decoded_once() {
        assert_eq!(rewritten(r#"{"body":"AP8=","body_base64":true}"#, &[], b"old").body, [0, 0xff]);
        assert_eq!(rewritten(r#"{"body":"AP8="}"#, &[], b"old").body, b"AP8=");
        refuses::<ResponseRewrite>(r#"{"body":"?","body_base64":true}"#, "invalid base64 content");
        refuses::<ResponseRewrite>(r#"{"body":"","body_base64":true}"#, "invalid base64 content");
    }

    #[test]
    fn the_rule_is_asked_when_the_status_is_known() {
        let config = r#"{"vars":[["status","==",404]],"status_code":200,"body":"found","filters":null}"#;
        let bench = check::<ResponseRewrite>(config).unwrap();
        assert_eq!(bench.response(404, &[], b"lost").text(), "found");
        let other = bench.response(500, &[], b"broken");
        assert_eq!((other.status(), other.text().as_str()), (500, "broken"));
        let filtered = check::<ResponseRewrite>(r#"{"vars":[["status","==",404]],"filters":[{"regex":"o","replace":"0"}]}"#);
        let filtered = filtered.unwrap();
        assert_eq!(filtered.response(404, &[], b"lost").text(), "l0st");
        assert_eq!(filtered.response(200, &[], b"lost").text(), "lost");
    }

    #[test]
    fn filters_edit_the_body_one_after_the_other() {
        let check = |filter: &str, body: &str, expected: &str| {
            let answer = rewritten(&format!(r#"{{"filters":[{filter}]}}"#), &[("Content-Length", "9")], body.as_bytes());
            assert_eq!((answer.text().as_str(), answer.header("Content-Length").as_str()), (expected, ""), "{filter}");
        };
        check(r#"{"regex":"a","replace":"b"}"#, "aaa", "baa");
        check(r#"{"regex":"a","replace":"b","scope":"once"}"#, "aaa", "baa");
        check(r#"{"regex":"a","replace":"b","scope":"global"}"#, "aaa", "bbb");
        check(r#"{"regex":"A","replace":"b"}"#, "aaa", "aaa");
        check(r#"{"regex":"x*","replace":"-","scope":"global"}"#, "axb", "-a-b-");
        check(r#"{"regex":"(?<!a)(b)","replace":"<$1>","scope":"global"}"#, "abbb", "ab<b><b>");
        check(r#"{"regex":"A","replace":"b","options":"ijo"}"#, "aaa", "baa");
        check(r#"{"regex":"^b$","replace":"-","options":"m"}"#, "a\nb\nc", "a\n-\nc");
        check(r#"{"regex":"(\\w+)@(\\w+)","replace":"$2 at ${1}"}"#, "me@home!", "home at me!");
        check(r#"{"regex":"","replace":"x"}"#.replace(r#""""#, r#""^""#).as_str(), "abc", "xabc");
        check(r#"{"regex":"a","replace":"b"},{"regex":"b","replace":"c","scope":"global"}"#, "ab", "cc");
    }

    #[test]
    fn a_body_in_pieces_is_edited_as_one() {
        let bench = check::<ResponseRewrite>(r#"{"filters":[{"regex":"secret","replace":"-"}]}"#).unwrap();
        let answer = bench.request(Request::get("/")).response_in_pieces(200, &[], &[b"a sec", b"ret b"]);
        assert_eq!(answer.text(), "a - b");
    }

    #[test]
    fn coded_bodies_are_decoded_before_they_are_edited() {
        let config = r#"{"filters":[{"regex":"old","replace":"new"}]}"#;
        let answer = rewritten(config, &[("Content-Encoding", "GZIP")], &gzip(b"the old one"));
        assert_eq!((answer.text().as_str(), answer.header("Content-Encoding").as_str()), ("the new one", ""));
        let mut brotli = Vec::new();
        brotli::CompressorWriter::new(&mut brotli, 4096, 1, 20).write_all(b"the old one").unwrap();
        let answer = rewritten(config, &[("Content-Encoding", "br")], &brotli);
        assert_eq!((answer.text().as_str(), answer.header("Content-Encoding").as_str()), ("the new one", ""));
        for other in ["deflate", "gzip, br"] {
            let answer = rewritten(config, &[("Content-Encoding", other)], b"old");
            assert_eq!((answer.text().as_str(), answer.header("Content-Encoding").as_str()), ("old", other));
        }
    }

    #[test]
    fn what_can_not_be_decoded_or_held_is_no_answer() {
        let config = r#"{"filters":[{"regex":"a","replace":"b"}]}"#;
        let broken = rewritten(config, &[("Content-Encoding", "gzip")], b"not gzip");
        assert_eq!((broken.status(), broken.text().as_str()), (502, ""));
        // 65 MiB of zeros are some 70 KiB of gzip.
        let bomb = gzip(&vec![0; FILTERED_BYTES_MAX + 1024]);
        let refused = rewritten(config, &[("Content-Encoding", "gzip")], &bomb);
        assert_eq!((refused.status(), refused.text().as_str()), (502, ""));
        let length = (FILTERED_BYTES_MAX + 1).to_string();
        let large = rewritten(config, &[("Content-Length", &length)], b"aaa");
        assert_eq!((large.text(), large.header("Content-Length")), ("aaa".to_owned(), length));
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ResponseRewrite>(
            &[
                r#"{"status_code":200}"#,
                r#"{"status_code":598,"body":"x","body_base64":false}"#,
                r#"{"headers":{"add":["a: b"]}}"#,
                r#"{"vars":[],"body":"x"}"#,
                r#"{"filters":[{"regex":"a","replace":"","scope":"global","options":""}]}"#,
            ],
            &[
                ("{}", "at least 1 field"),
                (r#"{"status_code":199}"#, "status_code"),
                (r#"{"status_code":599}"#, "status_code"),
                (r#"{"body":1}"#, "text"),
                (r#"{"body":"x","body_base64":"y"}"#, "true or false"),
                (r#"{"headers":{"add":["a"]}}"#, "headers"),
                (r#"{"headers":[]}"#, "an object"),
                (r#"{"vars":"x"}"#, "a list"),
                (r#"{"body":"x","filters":[{"regex":"a","replace":"b"}]}"#, "at most one of `body` and `filters`"),
                (r#"{"filters":[]}"#, "at least 1"),
                (r#"{"filters":[{"regex":"a"}]}"#, "replace is required"),
                (r#"{"filters":[{"replace":"a"}]}"#, "regex is required"),
                (r#"{"filters":[{"regex":"","replace":"a"}]}"#, "regex"),
                (r#"{"filters":[{"regex":"a","replace":"b","scope":"all"}]}"#, "one of once or global"),
                (r#"{"filters":[{"regex":"a","replace":"b","options":"g"}]}"#, "options"),
                (r#"{"status":200}"#, "found status"),
            ],
        );
        refuses::<ResponseRewrite>(r#"{"filters":[{"regex":"(","replace":"b"}]}"#, "filters[0]");
        refuses::<ResponseRewrite>(r#"{"filters":[{"regex":"a","replace":"$1"}]}"#, "no capture $1");
        refuses::<ResponseRewrite>(
            r#"{"vars":["a","==","b"],"body":"x"}"#,
            "failed to validate the 'vars' expression: rule should be wrapped inside brackets",
        );
        refuses::<ResponseRewrite>(r#"{"headers":{"a b":"1"}}"#, "invalid field character in header");
    }
}
