//! What one connection says and hears, one request after the other: answers of HTTP/1.1, and messages that are to come
//! back as they were sent.

use std::rc::Rc;

use super::Fault;
use super::requests::{Protocol, Requests};
use crate::framing::Body;
use crate::websocket;

const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Masking is against caches between; any mask is as good for what is measured.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0xe9];
/// The beginning of each message: who sent it, and which of its messages it is.
const TAG_BYTES: usize = 8;

/// What a step leaves of a connection.
pub(crate) enum Step {
    Wait,
    /// There is more to say before an answer is expected.
    Send,
    Answered(u16),
    Failed(Fault),
}

pub(crate) enum Talk {
    Http1(Answer),
    Echo(Echo),
}

/// A request of HTTP/1.1 and its answer.
pub(crate) struct Answer {
    text: Rc<[u8]>,
    bodiless: bool,
    /// The beginning of a head.
    held: Vec<u8>,
    /// None before the head is read.
    head: Option<(u16, Body)>,
    close: bool,
}

/// Messages over TCP or WebSocket.
pub(crate) struct Echo {
    web: bool,
    open: bool,
    opening: Rc<[u8]>,
    message: Vec<u8>,
    out: Vec<u8>,
    expected: Vec<u8>,
    matched: usize,
    held: Vec<u8>,
    slot: u32,
    count: u32,
}

impl Talk {
    pub(crate) fn new(requests: &Requests, message_bytes: u16, slot: u32) -> Self {
        let text = requests.texts[0].clone();
        match requests.protocol {
            Protocol::WebSocket | Protocol::Tcp => Self::Echo(Echo {
                web: requests.protocol == Protocol::WebSocket,
                open: false,
                opening: text,
                message: vec![b'm'; usize::from(message_bytes)],
                out: Vec::new(),
                expected: Vec::new(),
                matched: 0,
                held: Vec::new(),
                slot,
                count: 0,
            }),
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => Self::Http1(Answer {
                text,
                bodiless: requests.bodiless,
                held: Vec::new(),
                head: None,
                close: false,
            }),
        }
    }

    /// A request begins, maybe on a new connection.
    pub(crate) fn begin(&mut self, text: &Rc<[u8]>, new: bool) {
        match self {
            Self::Http1(answer) => {
                answer.text = text.clone();
                answer.held.clear();
                (answer.head, answer.close) = (None, false);
            }
            Self::Echo(echo) => echo.begin(new),
        }
    }

    /// What is to be sent now.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Self::Http1(answer) => &answer.text,
            Self::Echo(echo) => &echo.out,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Step {
        match self {
            Self::Http1(answer) => answer.receive(bytes),
            Self::Echo(echo) => echo.receive(bytes),
        }
    }

    /// The server has ended the connection.
    pub(crate) fn end(&mut self) -> Step {
        match self {
            Self::Http1(answer) => match answer.head {
                Some((status, Body::UntilClose)) => {
                    answer.close = true;
                    Step::Answered(status)
                }
                _ => Step::Failed(Fault::Closed),
            },
            Self::Echo(_) => Step::Failed(Fault::Closed),
        }
    }

    /// Whether the connection ends with this answer.
    pub(crate) fn closes(&self) -> bool {
        matches!(self, Self::Http1(answer) if answer.close)
    }
}

impl Answer {
    fn receive(&mut self, bytes: &[u8]) -> Step {
        if self.held.is_empty() {
            return self.take(bytes);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.take(&held)
    }

    /// Looks at what came: the head, if it was not there before, and the body.
    fn take(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while self.head.is_none() {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&bytes[at..]) {
                Ok(httparse::Status::Complete(head)) => at += head,
                Ok(httparse::Status::Partial) if bytes.len() - at < HEAD_BYTES_MAX => {
                    self.held.extend_from_slice(&bytes[at..]);
                    return Step::Wait;
                }
                _ => return Step::Failed(Fault::Malformed),
            }
            let status = response.code.unwrap_or(0);
            if status < 200 {
                continue;
            }
            let body = match Body::of(response.headers, Body::UntilClose) {
                _ if self.bodiless || status == 204 || status == 304 => Body::Done,
                Ok(body) => body,
                Err(_) => return Step::Failed(Fault::Malformed),
            };
            self.close = response.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
            });
            self.head = Some((status, body));
        }
        let Some((status, body)) = &mut self.head else { return Step::Wait };
        match body.take(&bytes[at..]) {
            Ok(taken) if body.is_done() && at + taken == bytes.len() => Step::Answered(*status),
            Ok(_) if body.is_done() => Step::Failed(Fault::Malformed),
            Ok(_) => Step::Wait,
            Err(_) => Step::Failed(Fault::Malformed),
        }
    }
}

impl Echo {
    fn begin(&mut self, new: bool) {
        if new {
            self.open = !self.web;
            self.held.clear();
        }
        if self.open {
            self.write_message();
        } else {
            self.out.clear();
            self.out.extend_from_slice(&self.opening);
        }
    }

    fn write_message(&mut self) {
        self.count = self.count.wrapping_add(1);
        self.message[..4].copy_from_slice(&self.slot.to_be_bytes());
        self.message[4..TAG_BYTES].copy_from_slice(&self.count.to_be_bytes());
        self.out.clear();
        self.expected.clear();
        self.matched = 0;
        if self.web {
            websocket::write_masked(&mut self.out, websocket::BINARY, &self.message, MASK);
            websocket::write(&mut self.expected, websocket::BINARY, &self.message);
        } else {
            self.out.extend_from_slice(&self.message);
            self.expected.extend_from_slice(&self.message);
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Step {
        if !self.open {
            self.held.extend_from_slice(bytes);
            return self.open();
        }
        let rest = &self.expected[self.matched..];
        // Gateways pass on the frames they get: other bytes with the same meaning are a mismatch, too.
        if bytes.len() > rest.len() || bytes != &rest[..bytes.len()] {
            return Step::Failed(Fault::Mismatch);
        }
        self.matched += bytes.len();
        if self.matched == self.expected.len() { Step::Answered(200) } else { Step::Wait }
    }

    /// Looks for the answer to the opening; the first message follows it.
    fn open(&mut self) -> Step {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.held) {
            Ok(httparse::Status::Complete(head)) if head == self.held.len() => {}
            Ok(httparse::Status::Partial) if self.held.len() < HEAD_BYTES_MAX => return Step::Wait,
            _ => return Step::Failed(Fault::Malformed),
        }
        let accepted = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("sec-websocket-accept")
                && header.value == websocket::ACCEPT.as_bytes()
        });
        if response.code != Some(101) || !accepted {
            return Step::Failed(Fault::Refused);
        }
        self.open = true;
        self.write_message();
        Step::Send
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::load::Options;

    fn talk(url: &str) -> (Talk, Rc<[u8]>) {
        let options = Options::parse_from(["loadgen", url]);
        let requests = Requests::of(&options).unwrap();
        (Talk::new(&requests, options.message_bytes, 7), requests.texts[0].clone())
    }

    #[test]
    fn a_message_must_come_back_as_it_was_sent() {
        let (mut talk, text) = talk("tcp://127.0.0.1:1");
        talk.begin(&text, true);
        let sent = talk.text().to_vec();
        assert_eq!((sent.len(), &sent[..8]), (64, &[0, 0, 0, 7, 0, 0, 0, 1][..]));
        assert!(matches!(talk.take(&sent[..10]), Step::Wait));
        assert!(matches!(talk.take(&sent[10..]), Step::Answered(200)));
        // The message before is another one.
        talk.begin(&text, false);
        assert!(matches!(talk.take(&sent), Step::Failed(Fault::Mismatch)));
        talk.begin(&text, false);
        let more = [talk.text(), b"m"].concat();
        assert!(matches!(talk.take(&more), Step::Failed(Fault::Mismatch)));
    }

    #[test]
    fn a_websocket_is_opened_before_the_first_message() {
        let (mut talk, text) = talk("ws://127.0.0.1:1/");
        talk.begin(&text, true);
        assert!(talk.text().starts_with(b"GET / HTTP/1.1\r\n"));
        let answer = format!("HTTP/1.1 101 S\r\nSec-WebSocket-Accept: {}\r\n\r\n", websocket::ACCEPT);
        assert!(matches!(talk.take(&answer.as_bytes()[..20]), Step::Wait));
        assert!(matches!(talk.take(&answer.as_bytes()[20..]), Step::Send));
        let (frame, _) = websocket::Frame::first(talk.text()).unwrap().unwrap();
        let mut back = Vec::new();
        websocket::write(&mut back, frame.opcode, &frame.payload);
        assert!(matches!(talk.take(&back), Step::Answered(200)));
    }

    #[test]
    fn a_websocket_that_is_not_opened_is_refused() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: x\r\n\r\n",
        ] {
            let (mut talk, text) = talk("ws://127.0.0.1:1/");
            talk.begin(&text, true);
            assert!(matches!(talk.take(answer.as_bytes()), Step::Failed(Fault::Refused)), "{answer}");
        }
    }
}
