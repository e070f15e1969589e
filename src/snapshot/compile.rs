//! Model to snapshot: what has changed is compiled, every fault found. Runs on the control thread only.
//!
//! An object that can not be compiled is set aside alone: the version of it that last compiled stays in force,
//! and the others apply. Only a change of what all are compiled with (metadata of plugins, the list of plugins) or
//! of their order has all compiled again.

mod acme;
mod consumers;
mod decorations;
mod diff;
mod explain;
mod fill;
mod guard;
mod parts;
mod plugin_upstreams;
mod staples;
mod state;
mod streams;
mod work;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::cells::NodeBook;
use super::challenges::Challenges;
use super::names::Resolve;
use super::references::{Learnt, ReadEnv, ReadFile, References, Wanted};
use super::tls::{Forge, ReadRoots, Secrets};
use super::{House, LogFormat, Service, Snapshot, merge};
use crate::base::cidr::{Cidr, CidrSet};
use crate::base::hash::{Map, Set};
use crate::expr::{Template, Var};
use crate::link::ledger::Ledger;
use crate::model::field::AddressRange;
use crate::model::reference::Reference;
use crate::model::resources::{Change, Resources};
use crate::model::settings::{AccessFormat, Entrance, ForwardedFor, LogOutput, RouterKind, Settings};
use crate::model::upstream::NodeSpec;
use crate::model::{ConfigError, Kind, Raw};
use crate::plugin::{Registry, Surroundings, Witness};
use crate::proto::uri::UriOptions;
use crate::router::Mode;
use crate::runtime::LocalId;

pub use acme::{Issued, Wish};
pub(super) use explain::{Archive, Filed};
use parts::Parts;
pub use staples::Stapled;
use state::{Edit, Held, Key, Need, State, Tools};

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
    /// Whether requests that it may have guarded are refused: those of a route, or, for a global rule, all.
    pub refuses: bool,
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
    house: Arc<House>,
    book: NodeBook,
    references: References,
    surroundings: Surroundings,
    forge: Forge,
    /// The plugins that may be used, if the objects say so.
    plugins: Option<Vec<String>>,
    state: State,
    generation: u64,
    /// Ids that went out of use lately.
    retired: VecDeque<LocalId>,
    /// What limits are counted in, for those who look.
    ledger: Option<Arc<Ledger>>,
    challenges: Arc<Challenges>,
}

/// Ids that a snapshot tells as retired. A core that misses some sweeps them up when they have become many.
const RETIRED_TOLD: usize = 256;

impl Compiler {
    /// A compiler that has seen no object yet.
    pub fn new(settings: &Settings, resolve: Resolve) -> Self {
        let https_port = settings.ssl.listen.iter().find_map(|entrance| match entrance {
            Entrance::Ip(listen) => Some(listen.address().port()),
            Entrance::Unix(_) => None,
        });
        let mut surroundings = Surroundings { https_port, ..Surroundings::default() };
        for (plugin, attributes) in &settings.plugin_attr {
            surroundings.attributes.insert(plugin.clone(), attributes.clone());
        }
        Self {
            settings: settings.clone(),
            house: Arc::new(house_of(settings)),
            book: NodeBook::new(resolve, settings.discovery.kinds()),
            references: References::new(),
            surroundings,
            forge: Forge::new(&settings.ssl, settings.http2.enabled).issuing(&settings.acme),
            plugins: None,
            state: State::new(Parts::new(router_mode(settings))),
            generation: 0,
            retired: VecDeque::new(),
            ledger: None,
            challenges: Arc::default(),
        }
    }

    /// Has references to the environment be asked this way; without it, nothing is set there.
    #[must_use]
    pub fn reading_env(mut self, env: ReadEnv) -> Self {
        self.references.read_env(env);
        self
    }

    /// Has references to files be read this way; without it, none is there.
    #[must_use]
    pub fn reading_files(mut self, files: ReadFile) -> Self {
        self.references.read_files(files);
        self
    }

    /// Has those who vouch for nodes be read this way; without it, nobody does.
    #[must_use]
    pub fn trusting(mut self, read: ReadRoots) -> Self {
        self.book.outward.read_roots(read);
        self
    }

    /// Has tickets be given that whoever has the same secrets opens.
    #[must_use]
    pub fn sharing_tickets(mut self, secrets: &[Vec<u8>]) -> Self {
        if !secrets.is_empty() {
            self.forge.share_tickets(Secrets::new(secrets));
        }
        self
    }

    /// Has every plugin that runs be told of. Before anything is compiled.
    #[must_use]
    pub fn witnessed_by(mut self, witness: Witness) -> Self {
        self.surroundings.witness = Some(witness);
        self
    }

    /// Has those who look be told what is left of limits that are counted there.
    pub fn look_in(&mut self, ledger: &Arc<Ledger>) {
        self.ledger = Some(Arc::clone(ledger));
    }

    /// What limits are counted in.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    /// Has names be resolved another way from here on.
    pub fn resolve_by(&mut self, resolve: Resolve) {
        self.book.names.resolve_by(resolve);
    }

    /// The number of the last snapshot.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The references of the last snapshot that stores of secrets are asked about, with the stores as they are now.
    pub fn references(&self) -> Vec<Wanted> {
        let wanted = |text: &str| match Reference::of(text) {
            Ok(Reference::Secret { store, .. }) => {
                let store = Arc::clone(self.state.parts.secrets.get(store)?);
                Some(Wanted { reference: text.to_owned(), store })
            }
            Ok(Reference::Env { .. } | Reference::File { .. }) | Err(_) => None,
        };
        self.state.references().filter_map(wanted).collect()
    }

    /// The references of the last snapshot that files are looked at for.
    pub fn references_to_files(&self) -> Vec<String> {
        let is_of_file = |text: &&str| matches!(Reference::of(text), Ok(Reference::File { .. }));
        self.state.references().filter(is_of_file).map(str::to_owned).collect()
    }

    /// The host names that nodes of the last snapshot are known by.
    pub fn names(&self) -> Vec<String> {
        self.state.names().map(str::to_owned).collect()
    }

    /// The objects of a kind that are in force, in their order: ids, and what they say as JSON.
    pub fn in_force(&self, kind: Kind) -> Vec<(Arc<str>, Arc<str>)> {
        self.state.in_force(kind)
    }

    /// What one object that is in force says.
    pub fn in_force_of(&self, kind: Kind, id: &str) -> Option<Arc<str>> {
        self.state.get(&(kind, id.into())).and_then(Held::in_force).map(Arc::from)
    }

    /// The services whose instances are nodes of the last snapshot.
    pub fn services(&self) -> Vec<Service> {
        self.state.services().cloned().collect()
    }

    /// What is known of the services of a registry.
    pub fn services_of(&self, kind: &str) -> Vec<(Service, Vec<NodeSpec>)> {
        self.book.services.of_kind(kind)
    }

    /// Takes in what registries tell of services. What differs for it, if anything does, is compiled again.
    pub fn learn_services(&mut self, told: Vec<(Service, Vec<NodeSpec>)>) -> Option<Outcome> {
        let mut changed = Vec::new();
        for (service, nodes) in told {
            if self.book.services.learn(&service, nodes) {
                changed.push(Need::Service(service));
            }
        }
        self.look_again_at(changed)
    }

    /// Takes in newer addresses of names. What differs for it, if anything does, is compiled again.
    pub fn learn(&mut self, answers: Vec<(String, Vec<IpAddr>)>) -> Option<Outcome> {
        let changed = self.book.names.learn(answers);
        self.look_again_at(changed.into_iter().map(Need::Name).collect())
    }

    /// Takes in what stores of secrets say. What differs for it, if anything does, is compiled again.
    pub fn learn_secrets(&mut self, answers: Vec<(String, Learnt)>) -> Option<Outcome> {
        let changed = self.references.learn(answers);
        self.look_again_at(changed.into_iter().map(Need::Secret).collect())
    }

    fn look_again_at(&mut self, changed: Vec<Need>) -> Option<Outcome> {
        if changed.is_empty() {
            return None;
        }
        let mut state = self.state.clone();
        self.with_tools(|tools| state.look_again_at(changed.into_iter(), tools));
        let plugins = self.plugins.clone();
        Some(self.adopt(Attempt::of(state, plugins, None)))
    }

    /// Compiles these objects, which take the place of all others; what is as it was is not compiled again. Never
    /// fails as a whole.
    pub fn compile(&mut self, resources: &Resources) -> Outcome {
        let attempt = match diff::between(&self.state, resources) {
            Some(edits) if self.plugins == resources.plugins && !edits.iter().any(diff::concerns_all) => {
                self.applied(edits)
            }
            _ => {
                let objects = resources.objects.iter().map(|raw| (key_of(raw), text_of(raw)));
                self.rebuilt(objects.collect(), resources.plugins.clone())
            }
        };
        self.adopt(attempt)
    }

    /// Compiles what changes touch. Nothing has happened until the result is given to [`Self::adopt`], or it is an
    /// error.
    ///
    /// # Errors
    /// All that is wrong with the changed objects: those that can not be taken as they are, or refer to nothing.
    pub fn attempt(&mut self, changes: &[Change]) -> Result<Attempt, Vec<ConfigError>> {
        let attempt = self.tried(changes);
        let (mut faults, mut lacks) = (Vec::new(), Vec::new());
        for change in changes {
            let (kind, id) = change.key();
            let Some(held) = attempt.state.get(&(kind, id.into())) else { continue };
            for fault in held.faults_of_wanted() {
                let is_grave = held.is_set_aside && !held.is_awaiting();
                let counts = is_grave || is_reference_to_nothing(fault);
                if counts { faults.push(fault.clone()) } else { lacks.push(fault.clone()) }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let sets_aside = self.set_aside_by(&attempt, changes);
        Ok(Attempt { lacks, sets_aside, ..attempt })
    }

    /// What is wrong with objects that are in force as they are written, are not changed, and would no longer be: one fault each.
    fn set_aside_by(&self, attempt: &Attempt, changes: &[Change]) -> Vec<ConfigError> {
        let changed: Set<Key> = changes
            .iter()
            .map(|change| {
                let (kind, id) = change.key();
                (kind, id.into())
            })
            .collect();
        let is_hit = |key: &Key, held: &Held| {
            let was_in_force = || self.state.get(key).is_some_and(|was| !was.is_set_aside);
            held.is_set_aside && !held.is_awaiting() && !changed.contains(key) && was_in_force()
        };
        let hit = attempt.state.troubled().filter(|(key, held)| is_hit(key, held));
        hit.filter_map(|(_, held)| held.faults_of_wanted().first().cloned()).collect()
    }

    /// Compiles what changes touch. Never fails as a whole: what can not be taken is set aside alone.
    pub fn apply(&mut self, changes: &[Change]) -> Outcome {
        let attempt = self.tried(changes);
        self.adopt(attempt)
    }

    fn tried(&mut self, changes: &[Change]) -> Attempt {
        let edits: Vec<Edit> = changes.iter().map(edit_of).collect();
        if edits.iter().any(diff::concerns_all) {
            let objects = diff::with(&self.state, &edits);
            self.rebuilt(objects, self.plugins.clone())
        } else {
            self.applied(edits)
        }
    }

    /// From here on, this is what counts.
    pub fn adopt(&mut self, attempt: Attempt) -> Outcome {
        let Attempt { state, plugins, metadata, .. } = attempt;
        (self.state, self.plugins) = (state, plugins);
        if let Some(metadata) = metadata {
            self.surroundings.metadata = metadata;
        }
        let has_objects = self.state.keys().next().is_some();
        self.state.has_begun |= has_objects;
        self.generation += 1;
        let used: Set<&str> = self.state.names().collect();
        self.book.names.forget_unused(|name| used.contains(name));
        let used: Set<&Service> = self.state.services().collect();
        self.book.services.forget_unused(|service| used.contains(service));
        let used: Set<&str> = self.state.references().collect();
        self.references.forget_unused(|reference| used.contains(reference));
        self.retired.extend(self.state.registry.retire_unused());
        let surplus = self.retired.len().saturating_sub(RETIRED_TOLD);
        self.retired.drain(..surplus);
        let retired = self.retired.iter().copied().collect();
        let house = Arc::clone(&self.house);
        let mut snapshot = self.state.parts.snapshot(self.generation, house, &self.state.registry, retired);
        snapshot.challenges = Arc::clone(&self.challenges);
        let (mut faults, mut quarantined) = (Vec::new(), Vec::new());
        for ((kind, id), held) in self.state.troubled() {
            faults.extend(held.faults.iter().cloned());
            if held.is_set_aside {
                let (id, last_good, refuses) = (id.to_string(), held.has_last_good(), held.refuses(*kind));
                let faults = held.faults.clone();
                quarantined.push(Quarantined { kind: *kind, id, faults, last_good, refuses });
            }
        }
        snapshot.is_unguarded = self.state.is_unguarded();
        Outcome { snapshot: Arc::new(snapshot), faults, quarantined }
    }

    /// The state with changes made.
    fn applied(&mut self, edits: Vec<Edit>) -> Attempt {
        let mut state = self.state.clone();
        self.with_tools(|tools| state.apply(edits, tools));
        Attempt::of(state, self.plugins.clone(), None)
    }

    /// The state of these objects, each compiled anew.
    fn rebuilt(&mut self, objects: Vec<(Key, Arc<str>)>, plugins: Option<Vec<String>>) -> Attempt {
        let mut state = self.state.clone();
        let parts = Parts::new(router_mode(&self.settings));
        let before = std::mem::replace(&mut self.plugins, plugins);
        let metadata = self.metadata_of(&objects);
        let earlier = std::mem::replace(&mut self.surroundings.metadata, metadata);
        self.with_tools(|tools| state.rebuild(objects, parts, tools));
        let metadata = Some(std::mem::replace(&mut self.surroundings.metadata, earlier));
        let plugins = std::mem::replace(&mut self.plugins, before);
        Attempt::of(state, plugins, metadata)
    }

    /// Runs something with what a compilation needs.
    fn with_tools(&mut self, run: impl FnOnce(&mut Tools<'_>)) {
        let enabled = self.enabled();
        run(&mut Tools {
            book: &mut self.book,
            references: &mut self.references,
            surroundings: &self.surroundings,
            forge: &self.forge,
            enabled: enabled.as_deref(),
        });
    }

    fn enabled(&self) -> Option<Vec<String>> {
        let listed: Vec<String> = self.settings.plugins.iter().cloned().collect();
        self.plugins.clone().or_else(|| (!listed.is_empty()).then_some(listed))
    }

    /// The metadata of plugins among the objects; for what can not be read, its last good version's.
    fn metadata_of(&self, objects: &[(Key, Arc<str>)]) -> Map<String, Value> {
        let mut metadata = Map::default();
        let enabled = self.enabled();
        for (key, text) in objects.iter().filter(|(key, _)| key.0 == Kind::PluginMetadata) {
            let earlier = self.state.get(key).and_then(Held::in_force);
            let readable = [Some(&**text), earlier].into_iter().flatten().find_map(|text| {
                let raw = state::raw_of(key.0, &key.1, text).ok()?;
                merge::read_metadata(&raw, enabled.as_deref()).ok()
            });
            metadata.extend(readable);
        }
        metadata
    }
}

/// A compilation before anybody has said that it counts.
#[derive(Debug)]
pub struct Attempt {
    state: State,
    plugins: Option<Vec<String>>,
    /// Where it is another than before.
    metadata: Option<Map<String, Value>>,
    /// What the changed objects ask for and do not get, though they are in force.
    lacks: Vec<ConfigError>,
    /// What is wrong with other objects for it, that are in force and would not be.
    sets_aside: Vec<ConfigError>,
}

impl Attempt {
    /// One of which nothing is known but what it came to.
    const fn of(state: State, plugins: Option<Vec<String>>, metadata: Option<Map<String, Value>>) -> Self {
        Self { state, plugins, metadata, lacks: Vec::new(), sets_aside: Vec::new() }
    }

    /// What is wrong with objects that are not changed, for the change: they are in force and would no longer be.
    pub fn sets_aside(&self) -> &[ConfigError] {
        &self.sets_aside
    }

    /// What the changed objects ask for and do not get, though they are in force.
    pub fn lacks(&self) -> &[ConfigError] {
        &self.lacks
    }
}

/// Fields whose fault is a reference to nothing, where the object is in force.
const REFERENCES: [&str; 4] = ["upstream_id", "service_id", "plugin_config_id", "group_id"];

/// Whether what an object lacks is another that it refers to, itself or in a plugin.
pub fn is_reference_to_nothing(lack: &ConfigError) -> bool {
    let field = lack.path.rsplit('.').next().unwrap_or_default();
    REFERENCES.contains(&field)
}

fn key_of(raw: &Raw) -> Key {
    (raw.kind, raw.id.as_str().into())
}

fn text_of(raw: &Raw) -> Arc<str> {
    raw.value.to_string().into()
}

fn edit_of(change: &Change) -> Edit {
    match change {
        Change::Put(raw) => Edit::Put(key_of(raw), text_of(raw)),
        Change::Delete(kind, id) => Edit::Delete((*kind, id.as_str().into())),
    }
}

fn house_of(settings: &Settings) -> House {
    let log = &settings.access_log;
    let format = match &log.format {
        _ if !log.enabled || log.output == LogOutput::Off => LogFormat::Off,
        AccessFormat::Json => LogFormat::Json,
        AccessFormat::Combined => LogFormat::Template(Template::parse(COMBINED)),
        AccessFormat::Template(text) => LogFormat::Template(Template::parse(text)),
    };
    let keep_sent_head = matches!(&format, LogFormat::Template(template) if template
        .vars()
        .any(Var::is_of_response_head));
    House {
        uri: UriOptions {
            merge_slashes: settings.router.merge_slashes,
            keep_encoded_slash: settings.router.match_uri_encoded_slash,
            delete_tail_slash: settings.router.delete_uri_tail_slash,
            servlet: settings.router.normalize_uri_like_servlet,
        },
        trusted: set_of(settings.trusted_addresses.iter()),
        appends_forwarded_for: settings.forwarded_for == ForwardedFor::Append,
        balancers: match &settings.proxy_protocol.from {
            own if own.is_empty() => set_of(settings.trusted_addresses.iter()),
            own => set_of(own.iter()),
        },
        via: settings.via,
        show_upstream_status: settings.show_upstream_status,
        log_format: format,
        keep_sent_head,
        fallback_sni: settings.ssl.fallback_sni.as_deref().map(|name| name.to_ascii_lowercase().into()),
        server: if settings.server_tokens {
            concat!("ringway/", env!("CARGO_PKG_VERSION")).to_owned()
        } else {
            "ringway".to_owned()
        },
    }
}

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

#[cfg(test)]
mod tests;
