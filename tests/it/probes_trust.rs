//! Who a request says it comes from, and who is believed.

use super::kit::{Gateway, Origin, Seen};

on_both_drivers!(
    a_stranger_is_not_believed,
    a_strangers_list_is_sent_on_where_that_is_wanted_and_believed_by_nobody,
    a_trusted_peer_is_believed_as_far_as_its_chain_goes,
    an_empty_word_of_a_trusted_peer_is_none,
    names_with_underscores_are_no_second_way_in,
    headers_that_name_the_consumer_come_from_us_alone,
    an_address_is_the_same_in_every_spelling,
    a_proxy_header_nobody_expects_is_refused,
);

/// What a stranger may claim.
const CLAIMS: [(&str, &str); 12] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("Forwarded", "for=6.6.6.6;proto=https;host=evil"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-Uri", "/evil"),
    ("X-Forwarded-Method", "DELETE"),
    ("True-Client-IP", "6.6.6.6"),
    ("CF-Connecting-IP", "6.6.6.6"),
];

#[track_caller]
fn told_the_truth(seen: &Seen) {
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("ringway.test"));
    assert_ne!(seen.header("x-forwarded-port"), Some("666"));
    assert!(seen.values("forwarded").is_empty());
}

fn a_stranger_is_not_believed() {
    let origin = Origin::replying("hello");
    for settings in ["trusted_addresses: ['10.0.0.0/8']", "trusted_addresses: []"] {
        let gateway = Gateway::routing("/*", [&origin])
            .route("plugins: {ip-restriction: {whitelist: ['127.0.0.1']}}")
            .settings(settings)
            .start();
        gateway.request("GET", "/", &CLAIMS, b"").expect(200, "hello");
        let seen = origin.only();
        told_the_truth(&seen);
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{settings}");
        assert_eq!(gateway.logged("\"/\"")["client_ip"], "127.0.0.1");
        origin.forget();
    }
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {ip-restriction: {whitelist: ['6.6.6.6']}}")
        .start();
    gateway.request("GET", "/", &CLAIMS, b"").expect_status(403);
}

fn a_strangers_list_is_sent_on_where_that_is_wanted_and_believed_by_nobody() {
    let origin = Origin::replying("hello");
    for settings in ["forwarded_for: append", "apisix: {delete_uri_tail_slash: false}"] {
        let gateway = Gateway::routing("/*", [&origin])
            .route("plugins: {ip-restriction: {whitelist: ['127.0.0.1']}}")
            .settings(settings)
            .start();
        gateway.request("GET", "/", &CLAIMS, b"").expect(200, "hello");
        let seen = origin.only();
        told_the_truth(&seen);
        assert_eq!(seen.header("x-forwarded-for"), Some("6.6.6.6, 127.0.0.1, 127.0.0.1"), "{settings}");
        assert_eq!(gateway.logged("\"/\"")["client_ip"], "127.0.0.1");
        origin.forget();
    }
}

fn a_trusted_peer_is_believed_as_far_as_its_chain_goes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("trusted_addresses: ['127.0.0.0/8', '10.0.0.0/8']")
        .route("plugins: {ip-restriction: {whitelist: ['5.5.5.5']}}")
        .start();

    let ask = |chain: &str| gateway.request("GET", "/", &[("X-Forwarded-For", chain)], b"").status;
    // From the right, through those we trust, to the first we do not.
    assert_eq!(ask("5.5.5.5"), 200);
    assert_eq!(ask("5.5.5.5, 10.1.1.1"), 200);
    assert_eq!(ask("9.9.9.9, 5.5.5.5, 10.1.1.1, 10.2.2.2"), 200);
    assert_eq!(ask("5.5.5.5, 9.9.9.9"), 403);
    assert_eq!(ask("5.5.5.5, nonsense"), 403);
    assert_eq!(ask("10.1.1.1"), 403);

    origin.forget();
    let claims = [
        ("X-Forwarded-For", "5.5.5.5"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "outer.example"),
    ];
    gateway.request("GET", "/", &claims, b"").expect(200, "hello");
    let seen = origin.only();
    assert_eq!(seen.values("x-forwarded-for").join(", "), "5.5.5.5, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("outer.example"));
}

fn an_empty_word_of_a_trusted_peer_is_none() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("trusted_addresses: ['127.0.0.0/8']").start();

    let claims = [
        ("Host", "ringway.test:8443"),
        ("X-Real-IP", ""),
        ("X-Forwarded-For", ""),
        ("X-Forwarded-Proto", " "),
        ("X-Forwarded-Host", ""),
        ("X-Forwarded-Port", ""),
    ];
    gateway.request("GET", "/", &claims, b"").expect(200, "hello");
    let seen = origin.only();
    for (name, value) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "ringway.test:8443"),
        ("x-forwarded-port", "8443"),
    ] {
        assert_eq!(seen.values(name), [value], "{name}");
    }
    // One that says something still counts, behind one that does not.
    origin.forget();
    let claims = [("X-Forwarded-Port", ""), ("X-Forwarded-Port", "444"), ("X-Forwarded-Proto", "https")];
    gateway.request("GET", "/", &claims, b"").expect(200, "hello");
    let seen = origin.only();
    assert_eq!(seen.values("x-forwarded-port"), ["444"]);
    assert_eq!(seen.values("x-forwarded-proto"), ["https"]);
}

fn names_with_underscores_are_no_second_way_in() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    for name in ["X_Forwarded_For", "X_Real_IP", "X_Consumer_Username", "X-Forwarded_For"] {
        let answer = gateway.request("GET", "/", &[(name, "6.6.6.6")], b"");
        assert!(matches!(answer.status, 200 | 400), "{name}: {}", answer.status);
        for seen in origin.seen() {
            assert!(
                !seen.headers.iter().any(|(_, value)| value.contains("6.6.6.6")),
                "{name}: {:?}",
                seen.headers
            );
        }
        origin.forget();
    }
}

fn headers_that_name_the_consumer_come_from_us_alone() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        "
        routes:
          - {id: k, uri: /key, plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
          - id: n
            uri: /anonymous
            plugins: {key-auth: {anonymous_consumer: nobody}}
            upstream: {type: roundrobin, nodes: {ORIGIN: 1}}
          - {id: o, uri: /open, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
        consumers:
          - {username: jack, labels: {custom_id: '77'}, plugins: {key-auth: {key: k1}}}
          - {username: nobody}
        ",
        &[("ORIGIN", &origin)],
    )
    .start();

    let ask = |path: &str, key: Option<&str>| {
        origin.forget();
        let mut headers = vec![
            ("X-Consumer-Username", "root"),
            ("x-consumer-username", "admin"),
            ("X-Consumer-Custom-ID", "0"),
            ("X-Credential-Identifier", "evil"),
        ];
        headers.extend(key.map(|key| ("apikey", key)));
        gateway.request("GET", path, &headers, b"").expect(200, "hello");
        origin.only()
    };
    let seen = ask("/key", Some("k1"));
    assert_eq!(seen.header("x-consumer-username"), Some("jack"));
    assert_eq!(seen.header("x-consumer-custom-id"), Some("77"));
    assert_ne!(seen.header("x-credential-identifier"), Some("evil"));

    let seen = ask("/anonymous", None);
    assert_eq!(seen.header("x-consumer-username"), Some("nobody"));
    assert_eq!((seen.header("x-consumer-custom-id"), seen.header("x-credential-identifier")), (None, None));

    let seen = ask("/open", None);
    for name in ["x-consumer-username", "x-consumer-custom-id", "x-credential-identifier"] {
        assert!(seen.values(name).is_empty(), "{name} on a route without authentication");
    }
}

fn an_address_is_the_same_in_every_spelling() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("trusted_addresses: ['127.0.0.1']")
        .route("plugins: {ip-restriction: {whitelist: ['5.5.5.5', '2001:db8::1']}}")
        .start();

    let ask = |address: &str| gateway.request("GET", "/", &[("X-Forwarded-For", address)], b"").status;
    assert_eq!(ask("::ffff:5.5.5.5"), 200);
    assert_eq!(ask("2001:0db8:0::0001"), 200);
    assert_eq!(ask("[2001:db8::1]"), 200);
    assert_eq!(ask("5.5.5.5:4711"), 200);
    assert_eq!(ask("05.5.5.5"), 403);
    assert_eq!(ask("0x5.5.5.5"), 403);
    assert_eq!(ask("84215045"), 403);
}

fn a_proxy_header_nobody_expects_is_refused() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();

    for preface in [
        &b"PROXY TCP4 6.6.6.6 127.0.0.1 1 80\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x06\x06\x06\x06\x7f\0\0\x01\0\x01\0P",
    ] {
        let mut raw = gateway.raw();
        raw.send([preface, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let status = raw.answer().status;
        assert!(matches!(status, 400 | 501), "{status}");
        raw.expect_closed();
    }
    assert_eq!(origin.requests(), 0);
}
