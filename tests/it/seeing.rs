//! What an operator sees: the access log, metrics, health, and the process's own words.

use std::fs;

use super::kit::{Gateway, Origin, Signal, eventually};

on_both_drivers!(
    a_request_leaves_one_line_with_its_facts,
    an_answer_made_here_says_why,
    refused_requests_are_logged_too,
    what_clients_write_can_not_forge_a_line,
    secrets_are_not_logged,
    a_format_of_variables_is_filled_in,
    combined_is_what_log_readers_know,
    a_log_switched_off_is_not_written,
    a_moved_log_is_opened_anew,
    metrics_have_the_known_names,
    metrics_count_what_passed_per_route,
    paths_do_not_become_series,
    health_is_told_to_who_asks,
    start_and_stop_are_told,
);

fn a_request_leaves_one_line_with_its_facts() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).route("name: everything").start();

    gateway
        .request("POST", "/facts?a=b", &[("Host", "logged.test"), ("User-Agent", "probe/1")], b"12345")
        .expect_status(200);
    let line = gateway.logged("/facts");
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(line["method"], "POST", "{line}");
    assert_eq!(line["host"], "logged.test", "{line}");
    assert_eq!(line["client_ip"], "127.0.0.1", "{line}");
    assert_eq!(line["route_id"], "1", "{line}");
    for number in ["dur_ms", "bytes_in", "bytes_out"] {
        assert!(line[number].as_f64().is_some_and(|number| number > 0.0), "{number} in {line}");
    }
    assert!(line["ts"].is_string() || line["ts"].is_number(), "{line}");
    assert!(line.to_string().contains(&origin.node()), "the node in {line}");
    let lines = gateway.access_log().lines().filter(|line| line.contains("/facts")).count();
    assert_eq!(lines, 1);
}

fn an_answer_made_here_says_why() {
    let (closing, full) = (Origin::that_closes_instead_of_answering(), Origin::that_stalls());
    let gateway = Gateway::resources(
        "
        routes:
          - {id: c, uri: /closing, upstream: {type: roundrobin, nodes: {CLOSING: 1}}}
          - id: s
            uri: /stalling
            upstream: {type: roundrobin, nodes: {STALLING: 1}, timeout: {connect: 1, send: 1, read: 0.2}}
          - {id: k, uri: /keyed, plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {CLOSING: 1}}}
        ",
        &[("CLOSING", &closing), ("STALLING", &full)],
    )
    .start();

    let mut reasons = Vec::new();
    for (path, status) in [("/none", 404), ("/closing", 502), ("/stalling", 504), ("/keyed", 401)] {
        gateway.get(path).expect_status(status);
        reasons.push(gateway.reason(path));
    }
    assert_eq!(reasons[0], "route_not_found");
    assert!(reasons[3].starts_with("plugin"), "{reasons:?}");
    assert!(reasons[1].starts_with("upstream_") && reasons[2].starts_with("upstream_"), "{reasons:?}");
    assert_ne!(reasons[1], reasons[2]);
}

fn refused_requests_are_logged_too() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    gateway.say("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n").expect_status(400);
    let line = gateway.logged("400");
    assert!(line["error_code"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
}

fn what_clients_write_can_not_forge_a_line() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let odd = "\"}\\\u{1b}[31m%s{\u{e9}\u{ff}";
    let target = "/forge?q=%0a\"}{\"status\":200";
    let bytes: Vec<u8> = format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: ")
        .bytes()
        .chain(odd.chars().filter(|character| *character != '\u{1b}').map(|character| character as u8))
        .chain(*b"\r\n\r\n")
        .collect();
    let status = gateway.say(bytes).status;
    assert!(matches!(status, 200 | 400), "{status}");
    gateway.get("/after").expect_status(200);
    gateway.logged("/after");
    for line in gateway.access_log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{line}");
    }
}

fn secrets_are_not_logged() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {}}")
        .objects("consumers: [{username: jack, plugins: {key-auth: {key: hush-hush}}}]")
        .start();

    let headers = [("apikey", "hush-hush"), ("Authorization", "Bearer hush-hush"), ("Cookie", "s=hush-hush")];
    gateway.request("GET", "/secret", &headers, b"").expect_status(200);
    gateway.request("GET", "/wrong", &[("apikey", "hush-not")], b"").expect_status(401);
    let line = gateway.logged("/secret");
    assert_eq!(line["consumer"], "jack", "{line}");
    gateway.logged("/wrong");
    let all = gateway.access_log() + &gateway.said() + &gateway.metrics();
    assert!(!all.contains("hush"), "a key was written down");
}

fn a_format_of_variables_is_filled_in() {
    let origin = Origin::replying("hello");
    let format =
        "$request_method $uri|$args|$status|$http_x_mark|$remote_addr|$route_id|$upstream_status|$nothing|";
    let gateway =
        Gateway::routing("/*", [&origin]).settings(&format!("access_log: {{format: '{format}'}}")).start();

    gateway.request("GET", "/format?a=1", &[("X-Mark", "here")], b"").expect_status(200);
    let line = gateway.logged_text("/format");
    assert!(line.starts_with("GET /format|a=1|200|here|127.0.0.1|1|200|"), "{line}");
}

fn combined_is_what_log_readers_know() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("access_log: {format: combined}").start();

    gateway
        .request("GET", "/combined", &[("User-Agent", "probe \"1\""), ("Referer", "http://r/")], b"")
        .expect_status(200);
    let line = gateway.logged_text("/combined");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("\"GET /combined HTTP/1.1\" 200 "), "{line}");
    assert!(line.contains("\"http://r/\"") && !line.contains("probe \"1\""), "{line}");
}

fn a_log_switched_off_is_not_written() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("access_log: {output: 'off'}").start();

    gateway.get("/quiet").expect_status(200);
    gateway.metrics();
    assert!(!gateway.path("access.log").exists());
    assert!(!gateway.said().contains("/quiet"));
}

fn a_moved_log_is_opened_anew() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    gateway.get("/before").expect_status(200);
    gateway.logged("/before");
    fs::rename(gateway.path("access.log"), gateway.path("access.log.1")).unwrap();
    gateway.signal(Signal::Usr1);
    eventually("the log is opened anew", || gateway.path("access.log").exists().then_some(()));
    gateway.get("/after").expect_status(200);
    gateway.logged("/after");
    assert!(!fs::read_to_string(gateway.path("access.log.1")).unwrap().contains("/after"));
}

fn metrics_have_the_known_names() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).route("plugins: {prometheus: {}}").start();

    gateway.get("/").expect_status(200);
    gateway.get("/").expect_status(200);
    let text = eventually("the route's series", || {
        let text = gateway.metrics();
        text.contains("apisix_http_status{").then_some(text)
    });
    for begins in [
        "apisix_http_status{",
        "apisix_http_latency_bucket{",
        "apisix_bandwidth{",
        "apisix_http_requests_total",
    ] {
        assert!(text.lines().any(|line| line.starts_with(begins)), "no {begins} in\n{text}");
    }
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let name = family.split(' ').next().unwrap_or_default().to_owned();
            assert!(!families.contains(&name), "{name} is announced twice");
            families.push(name);
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, value) = line.rsplit_once(' ').expect("a sample is a name and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(!name.is_empty() && name.starts_with(|sign: char| sign.is_ascii_alphabetic()), "{line}");
        }
    }
}

fn metrics_count_what_passed_per_route() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/counted", [&origin]).route("plugins: {prometheus: {}}").cores(2).start();

    for _ in 0..20 {
        gateway.get("/counted").expect_status(200);
    }
    eventually("20 are counted over both cores", || {
        let text = gateway.metrics();
        let line = text.lines().find(|line| {
            line.starts_with("apisix_http_status{")
                && line.contains("route=\"1\"")
                && line.contains("code=\"200\"")
        })?;
        line.ends_with(" 20").then_some(())
    });
    assert!(gateway.metric("apisix_http_requests_total").is_some_and(|count| count >= 20.0));
}

fn paths_do_not_become_series() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).route("plugins: {prometheus: {}}").start();

    let mut client = gateway.client();
    // When the second is answered, the first has been counted in whole.
    client.get("/").expect_status(200);
    client.get("/").expect_status(200);
    let lines = |gateway: &Gateway| gateway.metrics().lines().count();
    // The last that come of a kind of request.
    let is_last =
        |line: &str| line.starts_with("apisix_bandwidth{type=\"egress\"") && !line.contains("overflow");
    eventually("the route's series", || gateway.metrics().lines().any(is_last).then_some(()));
    let before = lines(&gateway);
    for at in 0..200 {
        client
            .request("GET", &format!("/made-up/{at}"), &[("Host", &format!("h{at}.test"))], b"")
            .expect_status(200);
    }
    assert_eq!(lines(&gateway), before);
}

fn health_is_told_to_who_asks() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    gateway.status("/status").expect_status(200);
    assert!(gateway.status("/status").text().contains("\"ok\""));
    for path in ["/status/ready", "/livez", "/readyz"] {
        gateway.status(path).expect_status(200);
    }
    gateway.status("/nothing").expect_status(404);
    // What changes or reveals is not for the listeners of clients.
    assert_eq!(gateway.get("/status").text(), "hello");
    assert_eq!(origin.requests(), 1);
}

fn start_and_stop_are_told() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::routing("/*", [&origin]).start();

    gateway.wait_said(&[&gateway.address().to_string()]);
    let driver = super::kit::current_driver().name();
    gateway.wait_said(&[driver]);
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
