//! What was expected of a request, held against what became of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::caller::Message;
use super::form::{Expect, Forwarded, PHASES, Plugins};
use super::ground::Names;
use super::house::Ran;
use super::town::Seen;
use super::wish::{Wish, shown_or_nothing};
use crate::base::address::Address;
use crate::plugin::Phase;
use crate::snapshot::Snapshot;

/// What became of a request.
pub(super) struct Found {
    /// `None`: the connection was closed without an answer.
    pub(super) answer: Option<Message>,
    /// Its record in the access log.
    pub(super) record: Option<Value>,
    pub(super) ran: Ran,
    pub(super) seen: Vec<Seen>,
    pub(super) tried: Vec<Address>,
}

/// Something that is not as expected.
#[derive(Debug)]
pub(super) struct Miss {
    /// Where the wish is, from the place of `expect`.
    pub(super) path: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Found {
    /// A field of the record.
    fn told(&self, field: &str) -> Option<&str> {
        self.record.as_ref()?.get(field)?.as_str()
    }

    /// The id of the route that took it.
    pub(super) fn route(&self) -> Option<&str> {
        self.told("route_id")
    }

    /// The node that was tried last.
    fn node(&self) -> Option<Address> {
        self.told("upstream_addr")?.parse().ok()
    }

    /// What it got.
    fn forwarded(&self) -> Option<&Message> {
        let node = self.node()?;
        self.seen.iter().rev().find(|seen| seen.node == node).map(|seen| &seen.message)
    }
}

/// Holds all wishes against it.
pub(super) fn judge(expect: &Expect, found: &Found, names: &Names, snapshot: &Snapshot) -> Vec<Miss> {
    let mut bench = Bench { misses: Vec::new() };
    let status = found.answer.as_ref().map(|answer| answer.status);
    if let Some(wanted) = expect.status.filter(|wanted| status != Some(*wanted)) {
        let found =
            status.map_or_else(|| "a connection closed without an answer".to_owned(), |it| it.to_string());
        bench.miss("status", wanted.to_string(), found);
    }
    let answer = found.answer.as_ref();
    bench.headers("headers", &expect.headers, answer);
    bench.text("body", expect.body.as_ref(), answer.map(|answer| answer.body.as_slice()));
    for (name, wish, field) in [
        ("route", &expect.route, "route_id"),
        ("service", &expect.service, "service_id"),
        ("consumer", &expect.consumer, "consumer"),
        ("reason", &expect.reason, "error_code"),
    ] {
        bench.text(name, wish.as_ref(), found.told(field).map(str::as_bytes));
    }
    if let Some(plugins) = &expect.plugins {
        bench.plugins(plugins, &found.ran);
    }
    let node = found.node();
    if let Some(wish) = &expect.node {
        let (address, name) = (node.map(|node| node.to_string()), node.map(|node| names.name(node)));
        let is_met = |text: &Option<String>| wish.is_met(text.as_deref().map(str::as_bytes));
        if !is_met(&address) && !is_met(&name) {
            bench.miss("node", wish.to_string(), shown_or_nothing(name.as_deref().map(str::as_bytes)));
        }
    }
    if let Some(wanted) = &expect.tries {
        bench.tries(wanted, found, names, snapshot);
    }
    if let Some(wanted) = &expect.upstream {
        let having = node.map_or_else(Vec::new, |node| upstreams_of(node, snapshot));
        let is_it = |name: &&str| name == wanted || name.strip_prefix("upstreams/") == Some(wanted);
        if !having.iter().any(is_it) {
            bench.miss("upstream", format!("{wanted:?}"), listed(&having));
        }
    }
    if let Some(wanted) = &expect.forwarded {
        bench.forwarded(wanted, found.forwarded());
    }
    bench.misses
}

struct Bench {
    misses: Vec<Miss>,
}

impl Bench {
    fn miss(&mut self, path: &str, expected: String, found: String) {
        self.misses.push(Miss { path: path.to_owned(), expected, found });
    }

    fn text(&mut self, path: &str, wish: Option<&Wish>, found: Option<&[u8]>) {
        if let Some(wish) = wish.filter(|wish| !wish.is_met(found)) {
            self.miss(path, wish.to_string(), shown_or_nothing(found));
        }
    }

    fn headers(&mut self, path: &str, wishes: &BTreeMap<String, Wish>, message: Option<&Message>) {
        for (name, wish) in wishes {
            let found = message.and_then(|message| message.header(name));
            self.text(&format!("{path}.{name}"), Some(wish), found.as_deref());
        }
    }

    fn plugins(&mut self, wanted: &Plugins, ran: &Ran) {
        match wanted {
            Plugins::Gates(wanted) => {
                self.list(
                    "plugins",
                    wanted,
                    &names_of(ran, |phase| (phase as usize) <= Phase::BeforeProxy as usize),
                );
            }
            Plugins::Phases(wanted) => {
                for (word, wanted) in wanted {
                    let path = format!("plugins.{word}");
                    self.list(&path, wanted, &names_of(ran, |phase| phase.word() == word));
                }
            }
        }
    }

    fn list(&mut self, path: &str, wanted: &[String], found: &[&str]) {
        if !wanted.iter().eq(found.iter()) {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            self.miss(path, listed(&wanted), listed(found));
        }
    }

    fn tries(&mut self, wanted: &[String], found: &Found, names: &Names, snapshot: &Snapshot) {
        // What is mirrored to others is no try.
        let tried = found.tried.iter().filter(|node| !upstreams_of(**node, snapshot).is_empty());
        let tried: Vec<(String, String)> = tried.map(|node| (node.to_string(), names.name(*node))).collect();
        let is_met = wanted.len() == tried.len()
            && wanted.iter().zip(&tried).all(|(wanted, (address, name))| wanted == address || wanted == name);
        if !is_met {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let tried: Vec<&str> = tried.iter().map(|(_, name)| name.as_str()).collect();
            self.miss("tries", listed(&wanted), listed(&tried));
        }
    }

    fn forwarded(&mut self, wanted: &Forwarded, found: Option<&Message>) {
        if found.is_none() {
            return self.miss("forwarded", "a request at a node".to_owned(), "none".to_owned());
        }
        let text = |text: fn(&Message) -> &[u8]| found.map(text);
        self.text("forwarded.method", wanted.method.as_ref(), text(|message| message.method.as_bytes()));
        self.text("forwarded.uri", wanted.uri.as_ref(), text(|message| message.uri.as_bytes()));
        self.headers("forwarded.headers", &wanted.headers, found);
        self.text("forwarded.body", wanted.body.as_ref(), text(|message| message.body.as_slice()));
    }
}

/// Plugins that ran in some phases; one that has its turn several times in a row is named once.
fn names_of(ran: &Ran, wanted: impl Fn(Phase) -> bool) -> Vec<&'static str> {
    let mut names: Vec<&str> =
        ran.iter().filter(|(phase, _)| wanted(*phase)).map(|(_, name)| *name).collect();
    names.dedup();
    names
}

/// Names of the upstreams that have a node.
fn upstreams_of(node: Address, snapshot: &Snapshot) -> Vec<&str> {
    let all = snapshot.upstreams.iter();
    let having = all.filter(|upstream| upstream.nodes.iter().any(|other| other.address == node));
    having.map(|upstream| &*upstream.name).collect()
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether the phases that a test names are those there are.
pub(super) fn unknown_phase(expect: &Expect) -> Option<&str> {
    match expect.plugins.as_ref()? {
        Plugins::Gates(_) => None,
        Plugins::Phases(phases) => phases.keys().map(String::as_str).find(|name| !PHASES.contains(name)),
    }
}
