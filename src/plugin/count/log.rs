//! Counting in a log, where each that was admitted has a place of its own (see `base::window::log`).

use std::time::Duration;

use super::{Judged, Limit, Place};
use crate::base::clock::Moment;
use crate::base::window::Spent;
use crate::base::window::log::{LOG_MAX, LOG_WINDOW, Log, PLACES, Taken};
use crate::exchange::Exchange;
use crate::plugin::ConfigError;
use crate::plugin::limits::{Number, Till};

/// Has all of them be logs.
///
/// # Errors
/// Where counts are kept elsewhere; and as [`Limit::into_log`], for the rule it is.
pub(super) fn all(limits: Vec<Limit>, of_rules: bool, is_afar: bool) -> Result<Vec<Limit>, ConfigError> {
    if is_afar {
        return Err(ConfigError::at("window_type", "log is for policy local only"));
    }
    let each = |(at, limit): (usize, Limit)| {
        let log = limit.into_log();
        if of_rules { log.map_err(|fault| fault.under(&format!("rules[{at}]"))) } else { log }
    };
    limits.into_iter().enumerate().map(each).collect()
}

impl Limit {
    /// Has each request counted for exactly as long as the window lasts.
    ///
    /// # Errors
    /// More than a log has places for, or a window that is too long for one.
    fn into_log(self) -> Result<Self, ConfigError> {
        if matches!(self.count, Number::Fixed(count) if count > LOG_MAX) {
            return Err(ConfigError::at("count", format!("expected at most {LOG_MAX} with window_type log")));
        }
        let most = LOG_WINDOW.as_secs() - 1;
        if matches!(self.window, Number::Fixed(seconds) if seconds > most) {
            return Err(ConfigError::at(
                "time_window",
                format!("expected at most {most} with window_type log: longer windows outlive the process"),
            ));
        }
        Ok(Self { is_log: true, ..self })
    }

    /// Counts a request that costs so many places: all or none.
    pub(super) fn spend_log(&self, ex: &Exchange, (now, cost): (Moment, u64), till: &Till) -> Judged {
        let numbers = till.ask(|scratch| Some((self.count.ask(ex, scratch)?, self.window.ask(ex, scratch)?)));
        let log = numbers
            .and_then(|(count, seconds)| Some((Log::new(count, Duration::from_secs(seconds))?, seconds)));
        let Some((log, seconds)) = log else { return Judged::Unknown };
        let until = log.until(now);
        let (mut taken, mut mine) = (Taken::default(), 0);
        for (account, places) in log.accounts().enumerate() {
            let name = |name: &mut Vec<u8>| self.write_account(ex, (seconds, account), name);
            let words = till.with(now, (&self.scope, None), name, |hand| {
                ex.counted_at.set(hand.whereabouts());
                while mine < cost && hand.take_place(places, (now, until)) {
                    mine += 1;
                }
                hand.places()
            });
            let Some(words) = words else { return Judged::Passed };
            taken.note(&words[..places], now);
        }
        if mine < cost {
            (0..mine).for_each(|_| taken.forget(until));
            self.give_places_back(ex, (&log, seconds), (now, until, mine), till);
        }
        let told = log.told(&mut taken, (cost, mine == cost), now);
        Judged::Spent(log.limit(), told, Place::Here(now))
    }

    /// Gives back so many of what was taken from `now` until then.
    pub(super) fn give_places_back(
        &self,
        ex: &Exchange,
        (log, seconds): (&Log, u64),
        (now, until, mut mine): (Moment, u64, u64),
        till: &Till,
    ) {
        for (account, _) in log.accounts().enumerate() {
            if mine == 0 {
                return;
            }
            let name = |name: &mut Vec<u8>| self.write_account(ex, (seconds, account), name);
            till.with(now, (&self.scope, None), name, |hand| {
                while mine > 0 && hand.give_place_back(until) {
                    mine -= 1;
                }
            });
        }
    }

    /// The name of one of the accounts: all of a log end in a number, so none is another key's.
    fn write_account(&self, ex: &Exchange, (seconds, account): (u64, usize), name: &mut Vec<u8>) -> bool {
        let found = self.write_name(ex, Some(seconds), name);
        name.push(account as u8);
        found
    }
}

/// What a log has left, by the words of its accounts.
pub(super) fn look(log: &Log, now: Moment, words: impl Fn(u8) -> [u64; PLACES]) -> Spent {
    let mut taken = Taken::default();
    for (account, places) in log.accounts().enumerate() {
        taken.note(&words(account as u8)[..places], now);
    }
    log.told(&mut taken, (0, true), now)
}
