//! How fast bodies pass, where a plugin says so.

use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use crate::base::clock::Moment;

/// Least that is passed on in a piece.
const PIECE_BYTES_MIN: u64 = 1024;
/// A piece takes no more than one part in so many of a second.
const PIECES_A_SECOND: u64 = 10;

/// Who slows a body down.
pub trait Pace: Debug {
    /// Counts bytes that are about to pass; how long they have to wait before they may.
    fn pass(&self, now: Moment, bytes: u64) -> Duration;

    /// How many bytes a second it comes to, if it has any wait.
    fn bytes_a_second(&self) -> Option<u64>;
}

/// The bodies of one exchange: `None` is as fast as it goes.
#[derive(Debug, Default)]
pub struct Paces {
    pub up: Option<Rc<dyn Pace>>,
    pub down: Option<Rc<dyn Pace>>,
}

impl Paces {
    /// Slows a body down by one more.
    pub fn add(place: &mut Option<Rc<dyn Pace>>, pace: Rc<dyn Pace>) {
        *place = Some(match place.take() {
            None => pace,
            Some(other) => Rc::new(Both(other, pace)),
        });
    }

    /// As fast as it goes again.
    pub fn clear(&mut self) {
        (self.up, self.down) = (None, None);
    }
}

/// How many bytes of a body are received at once, so that a slow one comes evenly.
pub fn piece_bytes_max(pace: &dyn Pace) -> usize {
    pace.bytes_a_second().map_or(usize::MAX, |rate| (rate / PIECES_A_SECOND).max(PIECE_BYTES_MIN) as usize)
}

/// Two that both have to be waited for.
#[derive(Debug)]
struct Both(Rc<dyn Pace>, Rc<dyn Pace>);

impl Pace for Both {
    fn pass(&self, now: Moment, bytes: u64) -> Duration {
        self.0.pass(now, bytes).max(self.1.pass(now, bytes))
    }

    fn bytes_a_second(&self) -> Option<u64> {
        self.0.bytes_a_second().into_iter().chain(self.1.bytes_a_second()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u64, Option<u64>);

    impl Pace for Fixed {
        fn pass(&self, _: Moment, bytes: u64) -> Duration {
            Duration::from_millis(self.0 * bytes)
        }

        fn bytes_a_second(&self) -> Option<u64> {
            self.1
        }
    }

    #[test]
    fn the_slowest_of_several_sets_the_pace() {
        let mut paces = Paces::default();
        assert_eq!(piece_bytes_max(&Fixed(1, None)), usize::MAX);
        for (millis, rate) in [(3, Some(500_000)), (7, None), (5, Some(100_000))] {
            Paces::add(&mut paces.up, Rc::new(Fixed(millis, rate)));
        }
        assert_eq!(paces.up.as_ref().unwrap().pass(Moment::ZERO, 2), Duration::from_millis(14));
        assert_eq!(piece_bytes_max(&**paces.up.as_ref().unwrap()), 10_000);
        Paces::add(&mut paces.up, Rc::new(Fixed(1, Some(1))));
        assert_eq!(piece_bytes_max(&**paces.up.as_ref().unwrap()), 1024);
        paces.clear();
        assert!(paces.up.is_none() && paces.down.is_none());
    }
}
