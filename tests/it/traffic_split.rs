//! `traffic-split`: which upstream a request goes to, and that it is treated as that upstream says.

use serde_json::json;

use super::kit::{Gateway, Origin, Setup};

on_both_drivers!(
    a_header_leads_to_the_canary,
    requests_are_split_by_weight,
    the_host_and_the_time_are_those_of_the_chosen_upstream,
    a_retry_stays_inside_the_chosen_upstream,
    a_route_without_an_upstream_needs_one_only_for_its_own_share,
    a_consumer_has_a_split_of_its_own,
    a_rule_may_ask_for_the_body,
    an_upstream_that_goes_and_comes_back_is_noticed,
    a_named_upstream_must_be_there_and_stays_while_it_is_named,
);

/// A route to `old` whose plugin is configured so; `NEW` in it is the other origin.
fn splitting(old: &Origin, new: &Origin, rules: &str) -> Setup {
    Gateway::resources(
        &format!(
            "routes:
               - id: '1'
                 uri: /*
                 plugins: {{traffic-split: {{rules: {rules}}}}}
                 upstream: {{type: roundrobin, nodes: {{OLD: 1}}}}"
        ),
        &[("OLD", old), ("NEW", new)],
    )
}

fn a_header_leads_to_the_canary() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let rules = r#"[{match: [{vars: [[http_x_canary, "==", "yes"]]}],
                     weighted_upstreams: [{upstream: {nodes: {NEW: 1}}}]}]"#;
    let gateway = splitting(&old, &new, rules).start();

    let mut client = gateway.client();
    for _ in 0..3 {
        client.request("GET", "/", &[("X-Canary", "yes")], b"").expect(200, "new");
        client.request("GET", "/", &[("X-Canary", "no")], b"").expect(200, "old");
        client.get("/").expect(200, "old");
    }
}

fn requests_are_split_by_weight() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let rules = "[{weighted_upstreams: [{upstream: {nodes: {NEW: 1}}, weight: 1}, {weight: 3}]}]";
    let gateway = splitting(&old, &new, rules).start();

    let mut client = gateway.client();
    for _ in 0..40 {
        client.get("/").expect_status(200);
    }
    assert_eq!((old.requests(), new.requests()), (30, 10));
}

fn the_host_and_the_time_are_those_of_the_chosen_upstream() {
    let (old, new, silent) = (Origin::replying("old"), Origin::replying("new"), Origin::that_stalls());
    let gateway = Gateway::resources(
        r#"
        upstreams:
          - {id: named, nodes: {NEW: 1}, pass_host: node}
          - {id: slow, nodes: {SILENT: 1}, retries: 0, timeout: {connect: 5, send: 5, read: 0.2}}
        routes:
          - id: '1'
            uri: /*
            plugins:
              traffic-split:
                rules:
                  - match: [{vars: [[arg_to, "==", "named"]]}]
                    weighted_upstreams: [{upstream_id: named}]
                  - match: [{vars: [[arg_to, "==", "written"]]}]
                    weighted_upstreams: [{upstream: {nodes: {NEW: 1}, pass_host: rewrite, upstream_host: new.test}}]
                  - match: [{vars: [[arg_to, "==", "slow"]]}]
                    weighted_upstreams: [{upstream_id: slow}]
            upstream: {nodes: {OLD: 1}}
        "#,
        &[("OLD", &old), ("NEW", &new), ("SILENT", &silent)],
    )
    .start();

    let ask = |path: &str| gateway.request("GET", path, &[("Host", "client.test")], b"");
    ask("/?to=named").expect(200, "new");
    ask("/?to=written").expect(200, "new");
    ask("/").expect(200, "old");
    ask("/?to=slow").expect_status(504);
    let hosts: Vec<_> = new.seen().iter().map(|seen| seen.header("host").unwrap().to_owned()).collect();
    assert_eq!(hosts, [new.node(), "new.test".to_owned()]);
    assert_eq!(old.only().header("host"), Some("client.test"));
}

fn a_retry_stays_inside_the_chosen_upstream() {
    let (old, broken, second) =
        (Origin::replying("old"), Origin::that_closes_at_once(), Origin::replying("second"));
    let rules = |second: &str| {
        format!(
            "[{{weighted_upstreams: [{{upstream: {{nodes: [
                {{host: 127.0.0.1, port: {}, weight: 1, priority: 1}}{second}]}}}}]}}]",
            broken.address().port()
        )
    };
    let alone = splitting(&old, &broken, &rules("")).start();
    alone.get("/").expect_status(502);
    let port = second.address().port();
    let two = rules(&format!(", {{host: 127.0.0.1, port: {port}, weight: 1}}"));
    let both = splitting(&old, &broken, &two).start();
    both.get("/").expect(200, "second");
    assert_eq!((old.requests(), second.requests()), (0, 1));
}

fn a_route_without_an_upstream_needs_one_only_for_its_own_share() {
    let new = Origin::replying("new");
    let gateway = Gateway::resources(
        "routes:
           - id: '1'
             uri: /*
             plugins: {traffic-split: {rules: [{weighted_upstreams: [{upstream: {nodes: {NEW: 1}}}, {}]}]}}",
        &[("NEW", &new)],
    )
    .start();

    let mut client = gateway.client();
    for _ in 0..2 {
        client.get("/").expect(200, "new");
        client.get("/").expect_status(503);
    }
}

fn a_consumer_has_a_split_of_its_own() {
    let (old, new) = (Origin::replying("old"), Origin::replying("new"));
    let gateway = Gateway::resources(
        "
        upstreams: [{id: new, nodes: {NEW: 1}}]
        routes: [{id: '1', uri: /*, plugins: {key-auth: {}}, upstream: {nodes: {OLD: 1}}}]
        consumers:
          - username: jack
            plugins:
              key-auth: {key: k1}
              traffic-split: {rules: [{weighted_upstreams: [{upstream_id: new}]}]}
          - {username: jill, plugins: {key-auth: {key: k2}}}
        ",
        &[("OLD", &old), ("NEW", &new)],
    )
    .start();

    for (key, expected) in [("k1", "new"), ("k2", "old"), ("k1", "new")] {
        gateway.request("GET", "/", &[("apikey", key)], b"").expect(200, expected);
    }
}

fn a_rule_may_ask_for_the_body() {
    let (old, new) = (Origin::echoing(), Origin::replying("new"));
    let rules = r#"[{match: [{vars: [[post_arg_to, "==", "new"]]}],
                     weighted_upstreams: [{upstream: {nodes: {NEW: 1}}}]}]"#;
    let gateway = splitting(&old, &new, rules).start();

    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    gateway.request("POST", "/", &form, b"to=new").expect(200, "new");
    gateway.request("POST", "/", &form, b"to=old").expect(200, "to=old");
    assert_eq!(new.only().body, b"to=new");
}

/// Objects for the Admin API: a route to `old` that splits half to the upstream `new`.
fn half_to_new(old: &Origin) -> String {
    let rules = json!([{"weighted_upstreams": [{"upstream_id": "new"}, {}]}]);
    json!({"uri": "/*", "plugins": {"traffic-split": {"rules": rules}}, "upstream": {"nodes": {old.node(): 1}}})
        .to_string()
}

fn an_upstream_that_goes_and_comes_back_is_noticed() {
    let (old, new, newer) = (Origin::replying("old"), Origin::replying("new"), Origin::replying("newer"));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let nodes = |origin: &Origin| json!({"nodes": {origin.node(): 1}}).to_string();
    admin.put("/upstreams/new", &nodes(&new));
    admin.put("/routes/1", &half_to_new(&old));

    let mut client = gateway.client();
    let mut both = || [client.get("/"), client.get("/")].map(|answer| (answer.status, answer.text()));
    let gone = "{\"error_msg\":\"failed to fetch upstream info by upstream id: new\"}\n";
    assert_eq!(both(), [(200, "new".to_owned()), (200, "old".to_owned())]);
    admin.put("/upstreams/new", &nodes(&newer));
    assert_eq!(both(), [(200, "newer".to_owned()), (200, "old".to_owned())]);
    admin.ask("DELETE", "/upstreams/new?force=true", &[], "").expect_status(200);
    assert_eq!(both(), [(500, gone.to_owned()), (200, "old".to_owned())]);
    admin.put("/upstreams/new", &nodes(&new));
    assert_eq!(both(), [(200, "new".to_owned()), (200, "old".to_owned())]);
}

fn a_named_upstream_must_be_there_and_stays_while_it_is_named() {
    let old = Origin::replying("old");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let refused = admin.ask("PUT", "/routes/1", &[], &half_to_new(&old));
    refused.expect(
        400,
        "{\"error_msg\":\"failed to fetch upstream info by upstream id [new], response code: 404\"}\n",
    );
    let batch = json!([{"method": "PUT", "path": "/routes/1", "body": serde_json::from_str::<serde_json::Value>(&half_to_new(&old)).unwrap()}]);
    let refused = admin.ask("POST", "/batch", &[], &batch.to_string());
    assert_eq!(refused.status, 400);
    let place =
        "plugins.traffic-split.rules[0].weighted_upstreams[0].upstream_id: expected the id of an upstream";
    assert!(refused.text().contains(place), "{}", refused.text());

    admin.put("/upstreams/new", &json!({"nodes": {old.node(): 1}}).to_string());
    admin.put("/routes/1", &half_to_new(&old));
    admin.ask("DELETE", "/upstreams/new", &[], "").expect(
        400,
        "{\"error_msg\":\"can not delete this upstream, plugin in route [1] is still using it now\"}\n",
    );
    admin.ask("DELETE", "/routes/1", &[], "").expect_status(200);
    admin.ask("DELETE", "/upstreams/new", &[], "").expect_status(200);
}
