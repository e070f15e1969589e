//! Why a request goes where it goes: the way of a request, gone on trial and told step by step.
//!
//! What decides is the code that decides for requests as they pass: the parser, [`intake`](super::intake), the
//! router with a [`Look`](crate::router::Look) at its search, [`Route::bar`](super::Route::bar), and the gates of the
//! plugins, each on a core that no thread runs. Nothing is sent, counted or waited for. What is told of objects beside
//! that (which fields, which of them a plugin came from) is read from the objects in force.
//!
//! Runs on the control thread only. What it says of the request itself is veiled where it may be a credential.

mod candidates;
mod describe;
mod limited;
mod request;
mod target;
mod trial;
mod veil;

pub use request::Ask;

use serde_json::{Map, Value, json};

use super::Snapshot;
use super::compile::Archive;
use crate::base::clock;
use crate::exchange::Exchange;
use crate::link::ledger::Ledger;
use crate::runtime::{Core, Limits};
use veil::Veil;

/// Routes that are told of in one answer.
pub const CANDIDATES_MAX: usize = 100;

/// All that an explanation is made from.
struct Grounds<'a> {
    archive: &'a Archive<'a>,
    snapshot: &'a Snapshot,
    /// What limits are counted in; nothing is counted where no gateway runs.
    ledger: Option<&'a Ledger>,
    limits: &'a Limits,
    veil: Veil<'a>,
}

/// The answer, as JSON; its shape is in `docs/control-api.md`.
pub(super) fn explain(
    archive: &Archive<'_>,
    (snapshot, ledger): (&Snapshot, Option<&Ledger>),
    limits: &Limits,
    ask: &Ask,
) -> Value {
    let mut grounds = Grounds { archive, snapshot, ledger, limits, veil: Veil::new(&snapshot.index) };
    let mut ex = Box::new(Exchange::new());
    ex.timing.received = clock::now();
    ex.timing.received_at = clock::wall();
    let mut told = Map::new();
    told.insert("generation".to_owned(), snapshot.generation.into());
    if let Err(refusal) = request::read(snapshot, limits, ask, &mut ex) {
        told.insert(
            "request".to_owned(),
            json!({"method": ask.method, "target": grounds.veil.target(ask.target.as_bytes())}),
        );
        let reason = refusal.word;
        told.insert(
            "outcome".to_owned(),
            json!({"kind": "answered", "by": "gateway", "status": refusal.status, "reason": reason}),
        );
        told.insert(
            "notes".to_owned(),
            json!(["the request is refused before it is routed; only global rules see the answer"]),
        );
        return Value::Object(told);
    }
    grounds.veil.learn(&ex.request);
    told.insert("request".to_owned(), request::told(&ex, &grounds.veil));
    let mut notes = Vec::new();
    let (found, candidates) = candidates::find(&grounds, &mut ex, ask.route.as_deref());
    told.extend(candidates);
    let trial = trial::run(&grounds, &mut ex, found);
    told.insert("route".to_owned(), found.map_or(Value::Null, |at| describe::route(&grounds, &ex, at)));
    told.insert("consumer".to_owned(), trial.consumer);
    told.insert("plugins".to_owned(), trial.plugins.into());
    told.insert("limits".to_owned(), trial.limits.into());
    notes.extend(trial.notes);
    let (upstream, outcome) = match trial.answer {
        Some(answer) => (Value::Null, answer),
        None => target::tell(&grounds, &ex, found),
    };
    told.insert("upstream".to_owned(), upstream);
    told.insert("outcome".to_owned(), outcome);
    told.insert("notes".to_owned(), notes.into());
    Value::Object(told)
}

impl Grounds<'_> {
    /// A core that has seen nothing yet.
    fn core(&self) -> Core {
        Core::for_trial(self.limits.clone())
    }
}
