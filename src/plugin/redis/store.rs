//! A Redis that keeps counters, and what is taken from it and must be given back.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Call, CompileCx, ConfigError, Script, Written};
use crate::base::clock::Moment;
use crate::base::hash::stable;
use crate::proto::resp::{self, Reply};
use crate::runtime::chore::{Chore, Chores};
use crate::runtime::redis::{Answer, Ask, Failure, Line, Manner, Target};
use crate::runtime::{Core, LocalId};

/// Waits before what is to be given back is tried again: the first, and the longest.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// A Redis that keeps counters. Uses that write the same of it share a line on each core.
#[derive(Debug)]
pub struct Store {
    target: Target,
    line: LocalId,
    within: Duration,
}

impl Store {
    pub(super) fn compile(written: &Written<'_>, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let Some(host) = written.host else { return Err(ConfigError::new("redis_host is required")) };
        if written.ssl {
            return Err(ConfigError::at("redis_ssl", "TLS is not spoken with Redis yet"));
        }
        let mut hello = Vec::new();
        let mut hello_count = 0;
        if let Some(password) = written.password.filter(|password| !password.is_empty()) {
            let words = [Some("AUTH"), written.username, Some(password)];
            let words: Vec<&[u8]> = words.into_iter().flatten().map(str::as_bytes).collect();
            resp::write_command(&mut hello, &words);
            hello_count += 1;
        }
        if written.database > 0 {
            resp::write_command(&mut hello, &[b"SELECT", written.database.to_string().as_bytes()]);
            hello_count += 1;
        }
        let addresses = cx.addresses("redis_host", host);
        let idle = Duration::from_millis(written.keepalive.u64());
        let target = Target {
            name: format!("{host}:{}", written.port),
            addresses: addresses.into_iter().map(|ip| SocketAddr::new(ip, written.port)).collect(),
            manner: Manner { hello, hello_count, idle },
        };
        let within = Duration::from_millis(written.timeout.u64());
        let line = cx.local_of("redis", stable(format!("{target:?}").as_bytes()));
        Ok(Self { target, line, within })
    }

    /// Until when a request that comes now is ready to wait, for all that it asks.
    pub fn patience(&self, core: &Core) -> Moment {
        core.now().plus(self.within)
    }

    /// Runs a script on one key; the numbers it says.
    ///
    /// # Errors
    /// Why there are none, when `until` is over at the latest.
    pub async fn run(
        &self,
        core: &Core,
        (script, call): (&Script, Call<'_>),
        until: Moment,
    ) -> Result<Vec<i64>, Failure> {
        let mut reply = self.ask(core, Ask::new(script.by_digest(call)), until).await?;
        if matches!(&reply, Reply::Error(why) if why.starts_with("NOSCRIPT")) {
            reply = self.ask(core, Ask::new(script.whole(call)), until).await?;
        }
        let told = match reply {
            Reply::List(members) => members
                .into_iter()
                .map(|one| if let Reply::Number(number) = one { Some(number) } else { None })
                .collect(),
            Reply::Error(why) => return Err(self.misused(core, Failure::Refused(why))),
            Reply::Text(_) | Reply::Number(_) | Reply::Nothing => None,
        };
        told.ok_or_else(|| self.misused(core, Failure::Garbage))
    }

    async fn ask(&self, core: &Core, ask: Ask, until: Moment) -> Answer {
        core.local(self.line, Line::default).ask(core, &self.target, ask, until).await
    }

    fn misused(&self, core: &Core, failure: Failure) -> Failure {
        core.local(self.line, Line::default).misused(core, &self.target, failure)
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
