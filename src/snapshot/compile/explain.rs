//! What the compiler knows of the objects behind a snapshot, for those who explain a request.

use std::cell::RefCell;

use serde_json::Value;

use super::state::{Held, State, raw_of};
use super::{Compiler, Snapshot, parts};
use crate::base::hash::Map;
use crate::model::{self, Kind, Object, object_name, typed};
use crate::router::{Pattern, RouterError};
use crate::snapshot::explain::{self, Ask};
use crate::snapshot::limits_of;

impl Compiler {
    /// What becomes of a request with what is in force, and why. Runs gates of plugins on trial, so it takes as long as
    /// the request would, and a little more for each route that is told of.
    pub fn explain(&self, ask: &Ask) -> Value {
        let archive = Archive { state: &self.state, read: RefCell::default() };
        explain::explain(&archive, (&self.last_snapshot(), self.ledger()), &limits_of(&self.settings), ask)
    }

    /// What the cores were given last, for those who look.
    pub(in crate::snapshot) fn last_snapshot(&self) -> Snapshot {
        let house = std::sync::Arc::clone(&self.house);
        let state = &self.state;
        let mut last =
            state.parts.snapshot(self.generation, house, &state.registry, std::sync::Arc::default());
        last.is_unguarded = state.is_unguarded();
        last
    }
}

/// The objects in force.
pub(in crate::snapshot) struct Archive<'a> {
    state: &'a State,
    /// Those that were read already, by name.
    read: RefCell<Map<String, Option<std::rc::Rc<Value>>>>,
}

/// A route as the archive has it.
pub(in crate::snapshot) struct Filed<'a> {
    pub(in crate::snapshot) id: &'a str,
    held: &'a Held,
}

impl Filed<'_> {
    /// Its place in the snapshot; `None`: no request is routed to it.
    pub(in crate::snapshot) fn place(&self) -> Option<u32> {
        self.held.place()
    }

    /// Why no version of it is in force.
    pub(in crate::snapshot) fn set_aside(&self) -> Option<Vec<String>> {
        let is_out = self.held.in_force().is_none();
        is_out.then(|| self.held.faults_of_wanted().iter().map(ToString::to_string).collect())
    }

    /// The version in force, else the one that is wanted, as far as it can be read.
    pub(in crate::snapshot) fn route(&self) -> Option<model::Route> {
        let text = self.held.in_force().unwrap_or(&self.held.wanted);
        match typed(&raw_of(Kind::Route, self.id, text).ok()?) {
            Ok(Object::Route(route)) => Some(*route),
            _ => None,
        }
    }
}

impl<'a> Archive<'a> {
    /// What an object in force says; `name` is as in `routes/7`.
    pub(in crate::snapshot) fn object(&self, name: &str) -> Option<std::rc::Rc<Value>> {
        let mut read = self.read.borrow_mut();
        let found = read.entry(name.to_owned()).or_insert_with(|| {
            let (plural, id) = name.split_once('/')?;
            // A credential's id has its consumer's before it.
            let held = self.state.get(&(Kind::of_plural(plural)?, id.into()))?;
            serde_json::from_str(held.in_force()?).ok().map(std::rc::Rc::new)
        });
        found.clone()
    }

    /// What a plugin of an object was told.
    pub(in crate::snapshot) fn plugin(&self, owner: &str, plugin: &str) -> Option<Value> {
        self.object(owner)?.get("plugins")?.get(plugin).cloned()
    }

    /// So many routes, oldest first, in force or not.
    pub(in crate::snapshot) fn routes(&self, count_max: usize) -> Vec<Filed<'a>> {
        let mut routes: Vec<(&str, &Held)> = self.state.of_kind(Kind::Route).collect();
        routes.sort_by_key(|(_, held)| held.age());
        routes.into_iter().take(count_max).map(|(id, held)| Filed { id, held }).collect()
    }

    /// The names of all global rules, oldest first.
    pub(in crate::snapshot) fn global_rules(&self) -> Vec<String> {
        let mut rules: Vec<(&str, &Held)> = self.state.of_kind(Kind::GlobalRule).collect();
        rules.sort_by_key(|(_, held)| held.age());
        rules.into_iter().map(|(id, _)| object_name(Kind::GlobalRule, id)).collect()
    }

    /// How many routes there are, in force or not.
    pub(in crate::snapshot) fn count_routes(&self) -> usize {
        self.state.of_kind(Kind::Route).count()
    }

    /// One route, in force or not.
    pub(in crate::snapshot) fn route(&self, id: &str) -> Option<Filed<'a>> {
        let (id, held) = self.state.find(Kind::Route, id)?;
        Some(Filed { id, held })
    }

    /// Whether a route's paths, and whether its hosts, take a request, by what `ask` says of a pattern.
    ///
    /// # Errors
    /// When a pattern means nothing.
    pub(in crate::snapshot) fn patterns(
        &self,
        route: &model::Route,
        mut each: impl FnMut(&Pattern<'_>) -> Result<(), RouterError>,
    ) -> Result<(), RouterError> {
        let service = route.service_id.as_ref().and_then(|id| self.state.parts.services.get(id.as_str()));
        let hosts = parts::hosts_of(route, service.map(|service| &*service.hosts).unwrap_or_default());
        parts::patterns(route, &hosts).try_for_each(|pattern| each(&pattern))
    }
}
