//! The limits of one use as the core asks them: what is counted apart, how much of it there is, and for whom.

use super::bandwidth::Way;
use super::config::{Amounts as WrittenAmounts, Bandwidth, Config, KeyType, Limit as Written, Mode, Rate, Window, WithoutKey};
use crate::base::hash::{Map, stable};
use crate::base::window::Seats;
use crate::base::window::flow::Flow;
use crate::base::window::long::Long;
use crate::base::window::quota::{Bucket, Gauge, Quota, Span};
use crate::exchange::Exchange;
use crate::model::field::NonEmpty;
use crate::plugin::limits::{self, LimitKey, Till};
use crate::plugin::{CompileCx, ConfigError};

/// Limits of one use: each is asked for every request.
const LIMITS_MAX: usize = 16;
/// Windows of one limit.
const WINDOWS_MAX: usize = 8;
/// Consumers, and groups, of one use that have amounts of their own.
const TIERS_MAX: usize = 1024;

/// One limit.
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) key: LimitKey,
    /// Whether a request without a value is none of its business, rather than counted by its address.
    pub(super) is_for_some: bool,
    pub(super) is_shadow: bool,
    /// What its accounts begin with.
    scope: String,
}

/// How much there is of one limit.
#[derive(Clone)]
pub(super) struct Amounts {
    pub(super) measures: Vec<Measure>,
    pub(super) seats: Option<Places>,
    /// Bodies on their way up, and down.
    pub(super) streams: [Option<Stream>; 2],
}

/// So many bytes a second.
#[derive(Clone)]
pub(super) struct Stream {
    pub(super) flow: Flow,
    /// What the names of its accounts begin with.
    pub(super) scope: Vec<u8>,
}

/// So much in a window, or at a rate.
#[derive(Clone)]
pub(super) struct Measure {
    pub(super) gauge: Gauge,
    /// What the names of its accounts begin with.
    pub(super) scope: Vec<u8>,
    /// Set where it is kept beyond the process.
    pub(super) keep: Option<Long>,
    /// What it is called where all are told.
    pub(super) label: String,
    /// How it is told to people: `minute`, `90 s`, `rate`.
    pub(super) span: String,
}

/// So many at once.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) seats: Seats,
    pub(super) most: u64,
    pub(super) scope: Vec<u8>,
}

/// How much there is for some.
pub(super) struct Tier {
    /// As the limits.
    pub(super) amounts: Vec<Amounts>,
    /// The `RateLimit-Policy`.
    pub(super) policy: String,
}

/// Which tier somebody is in; the first is everybody's.
#[derive(Default)]
pub(super) struct Tiers {
    pub(super) all: Vec<Tier>,
    consumers: Map<String, usize>,
    groups: Map<String, usize>,
}

impl Tiers {
    /// The tier of a consumer, by its own name, else by its group's.
    pub(super) fn of(&self, consumer: &str, group: &str) -> usize {
        if self.all.len() == 1 || consumer.is_empty() {
            return 0;
        }
        self.consumers.get(consumer).or_else(|| self.groups.get(group)).copied().unwrap_or(0)
    }
}

impl Limit {
    /// Appends the value that is counted apart; whether the limit is for the request.
    pub(super) fn write_key(&self, ex: &Exchange, name: &mut Vec<u8>) -> bool {
        if self.is_for_some {
            return self.key.resolve(ex, name);
        }
        self.key.write(ex, name);
        true
    }

    /// Whether the limit is for the request.
    pub(super) fn is_for(&self, ex: &Exchange, till: &Till) -> bool {
        !self.is_for_some
            || till.ask(|scratch| {
                scratch.clear();
                self.key.resolve(ex, scratch)
            })
    }
}

/// The limits of a use, and how much there is of them for whom.
///
/// # Errors
/// What the types do not say: names that come twice, limits without an amount.
pub(super) fn compile(config: &Config, cx: &CompileCx<'_>) -> Result<(Vec<Limit>, Tiers), ConfigError> {
    if config.limits.len() > LIMITS_MAX {
        return Err(ConfigError::at("limits", format!("expected at most {LIMITS_MAX}, got {}", config.limits.len())));
    }
    let mut limits: Vec<Limit> = Vec::with_capacity(config.limits.len());
    let mut plain = Vec::with_capacity(config.limits.len());
    for (at, written) in config.limits.iter().enumerate() {
        let under = |fault: ConfigError| fault.under(&format!("limits[{at}]"));
        if limits.iter().any(|other| other.name == written.name.as_str()) {
            return Err(under(ConfigError::at("name", format!("expected another name, got {} again", written.name))));
        }
        let limit = limit(written, config.mode, cx).map_err(under)?;
        let seats = written.concurrency.map(|most| most.u64());
        let parts = (&written.windows, &written.rate, seats, written.bandwidth.as_ref());
        plain.push(amounts(&limit, parts).map_err(under)?);
        limits.push(limit);
    }
    let mut tiers = Tiers::default();
    tiers.all.push(tier(&limits, plain.clone()));
    for (field, written) in
        [("consumers", &config.tiers.consumers), ("consumer_groups", &config.tiers.consumer_groups)]
    {
        if written.len() > TIERS_MAX {
            let problem = format!("expected at most {TIERS_MAX}, got {}", written.len());
            return Err(ConfigError::at(format!("tiers.{field}"), problem));
        }
        for (name, overrides) in written {
            let mut own = plain.clone();
            for (limit, written) in overrides {
                let path = format!("tiers.{field}.{name}.{limit}");
                own_amounts(&limits, &mut own, limit, written).map_err(|fault| fault.under(&path))?;
            }
            let places = if field == "consumers" { &mut tiers.consumers } else { &mut tiers.groups };
            places.insert(name.clone(), tiers.all.len());
            tiers.all.push(tier(&limits, own));
        }
    }
    Ok((limits, tiers))
}

fn own_amounts(
    limits: &[Limit],
    own: &mut [Amounts],
    name: &str,
    written: &WrittenAmounts,
) -> Result<(), ConfigError> {
    let Some(at) = limits.iter().position(|limit| limit.name == name) else {
        return Err(ConfigError::new("expected the name of one of limits"));
    };
    let seats = written.concurrency.map(|most| most.u64());
    let parts = (&written.windows, &written.rate, seats, written.bandwidth.as_ref());
    own[at] = amounts(&limits[at], parts)?;
    Ok(())
}

fn limit(written: &Written, mode: Mode, cx: &CompileCx<'_>) -> Result<Limit, ConfigError> {
    let (name, text) = (written.name.as_str(), written.key.as_str());
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return Err(ConfigError::at("name", format!("expected letters, digits, _, - and ., got {name:?}")));
    }
    let key = match written.key_type {
        KeyType::Constant => LimitKey::Constant,
        KeyType::Var => LimitKey::of(text, limits::KeyType::Var),
        KeyType::VarCombination => LimitKey::of(text, limits::KeyType::VarCombination),
    };
    // Not how much there is: who raises a limit does not forget what was spent of it.
    let kind = stable(format!("{:?}\n{text}", written.key_type).as_bytes());
    let owner = if written.shared { "" } else { cx.owner() };
    Ok(Limit {
        name: name.to_owned(),
        key,
        is_for_some: written.without_key == WithoutKey::Pass,
        is_shadow: written.mode.unwrap_or(mode) == Mode::Shadow,
        scope: format!("limit\n{owner}\n{name}\n{kind:x}"),
    })
}

type Parts<'a> = (&'a Option<NonEmpty<Window>>, &'a Option<Rate>, Option<u64>, Option<&'a Bandwidth>);

fn amounts(limit: &Limit, (windows, rate, concurrency, bandwidth): Parts<'_>) -> Result<Amounts, ConfigError> {
    let windows = windows.as_ref().map_or(&[][..], |windows| &windows[..]);
    if windows.len() > WINDOWS_MAX {
        return Err(ConfigError::at("windows", format!("expected at most {WINDOWS_MAX}, got {}", windows.len())));
    }
    if windows.is_empty() && rate.is_none() && concurrency.is_none() && bandwidth.is_none() {
        return Err(ConfigError::new("expected at least one of windows, rate, concurrency and bandwidth"));
    }
    let streams = bandwidth.map_or_else(|| Ok([None, None]), |written| limit.streams(written))?;
    let mut measures = Vec::with_capacity(windows.len() + 1);
    for (at, window) in windows.iter().enumerate() {
        let (span, word) = match (window.per, window.seconds) {
            (Some(per), None) => (Span::Calendar(per.unit()), per.word().to_owned()),
            (None, Some(seconds)) => (Span::Lasting(seconds.u32()), format!("{}s", seconds.get())),
            _ => {
                let problem = "expected exactly one of `per` and `seconds`";
                return Err(ConfigError::at(format!("windows[{at}]"), problem));
            }
        };
        let quota = Quota::new(window.count.u64(), span);
        let is_known = measures.iter().any(|other: &Measure| other.span == word);
        if is_known {
            let problem = "expected windows of different lengths, got one twice";
            return Err(ConfigError::at(format!("windows[{at}]"), problem));
        }
        measures.push(limit.measure(Gauge::Quota(quota), word, Long::of_span(span)));
    }
    if let Some(rate) = rate {
        if !(rate.count > 0.0 && rate.count.is_finite()) {
            return Err(ConfigError::at("rate.count", format!("expected a number above 0, got {}", rate.count)));
        }
        let per_second = rate.count / rate.per.unit().seconds() as f64;
        let burst = rate.burst.map_or_else(|| per_second.ceil().max(1.0) as u64, |burst| burst.u64());
        let bucket = Bucket::new(per_second, burst);
        measures.push(limit.measure(Gauge::Bucket(bucket), "rate".to_owned(), None));
    }
    let alone = measures.len() == 1;
    if alone && let Some(only) = measures.first_mut() {
        only.label.clone_from(&limit.name);
    }
    let seats = concurrency.map(|most| Places {
        seats: Seats::new(most, 0),
        most,
        scope: format!("{}\nseats\n", limit.scope).into_bytes(),
    });
    Ok(Amounts { measures, seats, streams })
}

impl Limit {
    fn streams(&self, written: &Bandwidth) -> Result<[Option<Stream>; 2], ConfigError> {
        if written.up.is_none() && written.down.is_none() {
            return Err(ConfigError::at("bandwidth", "expected at least one of up and down"));
        }
        Ok(Way::ALL.map(|way| {
            let written = match way {
                Way::Up => written.up.as_ref(),
                Way::Down => written.down.as_ref(),
            }?;
            let bytes = written.bytes.u64();
            let flow = Flow::new(bytes, written.burst.map_or(bytes, |burst| burst.u64()));
            Some(Stream { flow, scope: format!("{}\nbytes {}\n", self.scope, way.word()).into_bytes() })
        }))
    }

    fn measure(&self, gauge: Gauge, span: String, keep: Option<Long>) -> Measure {
        let scope = format!("{}\n{span}\n", self.scope).into_bytes();
        Measure { gauge, scope, keep, label: format!("{}-{span}", self.name), span }
    }
}

/// Puts the policy of a tier into words, once for all its answers.
fn tier(limits: &[Limit], amounts: Vec<Amounts>) -> Tier {
    let mut policy = String::new();
    let told = limits.iter().zip(&amounts).filter(|(limit, _)| !limit.is_shadow);
    for measure in told.flat_map(|(_, amounts)| &amounts.measures) {
        if !policy.is_empty() {
            policy.push_str(", ");
        }
        policy.push_str(&measure.policy());
    }
    Tier { amounts, policy }
}

impl Measure {
    /// Its part of a `RateLimit-Policy`.
    fn policy(&self) -> String {
        match &self.gauge {
            Gauge::Quota(quota) => {
                format!("\"{}\";q={};w={}", self.label, quota.limit(), quota.span().seconds())
            }
            Gauge::Bucket(bucket) => {
                format!("\"{}\";q={};w={}", self.label, bucket.burst(), bucket.fills_in().as_millis().div_ceil(1000))
            }
        }
    }
}
