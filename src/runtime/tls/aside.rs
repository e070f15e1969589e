//! Steps of handshakes that would hold a core up for milliseconds, as a signature by a long key of RSA does: threads beside the
//! cores take them, and meanwhile the core serves everybody else.
//!
//! They take no more than they can do: a turnstile lets nobody in while as many steps wait as there are threads.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use monoio::io::AsyncReadRent as _;

use super::session::{Away, Fault, Session};
use super::stock::Stock;

/// Steps of the process that wait for a thread at most; beyond, a core takes them itself. One holds some 40 KiB and two descriptors.
const WAITING_MAX: usize = 64;

/// The way to the threads beside the cores, if there are any.
#[derive(Clone, Debug, Default)]
pub struct Aside(Option<Threads>);

#[derive(Clone, Debug)]
struct Threads {
    steps: Sender<Step>,
    count: usize,
}

/// A step to be taken.
struct Step {
    session: Away,
    done: Sender<Done>,
    /// A byte through it wakes the core; so does its end.
    bell: UnixStream,
}

/// A session, and whether its handshake is over.
type Done = (Away, Result<bool, Fault>);

impl Aside {
    /// With so many threads, which end with the last that can give them anything. They run wherever the calling thread may.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (give, take) = bounded(WAITING_MAX);
        for number in 0..threads {
            let take = take.clone();
            thread::Builder::new().name(format!("aside-{number}")).spawn(move || serve(&take))?;
        }
        Ok(Self(Some(Threads { steps: give, count: threads })))
    }

    /// Whether a step would be taken soon; `None` where nobody takes any.
    pub(super) fn has_room(&self) -> Option<bool> {
        self.0.as_ref().map(|threads| threads.steps.len() < threads.count)
    }

    /// Goes on with a handshake as [`Session::shake`] does; `Err` with the session when nobody can take it.
    ///
    /// # Errors
    /// When nobody comes back with the session.
    pub(super) async fn shake(
        &self,
        session: Session,
        stock: &Rc<Stock>,
    ) -> io::Result<Result<(Session, Result<bool, Fault>), Session>> {
        let Some(threads) = &self.0 else { return Ok(Err(session)) };
        let (tell, done) = bounded(1);
        let (bell, hears) = UnixStream::pair()?;
        hears.set_nonblocking(monoio::utils::is_legacy())?;
        let mut hears = monoio::net::UnixStream::from_std(hears)?;
        let step = Step { session: session.leave(), done: tell, bell };
        if let Err(TrySendError::Full(step) | TrySendError::Disconnected(step)) = threads.steps.try_send(step)
        {
            return Ok(Err(step.session.arrive(stock)));
        }
        // Its end says as much as a byte.
        let _ = hears.read(vec![0; 1]).await;
        let lost = |_| io::Error::other("a step of a handshake was not taken to its end");
        let (session, shaken) = done.try_recv().map_err(lost)?;
        Ok(Ok((session.arrive(stock), shaken)))
    }
}

/// Takes steps until nobody can give any.
fn serve(steps: &Receiver<Step>) {
    let stock = Rc::default();
    for Step { session, done, mut bell } in steps {
        // Whoever waits hears the bell's end if there is nothing else to hear.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let mut session = session.arrive(&stock);
            let shaken = session.shake();
            (session.leave(), shaken)
        }));
        if let Ok(taken) = taken
            && done.send(taken).is_ok()
        {
            let _ = bell.write(&[1]);
        }
    }
}
