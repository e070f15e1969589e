//! Bodies for entries of a log: the beginning of a request's, which the upload keeps as it passes, and of a response's,
//! which is kept here. Neither is held back.

use serde_json::Value;

use super::{Entry, Logged};
use crate::exchange::{Body, Chunk, Exchange, SlotId};
use crate::expr::Rule;
use crate::model::ConfigError;
use crate::model::field::NonEmpty;
use crate::plugin::{CompileCx, Phase, Phases};
use crate::runtime::LocalId;

/// Which bodies one use logs, and how much of them.
pub struct Bodies {
    request: Option<Part>,
    response: Option<Part>,
    in_whole: (bool, bool),
    /// Tells this use from others in the slot they share.
    me: LocalId,
    kept: SlotId,
}

struct Part {
    condition: Rule,
    bytes_max: usize,
}

/// What is kept of a response, for each use that wants it.
#[derive(Debug, Default)]
pub struct Kept(Vec<(LocalId, Vec<u8>)>);

/// How a use says which bodies it logs.
pub struct Wish {
    pub is_wanted: bool,
    pub condition: Option<NonEmpty<Value>>,
    pub bytes_max: usize,
}

impl Wish {
    fn part(self, field: &str, is_wanted: bool) -> Result<Option<Part>, ConfigError> {
        let condition = match self.condition {
            None => Rule::always(),
            Some(items) => Rule::compile(&Value::Array(items.into_vec()))
                .map_err(|why| ConfigError::at(field, why.to_string()))?,
        };
        Ok(is_wanted.then_some(Part { condition, bytes_max: self.bytes_max }))
    }
}

impl Bodies {
    /// Reads what the use says; `entry` may ask for the body of the request on its own.
    ///
    /// # Errors
    /// When a condition can not be read.
    pub fn compile(
        request: Wish,
        response: Wish,
        entry: &Entry,
        (me, cx): (LocalId, &mut CompileCx<'_>),
    ) -> Result<Self, ConfigError> {
        let in_whole = (request.is_wanted, response.is_wanted);
        let is_wanted = request.is_wanted || entry.asks_request_body();
        Ok(Self {
            request: request.part("include_req_body_expr", is_wanted)?,
            response: response.part("include_resp_body_expr", in_whole.1)?,
            in_whole,
            me,
            kept: cx.slot_of("kept bodies of responses"),
        })
    }

    /// The phases in which there is something to do, beside that of the log.
    pub const fn active(&self) -> Phases {
        Phases::NONE
            .with(Phase::Log, true)
            .with(Phase::Access, self.request.is_some())
            .with(Phase::BodyFilter, self.response.is_some())
    }

    /// Before the body of the request passes: asks that its beginning be kept.
    pub fn ask(&self, ex: &mut Exchange) {
        if let Some(part) = &self.request {
            let most = &mut ex.request.logged_body_bytes_max;
            *most = (*most).max(part.bytes_max);
        }
    }

    /// As a piece of the response passes: keeps of it what there is room for.
    pub fn keep(&self, ex: &mut Exchange, chunk: &Chunk<'_>) {
        let Some(part) = &self.response else { return };
        let at = ex
            .slots
            .get::<Kept>(self.kept)
            .and_then(|kept| kept.0.iter().position(|(whose, _)| *whose == self.me));
        if at.is_none() && !part.condition.holds(ex) {
            return;
        }
        let Kept(all) = ex.slots.of(self.kept);
        let at = at.unwrap_or_else(|| {
            all.push((self.me, Vec::new()));
            all.len() - 1
        });
        let kept = &mut all[at].1;
        let count = chunk.bytes.len().min(part.bytes_max - kept.len());
        kept.extend_from_slice(&chunk.bytes[..count]);
    }

    /// What there is for the entry.
    pub fn logged<'a>(&self, ex: &'a Exchange) -> Logged<'a> {
        let request = self.request.as_ref().filter(|part| part.condition.holds(ex)).and_then(|part| {
            let body = match &ex.request.body {
                Body::Held(body) => body,
                Body::Empty | Body::Flowing => &ex.request.body_beginning,
            };
            (!body.is_empty()).then(|| &body[..body.len().min(part.bytes_max)])
        });
        let kept = self.response.as_ref().and_then(|_| ex.slots.get::<Kept>(self.kept));
        let mine = kept.and_then(|Kept(all)| all.iter().find(|(whose, _)| *whose == self.me));
        let response = mine.map(|(_, body)| body.as_slice()).filter(|body| !body.is_empty());
        Logged { request, response, in_whole: self.in_whole }
    }
}
