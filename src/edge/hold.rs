//! A request body that is gathered before it goes on, because a plugin wants to see it.

use std::rc::Rc;

use super::pipeline::{Run, chain_of};
use super::proxy::upload_fault;
use super::respond;
use crate::exchange::Body;
use crate::plugin::Verdict;

impl Run<'_> {
    /// How much of the request's body is to be held at most, if a plugin wants to see it.
    pub(super) fn body_to_hold(&self) -> Option<usize> {
        let chain = chain_of(&self.view, self.route, self.merged.as_ref());
        let own = chain.and_then(|chain| chain.request_body_max());
        let asked = Some(self.ex.request.held_body_bytes_max).filter(|bytes_max| *bytes_max > 0);
        self.view.global.request_body_max().max(own).max(asked)
    }

    /// Finds the route where one's `vars` ask what the body says: holds it, and looks again. Whoever may call, so no more is read
    /// than `limits.routed_body_bytes`: a longer one says nothing, and goes to a route that takes it as it comes.
    pub(super) async fn find_route_by_body(&mut self) -> Verdict {
        let most = self.hall.core.limits.routed_body_bytes;
        if self.ex.request.content_length.is_none_or(|length| length <= most as u64)
            && let Verdict::Reply(reply) = self.hold_up_to(self.hall.core.limits.held_body_bytes).await
        {
            return Verdict::Reply(reply);
        }
        if matches!(&self.ex.request.body, Body::Held(body) if body.len() > most) {
            let unread = std::mem::take(&mut self.ex.request.body);
            self.find_route(false);
            self.ex.request.body = unread;
        } else {
            self.ex.request.read = Some(Box::default());
            self.find_route(false);
            self.ex.request.read = None;
        }
        Verdict::Next
    }

    pub(super) async fn hold_up_to(&mut self, wish: usize) -> Verdict {
        let bytes_max = wish.min(self.hall.core.limits.held_body_bytes);
        if self.upload.is_done() {
            return Verdict::Next;
        }
        let core = &self.hall.core;
        let socket = &mut self.connection.socket;
        let watch = Rc::clone(socket.watch());
        if self.upload.awaits_continue() {
            let mut out = core.buffers.small();
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            let (_, out) = socket.writer.send(out, 0, core.sending()).await;
            core.buffers.give_back(out);
            self.upload.continued();
        }
        let max = self.ex.request.body_bound(core.limits.body_bytes_max);
        self.upload.limit(if max == 0 { bytes_max as u64 } else { max.min(bytes_max as u64) });
        let received = self.ex.request.headers.received();
        match self.upload.hold(core, received, &mut socket.reader, &watch).await {
            Ok(body) => {
                self.ex.request.body = Body::Held(body);
                Verdict::Next
            }
            Err(fault) => {
                let fault = upload_fault(&fault, watch.fired());
                Verdict::Reply(respond::to_fault(&mut self.ex, fault))
            }
        }
    }
}
