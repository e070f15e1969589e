//! Entries that are posted to a server of HTTP: what they say, how batches look, and what becomes of them where nobody takes them.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::kit::{Certs, Gateway, Origin, Seen, Setup, Signal, as_node, eventually, reply};

on_both_drivers!(
    an_entry_alone_is_an_object_and_several_are_an_array,
    entries_may_be_a_line_each,
    entries_tell_the_head_of_the_answer,
    the_metadata_says_what_entries_are,
    bodies_are_in_entries_as_far_as_they_may,
    a_body_that_is_logged_in_part_arrives_whole,
    a_failure_is_tried_again,
    a_server_that_is_away_costs_entries_and_no_request,
    what_finds_no_room_is_dropped,
    what_is_left_is_posted_at_the_end,
    a_server_that_closes_gets_all_the_same,
    a_certificate_is_checked_where_it_is_asked_for,
    who_has_no_route_is_told_as_well,
    entries_that_wait_are_told,
);

fn entries_that_wait_are_told() {
    let (origin, stalled) = (Origin::naming(), Origin::that_stalls());
    let gateway = telling(&origin, json!({"uri": uri(&stalled)})).start();
    gateway.get("/waits").expect_status(200);
    let place = format!("http://{}", stalled.address());
    let name =
        format!("apisix_batch_process_entries{{name=\"http-logger\",route_id=\"\",server_addr=\"{place}\"}}");
    eventually("one waits", || (gateway.metric(&name)? == 1.0).then_some(()));
}

fn collector() -> Origin {
    Origin::replying("taken")
}

fn uri(collector: &Origin) -> String {
    format!("http://{}/log?from=here", collector.address())
}

/// A gateway whose route has the plugin, on one core so that batches are of all requests.
fn telling(origin: &Origin, config: Value) -> Setup {
    let mut whole = json!({"batch_max_size": 1});
    whole.as_object_mut().unwrap().extend(config.as_object().expect("fields").clone());
    Gateway::routing("/*", [origin]).route(&format!("plugins: {}", json!({ "http-logger": whole }))).cores(1)
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    let name = format!("ringway_log_entries_total{{plugin=\"http-logger\",outcome=\"{outcome}\"}}");
    gateway.metric(&name).expect("it is counted")
}

#[track_caller]
fn said(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).expect("JSON")
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    let found = seen.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.as_str())
}

fn an_entry_alone_is_an_object_and_several_are_an_array() {
    let (origin, alone, several) = (Origin::naming(), collector(), collector());
    let gateway = telling(&origin, json!({"uri": uri(&alone), "auth_header": "Basic 123"})).start();
    gateway.request("GET", "/a?b=1", &[("X-Some", "thing")], b"").expect_status(200);
    alone.wait_whole_requests(1);
    let seen = alone.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/log?from=here"));
    assert_eq!(
        (header(&seen, "content-type"), header(&seen, "authorization")),
        ("application/json", "Basic 123")
    );
    assert_eq!(header(&seen, "host"), alone.address().to_string());
    let entry = said(&seen);
    assert_eq!(
        (&entry["request"]["uri"], &entry["request"]["headers"]["x-some"]),
        (&json!("/a?b=1"), &json!("thing"))
    );
    assert_eq!((&entry["response"]["status"], &entry["route_id"]), (&json!(200), &json!("1")));
    assert_eq!((&entry["upstream"], &entry["request"]["body"]), (&json!(origin.node()), &Value::Null));
    gateway.get("/again").expect_status(200);
    alone.wait_whole_requests(2);
    assert_eq!(alone.connections(), 1, "one connection serves all");
    eventually("both are counted", || (count(&gateway, "sent") == 2.0).then_some(()));
    drop(gateway);

    let gateway = telling(&origin, json!({"uri": uri(&several), "batch_max_size": 3})).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    several.wait_whole_requests(1);
    let entries = said(&several.only());
    let uris: Vec<&Value> =
        entries.as_array().expect("an array").iter().map(|entry| &entry["request"]["uri"]).collect();
    assert_eq!(uris, ["/0", "/1", "/2"]);
}

fn entries_may_be_a_line_each() {
    let (origin, server) = (Origin::naming(), collector());
    let config = json!({
        "uri": uri(&server), "batch_max_size": 2, "concat_method": "new_line",
        "log_format": {"what": "$request_method $uri", "in": {"who": "$remote_addr", "deep": {"n": 7}}},
    });
    let gateway = telling(&origin, config).start();
    gateway.get("/0").expect_status(200);
    gateway.get("/1").expect_status(200);
    server.wait_whole_requests(1);
    let seen = server.only();
    assert_eq!(header(&seen, "content-type"), "text/plain");
    let text = String::from_utf8(seen.body).unwrap();
    let lines: Vec<Value> = text.split('\n').map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let line = |at: usize| {
        let inside = json!({"who": "127.0.0.1", "deep": {"n": 7}});
        json!({"what": format!("GET /{at}"), "in": inside, "route_id": "1"})
    };
    assert_eq!(lines, [line(0), line(1)]);
}

fn entries_tell_the_head_of_the_answer() {
    let (origin, server) =
        (Origin::answering(|_| "HTTP/1.1 200 OK\r\nX-Cost: 7\r\nContent-Length: 2\r\n\r\nok"), collector());
    let gateway = telling(&origin, json!({"uri": uri(&server)})).start();
    gateway.get("/whole").expect(200, "ok");
    server.wait_whole_requests(1);
    let entry = said(&server.only());
    assert_eq!(
        (&entry["response"]["headers"]["x-cost"], &entry["response"]["status"]),
        (&json!("7"), &json!(200)),
        "{entry}"
    );
    drop(gateway);
    server.forget();
    let format = json!({"uri": uri(&server), "log_format": {"sent": "$sent_http_x_cost", "in": {"up": "$upstream_http_x_cost"}}});
    let gateway = telling(&origin, format).start();
    gateway.get("/some").expect(200, "ok");
    server.wait_whole_requests(1);
    let entry = said(&server.only());
    assert_eq!((&entry["sent"], &entry["in"]["up"]), (&json!("7"), &json!("7")), "{entry}");
}

fn the_metadata_says_what_entries_are() {
    let (origin, server) = (Origin::naming(), collector());
    let metadata = "plugin_metadata: [{id: http-logger, log_format: {host: $host}}]";
    let gateway = telling(&origin, json!({"uri": uri(&server)})).objects(metadata).start();
    gateway.request("GET", "/", &[("Host", "a.test")], b"").expect_status(200);
    server.wait_whole_requests(1);
    assert_eq!(said(&server.only()), json!({"host": "a.test", "route_id": "1"}));
}

fn bodies_are_in_entries_as_far_as_they_may() {
    let (origin, server) = (Origin::echoing(), collector());
    let config = json!({
        "uri": uri(&server), "include_req_body": true, "include_resp_body": true,
        "max_req_body_bytes": 10, "max_resp_body_bytes": 3,
        "include_resp_body_expr": [["arg_resp", "==", "1"]],
    });
    let gateway = telling(&origin, config).start();
    gateway.post("/?resp=1", b"short").expect_status(200);
    gateway.post("/?resp=0", &b"0123456789".repeat(30_000)).expect_status(200);
    gateway.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nchunks\r\n8\r\n, joined\r\n0\r\n\r\n");
    server.wait_whole_requests(3);
    let seen: Vec<Value> = server.seen().iter().map(said).collect();
    let bodies = |at: usize| (&seen[at]["request"]["body"], &seen[at]["response"]["body"]);
    assert_eq!(bodies(0), (&json!("short"), &json!("sho")));
    assert_eq!(bodies(1), (&json!("0123456789"), &Value::Null));
    assert_eq!(bodies(2).0, "chunks, jo");
}

fn a_body_that_is_logged_in_part_arrives_whole() {
    let (origin, server) = (Origin::naming(), collector());
    let config =
        json!({"uri": uri(&server), "max_req_body_bytes": 4, "log_format": {"body": "$request_body"}});
    let gateway = telling(&origin, config).start();
    let body = b"0123456789abcdef".repeat(60_000);
    gateway.post("/big", &body).expect_status(200);
    server.wait_whole_requests(1);
    assert!(origin.only().body == body, "the upstream has all of it");
    assert_eq!(said(&server.only())["body"], "0123");
}

fn a_failure_is_tried_again() {
    let tries = AtomicUsize::new(0);
    let server = Origin::answering(move |_| {
        let status =
            if tries.fetch_add(1, Ordering::SeqCst) < 2 { "500 Internal Server Error" } else { "200 OK" };
        reply(status, "")
    });
    let origin = Origin::naming();
    let config = json!({"uri": uri(&server), "max_retry_count": 5, "retry_delay": 0.01});
    let gateway = telling(&origin, config).start();
    gateway.get("/kept").expect_status(200);
    eventually("it arrives", || (count(&gateway, "sent") == 1.0).then_some(()));
    let bodies: Vec<Value> = server.seen().iter().map(said).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| body["request"]["uri"] == "/kept"));
    assert_eq!((count(&gateway, "failed"), count(&gateway, "dropped")), (0.0, 0.0));
}

/// A URI that nobody listens at.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/log", listener.local_addr().unwrap())
}

fn a_server_that_is_away_costs_entries_and_no_request() {
    let (origin, refusing) = (Origin::naming(), Origin::answering(|_| reply("403 Forbidden", "")));
    let gateway = telling(&origin, json!({"uri": nobody()})).start();
    for at in 0..5 {
        gateway.get(&format!("/{at}")).expect(200, &format!("GET /{at}"));
    }
    eventually("all are lost", || (count(&gateway, "failed") == 5.0).then_some(()));
    gateway.wait_said(&["http-logger: http://127.0.0.1:", " can not be reached: "]);
    assert_eq!(gateway.said().matches("can not be reached").count(), 1, "it is said once");
    drop(gateway);
    let gateway = telling(&origin, json!({"uri": uri(&refusing)})).start();
    gateway.get("/").expect_status(200);
    eventually("what is refused is lost", || (count(&gateway, "failed") == 1.0).then_some(()));
    gateway.wait_said(&["it answered 403"]);
}

fn what_finds_no_room_is_dropped() {
    let origin = Origin::naming();
    let metadata = "plugin_metadata: [{id: http-logger, max_pending_entries: 2}]";
    let config = json!({"uri": nobody(), "max_retry_count": 100, "retry_delay": 60});
    let gateway = telling(&origin, config).objects(metadata).start();
    for at in 0..10 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    eventually("all but two are dropped", || (count(&gateway, "dropped") == 8.0).then_some(()));
    gateway.wait_said(&["http-logger: no room for what waits for http://127.0.0.1:"]);
}

fn what_is_left_is_posted_at_the_end() {
    let (origin, server) = (Origin::naming(), collector());
    let config = json!({"uri": uri(&server), "batch_max_size": 1000, "inactive_timeout": 3600, "buffer_duration": 3600});
    let mut gateway = telling(&origin, config).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    assert_eq!(server.requests(), 0);
    gateway.signal(Signal::Term);
    assert!(gateway.wait_exit().success());
    assert_eq!(said(&server.only()).as_array().map(Vec::len), Some(3));
}

fn a_server_that_closes_gets_all_the_same() {
    let server = Origin::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let origin = Origin::naming();
    let gateway = telling(&origin, json!({"uri": uri(&server)})).start();
    for at in 1..=3 {
        gateway.get(&format!("/{at}")).expect_status(200);
        server.wait_whole_requests(at);
        server.wait_ended(at);
    }
    eventually("all are counted", || (count(&gateway, "sent") == 3.0).then_some(()));
    assert_eq!(server.connections(), 3);
}

fn a_certificate_is_checked_where_it_is_asked_for() {
    let (origin, certs) = (Origin::naming(), Certs::new());
    certs.authority("ca");
    certs.issued("ca", "logs", "DNS:localhost");
    let server = Origin::serving_over(as_node(&certs, "logs", None), |conn| {
        while conn.request().is_some() {
            conn.send(&reply("200 OK", ""));
        }
    });
    let start = |is_verified: bool| {
        let uri = format!("https://localhost:{}/log", server.address().port());
        telling(&origin, json!({"uri": uri, "ssl_verify": is_verified}))
            .settings(&json!({"ssl": {"listen": []}}).to_string())
            .start()
    };
    let gateway = start(false);
    gateway.get("/secret").expect_status(200);
    server.wait_whole_requests(1);
    assert_eq!(said(&server.only())["request"]["uri"], "/secret");
    drop(gateway);
    let gateway = start(true);
    gateway.get("/nobody").expect_status(200);
    eventually("nobody vouches for it", || (count(&gateway, "failed") == 1.0).then_some(()));
    assert_eq!(server.requests(), 1);
}

fn who_has_no_route_is_told_as_well() {
    let (origin, server) = (Origin::naming(), collector());
    let plugins = json!({"http-logger": {"uri": uri(&server), "batch_max_size": 1}});
    let objects = format!("global_rules: [{{id: g, plugins: {plugins}}}]");
    let gateway = Gateway::routing("/there", [&origin]).objects(&objects).start();
    gateway.request("GET", "/elsewhere", &[("Host", "a.test")], b"").expect_status(404);
    server.wait_whole_requests(1);
    let entry = said(&server.only());
    assert_eq!((&entry["route_id"], &entry["service_id"]), (&json!("no-matched"), &json!("a.test")));
    assert_eq!(entry["response"]["status"], 404);
}
