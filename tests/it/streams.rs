//! Connections that stream routes pass on as they are: bytes, ends and breaks both ways, the choice of a node, and what plugins
//! have to say.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::json;

use super::kit::{Conn, Ended, Gateway, Origin, Raw, Setup, Signal, eventually};

on_both_drivers!(
    bytes_pass_both_ways_unchanged,
    the_end_of_one_side_reaches_the_other_and_no_more,
    a_break_of_one_side_is_a_break_for_the_other,
    a_side_that_takes_nothing_holds_the_other_up,
    a_node_that_is_down_is_passed_over,
    without_a_node_the_client_is_told_nothing,
    silence_ends_a_stream,
    the_route_is_the_one_that_says_most,
    a_service_brings_upstream_and_plugins,
    who_may_not_come_in_is_closed,
    a_guard_that_was_never_good_lets_nobody_past,
    so_many_at_once_and_no_more,
    a_share_goes_to_another_upstream,
    whose_connection_it_is_may_be_said_first,
    a_node_is_told_whose_connection_it_is,
    a_client_of_mqtt_comes_to_the_same_broker,
    streams_are_counted,
    routes_are_written_where_streams_come_in,
    a_reload_keeps_open_streams_and_takes_new_ones_elsewhere,
    open_streams_have_their_time_when_it_stops,
    many_streams_at_once_on_two_cores,
);

const LIMIT: &str = r#"{"conn":9,"burst":0,"default_conn_delay":0.1,"key":"remote_addr"}"#;

/// Sends back what it gets, until its client says that this was all.
pub(super) fn echo() -> Origin {
    Origin::serving(|conn: &mut Conn| {
        while let Ok(piece) = conn.wire().some() {
            if piece.is_empty() || !conn.send(&piece) {
                return;
            }
        }
    })
}

/// Says its name, then sends back what it gets.
pub(super) fn named(name: &'static str) -> Origin {
    Origin::serving(move |conn: &mut Conn| {
        conn.send(name.as_bytes());
        while let Ok(piece) = conn.wire().some() {
            if piece.is_empty() || !conn.send(&piece) {
                return;
            }
        }
    })
}

/// A gateway for streams with these objects.
pub(super) fn passing(objects: &str, names: &[(&str, &Origin)]) -> Setup {
    Gateway::resources(objects, names).settings("stream_proxy: {tcp: ['127.0.0.1:0']}")
}

fn to(origin: &Origin) -> Setup {
    passing("stream_routes: [{id: s, upstream: {nodes: {ORIGIN: 1}}}]", &[("ORIGIN", origin)])
}

fn call(gateway: &Gateway) -> Raw {
    Raw::connect(gateway.stream_address("tcp"))
}

#[track_caller]
pub(super) fn expect_bytes(raw: &mut Raw, bytes: &[u8]) {
    let mut got = Vec::with_capacity(bytes.len());
    raw.wire.exactly(bytes.len() as u64, |piece| got.extend_from_slice(piece)).unwrap();
    assert!(got == bytes, "{} bytes differ: {}", bytes.len(), got[..got.len().min(100)].escape_ascii());
}

fn bytes_pass_both_ways_unchanged() {
    let origin = echo();
    let gateway = to(&origin).start();
    let mut raw = call(&gateway);
    for at in 0..50 {
        let ping = format!("\0\u{1}ping {at}\r\n\r\n");
        raw.send(&ping);
        expect_bytes(&mut raw, ping.as_bytes());
    }
    // More than all buffers on the way: it is sent and read at once.
    let large: Vec<u8> = (0..1_048_576_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut sender = raw.wire.stream().try_clone().unwrap();
    let copy = large.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &copy));
    expect_bytes(&mut raw, &large);
    writer.join().unwrap().unwrap();
    raw.finish();
    assert_eq!(raw.rest(), (Vec::new(), Ended::Closed));

    let line = gateway.logged("\"protocol\":\"tcp\"");
    assert_eq!((line["status"].as_u64(), line["route_id"].as_str()), (Some(200), Some("s")));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&line["bytes_out"], &line["bytes_in"]));
    assert!(line["bytes_in"].as_u64().is_some_and(|bytes| bytes > 1_048_576), "{line}");
    assert_eq!(line["upstream_addr"], origin.node());
    assert_eq!(line["server_port"], gateway.stream_address("tcp").port());
    assert_eq!(line.get("error_code"), None, "{line}");
    assert_eq!(gateway.metric("ringway_streams_total{"), Some(1.0));
    eventually("it is over", || (gateway.metric("ringway_streams_active{") == Some(0.0)).then_some(()));
}

fn the_end_of_one_side_reaches_the_other_and_no_more() {
    // The client ends first, and is answered after that.
    let late = Origin::serving(|conn: &mut Conn| {
        let mut all = Vec::new();
        conn.wire().rest(|piece| all.extend_from_slice(piece));
        all.reverse();
        conn.send(&all);
    });
    let gateway = to(&late).start();
    let mut raw = call(&gateway);
    raw.send("desserts").finish();
    assert_eq!(raw.rest(), (b"stressed".to_vec(), Ended::Closed));

    // The node ends first, and is spoken to after that.
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let early = Origin::serving(move |conn: &mut Conn| {
        conn.send(b"last words");
        conn.wire().finish();
        let mut all = Vec::new();
        conn.wire().rest(|piece| all.extend_from_slice(piece));
        tell.lock().unwrap().send(all).unwrap();
    });
    let gateway = to(&early).start();
    let mut raw = call(&gateway);
    assert_eq!(raw.rest(), (b"last words".to_vec(), Ended::Closed));
    raw.send("still here").finish();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), b"still here");
}

fn a_break_of_one_side_is_a_break_for_the_other() {
    let breaking = Origin::serving(|conn: &mut Conn| {
        let _ = conn.wire().some();
        conn.reset();
    });
    let gateway = to(&breaking).start();
    let mut raw = call(&gateway);
    raw.send("x");
    assert_eq!(raw.rest(), (Vec::new(), Ended::Reset));
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "upstream_reset");

    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let hearing = Origin::serving(move |conn: &mut Conn| {
        conn.send(b"hello");
        tell.lock().unwrap().send(conn.wait_for_the_end()).unwrap();
    });
    let gateway = to(&hearing).start();
    let mut raw = call(&gateway);
    expect_bytes(&mut raw, b"hello");
    raw.wire.reset();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), Ended::Reset);
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "client_reset");
}

fn a_side_that_takes_nothing_holds_the_other_up() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let slow = Origin::serving(move |conn: &mut Conn| {
        let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(20));
        let mut count = 0_usize;
        conn.wire().rest(|piece| count += piece.len());
        conn.send(count.to_string().as_bytes());
    });
    let gateway = to(&slow).start();
    let mut raw = call(&gateway);
    let sender = raw.wire.stream().try_clone().unwrap();
    sender.set_nonblocking(true).unwrap();
    let piece = vec![7; 1 << 20];
    let (mut sent, mut idle) = (0, 0);
    // What the kernel and one buffer hold is some megabytes, and there it ends.
    while idle < 20 {
        match std::io::Write::write(&mut &sender, &piece) {
            Ok(count) => (sent, idle) = (sent + count, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                idle += 1;
                std::thread::yield_now();
                std::thread::park_timeout(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 200 << 20, "nothing holds it up");
    }
    sender.set_nonblocking(false).unwrap();
    go.send(()).unwrap();
    raw.finish();
    assert_eq!(raw.rest(), (sent.to_string().into_bytes(), Ended::Closed));
}

fn a_node_that_is_down_is_passed_over() {
    let origin = named("up");
    // Nobody listens at a port that was just given back.
    let down = Origin::replying("").address();
    let gateway = passing(
        &format!(
            "stream_routes: [{{id: s, upstream: {{nodes: [
               {{host: {}, port: {}, weight: 1, priority: 9}}, {{host: HOST, port: PORT, weight: 1}}]}}}}]",
            down.ip(),
            down.port(),
        )
        .replace("HOST", &origin.address().ip().to_string())
        .replace("PORT", &origin.address().port().to_string()),
        &[],
    )
    .start();
    for _ in 0..3 {
        expect_bytes(&mut call(&gateway), b"up");
    }
    let line = gateway.logged("\"protocol\":\"tcp\"");
    assert!(line["upstream_addr"].as_str().unwrap().ends_with(&origin.node()), "{line}");
}

fn without_a_node_the_client_is_told_nothing() {
    let down = Origin::replying("").address();
    let gateway =
        passing(&format!("stream_routes: [{{id: s, upstream: {{nodes: {{'{down}': 1}}}}}}]"), &[]).start();
    call(&gateway).expect_closed();
    let line = gateway.logged("\"protocol\":\"tcp\"");
    assert_eq!(
        (line["status"].as_u64(), line["error_code"].as_str()),
        (Some(502), Some("upstream_connect_failed"))
    );

    let gateway =
        passing("stream_routes: [{id: s, server_port: 1, upstream: {nodes: {'127.0.0.1:1': 1}}}]", &[]);
    let gateway = gateway.start();
    call(&gateway).expect_closed();
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "route_not_found");
}

fn silence_ends_a_stream() {
    let origin = named("hi");
    let gateway = to(&origin).settings("stream_proxy: {idle_timeout: 0.2}").start();
    let mut raw = call(&gateway);
    expect_bytes(&mut raw, b"hi");
    raw.expect_closed();
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "idle_timeout");

    // What the upstream says goes before.
    let gateway = passing(
        "stream_routes: [{id: s, upstream: {nodes: {ORIGIN: 1}, timeout: {connect: 5, send: 5, read: 0.2}}}]",
        &[("ORIGIN", &origin)],
    );
    let gateway = gateway.start();
    let mut raw = call(&gateway);
    expect_bytes(&mut raw, b"hi");
    raw.expect_closed();
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "idle_timeout");
}

fn the_route_is_the_one_that_says_most() {
    let (any, here, elsewhere) = (named("any"), named("here"), named("elsewhere"));
    let gateway = passing(
        "stream_routes:
           - {id: any, upstream: {nodes: {ANY: 1}}}
           - {id: elsewhere, remote_addr: 192.0.2.0/24, upstream: {nodes: {ELSEWHERE: 1}}}
           - {id: far, server_addr: 192.0.2.1, upstream: {nodes: {ELSEWHERE: 1}}}
           - {id: here, remote_addr: 127.0.0.0/8, server_addr: 127.0.0.1, upstream: {nodes: {HERE: 1}}}",
        &[("ANY", &any), ("HERE", &here), ("ELSEWHERE", &elsewhere)],
    )
    .start();
    expect_bytes(&mut call(&gateway), b"here");
}

fn a_service_brings_upstream_and_plugins() {
    let origin = named("served");
    let objects = |list: &str| {
        format!(
            "
            services:
              - {{id: v, upstream_id: u, plugins: {{ip-restriction: {{{list}: [127.0.0.1]}}, key-auth: {{}}}}}}
            upstreams: [{{id: u, nodes: {{ORIGIN: 1}}, scheme: tcp}}]
            stream_routes: [{{id: s, service_id: v}}]
            ",
        )
        .replace("ORIGIN", &origin.node())
    };
    let gateway = passing(&objects("whitelist"), &[]).start();
    expect_bytes(&mut call(&gateway), b"served");
    let gateway = passing(&objects("blacklist"), &[]).start();
    call(&gateway).expect_closed();
    assert_eq!(gateway.reason("\"protocol\":\"tcp\""), "plugin");
}

fn who_may_not_come_in_is_closed() {
    let origin = named("in");
    let gateway = passing(
        "stream_routes: [{id: s, plugins: {ip-restriction: {blacklist: [127.0.0.1]}}, upstream: {nodes: {ORIGIN: 1}}}]",
        &[("ORIGIN", &origin)],
    )
    .start();
    call(&gateway).expect_closed();
    assert_eq!(gateway.logged("\"protocol\":\"tcp\"")["status"], 403);
    assert_eq!(origin.connections(), 0);
}

fn a_guard_that_was_never_good_lets_nobody_past() {
    let origin = named("in");
    let gateway = passing(
        "stream_routes:
          - {id: guarded, server_addr: 127.0.0.1, plugins: {ip-restriction: {blacklist: 5}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: rest, upstream: {nodes: {ORIGIN: 1}}}",
        &[("ORIGIN", &origin)],
    )
    .start();
    call(&gateway).expect_closed();
    assert_eq!(gateway.logged("\"protocol\":\"tcp\"")["error_code"], "route_broken");
    gateway.wait_said(&["stream_routes/guarded: set aside; its connections are closed"]);
    assert_eq!(origin.connections(), 0);
}

fn so_many_at_once_and_no_more() {
    let origin = named("in");
    let limit = "{conn: 2, burst: 0, default_conn_delay: 0.1, key: remote_addr}";
    let gateway = passing(
        &format!(
            "stream_routes: [{{id: s, plugins: {{limit-conn: {limit}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}]"
        ),
        &[("ORIGIN", &origin)],
    )
    .cores(2)
    .start();
    let mut open: Vec<Raw> = (0..2).map(|_| call(&gateway)).collect();
    open.iter_mut().for_each(|raw| expect_bytes(raw, b"in"));
    call(&gateway).expect_closed();
    assert_eq!(gateway.logged("\"error_code\":\"plugin\"")["status"], 503);
    // A seat is free when a connection is over.
    open.pop();
    eventually("a seat is free", || {
        let mut raw = call(&gateway);
        raw.wire.exactly(2, |_| {}).is_ok().then_some(())
    });
}

fn a_share_goes_to_another_upstream() {
    let (own, other) = (named("own"), named("oth"));
    let gateway = passing(
        "
        upstreams: [{id: other, nodes: {OTHER: 1}}]
        stream_routes:
          - id: s
            plugins:
              traffic-split:
                rules:
                  - match: [{vars: [[remote_addr, '==', 127.0.0.1]]}]
                    weighted_upstreams: [{upstream_id: other}, {}]
            upstream: {nodes: {OWN: 1}}
        ",
        &[("OWN", &own), ("OTHER", &other)],
    )
    .start();
    let mut counts = [0; 2];
    for _ in 0..10 {
        let mut name = Vec::new();
        call(&gateway).wire.exactly(3, |piece| name.extend_from_slice(piece)).unwrap();
        counts[usize::from(name == b"own")] += 1;
    }
    assert_eq!(counts, [5, 5]);
}

fn routes_are_written_where_streams_come_in() {
    let (one, two) = (named("one"), named("two"));
    let gateway = Gateway::managed().settings("stream_proxy: {tcp: ['127.0.0.1:0']}").start();
    let admin = gateway.admin();
    let route = |origin: &Origin| {
        let checks = r#""checks":{"active":{"type":"tcp"}}"#;
        format!(
            r#"{{"upstream":{{"nodes":{{"{}":1}},{checks}}},"plugins":{{"limit-conn":{LIMIT}}}}}"#,
            origin.node()
        )
    };
    admin.put("/stream_routes/1", &route(&one));
    expect_bytes(&mut call(&gateway), b"one");
    admin.put("/stream_routes/1", &route(&two));
    expect_bytes(&mut call(&gateway), b"two");
    let wrong =
        admin.ask("PUT", "/stream_routes/2", &[], r#"{"plugins":{"cors":{}},"upstream":{"nodes":{}}}"#);
    wrong.expect_status(400);
    let known = "expected one of ip-restriction, limit-conn, mqtt-proxy, prometheus, syslog, traffic-split";
    assert!(
        wrong.text().contains("unknown plugin [cors] in a stream") && wrong.text().contains(known),
        "{}",
        wrong.text()
    );
    let names = admin.ask("GET", "/plugins/list?subsystem=stream", &[], "").json();
    assert_eq!(
        names,
        json!(["ip-restriction", "limit-conn", "mqtt-proxy", "traffic-split", "prometheus", "syslog"])
    );
    admin.ask("GET", "/plugins/cors?subsystem=stream", &[], "").expect_status(404);
    let schema = admin.ask("GET", "/schema/plugins/limit-conn?subsystem=stream", &[], "");
    assert!(schema.expect_status(200).json()["properties"]["conn"].is_object());
    let health = gateway.control("GET", "/v1/healthcheck/stream_routes/1").expect_status(200).json();
    assert_eq!((&health["name"], &health["type"]), (&json!("/apisix/stream_routes/1"), &json!("tcp")));
    admin.ask("DELETE", "/stream_routes/1", &[], "").expect_status(200);
    call(&gateway).expect_closed();
}

fn a_node_is_told_whose_connection_it_is() {
    for (version, begins) in
        [(1, &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), (2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11")]
    {
        let origin = echo();
        let upstream = format!("{{nodes: {{ORIGIN: 1}}, proxy_protocol: {version}}}");
        let gateway =
            passing(&format!("stream_routes: [{{id: s, upstream: {upstream}}}]"), &[("ORIGIN", &origin)])
                .start();
        let mut raw = call(&gateway);
        raw.send("hello").finish();
        let (all, ended) = raw.rest();
        assert!(all.starts_with(begins) && all.ends_with(b"hello"), "{}", all.escape_ascii());
        assert_eq!(ended, Ended::Closed);
    }
}

fn a_client_of_mqtt_comes_to_the_same_broker() {
    let (one, two) = (named("1"), named("2"));
    let gateway = passing(
        "
        stream_routes:
          - id: s
            plugins: {mqtt-proxy: {protocol_name: MQTT, protocol_level: 4}}
            upstream: {type: chash, key: mqtt_client_id, nodes: {ONE: 1, TWO: 1}}
        ",
        &[("ONE", &one), ("TWO", &two)],
    )
    .start();
    let connect = |id: &str, level: u8| {
        let mut packet =
            vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60, 0, id.len() as u8];
        packet.extend_from_slice(id.as_bytes());
        packet
    };
    let mut brokers = Vec::new();
    for id in 0..12 {
        let packet = connect(&format!("client-{id}"), 4);
        let mut at = [0; 2];
        for (round, pieces) in [packet.len(), 1].into_iter().enumerate() {
            let mut raw = call(&gateway);
            raw.send_each(packet.chunks(pieces));
            raw.wire.exactly(1, |piece| at[round] = piece[0]).unwrap();
            expect_bytes(&mut raw, &packet);
        }
        assert_eq!(at[0], at[1], "client-{id}");
        brokers.push(at[0]);
    }
    assert!(brokers.contains(&b'1') && brokers.contains(&b'2'), "{brokers:?}");
    call(&gateway).send(connect("x", 5)).expect_closed();
    call(&gateway).send("GET / HTTP/1.1\r\n\r\n").expect_closed();
    assert_eq!(gateway.logged("\"error_code\":\"plugin\"")["status"], 400);

    let route = r#"{"uri":"/","plugins":{"mqtt-proxy":{"protocol_name":"MQTT","protocol_level":4}},"upstream":{"nodes":{}}}"#;
    let gateway = Gateway::managed().start();
    let refused = gateway.admin().ask("PUT", "/routes/1", &[], route);
    refused.expect_status(400);
    assert!(refused.text().contains("unknown plugin [mqtt-proxy] with requests"), "{}", refused.text());
}

fn streams_are_counted() {
    let origin = named("up");
    let down = Origin::replying("").address();
    let gateway = passing(
        &format!(
            "
            stream_routes:
              - {{id: s, name: first, plugins: {{prometheus: {{prefer_name: true}}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}
              - {{id: d, sni: down.test, plugins: {{prometheus: {{}}}}, upstream: {{nodes: {{'{down}': 1}}}}}}
            ",
        ),
        &[("ORIGIN", &origin)],
    )
    .start();
    let at = gateway.stream_address("tcp");
    let mut raw = call(&gateway);
    raw.send("hello");
    expect_bytes(&mut raw, b"uphello");
    let active = format!("apisix_stream_active_connections{{listen_addr=\"{at}\"}}");
    eventually("it is open", || (gateway.metric(&active) == Some(1.0)).then_some(()));
    raw.finish().expect_closed();
    eventually("it is over", || (gateway.metric(&active) == Some(0.0)).then_some(()));
    // Counted when its end is told, a moment after it.
    let counted = |name: &str, count: f64| {
        eventually(name, || (gateway.metric(name) == Some(count)).then_some(()));
    };
    counted("apisix_stream_connection_total{route=\"first\"}", 1.0);
    let status =
        format!("apisix_stream_status{{code=\"200\",listen_addr=\"{at}\",node=\"{}\"}}", origin.node());
    counted(&status, 1.0);
    for (way, side, bytes) in [
        ("ingress", "downstream", 5.0),
        ("egress", "downstream", 7.0),
        ("egress", "upstream", 5.0),
        ("ingress", "upstream", 7.0),
    ] {
        let name = format!("apisix_stream_bandwidth{{listen_addr=\"{at}\",type=\"{way}\",side=\"{side}\"}}");
        counted(&name, bytes);
    }
}

fn whose_connection_it_is_may_be_said_first() {
    let (origin, other) = (named("named"), named("other"));
    let gateway = Gateway::resources(
        "stream_routes:
           - {id: s, remote_addr: 192.0.2.7, upstream: {nodes: {ORIGIN: 1}}}
           - {id: o, upstream: {nodes: {OTHER: 1}}}",
        &[("ORIGIN", &origin), ("OTHER", &other)],
    )
    .settings("stream_proxy: {tcp: [{address: 127.0.0.1, port: 0, proxy_protocol: true}]}")
    .settings("proxy_protocol: {from: [127.0.0.1]}")
    .start();
    let mut raw = Raw::connect(gateway.stream_address("proxied_tcp"));
    raw.send("PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\nearly");
    expect_bytes(&mut raw, b"namedearly");
    let mut raw = Raw::connect(gateway.stream_address("proxied_tcp"));
    raw.send("PROXY TCP4 192.0.2.8 10.0.0.1 54321 443\r\n");
    expect_bytes(&mut raw, b"other");
    let mut raw = Raw::connect(gateway.stream_address("proxied_tcp"));
    raw.send("no header, and long enough to be none\r\n").expect_closed();
}

fn a_reload_keeps_open_streams_and_takes_new_ones_elsewhere() {
    let (old, new) = (named("old"), named("new"));
    let objects = "stream_routes: [{id: s, upstream: {nodes: {ORIGIN: 1}}}]";
    let gateway = passing(objects, &[("ORIGIN", &old)]).start();
    let mut kept = call(&gateway);
    expect_bytes(&mut kept, b"old");
    gateway.reload_until(objects, &[("ORIGIN", &new)], |gateway| {
        let mut name = Vec::new();
        call(gateway).wire.exactly(3, |piece| name.extend_from_slice(piece)).unwrap();
        name == b"new"
    });
    kept.send("still");
    expect_bytes(&mut kept, b"still");
    gateway.reload_until("stream_routes: []", &[], |gateway| call(gateway).wire.exactly(3, |_| {}).is_err());
    kept.send("there").finish();
    expect_bytes(&mut kept, b"there");
    kept.expect_closed();
}

fn open_streams_have_their_time_when_it_stops() {
    let origin = named("up");
    let mut gateway = to(&origin).start();
    let mut raw = call(&gateway);
    expect_bytes(&mut raw, b"up");
    gateway.signal(Signal::Term);
    eventually("new connections are refused", || {
        std::net::TcpStream::connect(gateway.stream_address("tcp")).err()
    });
    raw.send("and running");
    expect_bytes(&mut raw, b"and running");
    raw.finish();
    raw.expect_closed();
    assert_eq!(gateway.wait_exit().code(), Some(0));

    let mut gateway = to(&origin).settings("limits: {shutdown_timeout: 0.3}").start();
    let mut raw = call(&gateway);
    expect_bytes(&mut raw, b"up");
    gateway.signal(Signal::Term);
    raw.expect_closed();
    gateway.wait_exit();
    assert!(gateway.said().contains("1 connections were cut off"), "{}", gateway.said());
}

fn many_streams_at_once_on_two_cores() {
    let origin = echo();
    let gateway = to(&origin).cores(2).start();
    let mut open: Vec<Raw> = (0..200).map(|_| call(&gateway)).collect();
    for round in 0..3 {
        for (at, raw) in open.iter_mut().enumerate() {
            raw.send(format!("{at} {round}"));
        }
        for (at, raw) in open.iter_mut().enumerate() {
            expect_bytes(raw, format!("{at} {round}").as_bytes());
        }
    }
    drop(open);
    eventually("all are over", || {
        let metrics = gateway.metrics();
        let mut lines = metrics.lines().filter(|line| line.starts_with("ringway_streams_active{"));
        lines.all(|line| line.ends_with(" 0")).then_some(())
    });
}
