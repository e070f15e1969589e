//! What a client says before anybody is asked for an answer: its hello, where a name in it may decide the route, and what
//! plugins want to see.

use super::{Pass, Refusal};
use crate::proto::hello;
use crate::runtime::socket::Waited;

impl Pass<'_> {
    /// Learns which server the client asks for, if it speaks TLS. What else it says is as good as no name.
    pub(super) async fn learn_name(&mut self) -> Result<(), Refusal> {
        loop {
            match hello::peek(&self.ex.stream.received) {
                Ok(Some(hello)) => {
                    self.ex.stream.server_name.push_str(hello.server_name.as_deref().unwrap_or_default());
                    return Ok(());
                }
                // One who is silent may be waiting to be spoken to.
                Ok(None) if self.receive_more().await? => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }

    /// Waits for more of what the client says; false when it says nothing at all.
    pub(super) async fn receive_more(&mut self) -> Result<bool, Refusal> {
        let core = &self.hall.core;
        // A datagram is all there is.
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let mut received = std::mem::take(&mut self.ex.stream.received);
        if received.len() == received.capacity() {
            received = core.buffers.enlarge(received);
        }
        let most = core.limits.preread_bytes.min(received.capacity());
        let room = most.saturating_sub(received.len());
        if room == 0 {
            self.ex.stream.received = received;
            return Err(Refusal { status: 400, word: "preread_too_large" });
        }
        let socket = &mut connection.socket;
        let passed = core.now().since(self.ex.timing.received);
        socket.watch().arm_spare(&core.wheel, core.limits.preread_timeout.saturating_sub(passed));
        let (waited, received) = socket.receive_or_idle(received, room).await;
        socket.watch().disarm();
        socket.watch().forget_canceller();
        let is_silent = received.is_empty();
        self.ex.stream.received = received;
        match waited {
            Waited::Received(1..) => Ok(true),
            Waited::Received(0) | Waited::Idle if is_silent => Ok(false),
            Waited::Received(_) => Err(Refusal { status: 400, word: "preread_ended" }),
            Waited::Idle => Err(Refusal { status: 408, word: "preread_timeout" }),
            Waited::Failed(_) => Err(Refusal { status: 499, word: "client_gone" }),
        }
    }
}
