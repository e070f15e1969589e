//! One object, compiled into the parts of the snapshot, or refused with all that is wrong with it.

use std::sync::Arc;

pub(super) use super::parts::Made;
use super::parts::{Parts, Service, hosts_of};
use super::plugin_upstreams::{PluginUpstreams, Shown, upstream_of};
use super::state::{Need, Tools};
use super::{Registry, is_reference_to_nothing, set_of};
use crate::exchange::RouteLabels;
use crate::expr::{Rule, predicate};
use crate::model::field::{PluginMap, SecondsOrOff};
use crate::model::websocket::OnChange;
use crate::model::{self, ConfigError, Kind, Object, Raw, typed};
use crate::plugin::Holds;
use crate::proto::protobuf::definitions;
use crate::snapshot::cells::NodeBook;
use crate::snapshot::merge::{Mounts, Workbench, lay_over, metadata};
use crate::snapshot::references::References;
use crate::snapshot::tls::Forge;
use crate::snapshot::{Chain, Route, Target, Timeouts, WebSockets};

/// The compilation of one object.
pub(super) struct Work<'a> {
    pub(super) bench: Workbench<'a>,
    book: &'a mut NodeBook,
    pub(super) references: &'a mut References,
    pub(super) parts: &'a mut Parts,
    pub(super) forge: &'a Forge,
    /// Orders what nothing else does: who is older comes first.
    pub(super) age: u64,
    /// Whether no other version of the object is in force that could stay.
    pub(super) is_alone: bool,
    /// Whether it is a route, of requests or streams, that refuses what it takes.
    pub(super) is_stand_in: bool,
    pub(super) made: Made,
    /// Faults that do not keep the object out of force, such as a reference to nothing.
    pub(super) lacks: Vec<ConfigError>,
    pub(super) needs: Vec<Need>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        registry: &'a mut Registry,
        parts: &'a mut Parts,
        tools: &'a mut Tools<'_>,
        age: u64,
    ) -> Self {
        let Tools { book, references, surroundings, forge, enabled } = tools;
        let bench = Workbench { registry, holds: Holds::default(), surroundings, enabled: *enabled };
        Self {
            bench,
            book,
            references,
            parts,
            forge,
            age,
            is_alone: true,
            is_stand_in: false,
            made: Made::default(),
            lacks: Vec::new(),
            needs: Vec::new(),
        }
    }

    /// What the object needed beside itself, found or not.
    pub(super) fn take_needs(&mut self) -> Vec<Need> {
        let mut needs = std::mem::take(&mut self.needs);
        needs.extend(self.book.names.take_asked().into_iter().map(Need::Name));
        needs.extend(self.book.services.take_asked().into_iter().map(Need::Service));
        needs.extend(self.references.take_asked().into_iter().map(Need::Secret));
        needs
    }

    /// Compiles one object into the parts, or says why not; then nothing of it is in.
    pub(super) fn add(&mut self, raw: &Raw) -> Result<(Made, Vec<ConfigError>), Vec<ConfigError>> {
        let object = typed(raw)?;
        let (name, id) = (raw.name(), raw.id.as_str());
        let added = match object {
            Object::PluginMetadata(read) => metadata(*read, self.bench.enabled).map(drop),
            Object::Upstream(upstream) => self.add_upstream(&name, id, &upstream),
            Object::PluginConfig(config) => self.mounts(&name, Some(&config.plugins)).map(|mounts| {
                self.parts.plugin_configs.insert_mut(id.into(), Arc::new(mounts));
            }),
            Object::Service(service) => self.add_service(&name, id, &service),
            Object::ConsumerGroup(group) => self.add_group(&name, id, &group.plugins),
            Object::Consumer(consumer) => self.add_consumer(&name, &consumer),
            Object::Credential(credential) => self.add_credential(&name, id, credential.plugins.as_ref()),
            Object::CostDecoration(decoration) => self.add_decoration(id, &decoration),
            Object::GlobalRule(rule) => self.add_global_rule(&name, id, &rule.plugins),
            Object::Route(route) => self.add_route(&name, id, &route),
            Object::StreamRoute(route) => self.add_stream_route(&name, id, &route),
            Object::Secret(store) => self.add_secret_store(&name, id, *store),
            Object::Ssl(ssl) => self.add_ssl(&name, id, &ssl),
            Object::Proto(proto) => match definitions::compile(proto.content.as_str()) {
                Ok(types) => {
                    self.parts.protos.insert_mut(id.into(), Arc::new(types));
                    Ok(())
                }
                Err(why) => Err(vec![ConfigError::at("content", format!("invalid content: {why}"))]),
            },
        };
        let mut holds = std::mem::take(&mut self.bench.holds);
        self.needs.extend(std::mem::take(&mut holds.disagreed).into_iter().map(Need::Topic));
        let mut made = std::mem::take(&mut self.made);
        match added {
            Ok(()) => {
                made.holds = holds;
                Ok((made, std::mem::take(&mut self.lacks)))
            }
            Err(faults) => {
                for place in made.inline {
                    self.parts.upstreams.remove(place);
                }
                self.bench.registry.release(holds);
                let faults = faults.into_iter().map(|fault| fault.in_object(&name));
                // What it would not get matters when it is in force.
                let lacks = self.lacks.drain(..).filter(is_reference_to_nothing);
                Err(faults.chain(lacks).collect())
            }
        }
    }

    fn add_upstream(
        &mut self,
        name: &str,
        id: &str,
        upstream: &model::Upstream,
    ) -> Result<(), Vec<ConfigError>> {
        let compiled = self.upstream(name, upstream)?;
        self.parts.put_upstream(id, compiled);
        Ok(())
    }

    /// Compiles an upstream, kept or inline.
    fn upstream(
        &mut self,
        name: &str,
        upstream: &model::Upstream,
    ) -> Result<crate::snapshot::Upstream, Vec<ConfigError>> {
        let holder = (&mut *self.bench.registry, &mut self.bench.holds);
        let references = Some(&mut *self.references);
        let own = Shown { parts: self.parts, needs: &mut self.needs, references };
        let (compiled, lacks) = upstream_of(holder, name, upstream, self.book, own)?;
        self.lacks.extend(lacks);
        Ok(compiled)
    }

    /// Where the plugins of an object are compiled, and what upstreams there are for them.
    pub(super) fn desk<'w>(&'w mut self, owner: &'w str) -> (&'w mut Workbench<'a>, PluginUpstreams<'w>) {
        let upstreams = PluginUpstreams {
            owner,
            book: self.book,
            parts: self.parts,
            made: &mut self.made,
            needs: &mut self.needs,
            lacks: &mut self.lacks,
        };
        (&mut self.bench, upstreams)
    }

    /// Where an object sends to: the upstream it names, else its inline one.
    pub(super) fn target(
        &mut self,
        name: &str,
        inline: Option<&model::Upstream>,
        id: Option<&model::ObjectId>,
    ) -> Result<Target, Vec<ConfigError>> {
        if let (Some(upstream), None) = (inline, id) {
            let under = |faults: Vec<ConfigError>| {
                faults.into_iter().map(|fault| fault.under("upstream")).collect::<Vec<_>>()
            };
            let compiled = self.upstream(&format!("{name}#upstream"), upstream).map_err(under)?;
            let place = self.parts.upstreams.add(compiled);
            self.made.inline.push(place);
            return Ok(Target::Upstream(place));
        }
        let Some(id) = id else { return Ok(Target::Nothing) };
        self.need(Kind::Upstream, id.as_str());
        match self.parts.upstream_ids.get(id.as_str()) {
            Some(at) => Ok(Target::Upstream(*at)),
            None => {
                self.missing(name, "upstream_id", "an upstream", id);
                Ok(Target::Vanished)
            }
        }
    }

    /// Notes that the object is to be looked at again when that one changes.
    pub(super) fn need(&mut self, kind: Kind, id: &str) {
        self.needs.push(Need::Object((kind, id.into())));
    }

    pub(super) fn missing(&mut self, name: &str, field: &str, what: &str, id: &model::ObjectId) {
        self.lacks.push(dangling(field, what, id).in_object(name));
    }

    fn add_service(
        &mut self,
        name: &str,
        id: &str,
        service: &model::Service,
    ) -> Result<(), Vec<ConfigError>> {
        let mounts = self.mounts_of_any(name, service.plugins.as_ref());
        let target = self.target(name, service.upstream.as_ref(), service.upstream_id.as_ref());
        let (mounts, target) = both(mounts, target)?;
        let compiled = Service {
            name: service.name.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default(),
            hosts: service.hosts.iter().flatten().map(|host| host.as_str().to_owned()).collect(),
            mounts,
            target,
            websocket: service.enable_websocket.unwrap_or(false),
            websockets: service.websocket,
        };
        self.parts.services.insert_mut(id.into(), Arc::new(compiled));
        Ok(())
    }

    fn add_global_rule(&mut self, name: &str, id: &str, plugins: &PluginMap) -> Result<(), Vec<ConfigError>> {
        for plugin in plugins.keys() {
            if let Some(other) = self.parts.global_rule_with(plugin).cloned() {
                self.need(Kind::GlobalRule, &other);
                let problem = format!("plugin '{plugin}' already exists in another global rule");
                return Err(vec![ConfigError::at(format!("plugins.{plugin}"), problem)]);
            }
        }
        let mounts = self.mounts(name, Some(plugins))?;
        self.parts.put_global_rule(self.age, id, mounts.list);
        Ok(())
    }

    fn add_route(&mut self, name: &str, id: &str, route: &model::Route) -> Result<(), Vec<ConfigError>> {
        if !route.is_in_use() {
            let checked = self.mounts(name, route.plugins.as_ref()).map(|_| ());
            // Nobody is sent to what its plugins bring.
            self.made.inline.drain(..).for_each(|place| self.parts.upstreams.remove(place));
            return checked;
        }
        let (own, awaited) = self.mounts_of_route(name, route);
        let own = both(rule_of(route), own);
        let target = self.target(name, route.upstream.as_ref(), route.upstream_id.as_ref());
        let ((rule, own), target) = both(own, target)?;
        let (with_config, without_config) = self.with_plugin_config(name, route, own);
        let (service, without_service) = self.service_of(name, route);
        let mounts = match &service {
            Some(service) => lay_over(&service.mounts, &with_config),
            None => with_config,
        };
        let target = match (target, &service) {
            (Target::Nothing, Some(service)) => service.target,
            (own, _) => own,
        };
        self.tell_of_streams(name, target);
        let service_hosts = service.as_ref().map(|service| Arc::clone(&service.hosts));
        let hosts = hosts_of(route, service_hosts.as_deref().unwrap_or_default());
        self.parts
            .check_route(route, &hosts)
            .map_err(|error| vec![ConfigError::at("uri", error.to_string())])?;
        let compiled = Route {
            labels: labels_of(
                id,
                route.name.as_ref().map(|name| name.as_str()),
                route.service_id.as_ref().map(|id| id.as_str()),
                service.as_deref(),
            ),
            clients: route.remote_addrs().next().is_some().then(|| set_of(route.remote_addrs())),
            reads_body: rule.as_ref().is_some_and(reads_body),
            rule,
            chain: Chain::new(mounts.list),
            target,
            timeouts: route.timeout.map(|timeout| Timeouts {
                connect: timeout.connect.get(),
                send: timeout.send.get(),
                read: timeout.read.get(),
            }),
            websocket: route
                .enable_websocket
                .or_else(|| service.as_ref().map(|service| service.websocket))
                .unwrap_or(false),
            websockets: websockets_of(route, service.as_deref()),
            broken: self.is_stand_in.then_some(404).or(without_service).or(without_config).or(awaited),
        };
        let place = self.parts.put_route(self.age, route, &hosts, compiled);
        self.made.place = Some(place);
        self.made.service_hosts = service_hosts;
        Ok(())
    }

    /// What is lacking where requests would go to an upstream of streams.
    fn tell_of_streams(&mut self, name: &str, target: Target) {
        let Target::Upstream(at) = target else { return };
        let scheme = self.parts.upstreams[at].scheme;
        if scheme.is_of_streams() {
            let problem = format!(
                "expected http, https, grpc or grpcs, got {}; requests to it are answered 503",
                scheme.word()
            );
            self.lacks.push(ConfigError::at("upstream.scheme", problem).in_object(name));
        }
    }

    /// A route's own plugins; the answer to requests, if something is awaited for them. Were the route left out
    /// instead, another with less protection could take what is meant for it.
    fn mounts_of_route(
        &mut self,
        name: &str,
        route: &model::Route,
    ) -> (Result<Mounts, Vec<ConfigError>>, Option<u16>) {
        match self.mounts(name, route.plugins.as_ref()) {
            Err(faults) if self.is_alone && faults.iter().all(|fault| fault.may_pass) => {
                self.lacks.extend(faults.into_iter().map(|fault| fault.in_object(name)));
                (Ok(Mounts::default()), Some(503))
            }
            mounts => (mounts, None),
        }
    }

    /// A store of secrets, and what of it is only kept.
    fn add_secret_store(
        &mut self,
        name: &str,
        id: &str,
        store: model::SecretStore,
    ) -> Result<(), Vec<ConfigError>> {
        let manager = id.split('/').next().unwrap_or_default();
        let faults = store.faults(manager);
        if !faults.is_empty() {
            return Err(faults);
        }
        self.lacks.extend(store.lacks(manager).into_iter().map(|lack| lack.in_object(name)));
        self.parts.secrets.insert_mut(id.into(), Arc::new(store));
        Ok(())
    }

    /// A route's plugins over those of its plugin config; the answer to requests, if that is gone.
    fn with_plugin_config(&mut self, name: &str, route: &model::Route, own: Mounts) -> (Mounts, Option<u16>) {
        let Some(config) = route.plugin_config_id.as_ref() else { return (own, None) };
        self.need(Kind::PluginConfig, config.as_str());
        if let Some(mounts) = self.parts.plugin_configs.get(config.as_str()) {
            return (lay_over(mounts, &own), None);
        }
        self.missing(name, "plugin_config_id", "a plugin_config", config);
        (own, Some(503))
    }

    /// A route's service; the answer to requests, if that is gone.
    fn service_of(&mut self, name: &str, route: &model::Route) -> (Option<Arc<Service>>, Option<u16>) {
        let Some(id) = route.service_id.as_ref() else { return (None, None) };
        self.need(Kind::Service, id.as_str());
        if let Some(service) = self.parts.services.get(id.as_str()) {
            return (Some(Arc::clone(service)), None);
        }
        self.missing(name, "service_id", "a service", id);
        (None, Some(404))
    }
}

/// What an object that leads to an upstream is told by: a route or a stream route.
pub(super) fn labels_of(
    id: &str,
    name: Option<&str>,
    service_id: Option<&str>,
    service: Option<&Service>,
) -> RouteLabels {
    let service = service.map_or("", |service| &service.name);
    RouteLabels::new(id, name.unwrap_or_default(), service_id.unwrap_or_default(), service, "", "")
}

/// Both results, or the faults of both.
pub(super) fn both<A, B>(
    one: Result<A, Vec<ConfigError>>,
    other: Result<B, Vec<ConfigError>>,
) -> Result<(A, B), Vec<ConfigError>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(faults), Ok(_)) | (Ok(_), Err(faults)) => Err(faults),
        (Err(mut faults), Err(more)) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// What a function that filters may be.
const PREDICATE: &str = "function(vars) return vars.arg_name == 'json' end";

/// A reference to nothing.
pub(super) fn dangling(field: &str, what: &str, id: &model::ObjectId) -> ConfigError {
    ConfigError::at(field, format!("expected the id of {what} in force, found none of id {}", id.as_str()))
}

/// What the route says about its WebSockets, else the service.
fn websockets_of(route: &model::Route, service: Option<&Service>) -> WebSockets {
    let said = route.websocket.or_else(|| service.and_then(|service| service.websockets)).unwrap_or_default();
    WebSockets {
        end_with_it: said.on_change == OnChange::Close,
        silence: said.idle_timeout.map(SecondsOrOff::bound),
    }
}

fn rule_of(route: &model::Route) -> Result<Option<Rule>, Vec<ConfigError>> {
    let of_vars = route.vars.as_ref().map_or_else(
        || Ok(Rule::always()),
        |vars| {
            Rule::compile(&serde_json::Value::Array(vars.clone())).map_err(|error| {
                vec![ConfigError::at("vars", format!("failed to validate the 'vars' expression: {error}"))]
            })
        },
    );
    let of_function = route.filter_func.as_deref().map_or_else(
        || Ok(Rule::always()),
        |function| {
            let rule = predicate::rule_of(function)
                .and_then(|rule| Rule::compile(&rule).map_err(|error| error.to_string()));
            rule.map_err(|why| {
                let problem =
                    format!("expected a predicate such as `{PREDICATE}`; {why}; `vars` can say more");
                vec![ConfigError::at("filter_func", problem)]
            })
        },
    );
    let (of_vars, of_function) = both(of_vars, of_function)?;
    let rule = of_vars.and(of_function);
    Ok((!rule.is_always()).then_some(rule))
}

/// Whether a rule asks what the body of a request says.
fn reads_body(rule: &Rule) -> bool {
    let mut asks = false;
    rule.each_var(|var| asks |= var.needs_request_body());
    asks
}
