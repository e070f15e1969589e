//! The active part of a connection, lent to it while there is something to do.
//!
//! What serves requests is one large future. A stage is such a future that never ends: it takes a connection,
//! serves what is at hand, puts the connection down and waits for another one. So a core needs as many as it
//! has requests in flight, however many connections rest, and a request allocates none.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Hall;
use super::h1::{self, Connection, Next};

/// Stages kept in stock, each some kilobytes.
const KEPT: usize = 256;

/// Where a connection changes hands.
#[derive(Default)]
struct Desk {
    given: Cell<Option<(Rc<Hall>, Box<Connection>)>>,
    done: Cell<Option<(Box<Connection>, Next)>>,
}

/// A future that serves one connection after the other.
struct Stage {
    desk: Rc<Desk>,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

impl Stage {
    fn new() -> Self {
        let desk = Rc::new(Desk::default());
        Self { work: Box::pin(work(Rc::clone(&desk))), desk }
    }

    /// Goes on until the connection was put down.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Connection>, Next)> {
        // It never ends: it is pending with a connection in hand, or with one put down.
        let _ = self.work.as_mut().poll(cx);
        self.desk.done.take().map_or(Poll::Pending, Poll::Ready)
    }
}

async fn work(desk: Rc<Desk>) {
    loop {
        // No waker is kept: whoever gives a connection polls next.
        let (hall, mut connection) = poll_fn(|_| desk.given.take().map_or(Poll::Pending, Poll::Ready)).await;
        let next = h1::attend(&hall, &mut connection).await;
        drop(hall);
        desk.done.set(Some((connection, next)));
    }
}

/// The stages of one core that nobody uses.
#[derive(Default)]
pub(super) struct Stages(RefCell<Vec<Stage>>);

impl Stages {
    /// Serves a connection on a lent stage.
    pub(super) async fn serve(hall: &Rc<Hall>, connection: Box<Connection>) -> (Box<Connection>, Next) {
        let mut stage = hall.stages.0.borrow_mut().pop().unwrap_or_else(Stage::new);
        stage.desk.given.set(Some((Rc::clone(hall), connection)));
        let outcome = poll_fn(|cx| {
            let _polling = hall.core.polling();
            stage.poll(cx)
        })
        .await;
        // One that panicked does not come here: it is dropped with its connection.
        let mut stock = hall.stages.0.borrow_mut();
        if stock.len() < KEPT {
            stock.push(stage);
        } else {
            hall.core.note_spill();
        }
        outcome
    }
}
