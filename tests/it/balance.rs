//! Which node a request goes to, by each algorithm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, reply};

on_both_drivers!(
    equal_keys_lead_to_one_node_on_every_core,
    a_key_may_be_a_header_a_cookie_a_variable_or_several,
    a_consumer_is_a_key,
    a_key_that_is_not_there_is_the_client,
    when_a_node_of_a_hash_fails_its_keys_go_to_the_next,
    the_least_busy_node_is_chosen_whatever_core_the_others_are_on,
    a_node_that_becomes_slow_is_left_within_a_second,
    quick_nodes_share_by_weight,
);

/// Three origins that name themselves.
fn three() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::replying)
}

fn nodes(origins: &[Origin]) -> String {
    let nodes: Vec<_> = origins.iter().map(|origin| format!("'{}': 1", origin.node())).collect();
    format!("{{{}}}", nodes.join(", "))
}

fn hashed(origins: &[Origin], by: &str, cores: usize) -> Gateway {
    Gateway::resources(
        &format!(
            "routes: [{{id: '1', uri: /*, upstream: {{type: chash, {by}, nodes: {}}}}}]",
            nodes(origins)
        ),
        &[],
    )
    .cores(cores)
    .start()
}

/// Who answers a request with these headers, each time on a new connection.
fn who(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = gateway.request("GET", path, headers, b"");
    answer.expect_status(200);
    answer.text()
}

fn equal_keys_lead_to_one_node_on_every_core() {
    let origins = three();
    let gateway = hashed(&origins, "hash_on: vars, key: arg_user", 2);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for user in 0..60 {
        let path = format!("/?user={user}");
        let first = who(&gateway, &path, &[]);
        for _ in 0..4 {
            assert_eq!(who(&gateway, &path, &[]), first, "user {user}");
        }
        *seen.entry(first).or_default() += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|users| (5..45).contains(users)), "{seen:?}");
}

/// Of these requests, equal letters are to go to equal nodes, and not all to one.
fn check(by: &str, requests: impl Fn(u32) -> (String, Vec<(&'static str, String)>)) {
    let origins = three();
    let gateway = hashed(&origins, by, 1);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..30 {
        let (path, headers) = requests(number);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let first = who(&gateway, &path, &headers);
        assert_eq!(who(&gateway, &path, &headers), first, "{by} {number}");
        *seen.entry(first).or_default() += 1;
    }
    assert!(seen.len() > 1, "{by}: {seen:?}");
}

fn a_key_may_be_a_header_a_cookie_a_variable_or_several() {
    check("hash_on: header, key: X-Session-Id", |number| {
        ("/".into(), vec![("x-session-id", number.to_string())])
    });
    check("hash_on: cookie, key: session", |number| {
        ("/".into(), vec![("Cookie", format!("a=1; session={number}"))])
    });
    check("hash_on: vars, key: uri", |number| (format!("/{number}"), vec![]));
    check("hash_on: vars_combinations, key: '$host$arg_x'", |number| {
        (format!("/?x={}", number / 5), vec![("Host", format!("h{}.test", number % 5))])
    });
}

fn a_consumer_is_a_key() {
    let origins = three();
    let consumers: String = (0..20)
        .map(|number| {
            format!("  - {{username: user{number}, plugins: {{key-auth: {{key: key-{number}}}}}}}\n")
        })
        .collect();
    let gateway = Gateway::resources(
        &format!(
            "consumers:\n{consumers}
routes:
  - id: '1'
    uri: /*
    plugins: {{key-auth: {{}}}}
    upstream: {{type: chash, hash_on: consumer, nodes: {}}}",
            nodes(&origins)
        ),
        &[],
    )
    .start();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..20 {
        let key = format!("key-{number}");
        let first = who(&gateway, "/", &[("apikey", &key)]);
        assert_eq!(who(&gateway, "/other", &[("apikey", &key)]), first);
        *seen.entry(first).or_default() += 1;
    }
    assert!(seen.len() > 1, "{seen:?}");
}

fn a_key_that_is_not_there_is_the_client() {
    let origins = three();
    let gateway = hashed(&origins, "hash_on: header, key: x-none", 1);
    let first = who(&gateway, "/", &[]);
    assert!((0..10).all(|_| who(&gateway, "/", &[]) == first));
}

fn when_a_node_of_a_hash_fails_its_keys_go_to_the_next() {
    let [a, b, c] = three();
    let origins = [a, b, c, Origin::refusing()];
    let gateway = hashed(&origins, "hash_on: vars, key: arg_user", 1);
    let mut client = gateway.client();
    for user in 0..40 {
        let path = format!("/?user={user}");
        let first = client.get(&path).expect_status(200).text();
        assert_eq!(client.get(&path).expect_status(200).text(), first, "user {user}");
    }
}

fn the_least_busy_node_is_chosen_whatever_core_the_others_are_on() {
    let (busy, idle) = (Origin::that_stalls(), Origin::replying("idle"));
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /*, upstream: {type: least_conn, nodes: {BUSY: 1, IDLE: 1}}}]",
        &[("BUSY", &busy), ("IDLE", &idle)],
    )
    .cores(2)
    .start();
    // Until one request hangs at the busy node; each is on a connection, and so perhaps a core, of its own.
    let mut hanging = Vec::new();
    while busy.requests() == 0 {
        let mut raw = gateway.raw();
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        hanging.push(raw);
        let sent = hanging.len();
        super::kit::eventually("the request is at a node", || {
            (busy.requests() + idle.requests() >= sent).then_some(())
        });
    }
    let under_way = || {
        let of = |core| gateway.metric(&format!("ringway_requests_active{{core=\"{core}\"}}"));
        (0..2).filter_map(of).sum::<f64>()
    };
    // With one request under way there, whoever comes alone goes to the other. A client has its answer a moment before the
    // gateway is done with it.
    for _ in 0..20 {
        super::kit::eventually("no other is under way", || (under_way() == 1.0).then_some(()));
        gateway.get("/").expect(200, "idle");
    }
    assert_eq!(busy.requests(), 1);
}

fn a_node_that_becomes_slow_is_left_within_a_second() {
    let quick = Origin::replying("quick");
    let slow = Origin::serving(|conn| {
        while conn.request().is_some() {
            // What makes it slow: this is the origin's work, not a wait of the test.
            std::thread::sleep(Duration::from_millis(100));
            if !conn.send(&reply("200 OK", "slow")) {
                return;
            }
        }
    });
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /*, upstream: {type: ewma, nodes: {QUICK: 1, SLOW: 1}}}]",
        &[("QUICK", &quick), ("SLOW", &slow)],
    )
    .start();
    let mut client = gateway.client();
    let began = Instant::now();
    while slow.requests() == 0 {
        client.get("/").expect_status(200);
    }
    let met = began.elapsed();
    let slow_then = slow.requests();
    for _ in 0..500 {
        client.get("/").expect_status(200);
    }
    assert!(met < Duration::from_secs(1), "{met:?}");
    assert!(slow.requests() - slow_then <= 5, "{} of 500", slow.requests() - slow_then);
}

fn quick_nodes_share_by_weight() {
    let [a, b, _c] = three();
    let gateway = Gateway::resources(
        "routes: [{id: '1', uri: /*, upstream: {type: least_conn, nodes: {A: 3, B: 1}}},
                  {id: '2', uri: /even, upstream: {type: least_conn, nodes: {A: 1, B: 1}}}]",
        &[("A", &a), ("B", &b)],
    )
    .start();
    let mut client = gateway.client();
    for _ in 0..40 {
        client.get("/even").expect_status(200);
    }
    assert_eq!((a.requests(), b.requests()), (20, 20));
    a.forget();
    for _ in 0..10 {
        client.get("/").expect(200, "a");
    }
}
