//! Clients of HTTP/2 that break its rules, or keep them to do harm: a stream or a connection ends, and nobody else notices.

use crate::kit::http2::{Http2, ask, block, frame, frames, get, hello};
use crate::kit::{Ended, Gateway, Origin, Raw, eventually};

on_both_drivers!(
    what_is_malformed_ends_its_stream_alone,
    what_nobody_needs_often_ends_the_connection,
    a_client_that_gives_up_each_second_call_lives,
    a_client_that_pings_behind_data_lives,
    a_client_that_takes_nothing_of_an_answer_is_let_go,
    headers_beyond_the_limits_are_refused,
    no_frame_is_safe_in_pieces,
    what_is_too_much_at_once_is_refused_unseen,
);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const ENHANCE_YOUR_CALM: u32 = 11;

/// A GET of a.test with further headers.
fn asking(more: &[(&str, &[u8])]) -> Vec<u8> {
    let own: [(&str, &[u8]); 4] =
        [(":method", b"GET"), (":scheme", b"http"), (":path", b"/x"), (":authority", b"a.test")];
    block(&[&own[..], more].concat())
}

/// What the gateway says until it ends the connection, or answers.
fn said(raw: &mut Raw, is_enough: impl Fn(&[(u8, u8, u32, Vec<u8>)]) -> bool) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let frames = frames(&all);
        if is_enough(&frames) {
            return frames;
        }
        match raw.wire.some() {
            Ok(bytes) if !bytes.is_empty() => all.extend_from_slice(&bytes),
            _ => return frames,
        }
    }
}

fn word(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// What is no request, and the frames that say it on stream 1.
fn malformed() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let pseudo = |method: &'static [u8], path: &'static [u8], more: &[(&'static str, &'static [u8])]| {
        let own: [(&str, &[u8]); 4] =
            [(":method", method), (":scheme", b"http"), (":path", path), (":authority", b"a.test")];
        block(&[&own[..], more].concat())
    };
    let with_body: &[(&str, &[u8])] = &[("content-length", b"5")];
    vec![
        ("another host", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("host", b"b.test")]))]),
        ("a length and no body", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(with_body))]),
        (
            "less than the length",
            vec![frame(HEADERS, END_HEADERS, 1, &asking(with_body)), frame(DATA, END_STREAM, 1, b"abc")],
        ),
        (
            "more than the length",
            vec![
                frame(HEADERS, END_HEADERS, 1, &asking(with_body)),
                frame(DATA, END_STREAM, 1, b"abcdefghi"),
            ],
        ),
        (
            "two lengths",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &asking(&[("content-length", b"0"), ("content-length", b"1")]),
            )],
        ),
        (
            "chunks",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("transfer-encoding", b"chunked")]))],
        ),
        (
            "a connection",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("connection", b"close")]))],
        ),
        ("an upgrade", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("upgrade", b"h2c")]))]),
        ("gzip", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("te", b"gzip")]))]),
        ("capitals", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("X-Own", b"v")]))]),
        ("a line end", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("x", b"a\r\nb: c")]))]),
        ("white space around", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("x", b" v")]))]),
        ("no path", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &pseudo(b"GET", b"", &[]))]),
        (
            "a path with a space",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &pseudo(b"GET", b"/a b", &[]))],
        ),
        (
            "a method with a line",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &pseudo(b"GET / HTTP/1.1\r\nx: y", b"/", &[]))],
        ),
        (
            "a pseudo-header behind",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[("x", b"v"), (":path", b"/y")]))],
        ),
        (
            "an unknown pseudo-header",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &pseudo(b"GET", b"/", &[(":own", b"v")]))],
        ),
    ]
}

/// The same in pseudo-headers, and behind a body.
fn malformed_elsewhere() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let head = |what, headers: &[(&str, &[u8])]| {
        (what, vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(headers))])
    };
    let behind = |what, trailers: &[(&str, &[u8])]| {
        let frames = [
            frame(HEADERS, END_HEADERS, 1, &asking(&[])),
            frame(DATA, 0, 1, b"abc"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)),
        ];
        (what, frames.to_vec())
    };
    let at = |what, path: &'static [u8], authority: &'static [u8]| {
        head(what, &[(":method", b"GET"), (":scheme", b"http"), (":path", path), (":authority", authority)])
    };
    let (method, scheme, path): ((&str, &[u8]), (&str, &[u8]), (&str, &[u8])) =
        ((":method", b"GET"), (":scheme", b"http"), (":path", b"/x"));
    let authority: (&str, &[u8]) = (":authority", b"a.test");
    vec![
        at("a user", b"/x", b"me@a.test"),
        at("a user with a password", b"/x", b"me:secret@a.test"),
        at("a port that is none", b"/x", b"a.test:99999"),
        at("two hosts in one", b"/x", b"a.test,b.test"),
        at("no authority in it", b"/x", b""),
        at("a path with a fragment", b"/x#y", b"a.test"),
        at("a path that is none", b"x", b"a.test"),
        at("another form of target", b"http://a.test/x", b"a.test"),
        at("everything but with GET", b"*", b"a.test"),
        head("no method", &[scheme, path, authority]),
        head("no scheme", &[method, path, authority]),
        head("a scheme with a host", &[method, (":scheme", b"http://b.test/"), path, authority]),
        head("no host", &[method, scheme, path]),
        head("two paths", &[method, scheme, path, path, authority]),
        head("a pseudo-header of answers", &[method, scheme, path, authority, (":status", b"200")]),
        head(
            "a protocol that is not spoken",
            &[(":method", b"CONNECT"), (":protocol", b"x"), scheme, path, authority],
        ),
        head("a connection that is kept", &[method, scheme, path, authority, ("keep-alive", b"1")]),
        head("a proxy's connection", &[method, scheme, path, authority, ("proxy-connection", b"x")]),
        behind("a pseudo-header in trailers", &[(":path", b"/y")]),
        behind("capitals in trailers", &[("X-Own", b"v")]),
        behind("a line end in trailers", &[("x", b"a\r\nb: c")]),
        behind("a connection in trailers", &[("connection", b"close")]),
        behind("chunks in trailers", &[("transfer-encoding", b"chunked")]),
    ]
}

fn what_is_malformed_ends_its_stream_alone() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    for (what, said_of_it) in malformed().into_iter().chain(malformed_elsewhere()) {
        let mut raw = Raw::connect(gateway.address());
        raw.send(hello()).send(said_of_it.concat());
        // The same connection still serves.
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &asking(&[])));
        let ends = |frames: &[(u8, u8, u32, Vec<u8>)]| {
            let of = |stream: u32| {
                frames.iter().any(|(kind, flags, id, _)| {
                    *id == stream
                        && (*kind == RST_STREAM || matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0)
                })
            };
            frames.iter().any(|(kind, ..)| *kind == GOAWAY) || of(1) && of(3)
        };
        let frames = said(&mut raw, ends);
        let is_reset = frames.iter().any(|(kind, _, id, _)| *kind == RST_STREAM && *id == 1);
        let is_refused = frames.iter().any(|(kind, _, id, payload)| {
            // A literal 400, by its place in the static table (RFC 7541 A).
            *kind == HEADERS && *id == 1 && payload.first() == Some(&0x8c)
        });
        let is_over = frames.iter().any(|(kind, ..)| *kind == GOAWAY);
        assert!(is_reset || is_refused || is_over, "{what}: {frames:?}");
        if !is_over {
            assert!(frames.iter().any(|(kind, _, id, _)| *kind == DATA && *id == 3), "{what}: {frames:?}");
        }
    }
    assert!(
        origin.seen().iter().all(|seen| seen.target == "/x" && seen.body.len() < 5),
        "{:?}",
        origin.seen()
    );
}

fn what_nobody_needs_often_ends_the_connection() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut bystander = Http2::to(&gateway);
    bystander.get("/").expect(200, "hello");
    let open = frame(HEADERS, END_HEADERS, 1, &asking(&[]));
    let block = asking(&[]);
    let resets: Vec<u8> = (0..400_u32)
        .flat_map(|at| {
            let stream = at * 2 + 1;
            [
                frame(HEADERS, END_HEADERS | END_STREAM, stream, &block),
                frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ]
            .concat()
        })
        .collect();
    let storms: Vec<(&str, Vec<u8>)> = vec![
        ("pings", frame(6, 0, 0, &[0; 8]).repeat(400)),
        ("settings", frame(4, 0, 0, b"").repeat(100)),
        ("priorities", frame(2, 0, 1, &[0, 0, 0, 3, 1]).repeat(400)),
        ("empty_frames", [open, frame(DATA, 0, 1, b"").repeat(400)].concat()),
        (
            "continuations",
            [frame(HEADERS, 0, 1, &block[..4]), frame(9, 0, 1, &block[4..5]).repeat(100)].concat(),
        ),
        ("unknown_frames", frame(200, 0, 0, b"").repeat(2000)),
        ("resets", resets),
    ];
    for (what, storm) in storms {
        let mut raw = Raw::connect(gateway.address());
        raw.send(hello()).send(&storm);
        let (all, ended) = raw.rest();
        assert_ne!(ended, Ended::Open, "{what}");
        let frames = frames(&all);
        if let Some((.., payload)) = frames.iter().find(|(kind, ..)| *kind == GOAWAY) {
            assert_eq!(word(payload, 4), ENHANCE_YOUR_CALM, "{what}: {frames:?}");
        } else {
            assert_eq!(ended, Ended::Reset, "{what}: it was told, if it had read on: {frames:?}");
        }
        let counted = format!("ringway_http2_abuses_total{{kind=\"{what}\"}}");
        eventually(&counted, || gateway.metric(&counted).filter(|count| *count >= 1.0));
    }
    bystander.get("/").expect(200, "hello");
}

/// More of each than a client may reset that does nothing else.
const CALLS: usize = 300;

fn a_client_that_gives_up_each_second_call_lives() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).cores(1).start();
    let mut client = Http2::to(&gateway);
    client.run(async |sender| {
        for _ in 0..CALLS {
            let (answer, mut given_up) =
                sender.clone().ready().await.unwrap().send_request(get("/x"), false).unwrap();
            given_up.send_reset(h2::Reason::CANCEL);
            drop(answer);
            ask(sender.clone(), get("/x"), Vec::new(), None).await.unwrap().expect(200, "hello");
        }
    });
    assert_eq!(gateway.metric("ringway_http2_abuses_total{kind=\"resets\"}").unwrap_or_default(), 0.0);
}

fn a_client_that_pings_behind_data_lives() {
    let origin = Origin::replying(&"x".repeat(6_000_000));
    let gateway = Gateway::routing("/*", [&origin]).cores(1).start();
    let mut raw = Raw::connect(gateway.address());
    // Windows as large as may be, for a stream and for all of them.
    let wide = [&b"\0\x04"[..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    raw.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &wide)].concat());
    raw.send(frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[])));
    let (mut waiting, mut data, mut echoes, mut is_over) = (Vec::new(), 0, 0, false);
    while !is_over || echoes < data {
        let bytes = raw.wire.some().unwrap();
        assert!(!bytes.is_empty(), "it goes on, after {data} frames and {echoes} echoes");
        waiting.extend_from_slice(&bytes);
        let mut whole = 0;
        for (kind, flags, _, payload) in frames(&waiting) {
            whole += 9 + payload.len();
            match kind {
                DATA => {
                    is_over |= flags & END_STREAM != 0;
                    if !payload.is_empty() {
                        data += 1;
                        raw.send(frame(6, 0, 0, &[7; 8]));
                    }
                }
                6 => echoes += 1,
                kind => assert!(!matches!(kind, GOAWAY | RST_STREAM), "{payload:?}"),
            }
        }
        waiting.drain(..whole);
    }
    assert!(data > 300, "{data} frames");
}

fn a_client_that_takes_nothing_of_an_answer_is_let_go() {
    let origin = Origin::replying(&"x".repeat(300_000));
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {write_timeout: 0.5}").start();
    // No window is ever opened, so less than all can be sent.
    let mut raw = Raw::connect(gateway.address());
    raw.send(hello()).send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &asking(&[])));
    let frames = said(&mut raw, |frames| frames.iter().any(|(kind, ..)| *kind == RST_STREAM));
    assert!(frames.iter().any(|(kind, _, id, _)| *kind == RST_STREAM && *id == 1), "{frames:?}");
    let mut bystander = Http2::to(&gateway);
    assert_eq!(bystander.get("/").body.len(), 300_000);
}

fn headers_beyond_the_limits_are_refused() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    let mut many = get("/");
    for at in 0..150 {
        let name: http::HeaderName = format!("x-{at}").parse().unwrap();
        many.headers_mut().insert(name, "v".parse().unwrap());
    }
    let answer = client.ask(many, b"").unwrap();
    assert_eq!(answer.status, 431);
    let mut large = get("/");
    large.headers_mut().insert("x-large", "v".repeat(60_000).parse().unwrap());
    let answer = client.ask(large, b"").map(|answer| answer.status);
    assert!(matches!(answer, Ok(431) | Err(_)), "{answer:?}");
    let mut bystander = Http2::to(&gateway);
    bystander.get("/").expect(200, "hello");
    assert_eq!(origin.requests(), 1);
}

fn no_frame_is_safe_in_pieces() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    let conversation = [
        hello(),
        frame(HEADERS, END_HEADERS, 1, &asking(&[("x-own", b"v")])),
        frame(DATA, 0, 1, b"abc"),
        frame(DATA, END_STREAM, 1, b"de"),
    ]
    .concat();
    for cut in 1..conversation.len() {
        let mut raw = Raw::connect(gateway.address());
        raw.send_each([&conversation[..cut], &conversation[cut..]]);
        let frames = said(&mut raw, |frames| {
            frames.iter().any(|(kind, flags, id, _)| *id == 1 && *kind == DATA && flags & END_STREAM != 0)
        });
        let body: Vec<u8> =
            frames.iter().filter(|frame| frame.0 == DATA).flat_map(|frame| frame.3.clone()).collect();
        assert_eq!(String::from_utf8_lossy(&body), "hello", "cut at {cut}: {frames:?}");
    }
    assert!(origin.seen().iter().all(|seen| seen.body == b"abcde"));
}

fn what_is_too_much_at_once_is_refused_unseen() {
    let origin = Origin::serving(|conn| {
        if conn.request().is_some() {
            conn.wait_for_the_end();
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {connections_max: 3}").start();
    let mut raw = Raw::connect(gateway.address());
    // All in one piece, so that none has had its turn when the next begins.
    let block = asking(&[]);
    let asked = [1, 3, 5, 7, 9].map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
    raw.send([hello(), asked.concat()].concat());
    let refused = |frames: &[(u8, u8, u32, Vec<u8>)]| -> Vec<u32> {
        frames.iter().filter(|(kind, ..)| *kind == RST_STREAM).map(|(_, _, id, _)| *id).collect()
    };
    let frames = said(&mut raw, |frames| refused(frames).len() == 2);
    assert_eq!(refused(&frames), [7, 9], "{frames:?}");
    assert!(frames.iter().filter(|frame| frame.0 == RST_STREAM).all(|frame| word(&frame.3, 0) == 7));
    origin.wait_requests(3);
    assert_eq!(gateway.metric("ringway_http2_streams_active"), Some(3.0));
}
