//! `prometheus`: counts requests, times and bytes by route, service, consumer and node.
//!
//! ```yaml
//! plugins:
//!   prometheus:
//!     prefer_name: true
//! ```
//!
//! Families: `http_status`, `http_latency` (in milliseconds, `type` is `request`, `upstream` or `apisix`, the last
//! being what the gateway itself took), `bandwidth` (bytes, `type` is `ingress` or `egress`). Labels are names from
//! configuration, a node's address and a status: nothing a client writes makes a series. When a core has made all
//! the series it may, the rest is counted in one more of each kind, labelled `overflow="true"`.
//!
//! On a stream route it counts connections: `stream_connection_total`, `stream_active_connections`, `stream_status` and
//! `stream_bandwidth` (of which `ingress` is what comes to the gateway, `side` where from).
//!
//! Cost: one look-up a request, by what tells series apart; nothing is allocated after the first of a kind.
//! Differs from APISIX: `response_source` is `gateway` or `upstream`; a metric's labels are ours to order once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::address::Address;
use crate::base::clock::Moment;
use crate::base::hash::{Map, stable};
use crate::expr::Var;
use crate::exchange::{Exchange, SlotId, Source};
use crate::link::stats::{Series, latency_bounds};
use crate::model::settings::exported::bounds_us;
use crate::plugin::{CompileCx, ConfigError, Env, Gate, Observe, Plugin};
use crate::runtime::{Core, LocalId};

#[path = "prometheus/extra.rs"]
mod extra;
#[path = "prometheus/streams.rs"]
mod streams;

use extra::Extra;
use streams::StreamMeters;

/// Kinds of request a core remembers the series of; beyond, it starts over. A kind takes some 200 bytes.
const KINDS_MAX: usize = 16_384;

/// The labels of each family, in the order they are printed in.
const FAMILIES: [(&str, &[&str]); 3] = [
    (
        "http_status",
        &[
            "code",
            "route",
            "matched_uri",
            "matched_host",
            "service",
            "consumer",
            "node",
            "request_type",
            "request_llm_model",
            "llm_model",
            "response_source",
        ],
    ),
    ("http_latency", &PARTY_LABELS),
    ("bandwidth", &PARTY_LABELS),
];
const PARTY_LABELS: [&str; 8] =
    ["type", "route", "service", "consumer", "node", "request_type", "request_llm_model", "llm_model"];
/// Labels without which a family means nothing.
const NEEDED: [&str; 2] = ["code", "type"];

/// Counts requests, times and bytes by route, service, consumer and node.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Are routes and services told by name, where they have one, rather than by id?
    #[serde(default)]
    prefer_name: bool,
}

/// Which labels stay empty.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Lists of labels by family, which stay with an empty value: `{http_status: [node]}`. `code` and `type` can not be
    /// disabled.
    #[serde(default)]
    disabled_labels: BTreeMap<String, Vec<String>>,
}

/// What the core reads.
pub struct Prometheus {
    prefer_name: bool,
    /// By family, a bit for each label that stays empty.
    disabled: [u16; FAMILIES.len()],
    /// Labels that the settings add, by family.
    extra: [Vec<Extra>; FAMILIES.len()],
    /// Bounds of histograms, in microseconds.
    bounds: Arc<[u64]>,
    /// Tells uses apart that label otherwise.
    shape: u64,
    meters: LocalId,
    /// Of a stream that is open.
    active: SlotId,
}

/// The series of one core.
struct Meters {
    kinds: RefCell<Map<Box<[u8]>, Rc<Kind>>>,
    /// Every series made, by family and labels: several kinds share those that do not tell them apart.
    announced: RefCell<Map<String, Arc<Series>>>,
    overflow: Rc<Kind>,
    streams: StreamMeters,
    key: RefCell<Vec<u8>>,
    /// Of the request before, which is mostly that of the next one, too.
    last: RefCell<Option<(Vec<u8>, Rc<Kind>)>>,
}

/// The series that requests of one kind are counted in.
#[derive(Clone)]
struct Kind {
    status: Arc<Series>,
    request: Arc<Series>,
    upstream: Option<Arc<Series>>,
    apisix: Arc<Series>,
    ingress: Arc<Series>,
    egress: Arc<Series>,
}

/// The values of labels of one exchange.
struct Labels<'e> {
    code: u16,
    route: &'e str,
    matched_uri: &'e str,
    matched_host: &'e str,
    service: &'e str,
    consumer: &'e str,
    node: Option<Address>,
    source: Source,
    /// Of labels that the settings add, in the order of families: empty where there are none.
    extra: Vec<String>,
}

impl Plugin for Prometheus {
    const NAME: &'static str = "prometheus";
    const PRIORITY: i32 = 500;
    const PREFER_ROUTE: bool = true;
    type Config = Config;
    type Metadata = Metadata;

    const PREREAD: Gate<Self> = Some(Self::begin);
    const LOG: Observe<Self> = Some(Self::count);

    fn compile(config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let mut disabled = [0; FAMILIES.len()];
        for (family, labels) in &metadata.disabled_labels {
            // Families of others are APISIX's to have.
            let Some(at) = FAMILIES.iter().position(|(name, _)| name == family) else { continue };
            for label in labels {
                let path = || format!("disabled_labels.{family}");
                if NEEDED.contains(&label.as_str()) {
                    return Err(ConfigError::at(path(), format!("label {label} cannot be disabled")));
                }
                let place = FAMILIES[at].1.iter().position(|name| name == label);
                let place = place.ok_or_else(|| ConfigError::at(path(), format!("there is no label {label}")))?;
                disabled[at] |= 1 << place;
            }
        }
        let shape = stable(format!("{}{disabled:?}", config.prefer_name).as_bytes());
        let extra = extra::of_settings(cx.attribute("metrics"))?;
        let bounds = match cx.attribute("default_buckets") {
            Some(written) => bounds_us(written)
                .map_err(|problem| ConfigError::new(format!("plugin_attr.prometheus.default_buckets: {problem}")))?
                .into(),
            None => latency_bounds(),
        };
        let (meters, active) = (cx.local_of_all_uses(), cx.slot());
        Ok(Self { prefer_name: config.prefer_name, disabled, extra, bounds, shape, meters, active })
    }

    fn reads_sent_head(&self) -> bool {
        self.extra.iter().flatten().any(|extra| extra.value.vars().any(Var::is_of_response_head))
    }
}

impl Prometheus {
    fn count(&self, ex: &Exchange, env: Env<'_>) {
        if ex.stream.is_on() {
            return self.count_stream(ex, env);
        }
        let kind = self.meters(env.core).kind(self, ex, env.core);
        let finished = if ex.timing.finished == Moment::ZERO { env.core.now() } else { ex.timing.finished };
        let whole = finished.since(ex.timing.received);
        let upstream = if ex.attempts.is_empty() { Duration::ZERO } else { ex.timing.upstream };
        kind.status.add(1);
        kind.request.observe(whole);
        if let Some(series) = &kind.upstream {
            series.observe(upstream);
        }
        kind.apisix.observe(whole.saturating_sub(upstream));
        kind.ingress.add(ex.bytes_in);
        kind.egress.add(ex.bytes_out);
    }

    fn meters(&self, core: &Core) -> Rc<Meters> {
        core.local(self.meters, || Meters::new(core, self))
    }

    /// Appends what tells a kind of request from others, with the lengths that keep neighbours apart.
    fn write_key(&self, ex: &Exchange, extra: &[String], out: &mut Vec<u8>) {
        let about = u64::from(ex.response.status) << 1 | u64::from(ex.response.source == Source::Upstream);
        let (sort, node) = match ex.last_attempt().map(|attempt| attempt.node) {
            None => (0, 0),
            Some(Address::Unix(path)) => (1, u128::from(path.number())),
            Some(Address::Ip(node)) => match node.ip() {
                IpAddr::V4(v4) => (2, v4.to_ipv6_mapped().to_bits()),
                IpAddr::V6(v6) => (2, v6.to_bits()),
            },
        };
        let consumer = ex.consumer.name().as_bytes();
        let words = [self.shape, about << 2 | sort, node as u64, (node >> 64) as u64, consumer.len() as u64];
        out.extend_from_slice(words.map(u64::to_ne_bytes).as_flattened());
        out.extend_from_slice(consumer);
        ex.route.write_key(out);
        for text in extra {
            out.extend_from_slice(&(text.len() as u32).to_ne_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn labels<'e>(&self, ex: &'e Exchange, extra: Vec<String>) -> Labels<'e> {
        Labels {
            code: ex.response.status,
            route: self.name_or_id(ex.route.route_name(), ex.route.route_id()),
            matched_uri: ex.route.matched_uri(),
            matched_host: ex.route.matched_host(),
            service: self.name_or_id(ex.route.service_name(), ex.route.service_id()),
            consumer: ex.consumer.name(),
            node: ex.last_attempt().map(|attempt| attempt.node),
            source: ex.response.source,
            extra,
        }
    }

    /// What an object is told by.
    const fn name_or_id<'e>(&self, name: &'e str, id: &'e str) -> &'e str {
        if self.prefer_name && !name.is_empty() { name } else { id }
    }

    /// Whether the label at that place of a family stays empty.
    const fn is_disabled(&self, family: usize, label: usize) -> bool {
        self.disabled[family] & 1 << label != 0
    }
}

impl Labels<'_> {
    /// Appends the value of a label, escaped; `flow` is the value of `type`.
    fn write(&self, label: &str, flow: &str, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match label {
            "code" => write!(out, "{}", self.code),
            "type" => out.write_str(flow),
            "route" => escape(self.route, out),
            "matched_uri" => escape(self.matched_uri, out),
            "matched_host" => escape(self.matched_host, out),
            "service" => escape(self.service, out),
            "consumer" => escape(self.consumer, out),
            "node" => self.node.map_or(Ok(()), |node| write!(out, "{}", node.host())),
            "request_type" => out.write_str("traditional_http"),
            "response_source" => out.write_str(self.source.text()),
            _ => Ok(()),
        };
    }
}

/// The text form's escapes: backslash, quote, line feed.
fn escape(text: &str, out: &mut String) -> std::fmt::Result {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    Ok(())
}

/// The places in [`FAMILIES`].
const STATUS: usize = 0;
const LATENCY: usize = 1;
const BANDWIDTH: usize = 2;

impl Meters {
    /// The series for the rest are announced first, so that there is always room for them.
    fn new(core: &Core, plugin: &Prometheus) -> Self {
        let series = |family: usize, flow: &str| {
            let mut text = String::new();
            for label in FAMILIES[family].1 {
                let value = if *label == "type" { flow } else { "" };
                let _ = write!(text, "{label}=\"{value}\",");
            }
            for extra in &plugin.extra[family] {
                let _ = write!(text, "{}=\"\",", extra.name);
            }
            text.push_str("overflow=\"true\"");
            // Two of the same labels are summed when printed, so the second serves for counting.
            let make = |text| make(family, text, &plugin.bounds);
            core.announce(make(text.clone())).unwrap_or_else(|| Arc::new(make(text)))
        };
        let overflow = Kind {
            status: series(STATUS, ""),
            request: series(LATENCY, "request"),
            upstream: Some(series(LATENCY, "upstream")),
            apisix: series(LATENCY, "apisix"),
            ingress: series(BANDWIDTH, "ingress"),
            egress: series(BANDWIDTH, "egress"),
        };
        Self {
            kinds: RefCell::default(),
            announced: RefCell::default(),
            overflow: Rc::new(overflow),
            streams: StreamMeters::default(),
            key: RefCell::default(),
            last: RefCell::default(),
        }
    }

    fn kind(&self, plugin: &Prometheus, ex: &Exchange, core: &Core) -> Rc<Kind> {
        let extra = extra::values(&plugin.extra, ex);
        let mut key = self.key.borrow_mut();
        key.clear();
        plugin.write_key(ex, &extra, &mut key);
        let last = &mut *self.last.borrow_mut();
        if let Some((_, kind)) = last.as_ref().filter(|(of, _)| *of == *key) {
            return Rc::clone(kind);
        }
        let mut kinds = self.kinds.borrow_mut();
        if let Some(kind) = kinds.get(key.as_slice()) {
            let (of, last) = last.get_or_insert_with(|| (Vec::new(), Rc::clone(kind)));
            of.clone_from(&key);
            *last = Rc::clone(kind);
            return Rc::clone(kind);
        }
        let refused_before = core.stats.series_overflow.get();
        let made = self.make_kind(plugin, &plugin.labels(ex, extra), core).map(Rc::new);
        let full = core.stats.series_overflow.get() != refused_before;
        let kind = match made {
            Some(kind) => kind,
            // For good; a report queue that is full only now is tried again with the next request.
            None if full => Rc::clone(&self.overflow),
            None => return Rc::clone(&self.overflow),
        };
        if kinds.len() >= KINDS_MAX {
            kinds.clear();
        }
        kinds.insert(key.as_slice().into(), Rc::clone(&kind));
        kind
    }

    /// `None` when one of the series finds no room. Those made before stay, and are found the next time.
    fn make_kind(&self, plugin: &Prometheus, labels: &Labels<'_>, core: &Core) -> Option<Kind> {
        let series = |family, flow| self.series(plugin, labels, core, (family, flow));
        Some(Kind {
            status: series(STATUS, "")?,
            request: series(LATENCY, "request")?,
            upstream: match labels.node {
                Some(_) => Some(series(LATENCY, "upstream")?),
                None => None,
            },
            apisix: series(LATENCY, "apisix")?,
            ingress: series(BANDWIDTH, "ingress")?,
            egress: series(BANDWIDTH, "egress")?,
        })
    }

    fn series(
        &self,
        plugin: &Prometheus,
        labels: &Labels<'_>,
        core: &Core,
        (family, flow): (usize, &str),
    ) -> Option<Arc<Series>> {
        let mut text = String::new();
        for (place, label) in FAMILIES[family].1.iter().enumerate() {
            text.push_str(if place == 0 { "" } else { "," });
            text.push_str(label);
            text.push_str("=\"");
            if !plugin.is_disabled(family, place) {
                labels.write(label, flow, &mut text);
            }
            text.push('"');
        }
        let before: usize = plugin.extra[..family].iter().map(Vec::len).sum();
        for (extra, value) in plugin.extra[family].iter().zip(labels.extra.iter().skip(before)) {
            let _ = write!(text, ",{}=\"", extra.name);
            let _ = escape(value, &mut text);
            text.push('"');
        }
        let name = format!("{}{{{text}}}", FAMILIES[family].0);
        let mut announced = self.announced.borrow_mut();
        if let Some(series) = announced.get(&name) {
            return Some(Arc::clone(series));
        }
        let series = core.announce(make(family, text, &plugin.bounds))?;
        announced.insert(name, Arc::clone(&series));
        Some(series)
    }
}

fn make(family: usize, labels: String, bounds: &Arc<[u64]>) -> Series {
    let name = FAMILIES[family].0;
    if family == LATENCY { Series::latency(name, labels, bounds) } else { Series::count(name, labels) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Attempt, ConsumerLabels, RouteLabels};
    use crate::link::stats::SeriesValue;
    use crate::plugin::testing::{Bench, Desk, Request, agree, check};
    use crate::runtime::Limits;

    fn request() -> Request {
        Request::get("/raw/path").with(|ex| {
            ex.route = RouteLabels::new("7", "seven", "3", "third", "/raw/*", "*.a.com");
            ex.consumer = ConsumerLabels::new("ja\"ck", "", "", "");
            ex.timing.received = Moment::from_nanos(1);
            ex.timing.finished = Moment::from_nanos(30_000_001);
            ex.timing.upstream = Duration::from_millis(20);
            ex.bytes_in = 100;
            ex.bytes_out = 2000;
            ex.attempts.push(Attempt {
                node: "[::ffff:10.0.0.1]:80".parse().unwrap(),
                status: 200,
                connect: Duration::ZERO,
                header: Duration::ZERO,
                total: Duration::ZERO,
                reused: true,
            });
        })
    }

    /// All series that are not for the rest, as `family{labels} value`, sorted.
    fn lines(series: &[Arc<Series>]) -> Vec<String> {
        let mut lines: Vec<String> = series
            .iter()
            .filter(|series| !series.labels.contains("overflow"))
            .map(|series| {
                let value = match &series.value {
                    SeriesValue::Count(count) => count.get(),
                    SeriesValue::Latency(latency) => latency.sum_us.get(),
                };
                format!("{}{{{}}} {value}", series.family, series.labels)
            })
            .collect();
        lines.sort();
        lines
    }

    fn bench(config: &str) -> Bench<Prometheus> {
        check::<Prometheus>(config).unwrap()
    }

    #[test]
    fn a_request_is_counted_under_all_its_labels() {
        let bench = bench("{}");
        bench.request(request()).response(200, &[], b"");
        let party = r#"route="7",service="3",consumer="ja\"ck",node="10.0.0.1",request_type="traditional_http",request_llm_model="",llm_model="""#;
        assert_eq!(
            lines(&bench.series()),
            [
                format!(r#"bandwidth{{type="egress",{party}}} 2000"#),
                format!(r#"bandwidth{{type="ingress",{party}}} 100"#),
                format!(r#"http_latency{{type="apisix",{party}}} 10000"#),
                format!(r#"http_latency{{type="request",{party}}} 30000"#),
                format!(r#"http_latency{{type="upstream",{party}}} 20000"#),
                r#"http_status{code="200",route="7",matched_uri="/raw/*",matched_host="*.a.com",service="3",consumer="ja\"ck",node="10.0.0.1",request_type="traditional_http",request_llm_model="",llm_model="",response_source="upstream"} 1"#.to_owned(),
            ]
        );
    }

    #[test]
    fn only_what_is_new_makes_a_series() {
        let bench = bench("{}");
        bench.request(request()).response(200, &[], b"");
        let first = bench.series();
        bench.request(request()).response(200, &[], b"");
        assert_eq!(bench.series().len(), 0);
        assert!(lines(&first).last().is_some_and(|line| line.ends_with(" 2")));
        bench.request(request()).response(404, &[], b"");
        let families: Vec<_> = bench.series().iter().map(|series| series.family).collect();
        assert_eq!(families, ["http_status"], "times and bytes are not told apart by status");
    }

    #[test]
    fn without_a_node_there_is_no_time_of_upstream() {
        let bench = bench("{}");
        bench.request(request().with(|ex| ex.attempts.clear())).response(200, &[], b"");
        let lines = lines(&bench.series());
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.contains(r#"node="""#) && !line.contains(r#"type="upstream""#)));
        assert!(lines.iter().any(|line| line.starts_with(r#"http_latency{type="apisix""#) && line.ends_with(" 30000")));
    }

    #[test]
    fn names_take_the_place_of_ids_when_preferred() {
        let bench = bench(r#"{"prefer_name":true}"#);
        bench.request(request()).response(200, &[], b"");
        assert!(lines(&bench.series())[0].contains(r#"route="seven",service="third""#));
        let nameless = request().with(|ex| ex.route = RouteLabels::new("7", "", "3", "", "/", ""));
        bench.request(nameless).response(200, &[], b"");
        assert!(lines(&bench.series())[0].contains(r#"route="7",service="3""#));
    }

    #[test]
    fn disabled_labels_stay_and_are_empty() {
        let with = |metadata: &str| {
            Desk::new().metadata("prometheus", metadata).compile::<Prometheus>("routes/1", "{}")
        };
        let bench = with(r#"{"disabled_labels":{"http_status":["node","matched_uri"],"llm_latency":["node"]}}"#).unwrap();
        bench.request(request()).response(200, &[], b"");
        let lines = lines(&bench.series());
        assert!(lines[0].contains(r#"node="10.0.0.1""#));
        assert!(lines[5].contains(r#"matched_uri="",matched_host="*.a.com""#) && lines[5].contains(r#"node="""#));
        for refused in [
            r#"{"disabled_labels":{"http_status":["code"]}}"#,
            r#"{"disabled_labels":{"bandwidth":["type"]}}"#,
            r#"{"disabled_labels":{"bandwidth":["code"]}}"#,
            r#"{"disabled_labels":{"http_status":["host"]}}"#,
            r#"{"disabled_labels":["node"]}"#,
            r#"{"labels":{}}"#,
        ] {
            assert!(with(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn when_there_is_no_room_the_rest_is_counted_together() {
        // Six for the rest, six for the first kind, and one more.
        let limits = Limits { series_max: 13, ..Limits::default() };
        let bench = Desk::with_limits(limits).compile::<Prometheus>("routes/1", "{}").unwrap();
        for code in [200, 201, 202, 203, 203] {
            bench.request(request()).response(code, &[], b"");
        }
        let series = bench.series();
        assert_eq!(series.len(), 13);
        let rest: Vec<_> = series.iter().filter(|series| series.labels.contains("overflow=\"true\"")).collect();
        assert_eq!(rest.len(), 6);
        let SeriesValue::Count(count) = &rest[0].value else { panic!("http_status counts") };
        assert_eq!((rest[0].family, count.get()), ("http_status", 3));
        assert!(rest[0].labels.starts_with(r#"code="",route="","#), "{}", rest[0].labels);
        assert_eq!(bench.core().stats.series_overflow.get(), 2, "a kind is refused once, not each time");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<Prometheus>(
            &["{}", r#"{"prefer_name":false}"#],
            &[
                (r#"{"prefer_name":"yes"}"#, "true or false"),
                (r#"{"prefer_names":true}"#, "additional properties forbidden, found prefer_names"),
            ],
        );
    }
}
