//! What is left of the limits of one use, for those who look.

use serde_json::{Value, json};

use super::bandwidth::Way;
use super::{Limit, amounts};
use crate::base::window::quota::Gauge;
use crate::plugin::standing::Look;

impl Limit {
    /// Each limit that is for whoever is looked for. What a request costs is known of a request only; else it is one.
    pub(super) fn standing(&self, look: Look<'_>) -> Vec<Value> {
        let (consumer, group) = look.whose.consumer();
        let tier = &self.tiers.all[self.tiers.of(consumer, group)];
        let mut told = Vec::new();
        for (limit, amounts) in self.limits.iter().zip(&tier.amounts) {
            let name = |scope: &[u8]| {
                let mut name = scope.to_vec();
                let found = match limit.is_for_some {
                    true => look.whose.resolve(&limit.key, &mut name),
                    false => look.whose.write(&limit.key, &mut name),
                };
                found.then_some(name)
            };
            let mode = if limit.is_shadow { "shadow" } else { "enforce" };
            for measure in &amounts.measures {
                let Some(name) = name(&measure.scope) else { break };
                told.push(of_measure((&limit.name, mode), measure, &name, look));
            }
            if let Some(places) = &amounts.seats
                && let Some(name) = name(&places.scope)
            {
                let left = places.most.saturating_sub(look.ledger.seated(&name));
                told.push(json!({
                    "plugin": "limit", "limit": limit.name, "mode": mode, "per": "concurrency",
                    "count": places.most, "remaining": left,
                }));
            }
            for way in Way::ALL {
                let Some(stream) = &amounts.streams[way as usize] else { continue };
                let Some(name) = name(&stream.scope) else { break };
                let (left, full_in) = stream.flow.left(look.ledger.words(&name)[0], look.now);
                told.push(json!({
                    "plugin": "limit", "limit": limit.name, "mode": mode, "per": format!("bytes {}", way.word()),
                    "count": stream.flow.bytes(), "burst": stream.flow.burst(), "remaining": left,
                    "reset_in": (!full_in.is_zero()).then(|| full_in.as_millis() as f64 / 1000.0),
                }));
            }
        }
        told
    }
}

fn of_measure((limit, mode): (&str, &str), measure: &amounts::Measure, name: &[u8], look: Look<'_>) -> Value {
    let spent = look.ledger.look(name, &measure.gauge, look.now, 0);
    let is_used = spent.remaining < measure.gauge.limit();
    // A window that nobody has begun does not end.
    let ends = is_used || matches!(&measure.gauge, Gauge::Quota(quota) if quota.span().is_aligned());
    json!({
        "plugin": "limit",
        "limit": limit,
        "mode": mode,
        "per": measure.span,
        "count": measure.gauge.limit(),
        "remaining": spent.remaining,
        "reset_in": ends.then(|| spent.reset_in.as_millis() as f64 / 1000.0),
    })
}
