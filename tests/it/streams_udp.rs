//! Datagrams that stream routes pass on: to a node and back to their client, sessions and their end, and what is dropped.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::kit::{Gateway, Origin, Setup, Signal, eventually};

on_both_drivers!(
    datagrams_go_to_a_node_and_back_to_their_client,
    the_session_that_is_silent_for_longest_makes_room,
    who_may_not_come_in_gets_no_answer,
    a_node_that_is_not_there_is_passed_over_by_the_next,
    what_is_too_long_is_dropped,
    a_change_is_for_new_sessions,
    sessions_end_when_it_stops,
    many_clients_at_once_on_two_cores,
);

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends each datagram back to whoever sent it, with its own name and where it came from in front.
struct Echo {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn new(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).unwrap();
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                let mut answer = format!("{name} {} ", from.port()).into_bytes();
                answer.extend_from_slice(&buffer[..count]);
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address, over, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let waking = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = waking.send_to(b"", self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A client.
struct Caller(UdpSocket);

impl Caller {
    fn to(gateway: &Gateway) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gateway.stream_address("udp")).unwrap();
        Self(socket)
    }

    fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    /// Who answered, at which port it was asked from, and what was said.
    #[track_caller]
    fn hear(&self) -> (String, u16, Vec<u8>) {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![0; 65_536];
        let count = self.0.recv(&mut buffer).expect("an answer");
        let mut parts = buffer[..count].splitn(3, |byte| *byte == b' ');
        let mut text = || String::from_utf8(parts.next().unwrap_or_default().to_vec()).unwrap();
        let (name, port) = (text(), text());
        (name, port.parse().unwrap(), parts.next().unwrap_or_default().to_vec())
    }

    #[track_caller]
    fn ask(&self, bytes: &[u8]) -> (String, u16) {
        self.send(bytes);
        let (name, port, said) = self.hear();
        assert!(said == bytes, "{} bytes differ", bytes.len());
        (name, port)
    }
}

fn passing(objects: &str) -> Setup {
    Gateway::resources(objects, &[]).settings("stream_proxy: {udp: ['127.0.0.1:0']}")
}

fn to(echo: &Echo) -> Setup {
    passing(&format!(
        "stream_routes: [{{id: s, upstream: {{nodes: {{'{}': 1}}, scheme: udp}}}}]",
        echo.address
    ))
}

fn datagrams_go_to_a_node_and_back_to_their_client() {
    let echo = Echo::new("one");
    let gateway = to(&echo).settings("stream_proxy: {udp_idle_timeout: 0.5}").start();
    let (first, second) = (Caller::to(&gateway), Caller::to(&gateway));
    let ports = [&first, &second].map(|caller| caller.ask(b"hello").1);
    assert_ne!(ports[0], ports[1], "each client has a socket of its own");
    for at in 0..20 {
        for (caller, port) in [&first, &second].into_iter().zip(ports) {
            assert_eq!(caller.ask(format!("datagram {at}").as_bytes()).1, port);
        }
    }
    assert_eq!(first.ask(&vec![b'x'; 60_000]).1, ports[0]);
    assert_eq!(first.ask(b"").1, ports[0]);
    assert_eq!(gateway.metric("ringway_streams_active{"), Some(2.0));
    // Silence ends a session, and the next datagram begins another.
    let line = gateway.logged("\"protocol\":\"udp\"");
    assert_eq!((line["status"].as_u64(), line["route_id"].as_str()), (Some(200), Some("s")));
    assert_eq!(line["upstream_addr"], echo.address.to_string());
    eventually("both are over", || (gateway.metric("ringway_streams_active{") == Some(0.0)).then_some(()));
    first.ask(b"again");
    assert_eq!(gateway.metric("ringway_streams_total{"), Some(3.0));
    assert_eq!(gateway.metric("ringway_datagrams_dropped_total{"), Some(0.0));
}

fn the_session_that_is_silent_for_longest_makes_room() {
    let echo = Echo::new("one");
    let gateway = to(&echo).settings("stream_proxy: {udp_sessions: 2}").start();
    let callers: Vec<Caller> = (0..3).map(|_| Caller::to(&gateway)).collect();
    let first = callers[0].ask(b"x");
    let second = callers[1].ask(b"x");
    assert_eq!(callers[0].ask(b"y"), first);
    callers[2].ask(b"x");
    assert_eq!(gateway.metric("ringway_udp_evictions_total{"), Some(1.0));
    assert_eq!(callers[0].ask(b"z"), first, "it was used of late");
    // Whose session has ended gets a new one.
    callers[1].send(b"back");
    assert_ne!(callers[1].hear().1, second.1);
    eventually("no more than two", || (gateway.metric("ringway_streams_active{") == Some(2.0)).then_some(()));
}

fn who_may_not_come_in_gets_no_answer() {
    let echo = Echo::new("one");
    let route = format!(
        "{{id: s, plugins: {{ip-restriction: {{blacklist: [127.0.0.1]}}}}, upstream: {{nodes: {{'{}': 1}}}}}}",
        echo.address
    );
    let gateway = passing(&format!("stream_routes: [{route}]")).start();
    let caller = Caller::to(&gateway);
    caller.send(b"let me in");
    let line = gateway.logged("\"protocol\":\"udp\"");
    assert_eq!((line["status"].as_u64(), line["error_code"].as_str()), (Some(403), Some("plugin")));
    assert_eq!(line["bytes_in"], 9);
    caller.0.set_nonblocking(true).unwrap();
    assert!(caller.0.recv(&mut [0; 8]).is_err());
    // A stream of another kind than the upstream's goes nowhere.
    let gateway = passing(&format!(
        "stream_routes: [{{id: s, upstream: {{nodes: {{'{}': 1}}, scheme: tcp}}}}]",
        echo.address
    ))
    .start();
    Caller::to(&gateway).send(b"x");
    assert_eq!(gateway.reason("\"protocol\":\"udp\""), "no_nodes");
}

fn a_node_that_is_not_there_is_passed_over_by_the_next() {
    let echo = Echo::new("up");
    // A port that nobody has any more.
    let down = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nodes = format!(
        "[{{host: 127.0.0.1, port: {}, weight: 1, priority: 9}}, {{host: 127.0.0.1, port: {}, weight: 1}}]",
        down.port(),
        echo.address.port()
    );
    let gateway = passing(&format!(
        "stream_routes: [{{id: s, upstream: {{nodes: {nodes}, checks: {{active: {{type: tcp, unhealthy: {{interval: 3600}}, healthy: {{interval: 3600}}}}, passive: {{type: tcp, unhealthy: {{tcp_failures: 1}}}}}}}}}}]"
    ))
    .start();
    let caller = Caller::to(&gateway);
    // With epoll a refusal is heard with the client's next datagram.
    eventually("the refusal is heard", || {
        caller.send(b"lost");
        gateway.access_log().contains("upstream_connect_failed").then_some(())
    });
    assert_eq!(Caller::to(&gateway).ask(b"found").0, "up");
}

fn what_is_too_long_is_dropped() {
    let echo = Echo::new("one");
    let gateway = to(&echo).settings("stream_proxy: {datagram_bytes: 600}").start();
    let caller = Caller::to(&gateway);
    caller.send(&[7; 601]);
    caller.ask(&[7; 500]);
    assert_eq!(gateway.metric("ringway_datagrams_dropped_total{"), Some(1.0));
    // What the node says is too long with its name before.
    caller.send(&[7; 599]);
    eventually("it is dropped", || {
        (gateway.metric("ringway_datagrams_dropped_total{") == Some(2.0)).then_some(())
    });
    caller.ask(b"and on");
}

fn a_change_is_for_new_sessions() {
    let (old, new) = (Echo::new("old"), Echo::new("new"));
    let objects =
        |echo: &Echo| format!("stream_routes: [{{id: s, upstream: {{nodes: {{'{}': 1}}}}}}]", echo.address);
    let gateway = passing(&objects(&old)).start();
    let kept = Caller::to(&gateway);
    let before = kept.ask(b"x");
    assert_eq!(before.0, "old");
    gateway.reload_until(&objects(&new), &[], |gateway| Caller::to(gateway).ask(b"x").0 == "new");
    assert_eq!(kept.ask(b"y"), before);
}

fn sessions_end_when_it_stops() {
    let echo = Echo::new("one");
    let web = Origin::replying("hello");
    let mut gateway = to(&echo)
        .objects(&format!("routes: [{{id: w, uri: /, upstream: {{nodes: {{'{}': 1}}}}}}]", web.node()))
        .start();
    let caller = Caller::to(&gateway);
    caller.ask(b"x");
    gateway.signal(Signal::Term);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!gateway.said().contains("cut off"), "{}", gateway.said());
    assert_eq!(gateway.logged("\"protocol\":\"udp\"")["status"], 200);
}

fn many_clients_at_once_on_two_cores() {
    let echo = Echo::new("one");
    let gateway = to(&echo).cores(2).start();
    let callers: Vec<Caller> = (0..100).map(|_| Caller::to(&gateway)).collect();
    for round in 0..3 {
        for (at, caller) in callers.iter().enumerate() {
            caller.ask(format!("{at} {round}").as_bytes());
        }
    }
    let metrics = gateway.metrics();
    let active = metrics.lines().filter(|line| line.starts_with("ringway_streams_active{"));
    let counts: Vec<u32> = active.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert_eq!(counts.iter().sum::<u32>(), 100, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "the kernel spreads clients over cores: {counts:?}");
}
