//! How many requests an upstream is given at once, compiled.

use std::sync::Arc;

use crate::exchange::Exchange;
use crate::expr::{Var, Vars as _};
use crate::link::throttle::{self as link, Pass, Rules, Sight};
use crate::model::upstream as model;

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    cell: Arc<link::Throttle>,
    pub rules: Rules,
    priority: Option<Priority>,
}

/// Which requests are refused before others.
#[derive(Debug)]
struct Priority {
    variable: Var,
    low: Box<[Box<[u8]>]>,
    low_percent: u32,
}

impl Throttle {
    /// `keep` finds what is known of an upstream with these rules, so that it goes on from snapshot to snapshot.
    pub(super) fn new(of: &model::Concurrency, keep: impl FnOnce(&Rules) -> Arc<link::Throttle>) -> Self {
        let rules = Rules {
            min: of.min.u32(),
            max: of.max.u32(),
            initial: of.initial.u32(),
            tolerance_percent: of.tolerance_percent.u32(),
        };
        let priority = of.priority.as_ref().map(|priority| Priority {
            variable: Var::parse(&priority.variable),
            low: priority.low.iter().map(|value| value.as_bytes().into()).collect(),
            low_percent: priority.low_percent.u32(),
        });
        Self { cell: keep(&rules), rules, priority }
    }

    /// Lets a request in, unless there is no room for it.
    pub fn enter(&self, ex: &Exchange) -> Option<Pass<&link::Throttle>> {
        self.cell.enter(&self.rules, self.low_percent(ex))
    }

    /// What [`Self::enter`] gave, for a request that may outlast this.
    pub fn keep(&self, pass: Pass<&link::Throttle>) -> Pass<Arc<link::Throttle>> {
        pass.keep(&self.cell)
    }

    /// Whether a request is refused before others.
    pub fn is_low(&self, ex: &Exchange) -> bool {
        self.low_percent(ex).is_some()
    }

    fn low_percent(&self, ex: &Exchange) -> Option<u32> {
        let priority = self.priority.as_ref()?;
        let value = ex.var(&priority.variable)?;
        priority.low.iter().any(|low| **low == *value).then_some(priority.low_percent)
    }

    /// What is counted.
    pub fn cell(&self) -> &link::Throttle {
        &self.cell
    }

    /// What there is to see.
    pub fn sight(&self) -> Sight {
        self.cell.sight(&self.rules)
    }
}
