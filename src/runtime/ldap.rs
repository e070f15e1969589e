//! How a core asks a directory whether a password is somebody's: by a simple bind, one after the other on connections that are kept.
//!
//! A connection that a bind was late on, or was given up on, is closed: what comes on it later would be taken for the answer to
//! another. Nothing but binds is ever sent, so it does not matter whom a kept connection is bound to.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::Core;
use super::dialogue::{Alarm, Tls, Unopened, open, until};
use super::socket::Socket;
use crate::base::clock::Moment;
use crate::link::outbox::Level;
use crate::proto::ldap::{self, MESSAGE_BYTES_MAX, Said};

/// Binds of a core at one directory that are under way, each with a connection. One more fails at once.
pub const BINDS_MAX: usize = 128;
/// Connections to one directory that a core keeps.
pub const KEPT_MAX: usize = 5;
/// A connection that was not used for so long is closed.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Least time between two lines in the log that say that a directory fails.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// The number of every bind: there is one on a connection at a time. That of the server's own messages is 0.
const ID: u8 = 1;

/// Result codes that speak of who asks: constraintViolation (an account that is locked), noSuchObject, invalidDNSyntax,
/// inappropriateAuthentication, invalidCredentials, insufficientAccessRights, unwillingToPerform.
const REFUSED: [u32; 7] = [19, 32, 34, 48, 49, 50, 53];

/// Where a directory is, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it is called in the log.
    pub name: String,
    /// The name it shows over TLS, where it is not its address.
    pub host: String,
    /// Tried in turn.
    pub addresses: Vec<SocketAddr>,
    pub tls: Option<Tls>,
    /// Longest that a bind may take, connecting included.
    pub within: Duration,
}

/// Why it is not known whether a password is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Late,
    Unreachable(io::ErrorKind),
    /// There is no agreement on TLS.
    Insecure(String),
    /// The connection broke in between, or the directory has ended it.
    Broken,
    /// It said something that no directory says.
    Garbage,
    /// It does not serve now, or not in this way: its result code.
    Code(u32),
    /// Too many binds are under way.
    Crowded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Unreachable(kind) => write!(f, "can not connect: {kind}"),
            Self::Insecure(why) => write!(f, "no TLS: {why}"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Garbage => f.write_str("what it says is not LDAP"),
            Self::Code(code) => write!(f, "it answers a bind with the result code {code}"),
            Self::Crowded => write!(f, "{BINDS_MAX} binds are under way already"),
        }
    }
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

/// What a core has of one directory.
#[derive(Debug, Default)]
pub struct Lines {
    kept: RefCell<Vec<Socket>>,
    under_way: Cell<usize>,
    /// Which address is tried next.
    turn: Cell<usize>,
    /// When the log was last told that it fails; zero while it does not.
    failing: Cell<Moment>,
}

/// A bind that is under way, or was given up.
struct UnderWay<'a>(&'a Cell<usize>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Lines {
    /// Whether the directory binds `name` by `password`. Neither is empty: a bind without a password is nobody's
    /// (RFC 4513 5.1.2), and would succeed.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn bind(
        &self,
        core: &Core,
        target: &Target,
        (name, password): (&str, &[u8]),
    ) -> Result<bool, Failure> {
        debug_assert!(!name.is_empty() && !password.is_empty(), "a bind of nobody");
        let bound = self.bind_quietly(core, target, (name, password)).await;
        let judged = match bound {
            Ok(0) => Ok(true),
            Ok(code) if REFUSED.contains(&code) => Ok(false),
            Ok(code) => Err(Failure::Code(code)),
            Err(failure) => Err(failure),
        };
        match &judged {
            Ok(_) => self.note_answer(core, target),
            Err(failure) => self.note_failure(core, target, failure),
        }
        judged
    }

    /// The result code.
    async fn bind_quietly(
        &self,
        core: &Core,
        target: &Target,
        (name, password): (&str, &[u8]),
    ) -> Result<u32, Failure> {
        if self.under_way.get() >= BINDS_MAX {
            return Err(Failure::Crowded);
        }
        self.under_way.set(self.under_way.get() + 1);
        let _under_way = UnderWay(&self.under_way);
        let end = core.now().plus(target.within);
        let sleep = pin!(core.sleep(target.within));
        let mut alarm = Alarm::new(end, sleep);
        let message = || {
            let mut message = Vec::new();
            ldap::write_bind(&mut message, ID, name.as_bytes(), password);
            message
        };
        let kept = self.kept.borrow_mut().pop().filter(|socket| !socket.watch().fired());
        if let Some(socket) = kept {
            socket.watch().disarm();
            match converse(core, socket, message(), &mut alarm).await {
                Ok((code, socket)) => {
                    self.keep(core, socket);
                    return Ok(code);
                }
                // One that ended while nobody used it tells so only now.
                Err(Failure::Broken) => {}
                Err(failure) => return Err(failure),
            }
        }
        let socket = self.connect(core, target, end).await?;
        let (code, socket) = converse(core, socket, message(), &mut alarm).await?;
        self.keep(core, socket);
        Ok(code)
    }

    fn keep(&self, core: &Core, socket: Socket) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            socket.watch().arm(&core.wheel, KEPT_FOR);
            kept.push(socket);
        }
    }

    async fn connect(&self, core: &Core, target: &Target, end: Moment) -> Result<Socket, Failure> {
        let turn = self.turn.get();
        let Some(address) = target.addresses.get(turn % target.addresses.len().max(1)) else {
            return Err(Failure::Unreachable(io::ErrorKind::AddrNotAvailable));
        };
        let opened = open(core, *address, (target.tls.as_ref(), &target.host), end).await;
        if opened.is_err() {
            self.turn.set(turn.wrapping_add(1));
        }
        Ok(opened?)
    }

    fn note_answer(&self, core: &Core, target: &Target) {
        if self.failing.get() != Moment::ZERO {
            self.failing.set(Moment::ZERO);
            core.note(Level::Info, format!("directory {}: it answers again", target.name));
        }
    }

    fn note_failure(&self, core: &Core, target: &Target, failure: &Failure) {
        core.stats.ldap_failures.add(1);
        let (now, noted) = (core.now(), self.failing.get());
        if noted == Moment::ZERO || now.since(noted) >= NOTE_EVERY {
            self.failing.set(now);
            core.note(Level::Warn, format!("directory {}: {failure}", target.name));
        }
    }
}

/// Sends a bind; what its result code is, and the socket, which is still good.
async fn converse<T: Future<Output = ()>>(
    core: &Core,
    mut socket: Socket,
    message: Vec<u8>,
    alarm: &mut Alarm<'_, T>,
) -> Result<(u32, Socket), Failure> {
    let watch = Rc::clone(socket.watch());
    let is_late = || if watch.fired() { Failure::Late } else { Failure::Broken };
    let (sent, _) = until(&watch, alarm, socket.writer.send(message, 0, core.sending())).await;
    sent.map_err(|_| is_late())?;
    let mut unread = core.buffers.small();
    let code = loop {
        match ldap::parse(&unread) {
            // Something behind the answer is nobody's.
            Ok(Some((Said::Bound { id, code }, length))) if id == u32::from(ID) && length == unread.len() => {
                break Ok(code);
            }
            Ok(Some((Said::Leaves, _))) => break Err(Failure::Broken),
            Ok(Some(_)) | Err(ldap::NotLdap) => break Err(Failure::Garbage),
            Ok(None) => {}
        }
        unread.reserve(1);
        let receive = socket.reader.receive(unread, MESSAGE_BYTES_MAX);
        let (received, returned) = until(&watch, alarm, receive).await;
        unread = returned;
        match received {
            Ok(count) if count > 0 => {}
            _ => break Err(is_late()),
        }
    };
    core.buffers.give_back(unread);
    code.map(|code| (code, socket))
}
