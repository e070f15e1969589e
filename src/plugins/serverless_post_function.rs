//! `serverless-post-function`: runs functions in Lua behind all other plugins of the phase.
//!
//! ```yaml
//! plugins:
//!   serverless-post-function:
//!     phase: access
//!     functions:
//!       - |
//!         return function(conf, ctx)
//!           if ctx.var.arg_token ~= "let-me-in" then
//!             return 403, "who are you?"
//!           end
//!         end
//! ```
//!
//! What a function may use is listed in `docs/lua.md`. A run has 200,000 steps and a core 64 MiB for all functions: beyond, the
//! request gets 500. Differs from APISIX: nothing that waits (sockets, timers, sleeping) is there, nor are the modules of
//! OpenResty; unknown fields are refused.

use crate::exchange::{Chunk, Exchange};
use crate::plugin::script::{Config, Functions};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Observe, Phase, Phases, Plugin, Transform};

/// What the core reads.
pub struct ServerlessPostFunction(Functions);

impl Plugin for ServerlessPostFunction {
    const NAME: &'static str = "serverless-post-function";
    const PRIORITY: i32 = -2000;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::Rewrite, ex, env));
    const ACCESS: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::Access, ex, env));
    const BEFORE_PROXY: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::BeforeProxy, ex, env));
    const HEADER_FILTER: Edit<Self> = Some(|this: &Self, ex: &mut Exchange, env: Env<'_>| this.0.header_filter(ex, env));
    const BODY_FILTER: Transform<Self> =
        Some(|this: &Self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>| this.0.body_filter(ex, env, chunk));
    const LOG: Observe<Self> = Some(|this: &Self, ex: &Exchange, env: Env<'_>| this.0.log(ex, env));

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Functions::compile(config, cx).map(Self)
    }

    fn active(&self) -> Phases {
        self.0.active()
    }

    fn reads_body_early(&self) -> bool {
        self.0.reads_body_early()
    }
}
