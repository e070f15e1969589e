//! Core to control thread: lines of logs that leave the machine, in batches, with where they go.

use std::time::Duration;

/// Whose lines they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logger {
    Syslog,
    Http,
    File,
}

/// Names of [`Logger`]s, each at its place.
pub const LOGGERS: [&str; 3] = ["syslog", "http-logger", "file-logger"];

impl Logger {
    /// The plugin's name.
    pub const fn name(self) -> &'static str {
        LOGGERS[self as usize]
    }
}

/// How lines travel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    Tcp,
    Tls,
    /// Each line is a datagram, without its end.
    Udp,
    /// A batch is the body of a POST.
    Http(Box<Post>),
    /// A batch is appended to a file.
    File,
}

/// How a batch is posted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Post {
    pub is_tls: bool,
    /// Whether the certificate of the other side is checked.
    pub is_verified: bool,
    /// What the `Host` header says.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Box<str>,
    /// What the `Authorization` header says.
    pub authorization: Option<Box<str>>,
    pub content_type: &'static str,
}

/// Where lines go, and how much is done for them. Batches for equal ones travel together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub logger: Logger,
    /// A name or an address, without brackets; of a file its path.
    pub host: Box<str>,
    pub port: u16,
    pub carrier: Carrier,
    /// How long connecting, and sending a batch, may take.
    pub timeout: Duration,
    /// Most bytes that wait to be sent; beyond, batches are dropped.
    pub waiting_bytes_max: usize,
    /// The same, of lines.
    pub waiting_entries_max: u64,
    /// How often a batch is tried again.
    pub retries: u32,
    /// How long is waited before that.
    pub retry_delay: Duration,
}
