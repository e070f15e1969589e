//! Every known way to hurt a server by HTTP/2 with what is said, one by one: fifty attack at once, and each is ended within
//! a moment, with the right word, in a counter, for little memory; who asks beside them is served as ever.
//!
//! Ways to hurt it with what is not said are in `http2_stalls.rs`.

use std::time::{Duration, Instant};

use super::kit::http2::{block, frame, frames, hello};
use super::kit::siege::{Siege, origin};
use super::kit::{Ended, Gateway, Raw};

on_both_drivers!(
    who_floods_is_ended,
    who_has_streams_reset_is_ended,
    who_breaks_a_rule_is_ended,
    who_sends_a_frame_of_a_length_that_may_not_be_is_ended,
    who_breaks_the_rules_of_windows_is_ended,
    who_compresses_against_the_rules_is_ended,
    what_is_decoded_is_bounded,
    what_is_allowed_costs_little,
);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const FLOODS: &[u32] = &[ENHANCE_YOUR_CALM];
const ERRORS: &[&str] = &["ringway_http2_errors_total", "ringway_http2_abuses_total"];

/// At once.
const ATTACKERS: usize = 50;
/// Requests of each that may come through to the node.
const REQUESTS_MAX: usize = 201;
/// From the last byte of an attack to the end of its connection.
const MOMENT: Duration = Duration::from_secs(3);

/// One way.
struct Attack {
    what: &'static str,
    says: Vec<u8>,
    /// The codes it may be ended with. None: it is served all the same.
    codes: &'static [u32],
    /// It may be served all the same: what is told of one stream is left to it.
    may_live: bool,
    /// Metrics that count it.
    counted: &'static [&'static str],
    /// A stream that is still free.
    free: u32,
}

impl Attack {
    fn new(what: &'static str, codes: &'static [u32], says: impl Into<Vec<u8>>) -> Self {
        Self { what, says: says.into(), codes, may_live: false, counted: ERRORS, free: 9001 }
    }
}

/// A GET of a path of a.test, ended or with a body to come.
fn asking(stream: u32, path: &str, ends: bool) -> Vec<u8> {
    let method: &[u8] = if ends { b"GET" } else { b"POST" };
    frame(HEADERS, END_HEADERS | u8::from(ends), stream, &request(method, path, &[]))
}

fn request(method: &[u8], path: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let own =
        [(":method", method), (":scheme", b"http"), (":path", path.as_bytes()), (":authority", b"a.test")];
    block(&[&own[..], more].concat())
}

/// Streams of a client, so many.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|at| at * 2 + 1)
}

/// For each of so many streams.
fn each(count: u32, says: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    streams(count).flat_map(says).collect()
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Has so many attack at once, in each way, and tells of all that does not end as it should.
#[track_caller]
fn besiege(attacks: Vec<Attack>, attackers: usize) {
    let origin = origin();
    let mut faults = Vec::new();
    for attack in attacks {
        let gateway = Gateway::routing("/*", [&origin]).settings("access_log: {enabled: false}").start();
        let siege = Siege::begin(&gateway);
        let outcome = attacked(&gateway, &siege, &attack, attackers);
        let outcome = siege.end(attack.what, attackers).and(outcome);
        let asked = origin.seen().iter().filter(|seen| seen.target != "/victim").count();
        origin.forget();
        assert!(asked <= attackers * REQUESTS_MAX, "{}: {asked} requests came through", attack.what);
        faults.extend(outcome.err().map(|fault| format!("{}: {fault}", attack.what)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn attacked(gateway: &Gateway, siege: &Siege<'_>, attack: &Attack, attackers: usize) -> Result<(), String> {
    let mut raws: Vec<Raw> = (0..attackers).map(|_| Raw::connect(gateway.address())).collect();
    for raw in &mut raws {
        raw.send([&hello()[..], &attack.says].concat());
    }
    let said = Instant::now();
    if attack.codes.is_empty() {
        return raws.iter_mut().try_for_each(|raw| served(raw, attack));
    }
    if attack.may_live {
        return raws.iter_mut().try_for_each(|raw| served_or_ended(raw, attack));
    }
    raws.iter_mut().try_for_each(|raw| ended(raw, attack, said))?;
    siege.counted(attack.counted, attackers)?;
    if attack.counted[0].contains("{kind=") {
        gateway.wait_said(&["ended the HTTP/2 connection of 127.0.0.1"]);
    }
    Ok(())
}

/// The connection ends, within a moment, and with a code that fits.
fn ended(raw: &mut Raw, attack: &Attack, said: Instant) -> Result<(), String> {
    let (all, ended) = raw.rest();
    let frames = frames(&all);
    if ended == Ended::Open || said.elapsed() > MOMENT {
        return Err(format!("{ended:?} after {:?}: {frames:?}", said.elapsed()));
    }
    match code(&frames) {
        Some(code) if attack.codes.contains(&code) => Ok(()),
        Some(code) => Err(format!("ended with {code}")),
        // It would have been told, had it read on.
        None if ended == Ended::Reset => Ok(()),
        None => Err(format!("ended without a word: {frames:?}")),
    }
}

/// What the connection was ended with: what comes first may only tell that no more streams are taken.
fn code(frames: &[(u8, u8, u32, Vec<u8>)]) -> Option<u32> {
    let (.., payload) = frames.iter().rfind(|frame| frame.0 == GOAWAY)?;
    Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")))
}

/// The connection goes on.
fn served(raw: &mut Raw, attack: &Attack) -> Result<(), String> {
    match go_on(raw, attack) {
        Ok(()) => Ok(()),
        Err((ended, frames)) => Err(format!("{ended} after {:?}", frames.last())),
    }
}

fn served_or_ended(raw: &mut Raw, attack: &Attack) -> Result<(), String> {
    match go_on(raw, attack) {
        Err((_, frames)) if code(&frames).is_some_and(|code| attack.codes.contains(&code)) => Ok(()),
        Err((ended, _)) if ended.contains("ConnectionReset") => Ok(()),
        Err((ended, frames)) => Err(format!("{ended} after {:?}", frames.last())),
        Ok(()) => Ok(()),
    }
}

/// Asks for something more; what else came, if it did not.
fn go_on(raw: &mut Raw, attack: &Attack) -> Result<(), (String, Vec<(u8, u8, u32, Vec<u8>)>)> {
    raw.send([asking(attack.free, "/x", true), window(attack.free, 1000)].concat());
    let mut all = Vec::new();
    loop {
        let frames = frames(&all);
        let is_answer = |(kind, _, stream, payload): &(u8, u8, u32, Vec<u8>)| {
            *kind == DATA && *stream == attack.free && payload == b"hello"
        };
        if frames.iter().any(is_answer) {
            return Ok(());
        }
        match raw.wire.some() {
            Ok(bytes) if !bytes.is_empty() => all.extend_from_slice(&bytes),
            ended => return Err((format!("{ended:?}"), frames)),
        }
    }
}

fn who_floods_is_ended() {
    let flood = |what, counted: &'static [&'static str], says: Vec<u8>| Attack {
        counted,
        ..Attack::new(what, FLOODS, says)
    };
    let begun = request(b"GET", "/x", &[]);
    let pieces =
        |piece: &[u8]| [frame(HEADERS, 0, 1, &begun), frame(CONTINUATION, 0, 1, piece).repeat(100)].concat();
    let depends = |stream: u32, on: u32| frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[1]].concat());
    let pings: &[&str] = &["ringway_http2_abuses_total{kind=\"pings\"}"];
    let settings: &[&str] = &["ringway_http2_abuses_total{kind=\"settings\"}"];
    let priorities: &[&str] = &["ringway_http2_abuses_total{kind=\"priorities\"}"];
    let empty: &[&str] = &["ringway_http2_abuses_total{kind=\"empty_frames\"}"];
    let continuations: &[&str] = &["ringway_http2_abuses_total{kind=\"continuations\"}"];
    let resets: &[&str] = &["ringway_http2_abuses_total{kind=\"resets\"}"];
    besiege(
        vec![
            flood("pings", pings, frame(PING, 0, 0, &[0; 8]).repeat(5000)),
            flood("answers to no ping", pings, frame(PING, 1, 0, &[0; 8]).repeat(5000)),
            flood("settings", settings, frame(SETTINGS, 0, 0, b"").repeat(5000)),
            flood(
                "settings of many entries",
                settings,
                frame(SETTINGS, 0, 0, &setting(1, 9).repeat(2700)).repeat(40),
            ),
            flood("answers to no settings", ERRORS, frame(SETTINGS, 1, 0, b"").repeat(5000)),
            flood("priorities", priorities, depends(1, 3).repeat(5000)),
            flood(
                "priorities in a ring",
                priorities,
                [depends(1, 3), depends(3, 5), depends(5, 1)].concat().repeat(1000),
            ),
            flood("priorities of many streams", priorities, each(10_000, |stream| depends(stream, 0))),
            flood(
                "empty data",
                empty,
                [asking(1, "/x", false), frame(DATA, 0, 1, b"").repeat(10_000)].concat(),
            ),
            flood("empty headers", ERRORS, each(1000, |stream| frame(HEADERS, END_HEADERS, stream, b""))),
            flood("headers in pieces", continuations, pieces(&begun[..1])),
            flood("headers in empty pieces", continuations, pieces(b"")),
            flood("headers in large pieces", ERRORS, pieces(&block(&[("x", &[b'v'; 16_000])]))),
            flood(
                "unknown frames",
                &["ringway_http2_abuses_total{kind=\"unknown_frames\"}"],
                frame(200, 0, 0, b"").repeat(10_000),
            ),
            flood(
                "resets",
                resets,
                each(1000, |stream| [asking(stream, "/x", true), reset(stream)].concat()),
            ),
            flood(
                "resets of requests with bodies",
                resets,
                each(1000, |stream| [asking(stream, "/x", false), reset(stream)].concat()),
            ),
            flood(
                "resets of what hangs",
                resets,
                each(1000, |stream| [asking(stream, "/hang", true), reset(stream)].concat()),
            ),
        ],
        ATTACKERS,
    );
}

/// The client does what a server answers with a reset, and so has it do the work of a stream and forget it.
fn who_has_streams_reset_is_ended() {
    let codes: &[u32] = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED];
    let after = |then: fn(u32) -> Vec<u8>| {
        each(1000, |stream| [asking(stream, "/hang", false), then(stream)].concat())
    };
    let short = |stream: u32| {
        let headers = request(b"POST", "/x", &[("content-length", b"1")]);
        [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, 0, stream, b"abc")].concat()
    };
    let malformed = |more: &[(&str, &[u8])]| {
        let headers = request(b"GET", "/x", more);
        each(1000, |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers))
    };
    besiege(
        vec![
            Attack::new("windows opened by nothing", codes, after(|stream| window(stream, 0))),
            Attack::new("windows opened too far", codes, after(|stream| window(stream, 0x7fff_ffff))),
            Attack::new(
                "streams that depend on themselves",
                codes,
                after(|stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())),
            ),
            Attack::new(
                "priorities of a wrong length",
                &[FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM],
                after(|stream| frame(PRIORITY, 0, stream, b"four")),
            ),
            Attack::new("more data than was told", codes, each(1000, short)),
            Attack::new(
                "data behind the end",
                codes,
                each(1000, |stream| [asking(stream, "/hang", true), frame(DATA, 0, stream, b"x")].concat()),
            ),
            Attack::new(
                "headers behind the end",
                codes,
                each(1000, |stream| [asking(stream, "/hang", true), asking(stream, "/hang", true)].concat()),
            ),
            Attack::new("headers of connections", codes, malformed(&[("connection", b"close")])),
            Attack::new("capitals", codes, malformed(&[("X", b"v")])),
            Attack::new("headers of no name", codes, malformed(&[("", &b""[..]); 20])),
        ],
        ATTACKERS,
    );
}

fn who_breaks_a_rule_is_ended() {
    let protocol: &[u32] = &[PROTOCOL_ERROR];
    let closed: &[u32] = &[STREAM_CLOSED];
    let begun = request(b"GET", "/x", &[]);
    let promise = [&2_u32.to_be_bytes()[..], &begun].concat();
    let padded = |kind, stream| frame(kind, PADDED | END_HEADERS, stream, b"\xffabc");
    besiege(
        vec![
            Attack::new(
                "a push",
                protocol,
                [asking(1, "/hang", true), frame(PUSH_PROMISE, 4, 1, &promise)].concat(),
            ),
            Attack::new("a piece of no headers", protocol, frame(CONTINUATION, 4, 1, &begun)),
            Attack::new(
                "a ping among headers",
                protocol,
                [frame(HEADERS, 0, 1, &begun), frame(PING, 0, 0, &[0; 8])].concat(),
            ),
            Attack::new(
                "pieces of two streams",
                protocol,
                [frame(HEADERS, 0, 1, &begun), frame(CONTINUATION, 4, 3, b"")].concat(),
            ),
            Attack::new(
                "padding beyond a frame of data",
                protocol,
                [asking(1, "/x", false), padded(DATA, 1)].concat(),
            ),
            Attack::new("padding beyond a frame of headers", protocol, padded(HEADERS, 1)),
            Attack::new("data on no stream", protocol, frame(DATA, 0, 0, b"x")),
            Attack::new("headers on no stream", protocol, frame(HEADERS, END_HEADERS, 0, &begun)),
            Attack::new("a reset of no stream", protocol, reset(0)),
            Attack::new("settings on a stream", protocol, frame(SETTINGS, 0, 1, b"")),
            Attack::new("a ping on a stream", protocol, frame(PING, 0, 1, &[0; 8])),
            Attack::new("an end on a stream", protocol, frame(GOAWAY, 0, 1, &[0; 8])),
            Attack::new("a stream of a server's", protocol, asking(2, "/x", true)),
            Attack::new("data on an idle stream", protocol, frame(DATA, 0, 1, b"x")),
            Attack::new("a reset of an idle stream", protocol, reset(1)),
            Attack::new("a window of an idle stream", protocol, window(1, 1)),
            Attack::new(
                "a stream before others",
                &[PROTOCOL_ERROR, STREAM_CLOSED],
                [asking(5, "/hang", true), asking(3, "/x", true)].concat(),
            ),
            Attack::new(
                "data behind the end of a stream",
                closed,
                [asking(1, "/hang", true), frame(DATA, 0, 1, b"x")].concat(),
            ),
            Attack::new(
                "a push that may be neither allowed nor not",
                protocol,
                frame(SETTINGS, 0, 0, &setting(2, 2)),
            ),
            Attack::new("frames smaller than may be", protocol, frame(SETTINGS, 0, 0, &setting(5, 100))),
        ],
        10,
    );
}

fn who_sends_a_frame_of_a_length_that_may_not_be_is_ended() {
    let size: &[u32] = &[FRAME_SIZE_ERROR];
    besiege(
        vec![
            Attack::new("a short end", size, frame(GOAWAY, 0, 0, b"four")),
            Attack::new("a short ping", size, frame(PING, 0, 0, b"four")),
            Attack::new(
                "a short reset",
                size,
                [asking(1, "/hang", true), frame(RST_STREAM, 0, 1, b"0")].concat(),
            ),
            Attack::new("a short window", size, frame(WINDOW_UPDATE, 0, 0, b"0")),
            Attack::new("settings cut short", size, frame(SETTINGS, 0, 0, b"12345")),
            Attack::new("settings behind an answer to some", size, frame(SETTINGS, 1, 0, &setting(1, 1))),
            Attack::new(
                "a frame too large",
                size,
                [asking(1, "/x", false), frame(DATA, 0, 1, &[0; 16_385])].concat(),
            ),
        ],
        10,
    );
}

fn who_breaks_the_rules_of_windows_is_ended() {
    let flow: &[u32] = &[FLOW_CONTROL_ERROR];
    let beyond = || [asking(1, "/deaf", false), frame(DATA, 0, 1, &[b'x'; 16_384]).repeat(80)].concat();
    besiege(
        vec![
            Attack::new("no window at all", &[PROTOCOL_ERROR], window(0, 0)),
            Attack::new("a window too large", flow, window(0, 0x7fff_ffff)),
            Attack::new(
                "a window too large by settings",
                flow,
                frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000)),
            ),
            Attack::new(
                "a stream's window too large by settings",
                flow,
                [
                    asking(1, "/hang", true),
                    window(1, 0x7fff_0000),
                    frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff)),
                ]
                .concat(),
            ),
            // More than any window that was told of.
            Attack { may_live: true, ..Attack::new("data beyond all windows", flow, beyond()) },
        ],
        10,
    );
}

fn who_compresses_against_the_rules_is_ended() {
    let codes: &[u32] = &[COMPRESSION_ERROR];
    let headers = |bytes: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes);
    besiege(
        vec![
            Attack::new("an index beyond the table", codes, headers(b"\xff\x80\x01")),
            Attack::new("an index of nothing", codes, headers(b"\x80")),
            Attack::new("an endless number", codes, headers(&[&b"\xff"[..], &[0x80; 100]].concat())),
            Attack::new(
                "a table too large",
                codes,
                headers(&[&b"\x3f\xff\xff\x7f"[..], &request(b"GET", "/x", &[])].concat()),
            ),
            Attack::new("a value longer than its block", codes, headers(b"\x00\x01x\x7f\xff\xff\x01v")),
            Attack::new("a code that means the end", codes, headers(b"\x00\x01x\x84\xff\xff\xff\xff")),
        ],
        10,
    );
}

/// Few bytes that mean many, pinned by a client that takes no answer.
fn what_is_decoded_is_bounded() {
    let unread = frame(SETTINGS, 0, 0, &setting(4, 0));
    // Into the table, and out of it again by a byte each.
    let of = |name: &str, value: &[u8], times: usize| {
        let mut entry = block(&[(name, value)]);
        entry[0] = 0x40;
        let headers = [request(b"GET", "/large", &[]), entry, vec![0xbe; times]].concat();
        [unread.clone(), each(20, |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &headers))]
            .concat()
    };
    let bomb = |what, says| Attack { may_live: true, ..Attack::new(what, FLOODS, says) };
    besiege(
        vec![
            bomb("a large value five thousand times", of("x", &[b'v'; 3900], 5000)),
            bomb("a small value five thousand times", of("x", b"", 5000)),
            bomb("cookies in five thousand crumbs", of("cookie", b"a", 5000)),
        ],
        ATTACKERS,
    );
}

/// What looks like harm and may be.
fn what_is_allowed_costs_little() {
    let padded = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    let answered = |then: Vec<u8>| [asking(1, "/x", true), then].concat();
    besiege(
        vec![
            Attack::new(
                "settings of many entries, few times",
                &[],
                frame(SETTINGS, 0, 0, &setting(99, 9).repeat(2700)).repeat(15),
            ),
            Attack::new("windows of a stream that is over", &[], answered(window(1, 1).repeat(1000))),
            Attack::new(
                "a stream given up that goes on",
                &[],
                [asking(1, "/hang", false), reset(1), window(1, 1)].concat(),
            ),
            Attack {
                may_live: true,
                ..Attack::new(
                    "nothing but padding",
                    FLOODS,
                    [asking(1, "/x", false), padded.repeat(200)].concat(),
                )
            },
            Attack::new("windows by and by", &[], window(0, 1).repeat(2000)),
            Attack {
                free: 0x7fff_ffff,
                ..Attack::new("the last stream there is", &[], asking(1, "/x", true))
            },
        ],
        ATTACKERS,
    );
}
