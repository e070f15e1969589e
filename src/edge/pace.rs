//! Waiting for a body's turn, where a plugin has it pass slowly: the piece at hand waits, and with it whoever sends more.
//!
//! What waits here is nobody's fault, so the deadlines of both sockets are put off by as long. A socket that breaks meanwhile
//! ends the wait, within about a second.

use std::rc::Rc;
use std::time::Duration;

use super::pipeline::Run;
use super::proxy::Plan;
use crate::exchange::{Pace, piece_bytes_max};
use crate::runtime::Core;
use crate::runtime::deadline::Watch;
use crate::runtime::pool::Leased;

/// Waits shorter than this are not worth a timer: they are owed, and waited for with what comes next.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// So often somebody looks whether there is still somebody to wait for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sockets that are quiet meanwhile, with what is left of their patience afterwards.
pub(super) type Quiet<'a> = [(&'a Rc<Watch>, Duration); 2];

/// Counts bytes, and waits until they may pass.
pub(super) async fn turn(core: &Core, pace: &dyn Pace, bytes: usize, quiet: Quiet<'_>) {
    if bytes == 0 {
        return;
    }
    let mut left = pace.pass(core.now(), bytes as u64);
    if left < WAIT_MIN {
        return;
    }
    for (watch, patience) in quiet {
        watch.arm(&core.wheel, left + patience);
    }
    while !left.is_zero() && !quiet.iter().any(|(watch, _)| watch.fired() || watch.is_abandoned()) {
        let step = left.min(LOOK_EVERY);
        core.sleep(step).await;
        left -= step;
    }
}

impl Run<'_> {
    /// Sends an answer that is here in whole, the head at once, the body at its pace.
    pub(super) async fn send_whole_slowly(
        &mut self,
        head: Vec<u8>,
        body: &[u8],
        pace: &dyn Pace,
    ) -> Result<(), ()> {
        self.send(head, 0).await?;
        let (sent, _) = self.send_slowly((body.to_vec(), 0), pace, None).await;
        sent
    }

    /// Sends what is in a buffer in pieces, each of which waits for its turn. Who sends it waits as well.
    pub(super) async fn send_slowly(
        &mut self,
        (buffer, from): (Vec<u8>, usize),
        pace: &dyn Pace,
        node: Option<(&Plan<'_>, &Leased)>,
    ) -> (Result<(), ()>, Vec<u8>) {
        let core = &self.hall.core;
        let client = Rc::clone(self.connection.socket.watch());
        let client = (&client, core.limits.write_timeout);
        let node = node.map(|(plan, leased)| (leased.socket.watch(), plan.within(core, plan.timeouts.read)));
        let mut piece = core.buffers.large();
        let mut sent = Ok(());
        for bytes in buffer[from..].chunks(piece_bytes_max(pace).min(piece.capacity())) {
            turn(core, pace, bytes.len(), [client, node.unwrap_or(client)]).await;
            piece.clear();
            piece.extend_from_slice(bytes);
            (sent, piece) = self.send_keeping(piece, 0).await;
            if sent.is_err() {
                break;
            }
        }
        core.buffers.give_back(piece);
        (sent, buffer)
    }
}
