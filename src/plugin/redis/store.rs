//! A Redis that keeps counters, and what is taken from it and must be given back.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Call, CompileCx, Script};
use crate::base::clock::Moment;
use crate::base::hash::stable;
use crate::exchange::{Exchange, SlotId};
use crate::proto::resp::Reply;
use crate::runtime::chore::{Chore, Chores};
use crate::runtime::redis::{Answer, Ask, Cluster, Failure, Line, Seeds, Target};
use crate::runtime::{Core, LocalId};

/// Waits before what is to be given back is tried again: the first, and the longest.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// A Redis that keeps counters, or a cluster. Uses that write the same of it share lines on each core.
#[derive(Debug)]
pub struct Store {
    way: Way,
    /// The line, or the cluster, on each core.
    state: LocalId,
    within: Duration,
    waited: SlotId,
}

/// How long a request has waited for answers so far, of whatever Redis.
#[derive(Debug, Default)]
struct Waited(Duration);

#[derive(Debug)]
enum Way {
    Single(Target),
    Cluster(Seeds),
}

impl Store {
    pub(super) fn single(target: Target, within: Duration, cx: &mut CompileCx<'_>) -> Self {
        let state = cx.local_of("redis", stable(format!("{target:?}").as_bytes()));
        Self { way: Way::Single(target), state, within, waited: cx.slot_of("redis") }
    }

    pub(super) fn of_many(seeds: Seeds, within: Duration, cx: &mut CompileCx<'_>) -> Self {
        let state = cx.local_of("redis-cluster", stable(format!("{seeds:?}").as_bytes()));
        Self { way: Way::Cluster(seeds), state, within, waited: cx.slot_of("redis") }
    }

    /// Until when somebody is ready to wait for an answer who has waited for none before.
    pub fn patience(&self, core: &Core) -> Moment {
        core.now().plus(self.within)
    }

    /// Until when a request is, after all that it has waited for answers: several plugins together wait no longer than
    /// one alone.
    pub fn patience_of(&self, core: &Core, ex: &mut Exchange) -> Moment {
        core.now().plus(self.within.saturating_sub(ex.slots.of::<Waited>(self.waited).0))
    }

    /// Takes note that a request has waited for an answer.
    pub fn note_wait(&self, core: &Core, ex: &mut Exchange, since: Moment) {
        ex.slots.of::<Waited>(self.waited).0 += core.now().since(since);
    }

    /// Runs a script on one key; the numbers it says. It may run twice, where it is not known what became of the first
    /// time.
    ///
    /// # Errors
    /// Why there are none, when `until` is over at the latest.
    pub async fn run(
        &self,
        core: &Core,
        program: (&Script, Call<'_>),
        until: Moment,
    ) -> Result<Vec<i64>, Failure> {
        self.run_as(core, program, until, Ask::new).await
    }

    /// The same for a script that never runs twice.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn run_once(
        &self,
        core: &Core,
        program: (&Script, Call<'_>),
        until: Moment,
    ) -> Result<Vec<i64>, Failure> {
        self.run_as(core, program, until, Ask::once).await
    }

    async fn run_as(
        &self,
        core: &Core,
        (script, call): (&Script, Call<'_>),
        until: Moment,
        ask: fn(Vec<u8>) -> Ask,
    ) -> Result<Vec<i64>, Failure> {
        let mut reply = self.ask(core, call.key, ask(script.by_digest(call)), until).await?;
        if matches!(&reply, Reply::Error(why) if why.starts_with("NOSCRIPT")) {
            reply = self.ask(core, call.key, ask(script.whole(call)), until).await?;
        }
        let told = match reply {
            Reply::List(members) => members
                .into_iter()
                .map(|one| if let Reply::Number(number) = one { Some(number) } else { None })
                .collect(),
            Reply::Error(why) => return Err(self.misused(core, call.key, Failure::Refused(why))),
            Reply::Text(_) | Reply::Number(_) | Reply::Nothing => None,
        };
        told.ok_or_else(|| self.misused(core, call.key, Failure::Garbage))
    }

    async fn ask(&self, core: &Core, key: &[u8], ask: Ask, until: Moment) -> Answer {
        match &self.way {
            Way::Single(target) => core.local(self.state, Line::default).ask(core, target, ask, until).await,
            Way::Cluster(seeds) => {
                core.local(self.state, Cluster::default).ask(core, (seeds, key), ask, until).await
            }
        }
    }

    fn misused(&self, core: &Core, key: &[u8], failure: Failure) -> Failure {
        match &self.way {
            Way::Single(target) => core.local(self.state, Line::default).misused(core, target, failure),
            Way::Cluster(seeds) => {
                core.local(self.state, Cluster::default).misused(core, (seeds, key), failure)
            }
        }
    }
}

/// Something of a Redis that comes back when this is dropped, whatever becomes of the request: nobody waits for that, and
/// it is tried until Redis has heard it, or would have forgotten it anyway.
#[derive(Debug)]
pub struct Borrowed {
    chores: Rc<Chores>,
    debt: RefCell<Option<Box<Debt>>>,
    doubtful: Cell<bool>,
}

/// What is to be given back.
#[derive(Debug)]
struct Debt {
    store: Arc<Store>,
    script: Arc<Script>,
    key: Vec<u8>,
    name: Vec<u8>,
    doubtful: bool,
    forgotten: Duration,
}

impl Borrowed {
    /// What `name` is about to take of `key`. It comes back by `script`, which is told the milliseconds for which it is
    /// to remember that a doubtful one came back, whether this is one, and the name; after `forgotten` it is free by itself.
    pub fn new(
        core: &Core,
        (store, script): (&Arc<Store>, &Arc<Script>),
        (key, name): (Vec<u8>, Vec<u8>),
        forgotten: Duration,
    ) -> Self {
        let (store, script) = (Arc::clone(store), Arc::clone(script));
        let debt = Box::new(Debt { store, script, key, name, doubtful: true, forgotten });
        Self { chores: Rc::clone(&core.chores), debt: RefCell::new(Some(debt)), doubtful: Cell::new(true) }
    }

    /// It is known to have been taken.
    pub fn is_certain(&self) {
        self.doubtful.set(false);
    }

    /// It is known not to have been.
    pub fn is_not(&self) {
        self.debt.take();
    }

    /// Gives it back, once.
    pub fn give_back(&self) {
        let Some(mut debt) = self.debt.take() else { return };
        debt.doubtful = self.doubtful.get();
        // Where there is no room, which is counted, it is free when its time is over.
        drop(self.chores.give(debt));
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// For how long Redis remembers that something came back before it was taken: what is still on its way to it was sent on
/// a connection that has been shut down.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Debt {
    async fn pay(&self, core: &Core) {
        let (begun, mut again) = (core.now(), AGAIN);
        let numbers = [REMEMBERED.as_millis() as u64, u64::from(self.doubtful)];
        let call = Call { key: &self.key, numbers: &numbers, text: Some(&self.name) };
        loop {
            let until = self.store.patience(core);
            if self.store.run(core, (&self.script, call), until).await.is_ok() {
                return;
            }
            if core.now().since(begun) >= self.forgotten || core.chores.is_hurried() {
                core.stats.redis_returns_lost.add(1);
                return;
            }
            core.chores.rest(core, again).await;
            again = (again * 2).min(AGAIN_MAX);
        }
    }
}

impl Chore for Debt {
    fn run<'a>(self: Box<Self>, core: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move { self.pay(core).await })
    }
}
