//! The reports thread: takes what cores have to tell and does with it what may block.
//!
//! A thread of its own, so that a slow disk delays neither the configuration nor the answers of the status and
//! metrics listeners. When it is behind, the queue fills, cores drop and count, and nobody waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};

use crate::base::clock::{self, Moment};
use crate::link::inquiry::{Inquiry, Subject};
use crate::link::lines::Carrier;
use crate::link::outbox::{Inbox, REPORTS_MAX, Report};

use super::super::board::Board;
use super::super::log;
use super::access_log::Sink;
use super::files::Files;
use super::prometheus;
use super::shipping::Shipping;

/// How long reports wait for each other where they come faster than that.
const REST: Duration = Duration::from_millis(5);
/// Where more come in that time nobody rests: there is room for so many times sixteen.
const PORTION_MAX: u32 = (REPORTS_MAX / 16) as u32;
/// Commands that may wait; each is given by a person or at the end.
const COMMANDS_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Command {
    Reopen,
    End,
}

/// The handle on the thread.
#[derive(Debug)]
pub(crate) struct Reports {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

impl Reports {
    /// Starts the thread.
    pub(crate) fn start(
        inbox: Inbox,
        sink: Sink,
        board: Arc<Board>,
        shipping: Option<Shipping>,
    ) -> io::Result<Self> {
        let (commands, orders) = bounded(COMMANDS_MAX);
        let desk = Desk { inbox, sink, board, shipping, files: Files::default() };
        let thread = thread::Builder::new().name("reports".to_owned()).spawn(move || desk.work(&orders))?;
        Ok(Self { commands, thread })
    }

    /// Opens the access log anew, soon.
    pub(crate) fn reopen(&self) {
        if !self.order(Command::Reopen) {
            log::warn("the access log is stuck in a write, it was not reopened");
        }
    }

    /// Asks the thread to take what is waiting and end. See [`Self::has_ended`].
    pub(crate) fn end(&self) {
        // A full queue of commands means that the disk hangs: the process then ends without it.
        self.order(Command::End);
    }

    /// Whether there was room for a command.
    fn order(&self, command: Command) -> bool {
        let is_taken = self.commands.try_send(command).is_ok();
        self.thread.thread().unpark();
        is_taken
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Desk {
    inbox: Inbox,
    sink: Sink,
    board: Arc<Board>,
    shipping: Option<Shipping>,
    files: Files,
}

impl Desk {
    fn work(mut self, orders: &Receiver<Command>) {
        let reports = self.inbox.reports.clone();
        let mut lines_came = Moment::ZERO;
        loop {
            let order = select! {
                recv(reports) -> report => match report {
                    Ok(report) => {
                        let are_lines = matches!(report, Report::AccessLog(_) | Report::Lines { .. });
                        self.take(report);
                        if !are_lines {
                            continue;
                        }
                        let before = std::mem::replace(&mut lines_came, clock::now());
                        self.take_in_portions(orders, lines_came.since(before))
                    }
                    Err(_) => return,
                },
                recv(orders) -> order => Some(order.unwrap_or(Command::End)),
            };
            match order {
                None => {}
                Some(Command::Reopen) => self.reopen(),
                Some(Command::End) => return self.take_the_rest(&reports),
            }
        }
    }

    /// Takes what comes by portions, as long as batches of lines come often; until an order comes. A core need not wake a thread that
    /// does not wait for it, which would cost as much as a dozen lines.
    fn take_in_portions(&mut self, orders: &Receiver<Command>, between: Duration) -> Option<Command> {
        let mut is_busy = (REST / PORTION_MAX..REST).contains(&between);
        while is_busy {
            // A channel would first spin and give its turn away, over and over: an order ends this rest, too.
            thread::park_timeout(REST);
            match orders.try_recv() {
                Ok(order) => return Some(order),
                Err(TryRecvError::Disconnected) => return Some(Command::End),
                Err(TryRecvError::Empty) => {}
            }
            let waiting = self.inbox.reports.len();
            for report in self.inbox.reports.clone().try_iter().take(waiting) {
                self.take(report);
            }
            is_busy = (1..=PORTION_MAX as usize).contains(&waiting);
        }
        None
    }

    /// What was sent before the end is taken, but not what a core still sends while we are at it.
    fn take_the_rest(&mut self, reports: &Receiver<Report>) {
        for report in reports.try_iter().take(REPORTS_MAX) {
            self.take(report);
        }
    }

    /// Answers a core, unless it has lost patience.
    fn answer(&self, question: Inquiry) {
        if !question.is_awaited() {
            return;
        }
        let text = match question.subject {
            Subject::Metrics => prometheus::page(&self.board),
        };
        question.answer(text.into_bytes());
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::AccessLog(lines) => {
                if let Err((lost, error)) = self.sink.write(&lines) {
                    self.board.lines_lost.fetch_add(lost, Ordering::Relaxed);
                    log::error(format!("access log: {error}; lines are lost"));
                }
                self.inbox.give_back(lines);
            }
            Report::Lines { to, bytes, lines } if to.carrier == Carrier::File => {
                self.files.take(&to, &bytes, lines, &self.board.shipped);
            }
            Report::Lines { to, bytes, lines } => {
                if let Some(shipping) = &mut self.shipping {
                    shipping.take(&to, bytes, lines);
                }
            }
            Report::Series(series) => self.board.registry.add(series),
            Report::Note(level, text) => log::write(level, &text),
            Report::Retired(what) => drop(what),
            Report::Asked(question) => self.answer(question),
        }
    }

    fn reopen(&mut self) {
        self.files.reopen();
        match self.sink.reopen() {
            Ok(()) => log::info("access log reopened"),
            Err(error) => log::error(format!("access log: can not be reopened: {error}; the old file stays")),
        }
    }
}

/// Waits, but not for ever, until the thread has ended.
pub(crate) async fn ended(reports: &Reports, within: Duration) -> bool {
    let since: Moment = clock::now();
    while !reports.has_ended() {
        if clock::now().since(since) > within {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::link::outbox::outbox;
    use crate::link::stats::Series;

    /// Says when it is dropped.
    struct Grave(Arc<AtomicBool>);

    impl Drop for Grave {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn every_kind_of_report_finds_its_place_before_the_thread_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let board = Arc::new(Board::new(Vec::new(), &[]));
        let (out, inbox) = outbox();
        let sink = Sink::file(&path);
        let reports = Reports::start(inbox, sink, Arc::clone(&board), None).expect("a thread");
        let buried = Arc::new(AtomicBool::new(false));
        out.send(Report::AccessLog(b"line\n".to_vec())).expect("room");
        out.send(Report::Series(Arc::new(Series::count("http_status", String::new())))).expect("room");
        out.send(Report::Retired(Box::new(Grave(Arc::clone(&buried))))).expect("room");
        reports.end();
        reports.thread.join().expect("no panic");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "line\n");
        assert_eq!(board.registry.all().len(), 1);
        assert!(buried.load(Ordering::Acquire));
        assert_eq!(out.recycled(), Some(Vec::new()));
    }

    #[test]
    fn what_comes_fast_is_taken_in_its_order_and_an_order_does_not_wait_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let board = Arc::new(Board::new(Vec::new(), &[]));
        let (out, inbox) = outbox();
        let reports = Reports::start(inbox, Sink::file(&path), board, None).expect("a thread");
        let mut expected = String::new();
        for number in 0..20_000 {
            let line = format!("{number}\n");
            expected.push_str(&line);
            let mut report = Report::AccessLog(line.into_bytes());
            while let Err(back) = out.send(report) {
                report = back;
                thread::yield_now();
            }
            if number == 10_000 {
                reports.reopen();
            }
        }
        reports.end();
        reports.thread.join().expect("no panic");
        assert!(std::fs::read_to_string(&path).expect("readable") == expected);
    }

    #[test]
    fn a_full_disk_is_counted_and_the_buffer_comes_back() {
        let board = Arc::new(Board::new(Vec::new(), &[]));
        let (out, inbox) = outbox();
        let sink = Sink::file(std::path::Path::new("/dev/full"));
        let reports = Reports::start(inbox, sink, Arc::clone(&board), None).expect("a thread");
        out.send(Report::AccessLog(b"one\ntwo\n".to_vec())).expect("room");
        drop(out);
        reports.thread.join().expect("no panic");
        assert_eq!(board.lines_lost.load(Ordering::Relaxed), 2);
    }
}
