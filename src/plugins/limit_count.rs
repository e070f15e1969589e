//! `limit-count`: so many requests in a window of time, for each value of a key.
//!
//! ```yaml
//! plugins:
//!   limit-count:
//!     count: 100
//!     time_window: 60
//!     key: consumer_name
//!     rejected_code: 429
//! ```
//!
//! Counting is exact for the whole process: every core spends from the same account. Every answer tells what is
//! left. Uses that name a `group` share their counters; any other counts for itself. Of several `rules`, those
//! before the one that refuses have counted the request. Differs from APISIX: only policy `local` is there, the
//! others are refused when configuration is read; a refusal also carries `Retry-After`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::base::hash::stable;
use crate::base::text::parse_u64;
use crate::exchange::{Exchange, Reply, SlotId};
use crate::expr::{Template, Var, Vars as _};
use crate::link::ledger::{Account, Purse, Spent};
use crate::model::field::HeaderName;
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, Plugin, Step};
use crate::runtime::LocalId;
use crate::runtime::limits::HELD_BODY_BYTES;

use self::config::{Amount, Config, KeyType, Metadata, Rule, WindowType};

#[path = "limit_count/config.rs"]
mod config;

/// What the core reads.
pub struct LimitCount {
    limits: Vec<Limit>,
    sliding: bool,
    refusal: Reply,
    /// Whether requests pass whose limit cannot be told.
    degrade: bool,
    tell: bool,
    till: LocalId,
    /// Tells this use from others in the slot they share.
    me: LocalId,
    seen: SlotId,
}

/// One counter a key.
struct Limit {
    count: Number,
    window: Number,
    key: Key,
    /// What the names of its accounts begin with.
    scope: Vec<u8>,
    limit_header: String,
    remaining_header: String,
    reset_header: String,
}

enum Number {
    Fixed(u64),
    Asked(Template),
}

enum Key {
    Address,
    Constant,
    Var(Var),
    Template(Template),
}

/// A core's way to the accounts.
#[derive(Default)]
struct Till {
    purse: Purse,
    name: RefCell<Vec<u8>>,
}

/// What a limit said of the request.
#[derive(Clone, Copy)]
struct Told {
    by: LocalId,
    limit_at: usize,
    count: u64,
    spent: Spent,
}

/// What all limits said; the first needs no memory of its own.
#[derive(Default)]
struct Seen {
    first: Option<Told>,
    more: Vec<Told>,
}

impl Plugin for LimitCount {
    const NAME: &'static str = "limit-count";
    const PRIORITY: i32 = 1002;
    type Config = Config;
    type Metadata = Metadata;

    const IS_ACTION: bool = true;
    const ACCESS: Gate<Self> = Some(Self::spend);
    const HEADER_FILTER: Edit<Self> = Some(Self::tell);

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        if let Some(policy) = config.policy.elsewhere() {
            let problem = format!("this build counts in its own process only: expected local, got {policy}");
            return Err(ConfigError::at("policy", problem));
        }
        let scope = match &config.group {
            Some(_) if cx.is_action() => return Err(ConfigError::at("group", "group is not supported")),
            // What is compared is what was meant, not how it was written.
            Some(group) if !cx.agree(group.as_str(), stable(format!("{config:?}").as_bytes())) => {
                return Err(ConfigError::at("group", "group conf mismatched"));
            }
            Some(group) => format!("{}\ngroup\n{}", Self::NAME, group.as_str()),
            None => format!("{}\n{}\n{:x}", Self::NAME, cx.owner(), cx.fingerprint()),
        };
        let limits = match (&config.count, &config.time_window, &config.rules) {
            (Some(count), Some(window), None) => {
                let key = Key::of(config.key.as_str(), config.key_type);
                let mut limit = Limit::new(count, window, key, format!("{scope}\n\n"), &metadata)?;
                if let Key::Constant = limit.key {
                    limit.scope.extend_from_slice(config.key.as_bytes());
                }
                vec![limit]
            }
            (None, None, Some(rules)) => rules
                .iter()
                .enumerate()
                .map(|(at, rule)| {
                    Limit::of_rule(rule, at, &scope).map_err(|fault| fault.under(&format!("rules[{at}]")))
                })
                .collect::<Result<_, _>>()?,
            (None, None, None) => {
                return Err(ConfigError::new("expected at least one of `count` with `time_window` and `rules`"));
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
        let status = config.rejected_code.u16();
        Ok(Self {
            limits,
            sliding: matches!(config.window_type, WindowType::Sliding),
            refusal: match &config.rejected_msg {
                Some(message) => Reply::error_msg(status, message.as_str()),
                None => Reply::status(status),
            },
            degrade: config.allow_degradation,
            tell: config.show_limit_quota_header,
            till: cx.local_of_all_uses(),
            me: cx.local(),
            seen: cx.slot(),
        })
    }
}

impl Limit {
    fn new(
        count: &Amount,
        window: &Amount,
        key: Key,
        scope: String,
        metadata: &Metadata,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            count: Number::of(count).map_err(|why| ConfigError::at("count", why))?,
            window: Number::of(window).map_err(|why| ConfigError::at("time_window", why))?,
            key,
            scope: scope.into_bytes(),
            limit_header: metadata.limit_header.as_str().to_owned(),
            remaining_header: metadata.remaining_header.as_str().to_owned(),
            reset_header: metadata.reset_header.as_str().to_owned(),
        })
    }

    fn of_rule(rule: &Rule, at: usize, scope: &str) -> Result<Self, ConfigError> {
        let key = Key::of(rule.key.as_str(), KeyType::VarCombination);
        // Rules are numbered from 1 in headers, as APISIX does.
        let prefix = rule.header_prefix.as_ref().map_or_else(|| (at + 1).to_string(), |text| text.to_string());
        let name = |what: &str| -> Result<HeaderName, ConfigError> {
            format!("X-{prefix}-RateLimit-{what}").parse().map_err(|fault: ConfigError| fault.under("header_prefix"))
        };
        let metadata = Metadata {
            limit_header: name("Limit")?,
            remaining_header: name("Remaining")?,
            reset_header: name("Reset")?,
        };
        let mut limit = Self::new(&rule.count, &rule.time_window, key, format!("{scope}\n{at}\n"), &metadata)?;
        if let Key::Constant = limit.key {
            limit.scope.extend_from_slice(rule.key.as_bytes());
        }
        Ok(limit)
    }

    fn asks_for_body(&self) -> bool {
        let in_number = |number: &Number| match number {
            Number::Fixed(_) => false,
            Number::Asked(template) => template.vars().any(Var::needs_request_body),
        };
        let in_key = match &self.key {
            Key::Address | Key::Constant => false,
            Key::Var(var) => var.needs_request_body(),
            Key::Template(template) => template.vars().any(Var::needs_request_body),
        };
        in_key || in_number(&self.count) || in_number(&self.window)
    }

    /// Counts the request; the count it is held against, and what is left. `None`: the limit cannot be told.
    fn spend(&self, ex: &Exchange, (now, sliding): (Moment, bool), till: &Till, env: Env<'_>) -> Option<(u64, Spent)> {
        let mut name = till.name.borrow_mut();
        let count = self.count.ask(ex, &mut name)?;
        let window = Duration::from_secs(self.window.ask(ex, &mut name)?);
        name.clear();
        name.extend_from_slice(&self.scope);
        self.key.write(ex, &mut name);
        let spend = |account: &Account| match sliding {
            true => account.spend_sliding(now, window, count, 1),
            false => account.spend_fixed(now, window, count, 1),
        };
        Some((count, till.purse.with(&env.core.ledger, &name, spend)))
    }
}

impl LimitCount {
    fn spend<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let till = env.core.local(self.till, Till::default);
        let now = env.core.now();
        for (limit_at, limit) in self.limits.iter().enumerate() {
            let (count, spent) = match limit.spend(ex, (now, self.sliding), &till, env) {
                Some(told) => told,
                None if self.degrade => continue,
                None => return Step::Reply(Reply::status(500)),
            };
            if self.tell {
                let told = Told { by: self.me, limit_at, count, spent };
                let seen = ex.slots.of::<Seen>(self.seen);
                match seen.first {
                    None => seen.first = Some(told),
                    Some(_) => seen.more.push(told),
                }
            }
            if !spent.admitted {
                return Step::Reply(self.refusal.clone());
            }
        }
        Step::Next
    }

    fn tell(&self, ex: &mut Exchange, _: Env<'_>) {
        let Exchange { slots, response, .. } = ex;
        let Some(seen) = slots.get::<Seen>(self.seen) else { return };
        let headers = &mut response.headers;
        for told in seen.first.iter().chain(&seen.more).filter(|told| told.by == self.me) {
            let Some(limit) = self.limits.get(told.limit_at) else { continue };
            let remaining = if told.spent.admitted { told.spent.remaining } else { 0 };
            let mut digits = itoa::Buffer::new();
            headers.set(&limit.limit_header, digits.format(told.count).as_bytes());
            headers.set(&limit.remaining_header, digits.format(remaining).as_bytes());
            let mut text = [0; SECONDS_BYTES];
            headers.set(&limit.reset_header, seconds(told.spent.reset_in, &mut text));
            if !told.spent.admitted {
                let wait = told.spent.reset_in.as_millis().div_ceil(1000) as u64;
                headers.set("Retry-After", digits.format(wait.max(1)).as_bytes());
            }
        }
    }
}

impl Number {
    fn of(amount: &Amount) -> Result<Self, String> {
        match amount {
            Amount::Number(number) => Ok(Self::Fixed(number.u64())),
            Amount::Template(text) => {
                let template = Template::parse(text.as_str());
                match template.as_constant() {
                    None => Ok(Self::Asked(template)),
                    Some(constant) => positive(constant.as_bytes())
                        .map(Self::Fixed)
                        .ok_or_else(|| format!("expected a whole number above 0 or a template, got {constant:?}")),
                }
            }
        }
    }

    fn ask(&self, ex: &Exchange, scratch: &mut Vec<u8>) -> Option<u64> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Asked(template) => {
                scratch.clear();
                template.render(ex, scratch);
                positive(scratch)
            }
        }
    }
}

fn positive(text: &[u8]) -> Option<u64> {
    parse_u64(text.trim_ascii()).filter(|number| (1..=config::AMOUNT_MAX as u64).contains(number))
}

impl Key {
    fn of(text: &str, key_type: KeyType) -> Self {
        let var = match key_type {
            KeyType::Constant => return Self::Constant,
            KeyType::Var => Var::parse(text),
            KeyType::VarCombination => match Template::parse(text) {
                template if template.is_constant() => return Self::Constant,
                template => match text.strip_prefix('$').map(Var::parse) {
                    Some(Var::RemoteAddr) => Var::RemoteAddr,
                    _ => return Self::Template(template),
                },
            },
        };
        if var == Var::RemoteAddr { Self::Address } else { Self::Var(var) }
    }

    /// Appends the value; the client's address where it has none.
    fn write(&self, ex: &Exchange, out: &mut Vec<u8>) {
        // The first byte keeps values that look like an address apart from addresses.
        out.push(b'v');
        let before = out.len();
        let found = match self {
            Self::Constant => return,
            Self::Address => false,
            Self::Var(var) => {
                out.extend_from_slice(ex.var(var).as_deref().unwrap_or(b""));
                out.len() > before
            }
            Self::Template(template) => template.render(ex, out) > 0 && out.len() > before,
        };
        if !found {
            out.truncate(before - 1);
            out.push(b'a');
            match ex.client.ip.to_canonical() {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }
}

/// Room for seconds with two decimals.
const SECONDS_BYTES: usize = 24;

fn seconds(time: Duration, text: &mut [u8; SECONDS_BYTES]) -> &[u8] {
    let mut digits = itoa::Buffer::new();
    let whole = digits.format(time.as_secs()).as_bytes();
    let hundredths = (time.subsec_millis() / 10) as u8;
    let behind = [b'.', b'0' + hundredths / 10, b'0' + hundredths % 10];
    let length = whole.len() + behind.len();
    text[..whole.len()].copy_from_slice(whole);
    text[whole.len()..length].copy_from_slice(&behind);
    &text[..length]
}

#[cfg(test)]
#[path = "limit_count/tests.rs"]
mod tests;
