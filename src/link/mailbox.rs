//! To a core: orders of the control thread, and connections of other cores; in sequence, with a wake-up for a core that
//! sleeps in the kernel.
//!
//! The queue is short and bounded. A sender that finds it full gets back what it sent: the control thread tries again
//! later, a core keeps its connection. The wake-up is a byte through a socket pair, so no future is ever woken from
//! a foreign thread.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Orders a core may have waiting. It empties the box at every wake-up, so more means the core is stuck.
pub const ORDERS_MAX: usize = 64;

/// The sender's end; several threads may use it.
#[derive(Debug)]
pub struct Mailbox<T> {
    orders: Sender<T>,
    bell: UnixStream,
}

/// The core's end: drain `orders` whenever a byte arrives at `bell`.
#[derive(Debug)]
pub struct Letterbox<T> {
    pub orders: Receiver<T>,
    pub bell: UnixStream,
}

/// Makes both ends.
///
/// # Errors
/// When the system has no socket pair to give.
pub fn mailbox<T>() -> io::Result<(Mailbox<T>, Letterbox<T>)> {
    let (orders, inbox) = bounded(ORDERS_MAX);
    let (bell, hears) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    Ok((Mailbox { orders, bell }, Letterbox { orders: inbox, bell: hears }))
}

impl<T> Mailbox<T> {
    /// Posts an order and wakes the core.
    ///
    /// # Errors
    /// Gives the order back when the box is full or the core is gone.
    pub fn post(&self, order: T) -> Result<(), T> {
        match self.orders.try_send(order) {
            Ok(()) => {
                self.ring();
                Ok(())
            }
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                self.ring();
                Err(order)
            }
        }
    }

    /// A full bell pipe means the core has wake-ups waiting already, so a failed write loses nothing.
    fn ring(&self) {
        let _ = (&self.bell).write(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn orders_arrive_in_sequence_and_ring_the_bell() {
        let (mailbox, mut letterbox) = mailbox().expect("a socket pair");
        mailbox.post(1).expect("room");
        mailbox.post(2).expect("room");
        let mut rung = [0; 8];
        assert!(letterbox.bell.read(&mut rung).expect("a byte") >= 1);
        assert_eq!(letterbox.orders.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_full_box_gives_the_order_back() {
        let (mailbox, letterbox) = mailbox().expect("a socket pair");
        for order in 0..ORDERS_MAX {
            mailbox.post(order).expect("room");
        }
        assert_eq!(mailbox.post(99), Err(99));
        assert_eq!(letterbox.orders.len(), ORDERS_MAX);
    }
}
