//! A core's line to a Redis: one connection, over which whatever its requests ask goes in batches.
//!
//! Who asks puts a command in the queue. The first in it whose turn it is takes the line, sends all that is queued in one
//! go, reads the replies in their order and hands them out; what is queued meanwhile is the next batch, sent by one of
//! those who wait for it. So there is no task beside those who ask, and none of them waits for longer than the time
//! Redis has: whoever is late leaves, and a line on which a reply is late is cut, because what comes on it later would be
//! taken for the reply to something else. The next to ask connects anew.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Core;
use super::connect::dial;
use super::deadline::Watch;
use super::socket::Socket;
use crate::base::clock::Moment;
use crate::link::outbox::Level;
use crate::proto::resp::{self, Reply};

/// Commands that wait for a line, those sent not counted. One more fails at once.
pub const QUEUE_MAX: usize = 1024;
/// Commands that are sent in one go.
pub const BATCH_MAX: usize = 128;
/// Bytes of replies that are not complete yet.
const UNREAD_BYTES_MAX: usize = 64 * 1024;
/// Least time between two lines in the log that say that a Redis fails.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// Where a Redis is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it is called in the log.
    pub name: String,
    /// Tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// Commands that open a connection, and how many they are.
    pub hello: Vec<u8>,
    pub hello_count: usize,
    /// All that an answer may take, connecting included.
    pub within: Duration,
    /// A connection that was not used for so long is not used again.
    pub idle: Duration,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Late,
    Unreachable(io::ErrorKind),
    /// The connection broke in between.
    Broken,
    /// It said something that no Redis says.
    Garbage,
    /// It does not let us in, or does not serve now.
    Refused(String),
    /// Too many wait already.
    Crowded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no reply in time"),
            Self::Unreachable(kind) => write!(f, "can not connect: {kind}"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Garbage => f.write_str("what it says is not Redis's protocol"),
            Self::Refused(why) => write!(f, "it says: {why}"),
            Self::Crowded => write!(f, "{QUEUE_MAX} commands wait already"),
        }
    }
}

type Answer = Result<Reply, Failure>;

/// Where somebody who asked finds the reply.
#[derive(Debug, Default)]
struct Ticket {
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
    queue: RefCell<VecDeque<(Rc<Ticket>, Vec<u8>)>>,
    /// Whether somebody has the line.
    taken: Cell<bool>,
    idle: RefCell<Option<Socket>>,
    /// Which address is tried next.
    turn: Cell<usize>,
    /// When the log was last told that it fails; zero while it does not.
    failing: Cell<Moment>,
}

/// The end of somebody's patience.
struct Alarm<'a, T> {
    sleep: Pin<&'a mut T>,
    rung: bool,
}

impl<T: Future<Output = ()>> Alarm<'_, T> {
    fn rings(&mut self, cx: &mut Context<'_>) -> bool {
        self.rung = self.rung || self.sleep.as_mut().poll(cx).is_ready();
        self.rung
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
        self.line.queue.borrow_mut().retain(|(ticket, _)| !Rc::ptr_eq(ticket, &self.ticket));
        self.line.call_next();
    }
}

/// Somebody's hold on the line, with those whose commands are under way.
struct Hold<'a> {
    line: &'a Line,
    batch: VecDeque<Rc<Ticket>>,
}

impl Hold<'_> {
    fn hand_out(&mut self, answer: Answer) {
        if let Some(ticket) = self.batch.pop_front() {
            ticket.answer.replace(Some(answer));
            ticket.wake();
        }
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
    /// Why there is none, after [`Target::within`] at the latest.
    pub async fn ask(&self, core: &Core, target: &Target, command: Vec<u8>) -> Answer {
        let answer = self.ask_quietly(core, target, command).await;
        match &answer {
            Ok(_) => self.note_reply(core, target),
            Err(failure) => self.note_failure(core, target, failure),
        }
        answer
    }

    async fn ask_quietly(&self, core: &Core, target: &Target, command: Vec<u8>) -> Answer {
        if self.queue.borrow().len() >= QUEUE_MAX {
            return Err(Failure::Crowded);
        }
        let mut alarm = Alarm { sleep: pin!(core.sleep(target.within)), rung: false };
        let ticket = Rc::new(Ticket::default());
        self.queue.borrow_mut().push_back((Rc::clone(&ticket), command));
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
            && let Some((ticket, _)) = self.queue.borrow().front()
        {
            ticket.wake();
        }
    }

    /// Takes the line, and answers what is queued.
    async fn serve<T: Future<Output = ()>>(&self, core: &Core, target: &Target, alarm: &mut Alarm<'_, T>) {
        self.taken.set(true);
        let mut hold = Hold { line: self, batch: VecDeque::new() };
        let mut commands = Vec::new();
        {
            let mut queue = self.queue.borrow_mut();
            let most = queue.len().min(BATCH_MAX);
            for (ticket, command) in queue.drain(..most) {
                hold.batch.push_back(ticket);
                commands.extend_from_slice(&command);
            }
        }
        let before = hold.batch.len();
        let mut outcome = Err(Failure::Broken);
        if let Some(socket) = self.idle.take().filter(|socket| !socket.watch().fired()) {
            socket.watch().disarm();
            outcome = converse(core, socket, commands.clone(), 0, &mut hold, alarm).await;
        }
        // A connection that ended while nobody used it tells so only now.
        if outcome.as_ref().is_err_and(|failure| *failure == Failure::Broken) && hold.batch.len() == before {
            outcome = match self.connect(core, target, alarm).await {
                Ok(socket) => {
                    let all = [target.hello.as_slice(), &commands].concat();
                    converse(core, socket, all, target.hello_count, &mut hold, alarm).await
                }
                Err(failure) => Err(failure),
            };
        }
        match outcome {
            Ok(socket) => {
                socket.watch().arm(&core.wheel, target.idle);
                self.idle.replace(Some(socket));
            }
            Err(failure) => hold.fail(&failure),
        }
    }

    async fn connect<T: Future<Output = ()>>(
        &self,
        core: &Core,
        target: &Target,
        alarm: &mut Alarm<'_, T>,
    ) -> Result<Socket, Failure> {
        let turn = self.turn.get();
        let address = target.addresses.get(turn % target.addresses.len().max(1));
        let Some(address) = address else {
            return Err(Failure::Unreachable(io::ErrorKind::AddrNotAvailable));
        };
        let mut dialling = pin!(dial(core, *address, target.within));
        // Nothing is lost with a connection that nobody waits for any more.
        let dialled = poll_fn(|cx| match dialling.as_mut().poll(cx) {
            Poll::Pending if alarm.rings(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            dialled => dialled,
        });
        dialled.await.map_err(|error| {
            self.turn.set(turn.wrapping_add(1));
            Failure::Unreachable(error.kind())
        })
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

/// Sends commands and hands their replies out, but for those of the first `hello`. The socket, if it is still good.
async fn converse<T: Future<Output = ()>>(
    core: &Core,
    mut socket: Socket,
    commands: Vec<u8>,
    hello: usize,
    hold: &mut Hold<'_>,
    alarm: &mut Alarm<'_, T>,
) -> Result<Socket, Failure> {
    let watch = Rc::clone(socket.watch());
    let how = core.sending();
    let (sent, _) = until(&watch, alarm, socket.writer.send(commands, 0, how)).await;
    let is_late = || if watch.fired() { Failure::Late } else { Failure::Broken };
    sent.map_err(|_| is_late())?;
    let mut greeted = 0;
    let mut unread = core.buffers.small();
    let outcome = loop {
        let mut read = 0;
        while !hold.batch.is_empty() {
            match resp::parse(&unread[read..]) {
                Ok(Some((reply, length))) => {
                    read += length;
                    match reply {
                        Reply::Error(why) if greeted < hello || is_closed(&why) => {
                            core.buffers.give_back(unread);
                            return Err(Failure::Refused(why));
                        }
                        _ if greeted < hello => greeted += 1,
                        reply => hold.hand_out(Ok(reply)),
                    }
                }
                Ok(None) => break,
                Err(resp::NotRedis) => {
                    core.buffers.give_back(unread);
                    return Err(Failure::Garbage);
                }
            }
        }
        if hold.batch.is_empty() {
            // Something behind the last reply is nobody's.
            break if read == unread.len() { Ok(()) } else { Err(Failure::Garbage) };
        }
        unread.drain(..read);
        if unread.len() >= UNREAD_BYTES_MAX {
            break Err(Failure::Garbage);
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

/// Whether an error says that nothing can be had now: it is loading, read only, or wants to know who we are.
fn is_closed(why: &str) -> bool {
    ["LOADING", "READONLY", "NOAUTH", "MASTERDOWN", "BUSY", "MISCONF", "CLUSTERDOWN"]
        .iter()
        .any(|word| why.split(' ').next() == Some(word))
}

/// Waits for something done on a socket, and shuts it down when the time is over: whatever it is ends then, and a buffer
/// that the kernel has comes back.
async fn until<T: Future<Output = ()>, W: Future>(
    watch: &Watch,
    alarm: &mut Alarm<'_, T>,
    work: W,
) -> W::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if !watch.fired() && alarm.rings(cx) {
            watch.expire();
            return work.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}
