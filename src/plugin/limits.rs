//! What plugins that limit have in common: what is counted apart, numbers that a request may bring, and a core's way to
//! the accounts.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::base::address::Shown;
use crate::base::clock::Moment;
use crate::base::text::parse_u64;
use crate::base::window::long::Long;
use crate::base::window::quota::When;
use crate::exchange::{Exchange, Reply};
use crate::expr::{Template, Var, Vars as _};
use crate::link::ledger::{Epoch, Hand, HeldAccount, Ledger, Name, Purse};
use crate::model::field::{InRange, Text};
use crate::proto::head::HeaderList;

/// That a plugin has begun the lists `RateLimit` and `RateLimit-Policy` of an answer: others add theirs. In the slot of the name
/// [`Begun::SLOT`].
#[derive(Debug, Default)]
pub struct Begun(bool);

impl Begun {
    pub const SLOT: &str = "RateLimit";

    /// Begins them, or goes on with them: how a line is put there.
    pub fn put(&mut self) -> fn(&mut HeaderList, &str, &[u8]) {
        if std::mem::replace(&mut self.0, true) { HeaderList::add } else { HeaderList::set }
    }
}

/// The largest number a limit can be given, of requests as of seconds.
pub const AMOUNT_MAX: i64 = u32::MAX as i64;

/// A number from `MIN`, or a template that comes to one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Amount<const MIN: i64> {
    Number(InRange<MIN, AMOUNT_MAX>),
    Template(Text<1, 256>),
}

impl<const MIN: i64> Amount<MIN> {
    const EXPECTED: &str =
        if MIN == 0 { "a whole number or a template" } else { "a whole number above 0 or a template" };
}

impl<const MIN: i64> JsonSchema for Amount<MIN> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Amount_{MIN}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-expected": Self::EXPECTED,
            "anyOf": [
                { "type": "integer", "minimum": MIN, "maximum": AMOUNT_MAX },
                { "type": "string", "minLength": 1, "maxLength": 256 },
            ],
        })
    }
}

/// A number, as the core asks for it.
#[derive(Debug)]
pub enum Number {
    Fixed(u64),
    /// With the least that is allowed.
    Asked(Template, u64),
}

impl Number {
    /// Compiles what was written.
    ///
    /// # Errors
    /// A text that refers to nothing and is no such number.
    pub fn of<const MIN: i64>(amount: &Amount<MIN>) -> Result<Self, String> {
        let least = MIN.max(0) as u64;
        match amount {
            Amount::Number(number) => Ok(Self::Fixed(number.u64())),
            Amount::Template(text) => {
                let template = Template::parse(text.as_str());
                match template.as_constant() {
                    None => match never_a_number(&template) {
                        None => Ok(Self::Asked(template, least)),
                        Some(why) => Err(format!("expected {}, {why}", Amount::<MIN>::EXPECTED)),
                    },
                    Some(constant) => whole(constant.as_bytes(), least)
                        .map(Self::Fixed)
                        .ok_or_else(|| format!("expected {}, got {constant:?}", Amount::<MIN>::EXPECTED)),
                }
            }
        }
    }

    /// The number for a request; `None` when its template does not come to one.
    pub fn ask(&self, ex: &Exchange, scratch: &mut Vec<u8>) -> Option<u64> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Asked(template, least) => {
                scratch.clear();
                template.render(ex, scratch);
                whole(scratch, *least)
            }
        }
    }

    /// Whether it is the request's to say.
    pub const fn is_asked(&self) -> bool {
        matches!(self, Self::Asked(..))
    }

    /// Whether only a body that was read can answer it.
    pub fn asks_for_body(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Asked(template, _) => template.vars().any(Var::needs_request_body),
        }
    }
}

/// Why a template never comes to a whole number, whatever it is answered: what stands beside its references is no digits.
pub fn never_a_number(template: &Template) -> Option<String> {
    let text = template.texts_within().find(|text| !text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(format!("but {text:?} beside what it asks for is never a number, and nothing is reckoned"))
}

fn whole(text: &[u8], least: u64) -> Option<u64> {
    parse_u64(text.trim_ascii()).filter(|number| (least..=AMOUNT_MAX as u64).contains(number))
}

/// What a `key` is, where it can not be a constant.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A template.
    VarCombination,
}

/// What is counted apart.
#[derive(Debug)]
pub enum LimitKey {
    Address,
    Constant,
    Var(Var),
    Template(Template),
}

impl LimitKey {
    /// As a `key_type` says.
    pub fn of(text: &str, key_type: KeyType) -> Self {
        match key_type {
            KeyType::Var => Self::var(Var::parse(text)),
            KeyType::VarCombination => Self::combination(text),
        }
    }

    /// A template; one that refers to nothing is one for all.
    pub fn combination(text: &str) -> Self {
        match Template::parse(text) {
            template if template.is_constant() => Self::Constant,
            template => match text.strip_prefix('$').map(Var::parse) {
                Some(Var::RemoteAddr) => Self::Address,
                _ => Self::Template(template),
            },
        }
    }

    fn var(var: Var) -> Self {
        if var == Var::RemoteAddr { Self::Address } else { Self::Var(var) }
    }

    /// Whether only a body that was read can answer it.
    pub fn asks_for_body(&self) -> bool {
        match self {
            Self::Address | Self::Constant => false,
            Self::Var(var) => var.needs_request_body(),
            Self::Template(template) => template.vars().any(Var::needs_request_body),
        }
    }

    /// Appends the value; whether there is one, else nothing is appended.
    pub fn resolve(&self, ex: &Exchange, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        // The first byte keeps values that look like an address apart from addresses.
        out.push(b'v');
        let found = match self {
            Self::Constant => true,
            Self::Address => {
                out.truncate(before);
                write_address(ex, out);
                return true;
            }
            Self::Var(var) => {
                out.extend_from_slice(ex.var(var).as_deref().unwrap_or(b""));
                out.len() > before + 1
            }
            Self::Template(template) => template.render(ex, out) > 0 && out.len() > before + 1,
        };
        if !found {
            out.truncate(before);
        }
        found
    }

    /// The same as text that others can read, without a mark; with `or_nothing` the address stands for no value.
    pub fn write_text(&self, ex: &Exchange, or_nothing: bool, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if !matches!(self, Self::Address) && self.resolve(ex, out) {
            out.remove(before);
            return true;
        }
        if or_nothing && !matches!(self, Self::Address) {
            return false;
        }
        out.extend_from_slice(Shown(ex.client.ip).to_string().as_bytes());
        true
    }

    /// Appends a value that was found elsewhere, as [`Self::resolve`] would.
    pub fn write_given(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        out.push(b'v');
        out.extend_from_slice(value);
        true
    }

    /// The same for an address.
    pub fn write_given_address(&self, address: IpAddr, out: &mut Vec<u8>) -> bool {
        push_address(address, out);
        true
    }

    /// Appends the value; the client's address where it has none.
    pub fn write(&self, ex: &Exchange, out: &mut Vec<u8>) {
        if !self.resolve(ex, out) {
            write_address(ex, out);
        }
    }
}

fn write_address(ex: &Exchange, out: &mut Vec<u8>) {
    push_address(ex.client.ip, out);
}

fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    out.push(b'a');
    match address.to_canonical() {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

/// The answer of a limit that is spent.
pub fn refusal(status: u16, message: Option<&str>) -> Reply {
    match message {
        Some(message) => Reply::error_msg(status, message).of_limit(),
        None => Reply::status(status).of_limit(),
    }
}

/// Whole seconds, none too few.
pub const fn whole_seconds(time: Duration) -> u64 {
    (time.as_nanos() as u64).div_ceil(1_000_000_000)
}

/// Appends an item of a `RateLimit` field (draft-ietf-httpapi-ratelimit-headers-11): what is left under a name that needs
/// no escapes, and when that changes, if it does.
pub fn write_rate_limit(name: &str, remaining: u64, resets: Option<Duration>, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(if out.is_empty() { b"\"" } else { b", \"" });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\";r=");
    out.extend_from_slice(digits.format(remaining).as_bytes());
    if let Some(time) = resets {
        out.extend_from_slice(b";t=");
        out.extend_from_slice(digits.format(whole_seconds(time)).as_bytes());
    }
}

/// A core's way to the accounts of one plugin.
#[derive(Debug)]
pub struct Till {
    purse: Purse,
    scratch: RefCell<Vec<u8>>,
}

impl Till {
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        Self { purse: Purse::new(ledger), scratch: RefCell::default() }
    }

    /// Numbers of a request, from a buffer that is kept.
    pub fn ask<R>(&self, ask: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        ask(&mut self.scratch.borrow_mut())
    }

    /// Runs `spend` on the account of a limit, named `scope`, for the key that `write` appends; of a window that is kept
    /// beyond the process if `keep` says so. `None` when `write` does not.
    pub fn with<R>(
        &self,
        now: Moment,
        (scope, keep): (&[u8], Option<Long>),
        write: impl FnOnce(&mut Vec<u8>) -> bool,
        spend: impl FnOnce(Hand<'_>) -> R,
    ) -> Option<R> {
        let mut name = self.scratch.borrow_mut();
        name.clear();
        name.extend_from_slice(scope);
        let found = write(&mut name);
        found.then(|| self.purse.with_kept(now, Name { bytes: &name, limit: scope.len() }, keep, spend))
    }

    /// The same account, to be held on to.
    pub fn hold(
        &self,
        now: Moment,
        (scope, keep): (&[u8], Option<Long>),
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> Option<HeldAccount> {
        let mut name = self.scratch.borrow_mut();
        name.clear();
        name.extend_from_slice(scope);
        let found = write(&mut name);
        found.then(|| self.purse.hold(now, Name { bytes: &name, limit: scope.len() }, keep))
    }

    /// A moment by both clocks.
    pub fn when(&self, now: Moment) -> When {
        self.purse.when(now)
    }

    /// What windows are aligned by that are not started by their first use.
    pub fn since_epoch(&self) -> Epoch {
        self.purse.since_epoch()
    }
}
