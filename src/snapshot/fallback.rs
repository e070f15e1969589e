//! What serves when the nodes of an upstream do not, compiled.

use bytes::Bytes;

use crate::exchange::Reply;
use crate::link::health::Statuses;
use crate::model::upstream::{self as model, FallbackOn};

/// See the module.
#[derive(Debug)]
pub struct Fallback {
    pub goal: Goal,
    on: Box<[FallbackOn]>,
    statuses: Statuses,
}

/// What serves.
#[derive(Debug)]
pub enum Goal {
    /// This is answered.
    Answer(Reply),
    /// The upstream at this place of the snapshot is asked.
    Upstream(u32),
    /// There would be one, but it is not there.
    Missing,
}

impl Fallback {
    /// `place` is that of the upstream it names.
    pub(super) fn new(fallback: &model::Fallback, place: Option<u32>) -> Self {
        let goal = match (place, fallback.status) {
            (Some(place), _) => Goal::Upstream(place),
            (None, Some(status)) => Goal::Answer(reply(fallback, status.u16())),
            (None, None) => Goal::Missing,
        };
        let statuses = fallback.statuses.iter().flat_map(|list| list.iter()).map(|status| status.u16());
        Self { goal, on: fallback.on.iter().copied().collect(), statuses: statuses.collect() }
    }

    /// Whether it is for that.
    pub fn is_on(&self, what: FallbackOn) -> bool {
        self.on.contains(&what)
    }

    /// Whether it takes the place of a node's answer with that status.
    pub fn catches(&self, status: u16) -> bool {
        self.statuses.contains(status) && !matches!(self.goal, Goal::Missing)
    }
}

fn reply(fallback: &model::Fallback, status: u16) -> Reply {
    let body = fallback.body.as_ref().map_or(&b""[..], |body| body.as_str().as_bytes());
    let lines = fallback.headers.iter().flatten();
    lines.fold(Reply::bytes(status, Bytes::copy_from_slice(body)), |reply, (name, value)| {
        reply.with(name, Bytes::copy_from_slice(value.as_bytes()))
    })
}
