//! `limit`: limits with names, several windows each, of which all or none count a request.
//!
//! ```yaml
//! plugins:
//!   limit:
//!     limits:
//!       - name: organisation
//!         key: http_x_organisation
//!         windows: [{count: 100, per: minute}, {count: 50000, per: month}]
//!       - name: client
//!         rate: {count: 10, burst: 20}
//! ```
//!
//! Ringway's own. Exact for the whole process: every core spends from the same accounts. A request is first held against all
//! limits, then counted in all of them; one that loses a race there gives back what it had taken, so a refusal costs no
//! quota. What a request costs may be asked of it, and settled when it is over. Windows of an hour and more are kept beyond
//! the process, by name and key, whatever their amounts. Bodies may have to pass slowly (`bandwidth`): they wait, and are never cut. A request costs a look-up for each window, and no memory unless
//! there are many; one that waits costs an allocation and timers.

use std::cell::Cell;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::few::Few;
use crate::base::prefetch::Whereabouts;
use crate::base::text::parse_u64;
use crate::base::window::{Seats, Spent};
use crate::exchange::{Exchange, Reply, SlotId};
use crate::expr::{Template, Var};
use crate::link::ledger::{HeldAccount, Mark};
use crate::plugin::limits::{AMOUNT_MAX, Begun, Number, Till, never_a_number, refusal};
use crate::plugin::{
    CompileCx, ConfigError, Edit, Env, Gate, Looking, NoMetadata, Observe, Plugin, Step, Verdict,
};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

use self::amounts::{Amounts, Limit as Compiled, Tiers};
use self::config::{Config, Headers};
use self::meters::{Desk, Meters};
use crate::plugin::tally::Outcome;

#[path = "limit/amounts.rs"]
mod amounts;
#[path = "limit/bandwidth.rs"]
mod bandwidth;
#[path = "limit/config.rs"]
mod config;
#[path = "limit/meters.rs"]
mod meters;
#[path = "limit/standing.rs"]
mod standing;
#[path = "limit/told.rs"]
mod told;

/// Shortest time between two tries of a request that waits.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest that a request may wait: it holds a connection all the while.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What the core reads.
pub struct Limit {
    limits: Vec<Compiled>,
    tiers: Tiers,
    /// Whose plugin it is.
    owner: String,
    cost: Number,
    cost_default: u64,
    settle: Option<Template>,
    /// Whether any limit only tells, and whether any does more.
    has_shadow: bool,
    has_enforced: bool,
    /// Whether any of them, for anybody, has bodies pass slowly.
    has_bandwidth: bool,
    wait: Option<Queue>,
    /// By limit: what is told as a rule, and as problem details.
    refusals: Vec<[Reply; 2]>,
    problem_details: bool,
    headers: Headers,
    desk: LocalId,
    /// Tells this use from others in the slot they share; names its meters on a core as well.
    me: LocalId,
    seen: SlotId,
    begun: SlotId,
}

/// Where requests wait for room.
struct Queue {
    time: Duration,
    seats: Seats,
    scope: Vec<u8>,
}

/// Where something was found: the limit and the measure, by their places.
#[derive(Clone, Copy)]
struct Place {
    limit: u8,
    measure: u8,
}

/// What is to be told of a measure.
struct Told {
    by: LocalId,
    tier: u32,
    at: Place,
    cost: u64,
    spent: Spent,
}

/// What a request has spent and may get back.
struct Charge {
    by: LocalId,
    tier: u32,
    at: Place,
    account: HeldAccount,
    mark: Mark,
    cost: u64,
}

/// A seat that is taken. It is given back when this is dropped, so that no end of a request can keep it.
struct Seat {
    by: LocalId,
    account: Cell<Option<HeldAccount>>,
}

impl Seat {
    fn leave(&self) {
        if let Some(account) = self.account.take() {
            account.leave();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What uses of the plugin keep of a request.
#[derive(Default)]
struct Seen {
    told: Few<Told, 6>,
    charges: Few<Charge, 4>,
    seats: Few<Seat, 2>,
}

/// That a request is beyond a limit, and when it may not be any more, if time alone changes that.
#[derive(Clone, Copy)]
struct Refused {
    limit: u8,
    retry_in: Option<Duration>,
}

/// An account that a request is held against.
struct Found {
    at: Place,
    account: HeldAccount,
    spent: Option<(Spent, Mark)>,
}

/// What a request is judged by.
#[derive(Clone, Copy)]
struct Case {
    tier: usize,
    cost: u64,
    now: Moment,
    shadow: bool,
}

impl Plugin for Limit {
    const NAME: &'static str = "limit";
    const PRIORITY: i32 = 1007;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::enter);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);
    const LOG: Observe<Self> = Some(Self::leave);
    const LOOKING: Looking<Self> = Some(Self::standing);

    fn reads_sent_head(&self) -> bool {
        self.settle.as_ref().is_some_and(|settle| settle.vars().any(Var::is_of_response_head))
    }

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let (limits, tiers) = amounts::compile(&config, cx)?;
        let cost = Number::of(&config.cost).map_err(|why| ConfigError::at("cost", why))?;
        let settle = config.settle.as_ref().map(|text| Template::parse(text.as_str()));
        if settle.as_ref().is_some_and(Template::is_constant) {
            return Err(ConfigError::at("settle", "expected a template that asks for something"));
        }
        if let Some(text) = settle.as_ref().and_then(never_a_number) {
            return Err(ConfigError::at("settle", format!("expected a template that can be a whole number, {text}")));
        }
        let wait = config.wait.as_ref().map(|wait| Queue {
            time: wait.time.get().min(WAIT_MAX),
            seats: Seats::new(wait.at_most.u64(), 0),
            scope: format!("{}\n{}\nwaiting\n", Self::NAME, cx.owner()).into_bytes(),
        });
        let asks_for_body = limits.iter().any(|limit| limit.key.asks_for_body())
            || cost.asks_for_body()
            || settle.as_ref().is_some_and(|settle| settle.vars().any(Var::needs_request_body));
        if asks_for_body {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let (status, message) = (config.rejected_code.u16(), config.rejected_msg.as_deref());
        let refusals = limits.iter().map(|limit| [refusal(status, message), told::problem(status, message, &limit.name)]);
        Ok(Self {
            refusals: refusals.collect(),
            has_shadow: limits.iter().any(|limit| limit.is_shadow),
            has_enforced: limits.iter().any(|limit| !limit.is_shadow),
            has_bandwidth: tiers.all.iter().flat_map(|tier| &tier.amounts).any(|amounts| amounts.streams.iter().any(Option::is_some)),
            owner: cx.owner().replace('\n', ":"),
            limits,
            tiers,
            cost,
            cost_default: config.cost_default.u64(),
            settle,
            wait,
            problem_details: config.problem_details,
            headers: config.headers,
            desk: cx.local_of_all_uses(),
            me: cx.local(),
            seen: cx.slot(),
            begun: cx.slot_of(Begun::SLOT),
        })
    }
}

impl Limit {
    fn enter<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let case = Case {
            tier: self.tiers.of(ex.consumer.name(), ex.consumer.group_id()),
            cost: self.cost_of(ex, &desk, env),
            now: env.core.lately(),
            shadow: false,
        };
        if self.has_enforced
            && let Err(refused) = self.judge(case, ex, &desk.till)
        {
            return match (&self.wait, refused.retry_in) {
                (Some(queue), Some(time)) if time <= queue.time => {
                    Step::Wait(Box::pin(self.queue(queue, case, refused, ex, env)))
                }
                _ => Step::Reply(self.refuse(refused, ex, env)),
            };
        }
        self.admit(case, ex, env);
        Step::Next
    }

    fn cost_of(&self, ex: &Exchange, desk: &Desk, env: Env<'_>) -> u64 {
        desk.till.ask(|scratch| {
            if let Some(cost) = self.cost.ask(ex, scratch) {
                return cost;
            }
            // Who says nothing means the default.
            if !scratch.trim_ascii().is_empty() {
                let instead = format!("{} is taken, cost_default", self.cost_default);
                self.meters(env).note_no_number((&self.owner, "cost", scratch), &instead, env.core);
            }
            self.cost_default
        })
    }

    fn meters(&self, env: Env<'_>) -> std::rc::Rc<Meters> {
        env.core.local(self.me, || Meters::new(self.limits.len()))
    }

    /// Notes that a request is within all limits that are enforced, and looks what the others say of it.
    fn admit(&self, case: Case, ex: &mut Exchange, env: Env<'_>) {
        if self.has_bandwidth {
            self.slow_down(case, ex, env);
        }
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let meters = env.core.local(self.me, || Meters::new(self.limits.len()));
        let count = |limit: usize, outcome| meters.count(&self.limits[limit].name, (limit, outcome), &desk, env.core);
        let count_all = |is_shadow, ex: &Exchange| {
            for (at, limit) in self.limits.iter().enumerate().filter(|(_, limit)| limit.is_shadow == is_shadow) {
                if limit.is_for(ex, &desk.till) {
                    count(at, Outcome::Admitted);
                }
            }
        };
        count_all(false, ex);
        if !self.has_shadow {
            return;
        }
        match self.judge(Case { shadow: true, ..case }, ex, &desk.till) {
            Ok(()) => count_all(true, ex),
            Err(refused) => {
                let limit = usize::from(refused.limit);
                ex.would_reject.clear();
                ex.would_reject.extend_from_slice(self.limits[limit].name.as_bytes());
                count(limit, Outcome::WouldReject);
            }
        }
    }

    /// The answer to a request that is beyond a limit.
    fn refuse(&self, refused: Refused, ex: &Exchange, env: Env<'_>) -> Reply {
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let meters = env.core.local(self.me, || Meters::new(self.limits.len()));
        let limit = usize::from(refused.limit);
        meters.count(&self.limits[limit].name, (limit, Outcome::Rejected), &desk, env.core);
        env.core.stats.limit_refusals.add(1);
        let as_problem = self.problem_details || told::accepts_problems(ex);
        self.refusals[limit][usize::from(as_problem)].clone()
    }

    /// Waits for room, as long as there may be some in time. Whoever comes first when there is some has it.
    async fn queue(&self, queue: &Queue, case: Case, first: Refused, ex: &mut Exchange, env: Env<'_>) -> Verdict {
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let account = desk.till.hold(case.now, (&queue.scope, None), |_| true);
        let seat = account.and_then(|account| {
            account.enter(&queue.seats)?;
            Some(Seat { by: self.me, account: Cell::new(Some(account)) })
        });
        if seat.is_none() {
            return Verdict::Reply(self.refuse(first, ex, env));
        }
        env.core.stats.limit_waits.add(1);
        let (mut refused, mut now) = (first, case.now);
        loop {
            let waited = now.since(case.now);
            match refused.retry_in {
                Some(time) if waited + time <= queue.time => env.core.wait_for_turn(time.max(PAUSE_MIN)).await,
                _ => return Verdict::Reply(self.refuse(refused, ex, env)),
            }
            now = env.core.now();
            ex.slots.of::<Seen>(self.seen).told.retain(|told| told.by != self.me);
            let case = Case { now, ..case };
            match self.judge(case, ex, &desk.till) {
                Ok(()) => {
                    self.admit(case, ex, env);
                    return Verdict::Next;
                }
                Err(again) => refused = again,
            }
        }
    }

    /// Holds a request against all limits that are enforced, or against those that are not: counted in all of them or in
    /// none.
    fn judge(&self, case: Case, ex: &mut Exchange, till: &Till) -> Result<(), Refused> {
        let when = till.when(case.now);
        let tier = &self.tiers.all[case.tier].amounts;
        let mut found: Few<Found, 6> = Few::default();
        let mut seats: Few<Seat, 2> = Few::default();
        let each = || self.limits.iter().zip(tier).enumerate().filter(|(_, (limit, _))| limit.is_shadow == case.shadow);
        for (limit_at, (limit, amounts)) in each() {
            for (measure_at, measure) in amounts.measures.iter().enumerate() {
                let name = |name: &mut Vec<u8>| limit.write_key(ex, name);
                let Some(account) = till.hold(case.now, (&measure.scope, measure.keep), name) else { break };
                ex.counted_at.set(Whereabouts::of(&*account));
                let at = Place { limit: limit_at as u8, measure: measure_at as u8 };
                found.push(Found { at, account, spent: None });
            }
        }
        let gauge = |at: Place| &tier[usize::from(at.limit)].measures[usize::from(at.measure)].gauge;
        // Alone, or without anybody who could refuse after others have admitted, one look is enough.
        let alone = found.len() == 1 && !tier.iter().any(|amounts| amounts.seats.is_some());
        if !alone {
            self.look(case, &found, ex, till)?;
        }
        for (limit_at, (limit, amounts)) in each() {
            let Some(seat) = self.sit(limit, amounts, (case, ex), till) else { continue };
            match seat {
                Some(seat) => seats.push(seat),
                None => return Err(Refused { limit: limit_at as u8, retry_in: None }),
            }
        }
        let mut refused = None;
        for one in found.iter_mut() {
            match one.account.spend(gauge(one.at), when, case.cost) {
                Ok(spent) => one.spent = Some(spent),
                Err(spent) => {
                    refused = Some((one.at, spent));
                    break;
                }
            }
        }
        if let Some((at, spent)) = refused {
            for one in found.iter() {
                if let Some((_, mark)) = one.spent {
                    one.account.give_back(gauge(one.at), mark, when, case.cost);
                }
            }
            self.note(case, (at, spent), ex);
            return Err(Refused { limit: at.limit, retry_in: retry(gauge(at).limit(), case.cost, spent) });
        }
        self.keep(case, found, seats, ex);
        Ok(())
    }

    /// Whether all limits would admit a request. If not, all of them are told, and of those that refuse it the one counts
    /// that does so longest.
    fn look(&self, case: Case, found: &Few<Found, 6>, ex: &mut Exchange, till: &Till) -> Result<(), Refused> {
        let when = till.when(case.now);
        let tier = &self.tiers.all[case.tier].amounts;
        let look = |one: &Found| {
            let gauge = &tier[usize::from(one.at.limit)].measures[usize::from(one.at.measure)].gauge;
            (gauge.limit(), one.account.look(gauge, when, case.cost))
        };
        if found.iter().all(|one| look(one).1.admitted) {
            return Ok(());
        }
        let mut worst: Option<Refused> = None;
        for one in found.iter() {
            let (limit, mut spent) = look(one);
            if spent.admitted {
                // It was not counted there.
                spent.remaining = spent.remaining.saturating_add(case.cost);
            } else {
                let refused = Refused { limit: one.at.limit, retry_in: retry(limit, case.cost, spent) };
                let lasts = |refused: &Refused| refused.retry_in.unwrap_or(Duration::MAX);
                if worst.as_ref().is_none_or(|worst| lasts(&refused) > lasts(worst)) {
                    worst = Some(refused);
                }
            }
            self.note(case, (one.at, spent), ex);
        }
        worst.map_or(Ok(()), Err)
    }

    /// Takes a seat, if the limit has some and is for the request: `None` if not, `Some(None)` if all are taken.
    #[allow(clippy::option_option)] // Nothing to do, and no seat to be had.
    fn sit(
        &self,
        limit: &Compiled,
        amounts: &Amounts,
        (case, ex): (Case, &Exchange),
        till: &Till,
    ) -> Option<Option<Seat>> {
        let places = amounts.seats.as_ref()?;
        let account = till.hold(case.now, (&places.scope, None), |name| limit.write_key(ex, name))?;
        let taken = account.enter(&places.seats);
        Some(taken.map(|_| Seat { by: self.me, account: Cell::new(Some(account)) }))
    }

    /// Notes what a measure said, for the head of the answer.
    fn note(&self, case: Case, (at, spent): (Place, Spent), ex: &mut Exchange) {
        if !case.shadow {
            let told = Told { by: self.me, tier: case.tier as u32, at, cost: case.cost, spent };
            ex.slots.of::<Seen>(self.seen).told.push(told);
        }
    }

    /// Keeps what a request has, for its end.
    fn keep(&self, case: Case, mut found: Few<Found, 6>, mut seats: Few<Seat, 2>, ex: &mut Exchange) {
        let tells = !case.shadow && self.headers != Headers::None;
        if !tells && self.settle.is_none() && seats.is_empty() {
            return;
        }
        let tier = case.tier as u32;
        let seen = ex.slots.of::<Seen>(self.seen);
        for Found { at, account, spent } in found.take() {
            let Some((spent, mark)) = spent else { continue };
            if tells {
                seen.told.push(Told { by: self.me, tier, at, cost: case.cost, spent });
            }
            if self.settle.is_some() {
                seen.charges.push(Charge { by: self.me, tier, at, account, mark, cost: case.cost });
            }
        }
        seats.take().for_each(|seat| seen.seats.push(seat));
    }

    /// Gives seats back, and settles what the request has cost.
    fn leave(&self, ex: &Exchange, env: Env<'_>) {
        let Some(seen) = ex.slots.get::<Seen>(self.seen) else { return };
        seen.seats.iter().filter(|seat| seat.by == self.me).for_each(Seat::leave);
        let Some(settle) = &self.settle else { return };
        // What it would have cost nobody knows, and whoever breaks off is not paid for that.
        if ex.reason == "client_gone" {
            return;
        }
        let mut charges = seen.charges.iter().filter(|charge| charge.by == self.me).peekable();
        if charges.peek().is_none() {
            return;
        }
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let cost = desk.till.ask(|scratch| {
            scratch.clear();
            settle.render(ex, scratch);
            let cost = parse_u64(scratch.trim_ascii()).filter(|cost| *cost <= AMOUNT_MAX as u64);
            if cost.is_none() && !scratch.trim_ascii().is_empty() {
                let what = (&*self.owner, "settle", &**scratch);
                self.meters(env).note_no_number(what, "its cost stands", env.core);
            }
            cost
        });
        let Some(cost) = cost else { return };
        let when = desk.till.when(env.core.now());
        for charge in charges {
            let Place { limit, measure } = charge.at;
            let amounts = &self.tiers.all[charge.tier as usize].amounts[usize::from(limit)];
            let gauge = &amounts.measures[usize::from(measure)].gauge;
            if cost < charge.cost {
                charge.account.give_back(gauge, charge.mark, when, charge.cost - cost);
            } else if cost > charge.cost {
                charge.account.owe(gauge, when, cost - charge.cost);
            }
        }
    }
}

/// When a request may come again; `None` where it costs more than there ever is.
fn retry(limit: u64, cost: u64, spent: Spent) -> Option<Duration> {
    (cost <= limit).then_some(spent.reset_in)
}

#[cfg(test)]
#[path = "limit/tests.rs"]
mod tests;
