//! A core's line to a Redis: one connection, over which whatever its requests ask goes in batches.
//!
//! Who asks puts a command in the queue. The first in it whose turn it is takes the line, sends all that is queued in one
//! go, reads the replies in their order and hands them out; what is queued meanwhile is the next batch, sent by one of
//! those who wait for it. So there is no task beside those who ask, and none of them waits for longer than the time
//! they have: whoever is late leaves, and a line on which a reply is late is cut, because what comes on it later would be
//! taken for the reply to something else. The next to ask connects anew. But one who waited in vain spares the others that:
//! for a moment whoever asks fails at once, and then one at a time finds out whether replies come again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Answer, Ask, Failure, Target, Whereabouts};
use crate::base::clock::Moment;
use crate::link::outbox::Level;
use crate::proto::resp::{self, Reply};
use crate::runtime::Core;
use crate::runtime::dialogue::{Alarm, open, until};
use crate::runtime::socket::Socket;

/// Commands that wait for a line, those sent not counted. One more fails at once.
pub const QUEUE_MAX: usize = 1024;
/// Commands that are sent in one go.
pub const BATCH_MAX: usize = 128;
/// Bytes of replies that are not complete yet. The map of a cluster in a thousand pieces has as many.
const UNREAD_BYTES_MAX: usize = 256 * 1024;
/// Comes before a command for a node that has the key for now only.
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// Longest that a line rests on which a reply was late: nobody waits meanwhile. It never rests for longer than somebody
/// had waited, so that little patience here costs others little.
const REST_MAX: Duration = Duration::from_millis(250);
/// Least time between two lines in the log that say that a Redis fails.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// Where somebody who asked finds the reply.
#[derive(Debug)]
struct Ticket {
    ask: Ask,
    /// Whether the reply to [`ASKING`] is still to come.
    preceded: Cell<bool>,
    answer: RefCell<Option<Answer>>,
    waker: RefCell<Option<Waker>>,
}

impl Ticket {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The line of one core to one Redis.
#[derive(Debug, Default)]
pub struct Line {
    queue: RefCell<VecDeque<Rc<Ticket>>>,
    /// Whether somebody has the line.
    taken: Cell<bool>,
    idle: RefCell<Option<Socket>>,
    /// Which address is tried next.
    turn: Cell<usize>,
    /// When the log was last told that it fails; zero while it does not.
    failing: Cell<Moment>,
    /// Until when it rests; zero while replies come in time.
    rests_until: Cell<Moment>,
    /// Whether somebody finds out if they do again.
    is_tried: Cell<bool>,
}

/// That somebody finds out whether replies come again, whatever comes of it.
struct Trial<'a>(&'a Cell<bool>);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// What somebody who waits comes to.
enum Come {
    Answered(Answer),
    /// The line is free, and it is theirs to take.
    Turn,
}

/// Somebody's place in the queue, which is given up when they leave.
struct InQueue<'a> {
    line: &'a Line,
    ticket: Rc<Ticket>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.line.queue.borrow_mut().retain(|ticket| !Rc::ptr_eq(ticket, &self.ticket));
        self.line.call_next();
    }
}

/// Somebody's hold on the line, with those whose commands are under way.
struct Hold<'a> {
    line: &'a Line,
    batch: VecDeque<Rc<Ticket>>,
}

impl Hold<'_> {
    /// What is to be sent, behind `hello`.
    fn commands(&self, hello: &[u8]) -> Vec<u8> {
        let mut commands = hello.to_vec();
        for ticket in &self.batch {
            ticket.preceded.set(ticket.ask.asking);
            if ticket.ask.asking {
                commands.extend_from_slice(ASKING);
            }
            commands.extend_from_slice(&ticket.ask.command);
        }
        commands
    }

    fn hand_out(&mut self, answer: Answer) {
        if let Some(ticket) = self.batch.pop_front() {
            ticket.answer.replace(Some(answer));
            ticket.wake();
        }
    }

    /// One more reply; whether it was the last.
    fn take(&mut self, reply: Reply) -> Result<bool, Failure> {
        match reply {
            Reply::Error(why) if is_closed(&why) => return Err(Failure::Refused(why)),
            _ if self.batch.front().is_some_and(|ticket| ticket.preceded.take()) => {}
            reply => self.hand_out(Ok(reply)),
        }
        Ok(self.batch.is_empty())
    }

    /// Fails what must not be sent again.
    fn fail_those_sent_once(&mut self) {
        self.batch.retain(|ticket| {
            if ticket.ask.once {
                ticket.answer.replace(Some(Err(Failure::Broken)));
                ticket.wake();
            }
            !ticket.ask.once
        });
    }

    fn fail(&mut self, failure: &Failure) {
        while !self.batch.is_empty() {
            self.hand_out(Err(failure.clone()));
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.fail(&Failure::Broken);
        self.line.taken.set(false);
        self.line.call_next();
    }
}

impl Line {
    /// What Redis replies to a command; errors that it tells of are replies, too.
    ///
    /// # Errors
    /// Why there is none, when `until` is over at the latest.
    pub async fn ask(&self, core: &Core, target: &Target, ask: Ask, until: Moment) -> Answer {
        let begun = core.now();
        let Ok(_trial) = self.let_in(begun) else {
            core.stats.redis_failures.add(1);
            return Err(Failure::Resting);
        };
        if until <= begun {
            core.stats.redis_failures.add(1);
            return Err(Failure::Late);
        }
        let answer = self.ask_quietly(core, target, ask, until).await;
        let rests_until = match &answer {
            Err(Failure::Late) => core.now().plus(core.now().since(begun).min(REST_MAX)),
            Err(Failure::Crowded) => self.rests_until.get(),
            // Whatever it is, it does not take long to find out.
            _ => Moment::ZERO,
        };
        self.rests_until.set(rests_until);
        match &answer {
            Ok(_) => self.note_reply(core, target),
            Err(failure) => self.note_failure(core, target, failure),
        }
        answer
    }

    /// Whether somebody may wait for a reply: while it is not known whether there are any, one at a time.
    fn let_in(&self, now: Moment) -> Result<Option<Trial<'_>>, ()> {
        let rests_until = self.rests_until.get();
        if rests_until == Moment::ZERO {
            return Ok(None);
        }
        if now < rests_until || self.is_tried.replace(true) {
            return Err(());
        }
        Ok(Some(Trial(&self.is_tried)))
    }

    async fn ask_quietly(&self, core: &Core, target: &Target, ask: Ask, until: Moment) -> Answer {
        if self.queue.borrow().len() >= QUEUE_MAX {
            return Err(Failure::Crowded);
        }
        let sleep = pin!(core.sleep(until.since(core.now())));
        let mut alarm = Alarm::new(until, sleep);
        let (answer, waker) = Default::default();
        let ticket = Rc::new(Ticket { ask, preceded: Cell::new(false), answer, waker });
        self.queue.borrow_mut().push_back(Rc::clone(&ticket));
        let place = InQueue { line: self, ticket };
        loop {
            let come = poll_fn(|cx| match self.come(&place.ticket, cx) {
                Poll::Ready(come) => Poll::Ready(Some(come)),
                Poll::Pending if alarm.rings(cx) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match come.await {
                Some(Come::Answered(answer)) => return answer,
                Some(Come::Turn) => self.serve(core, target, &mut alarm).await,
                None => return Err(Failure::Late),
            }
        }
    }

    fn come(&self, ticket: &Rc<Ticket>, cx: &Context<'_>) -> Poll<Come> {
        if let Some(answer) = ticket.answer.take() {
            return Poll::Ready(Come::Answered(answer));
        }
        if !self.taken.get() {
            return Poll::Ready(Come::Turn);
        }
        ticket.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Wakes who has waited longest, if the line is free.
    fn call_next(&self) {
        if !self.taken.get()
            && let Some(ticket) = self.queue.borrow().front()
        {
            ticket.wake();
        }
    }

    /// Takes the line, and answers what is queued.
    async fn serve<T: Future<Output = ()>>(&self, core: &Core, target: &Target, alarm: &mut Alarm<'_, T>) {
        self.taken.set(true);
        let mut hold = Hold { line: self, batch: VecDeque::new() };
        {
            let mut queue = self.queue.borrow_mut();
            let most = queue.len().min(BATCH_MAX);
            hold.batch.extend(queue.drain(..most));
        }
        let manner = &target.manner;
        let idle = self.idle.take().filter(|socket| !socket.watch().fired());
        let mut outcome = match idle {
            Some(socket) => {
                socket.watch().disarm();
                let (before, commands) = (hold.batch.len(), hold.commands(&[]));
                let outcome = converse(core, socket, commands, alarm, |reply| hold.take(reply)).await;
                // A connection that ended while nobody used it tells so only now, and a master that is none any more.
                let is_stale = match outcome {
                    Err(Failure::Broken) => true,
                    Err(Failure::Refused(_)) => matches!(target.at, Whereabouts::Watched(_)),
                    _ => false,
                } && hold.batch.len() == before;
                if is_stale {
                    hold.fail_those_sent_once();
                }
                if is_stale && !hold.batch.is_empty() { None } else { Some(outcome) }
            }
            None => None,
        };
        if outcome.is_none() {
            outcome = Some(match self.connect(core, target, alarm.until).await {
                Ok(socket) => {
                    let commands = hold.commands(&manner.hello);
                    let mut greeted = 0;
                    let take = |reply| match reply {
                        Reply::Error(why) if greeted < manner.hello_count => Err(Failure::Refused(why)),
                        _ if greeted < manner.hello_count => {
                            greeted += 1;
                            Ok(false)
                        }
                        reply => hold.take(reply),
                    };
                    converse(core, socket, commands, alarm, take).await
                }
                Err(failure) => Err(failure),
            });
        }
        match outcome {
            Some(Ok(socket)) => {
                socket.watch().arm(&core.wheel, manner.idle);
                self.idle.replace(Some(socket));
            }
            Some(Err(failure)) => hold.fail(&failure),
            None => {}
        }
    }

    async fn connect(&self, core: &Core, target: &Target, until: Moment) -> Result<Socket, Failure> {
        let until = until.min(core.now().plus(target.manner.connect));
        let tls = target.manner.tls.as_ref();
        match &target.at {
            Whereabouts::Written(addresses) => {
                let turn = self.turn.get();
                let Some(address) = addresses.get(turn % addresses.len().max(1)) else {
                    return Err(Failure::Unreachable(io::ErrorKind::AddrNotAvailable));
                };
                let opened = open(core, *address, (tls, &target.host), until).await;
                if opened.is_err() {
                    self.turn.set(turn.wrapping_add(1));
                }
                Ok(opened?)
            }
            Whereabouts::Watched(sentinels) => {
                let master = sentinels.find_master(core, (tls, &self.turn), until).await?;
                Ok(open(core, master, (tls, &target.host), until).await?)
            }
        }
    }

    /// Takes note of a reply that was none; it.
    pub fn misused(&self, core: &Core, target: &Target, failure: Failure) -> Failure {
        self.note_failure(core, target, &failure);
        failure
    }

    fn note_reply(&self, core: &Core, target: &Target) {
        if self.failing.get() != Moment::ZERO {
            self.failing.set(Moment::ZERO);
            core.note(Level::Info, format!("redis {}: it replies again", target.name));
        }
    }

    fn note_failure(&self, core: &Core, target: &Target, failure: &Failure) {
        core.stats.redis_failures.add(1);
        let (now, noted) = (core.now(), self.failing.get());
        if noted == Moment::ZERO || now.since(noted) >= NOTE_EVERY {
            self.failing.set(now);
            core.note(Level::Warn, format!("redis {}: {failure}", target.name));
        }
    }
}

/// Sends commands and gives their replies to `take`, until it says that one was the last. The socket, if it is still good.
pub(super) async fn converse<T: Future<Output = ()>>(
    core: &Core,
    mut socket: Socket,
    commands: Vec<u8>,
    alarm: &mut Alarm<'_, T>,
    mut take: impl FnMut(Reply) -> Result<bool, Failure>,
) -> Result<Socket, Failure> {
    let watch = Rc::clone(socket.watch());
    let how = core.sending();
    let (sent, _) = until(&watch, alarm, socket.writer.send(commands, 0, how)).await;
    let is_late = || if watch.fired() { Failure::Late } else { Failure::Broken };
    sent.map_err(|_| is_late())?;
    let mut unread = core.buffers.small();
    let outcome = loop {
        match hear(&mut unread, &mut take) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(failure) => break Err(failure),
        }
        unread.reserve(1);
        let receive = socket.reader.receive(unread, UNREAD_BYTES_MAX);
        let (received, returned) = until(&watch, alarm, receive).await;
        unread = returned;
        match received {
            Ok(count) if count > 0 => {}
            _ => break Err(is_late()),
        }
    };
    core.buffers.give_back(unread);
    outcome.map(|()| socket)
}

/// Gives the replies that are complete to `take`; whether it has said that one was the last.
fn hear(
    unread: &mut Vec<u8>,
    take: &mut impl FnMut(Reply) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let mut read = 0;
    while let Some((reply, length)) =
        resp::parse(&unread[read..]).map_err(|resp::NotRedis| Failure::Garbage)?
    {
        read += length;
        if take(reply)? {
            // Something behind the last reply is nobody's.
            return if read == unread.len() { Ok(true) } else { Err(Failure::Garbage) };
        }
    }
    unread.drain(..read);
    if unread.len() >= UNREAD_BYTES_MAX { Err(Failure::Garbage) } else { Ok(false) }
}

/// Whether an error says that nothing can be had now: it is loading, read only, or wants to know who we are.
fn is_closed(why: &str) -> bool {
    let is_said = ["LOADING", "READONLY", "NOAUTH", "MASTERDOWN", "BUSY", "MISCONF", "CLUSTERDOWN"]
        .iter()
        .any(|word| why.split(' ').next() == Some(word));
    // As a Redis before version 7 says it of a script.
    is_said || why.contains(" -READONLY ")
}
