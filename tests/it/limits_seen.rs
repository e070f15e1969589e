//! What operators see of limits: what is left for whom.

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, Raw, eventually};

on_both_drivers!(
    a_key_that_is_an_address_may_be_a_value_or_stand_for_none,
    limits_of_stream_routes_are_told,
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
