//! What neither std nor monoio offers safely: calls on a descriptor we only know by number.
//!
//! With `base::prefetch` the only file of the gateway with `unsafe`. The invariant all calls share: the number names a socket that is
//! open for the whole call. Its keeper is [`super::deadline::Watch`] and [`super::socket::Socket`]: a socket
//! closes its watch before its descriptor, on the same thread, so a number held by a live watch or borrowed from
//! a live socket is never one the system has given to somebody else. What is asked of a thread is asked of the calling one.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, RawFd};

use monoio::io::{OwnedReadHalf, OwnedWriteHalf};
use monoio::net::udp::UdpSocket;
use monoio::net::{TcpStream, UnixStream};

/// Ends both directions of a socket: pending reads complete with 0, pending writes fail. Errors (the peer was
/// faster) do not matter to anyone.
pub(super) fn shutdown_both(fd: RawFd) {
    // SAFETY: `shutdown` touches no memory of ours; the descriptor is open (see the module's invariant).
    let _ = unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Ends the sending direction, so that the peer sees the end after what was sent.
pub(super) fn shutdown_write(fd: RawFd) {
    // SAFETY: as above.
    let _ = unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Ends a connection the way a broken one ends: the peer gets a reset, and whoever waits on the socket is woken. It stays
/// open as a number, and is no longer connected.
pub(super) fn reset(fd: RawFd) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads one address from the one given, and keeps nothing of it; the descriptor is open (see the
    // module's invariant).
    let outcome = unsafe { libc::connect(fd, &raw const nowhere, size) };
    if outcome != 0 {
        // A Unix socket knows no reset: it ends.
        shutdown_both(fd);
    }
}

/// [`reset`] on a sending half.
pub(super) fn reset_sending(half: &OwnedWriteHalf<TcpStream>) {
    // SAFETY: as for `stream_of`; the reference ends with this statement.
    let fd = unsafe { (*half.0.get()).as_raw_fd() };
    reset(fd);
}

/// [`shutdown_both`] on a sending half.
pub(super) fn abort_sending(half: &OwnedWriteHalf<TcpStream>) {
    // SAFETY: as for `stream_of`; the reference ends with this statement.
    let fd = unsafe { (*half.0.get()).as_raw_fd() };
    shutdown_both(fd);
}

/// A stream that the loop has nothing more to do with. Nobody else may hold it, and nothing be under way on it.
pub(super) fn stream_out_of(stream: TcpStream) -> std::net::TcpStream {
    let fd = stream.into_raw_fd();
    // SAFETY: the number names an open socket that monoio has just let go of, and nobody else knows.
    unsafe { std::net::TcpStream::from_raw_fd(fd) }
}

/// The same for a stream of a Unix socket, which goes on under the name of the others: all that is done with one is done by
/// its number.
pub(super) fn stream_of_unix(stream: UnixStream) -> std::net::TcpStream {
    let fd = stream.into_raw_fd();
    // SAFETY: as above.
    unsafe { std::net::TcpStream::from_raw_fd(fd) }
}

/// Another number for a connection, which lives on when this one is closed.
pub(super) fn double_of(fd: RawFd) -> io::Result<std::net::TcpStream> {
    // SAFETY: the descriptor is open, and its double is known to nobody else.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            double => Ok(std::net::TcpStream::from_raw_fd(double)),
        }
    }
}

/// The stream behind a receiving half, for its methods that take `&self`.
pub(super) fn stream_of(half: &OwnedReadHalf<TcpStream>) -> &TcpStream {
    // SAFETY: monoio's two halves alias the stream by design and only ever clone its descriptor out of it; a
    // shared reference adds no access they do not make themselves, and nothing replaces the stream while a half
    // exists.
    unsafe { &*half.0.get() }
}

/// The socket behind one of the loop's, for calls that do not wait. It must not be dropped, and so is not.
pub(super) fn datagrams_of(socket: &UdpSocket) -> ManuallyDrop<std::net::UdpSocket> {
    // SAFETY: the number names a socket that is open for as long as `socket` is borrowed, which the caller does; the one that
    // is made of it closes nothing, because it is never dropped.
    ManuallyDrop::new(unsafe { std::net::UdpSocket::from_raw_fd(socket.as_raw_fd()) })
}

/// Sends the end of the stream on a sending half.
pub(super) fn finish_sending(half: &OwnedWriteHalf<TcpStream>) {
    // SAFETY: as for `stream_of`; the reference ends with this statement.
    let fd = unsafe { (*half.0.get()).as_raw_fd() };
    shutdown_write(fd);
}

/// Sends what the kernel takes at once, on a sending half: how many bytes. 0 when it takes none, for whatever reason.
pub(super) fn send_now(half: &OwnedWriteHalf<TcpStream>, bytes: &[u8]) -> usize {
    // SAFETY: as for `stream_of`; the reference ends with this statement.
    let fd = unsafe { (*half.0.get()).as_raw_fd() };
    // SAFETY: the kernel reads as many bytes as the slice has, and keeps none of them; the descriptor is open.
    let sent = unsafe {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).unwrap_or(0)
}

/// Appends what has come already to the buffer's spare room, and waits for nothing; 0 bytes when nothing has.
///
/// # Errors
/// When the socket is broken, or at its end.
pub(super) fn receive_now(half: &OwnedReadHalf<TcpStream>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let fd = stream_of(half).as_raw_fd();
    let room = buffer.spare_capacity_mut();
    // SAFETY: the kernel writes at most as many bytes as there is room for, into memory of the buffer; the descriptor is
    // open.
    let received = unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    let Ok(count) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
    };
    if count == 0 && !room.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: so many bytes behind the length were written just now.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

/// Whether there is nothing to read: no byte, no end, no fault.
pub(super) fn is_quiet(fd: RawFd) -> bool {
    peek(fd) == Some(io::ErrorKind::WouldBlock)
}

/// Whether a connection is broken: reset by the peer, or dead. Its mere end is not that: who has sent all may
/// still be waiting for the answer.
pub(super) fn is_broken(fd: RawFd) -> bool {
    peek(fd).is_some_and(|fault| fault != io::ErrorKind::WouldBlock)
}

/// Whether the peer has said all it will, read or not, or the connection is broken.
pub(super) fn has_left(fd: RawFd) -> bool {
    let mut look = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, which lives as long as the call, that waits for nothing.
    let count = unsafe { libc::poll(&raw mut look, 1, 0) };
    count > 0 && look.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Whether the peer has said all it will, or the connection is broken, and nothing is left to be read.
pub(super) fn is_over(fd: RawFd) -> bool {
    match look(fd) {
        Ok(count) => count == 0,
        Err(fault) => fault != io::ErrorKind::WouldBlock,
    }
}

/// What a read would fail with now; `None` when it would bring bytes or the end.
fn peek(fd: RawFd) -> Option<io::ErrorKind> {
    look(fd).err()
}

/// How much of a byte a read would bring now, or what it would fail with.
fn look(fd: RawFd) -> Result<usize, io::ErrorKind> {
    let mut byte = 0_u8;
    // SAFETY: one byte is written at most, into a buffer of one byte; the descriptor is open.
    let seen = unsafe {
        libc::recv(fd, std::ptr::from_mut(&mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    usize::try_from(seen).map_err(|_| io::Error::last_os_error().kind())
}

/// Keeps signals away from the calling thread: they belong to the control thread, and would interrupt waits.
pub fn block_signals() {
    // SAFETY: `set` is written by `sigfillset` before it is read; both calls are thread-safe and only touch the
    // calling thread's mask.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Lets the process have as many descriptors as it may; the soft limit is often far below the hard one.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes, then reads, one rlimit that outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Has the process use small pages only. With large ones memory is counted, and held, by two megabytes: what ten
/// thousand idle connections need takes half as much again, and an idle process twice as much.
pub fn use_small_pages() {
    // A kernel without large pages refuses, and has none.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Gives memory that the calling thread has freed back to the system. Takes up to some milliseconds.
pub fn give_memory_back() {
    // SAFETY: it works on the calling thread's own heap and takes no pointer. Where another allocator is in use
    // (in tests), that heap is empty.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Processor time the calling thread has used, in nanoseconds.
pub(super) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into the one given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Changes how the calling thread is scheduled, unless somebody has put it among real-time threads.
pub(super) fn schedule(change: impl FnOnce(&mut libc::sched_attr)) -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: it is made of numbers, of which all may be 0.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes into what is given, which has as many. 0 is the calling thread.
    let told = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if told != 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.sched_policy as i32 != libc::SCHED_OTHER
        && attributes.sched_policy as i32 != libc::SCHED_BATCH
    {
        return Ok(());
    }
    change(&mut attributes);
    // SAFETY: the kernel reads what is given, as many bytes as it says at its beginning.
    let told = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if told == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        (near, listener.accept().expect("accepts").0)
    }

    #[test]
    fn a_connection_is_quiet_until_the_peer_speaks_or_leaves_and_broken_when_it_resets() {
        let (near, mut far) = pair();
        assert!(is_quiet(near.as_raw_fd()) && !is_broken(near.as_raw_fd()));
        far.write_all(b"x").expect("writes");
        near.peek(&mut [0]).expect("arrives");
        assert!(!is_quiet(near.as_raw_fd()) && !is_broken(near.as_raw_fd()));
        drop(far);
        assert!(!is_over(near.as_raw_fd()), "there is a byte to be read before the end");

        let (near, far) = pair();
        assert!(!is_over(near.as_raw_fd()));
        drop(far);
        near.peek(&mut [0]).expect("the end arrives");
        assert!(!is_quiet(near.as_raw_fd()) && !is_broken(near.as_raw_fd()) && is_over(near.as_raw_fd()));

        let (near, far) = pair();
        socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
        drop(far);
        assert!(is_broken(near.as_raw_fd()) && is_over(near.as_raw_fd()));
    }

    #[test]
    fn what_is_sent_at_once_stops_where_the_kernel_takes_no_more() {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("a runtime");
        runtime.block_on(async {
            use monoio::io::Splitable as _;
            let (near, mut far) = pair();
            near.set_nonblocking(true).expect("an option");
            let (_reader, writer) = monoio::net::TcpStream::from_std(near).expect("a stream").into_split();
            let bytes = vec![7; 64 << 20];
            let sent = send_now(&writer, &bytes);
            assert!(sent > 0 && sent < bytes.len(), "{sent}");
            assert_eq!(send_now(&writer, &bytes), 0, "it is full");
            far.read_exact(&mut vec![0; sent]).expect("all of it arrives");
            drop(far);
            while send_now(&writer, b"x") > 0 {}
        });
    }

    #[test]
    fn a_reset_is_seen_by_the_peer_and_wakes_who_waits_here() {
        let (mut near, mut far) = pair();
        let fd = near.as_raw_fd();
        let reader = std::thread::spawn(move || near.read(&mut [0; 8]));
        reset(fd);
        let error = far.read(&mut [0; 8]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let waited = reader.join().expect("no panic");
        assert!(!matches!(waited, Ok(1..)), "{waited:?}");
    }

    #[test]
    fn shutting_down_ends_a_blocked_read() {
        let (mut near, _far) = pair();
        let fd = near.as_raw_fd();
        let reader = std::thread::spawn(move || near.read(&mut [0; 8]).expect("ends"));
        shutdown_both(fd);
        assert_eq!(reader.join().expect("no panic"), 0);
    }

    #[test]
    fn a_busy_thread_uses_processor_time() {
        let before = thread_cpu_ns();
        let sum: u64 = (0..1_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && thread_cpu_ns() > before);
    }

    #[test]
    fn a_thread_that_blocks_signals_still_ends() {
        std::thread::spawn(block_signals).join().expect("no panic");
    }
}
