//! Tests of conversations: what a client says, what it is told, and how either ends.

use std::task::{Context, Poll, Waker};

use super::{Begun, Conversation, Fault, Gone, Listener, OUTBOX_BYTES_MAX, Scratch};
use crate::base::clock::Moment;
use crate::base::rng::Rng;
use crate::proto::h2::code::Code;
use crate::proto::h2::tally::Abuse;
use crate::proto::h2::{H2Limits, PREFACE};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// GET / of http://a.test.
const GET: &[u8] = b"\x82\x86\x84\x41\x06a.test";
/// POST, the same.
const POST: &[u8] = b"\x83\x86\x84\x41\x06a.test";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

/// Takes streams in, or none.
#[derive(Default)]
struct Door {
    begun: Vec<Begun>,
    is_shut: bool,
    malformed: usize,
}

impl Listener for Door {
    fn nonce(&mut self) -> [u8; 16] {
        [7; 16]
    }

    fn begin(&mut self, begun: Begun) -> bool {
        self.begun.push(begun);
        !self.is_shut
    }

    fn note_malformed(&mut self) {
        self.malformed += 1;
    }
}

/// A conversation and both who are at its ends.
struct Talk {
    conversation: Conversation,
    door: Door,
    scratch: Scratch,
    now: Moment,
}

impl Talk {
    fn with(limits: H2Limits) -> Self {
        let conversation = Conversation::new(limits, at(0));
        Self { conversation, door: Door::default(), scratch: Scratch::default(), now: at(1) }
    }

    /// One that both have begun; what was said until then is taken.
    fn begun() -> Self {
        Self::begun_with(H2Limits::default())
    }

    fn begun_with(limits: H2Limits) -> Self {
        let mut talk = Self::with(limits);
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(SETTINGS, 1, 0, b"")].concat();
        talk.hear(&hello).expect("a beginning");
        talk.said();
        talk
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.conversation.receive(bytes, self.now, &mut self.scratch, &mut self.door)
    }

    fn hear_all(&mut self, frames: &[Vec<u8>]) -> Result<(), Fault> {
        self.hear(&frames.concat())
    }

    fn said_bytes(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        match self.conversation.poll_outgoing(&cx(), &mut said) {
            Poll::Ready(true) => said,
            _ => Vec::new(),
        }
    }

    /// Type, flags, stream and payload of all that waits to be sent.
    fn said(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let bytes = self.said_bytes();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push((head[3], head[4], stream, behind[..length].to_vec()));
            rest = &behind[length..];
        }
        frames
    }

    fn key(&self) -> usize {
        self.door.begun.last().expect("a stream").key
    }

    fn head(&self) -> String {
        String::from_utf8_lossy(&self.door.begun.last().expect("a stream").head).into_owned()
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn reset(stream: u32, code: Code) -> (u8, u8, u32, Vec<u8>) {
    (RST_STREAM, 0, stream, (code as u32).to_be_bytes().to_vec())
}

#[test]
fn a_request_comes_in_and_its_answer_goes_out() {
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 5, 1, GET)).expect("a request");
    assert_eq!(talk.head(), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let key = talk.key();
    assert_eq!(talk.conversation.poll_body(key, &cx(), &mut Vec::new()), Poll::Ready(Ok(false)));
    talk.conversation
        .tell(key, false, |fields| {
            fields.status(200);
            fields.field(b"x", b"y");
        })
        .expect("there");
    assert_eq!(talk.conversation.poll_room(key, &cx()), Poll::Ready(Ok(16_384)));
    talk.conversation.send(key, b"hello", true).expect("there");
    let said = talk.said();
    assert_eq!(said[0], (HEADERS, 4, 1, b"\x88\x00\x01x\x01y".to_vec()));
    assert_eq!(said[1..], [(DATA, 1, 1, b"hello".to_vec())]);
    talk.conversation.forget(key);
    assert_eq!(talk.said(), []);
    assert_eq!(talk.hear(&frame(DATA, 1, 1, b"")), Err(Fault::Breach(Code::StreamClosed)));
}

#[test]
fn what_we_want_is_said_first() {
    let mut talk = Talk::with(H2Limits::default());
    let said = talk.said();
    assert_eq!((said[0].0, said[1].0), (SETTINGS, WINDOW_UPDATE));
    assert!(said[0].3.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 100]), "{said:?}");
    talk.hear(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).expect("a beginning");
    assert_eq!(talk.said(), [(SETTINGS, 1, 0, vec![])]);
}

#[test]
fn who_does_not_begin_as_one_does_is_told_so() {
    for wrong in [&b"GET / HTTP/1.1\r\n"[..], &[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()] {
        let mut talk = Talk::with(H2Limits::default());
        assert_eq!(talk.hear(wrong), Err(Fault::Breach(Code::Protocol)));
    }
}

#[test]
fn what_may_not_be_ends_the_connection_by_its_name() {
    use Code::{Compression, FlowControl, FrameSize, Protocol, StreamClosed};
    let open = frame(HEADERS, 4, 1, POST);
    let ended = frame(HEADERS, 5, 1, GET);
    let window =
        |value: u32| frame(SETTINGS, 0, 0, &[&[0, 3, 0, 0, 0, 9, 0, 4], &value.to_be_bytes()[..]].concat());
    let cases: Vec<(&str, Vec<Vec<u8>>, Code)> = vec![
        ("a priority of four bytes", vec![frame(2, 0, 3, b"1234")], FrameSize),
        ("a reset of five", vec![open.clone(), frame(RST_STREAM, 0, 1, b"12345")], FrameSize),
        ("settings of seven", vec![frame(SETTINGS, 0, 0, b"1234567")], FrameSize),
        ("an answer to settings that says something", vec![frame(SETTINGS, 1, 0, b"123456")], FrameSize),
        ("a ping of seven", vec![frame(PING, 0, 0, b"1234567")], FrameSize),
        ("a window of three", vec![frame(WINDOW_UPDATE, 0, 0, b"123")], FrameSize),
        ("a frame larger than any", vec![vec![0, 0x40, 1, DATA, 0, 0, 0, 0, 1]], FrameSize),
        ("a ping on a stream", vec![frame(PING, 0, 1, &[0; 8])], Protocol),
        ("settings on a stream", vec![frame(SETTINGS, 0, 1, b"")], Protocol),
        ("headers on none", vec![frame(HEADERS, 5, 0, GET)], Protocol),
        ("headers on a stream of ours", vec![frame(HEADERS, 5, 2, GET)], Protocol),
        ("a push", vec![frame(5, 4, 1, b"\0\0\0\x02\x82")], Protocol),
        ("a continuation of nothing", vec![frame(9, 4, 1, GET)], Protocol),
        ("something in a block", vec![frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])], Protocol),
        ("data on a stream that is none yet", vec![frame(DATA, 0, 1, b"x")], Protocol),
        ("a window of a stream that is none yet", vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], Protocol),
        ("a window of nothing", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], Protocol),
        ("more padding than there is", vec![open.clone(), frame(DATA, 8, 1, b"\x05abc")], Protocol),
        ("a stream passed over", vec![frame(HEADERS, 5, 5, GET), frame(HEADERS, 5, 3, GET)], Protocol),
        ("frames of impossible size", vec![frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])], Protocol),
        ("a block of no meaning", vec![frame(HEADERS, 5, 1, b"\x40")], Compression),
        ("a window larger than there is", vec![window(0x8000_0000)], FlowControl),
        ("the connection's window", vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])], FlowControl),
        ("data behind the end", vec![ended.clone(), frame(DATA, 0, 1, b"x")], StreamClosed),
        ("headers behind the end", vec![ended.clone(), ended], StreamClosed),
        (
            "data behind a reset",
            vec![open, frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), frame(DATA, 0, 1, b"x")],
            StreamClosed,
        ),
    ];
    for (what, frames, code) in cases {
        let mut talk = Talk::begun();
        let fault = talk.hear_all(&frames);
        assert_eq!(fault, Err(Fault::Breach(code)), "{what}");
        talk.said();
        talk.conversation.fail(fault.expect_err("checked"));
        let said = talk.said();
        assert_eq!((said[0].0, said[0].3[7]), (GOAWAY, code as u8), "{what}");
        assert_eq!(talk.conversation.poll_outgoing(&cx(), &mut Vec::new()), Poll::Ready(false), "{what}");
    }
    let right = [
        frame(2, 0, 3, b"12345"),
        window(0x7fff_ffff),
        frame(SETTINGS, 1, 0, b""),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(200, 255, 9, b"unknown"),
    ];
    assert_eq!(Talk::begun().hear_all(&right), Ok(()));
}

#[test]
fn what_is_wrong_with_a_stream_ends_it_alone() {
    let length = |digit: &[u8]| [POST, b"\x0f\x0d\x01", digit].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>, Code)> = vec![
        ("capitals", vec![frame(HEADERS, 5, 1, &[GET, b"\x00\x01X\x01v"].concat())], Code::Protocol),
        ("a line end", vec![frame(HEADERS, 5, 1, &[GET, b"\x00\x01x\x03a\r\n"].concat())], Code::Protocol),
        (
            "a colon in a name",
            vec![frame(HEADERS, 5, 1, &[GET, b"\x00\x03a:b\x01v"].concat())],
            Code::Protocol,
        ),
        ("no method", vec![frame(HEADERS, 5, 1, &GET[1..])], Code::Protocol),
        ("two methods", vec![frame(HEADERS, 5, 1, &[b"\x82", GET].concat())], Code::Protocol),
        ("no host", vec![frame(HEADERS, 5, 1, &GET[..3])], Code::Protocol),
        ("another's path", vec![frame(HEADERS, 5, 1, b"\x82\x86\x04\x08http://b\x41\x01a")], Code::Protocol),
        ("a status", vec![frame(HEADERS, 5, 1, &[b"\x88", GET].concat())], Code::Protocol),
        (
            "a connection",
            vec![frame(HEADERS, 5, 1, &[GET, b"\x00\x0aconnection\x01x"].concat())],
            Code::Protocol,
        ),
        (
            "itself to depend on",
            vec![frame(HEADERS, 0x25, 1, &[b"\0\0\0\x01\x10", GET].concat())],
            Code::Protocol,
        ),
        ("a length and no body", vec![frame(HEADERS, 5, 1, &length(b"3"))], Code::Protocol),
        (
            "less than its length",
            vec![frame(HEADERS, 4, 1, &length(b"3")), frame(DATA, 1, 1, b"ab")],
            Code::Protocol,
        ),
        (
            "more than its length",
            vec![frame(HEADERS, 4, 1, &length(b"3")), frame(DATA, 0, 1, b"abcd")],
            Code::Protocol,
        ),
        (
            "trailers without an end",
            vec![frame(HEADERS, 4, 1, POST), frame(HEADERS, 4, 1, b"")],
            Code::Protocol,
        ),
        (
            "a pseudo-header in trailers",
            vec![frame(HEADERS, 4, 1, POST), frame(HEADERS, 5, 1, b"\x82")],
            Code::Protocol,
        ),
        (
            "a capital in trailers",
            vec![frame(HEADERS, 4, 1, POST), frame(HEADERS, 5, 1, b"\x00\x01Y\x01v")],
            Code::Protocol,
        ),
        (
            "a window of nothing",
            vec![frame(HEADERS, 4, 1, POST), frame(WINDOW_UPDATE, 0, 1, &[0; 4])],
            Code::Protocol,
        ),
        (
            "a window larger than there is",
            vec![frame(HEADERS, 4, 1, POST), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])],
            Code::FlowControl,
        ),
    ];
    for (what, frames, code) in cases {
        let mut talk = Talk::begun();
        assert_eq!(talk.hear_all(&frames), Ok(()), "{what}");
        assert_eq!(talk.said(), [reset(1, code)], "{what}");
        talk.hear(&frame(HEADERS, 5, 3, GET)).expect("the next one");
        assert_eq!(talk.head(), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "{what}");
    }
}

#[test]
fn a_stream_we_have_reset_may_be_spoken_on_until_the_client_knows() {
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 4, 1, POST)).expect("a request");
    let key = talk.key();
    talk.conversation.reset(key, Code::Cancel);
    // A name that is remembered, in a block that nobody needs.
    let more = [frame(DATA, 0, 1, b"x"), frame(HEADERS, 5, 1, b"\x40\x01x\x01y")];
    talk.hear_all(&more[..1]).expect("ignored");
    talk.conversation.forget(key);
    talk.hear_all(&more).expect("ignored");
    talk.hear(&frame(HEADERS, 5, 3, &[GET, b"\xbf"].concat())).expect("the next one");
    assert!(talk.head().contains("\r\nx: y\r\n"), "{}", talk.head());
}

#[test]
fn bodies_and_trailers_come_as_http_1_has_them() {
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 4, 1, &[POST, b"\x60\x03a=1\x60\x03b=2"].concat())).expect("a request");
    assert_eq!(
        talk.head(),
        "POST / HTTP/1.1\r\nHost: a.test\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let key = talk.key();
    let mut body = Vec::new();
    assert!(talk.conversation.poll_body(key, &cx(), &mut body).is_pending());
    let trailers = frame(HEADERS, 5, 1, b"\x00\x02x-\x01t");
    talk.hear_all(&[frame(DATA, 0, 1, b"abc"), frame(DATA, 8, 1, b"\x02de\0\0"), trailers]).expect("a body");
    assert_eq!(talk.conversation.poll_body(key, &cx(), &mut body), Poll::Ready(Ok(true)));
    assert_eq!(body, b"abcde");
    assert_eq!(talk.conversation.poll_body(key, &cx(), &mut Vec::new()), Poll::Ready(Ok(false)));
    assert_eq!(talk.conversation.trailers_of(key).as_deref(), Some(&b"x-: t\r\n"[..]));
}

#[test]
fn a_websocket_is_asked_for_as_http_1_does() {
    let mut talk = Talk::begun();
    let block = b"\x02\x07CONNECT\x87\x84\x41\x06a.test\x00\x09:protocol\x09websocket";
    talk.hear(&frame(HEADERS, 4, 1, block)).expect("a request");
    let head = talk.head();
    assert!(
        head.starts_with("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
    assert!(talk.door.begun[0].told.websocket);
    for wrong in [
        &b"\x02\x07CONNECT\x87\x84\x41\x06a.test\x00\x09:protocol\x04chat"[..],
        &[GET, b"\x00\x09:protocol\x09websocket"].concat(),
    ] {
        let mut talk = Talk::begun();
        talk.hear(&frame(HEADERS, 4, 1, wrong)).expect("a request");
        assert_eq!((talk.said(), talk.door.malformed), (vec![reset(1, Code::Protocol)], 1));
    }
}

#[test]
fn windows_bound_what_is_kept_and_open_as_it_is_used() {
    let limits = H2Limits { stream_window: 100_000, connection_window: 150_000, ..H2Limits::default() };
    let mut talk = Talk::begun_with(limits);
    talk.hear(&frame(HEADERS, 4, 1, POST)).expect("a request");
    let key = talk.key();
    for _ in 0..10 {
        talk.hear(&frame(DATA, 0, 1, &[b'x'; 10_000])).expect("as much as may be");
    }
    assert_eq!(talk.said(), [], "nothing was used yet");
    talk.conversation.release(key, 40_000);
    assert_eq!(talk.said(), []);
    talk.conversation.release(key, 10_000);
    assert_eq!(talk.said(), [(WINDOW_UPDATE, 0, 1, 50_000_u32.to_be_bytes().to_vec())]);
    // Beyond the stream's window, the stream ends; what it held is given back to the connection.
    for _ in 0..5 {
        talk.hear(&frame(DATA, 0, 1, &[b'x'; 10_000])).expect("as much as may be");
    }
    talk.hear(&frame(DATA, 0, 1, b"x")).expect_err("and the connection's is spent");
    let mut talk = Talk::begun_with(H2Limits { stream_window: 70_000, ..limits });
    talk.hear(&frame(HEADERS, 4, 1, POST)).expect("a request");
    for _ in 0..8 {
        talk.hear(&frame(DATA, 0, 1, &[b'x'; 10_000])).expect("the connection has room");
    }
    assert_eq!(talk.said(), [reset(1, Code::FlowControl)]);
    talk.conversation.forget(talk.key());
    assert_eq!(talk.said(), [(WINDOW_UPDATE, 0, 0, 80_000_u32.to_be_bytes().to_vec())]);
}

#[test]
fn a_client_that_takes_nothing_is_sent_no_more_than_its_windows() {
    let mut talk = Talk::begun();
    talk.hear_all(&[frame(HEADERS, 5, 1, GET), frame(HEADERS, 5, 3, GET)]).expect("requests");
    let (first, second) = (talk.door.begun[0].key, talk.door.begun[1].key);
    let mut sent = 0;
    while let Poll::Ready(Ok(room)) = talk.conversation.poll_room(first, &cx()) {
        talk.conversation.send(first, &vec![b'x'; room], false).expect("there");
        sent += room;
        talk.said();
    }
    assert_eq!(sent, 65_535);
    assert!(talk.conversation.poll_room(second, &cx()).is_pending(), "nor is another, of the connection's");
    talk.hear(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9])).expect("more");
    assert!(talk.conversation.poll_room(first, &cx()).is_pending(), "its own is spent");
    assert_eq!(talk.conversation.poll_room(second, &cx()), Poll::Ready(Ok(9)));
    talk.hear(&frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 4])).expect("windows for all");
    assert_eq!(talk.conversation.poll_room(first, &cx()), Poll::Ready(Ok(5)));
}

#[test]
fn streams_send_in_turn() {
    let mut talk = Talk::begun();
    talk.hear_all(&[
        frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255]),
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 0, 0]),
    ])
    .expect("wide windows");
    talk.hear_all(&(0..6).map(|at| frame(HEADERS, 5, at * 2 + 1, GET)).collect::<Vec<_>>())
        .expect("requests");
    let keys: Vec<usize> = talk.door.begun.iter().map(|begun| begun.key).collect();
    let mut sent = vec![0; keys.len()];
    // All want to send without end; who waits is woken first that had nothing.
    for _ in 0..30 {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|at| sent[*at]);
        for at in order {
            while let Poll::Ready(Ok(room)) = talk.conversation.poll_room(keys[at], &cx()) {
                talk.conversation.send(keys[at], &vec![b'x'; room], false).expect("there");
                sent[at] += room;
            }
        }
        assert!(talk.said_bytes().len() <= OUTBOX_BYTES_MAX + 16_384 + 9 * 8);
    }
    let (least, most) = (sent.iter().min().expect("some"), sent.iter().max().expect("some"));
    assert!(most - least <= 65_536 * 2, "{sent:?}");
}

#[test]
fn nothing_more_is_heard_while_much_waits_to_be_sent() {
    let mut talk = Talk::begun();
    assert!(talk.conversation.poll_hearing(&cx()).is_ready());
    talk.hear(&frame(HEADERS, 5, 1, GET)).expect("a request");
    let key = talk.key();
    talk.conversation.tell(key, false, |fields| fields.field(b"x", &[b'v'; 80_000])).expect("there");
    assert!(talk.conversation.poll_hearing(&cx()).is_pending());
    assert!(talk.conversation.poll_space(key, &cx()).is_pending());
    let said = talk.said();
    // In pieces, the last of which says so.
    assert_eq!((said[0].0, said[0].1), (HEADERS, 0));
    assert!(said[1..].iter().all(|(kind, ..)| *kind == 9) && said.last().is_some_and(|last| last.1 == 4));
    assert!(talk.conversation.poll_hearing(&cx()).is_ready());
    assert!(talk.conversation.poll_space(key, &cx()).is_ready());
}

#[test]
fn too_many_streams_are_refused() {
    let mut talk = Talk::begun_with(H2Limits { streams_max: 2, ..H2Limits::default() });
    talk.hear_all(&[1, 3, 5].map(|stream| frame(HEADERS, 5, stream, GET))).expect("requests");
    assert_eq!(talk.said(), [reset(5, Code::RefusedStream)]);
    talk.hear(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).expect("given up");
    let first = talk.door.begun[0].key;
    assert_eq!(talk.conversation.poll_gone(first, &cx()), Poll::Ready(Gone));
    talk.door.is_shut = true;
    talk.hear(&frame(HEADERS, 5, 7, GET)).expect("a request");
    assert_eq!(talk.said(), [reset(7, Code::RefusedStream)], "as nobody takes it in");
    let mut talk = Talk::begun_with(H2Limits { header_bytes_max: 200, ..H2Limits::default() });
    talk.hear(&frame(HEADERS, 5, 1, &[GET, b"\x00\x01x\x64", &[b'v'; 100]].concat())).expect("a large one");
    assert_eq!(talk.said(), [(HEADERS, 5, 1, b"\x08\x03431".to_vec())]);
    let flood = frame(9, 0, 3, &[0; 16_384]);
    let flooded = talk.hear_all(&[frame(HEADERS, 0, 3, GET), flood.clone(), flood]);
    assert_eq!(flooded, Err(Fault::Breach(Code::EnhanceYourCalm)));
}

#[test]
fn whoever_keeps_its_windows_closed_has_few_streams() {
    let mut talk = Talk::begun();
    let window = |bytes: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat());
    talk.hear(&window(511)).expect("a setting");
    talk.said();
    let asking: Vec<_> = (0..9).map(|at| frame(HEADERS, 5, 2 * at + 1, GET)).collect();
    talk.hear_all(&asking).expect("requests");
    assert_eq!((talk.door.begun.len(), talk.said()), (8, vec![reset(17, Code::RefusedStream)]));
    talk.hear(&window(512)).expect("a setting");
    talk.said();
    talk.hear(&frame(HEADERS, 5, 19, GET)).expect("one more");
    assert_eq!((talk.door.begun.len(), talk.said()), (9, vec![]));
}

#[test]
fn a_client_is_told_to_go_and_loses_nothing() {
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 5, 1, GET)).expect("a request");
    talk.conversation.leave();
    let said = talk.said();
    assert_eq!((said[0].0, &said[0].3[..4]), (GOAWAY, &[0x7f, 255, 255, 255][..]));
    assert_eq!(said[1].0, PING);
    talk.hear(&frame(HEADERS, 5, 3, GET)).expect("it did not know yet");
    assert_eq!(talk.door.begun.len(), 2);
    talk.hear(&frame(PING, 1, 0, &said[1].3)).expect("it does now");
    assert_eq!(talk.said()[0].3, [0, 0, 0, 3, 0, 0, 0, 0]);
    talk.hear_all(&[frame(HEADERS, 4, 5, POST), frame(DATA, 1, 5, b"x")])
        .expect("it is told, and may not know");
    assert_eq!((talk.door.begun.len(), talk.said()), (2, vec![]), "nobody looks at this");
    for at in 0..2 {
        let key = talk.door.begun[at].key;
        assert!(
            talk.conversation.poll_outgoing(&cx(), &mut Vec::new()).is_pending(),
            "streams are under way"
        );
        talk.conversation.tell(key, true, |fields| fields.status(204)).expect("there");
        talk.said();
        talk.conversation.forget(key);
    }
    assert_eq!(talk.conversation.poll_outgoing(&cx(), &mut Vec::new()), Poll::Ready(false));
    talk.hear(&frame(PING, 0, 0, &[0; 8]).repeat(1000)).expect("nobody listens any more");
    assert_eq!(talk.said(), []);
}

#[test]
fn a_client_that_goes_is_heard_until_it_is_gone() {
    let mut talk = Talk::begun();
    talk.hear_all(&[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 255]), frame(PING, 0, 0, &[5; 8])])
        .expect("a way");
    assert_eq!(talk.said(), [(PING, 1, 0, vec![5; 8])]);
}

#[test]
fn an_answer_that_is_given_up_is_reset() {
    let mut talk = Talk::begun();
    talk.hear_all(&[frame(HEADERS, 5, 1, GET), frame(HEADERS, 4, 3, POST)]).expect("requests");
    let (first, second) = (talk.door.begun[0].key, talk.door.begun[1].key);
    talk.conversation.forget(first);
    assert_eq!(talk.said(), [reset(1, Code::Internal)]);
    // One that is whole, to a request that is not.
    talk.conversation.tell(second, true, |fields| fields.status(200)).expect("there");
    talk.conversation.forget(second);
    assert_eq!(talk.said()[1..], [reset(3, Code::None)]);
    talk.hear(&frame(DATA, 1, 3, b"late")).expect("ignored");
}

#[test]
fn what_nobody_needs_may_come_so_often_and_no_more() {
    let hundred: Vec<(Vec<u8>, Abuse, usize)> = vec![
        (frame(PING, 0, 0, &[0; 8]), Abuse::Pings, 100),
        (frame(2, 0, 1, &[0, 0, 0, 3, 1]), Abuse::Priorities, 100),
        (frame(SETTINGS, 0, 0, b""), Abuse::Settings, 18),
        (frame(200, 0, 0, b""), Abuse::UnknownFrames, 1000),
    ];
    for (frame, abuse, most) in hundred {
        let mut talk = Talk::begun();
        talk.hear(&frame.repeat(most)).expect("as many as may be");
        talk.now = at(10_001);
        talk.hear(&frame.repeat(most)).expect("another while");
        let more = talk.hear(&frame.repeat(3));
        assert_eq!(more, Err(Fault::Abuse(abuse)));
    }
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 4, 1, POST)).expect("a request");
    talk.hear(&frame(DATA, 0, 1, b"x").repeat(1000)).expect("a byte each");
    assert_eq!(talk.hear(&frame(DATA, 0, 1, b"").repeat(101)), Err(Fault::Abuse(Abuse::EmptyFrames)));
    let mut talk = Talk::begun();
    let pieces = [frame(HEADERS, 0, 1, GET), frame(9, 0, 1, b"").repeat(11)];
    assert_eq!(talk.hear_all(&pieces), Err(Fault::Abuse(Abuse::Continuations)));
}

#[test]
fn what_a_client_is_sent_allows_more_of_what_follows_it() {
    let mut talk = Talk::begun();
    talk.hear(&frame(HEADERS, 5, 1, GET)).expect("a request");
    let key = talk.key();
    for _ in 0..3 {
        talk.conversation.send(key, b"x", false).expect("there");
    }
    talk.hear(&frame(PING, 0, 0, &[0; 8]).repeat(103)).expect("allowed");
    assert_eq!(talk.hear(&frame(PING, 0, 0, &[0; 8])), Err(Fault::Abuse(Abuse::Pings)));
}

#[test]
fn streams_given_up_unseen_or_reset_for_what_a_client_does_are_few() {
    let mut talk = Talk::begun();
    let given_up = |from: u32, count: u32| -> Vec<Vec<u8>> {
        let one =
            |at: u32| [frame(HEADERS, 5, at * 2 + 1, GET), frame(RST_STREAM, 0, at * 2 + 1, &[0, 0, 0, 8])];
        (from..from + count).flat_map(one).collect()
    };
    talk.hear_all(&given_up(0, 50)).expect("as many as may be");
    assert_eq!(talk.hear_all(&given_up(50, 51)), Err(Fault::Abuse(Abuse::Resets)));
    let mut talk = Talk::begun();
    let malformed = |at: u32| frame(HEADERS, 5, at * 2 + 1, &GET[1..]);
    talk.hear_all(&(0..200).map(malformed).collect::<Vec<_>>()).expect("as many as may be");
    assert_eq!(talk.hear(&malformed(200)), Err(Fault::Abuse(Abuse::Resets)));
    assert_eq!(talk.door.malformed, 201);
}

/// A conversation with a bit of everything.
fn everything() -> Vec<u8> {
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 1, 0, 0, 4, 0, 0, 255, 0]),
        frame(SETTINGS, 1, 0, b""),
        frame(HEADERS, 0x2c, 1, &[b"\x03\0\0\0\0\x10", POST, b"\x40\x01x\x01y\0\0\0"].concat()),
        frame(DATA, 8, 1, b"\x03abc\0\0\0"),
        frame(PING, 0, 0, b"12345678"),
        frame(DATA, 0, 1, b""),
        frame(HEADERS, 0x01, 3, &GET[..4]),
        frame(9, 0x04, 3, &[&GET[4..], b"\xbf"].concat()),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]),
        frame(DATA, 1, 1, b"de"),
        frame(200, 1, 0, b"unknown"),
        frame(GOAWAY, 0, 0, &[0; 12]),
    ]
    .concat()
}

/// What comes of bytes that are cut at these places: heads, bodies, what was said, and the fault.
fn outcome(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> (Vec<Vec<u8>>, Vec<u8>, Result<(), Fault>) {
    let mut talk = Talk::with(H2Limits::default());
    let (mut from, mut heard) = (0, Ok(()));
    for cut in cuts.chain([bytes.len()]) {
        heard = talk.hear(&bytes[from..cut]);
        from = cut;
        if heard.is_err() {
            break;
        }
    }
    let mut texts: Vec<Vec<u8>> = talk.door.begun.iter().map(|begun| begun.head.clone()).collect();
    let keys: Vec<usize> = talk.door.begun.iter().map(|begun| begun.key).collect();
    for key in keys {
        let mut body = Vec::new();
        let _ = talk.conversation.poll_body(key, &cx(), &mut body);
        texts.push(body);
    }
    (texts, talk.said_bytes(), heard)
}

#[test]
fn a_conversation_is_the_same_however_it_is_cut() {
    let bytes = everything();
    let whole = outcome(&bytes, [].into_iter());
    assert_eq!(whole.2, Ok(()));
    assert_eq!((whole.0.len(), &whole.0[2][..]), (4, &b"abcde"[..]));
    for cut in 1..bytes.len() {
        assert_eq!(outcome(&bytes, [cut].into_iter()), whole, "cut at {cut}");
    }
    assert_eq!(outcome(&bytes, 1..bytes.len()), whole, "byte by byte");
}

#[test]
fn damaged_conversations_end_the_same_however_they_are_cut() {
    let valid = everything();
    for seed in 0..3000 {
        let mut rng = Rng::seeded(seed);
        let mut bytes = valid.clone();
        for _ in 0..=rng.below(4) {
            let at = PREFACE.len() + rng.below((valid.len() - PREFACE.len()) as u64) as usize;
            bytes[at] = rng.below(256) as u8;
        }
        let whole = outcome(&bytes, [].into_iter());
        let mut cuts: Vec<usize> = (0..3).map(|_| rng.below(bytes.len() as u64) as usize).collect();
        cuts.sort_unstable();
        // What begins together with what ends it is not served, so that only what is said tells.
        let (_, said, heard) = outcome(&bytes, cuts.into_iter());
        assert_eq!((said, heard), (whole.1, whole.2), "seed {seed}");
    }
}
