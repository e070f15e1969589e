//! What a client sees of `limit-count`: counts, headers, refusals, groups and keys.

use super::*;
use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};
use crate::proto::head::Method;
use crate::runtime::limits::HELD_BODY_BYTES;

/// Sends requests of the key until one is refused; how many were not.
fn admitted(bench: &Bench<LimitCount>, request: impl Fn() -> Request) -> usize {
    (0..50).take_while(|_| bench.request(request()).reply.is_none()).count()
}

fn bench(config: &str) -> Bench<LimitCount> {
    check::<LimitCount>(config).unwrap()
}

#[test]
fn a_window_admits_its_count_for_each_address() {
    for window in ["fixed", "sliding", "log"] {
        let bench = bench(&format!(r#"{{"count":3,"time_window":600,"window_type":"{window}"}}"#));
        assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.1")), 3, "{window}");
        assert_eq!(admitted(&bench, || Request::get("/").from("10.0.0.2")), 3, "{window}");
        bench.request(Request::get("/").from("::ffff:10.0.0.1")).replies(503, "");
    }
}

#[test]
fn every_answer_tells_what_is_left_and_when_more_comes() {
    let bench = bench(r#"{"count":2,"time_window":600,"rejected_code":429,"rejected_msg":"slow \"down\""}"#);
    for left in ["1", "0"] {
        let answer = bench.response(200, &[], b"");
        assert_eq!(answer.header("X-RateLimit-Limit"), "2");
        assert_eq!(answer.header("X-RateLimit-Remaining"), left);
        let reset = answer.header("X-RateLimit-Reset");
        assert!(reset.parse::<f64>().is_ok_and(|seconds| seconds > 590.0 && seconds <= 600.0), "{reset}");
        assert!(reset.split_once('.').is_none_or(|(_, decimals)| (1..=2).contains(&decimals.len())), "{reset}");
        assert_eq!(answer.header("Retry-After"), "");
    }
    let refused = bench.request(Request::get("/")).replies(429, "{\"error_msg\":\"slow \\\"down\\\"\"}\n").answer();
    assert_eq!(refused.header("X-RateLimit-Limit"), "2");
    assert_eq!(refused.header("X-RateLimit-Remaining"), "0");
    assert_eq!(refused.header("Retry-After"), "600");
}

#[test]
fn headers_can_be_named_and_left_out() {
    let names = r#"{"limit_header":"L","remaining_header":"R","reset_header":"S"}"#;
    let mut desk = Desk::new().metadata("limit-count", names);
    let bench = desk.compile::<LimitCount>("routes/1", r#"{"count":5,"time_window":60}"#).unwrap();
    let answer = bench.response(200, &[], b"");
    assert_eq!((answer.header("L"), answer.header("R")), ("5".to_owned(), "4".to_owned()));
    assert_ne!(answer.header("S"), "");
    assert_eq!(answer.header("X-RateLimit-Limit"), "");
    let silent = check::<LimitCount>(r#"{"count":1,"time_window":60,"show_limit_quota_header":false}"#).unwrap();
    assert_eq!(silent.response(200, &[], b"").header("X-RateLimit-Limit"), "");
    let refused = silent.request(Request::get("/")).replies(503, "").answer();
    assert_eq!((refused.header("X-RateLimit-Limit"), refused.header("Retry-After")), (String::new(), "60".to_owned()));
    let mut wrong = Desk::new().metadata("limit-count", r#"{"limit_header":"a b"}"#);
    assert!(wrong.compile::<LimitCount>("routes/1", r#"{"count":5,"time_window":60}"#).is_err());
}

#[test]
fn the_fields_of_the_ietf_are_told_where_they_are_asked_for() {
    let one = bench(r#"{"count":2,"time_window":600,"ietf_headers":true}"#);
    let answer = one.response(200, &[], b"");
    assert_eq!(answer.header("RateLimit-Policy"), "\"limit-count\";q=2;w=600");
    assert_eq!(answer.header("RateLimit"), "\"limit-count\";r=1;t=600");
    assert_eq!(answer.header("X-RateLimit-Limit"), "2");
    let rules = bench(
        r#"{"ietf_headers":true,"show_limit_quota_header":false,"rules":[
            {"count":3,"time_window":600,"key":"$remote_addr"},
            {"count":"2","time_window":"${http_x_w ?? 60}","key":"$remote_addr x","header_prefix":"User"}]}"#,
    );
    let answer = rules.response(200, &[], b"");
    assert_eq!(answer.header("RateLimit-Policy"), "\"1\";q=3;w=600, \"User\";q=2");
    assert_eq!(answer.header("RateLimit"), "\"1\";r=2;t=600, \"User\";r=1;t=60");
    assert_eq!(answer.header("X-1-RateLimit-Limit"), "");
    assert_eq!(bench(r#"{"count":2,"time_window":600}"#).response(200, &[], b"").header("RateLimit"), "");
}

#[test]
fn keys_are_variables_templates_or_one_for_all() {
    let of = |extra: &str| bench(&format!(r#"{{"count":2,"time_window":600,{extra}}}"#));
    let by_header = of(r#""key":"http_x_user""#);
    let user = |name: &'static str| move || Request::get("/").header("X-User", name);
    assert_eq!(admitted(&by_header, user("a")), 2);
    assert_eq!(admitted(&by_header, user("b")), 2);
    // Without a value, or with an empty one, the address counts.
    assert_eq!(admitted(&by_header, || Request::get("/").from("10.0.0.1")), 2);
    assert_eq!(admitted(&by_header, || Request::get("/").from("10.0.0.1").header("X-User", "")), 0);
    assert_eq!(admitted(&by_header, || Request::get("/").from("10.0.0.2")), 2);
    let by_both = of(r#""key":"$http_x_user $remote_addr","key_type":"var_combination""#);
    assert_eq!(admitted(&by_both, || user("a")().from("10.0.0.1")), 2);
    assert_eq!(admitted(&by_both, || user("a")().from("10.0.0.2")), 2);
    let by_none = of(r#""key":"$http_x_a$http_x_b","key_type":"var_combination""#);
    assert_eq!(admitted(&by_none, || Request::get("/").from("10.0.0.1")), 2);
    assert_eq!(admitted(&by_none, || Request::get("/").from("10.0.0.2")), 2);
    for constant in [r#""key":"all","key_type":"constant""#, r#""key":"all","key_type":"var_combination""#] {
        let for_all = of(constant);
        assert_eq!(admitted(&for_all, || Request::get("/").from("10.0.0.1")), 2);
        assert_eq!(admitted(&for_all, || Request::get("/").from("10.0.0.2")), 0);
    }
}

#[test]
fn a_key_in_the_body_has_it_held() {
    let by_field = bench(r#"{"count":1,"time_window":600,"key":"post_arg_user"}"#);
    assert_eq!(by_field.request_body_max, Some(HELD_BODY_BYTES));
    let posted = |user: &'static str| {
        move || {
            let form = Request::new(Method::Post, "/").header("Content-Type", "application/x-www-form-urlencoded");
            form.body(&format!("user={user}"))
        }
    };
    assert_eq!(admitted(&by_field, posted("a")), 1);
    assert_eq!(admitted(&by_field, posted("b")), 1);
    assert_eq!(bench(r#"{"count":1,"time_window":600}"#).request_body_max, None);
}

#[test]
fn count_and_window_may_be_asked_of_the_request() {
    let config = r#"{"count":"${http_x_count ?? 1}","time_window":"$http_x_window"}"#;
    let strict = bench(config);
    let asking = |count: &'static str, window: &'static str| {
        move || Request::get("/").header("X-Count", count).header("X-Window", window)
    };
    assert_eq!(admitted(&strict, asking("4", "60")), 4);
    for (count, window) in [("0", "60"), ("-1", "60"), ("x", "60"), ("4", ""), ("4", "1.5"), ("4", "4294967296")] {
        strict.request(asking(count, window)()).replies(500, "");
    }
    strict.request(Request::get("/")).replies(500, "");
    let lenient = bench(&config.replacen('{', r#"{"allow_degradation":true,"#, 1));
    lenient.request(Request::get("/")).passes();
    assert_eq!(admitted(&bench(r#"{"count":"3","time_window":"60"}"#), || Request::get("/")), 3);
}

#[test]
fn uses_count_apart_unless_they_share_a_group() {
    let config = r#"{"count":2,"time_window":600}"#;
    let mut desk = Desk::new();
    let one = desk.compile::<LimitCount>("routes/1", config).unwrap();
    let two = desk.compile::<LimitCount>("routes/2", config).unwrap();
    assert_eq!(admitted(&one, || Request::get("/")), 2);
    assert_eq!(admitted(&two, || Request::get("/")), 2);
    let again = desk.compile::<LimitCount>("routes/1", config).unwrap();
    assert_eq!(admitted(&again, || Request::get("/")), 0, "the count outlives a new snapshot");

    let grouped = r#"{"count":2,"time_window":600,"group":"g"}"#;
    let three = desk.compile::<LimitCount>("routes/3", grouped).unwrap();
    // Defaults written out are the same configuration.
    let same = r#"{"time_window":600,"policy":"local","count":2,"group":"g"}"#;
    let four = desk.compile::<LimitCount>("services/1", same).unwrap();
    assert_eq!(admitted(&three, || Request::get("/")), 2);
    assert_eq!(admitted(&four, || Request::get("/")), 0);
    let Err(faults) = desk.compile::<LimitCount>("routes/5", r#"{"count":3,"time_window":600,"group":"g"}"#) else {
        panic!("a group with two counts was accepted")
    };
    assert_eq!(faults[0].to_string(), "group: group conf mismatched");
}

#[test]
fn rules_are_limits_side_by_side() {
    let bench = bench(
        r#"{"rules":[{"count":3,"time_window":600,"key":"$remote_addr"},
            {"count":"2","time_window":60,"key":"$http_x_user","header_prefix":"User"},
            {"count":9,"time_window":60,"key":"all"}]}"#,
    );
    let answer = bench.request(Request::get("/").header("X-User", "a")).passes().response(200, &[], b"");
    assert_eq!(answer.header("X-1-RateLimit-Limit"), "3");
    assert_eq!(answer.header("X-User-RateLimit-Remaining"), "1");
    assert_eq!(answer.header("X-3-RateLimit-Limit"), "9");
    assert_eq!(answer.header("X-RateLimit-Limit"), "");
    bench.request(Request::get("/").header("X-User", "a")).passes();
    let refused = bench.request(Request::get("/").header("X-User", "a")).replies(503, "").answer();
    assert_eq!(refused.header("X-1-RateLimit-Remaining"), "0");
    assert_eq!(refused.header("X-User-RateLimit-Remaining"), "0");
    assert_eq!(refused.header("X-3-RateLimit-Limit"), "");
}

#[test]
fn whoever_one_rule_refuses_uses_up_nothing_of_the_others() {
    for (kind, seconds) in [("fixed", 600), ("fixed", 7200), ("sliding", 600), ("sliding", 7200), ("log", 600)] {
        let bench = bench(&format!(
            r#"{{"window_type":"{kind}","rules":[
                {{"count":3,"time_window":{seconds},"key":"$remote_addr"}},
                {{"count":1,"time_window":{seconds},"key":"$http_x_user"}},
                {{"count":"${{http_x_count ?? 9}}","time_window":{seconds},"key":"all"}}]}}"#
        ));
        let user = |name: &'static str| Request::get("/").header("X-User", name);
        bench.request(user("a")).passes();
        for _ in 0..5 {
            bench.request(user("a")).replies(503, "");
        }
        // What can not be told is a refusal, too.
        bench.request(user("x").header("X-Count", "many")).replies(500, "");
        for name in ["b", "x"] {
            let answer = bench.request(user(name)).passes().response(200, &[], b"");
            let left = if name == "b" { "1" } else { "0" };
            assert_eq!(answer.header("X-1-RateLimit-Remaining"), left, "{kind} {seconds}");
        }
        bench.request(user("d")).replies(503, "");
    }
}

#[test]
fn a_rule_without_a_value_is_passed_over_and_one_at_least_must_be_for_the_request() {
    let config = r#"{"rules":[{"count":"$http_x_count","time_window":60,"key":"$http_x_user"},
        {"count":5,"time_window":60,"key":"$http_x_project"}]}"#;
    let strict = bench(config);
    let project = || Request::get("/").header("X-Project", "p");
    let answer = strict.request(project()).passes().response(200, &[], b"");
    assert_eq!(answer.header("X-1-RateLimit-Limit"), "");
    assert_eq!(answer.header("X-2-RateLimit-Remaining"), "4");
    strict.request(Request::get("/")).replies(500, "");
    // A rule that is for the request and can not be told is no reason to pass it.
    strict.request(project().header("X-User", "u")).replies(500, "");
    let lenient = bench(&config.replacen('{', r#"{"allow_degradation":true,"#, 1));
    lenient.request(Request::get("/")).passes();
    lenient.request(Request::get("/").header("X-User", "u")).passes();
    let twice = r#"{"rules":[{"count":1,"time_window":1,"key":"$a"},{"count":2,"time_window":2,"key":"$a"}]}"#;
    refuses::<LimitCount>(twice, "duplicate key '$a' in rules");
}

#[test]
fn windows_of_different_lengths_count_apart() {
    let bench = bench(r#"{"count":1,"time_window":"$http_x_window"}"#);
    let window = |seconds: &'static str| move || Request::get("/").header("X-Window", seconds);
    assert_eq!(admitted(&bench, window("600")), 1);
    assert_eq!(admitted(&bench, window("6000")), 1);
    assert_eq!(admitted(&bench, window("600")), 0);
}

#[test]
fn an_exchange_used_again_starts_afresh() {
    let bench = bench(r#"{"count":1,"time_window":600}"#);
    let mut ex = bench.request(Request::get("/")).passes().ex;
    ex.clear();
    ex.client.ip = "10.9.9.9".parse().unwrap();
    assert_eq!(bench.run(ex).passes().response(200, &[], b"").header("X-RateLimit-Remaining"), "0");
}

#[test]
fn what_is_needed_to_find_a_redis_is_asked_for() {
    let of = |policy: &str, more: &str| format!(r#"{{"count":1,"time_window":1,"policy":"{policy}"{more}}}"#);
    refuses::<LimitCount>(&of("redis", ""), "redis_host is required");
    let tls = r#","redis_host":"127.0.0.1","redis_ssl":true,"redis_ssl_verify":true"#;
    refuses::<LimitCount>(&of("redis", tls), "redis_ssl_verify: expected to know who vouches for Redis");
    let nodes = r#","redis_cluster_nodes":["127.0.0.1:1","a"]"#;
    refuses::<LimitCount>(&of("redis-cluster", ""), "redis_cluster_nodes is required");
    refuses::<LimitCount>(&of("redis-cluster", nodes), "redis_cluster_name is required");
    let named = format!(r#"{nodes},"redis_cluster_name":"c""#);
    refuses::<LimitCount>(&of("redis-cluster", &named), r#"redis_cluster_nodes[1]: expected host:port, got "a""#);
    bench(&of("redis-cluster", &named.replace(r#","a""#, "")));
    let sentinels = r#","redis_sentinels":[{"host":"127.0.0.1","port":1}]"#;
    refuses::<LimitCount>(&of("redis-sentinel", ""), "redis_sentinels is required");
    refuses::<LimitCount>(&of("redis-sentinel", sentinels), "redis_master_name is required");
    let named = format!(r#"{sentinels},"redis_master_name":"m","redis_role":"master","redis_connect_timeout":1"#);
    bench(&of("redis-sentinel", &named));
    refuses::<LimitCount>(&of("redis-sentinel", &named.replace("\"master\"", "\"slave\"")), "redis_role");
    refuses::<LimitCount>(&of("redis-sentinel", &named.replace("\"master\"", "\"other\"")), "redis_role");
    for interval in ["-1", "0.1", "5"] {
        bench(&of("redis", &format!(r#","redis_host":"127.0.0.1","sync_interval":{interval}"#)));
    }
    for password in ["", "p"] {
        let more = format!(r#","redis_host":"127.0.0.1","redis_password":"{password}","redis_database":1"#);
        bench(&of("redis", &more));
    }
}

#[test]
fn schema_and_compile_agree() {
    let base = r#""count":1,"time_window":1"#;
    let with = |extra: &str| format!("{{{base},{extra}}}");
    agree::<LimitCount>(
        &[
            &format!("{{{base}}}"),
            r#"{"count":"$http_a","time_window":4294967295}"#,
            &with(r#""key":"x","key_type":"constant","group":"g","rejected_code":200,"rejected_msg":"m""#),
            r#"{"count":16,"time_window":3599,"window_type":"log"}"#,
            r#"{"count":"$http_a","time_window":"$http_b","window_type":"log"}"#,
            &with(r#""window_type":"sliding","policy":"local","sync_interval":-1,"allow_degradation":true"#),
            r#"{"rules":[{"count":1,"time_window":1,"key":"$a"}]}"#,
        ],
        &[
            ("{}", "at least one of `count` with `time_window` and `rules`"),
            (r#"{"count":1}"#, "at least one of"),
            (r#"{"time_window":1}"#, "at least one of"),
            (r#"{"count":0,"time_window":1}"#, "count: expected a whole number above 0 or a template"),
            (r#"{"count":1.5,"time_window":1}"#, "count"),
            (r#"{"count":"","time_window":1}"#, "count"),
            (r#"{"count":1,"time_window":-1}"#, "time_window"),
            (r#"{"count":1,"time_window":4294967296}"#, "time_window"),
            (&with(r#""window_type":"hopping""#), "one of fixed, sliding or log"),
            (&with(r#""key":"""#), "key"),
            (&with(r#""key_type":"cookie""#), "one of var, var_combination or constant"),
            (&with(r#""group":"""#), "group"),
            (&with(r#""rejected_code":199"#), "rejected_code"),
            (&with(r#""rejected_code":600"#), "rejected_code"),
            (&with(r#""rejected_msg":"""#), "rejected_msg"),
            (&with(r#""policy":"memcached""#), "policy"),
            (&with(r#""allow_degradation":1"#), "true or false"),
            (&with(r#""show_limit_quota_header":"no""#), "true or false"),
            (&with(r#""redis_port":0"#), "redis_port"),
            (&with(r#""sync_interval":0.09"#), "sync_interval"),
            (&with(r#""sync_interval":0"#), "sync_interval"),
            (&with(r#""sync_interval":-2"#), "sync_interval"),
            (&with(r#""burst":1"#), "found burst"),
            (r#"{"rules":[]}"#, "at least 1"),
            (r#"{"rules":[{"count":1,"time_window":1}]}"#, "key is required"),
            (r#"{"rules":[{"count":1,"time_window":1,"key":"a","header_prefix":"a b"}]}"#, "header_prefix"),
        ],
    );
    let both = "count/time_window and rules cannot be specified at the same time";
    refuses::<LimitCount>(&with(r#""rules":[{"count":1,"time_window":1,"key":"$a"}]"#), both);
    refuses::<LimitCount>(r#"{"count":"many","time_window":1}"#, "count: expected a whole number above 0");
    let log = |count: u64, seconds: u64, more: &str| {
        format!(r#"{{"count":{count},"time_window":{seconds},"window_type":"log"{more}}}"#)
    };
    refuses::<LimitCount>(&log(17, 1, ""), "count: expected at most 16 with window_type log");
    refuses::<LimitCount>(&log(1, 3600, ""), "time_window: expected at most 3599 with window_type log");
    let afar = r#","policy":"redis","redis_host":"127.0.0.1""#;
    refuses::<LimitCount>(&log(1, 1, afar), "window_type: log is for policy local only");
    let rules = r#"{"window_type":"log","rules":[{"count":1,"time_window":3600,"key":"$a"}]}"#;
    refuses::<LimitCount>(rules, "rules[0].time_window: expected at most 3599");
}
