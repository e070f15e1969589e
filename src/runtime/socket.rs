//! A connected socket: bytes both ways, with a deadline over each wait.
//!
//! Reading and writing are separate fields, so that a request body can go up while its response comes down.
//! A buffer given to the kernel comes back with the result, whatever the result is.

mod at_rest;

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use monoio::buf::{IoBuf as _, IoBufMut as _};
use monoio::io::{
    AsyncReadRent as _, AsyncWriteRent as _, CancelableAsyncReadRent as _, OwnedReadHalf, OwnedWriteHalf,
    Splitable as _,
};
use monoio::net::TcpStream;

use super::deadline::{Watch, Wheel};
use super::ear::Ear;
pub use super::ear::{Caught, Net};
use super::pipe::{FarEnd, Pipe};
use super::sys;
use super::tls::{self, Conversation, Tls};

/// A cancelled wait, as the kernel reports it.
const CANCELED: i32 = libc::ECANCELED;

/// What [`Socket::ask`] sends without looking whether it was taken: a segment or three. The smallest buffer the
/// kernel gives a socket holds more.
pub const ASK_BYTES_MAX: usize = 4096;

/// A connected socket. Dropping it closes it.
pub struct Socket {
    pub reader: Reader,
    pub writer: Writer,
    watch: Rc<Watch>,
    /// Made when first wanted, and apart: sockets of clients are never listened to while nobody waits.
    ear: Option<Box<Ear>>,
}

/// The receiving direction.
pub struct Reader {
    half: Option<OwnedReadHalf<TcpStream>>,
    layer: Through,
}

/// The sending direction.
pub struct Writer {
    half: Option<OwnedWriteHalf<TcpStream>>,
    layer: Through,
}

/// What bytes go through where they do not go to the system as they are.
enum Layer {
    Tls(Box<Tls>),
    /// There is no connection of the system's below.
    Pipe(Rc<Pipe>),
}

/// Of one of a socket's directions.
type Through = Option<Rc<Layer>>;

fn tls_of(through: &Through) -> Option<&Tls> {
    match through.as_deref() {
        Some(Layer::Tls(tls)) => Some(tls),
        _ => None,
    }
}

fn pipe_of(through: &Through) -> Option<&Rc<Pipe>> {
    match through.as_deref() {
        Some(Layer::Pipe(pipe)) => Some(pipe),
        _ => None,
    }
}

/// An idle socket between two cores.
pub struct Parted {
    stream: std::net::TcpStream,
    /// What was agreed on, where TLS is spoken.
    conversation: Option<Conversation>,
}

/// By which way bytes go to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// By a call of their own, which has an end at once: nobody needs to be woken for it. Cheaper for a core that
    /// serves so few requests that hardly any two of them could share a call.
    Alone,
    /// With whatever else the core has to ask of the kernel in this turn.
    Together,
}

/// What a wait that may be given up came to.
#[derive(Debug)]
pub enum Waited {
    /// So many bytes were appended; 0 is the end.
    Received(usize),
    /// Nothing came in time.
    Idle,
    Failed(io::Error),
}

const OPEN: &str = "a half is taken only when the socket is dropped";

impl Socket {
    /// Takes over a connected stream and puts a watch over it.
    pub fn new(stream: TcpStream, wheel: &Wheel) -> Self {
        let fd = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader { half: Some(reader), layer: None },
            writer: Writer { half: Some(writer), layer: None },
            watch: wheel.watch(fd),
            ear: None,
        }
    }

    /// A socket that leads to the far end, which stays in this core.
    pub fn piped(wheel: &Wheel) -> (Self, FarEnd) {
        let pipe = Rc::new(Pipe::default());
        let layer = Rc::new(Layer::Pipe(Rc::clone(&pipe)));
        let socket = Self {
            reader: Reader { half: None, layer: Some(Rc::clone(&layer)) },
            writer: Writer { half: None, layer: Some(layer) },
            watch: wheel.watch_pipe(&pipe),
            ear: None,
        };
        (socket, FarEnd::new(pipe))
    }

    /// Talks TLS from here on.
    pub(super) fn secure(&mut self, tls: Tls) {
        let layer = Rc::new(Layer::Tls(Box::new(tls)));
        self.writer.layer = Some(Rc::clone(&layer));
        self.reader.layer = Some(layer);
    }

    /// Leaves this core, to be joined on another. What comes while it leaves was asked for by nobody: it may be lost, and
    /// if not, it is seen when it is joined.
    ///
    /// # Errors
    /// When it was not idle, or the system has no descriptor left.
    pub async fn part(mut self) -> io::Result<Parted> {
        // The kernel may hold the number until it has let go of what is cancelled here.
        let stream = sys::double_of(self.fd())?;
        self.ear = None;
        if let Some(half) = &self.reader.half {
            // Asked for after the cancellation, so over after it: nobody else reads from here on.
            sys::stream_of(half).writable(false).await?;
        }
        drop(self.reader.layer.take());
        let conversation = match self.writer.layer.take().map(Rc::try_unwrap) {
            None => None,
            Some(Ok(Layer::Tls(tls))) => Some(tls.part().ok_or(io::ErrorKind::ResourceBusy)?),
            Some(_) => return Err(io::ErrorKind::ResourceBusy.into()),
        };
        Ok(Parted { stream, conversation })
    }

    /// Takes up a socket that has left another core.
    ///
    /// # Errors
    /// When the loop has no room for it.
    pub fn join(parted: Parted, wheel: &Wheel, stock: &Rc<tls::Stock>) -> io::Result<Self> {
        let mut socket = Self::new(TcpStream::from_std(parted.stream)?, wheel);
        if let Some(conversation) = parted.conversation {
            socket.secure(Tls::join(conversation, stock));
        }
        Ok(socket)
    }

    /// Whether nothing has come and nobody has left, as far as the system knows.
    pub fn is_quiet_now(&self) -> bool {
        sys::is_quiet(self.fd())
    }

    fn tls(&self) -> Option<&Tls> {
        tls_of(&self.reader.layer)
    }

    fn pipe(&self) -> Option<&Rc<Pipe>> {
        pipe_of(&self.reader.layer)
    }

    /// Whether bytes were received that nobody has taken: the socket need not become readable for them.
    pub fn holds_bytes(&self) -> bool {
        self.reader.holds_bytes()
    }

    /// Whether what is said on it is secret.
    pub fn is_secure(&self) -> bool {
        self.tls().is_some()
    }

    /// The deadline over this socket's waits.
    pub const fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// Whether the peer has left: said all it will, and nothing of that is left to be read, or broke the connection. Whoever
    /// waits for nothing but an answer may have said all as well; so this is asked only where that would be long in coming.
    pub fn has_left(&self) -> bool {
        self.watch.has_left(self.is_secure())
    }

    pub(super) fn fd(&self) -> RawFd {
        self.watch.fd()
    }

    /// Listens from now on, so that [`Self::is_quiet`] can tell what comes while nobody waits; it goes into the net, if
    /// there is one.
    pub fn listen(&mut self, net: Option<Net>) {
        match self.reader.layer.as_deref() {
            None => self.ear().listen(net),
            // What comes is to be decrypted, which a net can not do.
            Some(Layer::Tls(tls)) => {
                tls.rest();
                self.ear().listen(None);
            }
            // It can be asked at any time.
            Some(Layer::Pipe(_)) => {}
        }
    }

    /// Gives back what listening takes; while nothing is waited for.
    pub fn listen_no_more(&mut self) {
        self.ear.take_if(|ear| !ear.is_listening());
        self.watch.forget_canceller();
    }

    /// What came into the net that was given to [`Self::listen`], once it was heard.
    pub fn caught(&mut self) -> Option<Caught> {
        self.ear.as_mut()?.take()
    }

    /// Whether an idle socket that is listened to is as it was left: open, nothing to read, as far as the loop
    /// has been told.
    pub fn is_quiet(&mut self) -> bool {
        if self.watch.fired() {
            return false;
        }
        if let Some(pipe) = self.pipe() {
            return pipe.is_quiet();
        }
        // With epoll, requests may come and go without the loop asking what else has happened.
        let is_quiet = !self.ear().has_heard() && (!monoio::utils::is_legacy() || sys::is_quiet(self.fd()));
        is_quiet || self.has_only_tls_spoken()
    }

    /// Whether all that came was for TLS itself, such as a ticket for the next connection.
    fn has_only_tls_spoken(&mut self) -> bool {
        let half = self.reader.half.as_ref().expect(OPEN);
        let is_quiet = self.tls().is_some_and(|tls| tls.settle(half));
        if is_quiet {
            self.ear().listen(None);
        }
        is_quiet
    }

    /// Whether a connection over which an answer has just come whole may carry another request.
    pub fn is_settled(&self) -> bool {
        match self.reader.layer.as_deref() {
            None => true,
            Some(Layer::Tls(tls)) => tls.is_settled(),
            // A stream carries one.
            Some(Layer::Pipe(_)) => false,
        }
    }

    /// Whether what was sent came to somebody who did not look at it.
    pub fn was_refused(&self) -> bool {
        self.pipe().is_some_and(|pipe| pipe.was_refused())
    }

    /// Waits until there is something to read (or the end), holding no buffer. Goes on with the wait that
    /// [`Self::listen`] began, and unlike [`Self::readable`] may be given up.
    pub async fn heard(&mut self) {
        match self.reader.layer.as_deref() {
            Some(Layer::Pipe(pipe)) => pipe.readable().await,
            _ => self.ear().heard().await,
        }
    }

    /// Sends a whole short message (at most [`ASK_BYTES_MAX`]) and waits until an answer begins to arrive: one
    /// wake for both. The socket has nothing unsent, so the kernel takes the message as it is, at once; should it
    /// not, the wait lasts until the deadline, and the result says that the message was not sent. A message that
    /// could be sent without a wait is not waited behind.
    pub async fn ask(&mut self, message: Vec<u8>, how: Sending) -> (io::Result<()>, Vec<u8>) {
        let mut writer = self.writer.lend();
        let sent = {
            let mut sending = pin!(writer.send(message, 0, how));
            match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(sent) => sent,
                // A loop of epoll has yet to hear that a socket which has just come to it takes bytes. Nobody answers what
                // was not sent.
                Poll::Pending if monoio::utils::is_legacy() => {
                    let sent = sending.await;
                    if sent.0.is_ok() {
                        self.heard().await;
                    }
                    sent
                }
                Poll::Pending => {
                    self.heard().await;
                    sending.await
                }
            }
        };
        self.writer.take_back(writer);
        sent
    }

    fn ear(&mut self) -> &mut Ear {
        let half = self.reader.half.as_ref().expect(OPEN);
        self.ear.get_or_insert_with(|| {
            let stream = Rc::clone(&half.0);
            Box::new(Ear::new(move |net| {
                let mut half = OwnedReadHalf(Rc::clone(&stream));
                async move {
                    match net {
                        Some((buffer, room)) => Some(receive(&mut half, buffer, room).await),
                        // A broken socket is heard as well: whoever reads next learns what is wrong with it.
                        None => readable(&half).await.map_or(None, |()| None),
                    }
                }
            }))
        })
    }

    /// Sends the end of the stream after what was sent.
    pub fn finish_sending(&self) {
        if let Some(pipe) = self.pipe() {
            return pipe.finish();
        }
        self.writer.say_goodbye();
        sys::shutdown_write(self.fd());
    }

    /// Ends both directions: whoever waits on the socket is woken.
    pub fn abort(&self) {
        match self.pipe() {
            Some(pipe) => pipe.abort(),
            None => sys::shutdown_both(self.fd()),
        }
    }

    /// Waits until there is something to read (or the end), holding no buffer. To be awaited to its end. Not for the end of a
    /// pipe, which nobody leaves to rest.
    ///
    /// # Errors
    /// When the socket breaks.
    pub fn readable(&mut self) -> impl Future<Output = io::Result<()>> {
        self.reader.readable()
    }

    /// [`Reader::receive`] that gives up, without losing a byte, when the watch was armed with `arm_spare` and
    /// its deadline passes.
    pub async fn receive_or_idle(&mut self, buffer: Vec<u8>, room: usize) -> (Waited, Vec<u8>) {
        let Reader { half, layer } = &mut self.reader;
        match layer.as_deref() {
            None => receive_or_idle(half.as_mut().expect(OPEN), &self.watch, buffer, room).await,
            Some(Layer::Tls(tls)) => {
                let half = half.as_mut().expect(OPEN);
                tls::receive_or_idle(tls, half, &self.watch, buffer, room).await
            }
            Some(Layer::Pipe(pipe)) => pipe.receive_or_idle(buffer, room).await,
        }
    }
}

pub(super) async fn receive_or_idle(
    half: &mut OwnedReadHalf<TcpStream>,
    watch: &Watch,
    buffer: Vec<u8>,
    room: usize,
) -> (Waited, Vec<u8>) {
    let (start, end) = (buffer.len(), room_end(&buffer, room));
    let handle = watch.cancel_handle();
    let (result, slice) = half.cancelable_read(buffer.slice_mut(start..end), handle).await;
    let buffer = slice.into_inner();
    match result {
        Ok(count) => (Waited::Received(count), buffer),
        Err(error) if error.raw_os_error() == Some(CANCELED) => (Waited::Idle, buffer),
        Err(error) => (Waited::Failed(error), buffer),
    }
}

/// The stream's own wait for readability. It needs no exclusive access, but monoio's half offers none.
// Not an `async fn`: this is what a resting connection holds, and each layer would hold its arguments anew.
fn readable(half: &OwnedReadHalf<TcpStream>) -> impl Future<Output = io::Result<()>> {
    sys::stream_of(half).readable(false)
}

pub(super) async fn receive(half: &mut OwnedReadHalf<TcpStream>, buffer: Vec<u8>, room: usize) -> Caught {
    let (start, end) = (buffer.len(), room_end(&buffer, room));
    debug_assert!(start < end, "a receive needs room");
    let (result, slice) = half.read(buffer.slice_mut(start..end)).await;
    (result, slice.into_inner())
}

/// Put together again, or the sending half alone would shut the connection down with a call of its own.
fn close(reader: OwnedReadHalf<TcpStream>, writer: OwnedWriteHalf<TcpStream>) {
    drop(reader.reunite(writer));
}

fn room_end(buffer: &Vec<u8>, room: usize) -> usize {
    buffer.capacity().min(buffer.len().saturating_add(room))
}

impl Reader {
    /// Moves the direction out, so that both directions can be used at once; give it back with
    /// [`Self::take_back`].
    pub fn lend(&mut self) -> Self {
        Self { half: self.half.take(), layer: self.layer.clone() }
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, lent: Self) {
        self.half = lent.half;
    }

    /// Appends at most `room` bytes to the buffer's spare capacity; 0 is the end.
    pub async fn receive(&mut self, buffer: Vec<u8>, room: usize) -> (io::Result<usize>, Vec<u8>) {
        match self.layer.as_deref() {
            None => receive(self.half.as_mut().expect(OPEN), buffer, room).await,
            Some(Layer::Tls(tls)) => tls::receive(tls, self.half.as_mut().expect(OPEN), buffer, room).await,
            Some(Layer::Pipe(pipe)) => pipe.receive(buffer, room).await,
        }
    }

    /// Whether the system fills the buffer that [`Self::receive_at_rest`] is given.
    pub const fn is_plain(&self) -> bool {
        self.layer.is_none()
    }

    /// Whether bytes were received that nobody has taken.
    pub fn holds_bytes(&self) -> bool {
        tls_of(&self.layer).is_some_and(Tls::holds_bytes)
    }

    /// As [`Socket::readable`].
    ///
    /// # Errors
    /// When the socket breaks.
    pub fn readable(&mut self) -> impl Future<Output = io::Result<()>> {
        if let Some(tls) = tls_of(&self.layer) {
            tls.rest();
        }
        readable(self.half.as_ref().expect(OPEN))
    }
}

impl Writer {
    /// Waits until who takes what is sent would take more, and says how much: where that is known, which is in a pipe.
    pub async fn hunger(&self) -> Option<usize> {
        match self.layer.as_deref() {
            Some(Layer::Pipe(pipe)) => Some(pipe.hunger().await),
            Some(Layer::Tls(_)) | None => None,
        }
    }

    /// How much would be taken now, where that is known.
    pub fn appetite(&self) -> Option<usize> {
        pipe_of(&self.layer).map(|pipe| pipe.appetite())
    }

    /// Sends the end of the stream.
    pub fn finish(&self) {
        if let Some(pipe) = pipe_of(&self.layer) {
            return pipe.finish();
        }
        if let Some(half) = &self.half {
            self.say_goodbye();
            sys::finish_sending(half);
        }
    }

    /// Breaks the connection: the peer sees that it was not ended in good order.
    pub fn reset(&self) {
        if let Some(pipe) = pipe_of(&self.layer) {
            return pipe.abort();
        }
        if let Some(half) = &self.half {
            sys::reset_sending(half);
        }
    }

    /// Ends both directions: whoever waits on the socket is woken.
    pub fn abort(&self) {
        if let Some(pipe) = pipe_of(&self.layer) {
            return pipe.abort();
        }
        if let Some(half) = &self.half {
            sys::abort_sending(half);
        }
    }

    /// Over TLS, what must be said before the end.
    fn say_goodbye(&self) {
        if let (Some(tls), Some(half)) = (tls_of(&self.layer), &self.half) {
            tls.say_goodbye(half);
        }
    }

    /// Moves the direction out; give it back with [`Self::take_back`].
    pub fn lend(&mut self) -> Self {
        Self { half: self.half.take(), layer: self.layer.clone() }
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, lent: Self) {
        self.half = lent.half;
    }

    /// Sends the buffer from `from` to its end, all of it.
    pub async fn send(&mut self, buffer: Vec<u8>, from: usize, how: Sending) -> (io::Result<()>, Vec<u8>) {
        match self.layer.as_deref() {
            None => send(self.half.as_mut().expect(OPEN), buffer, from, how).await,
            Some(Layer::Tls(tls)) => tls::send(tls, self.half.as_mut().expect(OPEN), buffer, from, how).await,
            Some(Layer::Pipe(pipe)) => pipe.send(buffer, from).await,
        }
    }
}

pub(super) async fn send(
    half: &mut OwnedWriteHalf<TcpStream>,
    mut buffer: Vec<u8>,
    mut from: usize,
    how: Sending,
) -> (io::Result<()>, Vec<u8>) {
    if how == Sending::Alone {
        // What is left, or wrong, is for the ring to find.
        from += sys::send_now(half, &buffer[from..]);
    }
    while from < buffer.len() {
        let (result, slice) = half.write(buffer.slice(from..)).await;
        buffer = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => from += count,
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.writer.say_goodbye();
        if let Some(pipe) = self.pipe() {
            pipe.close();
        }
        // First the watch: from here on the descriptor's number may be somebody else's.
        let fd = self.fd();
        self.watch.close();
        let (Some(reader), Some(writer)) = (self.reader.half.take(), self.writer.half.take()) else { return };
        match self.ear.take() {
            // The kernel still waits on the descriptor: end that first, and close it when that is over.
            Some(mut ear) if ear.is_listening() => {
                sys::shutdown_both(fd);
                monoio::spawn(async move {
                    ear.heard().await;
                    drop(ear);
                    close(reader, writer);
                });
            }
            ear => {
                drop(ear);
                close(reader, writer);
            }
        }
    }
}

impl std::fmt::Debug for Parted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parted").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "socket/tests.rs"]
mod tests;
