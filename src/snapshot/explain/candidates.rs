//! The routes that a request could go by: those that the router comes to, in its order, and why each is not the one.
//!
//! Behind them come routes that it never came to, as far as there is room: first those that miss it by little.

use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::{CANDIDATES_MAX, Grounds, describe};
use crate::base::hash::Set;
use crate::exchange::Exchange;
use crate::model;
use crate::router::{Look, Match, Miss, Mode, Near, Pattern, Query, Router};
use crate::snapshot::compile::Filed;
use crate::snapshot::{Bar, enter_route, query_of};

/// Routes that are looked through for those that miss the request by little.
const SCANNED_MAX: usize = 1000;

/// What became of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Won,
    Failed,
    /// It matches path and host, and another came first.
    Behind,
    /// The router never came to it.
    Elsewhere,
}

impl Fate {
    const fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Failed => "failed",
            Self::Behind => "behind",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A search as it goes.
struct Search<'a, 'r> {
    grounds: &'a Grounds<'a>,
    ex: &'a Exchange,
    query: Query<'a>,
    hosts: Vec<Option<&'r str>>,
    listed: Vec<Value>,
    /// Places of routes that are listed.
    seen: Set<u32>,
    winner: Option<Match<'r, u32>>,
}

impl<'a> Search<'a, '_> {
    fn new(grounds: &'a Grounds<'a>, ex: &'a Exchange) -> Self {
        let query = query_of(&ex.request);
        Self { grounds, ex, query, hosts: Vec::new(), listed: Vec::new(), seen: Set::default(), winner: None }
    }

    fn is_full(&self) -> bool {
        self.listed.len() >= CANDIDATES_MAX
    }

    fn note(&mut self, at: u32, (pattern, host): (&str, Option<&str>), fate: Fate, why: Option<Value>) {
        // The winner is told of however late it comes.
        if self.is_full() && (fate != Fate::Won || self.listed.pop().is_none()) {
            return;
        }
        let mut entry = describe::candidate(self.grounds, at);
        entry.insert("uri".to_owned(), pattern.into());
        entry.insert("host".to_owned(), host.into());
        entry.insert("verdict".to_owned(), fate.word().into());
        if let Some(why) = why {
            entry.insert("failed_on".to_owned(), why);
        }
        self.seen.insert(at);
        self.listed.push(Value::Object(entry));
    }

    /// What keeps the request from a route whose path and host match.
    fn fault(&self, found: &Match<'_, u32>) -> Option<Value> {
        let (grounds, ex, at) = (self.grounds, self.ex, *found.value);
        if !found.admits(&self.query) {
            let expected = describe::methods(found.methods);
            return Some(failed("methods", "methods", expected.into(), ex.request.method().text().into()));
        }
        match grounds.snapshot.routes[at].bar(ex.client.ip, ex)? {
            Bar::Clients(_) => Some(describe::clients(grounds, at, ex.client.ip)),
            Bar::Rule(rule) => {
                let owner = describe::name_of(grounds, at);
                let written = grounds.archive.object(&owner).and_then(|object| object.get("vars").cloned());
                let why = describe::unmet(grounds, "vars", rule, written.as_ref(), ex);
                Some(json!({"condition": "vars", "why": why}))
            }
        }
    }
}

impl<'r> Look<'r, u32, ()> for Search<'_, 'r> {
    fn met(&mut self, found: Match<'r, u32>) -> ControlFlow<()> {
        let (at, place) = (*found.value, (found.pattern, found.host));
        if self.winner.is_some() {
            self.note(at, place, Fate::Behind, None);
            return ControlFlow::Continue(());
        }
        // As `Router::find` does it for a core.
        if found.admits(&self.query) && self.grounds.snapshot.routes[at].takes(self.ex.client.ip, self.ex) {
            self.note(at, place, Fate::Won, None);
            self.winner = Some(found);
        } else if !self.is_full() {
            let why = self.fault(&found);
            self.note(at, place, Fate::Failed, why);
        }
        ControlFlow::Continue(())
    }

    fn missed(&mut self, near: Near<'r, u32>) -> ControlFlow<()> {
        if self.winner.is_some() || self.is_full() {
            return ControlFlow::Continue(());
        }
        let request = &self.ex.request;
        let why = match near.why {
            Miss::Path => {
                failed("path", "uri", near.pattern.into(), self.grounds.veil.plain(&request.path).into())
            }
            Miss::Host => describe::hosts(self.grounds, *near.value, &request.host),
        };
        self.note(*near.value, (near.pattern, near.host), Fate::Failed, Some(why));
        ControlFlow::Continue(())
    }

    fn entered(&mut self, host: Option<&'r str>) {
        self.hosts.push(host);
    }
}

/// One condition that failed.
pub(super) fn failed(condition: &str, field: &str, expected: Value, found: Value) -> Value {
    json!({"condition": condition, "why": [{"field": field, "expected": expected, "found": found}]})
}

/// Finds the route as a core does, notes it in the exchange, and tells of all that was looked at; of the route `asked`
/// in any case.
pub(super) fn find(
    grounds: &Grounds<'_>,
    ex: &mut Exchange,
    asked: Option<&str>,
) -> (Option<u32>, Map<String, Value>) {
    let mut told = Map::new();
    let winner = {
        let mut search = Search::new(grounds, ex);
        let query = search.query;
        let _: ControlFlow<()> = grounds.snapshot.router.walk(&query, &mut search);
        let left_off = elsewhere(grounds, ex, &mut search);
        told.insert("router".to_owned(), describe::router(grounds, &search.hosts));
        told.insert("candidates".to_owned(), search.listed.into());
        told.insert("candidates_left_off".to_owned(), left_off.into());
        if let Some(id) = asked {
            let winner = search.winner.as_ref().map(|found| *found.value);
            told.insert("asked_route".to_owned(), of_route(grounds, ex, winner, id));
        }
        search.winner
    };
    if let Some(found) = &winner {
        enter_route(ex, &grounds.snapshot.routes, found);
    }
    (winner.map(|found| *found.value), told)
}

/// Adds routes that the search never came to, nearest first. How many routes are not told of then.
fn elsewhere(grounds: &Grounds<'_>, ex: &Exchange, search: &mut Search<'_, '_>) -> usize {
    let others = grounds.archive.count_routes().saturating_sub(search.seen.len());
    let room = CANDIDATES_MAX.saturating_sub(search.listed.len());
    if room == 0 {
        return others;
    }
    let routes = grounds.archive.routes(SCANNED_MAX);
    let unseen =
        routes.iter().filter(|filed| filed.place().is_none_or(|place| !search.seen.contains(&place)));
    let mut near: Vec<(u8, Value)> = unseen.filter_map(|filed| missed_by(grounds, ex, filed)).collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.truncate(room);
    let left_off = others.saturating_sub(near.len());
    search.listed.extend(near.into_iter().map(|(_, entry)| entry));
    left_off
}

/// By how much a route misses the request, and what of it the request fails first.
fn missed_by(grounds: &Grounds<'_>, ex: &Exchange, filed: &Filed<'_>) -> Option<(u8, Value)> {
    let route = filed.route();
    let near = route.as_ref().map(|route| nearness(grounds, ex, route));
    let (takes_path, takes_host) = near.unwrap_or((false, false));
    let mut entry = describe::filed(filed, route.as_ref());
    entry.insert("verdict".to_owned(), Fate::Elsewhere.word().into());
    let why = match (filed.set_aside(), &route) {
        (Some(faults), _) => failed(
            "set_aside",
            "object",
            "an object without faults".into(),
            describe::shortened(faults.into()),
        ),
        (None, Some(route)) if !route.is_in_use() => failed("status", "status", 1.into(), 0.into()),
        (None, Some(route)) if takes_path => describe::hosts_of_route(grounds, route, &ex.request.host),
        (None, Some(route)) => {
            let uris: Vec<&str> = route.uris().map(|uri| uri.as_str()).collect();
            let field = if route.uris.is_some() { "uris" } else { "uri" };
            failed(
                "path",
                field,
                describe::shortened(uris.into()),
                grounds.veil.plain(&ex.request.path).into(),
            )
        }
        (None, None) => return None,
    };
    entry.insert("failed_on".to_owned(), why);
    let distance = match (takes_path, takes_host) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    Some((distance, Value::Object(entry)))
}

/// Whether the paths and the hosts of a route take the request, each for itself, as a router without others says.
fn nearness(grounds: &Grounds<'_>, ex: &Exchange, route: &model::Route) -> (bool, bool) {
    let query = query_of(&ex.request);
    let mode = grounds.snapshot.router.mode();
    let (mut paths, mut hosts) = (Router::new(mode), Router::new(Mode::Uri));
    let entered = grounds.archive.patterns(route, |pattern| {
        paths.insert(&Pattern { hosts: &[], ..*pattern }, 0, 0)?;
        hosts.insert(&Pattern { path: "*", ..*pattern }, 0, 0)
    });
    let takes = |router: &Router<u32>| router.each(&query, ControlFlow::Break).is_break();
    if entered.is_ok() { (takes(&paths), takes(&hosts)) } else { (false, false) }
}

/// What becomes of one route that was asked about, wherever it stands.
fn of_route(grounds: &Grounds<'_>, ex: &Exchange, winner: Option<u32>, id: &str) -> Value {
    let Some(filed) = grounds.archive.route(id) else {
        return json!({"route": id, "verdict": "absent", "why": format!("there is no route of id {id}")});
    };
    let elsewhere = || missed_by(grounds, ex, &filed).map_or(Value::Null, |(_, entry)| entry);
    let Some(place) = filed.place() else { return elsewhere() };
    let mut one = Search::new(grounds, ex);
    let query = one.query;
    let _: ControlFlow<()> = grounds.snapshot.router.each(&query, |found| {
        if *found.value != place {
            return ControlFlow::Continue(());
        }
        let why = one.fault(&found);
        let fate = match &why {
            Some(_) => Fate::Failed,
            None if winner == Some(place) => Fate::Won,
            None => Fate::Behind,
        };
        // It may be there several times, and one that the request does not fail counts.
        one.listed.clear();
        one.note(place, (found.pattern, found.host), fate, why);
        if fate == Fate::Failed { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    one.listed.pop().unwrap_or_else(elsewhere)
}
