//! What differs between the objects that are held and those of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::{Edit, Key, State};
use super::{key_of, text_of};
use crate::model::Kind;
use crate::model::resources::Resources;

/// The edits that make the objects of the state these; `None` when their order differs, which decides between routes
/// on one path and so concerns all.
pub(super) fn between(state: &State, resources: &Resources) -> Option<Vec<Edit>> {
    let mut edits = Vec::new();
    let mut named = BTreeSet::new();
    // The age of the last object of each kind; `None` once one was new, as new ones are the youngest.
    let mut last: BTreeMap<Kind, Option<u64>> = BTreeMap::new();
    for raw in &resources.objects {
        let (key, text) = (key_of(raw), text_of(raw));
        let last = last.entry(raw.kind).or_insert(Some(0));
        match state.get(&key) {
            Some(held) => {
                if last.is_none_or(|last| last > held.age()) {
                    return None;
                }
                *last = Some(held.age());
                if held.wanted != text {
                    edits.push(Edit::Put(key.clone(), text));
                }
            }
            None => {
                *last = None;
                edits.push(Edit::Put(key.clone(), text));
            }
        }
        named.insert(key);
    }
    edits.extend(state.keys().filter(|key| !named.contains(*key)).cloned().map(Edit::Delete));
    Some(edits)
}

/// All objects with edits made, in their order.
pub(super) fn with(state: &State, edits: &[Edit]) -> Vec<(Key, Arc<str>)> {
    let mut objects = state.in_order();
    for edit in edits {
        match edit {
            Edit::Put(key, text) => match objects.iter_mut().find(|(held, _)| held == key) {
                Some((_, held)) => *held = Arc::clone(text),
                None => objects.push((key.clone(), Arc::clone(text))),
            },
            Edit::Delete(key) => objects.retain(|(held, _)| held != key),
        }
    }
    objects
}

/// Whether an edit changes what many objects are compiled with, so that all are compiled again.
pub(super) const fn concerns_all(edit: &Edit) -> bool {
    let (Edit::Put(key, _) | Edit::Delete(key)) = edit;
    matches!(key.0, Kind::PluginMetadata)
}
