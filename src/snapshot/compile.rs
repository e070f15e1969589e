//! Model to snapshot: every object compiled, every fault found. Runs on the control thread only.
//!
//! An object that can not be compiled is set aside alone: the version of it that last compiled stays in force,
//! and the others apply. Objects go in the order of their references, so what refers finds what it refers to.

mod consumers;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::merge::{Mounts, Workbench, lay_over};
use super::names::{Names, Resolve};
use super::upstream::compile as compile_upstream;
use super::{Chain, Consumer, House, LogFormat, Route, Snapshot, Target, Timeouts, Upstream};
use crate::base::cidr::{Cidr, CidrSet};
use crate::base::hash::{Map, Set};
use crate::exchange::RouteLabels;
use crate::expr::{Rule, Template, Var};
use crate::model::field::{AddressRange, PluginMap};
use crate::model::resources::Resources;
use crate::model::settings::{AccessFormat, LogOutput, RouterKind, Settings};
use crate::model::{self, ConfigError, Kind, Object, Raw, typed};
use crate::plugin::compile::Shared;
use crate::plugin::{ConsumerIndex, Hooks as _, Mount, PluginChain, Registry};
use crate::plugins::AnyPlugin;
use crate::proto::head::Method;
use crate::proto::uri::UriOptions;
use crate::router::{Mode, Pattern, RouterBuilder};

/// nginx's form of the same name.
const COMBINED: &str = "${remote_addr} - ${remote_user ?? -} [$time_local] \"$request\" $status $body_bytes_sent \
                        \"${http_referer ?? -}\" \"${http_user_agent ?? -}\"";

/// An object that was set aside.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub kind: Kind,
    pub id: String,
    pub faults: Vec<ConfigError>,
    /// Whether an earlier version of it is in force.
    pub last_good: bool,
}

/// What a compilation came to.
#[derive(Debug)]
pub struct Outcome {
    pub snapshot: Arc<Snapshot>,
    /// All faults, those of quarantined objects included.
    pub faults: Vec<ConfigError>,
    pub quarantined: Vec<Quarantined>,
}

/// Makes snapshots, and remembers between them what must stay the same.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    registry: Registry,
    names: Names,
    last_good: BTreeMap<(Kind, String), Raw>,
    generation: u64,
    /// What was compiled last.
    resources: Resources,
}

impl Compiler {
    /// A compiler that has seen no object yet.
    pub fn new(settings: &Settings, resolve: Resolve) -> Self {
        Self {
            settings: settings.clone(),
            registry: Registry::default(),
            names: Names::new(resolve),
            last_good: BTreeMap::new(),
            generation: 0,
            resources: Resources::default(),
        }
    }

    /// The host names that nodes of the last snapshot are known by.
    pub fn names(&self) -> Vec<String> {
        self.names.in_use()
    }

    /// Takes in newer addresses of names. Whether a new compilation would differ.
    pub fn learn(&mut self, answers: Vec<(String, Vec<std::net::IpAddr>)>) -> bool {
        self.names.learn(answers)
    }

    /// Compiles the same objects again, with what was learnt since.
    pub fn recompile(&mut self) -> Outcome {
        let resources = std::mem::take(&mut self.resources);
        self.compile(&resources)
    }

    /// Compiles all objects. Never fails as a whole.
    pub fn compile(&mut self, resources: &Resources) -> Outcome {
        let made = self.make(resources);
        self.adopt(resources, made)
    }

    /// Compiles all objects for a change of some. Nothing has happened until the result is given to
    /// [`Self::adopt`], or it is an error.
    ///
    /// # Errors
    /// All that is wrong with the changed objects: those that can not be taken as they are, or refer to nothing.
    pub fn attempt(
        &mut self,
        resources: &Resources,
        changed: &[(Kind, String)],
    ) -> Result<Made, Vec<ConfigError>> {
        let made = self.make(resources);
        let names: Vec<String> = changed.iter().map(|(kind, id)| model::object_name(*kind, id)).collect();
        let quarantined = &made.outcome.quarantined;
        let set_aside =
            |kind, id: &str| quarantined.iter().any(|object| object.kind == kind && object.id == id);
        let mut faults = made.outcome.faults.clone();
        faults.retain(|fault| {
            let concerns = names.contains(&fault.object);
            concerns && (REFERENCES.contains(&fault.path.as_str()) || is_in(quarantined, &fault.object))
        });
        if faults.is_empty() && !changed.iter().any(|(kind, id)| set_aside(*kind, id)) {
            return Ok(made);
        }
        Err(faults)
    }

    /// From here on, what was made of these objects is what counts.
    pub fn adopt(&mut self, resources: &Resources, made: Made) -> Outcome {
        self.generation = made.outcome.snapshot.generation;
        self.resources = resources.clone();
        self.last_good = made.good;
        self.names.forget_unused();
        self.registry.retain(&made.outcome.snapshot.live);
        made.outcome
    }

    fn make(&mut self, resources: &Resources) -> Made {
        self.names.start();
        let generation = self.generation + 1;
        let enabled = resources.plugins.clone().or_else(|| {
            let listed: Vec<String> = self.settings.plugins.iter().cloned().collect();
            (!listed.is_empty()).then_some(listed)
        });
        let mut shared = Shared::default();
        for (plugin, attributes) in &self.settings.plugin_attr {
            shared.attributes.insert(plugin.clone(), attributes.clone());
        }
        let mut work = Work {
            bench: Workbench {
                registry: &mut self.registry,
                shared: &mut shared,
                enabled: enabled.as_deref(),
            },
            names: &mut self.names,
            parts: Parts::new(router_mode(&self.settings)),
            faults: Vec::new(),
        };
        let mut quarantined = Vec::new();
        let mut good = BTreeMap::new();
        for kind in ORDER {
            for raw in resources.objects.iter().filter(|raw| raw.kind == *kind) {
                let key = (raw.kind, raw.id.as_str().to_owned());
                match work.add(raw) {
                    Ok(()) => {
                        good.insert(key, raw.clone());
                    }
                    Err(faults) => {
                        let earlier = self.last_good.get(&key);
                        let last_good = earlier.is_some_and(|earlier| work.add(earlier).is_ok());
                        if let (true, Some(earlier)) = (last_good, earlier) {
                            good.insert(key.clone(), earlier.clone());
                        }
                        work.faults.extend(faults.iter().cloned());
                        quarantined.push(Quarantined { kind: raw.kind, id: key.1, faults, last_good });
                    }
                }
            }
        }
        let Work { parts, faults, .. } = work;
        let live = shared.live().clone();
        let snapshot = Arc::new(parts.finish(generation, self.house(), live));
        Made { outcome: Outcome { snapshot, faults, quarantined }, good }
    }

    fn house(&self) -> House {
        let settings = &self.settings;
        let log = &settings.access_log;
        let format = match &log.format {
            _ if !log.enabled || log.output == LogOutput::Off => LogFormat::Off,
            AccessFormat::Json => LogFormat::Json,
            AccessFormat::Combined => LogFormat::Template(Template::parse(COMBINED)),
            AccessFormat::Template(text) => LogFormat::Template(Template::parse(text)),
        };
        let keep_sent_head = matches!(&format, LogFormat::Template(template) if template
            .vars()
            .any(|var| matches!(var, Var::SentHeader(_) | Var::UpstreamHeader(_))));
        House {
            uri: UriOptions {
                merge_slashes: settings.router.merge_slashes,
                keep_encoded_slash: settings.router.match_uri_encoded_slash,
                delete_tail_slash: settings.router.delete_uri_tail_slash,
                servlet: settings.router.normalize_uri_like_servlet,
            },
            trusted: set_of(settings.trusted_addresses.iter()),
            via: settings.via,
            show_upstream_status: false,
            log_format: format,
            keep_sent_head,
            server: if settings.server_tokens {
                concat!("ringway/", env!("CARGO_PKG_VERSION")).to_owned()
            } else {
                "ringway".to_owned()
            },
        }
    }
}

/// A compilation before anybody has said that it counts.
#[derive(Debug)]
pub struct Made {
    outcome: Outcome,
    good: BTreeMap<(Kind, String), Raw>,
}

/// Fields whose fault is a reference to nothing.
const REFERENCES: [&str; 4] = ["upstream_id", "service_id", "plugin_config_id", "group_id"];

fn is_in(quarantined: &[Quarantined], name: &str) -> bool {
    quarantined.iter().any(|object| model::object_name(object.kind, &object.id) == name)
}

/// What refers comes after what it refers to.
const ORDER: &[Kind] = &[
    Kind::PluginMetadata,
    Kind::Upstream,
    Kind::PluginConfig,
    Kind::Service,
    Kind::ConsumerGroup,
    Kind::Consumer,
    Kind::Credential,
    Kind::GlobalRule,
    Kind::Route,
    Kind::Ssl,
    Kind::StreamRoute,
    Kind::Secret,
    Kind::Proto,
];

fn router_mode(settings: &Settings) -> Mode {
    match settings.router.http {
        RouterKind::RadixtreeHostUri => Mode::HostUri,
        RouterKind::RadixtreeUri => Mode::Uri,
        RouterKind::RadixtreeUriWithParameter => Mode::UriWithParameter,
    }
}

fn set_of<'a>(ranges: impl Iterator<Item = &'a AddressRange>) -> CidrSet {
    ranges
        .filter_map(|range| {
            let (address, bits) = range.parts();
            Cidr::new(address, bits)
        })
        .collect()
}

/// A service as its routes take it over.
#[derive(Debug)]
struct Service {
    name: String,
    hosts: Vec<String>,
    mounts: Mounts,
    target: Target,
    websocket: bool,
}

/// The snapshot while it grows.
#[derive(Debug)]
struct Parts {
    router: RouterBuilder<u32>,
    routes: Vec<Route>,
    upstreams: Vec<Upstream>,
    upstream_ids: Map<String, u32>,
    services: Map<String, Service>,
    plugin_configs: Map<String, Mounts>,
    groups: Map<String, Mounts>,
    consumers: Vec<Consumer>,
    consumer_ids: Map<String, u32>,
    index: ConsumerIndex,
    global: Vec<Mount<AnyPlugin>>,
}

impl Parts {
    fn new(mode: Mode) -> Self {
        Self {
            router: RouterBuilder::new(mode),
            routes: Vec::new(),
            upstreams: Vec::new(),
            upstream_ids: Map::default(),
            services: Map::default(),
            plugin_configs: Map::default(),
            groups: Map::default(),
            consumers: Vec::new(),
            consumer_ids: Map::default(),
            index: ConsumerIndex::default(),
            global: Vec::new(),
        }
    }

    fn finish(self, generation: u64, house: House, live: Set<crate::runtime::LocalId>) -> Snapshot {
        Snapshot {
            generation,
            house,
            router: self.router.build(),
            routes: self.routes,
            upstreams: self.upstreams,
            consumers: self.consumers,
            index: self.index,
            global: PluginChain::new(self.global),
            live,
        }
    }
}

/// One compilation under way.
struct Work<'a> {
    bench: Workbench<'a>,
    names: &'a mut Names,
    parts: Parts,
    /// Faults that do not keep their object out of force, such as a reference to nothing.
    faults: Vec<ConfigError>,
}

impl Work<'_> {
    /// Compiles one object into the snapshot, or says why not; then nothing of it is in.
    fn add(&mut self, raw: &Raw) -> Result<(), Vec<ConfigError>> {
        let object = typed(raw)?;
        let (name, id) = (raw.name(), raw.id.as_str());
        let (upstreams, told) = (self.parts.upstreams.len(), self.faults.len());
        self.bench.shared.begin();
        let added = match object {
            Object::PluginMetadata(metadata) => self.add_metadata(*metadata),
            Object::Upstream(upstream) => self.add_upstream(&name, id, &upstream),
            Object::PluginConfig(config) => self.bench.mounts(&name, Some(&config.plugins)).map(|mounts| {
                self.parts.plugin_configs.insert(id.to_owned(), mounts);
            }),
            Object::Service(service) => self.add_service(&name, id, &service),
            Object::ConsumerGroup(group) => self.bench.mounts(&name, Some(&group.plugins)).map(|mounts| {
                self.parts.groups.insert(id.to_owned(), mounts);
            }),
            Object::Consumer(consumer) => self.add_consumer(&name, &consumer),
            Object::Credential(credential) => self.add_credential(id, credential.plugins.as_ref()),
            Object::GlobalRule(rule) => self.add_global_rule(&name, &rule.plugins),
            Object::Route(route) => self.add_route(&name, id, &route),
            // Read and kept, not acted upon.
            Object::Ssl(_) | Object::StreamRoute(_) | Object::Secret(_) | Object::Proto(_) => Ok(()),
        };
        added.map_err(|faults| {
            self.parts.upstreams.truncate(upstreams);
            self.bench.shared.undo();
            let faults = faults.into_iter().map(|fault| fault.in_object(&name));
            faults.chain(self.faults.drain(told..)).collect()
        })
    }

    fn add_metadata(&mut self, metadata: model::PluginMetadata) -> Result<(), Vec<ConfigError>> {
        let plugin = metadata.id.as_str().to_owned();
        let card = self
            .bench
            .card(&plugin)
            .map_err(|_| vec![ConfigError::new(format!("unknown plugin [{plugin}]"))])?;
        let fields = serde_json::Value::Object(metadata.fields);
        let faults = crate::model::schema::check(&(card.metadata_schema)(), &fields);
        if !faults.is_empty() {
            return Err(faults);
        }
        self.bench.shared.metadata.insert(plugin, fields);
        Ok(())
    }

    fn add_upstream(
        &mut self,
        name: &str,
        id: &str,
        upstream: &model::Upstream,
    ) -> Result<(), Vec<ConfigError>> {
        let at = self.upstream(name, upstream)?;
        self.parts.upstream_ids.insert(id.to_owned(), at);
        Ok(())
    }

    /// Compiles an upstream, kept or inline.
    fn upstream(&mut self, name: &str, upstream: &model::Upstream) -> Result<u32, Vec<ConfigError>> {
        let (mut compiled, faults) = compile_upstream(name, upstream, self.names)?;
        compiled.turn = self.bench.registry.local(name, "upstream", compiled.fingerprint());
        self.bench.shared.keep(compiled.turn);
        self.faults.extend(faults.into_iter().map(|fault| fault.in_object(name)));
        self.parts.upstreams.push(compiled);
        Ok(self.parts.upstreams.len() as u32 - 1)
    }

    /// Where an object sends to: its inline upstream, else the one it names.
    fn target(
        &mut self,
        name: &str,
        inline: Option<&model::Upstream>,
        id: Option<&model::ObjectId>,
    ) -> Result<Target, Vec<ConfigError>> {
        if let Some(upstream) = inline {
            return self
                .upstream(&format!("{name}#upstream"), upstream)
                .map(Target::Upstream)
                .map_err(|faults| faults.into_iter().map(|fault| fault.under("upstream")).collect());
        }
        let Some(id) = id else { return Ok(Target::Nothing) };
        match self.parts.upstream_ids.get(id.as_str()) {
            Some(at) => Ok(Target::Upstream(*at)),
            None => {
                self.missing(name, "upstream_id", "an upstream", id);
                Ok(Target::Vanished)
            }
        }
    }

    fn missing(&mut self, name: &str, field: &str, what: &str, id: &model::ObjectId) {
        self.faults.push(dangling(field, what, id).in_object(name));
    }

    fn add_service(
        &mut self,
        name: &str,
        id: &str,
        service: &model::Service,
    ) -> Result<(), Vec<ConfigError>> {
        let mounts = self.bench.mounts(name, service.plugins.as_ref());
        let target = self.target(name, service.upstream.as_ref(), service.upstream_id.as_ref());
        let (mounts, target) = both(mounts, target)?;
        let compiled = Service {
            name: service.name.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default(),
            hosts: service.hosts.iter().flatten().map(|host| host.as_str().to_owned()).collect(),
            mounts,
            target,
            websocket: service.enable_websocket.unwrap_or(false),
        };
        self.parts.services.insert(id.to_owned(), compiled);
        Ok(())
    }

    fn add_global_rule(&mut self, name: &str, plugins: &PluginMap) -> Result<(), Vec<ConfigError>> {
        for plugin in plugins.keys() {
            if self.parts.global.iter().any(|mount| mount.plugin.name() == plugin) {
                let problem = format!("plugin '{plugin}' already exists in another global rule");
                return Err(vec![ConfigError::at(format!("plugins.{plugin}"), problem)]);
            }
        }
        let mounts = self.bench.mounts(name, Some(plugins))?;
        self.parts.global.extend(mounts.list);
        Ok(())
    }

    fn add_route(&mut self, name: &str, id: &str, route: &model::Route) -> Result<(), Vec<ConfigError>> {
        if !route.is_in_use() {
            return self.bench.mounts(name, route.plugins.as_ref()).map(|_| ());
        }
        let own = both(rule_of(route), self.bench.mounts(name, route.plugins.as_ref()));
        let target = self.target(name, route.upstream.as_ref(), route.upstream_id.as_ref());
        let ((rule, own), target) = both(own, target)?;
        let mut broken = None;
        let with_config = match route.plugin_config_id.as_ref() {
            None => own,
            Some(config) => match self.parts.plugin_configs.get(config.as_str()) {
                Some(mounts) => lay_over(mounts, &own),
                None => {
                    self.missing(name, "plugin_config_id", "a plugin_config", config);
                    broken = Some(503);
                    own
                }
            },
        };
        let service = route.service_id.as_ref();
        let found = service.and_then(|id| self.parts.services.get(id.as_str()));
        if let (Some(id), None) = (service, found) {
            self.missing(name, "service_id", "a service", id);
            broken = Some(404);
        }
        let found = service.and_then(|id| self.parts.services.get(id.as_str()));
        let mounts =
            found.map_or_else(|| with_config.clone(), |service| lay_over(&service.mounts, &with_config));
        let target = match (target, found) {
            (Target::Nothing, Some(service)) => service.target,
            (own, _) => own,
        };
        let text = |text: Option<&model::field::ShortText>| {
            text.map_or_else(String::new, |text| text.as_str().to_owned())
        };
        let compiled = Route {
            labels: RouteLabels::new(
                id,
                &text(route.name.as_ref()),
                service.map_or("", |id| id.as_str()),
                found.map_or("", |service| &service.name),
                "",
                "",
            ),
            clients: route.remote_addrs().next().is_some().then(|| set_of(route.remote_addrs())),
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
                .or_else(|| found.map(|service| service.websocket))
                .unwrap_or(false),
            broken,
        };
        let own_hosts: Vec<String> = route.hosts().map(|host| host.as_str().to_owned()).collect();
        let hosts = if own_hosts.is_empty() {
            found.map(|service| service.hosts.clone()).unwrap_or_default()
        } else {
            own_hosts
        };
        self.enter_routes(route, &hosts)?;
        self.parts.routes.push(compiled);
        Ok(())
    }

    /// Enters a route's paths in the router, for the route that is about to be added.
    fn enter_routes(&mut self, route: &model::Route, hosts: &[String]) -> Result<(), Vec<ConfigError>> {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let methods =
            route.methods.iter().flatten().filter_map(|method| Method::of(method.as_str().as_bytes()));
        let methods = methods.fold(0, |mask, method| mask | method.bit());
        let pattern = |path| Pattern { path, hosts: &hosts, methods, priority: route.priority.into() };
        let at = self.parts.routes.len() as u32;
        // Tried on a builder of its own first: a route goes in whole or not at all.
        let mut trial = self.parts.router.like();
        for uri in route.uris() {
            trial
                .insert(&pattern(uri.as_str()), at)
                .map_err(|error| vec![ConfigError::at("uri", error.to_string())])?;
        }
        self.parts.router.append(trial);
        Ok(())
    }
}

/// Both results, or the faults of both.
fn both<A, B>(
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

fn dangling(field: &str, what: &str, id: &model::ObjectId) -> ConfigError {
    ConfigError::at(field, format!("expected the id of {what} in force, found none of id {}", id.as_str()))
}

fn rule_of(route: &model::Route) -> Result<Option<Rule>, Vec<ConfigError>> {
    if route.filter_func.is_some() {
        let problem = "needs a Lua runtime, which this build does not have; write it as `vars`";
        return Err(vec![ConfigError::at("filter_func", problem)]);
    }
    let Some(vars) = &route.vars else { return Ok(None) };
    let rule = Rule::compile(&serde_json::Value::Array(vars.clone())).map_err(|error| {
        vec![ConfigError::at("vars", format!("failed to validate the 'vars' expression: {error}"))]
    })?;
    Ok((!rule.is_always()).then_some(rule))
}

#[cfg(test)]
mod tests;
