//! What operators see of limits: what is left for whom, how many were admitted and refused, and what is wrong with a cost.

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, Raw, eventually};

on_both_drivers!(
    a_key_that_is_an_address_may_be_a_value_or_stand_for_none,
    limits_of_stream_routes_are_told,
    every_limit_counts_whom_it_admits_and_refuses,
    a_cost_that_is_no_number_is_told_and_the_default_taken,
);

fn told(gateway: &Gateway, query: &str) -> Vec<Value> {
    let answer = gateway.control("GET", &format!("/v1/limits?{query}"));
    answer.expect_status(200).json()["list"].as_array().unwrap().clone()
}

fn a_key_that_is_an_address_may_be_a_value_or_stand_for_none() {
    let origin = Origin::replying("hello");
    let objects = "routes:
  - id: r
    uri: /*
    plugins:
      limit-count: {count: 9, time_window: 60, key: http_x_key}
      limit-req: {rate: 0.001, burst: 7, nodelay: true, key: remote_addr}
      limit-conn: {conn: 4, burst: 0, default_conn_delay: 1, key: http_x_key}
    upstream: {nodes: {ORIGIN: 1}}";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).cores(2).start();
    for _ in 0..3 {
        gateway.get("/").expect(200, "hello");
    }
    gateway.request("GET", "/", &[("X-Key", "127.0.0.1")], b"").expect(200, "hello");
    let list = told(&gateway, "key=127.0.0.1&route=r");
    let lines: Vec<_> =
        list.iter().map(|line| json!([line["plugin"], line["as"], line["remaining"]])).collect();
    let expected = [
        json!(["limit-conn", "value", 4]),
        json!(["limit-conn", "address", 4]),
        json!(["limit-count", "value", 8]),
        json!(["limit-count", "address", 6]),
        json!(["limit-req", null, 4]),
    ];
    assert_eq!(lines, expected, "{list:#?}");
    let text = gateway.cli("limits 127.0.0.1 --route r").1;
    assert!(text.contains("routes/r, as address"), "{text}");
    assert_eq!(told(&gateway, "key=other&route=r")[0]["as"], Value::Null);
}

fn limits_of_stream_routes_are_told() {
    let origin = Origin::serving(|conn| {
        conn.send(b"in");
        conn.wait_for_the_end();
    });
    let objects = "stream_routes: [{id: s, plugins: {limit-conn: {conn: 3, burst: 0, default_conn_delay: 0.1, key: remote_addr}}, \
                   upstream: {nodes: {ORIGIN: 1}}}]";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)])
        .settings("stream_proxy: {tcp: ['127.0.0.1:0']}")
        .start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.wire.exactly(2, |_| {}).unwrap();
    for query in ["key=127.0.0.1", "key=127.0.0.1&stream_route=s"] {
        let list = told(&gateway, query);
        assert_eq!(list.len(), 1, "{list:#?}");
        assert_eq!(
            [&list[0]["plugin"], &list[0]["remaining"], &list[0]["from"]],
            [&json!("limit-conn"), &json!(2), &json!("stream_routes/s")]
        );
    }
    drop(raw);
    eventually("the seat is free", || (told(&gateway, "key=127.0.0.1")[0]["remaining"] == 3).then_some(()));
    gateway.control("GET", "/v1/limits?stream_route=t").expect_status(404);
    assert_eq!(gateway.cli("limits 127.0.0.1 --stream-route s").0, 0);
}

fn every_limit_counts_whom_it_admits_and_refuses() {
    let origin = Origin::replying("hello");
    let objects = r#"routes:
  - {id: count, uri: /count, plugins: {limit-count: {count: 2, time_window: 60, rejected_code: 429}}, upstream_id: u}
  - {id: req, uri: /req, plugins: {limit-req: {rate: 0.001, burst: 1, nodelay: true, key: remote_addr, rejected_code: 429}}, upstream_id: u}
  - {id: conn, uri: /conn, plugins: {limit-conn: {conn: 1, burst: 0, default_conn_delay: 1, key: remote_addr, rejected_code: 429}}, upstream_id: u}
  - {id: graphql, uri: /graphql, plugins: {graphql-limit-count: {count: 2, time_window: 60, key: remote_addr, rejected_code: 429}}, upstream_id: u}
  - id: some
    uri: /some
    plugins:
      limit:
        limits:
          - {name: some, key: http_x_key, without_key: pass, windows: [{count: 1, seconds: 60}]}
          - {name: all, windows: [{count: 9, seconds: 60}]}
      limit-count: {rules: [{count: 9, time_window: 60, key: $http_x_key}], allow_degradation: true}
    upstream_id: u
upstreams: [{id: u, nodes: {ORIGIN: 1}}]"#;
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).cores(2).start();
    for _ in 0..3 {
        gateway.get("/count");
        gateway.get("/req");
        gateway.get("/conn").expect_status(200);
        gateway.request("POST", "/graphql", &[("Content-Type", "application/graphql")], b"{a}");
        gateway.get("/some").expect_status(200);
    }
    gateway.request("GET", "/some", &[("X-Key", "k")], b"").expect_status(200);
    gateway.request("GET", "/some", &[("X-Key", "k")], b"").expect_status(429);
    let free = || told(&gateway, "key=127.0.0.1&route=conn")[0]["remaining"].as_u64();
    eventually("the seat is free", || (free() == Some(1)).then_some(()));
    let mut sitting = gateway.raw();
    sitting.send("POST /conn HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    eventually("it sits", || (free() == Some(0)).then_some(()));
    gateway.get("/conn").expect_status(429);
    let of = |plugin: &str, limit: &str, result: &str| {
        let labels = format!("{{plugin=\"{plugin}\",limit=\"{limit}\",result=\"{result}\"}}");
        gateway.metric(&format!("apisix_limit_requests_total{labels}")).unwrap_or_default()
    };
    eventually("all are counted", || (of("limit-conn", "routes/conn", "rejected") > 0.5).then_some(()));
    for (plugin, limit, admitted, rejected) in [
        ("limit-count", "routes/count", 2.0, 1.0),
        ("limit-req", "routes/req", 2.0, 1.0),
        ("graphql-limit-count", "routes/graphql", 2.0, 1.0),
        // None of the three without a key.
        ("limit", "some", 1.0, 1.0),
        ("limit", "all", 4.0, 0.0),
        ("limit-count", "routes/some", 1.0, 0.0),
    ] {
        let counted = (of(plugin, limit, "admitted"), of(plugin, limit, "rejected"));
        assert_eq!(counted, (admitted, rejected), "{plugin} {limit}\n{}", gateway.metrics());
    }
    assert!(of("limit-conn", "routes/conn", "admitted") > 3.5);
}

fn a_cost_that_is_no_number_is_told_and_the_default_taken() {
    let origin = Origin::replying("hello");
    let objects = "routes:
  - id: r
    uri: /*
    plugins:
      limit: {cost: $http_x_cost, cost_default: 3, limits: [{name: a, windows: [{count: 100, seconds: 600}]}]}
    upstream: {nodes: {ORIGIN: 1}}";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).start();
    let left = || told(&gateway, "key=127.0.0.1")[0]["remaining"].as_u64().unwrap();
    // Who says nothing is not told of.
    gateway.get("/").expect_status(200);
    assert_eq!(left(), 97);
    for cost in ["abc", "-1", "1.5"] {
        gateway.request("GET", "/", &[("X-Cost", cost)], b"").expect_status(200);
    }
    assert_eq!(left(), 88);
    let said = gateway.wait_said(&[
        "routes/r: plugins.limit.cost: expected a whole number from 0 to 4294967295, got \"abc\"",
    ]);
    assert!(said.contains("3 is taken, cost_default"), "{said}");
    gateway.request("GET", "/", &[("X-Cost", "8")], b"").expect_status(200);
    assert_eq!(left(), 80);
    let lines = gateway.said().lines().filter(|line| line.contains("plugins.limit.cost")).count();
    assert_eq!(lines, 1, "{}", gateway.said());
}
