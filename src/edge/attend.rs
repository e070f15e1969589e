//! Gates that have a request wait for its turn: whoever has left meanwhile is not waited for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::plugin::Verdict;
use crate::runtime::Core;
use crate::runtime::socket::Socket;

/// What gates come to; `None` when they have the request wait for its turn and its client has left. Whatever else they wait
/// for has an end of its own, and is not given up.
pub(super) async fn gates(
    core: &Core,
    client: &Socket,
    gates: impl Future<Output = Verdict>,
) -> Option<Verdict> {
    let mut gates = pin!(gates);
    poll_fn(|cx| {
        core.turns.forget();
        match gates.as_mut().poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(Some(verdict)),
            Poll::Pending if core.turns.is_waited_for() && client.has_left() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
