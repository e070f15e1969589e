//! What a plugin may ask for while it is compiled: ids for state, upstreams, and what it needs of bodies.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::{HashTrieMapSync, HashTrieSetSync};
use serde_json::Value;

use super::chain::Witness;
use super::inner::{Actions, Inner};
use crate::base::hash::{Map, stable};
use crate::exchange::SlotId;
use crate::model::{ConfigError, ObjectId, Upstream};
use crate::proto::protobuf::Types;
use crate::runtime::LocalId;
use crate::runtime::dialogue::Tls;

/// What lasts from one compilation to the next: which state belongs to whom, and what objects agreed on. A copy
/// shares everything with its original, so that a compilation can be dropped as if it had never been.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    locals: HashTrieMapSync<String, Shared<LocalId>>,
    topics: HashTrieMapSync<String, Shared<u64>>,
    live: HashTrieSetSync<LocalId>,
    /// What nobody used when it was last looked at.
    unused: Vec<String>,
    last_local: u64,
    slots: Map<&'static str, SlotId>,
}

/// Something that several objects may use.
#[derive(Clone, Copy, Debug)]
struct Shared<T> {
    what: T,
    users: u32,
}

/// What one object uses of a [`Registry`].
#[derive(Clone, Debug, Default)]
pub struct Holds {
    locals: Vec<String>,
    topics: Vec<String>,
    /// What it could not agree on with those who were first.
    pub disagreed: Vec<String>,
}

impl Registry {
    /// The id of the state of `owner`'s `plugin` with that configuration: the same as long as all three are, and
    /// somebody holds it.
    pub fn local(&mut self, holds: &mut Holds, owner: &str, plugin: &str, fingerprint: u64) -> LocalId {
        let key = format!("{owner}\n{plugin}\n{fingerprint:x}");
        let known = self.locals.get(&key).copied();
        let Shared { what, users } = known.unwrap_or_else(|| {
            self.last_local += 1;
            self.live.insert_mut(LocalId(self.last_local));
            Shared { what: LocalId(self.last_local), users: 0 }
        });
        self.locals.insert_mut(key.clone(), Shared { what, users: users + 1 });
        holds.locals.push(key);
        what
    }

    /// Whether all who name `topic` bring the same `value`; the first one sets it.
    fn agree(&mut self, holds: &mut Holds, topic: String, value: u64) -> bool {
        let known = self.topics.get(&topic).copied();
        let Shared { what, users } = known.unwrap_or(Shared { what: value, users: 0 });
        if what != value {
            holds.disagreed.push(topic);
            return false;
        }
        self.topics.insert_mut(topic.clone(), Shared { what, users: users + 1 });
        holds.topics.push(topic);
        true
    }

    /// Takes back what an object used; the topics that are free for others now.
    pub fn release(&mut self, holds: Holds) -> Vec<String> {
        for key in holds.locals {
            let Some(Shared { what, users }) = self.locals.get(&key).copied() else { continue };
            if users <= 1 {
                self.unused.push(key.clone());
            }
            self.locals.insert_mut(key, Shared { what, users: users.saturating_sub(1) });
        }
        let mut free = Vec::new();
        for topic in holds.topics {
            match self.topics.get(&topic).copied() {
                Some(Shared { what, users }) if users > 1 => {
                    self.topics.insert_mut(topic, Shared { what, users: users - 1 });
                }
                _ => {
                    self.topics.remove_mut(&topic);
                    free.push(topic);
                }
            }
        }
        free
    }

    /// Forgets the ids nobody uses any more, and tells them; they are never used again.
    pub fn retire_unused(&mut self) -> Vec<LocalId> {
        let mut retired = Vec::new();
        for key in std::mem::take(&mut self.unused) {
            if let Some(Shared { what, users: 0 }) = self.locals.get(&key).copied() {
                self.locals.remove_mut(&key);
                self.live.remove_mut(&what);
                retired.push(what);
            }
        }
        retired
    }

    /// The ids in use.
    pub const fn live(&self) -> &HashTrieSetSync<LocalId> {
        &self.live
    }

    fn slot(&mut self, plugin: &'static str) -> SlotId {
        let next = SlotId(self.slots.len() as u32);
        *self.slots.entry(plugin).or_insert(next)
    }
}

/// What all plugins have in common.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `plugin_metadata` by plugin name.
    pub metadata: Map<String, Value>,
    /// `plugin_attr` of the settings, by plugin name.
    pub attributes: Map<String, Value>,
    /// Port of the first TLS listener, for redirects.
    pub https_port: Option<u16>,
    /// Told what runs, where configurations are tried.
    pub witness: Option<Witness>,
}

/// The upstreams of the snapshot, as far as a plugin has to do with them: those kept under an id, and those it brings. And
/// the protos.
pub trait Upstreams: std::fmt::Debug {
    /// The place of a kept one; `None`, and told as a lack of `field`, when there is none. The plugin is compiled
    /// again when that changes.
    fn kept(&mut self, field: &str, id: &ObjectId) -> Option<u32>;

    /// What a proto defines; `None`, and told as a lack of `field`, when there is none of that id. The plugin is compiled
    /// again when that changes.
    fn proto(&mut self, field: &str, id: &ObjectId) -> Option<Arc<Types>>;

    /// The addresses of a host; none, and told as a lack of `field`, where it has none now. The plugin is compiled again
    /// when that changes.
    fn addresses(&mut self, field: &str, host: &str) -> Vec<IpAddr>;

    /// How servers are spoken to over TLS, verified or not.
    ///
    /// # Errors
    /// When nobody is known who could vouch for them.
    fn tls(&mut self, verify: bool) -> Result<Tls, String>;

    /// Makes the one that is written at `field`; its place.
    ///
    /// # Errors
    /// What is wrong with it.
    fn make(
        &mut self,
        holder: (&mut Registry, &mut Holds),
        field: &str,
        upstream: &Upstream,
    ) -> Result<u32, Vec<ConfigError>>;
}

/// What of a snapshot in the making a plugin may reach.
#[derive(Debug)]
pub struct Makings<'a> {
    pub registry: &'a mut Registry,
    /// What the object at hand uses of the registry.
    pub holds: &'a mut Holds,
    pub upstreams: &'a mut dyn Upstreams,
    pub actions: &'a dyn Actions,
}

/// The desk a plugin is compiled at.
#[derive(Debug)]
pub struct CompileCx<'a> {
    registry: &'a mut Registry,
    holds: &'a mut Holds,
    upstreams: &'a mut dyn Upstreams,
    actions: &'a dyn Actions,
    surroundings: &'a Surroundings,
    owner: &'a str,
    plugin: &'static str,
    fingerprint: u64,
    is_action: bool,
    request_body_max: Option<usize>,
    refusals: Vec<ConfigError>,
}

impl<'a> CompileCx<'a> {
    /// A desk for one use of a plugin: `owner` is the object as `routes/7`, `config` what stands there.
    pub fn new(
        makings: Makings<'a>,
        surroundings: &'a Surroundings,
        owner: &'a str,
        plugin: &'static str,
        config: &Value,
    ) -> Self {
        let fingerprint = stable(config.to_string().as_bytes());
        let Makings { registry, holds, upstreams, actions } = makings;
        Self {
            registry,
            holds,
            upstreams,
            actions,
            surroundings,
            owner,
            plugin,
            fingerprint,
            is_action: false,
            request_body_max: None,
            refusals: Vec::new(),
        }
    }

    /// The object the plugin is used in, as `routes/7`.
    pub const fn owner(&self) -> &str {
        self.owner
    }

    /// The name of the plugin that is compiled.
    pub const fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// A number that is the same as long as the configuration is.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether another plugin runs this one.
    pub const fn is_action(&self) -> bool {
        self.is_action
    }

    /// A plugin to be run by this one, with what is written at `field` of the configuration; `None` when there is none of
    /// that name. Its state is its own: kept as long as owner, field and what is written stay.
    #[allow(clippy::type_complexity)] // One answer, or none, or all that is wrong.
    pub fn action(
        &mut self,
        field: &str,
        name: &str,
        config: &Value,
    ) -> Option<Result<Arc<dyn Inner>, Vec<ConfigError>>> {
        let name = self.actions.named(name)?;
        let owner = format!("{}\n{}\n{field}", self.owner, self.plugin);
        let mut cx = CompileCx {
            registry: &mut *self.registry,
            holds: &mut *self.holds,
            upstreams: &mut *self.upstreams,
            actions: self.actions,
            surroundings: self.surroundings,
            owner: &owner,
            plugin: name,
            fingerprint: stable(config.to_string().as_bytes()),
            is_action: true,
            request_body_max: None,
            refusals: Vec::new(),
        };
        let made = self.actions.compile(name, config.clone(), &mut cx);
        if let Some(bytes_max) = cx.request_body_max {
            self.needs_request_body(bytes_max);
        }
        Some(made)
    }

    /// State on each core, kept as long as owner and configuration stay.
    pub fn local(&mut self) -> LocalId {
        self.registry.local(self.holds, self.owner, self.plugin, self.fingerprint)
    }

    /// State on each core that all uses of the plugin share, whatever their configuration.
    pub fn local_of_all_uses(&mut self) -> LocalId {
        self.registry.local(self.holds, "", self.plugin, 0)
    }

    /// State on each core that all who ask for it by name and number share, whatever plugin they are.
    pub fn local_of(&mut self, name: &str, fingerprint: u64) -> LocalId {
        self.registry.local(self.holds, "", name, fingerprint)
    }

    /// State of a request, private to the plugin (all its uses share the slot).
    pub fn slot(&mut self) -> SlotId {
        self.registry.slot(self.plugin)
    }

    /// State of a request that all who ask for it by name share, whatever plugin they are.
    pub fn slot_of(&mut self, name: &'static str) -> SlotId {
        self.registry.slot(name)
    }

    /// The plugin's part of `plugin_attr`.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.surroundings.attributes.get(self.plugin)?.get(name)
    }

    /// What `plugin_attr` says of another plugin.
    pub fn attribute_of(&self, plugin: &str, name: &str) -> Option<&Value> {
        self.surroundings.attributes.get(plugin)?.get(name)
    }

    /// Port of the first TLS listener, for redirects.
    pub const fn https_port(&self) -> Option<u16> {
        self.surroundings.https_port
    }

    /// Asks that the request body be held, whole, before `ACCESS`; larger ones get 413.
    pub fn needs_request_body(&mut self, bytes_max: usize) {
        self.request_body_max = Some(self.request_body_max.unwrap_or(0).max(bytes_max));
    }

    /// What was asked of the request body.
    pub const fn request_body_max(&self) -> Option<usize> {
        self.request_body_max
    }

    /// The place of the upstream that is kept under an id, which `field` of the configuration names; `None` when there
    /// is none, which is told and does not keep the plugin out of force.
    pub fn kept_upstream(&mut self, field: &str, id: &ObjectId) -> Option<u32> {
        self.upstreams.kept(&format!("plugins.{}.{field}", self.plugin), id)
    }

    /// What the proto defines that is kept under an id, which `field` of the configuration names; `None` when there is none,
    /// which is told and does not keep the plugin out of force.
    pub fn proto(&mut self, field: &str, id: &ObjectId) -> Option<Arc<Types>> {
        self.upstreams.proto(&format!("plugins.{}.{field}", self.plugin), id)
    }

    /// The addresses of a host that `field` of the configuration names, an address itself or a name; none where there is
    /// none now, which is told and does not keep the plugin out of force.
    pub fn addresses(&mut self, field: &str, host: &str) -> Vec<IpAddr> {
        self.upstreams.addresses(&format!("plugins.{}.{field}", self.plugin), host)
    }

    /// How servers of no upstream are spoken to over TLS, verified or not.
    ///
    /// # Errors
    /// When nobody is known who could vouch for them.
    pub fn tls(&mut self, verify: bool) -> Result<Tls, String> {
        self.upstreams.tls(verify)
    }

    /// The place of an upstream that is written at `field` of the configuration; `None` when it is refused, and the
    /// plugin with it.
    pub fn inline_upstream(&mut self, field: &str, upstream: &Upstream) -> Option<u32> {
        let faults = upstream.faults();
        let made = if faults.is_empty() {
            let holder = (&mut *self.registry, &mut *self.holds);
            self.upstreams.make(holder, &format!("plugins.{}.{field}", self.plugin), upstream)
        } else {
            Err(faults)
        };
        made.map_err(|faults| self.refusals.extend(faults.into_iter().map(|fault| fault.under(field)))).ok()
    }

    /// Notes a fault, by which the plugin is refused: compiling goes on, so that all of them are told.
    pub fn refuse(&mut self, fault: ConfigError) {
        self.refusals.push(fault);
    }

    /// The faults that were found so far, by which the plugin is refused: compiling goes on so that all are told.
    pub fn take_refusals(&mut self) -> Vec<ConfigError> {
        std::mem::take(&mut self.refusals)
    }

    /// Whether all objects that name `topic` bring the same `value`; the first one sets it.
    pub fn agree(&mut self, topic: &str, value: u64) -> bool {
        self.registry.agree(self.holds, format!("{}\n{topic}", self.plugin), value)
    }
}
