//! A tunnel after `101`: from here on bytes are passed both ways (`relay.rs`).

use super::pipeline::{After, Run};
use super::relay::{self, Patience};
use crate::runtime::pool::Leased;

impl Run<'_> {
    /// Joins the client's connection with the upstream's until both are done.
    pub(super) async fn tunnel(&mut self, mut leased: Leased) -> After {
        let core = &self.hall.core;
        let patience =
            Patience { sending: core.limits.tunnel_timeout, receiving: core.limits.tunnel_timeout };
        // What the client sent behind its request was held back until now.
        let early = self.ex.request.headers.received()[self.ex.request.line.head.end()..].to_vec();
        // A tunnel may last for days, with heads that nobody changes any more.
        for headers in [&mut self.ex.request.headers, &mut self.ex.response.headers] {
            core.buffers.give_back(headers.compact());
        }
        let client = &mut self.connection.socket;
        core.stats.tunnels_active.add(1);
        let passed = relay::relay(core, client, &mut leased.socket, early, patience).await;
        core.stats.tunnels_active.sub(1);
        self.ex.bytes_in += passed.up;
        self.ex.bytes_out += passed.down;
        After::Close
    }
}
