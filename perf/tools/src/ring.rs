//! An io_uring for the relay: receives into and sends from buffers that it owns.
//!
//! Buffers are never freed or moved while the ring lives, and the ring is dropped before them, so the kernel never
//! writes to memory that is not theirs. This is the only file with unsafe code.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};

const SUBMISSIONS: u32 = 4096;
/// A peer that is gone is told by an error, not by a signal.
const MSG_NOSIGNAL: i32 = 0x4000;

/// The token of accepts, which nothing else may have.
const ACCEPT: u64 = u64::MAX;

/// An operation that came to an end.
#[derive(Debug)]
pub enum Completion {
    Accepted(io::Result<OwnedFd>),
    /// Its token, and how many bytes or which error.
    Moved(u64, io::Result<usize>),
}

pub struct Ring {
    // Fields are dropped in this order.
    ring: IoUring,
    buffers: Vec<Box<[u8]>>,
    bytes: usize,
    /// The flags the kernel took.
    pub flags: &'static str,
}

/// The flags to try, best first.
const STEPS: [(&str, u8); 3] = [("SINGLE_ISSUER|DEFER_TASKRUN", 2), ("COOP_TASKRUN", 1), ("none", 0)];

impl Ring {
    /// A ring for this thread, with the best flags the kernel takes.
    pub fn new(buffer_bytes: usize) -> io::Result<Self> {
        let mut last = None;
        for (flags, step) in STEPS {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(SUBMISSIONS * 4).setup_clamp();
            match step {
                2 => builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
                1 => builder.setup_coop_taskrun(),
                _ => &mut builder,
            };
            match builder.build(SUBMISSIONS) {
                Ok(ring) => return Ok(Self { ring, buffers: Vec::new(), bytes: buffer_bytes, flags }),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no flags to try")))
    }

    /// One more buffer, by its number.
    pub fn add_buffer(&mut self) -> usize {
        self.buffers.push(vec![0; self.bytes].into());
        self.buffers.len() - 1
    }

    /// Accepts one connection.
    pub fn accept(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let fd = types::Fd(listener.as_raw_fd());
        let entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
        self.push(entry, ACCEPT)
    }

    /// Receives into a buffer, from its start.
    pub fn receive(&mut self, from: RawFd, buffer: usize, token: u64) -> io::Result<()> {
        let bytes = &mut self.buffers[buffer];
        let entry = opcode::Recv::new(types::Fd(from), bytes.as_mut_ptr(), bytes.len() as u32).build();
        debug_assert_ne!(token, ACCEPT);
        self.push(entry, token & !(1 << 63))
    }

    /// Sends bytes of a buffer.
    pub fn send(&mut self, to: RawFd, buffer: usize, range: Range<usize>, token: u64) -> io::Result<()> {
        let bytes = &self.buffers[buffer][range];
        let entry =
            opcode::Send::new(types::Fd(to), bytes.as_ptr(), bytes.len() as u32).flags(MSG_NOSIGNAL).build();
        debug_assert_ne!(token, ACCEPT);
        self.push(entry, token & !(1 << 63))
    }

    fn push(&mut self, entry: squeue::Entry, token: u64) -> io::Result<()> {
        let entry = entry.user_data(token);
        // SAFETY: the entry points into a buffer of `self.buffers` or at nothing. Buffers are boxed and are neither
        // freed nor replaced before the ring is dropped, which ends all operations. Nothing reads a buffer's bytes in
        // Rust, so what the kernel writes meanwhile is not seen by a reference.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// Submits, waits for at least one operation to end, and hands over all that have.
    pub fn wait(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        into.extend(self.ring.completion().map(|entry| {
            let result = entry.result();
            let count = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            if entry.user_data() != ACCEPT {
                return Completion::Moved(entry.user_data(), count);
            }
            // SAFETY: other operations have tokens without the highest bit, so this is an accept's result: a
            // descriptor that the kernel just made and nobody else knows.
            Completion::Accepted(count.map(|_| unsafe { OwnedFd::from_raw_fd(result) }))
        }));
        Ok(())
    }
}
