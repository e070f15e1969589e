//! At which revisions of etcd objects were last written, by kind: what APISIX shows as `etcd_modify_indexes`.

use crate::control::store::Entry;
use crate::model::{Kind, ObjectId};

/// The kinds that are told.
const KINDS: [Kind; 8] = [
    Kind::Route,
    Kind::Service,
    Kind::Ssl,
    Kind::Consumer,
    Kind::GlobalRule,
    Kind::Upstream,
    Kind::StreamRoute,
    Kind::Proto,
];

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes {
    of: [u64; KINDS.len()],
    /// Of all kinds.
    max: u64,
    /// The same, before the last change.
    before: u64,
}

impl Indexes {
    /// Objects were written, or read for the first time.
    pub(super) fn note(&mut self, objects: &[(Kind, ObjectId, Option<Entry>)]) {
        let mut max = self.max;
        for (kind, _, entry) in objects {
            let modified = entry.as_ref().map_or(0, |entry| entry.modified);
            max = max.max(modified);
            if let Some(at) = KINDS.iter().position(|known| known == kind) {
                self.of[at] = self.of[at].max(modified);
            }
        }
        if max != self.max {
            (self.before, self.max) = (self.max, max);
        }
    }

    /// By key, as APISIX names them.
    pub(crate) fn told(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kinds = KINDS.iter().map(|kind| kind.plural()).zip(self.of);
        kinds.chain([("prev_index", self.before), ("max_modify_index", self.max)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Term;

    #[test]
    fn the_last_revision_of_each_kind_and_of_all_is_known() {
        let object = |kind, modified| {
            let entry = Entry { value: serde_json::Value::Null, created: 1, modified, term: Term::Lasting };
            (kind, ObjectId::of_checked("1"), Some(entry))
        };
        let mut indexes = Indexes::default();
        indexes.note(&[object(Kind::Route, 4), object(Kind::Secret, 7), object(Kind::Route, 5)]);
        indexes.note(&[object(Kind::Upstream, 9), (Kind::Route, ObjectId::of_checked("1"), None)]);
        let told: Vec<_> = indexes.told().filter(|(_, index)| *index > 0).collect();
        assert_eq!(told, [("routes", 5), ("upstreams", 9), ("prev_index", 7), ("max_modify_index", 9)]);
    }
}
