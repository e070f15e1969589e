//! The streams of a connection with a client (RFC 9113 5.1): those under way, and what is known of those that are over.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use slab::Slab;

/// Streams that are remembered of which the client may not know yet that we ended them: more than it may have at a time.
const LEFT_OPEN_MAX: usize = 256;

/// What a client may say on a stream yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    Open,
    /// It has said all.
    Ended,
    /// It gave the stream up.
    Reset,
}

/// A stream under way.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) hears: Hears,
    /// We have said all.
    pub(super) answered: bool,
    /// It was reset by either side, or its connection is over: nothing more can be done.
    pub(super) gone: bool,
    /// Nobody serves it yet.
    pub(super) unseen: bool,
    /// What came of the body and nobody has taken yet, and what came behind it.
    pub(super) inbox: Vec<u8>,
    pub(super) trailers: Option<Vec<u8>>,
    /// What is to come of it, where the head says so.
    pub(super) awaited: Option<u64>,
    /// How much more the client may send, how much of what it sent was taken since it was last told, and how much of it the
    /// connection's window still lacks.
    pub(super) window_in: i64,
    pub(super) taken: usize,
    pub(super) owed: usize,
    /// How much more we may send.
    pub(super) window_out: i64,
    /// When it last sent, in turns of the outbox, and how much.
    pub(super) turn: u32,
    pub(super) sent: usize,
    /// It is among those that wait for room.
    pub(super) listed: bool,
    waker: Option<Waker>,
}

impl Stream {
    pub(super) const fn new(
        id: u32,
        ended: bool,
        awaited: Option<u64>,
        window_in: i64,
        window_out: i64,
    ) -> Self {
        Self {
            id,
            hears: if ended { Hears::Ended } else { Hears::Open },
            answered: false,
            gone: false,
            unseen: true,
            inbox: Vec::new(),
            trailers: None,
            awaited,
            window_in,
            taken: 0,
            owed: 0,
            window_out,
            turn: 0,
            sent: 0,
            listed: false,
            waker: None,
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Has the one task of the stream woken when anything happens to it.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Nothing more can be done on it.
    pub(super) fn end(&mut self) {
        self.gone = true;
        self.wake();
    }
}

/// What is known of a stream by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Under way, or whoever serves it is not done with it.
    Here(usize),
    /// Not begun yet.
    Idle,
    /// Passed over when a later one was begun, and so never to be.
    PassedOver,
    /// Ended by us, or refused; the client may not know yet.
    LeftOpen,
    /// Ended by both, or reset by the client.
    Over,
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    all: Slab<Stream>,
    /// Their places by number, in that order.
    by_id: Vec<(u32, usize)>,
    /// The last that the client began.
    last: u32,
    /// The last ones that it passed over.
    passed_over: (u32, u32),
    left_open: VecDeque<u32>,
    /// Up to this one, it is not known whether a stream was left open.
    forgotten: u32,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether so many or more count against what a client may have at a time (5.1.2).
    pub(super) fn are_as_many_as(&self, most: usize) -> bool {
        let is_open = |stream: &Stream| !(stream.gone || stream.answered && stream.hears == Hears::Ended);
        self.all.len() >= most && self.all.iter().filter(|(_, stream)| is_open(stream)).count() >= most
    }

    pub(super) fn find(&self, id: u32) -> Known {
        if let Ok(at) = self.by_id.binary_search_by_key(&id, |(id, _)| *id) {
            return Known::Here(self.by_id[at].1);
        }
        if id > self.last {
            return Known::Idle;
        }
        if (self.passed_over.0..=self.passed_over.1).contains(&id) {
            return Known::PassedOver;
        }
        if id <= self.forgotten || self.left_open.contains(&id) { Known::LeftOpen } else { Known::Over }
    }

    /// The client has begun a stream; it may have passed over some.
    pub(super) const fn reach(&mut self, id: u32) {
        if id > self.last + 2 {
            self.passed_over = (self.last + 1, id - 1);
        }
        self.last = id;
    }

    /// It is known by this place until it is removed.
    pub(super) fn add(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let key = self.all.insert(stream);
        self.by_id.push((id, key));
        key
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<Stream> {
        let stream = self.all.try_remove(key)?;
        if let Ok(at) = self.by_id.binary_search_by_key(&stream.id, |(id, _)| *id) {
            self.by_id.remove(at);
        }
        Some(stream)
    }

    /// The client may say more on it, which nobody wants to hear.
    pub(super) fn leave_open(&mut self, id: u32) {
        if self.left_open.len() == LEFT_OPEN_MAX
            && let Some(oldest) = self.left_open.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.left_open.push_back(id);
    }

    pub(super) fn get(&mut self, key: usize) -> Option<&mut Stream> {
        self.all.get_mut(key)
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut().map(|(_, stream)| stream)
    }
}
