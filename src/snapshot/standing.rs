//! What is left of limits for somebody, without a request: which of them are in force, asked of the plugins themselves.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::compile::Compiler;
use super::route::Consumer as Brings;
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
    /// The stream route to look at, in place of routes.
    pub stream_route: Option<String>,
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
        let look = |is_keyless| {
            let whose = Whose::Key { key, consumer, group, is_keyless };
            Look { ledger, now: clock::now(), whose }
        };
        let keyless = key.parse::<IpAddr>().is_ok().then(|| look(true));
        let mut list =
            List { look: look(false), keyless, known: Set::default(), told: Vec::new(), left_off: 0 };
        if sought.stream_route.is_none() {
            list.add(&snapshot.global);
            let brings = known.and_then(|known| snapshot.consumers.get(known.consumer));
            list.add_routes(&snapshot, (sought.route.as_deref(), brings))?;
        }
        if sought.route.is_none() {
            list.add_stream_routes(&snapshot, sought.stream_route.as_deref())?;
        }
        Ok(list.json(&snapshot, key))
    }
}

/// What was found.
struct List<'a> {
    look: Look<'a>,
    /// How requests from the key are looked at that have none, where it is an address.
    keyless: Option<Look<'a>>,
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
            let look = |look| mount.plugin.standing(look).into_iter().filter(|told: &Value| !told.is_null());
            let mut keyless: Vec<Value> = self.keyless.into_iter().flat_map(look).collect();
            for mut told in look(self.look) {
                let is_same = |other: &Value| ["limit", "per"].iter().all(|name| other[name] == told[name]);
                let other = keyless.iter().position(is_same).map(|at| keyless.remove(at));
                if other.is_some() {
                    told["as"] = "value".into();
                }
                self.tell(told, &mount.owner);
                if let Some(mut other) = other {
                    other["as"] = "address".into();
                    self.tell(other, &mount.owner);
                }
            }
        }
    }

    fn tell(&mut self, mut told: Value, owner: &str) {
        if self.told.len() >= LIMITS_MAX {
            self.left_off += 1;
            return;
        }
        told["from"] = owner.into();
        self.told.push(told);
    }

    fn add_routes(
        &mut self,
        snapshot: &Snapshot,
        (wanted, brings): (Option<&str>, Option<&Brings>),
    ) -> Result<(), String> {
        let brings = brings.filter(|brings| !brings.changes_nothing());
        let mut found = wanted.is_none();
        for route in snapshot.routes.iter() {
            if wanted.is_some_and(|wanted| wanted != route.labels.route_id()) {
                continue;
            }
            found = true;
            match brings {
                Some(brings) => self.add(&brings.over(&route.chain)),
                None => self.add(&route.chain),
            }
        }
        if found { Ok(()) } else { Err(format!("route[{}] not found", wanted.unwrap_or_default())) }
    }

    fn add_stream_routes(&mut self, snapshot: &Snapshot, wanted: Option<&str>) -> Result<(), String> {
        let mut found = wanted.is_none();
        for route in snapshot.streams.iter() {
            if wanted.is_none_or(|wanted| wanted == route.labels.route_id()) {
                found = true;
                self.add(&route.chain);
            }
        }
        if found { Ok(()) } else { Err(format!("stream_route[{}] not found", wanted.unwrap_or_default())) }
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
