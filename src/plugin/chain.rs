//! The plugins mounted on a route: sorted once, listed by phase, run in order.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::exchange::{Chunk, Exchange, Reply, ReplyBody, Source};
use crate::expr::Rule;

use super::phase::PHASES;
use super::{Env, Look, Phase, Phases, Step, Verdict};

/// A compiled plugin, whichever it is.
pub trait Hooks: Clone {
    fn name(&self) -> &'static str;
    fn phases(&self) -> Phases;
    fn is_auth(&self) -> bool;
    fn prefers_route(&self) -> bool;
    fn gate<'a>(&'a self, phase: Phase, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a>;
    fn header_filter(&self, ex: &mut Exchange, env: Env<'_>);
    fn body_filter(&self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>);
    fn log(&self, ex: &Exchange, env: Env<'_>);
    /// What is left of its limits, if it has any.
    fn standing(&self, look: Look<'_>) -> Vec<serde_json::Value>;

    /// Whether its gate of `REWRITE` reads the body of the request.
    fn reads_body_early(&self) -> bool {
        false
    }

    /// Whether what it does once the head of the response is sent reads that head.
    fn reads_sent_head(&self) -> bool {
        false
    }
}

/// Told of each hook of each plugin before it runs, where configurations are tried.
#[derive(Clone)]
pub struct Witness(Arc<dyn Fn(Phase, &'static str) + Send + Sync>);

impl Witness {
    pub fn new(tell: impl Fn(Phase, &'static str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// The `_meta` of one use.
#[derive(Debug, Default)]
pub struct Meta {
    pub filter: Option<Rule>,
    /// Body for every answer with an error status that the plugin gives.
    pub error_response: Option<Bytes>,
    pub witness: Option<Witness>,
}

/// A plugin in its place: with priority and `_meta`.
#[derive(Clone, Debug)]
pub struct Mount<P> {
    pub plugin: P,
    pub priority: i32,
    pub meta: Option<Arc<Meta>>,
    /// Largest request body the plugin wants held, if it wants it.
    pub request_body_max: Option<usize>,
    /// The object whose plugin it is, as `routes/7`.
    pub owner: Arc<str>,
}

/// What a gate comes to that is tried and not waited for.
#[derive(Debug)]
pub enum Tried {
    Passed,
    /// `_meta.filter` keeps it from running.
    Filtered,
    Replied(Reply),
    /// It would wait for something, and what it says then is not known.
    Waits,
}

impl<P: Hooks> Mount<P> {
    /// Whether it runs; one that has no `_meta`, as most, does.
    fn applies(&self, phase: Phase, ex: &Exchange) -> bool {
        let Some(meta) = self.meta.as_deref() else { return true };
        let applies = meta.filter.as_ref().is_none_or(|rule| rule.holds(ex));
        if let Some(witness) = meta.witness.as_ref().filter(|_| applies) {
            (witness.0)(phase, self.plugin.name());
        }
        applies
    }

    /// What must hold for it to run.
    pub fn filter(&self) -> Option<&Rule> {
        self.meta.as_deref()?.filter.as_ref()
    }

    /// Runs its gate as [`PluginChain::gate`] does, but never waits: for those who explain a request.
    pub fn try_gate(&self, phase: Phase, ex: &mut Exchange, env: Env<'_>) -> Tried {
        if !self.applies(phase, ex) {
            return Tried::Filtered;
        }
        match self.plugin.gate(phase, ex, env) {
            Step::Next => Tried::Passed,
            Step::Reply(reply) => Tried::Replied(self.mask(reply)),
            Step::Wait(_) => Tried::Waits,
        }
    }

    /// Runs its gate; once more where it has set [`wants_more`](crate::exchange::Passing::wants_more), and that has come.
    pub async fn gate(&self, phase: Phase, ex: &mut Exchange, env: Env<'_>) -> Verdict {
        if !self.applies(phase, ex) {
            return Verdict::Next;
        }
        match self.plugin.gate(phase, ex, env) {
            Step::Next => Verdict::Next,
            Step::Reply(reply) => Verdict::Reply(reply),
            Step::Wait(work) => work.await,
        }
    }

    fn mask(&self, mut reply: Reply) -> Reply {
        if reply.status >= 400
            && let Some(body) = self.meta.as_deref().and_then(|meta| meta.error_response.clone())
        {
            reply.body = ReplyBody::Bytes(body);
        }
        reply
    }
}

/// Mounts sorted by priority, with a list for each phase.
#[derive(Clone, Debug)]
pub struct PluginChain<P> {
    mounts: Vec<Mount<P>>,
    /// Places among the mounts, phase after phase.
    places: Box<[u16]>,
    /// Where the places of each phase begin, and those of the last end.
    bounds: [u16; PHASES + 1],
    request_body_max: Option<usize>,
    reads_body_early: bool,
    reads_sent_head: bool,
}

impl<P> Default for PluginChain<P> {
    fn default() -> Self {
        Self {
            mounts: Vec::new(),
            places: Box::default(),
            bounds: [0; PHASES + 1],
            request_body_max: None,
            reads_body_early: false,
            reads_sent_head: false,
        }
    }
}

impl<P: Hooks> PluginChain<P> {
    /// Sorts the mounts. Of equal priority, the name decides, so that the order never depends on a map's.
    pub fn new(mut mounts: Vec<Mount<P>>) -> Self {
        mounts.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.plugin.name().cmp(b.plugin.name())));
        let (mut places, mut bounds) = (Vec::new(), [0; PHASES + 1]);
        for phase in PHASE_LIST {
            let works = |mount: &Mount<P>| mount.plugin.phases().contains(phase);
            places.extend((0..).zip(&mounts).filter(|(_, mount)| works(mount)).map(|(at, _): (u16, _)| at));
            bounds[phase as usize + 1] = places.len() as u16;
        }
        let places = places.into();
        let request_body_max = mounts.iter().filter_map(|mount| mount.request_body_max).max();
        let reads_body_early = mounts.iter().any(|mount| mount.plugin.reads_body_early());
        let reads_sent_head = mounts.iter().any(|mount| mount.plugin.reads_sent_head());
        Self { mounts, places, bounds, request_body_max, reads_body_early, reads_sent_head }
    }

    /// The mounts, by priority.
    pub fn mounts(&self) -> &[Mount<P>] {
        &self.mounts
    }

    /// Whether any plugin hooks the phase.
    pub const fn hooks(&self, phase: Phase) -> bool {
        self.bounds[phase as usize] != self.bounds[phase as usize + 1]
    }

    fn places_in(&self, phase: Phase) -> &[u16] {
        let [from, end] = [phase as usize, phase as usize + 1].map(|at| usize::from(self.bounds[at]));
        &self.places[from..end]
    }

    /// Largest request body a plugin wants held; `None` when none wants it.
    pub const fn request_body_max(&self) -> Option<usize> {
        self.request_body_max
    }

    /// Whether the request body is to be held before `REWRITE`.
    pub const fn reads_body_early(&self) -> bool {
        self.reads_body_early
    }

    /// Whether the head of the response is to be kept once it is sent.
    pub const fn reads_sent_head(&self) -> bool {
        self.reads_sent_head
    }

    /// Whether a plugin of that name is mounted.
    pub fn has(&self, name: &str) -> bool {
        self.mounts.iter().any(|mount| mount.plugin.name() == name)
    }

    /// The mounts that hook a phase, in the order they run.
    pub fn at(&self, phase: Phase) -> impl Iterator<Item = &Mount<P>> {
        self.places_in(phase).iter().map(|at| &self.mounts[usize::from(*at)])
    }

    /// Runs the gates of a phase until one replies.
    pub fn gate<'r>(
        &'r self,
        phase: Phase,
        ex: &'r mut Exchange,
        env: Env<'r>,
    ) -> impl Future<Output = Verdict> + 'r {
        // Not a future around a future: each is some hundred bytes that are copied on their way.
        self.gate_some(phase, ex, env, |_| true)
    }

    /// [`Self::gate`] for the plugins `wanted`.
    pub async fn gate_some(
        &self,
        phase: Phase,
        ex: &mut Exchange,
        env: Env<'_>,
        wanted: impl Fn(&P) -> bool,
    ) -> Verdict {
        for mount in self.at(phase) {
            let is_passed_over = ex.passes_over_some() && ex.passes_over(mount.plugin.name());
            if is_passed_over || !wanted(&mount.plugin) || !mount.applies(phase, ex) {
                continue;
            }
            let verdict = match mount.plugin.gate(phase, ex, env) {
                Step::Next => continue,
                Step::Reply(reply) => Verdict::Reply(reply),
                Step::Wait(work) => work.await,
            };
            if let Verdict::Reply(reply) = verdict {
                ex.response.source = Source::Plugin(mount.plugin.name());
                return Verdict::Reply(mount.mask(reply));
            }
        }
        Verdict::Next
    }

    /// Lets the plugins change the head of the response; `silent` ones are passed over.
    pub fn header_filter(&self, ex: &mut Exchange, env: Env<'_>) {
        for mount in self.at(Phase::HeaderFilter) {
            if mount.applies(Phase::HeaderFilter, ex) {
                mount.plugin.header_filter(ex, env);
            }
        }
    }

    /// Lets the plugins change a piece of the body.
    pub fn body_filter(&self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>) {
        for mount in self.at(Phase::BodyFilter) {
            if mount.applies(Phase::BodyFilter, ex) {
                mount.plugin.body_filter(ex, env, chunk);
            }
        }
    }

    /// Shows the plugins an exchange that is over. Those that `silenced` names are passed over.
    pub fn log(&self, ex: &Exchange, env: Env<'_>, silenced: impl Fn(&P) -> bool) {
        for mount in self.at(Phase::Log) {
            if !silenced(&mount.plugin) && mount.applies(Phase::Log, ex) {
                mount.plugin.log(ex, env);
            }
        }
    }
}

const PHASE_LIST: [Phase; PHASES] = [
    Phase::Preread,
    Phase::Rewrite,
    Phase::Access,
    Phase::BeforeProxy,
    Phase::HeaderFilter,
    Phase::BodyFilter,
    Phase::Log,
];
