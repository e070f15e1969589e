//! What changes while much goes on: certificates, routes, and at last the process. No request fails, no stream is lost, nothing
//! is left behind.
//!
//! `RINGWAY_TEST_CERTIFICATES=1000` changes a certificate a thousand times.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use serde_json::json;

use super::kit::http2::{Http2, Http2Origin, get, post, send};
use super::kit::{Caller, Certs, Conn, Gateway, Origin, Raw, Setup, Signal, eventually, reply};

on_both_drivers!(
    certificates_change_under_load_and_cost_no_handshake,
    routes_change_under_streams_and_cost_none,
    who_stops_lets_all_kinds_of_streams_end,
);

const CERTIFICATES: usize = 50;
const RELOADS: usize = 20;
/// Streams of gRPC, and WebSockets, that stay through it all.
const TALKS: usize = 10;
/// What the process may grow by in the second half of a test, in which nothing is new to it.
const GROWTH: usize = 4 * 1024 * 1024;

/// Memory and descriptors of a gateway, to compare with.
struct Holdings {
    resident: usize,
    descriptors: usize,
}

impl Holdings {
    fn of(gateway: &Gateway) -> Self {
        Self { resident: gateway.resident(), descriptors: gateway.descriptors() }
    }

    /// Nothing is left behind, but for what rests in the pool of each core.
    #[track_caller]
    fn expect_no_more(&self, gateway: &Gateway, resting: usize) {
        let most = self.descriptors + resting;
        eventually("no descriptor is left behind", || (gateway.descriptors() <= most).then_some(()));
    }

    #[track_caller]
    fn expect_flat(&self, gateway: &Gateway) {
        let grown = gateway.resident().saturating_sub(self.resident);
        eprintln!("{grown} bytes in the second half");
        assert!(grown <= GROWTH, "{grown} bytes in the second half");
    }
}

fn certificates_change_under_load_and_cost_no_handshake() {
    let changes = std::env::var("RINGWAY_TEST_CERTIFICATES").ok().and_then(|count| count.parse().ok());
    let changes: usize = changes.unwrap_or(CERTIFICATES);
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    certs.authority("ca");
    let gateway = Gateway::managed()
        .settings("{ssl: {listen: ['127.0.0.1:0']}, access_log: {enabled: false}, log: {level: warn}}")
        .cores(2)
        .start();
    let admin = gateway.admin();
    admin.put("/routes/1", &json!({"uri": "/*", "upstream": {"nodes": {origin.node(): 1}}}).to_string());
    let names = ["zero", "one", "two", "three"];
    let ssls = names.map(|name| {
        let (cert, key) = certs.issued("ca", name, "DNS:a.test");
        json!({"snis": ["a.test"], "cert": cert, "key": key}).to_string()
    });
    admin.put("/ssls/1", &ssls[0]);
    let caller = Caller::new(&certs, "ca", None);
    let (is_over, handshakes, kept) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let to = gateway.secure_address();
    let asks = |client: &mut super::kit::Client| {
        client.request("GET", "/", &[("host", "a.test")], b"").expect(200, "hello");
    };
    let before = Holdings::of(&gateway);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut lasting = caller.client(to, "a.test");
                while !is_over.load(Ordering::Relaxed) {
                    asks(&mut caller.client(to, "a.test"));
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    asks(&mut lasting);
                    kept.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut halfway = None;
        for turn in 1..=changes {
            let which = turn % names.len();
            admin.put("/ssls/1", &ssls[which]);
            // Somebody new: who comes back by a ticket is not shown any.
            let mut raw = Caller::new(&certs, "ca", None).call(to, "a.test");
            raw.wire.shake().expect("a handshake");
            let shown = raw.wire.tls().peer_certificates().expect("a certificate")[0].to_vec();
            assert!(String::from_utf8_lossy(&shown).contains(names[which]), "turn {turn}");
            if turn == changes / 2 {
                halfway = Some(Holdings::of(&gateway));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        halfway.expect("more than one change").expect_flat(&gateway);
    });
    let (handshakes, kept) = (handshakes.into_inner(), kept.into_inner());
    eprintln!("{changes} changes, {handshakes} handshakes, {kept} requests on connections that stayed");
    assert!(handshakes > changes / 2 && kept > changes / 2, "hardly any load: {handshakes}, {kept}");
    before.expect_no_more(&gateway, origin.connections() - origin.ended());
}

/// A node that sends back each message as it comes, and says at the end that all is well.
fn grpc_node() -> Http2Origin {
    Http2Origin::serving(|request: Request<RecvStream>, mut respond, _| async move {
        let mut body = request.into_body();
        let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        while let Some(data) = take(&mut body).await {
            send(&mut stream, data, false).await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let _ = stream.send_trailers(trailers);
    })
}

async fn take(body: &mut RecvStream) -> Option<Bytes> {
    let data = body.data().await?.ok()?;
    body.flow_control().release_capacity(data.len()).ok()?;
    Some(data)
}

/// A node that shouts back over a WebSocket, and says hello otherwise.
fn plain_node() -> Origin {
    const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    Origin::serving(|conn: &mut Conn| {
        while let Some(seen) = conn.request() {
            if seen.target != "/ws" {
                conn.send(&reply("200 OK", "hello"));
                continue;
            }
            conn.send(AGREE);
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    })
}

/// A stream of gRPC.
struct Call {
    client: Http2,
    up: SendStream<Bytes>,
    down: RecvStream,
}

impl Call {
    fn begin(gateway: &Gateway) -> Self {
        let mut client = Http2::to(gateway);
        let (up, down) = client.run(async |sender| {
            let mut request = post("/grpc/talk");
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let (answer, up) = sender.ready().await.unwrap().send_request(request, false).unwrap();
            (up, answer.await.unwrap().into_body())
        });
        Self { client, up, down }
    }

    #[track_caller]
    fn says(&mut self, word: &str) {
        let Self { client, up, down } = self;
        let heard = client.run(async |_| {
            send(up, Bytes::copy_from_slice(word.as_bytes()), false).await;
            let mut heard = Vec::new();
            while heard.len() < word.len() {
                heard.extend_from_slice(&take(down).await.expect("the stream goes on"));
            }
            heard
        });
        assert_eq!(heard, word.as_bytes());
    }

    /// The last word, and the status.
    #[track_caller]
    fn ends(mut self) {
        let Self { client, up, down } = &mut self;
        let trailers = client.run(async |_| {
            send(up, Bytes::new(), true).await;
            assert!(take(down).await.is_none());
            down.trailers().await.unwrap().expect("a status")
        });
        assert_eq!(trailers["grpc-status"], "0");
    }
}

/// A WebSocket, past the handshake.
fn websocket(gateway: &Gateway) -> Raw {
    let mut raw = gateway.raw();
    raw.send(
        "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    raw.answer().expect_status(101);
    raw
}

#[track_caller]
fn shouts(raw: &mut Raw, word: &str) {
    let mut heard = Vec::new();
    raw.send(word).wire.exactly(word.len() as u64, |piece| heard.extend_from_slice(piece)).expect("an echo");
    assert_eq!(heard, word.to_ascii_uppercase().as_bytes());
}

/// Routes to both nodes; everything about them differs from turn to turn but where they lead.
fn objects(nodes: (&Origin, &Http2Origin), turn: usize) -> String {
    let (plain, grpc) = (nodes.0.node(), nodes.1.address().to_string());
    let plugins = json!({"response-rewrite": {"headers": {"set": {"x-turn": turn.to_string()}}}});
    json!({
        "upstreams": [
            {"id": "plain", "nodes": {plain: 1 + turn}},
            {"id": "grpc", "scheme": "grpc", "nodes": {grpc: 1 + turn}},
        ],
        "routes": [
            {"id": "grpc", "uri": "/grpc/*", "upstream_id": "grpc", "priority": turn},
            {"id": "ws", "uri": "/ws", "upstream_id": "plain", "enable_websocket": true, "priority": turn},
            {"id": "all", "uri": "/*", "upstream_id": "plain", "plugins": plugins},
            {"id": format!("turn-{turn}"), "uri": format!("/turn/{turn}"), "upstream_id": "plain"},
        ],
    })
    .to_string()
}

fn serving(nodes: (&Origin, &Http2Origin)) -> Setup {
    Gateway::resources(&objects(nodes, 0), &[]).settings(
        "{access_log: {enabled: false}, log: {level: warn}, limits: {keepalive_requests: 1000000000}}",
    )
}

fn routes_change_under_streams_and_cost_none() {
    let (plain, grpc) = (plain_node(), grpc_node());
    let nodes = (&plain, &grpc);
    let gateway = serving(nodes).cores(2).start();
    let before = gateway.descriptors();
    let mut calls: Vec<Call> = (0..TALKS).map(|_| Call::begin(&gateway)).collect();
    let mut sockets: Vec<Raw> = (0..TALKS).map(|_| websocket(&gateway)).collect();
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let to = gateway.address();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Http2::connect(to);
            while !is_over.load(Ordering::Relaxed) {
                client.get("/always").expect(200, "hello");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut halfway = None;
        for turn in 1..=RELOADS {
            let path = turn.to_string();
            gateway.reload_until(&objects(nodes, turn), &[], |gateway| {
                gateway.get("/always").header("x-turn") == Some(&path)
            });
            calls.iter_mut().for_each(|call| call.says(&format!("call in turn {turn}")));
            sockets.iter_mut().for_each(|socket| shouts(socket, &format!("socket in turn {turn}")));
            if turn == RELOADS / 2 {
                halfway = Some(Holdings::of(&gateway));
            }
        }
        is_over.store(true, Ordering::Relaxed);
        halfway.expect("more than one turn").expect_flat(&gateway);
    });
    assert!(served.into_inner() > RELOADS, "hardly any load");
    calls.into_iter().for_each(Call::ends);
    drop(sockets);
    eventually("all streams are over", || {
        (gateway.metric("ringway_http2_streams_active") == Some(0.0)).then_some(())
    });
    // Two cores keep connections to nodes, some of HTTP/2.
    let resting = plain.connections() - plain.ended() + grpc.accepted();
    Holdings { resident: 0, descriptors: before }.expect_no_more(&gateway, resting);
}

fn who_stops_lets_all_kinds_of_streams_end() {
    let (plain, grpc) = (plain_node(), grpc_node());
    let mut gateway = serving((&plain, &grpc)).settings("limits: {shutdown_timeout: 20}").cores(2).start();
    let mut calls: Vec<Call> = (0..TALKS).map(|_| Call::begin(&gateway)).collect();
    let mut sockets: Vec<Raw> = (0..TALKS).map(|_| websocket(&gateway)).collect();
    let mut idle = Http2::to(&gateway);
    idle.run(async |sender| {
        let (answer, _) = sender.ready().await.unwrap().send_request(get("/"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
    gateway.signal(Signal::Term);
    idle.ended().expect("who has nothing under way is told to go, in peace");
    // WebSockets are told that it is over.
    for socket in &mut sockets {
        let mut heard = Vec::new();
        socket.wire.exactly(4, |piece| heard.extend_from_slice(piece)).unwrap();
        assert_eq!((heard[0], &heard[2..]), (0x88, &[0x03, 0xE9][..]), "a Close frame: going away");
    }
    // Calls go on as if nothing had been said.
    for turn in 0..5 {
        calls.iter_mut().for_each(|call| call.says(&format!("call in turn {turn}")));
    }
    assert!(gateway.is_running());
    calls.into_iter().for_each(Call::ends);
    drop(sockets);
    assert!(gateway.wait_exit().success());
}
