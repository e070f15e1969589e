//! `limit-count`: so many requests in a window of time, for each value of a key.
//!
//! ```yaml
//! plugins:
//!   limit-count:
//!     count: 100
//!     time_window: 60
//!     key: consumer_name
//!     rejected_code: 429
//! ```
//!
//! Counting is exact for the whole process: every core spends from the same account. Every answer tells what is
//! left. Uses that name a `group` share their counters; any other counts for itself. Of several `rules`, those
//! before the one that refuses give back what they have counted. Windows of an hour and more are kept beyond the process. With `policy: redis`, `redis-sentinel` or
//! `redis-cluster` gateways share their counters, and with `sync_interval` ask for them seldom. Differs from APISIX: a refusal also carries `Retry-After`.

use crate::exchange::Exchange;
use crate::plugin::count::{Config, Counter, Metadata};
use crate::plugin::{CompileCx, ConfigError, Edit, Env, Gate, Looking, Plugin};

/// What the core reads.
pub struct LimitCount(Counter);

impl Plugin for LimitCount {
    const NAME: &'static str = "limit-count";
    const PRIORITY: i32 = 1002;
    type Config = Config;
    type Metadata = Metadata;

    const IS_ACTION: bool = true;
    const ACCESS: Gate<Self> = Some(|this, ex, env| this.0.spend(ex, env, 1));
    const HEADER_FILTER: Edit<Self> =
        Some(|this: &Self, ex: &mut Exchange, env: Env<'_>| this.0.tell(ex, env));
    const LOOKING: Looking<Self> = Some(|this, look| this.0.standing(look));

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Counter::compile(Self::NAME, &config, &metadata, cx).map(Self)
    }
}

#[cfg(test)]
#[path = "limit_count/tests.rs"]
mod tests;
