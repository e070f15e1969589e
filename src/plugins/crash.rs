//! `crash`: panics. In builds for tests only (feature `test-plugins`), to see what a bug costs.
//!
//! ```yaml
//! plugins:
//!   crash: {phase: access}
//! ```
//!
//! Differs from APISIX: it has no such plugin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, NoMetadata, Plugin, Step};

/// Panics, for tests.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When it panics.
    #[serde(default)]
    phase: When,
}

/// When it panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum When {
    /// Before the request is passed on.
    #[default]
    Access,
    /// When the head of the response is there.
    HeaderFilter,
}

/// What the core reads.
pub struct Crash {
    when: When,
}

impl Plugin for Crash {
    const NAME: &'static str = "crash";
    const PRIORITY: i32 = 1;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::access);
    const HEADER_FILTER: Edit<Self> = Some(|this, _, _| this.crash(When::HeaderFilter));

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self { when: config.phase })
    }
}

impl Crash {
    fn access<'a>(&'a self, _: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        self.crash(When::Access);
        Step::Next
    }

    fn crash(&self, now: When) {
        assert!(self.when != now, "crash was asked to panic in {now:?}");
    }
}
