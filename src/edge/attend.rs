//! Gates that have a request wait for its turn: whoever has left meanwhile is not waited for.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::plugin::Verdict;
use crate::runtime::Core;
use crate::runtime::socket::Socket;

/// Polls gates. They come to `None` when they have the request wait for its turn and its client has left. Whatever else they
/// wait for has an end of its own, and is not given up.
pub(super) fn poll(
    core: &Core,
    client: &Socket,
    gates: Pin<&mut impl Future<Output = Verdict>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Verdict>> {
    core.turns.forget();
    match gates.poll(cx) {
        Poll::Ready(verdict) => Poll::Ready(Some(verdict)),
        Poll::Pending if core.turns.is_waited_for() && client.has_left() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}
