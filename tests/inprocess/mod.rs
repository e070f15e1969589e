//! One core in this process: compiled, started and told to stop as `boot` does it, with this thread in the control
//! thread's place, and an origin that keeps its connections.
//!
//! For tests that look inside the process (allocations) or throw thousands of connections at it (fuzzing); what a
//! client sees is asked of the real binary, in `tests/it`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringway::edge::{self, Start};
use ringway::link::handover::{self, Spoken};
use ringway::link::mailbox::{Mailbox, mailbox};
use ringway::link::outbox::{Inbox, Report, outbox};
use ringway::link::stats::CoreStats;
use ringway::model::Settings;
use ringway::model::resources::{Format, parse};
use ringway::proto::h1::chunked::Decoder;
use ringway::runtime::core::Hatches;
use ringway::runtime::driver::{Driver, Wanted};
use ringway::runtime::listener::{self, Bound, Open};
use ringway::runtime::{Core, Limits, loan};
use ringway::snapshot::{Compiler, Order, at_once};

/// Longest wait for anything before a test is over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running core.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<CoreStats>,
    inbox: Inbox,
    mailbox: Mailbox<Order>,
    thread: Option<JoinHandle<()>>,
}

impl House {
    /// Starts a core with these objects. `begin` runs first on its thread.
    pub(crate) fn open(wanted: Wanted, limits: Limits, objects: &str, begin: fn()) -> Self {
        Self::open_to(Spoken::default(), wanted, limits, objects, begin)
    }

    /// The same for connections on which this is spoken.
    pub(crate) fn open_to(
        spoken: Spoken,
        wanted: Wanted,
        limits: Limits,
        objects: &str,
        begin: fn(),
    ) -> Self {
        let mut compiler = Compiler::new(&Settings::default(), at_once(|_| Err("no names here".to_owned())));
        let objects = parse(objects, Format::Yaml, &|_| None).expect("a file of objects");
        let outcome = compiler.compile(&objects);
        assert_eq!(outcome.faults, []);
        let mut listeners = listener::bind("127.0.0.1:0".parse().expect("an address"), 1).expect("a port");
        let address = listeners[0].local_addr().expect("bound");
        let (outbox, inbox) = outbox();
        let (mailbox, letterbox) = mailbox().expect("a socket pair");
        let stats = Arc::new(CoreStats::default());
        let alone = handover::among(&[Arc::clone(&stats)]).expect("a socket pair").remove(0);
        let hatches = Hatches::alone(outbox, Arc::clone(&stats));
        let (tell, hear) = mpsc::channel();
        let thread = thread::spawn(move || {
            begin();
            let driver = Driver::build(wanted).expect("a loop");
            tell.send(driver.name().to_owned()).expect("the test waits");
            let core = Core::new(0, limits, hatches, 1);
            let (neighbours, handed) = alone;
            let snapshot = outcome.snapshot;
            let listeners = vec![Open { listener: Bound::Tcp(listeners.remove(0)), spoken }];
            let lenders = loan::Neighbour::alone().expect("a socket pair");
            let datagrams = Vec::new();
            let start =
                Start { core, snapshot, listeners, datagrams, letterbox, neighbours, handed, lenders };
            edge::run_core(driver, start).expect("a core runs to its end");
        });
        println!("driver: {}", hear.recv().expect("the core has a loop"));
        Self { address, stats, inbox, mailbox, thread: Some(thread) }
    }

    /// The control thread's part: takes what the core reports, and gives log buffers back. How many log batches
    /// there were; notes are printed.
    pub(crate) fn take_reports(&self) -> usize {
        let mut batches = 0;
        for report in self.inbox.reports.try_iter() {
            match report {
                Report::AccessLog(buffer) => {
                    batches += 1;
                    self.inbox.give_back(buffer);
                }
                Report::Note(level, text) => println!("{level:?}: {text}"),
                Report::Lines { .. } | Report::Series(_) | Report::Retired(_) | Report::Asked(_) => {}
            }
        }
        batches
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the core accepts");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.mailbox.post(Order::Stop);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the core's thread panicked");
            assert_eq!(self.stats.panics.get(), 0, "a connection ended in a panic");
        }
    }
}

/// Sends a request and receives its answer, which says its length, into `buffer`. The answer's status.
pub(crate) fn ask(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> u16 {
    stream.write_all(request).expect("the core reads");
    buffer.clear();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).expect("an answer in time");
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(buffer));
        buffer.extend_from_slice(&piece[..count]);
        if is_whole(buffer) {
            let status = buffer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
            return status.and_then(|digits| digits.parse().ok()).expect("a status");
        }
    }
}

/// Whether a message that says its length, or comes in chunks, is complete.
fn is_whole(message: &[u8]) -> bool {
    let Some(head) = message.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
    let body = &message[head + 4..];
    if text.contains("\r\ntransfer-encoding: chunked") {
        return Decoder::default().decode(&mut body.to_vec()).is_ok_and(|step| step.done);
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// An origin that answers every request with `hello` and keeps the connection. It lives as long as the process.
pub(crate) fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 16 * 1024];
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 {
            return;
        }
        request.extend_from_slice(&piece[..count]);
        if is_whole(&request) {
            request.clear();
            let answer = b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\n\
                           Content-Length: 6\r\n\r\nhello\n";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}
