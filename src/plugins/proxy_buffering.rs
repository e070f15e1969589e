//! `proxy-buffering`: taken and checked, so that configuration for APISIX can be used as it is. Does nothing.
//!
//! ```yaml
//! plugins:
//!   proxy-buffering: {disable_proxy_buffering: true}
//! ```
//!
//! Bodies of answers always pass as they come, through buffers of a fixed size, unless a plugin must see one whole; there
//! is nothing to switch. Hooks no phase, so it costs nothing. Differs from APISIX: it has no effect.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::{CompileCx, ConfigError, NoMetadata, Plugin};

/// Has no effect: bodies of answers always pass as they come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Should answers be passed on as they come? They always are.
    #[serde(default, rename = "disable_proxy_buffering")]
    _disable_proxy_buffering: bool,
}

/// Nothing to read.
pub struct ProxyBuffering;

impl Plugin for ProxyBuffering {
    const NAME: &'static str = "proxy-buffering";
    const PRIORITY: i32 = 21991;
    type Config = Config;
    type Metadata = NoMetadata;

    fn compile(_: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self)
    }
}


#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check};

    #[test]
    fn it_passes_whatever_is_written() {
        for config in ["{}", r#"{"disable_proxy_buffering": true}"#, r#"{"disable_proxy_buffering": false}"#] {
            let bench = check::<ProxyBuffering>(config).unwrap();
            assert_eq!(bench.request_body_max, None);
            bench.request(Request::get("/")).passes();
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ProxyBuffering>(
            &["{}", r#"{"disable_proxy_buffering": true}"#],
            &[(r#"{"disable_proxy_buffering": "off"}"#, "true or false"), (r#"{"buffering": true}"#, "found buffering")],
        );
    }
}
