//! From the objects that are held to those that are wanted: what differs, and the document that brings it about.
//!
//! Two objects are the same when they say the same but for the times that the gateway sets. Where a file says `***`
//! for a secret, as a dump does, the one that is held is meant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::base::clock;
use crate::control::{masked, unmask};
use crate::model::path::{Step, render};
use crate::model::resources::Resources;
use crate::model::{ConfigError, Kind, Raw};

/// What the gateway sets, and a file need not say.
const TIMES: [&str; 2] = ["create_time", "update_time"];

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Create,
    /// With the fields that differ.
    Change(Vec<Difference>),
    Delete,
}

/// A field that differs, without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// As faults name it.
    pub(super) path: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    /// By name of object: what is made or changed in the order of the file, then what goes.
    pub(super) acts: Vec<(String, Act)>,
    /// All objects as they are to be.
    pub(super) wanted: Resources,
}

impl Plan {
    /// What makes the held objects the wanted ones; or the secrets that nobody knows.
    pub(super) fn new(held: &Resources, wanted: Resources) -> Result<Self, Vec<ConfigError>> {
        let known: BTreeMap<(Kind, &str), &Raw> =
            held.objects.iter().map(|raw| ((raw.kind, raw.id.as_str()), raw)).collect();
        let (mut acts, mut objects, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for mut raw in wanted.objects {
            let before = known.get(&(raw.kind, raw.id.as_str())).copied();
            let unknown = unmask(raw.kind, &mut raw.value, before.map(|raw| &raw.value));
            faults.extend(unknown.into_iter().map(|fault| fault.in_object(raw.name())));
            match before {
                None => acts.push((raw.name(), Act::Create)),
                Some(before) => match differences(before, &raw) {
                    // As it is held, so that it is not touched.
                    same if same.is_empty() => raw = before.clone(),
                    differences => {
                        keep_times(&mut raw.value, &before.value);
                        acts.push((raw.name(), Act::Change(differences)));
                    }
                },
            }
            objects.push(raw);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let named: BTreeSet<(Kind, &str)> = objects.iter().map(|raw| (raw.kind, raw.id.as_str())).collect();
        let gone = held.objects.iter().filter(|raw| !named.contains(&(raw.kind, raw.id.as_str())));
        acts.extend(gone.map(|raw| (raw.name(), Act::Delete)));
        Ok(Self { acts, wanted: Resources { objects, plugins: wanted.plugins } })
    }

    /// All objects as one document.
    pub(super) fn document(&self) -> Value {
        document(&self.wanted.objects)
    }

    /// Names of objects that an act is done to.
    pub(super) fn names(&self, is_wanted: impl Fn(&Act) -> bool) -> Vec<&str> {
        self.acts.iter().filter(|(_, act)| is_wanted(act)).map(|(name, _)| name.as_str()).collect()
    }
}

/// Objects in the standalone form, each with its whole id.
pub(super) fn document(objects: &[Raw]) -> Value {
    let mut lists: Map<String, Value> = Map::new();
    for raw in objects {
        let home = raw.kind.home();
        let mut value = raw.value.clone();
        if let (Value::Object(fields), true) = (&mut value, raw.kind != Kind::Consumer) {
            fields.insert("id".to_owned(), json!(raw.id.as_str()));
        }
        let list = lists.entry(home.plural()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
        }
    }
    Value::Object(lists)
}

/// An object without what it is known by and the gateway sets.
fn said(raw: &Raw) -> Value {
    let mut value = raw.value.clone();
    if let Value::Object(fields) = &mut value {
        fields.shift_remove("id");
        for name in TIMES {
            fields.shift_remove(name);
        }
    }
    value
}

/// A changed object was made when it was made, and is written now.
fn keep_times(value: &mut Value, before: &Value) {
    let (Value::Object(fields), Some(created)) = (value, before.get("create_time")) else { return };
    fields.entry("create_time").or_insert_with(|| created.clone());
    fields.insert("update_time".to_owned(), json!(clock::wall() / 1000));
}

/// Where two objects differ, in the order of fields.
fn differences(before: &Raw, after: &Raw) -> Vec<Difference> {
    let (kind, plain) = (before.kind, (said(before), said(after)));
    let shown = (masked(kind, plain.0.clone()), masked(kind, plain.1.clone()));
    let mut found = Vec::new();
    let mut steps = Vec::new();
    walk(
        [Some(&plain.0), Some(&plain.1)],
        [Some(&shown.0), Some(&shown.1)],
        &mut steps,
        &mut |steps, before, after| {
            let path = render(steps.iter().map(|key| Step::Key(key)));
            found.push(Difference { path, before: before.cloned(), after: after.cloned() });
        },
    );
    found
}

/// Tells each innermost field that differs. What is compared is not what is shown.
fn walk(
    plain: [Option<&Value>; 2],
    shown: [Option<&Value>; 2],
    steps: &mut Vec<String>,
    tell: &mut impl FnMut(&[String], Option<&Value>, Option<&Value>),
) {
    match plain {
        [before, after] if before == after => {}
        [Some(Value::Object(before)), Some(Value::Object(after))] => {
            let fresh = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(fresh) {
                steps.push(name.clone());
                let of = |value: Option<&'_ Value>| value.and_then(|value| value.get(name)).cloned();
                let (left, right) = (of(shown[0]), of(shown[1]));
                walk([before.get(name), after.get(name)], [left.as_ref(), right.as_ref()], steps, tell);
                steps.pop();
            }
        }
        _ => tell(steps, shown[0], shown[1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MASK;
    use crate::model::resources::{Format, parse};

    fn resources(text: &str) -> Resources {
        parse(text, Format::Yaml, &|_| None).expect("a file of objects")
    }

    fn plan(held: &str, wanted: &str) -> Vec<(String, Act)> {
        Plan::new(&resources(held), resources(wanted)).expect("no secret is missing").acts
    }

    fn change(path: &str, before: Option<Value>, after: Option<Value>) -> Act {
        Act::Change(vec![Difference { path: path.to_owned(), before, after }])
    }

    #[test]
    fn what_says_the_same_is_no_change() {
        let held = "routes: [{id: '1', uri: /a, create_time: 5, update_time: 6}]";
        assert_eq!(plan(held, "routes: [{id: 1, uri: /a}]"), []);
        let plan = Plan::new(&resources(held), resources("routes: [{uri: /a, id: 1}]")).expect("right");
        // It goes back as it is held, so that nobody takes it for a change.
        assert_eq!(
            plan.document(),
            json!({"routes": [{"id": "1", "uri": "/a", "create_time": 5, "update_time": 6}]})
        );
    }

    #[test]
    fn objects_are_made_changed_and_deleted() {
        let acts = plan(
            "{routes: [{id: a, uri: /a}, {id: b, uri: /b, priority: 1}], consumers: [{username: jack}]}",
            "{routes: [{id: b, uri: /b, priority: 2}, {id: c, uri: /c}]}",
        );
        assert_eq!(
            acts,
            [
                ("routes/b".to_owned(), change("priority", Some(json!(1)), Some(json!(2)))),
                ("routes/c".to_owned(), Act::Create),
                ("routes/a".to_owned(), Act::Delete),
                ("consumers/jack".to_owned(), Act::Delete),
            ]
        );
    }

    #[test]
    fn a_changed_object_keeps_the_time_of_its_making() {
        let held = resources("routes: [{id: a, uri: /a, create_time: 5, update_time: 6}]");
        let plan = Plan::new(&held, resources("routes: [{id: a, uri: /b}]")).expect("right");
        let route = plan.document()["routes"][0].clone();
        assert_eq!(route["create_time"], 5);
        assert!(route["update_time"].as_u64().is_some_and(|time| time > 6), "{route}");
    }

    #[test]
    fn a_secret_that_is_left_out_is_the_held_one_and_is_not_shown_when_it_changes() {
        let with = |key: &str| {
            format!("consumers: [{{username: jack, desc: x, plugins: {{key-auth: {{key: '{key}'}}}}}}]")
        };
        assert_eq!(plan(&with("k1"), &with("***")), []);
        let acts = plan(&with("k1"), &with("k2"));
        let told = change("plugins.key-auth.key", Some(json!(MASK)), Some(json!(MASK)));
        assert_eq!(acts, [("consumers/jack".to_owned(), told)]);
        let faults = Plan::new(&Resources::default(), resources(&with("***"))).expect_err("nobody knows it");
        assert_eq!(
            (faults[0].object.as_str(), faults[0].path.as_str()),
            ("consumers/jack", "plugins.key-auth.key")
        );
        // Where no secret belongs, three stars are three stars.
        assert_eq!(
            plan("", "routes: [{id: a, uri: /a, desc: '***'}]"),
            [("routes/a".to_owned(), Act::Create)]
        );
    }

    #[test]
    fn a_document_has_whole_ids() {
        let text = "{consumers: [{username: jack}, {id: jack/credentials/c}], secrets: [{id: vault/1}], routes: [{uri: /}]}";
        let document = document(&resources(text).objects);
        assert_eq!(document["consumers"][1]["id"], "jack/credentials/c");
        assert_eq!(document["secrets"][0]["id"], "vault/1");
        assert_eq!(document["routes"][0]["id"], "arr_1");
        assert!(document["consumers"][0].get("id").is_none());
    }
}
