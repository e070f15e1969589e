//! Sticky sessions: a client stays at its node by a cookie, and is told another when it is led elsewhere.

use serde_json::{Value, json};

use super::kit::{Answer, Gateway, Origin};

on_both_drivers!(
    a_client_stays_at_the_node_of_its_cookie_on_every_core,
    a_client_whose_node_is_lost_is_led_to_another_and_told_so,
    a_cookie_that_means_nothing_is_replaced,
    upstreams_of_a_split_keep_clients_by_cookies_of_their_own,
    explain_tells_the_node_of_a_cookie,
);

const KEY: &str = "an opaque key of ours";

fn node(origin: &Origin) -> String {
    format!("{{host: 127.0.0.1, port: {}, weight: 1}}", origin.address().port())
}

fn gateway(origins: &[&Origin], more: &str, cores: usize) -> Gateway {
    let nodes: Vec<String> = origins.iter().map(|origin| node(origin)).collect();
    let text = format!(
        "routes: [{{id: '1', uri: /*, upstream: {{nodes: [{}], sticky: {{cookie: at, key: {KEY}{more}}}}}}}]",
        nodes.join(", ")
    );
    Gateway::resources(&text, &[]).cores(cores).start()
}

/// The cookie that an answer sets, as name and value, and what stands behind it.
fn set(answer: &Answer) -> Option<(String, String)> {
    let lines = answer.values("set-cookie");
    assert!(lines.len() <= 1, "{lines:?}");
    let (pair, attributes) = lines.first()?.split_once(';').expect("attributes");
    Some((pair.to_owned(), attributes.trim().to_owned()))
}

fn a_client_stays_at_the_node_of_its_cookie_on_every_core() {
    let origins = ["a", "b", "c"].map(Origin::replying);
    let all: Vec<&Origin> = origins.iter().collect();
    let gateway = gateway(&all, ", ttl: 60, path: /shop, secure: true, same_site: strict", 2);
    for _ in 0..6 {
        let first = gateway.get("/").expect_status(200).clone();
        let (cookie, attributes) = set(&first).expect("a cookie");
        assert_eq!(attributes, "Path=/shop; Max-Age=60; Secure; HttpOnly; SameSite=Strict");
        let value = cookie.strip_prefix("at=").expect("its name");
        assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
        // Each on a connection, and so perhaps a core, of its own.
        for _ in 0..9 {
            let again = gateway.request("GET", "/", &[("Cookie", &format!("x=1; {cookie}"))], b"");
            again.expect(200, &first.text());
            assert_eq!(set(&again), None, "it has it already");
        }
    }
}

fn a_client_whose_node_is_lost_is_led_to_another_and_told_so() {
    let (lost, left) = (Origin::replying("lost"), Origin::replying("left"));
    let gateway = gateway(&[&lost, &left], "", 1);
    let cookie = loop {
        let answer = gateway.get("/");
        if answer.text() == "lost" {
            break set(&answer).expect("a cookie").0;
        }
    };
    drop(lost);
    let answer = gateway.request("GET", "/", &[("Cookie", &cookie)], b"");
    answer.expect(200, "left");
    let (other, _) = set(&answer).expect("another cookie");
    assert_ne!(other, cookie);
    let again = gateway.request("GET", "/", &[("Cookie", &other)], b"");
    again.expect(200, "left");
    assert_eq!(set(&again), None);
}

fn a_cookie_that_means_nothing_is_replaced() {
    let origins = ["a", "b"].map(Origin::replying);
    let gateway = gateway(&[&origins[0], &origins[1]], "", 1);
    for value in ["", "x", &origins[0].node(), &"0".repeat(32)] {
        let answer = gateway.request("GET", "/", &[("Cookie", &format!("at={value}"))], b"");
        answer.expect_status(200);
        assert!(set(&answer).is_some(), "{value}");
    }
}

fn upstreams_of_a_split_keep_clients_by_cookies_of_their_own() {
    let origins = ["a", "b", "c", "d"].map(Origin::replying);
    let [a, b, c, d] = origins.each_ref().map(node);
    let gateway = Gateway::resources(
        &format!(
            "routes:
               - id: '1'
                 uri: /*
                 plugins:
                   traffic-split:
                     rules:
                       - match: [{{vars: [[arg_new, '==', '1']]}}]
                         weighted_upstreams:
                           - upstream: {{nodes: [{c}, {d}], sticky: {{cookie: new, key: {KEY}}}}}
                 upstream: {{nodes: [{a}, {b}], sticky: {{cookie: old, key: {KEY}}}}}"
        ),
        &[],
    )
    .start();
    let (old, new) = (gateway.get("/"), gateway.get("/?new=1"));
    let both = format!("{}; {}", set(&old).expect("a cookie").0, set(&new).expect("a cookie").0);
    for _ in 0..10 {
        for (path, first) in [("/", &old), ("/?new=1", &new)] {
            let again = gateway.request("GET", path, &[("Cookie", &both)], b"");
            again.expect(200, &first.text());
            assert_eq!(set(&again), None);
        }
    }
}

fn explain_tells_the_node_of_a_cookie() {
    let origins = ["a", "b"].map(Origin::replying);
    let gateway = gateway(&[&origins[0], &origins[1]], "", 1);
    let answer = gateway.get("/");
    let (cookie, _) = set(&answer).expect("a cookie");
    let its = origins.iter().find(|origin| origin.requests() == 1).expect("a node").node();
    let told = |query: &str| -> Value {
        gateway.control("GET", &format!("/v1/explain?uri=/{query}")).json()["upstream"]["sticky"].take()
    };
    assert_eq!(told(&format!("&header=cookie:{cookie}")), json!({"cookie": "at", "node": its}));
    assert_eq!(told(""), json!({"cookie": "at", "node": null}));
}
