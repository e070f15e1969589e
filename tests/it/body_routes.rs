//! Routes whose `vars` ask what the body of a request says.

use super::kit::{Answer, Gateway, Origin, Seen};

on_both_drivers!(
    a_route_is_found_by_what_the_body_says,
    the_body_goes_on_whole_to_whichever_route_takes_it,
    a_body_that_is_too_long_to_be_read_says_nothing,
    nobody_waits_for_a_body_where_no_route_asks,
);

const ROUTES: &str = r#"
routes:
  - {id: small, uri: /chat, priority: 9, vars: [["post_arg.model", "==", "small"]], upstream: {nodes: {SMALL: 1}}}
  - {id: tools, uri: /chat, priority: 8, vars: [["post_arg.messages[*].role", "has", "tool"]], upstream: {nodes: {SMALL: 1}}}
  - {id: form, uri: /chat, priority: 7, vars: [["post_arg_kind", "==", "form"]], upstream: {nodes: {SMALL: 1}}}
  - {id: repo, uri: /chat, priority: 6, vars: [["graphql_name", "==", "repo"], ["graphql_operation", "==", "query"], ["graphql_root_fields", "has", "owner"]], upstream: {nodes: {SMALL: 1}}}
  - {id: others, uri: /chat, upstream: {nodes: {LARGE: 1}}}
  - {id: plain, uri: /plain, upstream: {nodes: {LARGE: 1}}}
"#;

/// An origin that answers with its name and the body it got.
fn echoing(name: &'static str) -> Origin {
    Origin::answering(move |seen: &Seen| {
        let body = format!("{name}:{}", String::from_utf8_lossy(&seen.body));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
}

struct Stage {
    gateway: Gateway,
    origins: [Origin; 2],
}

fn stage(settings: &str) -> Stage {
    let (small, large) = (echoing("small"), echoing("large"));
    let gateway =
        Gateway::resources(ROUTES, &[("SMALL", &small), ("LARGE", &large)]).settings(settings).start();
    Stage { gateway, origins: [small, large] }
}

impl Stage {
    fn post(&self, media_type: &str, body: &str) -> Answer {
        self.gateway.request("POST", "/chat", &[("Content-Type", media_type)], body.as_bytes())
    }
}

fn a_route_is_found_by_what_the_body_says() {
    let stage = stage("cores: 1");
    let parts = "--cut\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nsmall\r\n--cut--\r\n";
    for (media_type, body, to) in [
        ("application/json", r#"{"model": "small"}"#, "small"),
        ("application/json", r#"{"model": "large"}"#, "large"),
        ("application/json", r#"{"model": "#, "large"),
        ("application/json", r#"{"messages": [{"role": "user"}, {"role": "tool"}]}"#, "small"),
        ("application/x-www-form-urlencoded; charset=utf-8", "a=1&kind=form", "small"),
        ("application/x-www-form-urlencoded", "kind=other", "large"),
        ("multipart/form-data; boundary=cut", parts, "small"),
        ("application/graphql", "query repo { owner { name } }", "small"),
        ("application/json", r#"{"query": "query repo { owner { name } }"}"#, "small"),
        ("application/graphql", "mutation repo { owner }", "large"),
        ("application/graphql", "query repo { other }", "large"),
        ("text/plain", "", "large"),
    ] {
        stage.post(media_type, body).expect(200, &format!("{to}:{body}"));
    }
    stage.gateway.get("/chat").expect(200, "large:");
}

fn the_body_goes_on_whole_to_whichever_route_takes_it() {
    let stage = stage("cores: 1");
    let mut raw = stage.gateway.raw();
    for (model, to) in [("small", "small"), ("other", "large")] {
        let body = format!(r#"{{"model":"{model}","text":"{}"}}"#, "x".repeat(100_000));
        stage.post("application/json", &body).expect(200, &format!("{to}:{body}"));
        // In chunks, on one connection: what is left behind would be read as the next request.
        let (one, two) = body.split_at(7);
        raw.send(format!(
            "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len()
        ));
        raw.answer().expect(200, &format!("{to}:{body}"));
    }
    let head = "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 17\r\n\r\n";
    raw.send(format!("{head}{}", r#"{"model":"small"}"#)).answer().expect(200, r#"small:{"model":"small"}"#);
}

fn a_body_that_is_too_long_to_be_read_says_nothing() {
    let stage = stage("limits: {held_body_bytes: 4000, routed_body_bytes: 1000}");
    let body = |length: usize| format!(r#"{{"model":"small","text":"{}"}}"#, "x".repeat(length));
    let chunked = |body: &str| {
        let length = body.len();
        stage.gateway.say(format!(
            "POST /chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
    };
    let (short, long, longest) = (body(900), body(2000), body(5000));
    for (body, to) in [(&short, "small"), (&long, "large"), (&longest, "large")] {
        stage.post("application/json", body).expect(200, &format!("{to}:{body}"));
    }
    chunked(&short).expect(200, &format!("small:{short}"));
    // It was held, and goes on whole to the route that does not ask.
    chunked(&long).expect(200, &format!("large:{long}"));
    chunked(&longest).expect_status(413);
    stage.post("application/json", &short).expect_status(200);
}

fn nobody_waits_for_a_body_where_no_route_asks() {
    let stage = stage("cores: 1");
    let mut raw = stage.gateway.raw();
    // The head alone: the origin has it while the body is still to come.
    raw.send("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    stage.origins[1].wait_requests(1);
    raw.send("body");
    raw.answer().expect(200, "large:body");
}
