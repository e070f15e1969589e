//! `serverless-pre-function`: runs functions in Lua before all other plugins of the phase.
//!
//! ```yaml
//! plugins:
//!   serverless-pre-function:
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
//! What a function may use is listed in `docs/lua.md`. A run has 200,000 steps and 50 ms, a core 64 MiB for all functions:
//! beyond, the request gets 500. Differs from APISIX: nothing that waits (sockets, timers, sleeping) is there, nor are the modules of
//! OpenResty; unknown fields are refused.

use crate::plugin::script::{Place, Serverless};

/// Functions that run before all others.
pub type ServerlessPreFunction = Serverless<Before>;

/// Where it stands within a phase.
pub struct Before;

impl Place for Before {
    const NAME: &'static str = "serverless-pre-function";
    const PRIORITY: i32 = 10000;
}
