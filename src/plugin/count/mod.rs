//! Counting what requests cost, in windows of time: what `limit-count` and `graphql-limit-count` share. Of several rules, those
//! before the one that refuses give back what they have counted.

use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::decimal::Short;
use crate::base::hash::stable;
use crate::base::window::long::Long;
use crate::base::window::quota::{Gauge, Quota, Span};
use crate::base::window::{Fixed, Sliding, Spent};
use crate::exchange::{Exchange, Reply, SlotId};
use crate::link::ledger::Mark;
use crate::model::field::HeaderName;
use crate::plugin::limits::{Amount, Begun, LimitKey, Number, Till, refusal, write_rate_limit};
use crate::plugin::tally::{Outcome, Tally};
use crate::plugin::{CompileCx, ConfigError, Env, Step, limits};
use crate::proto::head::Trio;
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

pub use self::config::{Config, Metadata};
use self::config::{KeyType, Rule, WindowType};

mod afar;
mod back;
mod config;
mod leased;
mod log;
mod standing;

/// The limits of one use of a plugin.
pub struct Counter {
    plugin: &'static str,
    limits: Vec<Limit>,
    sliding: bool,
    refusal: Reply,
    /// Whether requests pass whose limit cannot be told.
    degrade: bool,
    tell: bool,
    /// Whether it is also told as the IETF has it.
    ietf: bool,
    /// Where counters are kept outside of this process.
    afar: Option<afar::Afar>,
    tally: Tally,
    till: LocalId,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    seen: SlotId,
    begun: SlotId,
}

/// One counter a key.
struct Limit {
    count: Number,
    window: Number,
    key: LimitKey,
    /// Whether a request without a value is none of its business, rather than counted by its address.
    is_for_some: bool,
    /// Whether it is a log: each request counts for exactly as long as the window lasts.
    is_log: bool,
    /// What the names of its accounts begin with.
    scope: Vec<u8>,
    /// What its keys in a Redis begin with.
    keys: Vec<u8>,
    /// What it is called where the IETF's fields tell of it.
    name: String,
    /// Of its number, what is left of it, and when that is all there again.
    headers: Trio,
    /// The number as text, where it is always the same.
    count_text: Option<Short>,
}

/// What a limit makes of a request.
enum Judged {
    /// It is not for it.
    Passed,
    /// Its count or its window is no number.
    Unknown,
    /// What it was held against, what is left, and where that was counted.
    Spent(u64, Spent, Place),
}

/// Where a request was counted, so that it can be counted no more.
#[derive(Clone, Copy)]
enum Place {
    /// In an account of ours, at that moment.
    Here(Moment),
    /// The same, in a window that is kept beyond the process.
    Kept(Moment, Mark),
    /// In a Redis, in the window of that mark.
    Afar(u64),
    /// Among what this core holds of a Redis', in the window that ends then.
    Held(Moment),
}

/// What a limit said of the request.
#[derive(Clone, Copy)]
struct Told {
    by: LocalId,
    limit_at: usize,
    count: u64,
    spent: Spent,
    place: Place,
}

/// What all limits said; the first needs no memory of its own.
#[derive(Default)]
struct Seen {
    first: Option<Told>,
    more: Vec<Told>,
}

impl Seen {
    /// What the limits of one use said.
    fn of(&self, me: LocalId) -> impl Iterator<Item = &Told> {
        self.first.iter().chain(&self.more).filter(move |told| told.by == me)
    }
}

impl Counter {
    /// Compiles a use of the plugin `name`.
    ///
    /// # Errors
    /// The rules that a type can not say.
    pub fn compile(
        name: &'static str,
        config: &Config,
        metadata: &Metadata,
        cx: &mut CompileCx<'_>,
    ) -> Result<Self, ConfigError> {
        let (store, interval) = (config.store(cx)?, config.interval()?);
        let scope = match &config.group {
            Some(_) if cx.is_action() => return Err(ConfigError::at("group", "group is not supported")),
            // What is compared is what was meant, not how it was written.
            Some(group) if !cx.agree(group.as_str(), stable(format!("{config:?}").as_bytes())) => {
                return Err(ConfigError::at("group", "group conf mismatched"));
            }
            Some(group) => format!("{name}\ngroup\n{}", group.as_str()),
            None => format!("{name}\n{}\n{:x}", cx.owner(), cx.fingerprint()),
        };
        let mut limits = match (&config.count, &config.time_window, &config.rules) {
            (Some(count), Some(window), None) => {
                let text = config.key.as_str();
                let key = match config.key_type {
                    KeyType::Constant => LimitKey::Constant,
                    KeyType::Var => LimitKey::of(text, limits::KeyType::Var),
                    KeyType::VarCombination => LimitKey::of(text, limits::KeyType::VarCombination),
                };
                let mut limit = Limit::new(count, window, key, (name, format!("{scope}\n\n")), metadata)?;
                if let LimitKey::Constant = limit.key {
                    limit.scope.extend_from_slice(config.key.as_bytes());
                }
                vec![limit]
            }
            (None, None, Some(rules)) => Limit::of_rules(rules, &scope)?,
            (None, None, None) => {
                return Err(ConfigError::new(
                    "expected at least one of `count` with `time_window` and `rules`",
                ));
            }
            (_, _, Some(_)) => {
                return Err(ConfigError::new(
                    "count/time_window and rules cannot be specified at the same time",
                ));
            }
            (None, _, None) => return Err(ConfigError::new("count is required when time_window is given")),
            (_, None, None) => return Err(ConfigError::new("time_window is required when count is given")),
        };
        if limits.iter().any(Limit::asks_for_body) {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        let sliding = matches!(config.window_type, WindowType::Sliding);
        if let WindowType::Log = config.window_type {
            limits = log::all(limits, config.rules.is_some(), store.is_some())?;
        }
        if config.group.is_some() {
            // A group outlives changes of its configuration, and words of one kind of window mean nothing in another: a sliding
            // one that is longer than before would wait for a number that is years away.
            limits.iter_mut().for_each(|limit| limit.name_window(sliding));
        }
        limits.iter_mut().for_each(|limit| limit.keys = afar::keys_of(&limit.scope));
        let me = cx.local();
        let (status, several) = (config.rejected_code.u16(), limits.len() > 1);
        Ok(Self {
            plugin: name,
            limits,
            sliding,
            refusal: refusal(status, config.rejected_msg.as_deref()),
            degrade: config.allow_degradation,
            tell: config.show_limit_quota_header,
            ietf: config.ietf_headers,
            afar: store.map(|store| {
                let without = config.without_redis(config.allow_degradation);
                afar::Afar::new(store, (sliding, several, interval), (me, without))
            }),
            tally: Tally::new(cx),
            till: cx.local_of_all_uses(),
            me,
            // All that count tell together.
            seen: cx.slot_of("count"),
            begun: cx.slot_of(Begun::SLOT),
        })
    }
}

impl Limit {
    fn new(
        count: &Amount<1>,
        window: &Amount<1>,
        key: LimitKey,
        (name, scope): (&str, String),
        metadata: &Metadata,
    ) -> Result<Self, ConfigError> {
        let count = Number::of(count).map_err(|why| ConfigError::at("count", why))?;
        Ok(Self {
            count_text: if let Number::Fixed(count) = count { Some(Short::number(count)) } else { None },
            count,
            window: Number::of(window).map_err(|why| ConfigError::at("time_window", why))?,
            key,
            is_for_some: false,
            is_log: false,
            scope: scope.into_bytes(),
            keys: Vec::new(),
            name: name.to_owned(),
            headers: Trio::new([
                metadata.limit_header.as_str(),
                metadata.remaining_header.as_str(),
                metadata.reset_header.as_str(),
            ]),
        })
    }

    fn of_rules(rules: &[Rule], scope: &str) -> Result<Vec<Self>, ConfigError> {
        let mut limits = Vec::with_capacity(rules.len());
        for (at, rule) in rules.iter().enumerate() {
            if rules[..at].iter().any(|other| other.key == rule.key) {
                return Err(ConfigError::new(format!("duplicate key '{}' in rules", rule.key)));
            }
            limits
                .push(Self::of_rule(rule, at, scope).map_err(|fault| fault.under(&format!("rules[{at}]")))?);
        }
        Ok(limits)
    }

    fn of_rule(rule: &Rule, at: usize, scope: &str) -> Result<Self, ConfigError> {
        let key = LimitKey::combination(rule.key.as_str());
        // Rules are numbered from 1 in headers, as APISIX does.
        let prefix =
            rule.header_prefix.as_ref().map_or_else(|| (at + 1).to_string(), |text| text.to_string());
        let name = |what: &str| -> Result<HeaderName, ConfigError> {
            format!("X-{prefix}-RateLimit-{what}")
                .parse()
                .map_err(|fault: ConfigError| fault.under("header_prefix"))
        };
        let metadata = Metadata {
            limit_header: name("Limit")?,
            remaining_header: name("Remaining")?,
            reset_header: name("Reset")?,
        };
        let mut limit =
            Self::new(&rule.count, &rule.time_window, key, (&prefix, format!("{scope}\n{at}\n")), &metadata)?;
        limit.is_for_some = true;
        if let LimitKey::Constant = limit.key {
            limit.scope.extend_from_slice(rule.key.as_bytes());
        }
        Ok(limit)
    }

    /// Has windows of another kind or length be counted apart.
    fn name_window(&mut self, sliding: bool) {
        let kind = match (self.is_log, sliding) {
            (true, _) => "log",
            (false, true) => "sliding",
            (false, false) => "fixed",
        };
        let text = match self.window {
            Number::Fixed(seconds) => format!("{kind} {seconds}\n"),
            // Names have the length that the request says.
            Number::Asked(..) => format!("{kind}\n"),
        };
        self.scope.extend_from_slice(text.as_bytes());
    }

    fn asks_for_body(&self) -> bool {
        self.key.asks_for_body() || self.count.asks_for_body() || self.window.asks_for_body()
    }

    /// Appends what its account for the request is named by, behind its scope; whether it is for the request.
    fn write_name(&self, ex: &Exchange, seconds: Option<u64>, name: &mut Vec<u8>) -> bool {
        // Windows of different lengths can not be counted in one account.
        if let (true, Some(seconds)) = (self.window.is_asked(), seconds) {
            name.extend_from_slice(&seconds.to_le_bytes());
        }
        if self.is_for_some {
            return self.key.resolve(ex, name);
        }
        self.key.write(ex, name);
        true
    }

    /// Counts the request.
    fn spend(&self, ex: &Exchange, (now, sliding, cost): (Moment, bool, u64), till: &Till) -> Judged {
        if self.is_log {
            return self.spend_log(ex, (now, cost), till);
        }
        let numbers = till.ask(|scratch| Some((self.count.ask(ex, scratch)?, self.window.ask(ex, scratch)?)));
        let name = |name: &mut Vec<u8>| self.write_name(ex, numbers.map(|(_, seconds)| seconds), name);
        let keep = numbers.and_then(|(_, seconds)| long(seconds, sliding));
        let spent = till.with(now, (&self.scope, keep), name, |account| {
            ex.counted_at.set(account.whereabouts());
            let (count, seconds) = numbers?;
            let window = Duration::from_secs(seconds);
            let here = |spent| (spent, Place::Here(now));
            let (spent, place) = match (sliding, keep) {
                (true, _) => {
                    here(account.spend_sliding(&Sliding::new(count, window), now, till.since_epoch(), cost))
                }
                (false, Some(Long::Quota(span))) => {
                    match account.spend(&Gauge::Quota(Quota::new(count, span)), till.when(now), cost) {
                        Ok((spent, mark)) => (within(spent, window), Place::Kept(now, mark)),
                        Err(refused) => here(within(refused, window)),
                    }
                }
                (false, _) => here(account.spend_fixed(&Fixed::new(count, window), window, now, cost)),
            };
            Some((count, spent, place))
        });
        match spent {
            None => Judged::Passed,
            Some(None) => Judged::Unknown,
            Some(Some((count, spent, place))) => Judged::Spent(count, spent, place),
        }
    }
}

/// What is kept of a window beyond the process.
fn long(seconds: u64, sliding: bool) -> Option<Long> {
    if sliding {
        Long::of_sliding(seconds)
    } else {
        Long::of_span(Span::Lasting(u32::try_from(seconds).ok()?))
    }
}

/// Windows that are kept begin with a whole second: nobody is told that one lasts longer than it does.
fn within(spent: Spent, window: Duration) -> Spent {
    Spent { reset_in: spent.reset_in.min(window), ..spent }
}

impl Counter {
    /// Counts a request that costs so much.
    pub fn spend<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>, cost: u64) -> Step<'a> {
        if let Some(afar) = &self.afar {
            if let Some(step) = self.spend_held(afar, ex, (env, cost)) {
                return step;
            }
            return Step::Wait(Box::pin(self.spend_afar(afar, ex, (env, cost))));
        }
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        let now = env.core.lately();
        let (mut judged, mut counted) = (false, false);
        for (limit_at, limit) in self.limits.iter().enumerate() {
            let counted_as = match limit.spend(ex, (now, self.sliding, cost), &till) {
                Judged::Spent(count, spent, place) => (count, spent, place),
                Judged::Passed => continue,
                Judged::Unknown if self.degrade => {
                    judged = true;
                    continue;
                }
                Judged::Unknown => {
                    self.give_back(ex, (env, cost));
                    return Step::Reply(Reply::status(500));
                }
            };
            (judged, counted) = (true, true);
            if let Some(refusal) = self.note(ex, limit_at, counted_as, env) {
                self.give_back(ex, (env, cost));
                return Step::Reply(refusal);
            }
        }
        self.note_admitted(counted, env);
        // Rules of which none is for the request: whoever wrote them thought of all there are.
        if judged || self.degrade { Step::Next } else { Step::Reply(Reply::status(500)) }
    }

    /// Takes note that no limit refused, if any has counted.
    fn note_admitted(&self, counted: bool, env: Env<'_>) {
        if counted {
            self.tally.count(Outcome::Admitted, env.core);
        }
    }

    /// Keeps what a limit said for the head of the response; the answer, if it was a refusal.
    fn note(
        &self,
        ex: &mut Exchange,
        limit_at: usize,
        (count, spent, place): (u64, Spent, Place),
        env: Env<'_>,
    ) -> Option<Reply> {
        // A refusal says when to come again, whatever else is said; what may have to be given back must be known.
        if self.tell || self.ietf || !spent.admitted || self.limits.len() > 1 {
            let told = Told { by: self.me, limit_at, count, spent, place };
            let seen = ex.slots.of::<Seen>(self.seen);
            match seen.first {
                None => seen.first = Some(told),
                Some(_) => seen.more.push(told),
            }
        }
        if spent.admitted {
            return None;
        }
        env.core.stats.limit_refusals.add(1);
        self.tally.count(Outcome::Rejected, env.core);
        Some(self.refusal.clone())
    }

    /// Tells in the head of the answer what is left.
    pub fn tell(&self, ex: &mut Exchange, env: Env<'_>) {
        let Exchange { slots, response, .. } = ex;
        let has_said = |seen: &Seen| seen.of(self.me).next().is_some();
        let tells = self.ietf && slots.get::<Seen>(self.seen).is_some_and(has_said);
        let put = tells.then(|| slots.of::<Begun>(self.begun).put());
        let Some(seen) = slots.get::<Seen>(self.seen) else { return };
        let headers = &mut response.headers;
        if let Some(put) = put {
            let till = env.core.local(self.till, || Till::new(&env.core.ledger));
            till.ask(|list| self.tell_ietf(seen, |name, line| put(headers, name, line), list));
        }
        for told in seen.of(self.me) {
            let Some(limit) = self.limits.get(told.limit_at) else { continue };
            let remaining = if told.spent.admitted { told.spent.remaining } else { 0 };
            if self.tell {
                let count = limit.count_text.unwrap_or_else(|| Short::number(told.count));
                let values = [count, Short::number(remaining), seconds(told.spent.reset_in)];
                headers.put_trio(&limit.headers, &values);
            }
            if !told.spent.admitted {
                let wait = told.spent.reset_in.as_millis().div_ceil(1000) as u64;
                headers.set("Retry-After", Short::number(wait.max(1)).as_bytes());
            }
        }
    }
}

impl Counter {
    /// The same as the IETF has it, with an item for each limit.
    fn tell_ietf(&self, seen: &Seen, mut put: impl FnMut(&str, &[u8]), list: &mut Vec<u8>) {
        let mine = || seen.of(self.me).filter_map(|told| Some((told, self.limits.get(told.limit_at)?)));
        list.clear();
        for (told, limit) in mine() {
            limit.write_policy(told.count, list);
        }
        put("RateLimit-Policy", list);
        list.clear();
        for (told, limit) in mine() {
            let remaining = if told.spent.admitted { told.spent.remaining } else { 0 };
            write_rate_limit(&limit.name, remaining, Some(told.spent.reset_in), list);
        }
        put("RateLimit", list);
    }
}

impl Limit {
    /// Its item of a `RateLimit-Policy`; a window that the request says is not told.
    fn write_policy(&self, count: u64, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(if out.is_empty() { b"\"" } else { b", \"" });
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b"\";q=");
        out.extend_from_slice(digits.format(count).as_bytes());
        if let Number::Fixed(seconds) = self.window {
            out.extend_from_slice(b";w=");
            out.extend_from_slice(digits.format(seconds).as_bytes());
        }
    }
}

/// Seconds with as many decimals as they have, at most two.
fn seconds(time: Duration) -> Short {
    let mut text = Short::number(time.as_secs());
    let hundredths = (time.subsec_millis() / 10) as u8;
    let decimals = match hundredths {
        0 => 0,
        tenths if tenths % 10 == 0 => 2,
        _ => 3,
    };
    text.push([b'.', b'0' + hundredths / 10, b'0' + hundredths % 10], decimals);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_has_as_many_decimals_as_it_needs() {
        assert_eq!(seconds(Duration::MAX).as_bytes(), b"18446744073709551615.99");
        for (millis, expected) in [(60_000, "60"), (59_990, "59.99"), (1500, "1.5"), (9, "0"), (10, "0.01")] {
            assert_eq!(seconds(Duration::from_millis(millis)).as_bytes(), expected.as_bytes());
        }
    }
}
