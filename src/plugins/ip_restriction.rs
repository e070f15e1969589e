//! `ip-restriction`: admit or refuse a client by its address.
//!
//! The client's address is the one the connection came from, or the one a trusted proxy vouched for. Exactly one
//! of the two lists is given:
//!
//! ```yaml
//! plugins:
//!   ip-restriction:
//!     whitelist: ["10.0.0.0/8", "::1"]
//! ```
//!
//! A refused client gets `response_code` and `{"message": …}`. Differs from APISIX: refuses unknown fields.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::cidr::CidrSet;
use crate::exchange::{Exchange, Reply};
use crate::model::field::{AddressRange, InRange, NonEmpty, ShortText};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// What the user writes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["whitelist"]}, {"required": ["blacklist"]}]))]
pub struct Config {
    /// Only these addresses and ranges may pass.
    whitelist: Option<NonEmpty<AddressRange>>,
    /// All but these addresses and ranges may pass.
    blacklist: Option<NonEmpty<AddressRange>>,
    /// What a refused client is told.
    #[serde(default = "not_allowed")]
    message: ShortText,
    /// The status a refused client gets.
    #[serde(default)]
    response_code: InRange<403, 404>,
}

/// What the core reads.
pub struct IpRestriction {
    ranges: CidrSet,
    /// The outcome for an address inside `ranges`.
    admit_listed: bool,
    refusal: Reply,
}

impl Plugin for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const PRIORITY: i32 = 3000;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::judge);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let (ranges, admit_listed) = match (config.whitelist, config.blacklist) {
            (Some(list), None) => (list, true),
            (None, Some(list)) => (list, false),
            _ => return Err(ConfigError::new("expected exactly one of `whitelist` and `blacklist`")),
        };
        Ok(Self {
            ranges: ranges.iter().map(AddressRange::cidr).collect(),
            admit_listed,
            refusal: Reply::message(config.response_code.get() as u16, config.message.as_str()),
        })
    }
}

impl IpRestriction {
    fn judge<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        if self.ranges.contains(ex.client.ip) == self.admit_listed {
            Step::Next
        } else {
            Step::Reply(self.refusal.clone())
        }
    }
}

fn not_allowed() -> ShortText {
    ShortText::literal("Your IP address is not allowed")
}
