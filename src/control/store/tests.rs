//! A store on real files: random histories, its bounds, and what is refused.

mod damage;
pub(super) mod faults;
mod kill;

use std::os::unix::fs::PermissionsExt as _;
use std::{env, fs};

use serde_json::json;
use tempfile::TempDir;

use crate::base::rng::Rng;

use super::*;

/// An object as the model knows it.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    kind: Kind,
    id: String,
    value: Value,
    created: u64,
    modified: u64,
}

/// All that a store shows of its objects, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    revision: u64,
    objects: Vec<Object>,
}

impl State {
    fn of(store: &Store) -> Self {
        let object = |raw: Raw| {
            let id = raw.id.as_str().to_owned();
            let entry = store.get(raw.kind, &id).unwrap();
            assert_eq!(raw.value, entry.value);
            Object { kind: raw.kind, id, value: raw.value, created: entry.created, modified: entry.modified }
        };
        Self {
            revision: store.revision(),
            objects: store.resources().objects.into_iter().map(object).collect(),
        }
    }

    /// The same, done naively.
    fn apply(&mut self, changes: &[Change]) {
        let revision = self.revision + 1;
        let mut touched = Vec::new();
        let was = self.values();
        for change in changes {
            let (Change::Put(Raw { kind, id, .. }) | Change::Delete(kind, id)) = change;
            let at = self
                .objects
                .iter()
                .position(|object| (object.kind, object.id.as_str()) == (*kind, id.as_str()));
            match (change, at) {
                (Change::Put(raw), Some(at)) => {
                    self.objects[at].value = raw.value.clone();
                    self.objects[at].modified = revision;
                }
                (Change::Put(raw), None) => self.objects.push(Object {
                    kind: *kind,
                    id: id.as_str().to_owned(),
                    value: raw.value.clone(),
                    created: revision,
                    modified: revision,
                }),
                (Change::Delete(..), Some(at)) => drop(self.objects.remove(at)),
                (Change::Delete(..), None) => {}
            }
            touched.push((*kind, id.as_str().to_owned()));
        }
        let is = self.values();
        if touched.iter().any(|name| was.contains_key(name) || is.contains_key(name)) {
            self.revision = revision;
        }
    }

    /// What there is, whatever its order and past.
    fn values(&self) -> BTreeMap<(Kind, String), Value> {
        self.objects.iter().map(|object| ((object.kind, object.id.clone()), object.value.clone())).collect()
    }
}

fn values_of(resources: Resources) -> BTreeMap<(Kind, String), Value> {
    let pair = |raw: Raw| ((raw.kind, raw.id.as_str().to_owned()), raw.value);
    resources.objects.into_iter().map(pair).collect()
}

fn author() -> Author {
    Author { who: "admin".to_owned(), from: "127.0.0.1:4711".to_owned() }
}

fn put(kind: Kind, id: &str, value: Value) -> Change {
    Change::Put(Raw { kind, id: ObjectId::of_checked(id), value })
}

fn route(id: &str, text: &str) -> Change {
    put(Kind::Route, id, json!({ "id": id, "uri": "/", "desc": text }))
}

fn delete(kind: Kind, id: &str) -> Change {
    Change::Delete(kind, ObjectId::of_checked(id))
}

fn commit(store: &mut Store, changes: Vec<Change>) -> u64 {
    store.commit(changes, &author(), 1_700_000_000_000, Term::Lasting).unwrap()
}

/// A seed of one's own, or one that differs from run to run.
fn seed() -> u64 {
    env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(crate::base::clock::wall)
}

const NAMES: [(Kind, &str); 10] = [
    (Kind::Route, "1"),
    (Kind::Route, "2"),
    (Kind::Route, "a.b-c_d"),
    (Kind::Service, "1"),
    (Kind::Consumer, "jack"),
    (Kind::Credential, "jack/credentials/1"),
    (Kind::CostDecoration, "1/graphql_cost_decorations/1"),
    (Kind::Consumer, "jill"),
    (Kind::Secret, "vault/1"),
    (Kind::PluginMetadata, "limit-count"),
];

fn random_value(rng: &mut Rng) -> Value {
    let float = f64::from_bits(rng.next_u64());
    json!({
        "z": rng.next_u64(),
        "a": if float.is_finite() { json!(float) } else { json!(-1) },
        "text": "é\u{0}\n\"".repeat(rng.below(4) as usize),
        "nested": { "list": [[], {}, null, true, rng.below(3)] },
        "padding": "x".repeat(1 << rng.below(14)),
    })
}

fn random_changes(rng: &mut Rng) -> Vec<Change> {
    let change = |rng: &mut Rng| {
        let (kind, id) = NAMES[rng.below(NAMES.len() as u64) as usize];
        if rng.below(3) == 0 { delete(kind, id) } else { put(kind, id, random_value(rng)) }
    };
    (0..rng.below(5)).map(|_| change(rng)).collect()
}

#[test]
fn random_histories_agree_with_a_model_across_reopening() {
    let seed = seed();
    for round in 0..4 {
        let mut rng = Rng::seeded(seed + round);
        let dir = TempDir::new().unwrap();
        let mut store = Store::open(dir.path(), Seal::default()).unwrap();
        let mut states = vec![State::default()];
        for step in 0..40 {
            let place = format!("RINGWAY_SEED={} step {step}", seed + round);
            let changes = random_changes(&mut rng);
            let mut model = states.last().unwrap().clone();
            model.apply(&changes);
            let revision = commit(&mut store, changes);
            if rng.below(5) == 0 {
                drop(store);
                store = Store::open(dir.path(), Seal::default()).unwrap();
            }
            assert_eq!(State::of(&store), model, "{place}");
            if revision as usize == states.len() {
                states.push(model);
            }
            assert_eq!(revision as usize + 1, states.len(), "{place}");

            let back = rng.below(states.len() as u64);
            let changes = store.changes_back_to(back).unwrap().unwrap();
            let mut gone_back = State::of(&store);
            gone_back.apply(&changes);
            assert_eq!(gone_back.values(), states[back as usize].values(), "{place} to {back}");
        }
        check_history(&store, &states, seed + round);
    }
}

#[test]
fn objects_go_when_their_last_write_said_so_across_reopening() {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    // When each route goes; what is not there has no place.
    let mut model: BTreeMap<String, Option<UnixMs>> = BTreeMap::new();
    let mut now = 1_700_000_000_000;
    for step in 0..200 {
        let place = format!("RINGWAY_SEED={seed} step {step}");
        now += rng.below(300);
        let id = rng.below(8).to_string();
        let end = (rng.below(3) > 0).then(|| now + rng.below(1000));
        if rng.below(6) == 0 {
            store.commit(vec![delete(Kind::Route, &id)], &author(), now, Term::Lasting).unwrap();
            model.remove(&id);
        } else {
            let term = end.map_or(Term::Lasting, Term::Until);
            store.commit(vec![route(&id, "")], &author(), now, term).unwrap();
            model.insert(id, end);
        }
        if rng.below(10) == 0 {
            drop(store);
            store = Store::open(dir.path(), Seal::default()).unwrap();
        }
        let over: Vec<String> = store.over(now).iter().map(|change| change.key().1).collect();
        let expected: Vec<&String> =
            model.iter().filter(|(_, end)| end.is_some_and(|end| end <= now)).map(|(id, _)| id).collect();
        assert_eq!(over.iter().collect::<Vec<_>>(), expected, "{place}");
        if rng.below(4) == 0 {
            let changes = store.over(now);
            store.commit(changes, &author(), now, Term::Lasting).unwrap();
            model.retain(|_, end| end.is_none_or(|end| end > now));
        }
        let ends: BTreeMap<String, Option<UnixMs>> = store
            .list(Kind::Route)
            .into_iter()
            .map(|(id, entry)| (id.as_str().to_owned(), entry.term.end()))
            .collect();
        assert_eq!(ends, model, "{place}");
    }
}

/// Goes back revision by revision.
fn check_history(store: &Store, states: &[State], seed: u64) {
    let history = store.history(usize::MAX).unwrap();
    assert_eq!(history.len(), states.len() - 1);
    assert_eq!(store.history(3).unwrap(), history[..3]);
    let mut values = states.last().unwrap().values();
    for revision in history {
        let (number, place) =
            (revision.revision as usize, format!("RINGWAY_SEED={seed} revision {}", revision.revision));
        assert_eq!(values, states[number].values(), "{place}");
        assert_eq!((revision.author, revision.at), (author(), 1_700_000_000_000), "{place}");
        for Changed { kind, id, before, after } in revision.changes {
            let key = (kind, id.as_str().to_owned());
            assert_eq!(values.get(&key), after.as_ref(), "{place}");
            match before {
                Some(value) => drop(values.insert(key, value)),
                None => drop(values.remove(&key)),
            }
        }
    }
    assert!(values.is_empty());
}

#[test]
fn a_list_is_of_one_kind_in_the_order_of_making() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    commit(&mut store, vec![route("9", ""), route("1", ""), put(Kind::Consumer, "jack", json!({}))]);
    commit(&mut store, vec![route("5", ""), put(Kind::Credential, "jack/credentials/0", json!({}))]);
    commit(&mut store, vec![route("9", "later")]);
    let ids = |store: &Store, kind| -> Vec<String> {
        store.list(kind).into_iter().map(|(id, _)| id.as_str().to_owned()).collect()
    };
    for _ in 0..2 {
        assert_eq!(ids(&store, Kind::Route), ["9", "1", "5"]);
        assert_eq!(ids(&store, Kind::Consumer), ["jack"]);
        assert_eq!(ids(&store, Kind::Credential), ["jack/credentials/0"]);
        let entry = store.get(Kind::Route, "9").unwrap();
        assert_eq!((entry.created, entry.modified), (1, 3));
        assert_eq!(store.get(Kind::Consumer, "jack/credentials/0"), None);
        assert_eq!(store.get(Kind::Route, "2"), None);
        drop(store);
        store = Store::open(dir.path(), Seal::default()).unwrap();
    }
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut store = Store::in_memory();
    assert_eq!(commit(&mut store, vec![]), 0);
    assert_eq!(commit(&mut store, vec![delete(Kind::Route, "1")]), 0);
    assert_eq!(commit(&mut store, vec![route("1", ""), delete(Kind::Route, "1")]), 0);
    assert_eq!(commit(&mut store, vec![route("1", "")]), 1);
    assert_eq!(commit(&mut store, vec![route("1", "")]), 2, "written again, as it is");
    assert_eq!(store.changes_back_to(1).unwrap(), Some(vec![]));
}

#[test]
fn what_could_not_be_read_again_is_not_taken() {
    let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    let mut refused = |change: Change| {
        let error = store.commit(vec![route("1", ""), change], &author(), 0, Term::Lasting).unwrap_err();
        assert_eq!((error.kind(), State::of(&store)), (io::ErrorKind::InvalidInput, State::default()));
        error.to_string()
    };
    assert_eq!(refused(put(Kind::Route, "2", json!(null))), "routes/2: is not an object");
    assert_eq!(refused(put(Kind::Route, "", json!({}))), "routes/: is not the name of one of routes");
    assert_eq!(refused(delete(Kind::Consumer, "a/b")), "consumers/a/b: is not the name of one of consumers");
    assert_eq!(
        refused(put(Kind::Route, "2", nested(DEPTH_MAX + 1))),
        "routes/2: is nested deeper than 120 levels"
    );
    commit(&mut store, vec![put(Kind::Route, "2", nested(DEPTH_MAX))]);
    commit(&mut store, vec![put(Kind::Route, "2", json!({}))]);
    let state = State::of(&store);
    drop(store);
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state);
}

#[test]
fn history_forgets_the_oldest_revisions_beyond_its_number() {
    let mut store = Store::in_memory();
    for number in 0..HISTORY_KEPT + 5 {
        commit(&mut store, vec![route("1", &number.to_string())]);
    }
    let history = store.history(usize::MAX).unwrap();
    assert_eq!((history.len(), history.last().unwrap().revision), (HISTORY_KEPT, 6));
    assert_eq!(store.changes_back_to(4).unwrap(), None);
    assert_eq!(store.changes_back_to(5).unwrap(), Some(vec![route("1", "4")]));
    assert_eq!(store.changes_back_to(store.revision() + 1).unwrap(), None);
}

#[test]
fn history_forgets_the_oldest_revisions_beyond_its_bytes() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    let large = |letter: &str, share: usize| vec![route("1", &letter.repeat(HISTORY_BYTES_MAX / share))];
    // Each has the value before and after.
    for letter in ["a", "b", "c", "d", "e"] {
        commit(&mut store, large(letter, 5));
    }
    for _ in 0..2 {
        let known: Vec<u64> = store.history(9).unwrap().iter().map(|revision| revision.revision).collect();
        assert_eq!(known, [5, 4]);
        assert!(store.history_bytes <= HISTORY_BYTES_MAX);
        assert_eq!(store.changes_back_to(2).unwrap(), None);
        assert_eq!(store.changes_back_to(3).unwrap(), Some(large("c", 5)));
        drop(store);
        store = Store::open(dir.path(), Seal::default()).unwrap();
    }
    commit(&mut store, large("f", 1));
    assert_eq!(store.history(9).unwrap(), []);
    commit(&mut store, vec![delete(Kind::Route, "1")]);
    commit(&mut store, vec![route("1", "")]);
    drop(store);
    let store = Store::open(dir.path(), Seal::default()).unwrap();
    assert_eq!((store.revision(), store.history(9).unwrap().len()), (8, 1));
    assert_eq!(store.changes_back_to(7).unwrap(), Some(vec![delete(Kind::Route, "1")]));
}

#[test]
fn only_the_owner_may_read_what_is_made() {
    let dir = TempDir::new().unwrap();
    let inner = dir.path().join("a/store");
    let mut store = Store::open(&inner, Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "")]);
    drop(store);
    drop(Store::open(&inner, Seal::default()).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let mut files: Vec<_> = fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["store.journal", "store.mark", "store.redb", "store.redb.bak"]);
    for file in files {
        assert_eq!(mode(&inner.join(&file)), 0o600, "{}", file.display());
    }
}

#[test]
fn a_second_one_on_the_same_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = Store::open(dir.path(), Seal::default()).unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    let file = dir.path().join("store.redb");
    assert_eq!(
        error.to_string(),
        format!(
            "{}: another process has it open; end that first, or give this one a folder of its own",
            file.display()
        )
    );
    drop(first);
    Store::open(dir.path(), Seal::default()).unwrap();
}

#[test]
fn an_unknown_format_is_refused_with_both_numbers() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path(), Seal::default()).unwrap());
    let file = dir.path().join("store.redb");
    let database = redb::Database::open(&file).unwrap();
    let writing = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    writing.open_table(meta).unwrap().insert("format", 7).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Store::open(dir.path(), Seal::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        format!(
            "{}: its format is 7, this program knows none above 2; use the program that wrote it",
            file.display()
        )
    );
}
