//! Stopping: in good order while there is time, at once when told twice, and with an honest exit code.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::kit::http2::{block, frame, frames};
use super::kit::{Conn, Ended, Gateway, Origin, Signal, eventually, reply};

on_both_drivers!(
    what_is_in_flight_is_finished,
    idle_connections_are_closed,
    a_slow_client_of_http2_gets_all_of_its_answer,
    a_change_on_the_way_out_is_refused_and_not_kept,
    nobody_new_is_let_in,
    a_second_signal_ends_it_at_once,
    the_deadline_ends_what_does_not,
    an_idle_gateway_stops_at_once,
    readiness_says_so_first,
    a_start_that_can_not_succeed_says_why,
);

/// Answers each request when it is let.
fn held() -> (Origin, Sender<()>) {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::answering(move |seen| {
        let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(20));
        reply("200 OK", &seen.target)
    });
    (origin, go)
}

fn what_is_in_flight_is_finished() {
    let (origin, go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).start();

    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.signal(Signal::Term);
    eventually("new connections are refused", || std::net::TcpStream::connect(gateway.address()).err());
    assert!(gateway.is_running(), "a request is in flight");
    go.send(()).unwrap();
    let answer = client.raw.answer();
    answer.expect(200, "/slow");
    assert!(!answer.open, "the last answer says that it is the last");
    client.raw.expect_closed();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert_eq!(gateway.logged("/slow")["status"], 200, "nothing of the log is lost");
}

fn idle_connections_are_closed() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::routing("/*", [&origin]).start();

    let mut clients: Vec<_> = (0..10).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.get("/").expect(200, "hello");
    }
    gateway.signal(Signal::Term);
    for client in &mut clients {
        client.raw.expect_closed();
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_slow_client_of_http2_gets_all_of_its_answer() {
    const BYTES: usize = 16 * 1024 * 1024;
    const WINDOW: u32 = (1 << 31) - 1;
    let body = "x".repeat(BYTES);
    let origin = Origin::answering(move |_| reply("200 OK", &body));
    let mut gateway = Gateway::routing("/*", [&origin]).start();

    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let settings = frame(4, 0, 0, &[&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat());
    let window = frame(8, 0, 0, &(WINDOW - 65_535).to_be_bytes());
    let head =
        block(&[(":method", b"GET"), (":scheme", b"http"), (":path", b"/"), (":authority", b"a.test")]);
    let asked =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &window, &frame(1, 5, 1, &head)].concat();
    stream.write_all(&asked).unwrap();

    let (mut all, mut piece) = (Vec::new(), vec![0; 32 * 1024]);
    loop {
        let count = stream.read(&mut piece).expect("bytes or the end");
        if count == 0 {
            break;
        }
        if all.is_empty() {
            gateway.signal(Signal::Term);
        }
        all.extend_from_slice(&piece[..count]);
        // This is what makes the client slow: it takes longer than idle connections have.
        std::thread::sleep(Duration::from_millis(4));
    }
    let data: Vec<_> =
        frames(&all).into_iter().filter(|(kind, _, stream, _)| (*kind, *stream) == (0, 1)).collect();
    assert_eq!(data.iter().map(|(.., bytes)| bytes.len()).sum::<usize>(), BYTES);
    assert!(data.last().is_some_and(|(_, flags, ..)| flags & 1 == 1), "the last says that it is the last");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_change_on_the_way_out_is_refused_and_not_kept() {
    let (origin, go) = held();
    let mut gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let route = serde_json::json!({"uri": "/*", "upstream": {"nodes": {origin.node(): 1}}});
    admin.put("/routes/1", &route.to_string());
    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.signal(Signal::Quit);
    eventually("new connections are refused", || TcpStream::connect(gateway.address()).err());
    admin.ask("PUT", "/routes/2", &[], r#"{"uri":"/2","plugins":{}}"#).expect_status(503);
    admin.ask("GET", "/routes/2", &[], "").expect_status(404);
    go.send(()).unwrap();
    client.raw.answer().expect(200, "/slow");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn nobody_new_is_let_in() {
    let (origin, go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).cores(2).start();

    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.signal(Signal::Term);
    let refused =
        eventually("connections are refused", || std::net::TcpStream::connect(gateway.address()).err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    go.send(()).unwrap();
    client.raw.answer().expect(200, "/slow");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_second_signal_ends_it_at_once() {
    let (origin, _go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).settings("limits: {shutdown_timeout: 60}").start();

    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.signal(Signal::Term);
    eventually("it begins to stop", || std::net::TcpStream::connect(gateway.address()).err());
    let start = Instant::now();
    gateway.signal(Signal::Int);
    let status = gateway.wait_exit();
    assert_ne!(status.code(), Some(0), "requests were cut");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_ne!(client.raw.rest().1, Ended::Open);
}

fn the_deadline_ends_what_does_not() {
    let (origin, _go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).settings("limits: {shutdown_timeout: 0.5}").start();

    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    let start = Instant::now();
    gateway.signal(Signal::Term);
    let status = gateway.wait_exit();
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert_eq!(status.code(), Some(0));
}

fn an_idle_gateway_stops_at_once() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::routing("/*", [&origin]).start();

    let start = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

fn readiness_says_so_first() {
    let (origin, go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).settings("limits: {pre_stop_delay: 1}").start();

    gateway.status("/readyz").expect_status(200);
    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.signal(Signal::Term);
    eventually("readiness is withdrawn", || (gateway.status("/readyz").status == 503).then_some(()));
    gateway.status("/livez").expect_status(200);
    go.send(()).unwrap();
    client.raw.answer().expect(200, "/slow");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_start_that_can_not_succeed_says_why() {
    let origin = Origin::serving(|_: &mut Conn| {});
    let setup = || Gateway::routing("/*", [&origin]);

    let (code, said) = setup().settings("limits: {head_bites: 1}").start_and_fail();
    assert_ne!(code, 0);
    assert!(said.contains("limits: ") && said.contains("head_bites"), "{said}");
    assert!(said.contains("head_bytes"), "names the nearest: {said}");

    let (code, said) = setup().settings("{limits: {headers: none}, cores: -1}").start_and_fail();
    assert_ne!(code, 0);
    assert!(said.contains("limits.headers") && said.contains("cores"), "all faults at once: {said}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = std::net::TcpListener::bind(taken).unwrap();
    // Settings are laid over the defaults, and lists one after the other: the first is still a free one.
    let (code, said) = setup().settings(&format!("listen: ['{taken}']")).start_and_fail();
    assert_ne!(code, 0);
    assert!(said.contains(&taken.to_string()), "{said}");
    drop(listener);
}
