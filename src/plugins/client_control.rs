//! `client-control`: the most that a client may send with one request.
//!
//! ```yaml
//! plugins:
//!   client-control:
//!     max_body_size: 1048576
//! ```
//!
//! A body that says it is larger is answered 413 at once, one that turns out to be as soon as that is seen. Differs from
//! APISIX: the bound of the process (`limits.body_bytes`) stays, whatever is written here; refuses unknown fields.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::model::field::InRange;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// Largest number that JSON carries everywhere.
const BYTES_MAX: i64 = (1 << 53) - 1;

/// Bounds the body of requests to a route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The most bytes of a request body; 0 sets no bound.
    max_body_size: Option<InRange<0, BYTES_MAX>>,
}

/// What the core reads.
pub struct ClientControl {
    /// 0 is no bound.
    body_bytes_max: u64,
}

impl Plugin for ClientControl {
    const NAME: &'static str = "client-control";
    const PRIORITY: i32 = 22000;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::bound);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self { body_bytes_max: config.max_body_size.map_or(0, InRange::u64) })
    }
}

impl ClientControl {
    fn bound<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let declared = ex.request.content_length.unwrap_or(0);
        if self.body_bytes_max > 0 && declared > self.body_bytes_max {
            return Step::Reply(Reply::status(413));
        }
        ex.request.body_bytes_max = ex.request.body_bound(self.body_bytes_max);
        Step::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check};

    fn of_length(length: Option<u64>) -> Request {
        Request::get("/").with(|ex| ex.request.content_length = length)
    }

    #[test]
    fn a_declared_length_is_judged_at_once_and_any_other_is_bounded() {
        let bench = check::<ClientControl>(r#"{"max_body_size": 5}"#).unwrap();
        bench.request(of_length(Some(6))).replies(413, "");
        for length in [None, Some(0), Some(5)] {
            assert_eq!(bench.request(of_length(length)).passes().ex.request.body_bytes_max, 5, "{length:?}");
        }
    }

    #[test]
    fn without_a_bound_all_passes() {
        for config in ["{}", r#"{"max_body_size": 0}"#] {
            let bench = check::<ClientControl>(config).unwrap();
            let outcome = bench.request(of_length(Some(u64::MAX))).passes();
            assert_eq!(outcome.ex.request.body_bytes_max, 0, "{config}");
        }
    }

    #[test]
    fn of_several_bounds_the_smallest_counts() {
        for (config, expected) in [(9, 5), (3, 3), (0, 5)] {
            let bench = check::<ClientControl>(&format!(r#"{{"max_body_size": {config}}}"#)).unwrap();
            let bounded = of_length(None).with(|ex| ex.request.body_bytes_max = 5);
            assert_eq!(bench.request(bounded).ex.request.body_bytes_max, expected);
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<ClientControl>(
            &["{}", r#"{"max_body_size": 9007199254740991}"#],
            &[
                (r#"{"max_body_size": -1}"#, "max_body_size"),
                (r#"{"max_body_size": "1"}"#, "max_body_size"),
                (r#"{"body": 1}"#, "additional properties forbidden, found body"),
            ],
        );
    }
}
