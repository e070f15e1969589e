//! Plugins that answer themselves, or change what is answered, for trying things out.

use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Seen};

on_both_drivers!(
    text_is_put_around_a_body_and_around_nothing_that_has_none,
    an_injected_fault_is_answered_here_and_a_delay_takes_its_time,
    a_mocked_answer_needs_no_origin,
);

fn text_is_put_around_a_body_and_around_nothing_that_has_none() {
    let origin = Origin::answering(|seen: &Seen| match seen.target.as_str() {
        "/chunked" => {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n".to_owned()
        }
        "/none" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ if seen.method == "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_owned(),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: 200004\r\n\r\nbody{}", "y".repeat(200_000)),
    });
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {echo: {before_body: '<', after_body: '>', headers: {X-Uri: $uri}}}")
        .start();

    // One connection: what does not end where it should would spoil the next answer.
    let mut client = gateway.client();
    for _ in 0..2 {
        client.get("/chunked").expect(200, "<body>");
        client.get("/none").expect(204, "");
        client.get("/empty").expect(200, "<>");
        client.request("HEAD", "/", &[], b"").expect(200, "");
        let long = client.get("/long");
        long.expect(200, &format!("<body{}>", "y".repeat(200_000)));
        assert_eq!(long.header("x-uri"), Some("/long"));
    }
    let instead = Gateway::routing("/*", [&origin]).route("plugins: {echo: {body: new}}").start();
    instead.get("/long").expect(200, "new");
}

fn an_injected_fault_is_answered_here_and_a_delay_takes_its_time() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            r#"plugins: {fault-injection: {
                delay: {duration: 0.3, vars: [[[arg_slow, "==", "1"]]]},
                abort: {http_status: 503, body: "no $arg_name", headers: {X-Uri: $uri},
                        vars: [[[arg_name, "==", "jack"]], [[http_fail, "==", "yes"]]]}}}"#,
        )
        .start();

    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    let refused = client.get("/p?name=jack");
    refused.expect(503, "no jack");
    assert_eq!(refused.header("x-uri"), Some("/p"));
    client.request("GET", "/", &[("Fail", "yes")], b"").expect(503, "no ");
    assert_eq!(origin.requests(), 1);
    for (target, status) in [("/?slow=1", 200), ("/?slow=1&name=jack", 503)] {
        let start = Instant::now();
        client.get(target).expect_status(status);
        assert!(start.elapsed() >= Duration::from_millis(300), "{target}: {:?}", start.elapsed());
    }
    client.get("/").expect(200, "hello");
}

fn a_mocked_answer_needs_no_origin() {
    let gateway = Gateway::resources(
        r#"
        routes:
          - id: example
            uri: /example/*
            plugins:
              mocking:
                response_example: '{"path": "$uri"}'
                response_status: 201
                response_headers: {X-A: $arg_a}
          - id: schema
            uri: /schema
            plugins:
              mocking:
                with_mock_header: false
                response_schema:
                  type: object
                  properties:
                    id: {type: integer, example: 7}
                    tags: {type: array, items: {type: string}}
        "#,
        &[],
    )
    .start();

    let answer = gateway.get("/example/x?a=1");
    answer.expect(201, "{\"path\": \"/example/x\"}");
    assert_eq!(answer.header("content-type"), Some("application/json;charset=utf8"));
    assert_eq!((answer.header("x-a"), answer.header("x-mock-by").is_some()), (Some("1"), true));
    let made = gateway.get("/schema");
    made.expect_status(200);
    assert_eq!(made.header("x-mock-by"), None);
    let made = made.json();
    assert_eq!(made["id"], 7);
    assert!(
        made["tags"]
            .as_array()
            .is_some_and(|tags| !tags.is_empty() && tags.iter().all(|tag| tag.is_string()))
    );
}
