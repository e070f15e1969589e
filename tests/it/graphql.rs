//! Limits on what queries of GraphQL cost: exact over all cores, and nothing that can not be counted passes.

use super::kit::{Client, Gateway, Origin, Setup};

on_both_drivers!(
    a_window_admits_what_it_has_over_all_cores,
    what_can_not_be_counted_does_not_reach_the_node,
    a_decoration_prices_a_field_as_soon_as_it_is_written,
    decorations_are_refused_kept_and_go_with_their_service,
    decorations_stand_among_the_services_in_a_file,
    queries_that_are_made_to_cost_much_are_refused_in_time,
);

fn gateway(origin: &Origin, fields: &str) -> Setup {
    let limit = format!("{{time_window: 600, key_type: constant, key: all, rejected_code: 429, {fields}}}");
    Gateway::routing("/graphql", [origin]).route(&format!("plugins: {{graphql-limit-count: {limit}}}"))
}

fn ask(client: &mut Client, query: &str) -> super::kit::Answer {
    let body = serde_json::json!({"query": query}).to_string();
    client.request("POST", "/graphql", &[("Content-Type", "application/json")], body.as_bytes())
}

fn a_window_admits_what_it_has_over_all_cores() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin, "count: 60").cores(2).start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    (0..5).map(|_| ask(&mut gateway.client(), "{ a { b { c } } }").status).collect()
                })
            })
            .collect();
        asking.into_iter().flat_map(|thread| -> Vec<u16> { thread.join().unwrap() }).collect()
    });
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(200), count(429)), (20, 10), "{statuses:?}");
    assert_eq!(origin.requests(), 20);
    let refused = ask(&mut gateway.client(), "{ a }");
    assert_eq!(refused.expect_status(429).header("X-Graphql-Query-Cost"), Some("1"));
}

fn what_can_not_be_counted_does_not_reach_the_node() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin, "count: 60").start();
    let mut client = gateway.client();
    client.get("/graphql?query=%7Ba%7D").expect_status(405);
    ask(&mut client, "{ a ").expect_status(400);
    let text = client.request("POST", "/graphql", &[("Content-Type", "text/plain")], b"{ a }");
    text.expect_status(400);
    let large = format!("{{ {} }}", "a ".repeat(600_000));
    ask(&mut gateway.client(), &large).expect_status(413);
    assert_eq!(origin.requests(), 0);
    let passed = ask(&mut gateway.client(), "query { a { ...F } } fragment F on T { b { c } }");
    passed.expect(200, "hello");
    assert_eq!(
        (passed.header("X-RateLimit-Remaining"), passed.header("X-Graphql-Query-Cost")),
        (Some("57"), Some("3"))
    );
}

fn queries_that_are_made_to_cost_much_are_refused_in_time() {
    let origin = Origin::replying("hello");
    let gateway = gateway(&origin, "count: 60, cost_strategy: complexity").cores(1).start();
    let doubling: String =
        (0..60).map(|at| format!(" fragment F{at} on T {{ ...F{0} ...F{0} }}", at + 1)).collect();
    let doubling = format!("{{ ...F0 }}{doubling} fragment F60 on T {{ a }}");
    ask(&mut gateway.client(), &doubling).expect_status(429);
    for query in ["{ ...F } fragment F on T { ...F }".to_owned(), "{ a".repeat(1_000), "[".repeat(100_000)] {
        ask(&mut gateway.client(), &query).expect_status(400);
    }
    ask(&mut gateway.client(), "{ a }").expect(200, "hello");
}

const LIMITED: &str = r#"{"uri":"/graphql","service_id":"shop","plugins":{"graphql-limit-count":
    {"count":1000,"time_window":600,"cost_strategy":"complexity"}}}"#;
const DECORATION: &str = "/services/shop/graphql_cost_decorations/d1";

fn cost(gateway: &Gateway, query: &str) -> String {
    let answer = ask(&mut gateway.client(), query);
    answer.expect_status(200).header("X-Graphql-Query-Cost").unwrap_or("none").to_owned()
}

fn a_decoration_prices_a_field_as_soon_as_it_is_written() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/services/shop", &format!(r#"{{"upstream":{{"nodes":{{"{}":1}}}}}}"#, origin.node()));
    admin.put("/routes/1", LIMITED);
    let query = "{ products(first: 50) { name } }";
    assert_eq!(cost(&gateway, query), "2");
    admin.put(DECORATION, r#"{"field_path":"Query.products","mul_arguments":["first"],"add_value":1}"#);
    assert_eq!(cost(&gateway, query), "51");
    admin.ask("PATCH", DECORATION, &[], r#"{"add_value":7}"#).expect_status(200);
    assert_eq!(cost(&gateway, query), "57");
    admin.ask("DELETE", DECORATION, &[], "").expect_status(200);
    assert_eq!(cost(&gateway, query), "2");
}

fn decorations_are_refused_kept_and_go_with_their_service() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let told = |method: &str, path: &str, body: &str, status: u16| {
        admin.ask(method, path, &[], body).expect_status(status).text()
    };
    let home = "/services/shop/graphql_cost_decorations";
    let products = r#"{"field_path":"Query.products"}"#;
    assert!(told("PUT", DECORATION, products, 404).contains("service not found"));
    admin.put("/services/shop", r#"{"upstream":{"nodes":{"127.0.0.1:1":1}}}"#);
    let made: serde_json::Value = serde_json::from_str(&told("PUT", DECORATION, products, 201)).unwrap();
    assert_eq!(made["key"], "/apisix/services/shop/graphql_cost_decorations/d1");
    assert_eq!((&made["value"]["id"], &made["value"]["service_id"]), (&"d1".into(), &"shop".into()));
    let other = format!("{home}/d2");
    for (body, why) in [
        (r#"{"field_path":"Query.products"}"#, "already decorated on this service by [d1]"),
        (r#"{"field_path":"Query.a","service_id":"blog"}"#, "wrong service_id"),
        (r#"{"field_path":"9Query.a"}"#, "field_path"),
        (r#"{"field_path":"Query.a","mul_value":-1}"#, "mul_value"),
        (r#"{}"#, "field_path"),
    ] {
        assert!(told("PUT", &other, body, 400).contains(why), "{body}");
    }
    assert!(told("PATCH", DECORATION, r#"{"service_id":"blog"}"#, 400).contains("can not be patched"));
    told("POST", home, r#"{"field_path":"Product.reviews"}"#, 201);
    let list = admin.ask("GET", home, &[], "").expect_status(200).json();
    assert_eq!(list["total"], 2, "{list}");
    told("DELETE", "/services/shop", "", 200);
    told("GET", DECORATION, "", 404);
}

fn decorations_stand_among_the_services_in_a_file() {
    let origin = Origin::replying("hello");
    let text = "
services:
  - {id: shop, upstream: {nodes: {ORIGIN: 1}}}
  - {id: shop/graphql_cost_decorations/a, field_path: Query.items, mul_value: 10}
  - {id: shop/graphql_cost_decorations/b, field_path: Query.items}
  - {id: nobody/graphql_cost_decorations/c, field_path: Query.items}
routes:
  - id: 1
    uri: /graphql
    service_id: shop
    plugins: {graphql-limit-count: {count: 1000, time_window: 600, cost_strategy: complexity}}
";
    let gateway = Gateway::resources(text, &[("ORIGIN", &origin)]).start();
    assert_eq!(cost(&gateway, "{ items { a b } }"), "21");
    let said = gateway.said();
    for why in [
        "services/shop/graphql_cost_decorations/b: field_path: Query.items is already decorated",
        "services/nobody/graphql_cost_decorations/c: service not found: nobody",
    ] {
        assert!(said.contains(why), "{said}");
    }
}
