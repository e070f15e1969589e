//! `proxy-rewrite`: what the upstream sees instead of what the client sent: path, host, method, headers.
//!
//! ```yaml
//! plugins:
//!   proxy-rewrite:
//!     regex_uri: ["^/v1/(.*)", "/$1"]
//!     headers:
//!       set:
//!         X-Version: "1"
//!         X-Rest: "$1"
//! ```
//!
//! The client's query goes along, behind what a new path brings itself. A new path is coded, and then normalised
//! like any other: `..` segments are resolved, and one that no path may be is answered with 400. The route was
//! chosen before and stays. Differs from APISIX: a header whose value comes out empty is removed; headers of
//! framing cannot be set; `//` in a new path becomes `/`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::text::{escape_path, escape_reference};
use crate::exchange::{Exchange, Reply};
use crate::expr::Template;
use crate::model::field::{NonEmpty, Text};
use crate::plugin::header_edits::{HeaderChanges, HeaderEdits};
use crate::plugin::regex_uri::{CAPTURES_MAX, Captures, RegexUri};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::head::Method;
use crate::proto::uri::{UriOptions, normalise};

/// What the upstream sees in place of what the client sent: path, host, method, headers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Config {
    /// The new path, and a query behind a `?`; a template. Wins over `regex_uri`.
    #[schemars(regex(pattern = "^/"))]
    uri: Option<Text<1, 4096>>,
    /// Patterns and replacements in turn; the first pattern that is found in the path rewrites it. `$1` is a capture.
    regex_uri: Option<NonEmpty<String>>,
    /// The new host; a template.
    host: Option<Text<1, 512>>,
    /// The new method.
    method: Option<NewMethod>,
    /// Changes to headers: `{add, set, remove}`, done in this order, or just an object of headers to set. Values are
    /// text, numbers or lists of them; templates, in which `$1` is a capture of `regex_uri`.
    headers: Option<HeaderEdits>,
    /// Is the new path made of the target as it was received, and sent without normalising it?
    #[serde(default)]
    use_real_request_uri_unsafe: bool,
}

/// A method that a request may be given.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
enum NewMethod {
    Get,
    Post,
    Put,
    Head,
    Delete,
    Options,
    Mkcol,
    Copy,
    Move,
    Propfind,
    Patch,
    Lock,
    Unlock,
    Trace,
}

impl From<NewMethod> for Method {
    fn from(method: NewMethod) -> Self {
        match method {
            NewMethod::Get => Self::Get,
            NewMethod::Post => Self::Post,
            NewMethod::Put => Self::Put,
            NewMethod::Head => Self::Head,
            NewMethod::Delete => Self::Delete,
            NewMethod::Options => Self::Options,
            NewMethod::Mkcol => Self::Mkcol,
            NewMethod::Copy => Self::Copy,
            NewMethod::Move => Self::Move,
            NewMethod::Propfind => Self::Propfind,
            NewMethod::Patch => Self::Patch,
            NewMethod::Lock => Self::Lock,
            NewMethod::Unlock => Self::Unlock,
            NewMethod::Trace => Self::Trace,
        }
    }
}

/// What the core reads.
pub struct ProxyRewrite {
    target: NewTarget,
    /// Whether a new target goes out as it comes out, without normalising.
    raw: bool,
    host: Option<Template>,
    method: Option<Method>,
    headers: HeaderChanges,
}

enum NewTarget {
    Kept,
    Written { path: Template, query: Option<Template> },
    Replaced(RegexUri),
}

/// Lent buffers; each has one use at a time.
struct Work {
    subject: Vec<u8>,
    text: Vec<u8>,
    coded: Vec<u8>,
}

impl Plugin for ProxyRewrite {
    const NAME: &'static str = "proxy-rewrite";
    const PRIORITY: i32 = 1008;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::rewrite);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let regex = match &config.regex_uri {
            Some(texts) => Some(RegexUri::compile(texts)?),
            None => None,
        };
        let target = match (&config.uri, regex) {
            (Some(uri), _) if !uri.starts_with('/') => {
                return Err(ConfigError::at("uri", "expected a path that starts with /"));
            }
            (Some(uri), _) => {
                let (path, query) = split_query(uri.as_str());
                NewTarget::Written { path: Template::parse(path), query: query.map(Template::parse) }
            }
            (None, Some(regex)) => NewTarget::Replaced(regex),
            (None, None) => NewTarget::Kept,
        };
        let raw = config.use_real_request_uri_unsafe;
        let nothing = matches!(target, NewTarget::Kept) && !raw;
        if nothing && config.host.is_none() && config.method.is_none() && config.headers.is_none() {
            return Err(ConfigError::new("expected at least one thing to rewrite"));
        }
        let mut headers = config.headers.unwrap_or_default().compile()?;
        let host_header = headers.take("host");
        let host = config.host.map(|host| Template::parse(host.as_str())).or(host_header);
        Ok(Self { target, raw, host, method: config.method.map(Method::from), headers })
    }
}

impl ProxyRewrite {
    fn rewrite<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let buffers = &env.core.buffers;
        let mut work = Work { subject: buffers.small(), text: buffers.small(), coded: buffers.small() };
        let done = self.carry_out(ex, &mut work);
        for buffer in [work.subject, work.text, work.coded] {
            buffers.give_back(buffer);
        }
        match done {
            Ok(()) => Step::Next,
            Err(problem) => Step::Reply(Reply::error_msg(400, problem)),
        }
    }

    fn carry_out(&self, ex: &mut Exchange, work: &mut Work) -> Result<(), &'static str> {
        let Work { subject, text, coded } = work;
        match (self.raw, ex.request.headers.received()) {
            (true, received) if !received.is_empty() => {
                let target = ex.request.line.target.of(received);
                subject.extend_from_slice(&target[..memchr::memchr(b'?', target).unwrap_or(target.len())]);
                // The query as plugins before this one have left it: a credential that was hidden is not to come back.
                if ex.request.has_query {
                    subject.push(b'?');
                    subject.extend_from_slice(&ex.request.query);
                }
            }
            _ => subject.extend_from_slice(&ex.request.path),
        }
        let mut captures: Captures<'_> = [&[]; CAPTURES_MAX];
        coded.clear();
        let rewritten = match &self.target {
            NewTarget::Written { path, query } => {
                path.render(ex, text);
                self.code_path(text, coded);
                if let Some(query) = query {
                    text.clear();
                    query.render(ex, text);
                    coded.push(b'?');
                    escape_query(text, coded);
                }
                true
            }
            NewTarget::Replaced(regex) => match regex.rewrite(subject, ex, text) {
                None => self.raw,
                Some(found) => {
                    captures = found;
                    // A `?` that was decoded into the path is of the path; one that came with the replacement
                    // begins a query.
                    let cut = if self.raw || subject.contains(&b'?') { None } else { memchr::memchr(b'?', text) };
                    let (path, query) = text.split_at(cut.unwrap_or(text.len()));
                    self.code_path(path, coded);
                    escape_query(query, coded);
                    true
                }
            },
            NewTarget::Kept => self.raw,
        };
        if rewritten {
            if coded.is_empty() {
                escape_reference(subject, coded);
            }
            let brings_query = self.raw && !matches!(self.target, NewTarget::Written { .. });
            self.set_target(ex, coded, text, brings_query)?;
        }
        if let Some(method) = self.method {
            ex.request.forward.method = Some(method);
        }
        self.set_host(ex, &captures, text)?;
        self.headers.apply(ex, |ex| &mut ex.request.headers, &captures, text);
        Ok(())
    }

    fn code_path(&self, path: &[u8], out: &mut Vec<u8>) {
        if self.raw { escape_reference(path, out) } else { escape_path(path, out) }
    }

    /// `coded` is the new path, perhaps with a query; the client's is put behind unless `brings_query`.
    fn set_target(
        &self,
        ex: &mut Exchange,
        coded: &[u8],
        scratch: &mut Vec<u8>,
        brings_query: bool,
    ) -> Result<(), &'static str> {
        let request = &mut ex.request;
        let target = &mut request.forward.target;
        let (path, query) = coded.split_at(memchr::memchr(b'?', coded).unwrap_or(coded.len()));
        if self.raw {
            if path.first() != Some(&b'/') {
                return Err("the rewritten path does not start with /");
            }
            target.clear();
            target.extend_from_slice(path);
        } else if normalise(path, &UriOptions::default(), scratch, target).is_err() {
            target.clear();
            return Err("the rewritten path is not valid");
        }
        target.extend_from_slice(query);
        if request.has_query && !brings_query {
            target.push(if query.is_empty() { b'?' } else { b'&' });
            target.extend_from_slice(&request.query);
        }
        Ok(())
    }

    fn set_host(&self, ex: &mut Exchange, captures: &[&[u8]], text: &mut Vec<u8>) -> Result<(), &'static str> {
        let Some(host) = &self.host else { return Ok(()) };
        text.clear();
        host.render_with(ex, captures, text);
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
        if !text.iter().all(legal) {
            return Err("the rewritten host is not valid");
        }
        if !text.is_empty() {
            ex.request.forward.host.clear();
            ex.request.forward.host.extend_from_slice(text);
        }
        Ok(())
    }
}

/// Appends a query with what no query may contain coded; a `#` would begin a fragment.
fn escape_query(query: &[u8], out: &mut Vec<u8>) {
    for (at, part) in query.split(|byte| *byte == b'#').enumerate() {
        if at > 0 {
            out.extend_from_slice(b"%23");
        }
        escape_reference(part, out);
    }
}

/// Splits a template at its first `?` that is not in a reference such as `${a ?? b}`.
fn split_query(text: &str) -> (&str, Option<&str>) {
    let mut in_reference = false;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => in_reference = true,
            b'}' => in_reference = false,
            b'?' if !in_reference => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check, refuses};

    fn target(config: &str, request: Request) -> String {
        check::<ProxyRewrite>(config).unwrap().request(request).passes().target()
    }

    #[test]
    fn a_new_path_takes_the_query_along() {
        let check = |config: &str, from: &str, to: &str| {
            assert_eq!(target(config, Request::get(from)), to, "{config} {from}");
        };
        check(r#"{"uri":"/new"}"#, "/old", "/new");
        check(r#"{"uri":"/new"}"#, "/old?a=1", "/new?a=1");
        check(r#"{"uri":"/new?b=2"}"#, "/old?a=1", "/new?b=2&a=1");
        check(r#"{"uri":"/new?b=2"}"#, "/old", "/new?b=2");
        check(r#"{"uri":"/x/$arg_a/${arg_b ?? none}"}"#, "/old?a=1", "/x/1/none?a=1");
        check(r#"{"uri":"/x?c=$arg_a"}"#, "/old?a=1%20%232", "/x?c=1%20%232&a=1%20%232");
        check(r#"{"regex_uri":["^/v1/(.*)","/v2/$1"]}"#, "/v1/a?b", "/v2/a?b");
        check(r#"{"regex_uri":["^/v1/(.*)","/v2/$1"]}"#, "/v3/a?b", "/v3/a?b");
        check(r#"{"regex_uri":["^/(\\d+)","/item?id=$1"]}"#, "/77?b=1", "/item?id=77&b=1");
        check(r#"{"regex_uri":["^/a(.*)","/b$1"]}"#, "/a%3Fx=1?y", "/b%3Fx=1?y");
        check(r#"{"uri":"/u","regex_uri":["^/.*","/r"]}"#, "/", "/u");
    }

    #[test]
    fn a_new_path_is_coded_and_normalised() {
        let check = |config: &str, from: &str, to: &str| {
            assert_eq!(target(config, Request::get(from)), to, "{config} {from}");
        };
        check(r#"{"uri":"/a b%20"}"#, "/", "/a%20b%2520");
        check(r#"{"uri":"/$arg_p"}"#, "/?p=x%3Fy%23z", "/x%3Fy%23z?p=x%3Fy%23z");
        check(r#"{"uri":"/pre/$arg_p"}"#, "/?p=../admin", "/admin?p=../admin");
        check(r#"{"regex_uri":["^/public(.*)","/files$1"]}"#, "/public%20x", "/files%20x");
        check(r#"{"regex_uri":["^/public(.*)","/$1"]}"#, "/public/x", "/x");
        check(r#"{"regex_uri":["^/public(.*)","/a/b/$1"]}"#, "/public../x", "/a/x");
        let refused = |config: &str, from: &str| {
            check_one(config).request(Request::get(from)).replies(400, "the rewritten path");
        };
        refused(r#"{"regex_uri":["^/public(.*)","/$1"]}"#, "/public../x");
        refused(r#"{"regex_uri":["^/public(.*)","$1"]}"#, "/publicx");
        refused(r#"{"uri":"/$arg_p"}"#, "/?p=a%0d%0aEvil:%201");
        refused(r#"{"uri":"/$arg_p"}"#, "/?p=..%5c..");
    }

    fn check_one(config: &str) -> Bench<ProxyRewrite> {
        check::<ProxyRewrite>(config).unwrap()
    }

    #[test]
    fn the_real_target_is_used_as_it_was_when_asked_for() {
        let unsafe_only = r#"{"use_real_request_uri_unsafe":true}"#;
        assert_eq!(target(unsafe_only, Request::get("/a//b/%2e./c?d=%20")), "/a//b/%2e./c?d=%20");
        let with_regex = r#"{"use_real_request_uri_unsafe":true,"regex_uri":["^/a/(.*)","/b/$1"]}"#;
        assert_eq!(target(with_regex, Request::get("/a/%2F?x=1")), "/b/%2F?x=1");
        assert_eq!(target(with_regex, Request::get("/c/%2F?x=1")), "/c/%2F?x=1");
        check_one(unsafe_only).request(Request::get("http://a/")).replies(400, "does not start with /");
    }

    #[test]
    fn host_and_method_are_replaced() {
        let bench = check_one(r#"{"host":"$arg_h","method":"PURGE"}"#.replace("PURGE", "MKCOL").as_str());
        let passed = bench.request(Request::get("/?h=b.com:81")).passes();
        assert_eq!(passed.ex.request.forward.host, b"b.com:81");
        assert_eq!(passed.ex.request.forward_method(), Method::Mkcol);
        assert_eq!(passed.target(), "/?h=b.com:81");
        bench.request(Request::get("/")).passes();
        for odd in ["a%0d%0ab", "a%20b", "a/b", "a@b"] {
            bench.request(Request::get(&format!("/?h={odd}"))).replies(400, "the rewritten host is not valid");
        }
    }

    #[test]
    fn headers_are_added_set_and_removed_with_captures() {
        let bench = check_one(
            r#"{"regex_uri":["^/(\\w+)/(\\w+)","/$2"],
                "headers":{"set":{"X-First":"$1","Host":"c.com"},"add":{"X-More":"$remote_addr"},"remove":["X-Gone"]}}"#,
        );
        let request = Request::get("/one/two").header("X-More", "0").header("X-Gone", "1").from("10.0.0.1");
        let passed = bench.request(request).passes();
        assert_eq!(passed.forwarded("x-first"), ["one"]);
        assert_eq!(passed.forwarded("x-more"), ["0", "10.0.0.1"]);
        assert_eq!(passed.forwarded("x-gone").len(), 0);
        assert_eq!(passed.ex.request.forward.host, b"c.com");
        let flat = check_one(r#"{"headers":{"X-A":"$arg_a"}}"#);
        assert_eq!(flat.request(Request::get("/?a=1%0d%0aEvil:%202")).forwarded("x-a"), ["1  Evil: 2"]);
        assert_eq!(flat.request(Request::get("/").header("X-A", "old")).forwarded("x-a").len(), 0);
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ProxyRewrite>(
            &[
                r#"{"uri":"/a"}"#,
                r#"{"regex_uri":["a","b","c","d"]}"#,
                r#"{"host":"a.com"}"#,
                r#"{"method":"TRACE"}"#,
                r#"{"headers":{"X-A":1}}"#,
                r#"{"headers":{"add":{"X-A":["1",2]},"set":{},"remove":[]}}"#,
                r#"{"use_real_request_uri_unsafe":true}"#,
            ],
            &[
                ("{}", "at least 1 field"),
                (r#"{"uri":"a"}"#, "uri"),
                (r#"{"uri":""}"#, "uri"),
                (r#"{"regex_uri":[]}"#, "at least 1"),
                (r#"{"regex_uri":"a"}"#, "a list"),
                (r#"{"host":""}"#, "host"),
                (r#"{"method":"PURGE"}"#, "method"),
                (r#"{"method":"get"}"#, "method"),
                (r#"{"headers":{"X-A":true}}"#, "text, a number or a list of them"),
                (r#"{"headers":{"set":{"X-A":{}}}}"#, "text, a number or a list of them"),
                (r#"{"headers":{"remove":"X-A"}}"#, "a list"),
                (r#"{"headers":{"set":{"X-A":"1"},"X-B":"2"}}"#, "found X-B"),
                (r#"{"use_real_request_uri_unsafe":1}"#, "true or false"),
                (r#"{"url":"/"}"#, "found url"),
            ],
        );
        refuses::<ProxyRewrite>(r#"{"regex_uri":["a"]}"#, "The length of regex_uri should be an even number");
        refuses::<ProxyRewrite>(r#"{"regex_uri":["(","b"]}"#, "invalid regex_uri((, b): ");
        refuses::<ProxyRewrite>(r#"{"headers":{"X A":"1"}}"#, "invalid field character in header");
        refuses::<ProxyRewrite>(r#"{"headers":{"Content-Length":"1"}}"#, "only the gateway may");
    }
}
