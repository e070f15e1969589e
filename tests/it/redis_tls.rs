//! A Redis over TLS: it is believed when somebody vouches for it, or when nobody is asked.

use serde_json::json;

use super::kit::{Certs, Gateway, Origin, Redis, RedisCluster, RedisWatched, eventually};

on_both_drivers!(
    a_redis_is_spoken_to_over_tls_and_verified,
    a_cluster_is_spoken_to_over_tls,
    sentinels_and_their_master_are_spoken_to_over_tls_and_verified,
);

/// Keys of a Redis, by one who is trusted, and of one who is not.
fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs.authority("other");
    certs.here("ca", "redis");
    certs
}

/// A gateway that trusts `ca` and counts in a Redis.
fn gateway(origin: &Origin, certs: &Certs, ca: &str, fields: &str) -> Gateway {
    let plugin = format!("limit-count: {{count: 100, time_window: 3600, {fields}}}");
    let trusted = certs.path(&format!("{ca}.crt"));
    Gateway::routing("/*", [origin])
        .route(&format!("plugins: {{{plugin}}}"))
        .settings(&json!({"ssl": {"trusted_certificate": trusted}}).to_string())
        .start()
}

fn a_redis_is_spoken_to_over_tls_and_verified() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let (redis, port) = Redis::secure(&certs);
    let with = |ca: &str, more: &str| {
        let fields =
            format!("policy: redis, redis_host: 127.0.0.1, redis_port: {port}, redis_ssl: true{more}");
        gateway(&origin, &certs, ca, &fields)
    };
    let verified = with("ca", ", redis_ssl_verify: true");
    let mut client = verified.client();
    for left in (90..100).rev() {
        let answer = client.get("/");
        let told = answer.expect(200, "hello").header("x-ratelimit-remaining");
        assert_eq!(told, Some(&*left.to_string()));
    }
    // A connection that Redis ends is made anew.
    redis.say(&["CLIENT", "KILL", "TYPE", "normal"]);
    client.get("/").expect(200, "hello");
    let strange = with("other", ", redis_ssl_verify: true");
    strange.get("/").expect(500, "{\"error_msg\":\"failed to limit count\"}\n");
    strange.wait_said(&["redis 127.0.0.1:", "no TLS: ", "invalid peer certificate"]);
    with("other", "").get("/").expect(200, "hello");
    // Whoever does not speak it gets no further.
    let fields = format!("policy: redis, redis_host: 127.0.0.1, redis_port: {port}, redis_timeout: 300");
    gateway(&origin, &certs, "ca", &fields).get("/").expect_status(500);
    let fields = format!("{}, redis_ssl: true, redis_timeout: 300", redis.fields());
    gateway(&origin, &certs, "ca", &fields).get("/").expect_status(500);
}

fn a_cluster_is_spoken_to_over_tls() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let (cluster, port) = RedisCluster::secure(&certs);
    let fields = format!(
        "policy: redis-cluster, redis_cluster_name: fleet, redis_cluster_nodes: ['127.0.0.1:{port}'], \
         redis_cluster_ssl: true, redis_cluster_ssl_verify: true, key: http_user"
    );
    let gateway = gateway(&origin, &certs, "ca", &fields);
    for user in 0..12 {
        gateway.request("GET", "/", &[("User", &format!("user-{user}"))], b"").expect(200, "hello");
    }
    let keys = cluster.keys("plugin-limit-count:v1:");
    assert_eq!(keys.len(), 12);
    assert!((0..3).all(|at| keys.iter().any(|(node, _)| *node == at)), "{keys:?}");
}

fn sentinels_and_their_master_are_spoken_to_over_tls_and_verified() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let (mut redis, port) = RedisWatched::secure(&certs);
    let (plain, first) = (redis.sentinel.port(), redis.master());
    assert_ne!(first, redis.nodes[0].port(), "the sentinel tells where TLS is spoken");
    let fields = |port: u16, more: &str| {
        format!(
            "policy: redis-sentinel, redis_master_name: counters, redis_sentinels: [{{host: 127.0.0.1, port: {port}}}]{more}"
        )
    };
    let patient = ", redis_connect_timeout: 20000, redis_read_timeout: 20000";
    let with = |ca: &str, port, more: &str| gateway(&origin, &certs, ca, &fields(port, more));
    let verified = with("ca", port, &format!(", redis_ssl: true, redis_ssl_verify: true{patient}"));
    let mut client = verified.client();
    let mut ask = |left: u32| {
        let answer = client.get("/");
        let told = answer.expect(200, "hello").header("x-ratelimit-remaining");
        assert_eq!(told, Some(&*left.to_string()));
    };
    (90..100).rev().for_each(&mut ask);
    // Each of the two refuses those who do not speak it, and is refused where nobody vouches for it.
    with("ca", port, ", redis_connect_timeout: 500").get("/").expect_status(500);
    with("ca", plain, ", redis_connect_timeout: 500").get("/").expect_status(500);
    with("ca", plain, ", redis_ssl: true, redis_connect_timeout: 500").get("/").expect_status(500);
    let strange = with("other", port, &format!(", redis_ssl: true, redis_ssl_verify: true{patient}"));
    strange.get("/").expect(500, "{\"error_msg\":\"failed to limit count\"}\n");
    strange.wait_said(&["no TLS: ", "invalid peer certificate"]);
    with("other", port, &format!(", redis_ssl: true{patient}")).get("/").expect(200, "hello");

    // A master that follows is found and spoken to in the same way, with what was counted.
    let all = |node: &Redis| {
        let keys = node.say(&["KEYS", "plugin-limit-count*"]);
        let mut held: Vec<String> =
            keys.lines().map(|key| format!("{key} {}", node.say(&["GET", key]))).collect();
        held.sort();
        held
    };
    eventually("the replica has the counts", || (all(&redis.nodes[0]) == all(&redis.nodes[1])).then_some(()));
    redis.nodes[0].stop();
    eventually("there is another master", || (redis.master() != first).then_some(()));
    eventually("it takes what is written", || {
        redis.nodes[1].say(&["ROLE"]).starts_with("master").then_some(())
    });
    (80..90).rev().for_each(&mut ask);
}
