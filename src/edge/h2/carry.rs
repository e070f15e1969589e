//! The bytes of an HTTP/2 connection, to and from what speaks it, until it ends: the same for clients and nodes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::edge::Hall;
use crate::proto::h2::wire::Outlet;
use crate::runtime::deadline::Watch;
use crate::runtime::limits::LINGER;
use crate::runtime::socket::{Reader, Socket, Writer};

/// Carries a connection to its end. `listen` takes in what comes and ends when nothing more does, `talk` speaks for us; what
/// comes out of `outlet` is sent, and then the end. Where nothing goes on (`is_idle`) no memory is held.
pub(super) async fn carry(
    hall: &Hall,
    socket: &mut Socket,
    outlet: &impl Outlet,
    is_idle: impl Fn() -> bool,
    listen: impl AsyncFnOnce(&mut Reader),
    talk: impl Future<Output = ()>,
) {
    let watch = std::rc::Rc::clone(socket.watch());
    let (mut reader, mut writer) = (socket.reader.lend(), socket.writer.lend());
    {
        let mut listening = pin!(listen(&mut reader));
        let mut has_listened = {
            let mut talking = pin!(talk);
            let mut telling = pin!(tell(hall, &watch, &mut writer, outlet, is_idle));
            let (mut has_listened, mut has_talked) = (false, false);
            poll_fn(|cx| {
                has_listened = has_listened || listening.as_mut().poll(cx).is_ready();
                has_talked = has_talked || talking.as_mut().poll(cx).is_ready();
                telling.as_mut().poll(cx).map(|()| has_listened)
            })
            .await
        };
        outlet.close();
        socket.writer.take_back(writer);
        socket.finish_sending();
        watch.arm(&hall.core.wheel, LINGER);
        poll_fn(|cx| {
            has_listened = has_listened || listening.as_mut().poll(cx).is_ready();
            if has_listened { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    socket.reader.take_back(reader);
}

/// Sends what is to be said, until nothing more is.
async fn tell(
    hall: &Hall,
    watch: &std::rc::Rc<Watch>,
    writer: &mut Writer,
    outlet: &impl Outlet,
    is_idle: impl Fn() -> bool,
) {
    let core = &hall.core;
    let mut bytes = Vec::new();
    while poll_fn(|cx| outlet.poll_outgoing(cx, &mut bytes)).await {
        watch.arm(&core.wheel, core.limits.write_timeout);
        let (sent, returned) = writer.send(bytes, 0, core.sending()).await;
        watch.disarm();
        if sent.is_err() {
            return;
        }
        bytes = if is_idle() { Vec::new() } else { returned };
    }
}
