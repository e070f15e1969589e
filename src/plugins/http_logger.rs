//! `http-logger`: entries for each request, posted in batches to a server of HTTP.
//!
//! ```yaml
//! plugins:
//!   http-logger:
//!     uri: http://10.0.0.9:8080/logs
//!     batch_max_size: 500
//!     log_format: {client: $remote_addr, what: "$request_method $uri", status: $status}
//! ```
//!
//! A core collects entries and the control thread posts them (`plugin/logger/mod.rs`). Differs from APISIX: only http and
//! https; a batch leaves at 1 MiB as well, and no more than 64 MiB wait; unknown fields are refused.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::{Chunk, Exchange};
use crate::link::lines::{Carrier, Destination, Logger, Post};
use crate::model::field::{Seconds, Secret, Text};
use crate::plugin::logger::{Batches, Bodies, Entry, Shape, config};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, Observe, Phases, Plugin, Step, Transform};

/// Bytes of entries after which a core hands a batch over, whatever else is said: what a core holds of them.
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes that wait for one destination at most, beside the bound on their number: what a dead collector costs.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What stands for the route of a request that found none.
const NO_ROUTE: &str = "no-matched";

crate::logger_config! {
/// Entries for each request, posted in batches to a server of HTTP.
pub struct Config {
    /// Where to: `http://` or `https://`, a host, perhaps a port, a path and a query.
    #[schemars(regex(pattern = r"^https?://([0-9A-Za-z._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?([/?][!-~]*)?$"))]
    uri: Text<8, 4096>,
    /// What the `Authorization` header says.
    auth_header: Option<Secret>,
    /// Seconds that connecting, and posting a batch, may take.
    #[serde(default = "timeout")]
    timeout: Seconds,
    /// How the entries of a batch become one body.
    #[serde(default)]
    concat_method: Concat,
    /// Is the server's certificate checked, by `ssl.trusted_certificate` of the settings?
    #[serde(default)]
    ssl_verify: bool,
}
}

/// How entries become one body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Concat {
    /// An array of JSON, or one object where a batch is one entry: `application/json`.
    #[default]
    Json,
    /// An object a line: `text/plain`.
    NewLine,
}

const fn timeout() -> Seconds {
    Seconds::literal(3)
}

/// What the core reads.
pub struct HttpLogger {
    entry: Entry,
    bodies: Bodies,
    batches: Batches,
}

impl Plugin for HttpLogger {
    const NAME: &'static str = "http-logger";
    const PRIORITY: i32 = 410;
    type Config = Config;
    type Metadata = config::Metadata;

    const ACCESS: Gate<Self> = Some(Self::ask);
    const BODY_FILTER: Transform<Self> = Some(Self::keep);
    const LOG: Observe<Self> = Some(Self::note);

    fn compile(
        mut config: Config,
        metadata: config::Metadata,
        cx: &mut CompileCx<'_>,
    ) -> Result<Self, ConfigError> {
        let (host, port, mut post) = target(config.uri.as_str()).map_err(|why| ConfigError::at("uri", why))?;
        post.is_verified = config.ssl_verify;
        post.authorization = config.auth_header.as_ref().map(|secret| secret.expose().into());
        if post.authorization.as_ref().is_some_and(|text| !text.bytes().all(|byte| matches!(byte, b' '..=b'~'))) {
            return Err(ConfigError::at("auth_header", "expected printable ASCII, got something else"));
        }
        let shape = match config.concat_method {
            Concat::NewLine => Shape::Apart,
            Concat::Json if config.batch_max_size.u64() == 1 => Shape::Apart,
            Concat::Json => Shape::Array,
        };
        if config.concat_method == Concat::NewLine {
            post.content_type = "text/plain";
        }
        let waiting_entries_max = metadata.max_pending_entries.get();
        let to = Destination {
            logger: Logger::Http,
            host,
            port,
            carrier: Carrier::Http(Box::new(post)),
            timeout: config.timeout.get(),
            waiting_bytes_max: WAITING_BYTES_MAX,
            waiting_entries_max,
            retries: config.max_retry_count.u32(),
            retry_delay: config.retry_delay.get(),
        };
        let (request, response) = config.wishes();
        let format = config.log_format.or(metadata.log_format);
        let entry = Entry::compile(format, config.log_format_extra.or(metadata.log_format_extra))?;
        let me = cx.local();
        Ok(Self {
            bodies: Bodies::compile(request, response, &entry, (me, cx))?,
            entry: entry.saying_no_route(NO_ROUTE),
            batches: Batches {
                to: Arc::new(to),
                shape,
                waiting: me,
                bytes: BATCH_BYTES,
                // A batch that is larger than what may wait could never leave.
                entries: config.batch_max_size.u64().min(waiting_entries_max),
                age: config.inactive_timeout.get().min(config.buffer_duration.get()),
            },
        })
    }

    fn reads_sent_head(&self) -> bool {
        self.entry.reads_sent_head()
    }

    fn active(&self) -> Phases {
        self.bodies.active()
    }
}

impl HttpLogger {
    fn ask<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        self.bodies.ask(ex);
        Step::Next
    }

    fn keep(&self, ex: &mut Exchange, _: Env<'_>, chunk: &mut Chunk<'_>) {
        self.bodies.keep(ex, chunk);
    }

    fn note(&self, ex: &Exchange, env: Env<'_>) {
        let logged = self.bodies.logged(ex);
        self.batches.take(env.core, |scratch, out| self.entry.write(ex, logged, scratch, out));
    }
}

/// The host without brackets, the port and the rest of a URI.
fn target(uri: &str) -> Result<(Box<str>, u16, Post), String> {
    let form = || format!("expected http:// or https://, a host, perhaps a port and a path, got {uri:?}");
    let (scheme, rest) = uri.split_once("://").ok_or_else(form)?;
    let is_tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(form()),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(form)?;
            let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
            (Some(host).filter(|_| is_address).ok_or_else(form)?, Some(port).filter(|port| !port.is_empty()))
        }
        None => match authority.find(':') {
            Some(at) => (&authority[..at], Some(&authority[at..])),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port > 0),
        None => Some(if is_tls { 443 } else { 80 }),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(form());
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let post = Post {
        is_tls,
        is_verified: false,
        authority: authority.into(),
        target: format!("{slash}{path}").into(),
        authorization: None,
        content_type: "application/json",
    };
    Ok((host.into(), port.ok_or_else(form)?, post))
}

#[cfg(test)]
mod tests;
