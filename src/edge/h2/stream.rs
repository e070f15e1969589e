//! One stream of HTTP/2, served as a connection of HTTP/1: its request goes in at the far end as a head with a body in
//! chunks or of a length, and what comes out as an answer goes to the client as frames.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Session, patience};
use crate::edge::Hall;
use crate::edge::accept::catch;
use crate::edge::download::Download;
use crate::edge::h1::{Connection, Next};
use crate::edge::relay::join;
use crate::edge::stage::Stages;
use crate::edge::tunnel;
use crate::exchange::Client;
use crate::proto::h1::chunked;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::h1::parse::{self, HEADERS_HARD_MAX, HeadLimits, Parsed, Underscores};
use crate::proto::h2::answer;
use crate::proto::h2::code::Code;
use crate::proto::h2::conversation::{Begun, Conversation, Fields, Gone};
use crate::proto::h2::request::Told;
use crate::proto::head::{HeaderList, StatusLine};
use crate::runtime::pipe::FarEnd;
use crate::runtime::socket::Socket;

/// Of heads that were written here. Larger than any that is taken from elsewhere.
pub(super) const OWN_HEADS: HeadLimits = HeadLimits {
    head_bytes_max: 256 * 1024,
    line_bytes_max: 64 * 1024,
    headers_max: HEADERS_HARD_MAX,
    underscores: Underscores::Keep,
};

/// Bytes of a head and of a body that has come with it, beyond which no more is waited for: what one frame has.
const FIRST_BYTES_MAX: usize = 16 * 1024;

/// Bytes of answers that may wait in all streams of a connection, but for the least that each may have.
const WAITING_BYTES_MAX: usize = 128 * 1024;
const APPETITE_BYTES_MIN: usize = 2 * 1024;

/// Why a stream ends before its answer does.
pub(super) enum Broken {
    /// The client gave it up, or is gone.
    Client,
    /// The answer was cut short, or is none.
    Answer,
}

/// Counts a stream while it is under way.
struct Under {
    hall: Rc<Hall>,
    session: Rc<Session>,
}

impl Under {
    fn way(hall: Rc<Hall>, session: Rc<Session>) -> Self {
        hall.core.stats.http2_streams_active.add(1);
        session.streams.set(session.streams.get() + 1);
        session.watch.set_resting(false);
        Self { hall, session }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.hall.core.stats.http2_streams_active.sub(1);
        let left = self.session.streams.get() - 1;
        self.session.streams.set(left);
        if left == 0 {
            self.session.idle_since.set(self.hall.core.now());
            self.session.watch.set_resting(self.session.is_at_rest());
        }
    }
}

/// A client's stream, as whoever serves it sees it. Dropping it ends it.
struct Stream {
    session: Rc<Session>,
    key: usize,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(|conversation, key| conversation.forget(key));
    }
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Client
    }
}

impl Stream {
    fn with<R>(&self, act: impl FnOnce(&mut Conversation, usize) -> R) -> R {
        act(&mut self.session.conversation.borrow_mut(), self.key)
    }

    /// Waits for something of the body; false is its end.
    async fn body(&self, into: &mut Vec<u8>) -> Result<bool, Broken> {
        Ok(poll_fn(|cx| self.with(|conversation, key| conversation.poll_body(key, cx, into))).await?)
    }

    fn tell(&self, ends: bool, say: impl FnOnce(&mut Fields<'_>)) -> Result<(), Broken> {
        Ok(self.with(|conversation, key| conversation.tell(key, ends, say))?)
    }

    /// What comes out of the pipe, unless the client gives the stream up before.
    async fn take(&self, far: &FarEnd) -> Result<Option<Vec<u8>>, Broken> {
        poll_fn(|cx| {
            if self.with(|conversation, key| conversation.poll_gone(key, cx)).is_ready() {
                return Poll::Ready(Err(Broken::Client));
            }
            far.poll_take(cx).map(Ok)
        })
        .await
    }

    /// Waits for something to come out of the pipe, then until it may be sent: till then it waits where it is.
    async fn next(&self, hall: &Hall, far: &FarEnd) -> Result<Option<Vec<u8>>, Broken> {
        far.set_appetite(self.appetite());
        poll_fn(|cx| {
            if self.with(|conversation, key| conversation.poll_gone(key, cx)).is_ready() {
                return Poll::Ready(Err(Broken::Client));
            }
            far.poll_ready(cx).map(Ok)
        })
        .await?;
        self.room(hall).await?;
        self.take(far).await
    }

    /// How much of an answer is to be fetched from its node: no more than the client would take, and of what all streams of a
    /// connection may have waiting no more than their share. A little in any case, to know whether there is more.
    fn appetite(&self) -> usize {
        let share = WAITING_BYTES_MAX / self.session.streams.get().max(1) as usize;
        self.with(|conversation, key| conversation.window_of(key)).min(share).max(APPETITE_BYTES_MIN)
    }

    /// Waits for room for a head.
    async fn space(&self, hall: &Hall) -> Result<(), Broken> {
        let space = poll_fn(|cx| self.with(|conversation, key| conversation.poll_space(key, cx)));
        self.within(hall, space).await
    }

    /// Waits until something may be sent.
    async fn room(&self, hall: &Hall) -> Result<usize, Broken> {
        let mut room = poll_fn(|cx| self.with(|conversation, key| conversation.poll_room(key, cx)));
        // Mostly there is some.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(room) = pin!(&mut room).poll(&mut cx) {
            return Ok(room?);
        }
        self.within(hall, room).await
    }

    /// Gives the stream up if the client lets it wait for too long.
    async fn within<T>(&self, hall: &Hall, wait: impl Future<Output = Result<T, Gone>>) -> Result<T, Broken> {
        match monoio::time::timeout(patience(hall), wait).await {
            Ok(waited) => Ok(waited?),
            Err(_) => {
                self.with(|conversation, key| conversation.reset(key, Code::Cancel));
                Err(Broken::Client)
            }
        }
    }

    /// Sends a piece of the body as the client's window allows. Nothing but the end may be sent of nothing.
    async fn send(&self, hall: &Hall, mut data: &[u8], last: bool) -> Result<(), Broken> {
        while !data.is_empty() {
            let room = self.room(hall).await?;
            let (piece, rest) = data.split_at(room.min(data.len()));
            data = rest;
            let ends = last && data.is_empty();
            self.with(|conversation, key| conversation.send(key, piece, ends))?;
            if ends {
                return Ok(());
            }
        }
        if last { Ok(self.with(|conversation, key| conversation.send(key, &[], true))?) } else { Ok(()) }
    }
}

/// Begins to serve a stream, in a task of its own.
pub(super) fn begin(hall: &Rc<Hall>, session: &Rc<Session>, begun: Begun) {
    // Counted now, not when its task has its turn: many may begin in one.
    let under = Under::way(Rc::clone(hall), Rc::clone(session));
    let before = session.begun.replace(session.begun.get() + 1);
    hall.core.stats.http2_streams.add(1);
    monoio::spawn(async move {
        let (hall, session) = (&under.hall, &under.session);
        catch(hall, session.client.peer, pin!(serve(hall, session, before, begun))).await;
    });
}

/// Serves a stream to its end.
async fn serve(hall: &Rc<Hall>, session: &Rc<Session>, before: u32, begun: Begun) {
    let Begun { key, mut head, told, ends } = begun;
    let stream = Stream { session: Rc::clone(session), key };
    let (socket, far) = Socket::piped(&hall.core.wheel);
    far.set_appetite(stream.appetite());
    let inner = inner(session.client, session, before, socket);
    let serving = pin!(async {
        // What was served ends the pipe.
        let (mut inner, next) = Stages::serve(hall, Box::new(inner)).await;
        session.counted_at.set(inner.counted_at);
        if let Next::Tunnel(tunnel) = next {
            Box::pin(tunnel::run(hall, &mut inner, tunnel)).await;
        }
    });
    let telling = pin!(async {
        if !ends {
            add_first(&mut head, &stream, told);
        }
        let sent = far.send(&head).await;
        drop(head);
        if sent.is_ok() {
            converse(hall, &far, &stream, told).await;
        } else {
            // Who serves it has answered, and wanted no more of it.
            pass_down(hall, &far, &stream, told).await;
        }
        drop(stream);
        drop(far);
    });
    join(serving, telling).await;
}

/// Adds to a head what has come of its body by now, if that is little: then it can be sent on in one go, and again.
fn add_first(out: &mut Vec<u8>, stream: &Stream, told: Told) {
    if told.websocket || out.len() > FIRST_BYTES_MAX {
        return;
    }
    let mut data = Vec::new();
    let cx = Context::from_waker(Waker::noop());
    if let Poll::Ready(Ok(true)) =
        stream.with(|conversation, key| conversation.poll_body(key, &cx, &mut data))
    {
        frame(out, &data, told);
        stream.with(|conversation, key| conversation.release(key, data.len()));
    }
}

/// Appends a piece of a body as the head has told.
fn frame(out: &mut Vec<u8>, data: &[u8], told: Told) {
    if told.framing != Framing::Chunked {
        out.extend_from_slice(data);
    } else if !data.is_empty() {
        chunked::write_size(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

fn inner(client: Client, session: &Session, before: u32, socket: Socket) -> Connection {
    Connection {
        client,
        requests: before,
        security: session.security.clone(),
        is_stream: true,
        counted_at: session.counted_at.get(),
        ..Connection::over(socket)
    }
}

/// Both directions at once, until the answer is through or cannot be.
async fn converse(hall: &Hall, far: &FarEnd, stream: &Stream, told: Told) {
    let (mut up, mut down) = (pin!(pass_up(far, stream, told)), pin!(pass_down(hall, far, stream, told)));
    let mut is_up = false;
    poll_fn(|cx| {
        if !is_up && let Poll::Ready(passed) = up.as_mut().poll(cx) {
            is_up = true;
            if passed.is_err() {
                // Given up by the client; it hears no more of it.
                return Poll::Ready(());
            }
        }
        down.as_mut().poll(cx)
    })
    .await;
}

/// Passes the body on, with back-pressure: the client may send more once what it sent was taken.
async fn pass_up(far: &FarEnd, stream: &Stream, told: Told) -> Result<(), Broken> {
    let (mut data, mut chunk) = (Vec::new(), Vec::new());
    while stream.body(&mut data).await? {
        chunk.clear();
        let piece = match told.framing {
            Framing::Chunked => {
                frame(&mut chunk, &data, told);
                &chunk[..]
            }
            _ => &data[..],
        };
        // Who serves it takes no more of it: the answer says why.
        if far.send(piece).await.is_err() {
            return Ok(());
        }
        stream.with(|conversation, key| conversation.release(key, data.len()));
        data.clear();
    }
    if told.websocket {
        far.finish();
    } else if told.framing == Framing::Chunked {
        chunk.clear();
        chunk.extend_from_slice(b"0\r\n");
        chunk.extend_from_slice(&stream.with(Conversation::trailers_of).unwrap_or_default());
        chunk.extend_from_slice(b"\r\n");
        let _ = far.send(&chunk).await;
    }
    Ok(())
}

/// Passes the answer on. One that is cut short ends with a reset, so that nobody takes it for whole.
async fn pass_down(hall: &Hall, far: &FarEnd, stream: &Stream, told: Told) {
    // What its head takes is not held until the end of its body.
    let mut scratch = hall.core.exchange();
    let begun = begin_answer(hall, far, stream, told, &mut scratch.response.headers).await;
    hall.core.give_back(scratch);
    let answered = match begun {
        Ok(None) => Ok(()),
        Ok(Some(body)) => pass_body(hall, far, stream, body).await,
        Err(broken) => Err(broken),
    };
    if matches!(answered, Err(Broken::Answer)) {
        stream.with(|conversation, key| conversation.reset(key, Code::Internal));
    }
}

/// A body whose head was told: its form, and what of it came with the head, from some index on.
type Body = (Download, Vec<u8>, usize);

/// Passes the head of the answer on. `None`: that is all of it.
async fn begin_answer(
    hall: &Hall,
    far: &FarEnd,
    stream: &Stream,
    told: Told,
    headers: &mut HeaderList,
) -> Result<Option<Body>, Broken> {
    let (status, framing) = receive_head(far, stream, told, headers).await?;
    let body_at = status.head.end();
    let is_tunnel = told.websocket && status.status == 101;
    let download = match framing {
        _ if is_tunnel => Download::UntilClose,
        // Nobody here could tell a whole one from one that was cut short.
        Framing::UntilClose => return Err(Broken::Answer),
        framing => Download::of(framing),
    };
    let ends = matches!(download, Download::Nothing);
    stream.space(hall).await?;
    stream.tell(ends, |fields| answer::head(fields, status.status, headers, told.websocket))?;
    let bytes = headers.take_received();
    Ok((!ends).then_some((download, bytes, body_at)))
}

/// Waits for the final head; tells the client of those before it.
async fn receive_head(
    far: &FarEnd,
    stream: &Stream,
    told: Told,
    headers: &mut HeaderList,
) -> Result<(StatusLine, Framing), Broken> {
    let mut bytes = stream.take(far).await?.ok_or(Broken::Answer)?;
    let mut start = 0;
    loop {
        match parse::response(&bytes, start, &OWN_HEADS, headers) {
            Ok(Parsed::Complete(line)) if matches!(line.status, 100..=199) && line.status != 101 => {
                headers.hold_received(bytes);
                stream.tell(false, |fields| answer::head(fields, line.status, headers, false))?;
                bytes = headers.take_received();
                headers.clear();
                start = line.head.end();
            }
            Ok(Parsed::Complete(line)) => {
                headers.hold_received(bytes);
                let framing =
                    framing::of_response(told.method, &line, headers).map_err(|_| Broken::Answer)?;
                return if line.status == 101 && !told.websocket {
                    Err(Broken::Answer)
                } else {
                    Ok((line, framing))
                };
            }
            Ok(Parsed::Partial) => {
                headers.clear();
                let more = stream.take(far).await?.ok_or(Broken::Answer)?;
                bytes.extend_from_slice(&more);
            }
            Err(_) => return Err(Broken::Answer),
        }
    }
}

/// Passes the body on.
async fn pass_body(
    hall: &Hall,
    far: &FarEnd,
    stream: &Stream,
    (mut download, mut bytes, mut start): Body,
) -> Result<(), Broken> {
    let is_tunnel = matches!(download, Download::UntilClose);
    loop {
        let piece = download.take(&mut bytes[start..]).map_err(|_| Broken::Answer)?;
        let data = &bytes[start..start + piece.data];
        if piece.done {
            return finish(hall, stream, &download, data).await;
        }
        stream.send(hall, data, false).await?;
        drop(std::mem::take(&mut bytes));
        match stream.next(hall, far).await? {
            Some(more) => (bytes, start) = (more, 0),
            None if is_tunnel => return stream.send(hall, &[], true).await,
            None => return Err(Broken::Answer),
        }
    }
}

/// Sends the last piece, and what is behind it.
async fn finish(hall: &Hall, stream: &Stream, download: &Download, data: &[u8]) -> Result<(), Broken> {
    let Download::Chunked(decoder) = download else { return stream.send(hall, data, true).await };
    if decoder.trailer_fields().next().is_none() {
        return stream.send(hall, data, true).await;
    }
    stream.send(hall, data, false).await?;
    stream.tell(true, |fields| answer::trailers(fields, decoder.trailer_fields()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future of a stream, beside that of who serves it. Not a budget, a guard against doubling.
    const STREAM_BYTES_MAX: usize = 3 * 1024;

    #[test]
    fn the_future_of_a_stream_is_bounded() {
        fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let stream = size::<&'static Rc<Hall>, &'static Rc<Session>, u32, Begun, _>(serve);
        println!("stream: {stream} bytes");
        assert!(stream <= STREAM_BYTES_MAX, "{stream}");
    }
}
