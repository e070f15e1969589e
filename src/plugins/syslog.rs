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
//! A core collects lines and hands them over in batches; the control thread sends them (`control/export/shipping.rs`). Nothing
//! that is asked for waits for it: what finds no room is dropped and counted. Differs from APISIX: lines are never sent
//! on the spot; bodies are not logged; certificates are verified with `tls`; unknown fields are refused.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::exchange::Exchange;
use crate::link::lines::{Carrier, Destination};
use crate::link::outbox::Report;
use crate::model::field::{InRange, Port, Seconds, Text};
use crate::plugin::{CompileCx, ConfigError, Env, Observe, Plugin};
use crate::runtime::chore::Chore;
use crate::runtime::{Core, LocalId};

mod entry;

use entry::Entry;

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
    to: Arc<Destination>,
    entry: Entry,
    batch: LocalId,
    flush_bytes: usize,
    flush_lines: u64,
    age: Duration,
}

/// Lines of one core that wait to leave.
#[derive(Debug, Default)]
struct Batch {
    bytes: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    /// Where values are written before they are quoted.
    scratch: RefCell<Vec<u8>>,
    /// Somebody sees to it that they leave.
    is_looked_after: Cell<bool>,
}

impl Plugin for Syslog {
    const NAME: &'static str = "syslog";
    const PRIORITY: i32 = 401;
    const IN_STREAMS: bool = true;
    type Config = Config;
    type Metadata = Metadata;

    const LOG: Observe<Self> = Some(Self::note);

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
        Ok(Self {
            to: Arc::new(Destination {
                host: host.into(),
                port: config.port.get(),
                carrier,
                timeout: Duration::from_millis(config.timeout.u64()),
                waiting_bytes_max: config.drop_limit.usize(),
                retries: config.max_retry_count.u32(),
                retry_delay: config.retry_delay.get(),
            }),
            entry: Entry::compile(config.log_format.or(metadata.log_format))?,
            batch: cx.local(),
            flush_bytes: config.flush_limit.usize(),
            flush_lines: config.batch_max_size.u64(),
            age: config.inactive_timeout.get().min(config.buffer_duration.get()),
        })
    }
}

impl Syslog {
    fn note(&self, ex: &Exchange, env: Env<'_>) {
        let core = env.core;
        let batch = core.local(self.batch, Batch::default);
        let mut bytes = batch.bytes.borrow_mut();
        self.entry.write_line(ex, &mut batch.scratch.borrow_mut(), &mut bytes);
        let is_due = bytes.len() >= self.flush_bytes;
        drop(bytes);
        batch.lines.set(batch.lines.get() + 1);
        if is_due || batch.lines.get() >= self.flush_lines {
            return batch.leave(core, &self.to);
        }
        if !batch.is_looked_after.replace(true) {
            let errand = Look { batch: Rc::clone(&batch), to: Arc::clone(&self.to), age: self.age };
            if core.chores.give(Box::new(errand)).is_err() {
                batch.is_looked_after.set(false);
                batch.leave(core, &self.to);
            }
        }
    }
}

impl Batch {
    fn leave(&self, core: &Core, to: &Arc<Destination>) {
        let lines = self.lines.take();
        if lines == 0 {
            return;
        }
        let report = Report::Lines { to: Arc::clone(to), bytes: self.bytes.take(), lines };
        if core.outbox.send(report).is_err() {
            core.stats.syslog_drops.add(lines);
        }
    }
}

/// Sees to it that no line waits for longer than it may.
#[derive(Debug)]
struct Look {
    batch: Rc<Batch>,
    to: Arc<Destination>,
    age: Duration,
}

impl Chore for Look {
    fn run<'a>(self: Box<Self>, core: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            loop {
                core.chores.rest(core, self.age).await;
                if self.batch.lines.get() == 0 || core.chores.is_hurried() {
                    break;
                }
                self.batch.leave(core, &self.to);
            }
            self.batch.is_looked_after.set(false);
            self.batch.leave(core, &self.to);
        })
    }
}

#[cfg(test)]
mod tests;
