//! What a plugin may ask for while it is compiled: ids for state, and what it needs of bodies.

use serde_json::Value;

use crate::base::hash::{Map, stable};
use crate::exchange::SlotId;
use crate::runtime::LocalId;

/// What lasts from one snapshot to the next on the control thread: which state belongs to whom.
#[derive(Debug, Default)]
pub struct Registry {
    locals: Map<String, LocalId>,
    next_local: u64,
    slots: Map<&'static str, SlotId>,
}

impl Registry {
    /// The id of the state of `owner`'s `plugin` with that configuration: the same as long as all three are.
    pub fn local(&mut self, owner: &str, plugin: &str, fingerprint: u64) -> LocalId {
        let key = format!("{owner}\n{plugin}\n{fingerprint:x}");
        let next = &mut self.next_local;
        *self.locals.entry(key).or_insert_with(|| {
            *next += 1;
            LocalId(*next)
        })
    }

    /// Forgets ids no snapshot uses any more, so that the table does not grow with every change.
    pub fn retain(&mut self, live: &crate::base::hash::Set<LocalId>) {
        self.locals.retain(|_, id| live.contains(id));
    }

    fn slot(&mut self, plugin: &'static str) -> SlotId {
        let next = SlotId(self.slots.len() as u32);
        *self.slots.entry(plugin).or_insert(next)
    }
}

/// What all plugins of one snapshot have in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// `plugin_metadata` by plugin name.
    pub metadata: Map<String, Value>,
    /// `plugin_attr` of the settings, by plugin name.
    pub attributes: Map<String, Value>,
    /// Port of the first TLS listener, for redirects.
    pub https_port: Option<u16>,
    agreed: Map<String, u64>,
    /// What the object at hand was first to agree on.
    proposed: Vec<String>,
    live: crate::base::hash::Set<LocalId>,
}

impl Shared {
    /// Ids of state handed out for this snapshot.
    pub const fn live(&self) -> &crate::base::hash::Set<LocalId> {
        &self.live
    }

    /// Before an object: what it brings can be taken back.
    pub fn begin(&mut self) {
        self.proposed.clear();
    }

    /// After an object that failed: what it was first to say binds nobody, least of all its earlier version.
    pub fn undo(&mut self) {
        for key in self.proposed.drain(..) {
            self.agreed.remove(&key);
        }
    }

    /// Notes an id as in use.
    pub fn keep(&mut self, id: LocalId) {
        self.live.insert(id);
    }
}

/// The desk a plugin is compiled at.
#[derive(Debug)]
pub struct CompileCx<'a> {
    registry: &'a mut Registry,
    shared: &'a mut Shared,
    owner: &'a str,
    plugin: &'static str,
    fingerprint: u64,
    request_body_max: Option<usize>,
}

impl<'a> CompileCx<'a> {
    /// A desk for one use of a plugin: `owner` is the object as `routes/7`, `config` what stands there.
    pub fn new(
        registry: &'a mut Registry,
        shared: &'a mut Shared,
        owner: &'a str,
        plugin: &'static str,
        config: &Value,
    ) -> Self {
        let fingerprint = stable(config.to_string().as_bytes());
        Self { registry, shared, owner, plugin, fingerprint, request_body_max: None }
    }

    /// The object the plugin is used in, as `routes/7`.
    pub const fn owner(&self) -> &str {
        self.owner
    }

    /// A number that is the same as long as the configuration is.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// State on each core, kept as long as owner and configuration stay.
    pub fn local(&mut self) -> LocalId {
        let id = self.registry.local(self.owner, self.plugin, self.fingerprint);
        self.shared.keep(id);
        id
    }

    /// State on each core that all uses of the plugin share, whatever their configuration.
    pub fn local_of_all_uses(&mut self) -> LocalId {
        let id = self.registry.local("", self.plugin, 0);
        self.shared.keep(id);
        id
    }

    /// State of a request, private to the plugin (all its uses share the slot).
    pub fn slot(&mut self) -> SlotId {
        self.registry.slot(self.plugin)
    }

    /// The plugin's part of `plugin_attr`.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.shared.attributes.get(self.plugin)?.get(name)
    }

    /// Port of the first TLS listener, for redirects.
    pub const fn https_port(&self) -> Option<u16> {
        self.shared.https_port
    }

    /// Asks that the request body be held, whole, before `ACCESS`; larger ones get 413.
    pub fn needs_request_body(&mut self, bytes_max: usize) {
        self.request_body_max = Some(self.request_body_max.unwrap_or(0).max(bytes_max));
    }

    /// What was asked of the request body.
    pub const fn request_body_max(&self) -> Option<usize> {
        self.request_body_max
    }

    /// Whether all who name `topic` in this snapshot bring the same `value`; the first one sets it.
    pub fn agree(&mut self, topic: &str, value: u64) -> bool {
        let key = format!("{}\n{topic}", self.plugin);
        if let Some(agreed) = self.shared.agreed.get(&key) {
            return *agreed == value;
        }
        self.shared.proposed.push(key.clone());
        self.shared.agreed.insert(key, value);
        true
    }
}
