//! All upstreams by place, those whose nodes are watched known apart. A copy shares everything with its original.

use std::ops::Index;
use std::sync::Arc;

use rpds::RedBlackTreeSetSync;

use super::Upstream;
use crate::base::slots::Slots;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    all: Slots<Upstream>,
    /// Places of those whose nodes are watched: few, and wanted often.
    watched: RedBlackTreeSetSync<u32>,
}

impl Upstreams {
    /// Puts an upstream in a place that is free, and tells which.
    pub fn add(&mut self, upstream: Upstream) -> u32 {
        let is_watched = upstream.is_watched();
        let place = self.all.add(upstream);
        self.note(place, is_watched);
        place
    }

    /// Puts an upstream in a given place.
    pub fn put(&mut self, place: u32, upstream: Upstream) {
        self.note(place, upstream.is_watched());
        self.all.put(place, upstream);
    }

    /// Empties a place.
    pub fn remove(&mut self, place: u32) {
        self.note(place, false);
        self.all.remove(place);
    }

    /// The upstream at a place.
    pub fn get(&self, place: u32) -> Option<&Upstream> {
        self.all.get(place)
    }

    /// Those whose nodes are checked or may be ejected, or that learn how much they can do.
    pub fn watched(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.watched.iter().filter_map(|place| self.all.shared(*place))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn note(&mut self, place: u32, is_watched: bool) {
        if is_watched {
            self.watched.insert_mut(place);
        } else {
            self.watched.remove_mut(&place);
        }
    }
}

impl Index<u32> for Upstreams {
    type Output = Upstream;

    fn index(&self, place: u32) -> &Upstream {
        &self.all[place]
    }
}
