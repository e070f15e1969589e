//! Entries of logs that go to files: each is opened when its first entry comes, and anew when logs are reopened.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::access_log::Sink;
use super::shipping::Shipped;
use crate::base::clock::{self, Moment};
use crate::base::hash::Map;
use crate::control::log;
use crate::link::lines::Destination;

/// Files that are open at a time; when another is asked for, all are closed first.
const FILES_MAX: usize = 256;
/// How long nothing more is said of entries that are lost.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Files {
    open: Map<Arc<Destination>, Sink>,
    /// When it was last said that something was lost.
    told: Option<Moment>,
}

impl Files {
    /// Appends entries, each with its end, and counts what became of them.
    pub(super) fn take(&mut self, to: &Arc<Destination>, bytes: &[u8], lines: u64, shipped: &Shipped) {
        let fate = &shipped.of[to.logger as usize];
        let (lost, error) = match self.write(to, bytes) {
            Ok(()) => (0, None),
            Err((Some(lost), error)) => (lost.min(lines), Some(error)),
            Err((None, error)) => (lines, Some(error)),
        };
        fate.sent.fetch_add(lines - lost, Relaxed);
        fate.failed.fetch_add(lost, Relaxed);
        let Some(error) = error else { return };
        let now = clock::now();
        if self.told.is_none_or(|told| now.since(told) >= QUIET) {
            self.told = Some(now);
            log::error(format!("{}: {}: {error}; entries are lost", to.logger.name(), to.host));
        }
    }

    fn write(&mut self, to: &Arc<Destination>, bytes: &[u8]) -> Result<(), (Option<u64>, io::Error)> {
        if !self.open.contains_key(to) {
            if self.open.len() >= FILES_MAX {
                self.open.clear();
            }
            let sink = Sink::to_file(Path::new(&*to.host)).map_err(|error| (None, error))?;
            self.open.insert(Arc::clone(to), sink);
        }
        let Some(sink) = self.open.get_mut(to) else { return Ok(()) };
        sink.write(bytes).map_err(|(lost, error)| (Some(lost), error))
    }

    /// Opens all anew, when they are next written to.
    pub(super) fn reopen(&mut self) {
        self.open.clear();
    }
}
