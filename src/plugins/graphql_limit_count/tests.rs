//! What a client sees of `graphql-limit-count`: costs, headers, refusals.

use super::*;
use crate::plugin::testing::{Bench, Desk, Request, agree, check, refuses};
use crate::proto::head::Method;

fn bench(config: &str) -> Bench<GraphqlLimitCount> {
    check::<GraphqlLimitCount>(config).unwrap()
}

fn post(media_type: &str, body: &str) -> Request {
    Request::new(Method::Post, "/graphql").header("Content-Type", media_type).body(body)
}

fn query(text: &str) -> Request {
    post("application/json", &serde_json::json!({"query": text, "variables": {"n": 4}}).to_string())
}

const FOUR: &str = "{ a { b { c { d } } } }";

#[test]
fn a_query_costs_its_depth_and_the_answer_says_so() {
    let bench = bench(r#"{"count":10,"time_window":600,"rejected_code":429}"#);
    for left in ["6", "2"] {
        let answer = bench.request(query(FOUR)).passes().response(200, &[], b"");
        assert_eq!(answer.header("X-RateLimit-Limit"), "10");
        assert_eq!(answer.header("X-RateLimit-Remaining"), left);
        assert_eq!(answer.header(COST_HEADER), "4");
    }
    let refused = bench.request(query(FOUR)).replies(429, "").answer();
    assert_eq!(refused.header(COST_HEADER), "4");
    // What is left is enough for a flat one.
    bench.request(post("application/graphql; charset=utf-8", "query { a { b } }")).passes();
    bench.request(query("{ a }")).replies(429, "");
}

#[test]
fn windows_of_every_kind_are_charged_what_a_query_costs() {
    for window in [r#""time_window":60,"window_type":"sliding""#, r#""time_window":60,"window_type":"log""#, r#""time_window":7200"#, r#""time_window":60"#] {
        let bench = bench(&format!(r#"{{"count":5,{window}}}"#));
        bench.request(query(FOUR)).passes();
        bench.request(query("{ a { b } }")).replies(503, "");
        bench.request(query("{ a }")).passes();
    }
}

#[test]
fn what_is_no_query_is_refused_and_says_why() {
    let bench = bench(r#"{"count":9,"time_window":60}"#);
    for (request, status, why) in [
        (Request::get("/graphql?query={a}"), 405, ""),
        (post("application/json", ""), 400, "can't get graphql request body"),
        (post("text/plain", "{ a }"), 400, "error content-type"),
        (post("application/json", "{"), 400, "not JSON"),
        (post("application/json", "{\"a\":1}"), 400, "json body[query] is nil"),
        (post("application/json", "[{\"query\":\"{a}\"}]"), 400, "json body[query] is nil"),
        (query(""), 400, "empty graphql query"),
        (query("query{persons(filter){id}}"), 400, "failed to parse graphql query"),
        (post("application/graphql", "test { a }"), 400, "failed to parse graphql query"),
        (query("{ ...F } fragment F on T { ...F }"), 400, "contains itself"),
        (query("fragment F on T { a }"), 400, "no operation"),
        (query(&"{a".repeat(60_000)), 400, "failed to parse"),
    ] {
        bench.request(request).replies(status, why);
    }
    // None of them was counted.
    let answer = bench.request(query("{ a }")).passes().response(200, &[], b"");
    assert_eq!(answer.header("X-RateLimit-Remaining"), "8");
}

#[test]
fn the_strategy_says_what_counts_and_the_factor_how_much() {
    for (strategy, factor, expected) in
        [("depth", "1", "2"), ("complexity", "1", "4"), ("complexity", "0.4", "2"), ("node_quantifier", "1", "1")]
    {
        let bench = bench(&format!(
            r#"{{"count":9,"time_window":60,"cost_strategy":"{strategy}","score_factor":{factor}}}"#
        ));
        let answer = bench.request(query("{ a { b c } d }")).passes().response(200, &[], b"");
        assert_eq!(answer.header(COST_HEADER), expected, "{strategy}");
    }
}

#[test]
fn a_query_above_the_most_is_refused_after_it_was_counted() {
    let bench = bench(r#"{"count":9,"time_window":60,"max_cost":3}"#);
    let refused = bench.request(query(FOUR)).replies(403, "max_cost").answer();
    assert_eq!(refused.header("X-RateLimit-Remaining"), "5");
    bench.request(query("{ a { b { c } } }")).passes();
}

#[test]
fn it_has_the_fields_of_limit_count_and_its_own() {
    agree::<GraphqlLimitCount>(
        &[
            r#"{"count":1,"time_window":1,"key":"$host $uri","key_type":"var_combination"}"#,
            r#"{"rules":[{"count":1,"time_window":1,"key":"$a"}],"cost_strategy":"complexity"}"#,
            r#"{"count":1,"time_window":1,"max_cost":0,"score_factor":0.5,"resolve_variables":false}"#,
        ],
        &[
            (r#"{"count":1,"time_window":1,"cost_strategy":"width"}"#, "cost_strategy"),
            (r#"{"count":1,"time_window":1,"max_cost":-1}"#, "max_cost"),
            (r#"{"count":1,"time_window":1,"score_factor":0}"#, "score_factor"),
            (r#"{"count":1,"time_window":1,"cost":1}"#, "cost"),
            (r#"{"count":1}"#, "time_window"),
        ],
    );
    refuses::<GraphqlLimitCount>(r#"{"count":1,"time_window":1,"policy":"redis"}"#, "redis_host is required");
    let mut desk = Desk::new().metadata(GraphqlLimitCount::NAME, r#"{"limit_header":"X-Most"}"#);
    let bench = desk.compile::<GraphqlLimitCount>("routes/1", r#"{"count":9,"time_window":60}"#).unwrap();
    let answer = bench.request(query("{ a }")).passes().response(200, &[], b"");
    assert_eq!(answer.header("X-Most"), "9");
    assert_eq!(bench.request_body_max, Some(graphql::BYTES_MAX));
}
