//! What is asked of the process itself over the control socket: to read resources again, or to end. The same as the
//! signals ask for, and answered: a reload when every core serves it, or with all that is wrong.

use tokio::sync::{mpsc, oneshot};

use super::signals::{Signal, Stage};
use super::source::file::Source;
use super::store::Author;
use super::write::{Done, Refusal};
use super::{Control, admin, log};
use crate::base::clock::Moment;

/// Wishes that may wait for the loop.
const WAITING_MAX: usize = 16;

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// As `HUP`.
    Reload,
    /// As `QUIT`: nothing more is accepted, and what is open is served to its end.
    Quit,
    /// At once: what is open is cut.
    Stop,
}

/// A wish on its way.
pub(crate) struct Asked {
    wish: Wish,
    author: Author,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

/// Where wishes are brought to.
#[derive(Clone, Debug)]
pub(crate) struct Helm(mpsc::Sender<Asked>);

impl Helm {
    /// A helm, and its other side.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has it done. A reload is answered when every core serves what was read, an end when it has begun.
    pub(crate) async fn wish(&self, wish: Wish, author: Author) -> Result<Done, Refusal> {
        let (reply, answer) = oneshot::channel();
        let ended = || Refusal::new(503, "the gateway is ending");
        self.0.send(Asked { wish, author, reply }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Control {
    /// Reads again what was read: resources, and what stores of secrets say.
    pub(super) fn reload(&mut self, now: Moment) {
        if self.secrets.ask_all_again() {
            log::info("stores of secrets are asked again");
        }
        match &mut self.resources {
            Some(Source(watch)) => {
                log::info(format!(
                    "reading {} again; settings are read at start only",
                    watch.path().display()
                ));
                let change = watch.force();
                let _ = self.on_change(change, now);
            }
            None if self.etcd.is_some() => log::info("nothing to read again: etcd tells of every change"),
            None => log::warn("nothing to read again: there is no file of resources"),
        }
    }

    /// Does what somebody wishes, or says why not.
    pub(super) fn on_wish(&mut self, asked: Asked, now: Moment) {
        let Asked { wish, author, reply } = asked;
        let done = Done { revision: admin::held(&self.holdings.store).revision(), warnings: Vec::new() };
        log::info(format!("{} wishes: {wish:?}", author.who));
        match wish {
            Wish::Reload => match self.reload_now(now) {
                Err(refusal) => drop(reply.send(Err(refusal))),
                Ok(()) => self.unanswered.push_back((self.board.generation(), (done, reply))),
            },
            Wish::Quit => {
                self.on_signal(Signal::Quit, now);
                let _ = reply.send(Ok(done));
            }
            Wish::Stop => {
                self.board.drain();
                self.stop(now, Signal::Terminate);
                let _ = reply.send(Ok(done));
            }
        }
    }

    /// Reads the resources again, if a file holds them and there is a future.
    fn reload_now(&mut self, now: Moment) -> Result<(), Refusal> {
        if self.stage != Stage::Serving {
            return Err(Refusal::new(409, "the gateway is on its way out: nothing is read again"));
        }
        let Some(Source(watch)) = &mut self.resources else {
            let why = match &self.etcd {
                Some(_) => "nothing to read again: etcd tells of every change",
                None => {
                    "nothing to read again: objects are held in the store, and a change is in force when it is answered"
                }
            };
            return Err(Refusal::new(409, why));
        };
        let change = watch.force();
        self.on_change(change, now).map_err(|faults| {
            let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let stays = self.board.generation();
            let message = format!("configuration refused; {stays} stays: {}", told.join("; "));
            Refusal { status: 400, message, faults }
        })
    }
}
