//! Core to control thread: lines of logs that leave the machine, in batches, with where they go.

use std::time::Duration;

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    Tcp,
    Tls,
    /// Each line is a datagram, without its end.
    Udp,
}

/// Where lines go, and how much is done for them. Batches for equal ones travel together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// A name or an address, without brackets.
    pub host: Box<str>,
    pub port: u16,
    pub carrier: Carrier,
    /// How long connecting, and sending a batch, may take.
    pub timeout: Duration,
    /// Most bytes that wait to be sent; beyond, batches are dropped.
    pub waiting_bytes_max: usize,
    /// How often a batch is tried again.
    pub retries: u32,
    /// How long is waited before that.
    pub retry_delay: Duration,
}
