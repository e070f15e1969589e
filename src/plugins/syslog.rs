//! `syslog`: a line for each request, or stream, to a server of syslog.
//!
//! ```yaml
//! plugins:
//!   syslog:
//!     host: 10.0.0.9
//!     port: 514
//!     sock_type: udp
//!     log_format: {client: $remote_addr, what: "$request_method $uri", status: $status}
//! ```
//!
//! A core collects lines and the control thread sends them (`plugin/logger/mod.rs`). Differs from APISIX: lines are never sent
//! on the spot; bodies are not logged; certificates are verified with `tls`; unknown fields are refused.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::clock;
use crate::exchange::Exchange;
use crate::link::lines::{Carrier, Destination, Logger};
use crate::model::field::{InRange, Port, Seconds, Text};
use crate::plugin::logger::{Batches, Entry, Logged, Shape};
use crate::plugin::{CompileCx, ConfigError, Env, Observe, Plugin};

/// Facility 5 (syslog), severity 6 (informational), version 1.
const BEGIN: &[u8] = b"<46>1 ";
/// By which receivers know the sender; APISIX's, so that their rules stay.
const APP_NAME: &str = "apisix";
/// The longest name of a host (RFC 5424 6).
const HOST_BYTES_MAX: usize = 255;

/// A line for each request, or stream, to a server of syslog.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server's name or address; IPv6 without brackets.
    #[schemars(regex(pattern = "^[0-9A-Za-z._:-]+$"))]
    host: Text<1, 256>,
    /// The server's port.
    port: Port,
    /// What lines travel by.
    #[serde(default)]
    sock_type: SockType,
    /// With `tcp`: over TLS? The server's certificate is checked by `ssl.trusted_certificate` of the settings.
    #[serde(default)]
    tls: bool,
    /// Milliseconds that connecting, and sending a batch, may take.
    #[serde(default = "timeout")]
    timeout: InRange<1, 600_000>,
    /// Bytes of lines after which a core hands a batch over.
    #[serde(default = "flush_limit")]
    flush_limit: InRange<1, 1_048_576>,
    /// Most bytes of lines that wait to be sent; beyond, batches are dropped.
    #[serde(default = "drop_limit")]
    drop_limit: InRange<1, 1_073_741_824>,
    /// Lines after which a core hands a batch over.
    #[serde(default = "batch_max_size")]
    batch_max_size: InRange<1, 1_000_000>,
    /// Seconds that a line waits on its core at most.
    #[serde(default = "inactive_timeout")]
    inactive_timeout: Seconds,
    /// The same; the smaller one counts.
    #[serde(default = "buffer_duration")]
    buffer_duration: Seconds,
    /// How often a batch is tried again.
    #[serde(default, alias = "max_retry_times")]
    max_retry_count: InRange<0, 100>,
    /// Seconds before that.
    #[serde(default = "retry_delay")]
    retry_delay: Seconds,
    /// A name for the batches; read by nobody.
    #[serde(rename = "name")]
    #[schemars(rename = "name")]
    _name: Option<String>,
    /// Connections to keep; one is.
    #[serde(rename = "pool_size")]
    #[schemars(rename = "pool_size")]
    _pool_size: Option<InRange<5, 1_000_000>>,
    /// What a line says: fields with texts in which `$name` stands for a variable, or with further fields, five deep at
    /// most. Absent: that of the metadata, else everything.
    log_format: Option<Map<String, Value>>,
}

/// What lines travel by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum SockType {
    /// One after the other, each with a line end.
    #[default]
    Tcp,
    /// Each in a datagram of its own.
    Udp,
}

/// What holds for all uses.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What a line says where a use does not say.
    log_format: Option<Map<String, Value>>,
}

const fn timeout() -> InRange<1, 600_000> {
    InRange::literal(3000)
}

const fn flush_limit() -> InRange<1, 1_048_576> {
    InRange::literal(4096)
}

const fn drop_limit() -> InRange<1, 1_073_741_824> {
    InRange::literal(1_048_576)
}

const fn batch_max_size() -> InRange<1, 1_000_000> {
    InRange::literal(1000)
}

const fn inactive_timeout() -> Seconds {
    Seconds::literal(5)
}

const fn buffer_duration() -> Seconds {
    Seconds::literal(60)
}

const fn retry_delay() -> Seconds {
    Seconds::literal(1)
}

/// What the core reads.
pub struct Syslog {
    entry: Entry,
    batches: Batches,
}

impl Plugin for Syslog {
    const NAME: &'static str = "syslog";
    const PRIORITY: i32 = 401;
    const IN_STREAMS: bool = true;
    type Config = Config;
    type Metadata = Metadata;

    const LOG: Observe<Self> = Some(Self::note);

    fn reads_sent_head(&self) -> bool {
        self.entry.reads_sent_head()
    }

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let carrier = match (config.sock_type, config.tls) {
            (SockType::Tcp, false) => Carrier::Tcp,
            (SockType::Tcp, true) => Carrier::Tls,
            (SockType::Udp, false) => Carrier::Udp,
            (SockType::Udp, true) => {
                return Err(ConfigError::at("tls", "expected false with sock_type: udp, got true"));
            }
        };
        let host = config.host.as_str();
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)) {
            return Err(ConfigError::at("host", format!("expected a name or an address, got {host:?}")));
        }
        let to = Destination {
            logger: Logger::Syslog,
            host: host.into(),
            port: config.port.get(),
            carrier,
            timeout: Duration::from_millis(config.timeout.u64()),
            waiting_bytes_max: config.drop_limit.usize(),
            waiting_entries_max: u64::MAX,
            retries: config.max_retry_count.u32(),
            retry_delay: config.retry_delay.get(),
        };
        Ok(Self {
            entry: Entry::compile(config.log_format.or(metadata.log_format), None)?,
            batches: Batches {
                to: Arc::new(to),
                shape: Shape::Lines,
                waiting: cx.local(),
                bytes: config.flush_limit.usize(),
                entries: config.batch_max_size.u64(),
                age: config.inactive_timeout.get().min(config.buffer_duration.get()),
            },
        })
    }
}

impl Syslog {
    fn note(&self, ex: &Exchange, env: Env<'_>) {
        self.batches.take(env.core, |scratch, out| self.write_line(ex, scratch, out));
    }

    /// Appends the line of an exchange, with its end.
    fn write_line(&self, ex: &Exchange, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(BEGIN);
        clock::write_rfc3339(out, ex.timing.received_at);
        out.push(b' ');
        write_host(ex.request.host.as_bytes(), out);
        // Writing to a vector can not fail.
        let _ = write!(out, " {APP_NAME} {} - - ", std::process::id());
        self.entry.write(ex, Logged::default(), scratch, out);
        out.push(b'\n');
    }
}

/// A host as RFC 5424 has it: of printable ASCII, and never empty.
fn write_host(host: &[u8], out: &mut Vec<u8>) {
    if host.is_empty() {
        return out.push(b'-');
    }
    let shown = host.iter().take(HOST_BYTES_MAX);
    out.extend(shown.map(|byte| if byte.is_ascii_graphic() { *byte } else { b'?' }));
}

#[cfg(test)]
mod tests;
