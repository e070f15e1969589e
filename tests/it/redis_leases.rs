//! `limit-count` that asks its Redis seldom: never too many, not far too few, and what is not used comes back.

use std::thread;

use super::kit::{Gateway, Origin, Redis, RedisCluster, Signal, eventually};
use super::limiting::counted;

on_both_drivers!(
    what_gateways_hold_is_never_more_than_the_count,
    what_is_held_and_not_used_comes_back,
    a_cluster_lends_as_well,
);

const CORES: usize = 2;

fn gateway(origin: &Origin, fields: &str) -> Gateway {
    let plugin =
        format!("limit-count: {{time_window: 3600, rejected_code: 429, redis_timeout: 20000, {fields}}}");
    Gateway::routing("/*", [origin]).cores(CORES).route(&format!("plugins: {{{plugin}}}")).start()
}

/// How often scripts were run on a Redis.
fn scripts_run(redis: &Redis) -> usize {
    let said = redis.say(&["INFO", "commandstats"]);
    let of = |line: &str| {
        let is_script = line.starts_with("cmdstat_evalsha:") || line.starts_with("cmdstat_eval:");
        let calls = line.split_once("calls=").filter(|_| is_script)?.1;
        calls.split(',').next()?.parse::<usize>().ok()
    };
    said.lines().filter_map(of).sum()
}

fn statuses(gateways: &[Gateway], each: usize) -> Vec<u16> {
    thread::scope(|scope| {
        let clients = gateways.iter().flat_map(|gateway| [gateway; 3]);
        let ask = |gateway: &Gateway| {
            let mut client = gateway.client();
            (0..each).map(|_| client.get("/").status).collect::<Vec<_>>()
        };
        let work: Vec<_> = clients.map(|gateway| scope.spawn(move || ask(gateway))).collect();
        work.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

fn what_gateways_hold_is_never_more_than_the_count() {
    const COUNT: usize = 1600;
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    for window in ["fixed", "sliding"] {
        let fields = format!("count: {COUNT}, window_type: {window}, sync_interval: 0.2, {}", redis.fields());
        let gateways = [(); 2].map(|()| gateway(&origin, &fields));
        let before = scripts_run(&redis);
        // Twice as many as may pass, so that there is something to refuse.
        let mut all = statuses(&gateways, COUNT / 3);
        let admitted = |all: &[u16]| all.iter().filter(|status| **status == 200).count();
        assert!(all.iter().all(|status| [200, 429].contains(status)), "{all:?}");
        let (first, asked) = (admitted(&all), scripts_run(&redis) - before);
        let least = COUNT - 2 * CORES * COUNT / 16;
        eprintln!(
            "{window}: {first} of {COUNT} admitted at once (at least {least}), Redis asked {asked} times"
        );
        assert!((least..=COUNT).contains(&first), "{window}: {first}");
        assert!(asked * 4 < all.len(), "{window}: {} requests, Redis was asked {asked} times", all.len());
        // Whoever held some to the end gives them back, and they are had by others.
        eventually("all are admitted", || {
            all.push(gateways[all.len() % 2].get("/").status);
            (admitted(&all) >= COUNT).then_some(())
        });
        all.extend(statuses(&gateways, 10));
        assert_eq!(admitted(&all), COUNT, "{window}");
        for gateway in &gateways {
            assert!(counted(gateway, "ringway_limit_leased_total") > 0.5);
        }
    }
}

fn what_is_held_and_not_used_comes_back() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let mut gateway = gateway(&origin, &format!("count: 1000, sync_interval: 0.2, {}", redis.fields()));
    let mut client = gateway.client();
    for left in (960..1000).rev() {
        let answer = client.get("/");
        let told = answer.expect(200, "hello").header("x-ratelimit-remaining");
        assert_eq!(told, Some(&*left.to_string()), "one gateway knows what the others do not spend");
    }
    let key = redis.say(&["KEYS", "plugin-limit-count:v1:*"]);
    eventually("what was not used is back", || (redis.say(&["GET", &key]) == "40").then_some(()));
    // A gateway that ends does not keep what it holds either.
    for _ in 0..20 {
        client.get("/").expect(200, "hello");
    }
    drop(client);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert_eq!(redis.say(&["GET", &key]), "60");
}

fn a_cluster_lends_as_well() {
    let (origin, cluster) = (Origin::replying("hello"), RedisCluster::start());
    let fields = format!("count: 50, key: http_user, sync_interval: 0.2, {}", cluster.fields());
    let gateway = gateway(&origin, &fields);
    let mut client = gateway.client();
    for user in 0..6 {
        let user = format!("user-{user}");
        let mut ask = || usize::from(client.request("GET", "/", &[("User", &user)], b"").status == 200);
        let mut admitted: usize = (0..60).map(|_| ask()).sum();
        eventually("all are admitted", || {
            admitted += ask();
            (admitted >= 50).then_some(())
        });
        admitted += (0..10).map(|_| ask()).sum::<usize>();
        assert_eq!(admitted, 50);
    }
    assert!(counted(&gateway, "ringway_limit_leased_total") > 0.5);
}
