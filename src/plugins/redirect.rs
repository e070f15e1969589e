//! `redirect`: sends the client elsewhere.
//!
//! ```yaml
//! plugins:
//!   redirect:
//!     http_to_https: true
//! ```
//!
//! Exactly one of `uri`, `regex_uri` and `http_to_https` says where to. A `Location` is coded so that nothing the
//! client sent can end the line, and one that begins with a variable never leads to another host by `//`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::text::{escape_path, escape_reference};
use crate::exchange::{Exchange, Reply};
use crate::expr::Template;
use crate::model::field::{InRange, Text};
use crate::plugin::regex_uri::RegexUri;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::head::{HeaderId, Method};

const HTTPS_PORT: u16 = 443;

/// Sends the client elsewhere.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["uri"]}, {"required": ["regex_uri"]}, {"required": ["http_to_https"]}]))]
pub struct Config {
    /// Where to; a template.
    uri: Option<Text<2, 4096>>,
    /// A pattern for the path and its replacement, the place to go to; a path without a match goes on.
    #[schemars(length(min = 2, max = 2))]
    regex_uri: Option<Vec<String>>,
    /// Is plain HTTP sent to the same address over TLS, with 301 for `GET` and `HEAD`, 308 otherwise?
    http_to_https: Option<bool>,
    /// The status of the answer, but for `http_to_https`.
    #[serde(default = "found")]
    ret_code: InRange<200, 599>,
    /// Is the new address percent-encoded, its `%`, `?` and `#` included?
    #[serde(default)]
    encode_uri: bool,
    /// Is the client's query put behind the new address? Absent: no.
    append_query_string: Option<bool>,
}

/// What the core reads.
pub struct Redirect {
    to: To,
    status: u16,
    encode: bool,
    append_query: bool,
}

enum To {
    /// Where the text itself begins with `//`, another host is meant.
    Written { place: Template, may_leave: bool },
    Replaced(RegexUri),
    /// The port, unless it is the usual one.
    Https(Option<u16>),
    Nowhere,
}

impl Plugin for Redirect {
    const NAME: &'static str = "redirect";
    const PRIORITY: i32 = 900;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::redirect);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let to = match (&config.uri, &config.regex_uri, config.http_to_https) {
            (Some(uri), None, None) => {
                To::Written { place: Template::parse(uri.as_str()), may_leave: uri.starts_with("//") }
            }
            (None, Some(pair), None) if pair.len() == 2 => To::Replaced(RegexUri::compile(pair)?),
            (None, Some(_), None) => return Err(ConfigError::at("regex_uri", "expected a list of 2")),
            (None, None, Some(true)) => To::Https(https_port(cx)?),
            (None, None, Some(false)) => To::Nowhere,
            _ => {
                return Err(ConfigError::new(
                    "only one of `uri`, `regex_uri` and `http_to_https` can be configured.",
                ));
            }
        };
        if config.http_to_https == Some(true) && config.append_query_string == Some(true) {
            return Err(ConfigError::new(
                "only one of `http_to_https` and `append_query_string` can be configured.",
            ));
        }
        Ok(Self {
            to,
            status: config.ret_code.u16(),
            encode: config.encode_uri,
            append_query: config.append_query_string.unwrap_or(false),
        })
    }
}

/// `plugin_attr.redirect.https_port`, or the port of the first TLS listener.
fn https_port(cx: &CompileCx<'_>) -> Result<Option<u16>, ConfigError> {
    let port = match cx.attribute("https_port") {
        None => cx.https_port(),
        Some(value) => {
            let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            let fault = || ConfigError::new(format!("expected a port in plugin_attr.redirect.https_port, got {value}"));
            Some(port.ok_or_else(fault)?)
        }
    };
    Ok(port.filter(|port| *port != HTTPS_PORT))
}

impl Redirect {
    fn redirect<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let mut place = env.core.buffers.small();
        let status = self.find_place(ex, &mut place);
        let step = match status {
            None => Step::Next,
            Some(status) => {
                let mut location = Vec::with_capacity(place.len() + ex.request.query.len() + 1);
                // The client's own address is coded as it came.
                let is_coded = matches!(self.to, To::Https(_));
                let write = if self.encode && !is_coded { escape_path } else { escape_reference };
                write(&place, &mut location);
                if self.append_query && !ex.request.query.is_empty() {
                    location.push(if location.contains(&b'?') { b'&' } else { b'?' });
                    escape_reference(&ex.request.query, &mut location);
                }
                Step::Reply(Reply::status(status).with("Location", location))
            }
        };
        env.core.buffers.give_back(place);
        step
    }

    /// Appends the place to be sent to; the status then.
    fn find_place(&self, ex: &Exchange, place: &mut Vec<u8>) -> Option<u16> {
        match &self.to {
            To::Nowhere => None,
            To::Written { place: template, may_leave } => {
                template.render(ex, place);
                if !may_leave {
                    stay_here(place);
                }
                Some(self.status)
            }
            To::Replaced(regex) => {
                regex.rewrite(&ex.request.path, ex, place)?;
                stay_here(place);
                Some(self.status)
            }
            To::Https(_) if is_https(ex) => None,
            To::Https(port) => {
                place.extend_from_slice(b"https://");
                place.extend_from_slice(ex.request.host.as_bytes());
                if let Some(port) = port {
                    place.push(b':');
                    place.extend_from_slice(itoa::Buffer::new().format(*port).as_bytes());
                }
                ex.request.write_request_uri(place);
                // 308 keeps method and body, which 301 is known to lose.
                Some(if matches!(ex.request.method(), Method::Get | Method::Head) { 301 } else { 308 })
            }
        }
    }
}

/// Whether the client speaks TLS, with us or with a proxy in front that we trust.
fn is_https(ex: &Exchange) -> bool {
    match ex.request.headers.get_id(HeaderId::XForwardedProto) {
        Some(proto) if ex.client.trusted => proto.eq_ignore_ascii_case(b"https"),
        _ => ex.client.https,
    }
}

/// Browsers read `//host` and `/\host` as another host: leaves one slash.
fn stay_here(place: &mut Vec<u8>) {
    if place.first() == Some(&b'/') {
        let slashes = place.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
        place.drain(1..slashes);
    }
}

const fn found() -> InRange<200, 599> {
    InRange::literal(302)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Desk, Request, agree, check, refuses};

    fn leads(config: &str, from: &str, status: u16, location: &str) {
        let bench = check::<Redirect>(config).unwrap();
        bench.request(Request::get(from)).replies(status, "").header("Location", location);
    }

    #[test]
    fn a_written_place_is_filled_in() {
        leads(r#"{"uri":"/new"}"#, "/old?a=1", 302, "/new");
        leads(r#"{"uri":"https://b.com$uri","ret_code":301}"#, "/old?a=1", 301, "https://b.com/old");
        leads(r#"{"uri":"/x/${arg_a}.html"}"#, "/?a=1", 302, "/x/1.html");
        leads(r#"{"uri":"/new","append_query_string":true}"#, "/old?a=1", 302, "/new?a=1");
        leads(r#"{"uri":"/new?b=2","append_query_string":true}"#, "/old?a=1", 302, "/new?b=2&a=1");
        leads(r#"{"uri":"/new","append_query_string":true}"#, "/old", 302, "/new");
        leads(r#"{"uri":"/a b%20$arg_a","encode_uri":true}"#, "/?a=%3F", 302, "/a%20b%2520%3F");
        leads(r#"{"uri":"/$arg_a","ret_code":200}"#, "/?a=%C3%A9", 200, "/%C3%A9");
    }

    #[test]
    fn a_pattern_decides_whether_to_go() {
        let config = r#"{"regex_uri":["^/v1/(.*)","/v2/$1"],"ret_code":308}"#;
        leads(config, "/v1/a", 308, "/v2/a");
        check::<Redirect>(config).unwrap().request(Request::get("/v3/a")).passes();
    }

    #[test]
    fn nothing_a_client_sends_ends_the_line_or_leads_to_another_host() {
        leads(r#"{"uri":"/$arg_a"}"#, "/?a=x%0d%0aEvil:%201", 302, "/x%0D%0AEvil:%201");
        leads(r#"{"uri":"/$arg_a"}"#, "/?a=/evil.com", 302, "/evil.com");
        leads(r#"{"uri":"/$arg_a"}"#, "/?a=%5Cevil.com", 302, "/evil.com");
        leads(r#"{"regex_uri":["^/x(.*)","$1"]}"#, "/x//evil.com", 302, "/evil.com");
        leads(r#"{"uri":"//b.com/"}"#, "/", 302, "//b.com/");
    }

    #[test]
    fn plain_http_is_sent_to_tls_on_the_port_that_is_known() {
        let config = r#"{"http_to_https":true}"#;
        leads(config, "/a%20b?c=1", 301, "https://example.com/a%20b?c=1");
        let coded = r#"{"http_to_https":true,"encode_uri":true}"#;
        leads(coded, "/a%20b?c=1", 301, "https://example.com/a%20b?c=1");
        let location = |mut desk: Desk, expected: &str| {
            let bench = desk.compile::<Redirect>("routes/1", config).unwrap();
            bench.request(Request::new(Method::Post, "/")).replies(308, "").header("Location", expected);
        };
        location(Desk::new().https_port(9443), "https://example.com:9443/");
        location(Desk::new().https_port(443), "https://example.com/");
        let attributes = r#"{"https_port":8443}"#;
        location(Desk::new().https_port(9443).attributes("redirect", attributes), "https://example.com:8443/");
        let mut wrong = Desk::new().attributes("redirect", r#"{"https_port":70000}"#);
        assert!(wrong.compile::<Redirect>("routes/1", config).is_err());
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_about_tls() {
        let bench = check::<Redirect>(r#"{"http_to_https":true}"#).unwrap();
        bench.request(Request::get("/").with(|ex| ex.client.https = true)).passes();
        let claimed = || Request::get("/").header("X-Forwarded-Proto", "https");
        bench.request(claimed()).replies(301, "");
        bench.request(claimed().with(|ex| ex.client.trusted = true)).passes();
        let plain = Request::get("/").header("X-Forwarded-Proto", "http").with(|ex| {
            ex.client.trusted = true;
            ex.client.https = true;
        });
        bench.request(plain).replies(301, "");
        let off = check::<Redirect>(r#"{"http_to_https":false}"#).unwrap();
        off.request(Request::get("/")).passes();
    }

    #[test]
    fn schema_and_compile_agree() {
        let one_of = "expected exactly one of `uri`, `regex_uri` and `http_to_https`";
        agree::<Redirect>(
            &[
                r#"{"uri":"/a","ret_code":200,"encode_uri":true,"append_query_string":true}"#,
                r#"{"regex_uri":["a","b"],"ret_code":599}"#,
                r#"{"http_to_https":true,"append_query_string":false}"#,
            ],
            &[
                ("{}", one_of),
                (r#"{"uri":"/a","http_to_https":true}"#, one_of),
                (r#"{"uri":"/a","regex_uri":["a","b"]}"#, one_of),
                (r#"{"uri":"/"}"#, "uri"),
                (r#"{"regex_uri":["a"]}"#, "regex_uri"),
                (r#"{"regex_uri":["a","b","c"]}"#, "regex_uri"),
                (r#"{"http_to_https":"yes"}"#, "true or false"),
                (r#"{"uri":"/a","ret_code":199}"#, "ret_code"),
                (r#"{"uri":"/a","ret_code":600}"#, "ret_code"),
                (r#"{"uri":"/a","encode_uri":1}"#, "true or false"),
                (r#"{"uri":"/a","append_query_string":1}"#, "true or false"),
                (r#"{"url":"/a"}"#, "found url"),
            ],
        );
        refuses::<Redirect>(
            r#"{"http_to_https":true,"append_query_string":true}"#,
            "only one of `http_to_https` and `append_query_string` can be configured.",
        );
        refuses::<Redirect>(r#"{"regex_uri":["(","b"]}"#, "invalid regex_uri((, b): ");
    }
}
