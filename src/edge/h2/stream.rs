//! One stream of HTTP/2, served as a connection of HTTP/1: its request goes in at the far end as a head with a body in
//! chunks or of a length, and what comes out as an answer goes to the client as frames.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};

use super::{Session, patience};
use crate::edge::Hall;
use crate::edge::accept::catch;
use crate::edge::download::Download;
use crate::edge::h1::Connection;
use crate::edge::relay::join;
use crate::edge::stage::Stages;
use crate::exchange::Client;
use crate::proto::h1::chunked;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::h1::parse::{self, HEADERS_HARD_MAX, HeadLimits, Parsed, Underscores};
use crate::proto::h2::message::{self, Told};
use crate::proto::head::{HeaderList, Method, StatusLine};
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
            self.session.watch.set_resting(true);
        }
    }
}

/// Begins to serve a stream, in a task of its own.
pub(super) fn begin(
    hall: &Rc<Hall>,
    session: &Rc<Session>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    // Counted now, not when its task has its turn: many may begin in one.
    let under = Under::way(Rc::clone(hall), Rc::clone(session));
    let before = session.begun.replace(session.begun.get() + 1);
    hall.core.stats.http2_streams.add(1);
    monoio::spawn(async move {
        let (hall, session) = (&under.hall, &under.session);
        catch(hall, session.client.peer, pin!(serve(hall, session, before, request, respond))).await;
    });
}

/// Serves a stream to its end.
async fn serve(
    hall: &Rc<Hall>,
    session: &Session,
    before: u32,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let core = &hall.core;
    let (parts, body) = request.into_parts();
    let mut head = core.buffers.small();
    let nonce = || core.dice(crate::base::rng::Rng::bytes16);
    let Ok(told) = message::write_request(&mut head, &parts, body.is_end_stream(), nonce) else {
        core.buffers.give_back(head);
        core.stats.http2_errors.add(1);
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    };
    let method = if told.websocket { Method::Get } else { method_of(&parts.method) };
    let (socket, far) = Socket::piped(&core.wheel);
    let inner = inner(session.client, session, before, socket);
    let serving = async {
        // What was served ends the pipe.
        drop(Stages::serve(hall, Box::new(inner)).await);
    };
    let telling = async {
        let mut body = body;
        add_first(&mut head, &mut body, told);
        let sent = far.send(&head).await;
        core.buffers.give_back(head);
        if sent.is_ok() {
            converse(hall, &far, body, &mut respond, told, method).await;
        }
        drop(far);
    };
    join(serving, telling).await;
}

/// Adds to a head what has come of its body by now, if that is little: then it can be sent on in one go, and again.
fn add_first(out: &mut Vec<u8>, body: &mut RecvStream, told: Told) {
    if told.websocket || body.is_end_stream() {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    while out.len() <= FIRST_BYTES_MAX
        && let Poll::Ready(Some(Ok(data))) = body.poll_data(&mut cx)
    {
        frame(out, &data, told);
        // Only of a stream that has ended, where it does not matter.
        let _ = body.flow_control().release_capacity(data.len());
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
        ..Connection::over(socket)
    }
}

fn method_of(method: &http::Method) -> Method {
    Method::of(method.as_str().as_bytes()).unwrap_or_default()
}

/// Both directions at once, until the answer is through or cannot be.
async fn converse(
    hall: &Hall,
    far: &FarEnd,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    told: Told,
    method: Method,
) {
    let (mut up, mut down) =
        (pin!(pass_up(far, body, told)), pin!(pass_down(hall, far, respond, told, method)));
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
async fn pass_up(far: &FarEnd, mut body: RecvStream, told: Told) -> Result<(), Broken> {
    let mut chunk = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| Broken::Client)?;
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
        // Only of a stream that has ended, where it does not matter.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(|_| Broken::Client)?;
    if told.websocket {
        far.finish();
    } else if told.framing == Framing::Chunked {
        chunk.clear();
        chunk.extend_from_slice(b"0\r\n");
        match trailers {
            Some(trailers) => message::write_trailers(&mut chunk, &trailers),
            None => chunk.extend_from_slice(b"\r\n"),
        }
        let _ = far.send(&chunk).await;
    }
    Ok(())
}

/// Passes the answer on. One that is cut short ends with a reset, so that nobody takes it for whole.
async fn pass_down(hall: &Hall, far: &FarEnd, respond: &mut SendResponse<Bytes>, told: Told, method: Method) {
    let mut scratch = hall.core.exchange();
    let answered = answer(hall, far, respond, told, method, &mut scratch.response.headers).await;
    hall.core.give_back(scratch);
    match answered {
        Ok(()) | Err(Broken::Client) => {}
        Err(Broken::Answer) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

async fn answer(
    hall: &Hall,
    far: &FarEnd,
    respond: &mut SendResponse<Bytes>,
    told: Told,
    method: Method,
    headers: &mut HeaderList,
) -> Result<(), Broken> {
    let (status, framing) = receive_head(far, respond, told, method, headers).await?;
    let body_at = status.head.end();
    let is_tunnel = told.websocket && status.status == 101;
    let download = match framing {
        _ if is_tunnel => Download::UntilClose,
        // Nobody here could tell a whole one from one that was cut short.
        Framing::UntilClose => return Err(Broken::Answer),
        framing => Download::of(framing),
    };
    let ends = matches!(download, Download::Nothing);
    let response = message::response(status.status, headers, told.websocket);
    let bytes = headers.take_received();
    let mut stream = respond.send_response(response, ends).map_err(|_| Broken::Client)?;
    if ends {
        return Ok(());
    }
    let passed = pass_body(hall, far, &mut stream, download, bytes, body_at).await;
    if matches!(passed, Err(Broken::Answer)) {
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    passed
}

/// Waits for the final head; tells the client of those before it.
async fn receive_head(
    far: &FarEnd,
    respond: &mut SendResponse<Bytes>,
    told: Told,
    method: Method,
    headers: &mut HeaderList,
) -> Result<(StatusLine, Framing), Broken> {
    let mut bytes = take(far, respond).await?.ok_or(Broken::Answer)?;
    let mut start = 0;
    loop {
        match parse::response(&bytes, start, &OWN_HEADS, headers) {
            Ok(Parsed::Complete(line)) if matches!(line.status, 100..=199) && line.status != 101 => {
                headers.hold_received(bytes);
                let interim: Response<()> = message::response(line.status, headers, false);
                // A client that left is noticed by what follows.
                let _ = respond.send_informational(interim);
                bytes = headers.take_received();
                headers.clear();
                start = line.head.end();
            }
            Ok(Parsed::Complete(line)) => {
                headers.hold_received(bytes);
                let framing = framing::of_response(method, &line, headers).map_err(|_| Broken::Answer)?;
                return if line.status == 101 && !told.websocket {
                    Err(Broken::Answer)
                } else {
                    Ok((line, framing))
                };
            }
            Ok(Parsed::Partial) => {
                headers.clear();
                let more = take(far, respond).await?.ok_or(Broken::Answer)?;
                bytes.extend_from_slice(&more);
            }
            Err(_) => return Err(Broken::Answer),
        }
    }
}

/// What comes out of the pipe, unless the client gives the stream up before.
async fn take(far: &FarEnd, respond: &mut SendResponse<Bytes>) -> Result<Option<Vec<u8>>, Broken> {
    poll_fn(|cx| {
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Broken::Client));
        }
        far.poll_take(cx).map(Ok)
    })
    .await
}

/// Passes the body on, from `start` in what was received with the head.
async fn pass_body(
    hall: &Hall,
    far: &FarEnd,
    stream: &mut SendStream<Bytes>,
    mut download: Download,
    mut bytes: Vec<u8>,
    mut start: usize,
) -> Result<(), Broken> {
    let is_tunnel = matches!(download, Download::UntilClose);
    loop {
        let piece = download.take(&mut bytes[start..]).map_err(|_| Broken::Answer)?;
        let data = message::piece(bytes, start, piece.data);
        if piece.done {
            return finish(hall, stream, &download, data).await;
        }
        send(hall, stream, data, false).await?;
        let next = poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Broken::Client));
            }
            far.poll_take(cx).map(Ok)
        });
        match next.await? {
            Some(more) => (bytes, start) = (more, 0),
            None if is_tunnel => return send(hall, stream, Bytes::new(), true).await,
            None => return Err(Broken::Answer),
        }
    }
}

/// Sends the last piece, and trailers if there are some.
async fn finish(
    hall: &Hall,
    stream: &mut SendStream<Bytes>,
    download: &Download,
    data: Bytes,
) -> Result<(), Broken> {
    let trailers = match download {
        Download::Chunked(decoder) => message::trailers(decoder.trailer_fields()),
        _ => http::HeaderMap::new(),
    };
    if trailers.is_empty() {
        return send(hall, stream, data, true).await;
    }
    send(hall, stream, data, false).await?;
    stream.send_trailers(trailers).map_err(|_| Broken::Client)
}

/// Sends as the client's window allows. Nothing but the end may be sent of nothing.
pub(super) async fn send(
    hall: &Hall,
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
) -> Result<(), Broken> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => {
                let waiting = poll_fn(|cx| stream.poll_capacity(cx));
                match monoio::time::timeout(patience(hall), waiting).await {
                    Ok(Some(Ok(room))) => room,
                    Ok(_) => return Err(Broken::Client),
                    Err(_) => {
                        stream.send_reset(Reason::CANCEL);
                        return Err(Broken::Client);
                    }
                }
            }
            room => room,
        };
        let piece = data.split_to(room.min(data.len()));
        let ends = last && data.is_empty();
        stream.send_data(piece, ends).map_err(|_| Broken::Client)?;
        if ends {
            return Ok(());
        }
    }
    if last { stream.send_data(Bytes::new(), true).map_err(|_| Broken::Client) } else { Ok(()) }
}
