//! Counters in a Redis: one script for each kind of window, run in one step for all gateways.
//!
//! A fixed window is a number that expires, under the key and with the meaning that APISIX gives it: what was spent. A
//! sliding one is a hash of the window's number and what was spent in it and before, by the clock of Redis, so that
//! gateways need not agree on the time.

use std::sync::Arc;
use std::time::Duration;

use super::leased::{GIVE_FIXED, GIVE_SLIDING, Leasing, SLACK};
use super::{Counter, Judged, Limit, Place};
use crate::base::clock::Moment;
use crate::base::window::Spent;
use crate::exchange::{Exchange, Reply};
use crate::plugin::limits::Till;
use crate::plugin::redis::{Call, Script, Store, WithoutRedis};
use crate::plugin::{Env, Step, Verdict};
use crate::runtime::LocalId;

/// What the keys of a limit begin with: its scope, whose lines begin with the name of the plugin.
pub(super) fn keys_of(scope: &[u8]) -> Vec<u8> {
    let end = scope.iter().position(|byte| *byte == b'\n').unwrap_or(scope.len());
    let (plugin, behind) = scope.split_at(end);
    let colons = behind.iter().skip(1).map(|byte| if *byte == b'\n' { b':' } else { *byte });
    [b"plugin-", plugin, b":v1:"].concat().into_iter().chain(colons).collect()
}

/// `cost limit window marks`, times in milliseconds; whether it is admitted, what is spent, when the window ends, and its mark
/// if that is asked for.
const FIXED: &str = "\
local cost, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left = redis.call('PTTL', KEYS[1])
local spent = 0
if left >= 0 then spent = tonumber(redis.call('GET', KEYS[1])) or 0 end
if spent + cost > limit then return {0, spent, left >= 0 and left or window, 0} end
local now = 0
if ARGV[4] == '1' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if left < 0 then
  redis.call('SET', KEYS[1], cost, 'PX', window)
  return {1, cost, window, now + window}
end
return {1, redis.call('INCRBY', KEYS[1], cost), left, now + left}";

/// The same for a window that moves with time; what is spent includes what is carried over.
const SLIDING: &str = "\
local cost, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number, left = math.floor(now / window), window - now % window
local kept = redis.call('HMGET', KEYS[1], 'number', 'spent', 'before')
local at, spent, before = tonumber(kept[1]), tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
if at and at > number then number, left = at, window end
if at ~= number then
  before = at and at + 1 == number and spent or 0
  spent = 0
end
local used = math.floor(before * left / window) + spent
if used + cost > limit then return {0, used, left, number} end
redis.call('HSET', KEYS[1], 'number', number, 'spent', spent + cost, 'before', before)
redis.call('PEXPIRE', KEYS[1], left + window)
return {1, used + cost, left, number}";

/// Where counters are kept outside of this process, and how they are counted there.
pub(super) struct Afar {
    store: Arc<Store>,
    script: Script,
    /// Takes back what the script has counted, in the window of its mark.
    back: Script,
    slack: u64,
    /// Whether marks are asked for: only of several limits one may have to give back.
    marks: bool,
    leasing: Option<Leasing>,
    without: WithoutRedis,
}

impl Afar {
    /// Counts there; `marks` says whether there are several limits, `interval` for how long a core holds what it took, if it takes
    /// more than it needs at once.
    pub(super) fn new(
        store: Arc<Store>,
        (sliding, marks, interval): (bool, bool, Option<Duration>),
        (me, without): (LocalId, WithoutRedis),
    ) -> Self {
        let (script, back) = if sliding { (SLIDING, GIVE_SLIDING) } else { (FIXED, GIVE_FIXED) };
        let (script, back) = (Script::new(script), Script::new(back));
        let slack = if sliding { 0 } else { SLACK };
        Self {
            store,
            script,
            back,
            slack,
            marks,
            leasing: interval.map(|interval| Leasing::new(sliding, interval, me)),
            without,
        }
    }

    /// How this limit is leased: not where each request says how much there is, nor for what costs more than one.
    fn leasing_of(&self, limit: &Limit, cost: u64) -> Option<&Leasing> {
        self.leasing.as_ref().filter(|_| cost == 1 && !limit.count.is_asked())
    }
}

impl Afar {
    /// Gives back what a limit has counted in the Redis of a request that cost so much.
    pub(super) async fn give_back(
        &self,
        limit: &Limit,
        ex: &Exchange,
        (place, cost): (Place, u64),
        (until, env): (Moment, Env<'_>),
    ) {
        let mut key = Vec::with_capacity(128);
        let (Place::Afar(_) | Place::Held(_), Ok(_)) = (place, limit.ask_afar(ex, &mut key)) else { return };
        match (place, self.leasing_of(limit, cost)) {
            (Place::Afar(mark), _) => {
                let call = Call { key: &key, numbers: &[cost, mark, self.slack], text: None };
                if self.store.run_once(env.core, (&self.back, call), until).await.is_err() {
                    env.core.stats.redis_returns_lost.add(1);
                }
            }
            (Place::Held(ends), Some(leasing)) => leasing.put_back(env.core, &key, ends),
            _ => {}
        }
    }
}

impl Counter {
    /// Counts the request without a wait, where what is held decides it.
    pub(super) fn spend_held<'a>(
        &'a self,
        afar: &Afar,
        ex: &mut Exchange,
        (env, cost): (Env<'a>, u64),
    ) -> Option<Step<'a>> {
        // Of several rules the first ones would be spent twice when a later one has to be asked for.
        let [limit] = self.limits.as_slice() else { return None };
        let leasing = afar.leasing_of(limit, cost)?;
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        let spent = till.ask(|key| {
            let (count, _) = limit.ask_afar(ex, key).ok()?;
            leasing.spend_held(env.core, key, count).map(|spent| (count, spent, held(env, spent)))
        })?;
        let refusal = self.note(ex, 0, spent, env);
        self.note_admitted(refusal.is_none(), env);
        Some(refusal.map_or(Step::Next, Step::Reply))
    }

    /// Counts the request, rule by rule.
    pub(super) async fn spend_afar(
        &self,
        afar: &Afar,
        ex: &mut Exchange,
        (env, cost): (Env<'_>, u64),
    ) -> Verdict {
        let (mut judged, mut counted) = (false, false);
        for (limit_at, limit) in self.limits.iter().enumerate() {
            let (begun, until) = (env.core.now(), afar.store.patience_of(env.core, ex));
            let asked = limit.spend_afar(afar, ex, (until, env, cost)).await;
            afar.store.note_wait(env.core, ex, begun);
            let counted_as = match (asked, afar.without) {
                (Some(Judged::Spent(count, spent, place)), _) => (count, spent, place),
                (Some(Judged::Passed), _) => continue,
                (Some(Judged::Unknown), _) if !self.degrade => {
                    self.give_back_afar(afar, ex, (until, env, cost)).await;
                    return Verdict::Reply(Reply::status(500));
                }
                (Some(Judged::Unknown), _) | (None, WithoutRedis::Pass) => {
                    judged = true;
                    continue;
                }
                (None, WithoutRedis::Local) => match self.spend_instead(limit, ex, (env, cost)) {
                    Some(told) => told,
                    None => continue,
                },
                (None, WithoutRedis::Fail) => {
                    self.give_back_afar(afar, ex, (until, env, cost)).await;
                    return Verdict::Reply(Reply::error_msg(500, "failed to limit count"));
                }
            };
            (judged, counted) = (true, true);
            if let Some(refusal) = self.note(ex, limit_at, counted_as, env) {
                self.give_back_afar(afar, ex, (until, env, cost)).await;
                return Verdict::Reply(refusal);
            }
        }
        self.note_admitted(counted, env);
        if judged || self.degrade { Verdict::Next } else { Verdict::Reply(Reply::status(500)) }
    }

    /// Counts the request here, as `policy: local` does, because Redis gave no answer; what it was held against.
    fn spend_instead(
        &self,
        limit: &Limit,
        ex: &Exchange,
        (env, cost): (Env<'_>, u64),
    ) -> Option<(u64, Spent, Place)> {
        env.core.stats.limit_local.add(1);
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        match limit.spend(ex, (env.core.now(), self.sliding, cost), &till) {
            Judged::Spent(count, spent, place) => Some((count, spent, place)),
            // Redis would not have been asked for it.
            Judged::Passed | Judged::Unknown => None,
        }
    }
}

/// Among what is held, in the window that what was said of it tells.
fn held(env: Env<'_>, spent: Spent) -> Place {
    Place::Held(env.core.now().plus(spent.reset_in))
}

impl Limit {
    /// What is counted, as `key`: the count and the window in seconds; or what there is to say without counting.
    fn ask_afar(&self, ex: &Exchange, key: &mut Vec<u8>) -> Result<(u64, u64), Judged> {
        let numbers = (self.count.ask(ex, key), self.window.ask(ex, key));
        key.clear();
        key.extend_from_slice(&self.keys);
        if let (true, Some(seconds)) = (self.window.is_asked(), numbers.1) {
            key.extend_from_slice(format!("{seconds}:").as_bytes());
        }
        if !self.key.write_text(ex, self.is_for_some, key) {
            return Err(Judged::Passed);
        }
        let (Some(count), Some(seconds)) = numbers else { return Err(Judged::Unknown) };
        Ok((count, seconds))
    }

    /// Counts the request; `None` when Redis gives no answer that could be used.
    async fn spend_afar(
        &self,
        afar: &Afar,
        ex: &Exchange,
        (until, env, cost): (Moment, Env<'_>, u64),
    ) -> Option<Judged> {
        let mut key = Vec::with_capacity(128);
        let (count, seconds) = match self.ask_afar(ex, &mut key) {
            Ok(numbers) => numbers,
            Err(judged) => return Some(judged),
        };
        let (core, window) = (env.core, seconds.saturating_mul(1000));
        if let Some(leasing) = afar.leasing_of(self, cost) {
            let spent = match leasing.spend_held(core, &key, count) {
                Some(spent) => spent,
                None => leasing.spend(core, &afar.store, (&key, count, window), until).await?,
            };
            return Some(Judged::Spent(count, spent, held(env, spent)));
        }
        let call = Call { key: &key, numbers: &[cost, count, window, u64::from(afar.marks)], text: None };
        let told = afar.store.run(core, (&afar.script, call), until).await.ok()?;
        let [admitted, spent, left, mark] = <[i64; 4]>::try_from(told).ok()?;
        let spent = Spent {
            admitted: admitted == 1,
            remaining: count.saturating_sub(spent.max(0) as u64),
            reset_in: Duration::from_millis(left.max(0) as u64),
        };
        Some(Judged::Spent(count, spent, Place::Afar(mark.max(0) as u64)))
    }
}
