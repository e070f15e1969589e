//! What connections cost in memory, as the system counts it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::http2::{block, frame, frames, hello};
use super::kit::siege::of;
use super::kit::{Caller, Certs, Client, Gateway, Origin, Raw, within};

on_both_drivers!(
    an_idle_connection_costs_at_most_what_is_promised,
    an_idle_connection_over_tls_costs_at_most_what_is_promised,
    an_idle_websocket_costs_at_most_what_is_promised,
    an_idle_websocket_over_tls_costs_at_most_what_is_promised,
    an_idle_connection_of_http2_costs_at_most_what_is_promised,
    readers_that_stop_cost_a_bounded_amount,
);

/// Connections of the slope; the kernel's own memory for them is not the process's.
const IDLE: usize = 4000;
/// Connections opened at once.
const BATCH: usize = 500;
/// The promise in docs/performance.md, and what is allowed where futures are larger for lack of optimisation; a held
/// buffer would be 16 KiB.
const BYTES_PER_IDLE: usize = 1024;
const BYTES_PER_IDLE_UNOPTIMISED: usize = 4096;

/// The same over TLS.
const BYTES_PER_SECURE: usize = 6 * 1024;
const BYTES_PER_SECURE_UNOPTIMISED: usize = 10 * 1024;

/// WebSockets of the slope, and what each may cost, in clear and over TLS: a connection of a client and one of a node.
const TUNNELS: usize = 2000;
const BYTES_PER_TUNNEL: usize = 6 * 1024;
const BYTES_PER_SECURE_TUNNEL: usize = 10 * 1024;
const BYTES_PER_TUNNEL_UNOPTIMISED: usize = 8 * 1024;
const BYTES_PER_SECURE_TUNNEL_UNOPTIMISED: usize = 12 * 1024;

/// Connections of HTTP/2 of the slope, and what each may cost.
const IDLE_OF_HTTP2: usize = 2000;
const BYTES_PER_HTTP2: usize = 12 * 1024;
const BYTES_PER_HTTP2_UNOPTIMISED: usize = 40 * 1024;

fn an_idle_connection_costs_at_most_what_is_promised() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 300}")
        // What is held is measured, not what the allocator keeps for the next burst.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();

    let promised = of(BYTES_PER_IDLE, BYTES_PER_IDLE_UNOPTIMISED);
    expect_idle_cost(&gateway, (IDLE, promised), || gateway.client(), asks);
}

fn an_idle_connection_over_tls_costs_at_most_what_is_promised() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 300}")
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}]}).to_string())
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();
    let caller = Caller::new(&certs, "ca", None);
    let promised = of(BYTES_PER_SECURE, BYTES_PER_SECURE_UNOPTIMISED);
    expect_idle_cost(&gateway, (IDLE, promised), || caller.client(gateway.secure_address(), "a.test"), asks);
}

fn asks(_: usize, client: &mut Client) {
    client.get("/").expect(200, "hello");
}

/// A node that agrees to WebSockets and then rests, with their connections in the order they came.
struct Resting {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Resting {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, streams) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let kept = Arc::clone(&streams);
        // Ends with the process: it holds a port and nothing else.
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).is_err() {
                        break;
                    }
                    head.push(byte[0]);
                }
                let mut kept = kept.lock().unwrap();
                if stream.write_all(AGREE.as_bytes()).is_ok() {
                    kept.push(stream);
                }
            }
        });
        Self { address, streams }
    }
}

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn an_idle_websocket_costs_at_most_what_is_promised() {
    expect_idle_websockets(of(BYTES_PER_TUNNEL, BYTES_PER_TUNNEL_UNOPTIMISED), |gateway, _| gateway.raw());
}

fn an_idle_websocket_over_tls_costs_at_most_what_is_promised() {
    let promised = of(BYTES_PER_SECURE_TUNNEL, BYTES_PER_SECURE_TUNNEL_UNOPTIMISED);
    expect_idle_websockets(promised, |gateway, caller| caller.call(gateway.secure_address(), "a.test"));
}

#[track_caller]
fn expect_idle_websockets(promised: usize, connect: impl Fn(&Gateway, &Caller) -> Raw) {
    let (node, certs) = (Resting::new(), Certs::new());
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let upstream = json!({"nodes": {node.address.to_string(): 1}});
    let objects = json!({
        "routes": [{"id": "ws", "uri": "/ws", "enable_websocket": true, "upstream": upstream}],
        "ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}],
    });
    let gateway = Gateway::resources(&objects.to_string(), &[])
        .settings("{ssl: {listen: ['127.0.0.1:0']}, access_log: {enabled: false}}")
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();
    let caller = Caller::new(&certs, "ca", None);
    let begin = || {
        let mut raw = connect(&gateway, &caller);
        raw.send(ASK).answer().expect_status(101);
        raw
    };
    // Something each way, so that it has been busy.
    let talks = |at: usize, raw: &mut Raw| {
        raw.send("hello");
        let mut heard = [0; 5];
        let mut stream = node.streams.lock().unwrap()[at].try_clone().unwrap();
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
        raw.wire.exactly(5, |_| {}).expect("an echo");
    };
    expect_idle_cost(&gateway, (TUNNELS, promised), begin, talks);
}

fn an_idle_connection_of_http2_costs_at_most_what_is_promised() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("{limits: {keepalive_timeout: 300}, access_log: {enabled: false}}")
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();
    let begin = || {
        let mut raw = gateway.raw();
        raw.send(hello());
        (raw, 1)
    };
    // One more request each time, on the next stream.
    let asks = |_: usize, (raw, stream): &mut (Raw, u32)| {
        let fields: [(&str, &[u8]); 4] =
            [(":method", b"GET"), (":scheme", b"http"), (":path", b"/"), (":authority", b"a.test")];
        raw.send(frame(1, 5, *stream, &block(&fields)));
        let mut all = Vec::new();
        let is_over = |all: &[u8]| {
            frames(all).iter().any(|(kind, flags, on, _)| *kind == 0 && flags & 1 != 0 && on == stream)
        };
        while !is_over(&all) {
            let bytes = raw.wire.some().expect("an answer");
            assert!(!bytes.is_empty(), "it ended: {:?}", frames(&all));
            all.extend_from_slice(&bytes);
        }
        *stream += 2;
    };
    let promised = of(BYTES_PER_HTTP2, BYTES_PER_HTTP2_UNOPTIMISED);
    expect_idle_cost(&gateway, (IDLE_OF_HTTP2, promised), begin, asks);
}

/// Opens many connections, each of which does something, and looks at what each costs while it rests.
#[track_caller]
fn expect_idle_cost<C>(
    gateway: &Gateway,
    (idle, promised): (usize, usize),
    connect: impl Fn() -> C,
    busy: impl Fn(usize, &mut C),
) {
    // What is paid once (tables, the allocator's first pages) is paid before the slope begins. Connections come in
    // batches: holes that one leaves in the allocator's pages as it comes to rest are filled by the next.
    let mut clients = Vec::new();
    let mut open = || {
        for at in clients.len()..clients.len() + BATCH {
            clients.push(connect());
            busy(at, &mut clients[at]);
        }
    };
    open();
    let before = at_rest(gateway);
    let mut after = before;
    for _ in 0..idle / BATCH {
        open();
        after = at_rest(gateway);
    }
    let each = after.saturating_sub(before) / idle;
    eprintln!("{each} bytes an idle connection");
    assert!(each <= promised, "{each} bytes an idle connection, at most {promised} are promised");
    // And all of them still work.
    for (at, client) in clients.iter_mut().enumerate().step_by(97) {
        busy(at, client);
    }
}

/// Resident bytes once connections have given back what they only need while busy, a second after their last
/// request: as soon as a little more than that went by without a change to speak of.
fn at_rest(gateway: &Gateway) -> usize {
    let (mut last, mut since) = (gateway.resident(), Instant::now());
    within(Duration::from_secs(12), "memory comes to rest", || {
        let now = gateway.resident();
        if now.abs_diff(last) > 64 * 1024 {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(1200)).then_some(now)
    })
}

fn readers_that_stop_cost_a_bounded_amount() {
    const READERS: usize = 100;
    let origin = Origin::with_body_of(50_000_000);
    let gateway = Gateway::routing("/*", [&origin]).start();
    gateway.get("/").expect_status(200);
    let before = gateway.resident();

    let mut readers: Vec<Raw> = (0..READERS).map(|_| gateway.raw()).collect();
    for reader in &mut readers {
        reader.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for reader in &mut readers {
        assert_eq!(reader.try_head().unwrap().status, 200);
    }
    origin.wait_requests(READERS + 1);
    let grown = gateway.resident().saturating_sub(before);
    // Two buffers of 64 KiB each, and some.
    assert!(grown < READERS * 256 * 1024, "{grown} bytes for {READERS} readers that stopped");
    drop(readers);
    gateway.get("/").expect_status(200);
}
