//! Plugins that are run by a plugin rather than by the chain: the actions of `workflow`.
//!
//! A plugin may not name another (the floors), so it asks the desk it is compiled at for an action by name
//! ([`super::CompileCx::action`]) and gets something with hooks. Which plugins may be had so they say themselves
//! ([`super::Plugin::IS_ACTION`]). The decision record on actions says why.

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;

use super::{CompileCx, ConfigError, Env, Hooks, Phase, Step};
use crate::exchange::Exchange;

/// A compiled plugin in the hands of another one, which calls its hooks.
pub trait Inner: Debug + Send + Sync {
    fn name(&self) -> &'static str;
    fn gate<'a>(&'a self, phase: Phase, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a>;
    fn header_filter(&self, ex: &mut Exchange, env: Env<'_>);
    fn log(&self, ex: &Exchange, env: Env<'_>);
}

impl<P: Hooks + Debug + Send + Sync> Inner for P {
    fn name(&self) -> &'static str {
        Hooks::name(self)
    }

    fn gate<'a>(&'a self, phase: Phase, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        Hooks::gate(self, phase, ex, env)
    }

    fn header_filter(&self, ex: &mut Exchange, env: Env<'_>) {
        Hooks::header_filter(self, ex, env);
    }

    fn log(&self, ex: &Exchange, env: Env<'_>) {
        Hooks::log(self, ex, env);
    }
}

/// The plugins that may be run by another one.
pub trait Actions: Debug {
    /// The name, as the plugin itself has it, if there is such an action.
    fn named(&self, name: &str) -> Option<&'static str>;

    /// Compiles one that is [`Self::named`].
    ///
    /// # Errors
    /// Every fault of the configuration.
    fn compile(
        &self,
        name: &'static str,
        config: Value,
        cx: &mut CompileCx<'_>,
    ) -> Result<Arc<dyn Inner>, Vec<ConfigError>>;
}
