//! Nodes from registries: stand-ins that speak the wire formats that Consul, Eureka and Nacos document.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, Seen, Setup, eventually, reply};

on_both_drivers!(
    consul_tells_the_nodes_and_every_change,
    a_consul_that_is_away_takes_no_node_away,
    eureka_tells_the_instances_that_are_up,
    nacos_tells_the_healthy_instances_of_a_group,
    a_service_that_is_not_known_is_answered_503_until_it_is,
    a_registry_that_is_not_set_up_is_told,
);

/// What a registry has, and who waits for a change of it.
#[derive(Default)]
struct Shelf {
    held: Mutex<(u64, Option<Value>)>,
    changed: Condvar,
}

impl Shelf {
    fn put(&self, value: Value) {
        let mut held = self.held.lock().unwrap();
        *held = (held.0 + 1, Some(value));
        self.changed.notify_all();
    }

    /// From here on it answers 500.
    fn fail(&self) {
        let mut held = self.held.lock().unwrap();
        *held = (held.0 + 1, None);
        self.changed.notify_all();
    }

    /// What is held, once its index is another than `known`; after a moment in any case.
    fn after(&self, known: u64) -> (u64, Option<Value>) {
        let held = self.held.lock().unwrap();
        let (held, _) =
            self.changed.wait_timeout_while(held, Duration::from_secs(2), |held| held.0 == known).unwrap();
        held.clone()
    }
}

fn answer(index: u64, body: Option<&Value>) -> Vec<u8> {
    let Some(body) = body else { return reply("500 Internal Server Error", "rpc error") };
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A Consul with one service, by blocking queries.
fn consul() -> (Origin, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let held = Arc::clone(&shelf);
    let origin = Origin::answering(move |seen: &Seen| {
        let known = seen.target.split("index=").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok());
        let (index, body) = match known {
            Some(known) => held.after(known),
            None => held.held.lock().unwrap().clone(),
        };
        answer(index, body.as_ref())
    });
    (origin, shelf)
}

fn instances(origins: &[&Origin]) -> Value {
    origins
        .iter()
        .map(|origin| {
            json!({
                "Node": {"Node": "n", "Address": "127.0.0.1"},
                "Service": {"Service": "web", "Address": "", "Port": origin.address().port(), "Weights": {"Passing": 1}},
                "Checks": [{"Status": "passing"}],
            })
        })
        .collect()
}

/// A route to a service, with these settings of its registry.
fn discovering(kind: &str, service: &str, settings: &str) -> Setup {
    Gateway::resources(
        &format!("routes: [{{id: '1', uri: /*, upstream: {{discovery_type: {kind}, {service}}}}}]"),
        &[],
    )
    .settings(&format!("discovery: {{{kind}: {settings}}}"))
}

/// Waits until these answer, all of them and no others.
fn wait_answers(gateway: &Gateway, expected: &[&str]) {
    eventually(&format!("{expected:?} answer"), || {
        let mut bodies: Vec<String> = (0..12).map(|_| gateway.get("/").text()).collect();
        bodies.sort_unstable();
        bodies.dedup();
        (bodies == expected).then_some(())
    });
}

fn consul_tells_the_nodes_and_every_change() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let (registry, shelf) = consul();
    shelf.put(instances(&[&a]));
    let settings = format!("{{servers: ['http://{}'], token: t0ken}}", registry.node());
    let gateway = discovering("consul", "service_name: web", &settings).start();
    gateway.get("/").expect(200, "a");
    let asked = &registry.seen()[0];
    assert!(asked.target.starts_with("/v1/health/service/web?passing=true"), "{}", asked.target);
    assert_eq!(asked.values("x-consul-token"), ["t0ken"]);

    shelf.put(instances(&[&a, &b]));
    wait_answers(&gateway, &["a", "b"]);
    shelf.put(instances(&[&b]));
    wait_answers(&gateway, &["b"]);
    let dump: Value = gateway.control("GET", "/v1/discovery/consul/dump").json();
    assert_eq!(dump["services"]["web"][0]["port"], b.address().port());
    gateway.control("GET", "/v1/discovery/nacos/dump").expect_status(404);
    assert!(!gateway.said().contains("t0ken"));
}

fn a_consul_that_is_away_takes_no_node_away() {
    let (a, b) = (Origin::replying("a"), Origin::replying("b"));
    let (registry, shelf) = consul();
    shelf.put(instances(&[&a]));
    let settings = format!("{{servers: ['http://{}'], fetch_interval: 1}}", registry.node());
    let gateway = discovering("consul", "service_name: web", &settings).start();
    gateway.get("/").expect(200, "a");
    shelf.fail();
    gateway.wait_said(&["consul web", "status 500", "the last nodes stay"]);
    gateway.get("/").expect(200, "a");
    shelf.put(instances(&[&b]));
    wait_answers(&gateway, &["b"]);
    gateway.wait_said(&["consul web", "answers again"]);
    // None is an answer, too.
    shelf.put(json!([]));
    eventually("no node is left", || (gateway.get("/").status == 503).then_some(()));
}

fn eureka_tells_the_instances_that_are_up() {
    let (up, down) = (Origin::replying("up"), Origin::replying("down"));
    let instance = |origin: &Origin, status: &str| {
        json!({"ipAddr": "127.0.0.1", "status": status, "overriddenStatus": "UNKNOWN",
               "port": {"$": origin.address().port(), "@enabled": "true"}, "metadata": {}})
    };
    let told =
        json!({"application": {"name": "WEB", "instance": [instance(&up, "UP"), instance(&down, "DOWN")]}});
    let registry = Origin::answering(move |_| answer(0, Some(&told)));
    let settings = format!("{{host: ['http://{}'], prefix: /eureka/}}", registry.node());
    let gateway = discovering("eureka", "service_name: WEB", &settings).start();
    wait_answers(&gateway, &["up"]);
    assert_eq!(registry.seen()[0].target, "/eureka/apps/WEB");
    assert_eq!(registry.seen()[0].values("accept"), ["application/json"]);
}

fn nacos_tells_the_healthy_instances_of_a_group() {
    let (well, sick) = (Origin::replying("well"), Origin::replying("sick"));
    let host = |origin: &Origin, healthy: bool| json!({"ip": "127.0.0.1", "port": origin.address().port(), "weight": 1.0, "healthy": healthy, "enabled": true});
    let told = json!({"hosts": [host(&well, true), host(&sick, false)]});
    let registry = Origin::answering(move |_| answer(0, Some(&told)));
    let service = "service_name: a web, discovery_args: {namespace_id: ns1, group_name: 'G&1'}";
    let settings = format!("{{host: ['http://{}']}}", registry.node());
    let gateway = discovering("nacos", service, &settings).start();
    wait_answers(&gateway, &["well"]);
    assert_eq!(
        registry.seen()[0].target,
        "/nacos/v1/ns/instance/list?serviceName=a%20web&healthyOnly=true&namespaceId=ns1&groupName=G%261"
    );
}

fn a_service_that_is_not_known_is_answered_503_until_it_is() {
    let a = Origin::replying("a");
    let (registry, shelf) = consul();
    shelf.fail();
    // The first server is gone for good: the next one is asked.
    let gone = Origin::refusing();
    let gateway = Gateway::managed()
        .settings(&format!(
            "discovery: {{consul: {{servers: ['http://{}', 'http://{}'], fetch_interval: 0.2}}}}",
            gone.node(),
            registry.node()
        ))
        .start();
    let admin = gateway.admin();
    let upstream = r#"{"uri": "/*", "upstream": {"discovery_type": "consul", "service_name": "web"}}"#;
    let answer = admin.ask("PUT", "/routes/1", &[], upstream);
    answer.expect_status(201);
    let told = answer.header("x-config-warning").unwrap_or_default();
    assert!(told.contains("consul web is not known yet"), "{told}");
    gateway.get("/").expect_status(503);
    shelf.put(instances(&[&a]));
    wait_answers(&gateway, &["a"]);
}

fn a_registry_that_is_not_set_up_is_told() {
    let gateway = Gateway::managed().start();
    let upstream = r#"{"discovery_type": "nacos", "service_name": "web"}"#;
    let answer = gateway.admin().ask("PUT", "/upstreams/1", &[], upstream);
    answer.expect_status(201);
    let told = answer.header("x-config-warning").unwrap_or_default();
    assert!(told.contains("discovery_type: expected a registry that the settings name"), "{told}");
}
