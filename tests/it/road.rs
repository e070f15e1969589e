//! The road of a request: which route it takes, what of its head reaches the origin, and what comes back.

use super::kit::{Gateway, Origin, reply};

on_both_drivers!(
    a_request_reaches_the_origin_and_its_answer_comes_back,
    a_path_without_a_route_gets_404_with_the_known_body,
    an_exact_path_wins_over_a_prefix_of_higher_priority,
    the_longest_prefix_wins_and_priority_decides_between_equals,
    a_host_is_matched_exactly_before_by_wildcard_and_without_case,
    methods_choose_between_routes,
    conditions_on_variables_choose_between_routes,
    a_route_switched_off_is_no_route,
    the_path_goes_on_as_it_was_written,
    pass_host_decides_which_host_the_origin_sees,
    the_origin_learns_who_asked,
    headers_of_one_hop_go_no_further,
    answers_lose_the_headers_of_their_hop,
    names_and_order_of_headers_survive,
    head_is_answered_without_a_body,
    answers_without_a_body_keep_the_connection,
    a_service_and_a_shared_upstream_are_found,
    an_upstream_that_does_not_exist_answers_503,
    every_answer_says_who_and_when,
);

fn a_request_reaches_the_origin_and_its_answer_comes_back() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    gateway.get("/a/b?c=d&e").expect(200, "hello");
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a/b?c=d&e"));
    assert_eq!(seen.version, "HTTP/1.1");
}

fn a_path_without_a_route_gets_404_with_the_known_body() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/only", [&origin]).start();

    let mut client = gateway.client();
    client.get("/other").expect(404, "{\"error_msg\":\"404 Route Not Found\"}\n");
    client.get("/only/").expect_status(404);
    client.get("/only").expect(200, "hello");
    assert_eq!(origin.requests(), 1);
    assert_eq!(gateway.reason("/other"), "route_not_found");
}

fn an_exact_path_wins_over_a_prefix_of_higher_priority() {
    let (exact, prefix) = (Origin::replying("exact"), Origin::replying("prefix"));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: p, uri: /a*, priority: 100, upstream: {type: roundrobin, nodes: {PREFIX: 1}}}
          - {id: e, uri: /a/b, priority: 0, upstream: {type: roundrobin, nodes: {EXACT: 1}}}
        ",
        &[("EXACT", &exact), ("PREFIX", &prefix)],
    )
    .start();

    gateway.get("/a/b").expect(200, "exact");
    gateway.get("/a/b?x").expect(200, "exact");
    gateway.get("/a/bc").expect(200, "prefix");
    gateway.get("/a").expect(200, "prefix");
}

fn the_longest_prefix_wins_and_priority_decides_between_equals() {
    let (short, low, high) = (Origin::replying("short"), Origin::replying("low"), Origin::replying("high"));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: s, uri: /a/*, priority: 9, upstream: {type: roundrobin, nodes: {SHORT: 1}}}
          - {id: l, uri: /a/b/*, priority: 1, upstream: {type: roundrobin, nodes: {LOW: 1}}}
          - {id: h, uri: /a/b/*, priority: 2, upstream: {type: roundrobin, nodes: {HIGH: 1}}}
        ",
        &[("SHORT", &short), ("LOW", &low), ("HIGH", &high)],
    )
    .start();

    gateway.get("/a/b/c").expect(200, "high");
    gateway.get("/a/bc").expect(200, "short");
    assert_eq!(low.requests(), 0);
}

fn a_host_is_matched_exactly_before_by_wildcard_and_without_case() {
    let (exact, wild, any) = (Origin::replying("exact"), Origin::replying("wild"), Origin::replying("any"));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: e, uri: /*, host: a.example.com, upstream: {type: roundrobin, nodes: {EXACT: 1}}}
          - {id: w, uri: /*, hosts: ['*.example.com'], upstream: {type: roundrobin, nodes: {WILD: 1}}}
          - {id: n, uri: /*, upstream: {type: roundrobin, nodes: {ANY: 1}}}
        ",
        &[("EXACT", &exact), ("WILD", &wild), ("ANY", &any)],
    )
    .start();

    let ask = |host: &str, body: &str| {
        let answer = gateway.request("GET", "/", &[("Host", host)], b"");
        assert_eq!(answer.text(), body, "{host}");
    };
    ask("a.example.com", "exact");
    ask("A.Example.COM", "exact");
    ask("a.example.com:8080", "exact");
    ask("b.example.com", "wild");
    ask("c.b.example.com", "wild");
    ask("example.com", "any");
    ask("a.example.org", "any");
}

fn methods_choose_between_routes() {
    let (reads, writes) = (Origin::replying("read"), Origin::replying("written"));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: r, uri: /x, methods: [GET], upstream: {type: roundrobin, nodes: {READS: 1}}}
          - {id: w, uri: /x, methods: [POST, PUT], upstream: {type: roundrobin, nodes: {WRITES: 1}}}
        ",
        &[("READS", &reads), ("WRITES", &writes)],
    )
    .start();

    gateway.get("/x").expect(200, "read");
    gateway.post("/x", b"1").expect(200, "written");
    gateway.request("PUT", "/x", &[], b"1").expect(200, "written");
    gateway.request("DELETE", "/x", &[], b"").expect_status(404);
}

fn conditions_on_variables_choose_between_routes() {
    let (beta, plain) = (Origin::replying("beta"), Origin::replying("plain"));
    let gateway = Gateway::resources(
        r#"
        routes:
          - id: b
            uri: /x
            priority: 1
            vars: [[http_x_ring, "==", beta], [arg_n, ">", 3]]
            upstream: {type: roundrobin, nodes: {BETA: 1}}
          - {id: p, uri: /x, upstream: {type: roundrobin, nodes: {PLAIN: 1}}}
        "#,
        &[("BETA", &beta), ("PLAIN", &plain)],
    )
    .start();

    gateway.request("GET", "/x?n=4", &[("X-Ring", "beta")], b"").expect(200, "beta");
    gateway.request("GET", "/x?n=3", &[("X-Ring", "beta")], b"").expect(200, "plain");
    gateway.request("GET", "/x?n=4", &[("X-Ring", "alpha")], b"").expect(200, "plain");
    gateway.get("/x").expect(200, "plain");
}

fn a_route_switched_off_is_no_route() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/off", [&origin]).route("status: 0").start();

    gateway.get("/off").expect_status(404);
    assert_eq!(origin.requests(), 0);
}

fn the_path_goes_on_as_it_was_written() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).start();

    for target in
        ["/", "/a%20b", "/a?b=%2F&c=d%26", "/caf%C3%A9", "/a/b/?", "/a;b=c/d", "/x?y=/../z", "/~a_b-c.d"]
    {
        gateway.get(target).expect(200, &format!("GET {target}"));
    }
}

fn pass_host_decides_which_host_the_origin_sees() {
    for (fields, expected) in [
        ("pass_host: pass", Some("client.example:81")),
        ("pass_host: node", None),
        ("{pass_host: rewrite, upstream_host: inner.example}", Some("inner.example")),
    ] {
        let origin = Origin::replying("hello");
        let gateway = Gateway::routing("/*", [&origin]).with(fields).start();
        gateway.request("GET", "/", &[("Host", "client.example:81")], b"").expect_status(200);
        let node = origin.node();
        assert_eq!(origin.only().header("host"), Some(expected.unwrap_or(&node)), "{fields}");
    }
}

fn the_origin_learns_who_asked() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let own = gateway.address().port().to_string();
    // The port that the client named, else the one it came in by.
    for (host, port) in
        [("client.example:8443", "8443"), ("Client.Example", own.as_str()), ("[2001:db8::7]:81", "81")]
    {
        gateway.request("GET", "/", &[("Host", host)], b"").expect_status(200);
        let seen = origin.only();
        origin.forget();
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-forwarded-host"), Some(host));
        assert_eq!(seen.header("x-forwarded-port"), Some(port), "{host}");
    }
}

fn headers_of_one_hop_go_no_further() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    let hop = [
        ("Connection", "keep-alive, X-Mine"),
        ("Keep-Alive", "timeout=5"),
        ("X-Mine", "for the gateway alone"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "gzip"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("X-Yours", "for the origin"),
    ];
    let mut client = gateway.client();
    client.request("GET", "/", &hop, b"").expect(200, "hello");
    client.get("/again").expect(200, "hello");
    let seen = origin.saw("/");
    for (name, _) in &hop[1..8] {
        assert!(seen.values(name).is_empty(), "{name} went on: {:?}", seen.headers);
    }
    assert_eq!(seen.header("x-yours"), Some("for the origin"));
    let connection = seen.header("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(!connection.contains("x-mine"), "connection: {connection}");
}

fn answers_lose_the_headers_of_their_hop() {
    let origin = Origin::sending(
        "HTTP/1.1 200 OK\r\nConnection: X-Mine, ETag\r\nX-Mine: 1\r\nETag: 1\r\nKeep-Alive: timeout=9\r\n\
         Proxy-Authenticate: Basic\r\nX-Yours: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::routing("/*", [&origin]).start();

    let answer = gateway.get("/");
    answer.expect(200, "ok");
    for name in ["x-mine", "etag", "keep-alive"] {
        assert!(answer.values(name).is_empty(), "{name} went on: {:?}", answer.headers);
    }
    assert_eq!(answer.header("x-yours"), Some("2"));
}

fn names_and_order_of_headers_survive() {
    let origin = Origin::sending(
        "HTTP/1.1 200 Fine\r\nX-bEta: 2\r\nSet-Cookie: a=1\r\nx-Alpha: 1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = Gateway::routing("/*", [&origin]).start();

    let answer = gateway.request("GET", "/", &[("X-zZ", "1"), ("Cookie", "a=1; b=2"), ("x-Aa", "2")], b"");
    assert_eq!(answer.values("set-cookie"), ["a=1", "b=2"]);
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name);
    assert!(place("X-bEta").is_some() && place("X-bEta") < place("x-Alpha"), "{names:?}");

    let seen = origin.only();
    let names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name);
    assert!(place("X-zZ").is_some() && place("X-zZ") < place("x-Aa"), "{names:?}");
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
}

fn head_is_answered_without_a_body() {
    let origin = Origin::answering(|seen| match seen.method.as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => reply("200 OK", "hello"),
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    let answer = client.request("HEAD", "/", &[], b"");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("5")));
    client.get("/").expect(200, "hello");

    let missing = Gateway::routing("/none", [&origin]).start();
    let mut client = missing.client();
    let answer = client.request("HEAD", "/", &[], b"");
    assert_eq!(answer.status, 404);
    client.request("HEAD", "/none", &[], b"").expect_status(200);
}

fn answers_without_a_body_keep_the_connection() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 700\r\n\r\n".to_vec(),
        "/0" => reply("200 OK", ""),
        _ => reply("200 OK", "hello"),
    });
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    let answer = client.get("/204");
    assert_eq!((answer.status, answer.values("content-length").len()), (204, 0));
    assert!(answer.values("transfer-encoding").is_empty());
    assert_eq!(client.get("/304").header("etag"), Some("\"1\""));
    client.get("/0").expect(200, "");
    client.get("/").expect(200, "hello");
    assert_eq!(origin.connections(), 1);
}

fn a_service_and_a_shared_upstream_are_found() {
    let (shared, own) = (Origin::replying("shared"), Origin::replying("own"));
    let gateway = Gateway::resources(
        "
        upstreams:
          - {id: u, type: roundrobin, nodes: {SHARED: 1}}
        services:
          - {id: s, upstream_id: u, hosts: [a.test]}
        routes:
          - {id: '1', uri: /by-service, service_id: s}
          - {id: '2', uri: /by-upstream, upstream_id: u}
          - {id: '3', uri: /own, service_id: s, upstream: {type: roundrobin, nodes: {OWN: 1}}}
        ",
        &[("SHARED", &shared), ("OWN", &own)],
    )
    .start();

    let host = [("Host", "a.test")];
    gateway.request("GET", "/by-service", &host, b"").expect(200, "shared");
    gateway.request("GET", "/own", &host, b"").expect(200, "own");
    gateway.get("/by-service").expect_status(404);
    gateway.get("/by-upstream").expect(200, "shared");
}

fn an_upstream_that_does_not_exist_answers_503() {
    let gateway = Gateway::resources(
        "
        routes:
          - {id: '1', uri: /empty, upstream: {type: roundrobin, nodes: {}}}
          - {id: '2', uri: /none, plugins: {}}
        ",
        &[],
    )
    .start();

    gateway.get("/empty").expect_status(503);
    gateway.get("/none").expect_status(503);
    assert_eq!(
        (gateway.reason("/empty").as_str(), gateway.reason("/none").as_str()),
        ("no_nodes", "no_upstream")
    );
}

fn every_answer_says_who_and_when() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/a", [&origin]).start();

    for path in ["/a", "/none"] {
        let answer = gateway.get(path);
        let date = answer.header("date").expect("a date");
        assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
        assert!(answer.values("server").len() <= 1);
    }
    let made_here = gateway.get("/none");
    let server = made_here.header("server").expect("a server").to_ascii_lowercase();
    assert_eq!(server, "ringway", "no version unless asked for");
}
