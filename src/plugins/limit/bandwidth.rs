//! Bodies that pass slowly: so many bytes a second up, and down, of each key. All cores count together, in the ledger.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::amounts::{Limit as Compiled, Stream};
use super::meters::{Desk, Meters};
use super::{Case, Limit};
use crate::base::clock::Moment;
use crate::base::window::flow::Flow;
use crate::exchange::{Exchange, Pace, Paces};
use crate::link::ledger::HeldAccount;
use crate::link::stats::Series;
use crate::plugin::Env;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Up,
    Down,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::Up, Self::Down];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One limit's hold on one body.
#[derive(Debug)]
struct Slow {
    account: HeldAccount,
    flow: Flow,
    is_shadow: bool,
    /// Bytes that waited, or would have, and milliseconds of it.
    delayed: [Option<Arc<Series>>; 2],
}

impl Pace for Slow {
    fn pass(&self, now: Moment, bytes: u64) -> Duration {
        let wait = self.account.pass(&self.flow, now, bytes);
        if wait.is_zero() {
            return wait;
        }
        for (series, by) in self.delayed.iter().zip([bytes, wait.as_millis() as u64]) {
            if let Some(series) = series {
                series.add(by);
            }
        }
        if self.is_shadow { Duration::ZERO } else { wait }
    }

    fn bytes_a_second(&self) -> Option<u64> {
        (!self.is_shadow).then(|| self.flow.bytes())
    }
}

impl Limit {
    /// Has the bodies of a request that is admitted pass as slowly as its limits say.
    pub(super) fn slow_down(&self, case: Case, ex: &mut Exchange, env: Env<'_>) {
        let amounts = &self.tiers.all[case.tier].amounts;
        for (at, (limit, amounts)) in self.limits.iter().zip(amounts).enumerate() {
            for way in Way::ALL {
                let Some(stream) = &amounts.streams[way as usize] else { continue };
                let Some(pace) = self.slow((at, limit, stream), way, (case.now, ex), env) else { continue };
                let place = match way {
                    Way::Up => &mut ex.paces.up,
                    Way::Down => &mut ex.paces.down,
                };
                Paces::add(place, Rc::new(pace));
            }
        }
    }

    fn slow(
        &self,
        (at, limit, stream): (usize, &Compiled, &Stream),
        way: Way,
        (now, ex): (Moment, &Exchange),
        env: Env<'_>,
    ) -> Option<Slow> {
        let desk = env.core.local(self.desk, || Desk::new(env.core));
        let account = desk.till.hold(now, (&stream.scope, None), |name| limit.write_key(ex, name))?;
        let meters = env.core.local(self.me, || Meters::new(self.limits.len()));
        let delayed = meters.slowness((at, &limit.name, limit.is_shadow), way, (&desk, env.core));
        Some(Slow { account, flow: stream.flow, is_shadow: limit.is_shadow, delayed })
    }
}
