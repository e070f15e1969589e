//! Limits with their counters in a Redis: exact over gateways, and bounded in what a Redis that fails can do to requests.

use std::thread;
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Redis, eventually};

on_both_drivers!(
    gateways_share_what_they_count,
    gateways_share_turns,
    whoever_one_rule_refuses_uses_up_nothing_of_the_others,
    a_redis_that_is_gone_costs_no_more_than_was_said_and_comes_back,
    a_redis_that_hangs_keeps_nobody_for_longer_than_it_may,
    what_is_no_redis_is_told_and_survived,
    a_connection_is_opened_with_password_and_database,
    connections_and_scripts_that_redis_forgets_are_made_anew,
);

/// A gateway with the plugins on one route, and those that may pass when there is no answer on another.
fn gateway(origin: &Origin, plugin: &str) -> Gateway {
    let objects = format!(
        "routes:
  - {{id: strict, uri: /strict, plugins: {{{plugin}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}
  - {{id: lenient, uri: /lenient, plugins: {{{}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}",
        plugin.replacen('{', "{allow_degradation: true, ", 1)
    );
    Gateway::resources(&objects, &[("ORIGIN", origin)]).cores(2).start()
}

fn count(fields: &str, more: &str) -> String {
    format!("limit-count: {{count: 100, time_window: 3600, rejected_code: 429, {fields}{more}}}")
}

/// How often Redis gave no reply, over all cores.
fn failures(gateway: &Gateway) -> f64 {
    let lines = gateway.metrics();
    let of_core = lines.lines().filter(|line| line.starts_with("ringway_redis_failures_total"));
    of_core.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many of so many requests, over several connections to each gateway, get 200 and 429.
fn outcomes(gateways: &[Gateway], each: usize) -> (usize, usize) {
    let statuses: Vec<u16> = thread::scope(|scope| {
        let work: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| [gateway; 3])
            .map(|gateway| {
                scope.spawn(move || {
                    let mut client = gateway.client();
                    (0..each).map(|_| client.get("/strict").status).collect::<Vec<_>>()
                })
            })
            .collect();
        work.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let of = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(of(200) + of(429), statuses.len(), "{statuses:?}");
    (of(200), of(429))
}

fn gateways_share_what_they_count() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    for window in ["fixed", "sliding"] {
        let plugin = count(&redis.fields(), &format!(", window_type: {window}, redis_timeout: 20000"));
        let gateways = [gateway(&origin, &plugin), gateway(&origin, &plugin)];
        assert_eq!(outcomes(&gateways, 30), (100, 80), "{window}");
        let refused = gateways[0].get("/strict");
        assert_eq!(refused.expect_status(429).header("x-ratelimit-remaining"), Some("0"));
        let reset: f64 = refused.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!((0.0..=3600.0).contains(&reset), "{reset}");
        assert!(failures(&gateways[1]) < 0.5);
    }
    // A fixed window is what others make of it: what was spent, for as long as the window lasts.
    let keys = redis.say(&["KEYS", "plugin-limit-count:v1:routes/strict:*:127.0.0.1"]);
    let held = keys.lines().filter(|key| redis.say(&["TYPE", key]) == "string").collect::<Vec<_>>();
    assert_eq!(held.iter().map(|key| redis.say(&["GET", key])).collect::<Vec<_>>(), ["100"], "{keys}");
    let left: u64 = redis.say(&["TTL", held[0]]).parse().unwrap();
    assert!((3000..=3600).contains(&left), "{left}");
}

fn whoever_one_rule_refuses_uses_up_nothing_of_the_others() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    for kind in ["window_type: fixed", "window_type: sliding", "sync_interval: 0.1"] {
        redis.say(&["FLUSHALL"]);
        let plugin = format!(
            "limit-count: {{rules: [{{count: 3, time_window: 3600, key: $remote_addr}}, \
             {{count: 1, time_window: 3600, key: $http_x_user}}], rejected_code: 429, {kind}, redis_timeout: 20000, {}}}",
            redis.fields()
        );
        let setup = Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{plugin}}}"));
        let gateway = setup.cores(1).start();
        let ask = |user| gateway.request("GET", "/", &[("X-User", user)], b"").status;
        let statuses = ["a", "a", "a", "a", "a", "b", "c", "d"].map(ask);
        assert_eq!(statuses, [200, 429, 429, 429, 429, 200, 200, 429], "{kind}");
    }
}

fn gateways_share_turns() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let of = |rate: &str, more: &str| {
        format!(
            "limit-req: {{rate: {rate}, burst: 49, key: remote_addr, rejected_code: 429, redis_timeout: 20000, {}{more}}}",
            redis.fields()
        )
    };
    let plugin = of("0.001", ", nodelay: true");
    let gateways = [gateway(&origin, &plugin), gateway(&origin, &plugin)];
    assert_eq!(outcomes(&gateways, 20), (50, 70));
    let retry = gateways[0].get("/strict");
    assert!(retry.header("retry-after").unwrap().parse::<u64>().unwrap() > 900);
    // Without `nodelay` turns are waited for, whichever gateway they are taken at.
    let plugin = of("10", "");
    let gateways = [gateway(&origin, &plugin), gateway(&origin, &plugin)];
    let start = Instant::now();
    for gateway in gateways.iter().cycle().take(5) {
        gateway.get("/strict").expect(200, "hello");
    }
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
}

fn a_redis_that_is_gone_costs_no_more_than_was_said_and_comes_back() {
    let (origin, mut redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &count(&redis.fields(), ""));
    let mut client = gateway.client();
    client.get("/strict").expect(200, "hello");
    redis.stop();
    client.get("/strict").expect(500, "{\"error_msg\":\"failed to limit count\"}\n");
    client.get("/lenient").expect(200, "hello");
    assert!(failures(&gateway) > 1.5);
    gateway.wait_said(&["redis 127.0.0.1:", "can not connect: connection refused"]);
    redis.start_again();
    client.get("/strict").expect(200, "hello");
    gateway.wait_said(&["it replies again"]);
}

fn a_redis_that_hangs_keeps_nobody_for_longer_than_it_may() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &count(&redis.fields(), ", redis_timeout: 300"));
    gateway.get("/strict").expect(200, "hello");
    redis.pause();
    thread::scope(|scope| {
        for path in ["/strict", "/lenient"].repeat(5) {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.client();
                for _ in 0..3 {
                    let start = Instant::now();
                    client.get(path).expect_status(if path == "/strict" { 500 } else { 200 });
                    // The machine may be busy with other tests; how long it takes on a quiet one is told elsewhere.
                    assert!(start.elapsed() < Duration::from_secs(10), "{path}: {:?}", start.elapsed());
                }
            });
        }
    });
    redis.go_on();
    eventually("it is asked again", || (gateway.get("/strict").status == 200).then_some(()));
}

fn what_is_no_redis_is_told_and_survived() {
    let origin = Origin::replying("hello");
    for (says, word) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "not Redis's protocol"),
        ("*1000000000\r\n", "not Redis's protocol"),
        ("$99999999999\r\n", "not Redis's protocol"),
        ("+OK\r\n", "not Redis's protocol"),
        (":1\r\n:2\r\n", "not Redis's protocol"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "it says: LOADING"),
        ("-READONLY You can't write against a read only replica.\r\n", "it says: READONLY"),
        ("-ERR what is this\r\n", "it says: ERR what is this"),
        ("", "the connection broke"),
    ] {
        // Whatever is asked, it says that, and then nothing more.
        let odd = Origin::serving(move |conn| {
            let _ = conn.send(says.as_bytes());
            if !says.is_empty() {
                conn.request();
            }
        });
        let port = odd.address().port();
        let fields = format!("policy: redis, redis_host: 127.0.0.1, redis_port: {port}, redis_timeout: 2000");
        let gateway = gateway(&origin, &count(&fields, ""));
        gateway.get("/strict").expect_status(500);
        gateway.get("/lenient").expect(200, "hello");
        gateway.wait_said(&[word]);
    }
}

fn a_connection_is_opened_with_password_and_database() {
    let (origin, redis) = (Origin::replying("hello"), Redis::asking_for("sesame"));
    let with = |more: &str| gateway(&origin, &count(&redis.fields(), more));
    let right = with(", redis_password: sesame, redis_database: 3");
    right.get("/strict").expect(200, "hello");
    right.get("/strict").expect(200, "hello");
    let keys = redis.say(&["-n", "3", "KEYS", "plugin-limit-count:*"]);
    assert_eq!(redis.say(&["-n", "3", "GET", &keys]), "2");
    let wrong = with(", redis_password: wrong");
    wrong.get("/strict").expect_status(500);
    wrong.wait_said(&["it says: WRONGPASS"]);
    with("").get("/strict").expect_status(500);
    let beyond = with(", redis_password: sesame, redis_database: 999999");
    beyond.get("/strict").expect_status(500);
    beyond.get("/lenient").expect(200, "hello");
}

fn connections_and_scripts_that_redis_forgets_are_made_anew() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &count(&redis.fields(), ""));
    let mut client = gateway.client();
    let mut left = 100;
    for forget in
        [&["PING"][..], &["SCRIPT", "FLUSH"], &["CLIENT", "KILL", "TYPE", "normal"], &["SCRIPT", "FLUSH"]]
    {
        redis.say(forget);
        for _ in 0..3 {
            left -= 1;
            let answer = client.get("/strict");
            assert_eq!(answer.expect(200, "hello").header("x-ratelimit-remaining"), Some(&*left.to_string()));
        }
    }
    assert!(failures(&gateway) < 0.5);
}
