//! What becomes of requests that come at once: seats, refusals, and that every seat comes back.

use super::*;
use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};

const TWO: &str = r#"{"conn": 2, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr"}"#;

/// How many requests at once are not refused.
fn at_once(bench: &Bench<LimitConn>, request: impl Fn() -> Request) -> usize {
    let outcomes: Vec<_> = (0..9).map(|_| bench.request(request())).collect();
    outcomes.iter().filter(|outcome| outcome.reply.is_none()).count()
}

#[test]
fn so_many_are_admitted_at_once_for_each_key() {
    let bench = check::<LimitConn>(TWO).unwrap();
    for _ in 0..3 {
        assert_eq!(at_once(&bench, || Request::get("/").from("10.0.0.1")), 2);
        assert_eq!(at_once(&bench, || Request::get("/").from("::ffff:10.0.0.1")), 2);
    }
    let held = (bench.request(Request::get("/")), bench.request(Request::get("/")));
    bench.request(Request::get("/")).replies(503, "");
    bench.request(Request::get("/").from("10.0.0.2")).passes();
    drop(held);
    bench.request(Request::get("/")).passes();
}

#[test]
fn a_seat_is_given_back_once_whatever_way_it_ends() {
    let bench = check::<LimitConn>(TWO).unwrap();
    // By its end; being dropped after that gives back nothing more.
    let mut exchanges = vec![bench.request(Request::get("/")).passes().response(200, &[], b"").ex];
    exchanges.push(bench.request(Request::get("/")).passes().ex);
    exchanges.push(bench.request(Request::get("/")).passes().ex);
    bench.request(Request::get("/")).replies(503, "");
    exchanges.remove(0).clear();
    bench.request(Request::get("/")).replies(503, "");
    // By being used again, or dropped, without an end.
    exchanges[0].clear();
    let again = bench.request(Request::get("/")).passes();
    bench.request(Request::get("/")).replies(503, "");
    drop((exchanges, again));
    assert_eq!(at_once(&bench, || Request::get("/")), 2);
}

#[test]
fn a_refused_request_has_no_seat() {
    let config = r#"{"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr",
        "rejected_code": 429, "rejected_msg": "too many"}"#;
    let bench = check::<LimitConn>(config).unwrap();
    let first = bench.request(Request::get("/")).passes();
    let second = bench.request(Request::get("/")).replies(429, "{\"error_msg\":\"too many\"}\n");
    drop(second);
    bench.request(Request::get("/")).replies(429, "");
    drop(first);
    bench.request(Request::get("/")).passes();
    assert_eq!(bench.core().stats.limit_refusals.get(), 2);
}

#[test]
fn rules_are_limits_side_by_side() {
    let bench = check::<LimitConn>(
        r#"{"default_conn_delay": 0.01, "rules": [{"conn": 2, "burst": 0, "key": "${http_user}"},
            {"conn": "${http_conn ?? 3}", "burst": "0", "key": "$http_project"}]}"#,
    )
    .unwrap();
    assert_eq!(at_once(&bench, || Request::get("/").header("User", "a")), 2);
    assert_eq!(at_once(&bench, || Request::get("/").header("Project", "a")), 3);
    assert_eq!(at_once(&bench, || Request::get("/").header("Project", "a").header("User", "a")), 2);
    assert_eq!(at_once(&bench, || Request::get("/").header("Project", "a").header("Conn", "5")), 5);
    bench.request(Request::get("/")).replies(500, "");
    bench.request(Request::get("/").header("Project", "a").header("Conn", "0")).replies(500, "");
}

#[test]
fn uses_count_apart_and_outlive_a_snapshot() {
    let mut desk = Desk::new();
    let one = desk.compile::<LimitConn>("routes/1", TWO).unwrap();
    let two = desk.compile::<LimitConn>("routes/2", TWO).unwrap();
    let held = (one.request(Request::get("/")).passes(), one.request(Request::get("/")).passes());
    two.request(Request::get("/")).passes();
    let again = desk.compile::<LimitConn>("routes/1", TWO).unwrap();
    again.request(Request::get("/")).replies(503, "");
    drop(held);
    assert_eq!(at_once(&again, || Request::get("/")), 2);
}

#[test]
fn numbers_that_are_none_pass_only_where_that_is_allowed() {
    let config = r#"{"conn": "$http_conn", "burst": 1, "default_conn_delay": 0.1, "key": "remote_addr"}"#;
    check::<LimitConn>(config).unwrap().request(Request::get("/")).replies(500, "");
    let lenient = config.replacen('{', r#"{"allow_degradation": true, "#, 1);
    check::<LimitConn>(&lenient).unwrap().request(Request::get("/")).passes();
}

#[test]
fn a_core_learns_how_long_requests_take() {
    let learnt = |extra: &str| {
        let config = TWO.replacen('{', &format!("{{{extra}"), 1);
        let bench = check::<LimitConn>(&config).unwrap();
        let slow = Request::get("/").with(|ex| {
            ex.timing.upstream = Duration::from_millis(300);
            ex.attempts.push(crate::exchange::Attempt {
                node: "127.0.0.1:1".parse().unwrap(),
                status: 200,
                connect: Duration::ZERO,
                header: Duration::ZERO,
                total: Duration::from_millis(300),
                reused: false,
            });
        });
        bench.request(slow).passes().response(200, &[], b"");
        bench
    };
    let spans = |bench: &Bench<LimitConn>| {
        let consumers = crate::plugin::ConsumerIndex::default();
        let env = Env { core: bench.core(), consumers: &consumers, prices: None };
        [1, 3, 5000].map(|times| bench.plugin.span(times, env).as_millis())
    };
    assert_eq!(spans(&learnt("")), [200, 600, 60_000]);
    assert_eq!(spans(&learnt(r#""only_use_default_delay": true, "#)), [100, 300, 60_000]);
}

#[test]
fn schema_and_compile_agree() {
    let base = r#""conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr""#;
    let with = |extra: &str| format!("{{{base},{extra}}}");
    let rules = |rules: &str| format!(r#"{{"default_conn_delay": 0.1, "rules": [{rules}]}}"#);
    agree::<LimitConn>(
        &[
            &format!("{{{base}}}"),
            r#"{"conn": "${http_a ?? 1}", "burst": "$http_b", "default_conn_delay": 1, "key": "a"}"#,
            &with(r#""key_type": "var_combination", "only_use_default_delay": true, "rejected_msg": "m""#),
            &with(r#""policy": "local", "key_ttl": 60, "allow_degradation": true, "rejected_code": 200"#),
            &rules(r#"{"conn": 1, "burst": 0, "key": "$a"}"#),
        ],
        &[
            ("{}", "default_conn_delay"),
            (r#"{"default_conn_delay": 0.1}"#, "at least one of"),
            (r#"{"conn": 1, "default_conn_delay": 0.1, "key": "a"}"#, "burst"),
            (r#"{"burst": 1, "default_conn_delay": 0.1, "key": "a"}"#, "conn"),
            (r#"{"conn": 1, "burst": 0, "default_conn_delay": 0.1}"#, "key"),
            (r#"{"conn": 0, "burst": 0, "default_conn_delay": 0.1, "key": "a"}"#, "conn"),
            (r#"{"conn": 1, "burst": -1, "default_conn_delay": 0.1, "key": "a"}"#, "burst"),
            (r#"{"conn": 1, "burst": 0, "default_conn_delay": 0, "key": "a"}"#, "default_conn_delay"),
            (&with(r#""key_type": "constant""#), "key_type"),
            (&with(r#""rejected_code": 600"#), "rejected_code"),
            (&with(r#""policy": "redis-sentinel""#), "policy"),
            (&with(r#""rate": 1"#), "rate"),
            (&rules(""), "at least 1"),
            (&rules(r#"{"conn": 1, "burst": 0}"#), "key"),
        ],
    );
    let rule = r#"{"conn": 1, "burst": 0, "key": "$a"}"#;
    refuses::<LimitConn>(&with(&format!(r#""rules": [{rule}]"#)), "cannot be specified at the same time");
    refuses::<LimitConn>(&rules(&format!("{rule}, {rule}")), "duplicate key '$a' in rules");
    refuses::<LimitConn>(&with(r#""policy": "redis""#), "redis_host is required");
    refuses::<LimitConn>(&with(r#""policy": "redis-cluster""#), "redis_cluster_nodes is required");
}
