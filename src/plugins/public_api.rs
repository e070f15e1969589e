//! `public-api`: serves an endpoint of the gateway itself on a route, behind whatever plugins the route has.
//!
//! ```yaml
//! plugins:
//!   public-api:
//!     uri: /apisix/prometheus/metrics
//! ```
//!
//! There is one endpoint: the page of metrics, at `plugin_attr.prometheus.export_uri`. Any other path is 404. The control side makes the
//! page; the core serves others meanwhile, and answers 503 where four requests of it wait for a page already, or none comes within five
//! seconds. Differs from APISIX: there is no other endpoint; the page is made when asked; HEAD is served like GET; refuses unknown fields.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::link::inquiry::Subject;
use crate::model::field::Text;
use crate::model::settings::exported::METRICS_URI;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step, Verdict};
use crate::proto::head::Method;
use crate::runtime::inquiry::ask;

/// Serves an endpoint of the gateway itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path of the endpoint. Absent: that of the request.
    uri: Option<Text<1, 4096>>,
}

/// What the core reads.
pub struct PublicApi {
    /// The path that is asked for, whatever the request's is.
    path: Option<Box<[u8]>>,
    /// Where metrics are.
    metrics: Box<[u8]>,
}

impl Plugin for PublicApi {
    const NAME: &'static str = "public-api";
    const PRIORITY: i32 = 501;
    type Config = Config;
    type Metadata = NoMetadata;

    const ACCESS: Gate<Self> = Some(Self::serve);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let metrics = match cx.attribute_of("prometheus", "export_uri") {
            None => METRICS_URI,
            Some(value) => value.as_str().filter(|uri| uri.starts_with('/')).ok_or_else(|| {
                let problem = format!("expected a path in plugin_attr.prometheus.export_uri, got {value}");
                ConfigError::new(problem)
            })?,
        };
        Ok(Self {
            path: config.uri.map(|uri| uri.as_bytes().into()),
            metrics: metrics.as_bytes().into(),
        })
    }
}

impl PublicApi {
    fn serve<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let path = self.path.as_deref().unwrap_or(&ex.request.path);
        if *path != *self.metrics || !matches!(ex.request.method(), Method::Get | Method::Head) {
            return Step::Reply(Reply::status(404));
        }
        Step::Wait(Box::pin(async move {
            Verdict::Reply(match ask(env.core, Subject::Metrics).await {
                Some(page) => {
                    Reply::bytes(200, page).with("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                }
                None => Reply::status(503),
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Desk, Request, check, refuses};

    #[test]
    fn what_is_no_endpoint_is_not_found() {
        let bench = check::<PublicApi>("{}").unwrap();
        for path in ["/", "/apisix/prometheus", "/apisix/prometheus/metrics/", "/apisix/status"] {
            bench.request(Request::get(path)).replies(404, "");
        }
        let bench = check::<PublicApi>(r#"{"uri":"/apisix/nothing"}"#).unwrap();
        bench.request(Request::get(METRICS_URI)).replies(404, "");
    }

    #[test]
    fn a_faulty_use_is_refused_with_its_reason() {
        refuses::<PublicApi>(r#"{"uri":1}"#, "uri: ");
        refuses::<PublicApi>(r#"{"uri":""}"#, "uri: ");
        refuses::<PublicApi>(r#"{"url":"/a"}"#, "url");
        let mut desk = Desk::new().attributes("prometheus", r#"{"export_uri":7}"#);
        let fault = desk.compile::<PublicApi>("routes/1", "{}").err().map(|faults| faults[0].to_string());
        let expected = "expected a path in plugin_attr.prometheus.export_uri, got 7";
        assert!(fault.as_ref().is_some_and(|fault| fault.contains(expected)), "{fault:?}");
    }
}
