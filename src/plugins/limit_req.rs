//! `limit-req`: so many requests a second for each value of a key, evenly spaced.
//!
//! ```yaml
//! plugins:
//!   limit-req:
//!     rate: 10
//!     burst: 20
//!     key: consumer_name
//!     rejected_code: 429
//! ```
//!
//! A request has its turn `1 / rate` seconds after the one before. One that comes early waits for its turn, or goes on at
//! once with `nodelay`; one that is more than `burst` turns early is refused. Exact for the whole process: all cores take
//! turns from the same word, so nobody has more than `rate * time + burst + 1`. A request that waits costs one
//! allocation and a timer. With `policy: redis` or `redis-cluster` turns are taken from a Redis that gateways share. Differs from
//! APISIX: nobody waits longer than a minute; a refusal also carries `Retry-After`.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::window::{Leaky, Turn};
use crate::exchange::{Exchange, Reply, SlotId};
use crate::model::field::{InRange, Text};
use crate::plugin::limits::{KeyType, LimitKey, Till, refusal};
use crate::plugin::redis::{Call, Policy, Script, Store, WithoutRedis, with_redis};
use crate::plugin::tally::{Outcome, Tally};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, Look, Looking, NoMetadata, Plugin, Step, Verdict};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Longest that a request waits for its turn: whoever would wait longer is told at once. It holds a connection and its
/// request all the while.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// `spacing ahead`, both in microseconds; whether there is a turn, and how far away it is or how much too far.
const TAKE_TURN: &str = "\
local spacing, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(redis.call('GET', KEYS[1]))
local turn = now
if last and last + spacing > now then turn = last + spacing end
local ahead = turn - now
if ahead > most then return {0, ahead - most} end
redis.call('SET', KEYS[1], string.format('%.0f', turn), 'PX', math.ceil((ahead + spacing) / 1000))
return {1, ahead}";
/// What the keys in a Redis begin with.
const PREFIX: &str = "limit_req:";
/// What is not worth a timer.
const WAIT_MIN: Duration = Duration::from_millis(1);

with_redis! {
/// So many requests a second for each value of a key, evenly spaced.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests a second have their turn.
    #[schemars(extend("exclusiveMinimum" = 0, "x-expected" = "a number above 0"))]
    rate: f64,
    /// How many turns early a request may come; it waits for its own. Earlier ones are refused.
    #[schemars(extend("minimum" = 0))]
    burst: f64,
    /// What is counted apart: as `key_type` says the name of a variable, or a template. A request without a value is
    /// counted by its address.
    key: Text<1, 4096>,
    /// What `key` is.
    #[serde(default)]
    key_type: KeyType,
    /// Does a request that comes early go on at once?
    #[serde(default)]
    nodelay: bool,
    /// The status of a refusal.
    #[serde(default = "unavailable")]
    rejected_code: InRange<200, 599>,
    /// What a refused client is told, as `{"error_msg":"…"}`. Absent: the page of the status.
    rejected_msg: Option<Text<1, 4096>>,
    /// Where counters are kept.
    #[serde(default)]
    policy: Policy,
    /// Do requests pass when Redis gives no answer, unless `without_redis` says otherwise?
    #[serde(default)]
    allow_degradation: bool,
}
}

const fn unavailable() -> InRange<200, 599> {
    InRange::literal(503)
}

/// What the core reads.
pub struct LimitReq {
    bucket: Leaky,
    key: LimitKey,
    /// What the names of its accounts begin with.
    scope: Vec<u8>,
    /// What its keys in a Redis begin with.
    keys: Vec<u8>,
    refusal: Reply,
    nodelay: bool,
    without: WithoutRedis,
    /// Where turns are taken outside of this process.
    afar: Option<(Arc<Store>, Script)>,
    tally: Tally,
    till: LocalId,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    seen: SlotId,
}

/// That a request was refused: by whom, and in how many seconds it would not be.
#[derive(Default)]
struct Refused(Option<(LocalId, u64)>);

impl Plugin for LimitReq {
    const NAME: &'static str = "limit-req";
    const PRIORITY: i32 = 1001;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::take_turn);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);
    const LOOKING: Looking<Self> = Some(Self::standing);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let store = config.policy.store(&config.redis(), cx)?;
        if !(config.rate > 0.0 && config.rate.is_finite()) {
            return Err(ConfigError::at("rate", format!("expected a number above 0, got {}", config.rate)));
        }
        if !(config.burst >= 0.0 && config.burst.is_finite()) {
            return Err(ConfigError::at("burst", format!("expected a number of at least 0, got {}", config.burst)));
        }
        let key = LimitKey::of(config.key.as_str(), config.key_type);
        if key.asks_for_body() {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let ahead_max = if config.nodelay { Duration::MAX } else { WAIT_MAX };
        Ok(Self {
            bucket: Leaky::new(config.rate, config.burst, ahead_max),
            key,
            scope: format!("{}\n{}\n{:x}\n", Self::NAME, cx.owner(), cx.fingerprint()).into_bytes(),
            keys: format!("{PREFIX}{}:{:x}:", cx.owner().replace('\n', ":"), cx.fingerprint()).into_bytes(),
            refusal: refusal(config.rejected_code.u16(), config.rejected_msg.as_deref()),
            nodelay: config.nodelay,
            without: config.without_redis(config.allow_degradation),
            afar: store.map(|store| (store, Script::new(TAKE_TURN))),
            tally: Tally::new(cx),
            till: cx.local_of_all_uses(),
            me: cx.local(),
            seen: cx.slot(),
        })
    }
}

impl LimitReq {
    fn take_turn<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        if let Some((store, script)) = &self.afar {
            return Step::Wait(Box::pin(self.take_turn_afar(store, script, ex, env)));
        }
        self.take_turn_here(ex, env)
    }

    /// Takes a turn from the count of this process.
    fn take_turn_here<'a>(&'a self, ex: &mut Exchange, env: Env<'a>) -> Step<'a> {
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        let now = env.core.lately();
        let name = |name: &mut Vec<u8>| {
            self.key.write(ex, name);
            true
        };
        let turn = till.with(now, (&self.scope, None), name, |account| {
            ex.counted_at.set(account.whereabouts());
            account.take_turn(&self.bucket, now)
        });
        match turn {
            Some(Turn::Full { retry_in }) => {
                Step::Reply(self.refuse(ex, retry_in, env))
            }
            Some(Turn::Mine { after, .. }) => {
                self.tally.count(Outcome::Admitted, env.core);
                if after < WAIT_MIN || self.nodelay {
                    return Step::Next;
                }
                env.core.stats.limit_waits.add(1);
                Step::Wait(Box::pin(async move {
                    env.core.wait_for_turn(after).await;
                    Verdict::Next
                }))
            }
            None => Step::Next,
        }
    }

    fn refuse(&self, ex: &mut Exchange, retry_in: Duration, env: Env<'_>) -> Reply {
        env.core.stats.limit_refusals.add(1);
        self.tally.count(Outcome::Rejected, env.core);
        ex.slots.of::<Refused>(self.seen).0 = Some((self.me, retry_in.as_millis().div_ceil(1000) as u64));
        self.refusal.clone()
    }

    /// Takes a turn from a Redis.
    async fn take_turn_afar(&self, store: &Store, script: &Script, ex: &mut Exchange, env: Env<'_>) -> Verdict {
        let mut key = self.keys.clone();
        self.key.write_text(ex, false, &mut key);
        let numbers = self.bucket.micros();
        let call = Call { key: &key, numbers: &numbers, text: None };
        let (begun, until) = (env.core.now(), store.patience_of(env.core, ex));
        let told = store.run(env.core, (script, call), until).await;
        store.note_wait(env.core, ex, begun);
        let Some([is_mine, micros]) = told.ok().and_then(|told| <[i64; 2]>::try_from(told).ok()) else {
            return match self.without {
                WithoutRedis::Fail => Verdict::Reply(Reply::status(500)),
                WithoutRedis::Pass => Verdict::Next,
                WithoutRedis::Local => {
                    env.core.stats.limit_local.add(1);
                    match self.take_turn_here(ex, env) {
                        Step::Next => Verdict::Next,
                        Step::Reply(reply) => Verdict::Reply(reply),
                        Step::Wait(turn) => turn.await,
                    }
                }
            };
        };
        let time = Duration::from_micros(micros.max(0) as u64);
        if is_mine != 1 {
            return Verdict::Reply(self.refuse(ex, time, env));
        }
        self.tally.count(Outcome::Admitted, env.core);
        if time >= WAIT_MIN && !self.nodelay {
            env.core.stats.limit_waits.add(1);
            env.core.wait_for_turn(time.min(WAIT_MAX)).await;
        }
        Verdict::Next
    }

    /// What is left, for those who look.
    fn standing(&self, look: Look<'_>) -> Vec<Value> {
        let mut name = self.scope.clone();
        if self.afar.is_some() || !look.whose.write(&self.key, &mut name) {
            return vec![Value::Null];
        }
        let left = self.bucket.left(look.ledger.words(&name)[0], look.now);
        vec![json!({
            "plugin": Self::NAME,
            "per": "rate",
            "count": self.bucket.most(),
            "remaining": left.remaining,
            "reset_in": (!left.admitted).then(|| left.reset_in.as_millis() as f64 / 1000.0),
        })]
    }

    /// Says when to come again.
    fn tell(&self, ex: &mut Exchange, _: Env<'_>) {
        let Exchange { slots, response, .. } = ex;
        if let Some(Refused(Some((by, seconds)))) = slots.get::<Refused>(self.seen)
            && *by == self.me
        {
            response.headers.set("Retry-After", itoa::Buffer::new().format((*seconds).max(1)).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};

    /// How many of so many requests at once are not refused.
    fn admitted(bench: &Bench<LimitReq>, request: impl Fn() -> Request) -> usize {
        (0..20).filter(|_| bench.request(request()).reply.is_none()).count()
    }

    #[test]
    fn those_that_come_too_early_are_refused() {
        let bench = check::<LimitReq>(r#"{"rate": 0.01, "burst": 3, "key": "remote_addr", "nodelay": true}"#).unwrap();
        assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.1")), 4);
        assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.2")), 4);
        let refused = bench.request(Request::get("/").from("10.0.0.1")).replies(503, "").answer();
        let retry: u64 = refused.header("Retry-After").parse().unwrap();
        assert!((90..=100).contains(&retry), "{retry}");
        assert_eq!(bench.core().stats.limit_refusals.get(), 33);
    }

    #[test]
    fn a_refusal_says_what_was_written() {
        let config = r#"{"rate": 0.1, "burst": 0.1, "key": "$http_a $http_b", "key_type": "var_combination",
            "rejected_code": 429, "rejected_msg": "later"}"#;
        let bench = check::<LimitReq>(config).unwrap();
        let of = |a: &'static str| move || Request::get("/").header("A", a);
        assert_eq!(admitted(&bench, of("1")), 1);
        assert_eq!(admitted(&bench, of("2")), 1);
        bench.request(of("1")()).replies(429, "{\"error_msg\":\"later\"}\n");
        // Without a value the address counts.
        assert_eq!(admitted(&bench, || Request::get("/")), 1);
        bench.request(Request::get("/").from("10.0.0.9")).passes();
    }

    #[test]
    fn nobody_waits_for_more_than_a_minute() {
        let bench = check::<LimitReq>(r#"{"rate": 0.01, "burst": 1000000, "key": "remote_addr"}"#).unwrap();
        bench.request(Request::get("/")).passes();
        bench.request(Request::get("/")).replies(503, "");
    }

    #[test]
    fn uses_count_apart() {
        let config = r#"{"rate": 0.01, "burst": 0, "key": "remote_addr"}"#;
        let mut desk = Desk::new();
        let one = desk.compile::<LimitReq>("routes/1", config).unwrap();
        let two = desk.compile::<LimitReq>("routes/2", config).unwrap();
        assert_eq!((admitted(&one, || Request::get("/")), admitted(&two, || Request::get("/"))), (1, 1));
        let again = desk.compile::<LimitReq>("routes/1", config).unwrap();
        assert_eq!(admitted(&again, || Request::get("/")), 0, "a new snapshot changes nothing");
    }

    #[test]
    fn schema_and_compile_agree() {
        let base = r#""rate": 1, "burst": 0, "key": "remote_addr""#;
        let with = |extra: &str| format!("{{{base},{extra}}}");
        agree::<LimitReq>(
            &[
                &format!("{{{base}}}"),
                r#"{"rate": 0.001, "burst": 0.1, "key": "http_x", "rejected_code": 200, "rejected_msg": "m"}"#,
                &with(r#""policy": "local", "nodelay": true, "allow_degradation": true, "key_type": "var_combination""#),
            ],
            &[
                ("{}", "rate"),
                (r#"{"rate": 1, "burst": 0}"#, "key"),
                (r#"{"rate": 1, "key": "a"}"#, "burst"),
                (r#"{"rate": 0, "burst": 0, "key": "a"}"#, "rate"),
                (r#"{"rate": -1, "burst": 0, "key": "a"}"#, "rate"),
                (r#"{"rate": "1", "burst": 0, "key": "a"}"#, "rate"),
                (r#"{"rate": 1, "burst": -0.1, "key": "a"}"#, "burst"),
                (r#"{"rate": 1, "burst": 0, "key": ""}"#, "key"),
                (&with(r#""key_type": "constant""#), "key_type"),
                (&with(r#""rejected_code": 199"#), "rejected_code"),
                (&with(r#""rejected_msg": """#), "rejected_msg"),
                (&with(r#""policy": "redis-sentinel""#), "policy"),
                (&with(r#""count": 1"#), "count"),
            ],
        );
        refuses::<LimitReq>(&with(r#""policy": "redis""#), "redis_host is required");
        refuses::<LimitReq>(&with(r#""policy": "redis-cluster""#), "redis_cluster_nodes is required");
    }
}
