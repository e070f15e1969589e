//! `proxy-mirror`: sends a copy of requests, or of a share of them, to another origin, and ignores what that answers.
//!
//! ```yaml
//! plugins:
//!   proxy-mirror:
//!     host: http://127.0.0.1:8081
//!     path: /shadow
//!     path_concat_mode: prefix
//!     sample_ratio: 0.1
//! ```
//!
//! A copy leaves when its request is over, on a connection of its own, so that the mirror can neither slow nor fail
//! what is mirrored. What waits for a slow mirror is bounded; beyond, copies are dropped and counted
//! (`runtime/errand.rs`). Costs the memory of each copy, and of the bodies that are still on their way. Differs from
//! APISIX: plain HTTP only; copies leave later; bodies above 1 MiB are not copied; unknown fields are refused.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::address::Shown;
use crate::exchange::{Body, Exchange, SlotId};
use crate::model::field::Text;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Observe, Plugin, Step};
use crate::proto::h1::framing::{WRITTEN_ANEW, connection_lists};
use crate::proto::head::{HeaderId, HeaderSet, Omit};
use crate::runtime::LocalId;
use crate::runtime::errand::{Errand, Times};

/// The longest body that is copied. Worst case so much for each sampled request that is under way.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What `plugin_attr` does not set, as in APISIX.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Shares are thrown as so many billionths.
const WHOLE: u64 = 1_000_000_000;

/// Sends a copy of requests to another origin, and ignores what that answers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where copies go: `http://`, a name or an address, and perhaps a port.
    #[schemars(regex(pattern = r"^(http|https|grpc|grpcs)://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?$"))]
    host: Text<1, 512>,
    /// The path of copies. Absent: that of the request as the upstream gets it.
    #[schemars(regex(pattern = "^/[^?&]+$"))]
    path: Option<Text<2, 4096>>,
    /// Does `path` take the place of the request's, or stand before it?
    #[serde(default)]
    path_concat_mode: ConcatMode,
    /// The share of requests that is copied.
    #[serde(default = "whole")]
    #[schemars(range(min = 0.00001, max = 1))]
    sample_ratio: f64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ConcatMode {
    /// It takes its place; the query stays.
    #[default]
    Replace,
    /// It stands before it.
    Prefix,
}

/// What the core reads.
pub struct ProxyMirror {
    /// All addresses of the host; none while it has none.
    goals: Box<[SocketAddr]>,
    path: Option<String>,
    mode: ConcatMode,
    /// The share, of [`WHOLE`].
    share: u64,
    times: Times,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    chosen: SlotId,
}

/// The uses that copy the request; the first needs no memory of its own.
#[derive(Default)]
struct Chosen {
    first: Option<LocalId>,
    more: Vec<LocalId>,
}

impl Plugin for ProxyMirror {
    const NAME: &'static str = "proxy-mirror";
    const PRIORITY: i32 = 1010;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::choose);
    const LOG: Observe<Self> = Some(Self::send);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let (host, port) = host_and_port(config.host.as_str()).map_err(|why| ConfigError::at("host", why))?;
        if !(0.00001..=1.0).contains(&config.sample_ratio) {
            return Err(ConfigError::at("sample_ratio", "expected a number of 0.00001 to 1"));
        }
        let path = config.path.map(|path| path.to_string());
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(['?', '&'])) {
            return Err(ConfigError::at("path", "expected a path that starts with /, without a query"));
        }
        if path.as_ref().is_some_and(|path| path.bytes().any(|byte| byte <= b' ' || byte >= 127)) {
            return Err(ConfigError::at("path", "expected a path with what is not ASCII percent-encoded"));
        }
        let times = times(cx.attribute("timeout"))?;
        let goals = cx.addresses("host", host).into_iter();
        Ok(Self {
            goals: goals.map(|address: IpAddr| SocketAddr::new(address, port)).collect(),
            path,
            mode: config.path_concat_mode,
            share: (config.sample_ratio * WHOLE as f64) as u64,
            times,
            me: cx.local(),
            chosen: cx.slot(),
        })
    }
}

impl ProxyMirror {
    fn choose<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        if self.share >= WHOLE || env.core.dice(|dice| dice.below(WHOLE)) < self.share {
            let chosen = ex.slots.of::<Chosen>(self.chosen);
            match chosen.first {
                None => chosen.first = Some(self.me),
                Some(_) => chosen.more.push(self.me),
            }
            ex.request.kept_body_bytes_max = BODY_BYTES_MAX;
        }
        Step::Next
    }

    fn send(&self, ex: &Exchange, env: Env<'_>) {
        let Some(chosen) = ex.slots.get::<Chosen>(self.chosen) else { return };
        let is_mine = chosen.first == Some(self.me) || chosen.more.contains(&self.me);
        // What never went upstream, and what became a tunnel, has no copy.
        if !is_mine || ex.attempts.is_empty() || ex.response.status == 101 {
            return;
        }
        let stats = &env.core.stats;
        let to = match &*self.goals {
            [] => return stats.copies_failed.add(1),
            [only] => *only,
            goals => goals[env.core.dice(|dice| dice.below(goals.len() as u64)) as usize],
        };
        let taken = self.message(ex).is_some_and(|message| {
            env.core.errands.give(Errand { to, message, times: self.times })
        });
        if !taken {
            stats.copies_dropped.add(1);
        }
    }

    /// The request as the upstream gets it, but for what is of a connection; `None` where its body was not kept.
    fn message(&self, ex: &Exchange) -> Option<Vec<u8>> {
        let (request, headers) = (&ex.request, &ex.request.headers);
        let has_body = request.content_length.is_some() || headers.has(HeaderId::TransferEncoding);
        let body: Option<&[u8]> = match &request.body {
            Body::Held(body) => Some(body).filter(|body| has_body || !body.is_empty()).map(Vec::as_slice),
            Body::Empty | Body::Flowing if has_body && request.content_length != Some(0) => return None,
            Body::Empty | Body::Flowing => None,
        };
        let mut out = Vec::with_capacity(headers.received().len() + body.map_or(0, <[u8]>::len) + 256);
        out.extend_from_slice(request.forward_method().text().as_bytes());
        out.push(b' ');
        self.write_target(ex, &mut out);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend_from_slice(match headers.get_id(HeaderId::Host) {
            _ if !request.forward.host.is_empty() => &request.forward.host,
            Some(host) => host,
            None => request.host.as_bytes(),
        });
        out.extend_from_slice(b"\r\n");
        let listed = |_: HeaderId, name: &[u8]| connection_lists(headers, name);
        let received = HeaderSet::of(&[HeaderId::XRealIp]);
        headers.write(&mut out, &Omit { always: WRITTEN_ANEW, received, named: Some(&listed) });
        if !headers.was_added(HeaderId::XRealIp) {
            out.extend_from_slice(format!("X-Real-IP: {}\r\n", Shown(ex.client.ip)).as_bytes());
        }
        if let Some(body) = body {
            out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        out.extend_from_slice(b"Connection: close\r\n\r\n");
        out.extend_from_slice(body.unwrap_or_default());
        Some(out)
    }

    fn write_target(&self, ex: &Exchange, out: &mut Vec<u8>) {
        let request = &ex.request;
        if let Some(path) = &self.path {
            out.extend_from_slice(path.as_bytes());
            if self.mode == ConcatMode::Replace {
                if request.has_query {
                    out.push(b'?');
                    out.extend_from_slice(&request.query);
                }
                return;
            }
        }
        if request.forward.target.is_empty() {
            request.write_request_uri(out);
        } else {
            out.extend_from_slice(&request.forward.target);
        }
    }
}

/// A name or address, without brackets, and the port.
fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    let form = || format!("expected http://, a host and perhaps a port, got {text:?}");
    let (scheme, authority) = text.split_once("://").ok_or_else(form)?;
    if scheme != "http" {
        return Err(format!("this build sends copies over plain HTTP only: expected http://, got {scheme}://"));
    }
    let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, port))) => (host, port.strip_prefix(':')),
        Some(None) => return Err(form()),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(80), str::parse).ok().filter(|port| *port > 0).ok_or_else(form)?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) { Err(form()) } else { Ok((host, port)) }
}

/// `{connect, read, send}` of `plugin_attr`, each as nginx writes a time: `60s`, `500ms`.
fn times(written: Option<&Value>) -> Result<Times, ConfigError> {
    let time = |name: &str| match written.and_then(|times| times.get(name)) {
        None => Ok(TIMEOUT),
        Some(text) => text.as_str().and_then(span).ok_or_else(|| {
            let problem = format!("expected a time such as 60s or 500ms, got {text}");
            ConfigError::at(format!("plugin_attr.timeout.{name}"), problem)
        }),
    };
    Ok(Times { connect: time("connect")?, send: time("send")?, read: time("read")? })
}

fn span(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u32 = digits.parse().ok().filter(|number| *number > 0)?;
    let one = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "" | "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    Some(one * number)
}

const fn whole() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Attempt;
    use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};
    use crate::proto::head::Method;

    fn tried(request: Request) -> Request {
        request.with(|ex| {
            ex.attempts.push(Attempt {
                node: "10.0.0.1:80".parse().unwrap(),
                status: 200,
                connect: Duration::ZERO,
                header: Duration::ZERO,
                total: Duration::ZERO,
                reused: false,
            });
        })
    }

    fn bench(config: &str) -> Bench<ProxyMirror> {
        check::<ProxyMirror>(config).unwrap()
    }

    /// Where the copy of a request goes, and what it says.
    fn copy(bench: &Bench<ProxyMirror>, request: Request) -> Option<(String, String)> {
        bench.request(request).passes().response(200, &[], b"");
        let errand = bench.core().errands.take()?;
        Some((errand.to.to_string(), String::from_utf8(errand.message).unwrap()))
    }

    #[test]
    fn a_copy_says_what_the_upstream_is_told() {
        let bench = bench(r#"{"host": "http://127.0.0.1:8081"}"#);
        let request = Request::new(Method::Post, "/a?b=1").header("X-A", "1").header("Connection", "x-b");
        let request = request.header("X-B", "2").header("X-Real-IP", "6.6.6.6").body("hello").with(|ex| {
            ex.request.content_length = Some(5);
            ex.request.forward.method = Some(Method::Put);
        });
        let (to, text) = copy(&bench, tried(request)).unwrap();
        assert_eq!(to, "127.0.0.1:8081");
        // Lines that a test adds count as the gateway's own, which `Connection` can not take away.
        let expected = "PUT /a?b=1 HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nX-B: 2\r\nX-Real-IP: 6.6.6.6\r\n\
                        Content-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_path_is_replaced_or_stands_before() {
        let line = |config: &str, forwarded: &str| {
            let config = format!(r#"{{"host": "http://127.0.0.1"{config}}}"#);
            let request = Request::get("/a?b=1").with(|ex| {
                ex.request.forward.target = forwarded.as_bytes().to_vec();
                ex.request.forward.host = b"new.test".to_vec();
            });
            let (to, text) = copy(&bench(&config), tried(request)).unwrap();
            assert_eq!(to, "127.0.0.1:80");
            assert!(text.contains("\r\nHost: new.test\r\n"), "{text}");
            text.split_once(" HTTP/1.1").unwrap().0.to_owned()
        };
        let prefix = r#", "path": "/p", "path_concat_mode": "prefix""#;
        assert_eq!(line("", ""), "GET /a?b=1");
        assert_eq!(line("", "/new?c"), "GET /new?c");
        assert_eq!(line(r#", "path": "/p""#, "/new?c"), "GET /p?b=1");
        assert_eq!(line(prefix, ""), "GET /p/a?b=1");
        assert_eq!(line(prefix, "/new?c"), "GET /p/new?c");
    }

    #[test]
    fn what_never_went_upstream_and_bodies_that_were_not_kept_have_no_copy() {
        let bench = bench(r#"{"host": "http://[::1]:81"}"#);
        assert!(copy(&bench, Request::get("/")).is_none());
        assert_eq!(bench.core().stats.copies_dropped.get(), 0);
        let long = || tried(Request::get("/").with(|ex| ex.request.content_length = Some(5_000_000)));
        assert!(copy(&bench, long()).is_none());
        let chunked = tried(Request::get("/").header("Transfer-Encoding", "chunked"));
        assert!(copy(&bench, chunked).is_none());
        assert_eq!(bench.core().stats.copies_dropped.get(), 2);
        assert_eq!(copy(&bench, tried(Request::get("/"))).unwrap().0, "[::1]:81");
    }

    #[test]
    fn about_its_share_of_requests_is_copied() {
        let bench = bench(r#"{"host": "http://127.0.0.1", "sample_ratio": 0.25}"#);
        let copied = (0..1000).filter(|_| copy(&bench, tried(Request::get("/"))).is_some()).count();
        // The dice are seeded: the same count each time. Those under way are never over here.
        assert_eq!(copied, 128);
        let chosen = (0..1000).filter(|_| bench.request(Request::get("/")).ex.request.kept_body_bytes_max > 0).count();
        assert!((150..350).contains(&chosen), "{chosen}");
    }

    #[test]
    fn a_host_without_an_address_fails_its_copies_only() {
        let bench = bench(r#"{"host": "http://nowhere.test"}"#);
        assert!(copy(&bench, tried(Request::get("/"))).is_none());
        assert_eq!(bench.core().stats.copies_failed.get(), 1);
    }

    #[test]
    fn times_are_the_processes_to_set() {
        let mut desk = Desk::new().attributes("proxy-mirror", r#"{"timeout": {"connect": "500ms", "read": "2m"}}"#);
        let bench = desk.compile::<ProxyMirror>("routes/1", r#"{"host": "http://127.0.0.1"}"#).unwrap();
        bench.request(tried(Request::get("/"))).response(200, &[], b"");
        let times = bench.core().errands.take().unwrap().times;
        assert_eq!(times.connect, Duration::from_millis(500));
        assert_eq!((times.send, times.read), (TIMEOUT, Duration::from_secs(120)));
        for wrong in ["0s", "1d", "s", "-1s", "1.5s"] {
            assert!(span(wrong).is_none(), "{wrong}");
            let attributes = format!(r#"{{"timeout": {{"send": "{wrong}"}}}}"#);
            let mut desk = Desk::new().attributes("proxy-mirror", &attributes);
            assert!(desk.compile::<ProxyMirror>("routes/1", r#"{"host": "http://127.0.0.1"}"#).is_err());
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        let with = |more: &str| format!(r#"{{"host": "http://a.test:1", {more}}}"#);
        agree::<ProxyMirror>(
            &[
                r#"{"host": "http://a.test"}"#,
                r#"{"host": "http://[::1]:8080"}"#,
                &with(r#""path": "/a", "path_concat_mode": "prefix", "sample_ratio": 0.00001"#),
            ],
            &[
                ("{}", "host"),
                (r#"{"host": "a.test"}"#, "host"),
                (r#"{"host": "ftp://a.test"}"#, "host"),
                (r#"{"host": "http://a.test/x"}"#, "host"),
                (r#"{"host": "http://"}"#, "host"),
                (r#"{"host": "http://::1"}"#, "host"),
                (&with(r#""path": "a""#), "path"),
                (&with(r#""path": "/""#), "path"),
                (&with(r#""path": "/a?b""#), "path"),
                (&with(r#""path_concat_mode": "suffix""#), "one of replace or prefix"),
                (&with(r#""sample_ratio": 0"#), "sample_ratio"),
                (&with(r#""sample_ratio": 1.1"#), "sample_ratio"),
                (&with(r#""ratio": 1"#), "found ratio"),
            ],
        );
        for scheme in ["https", "grpc", "grpcs"] {
            let words = format!("host: this build sends copies over plain HTTP only: expected http://, got {scheme}://");
            refuses::<ProxyMirror>(&format!(r#"{{"host": "{scheme}://a.test"}}"#), &words);
        }
        refuses::<ProxyMirror>(r#"{"host": "http://a.test:65536"}"#, "host: expected http://, a host and perhaps a port");
        refuses::<ProxyMirror>(&with(r#""path": "/a b""#), "path: expected a path with what is not ASCII");
    }
}
