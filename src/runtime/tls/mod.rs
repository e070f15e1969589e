//! TLS over a socket of a core. Who reads and writes a [`super::socket::Socket`] does not notice: what is received is
//! decrypted on the way in, what is sent is encrypted on the way out. A connection that rests holds no buffer for it.

mod aside;
mod conversation;
mod session;
mod stock;
#[cfg(test)]
mod tests;
mod turnstile;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;

use monoio::io::{OwnedReadHalf, OwnedWriteHalf};
use monoio::net::TcpStream;

use super::buffers::Buffers;
use super::deadline::Watch;
use super::socket::{self, Caught, Sending, Socket, Waited};
use super::sys;
pub use aside::Aside;
pub(super) use conversation::Conversation;
pub use session::{Fault, Session};
use session::{PIECE_BYTES, Taken};
pub use stock::Stock;
use turnstile::Crowded;
pub use turnstile::Turnstile;

/// The conversation of one socket, shared by its two directions.
pub(super) struct Tls {
    session: RefCell<Session>,
    stock: Rc<Stock>,
}

impl Tls {
    /// Goes on with a conversation that another core began.
    pub(super) fn join(conversation: Conversation, stock: &Rc<Stock>) -> Self {
        Self { session: RefCell::new(Session::join(conversation, stock)), stock: Rc::clone(stock) }
    }

    /// What another core needs to go on with it; `None` where something is half said.
    pub(super) fn part(self) -> Option<Conversation> {
        self.session.into_inner().part()
    }

    fn take(&self, into: &mut Vec<u8>, room: usize) -> io::Result<Taken> {
        self.session.borrow_mut().take(into, room).map_err(broken)
    }

    /// Whether bytes were received that nobody has taken.
    pub(super) fn holds_bytes(&self) -> bool {
        self.session.borrow().holds_bytes()
    }

    /// What has come, as the result of receiving into a lent buffer, without waiting. `None`: nothing that could be told has.
    pub(super) fn receive_now(&self, half: &OwnedReadHalf<TcpStream>, stock: &Buffers) -> Option<Caught> {
        let mut session = self.session.borrow_mut();
        loop {
            if session.may_tell() {
                let mut buffer = stock.small();
                let room = buffer.capacity();
                match session.take(&mut buffer, room) {
                    Ok(Taken::Bytes(count)) => return Some((Ok(count), buffer)),
                    Ok(Taken::End) => return Some((Ok(0), buffer)),
                    Err(fault) => return Some((Err(broken(fault)), buffer)),
                    Ok(Taken::Hungry) => stock.give_back(buffer),
                }
            }
            let mut inbox = match session.take_inbox() {
                Ok(inbox) => inbox,
                Err(fault) => return Some((Err(broken(fault)), Vec::new())),
            };
            let received = sys::receive_now(half, &mut inbox);
            session.put_inbox(inbox);
            match received {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some((Err(error), Vec::new())),
            }
        }
    }

    /// From here on nobody may say anything for long.
    pub(super) fn rest(&self) {
        self.session.borrow_mut().rest();
    }

    /// Looks at what has come to a socket of which nobody expects anything, without waiting. Whether nothing has but what
    /// TLS says for itself.
    pub(super) fn settle(&self, half: &OwnedReadHalf<TcpStream>) -> bool {
        let mut session = self.session.borrow_mut();
        let Ok(mut inbox) = session.take_inbox() else { return false };
        let received = sys::receive_now(half, &mut inbox);
        session.put_inbox(inbox);
        received.is_ok() && session.settle()
    }

    /// Whether nobody has said anything that was not taken, and both may still speak.
    pub(super) fn is_settled(&self) -> bool {
        self.session.borrow_mut().settle()
    }

    /// Says that nothing more will be said. What the kernel does not take at once is lost: the other side is not listening.
    pub(super) fn say_goodbye(&self, half: &OwnedWriteHalf<TcpStream>) {
        if let Ok(mut session) = self.session.try_borrow_mut()
            && let Some(last) = session.goodbye()
        {
            sys::send_now(half, &last);
            self.stock.give_back(last);
        }
    }
}

fn broken(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// What the other side has against our certificate, by the name of its alert, where that is why nothing more came. Since TLS 1.3
/// it says so only when our side of the handshake is over.
pub fn objection(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<Fault>()?.objection()
}

/// The other side has left without saying so: what it sent may be cut short.
fn cut_short() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// As [`socket::Reader::receive`].
pub(super) async fn receive(
    tls: &Tls,
    half: &mut OwnedReadHalf<TcpStream>,
    mut buffer: Vec<u8>,
    room: usize,
) -> (io::Result<usize>, Vec<u8>) {
    loop {
        let inbox = match next(tls, &mut buffer, room) {
            Ok(inbox) => inbox,
            Err(result) => return (result, buffer),
        };
        let space = inbox.capacity();
        let (received, inbox) = socket::receive(half, inbox, space).await;
        tls.session.borrow_mut().put_inbox(inbox);
        match received {
            Ok(0) => return (Err(cut_short()), buffer),
            Ok(_) => {}
            Err(error) => return (Err(error), buffer),
        }
    }
}

/// As [`Socket::receive_or_idle`].
pub(super) async fn receive_or_idle(
    tls: &Tls,
    half: &mut OwnedReadHalf<TcpStream>,
    watch: &Watch,
    mut buffer: Vec<u8>,
    room: usize,
) -> (Waited, Vec<u8>) {
    loop {
        let inbox = match next(tls, &mut buffer, room) {
            Ok(inbox) => inbox,
            Err(result) => return (result.map_or_else(Waited::Failed, Waited::Received), buffer),
        };
        let space = inbox.capacity();
        let (waited, inbox) = socket::receive_or_idle(half, watch, inbox, space).await;
        tls.session.borrow_mut().put_inbox(inbox);
        match waited {
            Waited::Received(0) => return (Waited::Failed(cut_short()), buffer),
            Waited::Received(_) => {}
            Waited::Idle | Waited::Failed(_) => return (waited, buffer),
        }
    }
}

/// What was received already, as the result of receiving; else the inbox, to receive more into.
fn next(tls: &Tls, buffer: &mut Vec<u8>, room: usize) -> Result<Vec<u8>, io::Result<usize>> {
    match tls.take(buffer, room) {
        Ok(Taken::Bytes(count)) => Err(Ok(count)),
        Ok(Taken::End) => Err(Ok(0)),
        Ok(Taken::Hungry) => tls.session.borrow_mut().take_inbox().map_err(|fault| Err(broken(fault))),
        Err(error) => Err(Err(error)),
    }
}

/// As [`socket::Writer::send`].
pub(super) async fn send(
    tls: &Tls,
    half: &mut OwnedWriteHalf<TcpStream>,
    buffer: Vec<u8>,
    mut from: usize,
    how: Sending,
) -> (io::Result<()>, Vec<u8>) {
    while from < buffer.len() {
        let end = buffer.len().min(from + PIECE_BYTES);
        let encrypted = tls.session.borrow_mut().encrypt(&buffer[from..end]);
        let encrypted = match encrypted {
            Ok(encrypted) => encrypted,
            Err(fault) => return (Err(broken(fault)), buffer),
        };
        from = end;
        let (sent, encrypted) = socket::send(half, encrypted, 0, how).await;
        tls.stock.give_back(encrypted);
        if sent.is_err() {
            return (sent, buffer);
        }
    }
    (Ok(()), buffer)
}

impl Socket {
    /// Waits until there is time for the handshake of a client that has said hello.
    ///
    /// # Errors
    /// When the client has left meanwhile, or has waited for too long; [`io::ErrorKind::ResourceBusy`] when more come than there
    /// is time for.
    pub async fn line_up(&self, turnstile: &Turnstile) -> io::Result<()> {
        turnstile.line_up().await.map_err(|Crowded| io::Error::from(io::ErrorKind::ResourceBusy))?;
        if self.watch().fired() || sys::is_over(self.fd()) { Err(cut_short()) } else { Ok(()) }
    }

    /// Talks TLS from here on, once both sides have agreed how; `hello` is what was received already. To be ended from
    /// outside when it takes too long.
    ///
    /// # Errors
    /// When they do not agree, or the other side leaves.
    pub async fn shake(
        &mut self,
        mut session: Session,
        hello: Vec<u8>,
        stock: &Rc<Stock>,
        turnstile: &Turnstile,
    ) -> io::Result<Agreement> {
        // Who was let in by [`Self::line_up`] has cost most of what there is to pay, and must not wait behind those who come.
        let is_guest = !hello.is_empty();
        session.put_inbox(hello);
        loop {
            if !is_guest {
                turnstile.wait_for_room().await;
            }
            let shaken;
            (session, shaken) = turnstile.shake(session, stock).await?;
            if let Some(outbox) = session.take_outbox() {
                let (sent, outbox) = self.writer.send(outbox, 0, Sending::Alone).await;
                stock.give_back(outbox);
                sent?;
            }
            if shaken.map_err(broken)? {
                break;
            }
            let inbox = session.take_inbox().map_err(broken)?;
            let space = inbox.capacity();
            let (received, inbox) = self.reader.receive(inbox, space).await;
            session.put_inbox(inbox);
            if received? == 0 {
                return Err(cut_short());
            }
        }
        let agreement = Agreement::of(&session);
        self.secure(Tls { session: RefCell::new(session), stock: Rc::clone(stock) });
        Ok(agreement)
    }

    /// Receives, in clear, behind what was received already.
    ///
    /// # Errors
    /// When the socket breaks, or the other side leaves.
    pub async fn receive_in_clear(&mut self, hello: Vec<u8>, stock: &Stock) -> io::Result<Vec<u8>> {
        let hello = if hello.capacity() == 0 { stock.lend() } else { hello };
        let space = hello.capacity();
        if hello.len() == space {
            return Err(broken(Fault::TooLong));
        }
        let (received, hello) = self.reader.receive(hello, space).await;
        if received? == 0 { Err(cut_short()) } else { Ok(hello) }
    }
}

/// The SHA-1 of a certificate in hexadecimal digits: its name, as nginx and others have it, and no more.
pub fn sha1_text(certificate: &[u8]) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let mut text = String::with_capacity(40);
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref() {
        // Writing to a string can not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What two sides have agreed on.
#[derive(Debug)]
pub struct Agreement {
    /// Such as `TLSv1.3`.
    pub protocol: &'static str,
    /// By the name that openssl has for it.
    pub cipher: &'static str,
    /// The other side's certificate and those of its issuers, in DER.
    pub certificates: Vec<Box<[u8]>>,
    /// HTTP/2 was agreed on (RFC 7301).
    pub is_http2: bool,
}

impl Agreement {
    fn of(session: &Session) -> Self {
        use rustls::{CipherSuite, ProtocolVersion};
        let agreed = session.agreed();
        let protocol = match agreed.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = match agreed.negotiated_cipher_suite().map(|suite| suite.suite()) {
            Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
            Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
            Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256) => {
                "ECDHE-ECDSA-CHACHA20-POLY1305"
            }
            Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => "ECDHE-RSA-AES256-GCM-SHA384",
            Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => "ECDHE-RSA-AES128-GCM-SHA256",
            Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256) => "ECDHE-RSA-CHACHA20-POLY1305",
            _ => "",
        };
        let certificates = session.peer_certificates().unwrap_or_default();
        Self {
            protocol,
            cipher,
            is_http2: agreed.alpn_protocol() == Some(b"h2"),
            certificates: certificates.iter().map(|certificate| certificate.as_ref().into()).collect(),
        }
    }
}
