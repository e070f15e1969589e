//! Limits on what queries of GraphQL cost: exact over all cores, and nothing that can not be counted passes.

use super::kit::{Client, Gateway, Origin, Setup};

on_both_drivers!(
    a_window_admits_what_it_has_over_all_cores,
    what_can_not_be_counted_does_not_reach_the_node,
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
