//! What is left of the windows of one use, for those who look.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Counter, Limit, log, long, within};
use crate::base::window::log::Log;
use crate::base::window::long::Long;
use crate::base::window::quota::{Gauge, Quota};
use crate::base::window::{Fixed, Slide, Sliding, Spent};
use crate::plugin::limits::Number;
use crate::plugin::standing::{Look, Whose};

/// So often may a look at a sliding window find that one begins or ends first.
const MOVES_MAX: usize = 4;

impl Counter {
    /// A line for each limit, null for one that is not for whoever is looked for, or is counted elsewhere.
    pub fn standing(&self, look: Look<'_>) -> Vec<Value> {
        if self.afar.is_some() {
            return Vec::new();
        }
        self.limits
            .iter()
            .map(|limit| limit.standing(look, (self.plugin, self.sliding)).unwrap_or(Value::Null))
            .collect()
    }
}

impl Limit {
    fn standing(&self, look: Look<'_>, (plugin, sliding): (&str, bool)) -> Option<Value> {
        let ask = |number: &Number| match (number, look.whose) {
            (Number::Fixed(number), _) => Some(*number),
            (Number::Asked(..), Whose::Request(ex)) => number.ask(ex, &mut Vec::new()),
            (Number::Asked(..), Whose::Key { .. }) => None,
        };
        let (count, seconds) = (ask(&self.count)?, ask(&self.window)?);
        let mut name = self.scope.clone();
        if self.window.is_asked() {
            name.extend_from_slice(&seconds.to_le_bytes());
        }
        let found = match self.is_for_some {
            true => look.whose.resolve(&self.key, &mut name),
            false => look.whose.write(&self.key, &mut name),
        };
        if !found {
            return None;
        }
        let words = look.ledger.words(&name);
        let window = Duration::from_secs(seconds);
        let spent = match sliding {
            _ if self.is_log => log::look(&Log::new(count, window)?, look.now, |account| {
                look.ledger.words(&[&*name, &[account]].concat())
            }),
            true => slide(&Sliding::new(count, window), words, look.ledger.since_epoch().at(look.now))?,
            false => match long(seconds, false) {
                Some(Long::Quota(span)) => {
                    let gauge = Gauge::Quota(Quota::new(count, span));
                    within(gauge.look(words[0], look.ledger.when(look.now), 0), window)
                }
                _ => Fixed::new(count, window).spend(words[0], look.now, 0).0,
            },
        };
        let is_used = spent.remaining < count;
        Some(json!({
            "plugin": plugin,
            "per": format!("{seconds}s"),
            "count": count,
            "remaining": spent.remaining,
            "reset_in": is_used.then(|| spent.reset_in.as_millis() as f64 / 1000.0),
        }))
    }
}

fn slide(sliding: &Sliding, mut words: [u64; 2], now_ms: u64) -> Option<Spent> {
    for _ in 0..MOVES_MAX {
        match sliding.step(words, now_ms, 0) {
            Slide::Move { word, next } => words[word] = next,
            Slide::Admit { spent, .. } | Slide::Refuse(spent) => return Some(spent),
        }
    }
    None
}
