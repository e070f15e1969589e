//! Configuration frozen into the form the cores read.
//!
//! A [`Snapshot`] is made by [`Compiler`] on the control thread, never changes, and is freed there, too: a core
//! hands its last hold back through the outbox.

pub mod compile;

pub use compile::Compiler;

use std::sync::Arc;
use std::time::Duration;

/// What the control thread tells a core.
#[derive(Clone, Debug)]
pub enum Order {
    /// New requests see this from now on.
    Swap(Arc<Snapshot>),
    /// Stop accepting after `accept_for`, finish what is in flight, give up after `within` (`None`: never).
    Drain { accept_for: Duration, within: Option<Duration> },
    /// Close everything now.
    Stop,
}

/// Everything a core needs to serve requests.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every snapshot of the process, from 1.
    pub generation: u64,
}
