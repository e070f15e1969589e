//! A change that somebody asks for: prepared against the state at hand, checked whole, kept, and answered when every
//! core serves it.
//!
//! Changes come one after the other to the control loop, so what is prepared from an object (a patch, a condition on
//! its revision) can not be overtaken by another.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::admin::held;
use super::signals::Stage;
use super::step_aside::step_aside;
use super::store::{Author, Change, Revision, Store, Term};
use super::{Control, audit, log};
use crate::base::clock::{self, Moment};
use crate::model::nearest::HINT;
use crate::model::upstream::KEY_MISSING;
use crate::model::{ConfigError, Kind, object_name};

/// Changes that may wait for the loop; beyond, whoever asks waits at the door.
pub(crate) const WAITING_MAX: usize = 64;

/// Why a change is not made.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// In one sentence.
    pub(crate) message: String,
    /// Each fault with its place, where the objects themselves are at fault.
    pub(crate) faults: Vec<ConfigError>,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), faults: Vec::new() }
    }

    /// Objects that are not what they should be.
    pub(crate) fn invalid(faults: Vec<ConfigError>) -> Self {
        if let [fault] = faults.as_slice()
            && KNOWN_BY_WORD.iter().any(|word| fault.problem.starts_with(word))
        {
            // What was probably meant is for people; programs compare the words before it.
            let words = fault.problem.split(HINT).next().unwrap_or_default();
            return Self { status: 400, message: words.to_owned(), faults };
        }
        let told: Vec<String> = faults.iter().map(|fault| inside(fault).to_string()).collect();
        Self { status: 400, message: format!("invalid configuration: {}", told.join("; ")), faults }
    }
}

/// Faults that clients of APISIX's know by what they begin with: these come without the place, which they name
/// themselves or which can be only one.
const KNOWN_BY_WORD: [&str; 3] =
    ["unknown plugin [", KEY_MISSING, "failed to validate the 'vars' expression"];

/// A fault without the object's name, where there is only one it can be in.
fn inside(fault: &ConfigError) -> ConfigError {
    ConfigError { object: String::new(), ..fault.clone() }
}

/// What is to be changed, and what to say when it is.
pub(crate) struct Plan<T> {
    pub(crate) changes: Vec<Change>,
    pub(crate) then: T,
}

/// How a change is to be made.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) author: Author,
    /// Check it as if, and change nothing.
    pub(crate) dry_run: bool,
    /// Also where others need what goes, or would not be in force any more.
    pub(crate) force: bool,
    /// What is put goes after so long, in whole seconds; `None`: it stays.
    pub(crate) ttl: Option<Duration>,
}

/// What came of a change.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// The store's revision that has it; the present one where nothing was kept.
    pub(crate) revision: u64,
    /// What the changed objects ask for and do not get, though they are in force.
    pub(crate) warnings: Vec<ConfigError>,
}

pub(crate) type Prepare = Box<dyn FnOnce(&Store) -> Result<Vec<Change>, Refusal> + Send>;

/// A change on its way.
pub(crate) struct Write {
    pub(crate) prepare: Prepare,
    pub(crate) how: How,
    pub(crate) reply: oneshot::Sender<Result<Done, Refusal>>,
}

/// Where changes are brought to.
#[derive(Clone, Debug)]
pub(crate) struct Desk(mpsc::Sender<Write>);

impl Desk {
    /// A desk, and its other side.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Write>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has a change made. Answers when every core serves it.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        how: How,
        prepare: impl FnOnce(&Store) -> Result<Plan<T>, Refusal> + Send + 'static,
    ) -> Result<(Done, T), Refusal> {
        let (reply, answer) = oneshot::channel();
        let (put, mut then) = mpsc::channel(1);
        let prepare = Box::new(move |store: &Store| {
            let plan = prepare(store)?;
            // There is room for the one thing that is ever put there.
            let _ = put.try_send(plan.then);
            Ok(plan.changes)
        });
        let ended = || Refusal::new(503, "the gateway is ending");
        self.0.send(Write { prepare, how, reply }).await.map_err(|_| ended())?;
        let done = answer.await.map_err(|_| ended())??;
        then.try_recv().map(|then| (done, then)).map_err(|_| ended())
    }
}

/// A change that would take the place in service from an object that it does not name.
fn would_set_aside(fault: &ConfigError) -> Refusal {
    let message =
        format!("it would set {} aside: {}; force=true does it all the same", fault.object, inside(fault));
    Refusal { status: 400, message, faults: vec![fault.clone()] }
}

/// What the log says of an object that was changed.
pub(super) fn changed_line(name: &str, author: &Author, revision: u64) -> String {
    format!("{name} changed by {} from {}; revision {revision}", author.who, author.from)
}

impl Control {
    /// Makes a change, or says why not.
    pub(super) async fn on_write(&mut self, write: Write, now: Moment) {
        let Write { prepare, how, reply } = write;
        // Cores end one by one, and one that has ended serves nothing new: a change would be kept and never answered.
        if self.stage != Stage::Serving && !how.dry_run {
            let why = "the gateway is on its way out: nothing is changed any more";
            return drop(reply.send(Err(Refusal::new(503, why))));
        }
        match self.change(prepare, &how, now).await {
            // Whoever asked may have gone; the change counts all the same.
            Err(refusal) => drop(reply.send(Err(refusal))),
            Ok(done) if how.dry_run => drop(reply.send(Ok(done))),
            Ok(done) => self.unanswered.push_back((self.board.generation(), (done, reply))),
        }
    }

    /// Makes a change; answers before the cores serve it.
    pub(super) async fn change(&mut self, prepare: Prepare, how: &How, now: Moment) -> Result<Done, Refusal> {
        let author = &how.author;
        let shared = Arc::clone(&self.holdings.store);
        let changes = prepare(&held(&shared))?;
        step_aside();
        let changed: Vec<(Kind, String)> = changes.iter().map(Change::key).collect();
        let attempt = self.compiler.attempt(&changes).map_err(Refusal::invalid)?;
        step_aside();
        if let Some(fault) = attempt.sets_aside().first().filter(|_| !how.force) {
            return Err(would_set_aside(fault));
        }
        let warnings = attempt.lacks().to_vec();
        if how.dry_run {
            return Ok(Done { revision: held(&shared).revision(), warnings });
        }
        let noted = self.floor.audit.is_some().then(|| audit::changed(&held(&shared), &changes));
        // Nothing else is done while this waits, so what was attempted stays true.
        let revision = match &mut self.etcd {
            Some(etcd) => etcd.commit(&changes, how.ttl, &shared).await?,
            None => {
                let at = clock::wall();
                let term = how.ttl.map_or(Term::Lasting, |ttl| Term::Until(at + ttl.as_millis() as u64));
                held(&shared).commit(changes, author, at, term).map_err(|error| {
                    log::error(format!("a change is not kept, and not made: {error}"));
                    Refusal::new(503, format!("the change can not be kept: {error}"))
                })?
            }
        };
        step_aside();
        if let (Some(audit), Some(changes)) = (&mut self.floor.audit, noted) {
            audit.note(&Revision { revision, at: clock::wall(), author: author.clone(), changes });
        }
        for (kind, id) in changed {
            let name = object_name(kind, &id);
            log::info(changed_line(&name, author, revision));
        }
        let outcome = self.compiler.adopt(attempt);
        step_aside();
        self.take_over(outcome, now);
        Ok(Done { revision, warnings })
    }

    /// Answers the changes that every core serves by now.
    pub(super) fn answer_writes(&mut self) {
        let served = self.board.stats.iter().map(|core| core.generation.get()).min().unwrap_or(0);
        while self.unanswered.front().is_some_and(|(generation, _)| *generation <= served) {
            if let Some((_, (done, reply))) = self.unanswered.pop_front() {
                let _ = reply.send(Ok(done));
            }
        }
    }
}
