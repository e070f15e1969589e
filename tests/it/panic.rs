//! A panic costs one connection and is counted; the core and its other connections go on.
#![cfg(feature = "test-plugins")]

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, eventually};

on_both_drivers!(
    a_panic_in_a_plugin_costs_its_connection_and_a_counter,
    a_plugin_that_panics_on_trial_costs_a_line_of_an_explanation,
);

fn a_panic_in_a_plugin_costs_its_connection_and_a_counter() {
    let origin = Origin::replying("fine");
    let gateway = Gateway::routing("/*", [&origin])
        .objects(
            "routes:
              - {id: access, uri: /access, plugins: {crash: {}}}
              - {id: filter, uri: /filter, plugins: {crash: {phase: header_filter}}}",
        )
        .cores(1)
        .that_may_panic()
        .start();

    // A neighbour on the same core, in the middle of its conversation.
    let mut neighbour = gateway.client();
    neighbour.get("/").expect(200, "fine");
    for path in ["/access", "/filter"] {
        for _ in 0..100 {
            let mut raw = gateway.raw();
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            raw.expect_closed();
        }
    }
    neighbour.get("/").expect(200, "fine");
    gateway.get("/").expect(200, "fine");
    eventually("every panic is counted", || {
        (gateway.metric("ringway_panics_total") == Some(200.0)).then_some(())
    });
}

fn a_plugin_that_panics_on_trial_costs_a_line_of_an_explanation() {
    let origin = Origin::replying("fine");
    let objects = "
        routes:
          - {id: 1, uri: /crash, plugins: {crash: {}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: 2, uri: /fine, upstream: {nodes: {ORIGIN: 1}}}
        ";
    let gateway = Gateway::resources(objects, &[("ORIGIN", &origin)]).that_may_panic().start();
    let explained = |uri: &str| -> Value { gateway.control("GET", &format!("/v1/explain?uri={uri}")).json() };
    assert_eq!(explained("/crash")["outcome"], json!({"kind": "panicked", "by": "crash"}));
    assert_eq!(explained("/fine")["outcome"]["kind"], "forwarded");
    gateway.get("/fine").expect(200, "fine");
}
