//! What is left of limits for somebody, without a request: which of them are in force, asked of the plugins themselves.

use serde_json::{Value, json};

use super::compile::Compiler;
use super::{Chain, Snapshot};
use crate::base::clock;
use crate::base::hash::Set;
use crate::plugin::{Hooks as _, Look, Whose};

/// Limits that are told of in one answer.
pub const LIMITS_MAX: usize = 200;

/// Whose limits are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// What keys come to, as it is written; that of a consumer is its name where none is given.
    pub key: Option<String>,
    /// The route to look at; all if none is given.
    pub route: Option<String>,
    pub consumer: Option<String>,
}

impl Compiler {
    /// The limits in force, with what is left of each: as JSON, whose shape is in `docs/control-api.md`. An error is that
    /// there is no such route or consumer.
    ///
    /// # Errors
    /// What there is not.
    pub fn standing(&self, sought: &Sought) -> Result<Value, String> {
        let snapshot = self.last_snapshot();
        let Some(ledger) = self.ledger() else { return Err("nothing is counted here".to_owned()) };
        let name = sought.consumer.as_deref();
        let known = match name {
            Some(name) => {
                Some(snapshot.index.named(name).ok_or_else(|| format!("consumer[{name}] not found"))?)
            }
            None => None,
        };
        let (consumer, group) =
            known.map_or(("", ""), |known| (known.labels.name(), known.labels.group_id()));
        let key = sought.key.as_deref().unwrap_or(consumer);
        let look = Look { ledger, now: clock::now(), whose: Whose::Key { key, consumer, group } };
        let mut list = List { look, known: Set::default(), told: Vec::new(), left_off: 0 };
        list.add(&snapshot.global);
        let brings = known.and_then(|known| snapshot.consumers.get(known.consumer));
        let mut found = false;
        for route in snapshot.routes.iter() {
            if sought.route.as_deref().is_some_and(|wanted| wanted != route.labels.route_id()) {
                continue;
            }
            found = true;
            match brings.filter(|brings| !brings.changes_nothing()) {
                Some(brings) => list.add(&brings.over(&route.chain)),
                None => list.add(&route.chain),
            }
        }
        if let (Some(route), false) = (&sought.route, found) {
            return Err(format!("route[{route}] not found"));
        }
        Ok(list.json(&snapshot, key))
    }
}

/// What was found.
struct List<'a> {
    look: Look<'a>,
    /// Uses that were looked at: those of a service are those of all its routes.
    known: Set<(String, &'static str)>,
    told: Vec<Value>,
    left_off: usize,
}

impl List<'_> {
    fn add(&mut self, chain: &Chain) {
        for mount in chain.mounts() {
            if !self.known.insert((mount.owner.to_string(), mount.plugin.name())) {
                continue;
            }
            for mut told in mount.plugin.standing(self.look).into_iter().filter(|told| !told.is_null()) {
                if self.told.len() >= LIMITS_MAX {
                    self.left_off += 1;
                    continue;
                }
                told["from"] = (*mount.owner).into();
                self.told.push(told);
            }
        }
    }

    fn json(self, snapshot: &Snapshot, key: &str) -> Value {
        json!({
            "generation": snapshot.generation,
            "key": key,
            "total": self.told.len() + self.left_off,
            "list": self.told,
            "left_off": self.left_off,
        })
    }
}
