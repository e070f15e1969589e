//! Core to control thread: log batches, metric series, notes and what must be freed elsewhere.
//!
//! Bounded, and a core never waits for room: what does not fit is dropped and counted by the sender. One queue
//! serves all cores, because it is used once per some hundred requests.

use std::any::Any;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::inquiry::Inquiry;
use super::lines::Destination;
use super::stats::Series;

/// Reports that may wait for the control thread. At 64 KiB a log batch, the worst case is 64 MiB.
pub const REPORTS_MAX: usize = 1024;

/// How urgent a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// What a core has to tell.
#[derive(Debug)]
pub enum Report {
    /// Finished access-log lines; the buffer comes back through [`Outbox::recycled`].
    AccessLog(Vec<u8>),
    /// Lines of a log that leave the machine, so many, each with its end.
    Lines { to: Arc<Destination>, bytes: Vec<u8>, lines: u64 },
    /// A new metric series; the core goes on counting in it.
    Series(Arc<Series>),
    /// A line for the process's own log.
    Note(Level, String),
    /// Something large that is dropped on the control thread rather than on a core.
    Retired(Box<dyn Any + Send>),
    /// A question that a core waits to hear of.
    Asked(Inquiry),
}

/// The core's end. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Outbox {
    reports: Sender<Report>,
    empties: Receiver<Vec<u8>>,
}

/// The control thread's end.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub reports: Receiver<Report>,
    empties: Sender<Vec<u8>>,
}

/// Makes both ends.
pub fn outbox() -> (Outbox, Inbox) {
    let (reports, inbox) = bounded(REPORTS_MAX);
    let (give_back, empties) = bounded(REPORTS_MAX);
    (Outbox { reports, empties }, Inbox { reports: inbox, empties: give_back })
}

impl Outbox {
    /// Hands a report over.
    ///
    /// # Errors
    /// Gives it back when there is no room; the caller counts the loss.
    pub fn send(&self, report: Report) -> Result<(), Report> {
        self.reports.try_send(report).map_err(crossbeam_channel::TrySendError::into_inner)
    }

    /// An emptied log buffer, if one came back.
    pub fn recycled(&self) -> Option<Vec<u8>> {
        self.empties.try_recv().ok()
    }
}

impl Inbox {
    /// Gives a log buffer back to the cores; too many are simply dropped.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let _ = self.empties.try_send(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_gives_the_report_back_at_once() {
        let (out, inbox) = outbox();
        for _ in 0..REPORTS_MAX {
            out.send(Report::Note(Level::Info, String::new())).expect("room");
        }
        assert!(out.send(Report::AccessLog(vec![1])).is_err());
        assert_eq!(inbox.reports.len(), REPORTS_MAX);
    }

    #[test]
    fn buffers_come_back_empty() {
        let (out, inbox) = outbox();
        inbox.give_back(vec![1, 2, 3]);
        assert_eq!(out.recycled(), Some(vec![]));
        assert_eq!(out.recycled(), None);
    }
}
