//! `limit-conn` with its seats in a Redis: for each key a sorted set of those who sit, by when their seats are free.
//!
//! Nobody knows what became of a question without an answer, so a seat is given back in any case. It may come back before
//! it was taken, when Redis hears of both late and in another order: then it is remembered for a while, below zero in the
//! same set, that this one is not to have a seat any more.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Judged, Limit, LimitConn, Place, WAIT_MAX, WAIT_MIN};
use crate::base::clock::Moment;
use crate::base::rng::Rng;
use crate::base::window::Seats;
use crate::exchange::{Exchange, Reply};
use crate::model::field::InRange;
use crate::plugin::limits::{AMOUNT_MAX, Till};
use crate::plugin::redis::{Borrowed, Call, Script, Store, WithoutRedis};
use crate::plugin::{CompileCx, Env, Verdict};
use crate::runtime::redis::Failure;
use crate::runtime::{Core, LocalId};

/// What the keys begin with.
const PREFIX: &str = "limit_conn:";

/// `most kept name`, times in milliseconds; whether there is a seat, and how many sit. Asked again it says the same.
const ENTER: &str = "\
local most, kept, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], -now, now)
local until_then = tonumber(redis.call('ZSCORE', KEYS[1], name) or nil)
local taken = redis.call('ZCOUNT', KEYS[1], now, '+inf')
if until_then then return {until_then > 0 and 1 or 0, taken} end
if taken >= most then return {0, taken} end
redis.call('ZADD', KEYS[1], now + kept, name)
if redis.call('PTTL', KEYS[1]) < kept then redis.call('PEXPIRE', KEYS[1], kept) end
return {1, taken + 1}";

/// `remembered doubtful name`.
const LEAVE: &str = "\
local remembered, doubtful, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
if redis.call('ZREM', KEYS[1], name) == 0 and doubtful == 1 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[1], -(now + remembered), name)
  if redis.call('PTTL', KEYS[1]) < remembered then redis.call('PEXPIRE', KEYS[1], remembered) end
end
return {1}";

/// Where seats are, and how they are taken and given back.
pub(super) struct Afar {
    store: Arc<Store>,
    enter: Script,
    leave: Arc<Script>,
    /// After so long a seat is free, whether it came back or not.
    kept: Duration,
    names: LocalId,
    without: WithoutRedis,
}

/// What a core calls those who sit: no two of all gateways have the same name.
#[derive(Debug)]
struct Names {
    core: u64,
    last: Cell<u64>,
}

/// Where the system has none to give, dice that depend on when and where the process began.
fn random(core: &Core) -> u64 {
    getrandom::u64().unwrap_or_else(|_| core.dice(Rng::next_u64))
}

impl Names {
    fn of(core: &Core, id: LocalId) -> Rc<Self> {
        core.local(id, || Self { core: random(core), last: Cell::new(0) })
    }

    fn next(&self) -> Vec<u8> {
        self.last.set(self.last.get() + 1);
        format!("{:x}-{:x}", self.core, self.last.get()).into_bytes()
    }
}

impl Afar {
    pub(super) fn new(
        store: Arc<Store>,
        (kept, without): (InRange<1, AMOUNT_MAX>, WithoutRedis),
        cx: &mut CompileCx<'_>,
    ) -> Self {
        Self {
            store,
            enter: Script::new(ENTER),
            leave: Arc::new(Script::new(LEAVE)),
            kept: Duration::from_secs(kept.u64()),
            names: cx.local_of("limit-conn names", 0),
            without,
        }
    }
}

/// What the keys of a limit begin with: its scope, whose lines begin with the name of the plugin.
pub(super) fn keys_of(scope: &str) -> Vec<u8> {
    let behind = scope.split_once('\n').map_or(scope, |(_, behind)| behind);
    format!("{PREFIX}{}", behind.replace('\n', ":")).into_bytes()
}

/// What a limit makes of a request, asked afar.
enum Come {
    /// As it would be here.
    Judged(Judged),
    /// It has a seat, and so many spans of time to wait.
    Seated(Borrowed, u64),
    /// Redis gives no answer that could be used.
    Unanswered,
}

impl LimitConn {
    /// Takes a seat for the request, rule by rule, and has it wait if it must.
    pub(super) async fn enter_afar(&self, afar: &Afar, ex: &mut Exchange, env: Env<'_>) -> Verdict {
        let (mut judged, mut seated) = (false, false);
        let mut wait = Duration::ZERO;
        for limit in &self.limits {
            let (begun, until) = (env.core.now(), afar.store.patience_of(env.core, ex));
            let mut come = limit.enter_afar(afar, ex, (until, env)).await;
            afar.store.note_wait(env.core, ex, begun);
            if let (Come::Unanswered, WithoutRedis::Local) = (&come, afar.without) {
                env.core.stats.limit_local.add(1);
                let till = env.core.local(self.till, || Till::new(&env.core.ledger));
                come = Come::Judged(limit.enter(ex, &till, env));
            }
            match come {
                Come::Seated(borrowed, waits) => {
                    seated = true;
                    wait += self.sit(ex, Place::Afar(borrowed), waits, env);
                }
                Come::Judged(Judged::Seated(account, waits)) => {
                    seated = true;
                    wait += self.sit(ex, Place::Here(account), waits, env);
                }
                Come::Judged(Judged::Passed) => continue,
                Come::Judged(Judged::Refused) => return Verdict::Reply(self.refuse(env)),
                Come::Judged(Judged::Unknown) if self.degrade => {}
                Come::Judged(Judged::Unknown) => return Verdict::Reply(Reply::status(500)),
                Come::Unanswered if afar.without == WithoutRedis::Pass => {}
                Come::Unanswered => return Verdict::Reply(Reply::error_msg(500, "failed to limit conn")),
            }
            judged = true;
        }
        self.note_admitted(seated, env);
        if !judged && !self.degrade {
            return Verdict::Reply(Reply::status(500));
        }
        if wait >= WAIT_MIN {
            env.core.stats.limit_waits.add(1);
            env.core.wait_for_turn(wait.min(WAIT_MAX)).await;
        }
        Verdict::Next
    }
}

impl Limit {
    async fn enter_afar(&self, afar: &Afar, ex: &Exchange, (until, env): (Moment, Env<'_>)) -> Come {
        let mut key = Vec::with_capacity(128);
        let numbers = (self.conn.ask(ex, &mut key), self.burst.ask(ex, &mut key));
        key.clear();
        key.extend_from_slice(&self.keys);
        if !self.key.write_text(ex, self.is_for_some, &mut key) {
            return Come::Judged(Judged::Passed);
        }
        let (Some(conn), Some(burst)) = numbers else { return Come::Judged(Judged::Unknown) };
        let name = Names::of(env.core, afar.names).next();
        let numbers = [conn.saturating_add(burst), afar.kept.as_millis() as u64];
        let borrowed =
            Borrowed::new(env.core, (&afar.store, &afar.leave), (key.clone(), name.clone()), afar.kept);
        let call = Call { key: &key, numbers: &numbers, text: Some(&name) };
        let told = afar.store.run(env.core, (&afar.enter, call), until).await;
        if let Err(Failure::Resting | Failure::Crowded) = told {
            // It was not even asked, so there is nothing to give back.
            borrowed.is_not();
        }
        match told.ok().and_then(|told| <[i64; 2]>::try_from(told).ok()) {
            Some([1, taken]) => {
                borrowed.is_certain();
                Come::Seated(borrowed, Seats::new(conn, burst).waits(taken.max(0) as u64))
            }
            Some(_) => {
                borrowed.is_not();
                Come::Judged(Judged::Refused)
            }
            None => Come::Unanswered,
        }
    }
}
