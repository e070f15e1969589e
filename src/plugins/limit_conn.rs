//! `limit-conn`: so many requests at once for each value of a key.
//!
//! ```yaml
//! plugins:
//!   limit-conn:
//!     conn: 10
//!     burst: 5
//!     default_conn_delay: 0.1
//!     key: consumer_name
//!     rejected_code: 429
//! ```
//!
//! A request takes a seat until it is over, whatever way it ends: answered, refused by another plugin, abandoned by its
//! client, or lost to a fault of ours. Beyond `conn` it waits first, so many times the usual time of a request as `conn`
//! goes into those before it; beyond `conn + burst` it is refused. Exact for the whole process: all cores count in the
//! same word, also across changes of configuration as long as the plugin's own stays the same. A request that waits
//! costs one allocation and a timer. In a stream route a connection is what a request is elsewhere. With `policy: redis` or `redis-cluster` gateways share their seats.
//! Differs from APISIX: nobody waits longer than a minute; each core learns for itself how long requests take.

use std::cell::Cell;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::prefetch::Whereabouts;
use crate::base::window::Seats;
use crate::exchange::{Exchange, Reply, SlotId};
use crate::link::ledger::HeldAccount;
use crate::model::field::{InRange, NonEmpty, Seconds, Text};
use crate::plugin::limits::{AMOUNT_MAX, Amount, KeyType, LimitKey, Number, Till, refusal};
use crate::plugin::redis::{Borrowed, Policy, with_redis};
use crate::plugin::tally::{Outcome, Tally};
use crate::plugin::{
    CompileCx, ConfigError, Env, Gate, Look, Looking, NoMetadata, Observe, Plugin, Step, Verdict, Whose,
};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

#[path = "limit_conn/afar.rs"]
mod afar;

/// Longest that a request waits: it holds a connection and a seat all the while.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What is not worth a timer.
const WAIT_MIN: Duration = Duration::from_millis(1);

with_redis! {
/// So many requests at once for each value of a key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{"required": ["conn", "burst", "key"]}, {"required": ["rules"]}],
    "dependentRequired" = {"conn": ["burst"], "burst": ["conn"]}
))]
pub struct Config {
    /// How many requests there may be at once.
    conn: Option<Amount<1>>,
    /// How many more there may be that wait for a while first.
    burst: Option<Amount<0>>,
    /// What is counted apart: as `key_type` says the name of a variable, or a template. A request without a value is
    /// counted by its address.
    key: Option<Text<1, 4096>>,
    /// What `key` is.
    #[serde(default)]
    key_type: KeyType,
    /// Several limits, asked one after the other, in place of `conn`, `burst` and `key`.
    rules: Option<NonEmpty<Rule>>,
    /// How long a request takes, in seconds, until that is known better.
    default_conn_delay: Seconds,
    /// Is that never known better?
    #[serde(default)]
    only_use_default_delay: bool,
    /// The status of a refusal.
    #[serde(default = "unavailable")]
    rejected_code: InRange<200, 599>,
    /// What a refused client is told, as `{"error_msg":"…"}`. Absent: the page of the status.
    rejected_msg: Option<Text<1, 4096>>,
    /// Where counters are kept.
    #[serde(default)]
    policy: Policy,
    /// Do requests pass whose numbers do not come to any, and, unless `without_redis` says otherwise, when Redis gives no
    /// answer?
    #[serde(default)]
    allow_degradation: bool,
    /// Seconds after which a seat that nobody gave back is free. For policies other than `local`.
    #[serde(default = "hour")]
    key_ttl: InRange<1, AMOUNT_MAX>,
}
}

/// One limit of several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Rule {
    /// How many requests there may be at once.
    conn: Amount<1>,
    /// How many more there may be that wait for a while first.
    burst: Amount<0>,
    /// What is counted apart; a template.
    key: Text<1, 4096>,
}

const fn unavailable() -> InRange<200, 599> {
    InRange::literal(503)
}

/// A request that lasts longer has lost its seat.
const fn hour() -> InRange<1, AMOUNT_MAX> {
    InRange::literal(3600)
}

/// What the core reads.
pub struct LimitConn {
    limits: Vec<Limit>,
    /// How long a request takes until that is known better.
    usual: Duration,
    learns: bool,
    refusal: Reply,
    /// Whether requests pass whose limit cannot be told.
    degrade: bool,
    /// Where seats are taken outside of this process.
    afar: Option<afar::Afar>,
    tally: Tally,
    till: LocalId,
    /// Tells this use from others in the slot they share; names what it has learnt on a core as well.
    me: LocalId,
    seats: SlotId,
}

/// One counter a key.
struct Limit {
    conn: Number,
    burst: Number,
    key: LimitKey,
    /// Whether a request without a value is none of its business, rather than counted by its address.
    is_for_some: bool,
    /// What the names of its accounts begin with.
    scope: Vec<u8>,
    /// What its keys in a Redis begin with.
    keys: Vec<u8>,
}

/// What a limit makes of a request.
enum Judged {
    /// It is not for it.
    Passed,
    /// Its numbers are none.
    Unknown,
    Refused,
    /// It has a seat, and so many spans of time to wait.
    Seated(HeldAccount, u64),
}

/// A seat that is taken. It is given back when this is dropped, so that no end of a request can keep it.
struct Seat {
    by: LocalId,
    waits: Duration,
    at: Cell<Option<Place>>,
}

/// Where a seat is.
enum Place {
    /// Not cheap to hold on to, but what else would keep the account from being closed?
    Here(HeldAccount),
    Afar(Borrowed),
}

impl Seat {
    fn leave(&self) {
        match self.at.take() {
            Some(Place::Here(account)) => account.leave(),
            Some(Place::Afar(borrowed)) => borrowed.give_back(),
            None => {}
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The seats a request has; the first needs no memory of its own.
#[derive(Default)]
struct Held {
    first: Option<Seat>,
    more: Vec<Seat>,
}

/// What a core has learnt of how long requests take.
struct Learnt(Cell<Duration>);

impl Plugin for LimitConn {
    const NAME: &'static str = "limit-conn";
    const PRIORITY: i32 = 1003;
    type Config = Config;
    type Metadata = NoMetadata;

    const IS_ACTION: bool = true;
    const PREREAD: Gate<Self> = Some(Self::enter);
    const ACCESS: Gate<Self> = Some(Self::enter);
    const LOG: Observe<Self> = Some(Self::leave);
    const LOOKING: Looking<Self> = Some(Self::standing);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let store = config.policy.store(&config.redis(), cx)?;
        let scope = format!("{}\n{}\n{:x}", Self::NAME, cx.owner(), cx.fingerprint());
        let limits = match (&config.conn, &config.burst, &config.rules) {
            (Some(conn), Some(burst), None) => {
                let Some(key) = &config.key else { return Err(ConfigError::new("key is required")) };
                let key = LimitKey::of(key.as_str(), config.key_type);
                vec![Limit::new(conn, burst, key, format!("{scope}\n\n"))?]
            }
            (None, None, Some(rules)) => Limit::of_rules(rules, &scope)?,
            (None, None, None) => {
                return Err(ConfigError::new("expected at least one of `conn` with `burst` and `rules`"));
            }
            (_, _, Some(_)) => {
                return Err(ConfigError::new("conn/burst and rules cannot be specified at the same time"));
            }
            (None, _, None) => return Err(ConfigError::new("conn is required when burst is given")),
            (_, None, None) => return Err(ConfigError::new("burst is required when conn is given")),
        };
        if limits.iter().any(Limit::asks_for_body) {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        Ok(Self {
            limits,
            usual: config.default_conn_delay.get(),
            learns: !config.only_use_default_delay,
            refusal: refusal(config.rejected_code.u16(), config.rejected_msg.as_deref()),
            degrade: config.allow_degradation,
            afar: store.map(|store| {
                let without = config.without_redis(config.allow_degradation);
                afar::Afar::new(store, (config.key_ttl, without), cx)
            }),
            tally: Tally::new(cx),
            till: cx.local_of_all_uses(),
            me: cx.local(),
            seats: cx.slot(),
        })
    }
}

impl Limit {
    fn new(conn: &Amount<1>, burst: &Amount<0>, key: LimitKey, scope: String) -> Result<Self, ConfigError> {
        Ok(Self {
            conn: Number::of(conn).map_err(|why| ConfigError::at("conn", why))?,
            burst: Number::of(burst).map_err(|why| ConfigError::at("burst", why))?,
            key,
            is_for_some: false,
            keys: afar::keys_of(&scope),
            scope: scope.into_bytes(),
        })
    }

    fn of_rules(rules: &[Rule], scope: &str) -> Result<Vec<Self>, ConfigError> {
        let mut limits = Vec::with_capacity(rules.len());
        for (at, rule) in rules.iter().enumerate() {
            if rules[..at].iter().any(|other| other.key == rule.key) {
                return Err(ConfigError::new(format!("duplicate key '{}' in rules", rule.key)));
            }
            let key = LimitKey::combination(rule.key.as_str());
            let limit = Self::new(&rule.conn, &rule.burst, key, format!("{scope}\n{at}\n"));
            let limit = limit.map_err(|fault| fault.under(&format!("rules[{at}]")))?;
            limits.push(Self { is_for_some: true, ..limit });
        }
        Ok(limits)
    }

    fn asks_for_body(&self) -> bool {
        self.key.asks_for_body() || self.conn.asks_for_body() || self.burst.asks_for_body()
    }

    fn standing(&self, look: Look<'_>) -> Option<Value> {
        let ask = |number: &Number| match (number, look.whose) {
            (Number::Fixed(number), _) => Some(*number),
            (Number::Asked(..), Whose::Request(ex)) => number.ask(ex, &mut Vec::new()),
            (Number::Asked(..), Whose::Key { .. }) => None,
        };
        let most = ask(&self.conn)? + ask(&self.burst)?;
        let mut name = self.scope.clone();
        let found = match self.is_for_some {
            true => look.whose.resolve(&self.key, &mut name),
            false => look.whose.write(&self.key, &mut name),
        };
        found.then(|| {
            let remaining = most.saturating_sub(look.ledger.seated(&name));
            json!({"plugin": LimitConn::NAME, "per": "concurrency", "count": most, "remaining": remaining})
        })
    }

    /// Takes a seat for the request.
    fn enter(&self, ex: &Exchange, till: &Till, env: Env<'_>) -> Judged {
        let numbers = till.ask(|scratch| Some((self.conn.ask(ex, scratch)?, self.burst.ask(ex, scratch)?)));
        let name = |name: &mut Vec<u8>| {
            if self.is_for_some {
                return self.key.resolve(ex, name);
            }
            self.key.write(ex, name);
            true
        };
        let Some(account) = till.hold(env.core.lately(), (&self.scope, None), name) else { return Judged::Passed };
        let Some((conn, burst)) = numbers else { return Judged::Unknown };
        ex.counted_at.set(Whereabouts::of(&*account));
        let seats = Seats::new(conn, burst);
        match account.enter(&seats) {
            None => Judged::Refused,
            Some(taken) => Judged::Seated(account, seats.waits(taken)),
        }
    }
}

impl LimitConn {
    fn enter<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        if let Some(afar) = &self.afar {
            return Step::Wait(Box::pin(self.enter_afar(afar, ex, env)));
        }
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        let (mut judged, mut seated) = (false, false);
        let mut wait = Duration::ZERO;
        for limit in &self.limits {
            let (account, waits) = match limit.enter(ex, &till, env) {
                Judged::Seated(account, waits) => (account, waits),
                Judged::Passed => continue,
                Judged::Unknown if self.degrade => {
                    judged = true;
                    continue;
                }
                Judged::Unknown => return Step::Reply(Reply::status(500)),
                Judged::Refused => return Step::Reply(self.refuse(env)),
            };
            (judged, seated) = (true, true);
            wait += self.sit(ex, Place::Here(account), waits, env);
        }
        self.note_admitted(seated, env);
        // Rules of which none is for the request: whoever wrote them thought of all there are.
        if !judged && !self.degrade {
            return Step::Reply(Reply::status(500));
        }
        if wait < WAIT_MIN {
            return Step::Next;
        }
        env.core.stats.limit_waits.add(1);
        Step::Wait(Box::pin(async move {
            env.core.wait_for_turn(wait.min(WAIT_MAX)).await;
            Verdict::Next
        }))
    }

    /// Takes note that the request was let in, if it has any seat.
    fn note_admitted(&self, seated: bool, env: Env<'_>) {
        if seated {
            self.tally.count(Outcome::Admitted, env.core);
        }
    }

    fn refuse(&self, env: Env<'_>) -> Reply {
        env.core.stats.limit_refusals.add(1);
        self.tally.count(Outcome::Rejected, env.core);
        self.refusal.clone()
    }

    /// Keeps a seat for the request; how long it waits for it.
    fn sit(&self, ex: &mut Exchange, place: Place, waits: u64, env: Env<'_>) -> Duration {
        let waits = if waits == 0 { Duration::ZERO } else { self.span(waits, env) };
        let seat = Seat { by: self.me, waits, at: Cell::new(Some(place)) };
        let held = ex.slots.of::<Held>(self.seats);
        match held.first {
            None => held.first = Some(seat),
            Some(_) => held.more.push(seat),
        }
        waits
    }

    /// So many times as long as a request takes.
    fn span(&self, times: u64, env: Env<'_>) -> Duration {
        let one = if self.learns { self.learnt(env).0.get() } else { self.usual };
        one.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX)).min(WAIT_MAX)
    }

    fn learnt(&self, env: Env<'_>) -> std::rc::Rc<Learnt> {
        env.core.local(self.me, || Learnt(Cell::new(self.usual)))
    }

    /// A line for each limit, null for one that is not for whoever is looked for, for those who look.
    fn standing(&self, look: Look<'_>) -> Vec<Value> {
        // Who sits in a Redis is not known here.
        if self.afar.is_some() {
            return Vec::new();
        }
        self.limits.iter().map(|limit| limit.standing(look).unwrap_or(Value::Null)).collect()
    }

    fn leave(&self, ex: &Exchange, env: Env<'_>) {
        let Some(held) = ex.slots.get::<Held>(self.seats) else { return };
        for seat in held.first.iter().chain(&held.more).filter(|seat| seat.by == self.me) {
            seat.leave();
            if self.learns {
                let took = if ex.attempts.is_empty() {
                    let here = ex.timing.finished.since(ex.timing.received);
                    // Whose client left while it waited has taken no time that says anything.
                    let Some(took) = here.checked_sub(seat.waits) else { continue };
                    took
                } else {
                    ex.timing.upstream
                };
                let learnt = self.learnt(env);
                learnt.0.set((learnt.0.get() + took) / 2);
            }
        }
    }
}

#[cfg(test)]
#[path = "limit_conn/tests.rs"]
mod tests;
