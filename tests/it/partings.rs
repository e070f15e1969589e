//! The end of WebSockets that we bring about: both sides are told why by a Close frame between two of their frames, and may
//! answer.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::kit::http2::{Http2, asks_websocket};
use super::kit::{
    Caller, Certs, Conn, Ended, Gateway, Origin, PATIENCE, Raw, Signal, Wire, as_node, eventually,
};

on_both_drivers!(
    both_sides_are_told_that_the_gateway_goes_away,
    both_sides_are_told_that_another_takes_its_place,
    no_frame_is_cut_for_it,
    frames_behind_the_answer_and_before_it_count,
    who_ends_by_itself_is_not_told,
    who_does_not_answer_is_cut_off,
    what_is_no_websocket_is_left_alone,
    both_sides_are_told_over_tls,
    both_sides_are_told_over_http_2,
    a_thousand_are_told,
    a_changed_route_ends_those_that_are_to_end_with_it,
    a_route_may_say_how_long_silence_may_last,
);

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const KEY: [u8; 4] = [7, 0, 0xFF, 0x55];
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// A frame that came.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    opcode: u8,
    is_masked: bool,
    content: Vec<u8>,
}

impl Frame {
    fn read(wire: &mut Wire) -> Option<Self> {
        let mut take = |count: u64| {
            let mut bytes = Vec::new();
            wire.exactly(count, |piece| bytes.extend_from_slice(piece)).ok().map(|()| bytes)
        };
        let head = take(2)?;
        let is_masked = head[1] & 0x80 != 0;
        let length = match head[1] & 0x7F {
            126 => take(2)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            127 => take(8)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            short => u64::from(short),
        };
        let key = if is_masked { take(4)? } else { vec![0; 4] };
        let mut content = take(length)?;
        content.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Some(Self { opcode: head[0] & 0x0F, is_masked, content })
    }

    /// The code of a Close frame.
    #[track_caller]
    fn code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        u16::from_be_bytes([self.content[0], self.content[1]])
    }
}

/// A frame as it is sent, masked where a client sends it.
fn frame(opcode: u8, content: &[u8], is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    if content.len() < 126 {
        bytes.push(mask | content.len() as u8);
    } else {
        bytes.push(mask | 127);
        bytes.extend_from_slice(&(content.len() as u64).to_be_bytes());
    }
    let key = if is_masked { KEY } else { [0; 4] };
    if is_masked {
        bytes.extend_from_slice(&key);
    }
    bytes.extend(content.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A node that says `hello` behind its answer, tells what frames it gets, and answers each text and each Close alike.
fn node(hello: Vec<u8>) -> (impl Fn(&mut Conn) + Send + Sync + 'static, Receiver<Frame>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let serve = move |conn: &mut Conn| {
        if conn.request().is_none() || !conn.send(&[AGREE, &hello].concat()) {
            return;
        }
        while let Some(got) = Frame::read(conn.wire()) {
            let answer = frame(got.opcode, &got.content, false);
            let is_last = got.opcode == CLOSE;
            let _ = tell.lock().unwrap().send(got);
            if !conn.send(&answer) || is_last {
                break;
            }
        }
        conn.wait_for_the_end();
    };
    (serve, told)
}

fn websocket(gateway: &Gateway) -> Raw {
    let mut raw = gateway.raw();
    raw.send(ASK).answer().expect_status(101);
    raw
}

#[track_caller]
fn next(raw: &mut Raw) -> Frame {
    Frame::read(&mut raw.wire).expect("a frame")
}

#[track_caller]
fn heard(told: &Receiver<Frame>) -> Frame {
    told.recv_timeout(PATIENCE).expect("a frame")
}

/// Has both sides of an open WebSocket learn this code, and answer it.
#[track_caller]
fn expect_parting(raw: &mut Raw, told: &Receiver<Frame>, code: u16) {
    let last = next(raw);
    assert_eq!((last.code(), last.is_masked), (code, false), "a server does not mask");
    raw.send(frame(CLOSE, &code.to_be_bytes(), true));
    raw.expect_closed();
    let last = heard(told);
    assert_eq!((last.code(), last.is_masked), (code, true), "a client masks");
}

fn parts_by(signal: Signal, code: u16) {
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving(serve);
    let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut raw = websocket(&gateway);
    raw.send(frame(TEXT, b"hello", true));
    assert_eq!(next(&mut raw).content, b"hello");
    assert_eq!(heard(&told).content, b"hello");
    let start = Instant::now();
    gateway.signal(signal);
    expect_parting(&mut raw, &told, code);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(4), "both have answered: {:?}", start.elapsed());
    origin.wait_ended(1);
    assert_eq!(gateway.logged("/ws")["status"], 101);
}

fn both_sides_are_told_that_the_gateway_goes_away() {
    parts_by(Signal::Term, 1001);
    parts_by(Signal::Int, 1001);
}

fn both_sides_are_told_that_another_takes_its_place() {
    parts_by(Signal::Quit, 1012);
}

fn no_frame_is_cut_for_it() {
    for at in [1, 2, 9, 10, 13, 14, 500, 69_999] {
        let (serve, told) = node(Vec::new());
        let origin = Origin::serving(serve);
        let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
        let mut raw = websocket(&gateway);
        let long = frame(TEXT, &vec![b'x'; 70_000], true);
        raw.send([frame(TEXT, b"short", true), long[..at].to_vec()].concat());
        assert_eq!(next(&mut raw).content, b"short");
        gateway.signal(Signal::Term);
        // To this side nothing is under way.
        assert_eq!(next(&mut raw).code(), 1001, "cut at {at}");
        raw.send(&long[at..]);
        assert_eq!(heard(&told).content, b"short");
        let whole = heard(&told);
        assert!(
            whole.content.len() == 70_000 && whole.opcode == TEXT,
            "cut at {at}: {}",
            whole.content.len()
        );
        assert_eq!(heard(&told).code(), 1001);
        // What is said behind our last is said to nobody.
        raw.send([frame(TEXT, b"more", true), frame(CLOSE, &[3, 0xE9], true)].concat());
        raw.expect_closed();
        assert!(told.recv_timeout(Duration::from_millis(1)).is_err());
        assert_eq!(gateway.wait_exit().code(), Some(0));
    }
}

fn frames_behind_the_answer_and_before_it_count() {
    // The rest of it comes never; what else the node says stands where that should.
    let part = frame(TEXT, &[b'x'; 100], false)[..3].to_vec();
    for (hello, is_cut) in [(frame(TEXT, b"hi", false), false), (part.clone(), true)] {
        let (serve, told) = node(hello);
        let origin = Origin::serving(serve);
        let mut gateway = Gateway::routing("/*", [&origin])
            .route("enable_websocket: true")
            .settings("limits: {tunnel_close_timeout: 0.3}")
            .start();
        let mut raw = gateway.raw();
        raw.send([ASK.as_bytes(), &frame(TEXT, b"early", true)].concat()).answer().expect_status(101);
        assert_eq!(heard(&told).content, b"early");
        if !is_cut {
            assert_eq!(next(&mut raw).content, b"hi");
            assert_eq!(next(&mut raw).content, b"early");
        }
        gateway.signal(Signal::Term);
        let last = heard(&told);
        assert_eq!(last.code(), 1001);
        if is_cut {
            let echoes = [frame(TEXT, b"early", false), frame(CLOSE, &last.content, false)].concat();
            let (rest, _) = raw.rest();
            assert_eq!(
                rest.escape_ascii().to_string(),
                [&*part, &*echoes].concat().escape_ascii().to_string()
            );
        } else {
            assert_eq!(next(&mut raw).code(), 1001);
            raw.send(frame(CLOSE, &[3, 0xE9], true));
        }
        assert_eq!(gateway.wait_exit().code(), Some(0));
    }
}

fn who_ends_by_itself_is_not_told() {
    let (go, gone) = channel::<()>();
    let (tell, told) = channel();
    let both = Mutex::new((gone, tell));
    let origin = Origin::serving(move |conn: &mut Conn| {
        if conn.request().is_none() || !conn.send(AGREE) {
            return;
        }
        let Some(last) = Frame::read(conn.wire()) else { return };
        let both = both.lock().unwrap();
        let _ = both.1.send(last);
        let _ = both.0.recv_timeout(PATIENCE);
        conn.send(&frame(CLOSE, &1000_u16.to_be_bytes(), false));
        let mut rest = Vec::new();
        conn.wire().rest(|piece| rest.extend_from_slice(piece));
        assert!(rest.is_empty(), "nothing of the gateway's: {rest:?}");
        let _ = both.1.send(Frame { opcode: 0, is_masked: false, content: rest });
    });
    let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut raw = websocket(&gateway);
    raw.send(frame(CLOSE, &1000_u16.to_be_bytes(), true));
    assert_eq!(heard(&told).code(), 1000);
    gateway.signal(Signal::Term);
    eventually("it drains", || std::net::TcpStream::connect(gateway.address()).err());
    go.send(()).unwrap();
    assert_eq!(next(&mut raw).code(), 1000);
    raw.finish();
    assert_eq!(raw.rest(), (Vec::new(), Ended::Closed), "nothing of the gateway's");
    assert_eq!(heard(&told).content, b"");
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn who_does_not_answer_is_cut_off() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            conn.wait_for_the_end();
        }
    });
    let mut gateway = Gateway::routing("/*", [&origin])
        .route("enable_websocket: true")
        .settings("limits: {tunnel_close_timeout: 0.5, shutdown_timeout: 60}")
        .start();
    let mut raw = websocket(&gateway);
    let start = Instant::now();
    gateway.signal(Signal::Term);
    assert_eq!(next(&mut raw).code(), 1001);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(raw.rest().0.is_empty());
}

fn what_is_no_websocket_is_left_alone() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    });
    let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut raw = websocket(&gateway);
    let says = |raw: &mut Raw, word: &str| {
        let mut got = Vec::new();
        raw.send(word);
        raw.wire.exactly(word.len() as u64, |piece| got.extend_from_slice(piece)).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), word.to_uppercase());
    };
    says(&mut raw, "no frames at all, and of some length");
    gateway.signal(Signal::Term);
    eventually("it drains", || std::net::TcpStream::connect(gateway.address()).err());
    says(&mut raw, "still none");
    raw.finish();
    assert_eq!(raw.rest(), (Vec::new(), Ended::Closed));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn both_sides_are_told_over_tls() {
    let certs = Certs::new();
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "a", "DNS:a.test");
    certs.issued("ca", "node", "IP:127.0.0.1");
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving_over(as_node(&certs, "node", None), serve);
    let mut gateway = Gateway::resources(
        "routes: [{id: w, uri: /*, enable_websocket: true, \
         upstream: {scheme: https, tls: {verify: false}, nodes: {ORIGIN: 1}}}]",
        &[("ORIGIN", &origin)],
    )
    .settings("ssl: {listen: ['127.0.0.1:0']}")
    .objects(&json!({"ssls": [{"id": "a", "snis": ["a.test"], "cert": cert, "key": key}]}).to_string())
    .start();
    let mut raw = Caller::new(&certs, "ca", None).call(gateway.secure_address(), "a.test");
    raw.send(ASK).answer().expect_status(101);
    raw.send(frame(TEXT, b"hello", true));
    assert_eq!(next(&mut raw).content, b"hello");
    assert_eq!(heard(&told).content, b"hello");
    gateway.signal(Signal::Term);
    expect_parting(&mut raw, &told, 1001);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn both_sides_are_told_over_http_2() {
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving(serve);
    let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut client = Http2::to(&gateway);
    client.get("/before-settings-are-known");
    client.run(async |sender| {
        let sender = sender.ready().await.unwrap();
        let request = asks_websocket("/ws");
        let (answer, mut stream) = sender.clone().send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        stream.send_data(Bytes::from(frame(TEXT, b"hello", true)), false).unwrap();
        let mut down = answer.into_body();
        let mut got = Vec::new();
        while got.len() < frame(TEXT, b"hello", false).len() {
            got.extend_from_slice(&down.data().await.unwrap().unwrap());
        }
        assert_eq!(got, frame(TEXT, b"hello", false));
        gateway.signal(Signal::Term);
        let last = down.data().await.unwrap().unwrap();
        assert_eq!((last[0], &last[2..4]), (0x88, &[0x03, 0xE9][..]), "{last:?}");
        stream.send_data(Bytes::from(frame(CLOSE, &[3, 0xE9], true)), false).unwrap();
        while let Some(rest) = down.data().await {
            assert!(rest.unwrap().is_empty(), "nothing behind the last");
        }
    });
    assert_eq!(heard(&told).content, b"hello");
    assert_eq!(heard(&told).code(), 1001);
    drop(client);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

fn a_thousand_are_told() {
    const COUNT: usize = 1000;
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving(serve);
    let mut gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").cores(2).start();
    let mut all: Vec<Raw> = (0..COUNT).map(|_| websocket(&gateway)).collect();
    gateway.signal(Signal::Term);
    for raw in &mut all {
        assert_eq!(next(raw).code(), 1001);
        raw.send(frame(CLOSE, &[3, 0xE9], true));
        raw.expect_closed();
    }
    for _ in 0..COUNT {
        assert_eq!(heard(&told).code(), 1001);
    }
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

const ROUTES: &str = "
services:
  - {id: s, websocket: {on_change: close}}
routes:
  - {id: ends, uri: /ws, enable_websocket: true, websocket: {on_change: close}, desc: DESC, upstream: {nodes: {ORIGIN: 1}}}
  - {id: other, uri: /other, desc: DESC, upstream: {nodes: {ORIGIN: 1}}}
  - {id: stays, uri: /stays, enable_websocket: true, desc: DESC, upstream: {nodes: {ORIGIN: 1}}}
  - {id: service, uri: /service, enable_websocket: true, service_id: s, desc: DESC, upstream: {nodes: {ORIGIN: 1}}}
";

fn a_changed_route_ends_those_that_are_to_end_with_it() {
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving(serve);
    let text = |words: [&str; 4]| {
        let mut parts = ROUTES.split("DESC");
        let mut text = parts.next().unwrap().to_owned();
        for (word, part) in words.iter().zip(parts) {
            text.push_str(word);
            text.push_str(part);
        }
        text
    };
    let gateway = Gateway::resources(&text(["a"; 4]), &[("ORIGIN", &origin)]).start();
    let at = |path: &str| {
        let mut raw = gateway.raw();
        raw.send(ASK.replace("/ws", path)).answer().expect_status(101);
        raw
    };
    let (mut ends, mut stays, mut service) = (at("/ws"), at("/stays"), at("/service"));
    let speaks = |raw: &mut Raw, word: &str| {
        raw.send(frame(TEXT, word.as_bytes(), true));
        assert_eq!(next(raw).content, word.as_bytes());
        assert_eq!(heard(&told).content, word.as_bytes());
    };
    // Another route is none of their business.
    gateway.reload(&text(["a", "b", "a", "a"]), &[("ORIGIN", &origin)]);
    for raw in [&mut ends, &mut stays, &mut service] {
        speaks(raw, "on");
    }
    gateway.reload(&text(["b", "b", "b", "a"]), &[("ORIGIN", &origin)]);
    expect_parting(&mut ends, &told, 1012);
    for raw in [&mut stays, &mut service] {
        speaks(raw, "still");
    }
    // Gone is changed, too.
    let without = text(["b", "b", "b", "a"]).replace("  - {id: service,", "  - {id: another,");
    gateway.reload(&without, &[("ORIGIN", &origin)]);
    expect_parting(&mut service, &told, 1012);
    speaks(&mut stays, "as ever");
}

fn a_route_may_say_how_long_silence_may_last() {
    let (serve, told) = node(Vec::new());
    let origin = Origin::serving(serve);
    let gateway = Gateway::routing("/*", [&origin])
        .route("{enable_websocket: true, websocket: {idle_timeout: 0.3}}")
        .start();
    let mut raw = websocket(&gateway);
    let start = Instant::now();
    assert!(raw.rest().0.is_empty());
    let took = start.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&took), "{took:?}");
    drop(told);
}
