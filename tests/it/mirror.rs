//! `proxy-mirror`: copies reach another origin as they should, and nobody waits for them.

use super::kit::{Gateway, Origin, Refusing, Setup, eventually};

on_both_drivers!(
    a_copy_says_what_the_origin_was_told,
    a_body_is_copied_however_it_comes,
    a_body_that_is_too_long_is_not_copied_and_passes_all_the_same,
    a_mirror_that_is_gone_or_asleep_is_nobodys_trouble,
    what_is_turned_away_has_no_copy,
);

/// A route to `main` whose requests are copied to `mirror`.
fn mirroring(main: &Origin, mirror: &Origin, more: &str) -> Setup {
    Gateway::routing("/*", [main])
        .route(&format!("plugins: {{proxy-mirror: {{host: 'http://{}'{more}}}}}", mirror.node()))
}

/// How many copies came to this.
fn copies(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("ringway_copies_total{{core=\"0\",outcome=\"{outcome}\"")).unwrap()
}

fn a_copy_says_what_the_origin_was_told() {
    let (main, mirror) = (Origin::replying("hello"), Origin::naming());
    let gateway = mirroring(&main, &mirror, ", path: /copy, path_concat_mode: prefix")
        .route("plugins: {proxy-rewrite: {uri: /new, headers: {set: {X-New: '1'}}}}")
        .start();

    let headers = [("Host", "shop.test"), ("X-Old", "2"), ("Connection", "x-hop"), ("X-Hop", "3")];
    gateway.request("DELETE", "/old?a=1", &headers, b"").expect(200, "hello");
    mirror.wait_requests(1);
    let copy = mirror.only();
    assert_eq!((copy.method.as_str(), copy.target.as_str()), ("DELETE", "/copy/new?a=1"));
    for (name, expected) in [
        ("host", Some("shop.test")),
        ("x-old", Some("2")),
        ("x-new", Some("1")),
        ("x-hop", None),
        ("x-real-ip", Some("127.0.0.1")),
    ] {
        assert_eq!(copy.header(name), expected, "{name}");
    }
    assert_eq!(main.only().target, "/new?a=1");
    eventually("it is counted", || (copies(&gateway, "sent") == 1.0).then_some(()));
}

fn a_body_is_copied_however_it_comes() {
    let (main, mirror) = (Origin::echoing(), Origin::echoing());
    let gateway = mirroring(&main, &mirror, "").start();

    let long = "b".repeat(300_000);
    let chunked = |pieces: &[&str]| {
        let mut bytes = b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in pieces {
            bytes.extend_from_slice(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    gateway.post("/small", b"small").expect(200, "small");
    gateway.post("/long", long.as_bytes()).expect(200, &long);
    gateway.say(chunked(&["one ", "two ", &long])).expect(200, &format!("one two {long}"));
    let mut raw = gateway.raw();
    raw.send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    main.wait_requests(4);
    raw.send_each(["in ", "pieces"]);
    raw.answer().expect(200, "in pieces");
    gateway.post("/empty", b"").expect(200, "");
    mirror.wait_requests(5);
    for (target, body) in [
        ("/small", "small"),
        ("/long", &long),
        ("/chunked", &format!("one two {long}")),
        ("/late", "in pieces"),
        ("/empty", ""),
    ] {
        let copy = eventually("the copy is whole", || Some(mirror.saw(target)).filter(|copy| copy.complete));
        assert_eq!((copy.body.len(), copy.body == body.as_bytes()), (body.len(), true), "{target}");
        assert_eq!(copy.header("transfer-encoding"), None);
    }
}

fn a_body_that_is_too_long_is_not_copied_and_passes_all_the_same() {
    let (main, mirror) = (Origin::echoing(), Origin::naming());
    let gateway = mirroring(&main, &mirror, "").start();

    let (fits, long) = ("f".repeat(1024 * 1024), "l".repeat(1024 * 1024 + 1));
    gateway.post("/fits", fits.as_bytes()).expect(200, &fits);
    gateway.post("/long", long.as_bytes()).expect(200, &long);
    eventually("one is dropped", || (copies(&gateway, "dropped") == 1.0).then_some(()));
    mirror.wait_requests(1);
    assert_eq!(mirror.only().target, "/fits");
}

fn a_mirror_that_is_gone_or_asleep_is_nobodys_trouble() {
    let main = Origin::replying("hello");
    let (asleep, abrupt) = (Origin::that_stalls(), Origin::that_closes_at_once());
    let refusing = Refusing::new();
    let gone = refusing.address();
    for mirror in [asleep.node(), abrupt.node(), gone.to_string()] {
        let plugin = format!("plugins: {{proxy-mirror: {{host: 'http://{mirror}'}}}}");
        let gateway = Gateway::routing("/*", [&main]).route(&plugin).start();
        let mut client = gateway.client();
        // More than may be under way.
        for _ in 0..200 {
            client.get("/").expect(200, "hello");
        }
        let all = || copies(&gateway, "sent") + copies(&gateway, "failed") + copies(&gateway, "dropped");
        eventually("all are accounted for", || (all() == 200.0).then_some(()));
    }
}

fn what_is_turned_away_has_no_copy() {
    let (main, mirror) = (Origin::replying("hello"), Origin::naming());
    let gateway = mirroring(&main, &mirror, "")
        .route("plugins: {key-auth: {}}")
        .objects("consumers: [{username: jack, plugins: {key-auth: {key: k1}}}]");
    let gateway = gateway.start();

    gateway.get("/no").expect_status(401);
    gateway.request("GET", "/yes", &[("apikey", "k1")], b"").expect(200, "hello");
    mirror.wait_requests(1);
    assert_eq!(mirror.only().target, "/yes");
}
