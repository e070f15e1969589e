//! `public-api`: shows the page of metrics at a route, behind whatever plugins that route has.
//!
//! ```yaml
//! plugins:
//!   key-auth: {}
//!   public-api: {uri: /apisix/prometheus/metrics}
//! ```
//!
//! The page is the one of the metrics listener, which may be off then (`metrics.enabled: false`). The request goes on to the
//! gateway's own control thread as to a node, so timeouts, logs and filters are those of any other. Differs from APISIX:
//! metrics are all there is to show; unknown fields are refused.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::exchange::{Exchange, Reply};
use crate::model::Upstream;
use crate::model::field::Text;
use crate::model::schema;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// Where the page is by itself.
const PAGES: [&str; 2] = ["/apisix/prometheus/metrics", "/metrics"];
/// The plugin whose attributes say where it is besides, and how.
const PROMETHEUS: &str = "prometheus";
const EXPORT_URI: &str = "export_uri";

/// Shows the page of metrics at a route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path of what is shown: `/apisix/prometheus/metrics`, `/metrics`, or what `plugin_attr.prometheus.export_uri` says.
    /// Absent: the request's own. Another is answered with 404.
    uri: Option<Text<1, 4096>>,
}

/// What the core reads.
pub struct PublicApi {
    uri: Option<Box<[u8]>>,
    pages: Vec<Box<[u8]>>,
    /// The control thread, as an upstream of the snapshot.
    control: u32,
}

impl Plugin for PublicApi {
    const NAME: &'static str = "public-api";
    const PRIORITY: i32 = 501;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::lead);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let own = cx.attribute_of(PROMETHEUS, EXPORT_URI).and_then(|uri| uri.as_str());
        let pages = PAGES.into_iter().chain(own).map(|page| page.as_bytes().into()).collect();
        let Some(node) = cx.public_node().map(str::to_owned) else {
            return Err(ConfigError::at("", "there is no control thread here to ask".to_owned()));
        };
        // Nobody else is there to be asked again.
        let upstream = json!({"nodes": [{"host": node, "weight": 1}], "retries": 0});
        let control = schema::parse::<Upstream>(upstream)
            .ok()
            .and_then(|upstream| cx.inline_upstream("uri", &upstream))
            .ok_or_else(|| {
                ConfigError::at("", format!("expected a shorter state_dir than that of {node}"))
            })?;
        Ok(Self { uri: config.uri.map(|uri| uri.as_str().as_bytes().into()), pages, control })
    }
}

impl PublicApi {
    fn lead<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let path = self.uri.as_deref().unwrap_or(&ex.request.path);
        if !self.pages.iter().any(|page| **page == *path) {
            return Step::Reply(Reply::status(404));
        }
        ex.upstream_at = Some(self.control);
        Step::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Desk, Request, agree};

    fn bench(config: &str) -> Bench<PublicApi> {
        Desk::new().compile("routes/1", config).unwrap()
    }

    #[test]
    fn the_page_is_asked_of_the_control_thread_and_nothing_else_is() {
        let bench = bench("{}");
        for path in PAGES {
            assert!(bench.request(Request::get(path)).passes().ex.upstream_at.is_some(), "{path}");
        }
        for path in ["/", "/metrics/", "/apisix/admin/routes", "/v1/limits"] {
            bench.request(Request::get(path)).replies(404, "");
        }
    }

    #[test]
    fn it_may_stand_at_another_path() {
        let there = bench(r#"{"uri": "/metrics"}"#);
        assert!(there.request(Request::get("/numbers")).passes().ex.upstream_at.is_some());
        bench(r#"{"uri": "/elsewhere"}"#).request(Request::get("/metrics")).replies(404, "");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<PublicApi>(
            &["{}", r#"{"uri": "/metrics"}"#],
            &[(r#"{"uri": ""}"#, "uri"), (r#"{"unknown": 1}"#, "additional properties forbidden, found unknown")],
        );
    }
}
