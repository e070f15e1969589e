//! One epoll for everything a thread waits for, level-triggered.
//!
//! A token says what an event is for. Its generation tells an event of a connection that was closed in the same batch
//! from one of its successor in the same slot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OriginListener,
    OriginConnection,
    Client,
    Orders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub generation: u16,
    pub slot: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
}

pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Token {
    fn pack(self) -> epoll::EventData {
        let kind = self.kind as u64;
        epoll::EventData::new_u64(kind << 56 | u64::from(self.generation) << 32 | u64::from(self.slot))
    }

    fn unpack(data: u64) -> Self {
        let kind = match data >> 56 {
            0 => Kind::OriginListener,
            1 => Kind::OriginConnection,
            2 => Kind::Client,
            _ => Kind::Orders,
        };
        Self { kind, generation: (data >> 32) as u16, slot: data as u32 }
    }
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    pub fn add(&self, source: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, token.pack(), interest.flags())?)
    }

    pub fn modify(&self, source: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, token.pack(), interest.flags())?)
    }

    /// Waits until something happens or the time is over; no time means for ever. Events go to `into`.
    pub fn wait(&mut self, time: Option<Duration>, into: &mut Vec<Event>) -> io::Result<()> {
        let time = time
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), time.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        let trouble = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        into.extend(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Event {
                token: Token::unpack(data.u64()),
                // A broken connection is told by its next read or write.
                readable: flags.intersects(epoll::EventFlags::IN | trouble),
                writable: flags.intersects(epoll::EventFlags::OUT | trouble),
            }
        }));
        Ok(())
    }
}
