//! Following an etcd that is only told of: no network, no clock.

use serde_json::json;

use super::*;
use crate::control::source::etcd::watch::Items;

const CLUSTER: u64 = 7;

/// A mirror with the store it keeps.
struct Scene {
    mirror: Mirror,
    store: Store,
}

fn item(value: &str, modified: u64) -> Item {
    Item { value: value.as_bytes().to_vec(), created: modified, modified, is_leased: false }
}

fn route(at: u64) -> String {
    json!({"uri": format!("/{at}")}).to_string()
}

impl Scene {
    /// Routes that etcd had, each written at the revision of its place.
    fn of(names: &[&str]) -> Self {
        let mut scene = Self { mirror: Mirror::default(), store: Store::in_memory() };
        let keys: Vec<(&str, u64)> = names.iter().zip(1..).map(|(name, at)| (*name, at)).collect();
        scene.all(CLUSTER, 10, &keys);
        scene
    }

    fn all(&mut self, cluster_id: u64, revision: u64, keys: &[(&str, u64)]) -> Step {
        let items = keys.iter().map(|(key, at)| (key.as_bytes().to_vec(), item(&route(*at), *at)));
        let all = All { header: Header { cluster_id, revision }, items: items.collect() };
        self.mirror.take_all(all, &mut self.store)
    }

    /// Keys with what they hold now.
    fn some(&mut self, revision: u64, keys: &[(&str, Option<&str>)]) -> Step {
        let items: Items = keys
            .iter()
            .map(|(key, value)| {
                (key.as_bytes().to_vec(), (revision, value.map(|value| item(value, revision))))
            })
            .collect();
        self.mirror.take_changes(Changes { revision, items }, &mut self.store)
    }

    /// Names of all that is served.
    fn served(&self) -> Vec<String> {
        self.store.objects().map(|(kind, id, _)| object_name(kind, id.as_str())).collect()
    }

    /// As a process that starts on what this one has kept.
    fn started_again(&self) -> Self {
        let kept = self.mirror.kept("/apisix", &self.store);
        let mut scene = Self { mirror: Mirror::default(), store: Store::in_memory() };
        scene.mirror.begin(kept, &mut scene.store);
        scene
    }
}

#[test]
fn keys_of_every_kind_are_objects_and_others_are_passed_over() {
    let keys = [
        "routes/1",
        "consumers/jack",
        "consumers/jack/credentials/a",
        "services/shop/graphql_cost_decorations/a",
        "secrets/vault/1",
        "plugin_metadata/cors",
        "routes/",
        "plugins",
        "data_plane/server_info/x",
        "credentials/a",
    ];
    let mut scene = Scene::of(&keys);
    assert_eq!(scene.served(), &keys[..6]);
    let step = scene.some(11, &[("routes/a b", Some("{}")), ("consumers/jack/keys/1", Some("{}"))]);
    assert_eq!(step.told.len(), 2, "{:?}", step.told);
    assert!(step.changes.is_empty());
}

#[test]
fn a_list_is_compared_and_only_what_differs_is_a_change() {
    let mut scene = Scene::of(&["routes/1", "routes/2", "routes/3"]);
    let step = scene.all(CLUSTER, 20, &[("routes/1", 1), ("routes/2", 12), ("routes/4", 13)]);
    let changed: Vec<String> = step.changes.iter().map(|change| change.key().1).collect();
    assert_eq!(changed, ["3", "2", "4"]);
    assert_eq!(scene.served(), ["routes/1", "routes/2", "routes/4"]);
    assert!(
        scene.all(CLUSTER, 21, &[("routes/1", 1), ("routes/2", 12), ("routes/4", 13)]).changes.is_empty()
    );
}

#[test]
fn a_wipe_is_served_on_and_told_until_it_is_confirmed() {
    let mut scene = Scene::of(&["routes/1", "routes/2"]);
    let step = scene.some(11, &[("routes/1", None), ("routes/2", None)]);
    assert_eq!((step.changes.len(), &step.told[..]), (0, &[Told::Wiped(2)][..]));
    assert_eq!((scene.served().len(), scene.mirror.missing()), (2, 2));
    // Not even a list, nor a process that begins anew, takes it for meant, nor tells of it twice.
    assert!(scene.all(CLUSTER, 12, &[]).told.is_empty());
    let mut scene = scene.started_again();
    assert!(scene.all(CLUSTER, 13, &[]).changes.is_empty());
    // A word from before the wipe is about something else.
    assert!(scene.all(CLUSTER, 14, &[(MARKER, 9)]).changes.is_empty());
    let step = scene.some(15, &[(MARKER, Some("yes"))]);
    assert_eq!((step.changes.len(), &step.told[..]), (2, &[Told::Accepted(2)][..]));
    assert_eq!((scene.served().len(), scene.mirror.missing()), (0, 0));
}

#[test]
fn a_confirmation_that_was_given_while_nobody_watched_counts() {
    let mut scene = Scene::of(&["routes/1"]).started_again();
    let step = scene.all(CLUSTER, 20, &[(MARKER, 19)]);
    assert_eq!((step.changes.len(), scene.served().len()), (1, 0));
}

#[test]
fn what_is_put_back_after_a_wipe_is_served_beside_what_is_missing() {
    let mut scene = Scene::of(&["routes/1", "routes/2"]);
    scene.all(CLUSTER, 11, &[]);
    let step = scene.some(12, &[("routes/1", Some(&route(1))), ("routes/3", Some(&route(3)))]);
    assert_eq!(step.changes.len(), 1, "what was served all along is none");
    assert_eq!((scene.served().len(), scene.mirror.missing()), (3, 1));
    assert!(scene.all(CLUSTER, 13, &[("routes/1", 1), ("routes/3", 3)]).changes.is_empty());
    let step = scene.some(14, &[("routes/2", Some(&route(2)))]);
    assert_eq!((&step.told[..], scene.mirror.missing()), (&[Told::Restored][..], 0));
}

#[test]
fn the_last_object_of_two_that_go_one_after_the_other_is_kept() {
    let mut scene = Scene::of(&["routes/1", "routes/2"]);
    assert_eq!(scene.some(11, &[("routes/1", None)]).changes.len(), 1);
    assert_eq!(scene.some(12, &[("routes/2", None)]).told, [Told::Wiped(1)]);
    assert_eq!(scene.served(), ["routes/2"]);
}

#[test]
fn an_etcd_that_lost_its_data_is_a_wipe_whatever_its_revisions_say() {
    let mut scene = Scene::of(&["routes/1"]);
    let step = scene.all(CLUSTER + 1, 1, &[]);
    assert_eq!(step.told, [Told::Another, Told::Wiped(1)]);
    assert_eq!(scene.some(2, &[(MARKER, Some("yes"))]).changes.len(), 1);
}

#[test]
fn another_etcd_with_objects_is_taken_though_its_revisions_are_lower() {
    let mut scene = Scene::of(&["routes/1", "routes/2", "routes/3"]);
    let step = scene.all(CLUSTER + 1, 2, &[("routes/3", 2)]);
    assert_eq!((step.changes.len(), scene.served().len()), (3, 1));
}

#[test]
fn news_older_than_a_change_from_here_do_not_undo_it() {
    let mut scene = Scene::of(&["routes/1", "routes/2"]);
    let id = |id: &str| ObjectId::of_checked(id);
    let put = Change::Put(Raw { kind: Kind::Route, id: id("1"), value: json!({"uri": "/new"}) });
    scene.mirror.wrote(20, &[put], Term::Lasting, &mut scene.store);
    scene.mirror.wrote(21, &[Change::Delete(Kind::Route, id("2"))], Term::Lasting, &mut scene.store);
    assert!(scene.all(CLUSTER, 15, &[("routes/1", 1), ("routes/2", 2)]).changes.is_empty());
    assert!(scene.some(20, &[("routes/1", Some(r#"{"uri":"/new"}"#))]).changes.is_empty());
    assert!(scene.some(21, &[("routes/2", None)]).changes.is_empty());
    assert_eq!(scene.served(), ["routes/1"]);
    assert_eq!(scene.mirror.modified(Kind::Route, "1", &scene.store), 20);
    // And what comes after it is taken.
    assert_eq!(scene.some(22, &[("routes/2", Some("{}"))]).changes.len(), 1);
}

#[test]
fn a_value_that_is_not_json_is_told_and_left_to_the_compiler() {
    let mut scene = Scene::of(&["routes/1"]);
    let step = scene.some(11, &[("routes/1", Some("{half"))]);
    assert!(matches!(&step.told[..], [Told::Strange(why)] if why.starts_with("routes/1: not JSON: ")));
    assert!(matches!(&step.changes[..], [Change::Put(Raw { value: Value::String(_), .. })]));
    assert_eq!(step.before["routes/1"], json!({"uri": "/1"}));
}

#[test]
fn what_is_kept_of_an_object_set_aside_is_its_last_good_version() {
    let mut scene = Scene::of(&["routes/1"]);
    let step = scene.some(11, &[("routes/1", Some("{half"))]);
    scene.mirror.set_aside(&BTreeSet::from(["routes/1".to_owned()]), step.before);
    let again = scene.started_again();
    assert_eq!(again.store.get(Kind::Route, "1").expect("there").value, json!({"uri": "/1"}));
    scene.some(12, &[("routes/1", Some(r#"{"uri": "/2"}"#))]);
    scene.mirror.set_aside(&BTreeSet::new(), BTreeMap::new());
    let again = scene.started_again();
    assert_eq!(again.store.get(Kind::Route, "1").expect("there").value, json!({"uri": "/2"}));
}

#[test]
fn a_change_from_here_that_leaves_nothing_is_known_as_such() {
    let scene = Scene::of(&["routes/1", "routes/2"]);
    let delete = |id: &str| Change::Delete(Kind::Route, ObjectId::of_checked(id));
    assert!(!scene.mirror.would_be_empty(&[delete("1")], Term::Lasting, &scene.store));
    assert!(scene.mirror.would_be_empty(&[delete("1"), delete("2")], Term::Lasting, &scene.store));
}

#[test]
fn what_was_there_for_a_time_is_no_loss_when_it_goes() {
    let mut scene = Scene::of(&[]);
    let leased = |value: &str, modified| Item { is_leased: true, ..item(value, modified) };
    let put = |key: &str, at| (key.as_bytes().to_vec(), (at, Some(leased(&route(at), at))));
    let changes = Changes { revision: 12, items: Items::from([put("routes/1", 11), put("routes/2", 12)]) };
    scene.mirror.take_changes(changes, &mut scene.store);
    let mut scene = scene.started_again();
    let step = scene.some(13, &[("routes/1", None), ("routes/2", None)]);
    assert_eq!((step.changes.len(), step.told.len(), scene.mirror.missing()), (2, 0, 0));
    assert!(scene.served().is_empty());

    // Beside one that was to stay, all that is left of a wipe is that one.
    scene.some(14, &[("routes/3", Some(&route(3)))]);
    let changes = Changes { revision: 15, items: Items::from([put("routes/1", 15)]) };
    scene.mirror.take_changes(changes, &mut scene.store);
    let step = scene.some(16, &[("routes/1", None), ("routes/3", None)]);
    assert_eq!(step.told, [Told::Wiped(1)]);
    assert_eq!(scene.served(), ["routes/3"]);
}

#[test]
fn a_deletion_from_here_is_meant_though_something_is_left_for_a_time() {
    let mut scene = Scene::of(&["routes/1"]);
    let leased = Item { is_leased: true, ..item(&route(2), 11) };
    let items = Items::from([(b"routes/2".to_vec(), (11, Some(leased)))]);
    scene.mirror.take_changes(Changes { revision: 11, items }, &mut scene.store);
    let id = |id: &str| ObjectId::of_checked(id);
    let deletion = [Change::Delete(Kind::Route, id("1"))];
    assert!(scene.mirror.would_be_empty(&deletion, Term::Lasting, &scene.store));
    let put = |term| {
        let put = Change::Put(Raw { kind: Kind::Route, id: id("3"), value: json!({}) });
        scene.mirror.would_be_empty(&[deletion[0].clone(), put], term, &scene.store)
    };
    assert!(put(Term::Leased) && !put(Term::Lasting));
}
