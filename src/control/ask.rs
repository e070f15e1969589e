//! Questions to the control loop: what is in force is known there, and nowhere else.

use tokio::sync::{mpsc, oneshot};

use crate::snapshot::Compiler;

/// Questions that may wait for the loop; beyond, whoever asks waits at the door.
const WAITING_MAX: usize = 16;

/// A question on its way: it is run on the loop, so it looks and does nothing else.
pub(crate) type Question = Box<dyn FnOnce(&Compiler) + Send>;

/// Where questions are put.
#[derive(Clone, Debug)]
pub(crate) struct Booth(mpsc::Sender<Question>);

impl Booth {
    /// A booth, and its other side.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// What the loop knows; `None` when it has ended.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Compiler) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let question = Box::new(move |compiler: &Compiler| {
            // Whoever asked may have gone.
            let _ = reply.send(look(compiler));
        });
        self.0.send(question).await.ok()?;
        answer.await.ok()
    }
}
