//! The response on its way to the client: from upstream piece by piece, or one of ours in one piece.
//!
//! An upstream's head is received with room before it, and the head that goes out is written into that room, so
//! that head and first bytes of the body leave in one send and the body is never copied.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::download::{Download, silence};
use super::grpc_status;
use super::pipeline::{After, Run};
use super::proxy::Plan;
use super::respond::Fault;
use super::response_head::Outgoing;
use super::sticky;
use super::upload::{PIECE_HEAD, PIECE_TAIL, end_chunks, frame_piece};
use crate::base::clock::Moment;
use crate::exchange::{Pace, ResponseBody, Source, piece_bytes_max};
use crate::proto::h1::chunked;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::h1::parse;
use crate::proto::head::{HeaderId, HeaderList};
use crate::runtime::buffers::SMALL_BYTES;
use crate::runtime::pipe::LANE_BYTES_MAX;
use crate::runtime::pool::Leased;

/// What passing an answer on came to.
pub(super) struct Relayed {
    pub(super) after: After,
    /// The upstream connection may carry another request.
    pub(super) reusable: bool,
    /// Both sides agreed to go on as a tunnel.
    pub(super) tunnel: bool,
}

/// Whether a body is of server-sent events.
fn is_of_events(headers: &HeaderList) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = headers.get_id(HeaderId::ContentType).and_then(|kind| kind.get(..KIND.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// What becomes of the connection behind an answer. Closed while the client still sends it would be reset, and the answer lost
/// with it.
const fn after(keep: bool, uploading: bool) -> After {
    match (keep, uploading) {
        (true, _) => After::Keep,
        (false, true) => After::Linger,
        (false, false) => After::Close,
    }
}

impl Run<'_> {
    /// Receives the answer and passes it on.
    pub(super) async fn converse(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        uploading: &Cell<bool>,
        began: Moment,
    ) -> Result<Relayed, Fault> {
        let framing = self.receive_head(plan, leased, uploading).await?;
        let header = self.hall.core.now().since(began);
        let status = self.ex.response.status;
        self.note_attempt(|attempt| (attempt.status, attempt.header) = (status, header));
        self.ex.response.source = Source::Upstream;
        self.ex.reason = "";
        plan.until.end_try();
        // Whoever else was asked is late.
        plan.rival.take();
        if let Some(fallback) = &plan.upstream.additions.fallback
            && !self.falls_back
            && self.gives_way(fallback)
        {
            let received = self.ex.response.headers.take_received();
            self.hall.core.buffers.give_back(received);
            self.ex.response.headers.clear();
            return Err(Fault::StatusCaught);
        }
        if let Some(sticky) = &plan.upstream.additions.sticky {
            sticky::mark(&mut self.ex, plan.upstream, sticky);
        }
        if status == 101 {
            return self.agree_to_tunnel(plan).await;
        }
        let line = self.ex.response.line;
        let keeps = framing::keeps_alive(line.version, &self.ex.response.headers);
        if self.view.house.show_upstream_status || status >= 500 {
            let text = itoa::Buffer::new().format(status).to_owned();
            self.ex.response.headers.set("X-APISIX-Upstream-Status", text.as_bytes());
        }
        self.header_filter();
        let download = Download::of(framing);
        let mut relayed = match std::mem::take(&mut self.ex.response.body) {
            ResponseBody::AsIs if framing != Framing::None && self.is_bodyless() => {
                self.leave_out_body(plan, leased, download).await
            }
            ResponseBody::AsIs => match self.relay(plan, leased, download, framing, uploading).await {
                Err(fault) if self.head_sent && fault != Fault::ClientGone => {
                    Box::pin(self.end_short(fault, framing, uploading)).await
                }
                relayed => relayed?,
            },
            ResponseBody::Hold { bytes_max } => self.relay_held(plan, leased, download, bytes_max).await?,
            ResponseBody::Replace(body) => self.replace(plan, leased, download, body).await?,
        };
        relayed.reusable &= keeps;
        Ok(relayed)
    }

    /// `101`: only if the client asked for it and the route allows it; anything else would let bytes of a
    /// request through that nobody has looked at.
    async fn agree_to_tunnel(&mut self, plan: &Plan<'_>) -> Result<Relayed, Fault> {
        let response = &self.ex.response;
        let agreed = framing::upgrade(&response.headers) == Some(framing::Upgrade::WebSocket);
        if !plan.tunnel || !agreed {
            return Err(Fault::UnaskedUpgrade);
        }
        self.header_filter();
        let mut out = self.hall.core.buffers.large();
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        self.write_lines(&mut out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        // What the upstream said right behind its head belongs to the tunnel.
        let behind = self.ex.response.line.head.end();
        out.extend_from_slice(&self.ex.response.headers.received()[behind..]);
        self.head_sent = true;
        self.send(out, 0).await.map_err(|()| Fault::ClientGone)?;
        Ok(Relayed { after: After::Close, reusable: false, tunnel: true })
    }

    /// Passes the body on as it comes.
    async fn relay(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        mut download: Download,
        framing: Framing,
        uploading: &Cell<bool>,
    ) -> Result<Relayed, Fault> {
        let filters = self.filters_body();
        let outgoing = self.outgoing(framing, filters);
        // Where there is no body, no filter may make one: it would be taken for the next answer.
        let filters = filters && framing != Framing::None;
        let keep = self.keeps(uploading.get()) && outgoing != Outgoing::UntilClose;
        let core = &self.hall.core;
        self.heed_leaving(framing);
        let mut head = core.buffers.small();
        self.write_head(&mut head, outgoing, keep);
        let body_at = self.ex.response.line.head.end();
        let mut buffer = self.ex.response.headers.take_received();
        if self.reads_sent_head() {
            self.keep_sent_head(&head);
        }
        let mut start = body_at;
        let mut excess = false;
        loop {
            let piece = match download.take(&mut buffer[start..]) {
                Ok(piece) => piece,
                Err(fault) => return self.cut_off(fault, buffer, head),
            };
            excess |= piece.excess;
            buffer.truncate(start + piece.data);
            if filters {
                self.transform(&mut buffer, start, piece.done.then_some(&download));
            }
            let sent = buffer.len() - start;
            self.ex.response.body_bytes += sent as u64;
            let mut from = start;
            if outgoing == Outgoing::Chunked {
                from = frame_piece(&mut buffer, from);
                if piece.done {
                    let trailers = download.trailer_section();
                    let left = if filters { &self.ex.response.trailers } else { trailers };
                    end_chunks(&mut buffer, chunked::fields_of(left));
                }
            }
            let slow = self.ex.paces.down.clone().filter(|_| sent > 0);
            if !head.is_empty() {
                // A head does not wait with what is slow.
                from = self.place_head(&mut head, &mut buffer, (from, slow.is_some())).await?;
            }
            if from < buffer.len() {
                let (passed, returned) =
                    self.send_piece((buffer, from), slow, (!piece.done).then_some((plan, &*leased))).await;
                buffer = returned;
                if passed.is_err() {
                    return self.cut_off(Fault::ClientGone, buffer, head);
                }
            }
            if piece.done {
                break;
            }
            let (received, returned) = self.receive_piece(plan, leased, buffer).await;
            buffer = returned;
            start = PIECE_HEAD;
            match (received, &mut download) {
                (Ok(count), _) if count > 0 => {}
                // The end of the connection is the end of the body, if it was not we who ended it.
                (Ok(_), until @ Download::UntilClose) if !leased.socket.watch().fired() => {
                    *until = Download::Nothing;
                }
                _ => return self.cut_off(silence(leased), buffer, head),
            }
        }
        core.buffers.give_back(buffer);
        core.buffers.give_back(head);
        let reusable = !excess && framing != Framing::UntilClose;
        Ok(Relayed { after: after(keep, uploading.get()), reusable, tunnel: false })
    }

    /// Receives more of the body, with room before and behind it: no more than would be taken now, where that is known.
    async fn receive_piece(
        &self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        mut buffer: Vec<u8>,
    ) -> (io::Result<usize>, Vec<u8>) {
        let core = &self.hall.core;
        buffer.clear();
        let mut most = usize::MAX;
        if self.connection.is_stream {
            // As many streams may wait for their client as a connection has: none holds a buffer meanwhile.
            core.buffers.give_back(buffer);
            most = self.await_hunger(leased).await;
            buffer = core.buffers.small();
        }
        if most > SMALL_BYTES - PIECE_HEAD - PIECE_TAIL {
            // More comes than fits a net.
            buffer = core.buffers.enlarge(buffer);
        }
        buffer.resize(PIECE_HEAD, 0);
        leased.socket.watch().arm(&core.wheel, plan.within(core, plan.timeouts.read));
        let mut room = most.min(buffer.capacity() - PIECE_HEAD - PIECE_TAIL);
        if let Some(pace) = &self.ex.paces.down {
            room = room.min(piece_bytes_max(&**pace));
        }
        leased.socket.reader.receive(buffer, room).await
    }

    /// Waits until the client of a stream would take more, which is its own time, not the node's.
    async fn await_hunger(&self, leased: &Leased) -> usize {
        leased.socket.watch().disarm();
        self.connection.socket.writer.hunger().await.unwrap_or(LANE_BYTES_MAX)
    }

    /// Sends a piece of the body, framed; of the `node` more is to come, where one is named.
    async fn send_piece(
        &mut self,
        (buffer, from): (Vec<u8>, usize),
        slow: Option<Rc<dyn Pace>>,
        node: Option<(&Plan<'_>, &Leased)>,
    ) -> (Result<(), ()>, Vec<u8>) {
        match slow {
            None => {
                if let Some((plan, leased)) = node {
                    // What the client takes its time for is not the node's silence; only the request's own time runs on.
                    let core = &self.hall.core;
                    let patience = core.limits.write_timeout.saturating_add(plan.timeouts.read);
                    leased.socket.watch().arm(&core.wheel, plan.within(core, patience));
                }
                self.send_keeping(buffer, from).await
            }
            Some(pace) => Box::pin(self.send_slowly((buffer, from), &*pace, node)).await,
        }
    }

    /// Writes the head into the room before `from`; sends it alone if it is to be, or does not fit there.
    async fn place_head(
        &mut self,
        head: &mut Vec<u8>,
        buffer: &mut [u8],
        (from, is_alone): (usize, bool),
    ) -> Result<usize, Fault> {
        self.head_sent = true;
        if head.len() <= from && !is_alone {
            let at = from - head.len();
            buffer[at..from].copy_from_slice(head);
            // Not held until the end of a long body.
            self.hall.core.buffers.give_back(std::mem::take(head));
            return Ok(at);
        }
        let alone = std::mem::take(head);
        self.send(alone, 0).await.map_err(|()| Fault::ClientGone)?;
        Ok(from)
    }

    /// Puts away what an answer that can not be finished came with: before its head is sent it becomes an error, after that
    /// see [`Self::end_short`]. Who has left is told nothing more.
    fn cut_off(&mut self, fault: Fault, buffer: Vec<u8>, head: Vec<u8>) -> Result<Relayed, Fault> {
        let core = &self.hall.core;
        core.buffers.give_back(buffer);
        core.buffers.give_back(head);
        if !self.head_sent || fault != Fault::ClientGone {
            return Err(fault);
        }
        self.ex.reason = fault.word();
        Ok(Relayed { after: After::Close, reusable: false, tunnel: false })
    }

    /// Ends an answer whose head is sent and whose rest does not come: the connection is closed without the end of the body, so
    /// that nobody takes it for whole. A call of gRPC is told why, since its messages say themselves how long they are.
    async fn end_short(&mut self, fault: Fault, framing: Framing, uploading: &Cell<bool>) -> Relayed {
        self.ex.reason = fault.word();
        let closed = Relayed { after: After::Close, reusable: false, tunnel: false };
        let filters = self.filters_body();
        let is_framed = self.outgoing(framing, filters) == Outgoing::Chunked;
        if !is_framed || !grpc_status::set_trailers(&mut self.ex, fault.status()) {
            return closed;
        }
        let mut buffer = self.hall.core.buffers.small();
        buffer.resize(PIECE_HEAD, 0);
        let mut from = PIECE_HEAD;
        if filters {
            self.transform(&mut buffer, PIECE_HEAD, Some(&Download::Nothing));
            self.ex.response.body_bytes += (buffer.len() - PIECE_HEAD) as u64;
            from = frame_piece(&mut buffer, PIECE_HEAD);
        }
        end_chunks(&mut buffer, chunked::fields_of(&self.ex.response.trailers));
        match self.send(buffer, from).await {
            Ok(()) => Relayed { after: after(false, uploading.get()), ..closed },
            Err(()) => closed,
        }
    }

    /// Lets the plugins change a piece; with the `last` one, the trailers of the body.
    fn transform(&mut self, buffer: &mut Vec<u8>, start: usize, last: Option<&Download>) {
        if let Some(whole) = last {
            self.note_trailers(whole);
        }
        let mut bytes = self.hall.core.buffers.large();
        bytes.extend_from_slice(&buffer[start..]);
        self.body_filter(&mut bytes, last.is_some());
        buffer.truncate(start);
        buffer.extend_from_slice(&bytes);
        self.hall.core.buffers.give_back(bytes);
    }

    /// Events may be far apart, and who wants them says nothing more but that it goes.
    fn heed_leaving(&self, framing: Framing) {
        let may_last = matches!(framing, Framing::Chunked | Framing::UntilClose);
        if may_last && is_of_events(&self.ex.response.headers) {
            self.connection.socket.watch().take_end_for_leaving();
        }
    }

    /// Keeps what was sent where the log or a plugin asks for it: the received head is about to be written over.
    fn keep_sent_head(&mut self, head: &[u8]) {
        let mut copy = self.hall.core.buffers.small();
        copy.extend_from_slice(head);
        let headers = &mut self.ex.response.headers;
        headers.clear();
        // Our own head; should it ever not parse, the log lacks its lines.
        let _ = parse::response(&copy, 0, &self.hall.core.limits.upstream_head, headers);
        headers.hold_received(copy);
    }

    /// Gathers the whole body, lets the plugins see it once, and sends it.
    async fn relay_held(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        download: Download,
        bytes_max: usize,
    ) -> Result<Relayed, Fault> {
        let mut held = Vec::new();
        let reusable = self.gather(plan, leased, download, bytes_max, Some(&mut held)).await?;
        self.body_filter(&mut held, true);
        let after = self.send_whole(Some(&held)).await;
        Ok(Relayed { after, reusable, tunnel: false })
    }

    /// Sends another body instead. The upstream's is read away if it is short.
    async fn replace(
        &mut self,
        plan: &Plan<'_>,
        leased: &mut Leased,
        download: Download,
        body: Bytes,
    ) -> Result<Relayed, Fault> {
        let reusable = self.read_away(plan, leased, download).await;
        self.ex.response.body = ResponseBody::Replace(body);
        let after = self.deliver_own().await;
        Ok(Relayed { after, reusable, tunnel: false })
    }

    /// Sends the head alone to a client that would take a body for its next answer.
    async fn leave_out_body(&mut self, plan: &Plan<'_>, leased: &mut Leased, download: Download) -> Relayed {
        let reusable = self.read_away(plan, leased, download).await;
        let after = self.send_whole(None).await;
        Relayed { after, reusable, tunnel: false }
    }

    /// Reads the upstream's body away if it is short; whether its connection is good for another request.
    async fn read_away(&mut self, plan: &Plan<'_>, leased: &mut Leased, download: Download) -> bool {
        let limit = usize::try_from(self.hall.core.limits.drain_body_bytes).unwrap_or(usize::MAX);
        self.gather(plan, leased, download, limit, None).await.unwrap_or(false)
    }

    /// Sends the answer that is in the exchange: status, headers and a body of ours.
    pub(super) async fn deliver_own(&mut self) -> After {
        let mut body = match std::mem::take(&mut self.ex.response.body) {
            ResponseBody::Replace(body) => body,
            ResponseBody::AsIs | ResponseBody::Hold { .. } => Bytes::new(),
        };
        if self.filters_body() {
            let mut bytes = body.to_vec();
            self.body_filter(&mut bytes, true);
            body = Bytes::from(bytes);
        }
        self.send_whole(Some(&body)).await
    }

    /// Sends a whole answer; without a body what the head says of its length is what the upstream said. What the client still has
    /// to say is read away if it is little.
    async fn send_whole(&mut self, body: Option<&[u8]>) -> After {
        let core = &self.hall.core;
        let drainable = self.upload.is_done()
            || !self.upload.awaits_continue()
                && self.upload.declared_left().is_some_and(|left| left <= core.limits.drain_body_bytes);
        let keep = self.keeps(false) && drainable;
        let outgoing = match body {
            Some(body) if !matches!(self.ex.response.status, 204 | 304) => {
                Outgoing::Length(body.len() as u64)
            }
            _ => Outgoing::Bodyless,
        };
        let mut out = core.buffers.small();
        self.write_head(&mut out, outgoing, keep);
        let body = body.filter(|_| !self.is_bodyless()).unwrap_or_default();
        self.ex.response.body_bytes += body.len() as u64;
        self.head_sent = true;
        let sent = match self.ex.paces.down.clone() {
            Some(pace) if !body.is_empty() => Box::pin(self.send_whole_slowly(out, body, &*pace)).await,
            _ => {
                out.extend_from_slice(body);
                self.send(out, 0).await
            }
        };
        if sent.is_err() {
            return After::Close;
        }
        if !keep {
            return After::Linger;
        }
        if self.upload.is_done() {
            return After::Keep;
        }
        let socket = &mut self.connection.socket;
        let watch = Rc::clone(socket.watch());
        let received = self.ex.request.headers.received();
        let drained = self.upload.discard(&self.hall.core, received, &mut socket.reader, &watch).await;
        if drained { After::Keep } else { After::Close }
    }

    /// Whether the connection may carry another request after this one.
    fn keeps(&self, uploading: bool) -> bool {
        let request = &self.ex.request;
        !uploading
            && self.ex.response.status != 408
            && !self.refused
            && !self.hall.draining.get()
            && self.connection.requests < self.hall.core.limits.keepalive_requests
            && framing::keeps_alive(request.line.version, &request.headers)
    }

    /// Sends a lent buffer to the client and gives it back.
    pub(super) async fn send(&mut self, buffer: Vec<u8>, from: usize) -> Result<(), ()> {
        let (sent, buffer) = self.send_keeping(buffer, from).await;
        self.hall.core.buffers.give_back(buffer);
        sent
    }

    pub(super) async fn send_keeping(&mut self, buffer: Vec<u8>, from: usize) -> (Result<(), ()>, Vec<u8>) {
        let core = &self.hall.core;
        let socket = &mut self.connection.socket;
        self.ex.bytes_out += (buffer.len() - from) as u64;
        socket.watch().arm(&core.wheel, core.limits.write_timeout);
        let (sent, buffer) = socket.writer.send(buffer, from, core.sending()).await;
        (sent.map_err(|_| ()), buffer)
    }
}
