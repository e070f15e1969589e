//! The nodes: for each one that is dialled, a real socket on loopback, behind which a thread answers as the test says
//! and writes down what came.
//!
//! Doors stay open from one case to the next; what is said and seen there is the case's own.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::caller::{self, Message};
use super::form::{Answer, Failure, OneOrMore};
use super::house::pass;
use super::wish::Text;
use crate::base::address::Address;
use crate::link::stats::CoreStats;

/// How long a silent node is waited for before the test gives up on it: on the clock of the test.
const SILENCE_MAX: Duration = Duration::from_secs(4 * 3600);

/// A request as a node got it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) node: Address,
    pub(super) message: Message,
}

/// What a node says, one after the other.
#[derive(Debug)]
struct Script {
    answers: Vec<Answer>,
    next: usize,
}

impl Script {
    fn of(answers: &OneOrMore<Answer>) -> Self {
        Self { answers: answers.all().to_vec(), next: 0 }
    }

    fn peek(&self) -> Answer {
        self.answers.get(self.next.min(self.answers.len().saturating_sub(1))).cloned().unwrap_or_default()
    }

    fn take(&mut self) -> Answer {
        let answer = self.peek();
        self.next += 1;
        answer
    }
}

#[derive(Default)]
struct State {
    doors: BTreeMap<Address, SocketAddr>,
    scripts: BTreeMap<Address, Script>,
    others: Option<Script>,
    seen: Vec<Seen>,
    tried: Vec<Address>,
    open: Vec<TcpStream>,
    stats: Arc<CoreStats>,
    /// Which case it is: what an earlier one left behind is nobody's.
    case: u64,
}

impl State {
    fn script(&mut self, node: Address) -> Option<&mut Script> {
        match self.scripts.get_mut(&node) {
            None => self.others.as_mut(),
            own => own,
        }
    }

    /// Whether the next connection is refused.
    fn refuses(&mut self, node: Address) -> bool {
        self.script(node).is_some_and(|script| script.peek().fails == Some(Failure::Refused))
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Town(Mutex<State>);

impl Town {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a case: this is what nodes say, and what all others do.
    pub(super) fn begin<'a>(
        &self,
        nodes: impl Iterator<Item = (Address, &'a OneOrMore<Answer>)>,
        others: Option<&OneOrMore<Answer>>,
    ) {
        let mut state = self.state();
        state.case += 1;
        state.scripts = nodes.map(|(node, answers)| (node, Script::of(answers))).collect();
        state.others = others.map(Script::of);
        (state.seen, state.tried) = (Vec::new(), Vec::new());
    }

    /// The core whose clock is waited for.
    pub(super) fn watch(&self, stats: Arc<CoreStats>) {
        self.state().stats = stats;
    }

    /// Ends it: nobody is left talking.
    pub(super) fn end(&self) {
        for stream in std::mem::take(&mut self.state().open) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What nodes got, and which were tried, since this was last asked.
    pub(super) fn take(&self) -> (Vec<Seen>, Vec<Address>) {
        let mut state = self.state();
        (std::mem::take(&mut state.seen), std::mem::take(&mut state.tried))
    }

    /// Where a node is.
    ///
    /// # Errors
    /// When the test has it refuse.
    pub(super) fn door(self: &Arc<Self>, node: Address) -> io::Result<SocketAddr> {
        let mut state = self.state();
        if state.refuses(node) {
            state.tried.push(node);
            let _ = state.script(node).map(Script::take);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if let Some(door) = state.doors.get(&node) {
            return Ok(*door);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let door = listener.local_addr()?;
        state.doors.insert(node, door);
        let town = Arc::clone(self);
        thread::Builder::new().name("node".to_owned()).spawn(move || town.keep(node, &listener))?;
        Ok(door)
    }

    /// A node's life: it ends with the process.
    fn keep(self: &Arc<Self>, node: Address, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let case = {
                let mut state = self.state();
                state.open.extend(stream.try_clone());
                state.case
            };
            let town = Arc::clone(self);
            let _ = thread::Builder::new().name("node".to_owned()).spawn(move || {
                while town.serve(node, &stream, case).is_ok_and(|goes_on| goes_on) {}
                // Dropping it would not close it: the case has it, too.
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    }

    /// One request; whether another may come.
    fn serve(&self, node: Address, mut stream: &TcpStream, case: u64) -> io::Result<bool> {
        stream.set_nodelay(true)?;
        let Some(message) = caller::receive(&mut stream, true, true)? else { return Ok(false) };
        let is_head = message.method == "HEAD";
        let (answer, stats) = {
            let mut state = self.state();
            if state.case != case {
                return Ok(false);
            }
            state.tried.push(node);
            state.seen.push(Seen { node, message });
            let answer = state.script(node).map(Script::take).unwrap_or_default();
            (answer, Arc::clone(&state.stats))
        };
        if let Some(delay) = answer.delay {
            pass(&stats, delay.get());
        }
        match answer.fails {
            Some(Failure::Refused | Failure::Closed) => return Ok(false),
            Some(Failure::Silent) => return self.keep_silent(stream, &stats).map(|()| false),
            Some(Failure::Cut) | None => {}
        }
        let bytes = bytes_of(&answer, is_head);
        if answer.fails == Some(Failure::Cut) {
            stream.write_all(&bytes[..bytes.len() - bytes.len().min(1)])?;
            return Ok(false);
        }
        stream.write_all(&bytes)?;
        // A connection that stays would hide that the next is refused.
        Ok(!self.state().refuses(node))
    }

    /// Lets time pass until the gateway gives up.
    fn keep_silent(&self, mut stream: &TcpStream, stats: &CoreStats) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let (mut passed, mut step) = (Duration::ZERO, Duration::from_secs(1));
        while passed < SILENCE_MAX {
            pass(stats, step);
            passed += step;
            step = step.saturating_mul(2);
            match stream.read(&mut [0; 1024]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

/// A body as it goes over the wire.
pub(super) fn body_of(body: Option<&serde_json::Value>) -> Vec<u8> {
    match body {
        None | Some(serde_json::Value::Null) => Vec::new(),
        Some(serde_json::Value::String(text)) => text.clone().into_bytes(),
        Some(value) => value.to_string().into_bytes(),
    }
}

/// The lines of headers.
pub(super) fn lines_of<'a>(
    headers: impl Iterator<Item = (&'a String, &'a OneOrMore<Text>)>,
) -> Vec<(String, String)> {
    let each = headers
        .flat_map(|(name, values)| values.all().iter().map(move |value| (name.clone(), value.0.clone())));
    each.collect()
}

fn bytes_of(answer: &Answer, is_head: bool) -> Vec<u8> {
    let status = answer.status.unwrap_or(200);
    let body = body_of(answer.body.as_ref());
    let lines = lines_of(answer.headers.iter());
    let has = |wanted: &str| lines.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut text = format!("HTTP/1.1 {status} Told\r\n");
    for (name, value) in &lines {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_chunked = has("transfer-encoding");
    let has_body = !matches!(status, 204 | 304);
    if !is_chunked && has_body && !has("content-length") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut bytes = (text + "\r\n").into_bytes();
    match (is_head || !has_body, is_chunked) {
        (true, _) => {}
        (false, false) => bytes.extend(body),
        (false, true) => {
            if !body.is_empty() {
                bytes.extend(format!("{:x}\r\n", body.len()).bytes());
                bytes.extend(body);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
    }
    bytes
}
