//! Core to core: connections that were accepted where more is going on than elsewhere.
//!
//! The kernel spreads connections over listeners by a hash, which is uneven when they are few, and knows nothing of how
//! much each asks for. So a core that accepts looks at one other, picked by chance (two choices are nearly as good as
//! all of them), and leaves the connection to it where that one has clearly less to do.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::mailbox::{Letterbox, Mailbox, mailbox};
use super::stats::CoreStats;
use crate::base::rng::Rng;

/// How much busier the accepting core must be, in thousandths of its time. Less is noise, and a hand-over costs as much as
/// a request or two.
const LEAD_MIN: u64 = 100;

/// A connection on its way to another core.
#[derive(Debug)]
pub struct Handed {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub spoken: Spoken,
}

/// What comes before HTTP on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// A load balancer says whose it is, before anything else.
    pub is_proxied: bool,
    pub is_tls: bool,
    /// What follows is passed on as it is, by stream routes.
    pub is_stream: bool,
}

/// All cores as one of them sees them.
#[derive(Clone, Debug)]
pub struct Neighbours {
    me: usize,
    boxes: Arc<[Mailbox<Handed>]>,
    stats: Arc<[Arc<CoreStats>]>,
}

/// What each core needs to leave connections to others and to be left some; by core, as the counters are.
///
/// # Errors
/// When the system has no socket pair to give.
pub fn among(stats: &[Arc<CoreStats>]) -> io::Result<Vec<(Neighbours, Letterbox<Handed>)>> {
    let pairs: Vec<_> = stats.iter().map(|_| mailbox()).collect::<io::Result<_>>()?;
    let (boxes, letterboxes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let (boxes, stats): (Arc<[_]>, Arc<[_]>) = (boxes.into(), stats.into());
    let of = |(me, letterbox)| {
        (Neighbours { me, boxes: Arc::clone(&boxes), stats: Arc::clone(&stats) }, letterbox)
    };
    Ok(letterboxes.into_iter().enumerate().map(of).collect())
}

impl Neighbours {
    /// The core that should have the next connection, if it is another. The greater its lead, the likelier: what cores know
    /// of each other is up to 100 ms old, and if all went to the idlest of that time, it would be the busiest of the next.
    /// One that serves `connections_max` already gets none.
    pub fn idler(&self, dice: &mut Rng, connections_max: usize) -> Option<usize> {
        let others = self.stats.len().checked_sub(1).filter(|others| *others > 0)?;
        let mine = self.stats[self.me].load.get();
        if mine < LEAD_MIN {
            return None;
        }
        let at = dice.below(others as u64) as usize;
        let other = if at < self.me { at } else { at + 1 };
        let lead = mine.saturating_sub(self.stats[other].load.get());
        let stats = &self.stats[other];
        let has_room = stats.connections_active.get() < connections_max as u64;
        let is_open = stats.ready.get() == 1;
        (is_open && has_room && lead >= LEAD_MIN && dice.below(mine) < lead).then_some(other)
    }

    /// Leaves a connection to another core.
    ///
    /// # Errors
    /// Gives it back when that core has too many waiting.
    pub fn hand(&self, to: usize, handed: Handed) -> Result<(), Handed> {
        self.boxes[to].post(handed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Core 0's view of cores with these loads.
    fn view(loads: &[u64], ready: u64) -> Neighbours {
        let stats: Vec<Arc<CoreStats>> = loads.iter().map(|_| Arc::default()).collect();
        for (core, load) in stats.iter().zip(loads) {
            core.load.set(*load);
            core.ready.set(ready);
        }
        among(&stats).expect("socket pairs").swap_remove(0).0
    }

    /// How many of a thousand connections core 0 leaves to each core.
    fn left(loads: &[u64]) -> Vec<usize> {
        let (neighbours, mut dice) = (view(loads, 1), Rng::seeded(5));
        let mut counts = vec![0; loads.len()];
        for _ in 0..1000 {
            counts[neighbours.idler(&mut dice, 10).unwrap_or(0)] += 1;
        }
        counts
    }

    #[test]
    fn a_busier_core_leaves_connections_to_idler_ones_in_the_measure_of_their_lead() {
        assert_eq!(left(&[900]), [1000]);
        assert_eq!(left(&[90, 0]), [1000, 0], "a core that does next to nothing keeps what it gets");
        assert_eq!(left(&[500, 450]), [1000, 0], "a small lead is noise");
        assert_eq!(left(&[100, 900]), [1000, 0]);
        let half = left(&[800, 400])[1];
        assert!((430..570).contains(&half), "{half}");
        let counts = left(&[1000, 0, 1000, 0]);
        assert!(counts[1] > 280 && counts[3] > 280 && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn a_core_that_accepts_no_more_is_left_nothing() {
        let (neighbours, mut dice) = (view(&[900, 0], 0), Rng::seeded(1));
        assert!((0..100).all(|_| neighbours.idler(&mut dice, 10).is_none()));
    }

    #[test]
    fn a_core_that_has_as_many_as_it_may_is_left_nothing() {
        let (neighbours, mut dice) = (view(&[900, 0], 1), Rng::seeded(1));
        neighbours.stats[1].connections_active.set(9);
        assert!((0..100).any(|_| neighbours.idler(&mut dice, 10).is_some()));
        neighbours.stats[1].connections_active.set(10);
        assert!((0..100).all(|_| neighbours.idler(&mut dice, 10).is_none()));
    }
}
