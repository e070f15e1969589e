//! What comes from an upstream: the head of its answer, and the body without its frame.

use std::cell::Cell;
use std::io;

use super::pipeline::Run;
use super::proxy::Plan;
use super::respond::Fault;
use super::upload::PIECE_TAIL;
use crate::link::outbox::Level;
use crate::proto::h1::chunked::Decoder;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::h1::parse::{self, Parsed};
use crate::proto::head::{HeaderId, Version};
use crate::runtime::Core;
use crate::runtime::pool::Leased;
use crate::runtime::socket::Net;
use crate::runtime::tls;

/// Room before a received head, so that a longer one fits in its place. Enough for what the gateway and a plugin or two
/// add; a head that grows by more is sent alone. Not more, because it is written over for each answer.
const HEADROOM: usize = 256;

/// A response body on its way from upstream.
pub(super) enum Download {
    Nothing,
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

/// What a received piece holds.
pub(super) struct Piece {
    pub(super) data: usize,
    pub(super) done: bool,
    /// Bytes came behind the end: the connection is not to be trusted again.
    pub(super) excess: bool,
}

impl Download {
    pub(super) fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Nothing,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// The trailers, once all of it is there: a line each.
    pub(super) fn trailer_section(&self) -> &[u8] {
        match self {
            Self::Chunked(decoder) => decoder.trailers(),
            Self::Nothing | Self::Length(_) | Self::UntilClose => b"",
        }
    }

    /// Takes the frame off received bytes: `data` of them are left at the front.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<Piece, Fault> {
        match self {
            Self::Nothing => Ok(Piece { data: 0, done: true, excess: !bytes.is_empty() }),
            Self::Length(left) => {
                let data = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data as u64;
                Ok(Piece { data, done: *left == 0, excess: data < bytes.len() })
            }
            Self::Chunked(decoder) => {
                let step = decoder.decode(bytes).map_err(|_| Fault::BadResponse)?;
                Ok(Piece { data: step.data, done: step.done, excess: step.consumed < bytes.len() })
            }
            Self::UntilClose => Ok(Piece { data: bytes.len(), done: false, excess: false }),
        }
    }
}

impl Run<'_> {
    /// Has the trailers where filters see them.
    pub(super) fn note_trailers(&mut self, download: &Download) {
        self.ex.response.trailers.extend_from_slice(download.trailer_section());
    }

    /// Receives until the final head is complete. Interim ones are passed on.
    pub(super) async fn receive_head(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        uploading: &Cell<bool>,
    ) -> Result<Framing, Fault> {
        let core = &self.hall.core;
        let limits = &core.limits.upstream_head;
        // A client that waits for 100 waits for the node.
        await_node(core, plan, leased, !uploading.get() || self.ex.request.headers.has(HeaderId::Expect));
        leased.socket.heard().await;
        let (mut caught, mut buffer) = match leased.socket.caught() {
            Some((caught, buffer)) => (Some(caught), buffer),
            // What of the body comes with the head waits where its client takes none.
            None if self.connection.is_stream => (None, with_headroom(core.buffers.small())),
            None => (None, with_headroom(core.buffers.large())),
        };
        let most = self.connection.socket.writer.appetite().unwrap_or(usize::MAX);
        let (mut start, mut interim) = (HEADROOM, 0);
        loop {
            if caught.is_none() && buffer.len() > start {
                let headers = &mut self.ex.response.headers;
                match parse::response(&buffer, start, limits, headers) {
                    Ok(Parsed::Complete(line)) if (100..200).contains(&line.status) && line.status != 101 => {
                        interim += 1;
                        if interim > core.limits.interim_responses {
                            headers.clear();
                            return Err(Fault::TooManyInterim);
                        }
                        headers.hold_received(buffer);
                        let passed = self.pass_interim(line.status).await;
                        buffer = self.ex.response.headers.take_received();
                        passed?;
                        start = line.head.end();
                        continue;
                    }
                    Ok(Parsed::Complete(line)) => {
                        headers.hold_received(buffer);
                        self.ex.response.line = line;
                        self.ex.response.status = line.status;
                        let method = self.ex.request.forward_method();
                        return framing::of_response(method, &line, &self.ex.response.headers)
                            .map_err(|_| Fault::BadResponse);
                    }
                    Ok(Parsed::Partial) => headers.clear(),
                    Err(fault) if fault.status() == 431 => return Err(Fault::HeadTooLarge),
                    Err(_) => return Err(Fault::BadResponse),
                }
            }
            let received = if let Some(caught) = caught.take() {
                caught
            } else {
                if room(&buffer) == 0 {
                    buffer = core.buffers.enlarge(buffer);
                }
                if room(&buffer) == 0 {
                    return Err(Fault::HeadTooLarge);
                }
                await_node(core, plan, leased, !uploading.get() || buffer.len() > start);
                let room = room(&buffer).min(most);
                let (received, returned) = leased.socket.reader.receive(buffer, room).await;
                buffer = returned;
                received
            };
            if !matches!(received, Ok(count) if count > 0) {
                let begun = buffer.len() > start;
                core.buffers.give_back(buffer);
                return Err(if begun && !leased.socket.watch().fired() {
                    Fault::BadResponse
                } else {
                    self.objection(plan, leased, received.err()).unwrap_or_else(|| silence(leased))
                });
            }
        }
    }

    /// What a node that has said nothing yet has against our certificate, if that is why it does not answer. It has looked at no
    /// request.
    fn objection(&self, plan: &Plan<'_>, leased: &Leased, error: Option<io::Error>) -> Option<Fault> {
        let alert = error.as_ref().and_then(tls::objection).filter(|_| leased.requests == 1)?;
        self.hall.core.stats.upstream_tls_errors.add(1);
        let node = plan.upstream.nodes[plan.served.get()].address;
        self.hall.note_seldom(Level::Warn, || {
            format!("no TLS with a node at {node}: it ends the handshake with the alert {alert}, about our certificate")
        });
        Some(Fault::TlsRefused)
    }

    /// Passes an interim response on, whose lines are in the exchange: to clients that can read one, `100` only to those that
    /// wait for it.
    async fn pass_interim(&mut self, status: u16) -> Result<(), Fault> {
        let request = &self.ex.request;
        let wanted = match status {
            100 => request.headers.has(HeaderId::Expect),
            103 => true,
            _ => false,
        };
        if !wanted || request.line.version == Version::Http10 {
            return Ok(());
        }
        let core = &self.hall.core;
        let mut out = core.buffers.small();
        if status == 100 {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        } else {
            self.write_interim(&mut out, status);
        }
        self.send(out, 0).await.map_err(|()| Fault::ClientGone)
    }

    /// Receives the whole body, into `out` or nowhere; what goes nowhere is not waited for longer than such bodies of clients are.
    /// Whether the connection may be used again.
    pub(super) async fn gather(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        mut download: Download,
        bytes_max: usize,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<bool, Fault> {
        let core = &self.hall.core;
        let began = core.now();
        let mut total = 0;
        let mut buffer = core.buffers.large();
        buffer.extend_from_slice(&self.ex.response.headers.received()[self.ex.response.line.head.end()..]);
        let closes = matches!(download, Download::UntilClose);
        loop {
            let piece = download.take(&mut buffer)?;
            total += piece.data;
            if total > bytes_max {
                return Err(Fault::ResponseTooLarge);
            }
            if let Some(out) = &mut out {
                out.extend_from_slice(&buffer[..piece.data]);
            }
            if piece.done {
                core.buffers.give_back(buffer);
                self.note_trailers(&download);
                return Ok(!piece.excess && !closes);
            }
            buffer.clear();
            let left = core.limits.drain_body_timeout.saturating_sub(core.now().since(began));
            let patience = if out.is_some() { plan.timeouts.read } else { plan.timeouts.read.min(left) };
            leased.socket.watch().arm(&core.wheel, plan.within(core, patience));
            let room = buffer.capacity();
            let (received, returned) = leased.socket.reader.receive(buffer, room).await;
            buffer = returned;
            match received {
                Ok(count) if count > 0 => {}
                Ok(_) if closes && !leased.socket.watch().fired() => download = Download::Nothing,
                _ => return Err(silence(leased)),
            }
        }
    }
}

/// Gives the node its time to say more, where it owes anything: while the body goes up whoever sends it sees to that.
fn await_node(core: &Core, plan: &Plan<'_>, leased: &Leased, owes: bool) {
    if owes {
        leased.socket.watch().arm(&core.wheel, plan.within(core, plan.timeouts.read));
    }
}

/// For the next answer on a connection that is kept.
pub(super) fn net(core: &Core) -> Net {
    let buffer = with_headroom(core.buffers.small());
    let room = room(&buffer);
    (buffer, room)
}

fn with_headroom(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.resize(HEADROOM, 0);
    buffer
}

/// Bytes that may be received into a buffer.
const fn room(buffer: &Vec<u8>) -> usize {
    (buffer.capacity() - buffer.len()).saturating_sub(PIECE_TAIL)
}

/// Why an upstream says nothing more.
pub(super) fn silence(leased: &Leased) -> Fault {
    let watch = leased.socket.watch();
    match (watch.is_abandoned(), watch.fired()) {
        (true, _) => Fault::ClientGone,
        (false, true) => Fault::ReadTimeout,
        (false, false) if leased.socket.was_refused() => Fault::Refused,
        (false, false) => Fault::NoResponse,
    }
}
