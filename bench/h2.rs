//! HTTP/2 with a client: a request heard and its answer said, as a browser's connection has them again and again.

mod kit;

use std::process::ExitCode;
use std::task::{Context, Waker};

use kit::{Case, Scale, Work};
use ringway::base::clock::Moment;
use ringway::proto::h2::conversation::{Begun, Conversation, Listener, Scratch};
use ringway::proto::h2::{H2Limits, PREFACE};

/// Keeps the last stream that began.
#[derive(Default)]
struct Door {
    key: Option<usize>,
}

impl Listener for Door {
    fn nonce(&mut self) -> [u8; 16] {
        [0; 16]
    }

    fn begin(&mut self, begun: Begun) -> bool {
        self.key = Some(begun.key);
        true
    }

    fn note_malformed(&mut self) {
        self.key = None;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field in full, to be remembered.
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

const ANSWER: [(&[u8], &[u8]); 6] = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"128"),
    (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    (b"server", b"ringway"),
    (b"cache-control", b"no-store"),
    (b"x-request-id", b"0123456789abcdef0123456789abcdef"),
];

fn request(_: Scale) -> Work {
    let now = Moment::from_nanos(1);
    let (mut talk, mut door, mut scratch) =
        (Conversation::new(H2Limits::default(), now), Door::default(), Scratch::default());
    let hello = [PREFACE, &frame(4, 0, 0, b""), &frame(4, 1, 0, b"")].concat();
    talk.receive(&hello, now, &mut scratch, &mut door).expect("a beginning");
    let browser = [
        literal("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/145.0"),
        literal("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        literal("accept-language", "en-US,en;q=0.5"),
        literal("accept-encoding", "gzip, deflate, br, zstd"),
    ];
    // What was told once is told by its place from then on.
    let first = [b"\x82\x87\x84", &literal(":authority", "www.example.com")[..], &browser.concat()].concat();
    let again = b"\x82\x87\x84\xc2\xc1\xc0\xbf\xbe";
    let (mut sent, mut stream) = (Vec::new(), 1);
    let mut ask = move |block: &[u8]| {
        let bytes = frame(1, 5, stream, block);
        stream += 2;
        talk.receive(&bytes, now, &mut scratch, &mut door).expect("a request");
        let key = door.key.expect("a stream");
        let answered = talk.tell(key, false, |fields| {
            fields.status(200);
            ANSWER.iter().for_each(|(name, value)| fields.field(name, value));
        });
        let sent_all = talk.send(key, &[b'x'; 128], true);
        talk.forget(key);
        assert!(answered.is_ok() && sent_all.is_ok());
        let cx = Context::from_waker(Waker::noop());
        assert!(talk.poll_outgoing(&cx, &mut sent).is_ready());
        // As a client that takes what it is sent.
        let window = frame(8, 0, 0, &[0, 0, 0, 128]);
        talk.receive(&window, now, &mut scratch, &mut door).expect("a window");
        sent.len() as u64
    };
    let long = ask(&first);
    let short = (0..3).map(|_| ask(again)).last().expect("three");
    assert!(short < long, "{short} bytes, {long} the first time");
    Box::new(move || ask(again))
}

fn main() -> ExitCode {
    kit::run(&[Case { name: "request", iterations: 20_000, make: request }])
}
