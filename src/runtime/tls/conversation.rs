//! One turn of rustls: what it makes of bytes that came in, what it has to say, and what comes next. Without memory of its own:
//! that is a [`super::session::Session`]'s.

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

use super::session::Fault;
use super::stock::Stock;

/// Bytes that encryption adds to a record, at most, with every cipher there is.
const RECORD_EXTRA: usize = 64;

pub(in crate::runtime) enum Conversation {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What one turn of rustls came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more to do with what is there.
    On,
    /// The handshake goes on when more has come.
    Handshake,
    /// The handshake is over, and nothing more is there.
    Open,
    End,
    /// Both sides are done.
    Over,
}

/// What to do once bytes may be sent.
pub(super) enum Wish<'a> {
    Nothing,
    Send(&'a [u8]),
    SayGoodbye,
}

/// Where bytes in clear go.
pub(super) struct Plain<'a> {
    pub(super) into: &'a mut Vec<u8>,
    pub(super) room: usize,
    pub(super) rest: &'a mut Vec<u8>,
    pub(super) stock: &'a Stock,
}

impl Plain<'_> {
    fn add(&mut self, bytes: &[u8]) {
        let (fits, beyond) = bytes.split_at(bytes.len().min(self.room));
        self.into.extend_from_slice(fits);
        self.room -= fits.len();
        if !beyond.is_empty() {
            if self.rest.capacity() == 0 {
                *self.rest = self.stock.lend();
            }
            self.rest.extend_from_slice(beyond);
        }
    }
}

impl Conversation {
    /// What was agreed on.
    pub(super) fn agreed(&self) -> &CommonState {
        match self {
            Self::Server(server) => server,
            Self::Client(client) => client,
        }
    }

    /// Whether something waits to be encoded, which a turn does before anything else.
    pub(super) fn has_more_to_say(&self) -> bool {
        match self {
            Self::Server(server) => server.wants_write(),
            Self::Client(client) => client.wants_write(),
        }
    }

    pub(super) fn turn(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Plain<'_>,
        out: &mut Vec<u8>,
        wish: &Wish<'_>,
    ) -> (usize, Result<Turn, Fault>) {
        match self {
            Self::Server(server) => turn(server.process_tls_records(incoming), plain, out, wish),
            Self::Client(client) => turn(client.process_tls_records(incoming), plain, out, wish),
        }
    }
}

/// How many bytes are done with, and what comes next.
fn turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Plain<'_>,
    out: &mut Vec<u8>,
    wish: &Wish<'_>,
) -> (usize, Result<Turn, Fault>) {
    let mut done = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (done, Err(error.into())),
    };
    let turn = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut result = Ok(Turn::On);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(AppDataRecord { discard, payload, .. }) => {
                        done += discard;
                        plain.add(payload);
                    }
                    Err(error) => {
                        result = Err(error.into());
                        break;
                    }
                }
            }
            result
        }
        ConnectionState::EncodeTlsData(mut data) => {
            // The first try says how much it takes.
            append(out, 0, |room| match data.encode(room) {
                Ok(count) => Written::Bytes(count),
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    Written::Needs(required_size)
                }
                Err(EncodeError::AlreadyEncoded) => Written::Bytes(0),
            });
            Ok(Turn::On)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::On)
        }
        ConnectionState::BlockedHandshake => Ok(Turn::Handshake),
        ConnectionState::WriteTraffic(mut traffic) => {
            let mut encrypted = |guess, encrypt: &mut dyn FnMut(&mut [u8]) -> Result<usize, EncryptError>| {
                append(out, guess, |room| match encrypt(room) {
                    Ok(count) => Written::Bytes(count),
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        Written::Needs(required_size)
                    }
                    Err(EncryptError::EncryptExhausted) => Written::Never,
                })
            };
            let is_written = match wish {
                Wish::Nothing => true,
                Wish::Send(bytes) => {
                    encrypted(bytes.len() + 2 * RECORD_EXTRA, &mut |room| traffic.encrypt(bytes, room))
                }
                Wish::SayGoodbye => encrypted(RECORD_EXTRA, &mut |room| traffic.queue_close_notify(room)),
            };
            let worn = || Fault::Tls(rustls::Error::EncryptError);
            is_written.then_some(Turn::Open).ok_or_else(worn)
        }
        ConnectionState::PeerClosed => Ok(Turn::End),
        ConnectionState::Closed => Ok(Turn::Over),
        // Early data is never offered, and what rustls may learn to ask for is not known here.
        _ => Err(Fault::Tls(rustls::Error::General("an unknown state".to_owned()))),
    };
    (done, turn)
}

/// What writing came to.
enum Written {
    Bytes(usize),
    Needs(usize),
    Never,
}

/// Appends what `write` writes, in so much room as it needs. False when it will never write again.
fn append(out: &mut Vec<u8>, guess: usize, mut write: impl FnMut(&mut [u8]) -> Written) -> bool {
    let (start, mut room) = (out.len(), guess);
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Written::Bytes(count) => {
                out.truncate(start + count);
                return true;
            }
            Written::Needs(size) if size > room => room = size,
            Written::Needs(_) | Written::Never => {
                out.truncate(start);
                return false;
            }
        }
    }
}
