//! Lines for servers of syslog: what they say, by which way they go, and what becomes of them where nobody takes them.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::kit::{Certs, Gateway, Origin, PATIENCE, Raw, Refusing, Setup, Signal, as_node, eventually};

on_both_drivers!(
    each_request_is_a_line,
    lines_are_datagrams,
    a_datagram_that_nobody_took_costs_no_other,
    lines_go_over_tls,
    streams_are_lines_too,
    a_server_that_is_away_costs_lines_and_no_request,
    a_batch_is_tried_again,
    what_finds_no_room_is_dropped,
    what_is_left_is_sent_at_the_end,
    a_server_that_closed_gets_the_next_lines_on_a_new_connection,
);

/// A server that keeps what it is sent, a line at a time.
struct Server {
    port: u16,
    lines: Receiver<String>,
}

impl Server {
    fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (keep, lines) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keep = keep.clone();
                std::thread::spawn(move || {
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        let _ = keep.send(line);
                    }
                });
            }
        });
        Self { port, lines }
    }

    fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    #[track_caller]
    fn next(&self) -> Line {
        Line::parse(&self.lines.recv_timeout(PATIENCE).expect("a line"))
    }
}

/// A line, taken apart as RFC 5424 says.
struct Line {
    host: String,
    said: Value,
}

impl Line {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let mut words = line.splitn(8, ' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("too short: {line}")).to_owned();
        assert_eq!(next(), "<46>1", "{line}");
        let time = next();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        let host = next();
        assert_eq!(next(), "apisix");
        assert!(next().parse::<u32>().is_ok(), "{line}");
        assert_eq!([next(), next()], ["-", "-"], "neither a message id nor structured data");
        Self { host, said: serde_json::from_str(&next()).unwrap_or_else(|error| panic!("{error}: {line}")) }
    }
}

/// A gateway whose route has the plugin.
fn telling(origin: &Origin, config: Value) -> Setup {
    let mut whole = json!({"host": "127.0.0.1", "flush_limit": 1});
    for (name, value) in config.as_object().expect("fields") {
        whole[name.as_str()] = value.clone();
    }
    Gateway::routing("/*", [origin]).route(&format!("plugins: {}", json!({ "syslog": whole })))
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    gateway
        .metric(&format!("ringway_log_entries_total{{plugin=\"syslog\",outcome=\"{outcome}\"}}"))
        .expect("it is counted")
}

fn each_request_is_a_line() {
    let (origin, server) = (Origin::naming(), Server::start());
    let gateway = telling(&origin, json!({ "port": server.port })).start();
    gateway.request("GET", "/a?b=1", &[("Host", "a.test"), ("X-Some", "thing")], b"").expect_status(200);
    let line = server.next();
    assert_eq!(line.host, "a.test");
    let said = &line.said;
    assert_eq!(said["request"]["uri"], "/a?b=1");
    assert_eq!(said["request"]["headers"]["x-some"], "thing");
    assert_eq!(said["request"]["querystring"], json!({"b": "1"}));
    assert_eq!(said["response"]["status"], 200);
    assert_eq!(said["upstream"], origin.node());
    assert_eq!((&said["route_id"], &said["client_ip"]), (&json!("1"), &json!("127.0.0.1")));
    for at in 0..20 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    let uris: Vec<Value> = (0..20).map(|_| server.next().said["request"]["uri"].clone()).collect();
    assert_eq!(uris, (0..20).map(|at| json!(format!("/{at}"))).collect::<Vec<_>>());
    eventually("all are counted", || (count(&gateway, "sent") == 21.0).then_some(()));
}

fn lines_are_datagrams() {
    let origin = Origin::naming();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let format = json!({"what": "$request_method $uri"});
    let config = json!({"port": port, "sock_type": "udp", "log_format": format, "flush_limit": 200});
    let gateway = telling(&origin, config).start();
    for at in 0..6 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    let mut buffer = [0; 2048];
    for at in 0..4 {
        let size = socket.recv(&mut buffer).expect("a datagram");
        let line = Line::parse(std::str::from_utf8(&buffer[..size]).unwrap());
        assert_eq!(line.said, json!({"what": format!("GET /{at}"), "route_id": "1"}));
    }
}

fn a_datagram_that_nobody_took_costs_no_other() {
    let origin = Origin::naming();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let config = json!({
        "port": address.port(), "sock_type": "udp", "log_format": {"uri": "$uri"}, "flush_limit": 1,
    });
    let gateway = telling(&origin, config).start();
    drop(nobody);
    gateway.get("/to-nobody").expect_status(200);
    eventually("it is sent, and refused behind that", || (count(&gateway, "sent") == 1.0).then_some(()));
    let server = UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    gateway.get("/to-somebody").expect_status(200);
    let mut buffer = [0; 2048];
    let size = server.recv(&mut buffer).expect("a datagram");
    assert_eq!(Line::parse(std::str::from_utf8(&buffer[..size]).unwrap()).said["uri"], "/to-somebody");
}

fn lines_go_over_tls() {
    let (origin, certs) = (Origin::naming(), Certs::new());
    certs.authority("ca");
    certs.issued("ca", "logs", "DNS:localhost");
    let (keep, lines) = channel();
    let keep = std::sync::Mutex::new(keep);
    let server = Origin::serving_over(as_node(&certs, "logs", None), move |conn| {
        while let Ok(piece) = conn.wire().some() {
            if piece.is_empty() {
                return;
            }
            let _ = keep.lock().unwrap().send(String::from_utf8(piece).unwrap());
        }
    });
    let start = |settings: Value| {
        let config = json!({"host": "localhost", "port": server.address().port(), "tls": true});
        telling(&origin, config).settings(&settings.to_string()).start()
    };
    let gateway = start(json!({"ssl": {"listen": [], "trusted_certificate": certs.path("ca.crt")}}));
    gateway.get("/secret").expect_status(200);
    let line = Line::parse(lines.recv_timeout(PATIENCE).expect("a line").trim_end());
    assert_eq!(line.said["request"]["uri"], "/secret");
    drop(gateway);
    let gateway = start(json!({"ssl": {"listen": []}}));
    gateway.get("/nobody").expect_status(200);
    eventually("nobody vouches for it", || (count(&gateway, "failed") == 1.0).then_some(()));
    assert!(lines.try_recv().is_err());
}

fn streams_are_lines_too() {
    let (node, server) = (super::streams::named("node"), Server::start());
    let plugins = json!({"syslog": {"host": "127.0.0.1", "port": server.port, "flush_limit": 1}});
    let objects = format!("stream_routes: [{{id: s, plugins: {plugins}, upstream: {{nodes: {{NODE: 1}}}}}}]");
    let gateway = super::streams::passing(&objects, &[("NODE", &node)]).start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send("hello");
    super::streams::expect_bytes(&mut raw, b"nodehello");
    drop(raw);
    let line = server.next();
    assert_eq!(line.host, "-");
    assert_eq!(line.said["stream"]["protocol"], "tcp");
    assert_eq!(
        (&line.said["stream"]["bytes_received"], &line.said["stream"]["bytes_sent"]),
        (&json!(5), &json!(9))
    );
    assert_eq!((&line.said["route_id"], &line.said["upstream"]), (&json!("s"), &json!(node.node())));
}

fn a_server_that_is_away_costs_lines_and_no_request() {
    let (origin, refusing) = (Origin::naming(), Refusing::new());
    let port = refusing.address().port();
    let gateway = telling(&origin, json!({ "port": port })).start();
    for at in 0..5 {
        gateway.get(&format!("/{at}")).expect(200, &format!("GET /{at}"));
    }
    eventually("all are lost", || (count(&gateway, "failed") == 5.0).then_some(()));
    gateway.wait_said(&[&format!("syslog: 127.0.0.1:{port} can not be reached: ")]);
    assert_eq!(gateway.said().matches("can not be reached").count(), 1, "it is said once");
    let server = Server::on(refusing.listen());
    gateway.get("/again").expect_status(200);
    assert_eq!(server.next().said["request"]["uri"], "/again");
    gateway.wait_said(&["is reached again"]);
}

fn a_batch_is_tried_again() {
    let (origin, refusing) = (Origin::naming(), Refusing::new());
    let port = refusing.address().port();
    let config = json!({"port": port, "max_retry_count": 100, "retry_delay": 0.05});
    let gateway = telling(&origin, config).start();
    gateway.get("/kept").expect_status(200);
    eventually("the line is on its way", || gateway.access_log().contains("/kept").then_some(()));
    let server = Server::on(refusing.listen());
    assert_eq!(server.next().said["request"]["uri"], "/kept");
    assert_eq!((count(&gateway, "failed"), count(&gateway, "dropped")), (0.0, 0.0));
}

fn what_finds_no_room_is_dropped() {
    let (origin, refusing) = (Origin::naming(), Refusing::new());
    let port = refusing.address().port();
    let config = json!({
        // Each line goes by itself: two together would find no room where one does.
        "port": port, "max_retry_count": 100, "retry_delay": 60, "drop_limit": 1000, "flush_limit": 1,
        "log_format": {"text": "x".repeat(350)},
    });
    let gateway = telling(&origin, config).start();
    for at in 0..10 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    // Two lines of some 450 bytes have room: one that is tried, and one behind it.
    eventually("the rest is dropped", || (count(&gateway, "dropped") == 8.0).then_some(()));
}

fn what_is_left_is_sent_at_the_end() {
    let (origin, server) = (Origin::naming(), Server::start());
    let config = json!({"port": server.port, "flush_limit": 1_000_000, "inactive_timeout": 3600, "buffer_duration": 3600});
    let mut gateway = telling(&origin, config).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
    }
    gateway.signal(Signal::Term);
    assert!(gateway.wait_exit().success());
    for at in 0..3 {
        assert_eq!(server.next().said["request"]["uri"], format!("/{at}"));
    }
}

fn a_server_that_closed_gets_the_next_lines_on_a_new_connection() {
    let origin = Origin::naming();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let gateway = telling(&origin, json!({ "port": port })).start();
    for at in 0..3 {
        gateway.get(&format!("/{at}")).expect_status(200);
        let (stream, _) = eventually("a connection", || listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(Line::parse(line.trim_end()).said["request"]["uri"], format!("/{at}"));
        // Its end is there before the next line is sent.
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    eventually("all are counted", || (count(&gateway, "sent") == 3.0).then_some(()));
}
