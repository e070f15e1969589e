//! What a client sees of `limit`: counts, all or nothing, costs, tiers, shadows and headers.

use super::*;
use crate::exchange::ConsumerLabels;
use crate::plugin::testing::{Bench, Desk as Compiling, Request, agree, check, refuses};
use crate::plugin::{Look, Whose};

fn bench(config: &str) -> Bench<Limit> {
    check::<Limit>(config).unwrap()
}

/// Sends requests until one is refused; how many were not.
fn admitted(bench: &Bench<Limit>, request: impl Fn() -> Request) -> usize {
    (0..100).take_while(|_| bench.request(request()).reply.is_none()).count()
}

fn by(name: &'static str, value: &'static str) -> impl Fn() -> Request {
    move || Request::get("/").header(name, value)
}

/// What is left of each measure, by what is told to those who look.
fn left(bench: &Bench<Limit>, key: &str) -> Vec<u64> {
    let whose = Whose::Key { key, consumer: "", group: "", is_keyless: false };
    let look = Look { ledger: &bench.core().ledger, now: bench.core().now(), whose };
    bench.plugin.standing(look).iter().map(|told| told["remaining"].as_u64().unwrap()).collect()
}

#[test]
fn the_narrowest_of_several_windows_decides() {
    let bench = bench(
        r#"{"limits": [{"name": "client", "windows": [{"count": 9, "seconds": 600}, {"count": 4, "seconds": 60}],
            "rate": {"count": 1, "per": "hour", "burst": 6}}]}"#,
    );
    assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.1")), 4);
    assert_eq!(left(&bench, "10.0.0.1"), [5, 0, 2], "what was refused is counted nowhere");
    assert_eq!(left(&bench, "10.0.0.2"), [9, 4, 6]);
    assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.2")), 4);
}

#[test]
fn a_refusal_by_one_limit_takes_nothing_of_the_others() {
    let bench = bench(
        r#"{"limits": [
            {"name": "organisation", "key": "http_x_org", "windows": [{"count": 10, "seconds": 600}]},
            {"name": "team", "key": "$http_x_org/$http_x_team", "key_type": "var_combination",
             "windows": [{"count": 3, "seconds": 600}]},
            {"name": "all", "key": "all", "key_type": "constant", "rate": {"count": 0.001, "burst": 12}}]}"#,
    );
    let team = |team: &'static str| move || Request::get("/").header("X-Org", "o").header("X-Team", team);
    assert_eq!(admitted(&bench, team("a")), 3);
    for _ in 0..20 {
        bench.request(team("a")()).replies(429, "");
    }
    assert_eq!((left(&bench, "o")[0], left(&bench, "o")[2]), (7, 9));
    assert_eq!((admitted(&bench, team("b")), admitted(&bench, team("c")), admitted(&bench, team("d"))), (3, 3, 1));
    assert_eq!(left(&bench, "o/d")[1], 2);
    // Another organisation has what is left for all.
    assert_eq!(admitted(&bench, by("X-Org", "p")), 2);
    assert_eq!(bench.core().stats.limit_refusals.get(), 25);
}

#[test]
fn a_request_without_a_key_is_counted_by_its_address_or_passed_over() {
    let of = |without: &str| {
        bench(&format!(
            r#"{{"limits": [{{"name": "a", "key": "http_x", "without_key": "{without}", "windows": [{{"count": 2, "per": "month"}}]}}]}}"#
        ))
    };
    assert_eq!(admitted(&of("address"), || Request::get("/")), 2);
    assert_eq!(admitted(&of("pass"), || Request::get("/")), 100);
    assert_eq!(admitted(&of("pass"), by("X", "1")), 2);
}

#[test]
fn a_request_may_cost_more_than_one() {
    let bench = bench(
        r#"{"cost": "$http_x_cost", "cost_default": 5,
            "limits": [{"name": "a", "windows": [{"count": 10, "seconds": 60}]}]}"#,
    );
    bench.request(by("X-Cost", "3")()).passes();
    for (bad, from) in [("", "10.1.1.1"), ("-1", "10.1.1.2"), ("many", "10.1.1.3"), ("4294967296", "10.1.1.4")] {
        bench.request(by("X-Cost", bad)().from(from)).passes();
        bench.request(by("X-Cost", bad)().from(from)).passes();
        bench.request(by("X-Cost", "1")().from(from)).replies(429, "");
    }
    assert_eq!((left(&bench, "192.0.2.1"), left(&bench, "10.1.1.1")), (vec![7], vec![0]));
    // What is never possible says no time to come again.
    let never = bench.request(by("X-Cost", "11")().from("10.9.9.9")).replies(429, "").answer();
    assert_eq!((never.header("Retry-After"), never.header("RateLimit")), (String::new(), "\"a\";r=10".to_owned()));
    bench.request(by("X-Cost", "0")().from("10.1.1.1")).passes();
}

#[test]
fn what_a_request_has_cost_is_settled_when_it_is_over() {
    for amount in [r#""windows": [{"count": 100, "seconds": 600}]"#, r#""rate": {"count": 0.0001, "burst": 100}"#] {
        let bench = bench(&format!(
            r#"{{"cost": 40, "settle": "$upstream_http_x_used", "limits": [{{"name": "a", {amount}}}]}}"#
        ));
        bench.response(200, &[("X-Used", "5")], b"");
        assert_eq!(left(&bench, "192.0.2.1"), [95], "{amount}: the rest comes back");
        bench.response(200, &[("X-Used", "70")], b"");
        assert_eq!(left(&bench, "192.0.2.1"), [25], "{amount}: and what is missing is taken");
        bench.request(Request::get("/")).replies(429, "");
        let bench = self::bench(&format!(
            r#"{{"cost": "$http_x_cost", "cost_default": 40, "settle": "$upstream_http_x_used",
                "limits": [{{"name": "a", {amount}}}]}}"#
        ));
        bench.response(200, &[("X-Used", "-1")], b"");
        assert_eq!(left(&bench, "192.0.2.1"), [60], "{amount}: without a number the estimate stands");
        bench.response(200, &[("X-Used", "900")], b"");
        assert_eq!(left(&bench, "192.0.2.1"), [0], "{amount}: a debt");
        bench.request(Request::get("/").header("X-Cost", "1")).replies(429, "");
        // What costs nothing passes nevertheless.
        bench.request(Request::get("/").header("X-Cost", "0")).passes();
    }
}

#[test]
fn a_shadow_tells_and_does_nothing_else() {
    let bench = bench(
        r#"{"limits": [{"name": "new", "mode": "shadow", "windows": [{"count": 2, "seconds": 600}]},
            {"name": "old", "windows": [{"count": 5, "seconds": 600}]}]}"#,
    );
    let told: Vec<String> = (0..5)
        .map(|_| {
            let outcome = bench.request(Request::get("/")).passes();
            String::from_utf8(outcome.ex.would_reject).unwrap()
        })
        .collect();
    assert_eq!(told, ["", "", "new", "new", "new"]);
    assert_eq!(left(&bench, "192.0.2.1"), [0, 0]);
    let refused = bench.request(Request::get("/")).replies(429, "").answer();
    assert_eq!(refused.header("RateLimit-Policy"), "\"old\";q=5;w=600");
    let mut counted: Vec<String> =
        bench.series().iter().map(|series| format!("{} {}", series.family, series.labels)).collect();
    counted.sort();
    let line = |limit: &str, result: &str| {
        format!("limit_requests_total plugin=\"limit\",limit=\"{limit}\",result=\"{result}\"")
    };
    assert_eq!(
        counted,
        [line("new", "admitted"), line("new", "would_reject"), line("old", "admitted"), line("old", "rejected")]
    );
    let all = check::<Limit>(r#"{"mode": "shadow", "limits": [{"name": "a", "concurrency": 1, "rate": {"count": 0.001}}]}"#);
    let all = all.unwrap();
    assert_eq!(admitted(&all, || Request::get("/")), 100);
    assert_eq!(all.response(200, &[], b"").header("RateLimit"), "");
}

#[test]
fn consumers_and_groups_may_have_amounts_of_their_own() {
    let bench = bench(
        r#"{"limits": [{"name": "a", "key": "consumer_name", "windows": [{"count": 2, "seconds": 600}]}],
            "tiers": {"consumers": {"jack": {"a": {"windows": [{"count": 5, "seconds": 600}]}}},
                      "consumer_groups": {"gold": {"a": {"rate": {"count": 0.001, "burst": 3}}}}}}"#,
    );
    let of = |name: &'static str, group: &'static str| {
        move || Request::get("/").with(|ex| ex.consumer = ConsumerLabels::new(name, group, "", ""))
    };
    assert_eq!(admitted(&bench, of("jack", "gold")), 5);
    assert_eq!(admitted(&bench, of("jill", "gold")), 3);
    assert_eq!(admitted(&bench, of("joe", "")), 2);
    let answer = bench.request(of("jack", "")()).replies(429, "").answer();
    assert_eq!(answer.header("RateLimit-Policy"), "\"a\";q=5;w=600");
}

#[test]
fn answers_say_what_is_left_in_the_form_that_was_asked_for() {
    let limits = r#""limits": [{"name": "org", "key": "http_x_org", "windows": [{"count": 5, "seconds": 600}, {"count": 9, "per": "month"}]},
        {"name": "client", "rate": {"count": 2, "per": "hour", "burst": 2}}]"#;
    let ietf = bench(&format!("{{{limits}}}"));
    let answer = ietf.response(200, &[], b"");
    assert_eq!(
        answer.header("RateLimit-Policy"),
        "\"org-600s\";q=5;w=600, \"org-month\";q=9;w=2592000, \"client\";q=2;w=3600"
    );
    let told = answer.header("RateLimit");
    assert!(told.starts_with("\"org-600s\";r=4;t=600, \"org-month\";r=8;t="), "{told}");
    assert!(told.ends_with(", \"client\";r=1;t=1800"), "{told}");
    assert_eq!(answer.header("X-RateLimit-Limit"), "");
    ietf.request(Request::get("/")).passes();
    let refused = ietf.request(Request::get("/")).replies(429, "").answer();
    assert!((1790..=1800).contains(&refused.header("Retry-After").parse::<u64>().unwrap()));
    assert!(refused.header("RateLimit").contains("\"client\";r=0;t="), "{}", refused.header("RateLimit"));

    let older = bench(&format!(r#"{{"headers": "x-ratelimit", {limits}}}"#));
    let answer = older.response(200, &[], b"");
    assert_eq!((answer.header("X-RateLimit-Limit"), answer.header("X-RateLimit-Remaining")), ("2".into(), "1".into()));
    assert_eq!((answer.header("X-RateLimit-Reset"), answer.header("RateLimit")), ("1800".into(), String::new()));

    let none = bench(&format!(r#"{{"headers": "none", {limits}}}"#));
    assert_eq!(none.response(200, &[], b"").header("RateLimit"), "");
    none.request(Request::get("/")).passes();
    assert_ne!(none.request(Request::get("/")).replies(429, "").answer().header("Retry-After"), "");
}

#[test]
fn a_refusal_is_told_as_problem_details_to_whom_asks_for_them() {
    let limits = r#""rejected_msg": "slow \"down\"", "limits": [{"name": "a", "rate": {"count": 0.001}}]"#;
    let problem = "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
        \"title\":\"Request cannot be satisfied as assigned quota has been exceeded\",\"status\":429,\
        \"detail\":\"slow \\\"down\\\"\",\"violated-policies\":[\"a\"]}\n";
    let bench = bench(&format!("{{{limits}}}"));
    bench.request(Request::get("/")).passes();
    bench.request(Request::get("/")).replies(429, "{\"error_msg\":\"slow \\\"down\\\"\"}\n");
    let asking = by("Accept", "text/html, application/Problem+json;q=0.5");
    bench.request(asking()).replies(429, problem).header("Content-Type", "application/problem+json");
    let always = self::bench(&format!("{{\"problem_details\": true, {limits}}}"));
    always.request(Request::get("/")).passes();
    always.request(Request::get("/")).replies(429, problem);
}

#[test]
fn what_is_spent_outlives_other_amounts_and_is_shared_by_name() {
    let config = |count: u32, more: &str| {
        format!(r#"{{"limits": [{{"name": "a", "windows": [{{"count": {count}, "per": "month"}}]{more}}}]}}"#)
    };
    let mut desk = Compiling::new();
    let one = desk.compile::<Limit>("routes/1", &config(3, "")).unwrap();
    let two = desk.compile::<Limit>("routes/2", &config(3, "")).unwrap();
    assert_eq!((admitted(&one, || Request::get("/")), admitted(&two, || Request::get("/"))), (3, 3));
    let more = desk.compile::<Limit>("routes/1", &config(5, "")).unwrap();
    assert_eq!(admitted(&more, || Request::get("/")), 2, "what was spent stays spent");
    let three = desk.compile::<Limit>("routes/3", &config(4, r#", "shared": true"#)).unwrap();
    let four = desk.compile::<Limit>("services/4", &config(6, r#", "shared": true"#)).unwrap();
    assert_eq!((admitted(&three, || Request::get("/")), admitted(&four, || Request::get("/"))), (4, 2));
}

#[test]
fn seats_are_taken_while_a_request_lasts() {
    let bench = bench(r#"{"limits": [{"name": "a", "concurrency": 2, "windows": [{"count": 3, "seconds": 600}]}]}"#);
    let first = bench.request(Request::get("/")).passes();
    let second = bench.request(Request::get("/")).passes();
    let refused = bench.request(Request::get("/")).replies(429, "").answer();
    assert_eq!(refused.header("Retry-After"), "", "nobody knows when a seat comes free");
    assert_eq!(left(&bench, "192.0.2.1"), [1, 0]);
    drop(first);
    assert_eq!(left(&bench, "192.0.2.1"), [1, 1], "an exchange that is dropped leaves no seat taken");
    second.response(200, &[], b"");
    assert_eq!(left(&bench, "192.0.2.1"), [1, 2]);
    let mut ex = bench.request(Request::get("/")).passes().ex;
    ex.clear();
    assert_eq!(left(&bench, "192.0.2.1"), [0, 2]);
    bench.request(Request::get("/")).replies(429, "");
    assert_eq!(left(&bench, "192.0.2.1"), [0, 2], "whom a window refuses has no seat");
}

#[test]
fn bodies_wait_for_what_their_keys_have_passed_together() {
    let bench = bench(
        r#"{"limits": [
            {"name": "a", "key": "http_x_org", "bandwidth": {"up": {"bytes": 10000, "burst": 5000}, "down": {"bytes": 100000}}},
            {"name": "b", "key": "all", "key_type": "constant", "bandwidth": {"up": {"bytes": 2000000}}},
            {"name": "c", "mode": "shadow", "bandwidth": {"down": {"bytes": 1024, "burst": 1}}}]}"#,
    );
    let now = bench.core().now();
    let pass = |org: &'static str, bytes: u64| {
        let ex = bench.request(by("X-Org", org)()).passes().ex;
        let paces = [&ex.paces.up, &ex.paces.down];
        let rates = paces.map(|pace| pace.as_ref().and_then(|pace| pace.bytes_a_second()));
        assert_eq!(rates, [Some(10_000), Some(100_000)], "of several the slowest, and none in the shadow");
        paces.map(|pace| pace.as_ref().unwrap().pass(now, bytes).as_millis())
    };
    assert_eq!(pass("o", 4000), [0, 0]);
    assert_eq!(pass("o", 4000), [300, 0]);
    assert_eq!(pass("p", 5000), [0, 0], "another key");
    assert_eq!(pass("p", 100_000), [10_000, 50]);
    let whose = Whose::Key { key: "o", consumer: "", group: "", is_keyless: false };
    let told = bench.plugin.standing(Look { ledger: &bench.core().ledger, now, whose });
    let of = |at: usize| (told[at]["per"].as_str().unwrap(), told[at]["remaining"].as_u64().unwrap());
    assert_eq!((of(0), of(1)), (("bytes up", 0), ("bytes down", 92_000)));
    assert_eq!(told[0]["reset_in"].as_f64(), Some(0.8));
    let counted = bench.series();
    let shadow = counted.iter().find(|series| series.labels.contains("would_delay")).unwrap();
    assert_eq!(shadow.labels, "plugin=\"limit\",limit=\"c\",direction=\"down\",result=\"would_delay\"");
    // What is passed on without a limit has no pace.
    let free = self::bench(r#"{"limits": [{"name": "a", "rate": {"count": 9}}]}"#);
    let ex = free.request(Request::get("/")).passes().ex;
    assert!(ex.paces.up.is_none() && ex.paces.down.is_none());
}

#[test]
fn two_uses_tell_of_all_their_limits() {
    let mut desk = Compiling::new();
    let config = |name: &str| format!(r#"{{"limits": [{{"name": "{name}", "windows": [{{"count": 5, "seconds": 60}}]}}]}}"#);
    let one = desk.compile::<Limit>("global_rules/1", &config("global")).unwrap();
    let two = desk.compile::<Limit>("routes/1", &config("route")).unwrap();
    let ex = one.request(Request::get("/")).passes().ex;
    let mut ex = two.run(ex).passes().ex;
    let consumers = crate::plugin::ConsumerIndex::default();
    let env = Env { core: one.core(), consumers: &consumers, prices: None };
    one.plugin.tell(&mut ex, env);
    two.plugin.tell(&mut ex, env);
    let lines: Vec<String> =
        ex.response.headers.all("RateLimit").map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    assert_eq!(lines, ["\"global\";r=4;t=60", "\"route\";r=4;t=60"]);
}

#[test]
fn schema_and_compile_agree() {
    let limit = r#"{"name": "a", "windows": [{"count": 1, "per": "day"}]}"#;
    let with = |extra: &str| format!(r#"{{"limits": [{limit}], {extra}}}"#);
    let one = |fields: &str| format!(r#"{{"limits": [{{"name": "a", {fields}}}]}}"#);
    agree::<Limit>(
        &[
            &with(r#""cost": "$http_a", "cost_default": 0, "settle": "$sent_http_a", "mode": "shadow""#),
            &with(r#""wait": {"for": 0.5, "at_most": 10}, "rejected_code": 503, "rejected_msg": "m""#),
            &with(r#""headers": "none", "problem_details": true"#),
            &one(r#""rate": {"count": 0.5, "per": "minute", "burst": 3}, "concurrency": 2"#),
            &one(r#""bandwidth": {"up": {"bytes": 1024}}"#),
            &one(r#""bandwidth": {"up": {"bytes": 1099511627776, "burst": 1}, "down": {"bytes": 5000}}"#),
        ],
        &[
            ("{}", "limits is required"),
            (r#"{"limits": []}"#, "at least 1"),
            (&one(r#""rate": {"count": 0}"#), "count"),
            (&one(r#""windows": []"#), "windows"),
            (&one(r#""bandwidth": {}"#), "up"),
            (&one(r#""bandwidth": {"up": {}}"#), "bytes is required"),
            (&one(r#""bandwidth": {"down": {"bytes": 1023}}"#), "bytes"),
            (&one(r#""bandwidth": {"down": {"bytes": 5000, "burst": 0}}"#), "burst"),
            (&one(r#""bandwidth": {"left": {"bytes": 5000}}"#), "left"),
            (&one(r#""windows": [{"count": 1}]"#), "exactly one of `per` and `seconds`"),
            (&one(r#""windows": [{"count": 1, "per": "day", "seconds": 1}]"#), "per"),
            (&one(r#""windows": [{"count": 1, "per": "week"}]"#), "per"),
            (&one(r#""windows": [{"count": 0, "per": "day"}]"#), "count"),
            (r#"{"limits": [{"name": "a b", "concurrency": 1}]}"#, "letters, digits"),
            (&with(r#""cost": -1"#), "cost"),
            (&with(r#""headers": "all""#), "headers"),
            (&with(r#""wait": {"at_most": 1}"#), "for"),
            (&with(r#""count": 1"#), "count"),
        ],
    );
    refuses::<Limit>(r#"{"limits": [{"name": "a"}]}"#, "at least one of windows, rate, concurrency and bandwidth");
    refuses::<Limit>(&format!(r#"{{"limits": [{limit}, {limit}]}}"#), "got a again");
    refuses::<Limit>(&with(r#""settle": "3""#), "settle: expected a template");
    for cost in ["$http_x_a + 1", "1 + $http_x_a", "2*$http_x_a", "-$http_x_a", "${http_x_a}.5", "$http_x_a $http_x_b"] {
        refuses::<Limit>(&with(&format!(r#""cost": "{cost}""#)), "cost: expected a whole number or a template, but \"");
        refuses::<Limit>(&with(&format!(r#""settle": "{cost}""#)), "settle: expected a template that can be a whole number");
    }
    for cost in [" $http_x_a ", "$http_x_a$http_x_b", "1${http_x_a ?? 0}", "${http_x_a ?? none}0"] {
        check::<Limit>(&with(&format!(r#""cost": "{cost}""#))).unwrap();
    }
    refuses::<Limit>(&with(r#""cost": "many""#), "cost: expected a whole number");
    refuses::<Limit>(
        &with(r#""tiers": {"consumers": {"jack": {"b": {"concurrency": 1}}}}"#),
        "tiers.consumers.jack.b: expected the name of one of limits",
    );
    refuses::<Limit>(&one(r#""windows": [{"count": 1, "per": "day"}, {"count": 2, "per": "day"}]"#), "got one twice");
}

#[test]
fn the_estimate_stands_where_the_client_is_gone() {
    let bench = bench(
        r#"{"cost": 40, "settle": "$upstream_http_x_used",
            "limits": [{"name": "a", "windows": [{"count": 100, "seconds": 600}]}]}"#,
    );
    let mut gone = bench.request(Request::get("/")).passes();
    gone.ex.reason = "client_gone";
    gone.response(200, &[("X-Used", "5")], b"");
    assert_eq!(left(&bench, "192.0.2.1"), [60]);
}
