//! `referer-restriction`: admits or refuses a request by the page it comes from, as its `Referer` says.
//!
//! ```yaml
//! plugins:
//!   referer-restriction:
//!     whitelist: ["example.com", "*.example.com"]
//! ```
//!
//! Exactly one of the two lists is given. A `Referer` that is no `http` or `https` address counts as missing; of several,
//! each must pass. Refused is answered 403 and `{"message": …}`. Differs from APISIX: capital and small letters of hosts
//! are the same; refuses unknown fields.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::hash::Set;
use crate::exchange::{Exchange, Reply};
use crate::model::field::{HostPattern, NonEmpty, Text};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::head::HeaderId;

/// Admits or refuses by the page that a request comes from.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["whitelist"]}, {"required": ["blacklist"]}]))]
pub struct Config {
    /// Only requests from pages of these hosts may pass.
    whitelist: Option<NonEmpty<HostPattern>>,
    /// All requests but those may pass.
    blacklist: Option<NonEmpty<HostPattern>>,
    /// Whether a request that names no page may pass.
    #[serde(default)]
    bypass_missing: bool,
    /// What a refused client is told.
    #[serde(default = "not_allowed")]
    message: Text<1, 1024>,
}

/// What the core reads.
pub struct RefererRestriction {
    /// In lower case.
    hosts: Set<Box<[u8]>>,
    /// What hosts end in, with the dot in front; in lower case.
    suffixes: Box<[Box<[u8]>]>,
    /// The outcome for a host that is listed.
    admit_listed: bool,
    admit_missing: bool,
    refusal: Reply,
}

impl Plugin for RefererRestriction {
    const NAME: &'static str = "referer-restriction";
    const PRIORITY: i32 = 2990;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::judge);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let (list, admit_listed) = match (config.whitelist, config.blacklist) {
            (Some(list), None) => (list, true),
            (None, Some(list)) => (list, false),
            _ => return Err(ConfigError::new("expected exactly one of `whitelist` and `blacklist`")),
        };
        let (mut hosts, mut suffixes) = (Set::default(), Vec::new());
        for pattern in &list {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.strip_prefix('*') {
                Some(suffix) => suffixes.push(suffix.as_bytes().into()),
                None => drop(hosts.insert(pattern.into_bytes().into())),
            }
        }
        Ok(Self {
            hosts,
            suffixes: suffixes.into(),
            admit_listed,
            admit_missing: config.bypass_missing,
            refusal: Reply::message(403, &config.message),
        })
    }
}

impl RefererRestriction {
    fn judge<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let headers = &ex.request.headers;
        let mut scratch = env.core.buffers.small();
        let admits = if headers.has(HeaderId::Referer) {
            headers.all_id(HeaderId::Referer).all(|referer| self.admits(referer, &mut scratch))
        } else {
            self.admit_missing
        };
        env.core.buffers.give_back(scratch);
        if admits { Step::Next } else { Step::Reply(self.refusal.clone()) }
    }

    fn admits(&self, referer: &[u8], scratch: &mut Vec<u8>) -> bool {
        let Some(host) = host_of(referer) else { return self.admit_missing };
        scratch.clear();
        scratch.extend(host.iter().map(u8::to_ascii_lowercase));
        let host = scratch.as_slice();
        let is_listed =
            self.hosts.contains(host) || self.suffixes.iter().any(|suffix| host.ends_with(suffix));
        is_listed == self.admit_listed
    }
}

/// The host of an `http` or `https` address, without port and user; a browser would go to no other.
fn host_of(address: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', address)?;
    let (scheme, rest) = address.split_at(colon);
    let is_web = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    let rest = rest.strip_prefix(b"://").filter(|_| is_web)?;
    // Browsers take `\` for `/`.
    let end = rest.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]);
    let host = match memchr::memrchr(b':', host) {
        // Within brackets it is of an IPv6 address.
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    };
    (!host.is_empty()).then_some(host)
}

fn not_allowed() -> Text<1, 1024> {
    Text::literal("Your referer host is not allowed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check};

    fn admits(bench: &Bench<RefererRestriction>, referers: &[&str]) -> bool {
        let request = referers.iter().fold(Request::get("/"), |request, line| request.header("Referer", line));
        let outcome = bench.request(request);
        if outcome.reply.is_none() {
            return true;
        }
        outcome.replies(403, "{\"message\":\"Your referer host is not allowed\"}\n");
        false
    }

    #[test]
    fn hosts_are_admitted_or_refused_by_name_and_by_suffix() {
        let white = check::<RefererRestriction>(r#"{"whitelist": ["*.xx.com", "YY.com", "[::1]"]}"#).unwrap();
        let black = check::<RefererRestriction>(r#"{"blacklist": ["*.xx.com", "YY.com", "[::1]"]}"#).unwrap();
        for (referer, is_listed) in [
            ("http://www.xx.com", true),
            ("https://a.b.XX.com/", true),
            ("https://yy.com/am?x=http://zz.com", true),
            ("HTTP://yy.com:8080", true),
            ("http://user:pass@yy.com#x", true),
            ("http://[::1]:80/", true),
            ("http://xx.com", false),
            ("https://www.yy.com/am", false),
            ("https://yy.com.evil.com", false),
            ("https://yy.com@evil.com/", false),
            ("https://evil.com\\@yy.com/", false),
            ("https://evil.com/yy.com", false),
        ] {
            assert_eq!((admits(&white, &[referer]), admits(&black, &[referer])), (is_listed, !is_listed), "{referer}");
        }
        assert!(!admits(&white, &["http://yy.com", "http://evil.com"]), "each must pass");
        assert!(!admits(&black, &["http://evil.com", "http://yy.com"]), "each must pass");
    }

    #[test]
    fn what_names_no_page_counts_as_missing() {
        for bypass in [false, true] {
            let config = format!(r#"{{"whitelist": ["yy.com"], "bypass_missing": {bypass}}}"#);
            let bench = check(&config).unwrap();
            for referers in [&[][..], &["www.yy.com"], &["yy.com:80"], &["ftp://yy.com"], &["http://"], &[""]] {
                assert_eq!(admits(&bench, referers), bypass, "{referers:?}");
            }
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        let one_of = "expected exactly one of `whitelist` and `blacklist`";
        agree::<RefererRestriction>(
            &[r#"{"whitelist": ["*.a.com"]}"#, r#"{"blacklist": ["a"], "message": "go", "bypass_missing": true}"#],
            &[
                ("{}", one_of),
                (r#"{"whitelist": ["a"], "blacklist": ["b"]}"#, one_of),
                (r#"{"whitelist": []}"#, "at least 1"),
                (r#"{"whitelist": ["x.*"]}"#, "whitelist[0]"),
                (r#"{"blacklist": ["~y.xn"]}"#, "blacklist[0]"),
                (r#"{"blacklist": ["a"], "message": ""}"#, "message"),
                (r#"{"denylist": ["a"]}"#, "additional properties forbidden, found denylist"),
            ],
        );
    }
}
