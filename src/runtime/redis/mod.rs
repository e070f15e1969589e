//! How a core asks a Redis: where it is, how it is spoken to, and why there may be no reply.
//!
//! Every wait has an end that whoever asks has set: nothing here starts it anew, however many steps an answer takes.

mod cluster;
mod line;
mod sentinel;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use cluster::{Cluster, Seeds};
pub use line::{BATCH_MAX, Line, QUEUE_MAX};
pub use sentinel::Sentinels;

use super::dialogue::{Tls, Unopened};
use crate::proto::resp::Reply;

/// Where a Redis is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it is called in the log.
    pub name: String,
    /// The name it shows over TLS, where it is not its address.
    pub host: String,
    pub at: Whereabouts,
    pub manner: Manner,
}

/// How it is known where a Redis is.
#[derive(Clone, Debug)]
pub enum Whereabouts {
    /// It was written: these are tried in turn.
    Written(Vec<SocketAddr>),
    /// Sentinels are asked, for each connection anew.
    Watched(Sentinels),
}

/// How a Redis is spoken to.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Commands that open a connection, and how many they are.
    pub hello: Vec<u8>,
    pub hello_count: usize,
    /// How TLS is spoken with it, where it is.
    pub tls: Option<Tls>,
    /// Longest that connecting may take, where that ends before whoever asks has lost patience.
    pub connect: Duration,
    /// A connection that was not used for so long is not used again.
    pub idle: Duration,
}

/// A command.
#[derive(Clone, Debug)]
pub struct Ask {
    pub command: Vec<u8>,
    /// Whether it must not be sent a second time when it is not known what became of it.
    pub once: bool,
    /// Whether a node of a cluster is asked that does not have the key for good.
    asking: bool,
}

impl Ask {
    /// One that may be sent again.
    pub const fn new(command: Vec<u8>) -> Self {
        Self { command, once: false, asking: false }
    }

    /// One that must not be.
    pub const fn once(command: Vec<u8>) -> Self {
        Self { command, once: true, asking: false }
    }
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Late,
    Unreachable(io::ErrorKind),
    /// There is no agreement on TLS.
    Insecure(String),
    /// The connection broke in between.
    Broken,
    /// It said something that no Redis says.
    Garbage,
    /// It does not let us in, or does not serve now.
    Refused(String),
    /// Too many wait already.
    Crowded,
    /// A reply was late a moment ago, so nobody waits for another.
    Resting,
}

impl From<Unopened> for Failure {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::Late => Self::Late,
            Unopened::Unreachable(kind) => Self::Unreachable(kind),
            Unopened::Insecure(why) => Self::Insecure(why),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no reply in time"),
            Self::Unreachable(kind) => write!(f, "can not connect: {kind}"),
            Self::Insecure(why) => write!(f, "no TLS: {why}"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Garbage => f.write_str("what it says is not Redis's protocol"),
            Self::Refused(why) => write!(f, "it says: {why}"),
            Self::Crowded => write!(f, "{QUEUE_MAX} commands wait already"),
            Self::Resting => f.write_str("a reply was late a moment ago"),
        }
    }
}

/// What came of a command.
pub type Answer = Result<Reply, Failure>;
