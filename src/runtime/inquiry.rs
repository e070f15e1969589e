//! Asking the control side from a core, and waiting for the answer as for a peer: within a deadline, and not too often at once.

use std::io;
use std::time::Duration;

use monoio::net::TcpStream;

use super::Core;
use super::socket::Socket;
use crate::link::inquiry::{Awaited, Subject, inquiry};
use crate::link::outbox::Report;

/// Questions of a core that are under way. Each has two descriptors, and an answer may be megabytes.
pub const INQUIRIES_MAX: usize = 4;
/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Counts a question as under way for as long as it is held.
struct Asking<'a>(&'a Core);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.set(self.0.asking.get() - 1);
    }
}

/// What the control side says; `None` where too much is asked already, it does not answer in time, or there is none, as where
/// configurations are tried.
pub async fn ask(core: &Core, subject: Subject) -> Option<Vec<u8>> {
    if core.detour.is_some() || core.asking.get() >= INQUIRIES_MAX {
        return None;
    }
    core.asking.set(core.asking.get() + 1);
    let _asking = Asking(core);
    let (question, awaited) = inquiry(subject).ok()?;
    if core.outbox.send(Report::Asked(question)).is_err() {
        core.stats.report_drops.add(1);
        return None;
    }
    wait(core, awaited).await.ok().flatten()
}

async fn wait(core: &Core, awaited: Awaited) -> io::Result<Option<Vec<u8>>> {
    let (bell, answer) = awaited.into_parts();
    let stream = std::net::TcpStream::from(bell);
    stream.set_nonblocking(monoio::utils::is_legacy())?;
    // For the loop one stream is like another: it knows them by their number.
    let mut socket = Socket::new(TcpStream::from_std(stream)?, &core.wheel);
    socket.watch().arm(&core.wheel, PATIENCE);
    socket.readable().await?;
    Ok(answer.take())
}
