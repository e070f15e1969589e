//! Lines of one subject, bounded: where a hundred names or services fail and recover all the time, the log tells of some
//! and counts the others.

use std::time::Duration;

use super::log;
use crate::base::clock::Moment;

/// Lines that are written in [`IN`].
const MAX: u32 = 20;
const IN: Duration = Duration::from_secs(60);

/// Lines that may still be written.
#[derive(Debug)]
pub(super) struct Lines {
    subject: &'static str,
    since: Moment,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Nothing is written yet.
    pub(super) const fn about(subject: &'static str) -> Self {
        Self { subject, since: Moment::ZERO, written: 0, left_out: 0 }
    }

    /// Writes a line if there were not too many of late; whether it did.
    pub(super) fn write(&mut self, now: Moment, level: log::Level, line: &str) -> bool {
        if now.since(self.since) >= IN {
            if self.left_out > 0 {
                log::warn(format!("{}: {} more lines were left out", self.subject, self.left_out));
            }
            *self = Self { since: now, ..Self::about(self.subject) };
        }
        if self.written == MAX {
            self.left_out += 1;
            return false;
        }
        self.written += 1;
        log::write(level, line);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_lines_and_the_next_has_as_many_again() {
        let mut lines = Lines::about("tests");
        let begin = Moment::ZERO.plus(IN);
        let mut write = |at: Moment| (0..50).filter(|_| lines.write(at, log::Level::Warn, "a")).count();
        assert_eq!((write(begin), write(begin.plus(IN / 2))), (20, 0));
        assert_eq!(write(begin.plus(IN)), 20);
    }
}
