//! Whole connections: damaged streams of requests at a running core. It must survive, let nobody wait, and serve
//! honest clients meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use ringway::base::rng::Rng;
use ringway::runtime::Limits;
use ringway::runtime::driver::Wanted;

use super::Extent;
use super::inprocess::{House, PATIENCE, ask, origin};
use super::mutate::Mutator;

const STREAMS: &[&[u8]] = &[
    b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\nGET /b HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    b"POST /form HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nhello worldGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"PUT /e HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /held HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\napikey: secret\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HEAD http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    b"GET / HTTP/1.0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    // Settings, a stream with a body in two pieces, another that is reset, a ping and an end.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\x01\0\0\
      \0\0\x12\x01\x04\0\0\0\x01\x83\x86\x44\x05/form\x41\x06a.test\x90\0\0\x03\0\0\0\0\0\x01abc\0\0\x02\0\x01\0\0\0\x01de\
      \0\0\x0b\x01\x05\0\0\0\x03\x82\x86\x84\x41\x06a.test\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08\
      \0\0\x08\x06\0\0\0\0\0pingpong\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\0",
    b"\xff",
    b":",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 100000\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"/../",
    b"%2e%2e/",
    b"%00",
    b"ffffffff\r\n",
    b"HTTP/1.0",
    b"X: y\r\n",
    b"/gone",
    b"/own",
    // Of HTTP/2: empty frames, headers that go on, a window, a field.
    b"\0\0\0\0\0\0\0\0\x01",
    b"\0\0\x01\x09\0\0\0\0\x01\x82",
    b"\0\0\x04\x08\0\0\0\0\x01\x7f\xff\xff\xff",
    b"\0\x01x\x01y",
];

/// Connections by default, on so many at once: most of their time is waiting for deadlines.
const CONNECTIONS: u64 = 1500;
const AT_ONCE: usize = 12;
/// An honest client asks after so many.
const CANARY_EVERY: u64 = 25;

pub(crate) fn limits() -> Limits {
    let short = Duration::from_millis(150);
    Limits {
        head_timeout: short,
        body_timeout: short,
        keepalive_timeout: short,
        write_timeout: Duration::from_secs(1),
        drain_body_timeout: short,
        ..Limits::default()
    }
}

pub(crate) fn objects() -> String {
    let node = origin();
    format!(
        r#"
upstreams: [{{id: u, nodes: {{"{node}": 1}}, timeout: {{connect: 2, send: 2, read: 2}}}}]
routes:
  - {{id: any, uri: /*, upstream_id: u, enable_websocket: true, plugins: {{request-id: {{}}, prometheus: {{}}}}}}
  - {{id: held, uri: /held, upstream_id: u, plugins: {{key-auth: {{}}, proxy-rewrite: {{uri: /x}}}}}}
  - {{id: own, uri: /own*, plugins: {{redirect: {{uri: /to, ret_code: 302}}}}}}
consumers: [{{username: jack, plugins: {{key-auth: {{key: secret}}, limit-count: {{count: 100000, time_window: 60}}}}}}]
"#
    )
}

/// Says the mutant in pieces, and listens until the core has closed. What it said.
fn speak(house: &House, bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut stream = house.connect();
    let mut listener = stream.try_clone().expect("a descriptor");
    // Half of the clients say that they are done, the others wait to be shown out.
    let finish = rng.below(4) > 0;
    let pieces = super::cuts(rng, bytes.len());
    let told = thread::scope(|scope| {
        let heard = scope.spawn(move || listen(&mut listener));
        let mut from = 0;
        for cut in pieces {
            // A core that has heard enough closes.
            if stream.write_all(&bytes[from..cut]).is_err() {
                break;
            }
            from = cut;
        }
        if finish {
            let _ = stream.shutdown(Shutdown::Write);
        }
        heard.join().expect("the listener reads within its time")
    });
    drop(stream);
    told
}

pub(crate) fn listen(stream: &mut TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return told,
            Ok(count) => told.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("still open after {PATIENCE:?}; it said b\"{}\"", told.escape_ascii());
            }
            // It closed with bytes of ours unread.
            Err(_) => return told,
        }
    }
}

/// Throws mutants at a core, and asks honestly in between.
pub(crate) fn run(wanted: Wanted, samples: &[&[u8]], words: &[&[u8]]) {
    let house = House::open(wanted, limits(), &objects(), || {});
    let mutator = Mutator { samples, words };
    let seeds = Mutex::new(Extent::of(CONNECTIONS).seeds());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let (mut bytes, mut answer) = (Vec::new(), Vec::new());
                loop {
                    // Its own statement, so that the lock is not held while the case runs.
                    let next = seeds.lock().expect("no panic while it is held").next();
                    let Some(seed) = next else { return };
                    let mut rng = Rng::seeded(seed);
                    mutator.mutate(&mut rng, &mut bytes);
                    let case = || format!("FUZZ_SEED={seed} FUZZ_CASES=1: b\"{}\"", bytes.escape_ascii());
                    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        speak(&house, &bytes, &mut rng)
                    }));
                    let told = told.unwrap_or_else(|panic| {
                        eprintln!("{}", case());
                        std::panic::resume_unwind(panic)
                    });
                    // HTTP/2 begins with settings, to those who began with it.
                    let is_http2 = bytes.starts_with(b"PRI ") && told.get(3) == Some(&4);
                    let sane = told.is_empty() || told.starts_with(b"HTTP/1.1 ") || is_http2;
                    assert!(sane, "{}\nanswered b\"{}\"", case(), told.escape_ascii());
                    if seed % CANARY_EVERY == 0 {
                        let mut canary = house.connect();
                        let request = b"GET /canary HTTP/1.1\r\nHost: a.test\r\n\r\n";
                        assert_eq!(ask(&mut canary, request, &mut answer), 200, "after {}", case());
                    }
                    house.take_reports();
                }
            });
        }
    });
    println!("{} connections, {} requests", house.stats.accepted.get(), house.stats.requests.get());
    // Nobody is left behind.
    let began = std::time::Instant::now();
    while house.stats.connections_active.get() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} connections stay", house.stats.connections_active.get());
        thread::yield_now();
    }
}

/// Whether the kernel, or who knows it, lets us have a ring.
pub(crate) fn has_io_uring() -> bool {
    let wanted = std::env::var("RINGWAY_TEST_DRIVERS").unwrap_or_else(|_| "io_uring,epoll".to_owned());
    wanted.contains("io_uring")
}

#[test]
fn connections_io_uring() {
    if has_io_uring() {
        run(Wanted::IoUring, STREAMS, WORDS);
    }
}

#[test]
fn connections_epoll() {
    run(Wanted::Epoll, STREAMS, WORDS);
}
