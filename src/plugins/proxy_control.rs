//! `proxy-control`: taken and checked, so that configuration for APISIX can be used as it is. Does nothing.
//!
//! ```yaml
//! plugins:
//!   proxy-control: {request_buffering: false}
//! ```
//!
//! Bodies of requests always pass as they come, through buffers of a fixed size, unless a plugin must see one whole; there
//! is nothing to switch. Hooks no phase, so it costs nothing. Differs from APISIX: it has no effect.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::{CompileCx, ConfigError, NoMetadata, Plugin};

/// Has no effect: bodies of requests always pass as they come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Should the whole body be read before the upstream gets the request? It is not, whatever is written.
    #[serde(default = "yes", rename = "request_buffering")]
    _request_buffering: bool,
}

/// Nothing to read.
pub struct ProxyControl;

impl Plugin for ProxyControl {
    const NAME: &'static str = "proxy-control";
    const PRIORITY: i32 = 21990;
    type Config = Config;
    type Metadata = NoMetadata;

    fn compile(_: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self)
    }
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check};

    #[test]
    fn it_passes_whatever_is_written() {
        for config in ["{}", r#"{"request_buffering": true}"#, r#"{"request_buffering": false}"#] {
            let bench = check::<ProxyControl>(config).unwrap();
            assert_eq!(bench.request_body_max, None);
            bench.request(Request::get("/")).passes();
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ProxyControl>(
            &["{}", r#"{"request_buffering": true}"#],
            &[(r#"{"request_buffering": "off"}"#, "true or false"), (r#"{"buffering": true}"#, "found buffering")],
        );
    }
}
