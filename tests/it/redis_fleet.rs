//! Limits kept by a cluster of Redis, and by a master that sentinels watch: the same numbers, wherever keys and masters go.

use std::thread;

use super::kit::{Gateway, Origin, Redis, RedisCluster, RedisWatched, eventually};

on_both_drivers!(
    gateways_share_a_cluster_wherever_its_keys_go,
    a_master_is_found_and_found_again_after_a_failover
);

const LIMITS: [(&str, &str); 3] = [
    ("/count", "limit-count: {count: 12, time_window: 3600"),
    ("/turn", "limit-req: {rate: 0.001, burst: 11, nodelay: true"),
    ("/seat", "limit-conn: {conn: 50, burst: 0, default_conn_delay: 0.1"),
];

fn gateway(origin: &Origin, fields: &str, limits: &[(&str, &str)]) -> Gateway {
    let routes = limits.iter().map(|(uri, limit)| {
        format!(
            "\n  - {{id: {}, uri: {uri}, plugins: {{{limit}, key: http_user, rejected_code: 429, redis_timeout: 20000, {fields}}}}}, \
             upstream: {{nodes: {{ORIGIN: 1}}}}}}",
            &uri[1..]
        )
    });
    let objects = format!("routes:{}", routes.collect::<String>());
    Gateway::resources(&objects, &[("ORIGIN", origin)]).cores(2).start()
}

/// How many requests of each of so many users are admitted, when each comes so often to each gateway.
fn admitted(gateways: &[Gateway], path: &str, users: std::ops::Range<usize>, each: usize) -> usize {
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |gateway: &Gateway| {
            let mut client = gateway.client();
            let of = |user: usize| format!("user-{user}");
            let all = users.clone().flat_map(|user| vec![of(user); each]);
            all.map(|user| client.request("GET", path, &[("User", &user)], b"").status).collect::<Vec<_>>()
        };
        let work: Vec<_> = gateways.iter().map(|gateway| scope.spawn(move || ask(gateway))).collect();
        work.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let of = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(of(200) + of(429), statuses.len(), "{statuses:?}");
    of(200)
}

fn gateways_share_a_cluster_wherever_its_keys_go() {
    let (origin, mut cluster) = (Origin::replying("hello"), RedisCluster::start());
    let gateways = [(); 2].map(|()| gateway(&origin, &cluster.fields(), &LIMITS));
    // Each user has 12, and comes 8 times to each of two.
    assert_eq!(admitted(&gateways, "/count", 0..12, 8), 144);
    assert_eq!(admitted(&gateways, "/turn", 0..12, 8), 144);
    assert_eq!(admitted(&gateways, "/seat", 0..12, 4), 96);
    eventually("all seats came back", || cluster.keys("limit_conn:").is_empty().then_some(()));
    let keys = cluster.keys("plugin-limit-count:v1:");
    assert_eq!(keys.len(), 12);
    assert!((0..3).all(|at| keys.iter().any(|(node, _)| *node == at)), "{keys:?}");
    // A user who comes 4 times, moves while half of that is over, and comes again.
    let ask = |user: &str| {
        let answers = gateways.iter().map(|gateway| gateway.request("GET", "/count", &[("User", user)], b""));
        answers.map(|answer| answer.header("x-ratelimit-remaining").unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ask("mover"), ["11", "10"]);
    let (from, key) = cluster.keys("*mover").remove(0);
    let to = (from + 1) % 3;
    let slot = cluster.begin_to_move(&key, from, to);
    assert_eq!(ask("mover"), ["9", "8"]);
    cluster.end_to_move(&slot, to);
    assert_eq!(ask("mover"), ["7", "6"]);
    assert_eq!(ask("mover"), ["5", "4"]);
    // It moves on unseen, and where it was is gone.
    let last = (to + 1) % 3;
    let slot = cluster.begin_to_move(&key, to, last);
    cluster.end_to_move(&slot, last);
    cluster.nodes[to].stop();
    assert_eq!(ask("mover"), ["3", "2"]);
    assert_eq!(cluster.nodes[last].say(&["GET", &key]), "10");
}

fn a_master_is_found_and_found_again_after_a_failover() {
    let (origin, mut redis) = (Origin::replying("hello"), RedisWatched::start());
    let limit = (
        "/count",
        "limit-count: {count: 100, time_window: 3600, redis_connect_timeout: 20000, redis_read_timeout: 20000",
    );
    let gateways = [(); 2].map(|()| gateway(&origin, &redis.fields(), &[limit]));
    assert_eq!(admitted(&gateways, "/count", 0..1, 20), 40);
    let first = redis.nodes[0].port();
    assert_eq!(redis.master(), first);
    let held = |node: &Redis| node.say(&["GET", node.say(&["KEYS", "plugin-limit-count*"]).trim()]);
    let count = held(&redis.nodes[0]);
    assert!(!count.is_empty(), "the master has the count");
    eventually("the replica has the count", || (held(&redis.nodes[1]) == count).then_some(()));
    redis.nodes[0].stop();
    eventually("there is another master", || (redis.master() != first).then_some(()));
    eventually("it takes what is written", || {
        redis.nodes[1].say(&["ROLE"]).starts_with("master").then_some(())
    });
    // Nobody tells the gateways: they ask.
    assert_eq!(
        admitted(&gateways, "/count", 0..1, 40),
        60,
        "what was counted is known to the one who follows"
    );
}
