//! The plugins that run functions in Lua: one, but for its name and for when it runs within a phase.

use std::marker::PhantomData;

use super::{Config, Functions};
use crate::exchange::{Chunk, Exchange};
use crate::plugin::{
    CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Observe, Phase, Phases, Plugin, Transform,
};

/// What tells one such plugin from another.
pub trait Place: Send + Sync + 'static {
    const NAME: &'static str;
    const PRIORITY: i32;
}

/// What the core reads.
pub struct Serverless<P>(Functions, PhantomData<P>);

impl<P: Place> Plugin for Serverless<P> {
    const NAME: &'static str = P::NAME;
    const PRIORITY: i32 = P::PRIORITY;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::Rewrite, ex, env));
    const ACCESS: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::Access, ex, env));
    const BEFORE_PROXY: Gate<Self> = Some(|this, ex, env| this.0.gate(Phase::BeforeProxy, ex, env));
    const HEADER_FILTER: Edit<Self> =
        Some(|this: &Self, ex: &mut Exchange, env: Env<'_>| this.0.header_filter(ex, env));
    const BODY_FILTER: Transform<Self> =
        Some(|this: &Self, ex: &mut Exchange, env: Env<'_>, chunk: &mut Chunk<'_>| {
            this.0.body_filter(ex, env, chunk)
        });
    const LOG: Observe<Self> = Some(|this: &Self, ex: &Exchange, env: Env<'_>| this.0.log(ex, env));

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Functions::compile(config, cx).map(|functions| Self(functions, PhantomData))
    }

    fn active(&self) -> Phases {
        self.0.active()
    }

    fn reads_body_early(&self) -> bool {
        self.0.reads_body_early()
    }

    fn reads_sent_head(&self) -> bool {
        self.0.reads_sent_head()
    }
}
