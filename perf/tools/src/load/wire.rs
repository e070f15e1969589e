//! A connection to a server, in clear or over TLS, that never blocks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustls::HandshakeKind;
use rustls::client::ClientConnection;
use socket2::{Domain, Socket, Type};

use super::tls::Tls;
use crate::poll::{Interest, Poll, Token};

const READ_BYTES: usize = 256 * 1024;

/// Where bytes are received, one read of one connection at a time.
pub(crate) struct Scratch {
    raw: Box<[u8]>,
    plain: Vec<u8>,
}

/// What a read brought.
pub(crate) enum Came<'a> {
    /// Nothing, or nothing of the other side's own: parts of a handshake, tickets.
    Nothing,
    Bytes(&'a [u8]),
    End,
}

pub(crate) struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    token: Token,
    waits_to_write: bool,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { raw: vec![0; READ_BYTES].into(), plain: Vec::new() }
    }
}

impl Wire {
    /// Begins to connect. The next event that says writable is the outcome.
    pub(crate) fn open(
        address: SocketAddr,
        tls: Option<&Tls>,
        token: Token,
        poll: &Poll,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let socket = TcpStream::from(socket);
        poll.add(&socket, token, Interest::Both)?;
        let tls = tls.map(Tls::begin).transpose().map_err(io::Error::other)?;
        Ok(Self { socket, tls: tls.map(Box::new), token, waits_to_write: true })
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.socket.take_error(), Ok(None))
    }

    pub(crate) fn waits_to_write(&self) -> bool {
        self.waits_to_write
    }

    /// How the handshake of TLS went, once it is over.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }

    /// Sends what is left of the bytes, as far as the other side takes it; an event says when it takes more.
    pub(crate) fn send(&mut self, bytes: &[u8], written: &mut usize, poll: &Poll) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&bytes[*written..])?;
            *written = bytes.len();
            return self.push(poll);
        }
        while *written < bytes.len() {
            match self.socket.write(&bytes[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.wait(true, poll),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.wait(false, poll)
    }

    /// Sends what TLS has to send.
    fn push(&mut self, poll: &Poll) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.wait(true, poll),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.wait(false, poll)
    }

    fn wait(&mut self, to_write: bool, poll: &Poll) -> io::Result<()> {
        if std::mem::replace(&mut self.waits_to_write, to_write) == to_write {
            return Ok(());
        }
        poll.modify(&self.socket, self.token, if to_write { Interest::Both } else { Interest::Read })
    }

    /// One read. An error of TLS has the kind InvalidData.
    pub(crate) fn read<'s>(&mut self, scratch: &'s mut Scratch, poll: &Poll) -> io::Result<Came<'s>> {
        let count = match self.socket.read(&mut scratch.raw) {
            Ok(0) => return Ok(Came::End),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Came::Nothing);
            }
            Err(error) => return Err(error),
        };
        let Some(tls) = &mut self.tls else { return Ok(Came::Bytes(&scratch.raw[..count])) };
        scratch.plain.clear();
        let mut rest = &scratch.raw[..count];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(of_tls)?;
            take_plain(tls, state.plaintext_bytes_to_read(), &mut scratch.plain)?;
            if state.peer_has_closed() {
                break;
            }
        }
        self.push(poll)?;
        Ok(if scratch.plain.is_empty() { Came::Nothing } else { Came::Bytes(&scratch.plain) })
    }
}

fn take_plain(tls: &mut ClientConnection, count: usize, plain: &mut Vec<u8>) -> io::Result<()> {
    let from = plain.len();
    plain.resize(from + count, 0);
    tls.reader().read_exact(&mut plain[from..])
}

fn of_tls(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
