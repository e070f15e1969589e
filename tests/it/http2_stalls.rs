//! Clients of HTTP/2 that begin something and leave it there, silently or with just enough to look alive: what they hold is taken
//! from them within its limit. And those that are merely slow, which is theirs to be.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use super::kit::http2::{Http2, block, frame, frames, hello};
use super::kit::siege::{BYTES_PER_ATTACKER, LARGE, Siege, of, origin};
use super::kit::{Ended, Gateway, Raw, eventually};

on_both_drivers!(
    who_says_no_more_is_let_go,
    who_takes_nothing_is_let_go,
    who_only_pings_is_let_go,
    a_node_that_takes_nothing_costs_its_request_alone,
    a_slow_upload_is_taken_for_no_idle_connection,
    padding_is_given_back_to_windows,
    a_client_that_goes_takes_all_with_it,
);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Limits of time, and how much later than they say somebody may be let go: they are looked at once a second.
const LIMITS: &str = "{head_timeout: 0.5, body_timeout: 0.5, write_timeout: 0.5, keepalive_timeout: 0.5}";
const MOMENT: Duration = Duration::from_millis(4500);
/// Between two things that a client says to look alive.
const DRIP: Duration = Duration::from_millis(100);

const ATTACKERS: usize = 30;
/// Streams of each.
const STREAMS: u32 = 10;

/// Bytes that each may cost, with its streams and the answers that wait in them; and what is allowed where futures are larger for
/// lack of optimisation.
const BYTES_MAX: usize = BYTES_PER_ATTACKER;
const BYTES_UNOPTIMISED: usize = BYTES_MAX / 2 * 3;

/// A way to hold on to what one has.
struct Stall {
    what: &'static str,
    says: Vec<u8>,
    /// Said again and again.
    drips: Vec<u8>,
}

fn asking(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &request(method, path))
}

fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"a.test"),
    ])
}

fn each(says: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..STREAMS).flat_map(|at| says(at * 2 + 1)).collect()
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A client's first words, with a window for each stream.
fn hello_with_window(bytes: u32) -> Vec<u8> {
    let setting = [&4_u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &setting)].concat()
}

/// Has so many hold on to what they have, in each way, until each has lost all of its streams, or its connection.
#[track_caller]
fn besiege(stalls: Vec<Stall>, is_let_go: impl Fn(&[u8]) -> bool + Sync) {
    let bytes = of(BYTES_MAX, BYTES_UNOPTIMISED);
    let origin = origin();
    let setup = Gateway::routing("/*", [&origin])
        .settings(&format!("{{limits: {LIMITS}, access_log: {{enabled: false}}}}"));
    // Side by side: most of it is waiting.
    let faults: Vec<String> = thread::scope(|scope| {
        let besieged: Vec<_> = stalls
            .into_iter()
            .map(|stall| {
                let (gateway, is_let_go) = (setup.clone().start(), &is_let_go);
                scope.spawn(move || {
                    let siege = Siege::begin(&gateway);
                    let outcome = held(&gateway, &stall, is_let_go);
                    let outcome = siege.end_within(bytes, stall.what, ATTACKERS).and(outcome);
                    outcome.err().map(|fault| format!("{}: {fault}", stall.what))
                })
            })
            .collect();
        besieged.into_iter().filter_map(|besieged| besieged.join().expect("no panic")).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn held(gateway: &Gateway, stall: &Stall, is_let_go: &impl Fn(&[u8]) -> bool) -> Result<(), String> {
    let mut raws: Vec<(Raw, Vec<u8>)> = Vec::new();
    for _ in 0..ATTACKERS {
        let mut raw = Raw::connect(gateway.address());
        raw.send(&stall.says);
        raw.patience(DRIP / ATTACKERS as u32);
        raws.push((raw, Vec::new()));
    }
    let begun = Instant::now();
    while !raws.is_empty() {
        if begun.elapsed() > MOMENT {
            return Err(format!("{} hold on; one was told {:?}", raws.len(), frames(&raws[0].1).last()));
        }
        raws.retain_mut(|(raw, all)| {
            raw.send(&stall.drips);
            match raw.wire.some() {
                Ok(bytes) if bytes.is_empty() => false,
                Ok(bytes) => {
                    all.extend_from_slice(&bytes);
                    !is_let_go(all)
                }
                Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        });
    }
    eprintln!("{}: let go after {:?}", stall.what, begun.elapsed());
    Ok(())
}

/// Whether all streams are over.
fn is_all_over(all: &[u8]) -> bool {
    let frames = frames(all);
    (0..STREAMS).map(|at| at * 2 + 1).all(|own| {
        frames.iter().any(|(kind, flags, stream, _)| {
            let ends = *kind == RST_STREAM || matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0;
            *stream == own && ends
        })
    })
}

fn who_says_no_more_is_let_go() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let posts = |more: &[u8]| each(|stream| [&asking(stream, "POST", "/x", END_HEADERS)[..], more].concat());
    let stall = |what, says: Vec<u8>| Stall { what, says, drips: Vec::new() };
    besiege(
        vec![
            stall("half of a hello", preface[..12].to_vec()),
            stall("a hello without settings", preface.to_vec()),
            stall("a hello and nothing more", hello()),
            stall("a frame cut short", [&hello()[..], &frame(PING, 0, 0, &[0; 8])[..12]].concat()),
            stall("headers cut short", [&hello()[..], &frame(HEADERS, 0, 1, &request("GET", "/x"))].concat()),
            stall("bodies that do not come", [&hello()[..], &posts(b"")].concat()),
        ],
        is_all_over,
    );
}

fn who_takes_nothing_is_let_go() {
    let large = |window: u32| {
        [hello_with_window(window), each(|stream| asking(stream, "GET", "/large", END_HEADERS | END_STREAM))]
            .concat()
    };
    let stall = |what, says: Vec<u8>, drips: Vec<u8>| Stall { what, says, drips };
    // One by one: each keeps many nodes busy.
    for stall in [
        stall("no window at all", large(0), Vec::new()),
        stall("a window of a byte", large(1), Vec::new()),
        stall("no window, and pings", large(0), frame(PING, 0, 0, &[0; 8])),
        stall("no window but for the connection", large(0), window(0, 1)),
    ] {
        besiege(vec![stall], is_all_over);
    }
}

fn who_only_pings_is_let_go() {
    let served = [&hello()[..], &asking(1, "GET", "/x", END_HEADERS | END_STREAM)].concat();
    let ping = frame(PING, 0, 0, &[0; 8]);
    besiege(
        vec![
            Stall { what: "pings after a request", says: served.clone(), drips: ping.clone() },
            Stall { what: "windows after a request", says: served, drips: window(0, 1) },
            Stall { what: "pings and no request", says: hello(), drips: ping },
        ],
        |_| false,
    );
}

fn a_node_that_takes_nothing_costs_its_request_alone() {
    let origin = origin();
    let gateway =
        Gateway::routing("/*", [&origin]).with("timeout: {connect: 1, send: 0.5, read: 0.5}").start();
    let mut client = Http2::to(&gateway);
    let answer = client.run(async |sender| {
        let post = |path: &str| super::kit::http2::post(path);
        let deaf =
            tokio::spawn(super::kit::http2::ask(sender.clone(), post("/deaf"), vec![b'x'; 20_000_000], None));
        super::kit::http2::ask(sender, post("/x"), vec![b'x'; 300_000], None)
            .await
            .unwrap()
            .expect(200, "hello");
        deaf.await.unwrap()
    });
    let answer = answer.map(|answer| answer.status);
    assert!(matches!(answer, Ok(502 | 504) | Err(_)), "{answer:?}");
    client.get("/x").expect(200, "hello");
}

fn a_slow_upload_is_taken_for_no_idle_connection() {
    let origin = origin();
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {head_timeout: 0.5, body_timeout: 2, write_timeout: 0.5, keepalive_timeout: 0.5}")
        .start();
    let mut raw = Raw::connect(gateway.address());
    raw.patience(DRIP);
    raw.send([&hello()[..], &asking(1, "POST", "/x", END_HEADERS)].concat());
    let (begun, mut all) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(3) {
        raw.send(frame(DATA, 0, 1, b"x"));
        if let Ok(bytes) = raw.wire.some() {
            assert!(!bytes.is_empty(), "it was ended: {:?}", frames(&all));
            all.extend_from_slice(&bytes);
        }
    }
    raw.send(frame(DATA, END_STREAM, 1, b""));
    eventually("it is answered", || {
        all.extend_from_slice(&raw.wire.some().unwrap_or_default());
        frames(&all).iter().any(|frame| frame.0 == DATA && frame.3 == b"hello").then_some(())
    });
}

fn padding_is_given_back_to_windows() {
    const FRAMES: usize = 1500;
    let origin = origin();
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut raw = Raw::connect(gateway.address());
    raw.send([&hello()[..], &asking(1, "POST", "/x", END_HEADERS)].concat());
    // A byte and two hundred and fifty-five of padding: several windows of it.
    let padded = frame(DATA, PADDED, 1, &[&[255, b'x'][..], &[0; 255]].concat());
    let (mut all, mut room, mut sent, mut seen) = (Vec::new(), [65_535_usize; 2], 0, 0);
    while sent < FRAMES {
        while room.iter().all(|room| *room >= 257) && sent < FRAMES {
            raw.send(&padded);
            room = room.map(|room| room - 257);
            sent += 1;
        }
        if sent == FRAMES {
            break;
        }
        let bytes = raw.wire.some().unwrap_or_else(|error| panic!("no window after {sent} frames: {error}"));
        assert!(!bytes.is_empty(), "it ended: {:?}", frames(&all));
        all.extend_from_slice(&bytes);
        let told = frames(&all);
        for (kind, _, stream, payload) in &told[seen..] {
            assert_ne!(*kind, RST_STREAM, "{told:?}");
            if *kind == WINDOW_UPDATE {
                room[usize::from(*stream == 1)] +=
                    u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize;
            }
        }
        seen = told.len();
    }
    raw.send(frame(DATA, END_STREAM, 1, b""));
    eventually("it is answered", || {
        all.extend_from_slice(&raw.wire.some().unwrap_or_default());
        frames(&all).iter().any(|frame| frame.0 == DATA && frame.3 == b"hello").then_some(())
    });
    assert_eq!(origin.only().body.len(), FRAMES);
}

fn a_client_that_goes_takes_all_with_it() {
    const CLIENTS: usize = 20;
    let origin = origin();
    let gateway = Gateway::routing("/*", [&origin]).start();
    let before = gateway.descriptors();
    let mut raws: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect(gateway.address())).collect();
    for raw in &mut raws {
        let streams = each(|stream| match stream % 4 {
            1 => asking(stream, "GET", "/hang", END_HEADERS | END_STREAM),
            _ => asking(stream, "GET", "/large", END_HEADERS | END_STREAM),
        });
        raw.send([hello_with_window(1000), streams].concat());
    }
    origin.wait_requests(CLIENTS * STREAMS as usize);
    for (at, raw) in raws.into_iter().enumerate() {
        if at % 2 == 0 {
            raw.wire.reset();
        }
    }
    for metric in ["ringway_http2_streams_active", "ringway_http2_connections{"] {
        eventually(&format!("{metric} is none"), || (gateway.metric(metric) == Some(0.0)).then_some(()));
    }
    // Those of nodes that were busy are closed, others may rest for the next to come.
    let hang = CLIENTS * STREAMS.div_ceil(2) as usize;
    origin.wait_ended(hang);
    eventually("no descriptor is left behind", || {
        (gateway.descriptors() <= before + origin.connections() - origin.ended()).then_some(())
    });
    let mut client = Http2::to(&gateway);
    assert_eq!(client.get("/large").body.len(), LARGE);
    let mut raw = Raw::connect(gateway.address());
    raw.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_ne!(raw.rest().1, Ended::Open);
}
