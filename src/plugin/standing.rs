//! What is left of limits, for those who look: nothing is spent, and nobody is asked but the ledger.

use std::net::IpAddr;

use serde_json::Value;

use crate::base::clock::Moment;
use crate::exchange::Exchange;
use crate::link::ledger::Ledger;

use super::limits::LimitKey;

/// Whose limits are looked at.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// Those of a request.
    Request(&'a Exchange),
    /// Those of a key as it is written, of a consumer of a group; or those of the clients at that address whose requests
    /// have no key.
    Key { key: &'a str, consumer: &'a str, group: &'a str, is_keyless: bool },
}

/// A look at limits.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub ledger: &'a Ledger,
    pub now: Moment,
    pub whose: Whose<'a>,
}

/// Tells of each limit of a plugin, as JSON objects.
pub type Looking<P> = Option<fn(&P, Look<'_>) -> Vec<Value>>;

impl<'a> Whose<'a> {
    /// The consumer, and its group.
    pub fn consumer(&self) -> (&'a str, &'a str) {
        match self {
            Self::Request(ex) => (ex.consumer.name(), ex.consumer.group_id()),
            Self::Key { consumer, group, .. } => (consumer, group),
        }
    }

    /// Appends the key's value as [`LimitKey::resolve`] does; whether there is one.
    pub fn resolve(&self, key: &LimitKey, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Request(ex) => key.resolve(ex, out),
            Self::Key { is_keyless: true, .. } => false,
            Self::Key { key: text, .. } => match (key, text.parse::<IpAddr>()) {
                (LimitKey::Constant, _) => key.write_given(b"", out),
                (LimitKey::Address, Ok(address)) => key.write_given_address(address, out),
                (LimitKey::Address, Err(_)) => false,
                _ if text.is_empty() => false,
                _ => key.write_given(text.as_bytes(), out),
            },
        }
    }

    /// The same, with the address where there is no value.
    pub fn write(&self, key: &LimitKey, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Request(ex) => {
                key.write(ex, out);
                true
            }
            // Limits by address have told of it as of any key.
            Self::Key { key: text, is_keyless: true, .. } => match (key, text.parse()) {
                (LimitKey::Address | LimitKey::Constant, _) | (_, Err(_)) => false,
                (LimitKey::Var(_) | LimitKey::Template(_), Ok(address)) => {
                    key.write_given_address(address, out)
                }
            },
            Self::Key { .. } => self.resolve(key, out),
        }
    }
}
