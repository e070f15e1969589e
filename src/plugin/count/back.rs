//! What limits have counted of a request that a later one refuses: they give it back, so that whoever is refused uses nothing up.
//!
//! It is given back to the window it was counted in, or to none. What a rule said of itself in the answer is what was left with
//! the request in it.

use std::time::Duration;

use super::afar::Afar;
use super::{Counter, Limit, Place, Seen, Told, long};
use crate::base::clock::Moment;
use crate::base::window::log::Log;
use crate::base::window::long::Long;
use crate::base::window::quota::{Gauge, Quota};
use crate::base::window::{Fixed, Sliding};
use crate::exchange::Exchange;
use crate::plugin::Env;
use crate::plugin::limits::Till;

impl Counter {
    /// What limits of this use have counted of the request so far.
    fn counted<'a>(&self, ex: &'a Exchange) -> impl Iterator<Item = &'a Told> + use<'a> {
        let me = self.me;
        let seen = ex.slots.get::<Seen>(self.seen);
        seen.into_iter().flat_map(move |seen| seen.of(me)).filter(|told| told.spent.admitted)
    }

    /// Gives back what was counted here of a request that cost so much.
    pub(super) fn give_back(&self, ex: &Exchange, (env, cost): (Env<'_>, u64)) {
        let till = env.core.local(self.till, || Till::new(&env.core.ledger));
        for told in self.counted(ex) {
            if let Some(limit) = self.limits.get(told.limit_at) {
                limit.give_back(ex, (told, self.sliding, cost), &till);
            }
        }
    }

    /// The same where it may have been counted in a Redis. Where that does not hear of it before `until`, it stays counted
    /// there until its window ends.
    pub(super) async fn give_back_afar(
        &self,
        afar: &Afar,
        ex: &Exchange,
        (until, env, cost): (Moment, Env<'_>, u64),
    ) {
        self.give_back(ex, (env, cost));
        for told in self.counted(ex) {
            if let Some(limit) = self.limits.get(told.limit_at) {
                afar.give_back(limit, ex, (told.place, cost), (until, env)).await;
            }
        }
    }
}

impl Limit {
    /// Gives back what it has counted of a request, if that was here.
    fn give_back(&self, ex: &Exchange, (told, sliding, cost): (&Told, bool, u64), till: &Till) {
        let numbers = till.ask(|scratch| Some((self.count.ask(ex, scratch)?, self.window.ask(ex, scratch)?)));
        let Some((count, seconds)) = numbers else { return };
        let window = Duration::from_secs(seconds);
        let (now, mark) = match told.place {
            Place::Here(now) => (now, None),
            Place::Kept(at, mark) => (at, Some(mark)),
            Place::Afar(_) | Place::Held(_) => return,
        };
        if self.is_log {
            if let Some(log) = Log::new(count, window) {
                self.give_places_back(ex, (&log, seconds), (now, log.until(now), cost), till);
            }
            return;
        }
        let keep = long(seconds, sliding);
        let name = |name: &mut Vec<u8>| self.write_name(ex, Some(seconds), name);
        till.with(now, (&self.scope, keep), name, |account| match (sliding, keep, mark) {
            (true, ..) => {
                account.give_back_sliding(&Sliding::new(count, window), now, till.since_epoch(), cost);
            }
            (false, Some(Long::Quota(span)), Some(mark)) => {
                let gauge = Gauge::Quota(Quota::new(count, span));
                account.give_back(&gauge, mark, till.when(now), cost);
            }
            (false, ..) => {
                account.give_back_fixed(&Fixed::new(count, window), (now, told.spent.reset_in), cost);
            }
        });
    }
}
