//! Whose turn it is: places that may be asked, requests that wait for one, and what came to an end.

use std::collections::VecDeque;
use std::time::Instant;

use super::Fault;
use super::options::Options;
use super::pace::Dice;

/// A request that came to an end.
pub(crate) struct Done {
    /// When it was due.
    pub(crate) due: Instant,
    /// When it was sent or, on a new connection, when that was begun.
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
    pub(crate) outcome: Result<u16, Fault>,
    pub(crate) bytes: u64,
}

/// Counted over a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opened {
    pub(crate) connections: u64,
    pub(crate) full_handshakes: u64,
    pub(crate) resumed_handshakes: u64,
}

pub(crate) struct Turns {
    /// Places that may be asked, the longest idle first.
    idle: VecDeque<u32>,
    /// Requests that are due and have no place.
    queue: VecDeque<Instant>,
    done: Vec<Done>,
    dice: Dice,
    saturate: bool,
    stopped: bool,
    busy: u64,
}

impl Turns {
    pub(crate) fn new(places: usize, options: &Options) -> Self {
        Self {
            idle: (0..places as u32).collect(),
            queue: VecDeque::new(),
            done: Vec::new(),
            dice: Dice::new(options.seed ^ 0x5eed),
            saturate: options.rate.is_none(),
            stopped: false,
            busy: 0,
        }
    }

    pub(crate) fn next_idle(&mut self) -> Option<u32> {
        self.idle.pop_front()
    }

    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// A request has to wait for a place; none if too many do.
    pub(crate) fn wait(&mut self, due: Instant, queue_max: usize) -> Option<()> {
        (self.queue.len() < queue_max).then(|| self.queue.push_back(due))
    }

    pub(crate) fn begins(&mut self) {
        self.busy += 1;
    }

    pub(crate) fn ends(&mut self, done: Done) {
        self.busy -= 1;
        self.done.push(done);
    }

    /// A place is free: when the request was due that it takes now, if there is one.
    pub(crate) fn free(&mut self, place: u32, now: Instant) -> Option<Instant> {
        if self.stopped {
            self.queue.clear();
            return None;
        }
        let due = if self.saturate { Some(now) } else { self.queue.pop_front() };
        if due.is_none() {
            self.idle.push_back(place);
        }
        due
    }

    /// Any of so many, by the dice.
    pub(crate) fn chosen(&mut self, wheel: &[usize]) -> usize {
        match wheel.len() {
            1 => 0,
            length => wheel[self.dice.below(length)],
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Requests that have not come to an end, those not sent yet among them.
    pub(crate) fn under_way(&self) -> u64 {
        self.busy + if self.saturate { 0 } else { self.queue.len() as u64 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.busy == 0 && self.queue.is_empty()
    }

    pub(crate) fn report(&mut self, to: &mut dyn FnMut(Done)) {
        self.done.drain(..).for_each(to);
    }
}
