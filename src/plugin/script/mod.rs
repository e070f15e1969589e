//! Functions in Lua that users write into `serverless-pre-function` and `serverless-post-function`: checked when configuration is
//! compiled, run by an interpreter that each core makes when it first needs one.
//!
//! The interpreter is Luau, which was made to run what others wrote: no files, no processes, no native code, globals that nobody
//! changes, a bound on memory ([`MEMORY_BYTES_MAX`]), on steps ([`STEPS_MAX`]) and on time ([`RUN_MAX`]), so that a function that goes wrong costs its
//! request and not the core. What a function sees of OpenResty and APISIX is in `prelude.luau`, which asks for everything of the
//! request through one function, answered by `asked.rs`. The decision record on functions in Lua says why it is there.

mod asked;
mod library;
mod serverless;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mlua::{Function, Lua, LuaString, Table, Value, VmState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CompileCx, ConfigError, Env, Phase, Phases, Step};
use crate::base::clock::Moment;
use crate::exchange::{Chunk, Exchange, Reply, SlotId};
use crate::link::outbox::Level;
use crate::model::field::{NonEmpty, Text};
use crate::runtime::LocalId;
use crate::runtime::core::thread_busy;
use crate::runtime::limits::HELD_BODY_BYTES;
use asked::{Asked, Reach};

pub use serverless::{Place, Serverless};

/// Memory of all functions of a core, with what they keep.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Calls and rounds of loops in one run of a function: some milliseconds.
pub const STEPS_MAX: u32 = 200_000;
/// Processor time of one run: steps that each take long, such as on large texts, end sooner.
pub const RUN_MAX: Duration = Duration::from_millis(50);
/// The processor's time is looked at once in so many steps.
const LOOK_EVERY: u32 = 16;
/// How often faults of functions are told.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Name of what all functions of a core, and of a request, share.
const SHARED: &str = "lua";
const PRELUDE: &str = include_str!("prelude.luau");

/// Runs functions in Lua on requests and responses.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When they run.
    #[serde(default)]
    phase: When,
    /// Each is a chunk of Lua that returns a function, which is called with `conf` and `ctx`.
    functions: NonEmpty<Text<1, 65536>>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum When {
    /// Before the consumer is known.
    Rewrite,
    /// When it is decided whether the request may go on.
    #[default]
    Access,
    /// When the node is about to be chosen.
    BeforeProxy,
    /// When the head of the response is there.
    HeaderFilter,
    /// For each piece of the body of the response.
    BodyFilter,
    /// When it is over.
    Log,
}

impl When {
    const fn phase(self) -> Phase {
        match self {
            Self::Rewrite => Phase::Rewrite,
            Self::Access => Phase::Access,
            Self::BeforeProxy => Phase::BeforeProxy,
            Self::HeaderFilter => Phase::HeaderFilter,
            Self::BodyFilter => Phase::BodyFilter,
            Self::Log => Phase::Log,
        }
    }
}

/// The functions of one use, and when they run.
#[derive(Debug)]
pub struct Functions {
    phase: Phase,
    sources: Box<[Box<str>]>,
    /// Whether their text speaks of the body of the request.
    reads_body: bool,
    /// What they get as `conf`.
    conf: serde_json::Value,
    me: LocalId,
    machine: LocalId,
    slot: SlotId,
}

/// What functions have said about a request so far.
#[derive(Debug, Default)]
struct Said {
    /// Their `ctx`.
    ctx: Option<Table>,
    /// Headers for the response that is not there yet.
    headers: Vec<PendingHeader>,
    /// Its status.
    status: Option<u16>,
}

#[derive(Debug)]
struct PendingHeader {
    name: String,
    /// Takes the place of those that are there.
    replaces: bool,
    values: Vec<Bytes>,
}

/// The interpreter of a core.
struct Machine {
    lua: Lua,
    run: Function,
    fresh_ctx: Function,
    budget: Rc<Budget>,
    told: Cell<Option<Moment>>,
}

/// What a run may still use.
#[derive(Debug, Default)]
struct Budget {
    steps: Cell<u32>,
    /// Processor time of the thread at which it ends.
    until: Cell<Duration>,
}

impl Budget {
    fn begin(&self) {
        self.steps.set(STEPS_MAX);
        self.until.set(thread_busy() + RUN_MAX);
    }

    /// One step more; an error once nothing is left, from then on at every step.
    fn step(&self) -> mlua::Result<VmState> {
        let steps = self.steps.get();
        if steps == 0 {
            return Err(mlua::Error::runtime(format!("more than {STEPS_MAX} steps")));
        }
        if steps.is_multiple_of(LOOK_EVERY) && thread_busy() > self.until.get() {
            // Not counted down: the next step finds the same.
            return Err(mlua::Error::runtime(format!(
                "more than {} ms of processor time",
                RUN_MAX.as_millis()
            )));
        }
        self.steps.set(steps - 1);
        Ok(VmState::Continue)
    }
}

/// The functions of one use on one core.
struct Loaded {
    conf: Value,
    functions: Vec<Function>,
}

/// What a function came to.
enum Came {
    Next,
    Answer { status: Option<u16>, body: Option<Bytes> },
    Fault(String),
}

impl Functions {
    /// Checks the functions: they are compiled and their chunks run, as on a core.
    ///
    /// # Errors
    /// A chunk that is no Lua, fails, or returns no function.
    pub fn compile(config: Config, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let machine = Machine::new().map_err(|fault| ConfigError::new(text_of(&fault)))?;
        let phase = config.phase.phase();
        let conf = serde_json::to_value(&config).map_err(|fault| ConfigError::new(fault.to_string()))?;
        let sources: Box<[Box<str>]> = config.functions.iter().map(|source| source.as_str().into()).collect();
        for (at, source) in sources.iter().enumerate() {
            machine.load(source).map_err(|why| ConfigError::at(format!("functions[{at}]"), why))?;
        }
        let speaks_of_it =
            |source: &str| ["body", "post_arg", "graphql"].iter().any(|word| source.contains(word));
        let reads_body = phase != Phase::BodyFilter && sources.iter().any(|source| speaks_of_it(source));
        if reads_body {
            cx.needs_request_body(HELD_BODY_BYTES);
        }
        Ok(Self {
            phase,
            sources,
            reads_body,
            conf,
            me: cx.local(),
            machine: cx.local_of(SHARED, 0),
            slot: cx.slot_of(SHARED),
        })
    }

    /// The phases that have something to do.
    pub const fn active(&self) -> Phases {
        match self.phase {
            Phase::Log => Phases::NONE.with(Phase::Log, true),
            phase => Phases::NONE.with(phase, true).with(Phase::HeaderFilter, true),
        }
    }

    /// Whether the body must be there before `REWRITE`.
    pub fn reads_body_early(&self) -> bool {
        self.reads_body && self.phase == Phase::Rewrite
    }

    /// Whether they may read the head of the response once it is sent.
    pub const fn reads_sent_head(&self) -> bool {
        matches!(self.phase, Phase::BodyFilter | Phase::Log)
    }

    /// Runs them before there is an answer.
    pub fn gate<'a>(&self, phase: Phase, ex: &mut Exchange, env: Env<'_>) -> Step<'a> {
        if phase != self.phase {
            return Step::Next;
        }
        match self.run(Reach::Change(ex), env) {
            Came::Next => Step::Next,
            Came::Answer { status, body } => {
                let status = status.or_else(|| ex.slots.of::<Said>(self.slot).status).unwrap_or(200);
                Step::Reply(match body {
                    Some(body) => Reply::bytes(status, body),
                    None => Reply::status(status),
                })
            }
            Came::Fault(fault) => {
                self.tell(&fault, env);
                Step::Reply(Reply::status(500))
            }
        }
    }

    /// Puts on the head of the answer what was said before; runs those whose time it is.
    pub fn header_filter(&self, ex: &mut Exchange, env: Env<'_>) {
        if self.phase == Phase::HeaderFilter {
            self.run_aside(Reach::Change(ex), env);
            return;
        }
        if self.phase == Phase::BodyFilter {
            ex.response.forget_body_headers();
            return;
        }
        let said = ex.slots.of::<Said>(self.slot);
        let (headers, status) = (std::mem::take(&mut said.headers), said.status.take());
        for header in headers {
            header.put_on(&mut ex.response.headers);
        }
        if let Some(status) = status {
            ex.response.status = status;
        }
    }

    /// Runs them on a piece of the body.
    pub fn body_filter(&self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>) {
        if self.phase == Phase::BodyFilter {
            self.run_aside(Reach::Piece(ex, chunk), env);
        }
    }

    /// Runs them when it is over.
    pub fn log(&self, ex: &Exchange, env: Env<'_>) {
        if self.phase == Phase::Log {
            self.run_aside(Reach::See(ex), env);
        }
    }

    /// Runs them where no answer can be given: a fault is told, and changes nothing.
    fn run_aside(&self, reach: Reach<'_, '_>, env: Env<'_>) {
        if let Came::Fault(fault) = self.run(reach, env) {
            self.tell(&fault, env);
        }
    }

    fn run(&self, mut reach: Reach<'_, '_>, env: Env<'_>) -> Came {
        let machine = env.core.local(self.machine, Machine::new);
        let machine = match &*machine {
            Ok(machine) => machine,
            Err(fault) => return Came::Fault(text_of(fault)),
        };
        let loaded = env.core.local(self.me, || machine.load_all(&self.sources, &self.conf));
        let loaded = match &*loaded {
            Ok(loaded) => loaded,
            Err(fault) => return Came::Fault(fault.clone()),
        };
        for function in &loaded.functions {
            let asked = Asked { reach: &mut reach, slot: self.slot, phase: self.phase, env };
            match machine.call(function, &loaded.conf, self.phase, asked) {
                Came::Next => {}
                came => return came,
            }
        }
        Came::Next
    }

    fn tell(&self, fault: &str, env: Env<'_>) {
        let machine = env.core.local(self.machine, Machine::new);
        let now = env.core.now();
        if let Ok(machine) = &*machine
            && machine.told.get().is_none_or(|told| now.since(told) >= TOLD_EVERY)
        {
            machine.told.set(Some(now));
            env.core.note(Level::Error, format!("a function of phase {} failed: {fault}", self.phase.word()));
        }
    }
}

impl Machine {
    fn new() -> mlua::Result<Self> {
        let lua = Lua::new();
        lua.set_memory_limit(MEMORY_BYTES_MAX)?;
        let prelude = lua.load(PRELUDE).set_name("=prelude");
        let (run, fresh_ctx) = prelude.call::<(Function, Function)>(library::of(&lua)?)?;
        lua.sandbox(true)?;
        let budget = Rc::new(Budget::default());
        let spent = Rc::clone(&budget);
        lua.set_interrupt(move |_| spent.step());
        Ok(Self { lua, run, fresh_ctx, budget, told: Cell::new(None) })
    }

    /// The function that a chunk returns.
    fn load(&self, source: &str) -> Result<Function, String> {
        self.budget.begin();
        // Globals that a chunk sets are its own.
        let own = self.own_globals().map_err(|fault| text_of(&fault))?;
        let chunk = self.lua.load(source).set_name("=function").set_environment(own);
        let chunk =
            chunk.into_function().map_err(|fault| format!("failed to loadstring: {}", text_of(&fault)))?;
        match chunk.call::<Value>(()).map_err(|fault| format!("pcall error: {}", text_of(&fault)))? {
            Value::Function(function) => Ok(function),
            other => Err(format!("only accept Lua function, the input code type is {}", other.type_name())),
        }
    }

    fn own_globals(&self) -> mlua::Result<Table> {
        let (own, meta) = (self.lua.create_table()?, self.lua.create_table()?);
        meta.raw_set("__index", self.lua.globals())?;
        own.set_metatable(Some(meta))?;
        Ok(own)
    }

    fn load_all(&self, sources: &[Box<str>], conf: &serde_json::Value) -> Result<Loaded, String> {
        let functions = sources.iter().map(|source| self.load(source)).collect::<Result<_, _>>()?;
        let conf = library::to_lua(&self.lua, conf).map_err(|fault| text_of(&fault))?;
        Ok(Loaded { conf, functions })
    }

    fn call(
        &self,
        function: &Function,
        conf: &Value,
        phase: Phase,
        mut asked: Asked<'_, '_, '_, '_>,
    ) -> Came {
        self.budget.begin();
        let ctx = asked.ctx().map_or_else(|| self.fresh_ctx.call::<Table>(()), Ok);
        let came = ctx.and_then(|ctx| {
            asked.keep(&ctx);
            self.lua.scope(|scope| {
                let ask =
                    scope.create_function_mut(|lua, (word, one, other): (LuaString, Value, Value)| {
                        asked.answer(lua, &word.as_bytes(), &one, other)
                    })?;
                type Answer = (bool, Value, Option<u16>, Option<LuaString>);
                self.run.call::<Answer>((ask, phase.word(), function, conf, ctx))
            })
        });
        match came {
            Ok((false, Value::String(fault), ..)) => Came::Fault(fault.to_string_lossy()),
            Ok((true, Value::Boolean(true), status, body)) => {
                let status = status.filter(|status| (100..=599).contains(status));
                Came::Answer { status, body: body.map(|body| Bytes::copy_from_slice(&body.as_bytes())) }
            }
            Ok(_) => Came::Next,
            Err(fault) => Came::Fault(text_of(&fault)),
        }
    }
}

/// The first line of a fault, without the stack.
fn text_of(fault: &mlua::Error) -> String {
    let text = match fault {
        mlua::Error::CallbackError { cause, .. } => return text_of(cause),
        mlua::Error::SyntaxError { message, .. } | mlua::Error::RuntimeError(message) => message.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}
