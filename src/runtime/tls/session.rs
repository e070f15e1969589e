//! A TLS conversation as bytes in and bytes out: rustls without its buffers. No socket, no clock.
//!
//! What comes in lies in the *inbox* until it makes a whole record, and is decrypted there. What TLS itself has to say (a
//! key update, an alert) waits in the *outbox* and leaves before anything else does. Both are lent, and given back as
//! soon as they are empty.

use std::rc::Rc;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig, CommonState, ServerConfig};

use super::conversation::{Conversation, Plain, Turn, Wish};
use super::stock::{self, Stock};

/// Bytes of a record's header.
const RECORD_HEAD: usize = 5;
/// Bytes in clear that one call encrypts: two records.
pub(super) const PIECE_BYTES: usize = 2 << 14;
/// Why a conversation can not go on.
#[derive(Debug)]
pub enum Fault {
    /// The other side broke the rules, or is not who it should be.
    Tls(rustls::Error),
    /// It cut a message of the handshake into records though the handshake is over. Nobody does; rustls holds such pieces
    /// where they were received, which is not for long here.
    Fragmented,
    /// What it sent is longer than anything that may be.
    TooLong,
}

impl From<rustls::Error> for Fault {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Fragmented => f.write_str("a message in pieces after the handshake"),
            Self::TooLong => f.write_str("a message that is too long"),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// What the other side has against the certificate that we have shown, or not shown, by the name of its alert (RFC 8446 6.2).
    pub(super) const fn objection(&self) -> Option<&'static str> {
        let Self::Tls(rustls::Error::AlertReceived(alert)) = self else { return None };
        Some(match alert {
            AlertDescription::AccessDenied => "access_denied",
            AlertDescription::BadCertificate => "bad_certificate",
            AlertDescription::CertificateExpired => "certificate_expired",
            AlertDescription::CertificateRequired => "certificate_required",
            AlertDescription::CertificateRevoked => "certificate_revoked",
            AlertDescription::CertificateUnknown => "certificate_unknown",
            AlertDescription::DecryptError => "decrypt_error",
            AlertDescription::UnknownCA => "unknown_ca",
            AlertDescription::UnsupportedCertificate => "unsupported_certificate",
            _ => return None,
        })
    }
}

/// What looking at the inbox came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes were decrypted.
    Bytes(usize),
    /// None, for now: more must be received.
    Hungry,
    /// The other side has said that it is done.
    End,
}

/// One conversation.
pub struct Session {
    conversation: Conversation,
    lent: Lent,
    has_ended: bool,
    is_open: bool,
    is_broken: bool,
}

/// A session on its way to another thread: all of it but the stock, which is a thread's own.
pub(super) struct Away {
    conversation: Conversation,
    inbox: Vec<u8>,
    plain: Vec<u8>,
    outbox: Vec<u8>,
    from: (usize, usize),
    marks: (bool, bool, bool),
}

impl Away {
    /// Goes on in this thread.
    pub(super) fn arrive(self, stock: &Rc<Stock>) -> Session {
        let (inbox_from, plain_from) = self.from;
        let (has_ended, is_open, is_broken) = self.marks;
        let (inbox, plain, outbox) = (self.inbox, self.plain, self.outbox);
        let lent = Lent { stock: Rc::clone(stock), inbox, inbox_from, plain, plain_from, outbox };
        Session { conversation: self.conversation, lent, has_ended, is_open, is_broken }
    }
}

/// The buffers of a conversation.
struct Lent {
    stock: Rc<Stock>,
    inbox: Vec<u8>,
    /// Bytes of the inbox that are done with.
    inbox_from: usize,
    /// Decrypted and not taken yet, because there was no room.
    plain: Vec<u8>,
    plain_from: usize,
    outbox: Vec<u8>,
}

impl Session {
    /// The answering side.
    ///
    /// # Errors
    /// When rustls can not work by this configuration.
    pub fn server(config: Arc<ServerConfig>, stock: &Rc<Stock>) -> Result<Self, Fault> {
        let conversation = Conversation::Server(UnbufferedServerConnection::new(config)?);
        Ok(Self::of(conversation, stock))
    }

    /// The asking side.
    ///
    /// # Errors
    /// When rustls can not work by this configuration.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stock: &Rc<Stock>,
    ) -> Result<Self, Fault> {
        let conversation = Conversation::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self::of(conversation, stock))
    }

    fn of(conversation: Conversation, stock: &Rc<Stock>) -> Self {
        Self {
            conversation,
            lent: Lent {
                stock: Rc::clone(stock),
                inbox: Vec::new(),
                inbox_from: 0,
                plain: Vec::new(),
                plain_from: 0,
                outbox: Vec::new(),
            },
            has_ended: false,
            is_open: false,
            is_broken: false,
        }
    }

    /// What another core needs to go on with it; `None` where something is half said.
    pub(super) fn part(mut self) -> Option<Conversation> {
        self.settle().then_some(self.conversation)
    }

    /// Goes on with a conversation that another core began.
    pub(super) fn join(conversation: Conversation, stock: &Rc<Stock>) -> Self {
        Self { is_open: true, ..Self::of(conversation, stock) }
    }

    /// Leaves this thread, whatever is half said.
    pub(super) fn leave(mut self) -> Away {
        Away {
            conversation: self.conversation,
            inbox: std::mem::take(&mut self.lent.inbox),
            plain: std::mem::take(&mut self.lent.plain),
            outbox: std::mem::take(&mut self.lent.outbox),
            from: (self.lent.inbox_from, self.lent.plain_from),
            marks: (self.has_ended, self.is_open, self.is_broken),
        }
    }

    /// What was agreed on.
    pub fn agreed(&self) -> &CommonState {
        self.conversation.agreed()
    }

    /// The other side's certificate and its issuers', if it has shown one.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.agreed().peer_certificates()
    }

    /// Whether bytes are here that nobody has looked at, or taken.
    pub(super) fn holds_bytes(&self) -> bool {
        !self.lent.inbox.is_empty() || !self.lent.plain.is_empty()
    }

    /// Whether there is something to tell without receiving more: bytes, maybe, or the end.
    pub(super) fn may_tell(&self) -> bool {
        self.has_ended || self.holds_bytes()
    }

    /// Whether anybody may say anything more.
    pub(super) const fn is_usable(&self) -> bool {
        self.is_open && !self.is_broken && !self.has_ended
    }

    /// The inbox, to be received into; to be given back by [`Self::put_inbox`].
    pub(super) fn take_inbox(&mut self) -> Result<Vec<u8>, Fault> {
        if self.lent.inbox.capacity() < stock::BYTES {
            let mut larger = self.lent.stock.lend();
            larger.extend_from_slice(&self.lent.inbox[self.lent.inbox_from..]);
            (self.lent.inbox, self.lent.inbox_from) = (larger, 0);
        } else if self.lent.inbox_from > 0 {
            self.lent.inbox.drain(..self.lent.inbox_from);
            self.lent.inbox_from = 0;
        }
        if self.lent.inbox.len() == self.lent.inbox.capacity() {
            return Err(Fault::TooLong);
        }
        Ok(std::mem::take(&mut self.lent.inbox))
    }

    pub(super) fn put_inbox(&mut self, inbox: Vec<u8>) {
        self.lent.inbox = inbox;
        if self.lent.inbox.is_empty() {
            self.lent.stock.give_back(std::mem::take(&mut self.lent.inbox));
        }
    }

    /// From here on the connection may be silent for long: part of a record keeps no more memory than it needs.
    pub(super) fn rest(&mut self) {
        if !self.lent.inbox.is_empty() {
            let part = self.lent.inbox[self.lent.inbox_from..].to_vec();
            self.lent.inbox_from = 0;
            self.lent.stock.give_back(std::mem::replace(&mut self.lent.inbox, part));
        }
    }

    #[cfg(test)]
    pub(super) const fn inbox_capacity(&self) -> usize {
        self.lent.inbox.capacity()
    }

    /// What TLS itself has to say, if anything; to be sent before anything else.
    pub(super) fn take_outbox(&mut self) -> Option<Vec<u8>> {
        (!self.lent.outbox.is_empty()).then(|| std::mem::take(&mut self.lent.outbox))
    }

    /// Goes on with the handshake as far as what was received allows. Whether it is over; if not, more must be received.
    /// What is in the outbox must be sent in any case, be it an error.
    pub(super) fn shake(&mut self) -> Result<bool, Fault> {
        let mut nowhere = Vec::new();
        loop {
            match self.turn(&mut nowhere, 0)? {
                Turn::On if self.lent.plain.is_empty() => {}
                Turn::On | Turn::Open => {
                    self.is_open = true;
                    return Ok(true);
                }
                Turn::Handshake => return Ok(false),
                Turn::End | Turn::Over => return Err(Fault::Tls(rustls::Error::HandshakeNotComplete)),
            }
        }
    }

    /// Appends what the other side says to `into`, at most `room` bytes.
    pub(super) fn take(&mut self, into: &mut Vec<u8>, room: usize) -> Result<Taken, Fault> {
        let before = into.len();
        let end = before + room.min(into.capacity() - before);
        loop {
            self.take_plain(into, end);
            if into.len() == end {
                break;
            }
            if self.lent.inbox.is_empty() || self.has_ended {
                break;
            }
            let room = end - into.len();
            match self.turn(into, room)? {
                Turn::On => {}
                Turn::Handshake | Turn::Open => break,
                Turn::End | Turn::Over => self.has_ended = true,
            }
        }
        Ok(match into.len() - before {
            0 if self.has_ended => Taken::End,
            0 => Taken::Hungry,
            count => Taken::Bytes(count),
        })
    }

    /// Looks at what has come though nobody expects anything. Whether it was nothing but TLS's own affairs.
    pub(super) fn settle(&mut self) -> bool {
        while !self.lent.inbox.is_empty() && self.lent.plain.is_empty() && !self.has_ended {
            match self.turn(&mut Vec::new(), 0) {
                Ok(Turn::On) => {}
                Ok(Turn::Open) => break,
                Ok(Turn::Handshake | Turn::End | Turn::Over) | Err(_) => return false,
            }
        }
        self.is_usable() && !self.holds_bytes()
    }

    fn take_plain(&mut self, into: &mut Vec<u8>, end: usize) {
        if self.lent.plain.is_empty() {
            return;
        }
        let waiting = &self.lent.plain[self.lent.plain_from..];
        let count = waiting.len().min(end - into.len());
        into.extend_from_slice(&waiting[..count]);
        self.lent.plain_from += count;
        if self.lent.plain_from == self.lent.plain.len() {
            self.lent.plain_from = 0;
            self.lent.stock.give_back(std::mem::take(&mut self.lent.plain));
        }
    }

    /// Encrypts at most [`PIECE_BYTES`] behind what is in the outbox already.
    ///
    /// # Errors
    /// When nothing may be sent any more.
    pub(super) fn encrypt(&mut self, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        self.write(Wish::Send(plain))?;
        Ok(std::mem::take(&mut self.lent.outbox))
    }

    /// The last that is said, if anything may be said.
    pub(super) fn goodbye(&mut self) -> Option<Vec<u8>> {
        if !self.is_open || self.is_broken {
            return None;
        }
        self.is_open = false;
        self.write(Wish::SayGoodbye).ok()?;
        self.take_outbox()
    }

    fn write(&mut self, wish: Wish<'_>) -> Result<(), Fault> {
        if self.is_broken {
            return Err(over());
        }
        self.lend_outbox();
        let mut plain =
            Plain { into: &mut Vec::new(), room: 0, rest: &mut self.lent.plain, stock: &self.lent.stock };
        // Nothing is received here, so this comes to its end: what TLS has to say, then what we have.
        loop {
            let (_, turn) = self.conversation.turn(&mut [], &mut plain, &mut self.lent.outbox, &wish);
            match turn.inspect_err(|_| self.is_broken = true)? {
                Turn::On => {}
                Turn::Open => return Ok(()),
                // The other side may be done and still listen.
                Turn::End => self.has_ended = true,
                Turn::Handshake | Turn::Over => {
                    return Err(Fault::Tls(rustls::Error::HandshakeNotComplete));
                }
            }
        }
    }

    fn lend_outbox(&mut self) {
        if self.lent.outbox.capacity() == 0 {
            self.lent.outbox = self.lent.stock.lend();
        }
    }

    /// One turn of rustls over the inbox. Bytes in clear go into `into`, and what there is no room for waits.
    fn turn(&mut self, into: &mut Vec<u8>, room: usize) -> Result<Turn, Fault> {
        if self.is_broken {
            return Err(over());
        }
        self.lend_outbox();
        let mut plain = Plain { into, room, rest: &mut self.lent.plain, stock: &self.lent.stock };
        let incoming = &mut self.lent.inbox[self.lent.inbox_from..];
        let (done, turn) =
            self.conversation.turn(incoming, &mut plain, &mut self.lent.outbox, &Wish::Nothing);
        self.lent.inbox_from = self.lent.inbox.len().min(self.lent.inbox_from + done);
        if turn.is_err() {
            self.is_broken = true;
            // What is to be told of it is in rustls still, behind what was said before it was met.
            let incoming = &mut self.lent.inbox[self.lent.inbox_from..];
            while self.conversation.has_more_to_say()
                && self
                    .conversation
                    .turn(incoming, &mut plain, &mut self.lent.outbox, &Wish::Nothing)
                    .1
                    .is_ok()
            {}
        }
        if self.lent.inbox_from == self.lent.inbox.len() {
            self.lent.inbox_from = 0;
            self.lent.stock.give_back(std::mem::take(&mut self.lent.inbox));
        }
        if self.lent.outbox.is_empty() {
            self.lent.stock.give_back(std::mem::take(&mut self.lent.outbox));
        }
        let turn = turn?;
        if turn == Turn::Open && self.has_whole_record() {
            self.is_broken = true;
            return Err(Fault::Fragmented);
        }
        Ok(turn)
    }

    /// Whether the first record of the inbox is complete.
    fn has_whole_record(&self) -> bool {
        let waiting = &self.lent.inbox[self.lent.inbox_from..];
        let Some((head, rest)) = waiting.split_at_checked(RECORD_HEAD) else { return false };
        rest.len() >= usize::from(head[3]) << 8 | usize::from(head[4])
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for buffer in [&mut self.inbox, &mut self.plain, &mut self.outbox] {
            self.stock.give_back(std::mem::take(buffer));
        }
    }
}

/// The conversation has ended with a fault before.
fn over() -> Fault {
    Fault::Tls(rustls::Error::General("it is over".to_owned()))
}
