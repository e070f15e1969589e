//! Fallbacks: what serves when the nodes of an upstream do not.

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, reply};

on_both_drivers!(
    when_no_node_can_be_reached_another_upstream_serves,
    an_answer_may_stand_for_nodes_that_are_not_there,
    a_status_of_a_node_gives_way_where_the_request_can_be_had_again,
    a_fallback_is_taken_only_for_what_it_is_for,
    the_fallback_of_a_fallback_is_not_taken,
    where_all_nodes_are_ejected_none_is_asked,
    a_fallback_is_a_reference_like_any_other,
    explain_tells_what_would_serve,
);

/// A route to these nodes, and an upstream `spare`.
fn gateway(nodes: &[&Origin], spare: &Origin, more: &str) -> Gateway {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("'{}': 1", node.node())).collect();
    let text = format!(
        "upstreams:
  - {{id: main, nodes: {{{}}}, {more}}}
  - {{id: spare, nodes: {{'{}': 1}}}}
routes: [{{id: '1', uri: /*, upstream_id: main}}]",
        nodes.join(", "),
        spare.node()
    );
    Gateway::resources(&text, &[]).start()
}

const SPARE: &str = "fallback: {upstream_id: spare}";

fn when_no_node_can_be_reached_another_upstream_serves() {
    let (gone, also_gone, spare) = (Origin::refusing(), Origin::refusing(), Origin::replying("spare"));
    let front = gateway(&[&gone, &also_gone], &spare, SPARE);
    front.get("/a").expect(200, "spare");
    front.post("/b", b"body").expect(200, "spare");
    assert_eq!(spare.saw("/b").body, b"body", "nothing of it was sent before");
    assert_eq!(front.metric("ringway_fallbacks_total{core=\"0\"}"), Some(2.0));
    // A broken connection may have done something: only what is safe is sent again.
    let breaking = Origin::that_closes_instead_of_answering();
    let front = gateway(&[&breaking], &spare, SPARE);
    front.get("/c").expect(200, "spare");
    front.post("/d", b"body").expect_status(502);
    assert!(spare.seen().iter().all(|seen| seen.target != "/d"));
}

fn an_answer_may_stand_for_nodes_that_are_not_there() {
    let (gone, spare) = (Origin::refusing(), Origin::replying("spare"));
    let answer =
        "fallback: {status: 503, body: 'closed for today', headers: {X-Why: works, Retry-After: '60'}}";
    let gateway = gateway(&[&gone], &spare, answer);
    for _ in 0..2 {
        let answer = gateway.post("/mark", b"body");
        answer.expect(503, "closed for today");
        assert_eq!((answer.values("x-why"), answer.values("retry-after")), (vec!["works"], vec!["60"]));
    }
    assert_eq!(gateway.reason("/mark"), "fallback");
}

fn a_status_of_a_node_gives_way_where_the_request_can_be_had_again() {
    let sick = Origin::answering(|_| reply("503 Service Unavailable", "sick"));
    let spare = Origin::replying("spare");
    let front = gateway(&[&sick], &spare, "fallback: {upstream_id: spare, statuses: [503]}");
    let mut client = front.client();
    client.get("/").expect(200, "spare");
    client.post("/", b"body").expect(503, "sick");
    client.request("PUT", "/", &[], b"body").expect(503, "sick");
    client.get("/").expect(200, "spare");
    let front = gateway(&[&sick], &spare, "fallback: {status: 200, body: ok, statuses: [503]}");
    front.post("/", b"body").expect(200, "ok");
    let front = gateway(&[&sick], &spare, "fallback: {status: 200, body: ok, statuses: [500, 502]}");
    front.get("/").expect(503, "sick");
}

fn a_fallback_is_taken_only_for_what_it_is_for() {
    let (silent, gone, spare) = (Origin::that_stalls(), Origin::refusing(), Origin::replying("spare"));
    let timeout = "timeout: {connect: 5, send: 5, read: 0.1}";
    for (node, on, status) in [
        (&silent, "connect", 504),
        (&silent, "timeout", 200),
        (&gone, "timeout", 502),
        (&gone, "unhealthy", 502),
        (&gone, "connect", 200),
    ] {
        let more = format!("{timeout}, fallback: {{upstream_id: spare, 'on': [{on}]}}");
        let answer = gateway(&[node], &spare, &more).get("/");
        assert_eq!(answer.status, status, "{on}");
    }
}

fn the_fallback_of_a_fallback_is_not_taken() {
    let sick = Origin::answering(|_| reply("503 Service Unavailable", "sick"));
    let spare = Origin::answering(|_| reply("503 Service Unavailable", "spare too"));
    let front = Gateway::resources(
        "upstreams:
  - {id: main, nodes: {SICK: 1}, fallback: {upstream_id: spare, statuses: [503]}}
  - {id: spare, nodes: {SPARE: 1}, fallback: {upstream_id: main, statuses: [503]}}
routes: [{id: '1', uri: /*, upstream_id: main}]",
        &[("SICK", &sick), ("SPARE", &spare)],
    )
    .start();
    front.get("/").expect(503, "spare too");
}

fn where_all_nodes_are_ejected_none_is_asked() {
    let sick = Origin::answering(|_| reply("500 Oh", "sick"));
    let spare = Origin::replying("spare");
    let gateway =
        gateway(&[&sick], &spare, &format!("outliers: {{consecutive_5xx: 2, max_percent: 100}}, {SPARE}"));
    gateway.get("/").expect(500, "sick");
    gateway.get("/").expect(500, "sick");
    for _ in 0..5 {
        gateway.get("/").expect(200, "spare");
    }
    gateway.post("/", b"x").expect(200, "spare");
    assert_eq!(sick.requests(), 2);
}

fn a_fallback_is_a_reference_like_any_other() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let ask = |method: &str, path: &str, body: &Value| admin.ask(method, path, &[], &body.to_string());
    let main = json!({"nodes": {"127.0.0.1:9": 1}, "fallback": {"upstream_id": "spare"}});
    let refused = ask("PUT", "/upstreams/main", &main);
    refused.expect_status(400);
    let why = "failed to fetch upstream info by upstream id [spare]";
    assert!(refused.text().contains(why), "{}", refused.text());
    let spare = Origin::replying("spare");
    ask("PUT", "/upstreams/spare", &json!({"nodes": {spare.node(): 1}})).expect_status(201);
    ask("PUT", "/upstreams/main", &main).expect_status(201);
    ask("PUT", "/routes/1", &json!({"uri": "/*", "upstream_id": "main"})).expect_status(201);
    gateway.get("/").expect(200, "spare");
    ask("DELETE", "/upstreams/spare", &Value::Null).expect_status(400);
    // Another version of it is the one that serves.
    let other = Origin::replying("other");
    ask("PUT", "/upstreams/spare", &json!({"nodes": {other.node(): 1}})).expect_status(200);
    gateway.get("/").expect(200, "other");
}

fn explain_tells_what_would_serve() {
    let (gone, spare) = (Origin::refusing(), Origin::replying("spare"));
    let told = |more: &str| {
        gateway(&[&gone], &spare, more).control("GET", "/v1/explain?uri=/").json()["upstream"]["fallback"]
            .take()
    };
    assert_eq!(told(SPARE), json!({"to": "upstreams/spare"}));
    assert_eq!(told("fallback: {status: 503}"), json!({"status": 503}));
}
