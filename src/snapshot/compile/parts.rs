//! The pieces of a snapshot while objects come and go. A copy shares everything with its original.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::decorations::Decorations;
use super::{House, Registry};
use crate::base::slots::Slots;
use crate::model::{self, Kind, Object, Raw, typed};
use crate::plugin::{ConsumerIndex, Holds, Mount, PluginChain};
use crate::plugins::AnyPlugin;
use crate::proto::head::Method;
use crate::proto::protobuf::Types;
use crate::router::{Mode, Pattern, Router, RouterError};
use crate::runtime::LocalId;
use crate::snapshot::merge::Mounts;
use crate::snapshot::tls::{Certificates, Identity};
use crate::snapshot::{Chain, Consumer, Route, Snapshot, Streams, Target, Upstream, Upstreams};

/// A service as its routes take it over.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) hosts: Arc<[String]>,
    pub(super) mounts: Mounts,
    pub(super) target: Target,
    pub(super) websocket: bool,
    pub(super) websockets: Option<model::websocket::WebSocket>,
}

/// What was made of an object, as far as it must be known to take it out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    /// Of a route, a stream route or a consumer.
    pub(super) place: Option<u32>,
    /// Of upstreams written inside the object.
    pub(super) inline: Vec<u32>,
    /// Hosts a route is entered under though it does not name them.
    pub(super) service_hosts: Option<Arc<[String]>>,
    /// Credentials in the index: of which plugin, and what is shown.
    pub(super) proofs: Vec<(&'static str, Vec<u8>)>,
    pub(super) holds: Holds,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    router: Router<u32>,
    pub(super) routes: Slots<Route>,
    pub(super) streams: Streams,
    pub(super) upstreams: Upstreams,
    pub(super) upstream_ids: HashTrieMapSync<Arc<str>, u32>,
    pub(super) services: HashTrieMapSync<Arc<str>, Arc<Service>>,
    pub(super) plugin_configs: HashTrieMapSync<Arc<str>, Arc<Mounts>>,
    pub(super) groups: HashTrieMapSync<Arc<str>, Arc<Mounts>>,
    /// By id, `vault/1`.
    pub(super) secrets: HashTrieMapSync<Arc<str>, Arc<model::SecretStore>>,
    pub(super) protos: HashTrieMapSync<Arc<str>, Arc<Types>>,
    pub(super) consumers: Slots<Consumer>,
    pub(super) consumer_ids: HashTrieMapSync<Arc<str>, u32>,
    pub(super) index: ConsumerIndex,
    pub(super) decorations: Decorations,
    /// What clients are shown.
    pub(super) certificates: Certificates,
    /// What nodes are shown, by the id of its ssl.
    pub(super) identities: HashTrieMapSync<Arc<str>, Arc<Identity>>,
    /// Of global rules, oldest first, each with its id.
    global: BTreeMap<u64, (Arc<str>, Vec<Mount<AnyPlugin>>)>,
    global_chain: Arc<Chain>,
}

impl Parts {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            router: Router::new(mode),
            routes: Slots::default(),
            streams: Streams::default(),
            upstreams: Upstreams::default(),
            upstream_ids: HashTrieMapSync::default(),
            services: HashTrieMapSync::default(),
            plugin_configs: HashTrieMapSync::default(),
            groups: HashTrieMapSync::default(),
            protos: HashTrieMapSync::default(),
            secrets: HashTrieMapSync::default(),
            consumers: Slots::default(),
            consumer_ids: HashTrieMapSync::default(),
            index: ConsumerIndex::default(),
            decorations: Decorations::default(),
            certificates: Certificates::default(),
            identities: HashTrieMapSync::default(),
            global: BTreeMap::new(),
            global_chain: Arc::default(),
        }
    }

    /// The snapshot of what there is.
    pub(super) fn snapshot(
        &self,
        generation: u64,
        house: Arc<House>,
        registry: &Registry,
        retired: Arc<[LocalId]>,
    ) -> Snapshot {
        Snapshot {
            generation,
            house,
            router: self.router.clone(),
            routes: self.routes.clone(),
            streams: self.streams.clone(),
            upstreams: self.upstreams.clone(),
            consumers: self.consumers.clone(),
            index: self.index.clone(),
            prices: self.decorations.prices.clone(),
            certificates: self.certificates.clone(),
            challenges: Arc::default(),
            global: Arc::clone(&self.global_chain),
            is_unguarded: false,
            live: registry.live().clone(),
            retired,
        }
    }

    /// After changes, before a snapshot.
    pub(super) fn settle(&mut self) {
        self.router.settle();
        self.streams.settle();
    }

    /// Puts an upstream that others refer to in its place, which stays when it changes.
    pub(super) fn put_upstream(&mut self, id: &str, upstream: Upstream) {
        match self.upstream_ids.get(id) {
            Some(place) => self.upstreams.put(*place, upstream),
            None => {
                let place = self.upstreams.add(upstream);
                self.upstream_ids.insert_mut(id.into(), place);
            }
        }
    }

    pub(super) fn remove_upstream(&mut self, id: &str) {
        if let Some(place) = self.upstream_ids.get(id).copied() {
            self.upstreams.remove(place);
            self.upstream_ids.remove_mut(id);
        }
    }

    /// The global rule that has a plugin.
    pub(super) fn global_rule_with(&self, plugin: &str) -> Option<&Arc<str>> {
        let has = |mounts: &[Mount<AnyPlugin>]| {
            use crate::plugin::Hooks as _;
            mounts.iter().any(|mount| mount.plugin.name() == plugin)
        };
        self.global.values().find(|(_, mounts)| has(mounts)).map(|(id, _)| id)
    }

    pub(super) fn put_global_rule(&mut self, age: u64, id: &str, mounts: Vec<Mount<AnyPlugin>>) {
        self.global.insert(age, (id.into(), mounts));
        self.chain_global_rules();
    }

    fn chain_global_rules(&mut self) {
        let mounts = self.global.values().flat_map(|(_, mounts)| mounts).cloned();
        self.global_chain = Arc::new(PluginChain::new(mounts.collect()));
    }

    /// Whether a route's paths and hosts mean something.
    pub(super) fn check_route(&self, route: &model::Route, hosts: &[&str]) -> Result<(), RouterError> {
        patterns(route, hosts).try_for_each(|pattern| self.router.check(&pattern))
    }

    /// Adds a route, and enters its paths, which were checked.
    pub(super) fn put_route(
        &mut self,
        age: u64,
        route: &model::Route,
        hosts: &[&str],
        compiled: Route,
    ) -> u32 {
        let place = self.routes.add(compiled);
        for pattern in patterns(route, hosts) {
            let _ = self.router.insert(&pattern, age, place);
        }
        place
    }

    fn remove_route(&mut self, route: &model::Route, place: u32, service_hosts: Option<&[String]>) {
        let hosts = hosts_of(route, service_hosts.unwrap_or_default());
        for pattern in patterns(route, &hosts) {
            self.router.remove(&pattern, &place);
        }
        self.routes.remove(place);
    }

    /// Takes out what was made of an object. An upstream stays in its place, for its next version or its end.
    pub(super) fn withdraw(&mut self, raw: &Raw, made: &Made) {
        let id = raw.id.as_str();
        for place in &made.inline {
            self.upstreams.remove(*place);
        }
        for (plugin, lookup) in &made.proofs {
            self.index.remove(plugin, lookup);
        }
        match raw.kind {
            Kind::PluginConfig => drop(self.plugin_configs.remove_mut(id)),
            Kind::Service => drop(self.services.remove_mut(id)),
            Kind::ConsumerGroup => drop(self.groups.remove_mut(id)),
            Kind::Secret => drop(self.secrets.remove_mut(id)),
            Kind::Proto => drop(self.protos.remove_mut(id)),
            Kind::Consumer => {
                self.index.remove_consumer(id);
                self.consumer_ids.remove_mut(id);
                if let Some(place) = made.place {
                    self.consumers.remove(place);
                }
            }
            Kind::GlobalRule => {
                self.global.retain(|_, (other, _)| **other != *id);
                self.chain_global_rules();
            }
            Kind::Route => {
                if let (Some(place), Ok(Object::Route(route))) = (made.place, typed(raw)) {
                    self.remove_route(&route, place, made.service_hosts.as_deref());
                }
            }
            Kind::Ssl => {
                self.certificates.remove(id);
                self.identities.remove_mut(id);
            }
            Kind::StreamRoute => {
                if let (Some(place), Ok(Object::StreamRoute(route))) = (made.place, typed(raw)) {
                    self.streams.remove(&route, place);
                }
            }
            Kind::CostDecoration => self.decorations.remove(id),
            Kind::PluginMetadata | Kind::Upstream | Kind::Credential => {}
        }
    }
}

/// The hosts a route is for: its own, else its service's.
pub(super) fn hosts_of<'a>(route: &'a model::Route, service_hosts: &'a [String]) -> Vec<&'a str> {
    let own: Vec<&str> = route.hosts().map(|host| host.as_str()).collect();
    if own.is_empty() { service_hosts.iter().map(String::as_str).collect() } else { own }
}

/// A pattern for each path of a route.
pub(super) fn patterns<'a>(
    route: &'a model::Route,
    hosts: &'a [&'a str],
) -> impl Iterator<Item = Pattern<'a>> {
    let methods = route.methods.iter().flatten().filter_map(|method| Method::of(method.as_str().as_bytes()));
    let methods = methods.fold(0, |mask, method| mask | method.bit());
    let priority = route.priority.into();
    route.uris().map(move |uri| Pattern { path: uri.as_str(), hosts, methods, priority })
}
