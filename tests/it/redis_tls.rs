//! A Redis over TLS: it is believed when somebody vouches for it, or when nobody is asked.

use serde_json::json;

use super::kit::{Certs, Gateway, Origin, Redis, RedisCluster};

on_both_drivers!(a_redis_is_spoken_to_over_tls_and_verified, a_cluster_is_spoken_to_over_tls);

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
