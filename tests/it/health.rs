//! Health of nodes: who is checked how, what requests tell, and who gets requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use super::kit::{Certs, Front, Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_node_whose_checks_fail_gets_no_requests_until_they_succeed,
    a_node_that_is_gone_is_left_and_found_again,
    a_check_asks_what_is_configured,
    requests_tell_of_bad_answers,
    requests_tell_of_broken_connections_and_of_silence,
    when_all_nodes_are_sick_all_get_requests,
    a_single_sick_node_is_still_asked,
    health_outlives_changes_of_other_objects,
    an_upstream_inside_a_route_is_checked_under_its_name,
    checks_over_tls_verify_the_node_unless_told_not_to,
    the_page_for_browsers_names_every_node,
);

/// An origin whose status can be changed, and what changes it.
fn switched(body: &str) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let (seen, body) = (Arc::clone(&status), body.to_owned());
    let origin =
        Origin::answering(move |_| reply(&format!("{} As Told", seen.load(Ordering::SeqCst)), &body));
    (origin, status)
}

/// The status of each node of an object, as the control API has it.
fn statuses(gateway: &Gateway, object: &str) -> Vec<String> {
    let told: Value = gateway.control("GET", &format!("/v1/healthcheck/{object}")).json();
    let nodes = told["nodes"].as_array().unwrap_or_else(|| panic!("no nodes in {told}"));
    nodes.iter().map(|node| node["status"].as_str().unwrap_or_default().to_owned()).collect()
}

fn wait_statuses(gateway: &Gateway, object: &str, expected: &[&str]) {
    eventually(&format!("{object} is {expected:?}"), || {
        (statuses(gateway, object) == expected).then_some(())
    });
}

/// Who answers so many requests, sorted, each once.
fn who_answers(gateway: &Gateway, requests: usize) -> Vec<String> {
    let mut client = gateway.client();
    let mut bodies: Vec<String> = (0..requests).map(|_| client.get("/").text()).collect();
    bodies.sort_unstable();
    bodies.dedup();
    bodies
}

const QUICK: &str = "{http_path: /up, timeout: 1, healthy: {interval: 0.05, successes: 2},
                      unhealthy: {interval: 0.05, http_failures: 2, tcp_failures: 1, timeouts: 1}}";
/// Checks whose answers tell nothing, whatever the nodes are: `elsewhere` answers 200, which is neither good nor bad.
fn silent(elsewhere: &Origin) -> String {
    format!(
        "{{port: {}, healthy: {{http_statuses: [299]}}, unhealthy: {{http_statuses: [599]}}}}",
        elsewhere.address().port()
    )
}

/// Two nodes in a list, so that their order is known, and a route to them.
fn two(a: &Origin, b: &Origin, checks: &str) -> Gateway {
    Gateway::resources(
        &format!(
            "
             upstreams:
               - id: '1'
                 nodes: [{}, {}]
                 checks: {checks}
             routes:
               - {{id: '1', uri: /*, upstream_id: '1'}}",
            node(a),
            node(b)
        ),
        &[],
    )
    .start()
}

fn node(origin: &Origin) -> String {
    format!("{{host: 127.0.0.1, port: {}, weight: 1}}", origin.address().port())
}

fn a_node_whose_checks_fail_gets_no_requests_until_they_succeed() {
    let ((a, _), (b, status)) = (switched("a"), switched("b"));
    let gateway = two(&a, &b, &format!("{{active: {QUICK}}}"));
    assert_eq!(who_answers(&gateway, 10), ["a", "b"]);

    status.store(500, Ordering::SeqCst);
    wait_statuses(&gateway, "upstreams/1", &["healthy", "unhealthy"]);
    assert_eq!(who_answers(&gateway, 20), ["a"]);
    let gone = format!("name=\"/apisix/upstreams/1\",ip=\"127.0.0.1\",port=\"{}\"", b.address().port());
    assert_eq!(gateway.metric(&format!("apisix_upstream_status{{{gone}}}")), Some(0.0));
    gateway.wait_said(&["upstreams/1", &b.node(), "is unhealthy", "bad statuses: 2"]);

    status.store(200, Ordering::SeqCst);
    wait_statuses(&gateway, "upstreams/1", &["healthy", "healthy"]);
    assert_eq!(who_answers(&gateway, 20), ["a", "b"]);
    assert_eq!(gateway.metric(&format!("apisix_upstream_status{{{gone}}}")), Some(1.0));
    gateway.wait_said(&["upstreams/1", &b.node(), "is healthy again"]);
}

fn a_node_that_is_gone_is_left_and_found_again() {
    let a = Origin::replying("a");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = Gateway::resources(
        &format!(
            "routes:
               - id: '1'
                 uri: /*
                 upstream:
                   nodes: [{}, {{host: 127.0.0.1, port: {port}, weight: 1}}]
                   retries: 0
                   checks: {{active: {{type: tcp, healthy: {{interval: 0.05, successes: 1}},
                                       unhealthy: {{interval: 0.05, tcp_failures: 1}}}}}}",
            node(&a)
        ),
        &[],
    )
    .start();
    wait_statuses(&gateway, "routes/1", &["healthy", "unhealthy"]);
    assert_eq!(who_answers(&gateway, 20), ["a"], "no request is lost to the one that is gone");

    let _back = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    wait_statuses(&gateway, "routes/1", &["healthy", "healthy"]);
}

fn a_check_asks_what_is_configured() {
    let (served, asked) = (Origin::replying("served"), Origin::replying("asked"));
    let _gateway = Gateway::resources(
        &format!(
            "routes:
               - id: '1'
                 uri: /*
                 upstream:
                   nodes: {{SERVED: 1}}
                   checks:
                     active:
                       port: {}
                       host: shop.test
                       http_method: POST
                       http_path: /deep/check?full=1
                       http_req_body: are you well
                       req_headers: ['User-Agent: curl/7.29.0', 'X-From: gateway']
                       healthy: {{interval: 0.05}}",
            asked.address().port()
        ),
        &[("SERVED", &served)],
    )
    .start();
    asked.wait_whole_requests(3);
    let seen = &asked.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/deep/check?full=1"));
    assert_eq!(seen.body, b"are you well");
    assert_eq!(seen.values("host"), ["shop.test"]);
    assert_eq!(seen.values("user-agent"), ["curl/7.29.0"]);
    assert_eq!(seen.values("x-from"), ["gateway"]);
    assert_eq!(served.requests(), 0, "the port of the check is asked, not the node's");
}

fn requests_tell_of_bad_answers() {
    let ((a, _), (b, status)) = (switched("a"), switched("b"));
    let elsewhere = Origin::replying("");
    let active = silent(&elsewhere);
    let gateway = two(&a, &b, &format!("{{active: {active}, passive: {{unhealthy: {{http_failures: 3}}}}}}"));
    status.store(503, Ordering::SeqCst);
    let mut client = gateway.client();
    let bad = (0..40).filter(|_| client.get("/").status == 503).count();
    assert_eq!(bad, 3, "three tell, and nobody else is sent there");
    assert_eq!(statuses(&gateway, "upstreams/1"), ["healthy", "unhealthy"]);
}

fn requests_tell_of_broken_connections_and_of_silence() {
    for (sick, kind) in [(Origin::that_resets(), "tcp_failure"), (Origin::that_stalls(), "timeout_failure")] {
        let (well, elsewhere) = (Origin::replying("well"), Origin::replying(""));
        let active = silent(&elsewhere);
        let gateway = Gateway::resources(
            &format!(
                "
                 upstreams:
                   - id: '1'
                     nodes: [{}, {}]
                     timeout: {{connect: 5, send: 5, read: 0.2}}
                     checks: {{active: {active}, passive: {{unhealthy: {{tcp_failures: 1, timeouts: 1}}}}}}
                 routes:
                   - {{id: '1', uri: /*, upstream_id: '1'}}",
                node(&sick),
                node(&well)
            ),
            &[],
        )
        .start();
        assert_eq!(who_answers(&gateway, 20), ["well"], "what is safe is tried elsewhere");
        assert_eq!(statuses(&gateway, "upstreams/1"), ["unhealthy", "healthy"]);
        let told: Value = gateway.control("GET", "/v1/healthcheck/upstreams/1").json();
        assert_eq!(told["nodes"][0]["counter"][kind], 1, "{told}");
        assert_eq!(sick.requests(), 1);
    }
}

fn when_all_nodes_are_sick_all_get_requests() {
    let ((a, one), (b, two_)) = (switched("a"), switched("b"));
    let gateway = two(&a, &b, &format!("{{active: {QUICK}}}"));
    one.store(500, Ordering::SeqCst);
    two_.store(500, Ordering::SeqCst);
    wait_statuses(&gateway, "upstreams/1", &["unhealthy", "unhealthy"]);
    assert_eq!(who_answers(&gateway, 10), ["a", "b"]);
}

fn a_single_sick_node_is_still_asked() {
    let (a, status) = switched("a");
    let gateway = Gateway::resources(
        &format!(
            "routes: [{{id: '1', uri: /*, upstream: {{nodes: {{A: 1}}, checks: {{active: {QUICK}}}}}}}]"
        ),
        &[("A", &a)],
    )
    .start();
    status.store(500, Ordering::SeqCst);
    wait_statuses(&gateway, "routes/1", &["unhealthy"]);
    gateway.get("/").expect(500, "a");
}

fn health_outlives_changes_of_other_objects() {
    let ((a, _), (b, status)) = (switched("a"), switched("b"));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let elsewhere = Origin::replying("");
    let upstream = |failures: u32, name: &str| {
        format!(
            r#"{{"name": "{name}", "nodes": [{}, {}], "checks": {{
                 "active": {{"port": {}, "healthy": {{"http_statuses": [299]}}, "unhealthy": {{"http_statuses": [599]}}}},
                 "passive": {{"unhealthy": {{"http_failures": {failures}}}}}}}}}"#,
            r#"{"host": "127.0.0.1", "port": A, "weight": 1}"#.replace('A', &a.address().port().to_string()),
            r#"{"host": "127.0.0.1", "port": B, "weight": 1}"#.replace('B', &b.address().port().to_string()),
            elsewhere.address().port(),
        )
    };
    admin.put("/upstreams/1", &upstream(1, "one"));
    admin.put("/routes/1", r#"{"uri": "/*", "upstream_id": "1"}"#);
    status.store(500, Ordering::SeqCst);
    who_answers(&gateway, 4);
    assert_eq!(statuses(&gateway, "upstreams/1"), ["healthy", "unhealthy"]);

    admin.put("/routes/2", r#"{"uri": "/other", "upstream_id": "1"}"#);
    admin.put("/upstreams/1", &upstream(1, "another name"));
    assert_eq!(statuses(&gateway, "upstreams/1"), ["healthy", "unhealthy"]);
    // Judged by other rules it is as new.
    admin.put("/upstreams/1", &upstream(100, "another name"));
    assert_eq!(statuses(&gateway, "upstreams/1"), ["healthy", "healthy"]);
    admin.ask("DELETE", "/routes/1", &[], "");
    admin.ask("DELETE", "/routes/2", &[], "");
    admin.ask("DELETE", "/upstreams/1", &[], "");
    gateway.control("GET", "/v1/healthcheck").expect(200, "[]\n");
}

fn an_upstream_inside_a_route_is_checked_under_its_name() {
    let (a, _) = switched("a");
    let active = silent(&a);
    let gateway = Gateway::resources(
        &format!(
            "
             services: [{{id: s, upstream: {{nodes: {{A: 1}}, checks: {{active: {active}}}}}}}]
             routes:
               - {{id: r, uri: /r, upstream: {{nodes: {{A: 1}}, checks: {{active: {active}}}}}}}
               - {{id: t, uri: /t, service_id: s}}"
        ),
        &[("A", &a)],
    )
    .start();
    let told: Value = gateway.control("GET", "/v1/healthcheck").json();
    let mut names: Vec<_> =
        told.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["/apisix/routes/r", "/apisix/services/s"]);
    assert_eq!(statuses(&gateway, "routes/r"), ["healthy"]);
    gateway.control("GET", "/v1/healthcheck/routes/t").expect_status(404);
}

fn checks_over_tls_verify_the_node_unless_told_not_to() {
    let (certs, others) = (Certs::new(), Certs::new());
    certs.authority("ca");
    certs.here("ca", "server");
    others.authority("ca");
    let origin = Origin::replying("well");
    let front = Front::start(&origin.node(), &certs);
    let port = front.url().rsplit_once(':').unwrap().1.to_owned();
    for (trusted, verify, host, expected) in [
        (&certs, true, "here.test", "healthy"),
        (&certs, true, "other.test", "unhealthy"),
        (&others, true, "here.test", "unhealthy"),
        (&others, false, "other.test", "healthy"),
    ] {
        let setup = Gateway::resources(
            &format!(
                "routes:
                   - id: '1'
                     uri: /*
                     upstream:
                       nodes: [{{host: 127.0.0.1, port: {}, weight: 1}}]
                       checks:
                         active:
                           type: https
                           port: {port}
                           host: {host}
                           https_verify_certificate: {verify}
                           healthy: {{interval: 0.05, successes: 1}}
                           unhealthy: {{interval: 0.05, tcp_failures: 1}}",
                origin.address().port()
            ),
            &[],
        );
        let settings = format!("ssl: {{trusted_certificate: '{}'}}", trusted.path("ca.crt").display());
        let gateway = setup.settings(&settings).start();
        let before = origin.requests();
        if expected == "healthy" {
            origin.wait_requests(before + 2);
        }
        wait_statuses(&gateway, "routes/1", &[expected]);
    }
}

fn the_page_for_browsers_names_every_node() {
    let ((a, _), (b, _)) = (switched("a"), switched("b"));
    let gateway = two(&a, &b, &format!("{{active: {QUICK}}}"));
    let control = gateway.control_asking("GET", "/v1/healthcheck", &[("Accept", "text/html")]);
    control.expect_status(200);
    assert!(control.header("content-type").unwrap().starts_with("text/html"));
    for origin in [&a, &b] {
        assert!(control.text().contains(&format!("<td>{}<td>healthy", origin.node())), "{}", control.text());
    }
}
