//! `ip-restriction`: admit or refuse a client by its address.
//!
//! The client's address is the one the connection came from, or the one a trusted proxy vouched for; `unix:` in a list is
//! for those who come by a Unix socket. Exactly one of the two lists is given:
//!
//! ```yaml
//! plugins:
//!   ip-restriction:
//!     whitelist: ["10.0.0.0/8", "::1"]
//! ```
//!
//! A refused client gets `response_code` and `{"message": …}`; in a stream route its connection is closed. Differs from APISIX: refuses unknown fields.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::cidr::CidrSet;
use crate::exchange::{Exchange, Reply};
use crate::model::field::{AddressRange, InRange, NonEmpty, ShortText};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// Admits or refuses a client by its address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["whitelist"]}, {"required": ["blacklist"]}]))]
pub struct Config {
    /// Only these addresses and ranges may pass.
    whitelist: Option<NonEmpty<AddressRange>>,
    /// All but these addresses and ranges may pass.
    blacklist: Option<NonEmpty<AddressRange>>,
    /// What a refused client is told, as `{"message":"…"}`.
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

    const PREREAD: Gate<Self> = Some(Self::judge);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check, refuses};

    #[test]
    fn a_whitelist_admits_only_its_ranges() {
        let gate = check::<IpRestriction>(r#"{"whitelist": ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]}"#).unwrap();
        for admitted in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "192.0.2.7"] {
            gate.request(Request::get("/").from(admitted)).passes();
        }
        for refused in ["11.0.0.1", "::ffff:11.0.0.1", "fe80::1", "192.0.2.8", "::1"] {
            gate.request(Request::get("/").from(refused))
                .replies(403, "{\"message\":\"Your IP address is not allowed\"}\n");
        }
    }

    #[test]
    fn a_blacklist_admits_all_but_its_ranges() {
        let gate = check::<IpRestriction>(r#"{"blacklist": ["10.0.0.0/8"], "response_code": 404, "message": "no"}"#);
        let gate = gate.unwrap();
        gate.request(Request::get("/").from("11.0.0.1")).passes();
        gate.request(Request::get("/").from("10.1.2.3")).replies(404, "{\"message\":\"no\"}\n");
        gate.request(Request::get("/").from("::ffff:10.1.2.3")).replies(404, "no");
    }

    #[test]
    fn what_a_header_claims_is_not_asked() {
        let gate = check::<IpRestriction>(r#"{"whitelist": ["127.0.0.1"]}"#).unwrap();
        let claimed = Request::get("/").header("X-Forwarded-For", "127.0.0.1").header("X-Real-IP", "127.0.0.1");
        gate.request(claimed).replies(403, "not allowed");
    }

    #[test]
    fn schema_and_compile_agree() {
        let one_of = "expected exactly one of `whitelist` and `blacklist`";
        agree::<IpRestriction>(
            &[
                r#"{"whitelist": ["::1", "10.0.0.0/0"]}"#,
                r#"{"blacklist": ["10.0.0.1"], "message": "x", "response_code": 403}"#,
            ],
            &[
                ("{}", one_of),
                (r#"{"whitelist": ["::1"], "blacklist": ["::1"]}"#, one_of),
                (r#"{"whitelist": []}"#, "at least 1"),
                (r#"{"whitelist": ["10.0.0.0/33"]}"#, "whitelist[0]"),
                (r#"{"blacklist": ["10.0.0"]}"#, "blacklist[0]"),
                (r#"{"blacklist": ["localhost"]}"#, "blacklist[0]"),
                (r#"{"whitelist": ["::1"], "message": ""}"#, "message"),
                (r#"{"whitelist": ["::1"], "response_code": 402}"#, "response_code"),
                (r#"{"whitelist": ["::1"], "response_code": 405}"#, "response_code"),
                (r#"{"whitelists": ["::1"]}"#, "additional properties forbidden, found whitelists"),
            ],
        );
        refuses::<IpRestriction>(r#"{"whitelist": "::1"}"#, "a list");
    }
}
