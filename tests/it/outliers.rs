//! Outlier ejection: nodes that fail get no requests for a while, and come back by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::Value;

use super::kit::{Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_node_that_fails_in_a_row_is_ejected_for_all_cores_and_comes_back,
    a_node_that_does_not_answer_is_ejected,
    no_more_nodes_are_ejected_than_may_be,
    a_node_that_does_less_well_than_the_others_is_ejected,
    explain_tells_who_is_ejected,
);

fn node(origin: &Origin) -> String {
    format!("{{host: 127.0.0.1, port: {}, weight: 1}}", origin.address().port())
}

fn gateway(origins: &[&Origin], outliers: &str, cores: usize) -> Gateway {
    let nodes: Vec<String> = origins.iter().map(|origin| node(origin)).collect();
    let text = format!(
        "upstreams: [{{id: '1', nodes: [{}], outliers: {outliers}}}]
routes: [{{id: '1', uri: /*, upstream_id: '1'}}]",
        nodes.join(", ")
    );
    Gateway::resources(&text, &[]).cores(cores).start()
}

/// An origin whose status can be changed, and what changes it.
fn switched(body: &str) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let (seen, body) = (Arc::clone(&status), body.to_owned());
    let origin =
        Origin::answering(move |_| reply(&format!("{} As Told", seen.load(Ordering::SeqCst)), &body));
    (origin, status)
}

fn nodes(gateway: &Gateway) -> Vec<Value> {
    let told = gateway.control("GET", "/v1/healthcheck/upstreams/1").json();
    told["nodes"].as_array().cloned().unwrap_or_else(|| panic!("no nodes in {told}"))
}

fn ejected(gateway: &Gateway) -> Vec<bool> {
    nodes(gateway).iter().map(|node| node["ejected"].as_bool().unwrap()).collect()
}

/// How many of twelve requests had that status. Each is on a connection, and so perhaps a core, of its own, and made when
/// what the one before tells of its node is known, which is when its log line is written.
fn bad(gateway: &Gateway, status: u16) -> usize {
    let is_bad = |at: &usize| {
        let target = format!("/{status}/{at}");
        let answer = gateway.get(&target);
        gateway.logged(&target);
        answer.status == status
    };
    (0..12).filter(is_bad).count()
}

fn a_node_that_fails_in_a_row_is_ejected_for_all_cores_and_comes_back() {
    let ((a, _), (b, status)) = (switched("a"), switched("b"));
    let gateway = gateway(&[&a, &b], "{consecutive_5xx: 3, base_time: 2, max_time: 60}", 2);
    status.store(500, Ordering::SeqCst);
    assert_eq!(bad(&gateway, 500), 3, "three tell, and nobody else is sent there");
    assert_eq!(ejected(&gateway), [false, true]);
    let told = &nodes(&gateway)[1];
    assert_eq!((&told["status"], &told["ejections"]), (&"healthy".into(), &1.into()));
    assert!(told["ejected_for"].as_f64().unwrap() <= 2.0, "{told}");
    assert_eq!(gateway.metric("ringway_nodes_ejected{name=\"/apisix/upstreams/1\"}"), Some(1.0));
    let line = format!(
        "apisix_upstream_status{{name=\"/apisix/upstreams/1\",ip=\"127.0.0.1\",port=\"{}\"}}",
        b.address().port()
    );
    assert_eq!(gateway.metric(&line), Some(0.0));
    gateway.wait_said(&["upstreams/1", &b.node(), "is ejected for 2 s: 3 answers of 500 and more"]);

    status.store(200, Ordering::SeqCst);
    eventually("it comes back by itself", || (ejected(&gateway) == [false, false]).then_some(()));
    let answers: Vec<String> = (0..20).map(|_| gateway.get("/").text()).collect();
    assert!(answers.iter().any(|body| body == "b"), "{answers:?}");
    assert_eq!(gateway.metric("ringway_nodes_ejected{name=\"/apisix/upstreams/1\"}"), Some(0.0));

    status.store(503, Ordering::SeqCst);
    assert_eq!(bad(&gateway, 503), 3);
    let left = nodes(&gateway)[1]["ejected_for"].as_f64().unwrap();
    assert!(left > 2.0, "the second time is longer: {left}");
}

fn a_node_that_does_not_answer_is_ejected() {
    let (well, sick) = (Origin::replying("well"), Origin::that_resets());
    let gateway =
        gateway(&[&well, &sick], "{consecutive_5xx: 0, consecutive_gateway_failures: 1, base_time: 60}", 1);
    for _ in 0..10 {
        gateway.get("/").expect(200, "well");
    }
    assert_eq!(sick.requests(), 1);
    assert_eq!(ejected(&gateway), [false, true]);
}

fn no_more_nodes_are_ejected_than_may_be() {
    let origins = ["a", "b", "c"].map(switched);
    let all: Vec<&Origin> = origins.iter().map(|(origin, _)| origin).collect();
    let gateway = gateway(&all, "{consecutive_5xx: 1, base_time: 60, max_percent: 67}", 2);
    for (_, status) in &origins {
        status.store(500, Ordering::SeqCst);
    }
    for _ in 0..30 {
        gateway.get("/").expect_status(500);
    }
    assert_eq!(ejected(&gateway).iter().filter(|out| **out).count(), 2);
}

fn a_node_that_does_less_well_than_the_others_is_ejected() {
    let count = AtomicUsize::new(0);
    let wavering = Origin::answering(move |_| {
        let is_good = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        reply(if is_good { "200 OK" } else { "500 Oh" }, "wavering")
    });
    let well = Origin::replying("well");
    let rule = "{success_rate: {percent_of_others: 80, min_requests: 20, interval: 600}, base_time: 60}";
    let gateway = gateway(&[&well, &wavering], rule, 1);
    let mut client = gateway.client();
    for _ in 0..100 {
        client.get("/");
    }
    assert_eq!(ejected(&gateway), [false, true]);
    let asked = wavering.requests();
    assert!((20..=21).contains(&asked), "{asked}");
    gateway.wait_said(&[&wavering.node(), "50 % of its answers were good, of the others' 100 %"]);
}

fn explain_tells_who_is_ejected() {
    let ((a, status), b) = (switched("a"), Origin::replying("b"));
    let gateway = gateway(&[&a, &b], "{consecutive_5xx: 1, base_time: 60}", 1);
    let told = || {
        let told = gateway.control("GET", "/v1/explain?uri=/").json();
        told["upstream"]["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["ejected"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(), [false, false]);
    status.store(500, Ordering::SeqCst);
    (0..4).for_each(|_| drop(gateway.get("/")));
    assert_eq!(told(), [true, false]);
}
