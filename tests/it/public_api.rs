//! The gateway's own endpoints on the port of clients: who may see them, and what becomes of others meanwhile.

use super::kit::{Gateway, Origin, Setup, eventually};

on_both_drivers!(
    metrics_are_served_on_a_route_for_who_has_a_key,
    a_path_of_ones_own_is_where_metrics_are_and_their_port_is_closed,
    many_who_ask_at_once_cost_nobody_else,
);

const KEYED: &str = "
routes:
  - {id: m, uri: /metrics, plugins: {key-auth: {}, public-api: {uri: /apisix/prometheus/metrics}}}
  - {id: own, uri: '/*', plugins: {public-api: {}}}
  - {id: o, uri: /hello, plugins: {prometheus: {}}, upstream: {nodes: {ORIGIN: 1}}}
consumers:
  - {username: scraper, plugins: {key-auth: {key: k}}}
";

fn gateway(origin: &Origin) -> Setup {
    Gateway::resources(KEYED, &[("ORIGIN", origin)])
}

fn metrics_are_served_on_a_route_for_who_has_a_key() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin).start();
    gateway.get("/hello").expect(200, "hello");
    gateway.get("/metrics").expect_status(401);
    let mut client = gateway.client();
    eventually("the series is told", || {
        let page = client.request("GET", "/metrics", &[("apikey", "k")], b"");
        page.expect_status(200);
        assert_eq!(page.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        page.text().contains("apisix_http_status{code=\"200\",route=\"o\"").then_some(())
    });
    // What the port for metrics says has the same families.
    let own = client.get("/apisix/prometheus/metrics");
    let families = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(families(&own.expect_status(200).text()), families(&gateway.metrics()));
    client.request("HEAD", "/apisix/prometheus/metrics", &[], b"").expect(200, "");
    client.request("POST", "/apisix/prometheus/metrics", &[], b"").expect_status(404);
    client.get("/apisix/status").expect_status(404);
}

fn a_path_of_ones_own_is_where_metrics_are_and_their_port_is_closed() {
    let origin = Origin::replying("hello");
    let attributes = "plugin_attr: {prometheus: {export_uri: /own, enable_export_server: false}}";
    let gateway = gateway(&origin).settings(attributes).start();
    let page = gateway.get("/own");
    assert!(page.expect_status(200).text().contains("ringway_build_info"));
    gateway.get("/apisix/prometheus/metrics").expect_status(404);
    let log = gateway.said();
    assert!(log.contains("status on") && !log.contains("metrics on"), "nothing listens for them: {log}");
}

fn many_who_ask_at_once_cost_nobody_else() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin).cores(1).start();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    (0..25).map(|_| client.get("/apisix/prometheus/metrics").status).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut client = gateway.client();
        for _ in 0..25 {
            client.get("/hello").expect(200, "hello");
        }
        let told: Vec<u16> = asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(told.iter().all(|status| [200, 503].contains(status)), "{told:?}");
        assert!(told.iter().filter(|status| **status == 200).count() >= 25, "{told:?}");
    });
    gateway.get("/apisix/prometheus/metrics").expect_status(200);
}
