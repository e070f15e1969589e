//! One request to a node over HTTP/2: what comes through the pipe as HTTP/1 goes out as frames, and the answer the other
//! way.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::Response;

use super::node::NodeSession;
use super::patience;
use super::stream::{Broken, OWN_HEADS};
use crate::edge::Hall;
use crate::edge::accept::catch;
use crate::edge::download::Download;
use crate::proto::h1::chunked;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::h1::parse::{self, Parsed};
use crate::proto::h2::message;
use crate::proto::head::{HeaderList, Method, RequestLine};
use crate::runtime::pipe::FarEnd;

/// Counts a stream while it is under way.
struct Under<'a> {
    hall: &'a Hall,
    session: &'a NodeSession,
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.session.streams.set(self.session.streams.get() - 1);
        self.session.idle_since.set(self.hall.core.now());
    }
}

/// Begins to serve the far end of a pipe, in a task of its own.
pub(super) fn begin(hall: &Hall, session: &Rc<NodeSession>, sender: SendRequest<Bytes>, far: FarEnd) {
    let (hall, session) = (hall.itself(), Rc::clone(session));
    session.streams.set(session.streams.get() + 1);
    monoio::spawn(async move {
        let _under = Under { hall: &hall, session: &session };
        let peer = session.node();
        catch(&hall, peer, pin!(serve(&hall, &session, sender, far))).await;
    });
}

async fn serve(hall: &Hall, session: &NodeSession, sender: SendRequest<Bytes>, far: FarEnd) {
    let mut scratch = hall.core.exchange();
    // Whoever is at the other end sees that the pipe ends before an answer does.
    let _ = converse(hall, session, sender, &far, &mut scratch.request.headers).await;
    hall.core.give_back(scratch);
    drop(far);
}

async fn converse(
    hall: &Hall,
    session: &NodeSession,
    sender: SendRequest<Bytes>,
    far: &FarEnd,
    headers: &mut HeaderList,
) -> Result<(), Broken> {
    let line = receive_head(far, headers).await?;
    let framing = framing::of_request(&line, headers).map_err(|_| Broken::Answer)?;
    let request = message::request(&line, headers, session.is_https()).ok_or(Broken::Answer)?;
    let rest = headers.take_received().split_off(line.head.end());
    let ends = matches!(framing, Framing::None | Framing::Length(0));
    let Ok(mut sender) = sender.ready().await else { return refused(session, far) };
    let Ok((answer, stream)) = sender.send_request(request, ends) else { return refused(session, far) };
    // Kept, it would keep the connection open.
    drop(sender);
    let answered = Cell::new(false);
    let begun = hall.core.now();
    let down = pass_down(session, far, answer, line.method, &answered);
    let up = pass_up(hall, far, stream, Download::of(framing), rest, &answered);
    let (mut down, mut up, mut is_up) = (pin!(down), pin!(up), false);
    poll_fn(|cx| {
        if !is_up && let Poll::Ready(passed) = up.as_mut().poll(cx) {
            is_up = true;
            if passed.is_err() {
                // Given up: a node that has said nothing at all meanwhile may be gone, and others had better not wait for it.
                if !answered.get() && session.heard.get() < begun {
                    session.leave();
                } else if !answered.get() {
                    session.give_up();
                }
                return Poll::Ready(passed);
            }
        }
        down.as_mut().poll(cx)
    })
    .await
}

/// The node has not looked at the request, and will not: it may go elsewhere.
fn refused(session: &NodeSession, far: &FarEnd) -> Result<(), Broken> {
    session.leave();
    far.refuse();
    Err(Broken::Answer)
}

async fn receive_head(far: &FarEnd, headers: &mut HeaderList) -> Result<RequestLine, Broken> {
    let mut bytes = far.take().await.ok_or(Broken::Client)?;
    loop {
        match parse::request(&bytes, 0, &OWN_HEADS, headers) {
            Ok(Parsed::Complete(line)) => {
                headers.hold_received(bytes);
                return Ok(line);
            }
            Ok(Parsed::Partial) => {
                headers.clear();
                bytes.extend_from_slice(&far.take().await.ok_or(Broken::Client)?);
            }
            Err(_) => return Err(Broken::Answer),
        }
    }
}

/// Passes the body on as the node takes it. Ends only when whoever asks is gone, or the body is cut short.
async fn pass_up(
    hall: &Hall,
    far: &FarEnd,
    mut stream: SendStream<Bytes>,
    mut body: Download,
    mut bytes: Vec<u8>,
    answered: &Cell<bool>,
) -> Result<(), Broken> {
    let mut is_done = matches!(body, Download::Nothing);
    while !is_done {
        let piece = body.take(&mut bytes).map_err(|_| Broken::Client)?;
        is_done = piece.done;
        let data = message::piece(bytes, 0, piece.data);
        let trailers = match &body {
            Download::Chunked(decoder) if is_done => message::trailers(decoder.trailer_fields()),
            _ => http::HeaderMap::new(),
        };
        let ends = is_done && trailers.is_empty();
        if !data.is_empty() || ends {
            match send(hall, &mut stream, data, ends).await {
                Ok(()) => {}
                // A node may answer without hearing all of it.
                Err(_) => break,
            }
        }
        if !trailers.is_empty() {
            let _ = stream.send_trailers(trailers);
        }
        if is_done {
            break;
        }
        match far.take().await {
            Some(more) => bytes = more,
            None => {
                stream.send_reset(Reason::CANCEL);
                return Err(Broken::Client);
            }
        }
    }
    // From here on, all that is to be heard is that nobody waits for the answer any more.
    while far.take().await.is_some() {}
    if !answered.get() {
        stream.send_reset(Reason::CANCEL);
    }
    Err(Broken::Client)
}

/// Passes the answer on.
async fn pass_down(
    session: &NodeSession,
    far: &FarEnd,
    mut answer: ResponseFuture,
    method: Method,
    answered: &Cell<bool>,
) -> Result<(), Broken> {
    let mut head = Vec::new();
    let response = loop {
        match next_head(&mut answer).await {
            Ok(Head::Interim(interim)) => {
                head.clear();
                let (parts, ()) = interim.into_parts();
                message::write_response(&mut head, &parts, true, true).map_err(|_| Broken::Answer)?;
                far.send(&head).await.map_err(|_| Broken::Client)?;
            }
            Ok(Head::Final(response)) => break response,
            Err(error) if is_refusal(&error) => return refused(session, far),
            Err(error) => {
                // What is broken is the connection, not the stream: another try is not to meet it again.
                if error.is_io() || error.is_go_away() {
                    session.leave();
                }
                return Err(Broken::Answer);
            }
        }
    };
    let (parts, mut body) = response.into_parts();
    head.clear();
    let is_head = method == Method::Head;
    let framing = message::write_response(&mut head, &parts, body.is_end_stream(), is_head)
        .map_err(|_| Broken::Answer)?;
    let mut sent = far.send(&head).await;
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| Broken::Answer)?;
        if framing == Framing::Chunked && !data.is_empty() {
            head.clear();
            chunked::write_size(&mut head, data.len());
            head.extend_from_slice(&data);
            head.extend_from_slice(b"\r\n");
            sent = far.send(&head).await;
        } else if framing != Framing::None {
            sent = far.send(&data).await;
        }
        if sent.is_err() {
            return Err(Broken::Client);
        }
        // Only of a stream that has ended, where it does not matter.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(|_| Broken::Answer)?;
    if framing == Framing::Chunked {
        head.clear();
        head.extend_from_slice(b"0\r\n");
        message::write_trailers(&mut head, &trailers.unwrap_or_default());
        let _ = far.send(&head).await;
    }
    answered.set(true);
    // Whoever asked takes what is in the pipe, and closes it.
    far.finish();
    Ok(())
}

enum Head {
    Interim(Response<()>),
    Final(Response<RecvStream>),
}

async fn next_head(answer: &mut ResponseFuture) -> Result<Head, h2::Error> {
    poll_fn(|cx| {
        if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
            return Poll::Ready(interim.map(Head::Interim));
        }
        std::pin::Pin::new(&mut *answer).poll(cx).map_ok(Head::Final)
    })
    .await
}

/// Whether the node says that it has not looked at the request (RFC 9113 8.7).
fn is_refusal(error: &h2::Error) -> bool {
    let is_going = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    is_going || error.reason() == Some(Reason::REFUSED_STREAM)
}

/// Sends as the node's window allows. Nothing but the end may be sent of nothing.
async fn send(
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
