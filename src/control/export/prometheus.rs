//! The metrics listener: `/metrics`, and the path and names that dashboards made for APISIX ask for.
//!
//! The page is made from counters when asked, on the control thread; the cores do not notice. Series of several
//! cores with equal labels are summed. `apisix_*` latencies are in milliseconds as there; what is ours is in
//! seconds and bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::base::clock;
use crate::link::stats::{Latency, Series, SeriesValue};

use super::super::board::Board;
use super::super::health::name_of;
use super::super::log;
use super::exposition::{Kind, Page, escaped};
use super::{counters, process, upstreams};

/// What the listener serves.
pub(crate) fn router(board: Arc<Board>, export_uri: &str) -> Router {
    let uri = export_uri.to_owned();
    // A path that somebody wrote is compared, not read as a pattern.
    let elsewhere = move |State(board): State<Arc<Board>>, request: Request| async move {
        let is_ours = request.uri().path() == uri && [Method::GET, Method::HEAD].contains(request.method());
        if is_ours { answer(State(board)).await } else { StatusCode::NOT_FOUND.into_response() }
    };
    Router::new().route("/metrics", get(answer)).fallback(elsewhere).with_state(board)
}

async fn answer(State(board): State<Arc<Board>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page(&board)).into_response()
}

/// The whole page.
pub(super) fn page(board: &Board) -> String {
    let mut page = Page::new(board.metric_prefix());
    series(&mut page, &board.registry.all());
    compatible(&mut page, board);
    configuration(&mut page, board);
    names(&mut page, board);
    counters::write(&mut page, board);
    losses(&mut page, board);
    own_process(&mut page, board);
    page.finish()
}

/// What is printed of a family besides its samples.
fn help_of(family: &str) -> &'static str {
    match family {
        "http_status" => "HTTP status codes per service in the gateway",
        "http_latency" => "HTTP request latency in milliseconds per service in the gateway",
        "bandwidth" => "Total bandwidth in bytes consumed per service in the gateway",
        "limit_requests_total" => {
            "Requests by limit, and what it made of them: admitted, rejected, would_reject"
        }
        "limit_delayed_bytes_total" => {
            "Bytes of bodies that a limit of bandwidth had wait, or would have, by direction"
        }
        "limit_delay_ms_total" => {
            "Milliseconds that pieces of bodies waited for a limit of bandwidth, or would have"
        }
        "upstream_status" => "Upstream status from health checks, 1 is up",
        "llm_latency" => "Latency of requests to language models in milliseconds",
        "llm_prompt_tokens" => "Tokens of prompts sent to language models",
        "llm_completion_tokens" => "Tokens of completions received from language models",
        "stream_connection_total" => "Connections handled per stream route",
        "stream_active_connections" => "Connections of stream routes open now, by where they came in",
        "stream_status" => "How connections of stream routes ended, by where they came in and node",
        "stream_bandwidth" => "Bytes of stream routes by where they came in, direction and side",
        _ => "Announced by a plugin",
    }
}

/// The sum of equal series of several cores.
#[derive(Default)]
struct Sum {
    count: u64,
    /// The same in all series of a family.
    bounds_us: Arc<[u64]>,
    buckets: Vec<u64>,
    sum_us: u64,
}

impl Sum {
    fn add(&mut self, value: &SeriesValue) {
        match value {
            SeriesValue::Count(count) => self.count += count.get(),
            SeriesValue::Latency(latency) => self.add_latency(latency),
        }
    }

    fn add_latency(&mut self, latency: &Latency) {
        if self.buckets.is_empty() {
            self.bounds_us = Arc::clone(&latency.bounds_us);
            self.buckets = vec![0; latency.buckets.len()];
        }
        for (sum, bucket) in self.buckets.iter_mut().zip(&*latency.buckets) {
            *sum += bucket.get();
        }
        self.sum_us += latency.sum_us.get();
    }
}

/// The series that cores announced, by family and labels.
fn series(page: &mut Page, all: &[Arc<Series>]) {
    let mut families: BTreeMap<(&str, bool), BTreeMap<&str, Sum>> = BTreeMap::new();
    for one in all {
        let is_latency = matches!(one.value, SeriesValue::Latency(_));
        let family = families.entry((one.family, is_latency)).or_default();
        family.entry(&one.labels).or_default().add(&one.value);
    }
    for ((name, is_latency), sums) in families {
        let full_name = page.prefixed(name);
        let kind = match name {
            _ if is_latency => Kind::Histogram,
            "stream_active_connections" => Kind::Gauge,
            _ => Kind::Counter,
        };
        let mut family = page.family(&full_name, kind, help_of(name));
        for (labels, sum) in sums {
            if is_latency {
                let sum_ms = sum.sum_us as f64 / 1000.0;
                family.histogram(labels, &sum.bounds_us, 1000, &sum.buckets, sum_ms);
            } else {
                family.sample(labels, sum.count);
            }
        }
    }
}

/// The rest of APISIX's names.
fn compatible(page: &mut Page, board: &Board) {
    let requests = board.sum(|core| core.requests.get());
    let name = page.prefixed("http_requests_total");
    page.single(
        &name,
        Kind::Gauge,
        "The total number of client requests since the gateway started",
        requests,
    );
    let active = board.sum(|core| core.connections_active.get());
    let accepted = board.sum(|core| core.accepted.get());
    let writing = board.sum(|core| core.requests_active.get());
    let waiting = board.sum(|core| core.connections_idle.get());
    let reading = active.saturating_sub(writing).saturating_sub(waiting);
    let name = page.prefixed("nginx_http_current_connections");
    page.family(&name, Kind::Gauge, "Number of HTTP connections")
        .sample("state=\"accepted\"", accepted)
        .sample("state=\"active\"", active)
        .sample("state=\"handled\"", accepted)
        .sample("state=\"reading\"", reading)
        .sample("state=\"waiting\"", waiting)
        .sample("state=\"writing\"", writing);
    let labels =
        format!("hostname=\"{}\",version=\"{}\"", escaped(&process::hostname()), env!("CARGO_PKG_VERSION"));
    let name = page.prefixed("node_info");
    page.family(&name, Kind::Gauge, "Info of the gateway node").sample(&labels, 1);
    let name = page.prefixed("nginx_metric_errors_total");
    let help = "Series of metrics that found no room, and reports of them";
    let errors = board.sum(|core| core.series_overflow.get() + core.report_drops.get());
    page.single(&name, Kind::Counter, help, errors);
    waiting_entries(page, board);
    health(page, board);
}

/// Entries of logs that wait to be sent.
fn waiting_entries(page: &mut Page, board: &Board) {
    let waiting = board.shipped.waiting();
    if waiting.is_empty() {
        return;
    }
    let name = page.prefixed("batch_process_entries");
    let mut family = page.family(&name, Kind::Gauge, "Entries of logs that wait to be sent");
    for ((logger, place), entries) in waiting {
        // Batches of several routes travel together.
        let labels = format!("name=\"{logger}\",route_id=\"\",server_addr=\"{}\"", escaped(&place));
        family.sample(&labels, entries);
    }
}

/// Which nodes get requests, of the upstreams whose nodes are checked or may be ejected.
fn health(page: &mut Page, board: &Board) {
    upstreams::throttles(page, board);
    let mut watched = board.watched();
    watched.retain(|upstream| upstream.judges_nodes());
    if watched.is_empty() {
        return;
    }
    let name = page.prefixed("upstream_status");
    let mut family = page.family(&name, Kind::Gauge, help_of("upstream_status"));
    let now = clock::now();
    for upstream in &watched {
        let name = escaped(&name_of(upstream));
        for node in &upstream.nodes {
            let (ip, port) = (node.address.host(), node.address.port());
            let is_up = node.cell.as_ref().is_none_or(|cell| cell.is_up() && !cell.outlier.is_ejected(now));
            let labels = format!("name=\"{name}\",ip=\"{ip}\",port=\"{port}\"");
            family.sample(&labels, u8::from(is_up));
        }
    }
    upstreams::ejections(page, board, now);
}

fn configuration(page: &mut Page, board: &Board) {
    let labels = format!(
        "version=\"{}\",revision=\"{}\"",
        env!("CARGO_PKG_VERSION"),
        option_env!("RINGWAY_REVISION").unwrap_or("unknown")
    );
    page.family("ringway_build_info", Kind::Gauge, "What is running; always 1").sample(&labels, 1);
    let mut family = page.family(
        "ringway_config_generation",
        Kind::Gauge,
        "Generation of the configuration each core serves",
    );
    for (core, stats) in board.stats.iter().enumerate() {
        family.sample(&format!("core=\"{core}\""), stats.generation.get());
    }
    page.single(
        "ringway_config_published_generation",
        Kind::Gauge,
        "Generation of the configuration the cores were last given",
        board.generation(),
    );
    page.single(
        "ringway_config_last_reload_success",
        Kind::Gauge,
        "Whether the last configuration read was taken over",
        u8::from(board.reload_ok()),
    );
    page.single(
        "ringway_config_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When configuration was last taken over",
        board.reload_at() as f64 / 1000.0,
    );
    page.single(
        "ringway_config_reloads_refused_total",
        Kind::Counter,
        "Configurations that were refused whole",
        board.reloads_refused(),
    );
    page.single(
        "ringway_quarantined_objects",
        Kind::Gauge,
        "Objects set aside for their faults",
        board.quarantined_count(),
    );
    certificates(page, board);
    acme(page, board);
    let Some(etcd) = board.etcd() else { return };
    let reachable = "Whether the etcd that holds the objects answers";
    let name = page.prefixed("etcd_reachable");
    page.single(&name, Kind::Gauge, reachable, u8::from(etcd.is_reachable));
    let name = page.prefixed("etcd_modify_indexes");
    let mut family = page.family(&name, Kind::Gauge, "Revisions of etcd at which objects were last written");
    for (key, index) in etcd.indexes.told() {
        family.sample(&format!("key=\"{key}\""), index);
    }
    family.sample("key=\"x_etcd_index\"", etcd.revision);
    page.single("ringway_etcd_revision", Kind::Gauge, "Revision of etcd that is served", etcd.revision);
    page.single(
        "ringway_etcd_missing_objects",
        Kind::Gauge,
        "Objects that are served though etcd has lost them all, until that is confirmed",
        etcd.missing,
    );
}

/// Most certificates of which the end is told.
const CERTIFICATES_MAX: usize = 10_000;

fn certificates(page: &mut Page, board: &Board) {
    let shown = board.certificates();
    let mut ends: Vec<_> = shown.ends().collect();
    if ends.is_empty() {
        return;
    }
    ends.sort_unstable_by_key(|end| end.not_after);
    let mut family = page.family(
        "ringway_certificate_not_after_seconds",
        Kind::Gauge,
        "Until when a certificate that is shown to clients, or to nodes (type client), holds, in seconds since 1970",
    );
    for end in ends.into_iter().take(CERTIFICATES_MAX) {
        let labels = format!("ssl=\"{}\",type=\"{}\"", escaped(end.ssl), end.kind());
        family.sample(&labels, end.not_after);
    }
}

/// Certificates that are asked for, where any is.
fn acme(page: &mut Page, board: &Board) {
    let Some((sight, awaited)) = board.acme().and_then(|sight| Some((sight, sight.awaited()?))) else {
        return;
    };
    let mut family = page.family(
        "ringway_acme_orders_total",
        Kind::Counter,
        "Certificates asked for of an authority, by what came of it",
    );
    for (result, count) in sight.orders() {
        family.sample(&format!("result=\"{result}\""), count);
    }
    let help = "Ssls for which an authority is asked and that have no certificate yet";
    page.single("ringway_acme_awaited", Kind::Gauge, help, awaited);
}

/// Names of nodes and of services, where any was asked for.
fn names(page: &mut Page, board: &Board) {
    let Some(tally) = board.names() else { return };
    let failed: Vec<_> = tally.failed().collect();
    if tally.answered() == 0 && failed.iter().all(|(_, count)| *count == 0) {
        return;
    }
    let answered = "Names that name servers or the file of hosts had an answer for";
    page.single("ringway_dns_answers_total", Kind::Counter, answered, tally.answered());
    let help = "Names that had no answer, by why; what was known of them stays";
    let mut family = page.family("ringway_dns_failures_total", Kind::Counter, help);
    for (reason, count) in failed {
        family.sample(&format!("reason=\"{reason}\""), count);
    }
}

fn losses(page: &mut Page, board: &Board) {
    page.family(
        "ringway_log_dropped_total",
        Kind::Counter,
        "Log lines lost: on a core, in the access log, in the process log",
    )
    .sample("place=\"core\"", board.sum(|core| core.log_drops.get()))
    .sample("place=\"access_log\"", board.lines_lost.load(Ordering::Relaxed))
    .sample("place=\"process_log\"", log::lost());
    page.single(
        "ringway_report_dropped_total",
        Kind::Counter,
        "Reports of cores that found no room",
        board.sum(|core| core.report_drops.get()),
    );
    page.single(
        "ringway_patterns_given_up_total",
        Kind::Counter,
        "Matches of patterns that need backtracking which tried too often and counted as none",
        crate::snapshot::patterns_given_up(),
    );
    page.single(
        "ringway_series_overflow_total",
        Kind::Counter,
        "Metric series refused because a core had too many",
        board.sum(|core| core.series_overflow.get()),
    );
}

fn own_process(page: &mut Page, board: &Board) {
    let started = board.started_at as f64 / 1000.0;
    page.single("process_start_time_seconds", Kind::Gauge, "When the process started", started);
    let mut known = |name: &str, kind: Kind, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            page.single(name, kind, help, value);
        }
    };
    let float = |value: Option<u64>| value.map(|value| value as f64);
    known("process_cpu_seconds_total", Kind::Counter, "Processor time spent", process::cpu_seconds());
    known("process_resident_memory_bytes", Kind::Gauge, "Memory held", float(process::resident_bytes()));
    known("process_open_fds", Kind::Gauge, "File descriptors open", float(process::open_fds()));
    known("process_max_fds", Kind::Gauge, "File descriptors allowed", float(process::max_fds()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::stats::{CoreStats, latency_bounds};
    use crate::snapshot::compile::Quarantined;

    fn board() -> Board {
        let stats: Vec<Arc<CoreStats>> = vec![Arc::default(), Arc::default()];
        for core in &stats {
            core.generation.set(7);
            core.requests.add(5);
            core.reasons[1].add(2);
        }
        let board = Board::new(stats, &["route_not_found", "upstream_timeout"]);
        for _core in 0..2 {
            let status = Series::count("http_status", "code=\"200\",route=\"1\"".to_owned());
            status.add(3);
            board.registry.add(Arc::new(status));
            let latency = Series::latency("http_latency", "type=\"request\"".to_owned(), &latency_bounds());
            latency.observe(Duration::from_micros(1500));
            latency.observe(Duration::from_secs(90));
            board.registry.add(Arc::new(latency));
        }
        let object = Quarantined {
            kind: crate::model::Kind::Route,
            id: "9".to_owned(),
            faults: Vec::new(),
            last_good: false,
            refuses: false,
        };
        board.reloaded(784_111_777_500, 7, &[object], Vec::new());
        board
    }

    /// The lines of a family, without its head.
    fn lines(text: &str, family: &str) -> Vec<String> {
        let start =
            |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with([' ', '{', '_']));
        text.lines().filter(start).map(str::to_owned).collect()
    }

    #[test]
    fn equal_series_of_two_cores_are_printed_once_and_summed() {
        let text = page(&board());
        assert_eq!(lines(&text, "apisix_http_status"), ["apisix_http_status{code=\"200\",route=\"1\"} 6"]);
    }

    #[test]
    fn latencies_are_cumulative_buckets_in_milliseconds() {
        let mut page = Page::new("apisix_");
        series(&mut page, &board().registry.all()[1..2]);
        let expected = "\
# HELP apisix_http_latency HTTP request latency in milliseconds per service in the gateway
# TYPE apisix_http_latency histogram
apisix_http_latency_bucket{type=\"request\",le=\"1\"} 0
apisix_http_latency_bucket{type=\"request\",le=\"2\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"5\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"10\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"20\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"50\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"100\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"200\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"500\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"1000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"2000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"5000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"10000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"30000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"60000\"} 1
apisix_http_latency_bucket{type=\"request\",le=\"+Inf\"} 2
apisix_http_latency_sum{type=\"request\"} 90001.5
apisix_http_latency_count{type=\"request\"} 2
";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn the_gateway_tells_of_configuration_reasons_and_itself() {
        let text = page(&board());
        for line in [
            "apisix_http_requests_total 10",
            "ringway_config_generation{core=\"1\"} 7",
            "ringway_config_last_reload_success 1",
            "ringway_config_last_reload_timestamp_seconds 784111777.5",
            "ringway_quarantined_objects 1",
            "ringway_responses_total{reason=\"upstream_timeout\"} 4",
            "ringway_responses_total{reason=\"route_not_found\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_family_has_one_head_and_every_sample_a_family() {
        let text = page(&board());
        let mut seen = std::collections::BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().expect("a name").to_owned();
                assert!(seen.insert(current.clone()), "{current} has two heads");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&current), "{line} stands under {current}");
                let value = line.rsplit(' ').next().expect("a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
