//! The plugins, in the order of a request: each gate run on trial, and told.
//!
//! The order is that of `edge/pipeline.rs`. A gate that would wait is not waited for and is taken to let the request
//! pass. What runs once there is an answer is listed and not run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::limited;
use super::{Grounds, describe};
use crate::exchange::{Exchange, Source};
use crate::expr::{Rule, Var};
use crate::plugin::{Env, Hooks as _, Mount, Phase, Tried};
use crate::proto::head::Method;
use crate::snapshot::{AnyPlugin, Chain, Route, Target, is_new, show_consumer};

/// What came of it.
pub(super) struct Trial {
    pub(super) plugins: Map<String, Value>,
    pub(super) consumer: Value,
    pub(super) limits: Vec<Value>,
    pub(super) notes: Vec<String>,
    /// The answer of the gateway or of a plugin, if the request does not go on.
    pub(super) answer: Option<Value>,
}

/// A trial under way.
struct Run<'a> {
    grounds: &'a Grounds<'a>,
    ex: &'a mut Exchange,
    told: Trial,
    /// The objects that plugins of the route may come from, the strongest first.
    sources: Vec<String>,
    /// The plugin that found out who the request comes from.
    identified_by: Option<&'static str>,
}

/// Whose chain it is.
#[derive(Clone, Copy)]
enum Scope {
    Global,
    Route,
}

/// Goes the way of a request from its route on.
pub(super) fn run(grounds: &Grounds<'_>, ex: &mut Exchange, found: Option<u32>) -> Trial {
    let told = Trial {
        plugins: Map::new(),
        consumer: Value::Null,
        limits: Vec::new(),
        notes: Vec::new(),
        answer: None,
    };
    let route = found.map(|at| &grounds.snapshot.routes[at]);
    let sources = found.map_or_else(Vec::new, |at| sources(grounds, at));
    let mut run = Run { grounds, ex, told, sources, identified_by: None };
    run.go(route);
    run.told
}

/// The objects a route is made of, the strongest first.
fn sources(grounds: &Grounds<'_>, at: u32) -> Vec<String> {
    let own = describe::name_of(grounds, at);
    let object = grounds.archive.object(&own);
    let named = |field: &str, plural: &str| {
        let id = object.as_ref()?.get(field)?;
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        Some(format!("{plural}/{id}"))
    };
    let others = [named("plugin_config_id", "plugin_configs"), named("service_id", "services")];
    std::iter::once(own).chain(others.into_iter().flatten()).collect()
}

fn by_gateway(status: u16, reason: &str) -> Value {
    json!({"kind": "answered", "by": "gateway", "status": status, "reason": reason})
}

impl Run<'_> {
    fn go(&mut self, route: Option<&Route>) {
        let global = Rc::new((*self.grounds.snapshot.global).clone());
        if self.grounds.snapshot.is_unguarded {
            self.told.answer = Some(by_gateway(503, "global_rule_broken"));
            self.told.notes.push(
                "a global rule is set aside and was not in force before, so nothing is let through".into(),
            );
        } else if let Some(status) = route.and_then(|route| route.broken) {
            self.told.answer = Some(by_gateway(status, "route_broken"));
            self.told.notes.push(
                "the route is set aside, or what it refers to is not there: it takes requests and answers them itself"
                    .into(),
            );
        }
        self.gates(Phase::Rewrite, &global, Scope::Global, |_| true);
        let mut merged = None;
        if let Some(route) = route {
            self.gates(Phase::Rewrite, &route.chain, Scope::Route, |_| true);
            merged = self.meet_consumer(route);
            if let Some(merged) = &merged {
                self.gates(Phase::Rewrite, merged, Scope::Route, |plugin| is_new(&route.chain, plugin));
            }
        }
        let chain = merged.as_ref().or_else(|| route.map(|route| &route.chain));
        self.tell_of_body(&global, chain);
        self.gates(Phase::Access, &global, Scope::Global, |_| true);
        if let Some(chain) = chain {
            self.gates(Phase::Access, chain, Scope::Route, |_| true);
        } else if self.told.answer.is_none() {
            self.told.answer = Some(by_gateway(404, "route_not_found"));
        }
        let is_sent = self.is_sent(route);
        for (chain, scope) in [(Some(&*global), Scope::Global), (chain, Scope::Route)] {
            let Some(chain) = chain else { continue };
            if is_sent {
                self.gates(Phase::BeforeProxy, chain, scope, |_| true);
            } else {
                self.unreached(Phase::BeforeProxy, chain, scope);
            }
        }
        for phase in [Phase::HeaderFilter, Phase::BodyFilter, Phase::Log] {
            self.on_the_answer(phase, &global, Scope::Global, chain);
            if let Some(chain) = chain {
                self.on_the_answer(phase, chain, Scope::Route, None);
            }
        }
        self.tell_disabled(&global, chain);
    }

    /// Whether a node would be tried.
    fn is_sent(&self, route: Option<&Route>) -> bool {
        let target = match self.ex.upstream_at {
            Some(at) => Target::Upstream(at),
            None => route.map_or(Target::Nothing, |route| route.target),
        };
        match target {
            Target::Upstream(at) => {
                self.grounds.snapshot.upstreams.get(at).is_some_and(|to| !to.nodes.is_empty())
            }
            Target::Nothing | Target::Vanished => false,
        }
    }

    /// Runs the gates of a phase.
    fn gates(&mut self, phase: Phase, chain: &Chain, scope: Scope, wanted: impl Fn(&AnyPlugin) -> bool) {
        for mount in chain.at(phase).filter(|mount| wanted(&mount.plugin)) {
            if self.told.answer.is_some() {
                self.list(phase, mount, scope, "not_reached");
                continue;
            }
            self.gate(phase, mount, scope);
        }
    }

    fn unreached(&mut self, phase: Phase, chain: &Chain, scope: Scope) {
        chain.at(phase).for_each(|mount| self.list(phase, mount, scope, "not_reached"));
    }

    /// Runs one gate, and tells what it said and changed.
    fn gate(&mut self, phase: Phase, mount: &Mount<AnyPlugin>, scope: Scope) {
        let grounds = self.grounds;
        let name = mount.plugin.name();
        let why = self.unfit(mount);
        let before = Sketch::of(self.ex);
        let consumer_before = self.ex.consumer_at;
        // Each sees a core that has seen nothing, so that what it leaves there is its own.
        let core = grounds.core();
        let env =
            Env { core: &core, consumers: &grounds.snapshot.index, prices: Some(&grounds.snapshot.prices) };
        let tried = {
            let ex = &mut *self.ex;
            // A panic costs a request one connection; here it must cost one line.
            catch_unwind(AssertUnwindSafe(|| mount.try_gate(phase, ex, env)))
        };
        let mut entry = self.entry(mount, scope);
        let (result, answer) = match tried {
            Ok(Tried::Passed) => ("passed", None),
            Ok(Tried::Filtered) => ("filtered", None),
            Ok(Tried::Waits) => {
                self.told.notes.push(format!(
                    "{name} waits for something outside of the gateway, or for time to pass: what it says is not known \
                     without a request, and what follows is told as if it let this one pass"
                ));
                ("waits", None)
            }
            Ok(Tried::Replied(reply)) => {
                self.ex.response.source = Source::Plugin(name);
                entry.insert("status".to_owned(), reply.status.into());
                entry.insert("body".to_owned(), grounds.veil.written(reply.body()));
                let answer =
                    json!({"kind": "answered", "by": name, "status": reply.status, "reason": "plugin"});
                ("answered", Some(answer))
            }
            Err(_) => ("panicked", Some(json!({"kind": "panicked", "by": name}))),
        };
        entry.insert("result".to_owned(), result.into());
        if let Some(why) = why {
            entry.insert("filter".to_owned(), why);
        }
        if self.ex.consumer_at != consumer_before {
            self.identified_by = Some(name);
        }
        let changes = before.changes(grounds, self.ex);
        if !changes.is_empty() {
            entry.insert("changes".to_owned(), changes.into());
        }
        if result != "filtered" {
            self.tell_traces(&mut entry, core.traces());
            self.told.limits.extend(limited::limits(grounds, mount, self.ex));
        }
        self.push(phase, entry);
        self.told.answer = self.told.answer.take().or(answer);
    }

    fn tell_traces(&mut self, entry: &mut Map<String, Value>, (dice, kept): (bool, bool)) {
        if dice {
            entry.insert("by_chance".to_owned(), true.into());
        }
        if kept {
            entry.insert("by_state".to_owned(), true.into());
        }
    }

    /// Why `_meta.filter` keeps a plugin from running, if it does.
    fn unfit(&self, mount: &Mount<AnyPlugin>) -> Option<Value> {
        let rule = mount.filter()?;
        let written = self.grounds.archive.plugin(&mount.owner, mount.plugin.name());
        let written = written.as_ref().and_then(|config| config.pointer("/_meta/filter"));
        let why = describe::unmet(self.grounds, "_meta.filter", rule, written, self.ex);
        why.as_array().is_some_and(|why| !why.is_empty()).then_some(why)
    }

    fn entry(&self, mount: &Mount<AnyPlugin>, scope: Scope) -> Map<String, Value> {
        let name = mount.plugin.name();
        let mut entry = Map::new();
        entry.insert("plugin".to_owned(), name.into());
        entry.insert("from".to_owned(), (*mount.owner).into());
        entry.insert("priority".to_owned(), mount.priority.into());
        if matches!(scope, Scope::Global) {
            return entry;
        }
        // Those that are weaker and have it too.
        let weaker = self.sources.iter().skip_while(|source| ***source != *mount.owner).skip(1);
        let over: Vec<&String> =
            weaker.filter(|source| self.grounds.archive.plugin(source, name).is_some()).collect();
        if !over.is_empty() {
            entry.insert("instead_of".to_owned(), json!(over));
        }
        entry
    }

    fn list(&mut self, phase: Phase, mount: &Mount<AnyPlugin>, scope: Scope, result: &str) {
        let mut entry = self.entry(mount, scope);
        entry.insert("result".to_owned(), result.into());
        self.push(phase, entry);
    }

    fn push(&mut self, phase: Phase, entry: Map<String, Value>) {
        let list = self.told.plugins.entry(phase.word()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(Value::Object(entry));
        }
    }

    /// Merges the plugins of the consumer in, if one is known, and tells of it.
    fn meet_consumer(&mut self, route: &Route) -> Option<Chain> {
        if self.told.answer.is_some() {
            return None;
        }
        let at = self.ex.consumer_at?;
        let consumer = self.grounds.snapshot.consumers.get(at)?;
        let labels = self.ex.consumer.clone();
        let plugins: Vec<Value> = consumer
            .mounts
            .iter()
            .map(|mount| {
                let name = mount.plugin.name();
                let own = route.chain.mounts().iter().find(|own| own.plugin.name() == name);
                json!({"plugin": name, "from": &*mount.owner, "instead_of": own.map(|own| own.owner.to_string())})
            })
            .collect();
        let or_null = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        self.told.consumer = json!({
            "name": labels.name(),
            "group_id": or_null(labels.group_id()),
            "credential_id": or_null(labels.credential_id()),
            "identified_by": self.identified_by,
            "plugins": plugins,
            "disables": consumer.disabled,
        });
        let mut sources = vec![format!("consumers/{}", labels.name())];
        if !labels.group_id().is_empty() {
            sources.push(format!("consumer_groups/{}", labels.group_id()));
        }
        sources.append(&mut self.sources);
        self.sources = sources;
        show_consumer(self.ex);
        (!consumer.changes_nothing()).then(|| consumer.over(&route.chain))
    }

    fn tell_of_body(&mut self, global: &Chain, chain: Option<&Chain>) {
        let wishes = [global.request_body_max(), chain.and_then(Chain::request_body_max)];
        if let Some(bytes) = wishes.into_iter().flatten().max() {
            self.told.notes.push(format!(
                "plugins want the body of the request, up to {bytes} bytes; there is none here, so what they read of it \
                 is unset"
            ));
        }
    }

    /// Lists what runs once there is an answer.
    fn on_the_answer(&mut self, phase: Phase, chain: &Chain, scope: Scope, route: Option<&Chain>) {
        for mount in chain.at(phase) {
            let plugin = &mount.plugin;
            let is_silent = phase == Phase::Log
                && plugin.prefers_route()
                && route.is_some_and(|route| route.has(plugin.name()));
            let mut entry = self.entry(mount, scope);
            let result = match mount.filter() {
                _ if is_silent => "silent",
                Some(rule) if asks_about_the_answer(rule) => "depends",
                Some(rule) if !rule.holds(&*self.ex) => "filtered",
                _ => "runs",
            };
            entry.insert("result".to_owned(), result.into());
            if let Some(why) = self.unfit(mount).filter(|_| result == "filtered") {
                entry.insert("filter".to_owned(), why);
            }
            self.push(phase, entry);
        }
    }

    /// Plugins that are switched off where they would have run.
    fn tell_disabled(&mut self, global: &Chain, chain: Option<&Chain>) {
        let mut found: Vec<Value> = Vec::new();
        let rules = self.grounds.archive.global_rules();
        for (sources, chain) in [(&rules, Some(global)), (&self.sources, chain)] {
            for source in sources {
                let object = self.grounds.archive.object(source);
                let plugins = object.as_ref().and_then(|object| object.get("plugins")?.as_object());
                for (name, config) in plugins.into_iter().flatten() {
                    let is_off = config.pointer("/_meta/disable") == Some(&Value::Bool(true));
                    if is_off && !chain.is_some_and(|chain| chain.has(name)) {
                        found.push(json!({"plugin": name, "from": source, "result": "disabled"}));
                    }
                }
            }
        }
        if !found.is_empty() {
            self.told.plugins.insert("disabled".to_owned(), found.into());
        }
    }
}

/// Whether a rule asks for what is known only with the answer.
fn asks_about_the_answer(rule: &Rule) -> bool {
    let mut asks = false;
    rule.each_var(|var| {
        asks |= matches!(
            var,
            Var::Status
                | Var::BodyBytesSent
                | Var::BytesSent
                | Var::RequestTime
                | Var::ResponseBody
                | Var::UpstreamAddr
                | Var::UpstreamStatus
                | Var::UpstreamResponseTime
                | Var::ApisixUpstreamResponseTime
                | Var::UpstreamCacheStatus
                | Var::BalancerIp
                | Var::BalancerPort
                | Var::SentHeader(_)
                | Var::UpstreamHeader(_)
                | Var::UpstreamTrailer(_)
        );
    });
    asks
}

/// What gates may change of an exchange.
#[derive(PartialEq, Eq)]
struct Sketch {
    method: Method,
    target: Vec<u8>,
    host: Vec<u8>,
    query: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    consumer: String,
    upstream: Option<u32>,
    body_bytes_max: u64,
}

impl Sketch {
    fn of(ex: &Exchange) -> Self {
        let request = &ex.request;
        let headers = request.headers.iter();
        Self {
            method: request.forward_method(),
            target: request.forward.target.clone(),
            host: request.forward.host.clone(),
            query: request.query.clone(),
            headers: headers
                .map(|(_, name, value)| (String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()))
                .collect(),
            consumer: ex.consumer.name().to_owned(),
            upstream: ex.upstream_at,
            body_bytes_max: request.body_bytes_max,
        }
    }

    /// What is different now, a line each.
    fn changes(&self, grounds: &Grounds<'_>, ex: &Exchange) -> Vec<String> {
        let (now, veil) = (Self::of(ex), &grounds.veil);
        let mut changes = Vec::new();
        if now.method != self.method {
            changes.push(format!("method: {}", now.method.text()));
        }
        if now.target != self.target {
            changes.push(format!("target: {}", veil.target(&now.target)));
        }
        if now.query != self.query {
            changes.push(format!("query: {}", veil.query(&now.query)));
        }
        if now.host != self.host {
            changes.push(format!("host: {}", veil.plain(&now.host)));
        }
        if now.consumer != self.consumer {
            changes.push(format!("consumer: {}", now.consumer));
        }
        if now.upstream != self.upstream {
            let to = now.upstream.and_then(|at| grounds.snapshot.upstreams.get(at));
            changes.push(format!("upstream: {}", to.map_or("the route's", |to| &to.name)));
        }
        if now.body_bytes_max != self.body_bytes_max {
            changes.push(format!("body: at most {} bytes", now.body_bytes_max));
        }
        let of = |headers: &[(String, Vec<u8>)], name: &str| -> Vec<Vec<u8>> {
            headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
        };
        let mut names: Vec<&String> = self.headers.iter().chain(&now.headers).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (before, after) = (of(&self.headers, name), of(&now.headers, name));
            if before == after {
                continue;
            }
            if after.is_empty() {
                changes.push(format!("header {name}: removed"));
            }
            changes.extend(after.iter().map(|value| format!("header {name}: {}", veil.named(name, value))));
        }
        changes
    }
}
