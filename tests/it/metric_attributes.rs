//! What the settings say of metrics as a whole: names, bounds, further labels; and the status of nodes in every answer.

use super::kit::{Gateway, Origin, eventually};

on_both_drivers!(
    names_bounds_and_labels_of_metrics_are_as_the_settings_say,
    metrics_are_read_where_apisix_had_them,
    the_status_of_the_node_is_told_where_it_is_wished,
);

const ATTRIBUTES: &str = "
plugin_attr:
  prometheus:
    metric_prefix: gw_
    default_buckets: [0.5, 60000]
    refresh_interval: 5
    metrics:
      http_status: {extra_labels: [{method: $request_method}, {kind: 'a-${arg_kind}'}], expire: 60}
      http_latency: {extra_labels: [{tenant: $http_x_tenant}]}
";

fn names_bounds_and_labels_of_metrics_are_as_the_settings_say() {
    let origin = Origin::replying("hello");
    let gateway =
        Gateway::routing("/*", [&origin]).route("plugins: {prometheus: {}}").settings(ATTRIBUTES).start();
    gateway.wait_said(&["plugin_attr.prometheus.refresh_interval is ignored"]);
    gateway.wait_said(&["plugin_attr.prometheus.metrics.http_status.expire is ignored"]);
    gateway.get("/?kind=x").expect_status(200);
    let headers = [("X-Tenant", "say \"a\"")];
    gateway.request("POST", "/", &headers, b"").expect_status(200);
    let page = eventually("both are counted", || {
        let page = gateway.metrics();
        let posted = "response_source=\"upstream\",method=\"POST\",kind=\"a-\"} 1";
        let got = "response_source=\"upstream\",method=\"GET\",kind=\"a-x\"} 1";
        // The last that come of a kind of request: bytes to clients, of which both are one, and before them times.
        let timed = "gw_http_latency_count{type=\"apisix\",route=\"1\"";
        let times = page.lines().filter(|line| line.starts_with(timed)).count();
        (page.contains(posted) && page.contains(got) && times == 2).then_some(page)
    });
    assert!(page.contains("gw_http_status{code=\"200\",route=\"1\""), "{page}");
    let bucket = |bound: &str| format!("llm_model=\"\",tenant=\"say \\\"a\\\"\",le=\"{bound}\"}}");
    for (bound, is_there) in [("0.5", true), ("60000", true), ("+Inf", true), ("1", false)] {
        assert_eq!(page.contains(&bucket(bound)), is_there, "{bound} in {page}");
    }
    for name in ["gw_http_requests_total", "gw_node_info", "gw_nginx_metric_errors_total 0"] {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} in {page}");
    }
    assert!(!page.contains("apisix_"), "{page}");
}

fn metrics_are_read_where_apisix_had_them() {
    let origin = Origin::replying("hello");
    let (code, said) = Gateway::routing("/*", [&origin])
        .settings("plugin_attr: {prometheus: {export_addr: {ip: 127.0.0.1, port: 9091}}}")
        .start_and_fail();
    assert_ne!(code, 0);
    assert!(said.contains("plugin_attr.prometheus.export_addr: means the same as metrics.listen"), "{said}");
    let (_, said) = Gateway::routing("/*", [&origin])
        .settings("plugin_attr: {prometheus: {default_buckets: [5, 1], metric_prefix: 'a b'}}")
        .start_and_fail();
    assert!(said.contains("plugin_attr.prometheus.default_buckets: expected a list of at most"), "{said}");
    assert!(
        said.contains("plugin_attr.prometheus.metric_prefix: expected the beginning of a name"),
        "{said}"
    );
}

fn the_status_of_the_node_is_told_where_it_is_wished() {
    let origin = Origin::replying("hello");
    let status = |settings: &str| {
        let gateway = Gateway::routing("/*", [&origin]).settings(settings).start();
        gateway.get("/").header("X-APISIX-Upstream-Status").map(str::to_owned)
    };
    assert_eq!(status("{}"), None);
    assert_eq!(status("show_upstream_status: true").as_deref(), Some("200"));
    assert_eq!(status("apisix: {show_upstream_status_in_response_header: true}").as_deref(), Some("200"));
}
