//! All objects, what was made of each, and who must be looked at again when one changes.
//!
//! [`State::apply`] takes changes and compiles what they touch, and nothing else:
//!
//! ```text
//! change ─▶ agenda ─▶ take out what was made of the object ─▶ compile it (else its last good version)
//!              ▲                                                   │
//!              └────────── those who need what has changed ◀───────┘
//! ```
//!
//! Objects are taken in the order of their references, so what refers finds what it refers to. A copy of the state
//! shares everything with its original, so a compilation that is refused is dropped, and nothing has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::guard;
use super::parts::{Made, Parts};
use super::work::Work;
use crate::model::{ConfigError, Kind, ObjectId, Raw, object_name};
use crate::plugin::{Registry, Surroundings};
use crate::snapshot::Service;
use crate::snapshot::cells::NodeBook;
use crate::snapshot::references::References;
use crate::snapshot::tls::Forge;

/// What refers comes after what it refers to.
const ORDER: [Kind; 14] = [
    Kind::PluginMetadata,
    Kind::Secret,
    Kind::Ssl,
    Kind::Upstream,
    Kind::Proto,
    Kind::PluginConfig,
    Kind::Service,
    Kind::CostDecoration,
    Kind::ConsumerGroup,
    Kind::Consumer,
    Kind::Credential,
    Kind::GlobalRule,
    Kind::Route,
    Kind::StreamRoute,
];

/// How often one object is looked at in the course of one change. Objects that keep each other from being in force
/// could otherwise take turns for ever.
const LOOKS_MAX: u32 = 3;

/// An object by kind and id.
pub(super) type Key = (Kind, Arc<str>);

/// Where an object stands among all: by the order of references, then by age.
type Seat = (usize, u64);

/// What an object needs beside itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Need {
    /// This one to be there, or to be as it is, or not to be in the way.
    Object(Key),
    /// To agree on this with others.
    Topic(String),
    /// The addresses of this host.
    Name(String),
    /// The nodes of this service.
    Service(Service),
    /// What this reference stands for, by the word of a store of secrets.
    Secret(String),
}

/// One object, and what became of it.
#[derive(Debug)]
pub(super) struct Held {
    seat: Seat,
    /// As it is wanted, as JSON.
    pub(super) wanted: Arc<str>,
    /// As it is in force.
    in_force: Option<(Arc<str>, Made)>,
    /// What refuses in its place, where nothing of it is in force and something else might let pass.
    stand_in: Option<(Arc<str>, Made)>,
    /// Whether it has ever been in force, or came with the first objects of all, and may have been before.
    is_relied_on: bool,
    /// Why it is not in force as wanted, or what it lacks though it is.
    pub(super) faults: Vec<ConfigError>,
    /// How many of the faults are of the wanted version; those of the last good one come behind.
    wanted_faults: usize,
    pub(super) is_set_aside: bool,
    needs: Box<[Need]>,
}

impl Held {
    fn new(seat: Seat, wanted: Arc<str>) -> Self {
        Self {
            seat,
            wanted,
            in_force: None,
            stand_in: None,
            is_relied_on: false,
            faults: Vec::new(),
            wanted_faults: 0,
            is_set_aside: false,
            needs: Box::default(),
        }
    }

    /// How old it is among its kind: the smaller, the older.
    pub(super) const fn age(&self) -> u64 {
        self.seat.1
    }

    /// What is wrong with the wanted version, or what it lacks.
    pub(super) fn faults_of_wanted(&self) -> &[ConfigError] {
        self.faults.get(..self.wanted_faults).unwrap_or_default()
    }

    /// Whether nothing is wrong with the wanted version but that something is awaited.
    pub(super) fn is_awaiting(&self) -> bool {
        self.faults_of_wanted().iter().all(|fault| fault.may_pass)
    }

    /// The version that is in force.
    pub(super) fn in_force(&self) -> Option<&str> {
        self.in_force.as_ref().map(|(text, _)| &**text)
    }

    /// The place of what was made of it in the snapshot, if it has one.
    pub(super) fn place(&self) -> Option<u32> {
        self.in_force.as_ref().or(self.stand_in.as_ref())?.1.place
    }

    /// Whether requests that it may have guarded are refused while it is set aside.
    pub(super) fn refuses(&self, kind: Kind) -> bool {
        let is_missed = || kind == Kind::GlobalRule && self.is_relied_on && guard::is_in_rule(&self.wanted);
        self.is_set_aside && self.in_force.is_none() && (self.stand_in.is_some() || is_missed())
    }

    /// Whether an earlier version is in force.
    pub(super) const fn has_last_good(&self) -> bool {
        self.is_set_aside && self.in_force.is_some()
    }
}

/// What is to be done to one object.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Put(Key, Arc<str>),
    Delete(Key),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct State {
    objects: HashTrieMapSync<Key, Arc<Held>>,
    /// Who needs what.
    needed: HashTrieMapSync<Need, RedBlackTreeSetSync<Key>>,
    /// Objects with faults, in their order.
    troubled: RedBlackTreeMapSync<Seat, Key>,
    /// The age of the youngest object.
    youngest: u64,
    /// Whether objects were served before.
    pub(super) has_begun: bool,
    pub(super) registry: Registry,
    pub(super) parts: Parts,
}

/// What a compilation reads besides the objects.
pub(super) struct Tools<'a> {
    pub(super) book: &'a mut NodeBook,
    pub(super) references: &'a mut References,
    pub(super) surroundings: &'a Surroundings,
    pub(super) forge: &'a Forge,
    /// The plugins that may be used; `None` is all.
    pub(super) enabled: Option<&'a [String]>,
}

/// Objects to be looked at, and how often each was.
#[derive(Default)]
struct Agenda {
    due: BTreeMap<Seat, Key>,
    looks: BTreeMap<Seat, u32>,
}

impl State {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            objects: HashTrieMapSync::default(),
            needed: HashTrieMapSync::default(),
            troubled: RedBlackTreeMapSync::default(),
            youngest: 0,
            has_begun: false,
            registry: Registry::default(),
            parts,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Held> {
        self.objects.get(key).map(|held| &**held)
    }

    /// All objects of a kind, in no order.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, &Held)> {
        let all = self.objects.iter().filter(move |(key, _)| key.0 == kind);
        all.map(|(key, held)| (&*key.1, &**held))
    }

    /// One object, with its id.
    pub(super) fn find(&self, kind: Kind, id: &str) -> Option<(&str, &Held)> {
        self.objects.get_key_value(&(kind, id.into())).map(|(key, held)| (&*key.1, &**held))
    }

    /// All objects, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// All objects as they are wanted, in their order.
    pub(super) fn in_order(&self) -> Vec<(Key, Arc<str>)> {
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort_by_key(|(_, held)| held.seat);
        objects.into_iter().map(|(key, held)| (key.clone(), Arc::clone(&held.wanted))).collect()
    }

    /// The objects of a kind that are in force, in their order.
    pub(super) fn in_force(&self, kind: Kind) -> Vec<(Arc<str>, Arc<str>)> {
        let mut found: Vec<(Seat, Arc<str>, Arc<str>)> = self
            .objects
            .iter()
            .filter(|(key, _)| key.0 == kind)
            .filter_map(|(key, held)| {
                let (text, _) = held.in_force.as_ref()?;
                Some((held.seat, Arc::clone(&key.1), Arc::clone(text)))
            })
            .collect();
        found.sort_by_key(|(seat, ..)| *seat);
        found.into_iter().map(|(_, id, text)| (id, text)).collect()
    }

    /// Objects with faults, in their order.
    pub(super) fn troubled(&self) -> impl Iterator<Item = (&Key, &Held)> {
        self.troubled.values().filter_map(|key| Some((key, self.get(key)?)))
    }

    /// Whether a global rule that may guard anything is not in force in any version.
    pub(super) fn is_unguarded(&self) -> bool {
        self.troubled().any(|((kind, _), held)| *kind == Kind::GlobalRule && held.refuses(*kind))
    }

    /// The hosts that nodes are known by.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.needed.keys().filter_map(|need| match need {
            Need::Name(name) => Some(name.as_str()),
            Need::Object(_) | Need::Topic(_) | Need::Service(_) | Need::Secret(_) => None,
        })
    }

    /// The services whose instances nodes are.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.needed.keys().filter_map(|need| match need {
            Need::Service(service) => Some(service),
            Need::Object(_) | Need::Topic(_) | Need::Name(_) | Need::Secret(_) => None,
        })
    }

    /// The references that stores of secrets are asked about.
    pub(super) fn references(&self) -> impl Iterator<Item = &str> {
        self.needed.keys().filter_map(|need| match need {
            Need::Secret(reference) => Some(reference.as_str()),
            Need::Object(_) | Need::Topic(_) | Need::Name(_) | Need::Service(_) => None,
        })
    }

    /// Makes the changes, and compiles what they touch.
    pub(super) fn apply(&mut self, edits: Vec<Edit>, tools: &mut Tools<'_>) {
        let mut agenda = Agenda::default();
        for edit in edits {
            match edit {
                Edit::Put(key, wanted) => self.put(key, wanted, &mut agenda),
                Edit::Delete(key) => self.delete(&key, &mut agenda),
            }
        }
        self.work_off(agenda, tools);
    }

    /// Compiles again who has one of these needs.
    pub(super) fn look_again_at(&mut self, needs: impl Iterator<Item = Need>, tools: &mut Tools<'_>) {
        let mut agenda = Agenda::default();
        for need in needs {
            self.call(&need, &mut agenda);
        }
        self.work_off(agenda, tools);
    }

    /// Compiles everything anew, in the order of these objects; those that are not among them go.
    pub(super) fn rebuild(&mut self, objects: Vec<(Key, Arc<str>)>, parts: Parts, tools: &mut Tools<'_>) {
        let mut old = std::mem::replace(self, Self::new(parts));
        // State that is still wanted keeps its ids: nothing is retired before all is compiled again.
        for held in old.objects.values() {
            if let Some((_, made)) = &held.in_force {
                old.registry.release(made.holds.clone());
            }
        }
        self.registry = old.registry;
        self.has_begun = old.has_begun;
        let mut agenda = Agenda::default();
        for (key, wanted) in objects {
            let mut held = Held::new(self.seat_for(key.0), wanted);
            let earlier = old.objects.get(&key);
            held.is_relied_on = earlier.map_or(!self.has_begun, |earlier| earlier.is_relied_on);
            let earlier = earlier.and_then(|held| held.in_force.as_ref());
            held.in_force = earlier.map(|(text, _)| (Arc::clone(text), Made::default()));
            agenda.add(held.seat, key.clone());
            self.objects.insert_mut(key, Arc::new(held));
        }
        self.work_off(agenda, tools);
    }

    fn seat_for(&mut self, kind: Kind) -> Seat {
        self.youngest += 1;
        (ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len()), self.youngest)
    }

    /// Has an object be wanted so. What was made of it is taken out at once: of several objects that change together,
    /// one may take what another gives up.
    fn put(&mut self, key: Key, wanted: Arc<str>, agenda: &mut Agenda) {
        let mut now = Held::new((0, 0), wanted);
        match self.objects.get(&key).cloned() {
            None => {
                now.seat = self.seat_for(key.0);
                now.is_relied_on = !self.has_begun;
            }
            Some(held) => {
                self.withdraw(&key, &held, agenda);
                now.seat = held.seat;
                now.is_relied_on = held.is_relied_on;
                now.in_force = held.in_force.as_ref().map(|(text, _)| (Arc::clone(text), Made::default()));
                now.needs.clone_from(&held.needs);
            }
        }
        agenda.add(now.seat, key.clone());
        self.objects.insert_mut(key, Arc::new(now));
    }

    fn delete(&mut self, key: &Key, agenda: &mut Agenda) {
        let Some(held) = self.objects.get(key).cloned() else { return };
        self.withdraw(key, &held, agenda);
        self.forget_needs(key, &held);
        if key.0 == Kind::Upstream {
            self.parts.remove_upstream(&key.1);
        }
        self.troubled.remove_mut(&held.seat);
        self.objects.remove_mut(key);
        agenda.remove(held.seat);
        self.call(&Need::Object(key.clone()), agenda);
    }

    /// Looks at what is due until nothing is.
    fn work_off(&mut self, mut agenda: Agenda, tools: &mut Tools<'_>) {
        loop {
            while let Some((_, key)) = agenda.next() {
                self.look_at(&key, &mut agenda, tools);
            }
            // All together: whoever resolves them may take a while.
            let names = tools.book.names.ask_new();
            if names.is_empty() {
                break;
            }
            names.into_iter().for_each(|name| self.call(&Need::Name(name), &mut agenda));
        }
        self.parts.settle();
    }

    /// Takes out what was made of an object, and compiles it again.
    fn look_at(&mut self, key: &Key, agenda: &mut Agenda, tools: &mut Tools<'_>) {
        let Some(held) = self.objects.get(key).cloned() else { return };
        self.withdraw(key, &held, agenda);
        self.forget_needs(key, &held);
        let mut needs = BTreeSet::new();
        let mut faults = Vec::new();
        let tried = self.compile(key, &held.wanted, &mut needs, tools);
        let is_set_aside = tried.is_err();
        let wanted_faults = tried.as_ref().map_or_else(Vec::len, |(_, lacks)| lacks.len());
        let in_force = match tried {
            Ok((made, lacks)) => {
                faults.extend(lacks);
                Some((Arc::clone(&held.wanted), made))
            }
            Err(more) => {
                faults.extend(more);
                let earlier = held.in_force.as_ref().map(|(text, _)| Arc::clone(text));
                earlier.filter(|earlier| *earlier != held.wanted).and_then(|earlier| {
                    let (made, lacks) = self.compile(key, &earlier, &mut needs, tools).ok()?;
                    faults.extend(lacks);
                    Some((earlier, made))
                })
            }
        };
        let stand_in = match &in_force {
            None => self.stand_in_for(key, &held, &mut needs, tools),
            Some(_) => None,
        };
        let is_relied_on = held.is_relied_on || in_force.is_some();
        let is_new = held.in_force.is_some() != in_force.is_some();
        if in_force.is_none() && key.0 == Kind::Upstream {
            self.parts.remove_upstream(&key.1);
        }
        for need in &needs {
            self.note_need(need, key);
        }
        if faults.is_empty() {
            self.troubled.remove_mut(&held.seat);
        } else {
            self.troubled.insert_mut(held.seat, key.clone());
        }
        let needs = needs.into_iter().collect();
        let (seat, wanted) = (held.seat, Arc::clone(&held.wanted));
        let now = Held {
            seat,
            wanted,
            in_force,
            stand_in,
            is_relied_on,
            faults,
            wanted_faults,
            is_set_aside,
            needs,
        };
        self.objects.insert_mut(key.clone(), Arc::new(now));
        // Whoever sends to an upstream knows its place, which stays.
        if key.0 != Kind::Upstream || is_new {
            self.call(&Need::Object(key.clone()), agenda);
        }
    }

    /// Compiles one version of an object; what was made of it, and what it lacks.
    fn compile(
        &mut self,
        (kind, id): &Key,
        text: &str,
        needs: &mut BTreeSet<Need>,
        tools: &mut Tools<'_>,
    ) -> Result<(Made, Vec<ConfigError>), Vec<ConfigError>> {
        let raw = raw_of(*kind, id, text)?;
        let held = self.objects.get(&(*kind, Arc::clone(id)));
        let seat = held.map_or((0, 0), |held| held.seat);
        let has_other = held.and_then(|held| held.in_force()).is_some_and(|earlier| earlier != text);
        let mut work = Work::new(&mut self.registry, &mut self.parts, tools, seat.1);
        work.is_alone = !has_other;
        let added = work.add(&raw);
        needs.extend(work.take_needs());
        added
    }

    /// Has a route of which nothing is in force take its requests and refuse them, if it may guard something.
    fn stand_in_for(
        &mut self,
        key: &Key,
        held: &Held,
        needs: &mut BTreeSet<Need>,
        tools: &mut Tools<'_>,
    ) -> Option<(Arc<str>, Made)> {
        let text: Arc<str> = guard::stand_in_for(key.0, &held.wanted)?.into();
        let raw = raw_of(key.0, &key.1, &text).ok()?;
        let mut work = Work::new(&mut self.registry, &mut self.parts, tools, held.seat.1);
        work.is_stand_in = true;
        let added = work.add(&raw);
        needs.extend(work.take_needs());
        added.ok().map(|(made, _)| (text, made))
    }

    /// Takes out what was made of an object.
    fn withdraw(&mut self, key: &Key, held: &Held, agenda: &mut Agenda) {
        let Some((text, made)) = held.in_force.as_ref().or(held.stand_in.as_ref()) else { return };
        let Ok(raw) = raw_of(key.0, &key.1, text) else { return };
        self.parts.withdraw(&raw, made);
        for topic in self.registry.release(made.holds.clone()) {
            self.call(&Need::Topic(topic), agenda);
        }
    }

    fn note_need(&mut self, need: &Need, key: &Key) {
        if let Some(who) = self.needed.get_mut(need) {
            who.insert_mut(key.clone());
        } else {
            let mut who = RedBlackTreeSetSync::default();
            who.insert_mut(key.clone());
            self.needed.insert_mut(need.clone(), who);
        }
    }

    fn forget_needs(&mut self, key: &Key, held: &Held) {
        for need in &held.needs {
            let Some(who) = self.needed.get_mut(need) else { continue };
            who.remove_mut(key);
            if who.is_empty() {
                self.needed.remove_mut(need);
            }
        }
    }

    /// Puts on the agenda who has this need.
    fn call(&self, need: &Need, agenda: &mut Agenda) {
        for key in self.needed.get(need).into_iter().flat_map(RedBlackTreeSetSync::iter) {
            if let Some(held) = self.objects.get(key) {
                agenda.add(held.seat, key.clone());
            }
        }
    }
}

impl Agenda {
    fn add(&mut self, seat: Seat, key: Key) {
        if self.looks.get(&seat).is_none_or(|looks| *looks < LOOKS_MAX) {
            self.due.insert(seat, key);
        }
    }

    fn remove(&mut self, seat: Seat) {
        self.due.remove(&seat);
    }

    fn next(&mut self) -> Option<(Seat, Key)> {
        let (seat, key) = self.due.pop_first()?;
        *self.looks.entry(seat).or_default() += 1;
        Some((seat, key))
    }
}

/// An object from its text, which was made from one.
pub(super) fn raw_of(kind: Kind, id: &str, text: &str) -> Result<Raw, Vec<ConfigError>> {
    let value = serde_json::from_str(text)
        .map_err(|error| vec![ConfigError::new(error.to_string()).in_object(object_name(kind, id))])?;
    Ok(Raw { kind, id: ObjectId::of_checked(id), value })
}
