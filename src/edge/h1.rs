//! An HTTP/1 connection: one request after the other, and rest in between.
//!
//! A connection at *rest* waits for readability and holds nothing but its socket. When bytes come, it is served
//! on a stage (`stage.rs`) with a buffer and an exchange lent from the core's stocks. Between requests that follow
//! each other closely it *stays*: on its stage, with a buffer that the kernel may fill. Soon, or at once where many
//! stay already, it gives all of it back and rests.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::Hall;
use super::admit::{self, Refusal};
use super::greet::{self, Follows, Greeted};
use super::h2;
use super::pipeline::{After, Run};
use super::respond;
use super::stage::Stages;
use super::tunnel::{self, Tunnel};
use super::upload::Upload;
use super::vouch;
use crate::base::prefetch::Whereabouts;
use crate::exchange::{Client, Exchange, Security};
use crate::link::handover::Spoken;
use crate::proto::h1::HeadFault;
use crate::proto::h1::parse::{self, Parsed, find_head_end};
use crate::proto::h2::is_preface;
use crate::runtime::socket::{Socket, Waited};

/// How long a connection stays for its next request before it rests.
const STAY: Duration = Duration::from_secs(1);
/// Connections of a core that may stay at a time. Worst case 5 MiB a core, for [`STAY`].
const STAYING_MAX: u32 = 256;

/// A client's connection.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) client: Client,
    /// Requests so far.
    pub(super) requests: u32,
    /// The account that a limit of the last one was counted in: the next is likely counted there as well.
    pub(super) counted_at: Whereabouts,
    /// What is to come before the first request.
    pub(super) awaits: Spoken,
    /// Both sides have agreed on HTTP/2.
    pub(super) is_http2: bool,
    /// It is a stream of HTTP/2, which carries one request.
    pub(super) is_stream: bool,
    pub(super) security: Option<Rc<Security>>,
}

/// What comes after a spell of activity.
pub(super) enum Next {
    /// The client has been silent for so long.
    Rest(Duration),
    /// The client speaks HTTP/2, and has said so much.
    Http2(Vec<u8>),
    /// Its last request has become a tunnel.
    Tunnel(Box<Tunnel>),
    Close,
}

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn new(socket: Socket, peer: SocketAddr, local: SocketAddr) -> Self {
        let client =
            Client { ip: peer.ip().to_canonical(), port: peer.port(), peer, local, ..Client::unknown() };
        Self { client, ..Self::over(socket) }
    }

    /// A connection of which nothing is known.
    pub(super) fn over(socket: Socket) -> Self {
        Self {
            socket,
            client: Client::unknown(),
            requests: 0,
            counted_at: Whereabouts::default(),
            awaits: Spoken::default(),
            is_http2: false,
            is_stream: false,
            security: None,
        }
    }
}

/// Serves a connection to its end.
// Not an `async fn`, and no part of the rest in a function of its own: what is held here is held by every connection
// for as long as it rests, arguments twice.
#[allow(clippy::manual_async_fn)]
pub(super) fn serve(hall: &Rc<Hall>, mut connection: Box<Connection>) -> impl Future<Output = ()> {
    async move {
        begin_rest(hall, &connection, Duration::ZERO);
        loop {
            let readable = connection.socket.readable().await;
            if !end_rest(hall, &connection) || readable.is_err() {
                return;
            }
            let (back, next) = Stages::serve(hall, connection).await;
            connection = back;
            match next {
                Next::Rest(silent) => begin_rest(hall, &connection, silent),
                next => return go_on(hall, &mut connection, next).await,
            }
        }
    }
}

/// What a connection does that serves no more requests of HTTP/1. As large as it takes, each.
fn go_on<'a>(
    hall: &'a Rc<Hall>,
    connection: &'a mut Connection,
    next: Next,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    match next {
        Next::Http2(received) => Box::pin(h2::serve(hall, connection, received)),
        Next::Tunnel(tunnel) => Box::pin(tunnel::run(hall, connection, tunnel)),
        Next::Rest(_) | Next::Close => Box::pin(ready(())),
    }
}

/// From here on a connection waits for its next request while holding nothing but the socket; the client has been
/// silent for `silent`.
fn begin_rest(hall: &Hall, connection: &Connection, silent: Duration) {
    let core = &hall.core;
    let watch = connection.socket.watch();
    // A client that has not said a word yet gets no more time than for its first head.
    let patience =
        if connection.requests == 0 { core.limits.head_timeout } else { core.limits.keepalive_timeout };
    watch.forget_canceller();
    watch.arm(&core.wheel, patience.saturating_sub(silent));
    watch.set_resting(true);
    core.stats.connections_idle.add(1);
}

/// Whether the wait was ended by the client, not by the clock.
fn end_rest(hall: &Hall, connection: &Connection) -> bool {
    let watch = connection.socket.watch();
    hall.core.stats.connections_idle.sub(1);
    watch.set_resting(false);
    !watch.fired()
}

/// Serves the requests that are at hand, one after the other.
pub(super) async fn attend(hall: &Hall, connection: &mut Connection) -> Next {
    let core = &hall.core;
    let mut at_hand = None;
    if connection.awaits != Spoken::default() {
        match begin(hall, connection).await {
            Begun::Ready(received) if connection.is_http2 => {
                return Next::Http2(received.unwrap_or_default());
            }
            Begun::Ready(received) => at_hand = received.map(|received| (received, 0)),
            Begun::Not(next) => return next,
        }
    }
    loop {
        let (buffer, start) = at_hand.take().unwrap_or_else(|| (core.buffers.small(), 0));
        let mut ex = core.exchange();
        // It comes while the head does.
        connection.counted_at.foresee();
        let (head, buffer) = receive_head(hall, connection, &mut ex, buffer, start).await;
        let upload = match head {
            Head::Ready => {
                ex.request.headers.hold_received(buffer);
                connection.requests += 1;
                Upload::default()
            }
            Head::Gone => {
                core.buffers.give_back(buffer);
                core.give_back(ex);
                return Next::Close;
            }
            Head::Refused(_) if speaks_http2(hall, connection, &buffer) => {
                core.give_back(ex);
                return Next::Http2(buffer);
            }
            Head::Refused(refusal) => {
                ex.request.headers.clear();
                ex.request.headers.hold_received(buffer);
                refuse(hall, connection, ex, refusal).await;
                return Next::Close;
            }
        };
        core.stats.requests.add(1);
        core.stats.requests_active.add(1);
        let (after, beyond) = match serve_one(hall, connection, ex, upload).await {
            Served::Answered(after, beyond) => (after, beyond),
            Served::Joined(tunnel) => return Next::Tunnel(tunnel),
        };
        core.stats.requests_active.sub(1);
        match after {
            _ if connection.is_stream => return Next::Close,
            After::Keep if beyond.is_some() => at_hand = beyond,
            After::Keep => match stay(hall, connection).await {
                Stay::Received(buffer) => at_hand = Some((buffer, 0)),
                Stay::Silent(since) => return Next::Rest(since),
                Stay::Gone => return Next::Close,
            },
            After::Close | After::Tunnel => return Next::Close,
            After::Linger => {
                linger(hall, connection).await;
                return Next::Close;
            }
        }
    }
}

/// Whether what is no request of HTTP/1 is how a client begins that knows HTTP/2 is spoken here (RFC 9113 3.3).
fn speaks_http2(hall: &Hall, connection: &Connection, received: &[u8]) -> bool {
    let is_first = connection.requests == 0 && !connection.is_stream && !connection.socket.is_secure();
    is_first && hall.core.limits.http2.is_some() && is_preface(received)
}

/// What comes before the first request.
enum Begun {
    /// It came, and maybe the first bytes of a request with it.
    Ready(Option<Vec<u8>>),
    Not(Next),
}

/// Hears whose connection it is from a load balancer, and agrees with the client on TLS, as far as either is spoken here.
async fn begin(hall: &Hall, connection: &mut Connection) -> Begun {
    let core = &hall.core;
    let spoken = std::mem::take(&mut connection.awaits);
    let mut received = None;
    if spoken.is_proxied {
        match vouch::hear(hall, connection, spoken.is_tls).await {
            Some(heard) => received = (!heard.behind.is_empty()).then_some(heard.behind),
            None => return Begun::Not(Next::Close),
        }
    }
    if spoken.is_tls {
        match greet::greet(hall, connection, received.take().unwrap_or_default(), Follows::Requests).await {
            Greeted::Agreed if connection.is_http2 || connection.socket.holds_bytes() => {
                return Begun::Ready(None);
            }
            Greeted::Agreed => {}
            Greeted::InClear(received) => {
                let mut ex = core.exchange();
                ex.request.headers.hold_received(received);
                refuse(hall, connection, ex, Refusal::PLAIN_HTTP).await;
                return Begun::Not(Next::Close);
            }
            Greeted::Gone => return Begun::Not(Next::Close),
        }
    }
    if received.is_some() { Begun::Ready(received) } else { Begun::Not(Next::Rest(Duration::ZERO)) }
}

/// What staying for another request came to.
enum Stay {
    /// Its first bytes.
    Received(Vec<u8>),
    /// Nothing came for so long.
    Silent(Duration),
    Gone,
}

/// Waits a moment for the next request with a buffer in the kernel's hands, which then needs to be asked once only.
async fn stay(hall: &Hall, connection: &mut Connection) -> Stay {
    let core = &hall.core;
    let staying = &hall.staying;
    let is_here = connection.socket.holds_bytes();
    if !is_here && (staying.get() >= STAYING_MAX || core.limits.keepalive_timeout <= STAY) {
        return Stay::Silent(Duration::ZERO);
    }
    let socket = &mut connection.socket;
    socket.watch().arm_spare(&core.wheel, STAY);
    socket.watch().set_resting(true);
    core.stats.connections_idle.add(1);
    staying.set(staying.get() + 1);
    let buffer = core.buffers.small();
    let room = buffer.capacity();
    let (waited, buffer) = socket.receive_or_idle(buffer, room).await;
    staying.set(staying.get() - 1);
    core.stats.connections_idle.sub(1);
    socket.watch().set_resting(false);
    if let Waited::Received(1..) = waited {
        return Stay::Received(buffer);
    }
    core.buffers.give_back(buffer);
    match waited {
        Waited::Idle => Stay::Silent(STAY),
        Waited::Received(_) | Waited::Failed(_) => Stay::Gone,
    }
}

/// Bytes received beyond a request: where the next one begins in which buffer.
type Beyond = Option<(Vec<u8>, usize)>;

/// What a request came to.
enum Served {
    Answered(After, Beyond),
    /// It goes on as a tunnel, and is under way until that ends.
    Joined(Box<Tunnel>),
}

/// One request from its complete head to its log line, or to the tunnel it becomes.
async fn serve_one(
    hall: &Hall,
    connection: &mut Connection,
    mut ex: Box<Exchange>,
    mut upload: Upload,
) -> Served {
    let view = hall.view();
    let core = &hall.core;
    ex.timing.received = core.look();
    ex.timing.received_at = core.wall(ex.timing.received);
    ex.client = connection.client;
    ex.security.clone_from(&connection.security);
    ex.connection_requests = connection.requests;
    ex.core = core.id;
    ex.bytes_in = u64::from(ex.request.line.head.len);
    let admitted = admit::admit(hall, &view, &mut ex, &mut upload);
    let mut run = Run::new(hall, view, connection, ex, upload);
    let after = match admitted {
        Ok(()) => run.serve().await,
        Err(refusal) => run.refuse(refusal).await,
    };
    if let Some(joined) = run.joined.take() {
        return Served::Joined(run.into_tunnel(*joined));
    }
    // In place: what is moved is copied, and a copy may have to wait for all that was written before.
    let Run { ex, upload, connection, .. } = &mut run;
    connection.counted_at = ex.counted_at.get();
    core.buffers.give_back(ex.response.headers.take_received());
    let (buffer, beyond) = upload.take_leftover(ex);
    core.buffers.give_back(buffer);
    core.give_back(run.ex);
    Served::Answered(after, beyond)
}

/// What waiting for a head came to.
enum Head {
    /// Parsed into the exchange.
    Ready,
    /// The client left in the middle of it.
    Gone,
    Refused(Refusal),
}

/// Receives until a head is complete. Bytes before `start` in the buffer are done with.
async fn receive_head(
    hall: &Hall,
    connection: &mut Connection,
    ex: &mut Exchange,
    mut buffer: Vec<u8>,
    mut start: usize,
) -> (Head, Vec<u8>) {
    let core = &hall.core;
    let limits = &core.limits.head;
    let mut searched = start;
    let mut begun = false;
    loop {
        // The first bytes are parsed at once: mostly that is all, and garbage is refused without waiting for its end.
        let ripe = !begun
            || buffer.len() - start >= limits.head_bytes_max
            || find_head_end(&buffer, searched).is_some();
        if buffer.len() > start && ripe {
            match parse::request(&buffer, start, limits, &mut ex.request.headers) {
                Ok(Parsed::Complete(line)) => {
                    ex.request.line = line;
                    connection.socket.watch().disarm();
                    return (Head::Ready, buffer);
                }
                Ok(Parsed::Partial) => ex.request.headers.clear(),
                Err(fault) => return (Head::Refused(fault.into()), buffer),
            }
        }
        searched = buffer.len();
        if buffer.len() == buffer.capacity() {
            buffer = make_room(hall, buffer, start);
            searched -= start;
            start = 0;
            if buffer.len() == buffer.capacity() {
                return (Head::Refused(HeadFault::HeadTooLarge.into()), buffer);
            }
        }
        let (waited, returned) = receive_more(hall, connection, buffer, start, &mut begun).await;
        buffer = returned;
        match waited {
            Waited::Received(count) if count > 0 => {}
            Waited::Idle => return (Head::Refused(Refusal::HEAD_TIMEOUT), buffer),
            Waited::Received(_) | Waited::Failed(_) => return (Head::Gone, buffer),
        }
    }
}

/// Receives what there is, or, once a head has begun, what comes until it must be complete.
async fn receive_more(
    hall: &Hall,
    connection: &mut Connection,
    buffer: Vec<u8>,
    start: usize,
    begun: &mut bool,
) -> (Waited, Vec<u8>) {
    let core = &hall.core;
    let socket = &mut connection.socket;
    let room = buffer.capacity();
    if buffer.len() == start {
        // The connection was found readable, so this does not wait, and needs no way to end it but the last. What can be read
        // of TLS may be no more than part of a record.
        if socket.is_secure() {
            socket.watch().arm(&core.wheel, core.limits.head_timeout);
        }
        let (received, buffer) = socket.reader.receive(buffer, room).await;
        return (received.map_or_else(Waited::Failed, Waited::Received), buffer);
    }
    if !*begun {
        *begun = true;
        // Against the clock, but so that a client that is too slow can still be told.
        socket.watch().arm_spare(&core.wheel, core.limits.head_timeout);
    }
    socket.receive_or_idle(buffer, room).await
}

/// Moves what belongs to the head at hand to the front of a buffer that can take more of it.
fn make_room(hall: &Hall, mut buffer: Vec<u8>, start: usize) -> Vec<u8> {
    if start > 0 {
        buffer.drain(..start);
        return buffer;
    }
    hall.core.buffers.enlarge(buffer)
}

/// Answers a head that could not be understood, and ends the connection.
async fn refuse(hall: &Hall, connection: &mut Connection, mut ex: Box<Exchange>, refusal: Refusal) {
    let core = &hall.core;
    connection.requests += 1;
    core.stats.requests.add(1);
    ex.timing.received = core.now();
    ex.timing.received_at = core.wall(ex.timing.received);
    ex.client = connection.client;
    ex.core = core.id;
    let mut run = Run::new(hall, hall.view(), connection, ex, Upload::default());
    run.refuse(refusal).await;
    let Run { mut ex, .. } = run;
    core.buffers.give_back(ex.request.headers.take_received());
    core.give_back(ex);
    linger(hall, connection).await;
}

/// Reads on for a moment after the last answer: closing with unread bytes would reset the connection, and the
/// client might never see what we said (RFC 9112 9.6).
async fn linger(hall: &Hall, connection: &mut Connection) {
    let core = &hall.core;
    let socket = &mut connection.socket;
    socket.finish_sending();
    socket.watch().arm(&core.wheel, crate::runtime::limits::LINGER);
    let mut left = core.limits.drain_body_bytes.max(respond::LINGER_BYTES);
    let mut buffer = core.buffers.small();
    while left > 0 {
        buffer.clear();
        let room = buffer.capacity();
        let (received, returned) = socket.reader.receive(buffer, room).await;
        buffer = returned;
        match received {
            Ok(count) if count > 0 => left = left.saturating_sub(count as u64),
            _ => break,
        }
    }
    core.buffers.give_back(buffer);
}
